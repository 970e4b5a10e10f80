//! Bytes in flight: how much of all results may be in memory at once.
//!
//! Each statement has an allowance of its own, so that a slow client stops its own statement. When all
//! of them together pass the worker's limit, each may hold one message only, until the others have
//! drained: nobody ever waits for somebody else's client.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What all statements of a worker share.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    statement_limit: usize,
}

impl Budget {
    /// At most `limit` bytes, but one message for each statement, and `statement_limit` for each.
    pub fn new(limit: usize, statement_limit: usize) -> Budget {
        Budget {
            limit,
            used: AtomicUsize::new(0),
            statement_limit,
        }
    }

    /// Whether a statement that holds `held` bytes may take `more`.
    pub fn admits(&self, held: usize, more: usize) -> bool {
        held == 0
            || (held + more <= self.statement_limit
                && self.used.load(Ordering::Relaxed) + more <= self.limit)
    }

    /// Counts bytes that came.
    pub fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that went.
    pub fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes in flight now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// How many bytes may be spilled, by all results together.
#[derive(Debug)]
pub struct Quota {
    limit: u64,
    used: AtomicU64,
}

impl Quota {
    /// At most `limit` bytes.
    pub fn new(limit: u64) -> Quota {
        Quota {
            limit,
            used: AtomicU64::new(0),
        }
    }

    /// Takes `bytes`, if they are there.
    pub fn take(&self, bytes: u64) -> bool {
        let taken = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.limit;
        if !taken {
            self.give(bytes);
        }
        taken
    }

    /// Gives them back.
    pub fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The limit.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_pressure_each_statement_has_one_message() {
        let budget = Budget::new(100, 60);
        assert!(budget.admits(0, 1000));
        assert!(budget.admits(30, 30));
        assert!(!budget.admits(30, 31));
        budget.take(90);
        assert!(!budget.admits(30, 30));
        assert!(budget.admits(0, 30));
        budget.give(90);
        assert!(budget.admits(30, 30));
    }

    #[test]
    fn a_quota_is_never_passed() {
        let quota = Quota::new(10);
        assert!(quota.take(6));
        assert!(!quota.take(5));
        assert!(quota.take(4));
        quota.give(10);
        assert!(quota.take(10));
    }
}
