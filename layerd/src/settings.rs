//! Where a command works: home, catalog and objects, from flags, environment, the home's
//! `openduck.toml` and defaults, in this order. All of OpenDuck's commands find a store this way.
//!
//! The catalog's URL may hold a password (`postgres://USER:PASSWORD@HOST/DATABASE`): it is passed on
//! as it is, and never printed.
//!
//! Paths leave here absolute (a server changes its directory): those of flags and environment
//! stand on the caller's directory, those of the file on the home.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::store::StoreConfig;

const FILE_NAME: &str = "openduck.toml";

/// What `openduck.toml` may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// `sqlite:PATH`, a path below the home, or `postgres://…`.
    meta: Option<String>,
    /// `file:PATH`, a path below the home.
    objects: Option<String>,
}

/// What flags, or else the environment, say; an empty value counts as none.
#[derive(Debug, Default)]
pub struct Given {
    /// The home.
    pub home: Option<PathBuf>,
    /// The catalog's URL.
    pub meta: Option<String>,
    /// The layers' URL.
    pub objects: Option<String>,
}

/// Why it can't be told where to work.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No home was named, and the user has none.
    #[error(
        "no home: neither HOME nor XDG_DATA_HOME is set; name one with --home DIR or OPENDUCK_HOME"
    )]
    NoHome,
    /// The home is a file.
    #[error("the home {} is not a directory; choose another with --home", .0.display())]
    NotADirectory(PathBuf),
    /// The home's file can't be read.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The home's file makes no sense.
    #[error("{}, line {line}: {what}; it may hold `meta` and `objects`, each a string", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

/// Result of finding out where to work.
pub type Result<T> = std::result::Result<T, SettingsError>;

/// Settles where to work: paths of `given` stand on `directory`. `environment` answers for
/// `XDG_DATA_HOME` and `HOME`.
pub fn resolve(
    given: Given,
    directory: &Path,
    environment: impl Fn(&str) -> Option<PathBuf>,
) -> Result<StoreConfig> {
    let home = match given.home.filter(|home| !home.as_os_str().is_empty()) {
        Some(home) => directory.join(home),
        None => default_home(environment)?,
    };
    let file = read_file(&home)?;
    let choose = |given: Option<String>, file: Option<String>| {
        let given = given.filter(|value| !value.is_empty());
        let file = file.filter(|value| !value.is_empty());
        match (given, file) {
            (Some(url), _) => Some(absolute(&url, directory)),
            (None, Some(url)) => Some(absolute(&url, &home)),
            (None, None) => None,
        }
    };
    Ok(StoreConfig {
        meta: choose(given.meta, file.meta),
        objects: choose(given.objects, file.objects),
        home,
    })
}

fn default_home(environment: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    // The XDG specification wants relative paths to be ignored.
    let absolute = |name: &str| environment(name).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("openduck"))
        .ok_or(SettingsError::NoHome)
}

fn read_file(home: &Path) -> Result<File> {
    let path = home.join(FILE_NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(File::default()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(SettingsError::NotADirectory(home.to_owned()));
        }
        Err(source) => return Err(SettingsError::Unreadable { path, source }),
    };
    toml::from_str(&text).map_err(|error| {
        let line = error
            .span()
            .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        SettingsError::Invalid {
            path: path.clone(),
            line,
            what: error.message().to_owned(),
        }
    })
}

/// A URL of a local path with that path made absolute; any other URL as it is.
#[must_use]
pub fn absolute(url: &str, base: &Path) -> String {
    for scheme in ["sqlite:", "file:"] {
        if let Some(path) = url.strip_prefix(scheme)
            && !path.is_empty()
        {
            return format!("{scheme}{}", base.join(path).display());
        }
    }
    url.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere(_: &str) -> Option<PathBuf> {
        None
    }

    fn home_with(toml: &str) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(FILE_NAME), toml).unwrap();
        home
    }

    #[test]
    fn given_beats_file_and_each_has_its_own_base() {
        let home = home_with("meta = 'sqlite:cat.db'\nobjects = 'file:obj'");
        let given = Given {
            home: Some(home.path().to_owned()),
            meta: Some("sqlite:mine.db".into()),
            objects: None,
        };
        let config = resolve(given, Path::new("/work"), nowhere).unwrap();
        assert_eq!(config.meta.as_deref(), Some("sqlite:/work/mine.db"));
        let below_home = format!("file:{}/obj", home.path().display());
        assert_eq!(config.objects, Some(below_home));
    }

    #[test]
    fn empty_values_count_as_not_given() {
        let home = home_with("meta = ''");
        let given = Given {
            home: Some(home.path().to_owned()),
            meta: Some(String::new()),
            objects: Some(String::new()),
        };
        let config = resolve(given, Path::new("/"), nowhere).unwrap();
        assert_eq!((config.meta, config.objects), (None, None));
    }

    #[test]
    fn home_defaults_to_the_xdg_data_directory() {
        let resolve = |environment: &dyn Fn(&str) -> Option<PathBuf>| {
            resolve(Given::default(), Path::new("/"), environment).map(|config| config.home)
        };
        let both = |name: &str| match name {
            "XDG_DATA_HOME" => Some(PathBuf::from("/nowhere/data")),
            "HOME" => Some(PathBuf::from("/nowhere/me")),
            _ => None,
        };
        assert_eq!(resolve(&both).unwrap(), Path::new("/nowhere/data/openduck"));
        let relative = |name: &str| match name {
            "XDG_DATA_HOME" => Some(PathBuf::from("data")),
            "HOME" => Some(PathBuf::from("/nowhere/me")),
            _ => None,
        };
        assert_eq!(
            resolve(&relative).unwrap(),
            Path::new("/nowhere/me/.local/share/openduck")
        );
        assert!(resolve(&nowhere).is_err());
    }

    #[test]
    fn a_wrong_file_is_named_with_its_line() {
        let home = home_with("meta = 'sqlite:x'\nobject = 'file:y'\n");
        let given = Given {
            home: Some(home.path().to_owned()),
            ..Given::default()
        };
        let message = resolve(given, Path::new("/"), nowhere)
            .unwrap_err()
            .to_string();
        assert!(message.contains("openduck.toml, line 2"), "{message}");
        assert!(message.contains("object"), "{message}");
    }

    #[test]
    fn urls_of_other_places_stay_as_they_are() {
        for url in [
            "postgres://db/x",
            "s3://bucket/prefix",
            "file:",
            "sqlite:/a/b",
        ] {
            assert_eq!(absolute(url, Path::new("/base")), url);
        }
    }
}
