//! The writer's side of a lease: a deadline of its own, checked before every acknowledgement.
//!
//! The catalog judges expiry by its clock. The writer can't see that clock while it acknowledges,
//! so it keeps a deadline on CLOCK_BOOTTIME (which goes on while the machine sleeps), counted from
//! *before* the renewal was sent: whatever the renewal's way took, the writer stops no later than
//! the catalog lets others in. A lease that ran out can be renewed as long as nobody took over.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use parking_lot::Mutex;

use crate::catalog::{Catalog, CatalogError, Holder, Lease};
use crate::error::FsError;
use crate::id::{DatabaseId, Epoch};

/// How long a lease lasts unless renewed.
pub const LEASE_TTL: Duration = Duration::from_secs(15);
/// How often the holder renews it.
pub const LEASE_HEARTBEAT: Duration = Duration::from_secs(5);

/// A lease that this process holds.
pub struct HeldLease {
    catalog: Arc<dyn Catalog>,
    database: DatabaseId,
    epoch: Epoch,
    /// Milliseconds on CLOCK_BOOTTIME.
    deadline_ms: AtomicU64,
    /// How often it was renewed after it had ended.
    lapses: AtomicU64,
    wanted: AtomicBool,
    fenced: Mutex<Option<String>>,
    /// The database's writer lock in this home, locked for as long as the lease is held: a writer
    /// whose lease ran out while the machine slept is not taken for dead by its own home.
    lock: Mutex<Option<File>>,
}

impl HeldLease {
    /// Takes the lease, at once where its last holder is dead (`is_dead`). `lock` is the home's
    /// writer lock, if it could be had.
    pub fn acquire(
        catalog: Arc<dyn Catalog>,
        database: DatabaseId,
        holder: &Holder,
        is_dead: &dyn Fn(&Lease) -> bool,
        lock: Option<File>,
    ) -> Result<HeldLease, CatalogError> {
        let begin = boot_time_ms();
        let lease = catalog.acquire_lease(database, holder, LEASE_TTL, is_dead)?;
        Ok(HeldLease {
            catalog,
            database,
            epoch: lease.epoch,
            deadline_ms: AtomicU64::new(begin + LEASE_TTL.as_millis() as u64),
            lapses: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            fenced: Mutex::new(None),
            lock: Mutex::new(lock),
        })
    }

    /// The fencing number.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether this process may acknowledge, right now.
    pub fn check(&self) -> Result<(), FsError> {
        if boot_time_ms() < self.deadline_ms.load(Ordering::Acquire) {
            return Ok(());
        }
        let reason = self.fenced.lock().clone();
        Err(FsError::LeaseLost(reason.unwrap_or_else(|| {
            "it could not be renewed in time".to_owned()
        })))
    }

    /// One heartbeat.
    pub fn renew(&self) {
        let begin = boot_time_ms();
        match self
            .catalog
            .renew_lease(self.database, self.epoch, LEASE_TTL)
        {
            // It was not made longer.
            Ok(lease) if lease.wanted => self.wanted.store(true, Ordering::Release),
            Ok(_) => {
                // Before the deadline moves: whoever sees the new one sees that there was a gap.
                if begin >= self.deadline_ms.load(Ordering::Acquire) {
                    self.lapses.fetch_add(1, Ordering::Release);
                }
                self.deadline_ms
                    .store(begin + LEASE_TTL.as_millis() as u64, Ordering::Release);
            }
            Err(error @ CatalogError::Fenced { .. }) => self.lose(&error),
            Err(error) => {
                tracing::warn!(%error, "the write lease could not be renewed; trying again")
            }
        }
    }

    /// Renews it, as often as it takes, until the other end of `done` is dropped.
    pub fn renew_until(&self, done: &Receiver<()>) {
        while done.recv_timeout(LEASE_HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
            self.renew();
        }
    }

    /// Renews it, as often as it takes, while `work` goes on, which may wait for a store longer than
    /// a lease lasts.
    pub fn keep<T>(&self, work: impl FnOnce() -> T) -> T {
        let (done, is_done) = channel();
        std::thread::scope(|scope| {
            scope.spawn(move || self.renew_until(&is_done));
            let result = work();
            drop(done);
            result
        })
    }

    /// Somebody else took over: acknowledge nothing from now on.
    pub fn lose(&self, reason: &CatalogError) {
        tracing::error!(%reason, "the write lease is lost");
        *self.fenced.lock() = Some(reason.to_string());
        self.deadline_ms.store(0, Ordering::Release);
    }

    /// How often the lease had ended before it was renewed: what was begun before such a gap must
    /// not be relied on behind it.
    #[must_use]
    pub fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Acquire)
    }

    /// Another writer asked for the lease, or has it.
    #[must_use]
    pub fn should_end(&self) -> bool {
        self.wanted.load(Ordering::Acquire) || self.fenced.lock().is_some()
    }

    /// Gives it back.
    pub fn release(&self) -> Result<(), CatalogError> {
        self.deadline_ms.store(0, Ordering::Release);
        let released = self.catalog.release_lease(self.database, self.epoch);
        *self.lock.lock() = None;
        released
    }
}

/// Milliseconds since the machine was booted, sleep included.
#[must_use]
pub fn boot_time_ms() -> u64 {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    at.tv_sec.unsigned_abs() * 1000 + at.tv_nsec.unsigned_abs() / 1_000_000
}
