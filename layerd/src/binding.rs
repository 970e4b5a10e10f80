//! Binding: a directory of layers belongs to one catalog.
//!
//! To another catalog its files would be files without a row, and garbage collection would delete
//! them. So the home notes the first catalog that is used with a directory, and refuses every other
//! one. A bucket needs no such note: its objects' keys begin with their database, and a catalog
//! touches only those of databases that it knows.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::store::{Result, StoreError, io_error};

/// Notes in the home that the directory belongs to the catalog `identity`, or checks that it does.
pub fn bind(home: &Path, directory: &Path, identity: &str) -> Result<()> {
    let path = note_of(home, directory);
    let failed = |error| io_error(&format!("read {}", path.display()), error);
    match fs::read_to_string(&path) {
        Ok(found) if found.trim_end() == identity => Ok(()),
        Ok(found) => Err(StoreError::Config(format!(
            "the layers in {} belong to another catalog, {}, and not to {identity}; use a home of its own for each catalog (--home), or, if it is the same catalog under a new name, change {}",
            directory.display(),
            found.trim_end(),
            path.display()
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if note(&path, identity)? {
                Ok(())
            } else {
                bind(home, directory, identity)
            }
        }
        Err(error) => Err(failed(error)),
    }
}

/// Where the home notes it: a home that was moved finds its own directory's note again.
fn note_of(home: &Path, directory: &Path) -> PathBuf {
    let name = match directory.strip_prefix(home) {
        Ok(inside) => inside.display().to_string(),
        Err(_) => directory.display().to_string(),
    };
    let hash = blake3::hash(name.as_bytes()).to_hex();
    home.join("locks").join(format!("catalog-{}", &hash[..16]))
}

/// Writes the note; `false` if another process was faster.
fn note(path: &Path, identity: &str) -> Result<bool> {
    let failed = |error| io_error(&format!("write {}", path.display()), error);
    let own = path.with_extension(format!("{:016x}", crate::id::random_u64()));
    let written = fs::File::create_new(&own)
        .and_then(|mut file| writeln!(file, "{identity}").and_then(|()| file.sync_all()));
    match written {
        // Whoever can't write there can't delete there.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(true);
        }
        result => result.map_err(failed)?,
    }
    // Whoever links first is the one; the other looks again.
    let linked = fs::hard_link(&own, path);
    let _ = fs::remove_file(&own);
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        result => result.map(|()| true).map_err(failed),
    }
}

/// What names a catalog in a note: no credentials, and, for one inside the home, no path, so that a
/// home can be moved.
pub fn identity(meta: Option<&str>, home: &Path) -> String {
    let Some(url) = meta else {
        return "the home's own".to_owned();
    };
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        return match path.strip_prefix(home) {
            Ok(inside) if inside == Path::new("catalog.db") => identity(None, home),
            Ok(inside) => format!("sqlite:{} in the home", inside.display()),
            Err(_) => format!("sqlite:{}", path.display()),
        };
    }
    let place = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = place.rsplit_once('@').map_or(place, |(_, host)| host);
    let (place, options) = place.split_once('?').unwrap_or((place, ""));
    let schema = options
        .split('&')
        .find_map(|option| option.strip_prefix("schema="));
    format!("postgres://{place} schema {}", schema.unwrap_or("openduck"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_catalogs_and_says_so_to_others() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("locks")).unwrap();
        let bind = |directory: &str, identity: &str| {
            bind(home.path(), &home.path().join(directory), identity)
        };
        bind("layers", "a").unwrap();
        bind("layers", "a").unwrap();
        let refused = bind("layers", "b").unwrap_err().to_string();
        assert!(
            refused.contains("belong to another catalog, a"),
            "{refused}"
        );
        bind("others", "b").unwrap();
    }

    #[test]
    fn names_hold_no_credentials_and_outlast_a_move() {
        let home = Path::new("/home/ducks");
        assert_eq!(
            identity(None, home),
            identity(Some("sqlite:/home/ducks/catalog.db"), home)
        );
        assert_ne!(
            identity(None, home),
            identity(Some("sqlite:/other/catalog.db"), home)
        );
        let with = identity(
            Some("postgres://me:secret@db:5432/ducks?sslmode=require&schema=two"),
            home,
        );
        assert_eq!(with, "postgres://db:5432/ducks schema two");
        assert_eq!(
            identity(Some("postgresql://db:5432/ducks"), home),
            identity(Some("postgres://me@db:5432/ducks?schema=openduck"), home)
        );
    }
}
