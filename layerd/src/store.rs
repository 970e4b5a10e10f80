//! The door to a home: databases by name, and every operation on them.

use std::fmt;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use crate::again::again;
use crate::binding::{bind, identity};
use crate::catalog::sqlite::SqliteCatalog;
use crate::catalog::{
    self, Base, Catalog, CatalogError, Chain, Database, Head, Holder, LayerKind, LayerRow,
    LayerState, Lease, NewSnapshot, Snapshot, StatePoint, without_credentials,
};
use crate::disk::{Disk, RealDisk};
use crate::error::FsError;
use crate::files::Files;
pub use crate::follow::Follower;
use crate::frozen::{CommitPoint, Frozen, Hold};
use crate::hashes::ImageHashes;
use crate::head::{HeadFile, HeadWord};
use crate::id::{
    DatabaseId, DatabaseName, Epoch, LayerId, Lsn, SnapshotName, Timestamp, random_u64,
};
use crate::instance::{self, Instance};
use crate::lease::HeldLease;
use crate::load::{Loaded, load};
use crate::machine::{self, Instant, boot_time_ms};
use crate::names::Naming;
use crate::new_layer::NewLayer;
use crate::pin::{PIN_TTL, Pin, PinKeeper};
use crate::recover::RecoverError;
use crate::reference::Ref;
use crate::remote::cache::{Cache, CacheConfig};
use crate::remote::objects::{Objects, ObjectsError};
use crate::remote::prefetch::prefetch;
use crate::remote::stats::StatsNow;
use crate::remote::tier::Tier;
use crate::remote::upload::UploadError;
use crate::seal::seal;
use crate::send::send_sealed;
use crate::uploads::NotStored;
use crate::writer::{Writer, WriterOptions};

/// Where a store keeps its things.
#[derive(Clone)]
pub struct StoreConfig {
    /// The home: active layers, heads, locks, logs, scratch; made if it is missing.
    pub home: PathBuf,
    /// `sqlite:PATH` or `postgres://…`; default `<home>/catalog.db`.
    pub meta: Option<String>,
    /// `file:PATH`; default `<home>/objects`.
    pub objects: Option<String>,
    /// How much of the disk is for what a remote store has too: the cache, and local copies of
    /// layers that were written here, each.
    pub cache: CacheConfig,
}

impl StoreConfig {
    /// A home with everything in it, as it is where nothing else is said.
    #[must_use]
    pub fn of_home(home: impl Into<PathBuf>) -> StoreConfig {
        StoreConfig {
            home: home.into(),
            meta: None,
            objects: None,
            cache: CacheConfig::default(),
        }
    }
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("home", &self.home)
            .field("meta", &self.meta.as_deref().map(without_credentials))
            .field("objects", &self.objects)
            .field("cache", &self.cache)
            .finish()
    }
}

/// Why an operation on a database failed: one clear line, with the next step in it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The catalog refused; its own message is complete.
    #[error(transparent)]
    Catalog(#[from] crate::catalog::CatalogError),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The store of sealed layers refused.
    #[error("the store of layers: {0}")]
    Upload(#[from] UploadError),
    /// Acknowledged commits are on this host's disk and could not be brought to the store.
    #[error(
        "the newest commits of {database:?} are on this host only: {source}; mount it here again, and they are brought to the store"
    )]
    NotStored {
        /// The database.
        database: String,
        /// Why.
        source: Box<NotStored>,
    },
    /// The store of layers refused.
    #[error("the store of layers: {0}")]
    Objects(#[from] ObjectsError),
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// A process of this home has the database open for writing and has not renewed its lease.
    #[error(
        "database {0:?} is open for writing in a process of this home that does not answer; end or resume it, or mount with --steal"
    )]
    Paused(String),
    /// Nothing there of that name, or expired.
    #[error("{0}")]
    NoSuchRef(String),
    /// The operation can't be done in this state (mounted, not mounted, locked file …).
    #[error("{0}")]
    Refused(String),
    /// Acknowledged commits in a layer can't be read. Nothing is cut away: a clone of the last
    /// commit that is named can go on from there.
    #[error(
        "{0}; `openduck-fs clone` that commit to go on from there, `openduck-fs verify --deep` names all damage"
    )]
    Damaged(#[from] RecoverError),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on which file.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Result of a store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Called now and then during long work: (done, total) in bytes.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Every commit that is still kept, as `log --commits` lists it.
#[derive(Clone, Debug, Serialize)]
pub struct CommitInfo {
    /// The commit.
    pub lsn: Lsn,
    /// Its time.
    pub time: Timestamp,
    /// Payload bytes ever written, up to here.
    pub written_bytes: u64,
    /// The layer that holds it.
    pub layer: LayerId,
}

/// One difference between two states, per file.
#[derive(Clone, Debug, Serialize)]
pub struct FileDiff {
    /// Path in the image.
    pub path: String,
    /// `added`, `removed`, `changed`.
    pub change: &'static str,
    /// Size before and after.
    pub size: (u64, u64),
    /// Bytes whose content differs.
    pub changed_bytes: u64,
    /// The ranges that differ, (offset, length), at most 1,000 of them.
    pub ranges: Vec<(u64, u64)>,
}

/// One damaged place.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    /// The layer's file name.
    pub layer: String,
    /// Physical offset.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// What `verify` found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// No problem was found.
    pub ok: bool,
    /// Bytes that were read and checked.
    pub checked_bytes: u64,
    /// What was found.
    pub problems: Vec<Problem>,
}

