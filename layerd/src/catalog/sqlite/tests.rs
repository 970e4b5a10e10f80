//! The claims that every catalog is held to, over SQLite, and what is SQLite's own.

mod damage;
mod opening;
mod processes;
mod read_only;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;

use super::*;
use crate::catalog::conformance::Harness;
use crate::catalog::{Base, Catalog, CatalogError, Database, Holder, Segment, StatePoint};
use crate::id::{DatabaseId, Epoch, LayerId, Lsn};
use std::time::Duration;

crate::catalog_conformance!(fresh);

fn fresh() -> SqliteHarness {
    SqliteHarness {
        home: Home::new(),
        now: Arc::new(AtomicI64::new(1_800_000_000_000_000_000)),
    }
}

struct SqliteHarness {
    home: Home,
    now: Arc<AtomicI64>,
}

impl Harness for SqliteHarness {
    fn connect(&self) -> Box<dyn Catalog> {
        let now = Arc::clone(&self.now);
        let clock: Clock = Arc::new(move || Timestamp(now.load(Ordering::SeqCst)));
        Box::new(SqliteCatalog::open_with_clock(&self.home.file(), clock).unwrap())
    }

    fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_nanos()).unwrap();
        self.now.fetch_add(by, Ordering::SeqCst);
    }
}

/// A directory for one catalog.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join("catalog.db")
    }

    fn open(&self) -> Result<SqliteCatalog> {
        SqliteCatalog::open(&self.file())
    }

    /// A file that SQLite keeps beside the catalog's.
    fn beside(&self, suffix: &str) -> PathBuf {
        self.path().join(format!("catalog.db{suffix}"))
    }
}

fn create(catalog: &dyn Catalog, called: &str) -> Result<Database> {
    catalog.create_database(&called.parse().unwrap(), 60, None)
}

fn names(catalog: &dyn Catalog) -> Vec<String> {
    catalog
        .databases()
        .unwrap()
        .iter()
        .map(|database| database.name.to_string())
        .collect()
}
