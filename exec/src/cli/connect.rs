//! The client's side of a connection: where to, and as whom.
//!
//! Without a token of its own, a command on the gateway's host uses the one that the gateway left in its
//! home, which only its owner can read.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use proto::v1::execution_service_client::ExecutionServiceClient;
use proto::v1::{ExecuteQueryRequest, ExecuteQueryResponse, StreamResultsRequest};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::Context;
use crate::access::token;

const ENDPOINT: &str = "http://127.0.0.1:7878";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const WINDOW_BYTES: u32 = 8 << 20;
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// Where to, and as whom.
#[derive(Args)]
pub(super) struct Connect {
    /// The gateway or worker [default: http://127.0.0.1:7878]
    #[arg(long, value_name = "URL", env = "OPENDUCK_ENDPOINT")]
    endpoint: Option<String>,
    /// The token (better left to the variable) [default: that of this host's own gateway]
    #[arg(
        short,
        long,
        value_name = "TOKEN",
        env = "OPENDUCK_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// Whom to trust, where the address is https: authorities in PEM [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our own certificate and its key, where the gateway wants one: PEM
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// See --client-cert
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

/// A connection.
pub(super) struct Client {
    service: ExecutionServiceClient<Channel>,
    token: Option<MetadataValue<Ascii>>,
}

impl Connect {
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Connects.
    pub(super) async fn open(&self, context: &Context) -> Result<Client> {
        let address = self.endpoint.as_deref().unwrap_or(ENDPOINT);
        let mut endpoint = Endpoint::from_shared(address.to_owned())
            .with_context(|| format!("{address:?} is no URL; it should look like {ENDPOINT}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX);
        if address.starts_with("https:") {
            endpoint = endpoint.tls_config(self.tls()?)?;
        }
        let channel = endpoint.connect().await.map_err(|error| {
            let cause = innermost(&error);
            anyhow!("cannot connect to {address}: {cause}; is `openduck serve` running there?")
        })?;
        let token = match &self.token {
            Some(token) => Some(token.clone()),
            None => own_token(&context.config.home),
        };
        let token = token.map(|token| {
            let mut value = MetadataValue::try_from(format!("Bearer {token}"))
                .context("the token has characters that no token has")?;
            value.set_sensitive(true);
            Ok::<_, anyhow::Error>(value)
        });
        Ok(Client {
            service: ExecutionServiceClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            token: token.transpose()?,
        })
    }

    fn tls(&self) -> Result<ClientTlsConfig> {
        let read =
            |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let mut tls = ClientTlsConfig::new();
        tls = match &self.ca {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
            None => tls.with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(tls)
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

impl Client {
    fn call<T>(&self, message: T) -> tonic::Request<T> {
        let mut call = tonic::Request::new(message);
        if let Some(token) = &self.token {
            call.metadata_mut().insert("authorization", token.clone());
        }
        call
    }

    /// Runs a statement.
    pub(super) async fn execute(
        &mut self,
        request: ExecuteQueryRequest,
    ) -> Result<ExecuteQueryResponse> {
        let call = self.call(request);
        let answer = self.service.execute_query(call).await.map_err(told)?;
        Ok(answer.into_inner())
    }

    /// Reads one stream of its result.
    pub(super) async fn stream(
        &mut self,
        request: StreamResultsRequest,
    ) -> Result<tonic::Streaming<proto::v1::StreamResultsResponse>> {
        let call = self.call(request);
        let answer = self.service.stream_results(call).await.map_err(told)?;
        Ok(answer.into_inner())
    }
}

/// A status as people read it: the server's own words.
pub(super) fn told(status: tonic::Status) -> anyhow::Error {
    match status.message() {
        "" => anyhow!("{}", status.code().description()),
        message => anyhow!("{message}"),
    }
}

fn own_token_path(home: &Path) -> PathBuf {
    home.join("exec").join("token")
}

/// The token that this host's own gateway left in its home.
fn own_token(home: &Path) -> Option<String> {
    let text = fs::read_to_string(own_token_path(home)).ok()?;
    Some(text.trim().to_owned())
}

/// The token of the home's own gateway; made when it is first needed, readable by its owner alone.
pub(super) fn make_own_token(home: &Path) -> Result<String> {
    let path = own_token_path(home);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let (text, _) = token::make(None, false, None);
    // Written whole before it has its name, so that nobody ever reads a part of it.
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        writeln!(file, "{text}")?;
        let linked = fs::hard_link(&new, &path);
        fs::remove_file(&new)?;
        linked
    };
    match write() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("cannot read {}", path.display())),
        written => written
            .map(|()| text)
            .with_context(|| format!("cannot write {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_homes_own_token_is_made_once_and_for_its_owner() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(own_token(home.path()), None);
        let made = make_own_token(home.path()).unwrap();
        assert_eq!(make_own_token(home.path()).unwrap(), made);
        assert_eq!(own_token(home.path()), Some(made));
        let mode = fs::metadata(own_token_path(home.path()))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let left = fs::read_dir(home.path().join("exec")).unwrap().count();
        assert_eq!(left, 1);
    }
}