/// What `compact` did.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CompactReport {
    /// Layers that were replaced, and their bytes.
    pub layers_before: u64,
    /// Layers that replace them.
    pub layers_after: u64,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes after.
    pub bytes_after: u64,
}

/// What `gc` did, or (dry run) would do.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct GcReport {
    /// Layers deleted, orphan files included.
    pub layers_deleted: u64,
    /// Their bytes.
    pub bytes_freed: u64,
    /// Layers that stay.
    pub layers_kept: u64,
}

/// A reader that stays at one commit. Keeps its pin renewed in the background while it lives.
pub struct Reader {
    frozen: Arc<Frozen>,
    layers: usize,
}

impl Reader {
    /// The image.
    #[must_use]
    pub fn frozen(&self) -> Arc<Frozen> {
        Arc::clone(&self.frozen)
    }

    /// Layers in its chain.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// The pin could not be renewed in time: answer ESTALE from now on.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.frozen.is_stale()
    }
}

/// Where layers lie in a home: all of them, or those that are not dropped yet because the store has
/// them too.
const LOCAL: &str = "objects";
/// How long commits are kept unless `retention` says otherwise: 7 days.
const RETENTION_DEFAULT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longer is for ever: 250 years, which the clock's nanoseconds can hold.
const RETENTION_MAX: Duration = Duration::from_secs(250 * 365 * 24 * 3600);
/// How often, and how long, a writer waits for its home's lock where nobody has the lease.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);
/// How long who only reads waits for a remote store that is to be brought what a killed writer left.
const STORE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a store that did not answer is not asked again.
const STORE_PAUSE: Duration = Duration::from_secs(30);
/// How long a writer that wants to take over waits for the holder to let go.
const STEAL_TIMEOUT: Duration = Duration::from_secs(20);

/// An open home.
pub struct Store {
    files: Files,
    catalog: Arc<dyn Catalog>,
    pins: PinKeeper,
    hashes: Arc<ImageHashes>,
    /// This home's own directory of layers.
    objects: Objects,
    /// The store of layers, where that is not this directory.
    remote: Option<Objects>,
    /// When that did not answer.
    silent: Mutex<Option<Instant>>,
    /// How much of the disk is for what the remote store has too.
    cache: CacheConfig,
    instance: OnceLock<Instance>,
}

impl Store {
    /// Opens a home; makes directories and catalog where they are missing.
    pub fn open(config: &StoreConfig) -> Result<Arc<Store>> {
        Store::open_on(config, Arc::new(RealDisk))
    }

