//! The store of layers by its URL, through the `object_store` crate.
//!
//! `file:PATH` is the embedded default: a local directory, where a sealed layer is moved to by one
//! rename and read in place, so nothing is stored twice. All others are remote and hold segments:
//! `s3://`, `gs://` and `az://` buckets, and `file:PATH?shared`, a directory on a file system that
//! several hosts share. Credentials and endpoints come from the environment variables that each
//! provider's own tools use; a URL that carries a password is refused, and none is ever printed.
//!
//! A request takes at most 30 s, a connection 5 s (the crate's defaults, which `AWS_TIMEOUT` and
//! the like change); a call is retried for 60 s with exponential, jittered pauses. Who can't wait
//! for so long asks [`Objects::within`] a shorter time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreExt, RetryConfig};
use url::Url;

use super::runtime::{CALL_MAX, block_on, bounded, bounded_by};

/// The folder of layers within a local store.
pub const LAYERS: &str = "layers";

/// How long a call is retried; how often does not matter.
const RETRY_TIME: Duration = Duration::from_secs(60);
/// The first pause, at least, and the longest, at most; each is up to twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// An object that nobody makes: what is said of it tells whether anybody answers.
const NOBODYS: &str = "nobody";

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The URL makes no sense: the configuration must be mended.
    #[error(
        "the objects URL {url} cannot be used: {reason}; expected file:PATH, file:PATH?shared, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
    )]
    Url {
        /// The URL without anything secret.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The store refused, or could not be reached within the retries; it may be tried again.
    #[error(transparent)]
    Store(#[from] object_store::Error),
    /// The operating system refused.
    #[error("the object store: {0}")]
    Io(#[from] std::io::Error),
}

/// One object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its key below the store's prefix.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

/// An open store. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    directory: Option<PathBuf>,
    shown: Arc<str>,
    patience: Duration,
    /// Parts of large uploads that have arrived.
    arrived: Arc<AtomicU64>,
}

impl Objects {
    /// The store that a URL names. Nothing is sent anywhere yet; a directory is made if it is
    /// missing.
    pub fn open(url: &str) -> Result<Objects, ObjectsError> {
        if let Some(path) = url.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.split_once('?') {
                None => Objects::local(Path::new(path)),
                Some((path, "shared")) => Objects::shared(Path::new(path)),
                Some((path, _)) => Err(ObjectsError::Url {
                    url: format!("file:{path}"),
                    reason: "the only option behind ? is `shared`".to_owned(),
                }),
            };
        }
        let parsed = Url::parse(url).map_err(|error| ObjectsError::Url {
            // What can't be parsed may have a secret anywhere.
            url: url
                .split_once("://")
                .map_or("", |(scheme, _)| scheme)
                .to_owned()
                + "://…",
            reason: error.to_string(),
        })?;
        let container = if parsed.scheme() == "az" && !parsed.username().is_empty() {
            format!("{}@", parsed.username())
        } else {
            String::new()
        };
        let host = parsed.host_str().unwrap_or_default();
        let shown = format!("{}://{container}{host}{}", parsed.scheme(), parsed.path());
        let refuse = |reason: &str| ObjectsError::Url {
            url: shown.clone(),
            reason: reason.to_owned(),
        };
        let secret = parsed.password().is_some()
            || (container.is_empty() && !parsed.username().is_empty())
            || parsed.query().is_some()
            || parsed.fragment().is_some();
        if secret {
            return Err(refuse(
                "credentials and options belong in the environment, not in the URL",
            ));
        }
        if host.is_empty() {
            return Err(refuse("it names no bucket"));
        }
        let prefix =
            Key::from_url_path(parsed.path()).map_err(|error| refuse(&error.to_string()))?;
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: PAUSE_MIN,
                max_backoff: PAUSE_MAX,
                base: 2.0,
            },
            max_retries: usize::MAX,
            retry_timeout: RETRY_TIME,
        };
        let store: Arc<dyn ObjectStore> = match parsed.scheme() {
            // The server compares the checksum with what it received before it keeps an object.
            "s3" => Arc::new(
                AmazonS3Builder::from_env()
                    .with_url(parsed.as_str())
                    .with_checksum_algorithm(Checksum::SHA256)
                    .with_retry(retry)
                    .build()?,
            ),
            "gs" => Arc::new(
                GoogleCloudStorageBuilder::from_env()
                    .with_url(parsed.as_str())
                    .with_retry(retry)
                    .build()?,
            ),
            "az" => Arc::new(
                MicrosoftAzureBuilder::from_env()
                    .with_url(parsed.as_str())
                    .with_retry(retry)
                    .build()?,
            ),
            _ => return Err(refuse("there is no such kind of store")),
        };
        Ok(Objects::remote(
            Arc::new(PrefixStore::new(store, prefix)),
            &shown,
        ))
    }

    /// The directory `root`, in which layers are read in place.
    pub fn local(root: &Path) -> Result<Objects, ObjectsError> {
        let root = std::path::absolute(root)?;
        std::fs::create_dir_all(&root)?;
        Ok(Objects {
            store: Arc::new(LocalFileSystem::new_with_prefix(&root)?),
            shown: format!("file:{}", root.display()).into(),
            directory: Some(root),
            patience: CALL_MAX,
            arrived: Arc::default(),
        })
    }

    /// The directory `root`, which several hosts share.
    fn shared(root: &Path) -> Result<Objects, ObjectsError> {
        let root = std::path::absolute(root)?;
        std::fs::create_dir_all(&root)?;
        let store = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        let shown = format!("file:{}?shared", root.display());
        Ok(Objects::remote(Arc::new(store), &shown))
    }

    /// Any other store, used as a remote one; `shown` names it in messages.
    #[must_use]
    pub fn remote(store: Arc<dyn ObjectStore>, shown: &str) -> Objects {
        Objects {
            store,
            directory: None,
            shown: shown.into(),
            patience: CALL_MAX,
            arrived: Arc::default(),
        }
    }

    /// The same store, where an upload fails once nothing of it has arrived for so long.
    #[must_use]
    pub fn within(&self, patience: Duration) -> Objects {
        Objects {
            patience: patience.min(CALL_MAX),
            ..self.clone()
        }
    }

    /// Whether the store answers, be it with a refusal, within `time`; the error says why not.
    pub fn answers(&self, time: Duration) -> Result<(), ObjectsError> {
        let nobodys = Key::from(NOBODYS);
        match block_on(bounded_by(time, self.store.head(&nobodys)))? {
            Err(error @ object_store::Error::Generic { .. }) => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// How many parts of large uploads have arrived since the store was opened.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    pub(super) fn note_arrival(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    /// The directory in which layers are read in place; `None` for a remote store.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The store's URL, fit to be printed.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.shown
    }

    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Calls `each` with every object below a folder (all of them if it is empty), as the listing
    /// goes on, until it fails.
    pub fn list<E: From<ObjectsError>>(
        &self,
        folder: &str,
        mut each: impl FnMut(Object) -> Result<(), E>,
    ) -> Result<(), E> {
        let prefix = Key::from(folder);
        let mut listing = self.store.list((!folder.is_empty()).then_some(&prefix));
        loop {
            let next = block_on(bounded(listing.try_next()))
                .map_err(ObjectsError::Io)?
                .map_err(ObjectsError::Store)?;
            let Some(meta) = next else { return Ok(()) };
            each(Object {
                key: meta.location.to_string(),
                bytes: meta.size,
                modified: meta.last_modified.into(),
            })?;
        }
    }

    /// Deletes objects, many with one request where the store can; those that are gone already
    /// are no error. Behind an error some are left: call it again.
    pub fn delete(&self, keys: impl IntoIterator<Item = String>) -> Result<(), ObjectsError> {
        let keys: Vec<_> = keys.into_iter().map(|key| Ok(Key::from(key))).collect();
        let mut deleting = self.store.delete_stream(stream::iter(keys).boxed());
        loop {
            match block_on(bounded(deleting.try_next()))? {
                Ok(Some(_)) | Err(object_store::Error::NotFound { .. }) => {}
                Ok(None) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(objects: &Objects, folder: &str) -> Vec<String> {
        let mut names = Vec::new();
        objects
            .list(folder, |object| {
                names.push(object.key);
                Ok::<(), ObjectsError>(())
            })
            .unwrap();
        names.sort();
        names
    }

    #[test]
    fn objects_are_listed_and_deleted() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(LAYERS)).unwrap();
        for url in [
            format!("file:{}", root.path().display()),
            format!("file://{}?shared", root.path().display()),
        ] {
            let objects = Objects::open(&url).unwrap();
            assert_eq!(objects.directory().is_none(), url.ends_with("shared"));
            for name in ["a.delta", "b-c.image"] {
                std::fs::write(root.path().join(LAYERS).join(name), name).unwrap();
            }
            assert_eq!(
                names(&objects, LAYERS),
                ["layers/a.delta", "layers/b-c.image"]
            );
            assert_eq!(names(&objects, ""), names(&objects, LAYERS));
            let gone = ["layers/a.delta", "layers/none"].map(str::to_owned);
            objects.delete(gone.clone()).unwrap();
            objects.delete(gone).unwrap();
            assert_eq!(names(&objects, LAYERS), ["layers/b-c.image"]);
        }
    }

    #[test]
    fn urls_that_make_no_sense_are_refused_and_secrets_are_not_printed() {
        for url in [
            "s3://key:hunter2@bucket/prefix",
            "s3://hunter2@bucket/prefix",
            "az://container/prefix?sig=hunter2",
            "gs://bucket/prefix#hunter2",
            "s3:///prefix",
            "ftp://bucket/prefix",
            "http://hunter2:x@",
            "hunter2",
            "file:/tmp/x?hunter2",
        ] {
            let error = Objects::open(url).err().expect(url).to_string();
            assert!(!error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn buckets_are_opened_by_url_without_a_request() {
        let objects = Objects::open("gs://bucket/some/prefix");
        // Google's client wants credentials at once where the machine has none; the rest does not.
        if let Ok(objects) = objects {
            assert_eq!(objects.url(), "gs://bucket/some/prefix");
        }
        let objects = Objects::open("s3://bucket/some/prefix").unwrap();
        assert_eq!(objects.url(), "s3://bucket/some/prefix");
        assert_eq!(objects.directory(), None);
    }
}
