//! Errors become errno here, and nowhere else.
//!
//! A process behind the mount sees one number; the log has the sentence. Only errors that say
//! something about the state of the store are logged, not those that a program makes by asking for
//! what is not there.

use std::time::{Duration, Instant};

use fuser::Errno;
use layerd::FsError;
use layerd::catalog::CatalogError;
use layerd::store::StoreError;
use parking_lot::Mutex;

/// The errno for a failed operation on an image.
pub(crate) fn errno(error: &FsError) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::NotADirectory => Errno::ENOTDIR,
        FsError::IsADirectory => Errno::EISDIR,
        FsError::InvalidName | FsError::Invalid => Errno::EINVAL,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::TooLarge => Errno::EFBIG,
        FsError::NoSpace => logged(error, Errno::ENOSPC),
        FsError::ReadOnlyDisk => logged(error, Errno::EROFS),
        FsError::Stale => logged(error, Errno::ESTALE),
        // The mount is dead, not busy: a retry can't help.
        FsError::LeaseLost(_)
        | FsError::Poisoned(_)
        | FsError::NotStored(_)
        | FsError::Damaged { .. }
        | FsError::Catalog(_) => logged(error, Errno::EIO),
        FsError::Io(io) => {
            let errno = io.raw_os_error().map_or(Errno::EIO, Errno::from_i32);
            logged(error, errno)
        }
    }
}

/// The errno for a failed operation on the store: finding a reference, taking a snapshot.
pub(crate) fn store_errno(error: &StoreError) -> Errno {
    match error {
        StoreError::Catalog(
            CatalogError::NoSuchDatabase(_) | CatalogError::NoSuchSnapshot { .. },
        )
        | StoreError::NoSuchRef(_) => Errno::ENOENT,
        StoreError::Catalog(CatalogError::SnapshotExists { .. }) => Errno::EEXIST,
        StoreError::Fs(error) => errno(error),
        StoreError::Config(_) => Errno::EINVAL,
        StoreError::Refused(_) | StoreError::Paused(_) => Errno::EBUSY,
        StoreError::Catalog(_)
        | StoreError::Objects(_)
        | StoreError::Upload(_)
        | StoreError::NotStored { .. }
        | StoreError::Damaged(_)
        | StoreError::Io { .. } => {
            tracing::error!("{error}");
            Errno::EIO
        }
    }
}

fn logged(error: &FsError, errno: Errno) -> Errno {
    let line_number = LIMIT.lock().count(Instant::now());
    match line_number {
        1..=LINE_COUNT_MAX => tracing::error!("{error}"),
        n if n == LINE_COUNT_MAX + 1 => {
            tracing::error!("{error} (more such errors are not logged for a while)")
        }
        _ => {}
    }
    errno
}

/// How many errors are logged in one period: a program may retry for ever on a full disk, and the
/// log lies on that disk.
const LINE_COUNT_MAX: u32 = 50;
const PERIOD: Duration = Duration::from_secs(10);

static LIMIT: Mutex<Limit> = Mutex::new(Limit {
    period: None,
    count: 0,
});

/// Counts within a period.
struct Limit {
    period: Option<Instant>,
    count: u32,
}

impl Limit {
    /// The number of this event in its period, from 1.
    fn count(&mut self, now: Instant) -> u32 {
        if self
            .period
            .is_none_or(|start| now.saturating_duration_since(start) >= PERIOD)
        {
            *self = Limit {
                period: Some(now),
                count: 0,
            };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such() {
        let full = FsError::from(std::io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(errno(&full), Errno::ENOSPC);
    }

    #[test]
    fn each_period_counts_anew() {
        let mut limit = Limit {
            period: None,
            count: 0,
        };
        let start = Instant::now();
        assert_eq!(
            [limit.count(start), limit.count(start + PERIOD / 2)],
            [1, 2]
        );
        assert_eq!(limit.count(start + PERIOD), 1);
    }

    #[test]
    fn an_io_error_keeps_its_own_number() {
        let error = FsError::from(std::io::Error::from_raw_os_error(libc::EMFILE));
        assert_eq!(errno(&error), Errno::EMFILE);
        let nameless = FsError::from(std::io::Error::other("no number"));
        assert_eq!(errno(&nameless), Errno::EIO);
    }

    #[test]
    fn a_taken_snapshot_name_is_eexist_and_a_missing_one_enoent() {
        let taken = CatalogError::SnapshotExists {
            database: "a".into(),
            snapshot: "b".into(),
        };
        assert_eq!(store_errno(&taken.into()), Errno::EEXIST);
        let missing = CatalogError::NoSuchSnapshot {
            database: "a".into(),
            snapshot: "b".into(),
        };
        assert_eq!(store_errno(&missing.into()), Errno::ENOENT);
    }
}
