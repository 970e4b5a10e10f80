//! How a server is trusted: what libpq's `sslmode` says, by rustls.
//!
//! As libpq does it, `prefer` and `require` encrypt and trust any server, `require` with a file of
//! roots is `verify-ca`, and the default is `prefer`. Whoever connects over a network that others
//! share wants `verify-full`.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::catalog::sql::fault::{Fault, Outcome};

/// How a server is trusted.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) trust: Trust,
    /// A file of certificates to trust instead of the system's.
    roots: Option<PathBuf>,
}

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// No encryption.
    Off,
    /// Encryption, if it has it.
    IfOffered,
    /// Encryption.
    Any,
    /// A certificate by a trusted authority.
    Authority,
    /// The same, for the name that was connected to.
    AuthorityAndName,
}

impl Tls {
    /// What the URL's options say; `None` if the mode is none.
    pub(super) fn new(mode: Option<&str>, roots: Option<PathBuf>) -> Option<Tls> {
        let trust = match mode.unwrap_or("prefer") {
            "disable" => Trust::Off,
            "prefer" => Trust::IfOffered,
            "require" if roots.is_some() => Trust::Authority,
            "require" => Trust::Any,
            "verify-ca" => Trust::Authority,
            "verify-full" => Trust::AuthorityAndName,
            _ => return None,
        };
        Some(Tls { trust, roots })
    }
}

/// What makes encrypted connections.
pub(super) fn connector(tls: &Tls) -> Outcome<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let config = match tls.trust {
        Trust::Off | Trust::IfOffered | Trust::Any => config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider))),
        Trust::Authority => {
            let roots = Arc::new(roots(tls)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(unusable)?;
            config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyName(verifier)))
        }
        Trust::AuthorityAndName => config.with_root_certificates(roots(tls)?),
    };
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

fn unusable(error: impl std::fmt::Display) -> Fault {
    Fault::Unusable(format!("no encryption: {error}"))
}

fn roots(tls: &Tls) -> Outcome<RootCertStore> {
    let mut store = RootCertStore::empty();
    match &tls.roots {
        Some(file) => {
            let failed = |error: &dyn std::fmt::Display| {
                Fault::Unusable(format!(
                    "sslrootcert {} has no certificates: {error}",
                    file.display()
                ))
            };
            for certificate in CertificateDer::pem_file_iter(file).map_err(|e| failed(&e))? {
                let certificate = certificate.map_err(|e| failed(&e))?;
                store.add(certificate).map_err(|e| failed(&e))?;
            }
            if store.is_empty() {
                return Err(failed(&"it holds none in PEM form"));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                return Err(Fault::Unusable(
                    "this system trusts no certificates; name a file of them with sslrootcert="
                        .to_owned(),
                ));
            }
        }
    }
    Ok(store)
}

/// Accepts every certificate, if the server has its key.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts certificates by a trusted authority, whatever name they are for.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is what it looks at last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
