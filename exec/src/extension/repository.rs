//! A repository: signed extensions in a directory, as DuckDB asks for them.
//!
//! `<DuckDB's version>/<platform>/<name>.duckdb_extension.gz`, and `.well-known/duckdb-extension-repo.json`,
//! which names the key for clients that can read it before they trust anything. DuckDB takes the directory
//! itself as a repository, and the gateway serves it as it is.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::footer::{Footer, FooterError};
use super::key::{KeyError, SigningKey};

const SUFFIX: &str = ".duckdb_extension";
const KEYS: &str = ".well-known/duckdb-extension-repo.json";

/// Why a file was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// DuckDB would not find its way into a file of this name.
    #[error("{0}: an extension's file is called NAME.duckdb_extension, of letters, digits and _")]
    Name(PathBuf),
    /// It is no extension.
    #[error("{path}: {source}")]
    Footer {
        /// The file.
        path: PathBuf,
        /// Why.
        source: FooterError,
    },
    /// It can't be signed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The extension's name.
    pub name: String,
    /// What it is for.
    pub footer: Footer,
    /// Where it lies now.
    pub path: PathBuf,
}

/// Signs an extension's file and puts it into a repository; one that was there is replaced.
///
/// # Errors
/// [`PublishError`]; the repository is then as it was.
pub fn publish(
    file: &Path,
    key: &SigningKey,
    repository: &Path,
) -> Result<Published, PublishError> {
    let name = name_of(file).ok_or_else(|| PublishError::Name(file.to_owned()))?;
    let mut content = fs::read(file).map_err(|source| PublishError::File {
        path: file.to_owned(),
        source,
    })?;
    let footer = Footer::read(&content).map_err(|source| PublishError::Footer {
        path: file.to_owned(),
        source,
    })?;
    key.sign(&mut content)?;
    let folder = Path::new(&footer.duckdb_version).join(&footer.platform);
    let path = repository.join(folder).join(format!("{name}{SUFFIX}.gz"));
    write_whole(&path, |file| {
        let mut packed = GzEncoder::new(file, Compression::default());
        packed.write_all(&content)?;
        packed.finish().map(drop)
    })?;
    let keys = json!({ "signature_keys": [key.public()?.pem()] });
    write_whole(&repository.join(KEYS), |file| writeln!(file, "{keys:#}"))?;
    Ok(Published { name, footer, path })
}

/// The name that DuckDB will know it by, which is also a part of its entry point's.
fn name_of(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(is_plain)).then(|| name.to_owned())
}

/// Writes a file that is whole or not there, and that everybody may read.
fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut fs::File) -> io::Result<()>,
) -> Result<(), PublishError> {
    let written = || {
        let parent = path.parent().unwrap_or(path);
        fs::create_dir_all(parent)?;
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(parent)?;
        write(file.as_file_mut())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    written().map_err(|source| PublishError::File {
        path: path.to_owned(),
        source,
    })
}

/// What a repository has under one name, as `v2.0.0/linux_amd64`, sorted.
#[must_use]
pub fn builds(repository: &Path) -> Vec<String> {
    let folders = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        paths
            .filter(|path| path.is_dir() && !path.ends_with(".well-known"))
            .collect()
    };
    let platforms = folders(repository).into_iter().flat_map(|v| folders(&v));
    let mut found: Vec<String> = platforms
        .filter_map(|path| Some(path.strip_prefix(repository).ok()?.to_str()?.to_owned()))
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::footer::tests::file;
    use super::*;

    #[test]
    fn what_is_published_is_signed_packed_and_replaces_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let (root, key) = (directory.path(), directory.path().join("key"));
        let key = SigningKey::create(&key).unwrap();
        let repository = root.join("repository");
        let built = root.join("openduck.duckdb_extension");
        for content in ["first", "second"] {
            let content = file(content.as_bytes(), "v2.0.0", "linux_amd64");
            fs::write(&built, &content).unwrap();
            let published = publish(&built, &key, &repository).unwrap();
            assert_eq!(
                published.path,
                repository.join("v2.0.0/linux_amd64/openduck.duckdb_extension.gz")
            );
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(fs::File::open(&published.path).unwrap())
                .read_to_end(&mut unpacked)
                .unwrap();
            let signature = unpacked.split_off(content.len() - 256);
            assert_eq!(unpacked, content[..content.len() - 256]);
            assert_ne!(signature, [0; 256]);
        }
        assert_eq!(builds(&repository), ["v2.0.0/linux_amd64"]);
        let keys = fs::read_to_string(repository.join(KEYS)).unwrap();
        let keys: serde_json::Value = serde_json::from_str(&keys).unwrap();
        assert_eq!(
            keys["signature_keys"][0],
            key.public().unwrap().pem().as_str()
        );
    }

    #[test]
    fn what_is_no_extension_leaves_no_trace() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let key = SigningKey::create(&root.join("key")).unwrap();
        let good = file(b"", "v2.0.0", "linux_amd64");
        let hostile = file(b"", "v2.0.0", "../../etc");
        for (name, content) in [
            ("openduck.so", &good),
            (".duckdb_extension", &good),
            ("Open Duck.duckdb_extension", &good),
            ("openduck.duckdb_extension", &hostile),
            ("openduck.duckdb_extension", &b"short".to_vec()),
        ] {
            let built = root.join(name);
            fs::write(&built, content).unwrap();
            let repository = root.join("repository");
            assert!(publish(&built, &key, &repository).is_err(), "{name}");
            assert!(!repository.exists());
        }
    }
}
