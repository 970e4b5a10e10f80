//! The way to one endpoint: a connection that is made at the first use and again when it is lost.
//!
//! A process that was forked never touches its parent's connection.

use std::time::Duration;

use parking_lot::Mutex;
use proto::v1::execution_service_client::ExecutionServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::failure::Failure;
use crate::runtime;

/// The largest message that is taken: a row larger than the usual batches may come.
const MESSAGE_MAX: usize = 256 << 20;

/// How much may be on its way in one stream, and in all.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// How long a server may be silent before it is asked for a sign of life, and how long that may take.
/// Only while something is asked of it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Where to, and as whom.
#[derive(Clone, Default)]
pub struct Config {
    /// `http://host:port` or `https://…`.
    pub endpoint: String,
    /// Empty: none.
    pub token: String,
    /// A file of certificates, in PEM, that are trusted beside the system's; empty: none.
    pub ca_file: String,
    /// How long to wait for a connection, in ms.
    pub connect_timeout_ms: u64,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the token.
        out.debug_struct("Config")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// The service, as called with a token.
pub type Service = ExecutionServiceClient<InterceptedService<Channel, Authorize>>;

/// A client of one endpoint, shared by all threads.
#[derive(Debug)]
pub struct Client {
    config: Config,
    token: Option<MetadataValue<Ascii>>,
    endpoint: Endpoint,
    service: Mutex<Option<(u32, Service)>>,
}

/// Puts the token into each call.
#[derive(Clone, Debug)]
pub struct Authorize(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for Authorize {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Client {
    /// Checks the configuration; nothing is connected yet.
    ///
    /// # Errors
    /// The endpoint is no URL, the token can't be sent, or the file of certificates can't be read.
    pub fn new(config: Config) -> Result<Self, Failure> {
        let wrong = |what: &dyn std::fmt::Display| {
            Failure::new(
                "Invalid Input",
                format!(
                    "the ENDPOINT {:?} is not usable: {what}; write it as http://host:port or https://host:port",
                    config.endpoint
                ),
            )
        };
        let mut endpoint =
            Endpoint::from_shared(config.endpoint.clone()).map_err(|error| wrong(&error))?;
        let scheme = endpoint.uri().scheme_str().unwrap_or_default().to_owned();
        if !matches!(scheme.as_str(), "http" | "https") || endpoint.uri().host().is_none() {
            return Err(wrong(&"it is no URL of http or https"));
        }
        if scheme == "https" {
            let mut tls = ClientTlsConfig::new().with_native_roots();
            if !config.ca_file.is_empty() {
                let pem = std::fs::read(&config.ca_file).map_err(|error| {
                    Failure::io(format!(
                        "cannot read the CA file {:?}: {error}",
                        config.ca_file
                    ))
                })?;
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            endpoint = endpoint.tls_config(tls).map_err(|error| wrong(&error))?;
        }
        let token = match config.token.as_str() {
            "" => None,
            token => {
                let mut value: MetadataValue<Ascii> =
                    format!("Bearer {token}").parse().map_err(|_| {
                        Failure::new(
                            "Invalid Input",
                            "the TOKEN has characters that no token has",
                        )
                    })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let endpoint = endpoint
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(SIGN_OF_LIFE)
            .keep_alive_timeout(SIGN_OF_LIFE * 2);
        Ok(Self {
            config,
            token,
            endpoint,
            service: Mutex::new(None),
        })
    }

    /// The endpoint, for messages.
    pub fn endpoint(&self) -> &str {
        &self.config.endpoint
    }

    /// The service, over this process's connection.
    ///
    /// # Errors
    /// The runtime could not be started.
    pub fn service(&self) -> Result<Service, Failure> {
        let (process, runtime) = runtime::runtime()?;
        let mut known = match self.service.try_lock_for(Duration::from_secs(5)) {
            Some(known) => known,
            None => return Err(Failure::io("the client's lock was lost in a fork")),
        };
        if let Some((owner, service)) = &*known
            && *owner == process
        {
            return Ok(service.clone());
        }
        let _inside = runtime.enter();
        let channel = self.endpoint.connect_lazy();
        let service =
            ExecutionServiceClient::with_interceptor(channel, Authorize(self.token.clone()))
                .max_decoding_message_size(MESSAGE_MAX)
                .max_encoding_message_size(MESSAGE_MAX);
        // A parent's connection is not ours to close.
        if let Some(parents) = known.replace((process, service.clone())) {
            std::mem::forget(parents);
        }
        Ok(service)
    }
}
