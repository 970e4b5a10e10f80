//! Handles: what an open file or directory remembers between requests, where it has to.
//!
//! Data files need none. A listing is fixed when the directory is opened, so that entries that come
//! and go neither shift nor repeat the others; the status is written when it is opened.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::{Errno, FileHandle, FileType};
use parking_lot::Mutex;

use crate::image::ImageFile;
use crate::session::HandleId;
use crate::snapshot_file::PartialLine;

/// The number of an inode that was not looked up yet, as in libfuse.
pub(crate) const UNKNOWN_INO: u64 = 0xffff_ffff;

/// One name in a listing.
pub(crate) struct Entry {
    pub(crate) ino: u64,
    pub(crate) kind: FileType,
    pub(crate) name: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(ino: u64, kind: FileType, name: impl Into<Vec<u8>>) -> Entry {
        Entry {
            ino,
            kind,
            name: name.into(),
        }
    }
}

/// What a handle remembers.
pub(crate) enum Handle {
    Listing(Vec<Entry>),
    Text(Vec<u8>),
    Lines(PartialLine),
    /// A file on a follow path. The release may be read after the inode was forgotten, so all that
    /// it needs is here.
    Followed(Arc<ImageFile>, HandleId),
}

/// All of them. Numbers start at 1: 0 is the handle that remembers nothing.
#[derive(Default)]
pub(crate) struct Handles {
    taken: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Handle>>>,
}

impl Handles {
    pub(crate) fn open(&self, handle: Handle) -> FileHandle {
        let number = 1 + self.taken.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(number, Arc::new(handle));
        FileHandle(number)
    }

    pub(crate) fn get(&self, number: FileHandle) -> Result<Arc<Handle>, Errno> {
        self.open.lock().get(&number.0).cloned().ok_or(Errno::EBADF)
    }

    pub(crate) fn close(&self, number: FileHandle) -> Option<Arc<Handle>> {
        self.open.lock().remove(&number.0)
    }
}
