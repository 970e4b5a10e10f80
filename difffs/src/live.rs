//! The live image: the writer's files, in the kernel's terms.
//!
//! Every change goes through this mount, so the kernel may remember names, attributes and pages for
//! as long as it likes.
//!
//! Whatever changes something passes the *gate*. It is shut before the writer is closed, and from
//! then on every change fails, however long processes keep their files open: a database must not be
//! written to by two, nor half to a mount that has been taken away and half beside it. Passing the
//! gate is one shared lock; only shutting it waits, for those inside.

use std::sync::Arc;

use fuser::{Errno, FileAttr};
use layerd::FsError;
use layerd::frozen::{Attr, DirEntry, FileKind};
use layerd::id::FileId;
use layerd::store::StoreError;
use layerd::writer::{NewFile, RenameMode, SetAttr, Writer};
use parking_lot::RwLock;

use crate::attr;
use crate::attr::Owner;
use crate::awake::Awake;
use crate::errno::errno;

/// Bits that a file may have: a database is no program that runs as somebody else.
const MODE_MASK: u32 = 0o1777;

/// The one writer's image.
pub(crate) struct Live {
    writer: Arc<Writer>,
    gate: RwLock<Gate>,
    awake: Awake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Shut,
}

impl Live {
    pub(crate) fn new(writer: Arc<Writer>) -> Live {
        Live {
            writer,
            gate: RwLock::new(Gate::Open),
            awake: Awake::new(),
        }
    }

    /// Shuts the gate, then closes the writer: commits, seals, publishes, releases the lease. Does
    /// nothing the second time.
    pub(crate) fn close(&self) -> Result<(), StoreError> {
        let before = std::mem::replace(&mut *self.gate.write(), Gate::Shut);
        match before {
            Gate::Open => self.writer.close(),
            Gate::Shut => Ok(()),
        }
    }

    /// Makes a change, if the gate is open.
    fn change<T>(&self, work: impl FnOnce(&Writer) -> Result<T, FsError>) -> Result<T, Errno> {
        let gate = self.gate.read();
        match *gate {
            Gate::Open => done(work(&self.writer)),
            Gate::Shut => Err(Errno::EIO),
        }
    }

    pub(crate) fn writer(&self) -> &Arc<Writer> {
        &self.writer
    }

    /// `None` if there is no such name.
    pub(crate) fn lookup(&self, parent: FileId, name: &[u8]) -> Result<Option<FileAttr>, Errno> {
        match self.writer.lookup(parent, name) {
            Ok(found) => Ok(Some(translate(&found))),
            Err(FsError::NotFound) => Ok(None),
            Err(error) => Err(errno(&error)),
        }
    }

    pub(crate) fn attr(&self, file: FileId) -> Result<FileAttr, Errno> {
        done(self.writer.attr(file)).map(|attr| translate(&attr))
    }

    pub(crate) fn list(&self, directory: FileId) -> Result<Vec<DirEntry>, Errno> {
        done(self.writer.list(directory))
    }

    pub(crate) fn set_attr(&self, file: FileId, change: SetAttr) -> Result<FileAttr, Errno> {
        let change = SetAttr {
            mode: change.mode.map(|mode| mode & MODE_MASK),
            ..change
        };
        self.change(|writer| writer.set_attr(file, change))
            .map(|attr| translate(&attr))
    }

    /// Makes and opens a file; opens the one that is there, unless it must be new.
    pub(crate) fn create(
        &self,
        parent: FileId,
        name: &[u8],
        mode: u32,
        owner: Owner,
        flags: i32,
    ) -> Result<FileAttr, Errno> {
        let made = self.change(|writer| {
            let made = writer.create(parent, name, new(FileKind::File, mode, owner));
            if let Ok(made) = &made {
                writer.opened(made.file);
            }
            made
        });
        match made {
            Err(Errno::EEXIST) if flags & libc::O_EXCL == 0 => {
                let found = done(self.writer.lookup(parent, name))?;
                self.open(found.file, flags)?;
                self.attr(found.file)
            }
            made => made.map(|attr| translate(&attr)),
        }
    }

