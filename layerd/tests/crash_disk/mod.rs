//! A disk that separates what was written from what was synced, and stops at any step.
//!
//! Files lie in a real directory; beside each, memory holds what of it is durable. [`CrashDisk::crash`]
//! leaves each page that was written and not synced as it was or as it became, by chance, and takes
//! back names whose directory was not synced.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use layerd::disk::{Disk, DiskFile, RealDisk};

const PAGE: usize = 4096;
/// What a disk that has stopped answers.
pub const STOPPED: &str = "the machine has stopped";
/// So much is allocated ahead.
const ROOM: u64 = 1 << 18;

#[derive(Default)]
struct State {
    /// Durable content of every file that was written to, by inode.
    files: BTreeMap<u64, Durable>,
    /// Names that are not durable yet, in order.
    names: Vec<NameChange>,
}

struct Durable {
    file: File,
    content: Vec<u8>,
}

enum NameChange {
    Created(PathBuf),
    Renamed(PathBuf, PathBuf),
}

impl NameChange {
    fn is_in(&self, directory: &Path) -> bool {
        match self {
            NameChange::Created(path) => path.parent() == Some(directory),
            // A rename is durable once its target's directory is.
            NameChange::Renamed(_, to) => to.parent() == Some(directory),
        }
    }
}

struct Shared {
    state: Mutex<State>,
    /// How many more steps are made; negative: no end.
    steps: AtomicI64,
}

impl Shared {
    /// One step of I/O, or the end of the machine.
    fn step(&self) -> io::Result<()> {
        if self.steps.load(Ordering::SeqCst) < 0 {
            return Ok(());
        }
        if self
            .steps
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                (left > 0).then(|| left - 1)
            })
            .is_ok()
        {
            Ok(())
        } else {
            Err(io::Error::other(STOPPED))
        }
    }
}

/// See the module's text.
#[derive(Clone)]
pub struct CrashDisk(Arc<Shared>);

impl CrashDisk {
    /// A disk that does not stop yet.
    pub fn new() -> CrashDisk {
        CrashDisk(Arc::new(Shared {
            state: Mutex::default(),
            steps: AtomicI64::new(-1),
        }))
    }

    /// The machine stops after so many more writing steps.
    pub fn stop_after(&self, steps: u32) {
        self.0.steps.store(i64::from(steps), Ordering::SeqCst);
    }

    /// The power fails: nobody writes any more, and of what was not synced chance decides.
    pub fn crash(&self, mut chance: impl FnMut() -> bool) {
        self.0.steps.store(0, Ordering::SeqCst);
        let mut state = self.0.state.lock().unwrap();
        for durable in state.files.values() {
            let length = durable.file.metadata().unwrap().len() as usize;
            let keep_length = if chance() {
                length
            } else {
                durable.content.len()
            };
            let mut now = vec![0; length];
            durable.file.read_exact_at(&mut now, 0).unwrap();
            now.resize(keep_length.max(durable.content.len()), 0);
            for begin in (0..now.len()).step_by(PAGE) {
                let end = (begin + PAGE).min(now.len());
                let mut old = durable
                    .content
                    .get(begin..end.min(durable.content.len()))
                    .unwrap_or_default()
                    .to_vec();
                old.resize(end - begin, 0);
                if now[begin..end] != old && !chance() {
                    now[begin..end].copy_from_slice(&old);
                }
            }
            now.truncate(keep_length.max(durable.content.len()));
            durable.file.set_len(now.len() as u64).unwrap();
            durable.file.write_all_at(&now, 0).unwrap();
        }
        // Names are journalled in order: some prefix of the changes survives.
        let keep = (0..state.names.len())
            .find(|_| !chance())
            .unwrap_or(state.names.len());
        for change in state.names.split_off(keep).into_iter().rev() {
            // A file that was removed meanwhile has no name to take back.
            let _ = match change {
                NameChange::Created(path) => std::fs::remove_file(path),
                NameChange::Renamed(from, to) => std::fs::rename(to, from),
            };
        }
    }

    fn open_file(&self, inner: Arc<dyn DiskFile>) -> io::Result<Arc<dyn DiskFile>> {
        let id = inner.file().expect("a local file").metadata()?.ino();
        Ok(Arc::new(CrashFile {
            id,
            inner,
            shared: Arc::clone(&self.0),
        }))
    }
}

impl Disk for CrashDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.step()?;
        let file = RealDisk.create(path)?;
        self.0
            .state
            .lock()
            .unwrap()
            .names
            .push(NameChange::Created(path.to_owned()));
        self.open_file(file)
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(RealDisk.open(path, write)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.step()?;
        RealDisk.rename(from, to)?;
        self.0
            .state
            .lock()
            .unwrap()
            .names
            .push(NameChange::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.step()?;
        RealDisk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.0.step()?;
        self.0
            .state
            .lock()
            .unwrap()
            .names
            .retain(|change| !change.is_in(path));
        Ok(())
    }
}

struct CrashFile {
    id: u64,
    inner: Arc<dyn DiskFile>,
    shared: Arc<Shared>,
}

impl CrashFile {
    fn whole(&self) -> io::Result<Vec<u8>> {
        let mut content = vec![0; self.inner.length()? as usize];
        self.inner.read_at(&mut content, 0)?;
        Ok(content)
    }

    /// Notes the durable content before the first change since the last sync.
    fn changing(&self) -> io::Result<()> {
        self.shared.step()?;
        let mut state = self.shared.state.lock().unwrap();
        if let Entry::Vacant(new) = state.files.entry(self.id) {
            // Opened anew: the lock of whoever made the file ends with him.
            let file = self.inner.file().expect("a local file");
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let file = File::options().read(true).write(true).open(path)?;
            let content = self.whole()?;
            new.insert(Durable { file, content });
        }
        Ok(())
    }
}

impl DiskFile for CrashFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(bytes, offset)
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.changing()?;
        self.inner.write_at(parts, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.step()?;
        self.shared.state.lock().unwrap().files.remove(&self.id);
        Ok(())
    }

    fn allocate(&self, _begin: u64, end: u64) -> io::Result<()> {
        // Small steps keep the files of these tests small; the length is what matters.
        self.changing()?;
        let end = end.min(self.inner.length()? + ROOM);
        if self.inner.length()? < end {
            self.inner.set_length(end)
        } else {
            Ok(())
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.changing()?;
        self.inner.set_length(length)
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn file(&self) -> Option<&Arc<File>> {
        self.inner.file()
    }
}
