//! A worker's claim on its mount point: a lock that its process holds, and that ends with it.
//!
//! A server that is started again finds the workers of the one before still ending, each about to take
//! its mount away. The next worker of the same mount point waits for that, and is never led to a mount
//! that goes away under it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is looked whether the worker before has ended.
const POLL: Duration = Duration::from_millis(5);

/// A mount point is this worker's, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    _locked: File,
}

impl Claim {
    /// Claims a mount point, by the file `MOUNT_POINT.lock` beside it, which stays. Waits up to `patience` for
    /// the worker that has it. Blocks.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`]: another worker still has it. What the operating system says.
    pub fn of(mount_point: &Path, patience: Duration) -> io::Result<Claim> {
        let mut lock_file = mount_point.as_os_str().to_owned();
        lock_file.push(".lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(lock_file)?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Claim { _locked: file }),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        format!(
                            "another worker still has it after {} s; end that one, or name another directory",
                            patience.as_secs()
                        ),
                    ));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_has_one_worker_and_the_next_one_waits() {
        let directory = tempfile::tempdir().unwrap();
        let point = directory.path().join("mount");
        let first = Claim::of(&point, Duration::ZERO).unwrap();
        let refused = Claim::of(&point, Duration::from_millis(20)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        assert!(Claim::of(&directory.path().join("other"), Duration::ZERO).is_ok());
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Claim::of(&point, Duration::from_secs(30)));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!second.is_finished());
            drop(first);
            assert!(second.join().unwrap().is_ok());
        });
    }
}
