//! What all processes of one run share, and how one of them opens its home.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use layerd::FsError;
use layerd::catalog::CatalogError;
use layerd::catalog::sqlite::SqliteCatalog;
use layerd::frozen::Frozen;
use layerd::id::{DatabaseName, FileId};
use layerd::machine::world::{Host, Process, World};
use layerd::store::{Store, StoreError};
use parking_lot::Mutex;

use crate::catalog::Way;
use crate::crash_disk::CrashDisk;
use crate::disk::HostDisk;
use crate::faults::Faults;
use crate::model::{Content, Model};
use crate::store::Bucket;

/// How many hosts there are; the last is only asked at the end.
pub const HOSTS: usize = 3;

/// One run.
#[derive(Clone)]
pub struct Setting(pub Arc<Parts>);

pub struct Parts {
    pub world: World,
    pub faults: Faults,
    pub model: Model,
    pub bucket: Bucket,
    pub catalog: Arc<SqliteCatalog>,
    pub hosts: Vec<Machine>,
    /// Processes so far.
    pub started: AtomicU64,
    /// Some database kept its commits for less than the run lasts, at some time.
    pub retention_was_short: AtomicBool,
    /// Somebody stood still for longer than a pin lives.
    pub pins_may_end: AtomicBool,
    root: tempfile::TempDir,
}

/// A host.
pub struct Machine {
    pub host: Host,
    pub state: Mutex<MachineState>,
}

pub struct MachineState {
    /// Which home it has; the number rises when one is lost.
    pub home: usize,
    pub disk: CrashDisk,
    pub processes: Vec<Process>,
    /// Its clocks stood still at some time: what it acknowledges to itself is not held against it.
    pub was_frozen: bool,
}

impl Setting {
    pub fn new(seed: u64) -> Setting {
        let world = World::new(seed);
        let root = if Path::new("/dev/shm").is_dir() {
            tempfile::tempdir_in("/dev/shm")
        } else {
            tempfile::tempdir()
        };
        let root = root.unwrap();
        let clock = {
            let world = world.clone();
            Arc::new(move || world.now())
        };
        let catalog = SqliteCatalog::open_with_clock(&root.path().join("catalog.db"), clock);
        let hosts = (0..=HOSTS).map(|n| {
            let skew = world.below(4_000_000_000).cast_signed() - 2_000_000_000;
            Machine {
                host: world.host(if n == HOSTS { 0 } else { skew }),
                state: Mutex::new(MachineState {
                    home: n,
                    disk: CrashDisk::new(),
                    processes: Vec::new(),
                    was_frozen: false,
                }),
            }
        });
        let hosts = hosts.collect();
        Setting(Arc::new(Parts {
            faults: Faults::new(&world),
            model: Model::default(),
            bucket: Bucket::default(),
            catalog: Arc::new(catalog.unwrap()),
            hosts,
            world,
            started: AtomicU64::new(0),
            retention_was_short: AtomicBool::new(false),
            pins_may_end: AtomicBool::new(false),
            root,
        }))
    }

    pub fn world(&self) -> &World {
        &self.0.world
    }

    pub fn model(&self) -> &Model {
        &self.0.model
    }

    /// Where a host's home lies.
    pub fn home(&self, number: usize) -> PathBuf {
        self.0.root.path().join(format!("home{number}"))
    }

    /// The home that a host has now.
    pub fn home_of(&self, host: usize) -> usize {
        self.0.hosts[host].state.lock().home
    }

    /// A process of a host opens its home; with a cache most of the time.
    pub fn open(&self, host: usize) -> Result<Arc<Store>, StoreError> {
        self.open_with(host, !self.world().one_in(3))
    }

