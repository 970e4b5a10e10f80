//! The disk below: the few file calls that the engine makes, behind a trait, so that tests can put
//! a disk underneath that forgets what was not synced and stops at any step.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Makes and opens files.
pub trait Disk: Send + Sync {
    /// Makes a new file for reading and writing, locked (flock) while it is open; it must not be
    /// there yet.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file, for writing too if asked.
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Moves a file within one file system, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Reads at `offset` until `bytes` is full or the file ends; returns how many bytes came.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `parts`, one behind the other, at `offset`.
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;
    /// fdatasync: everything written, and what is needed to read it, is durable.
    fn sync(&self) -> io::Result<()>;
    /// Makes the file at least `end` long, with room on the disk for all of it.
    fn allocate(&self, begin: u64, end: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// The file's length.
    fn length(&self) -> io::Result<u64>;
    /// The open file itself, for what only the operating system can do with it; `None` where the
    /// bytes are not all in one file of this machine.
    fn file(&self) -> Option<&Arc<File>>;
    /// What was read there did not match its checksum. `true`: it was a copy, which is dropped;
    /// reading once more may bring the right bytes.
    fn mistrust(&self, _begin: u64, _length: u64) -> bool {
        false
    }
}

/// Reads a range and makes something of it; where that fails and the bytes were a copy, once more.
pub(crate) fn read_checked<T, E: From<io::Error>>(
    file: &dyn DiskFile,
    at: u64,
    length: usize,
    decode: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<T, E> {
    let mut bytes = vec![0; length];
    let got = file.read_at(&mut bytes, at)?;
    match decode(&bytes[..got]) {
        Err(_) if file.mistrust(at, length as u64) => {
            let got = file.read_at(&mut bytes, at)?;
            decode(&bytes[..got])
        }
        result => result,
    }
}

/// The error, and which file it is about.
fn about(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The operating system's own files.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(about(path))?;
        // Held for as long as the file is open: whoever finds it without a row in the catalog can
        // tell a layer in the making from an orphan.
        file.lock()?;
        Ok(Arc::new(RealFile(Arc::new(file))))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .open(path)
            .map_err(about(path))?;
        Ok(Arc::new(RealFile(Arc::new(file))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to).map_err(about(from))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all().map_err(about(path))
    }
}

struct RealFile(Arc<File>);

impl DiskFile for RealFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.0.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut done = loop {
            match rustix::io::pwritev(&*self.0, &slices, offset) {
                Ok(n) => break n,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        // A short write is rare (a signal, a nearly full disk): finish part by part.
        let mut begin = 0;
        for part in parts {
            if done < begin + part.len() && done < total {
                let skip = done.saturating_sub(begin);
                self.0
                    .write_all_at(&part[skip..], offset + (begin + skip) as u64)?;
                done = begin + part.len();
            }
            begin += part.len();
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, begin: u64, end: u64) -> io::Result<()> {
        match rustix::fs::fallocate(
            &*self.0,
            rustix::fs::FallocateFlags::empty(),
            begin,
            end - begin,
        ) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                // Without fallocate the room can't be promised; length alone still saves the
                // journal from recording it at each commit.
                if self.length()? < end {
                    self.set_length(end)
                } else {
                    Ok(())
                }
            }
            result => Ok(result?),
        }
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn file(&self) -> Option<&Arc<File>> {
        Some(&self.0)
    }
}
