//! The key that signs extensions: RSA with 2,048 bits, which is what DuckDB asks for.
//!
//! It lies in a PEM file (PKCS #8) that only its owner can read, is made once, and is never written over.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pem::Pem;
use sha2::{Digest as _, Sha256};

use super::footer::{SIGNATURE_BYTES, signature_range, signed_text};

const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";

/// What is wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is one already, and it stays.
    #[error("there is a key in {0} already; it is not written over, since clients trust it")]
    Exists(PathBuf),
    /// There is none.
    #[error("there is no key in {0}; `openduck keys create` makes one")]
    Missing(PathBuf),
    /// Its file can't be read or written.
    #[error("the key {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no key that DuckDB takes.
    #[error("{0} holds no RSA key of 2,048 bits in PKCS #8, which is what DuckDB takes")]
    Unfit(PathBuf),
    /// The machine's cryptography failed; trying again may help.
    #[error("the cryptography library failed")]
    Cryptography,
}

/// A key that signs.
pub struct SigningKey(KeyPair);

impl SigningKey {
    /// Makes a key and its file, which only the caller can read.
    ///
    /// # Errors
    /// [`KeyError`]; where there is a file already, it stays as it is.
    pub fn create(path: &Path) -> Result<SigningKey, KeyError> {
        let failed = |source| KeyError::File {
            path: path.to_owned(),
            source,
        };
        if path.try_exists().map_err(failed)? {
            return Err(KeyError::Exists(path.to_owned()));
        }
        let key = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Cryptography)?;
        let der: Pkcs8V1Der<'_> = key.as_der().map_err(|_| KeyError::Cryptography)?;
        let text = pem::encode(&Pem::new(PRIVATE, der.as_ref()));
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(failed)?;
        // Written whole before it has its name, which must be new: of two at once, one is refused.
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(parent)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(SigningKey(key)),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Err(KeyError::Exists(path.to_owned()))
            }
            Err(error) => Err(failed(error.error)),
        }
    }

    /// Reads a key's file.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(path: &Path) -> Result<SigningKey, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => KeyError::Missing(path.to_owned()),
            io::ErrorKind::InvalidData => KeyError::Unfit(path.to_owned()),
            _ => KeyError::File {
                path: path.to_owned(),
                source,
            },
        })?;
        let unfit = || KeyError::Unfit(path.to_owned());
        let pem = pem::parse(text).map_err(|_| unfit())?;
        let key = KeyPair::from_pkcs8(pem.contents()).map_err(|_| unfit())?;
        if pem.tag() != PRIVATE || key.public_modulus_len() != SIGNATURE_BYTES {
            return Err(unfit());
        }
        Ok(SigningKey(key))
    }

    /// Its public half.
    ///
    /// # Errors
    /// Where the cryptography library fails.
    pub fn public(&self) -> Result<PublicKey, KeyError> {
        let der: PublicKeyX509Der<'_> = self
            .0
            .public_key()
            .as_der()
            .map_err(|_| KeyError::Cryptography)?;
        Ok(PublicKey(der.as_ref().to_vec()))
    }

    /// Writes the signature into an extension's file, which must end as one does.
    ///
    /// # Errors
    /// Where the cryptography library fails.
    pub fn sign(&self, file: &mut [u8]) -> Result<(), KeyError> {
        let text = signed_text(file);
        let place = signature_range(file);
        self.0
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                &text,
                &mut file[place],
            )
            .map_err(|_| KeyError::Cryptography)
    }
}

/// The half of a key that clients have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// As SQL takes it, on one line: `… USING PUBLIC KEY '…'`.
    #[must_use]
    pub fn text(&self) -> String {
        STANDARD.encode(&self.0)
    }

    /// As a PEM file holds it.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode(&Pem::new(PUBLIC, self.0.as_slice()))
    }

    /// What DuckDB shows of it: `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut text = "sha256:".to_owned();
        for byte in Sha256::digest(&self.0) {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::super::footer::tests::file;
    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep").join("key.pem");
        assert!(matches!(SigningKey::read(&path), Err(KeyError::Missing(_))));
        let made = SigningKey::create(&path).unwrap().public().unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(
            SigningKey::create(&path),
            Err(KeyError::Exists(_))
        ));
        assert_eq!(SigningKey::read(&path).unwrap().public().unwrap(), made);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_signature_fits_its_file_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let key = SigningKey::create(&directory.path().join("key")).unwrap();
        let mut signed = file(&vec![7; 3 << 20], "v2.0.0", "linux_amd64");
        key.sign(&mut signed).unwrap();
        let public = key.public().unwrap();
        let verify = |file: &[u8]| {
            let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public.0);
            let signature = &file[signature_range(file)];
            key.verify(&signed_text(file), signature).is_ok()
        };
        assert!(verify(&signed));
        for place in [0, 1 << 20, signed.len() - 300, signed.len() - 1] {
            let mut changed = signed.clone();
            changed[place] ^= 1;
            assert!(!verify(&changed), "byte {place}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let public = SigningKey::create(&directory.path().join("other"))
            .and_then(|key| key.public())
            .unwrap();
        let small = pem::encode(&Pem::new(PRIVATE, [1, 2, 3]));
        for text in ["", "nothing", &public.pem(), &small] {
            fs::write(&path, text).unwrap();
            assert!(matches!(SigningKey::read(&path), Err(KeyError::Unfit(_))));
        }
    }
}
