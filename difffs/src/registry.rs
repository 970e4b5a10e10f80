//! The mounts of a home: a file for each process that serves one, so that the commands find it.
//!
//! A server keeps a lock on `<home>/mounts/<name>.lock` for as long as it lives; its socket and
//! its entry, `<name>.sock` and `<name>.json`, lie beside it. The lock alone says whether an entry
//! is alive, never the pid in it: a killed server's lock is free at once. Whoever meets a free
//! lock sweeps the three files. The directory is its owner's alone, so nobody else can talk to the
//! sockets.
//!
//! The lock is held before its file gets its name, so a sweeper never takes the place of a server
//! that is just starting.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use layerd::id::random_u64;
use serde::{Deserialize, Serialize};

/// What a server tells about its mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountEntry {
    /// The mounted database.
    pub database: String,
    /// Where it is mounted: an absolute path without links.
    pub dir: PathBuf,
    /// `rw` or `ro`.
    pub mode: String,
    /// The server, for people.
    pub pid: u32,
    /// The state that was asked for; `None` for the live mount.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// Where the server answers requests.
    pub socket: PathBuf,
}

/// The mounts of one home.
#[derive(Clone, Debug)]
pub struct Registry {
    directory: PathBuf,
}

impl Registry {
    /// The registry of the home at `home`; makes nothing yet.
    #[must_use]
    pub fn of_home(home: &Path) -> Registry {
        Registry {
            directory: home.join("mounts"),
        }
    }

    /// Takes a name for a server that is about to mount, and locks it.
    pub fn reserve(&self) -> io::Result<Reservation> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let name = format!("{}-{:016x}", std::process::id(), random_u64());
        let files = Files::new(&self.directory, &name);
        let nameless = self.directory.join(format!("{name}.new"));
        let lock = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&nameless)?;
        lock.lock()?;
        fs::rename(&nameless, &files.lock)?;
        Ok(Reservation { files, _lock: lock })
    }

    /// The mounts whose servers live, by directory. Sweeps what the others left, as far as the
    /// disk lets it.
    pub fn live(&self) -> io::Result<Vec<MountEntry>> {
        let listing = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut entries = Vec::new();
        for file in listing {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "lock") {
                continue;
            }
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
                continue;
            };
            let files = Files::new(&self.directory, name);
            if is_free(&files.lock)? {
                files.remove();
            } else if let Some(entry) = read_entry(&files.entry)? {
                entries.push(entry);
            }
        }
        entries.sort_by(|a, b| a.dir.cmp(&b.dir));
        Ok(entries)
    }

    /// The living mount at `dir`; the newest, should there be several above each other.
    pub fn at(&self, dir: &Path) -> io::Result<Option<MountEntry>> {
        let here = self.live()?.into_iter().filter(|entry| entry.dir == dir);
        let when = |entry: &MountEntry| fs::metadata(&entry.socket).and_then(|m| m.modified()).ok();
        Ok(here.max_by_key(when))
    }
}

/// Waits until the server of `entry` has let go of its lock, which it does as the last thing in
/// its life. `false` if it still holds it after `patience`.
///
/// Open the waiting before the server is asked to end: afterwards its files are gone.
pub struct Departure {
    lock: Option<File>,
}

impl Departure {
    /// Gets ready to see the server of `entry` leave.
    pub fn of(entry: &MountEntry) -> io::Result<Departure> {
        match File::open(entry.socket.with_extension("lock")) {
            Ok(lock) => Ok(Departure { lock: Some(lock) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Departure { lock: None }),
            Err(error) => Err(error),
        }
    }

    /// Whether the server is gone, now or within `patience`.
    pub fn wait(&self, patience: Duration) -> io::Result<bool> {
        const STEP: Duration = Duration::from_millis(5);
        let Some(lock) = &self.lock else {
            return Ok(true);
        };
        let deadline = Instant::now() + patience;
        loop {
            match lock.try_lock_shared() {
                Ok(()) => return Ok(true),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(false),
                Err(TryLockError::WouldBlock) => std::thread::sleep(STEP),
            }
        }
    }
}

/// A name that is locked, and not yet visible as a mount. Dropping it takes its files away.
pub struct Reservation {
    files: Files,
    _lock: File,
}

impl Reservation {
    /// Where the server is to answer requests.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.files.socket
    }

