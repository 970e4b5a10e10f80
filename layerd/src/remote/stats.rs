//! What the remote tier did: counters, shared by all files of one tier.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counters.
#[derive(Debug, Default)]
pub struct Stats {
    hits: AtomicU64,
    misses: AtomicU64,
    bytes: AtomicU64,
    gets: AtomicU64,
    errors: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatsNow {
    /// Reads that the local cache answered alone.
    pub hits: u64,
    /// Reads that had to wait for the store.
    pub misses: u64,
    /// Bytes that came from the store.
    pub bytes: u64,
    /// Requests that brought them.
    pub gets: u64,
    /// Requests that failed, or brought something else than what was stored.
    pub errors: u64,
}

impl Stats {
    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn got(&self, bytes: u64) {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads the counters.
    #[must_use]
    pub fn now(&self) -> StatsNow {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StatsNow {
            hits: load(&self.hits),
            misses: load(&self.misses),
            bytes: load(&self.bytes),
            gets: load(&self.gets),
            errors: load(&self.errors),
        }
    }
}
