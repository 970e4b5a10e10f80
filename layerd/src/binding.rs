//! Binding: a directory of layers belongs to one catalog, and says to which.
//!
//! To another catalog its files would be files without a row, and garbage collection would delete
//! them. So the first catalog that is used with a directory is noted there, and every other one is
//! refused. A bucket needs no such note: its objects' keys begin with their database, and a catalog
//! touches only those of databases that it knows.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::store::{Result, StoreError, io_error};

/// The note's name in the directory.
const FILE: &str = "catalog";

/// Notes that the directory belongs to the catalog `identity`, or checks that it does.
pub fn bind(directory: &Path, identity: &str) -> Result<()> {
    let path = directory.join(FILE);
    let failed = |error| io_error(&format!("read {}", path.display()), error);
    match fs::read_to_string(&path) {
        Ok(found) if found.trim_end() == identity => Ok(()),
        Ok(found) => Err(StoreError::Config(format!(
            "the layers in {} belong to another catalog, {}, and not to {identity}; use a home of its own for each catalog (--home), or, if it is the same catalog under a new name, change {}",
            directory.display(),
            found.trim_end(),
            path.display()
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => note(&path, identity),
        Err(error) => Err(failed(error)),
    }
}

fn note(path: &Path, identity: &str) -> Result<()> {
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
            return Ok(());
        }
        result => result.map_err(failed)?,
    }
    // Whoever links first is the one; the other looks again.
    let linked = fs::hard_link(&own, path);
    let _ = fs::remove_file(&own);
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match path.parent() {
            Some(directory) => bind(directory, identity),
            None => Ok(()),
        },
        result => result.map_err(failed),
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
        bind(home.path(), "a").unwrap();
        bind(home.path(), "a").unwrap();
        let refused = bind(home.path(), "b").unwrap_err().to_string();
        assert!(
            refused.contains("belong to another catalog, a"),
            "{refused}"
        );
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
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
