//! Tokens: what a client shows, and the gate that looks them up in the catalog.
//!
//! A token is `od_<id>_<secret>`: the id, which is no secret, finds its row; the secret is 256 random
//! bits, of which the catalog holds the SHA-256 and nothing else. Hashes are compared in constant time.
//!
//! The catalog's tokens are read anew at most every `FRESH`, so a revoked token is refused within
//! that time; a token that is not known yet is looked for, but not more often than every `RETRY`,
//! whatever clients send: a call with one may wait for so long. While the catalog can't be read, what was read last is believed for
//! `STALE_MAX`: a short failure of the catalog stops nobody, and a long one does not make revoking
//! impossible.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use layerd::catalog::service::{NewToken, Token};
use layerd::id::{Timestamp, TokenId, random_u64};
use layerd::store::Store;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::{Caller, Databases, Gate};

/// How old what is known of the tokens may be.
const FRESH: Duration = Duration::from_secs(2);
/// How soon the catalog is asked again for a token that it did not have.
const RETRY: Duration = Duration::from_millis(200);
/// How long tokens are believed while the catalog can't be read.
const STALE_MAX: Duration = Duration::from_secs(30);

/// The only words that a wrong credential gets, so that they tell nothing.
const REFUSAL: &str = "this token is not valid; ask for another one, or set OPENDUCK_TOKEN";

/// The id that callers with the operator's own token have.
const OPERATOR: &str = "operator";

/// A new token: its text, which is told once, and what the catalog is to remember.
#[must_use]
pub fn make(
    databases: Option<Vec<layerd::id::DatabaseName>>,
    read_only: bool,
    lifetime: Option<Duration>,
) -> (String, NewToken) {
    let mut secret = [0; 32];
    for part in secret.chunks_mut(8) {
        part.copy_from_slice(&random_u64().to_ne_bytes());
    }
    let id = TokenId::random();
    let text = format!("od_{id}_{}", URL_SAFE_NO_PAD.encode(secret));
    let hash = hash(text.as_bytes());
    let token = NewToken {
        id,
        hash,
        databases,
        read_only,
        lifetime,
    };
    (text, token)
}

