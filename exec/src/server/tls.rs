//! TLS: the server's certificate, which may be replaced while it runs, and certificates of clients.
//!
//! The files are looked at every `LOOK_EVERY`; when one changed and all of them are good, new
//! connections get the new certificate. Where they are not good (a half-written file, a key that does not
//! fit), the old ones stay, and the log says why.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where certificates lie.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate and those that it rests on, in PEM, its own first.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Only clients with a certificate from one of these authorities (PEM) are let in.
    pub clients: Option<PathBuf>,
}

/// What is wrong with the certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read, or is no PEM.
    #[error("{what} {path} can't be read: {source}")]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or are of a kind that is not known.
    #[error("the certificate {path} and its key can't be used: {source}")]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The clients' authorities can't be used.
    #[error("the clients' certificates {path} can't be used: {reason}")]
    Clients {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A server's TLS, which follows its files.
pub struct ServerTls {
    pub(super) config: Arc<rustls::ServerConfig>,
    _watch: Watch,
}

impl ServerTls {
    /// Reads the files, and goes on looking at them for as long as this lives.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: &TlsFiles) -> Result<ServerTls, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let current = Arc::new(Current(RwLock::new(certified(files, &provider)?)));
        let verifier = match &files.clients {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(path) => client_verifier(path, &provider)?,
        };
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Certificate {
                path: files.certificate.clone(),
                source,
            })?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let watch = tokio::spawn(follow(files.clone(), provider, current));
        Ok(ServerTls {
            config: Arc::new(config),
            _watch: Watch(watch),
        })
    }
}

struct Watch(tokio::task::JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

async fn follow(files: TlsFiles, provider: Arc<CryptoProvider>, current: Arc<Current>) {
    let mut seen = stamps(&files);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = stamps(&files);
        if now == seen {
            continue;
        }
        match certified(&files, &provider) {
            Ok(key) => {
                *current.0.write() = key;
                tracing::info!(certificate = %files.certificate.display(), "the certificate was replaced");
                seen = now;
            }
            // Looked at again: the other file may follow.
            Err(error) => tracing::warn!(%error, "the certificate stays as it was"),
        }
    }
}

fn stamps(files: &TlsFiles) -> [Option<SystemTime>; 2] {
    [&files.certificate, &files.key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        metadata.modified().ok()
    })
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = || -> Result<Vec<_>, rustls::pki_types::pem::Error> {
        CertificateDer::pem_file_iter(path)?.collect()
    };
    read().map_err(|source| TlsError::File {
        what,
        path: path.to_owned(),
        source,
    })
}

fn certified(files: &TlsFiles, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(&files.certificate, "the certificate")?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::File {
        what: "the private key",
        path: files.key.clone(),
        source,
    })?;
    CertifiedKey::from_der(chain, key, provider)
        .map(Arc::new)
        .map_err(|source| TlsError::Certificate {
            path: files.certificate.clone(),
            source,
        })
}

fn client_verifier(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let refuse = |reason: String| TlsError::Clients {
        path: path.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "the clients' authorities")? {
        roots
            .add(certificate)
            .map_err(|error| refuse(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| refuse(error.to_string()))
}
