//! Scratch: the spill directory, `<DB>.duckdb.tmp/`, private to each process.
//!
//! DuckDB spills into a directory beside its file, with fixed file names; two readers of one
//! snapshot must not meet there. So the name leads each process to a directory of its own, which
//! exists from its `mkdir` to its `rmdir` or to the end of the process. Its files are plain local
//! files without a name in the home's scratch directory: whatever ends this process, their space
//! comes back. They are never layered and never synced.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::{BackingId, Errno, FileAttr, FileType};
use layerd::id::Timestamp;
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, Mode, OFlags};

use crate::attr::{self, Owner};
use crate::passthrough::Passthrough;
use crate::process::{Lifeline, Process};

/// Each file costs a descriptor of this process; DuckDB makes a handful.
const FILE_COUNT_MAX: usize = 1_000;

/// All spill directories of a mount.
pub(crate) struct Scratch {
    home: PathBuf,
    dirs: Mutex<HashMap<(u64, Process), Arc<ScratchDir>>>,
    file_number: AtomicU64,
}

impl Scratch {
    /// `home` is where the files go; it is made when it is needed.
    pub(crate) fn new(home: PathBuf) -> Scratch {
        Scratch {
            home,
            dirs: Mutex::default(),
            file_number: AtomicU64::new(0),
        }
    }

    /// The directory of a process in the directory `parent`.
    pub(crate) fn find(&self, parent: u64, process: Process) -> Option<Arc<ScratchDir>> {
        self.dirs.lock().get(&(parent, process)).cloned()
    }

    pub(crate) fn make(
        &self,
        parent: u64,
        process: Process,
        ino: u64,
        mode: u32,
        owner: Owner,
    ) -> Result<Arc<ScratchDir>, Errno> {
        let dir = Arc::new(ScratchDir {
            ino,
            parent,
            mode,
            owner,
            made: Timestamp::now(),
            lifeline: Lifeline::to(process),
            files: Mutex::default(),
        });
        let mut dirs = self.dirs.lock();
        if dirs.contains_key(&(parent, process)) {
            return Err(Errno::EEXIST);
        }
        dirs.insert((parent, process), Arc::clone(&dir));
        Ok(dir)
    }

    pub(crate) fn remove(&self, parent: u64, process: Process) -> Result<(), Errno> {
        let mut dirs = self.dirs.lock();
        let dir = dirs.get(&(parent, process)).ok_or(Errno::ENOENT)?;
        if !dir.files.lock().is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        dirs.remove(&(parent, process));
        Ok(())
    }

    /// Takes the directories of ended processes away and frees their space. Returns the inodes of
    /// the directories they were in, where the kernel may still know them.
    pub(crate) fn reap(&self) -> Vec<u64> {
        let mut over = Vec::new();
        self.dirs.lock().retain(|_, dir| {
            let is_over = dir.lifeline.is_cut();
            if is_over {
                over.push(Arc::clone(dir));
            }
            !is_over
        });
        for dir in &over {
            let files = std::mem::take(&mut *dir.files.lock());
            for file in files.values() {
                // The kernel may hold the file a while longer, its space it must not.
                let _ = file.file.set_len(0);
            }
        }
        over.into_iter().map(|dir| dir.parent).collect()
    }

    /// Opens a new file that has no name.
    fn nameless(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let open =
            || rustix::fs::open(&self.home, flags | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR);
        let opened = match open() {
            Err(rustix::io::Errno::NOENT) => {
                fs::create_dir_all(&self.home)?;
                open()
            }
            opened => opened,
        };
        match opened {
            Ok(file) => Ok(File::from(file)),
            // Not every filesystem can do that.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
                let number = self.file_number.fetch_add(1, Ordering::Relaxed);
                let path = self.home.join(format!("{}-{number}", std::process::id()));
                let file = File::options()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&path)?;
                fs::remove_file(&path)?;
                Ok(file)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a file in `dir`.
    pub(crate) fn create(
        &self,
        dir: &ScratchDir,
        name: &[u8],
        ino: u64,
        mode: u32,
        owner: Owner,
    ) -> Result<Arc<ScratchFile>, Errno> {
        if dir.files.lock().len() >= FILE_COUNT_MAX {
            return Err(Errno::ENOSPC);
        }
        let file = ScratchFile {
            ino,
            file: self.nameless()?,
            mode,
            owner,
            backing: Mutex::default(),
        };
        let file = Arc::new(file);
        let mut files = dir.files.lock();
        if files.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        files.insert(name.to_vec(), Arc::clone(&file));
        Ok(file)
    }
}

/// One process's spill directory.
pub(crate) struct ScratchDir {
    pub(crate) ino: u64,
    parent: u64,
    mode: u32,
    owner: Owner,
    made: Timestamp,
    lifeline: Lifeline,
    files: Mutex<HashMap<Vec<u8>, Arc<ScratchFile>>>,
}

impl ScratchDir {
    pub(crate) fn attr(&self) -> FileAttr {
        attr::plain(
            self.ino,
            FileType::Directory,
            self.mode,
            self.owner,
            self.made,
        )
    }

