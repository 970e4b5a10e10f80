//! The daemon: care for all databases of a store, from any host.
//!
//! The mounting process of each writer cares for its own database. A daemon does the same for those
//! that nobody writes at the moment, and takes compaction off the writers' hosts. Everything that
//! it does can also be done by others at the same time, and be stopped at any point.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Database;
use crate::id::DatabaseId;
use crate::machine::Instant;
use crate::maintain::{Caretaker, GC_EVERY, collect};
use crate::store::{Result, Store};

/// How long the daemon rests between two rounds.
pub const ROUND: Duration = Duration::from_secs(5);

/// What the daemon remembers between rounds.
pub struct Daemon {
    store: Arc<Store>,
    caretakers: HashMap<DatabaseId, Caretaker>,
    collected: Instant,
}

impl Daemon {
    /// For all databases of the store.
    #[must_use]
    pub fn new(store: &Arc<Store>) -> Daemon {
        Daemon {
            store: Arc::clone(store),
            caretakers: HashMap::new(),
            collected: Instant::now(),
        }
    }

    /// One round over all databases; ends early once `ended` says so. What fails for one database
    /// is logged, and the others go on.
    pub fn round(&mut self, ended: &dyn Fn() -> bool) -> Result<()> {
        let databases = self.store.catalog().databases()?;
        self.caretakers
            .retain(|id, _| databases.iter().any(|database| database.id == *id));
        for database in databases {
            if ended() {
                break;
            }
            if let Err(error) = self.care(&database, ended) {
                tracing::warn!(database = %database.name, %error, "maintenance failed; trying again later");
            }
        }
        if self.collected.elapsed() >= GC_EVERY {
            self.collected = Instant::now();
            collect(&self.store)?;
        }
        Ok(())
    }

    fn care(&mut self, database: &Database, ended: &dyn Fn() -> bool) -> Result<()> {
        let caretaker = self
            .caretakers
            .entry(database.id)
            .or_insert_with(|| Caretaker::new(&self.store, database.id));
        let is_written = self.store.catalog().lease(database.id)?.is_some();
        // A living writer seals its own layers.
        caretaker.care(!is_written, ended).map(drop)
    }
}
