//! Peers: a gateway calls its workers with a secret of theirs, and says for whom.
//!
//! The secret is random, comes by a file or the environment, and is compared in constant time. Who
//! has it may act for any caller, so it is as strong as all tokens together; a worker that is given
//! one accepts nothing else, and is not meant to be reached by clients.

use std::collections::BTreeSet;
use std::sync::Arc;

use subtle::ConstantTimeEq as _;
use tonic::Status;
use tonic::metadata::{AsciiMetadataValue, BinaryMetadataValue, MetadataMap};

use super::{Caller, Databases, Gate};

/// The secret, as `Bearer SECRET`, where a client's token stands otherwise.
const AUTHORIZATION: &str = "authorization";
/// The id of the token that the gateway acts for.
const TOKEN: &str = "openduck-token-bin";
/// The databases of that token, separated by newlines, which no name contains; missing: all.
const DATABASES: &str = "openduck-databases-bin";
/// `true` where that token may only read.
const READ_ONLY: &str = "openduck-read-only";

/// The shortest secret that is accepted, in bytes: 128 bits in hexadecimal.
const SECRET_BYTES_MIN: usize = 32;

/// What a gateway and its workers share. Not shown by `Debug`.
#[derive(Clone)]
pub struct Secret(Arc<str>);

/// A secret is too short, or has characters that can't travel in a header.
#[derive(Debug, thiserror::Error)]
#[error(
    "the secret between gateway and worker must have at least {SECRET_BYTES_MIN} visible ASCII characters"
)]
pub struct BadSecret;

impl Secret {
    /// Takes `text`, without white space around it.
    ///
    /// # Errors
    ///
    /// [`BadSecret`].
    pub fn new(text: &str) -> Result<Secret, BadSecret> {
        let text = text.trim();
        if text.len() < SECRET_BYTES_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadSecret);
        }
        Ok(Secret(text.into()))
    }

    fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// Puts the secret and the caller into the metadata of a call to a worker.
pub fn act_for(secret: &Secret, caller: &Caller, metadata: &mut MetadataMap) {
    if let Ok(mut value) = AsciiMetadataValue::try_from(secret.header()) {
        value.set_sensitive(true);
        metadata.insert(AUTHORIZATION, value);
    }
    metadata.insert_bin(
        TOKEN,
        BinaryMetadataValue::from_bytes(caller.token.as_bytes()),
    );
    match &caller.databases {
        Databases::All => {
            metadata.remove_bin(DATABASES);
        }
        Databases::Some(names) => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let names = names.join("\n");
            metadata.insert_bin(DATABASES, BinaryMetadataValue::from_bytes(names.as_bytes()));
        }
    }
    let read_only = if caller.read_only { "true" } else { "false" };
    metadata.insert(READ_ONLY, AsciiMetadataValue::from_static(read_only));
}

/// The gate of a worker that only its gateway may call.
#[derive(Clone, Debug)]
pub struct PeerGate {
    secret: Secret,
}

impl PeerGate {
    /// Admits who knows `secret`.
    pub fn new(secret: Secret) -> PeerGate {
        PeerGate { secret }
    }
}

#[tonic::async_trait]
impl Gate for PeerGate {
    async fn authenticate(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let given = metadata
            .get(AUTHORIZATION)
            .map(AsciiMetadataValue::as_bytes);
        let wanted = self.secret.header();
        if !bool::from(given.unwrap_or_default().ct_eq(wanted.as_bytes())) {
            return Err(Status::unauthenticated(
                "this worker is called by its gateway only; call the gateway",
            ));
        }
        forwarded(metadata)
            .ok_or_else(|| Status::invalid_argument("the gateway did not say for whom it calls"))
    }
}

/// The caller that the metadata of a peer name.
fn forwarded(metadata: &MetadataMap) -> Option<Caller> {
    let text = |name: &str| -> Option<String> {
        let bytes = metadata.get_bin(name)?.to_bytes().ok()?;
        String::from_utf8(bytes.to_vec()).ok()
    };
    let databases = match metadata.contains_key(DATABASES) {
        false => Databases::All,
        true => {
            let names = text(DATABASES)?;
            let names = names.split('\n').filter(|name| !name.is_empty());
            Databases::Some(Arc::new(names.map(str::to_owned).collect::<BTreeSet<_>>()))
        }
    };
    let read_only = match metadata.get(READ_ONLY)?.as_bytes() {
        b"true" => true,
        b"false" => false,
        _ => return None,
    };
    Some(Caller {
        token: text(TOKEN)?.into(),
        databases,
        read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn caller(databases: Databases) -> Caller {
        Caller {
            token: "tök".into(),
            databases,
            read_only: true,
        }
    }

    fn authenticate(metadata: &MetadataMap) -> Result<Caller, Status> {
        let gate = PeerGate::new(Secret::new(SECRET).unwrap());
        pollster::block_on(gate.authenticate(metadata))
    }

    #[test]
    fn a_caller_arrives_as_he_was_sent() {
        let two = Databases::Some(Arc::new(["a".to_owned(), "bö".to_owned()].into()));
        let none = Databases::Some(Arc::default());
        for databases in [Databases::All, two, none] {
            let mut metadata = MetadataMap::new();
            let sent = caller(databases);
            act_for(&Secret::new(SECRET).unwrap(), &sent, &mut metadata);
            assert_eq!(authenticate(&metadata).unwrap(), sent);
        }
    }

    #[test]
    fn without_the_secret_nobody_is_believed() {
        let mut metadata = MetadataMap::new();
        act_for(
            &Secret::new(&SECRET.replace('0', "1")).unwrap(),
            &caller(Databases::All),
            &mut metadata,
        );
        assert_eq!(
            authenticate(&metadata).unwrap_err().code(),
            tonic::Code::Unauthenticated
        );
        metadata.remove(AUTHORIZATION);
        assert_eq!(
            authenticate(&metadata).unwrap_err().code(),
            tonic::Code::Unauthenticated
        );
    }

    #[test]
    fn a_secret_is_long_and_is_never_shown() {
        assert!(Secret::new("short").is_err());
        let secret = Secret::new(SECRET).unwrap();
        assert!(!format!("{secret:?}").contains(SECRET));
    }
}