    pub(crate) fn find(&self, name: &[u8]) -> Result<Arc<ScratchFile>, Errno> {
        self.files.lock().get(name).cloned().ok_or(Errno::ENOENT)
    }

    pub(crate) fn unlink(&self, name: &[u8]) -> Result<(), Errno> {
        self.files
            .lock()
            .remove(name)
            .map(drop)
            .ok_or(Errno::ENOENT)
    }

    pub(crate) fn rename(&self, from: &[u8], to: &[u8], may_replace: bool) -> Result<(), Errno> {
        let mut files = self.files.lock();
        if !may_replace && files.contains_key(to) {
            return Err(Errno::EEXIST);
        }
        let file = files.remove(from).ok_or(Errno::ENOENT)?;
        files.insert(to.to_vec(), file);
        Ok(())
    }

    pub(crate) fn list(&self) -> Vec<(u64, Vec<u8>)> {
        self.files
            .lock()
            .iter()
            .map(|(name, file)| (file.ino, name.clone()))
            .collect()
    }
}

/// A file in a spill directory.
pub(crate) struct ScratchFile {
    pub(crate) ino: u64,
    file: File,
    mode: u32,
    owner: Owner,
    /// Whether the kernel writes the file itself: decided at the first open, for good.
    backing: Mutex<Option<Option<Arc<BackingId>>>>,
}

impl ScratchFile {
    pub(crate) fn attr(&self) -> Result<FileAttr, Errno> {
        let meta = self.file.metadata()?;
        let time = Timestamp(
            meta.mtime()
                .saturating_mul(1_000_000_000)
                .saturating_add(meta.mtime_nsec()),
        );
        let plain = attr::plain(self.ino, FileType::RegularFile, self.mode, self.owner, time);
        Ok(FileAttr {
            size: meta.len(),
            blocks: meta.blocks(),
            ..plain
        })
    }

    /// What the kernel is to use instead of us, if it can.
    pub(crate) fn backing(
        &self,
        passthrough: &Passthrough,
        register: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        let mut backing = self.backing.lock();
        backing
            .get_or_insert_with(|| passthrough.back(|| register(&self.file)))
            .clone()
    }

    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> Result<usize, Errno> {
        let mut filled = 0;
        while filled < out.len() {
            match self
                .file
                .read_at(&mut out[filled..], offset + filled as u64)?
            {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        Ok(self.file.write_all_at(data, offset)?)
    }

    pub(crate) fn set_size(&self, size: u64) -> Result<(), Errno> {
        Ok(self.file.set_len(size)?)
    }

    pub(crate) fn fallocate(&self, mode: i32, offset: u64, length: u64) -> Result<(), Errno> {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        rustix::fs::fallocate(&self.file, mode, offset, length)
            .map_err(|error| Errno::from_i32(error.raw_os_error()))
    }

    pub(crate) fn seek(&self, offset: u64, whence: i32) -> Result<u64, Errno> {
        let from = match whence {
            libc::SEEK_DATA => rustix::fs::SeekFrom::Data(offset),
            libc::SEEK_HOLE => rustix::fs::SeekFrom::Hole(offset),
            _ => return Err(Errno::EINVAL),
        };
        rustix::fs::seek(&self.file, from).map_err(|error| Errno::from_i32(error.raw_os_error()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Owner = Owner {
        uid: 65_534,
        gid: 65_534,
    };

    fn me() -> Process {
        Process(std::process::id())
    }

    #[test]
    fn files_leave_no_name_and_no_byte_behind() {
        let home = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(home.path().join("scratch"));
        let dir = scratch.make(1, me(), 10, 0o755, NOBODY).unwrap();
        let file = scratch.create(&dir, b"a", 11, 0o644, NOBODY).unwrap();
        file.write(3, b"xyz").unwrap();
        let mut out = [1; 100];
        let got = file.read(0, &mut out).unwrap();
        assert_eq!(out[..got], *b"\0\0\0xyz");
        assert_eq!(
            fs::read_dir(home.path().join("scratch")).unwrap().count(),
            0
        );
    }

    #[test]
    fn processes_do_not_meet() {
        let home = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(home.path().to_owned());
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let other = Process(child.id());
        scratch.make(1, me(), 10, 0o755, NOBODY).unwrap();
        assert!(scratch.find(1, other).is_none());
        scratch.make(1, other, 11, 0o755, NOBODY).unwrap();
        assert_eq!(
            scratch.make(1, other, 12, 0o755, NOBODY).err(),
            Some(Errno::EEXIST)
        );
        assert!(scratch.reap().is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(scratch.reap(), [1]);
        assert!(scratch.find(1, other).is_none());
        assert!(scratch.find(1, me()).is_some());
    }

    #[test]
    fn a_spill_directory_is_removed_only_when_it_is_empty() {
        let home = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(home.path().to_owned());
        let dir = scratch.make(1, me(), 10, 0o755, NOBODY).unwrap();
        scratch.create(&dir, b"a", 11, 0o644, NOBODY).unwrap();
        assert_eq!(scratch.remove(1, me()), Err(Errno::ENOTEMPTY));
        dir.unlink(b"a").unwrap();
        scratch.remove(1, me()).unwrap();
        assert!(scratch.find(1, me()).is_none());
    }
}
