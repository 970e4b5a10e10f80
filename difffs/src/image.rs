//! Images: a frozen state of the database, as files that can be opened.
//!
//! One inode per (commit, file): its content never changes, so the kernel keeps its pages across
//! opens. Where a whole file is one image layer, the kernel reads that layer itself (passthrough).
//! An inode can't be open in both ways at once: the first open decides, and its decision stands
//! until the last close.
//!
//! A file that is not all on this machine's disk is read past the kernel's cache: then what is asked
//! for is what its reader wants, and no more is fetched. The local cache keeps it; once all is there,
//! the next open is one like any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fuser::{BackingId, Errno, FileHandle, FopenFlags, OpenAccMode, OpenFlags, ReplyOpen};
use layerd::FsError;
use layerd::frozen::{Attr, FileKind, Frozen};
use layerd::id::{FileId, Lsn};
use layerd::store::{Follower, Reader};
use parking_lot::Mutex;

use crate::errno::errno;
use crate::passthrough::Passthrough;

/// The image of a database at one commit, and what keeps its layers from being collected.
pub(crate) struct Image {
    frozen: Arc<Frozen>,
    keeper: Keeper,
    open_count: AtomicUsize,
}

/// What keeps an image's layers.
pub(crate) enum Keeper {
    /// A pin of its own.
    Reader(Reader),
    /// The follower that found it.
    Follower(Arc<Follower>),
    /// The lease of this mount's writer.
    Writer,
}

impl Image {
    pub(crate) fn new(frozen: Arc<Frozen>, keeper: Keeper) -> Arc<Image> {
        Arc::new(Image {
            frozen,
            keeper,
            open_count: AtomicUsize::new(0),
        })
    }

    /// The image of a reader.
    pub(crate) fn of_reader(reader: Reader) -> Arc<Image> {
        Image::new(reader.frozen(), Keeper::Reader(reader))
    }

    pub(crate) fn commit(&self) -> Lsn {
        self.frozen.lsn()
    }

    /// How many files of it are open.
    pub(crate) fn open_count(&self) -> usize {
        self.open_count.load(Ordering::Relaxed)
    }

    /// Layers in its chain; `None` where only the store can tell.
    pub(crate) fn layer_count(&self) -> Option<usize> {
        match &self.keeper {
            Keeper::Reader(reader) => Some(reader.layers()),
            Keeper::Follower(follower) => Some(follower.layers()),
            Keeper::Writer => None,
        }
    }

    /// The image, unless its layers may be gone.
    pub(crate) fn frozen(&self) -> Result<&Frozen, Errno> {
        let is_stale = match &self.keeper {
            Keeper::Reader(reader) => reader.is_stale(),
            Keeper::Follower(follower) => follower.is_stale(),
            Keeper::Writer => false,
        };
        if is_stale {
            Err(errno(&FsError::Stale))
        } else {
            Ok(&self.frozen)
        }
    }
}

/// A file of an image: what an inode stands for.
pub(crate) struct ImageFile {
    pub(crate) image: Arc<Image>,
    pub(crate) attr: Attr,
    opens: Mutex<Opens>,
}

#[derive(Default)]
struct Opens {
    count: usize,
    /// Set from the first open to the last close, if the kernel reads the file itself.
    backing: Option<Arc<BackingId>>,
    /// All of it was on this machine's disk once.
    is_here: bool,
}

impl ImageFile {
    pub(crate) fn new(image: Arc<Image>, attr: Attr) -> ImageFile {
        ImageFile {
            image,
            attr,
            opens: Mutex::default(),
        }
    }

    pub(crate) fn id(&self) -> FileId {
        self.attr.file
    }

    /// Whether it may be opened with these flags.
    pub(crate) fn check_open(&self, flags: OpenFlags) -> Result<(), Errno> {
        check_read_only(flags)?;
        if self.attr.kind == FileKind::Directory {
            return Err(Errno::EISDIR);
        }
        self.image.frozen().map(drop)
    }

    /// Answers an open that [`ImageFile::check_open`] allowed.
    pub(crate) fn open(
        &self,
        passthrough: &Passthrough,
        handle: FileHandle,
        flags: FopenFlags,
        reply: ReplyOpen,
    ) {
        let (backing, is_here) = {
            let mut opens = self.opens.lock();
            if let Ok(frozen) = self.image.frozen() {
                if opens.count == 0
                    && let Some(whole) = frozen.whole_image(self.id())
                {
                    opens.backing = passthrough.back(|| reply.open_backing(&*whole.file));
                }
                opens.is_here = opens.is_here || frozen.is_here(self.id()).unwrap_or(false);
            }
            opens.count += 1;
            (opens.backing.clone(), opens.is_here)
        };
        self.image.open_count.fetch_add(1, Ordering::Relaxed);
        match backing {
            Some(backing) => reply.opened_passthrough(handle, flags, &backing),
            // With passthrough there is no cache of ours to keep, and the kernel refuses the flag.
            None if is_here => reply.opened(handle, flags | FopenFlags::FOPEN_KEEP_CACHE),
            // The kernel would read ahead at each place, and that would be fetched.
            None => reply.opened(handle, flags | FopenFlags::FOPEN_DIRECT_IO),
        }
    }

    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) -> Result<usize, Errno> {
        let frozen = self.image.frozen()?;
        frozen
            .read(self.id(), offset, out)
            .map_err(|error| errno(&error))
    }

    pub(crate) fn seek(&self, offset: u64, whence: i32) -> Result<u64, Errno> {
        if offset >= self.attr.size {
            return Err(Errno::ENXIO);
        }
        let frozen = self.image.frozen()?;
        let found = match whence {
            libc::SEEK_DATA => frozen.seek_data(self.id(), offset),
            libc::SEEK_HOLE => frozen.seek_hole(self.id(), offset).map(Some),
            _ => return Err(Errno::EINVAL),
        };
        found.map_err(|error| errno(&error))?.ok_or(Errno::ENXIO)
    }

    pub(crate) fn release(&self) {
        self.image.open_count.fetch_sub(1, Ordering::Relaxed);
        let mut opens = self.opens.lock();
        opens.count = opens.count.saturating_sub(1);
        if opens.count == 0 {
            opens.backing = None;
        }
    }
}

impl Drop for ImageFile {
    /// The kernel's last release may be read after its forget, and find nothing to close.
    fn drop(&mut self) {
        let count = self.opens.get_mut().count;
        self.image.open_count.fetch_sub(count, Ordering::Relaxed);
    }
}

/// Nothing of a frozen image can be changed.
pub(crate) fn check_read_only(flags: OpenFlags) -> Result<(), Errno> {
    if flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & libc::O_TRUNC != 0 {
        return Err(Errno::EROFS);
    }
    Ok(())
}
