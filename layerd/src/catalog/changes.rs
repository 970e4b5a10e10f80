//! Word of what other processes publish, for who would poll otherwise.
//!
//! A hint, never the truth: the count may grow for nothing, and says only that the catalog is
//! worth asking. While word comes through, nothing is published without the count growing soon
//! after, or at the latest after a few seconds. That it does not come through any more is noticed within 10 s; then
//! [`Changes::is_live`] is false, and when it is true again the count has grown.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A counter that grows whenever another process may have published.
#[derive(Debug, Default)]
pub struct Changes {
    count: AtomicU64,
    is_live: AtomicBool,
}

impl Changes {
    /// How often something may have changed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Whether word comes through at the moment: who sees `true`, and the same count as before,
    /// need not ask the catalog.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.is_live.load(Ordering::Acquire)
    }

    /// Something may have changed.
    pub fn grow(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Word comes through from now on. What was missed before may be anything.
    pub fn begin(&self) {
        self.grow();
        self.is_live.store(true, Ordering::Release);
    }

    /// Word does not come through any more.
    pub fn end(&self) {
        self.is_live.store(false, Ordering::Release);
    }
}
