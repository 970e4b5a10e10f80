//! The disk below: the few file calls that the engine makes, behind a trait, so that tests can put
//! a disk underneath that forgets what was not synced and stops at any step.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::aligned::ALIGNMENT;
use crate::{page_cache, write_back};

/// Makes and opens files.
pub trait Disk: Send + Sync {
    /// Makes a new file for reading and writing, locked (flock) while it is open; it must not be
    /// there yet.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file, for writing too if asked.
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Moves a file within one file system, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file's name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Reads at `offset` until `bytes` is full or the file ends; returns how many bytes came.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As [`DiskFile::read_at`], for a caller above whom the bytes are cached anyway: pages that
    /// are not in the page cache are not put there, where that can be avoided.
    fn read_uncached_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_at(bytes, offset)
    }
    /// Writes all of `parts`, one behind the other, at `offset`.
    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Has the operating system begin to write this range to the disk, without waiting for it: so
    /// much less is left for the next [`DiskFile::sync`]. Only a hint.
    fn begin_write_back(&self, _begin: u64, _end: u64) {}
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
    /// Whether all of these bytes are on a disk of this machine.
    fn is_here(&self, _begin: u64, _length: u64) -> bool {
        true
    }
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

/// What is copied at a time.
const COPY_STEP: u64 = 1 << 20;

/// Copies the first `length` bytes of a file to a new one, over what an earlier attempt may have
/// left, and syncs it; zeros become a hole. `copied` is called with how much each step brought.
pub(crate) fn copy(
    disk: &dyn Disk,
    source: &dyn DiskFile,
    length: u64,
    to: &Path,
    copied: &mut dyn FnMut(u64),
) -> io::Result<()> {
    // What an earlier attempt may have left.
    let _ = disk.remove(to);
    let target = disk.create(to)?;
    target.set_length(length)?;
    let mut buffer = vec![0; COPY_STEP as usize];
    let mut at = 0;
    while at < length {
        let bytes = &mut buffer[..(length - at).min(COPY_STEP) as usize];
        if source.read_at(bytes, at)? < bytes.len() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("what is copied to {} ends before {length}", to.display()),
            ));
        }
        if bytes.iter().any(|byte| *byte != 0) {
            target.write_at(&[bytes], at)?;
        }
        at += bytes.len() as u64;
        copied(bytes.len() as u64);
    }
    target.sync()
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
        Ok(Arc::new(RealFile::new(file)))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .open(path)
            .map_err(about(path))?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to).map_err(about(from))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path).map_err(about(path))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all().map_err(about(path))
    }
}

struct RealFile {
    file: Arc<File>,
    /// The same file, opened for reads past the page cache; `None` if that can't be had.
    direct: OnceLock<Option<File>>,
}

impl RealFile {
    fn new(file: File) -> RealFile {
        RealFile {
            file: Arc::new(file),
            direct: OnceLock::new(),
        }
    }

    /// The file to read a range from without the page cache, if that is possible and of use.
    fn direct(&self, bytes: &[u8], offset: u64) -> Option<&File> {
        let aligned = (bytes.as_ptr() as usize | bytes.len()).is_multiple_of(ALIGNMENT)
            && offset.is_multiple_of(ALIGNMENT as u64);
        if !aligned {
            return None;
        }
        let cached = page_cache::cached_pages(&self.file, offset, bytes.len() as u64);
        if cached != Some(0) {
            return None;
        }
        let open = || {
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(DIRECT).open(path).ok()
        };
        self.direct.get_or_init(open).as_ref()
    }
}

const DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits().cast_signed();

impl DiskFile for RealFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn read_uncached_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(direct) = self.direct(bytes, offset)
            && let Ok(count) = direct.read_at(bytes, offset)
            && count == bytes.len()
        {
            return Ok(count);
        }
        self.read_at(bytes, offset)
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut done = loop {
            match rustix::io::pwritev(&*self.file, &slices, offset) {
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
                self.file
                    .write_all_at(&part[skip..], offset + (begin + skip) as u64)?;
                done = begin + part.len();
            }
            begin += part.len();
        }
        Ok(())
    }

    fn begin_write_back(&self, begin: u64, end: u64) {
        write_back::begin(&self.file, begin, end);
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, begin: u64, end: u64) -> io::Result<()> {
        match rustix::fs::fallocate(
            &*self.file,
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
        self.file.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn file(&self) -> Option<&Arc<File>> {
        Some(&self.file)
    }
}
