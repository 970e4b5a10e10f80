//! Whether a path lies within a folder.
//!
//! DuckDB keeps files within the folders too; what it does not keep is its own database's files, which
//! it always admits. So this looks at the path as the file system would: symbolic links and `..` of
//! what exists are resolved.

use std::path::{Path, PathBuf};

/// Whether the path, which need not exist, is in one of the folders. Globs may only be in the name.
pub(super) fn is_within(path: &str, folders: &[PathBuf]) -> bool {
    let path = Path::new(path);
    // A URL, or a name relative to a working directory that means nothing to a client.
    if !path.is_absolute() {
        return false;
    }
    let (Some(parent), Some(_)) = (path.parent(), path.file_name()) else {
        return false;
    };
    // A name that is a link itself may lead out of its folder.
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(_) => match parent.canonicalize() {
            Ok(real) => real.join(path.file_name().unwrap_or_default()),
            Err(_) => return false,
        },
    };
    let within = |folder: &PathBuf| {
        folder
            .canonicalize()
            .is_ok_and(|folder| real.starts_with(folder))
    };
    folders.iter().any(within)
}