fn hash(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// The id in a token's text.
fn id_in(text: &str) -> Option<TokenId> {
    let (id, _secret) = text.strip_prefix("od_")?.split_once('_')?;
    id.parse().ok()
}

/// The token in a call's metadata.
fn shown(metadata: &MetadataMap) -> Option<&str> {
    let text = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

/// Who is let in without a token of the catalog.
#[derive(Clone, Debug)]
pub enum Operator {
    /// Nobody.
    Nobody,
    /// Whoever shows this token, of which only the hash is kept.
    Token([u8; 32]),
}

impl Operator {
    /// Who shows the token `text`.
    #[must_use]
    pub fn with_token(text: &str) -> Operator {
        Operator::Token(hash(text.as_bytes()))
    }

    fn admits(&self, token: Option<&str>) -> bool {
        match (self, token) {
            (Operator::Token(wanted), Some(token)) => {
                bool::from(hash(token.as_bytes()).ct_eq(wanted))
            }
            _ => false,
        }
    }
}

/// Admits who shows a token of the catalog, or the operator's.
pub struct TokenGate {
    store: Arc<Store>,
    operator: Operator,
    /// The databases that the operator's own token opens.
    opens: Databases,
    known: Mutex<Known>,
    /// One reading of the catalog at a time.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    tokens: HashMap<TokenId, Token>,
    /// The catalog's clock when they were read, and ours.
    read: Option<(Timestamp, Instant)>,
    tried: Option<Instant>,
}

impl Known {
    fn age(&self) -> Option<Duration> {
        self.read.map(|(_, at)| at.elapsed())
    }

    /// The catalog's clock now.
    fn now(&self) -> Option<Timestamp> {
        let (then, at) = self.read?;
        let since = i64::try_from(at.elapsed().as_nanos()).unwrap_or(i64::MAX);
        Some(Timestamp(then.0.saturating_add(since)))
    }

    fn caller(&self, id: TokenId, text: &str) -> Option<Caller> {
        let token = self.tokens.get(&id)?;
        let is_it = bool::from(hash(text.as_bytes()).ct_eq(&token.hash));
        if !is_it || !token.is_good_at(self.now()?) {
            return None;
        }
        let databases = match &token.databases {
            None => Databases::All,
            Some(names) => Databases::Some(Arc::new(
                names
                    .iter()
                    .map(ToString::to_string)
                    .collect::<BTreeSet<_>>(),
            )),
        };
        Some(Caller {
            token: token.id.to_string().into(),
            databases,
            read_only: token.read_only,
        })
    }
}

impl TokenGate {
    /// Admits the tokens of the store's catalog, and `operator` to the databases `opens`.
    #[must_use]
    pub fn new(store: Arc<Store>, operator: Operator, opens: Databases) -> TokenGate {
        TokenGate {
            store,
            operator,
            opens,
            known: Mutex::default(),
            reading: tokio::sync::Mutex::new(()),
        }
    }

    async fn admit(&self, token: Option<&str>) -> Result<Caller, Status> {
        if self.operator.admits(token) {
            return Ok(Caller {
                token: OPERATOR.into(),
                databases: self.opens.clone(),
                read_only: false,
            });
        }
        let refused = || Status::unauthenticated(REFUSAL);
        let text = token.ok_or_else(refused)?;
        let id = id_in(text).ok_or_else(refused)?;
        let is_known = self.known.lock().tokens.contains_key(&id);
        if !is_known {
            // It may have been made since: who shows it waits for a moment, and is not refused.
            let age = self.known.lock().age();
            if let Some(left) = age.and_then(|age| RETRY.checked_sub(age)) {
                tokio::time::sleep(left).await;
            }
        }
        self.read_again(if is_known { FRESH } else { RETRY })
            .await?;
        self.known.lock().caller(id, text).ok_or_else(refused)
    }

    /// Reads the tokens anew where what is known is older than `age_max`.
    async fn read_again(&self, age_max: Duration) -> Result<(), Status> {
        let is_young = |known: &Known| known.age().is_some_and(|age| age < age_max);
        if is_young(&self.known.lock()) {
            return Ok(());
        }
        let _one = self.reading.lock().await;
        let tried = {
            let mut known = self.known.lock();
            if is_young(&known) {
                return Ok(());
            }
            known.tried.replace(Instant::now())
        };
        // A catalog that is away is not asked by every call.
        let rested = tried.is_none_or(|tried| tried.elapsed() >= RETRY);
        let read = match rested {
            false => Err("it did not answer a moment ago".to_owned()),
            true => {
                let store = Arc::clone(&self.store);
                let at = Instant::now();
                tokio::task::spawn_blocking(move || store.catalog().tokens())
                    .await
                    .map_err(|error| error.to_string())
                    .and_then(|read| read.map_err(|error| error.to_string()))
                    .map(|read| (read, at))
            }
        };
        let mut known = self.known.lock();
        match read {
            Ok((read, at)) => {
                known.tokens = read
                    .tokens
                    .into_iter()
                    .map(|token| (token.id, token))
                    .collect();
                known.read = Some((read.now, at));
                Ok(())
            }
            Err(_) if known.age().is_some_and(|age| age < STALE_MAX) => Ok(()),
            Err(error) => {
                tracing::warn!(error, "tokens can't be read");
                Err(Status::unavailable(
                    "tokens can't be checked now, because the catalog does not answer; try again",
                ))
            }
        }
    }
}

#[tonic::async_trait]
impl Gate for TokenGate {
    async fn authenticate(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        self.admit(shown(metadata)).await
    }
}

#[cfg(test)]
mod tests {
    use layerd::store::StoreConfig;
    use tonic::Code;

    use super::*;

    fn store() -> (tempfile::TempDir, Arc<Store>) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreConfig::of_home(home.path()));
        (home, store.unwrap())
    }

    fn gate(store: &Arc<Store>, operator: Operator) -> TokenGate {
        TokenGate::new(Arc::clone(store), operator, Databases::All)
    }

    fn bearer(token: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
        metadata
    }

    fn names(names: &[&str]) -> Option<Vec<layerd::id::DatabaseName>> {
        Some(names.iter().map(|name| name.parse().unwrap()).collect())
    }

    #[tokio::test]
    async fn a_token_opens_what_it_was_made_for() {
        let (_home, store) = store();
        let (text, new) = make(names(&["a"]), true, None);
        store.catalog().add_token(&new).unwrap();
        let caller = gate(&store, Operator::Nobody)
            .authenticate(&bearer(&text))
            .await
            .unwrap();
        assert_eq!(&*caller.token, new.id.to_string());
        assert!(caller.read_only);
        assert!(caller.may_use("a").is_ok());
        assert_eq!(
            caller.may_use("b").unwrap_err().code(),
            Code::PermissionDenied
        );
    }

    #[tokio::test]
    async fn every_wrong_credential_gets_the_same_words() {
        let (_home, store) = store();
        let (text, new) = make(None, false, None);
        store.catalog().add_token(&new).unwrap();
        let (short_lived, expired) = make(None, false, Some(Duration::ZERO));
        store.catalog().add_token(&expired).unwrap();
        let (unknown, _) = make(None, false, None);
        let mut forged = text.clone();
        forged.pop();
        forged.push(if text.ends_with('A') { 'B' } else { 'A' });
        let gate = gate(&store, Operator::with_token("mine"));
        for wrong in [&unknown, &forged, &short_lived, "", "x", "od_", "od_1_2"] {
            let status = gate.authenticate(&bearer(wrong)).await.unwrap_err();
            assert_eq!(
                (status.code(), status.message()),
                (Code::Unauthenticated, REFUSAL),
                "{wrong}"
            );
        }
        let none = gate.authenticate(&MetadataMap::new()).await.unwrap_err();
        assert_eq!(none.code(), Code::Unauthenticated);
        assert!(gate.authenticate(&bearer(&text)).await.is_ok());
    }

    #[tokio::test]
    async fn a_revoked_token_is_refused_within_seconds() {
        let (_home, store) = store();
        let (text, new) = make(None, false, None);
        store.catalog().add_token(&new).unwrap();
        let gate = gate(&store, Operator::Nobody);
        assert!(gate.authenticate(&bearer(&text)).await.is_ok());
        store.catalog().revoke_token(new.id).unwrap();
        let begin = Instant::now();
        while gate.authenticate(&bearer(&text)).await.is_ok() {
            assert!(begin.elapsed() < FRESH + Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    #[tokio::test]
    async fn a_token_that_was_made_a_moment_ago_is_found() {
        let (_home, store) = store();
        let gate = gate(&store, Operator::Nobody);
        assert!(gate.authenticate(&bearer("od_0_0")).await.is_err());
        tokio::time::sleep(RETRY).await;
        let (text, new) = make(None, false, None);
        store.catalog().add_token(&new).unwrap();
        assert!(gate.authenticate(&bearer(&text)).await.is_ok());
    }

    #[tokio::test]
    async fn the_operators_token_needs_no_row() {
        let (_home, store) = store();
        let gate = gate(&store, Operator::with_token("s3cret"));
        let caller = gate.authenticate(&bearer("s3cret")).await.unwrap();
        assert_eq!(&*caller.token, OPERATOR);
        assert!(gate.authenticate(&bearer("s3cres")).await.is_err());
    }

    #[test]
    fn tokens_do_not_repeat_and_name_their_rows() {
        let (one, new) = make(None, false, None);
        assert_eq!(id_in(&one), Some(new.id));
        assert_ne!(one, make(None, false, None).0);
        assert_eq!(new.hash, hash(one.as_bytes()));
    }
}
