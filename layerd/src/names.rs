//! Names inside an image.
//!
//! A database's own files begin with its name: `mydb.duckdb`, `mydb.duckdb.wal`. So that a clone
//! or a restore need not rename anything, the image stores them without it: in the root directory
//! a leading `<DB>.duckdb` becomes one byte that no other name can contain. A database under
//! another name sees the same files under that name.

use crate::error::FsError;
use crate::id::{DatabaseName, FileId};
use crate::record::NAME_MAX;

/// Stands for `<DB>.duckdb` at the begin of a stored name. Control characters are refused in
/// names, so nothing else begins with it.
const OWN: u8 = 1;

/// A file that happens to have the name that a clone gives to one of its own files is shown with
/// this behind it.
const SHADOWED: &[u8] = b".kept";

/// The stored name of the database file itself.
pub const MAIN: &[u8] = &[OWN];

/// Translates between stored names and those that processes see.
#[derive(Clone, Debug)]
pub struct Naming {
    own: Vec<u8>,
}

impl Naming {
    /// For a database of that name.
    #[must_use]
    pub fn new(database: &DatabaseName) -> Naming {
        Naming {
            own: format!("{database}.duckdb").into_bytes(),
        }
    }

    /// The stored form of a name in `parent`.
    pub fn stored(&self, parent: FileId, name: &[u8]) -> Result<Vec<u8>, FsError> {
        if name.len() > NAME_MAX {
            return Err(FsError::NameTooLong);
        }
        if matches!(name, b"" | b"." | b"..")
            || name.iter().any(|b| *b == b'/' || b.is_ascii_control())
        {
            return Err(FsError::InvalidName);
        }
        match name.strip_prefix(self.own.as_slice()) {
            Some(rest) if parent == FileId::ROOT => match rest.strip_suffix(SHADOWED) {
                Some(rest) => Ok([self.own.as_slice(), rest].concat()),
                None => Ok([&[OWN], rest].concat()),
            },
            _ => Ok(name.to_vec()),
        }
    }

    /// The name that a process sees.
    #[must_use]
    pub fn shown(&self, parent: FileId, stored: &[u8]) -> Vec<u8> {
        match stored.strip_prefix(&[OWN]) {
            Some(rest) => [self.own.as_slice(), rest].concat(),
            None if parent == FileId::ROOT && stored.starts_with(&self.own) => {
                [stored, SHADOWED].concat()
            }
            None => stored.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(name: &str) -> Naming {
        Naming::new(&name.parse().unwrap())
    }

    #[test]
    fn a_clone_sees_its_own_files_under_its_own_name() {
        let stored = naming("a").stored(FileId::ROOT, b"a.duckdb.wal").unwrap();
        assert_eq!(naming("b").shown(FileId::ROOT, &stored), b"b.duckdb.wal");
        assert_eq!(naming("a").stored(FileId::ROOT, b"a.duckdb").unwrap(), MAIN);
        assert_eq!(
            naming("a").stored(FileId(9), b"a.duckdb").unwrap(),
            b"a.duckdb"
        );
    }

    #[test]
    fn a_shadowed_file_stays_reachable() {
        let stored = naming("a").stored(FileId::ROOT, b"b.duckdb").unwrap();
        let shown = naming("b").shown(FileId::ROOT, &stored);
        assert_eq!(shown, b"b.duckdb.kept");
        assert_eq!(naming("b").stored(FileId::ROOT, &shown).unwrap(), stored);
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = [b'x'; 256];
        for bad in [
            b"".as_slice(),
            b".",
            b"..",
            b"a/b",
            b"a\0",
            b"\x01",
            b"a\n",
            &long,
        ] {
            assert!(naming("a").stored(FileId::ROOT, bad).is_err(), "{bad:?}");
        }
    }
}