    /// Makes the mount known, at once and whole.
    pub fn publish(&self, entry: &MountEntry) -> io::Result<()> {
        let half = self.files.entry.with_extension("json.new");
        fs::write(&half, serde_json::to_vec(entry)?)?;
        fs::rename(&half, &self.files.entry)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.files.remove();
    }
}

struct Files {
    entry: PathBuf,
    socket: PathBuf,
    lock: PathBuf,
}

impl Files {
    fn new(directory: &Path, name: &str) -> Files {
        Files {
            entry: directory.join(format!("{name}.json")),
            socket: directory.join(format!("{name}.sock")),
            lock: directory.join(format!("{name}.lock")),
        }
    }

    /// Several sweepers may do this at once, and a read-only disk refuses it: what stays is swept
    /// by the next one.
    fn remove(&self) {
        let half = self.entry.with_extension("json.new");
        for file in [&self.entry, &half, &self.socket, &self.lock] {
            let _ = fs::remove_file(file);
        }
    }
}

/// A shared lock is enough to find out, so that two who look at the same time both see the truth.
fn is_free(lock: &Path) -> io::Result<bool> {
    let file = match File::open(lock) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        other => other?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// `None` while the server is still starting, and where it left meanwhile.
fn read_entry(path: &Path) -> io::Result<Option<MountEntry>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            io::Error::other(format!("{} is damaged: {error}; remove it", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry_of(reservation: &Reservation, dir: &str) -> MountEntry {
        MountEntry {
            database: "mydb".into(),
            dir: dir.into(),
            mode: "rw".into(),
            pid: std::process::id(),
            reference: None,
            socket: reservation.socket().to_owned(),
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let files = fs::read_dir(directory).unwrap();
        files
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_mount_is_seen_from_its_publication_until_its_end() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::of_home(home.path());
        assert_eq!(registry.live().unwrap(), [], "a home without mounts");
        let reservation = registry.reserve().unwrap();
        assert_eq!(registry.live().unwrap(), [], "it is still starting");
        let entry = entry_of(&reservation, "/mnt/a");
        reservation.publish(&entry).unwrap();
        assert_eq!(registry.live().unwrap(), std::slice::from_ref(&entry));
        assert_eq!(
            registry.at(Path::new("/mnt/a")).unwrap(),
            Some(entry.clone())
        );
        assert_eq!(registry.at(Path::new("/mnt/b")).unwrap(), None);

        let departure = Departure::of(&entry).unwrap();
        assert!(!departure.wait(Duration::from_millis(20)).unwrap());
        drop(reservation);
        assert!(departure.wait(Duration::ZERO).unwrap());
        assert_eq!(registry.live().unwrap(), []);
        assert_eq!(names(&home.path().join("mounts")), [""; 0]);
    }

    #[test]
    fn what_a_killed_server_left_is_swept() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::of_home(home.path());
        let living = registry.reserve().unwrap();
        living.publish(&entry_of(&living, "/mnt/a")).unwrap();
        // A kill leaves the files and frees the lock.
        let dead = Files::new(&home.path().join("mounts"), "1-dead");
        for file in [&dead.entry, &dead.socket, &dead.lock] {
            fs::write(file, "{}").unwrap();
        }
        assert_eq!(registry.live().unwrap().len(), 1);
        assert!(!dead.entry.exists() && !dead.socket.exists() && !dead.lock.exists());
    }

    #[test]
    fn nobody_else_may_look_into_the_directory() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let _reservation = Registry::of_home(home.path()).reserve().unwrap();
        let mode = fs::metadata(home.path().join("mounts"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
