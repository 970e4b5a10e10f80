//! Where a command works: home, catalog, objects and the cache's size, from flags, environment, the
//! home's `openduck.toml` and defaults, in this order. All of OpenDuck's commands find a store this way.
//!
//! The catalog's URL may hold a password (`postgres://USER:PASSWORD@HOST/DATABASE`): it is passed on
//! as it is, and never printed.
//!
//! Paths leave here absolute (a server changes its directory): those of flags and environment
//! stand on the caller's directory, those of the file on the home.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Deserialize;

use crate::store::StoreConfig;

const FILE_NAME: &str = "openduck.toml";

/// A smaller cache would be emptied of what was fetched ahead before that is read. Arithmetic: 32 MiB
/// ahead of each of some readers, and what is evicted at a time.
const CACHE_BYTES_MIN: u64 = 256 << 20;

/// What `openduck.toml` may hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// `sqlite:PATH`, a path below the home, or `postgres://…`.
    meta: Option<String>,
    /// `file:PATH`, a path below the home.
    objects: Option<String>,
    /// As [`cache_size`] takes it.
    cache_size: Option<String>,
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
    /// How large the cache of a remote store may be: `20GiB`, `1.5 TB`, or a plain number of bytes.
    pub cache_size: Option<String>,
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
    #[error("{}, line {line}: {what}; it may hold `meta`, `objects` and `cache_size`, each a string", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The cache's size is none.
    #[error("{0:?} is no size for the cache; write it like 20GiB, 1.5TB or 500000000")]
    NotASize(String),
    /// A cache of this size would not hold what one read needs.
    #[error("a cache of {0} would be emptied before it is read; give it {least} at least", least = ByteSize(CACHE_BYTES_MIN))]
    CacheTooSmall(ByteSize),
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
    let some = |value: Option<String>| value.filter(|value| !value.is_empty());
    let choose = |given: Option<String>, file: Option<String>| match (some(given), some(file)) {
        (Some(url), _) => Some(absolute(&url, directory)),
        (None, Some(url)) => Some(absolute(&url, &home)),
        (None, None) => None,
    };
    let meta = choose(given.meta, file.meta);
    let objects = choose(given.objects, file.objects);
    let mut config = StoreConfig {
        meta,
        objects,
        ..StoreConfig::of_home(home)
    };
    if let Some(size) = some(given.cache_size).or(some(file.cache_size)) {
        config.cache.bytes_max = cache_size(&size)?;
    }
    Ok(config)
}

/// How large the cache may be, in bytes: `20GiB`, `1.5 TB`, or a plain number.
fn cache_size(text: &str) -> Result<u64> {
    let size: ByteSize = text
        .parse()
        .map_err(|_| SettingsError::NotASize(text.to_owned()))?;
    if size.0 < CACHE_BYTES_MIN {
        return Err(SettingsError::CacheTooSmall(size));
    }
    Ok(size.0)
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
    use crate::remote::cache::CacheConfig;

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
            ..Given::default()
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
            cache_size: Some(String::new()),
        };
        let config = resolve(given, Path::new("/"), nowhere).unwrap();
        assert_eq!((config.meta, config.objects), (None, None));
        assert_eq!(config.cache, CacheConfig::default());
    }

    #[test]
    fn the_caches_size_is_a_setting() {
        let home = home_with("cache_size = '2 TiB'");
        let size = |given: &str| {
            let given = Given {
                home: Some(home.path().to_owned()),
                cache_size: Some(given.to_owned()),
                ..Given::default()
            };
            resolve(given, Path::new("/"), nowhere).map(|config| config.cache)
        };
        assert_eq!(size("").unwrap().bytes_max, 2 << 40);
        for (given, bytes) in [
            ("300MiB", 300 << 20),
            ("1.5 GB", 1_500_000_000),
            ("268435456", 256 << 20),
        ] {
            let cache = size(given).unwrap();
            assert_eq!(cache.bytes_max, bytes, "{given}");
            let default = CacheConfig::default();
            assert_eq!(cache.free_percent_min, default.free_percent_min);
        }
        for given in ["much", "-1GiB", "20 gigs", "0", "255MiB"] {
            let message = size(given).unwrap_err().to_string();
            assert!(message.contains("cache"), "{given}: {message}");
        }
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