    /// As [`Store::open`], over another disk.
    pub fn open_on(config: &StoreConfig, disk: Arc<dyn Disk>) -> Result<Arc<Store>> {
        let home = std::path::absolute(&config.home).map_err(|e| io_error("find the home", e))?;
        if home.exists() && !home.is_dir() {
            return Err(StoreError::Config(format!(
                "the home {} is not a directory",
                home.display()
            )));
        }
        let not_opened = |e| io_error(&format!("open the home {}", home.display()), e);
        std::fs::create_dir_all(&home).map_err(not_opened)?;
        let named = config.objects.as_deref().map(Objects::open).transpose()?;
        let (objects, remote) = match named {
            Some(named) if named.directory().is_none() => {
                (Objects::local(&home.join(LOCAL))?, Some(named))
            }
            Some(named) => (named, None),
            None => (Objects::local(&home.join(LOCAL))?, None),
        };
        if remote.is_none()
            && config
                .meta
                .as_deref()
                .is_some_and(catalog::postgres::is_postgres)
        {
            return Err(StoreError::Config(format!(
                "a catalog in PostgreSQL is for several hosts, and {} is a directory of this one; name a bucket with OPENDUCK_OBJECTS, or add ?shared to a directory that all hosts see",
                objects.url()
            )));
        }
        let local = objects
            .directory()
            .map_or_else(|| home.join(LOCAL), Path::to_owned);
        let files = Files::open(&home, &local, disk).map_err(not_opened)?;
        bind(&home, &local, &identity(config.meta.as_deref(), &home))?;
        let files = match &remote {
            Some(objects) => {
                // A home that can't be written reads without a cache.
                let cache = Cache::open(&home, config.cache)
                    .inspect_err(|error| tracing::warn!(%error, "there is no cache"));
                files.with_tier(Tier::new(objects.clone(), cache.ok()))
            }
            None => files,
        };
        let catalog: Arc<dyn Catalog> = match &config.meta {
            Some(url) => catalog::open(url)?,
            None => Arc::new(SqliteCatalog::open(&home.join("catalog.db"))?),
        };
        Ok(Store::over(files, catalog, objects, remote, config.cache))
    }

    /// Opens a home over a catalog and a remote store that are open already, with a cache of the
    /// remote one or without.
    pub fn open_over(
        home: &Path,
        disk: Arc<dyn Disk>,
        catalog: Arc<dyn Catalog>,
        remote: Objects,
        is_cached: bool,
    ) -> Result<Arc<Store>> {
        let not_opened = |e| io_error(&format!("open the home {}", home.display()), e);
        let objects = Objects::local(&home.join(LOCAL))?;
        let files = Files::open(home, &home.join(LOCAL), disk).map_err(not_opened)?;
        let config = CacheConfig::default();
        let cache = is_cached.then(|| Cache::open(home, config)).transpose();
        let files = files.with_tier(Tier::new(remote.clone(), cache.map_err(not_opened)?));
        Ok(Store::over(files, catalog, objects, Some(remote), config))
    }

    fn over(
        files: Files,
        catalog: Arc<dyn Catalog>,
        objects: Objects,
        remote: Option<Objects>,
        cache: CacheConfig,
    ) -> Arc<Store> {
        if let Some(tier) = files.tier() {
            tier.ask(Arc::clone(&catalog));
        }
        let pins = PinKeeper::new(Arc::clone(&catalog));
        let hashes = Arc::new(ImageHashes::new(files.clone()));
        Arc::new(Store {
            files,
            catalog,
            pins,
            hashes,
            objects,
            remote,
            silent: Mutex::default(),
            cache,
            instance: OnceLock::new(),
        })
    }