    /// As [`Setting::open`]. Without a cache each read goes to the store.
    pub fn open_with(&self, host: usize, is_cached: bool) -> Result<Arc<Store>, StoreError> {
        let parts = &self.0;
        let way = Way {
            world: parts.world.clone(),
            faults: parts.faults.clone(),
            model: parts.model.clone(),
            catalog: Arc::clone(&parts.catalog),
        };
        let (home, disk) = {
            let state = parts.hosts[host].state.lock();
            (
                self.home(state.home),
                HostDisk::new(&parts.world, &state.disk),
            )
        };
        let objects = parts.bucket.objects(&parts.world, &parts.faults);
        Store::open_over(&home, disk, Arc::new(way), objects, is_cached)
    }

    /// The databases that there are.
    pub fn databases(&self) -> Vec<DatabaseName> {
        use layerd::catalog::Catalog;
        let all = self.0.catalog.databases().unwrap();
        all.into_iter().map(|database| database.name).collect()
    }

    pub fn rest(&self, seconds: u64) {
        let ms = self.world().below(seconds * 1000 + 1);
        self.world().rest(Duration::from_millis(ms));
    }

    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        let root = self.0.root.path().display().to_string();
        let text = what.to_string().replace(&root, "");
        self.world().note(format_args!("{text}"));
    }

    fn have_ended(&self) -> bool {
        self.0.faults.have_ended(self.world().now())
    }

    /// An error that a user may see while hosts die and stores fail; any other ends the run.
    pub fn excuse(&self, what: &str, error: &StoreError) {
        self.note(format_args!("{what}: {error}"));
        let text = error.to_string();
        if text.contains(crate::crash_disk::STOPPED) {
            return;
        }
        let is_stores = text.contains("memory:bucket") || text.contains("503");
        let excused = match error {
            StoreError::Damaged(_) => false,
            StoreError::Catalog(CatalogError::Unavailable { .. }) => !self.have_ended(),
            StoreError::Catalog(error) => !matches!(
                error,
                CatalogError::NoSuchLayer(_) | CatalogError::Corrupt { .. }
            ),
            StoreError::Upload(_) | StoreError::Objects(_) | StoreError::NotStored { .. } => {
                !self.have_ended()
            }
            StoreError::Fs(error) => self.is_excused(error, is_stores),
            StoreError::Io { .. } => is_stores,
            _ => true,
        };
        assert!(excused, "{what}: {error} ({error:?})");
    }

    /// As [`Setting::excuse`].
    pub fn excuse_fs(&self, what: &str, error: &FsError) {
        self.note(format_args!("{what}: {error}"));
        let text = error.to_string();
        if text.contains(crate::crash_disk::STOPPED) {
            return;
        }
        let is_stores = text.contains("memory:bucket") || text.contains("503");
        assert!(
            self.is_excused(error, is_stores),
            "{what}: {error} ({error:?})"
        );
    }

    fn is_excused(&self, error: &FsError, is_stores: bool) -> bool {
        let faulty = !self.have_ended();
        match error {
            FsError::LeaseLost(_) | FsError::Poisoned(_) => true,
            FsError::Stale => self.0.pins_may_end.load(Ordering::SeqCst),
            FsError::NotStored(why) => faulty || why.contains("the write lease is lost"),
            FsError::Catalog(CatalogError::Unavailable { .. }) => faulty,
            FsError::Catalog(CatalogError::Fenced { .. } | CatalogError::Conflict(_)) => true,
            // A bucket that has not what it should says so.
            FsError::Io(_) => faulty && is_stores && !error.to_string().contains("no such object"),
            _ => false,
        }
    }
}

/// All files of an image, under names without the database's.
pub fn content_of(frozen: &Frozen, database: &DatabaseName) -> Result<Content, FsError> {
    let mut content = Content::new();
    for entry in frozen.list(FileId::ROOT)? {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        let name = name.replace(&format!("{database}.duckdb"), "main");
        let mut bytes = vec![0xaa; frozen.attr(entry.file)?.size as usize];
        let got = frozen.read(entry.file, 0, &mut bytes)?;
        assert_eq!(got, bytes.len(), "{name} reads short");
        content.insert(name, bytes);
    }
    Ok(content)
}
