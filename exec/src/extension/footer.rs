//! The end of an extension's file: what it was built for, and its signature.
//!
//! The last 512 bytes are eight fields of 32 bytes, padded with zeros, then 256 bytes of signature. From
//! the first: three that are unused, the ABI, the extension's version, DuckDB's version, the platform, and
//! the magic `4`. The signature covers everything before it: it is RSA's (PKCS #1 v1.5, SHA-256) over the
//! SHA-256 sums, one behind the other, of each MiB.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

/// The bytes of a signature, which are those of a key of 2,048 bits.
pub const SIGNATURE_BYTES: usize = 256;
const FOOTER_BYTES: usize = 512;
const FIELD_BYTES: usize = 32;
const MAGIC: &str = "4";
const SUM_EVERY_BYTES: usize = 1 << 20;

/// Why a file is no extension.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// It does not end as an extension does.
    #[error("it does not end as a DuckDB extension does; build it with scripts/build-extension")]
    NoExtension,
    /// A field of its end can't be a part of a path.
    #[error("its end names the {what} {value:?}, which can't be one")]
    Field {
        /// What the field should name.
        what: &'static str,
        /// What stands there.
        value: String,
    },
}

/// What an extension was built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// DuckDB's version, as `v2.0.0`.
    pub duckdb_version: String,
    /// The platform in DuckDB's words, as `linux_amd64`.
    pub platform: String,
}

impl Footer {
    /// Reads the end of an extension's file.
    ///
    /// # Errors
    /// [`FooterError`].
    pub fn read(file: &[u8]) -> Result<Footer, FooterError> {
        let end = file.last_chunk::<FOOTER_BYTES>();
        let end = end.ok_or(FooterError::NoExtension)?;
        let text = |number: usize| {
            let field = &end[FIELD_BYTES * number..FIELD_BYTES * (number + 1)];
            let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(field).into_owned()
        };
        if text(7) != MAGIC {
            return Err(FooterError::NoExtension);
        }
        Ok(Footer {
            duckdb_version: name("version of DuckDB", text(5))?,
            platform: name("platform", text(6))?,
        })
    }
}

/// What may be a part of a path: DuckDB's versions and platforms are no more than this.
fn name(what: &'static str, value: String) -> Result<String, FooterError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match value.starts_with(|c: char| c.is_ascii_alphanumeric()) && value.chars().all(is_plain) {
        true => Ok(value),
        false => Err(FooterError::Field { what, value }),
    }
}

/// Where a file's signature is; empty where the file is too short to have one.
#[must_use]
pub fn signature_range(file: &[u8]) -> Range<usize> {
    file.len().saturating_sub(SIGNATURE_BYTES)..file.len()
}

/// What is signed of a file: the sums of each MiB before its signature.
#[must_use]
pub fn signed_text(file: &[u8]) -> Vec<u8> {
    let signed = &file[..signature_range(file).start];
    let sums = signed.chunks(SUM_EVERY_BYTES).map(Sha256::digest);
    sums.flatten().collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file that ends as an extension does.
    pub(in crate::extension) fn file(content: &[u8], version: &str, platform: &str) -> Vec<u8> {
        let mut file = content.to_vec();
        for text in ["", "", "", "CPP", "0.1.0", version, platform, MAGIC] {
            let mut field = [0; FIELD_BYTES];
            field[..text.len()].copy_from_slice(text.as_bytes());
            file.extend(field);
        }
        file.extend([0; SIGNATURE_BYTES]);
        file
    }

    #[test]
    fn the_end_tells_version_and_platform() {
        let read = Footer::read(&file(b"code", "v2.0.0", "linux_amd64")).unwrap();
        assert_eq!(
            (read.duckdb_version.as_str(), read.platform.as_str()),
            ("v2.0.0", "linux_amd64")
        );
    }

    #[test]
    fn what_is_no_extension_is_refused() {
        let mut wrong_magic = file(b"", "v2.0.0", "linux_amd64");
        wrong_magic[7 * FIELD_BYTES] = b'5';
        for file in [&b""[..], &[0; 511], &[0; 512], &[b'4'; 600], &wrong_magic] {
            assert_eq!(Footer::read(file), Err(FooterError::NoExtension));
        }
    }

    #[test]
    fn no_field_leads_out_of_a_directory() {
        for hostile in ["", "..", "../x", "/etc", "a/b", ".hidden", "a\\b", "a b"] {
            assert!(Footer::read(&file(b"", hostile, "linux_amd64")).is_err());
            assert!(Footer::read(&file(b"", "v2.0.0", hostile)).is_err());
        }
    }

    #[test]
    fn each_mebibyte_has_its_own_sum() {
        for (bytes, sums) in [(0, 1), ((1 << 20) - 256, 1), ((1 << 20) - 255, 2)] {
            let file = file(&vec![7; bytes], "v2.0.0", "linux_amd64");
            assert_eq!(signed_text(&file).len(), 32 * sums, "{bytes} bytes");
        }
    }
}