    /// The home.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.files.home()
    }

    /// The catalog.
    #[must_use]
    pub fn catalog(&self) -> &dyn Catalog {
        &*self.catalog
    }

    pub(crate) fn shared_catalog(&self) -> Arc<dyn Catalog> {
        Arc::clone(&self.catalog)
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// This home's own directory of layers.
    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The store of layers, if it is not a directory in which they are read in place.
    pub(crate) fn remote(&self) -> Option<&Objects> {
        self.remote.as_ref()
    }

    /// How much of the disk is for what a remote store has too.
    pub(crate) fn cache_limits(&self) -> CacheConfig {
        self.cache
    }

    /// Whether layers are in a store from which they may have to be fetched.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// The row of a layer that is complete in this home's files, with all its segments where the
    /// store is a remote one.
    pub(crate) fn sent(&self, row: LayerRow) -> Result<LayerRow> {
        let segments = match self.remote() {
            Some(objects) => send_sealed(objects, &self.files, &row)?,
            None => Vec::new(),
        };
        Ok(LayerRow { segments, ..row })
    }

    pub(crate) fn hashes(&self) -> &Arc<ImageHashes> {
        &self.hashes
    }

    /// How this process is named in leases and pins.
    pub(crate) fn holder(&self) -> Result<&Holder> {
        if self.instance.get().is_none() {
            let locks = self.files.locks();
            let instance = Instance::register(&locks)
                .map_err(|e| io_error(&format!("take a lock file in {}", locks.display()), e))?;
            // Another thread may have been faster; then this one's lock file goes again.
            let _ = self.instance.set(instance);
        }
        self.instance
            .get()
            .map(Instance::holder)
            .ok_or_else(|| StoreError::Config("no lock file".to_owned()))
    }

    /// Makes an empty database.
    pub fn create(&self, name: &DatabaseName) -> Result<Database> {
        Ok(self
            .catalog
            .create_database(name, RETENTION_DEFAULT.as_secs(), None)?)
    }

    /// All databases, each with its newest acknowledged head. Where the store is a remote one, what
    /// a killed writer left here is not brought there for it: that may take long.
    pub fn list(self: &Arc<Self>) -> Result<Vec<Database>> {
        let databases = self.catalog.databases()?.into_iter();
        match self.remote() {
            Some(_) => databases.map(|it| self.with_head_word(it)).collect(),
            None => databases.map(|it| self.settled(it)).collect(),
        }
    }

    /// A database with its newest acknowledged head (a crashed writer's commits included).
    pub fn database(self: &Arc<Self>, name: &DatabaseName) -> Result<Database> {
        self.settled(self.catalog.database(name)?)
    }

    /// Brings a database's head up to date: recovers what a killed writer left, and takes the head
    /// word of a living one.
    pub(crate) fn settled(self: &Arc<Self>, database: Database) -> Result<Database> {
        let mut database = database;
        // What another host's writer left is for the next writer to end, not for a reader.
        let is_ours =
            |row: &LayerRow| self.remote().is_none() || self.files.active(row.id).exists();
        let active = self
            .catalog
            .layers(database.id)?
            .iter()
            .any(|row| row.state == LayerState::Active && is_ours(row));
        let dead = active && !self.is_written(&database)?;
        let lost = self.has_lost(&database)?;
        // What is here can't be brought to a store that is away; what is here can be read.
        let may_bring = (dead || lost) && self.store_answers();
        if lost && may_bring {
            match self.keep_lost(database.id) {
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "lost commits could not be kept as a clone yet")
                }
            }
        }
        if dead && may_bring {
            match self.recover_dead(&database) {
                Ok(()) => database = self.catalog.database_by_id(database.id)?,
                // A home that can't be written can still be read up to the last published head;
                // a writer that came meanwhile recovered by itself.
                Err(error) if error.is_read_only() => {
                    tracing::warn!(%error, "recovery waits for the next writer")
                }
                Err(
                    StoreError::Catalog(CatalogError::LeaseHeld { .. }) | StoreError::Paused(_),
                ) => {}
                // It answered, and then it did not.
                Err(error @ (StoreError::Upload(_) | StoreError::Objects(_))) => {
                    tracing::warn!(%error, "recovery waits for the store")
                }
                // What lies before the damage can be read.
                Err(StoreError::Damaged(error)) => {
                    tracing::error!(%error, "recovery is not possible")
                }
                Err(error) => return Err(error),
            }
        }
        self.with_head_word(database)
    }

    /// The database with the head that this home's newest writer of it acknowledged, if that is
    /// newer.
    fn with_head_word(&self, mut database: Database) -> Result<Database> {
        if let Some(word) = self.head_word(database.id)
            && word.point.lsn > database.head.lsn()
            && (word.epoch == database.epoch || self.is_waiting(&database, &word)?)
        {
            database.head = Head {
                point: Some(word.point),
                time: word.time,
                written_bytes: word.written_bytes,
            };
        }
        Ok(database)
    }

    /// Whether what a head word tells of is still to be brought to the store by whoever writes
    /// next: somebody had the lease since, and ended nothing.
    fn is_waiting(&self, database: &Database, word: &HeadWord) -> Result<bool> {
        if self.remote().is_none() || self.is_written(database)? {
            return Ok(false);
        }
        let rows = self.catalog.layers(database.id)?;
        let mut active = rows.iter().filter(|row| row.state == LayerState::Active);
        Ok(active.any(|row| row.id == word.point.layer))
    }

    /// Whether the database has a writer that lives, or may.
    pub(crate) fn is_written(&self, database: &Database) -> Result<bool> {
        let locks = self.files.locks();
        let lease = self.catalog.lease(database.id)?;
        Ok(lease.is_some_and(|lease| !instance::is_dead(&locks, &lease.holder)))
    }

    /// Whether the store of layers can be brought something. One that was silent is left alone for
    /// a while.
    fn store_answers(&self) -> bool {
        let Some(objects) = self.remote() else {
            return true;
        };
        let mut silent = self.silent.lock();
        if silent.is_some_and(|since| since.elapsed() < STORE_PAUSE) {
            return false;
        }
        let answer = objects.answers(STORE_TIME_MAX);
        *silent = answer.is_err().then(Instant::now);
        answer
            .inspect_err(|error| tracing::warn!(%error, "recovery waits for the store"))
            .is_ok()
    }

    pub(crate) fn head_word(&self, database: DatabaseId) -> Option<HeadWord> {
        HeadFile::open(&self.files.head(database), false)
            .ok()?
            .load()
    }

    fn recover_dead(self: &Arc<Self>, database: &Database) -> Result<()> {
        let lease = self.acquire(database)?;
        let recovered = self.recover_layers(database.id, &lease);
        lease.release()?;
        recovered
    }

    /// Takes the lease, at once if its holder is a dead process of this home.
    pub(crate) fn acquire(&self, database: &Database) -> Result<HeldLease> {
        // Whoever looks for what was lost has it for a moment.
        let mut lock = self.writer_lock(database.id)?;
        for _ in 0..LOCK_TRIES {
            if lock.is_some() || self.catalog.lease(database.id)?.is_some() {
                break;
            }
            machine::sleep(LOCK_PAUSE);
            lock = self.writer_lock(database.id)?;
        }
        match lock {
            Some(lock) => self.acquire_with(database, Some(lock)),
            None => match self.catalog.lease(database.id)? {
                Some(lease) => Err(self.held(database, lease)?),
                None => Err(StoreError::Paused(database.name.to_string())),
            },
        }
    }

    fn acquire_with(&self, database: &Database, lock: Option<File>) -> Result<HeldLease> {
        let locks = self.files.locks();
        let is_dead = |lease: &Lease| instance::is_dead(&locks, &lease.holder);
        let catalog = Arc::clone(&self.catalog);
        let holder = self.holder()?;
        Ok(HeldLease::acquire(
            catalog,
            database.id,
            holder,
            &is_dead,
            lock,
        )?)
    }

    fn held(&self, database: &Database, lease: Lease) -> Result<StoreError> {
        Ok(CatalogError::lease_held(&database.name, lease, self.catalog.now()?).into())
    }

    /// The lock that a database's writer keeps in this home; `None` while somebody has it.
    pub(crate) fn writer_lock(&self, id: DatabaseId) -> Result<Option<File>> {
        let path = self.files.locks().join(format!("writer-{id}"));
        let failed = |error| io_error(&format!("lock {}", path.display()), error);
        let file = File::create(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Tells the readers of this host about a head that did not come from a living writer.
    pub(crate) fn store_head_word(
        &self,
        id: DatabaseId,
        epoch: Epoch,
        head: &Head,
        end: u64,
    ) -> Result<()> {
        let Some(point) = head.point else {
            return Ok(());
        };
        let file = HeadFile::open(&self.files.head(id), true)
            .map_err(|e| io_error("map the head word", e))?;
        file.store(&HeadWord {
            epoch,
            point,
            end,
            time: head.time,
            written_bytes: head.written_bytes,
        });
        Ok(())
    }

    /// Resolves the chain of a state and pins it; without a pin where the home can't be written.
    pub(crate) fn pin(
        &self,
        id: DatabaseId,
        point: Option<StatePoint>,
    ) -> Result<(Chain, Option<Arc<Pin>>)> {
        let begin = boot_time_ms();
        let pin = random_u64();
        let pinned = self.holder().and_then(|holder| {
            let chain = self.catalog.pin_chain(id, point, pin, holder, PIN_TTL)?;
            Ok((chain, Some(self.pins.keep(pin, holder, begin))))
        });
        match pinned {
            Err(error) if error.is_read_only() => {
                tracing::warn!(%error, "the home can't be written: its layers are read without a pin");
                Ok((self.catalog.chain(id, point)?, None))
            }
            result => result,
        }
    }

    /// Resolves, pins and loads the chain of a state.
    pub(crate) fn load_pinned(
        &self,
        id: DatabaseId,
        point: Option<StatePoint>,
    ) -> Result<(Loaded, Option<Arc<Pin>>, u64)> {
        let (chain, pin) = self.pin(id, point)?;
        Ok((load(&self.files, &chain)?, pin, chain.generation))
    }

    /// The layers of one state, bottom first, as `show` draws them.
    pub fn stack(
        self: &Arc<Self>,
        name: &DatabaseName,
        reference: &Ref,
    ) -> Result<(Lsn, Vec<LayerRow>)> {
        again(|| {
            let database = self.database(name)?;
            let state = self.resolve(&database, reference)?;
            let chain = self.catalog.chain(database.id, state.point)?;
            Ok((state.lsn(), chain.layers))
        })
    }

    /// What this process read from the remote store and the cache of it; zeros where there is none.
    #[must_use]
    pub fn remote_stats(&self) -> StatsNow {
        let tier = self.files.tier();
        tier.map_or_else(StatsNow::default, |tier| tier.stats().now())
    }

    /// Bytes that a database's own layers take in a remote store.
    pub fn bytes_remote(&self, database: &Database) -> Result<u64> {
        let rows = self.catalog.layers(database.id)?;
        let segments = rows.iter().flat_map(|row| &row.segments);
        Ok(segments.map(|segment| segment.bytes).sum())
    }

    /// Bytes that a database's own layers take in the store.
    pub fn bytes(&self, database: &Database) -> Result<u64> {
        let rows = self.catalog.layers(database.id)?;
        let mut bytes = 0;
        for row in rows {
            bytes += match row.bytes {
                Some(bytes) => bytes,
                None => match row.end {
                    Some(end) => end,
                    None => self
                        .head_word(database.id)
                        .filter(|word| word.point.layer == row.id)
                        .map_or(0, |word| word.end),
                },
            };
        }
        Ok(bytes)
    }

    /// Takes the lease and opens the live image; recovers first where the last writer was killed.
    pub fn open_writer(
        self: &Arc<Self>,
        name: &DatabaseName,
        options: WriterOptions,
    ) -> Result<Writer> {
        let database = self.catalog.database(name)?;
        let deadline = Instant::now() + STEAL_TIMEOUT;
        let lease = loop {
            match self.acquire(&database) {
                Err(error) if options.steal && error.is_held() => {
                    if Instant::now() >= deadline {
                        // Nobody answers. If the lease ran out, what the holder still writes is
                        // fenced; if not, this says who holds it.
                        break self.acquire_with(&database, None)?;
                    }
                    if self.catalog.lease(database.id)?.is_some() {
                        self.catalog.want_lease(database.id)?;
                    }
                    machine::sleep(Duration::from_millis(200));
                }
                result => break result?,
            }
        };
        Writer::open(self, &database, lease, options)
    }

    /// Fetches all that one state needs from the remote store into the cache, until `stop` is set;
    /// does nothing where the store is local. After an error another call goes on from there.
    pub fn prefetch(
        self: &Arc<Self>,
        name: &DatabaseName,
        reference: &Ref,
        stop: &AtomicBool,
    ) -> Result<()> {
        let Some(tier) = self.files.tier() else {
            return Ok(());
        };
        let (chain, _pin) = again(|| {
            let database = self.database(name)?;
            let state = self.resolve(&database, reference)?;
            self.pin(database.id, state.point)
        })?;
        let failed = |error| io_error("fetch ahead", error);
        let mut files = Vec::new();
        for row in chain.layers.iter().filter(|row| !self.files.has(row)) {
            match (row.kind, row.end) {
                (LayerKind::Delta, _) => {
                    files.push(tier.delta(row.id, &row.segments).map_err(failed)?);
                }
                (LayerKind::Image, size) => {
                    let size = size.unwrap_or(0);
                    let (image, sums) = tier.image(row.id, size, &row.segments).map_err(failed)?;
                    files.extend([image, sums]);
                }
            }
        }
        prefetch(&files, &|_, _| (), stop).map_err(failed)
    }

    /// Resolves, pins and loads one state.
    pub fn open_reader(self: &Arc<Self>, name: &DatabaseName, reference: &Ref) -> Result<Reader> {
        again(|| {
            let database = self.database(name)?;
            let state = self.resolve(&database, reference)?;
            let (loaded, pin, _) = self.load_pinned(database.id, state.point)?;
            let hold = Hold {
                naming: Naming::new(&database.name),
                pin,
                hashes: Arc::clone(&self.hashes),
            };
            let frozen = Frozen::new(loaded.image, state, Arc::new(hold));
            Ok(Reader {
                frozen: Arc::new(frozen),
                layers: loaded.layers.len(),
            })
        })
    }

    /// Lets go of everything that this process reads: its pins would otherwise keep layers for ten
    /// minutes more. Readers answer ESTALE from then on.
    pub fn end_readers(&self) {
        self.pins.end_all();
    }

    /// A reader that can be asked for the newest commit.
    pub fn open_follower(self: &Arc<Self>, name: &DatabaseName) -> Result<Follower> {
        again(|| Follower::open(self, self.database(name)?))
    }

    /// Names the newest acknowledged commit.
    pub fn snapshot(
        self: &Arc<Self>,
        name: &DatabaseName,
        snapshot: Option<&SnapshotName>,
    ) -> Result<Snapshot> {
        let database = self.database(name)?;
        if database.head.point.is_none() {
            return Err(StoreError::Refused(format!(
                "{name} has no commit yet, so there is nothing to snapshot; write to it first"
            )));
        }
        let Head {
            time,
            written_bytes,
            ..
        } = database.head;
        let new = NewSnapshot {
            name: snapshot.cloned(),
            lsn: database.head.lsn(),
            time,
            written_bytes,
        };
        let added = self.catalog.add_snapshot(database.id, &new)?;
        let layer = self
            .catalog
            .find_lsn(database.id, added.lsn)?
            .map(|row| row.id);
        if layer == database.head.point.map(|point| point.layer) {
            return Ok(added);
        }
        // Compaction came in between; from now on the snapshot keeps the commit, if it is there.
        let kept = self.resolve(&database, &Ref::Id(added.id));
        if kept.is_err() {
            self.catalog.remove_snapshot(database.id, added.id)?;
        }
        kept.map(|_| added)
    }

    /// Takes a snapshot away, by name or id; its commit is then under retention alone.
    pub fn unsnapshot(&self, name: &DatabaseName, snapshot: &Ref) -> Result<()> {
        let database = self.catalog.database(name)?;
        let found = match snapshot {
            Ref::Name(name) => self.catalog.snapshot_by_name(database.id, name)?,
            Ref::Id(id) => self.catalog.snapshot_by_id(database.id, *id)?,
            other => {
                return Err(StoreError::NoSuchRef(format!(
                    "{other} is not a snapshot's name or id; `openduck-fs log {name}` lists them"
                )));
            }
        };
        Ok(self.catalog.remove_snapshot(database.id, found.id)?)
    }

    /// A database's snapshots, oldest first.
    pub fn snapshots(&self, name: &DatabaseName) -> Result<Vec<Snapshot>> {
        let database = self.catalog.database(name)?;
        Ok(self.catalog.snapshots(database.id)?)
    }

    /// Makes a database that begins with a state of another. Copies nothing. Where layers are in a
    /// remote store, a commit that is not there yet is waited for, and refused if it does not come.
    pub fn clone_database(
        self: &Arc<Self>,
        source: &DatabaseName,
        reference: &Ref,
        new: &DatabaseName,
    ) -> Result<Database> {
        again(|| {
            let database = self.database(source)?;
            let state = self.resolve(&database, reference)?;
            self.wait_until_published(&database, state.lsn())?;
            let base = Base {
                database: database.id,
                point: state.point,
            };
            let start = (base, state.time, state.written_bytes);
            let made = self
                .catalog
                .create_database(new, database.retention_s, Some(start));
            Ok(made?)
        })
    }

    /// Adds a commit with the image of `reference`; refused while mounted for writing.
    pub fn restore(self: &Arc<Self>, name: &DatabaseName, reference: &Ref) -> Result<Lsn> {
        let database = self.catalog.database(name)?;
        let lease = self.acquire(&database)?;
        let result = self.recover_layers(database.id, &lease).and_then(|()| {
            again(|| {
                let database = self.database(name)?;
                let state = self.resolve(&database, reference)?;
                self.add_restoring_layer(&database, &lease, &state)
            })
        });
        lease.release()?;
        result
    }

    /// A layer that holds nothing but a commit, and stands on an older state.
    fn add_restoring_layer(
        &self,
        database: &Database,
        lease: &HeldLease,
        state: &CommitPoint,
    ) -> Result<Lsn> {
        let lsn = database.head.lsn().next();
        let time = Timestamp::now().max(Timestamp(database.head.time.0 + 1));
        let mut layer = NewLayer::begin(
            &self.files,
            database.id,
            lease.epoch(),
            state.point,
            lsn,
            database.head.written_bytes,
        )?;
        layer.commit(lsn, time, database.head.written_bytes)?;
        let head = layer.publish(self, lease.epoch(), &[])?;
        self.store_head_word(database.id, lease.epoch(), &head, layer.end())?;
        self.seal_rotated(database.id, &|| ())?;
        Ok(lsn)
    }

    /// Removes a database; `undrop` brings it back while its retention lasts.
    pub fn remove(self: &Arc<Self>, name: &DatabaseName) -> Result<()> {
        let database = self.database(name)?;
        // Nobody may begin to write meanwhile, and who does write may have overslept its lease.
        self.acquire(&database)?.release()?;
        Ok(self.catalog.drop_database(database.id)?)
    }

    /// Brings a removed database back.
    pub fn undrop(&self, name: &DatabaseName) -> Result<Database> {
        Ok(self.catalog.undrop_database(name)?)
    }

    /// Sets how long commits are kept.
    pub fn set_retention(&self, name: &DatabaseName, retention: Duration) -> Result<()> {
        let database = self.catalog.database(name)?;
        Ok(self.catalog.set_retention(
            database.id,
            retention.as_secs().min(RETENTION_MAX.as_secs()),
        )?)
    }

    /// Seals every layer of a database that is rotated and not sealed yet.
    pub fn seal_rotated(&self, id: DatabaseId, pace: &dyn Fn()) -> Result<()> {
        // One at a time: whoever comes second finds nothing left to do.
        let path = self.files.locks().join(format!("seal-{id}"));
        let failed = |error| io_error(&format!("lock {}", path.display()), error);
        let lock = std::fs::File::create(&path).map_err(failed)?;
        machine::lock_file(&lock).map_err(failed)?;
        for row in self
            .catalog
            .layers(id)?
            .iter()
            .filter(|row| row.state == LayerState::Rotated)
        {
            seal(self, row, pace)?;
        }
        Ok(())
    }
}

impl StoreError {
    /// Whether somebody else may write the database.
    fn is_held(&self) -> bool {
        matches!(
            self,
            StoreError::Catalog(CatalogError::LeaseHeld { .. }) | StoreError::Paused(_)
        )
    }

    /// Whether it failed because the home, or the catalog, can't be written.
    fn is_read_only(&self) -> bool {
        match self {
            StoreError::Io { source, .. } => {
                matches!(
                    source.kind(),
                    std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied
                )
            }
            StoreError::Fs(FsError::ReadOnlyDisk) => true,
            StoreError::Catalog(CatalogError::ReadOnly { .. }) => true,
            _ => false,
        }
    }
}

/// An [`StoreError::Io`].
pub(crate) fn io_error(what: &str, source: std::io::Error) -> StoreError {
    StoreError::Io {
        what: format!("cannot {what}"),
        source,
    }
}
