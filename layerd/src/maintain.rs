//! Care in the background: what the mounting process does by itself, at rest with everybody else.
//!
//! Each second it looks whether the active layer should be ended; layers that wait to be sealed
//! are sealed once the writer pauses (or after half a minute); each minute expired commits are
//! folded out if that clearly pays; each hour garbage is collected. All of it rests four times as
//! long as it works.

use std::sync::Arc;
use std::time::Duration;

use crate::compact::Effort;
use crate::id::DatabaseId;
use crate::machine::{Instant, sleep};
use crate::store::{Result, Store};

/// How often each kind of care is looked at.
const SEAL_PATIENCE: Duration = Duration::from_secs(30);
const COMPACT_EVERY: Duration = Duration::from_secs(60);
/// How often garbage is collected.
pub const GC_EVERY: Duration = Duration::from_secs(3600);
/// Compaction begins only with so much of the disk free: it writes before it gives back.
const FREE_PERCENT_MIN: u64 = 10;

/// When what was done last.
pub struct Caretaker {
    store: Arc<Store>,
    database: DatabaseId,
    position: u64,
    waiting_since: Instant,
    compacted: Instant,
    collected: Instant,
}

impl Caretaker {
    /// Nothing is due at once.
    #[must_use]
    pub fn new(store: &Arc<Store>, database: DatabaseId) -> Caretaker {
        let now = Instant::now();
        Caretaker {
            store: Arc::clone(store),
            database,
            position: 0,
            waiting_since: now,
            compacted: now,
            collected: now,
        }
    }

    /// One round of a writer. `position` is how far its log has got: it tells whether it pauses.
    /// Returns whether its image should be loaded anew: layers were replaced, or local copies
    /// dropped.
    pub fn round(&mut self, position: u64, ended: &dyn Fn() -> bool) -> Result<bool> {
        let paused = position == self.position;
        self.position = position;
        let may_seal = paused || self.waiting_since.elapsed() >= SEAL_PATIENCE;
        if may_seal {
            self.waiting_since = Instant::now();
        }
        let replaced = self.care(may_seal, ended)?;
        let dropped = self.store.drop_local_copies(self.store.cache_limits())?;
        if dropped > 0 {
            tracing::info!(dropped, "dropped local copies of layers that the store has");
        }
        if self.collected.elapsed() >= GC_EVERY {
            self.collected = Instant::now();
            collect(&self.store)?;
        }
        Ok(replaced || dropped > 0)
    }

    /// Seals what waits for it, and compacts where that is due and pays. Returns whether layers were
    /// replaced.
    pub fn care(&mut self, may_seal: bool, ended: &dyn Fn() -> bool) -> Result<bool> {
        let pace = Pace::new(ended);
        if may_seal {
            self.store.seal_rotated(self.database, &|| pace.rest())?;
        }
        let (free, total) = self.store.free_space()?;
        if self.compacted.elapsed() < COMPACT_EVERY || free * 100 < total * FREE_PERCENT_MIN {
            return Ok(false);
        }
        self.compacted = Instant::now();
        let database = self.store.catalog().database_by_id(self.database)?;
        let report = self
            .store
            .compact_with(&database, Effort::BACKGROUND, &|_, _| (), &|| pace.rest())?;
        if report.layers_before > 0 {
            tracing::info!(?report, "compacted");
        }
        Ok(report.layers_before > 0)
    }
}

/// One collection of garbage.
pub fn collect(store: &Arc<Store>) -> Result<()> {
    let report = store.gc(None, false)?;
    tracing::info!(?report, "collected garbage");
    Ok(())
}

/// Keeps background work at a fifth of the time.
struct Pace<'a> {
    since: std::cell::Cell<Instant>,
    ended: &'a dyn Fn() -> bool,
}

impl<'a> Pace<'a> {
    fn new(ended: &'a dyn Fn() -> bool) -> Pace<'a> {
        Pace {
            since: std::cell::Cell::new(Instant::now()),
            ended,
        }
    }

    fn rest(&self) {
        // Whoever unmounts waits for this work: then it is no background any more.
        if !(self.ended)() {
            sleep(self.since.get().elapsed().min(Duration::from_millis(20)) * 4);
        }
        self.since.set(Instant::now());
    }
}
