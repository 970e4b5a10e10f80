//! The writer's side of a lease: a deadline of its own, checked before every acknowledgement.
//!
//! The catalog judges expiry by its clock. The writer can't see that clock while it acknowledges,
//! so it keeps a deadline on CLOCK_BOOTTIME (which goes on while the machine sleeps), counted from
//! *before* the renewal was sent: whatever the renewal's way took, the writer stops no later than
//! the catalog lets others in. A lease that ran out can be renewed as long as nobody took over.
//!
//! Whoever holds a lease renews it, whatever it is held for: recovery, a restore and an import may
//! take as long as the store needs.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::catalog::{Catalog, CatalogError, Holder, Lease};
use crate::error::FsError;
use crate::id::{DatabaseId, Epoch};
use crate::machine::{self, Condvar, Instant, JoinHandle, Mutex, MutexGuard, boot_time_ms};

/// How long a lease lasts unless renewed.
pub const LEASE_TTL: Duration = Duration::from_secs(15);
/// How often the holder renews it.
pub const LEASE_HEARTBEAT: Duration = Duration::from_secs(5);
/// How soon it is tried again where the catalog did not answer: several short outages must not fall
/// together with as many heartbeats.
const LEASE_RETRY: Duration = Duration::from_millis(500);

/// A lease that this process holds, and renews until it is released or dropped.
pub struct HeldLease {
    held: Arc<Held>,
    heartbeat: Mutex<Option<JoinHandle>>,
}

struct Held {
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
    /// No more heartbeats.
    ended: Mutex<bool>,
    wake: Condvar,
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
        let held = Arc::new(Held {
            catalog,
            database,
            epoch: lease.epoch,
            deadline_ms: AtomicU64::new(begin + LEASE_TTL.as_millis() as u64),
            lapses: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            fenced: Mutex::new(None),
            lock: Mutex::new(lock),
            ended: Mutex::new(false),
            wake: Condvar::new(),
        });
        let beating = Arc::clone(&held);
        let heartbeat = machine::spawn("lease", move || beating.beat());
        // Without the thread it ends after its time, and so does what is done under it.
        let heartbeat = heartbeat
            .inspect_err(|error| tracing::error!(%error, "no thread renews the write lease"))
            .ok();
        Ok(HeldLease {
            held,
            heartbeat: Mutex::new(heartbeat),
        })
    }

    /// The fencing number.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.held.epoch
    }

    /// Whether this process may acknowledge, right now.
    pub fn check(&self) -> Result<(), FsError> {
        if boot_time_ms() < self.held.deadline_ms.load(Ordering::Acquire) {
            return Ok(());
        }
        let reason = self.held.fenced.lock().clone();
        Err(FsError::LeaseLost(reason.unwrap_or_else(|| {
            "it could not be renewed in time".to_owned()
        })))
    }

    /// Somebody else took over: acknowledge nothing from now on.
    pub fn lose(&self, reason: &CatalogError) {
        self.held.lose(reason);
    }

    /// How often the lease had ended before it was renewed: what was begun before such a gap must
    /// not be relied on behind it.
    #[must_use]
    pub fn lapses(&self) -> u64 {
        self.held.lapses.load(Ordering::Acquire)
    }

    /// Another writer asked for the lease, or has it.
    #[must_use]
    pub fn should_end(&self) -> bool {
        self.held.wanted.load(Ordering::Acquire) || self.held.fenced.lock().is_some()
    }

    /// Gives it back.
    pub fn release(&self) -> Result<(), CatalogError> {
        self.stop();
        let held = &self.held;
        held.deadline_ms.store(0, Ordering::Release);
        let released = held.catalog.release_lease(held.database, held.epoch);
        *held.lock.lock() = None;
        released
    }

    fn stop(&self) {
        *self.held.ended.lock() = true;
        self.held.wake.notify_all();
        let heartbeat = self.heartbeat.lock().take();
        if let Some(thread) = heartbeat {
            // A panic in it was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Held {
    fn beat(&self) {
        let mut ended = self.ended.lock();
        let mut next = Instant::now() + LEASE_HEARTBEAT;
        while !*ended {
            if self.wake.wait_until(&mut ended, next).timed_out() {
                let pause = MutexGuard::unlocked(&mut ended, || self.renew());
                next = Instant::now() + pause;
            }
        }
    }

    /// One heartbeat; returns how long to wait until the next.
    fn renew(&self) -> Duration {
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
                tracing::warn!(%error, "the write lease could not be renewed; trying again");
                return LEASE_RETRY;
            }
        }
        LEASE_HEARTBEAT
    }

    fn lose(&self, reason: &CatalogError) {
        tracing::error!(%reason, "the write lease is lost");
        *self.fenced.lock() = Some(reason.to_string());
        self.deadline_ms.store(0, Ordering::Release);
    }
}