    pub(crate) fn make_directory(
        &self,
        parent: FileId,
        name: &[u8],
        mode: u32,
        owner: Owner,
    ) -> Result<FileAttr, Errno> {
        self.change(|writer| writer.create(parent, name, new(FileKind::Directory, mode, owner)))
            .map(|attr| translate(&attr))
    }

    pub(crate) fn unlink(&self, parent: FileId, name: &[u8]) -> Result<(), Errno> {
        self.change(|writer| writer.unlink(parent, name))
    }

    pub(crate) fn remove_directory(&self, parent: FileId, name: &[u8]) -> Result<(), Errno> {
        self.change(|writer| writer.rmdir(parent, name))
    }

    pub(crate) fn rename(
        &self,
        from: (FileId, &[u8]),
        to: (FileId, &[u8]),
        mode: RenameMode,
    ) -> Result<(), Errno> {
        self.change(|writer| writer.rename(from, to, mode))
    }

    /// Opens a file; it lives until it is released, even without a name.
    pub(crate) fn open(&self, file: FileId, flags: i32) -> Result<(), Errno> {
        self.writer.opened(file);
        if flags & libc::O_TRUNC != 0 {
            let cut = self.set_attr(
                file,
                SetAttr {
                    size: Some(0),
                    ..SetAttr::default()
                },
            );
            if cut.is_err() {
                self.release(file);
            }
            cut?;
        }
        Ok(())
    }

    pub(crate) fn release(&self, file: FileId) {
        // Once the writer is closed there is nothing left to release.
        let _ = self.change(|writer| {
            writer.released(file);
            Ok(())
        });
    }

    pub(crate) fn read(&self, file: FileId, offset: u64, out: &mut [u8]) -> Result<usize, Errno> {
        done(self.writer.read(file, offset, out))
    }

    pub(crate) fn write(&self, file: FileId, offset: u64, data: &[u8]) -> Result<(), Errno> {
        self.change(|writer| writer.write(file, offset, data))
    }

    pub(crate) fn sync(&self) -> Result<(), Errno> {
        self.awake.note();
        self.change(Writer::sync).map(drop)
    }

    /// Free and total bytes of the disk that holds the layers.
    pub(crate) fn space(&self) -> Result<(u64, u64), Errno> {
        done(self.writer.space())
    }

    /// The kernel lets no other modes through than these: allocate, punch a hole, zero a range.
    pub(crate) fn fallocate(
        &self,
        file: FileId,
        offset: u64,
        length: u64,
        mode: i32,
    ) -> Result<(), Errno> {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => self.change(|writer| writer.allocate(file, offset, length, keep_size)),
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => {
                self.change(|writer| writer.punch_hole(file, offset, length))
            }
            libc::FALLOC_FL_ZERO_RANGE => {
                // Zeroes may also be asked for behind the end.
                self.change(|writer| {
                    writer.punch_hole(file, offset, length)?;
                    writer.allocate(file, offset, length, keep_size)
                })
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    pub(crate) fn seek(&self, file: FileId, offset: u64, whence: i32) -> Result<u64, Errno> {
        match whence {
            libc::SEEK_DATA => done(self.writer.seek_data(file, offset))?.ok_or(Errno::ENXIO),
            libc::SEEK_HOLE if offset >= done(self.writer.attr(file))?.size => Err(Errno::ENXIO),
            libc::SEEK_HOLE => done(self.writer.seek_hole(file, offset)),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// A file's inode number is its id.
fn translate(attr: &Attr) -> FileAttr {
    attr::of_image(attr.file.0, attr)
}

fn new(kind: FileKind, mode: u32, owner: Owner) -> NewFile {
    NewFile {
        kind,
        mode: mode & MODE_MASK,
        uid: owner.uid,
        gid: owner.gid,
    }
}

fn done<T>(result: Result<T, FsError>) -> Result<T, Errno> {
    result.map_err(|error| errno(&error))
}
