//! Who is alive: each process that takes leases or pins keeps one file of the home locked.
//!
//! The kernel drops the lock when the process ends, however it ends, so a lock that can be taken
//! means that its holder is dead. Process ids prove nothing: they are reused, and differ between
//! containers.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::catalog::Holder;
use crate::id::random_u64;

/// This process's lock; the file goes when it is dropped.
#[derive(Debug)]
pub struct Instance {
    holder: Holder,
    path: PathBuf,
    /// Held for its lock.
    _file: File,
}

impl Instance {
    /// Takes a new lock file in `locks`.
    pub fn register(locks: &Path) -> io::Result<Instance> {
        let name = format!("{:016x}", random_u64());
        let path = locks.join(&name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        file.lock()?;
        let host = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let instance = format!("{}/{name}", home_id(locks)?);
        Ok(Instance {
            holder: Holder {
                host,
                pid: std::process::id(),
                instance,
            },
            path,
            _file: file,
        })
    }

    /// How this process is named in the catalog.
    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It may have been removed by somebody who cleans up; either way it is gone.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a holder is known to be dead. Only holders of the same home can be judged; of others
/// the answer is `false`.
#[must_use]
pub fn is_dead(locks: &Path, holder: &Holder) -> bool {
    let Some((home, name)) = holder.instance.split_once('/') else {
        return false;
    };
    let plain = name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
    if !plain || home_id(locks).is_ok_and(|id| id != home) {
        return false;
    }
    let path = locks.join(name);
    match File::open(&path) {
        Ok(file) => match file.try_lock() {
            Ok(()) => {
                let _ = std::fs::remove_file(&path);
                true
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
        },
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Names the home: a random number in a file beside the locks, made once. It is durable before
/// anything in the catalog refers to it, so that holders can be judged after a power loss too.
fn home_id(locks: &Path) -> io::Result<String> {
    let path = locks.join("home-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.is_empty() => return Ok(id),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // A file that a power loss left empty names nothing.
        Ok(_) => std::fs::remove_file(&path)?,
        Err(_) => {}
    }
    // Two processes may meet here: each writes a file of its own, the first link wins.
    let own = locks.join(format!("home-id.{:016x}", random_u64()));
    let mut file = File::create_new(&own)?;
    file.write_all(format!("{:016x}", random_u64()).as_bytes())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&own, &path);
    std::fs::remove_file(&own)?;
    File::open(locks)?.sync_all()?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => std::fs::read_to_string(&path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_dead_when_its_lock_is_free() {
        let locks = tempfile::tempdir().unwrap();
        let instance = Instance::register(locks.path()).unwrap();
        let holder = instance.holder().clone();
        assert!(!is_dead(locks.path(), &holder));
        drop(instance);
        assert!(is_dead(locks.path(), &holder));
    }

    #[test]
    fn holders_of_other_homes_are_not_judged() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let _own = Instance::register(here.path()).unwrap();
        let holder = Instance::register(there.path()).unwrap().holder().clone();
        assert!(!is_dead(here.path(), &holder));
        let hostile = Holder {
            instance: format!("{}/../../x", home_id(here.path()).unwrap()),
            ..holder
        };
        assert!(!is_dead(here.path(), &hostile));
    }
}
