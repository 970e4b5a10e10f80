//! The local cache: partial layers.
//!
//! `<home>/cache/<layer>.data` is a sparse file with the layer's own bytes at their own offsets,
//! and `<layer>.map` tells which pages of it are there. All processes of a home share them, and
//! they survive kills: a page that is in the file and not in the map is merely fetched again.
//! Nothing here is ever the only copy, so nothing is synced, and every failure of the local disk
//! means a slower read, not an error.
//!
//! It asks for a file system with `fallocate` and hole punching; on others nothing is kept.
//!
//! An open file holds a shared lock on its data; eviction removes only files that it can lock
//! alone. Choosing what goes belongs to `evict.rs`.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::evict;
use super::map::PageMap;
use super::runtime::runtime;
use super::segment::PAGE;
use crate::id::LayerId;

/// How much the cache may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Bytes on the disk, all layers together.
    pub bytes_max: u64,
    /// How much of the disk stays free, in percent of its size.
    pub free_percent_min: u8,
}

impl Default for CacheConfig {
    fn default() -> Self {
        CacheConfig {
            bytes_max: 20 << 30,
            free_percent_min: 5,
        }
    }
}

/// After so many bytes were written, the budget is looked at.
const CHECK_BYTES: u64 = 64 << 20;

/// The partial layers of one home.
pub struct Cache {
    directory: PathBuf,
    config: CacheConfig,
    files: Mutex<HashMap<LayerId, Weak<CacheFile>>>,
    /// Written since the budget was looked at.
    written: AtomicU64,
    /// Eviction is at work in this process.
    evicting: AtomicBool,
    /// There was room when the budget was looked at last.
    has_room: AtomicBool,
}

impl Cache {
    /// The cache in `<home>/cache`, which is made if it is missing.
    pub fn open(home: &Path, config: CacheConfig) -> io::Result<Arc<Cache>> {
        let directory = home.join("cache");
        std::fs::create_dir_all(&directory)?;
        Ok(Arc::new(Cache {
            directory,
            config,
            files: Mutex::default(),
            // The budget may have been lowered: the first write asks.
            written: AtomicU64::new(CHECK_BYTES),
            evicting: AtomicBool::new(false),
            has_room: AtomicBool::new(true),
        }))
    }

    /// How much it may hold.
    #[must_use]
    pub fn config(&self) -> CacheConfig {
        self.config
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn data_path(&self, layer: LayerId) -> PathBuf {
        self.directory.join(format!("{layer}.data"))
    }

    pub(super) fn map_path(&self, layer: LayerId) -> PathBuf {
        self.directory.join(format!("{layer}.map"))
    }

    /// A layer's partial file, for a layer of `length` bytes; made if it is missing.
    pub fn file(self: &Arc<Self>, layer: LayerId, length: u64) -> io::Result<Arc<CacheFile>> {
        let mut files = self.files.lock();
        if let Some(file) = files.get(&layer).and_then(Weak::upgrade) {
            file.grow(length)?;
            return Ok(file);
        }
        let file = Arc::new(CacheFile::open(self, layer, length)?);
        files.retain(|_, file| file.strong_count() > 0);
        files.insert(layer, Arc::downgrade(&file));
        Ok(file)
    }

    /// The layers of which something is cached.
    pub fn layers(&self) -> io::Result<Vec<LayerId>> {
        evict::layers(&self.directory)
    }

    /// Removes what is cached of a layer that does not exist any more, unless somebody has it open.
    pub fn forget(&self, layer: LayerId) -> io::Result<()> {
        match OpenOptions::new().write(true).open(self.data_path(layer)) {
            Ok(data) => self.remove(layer, &data).map(|_| ()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes a layer's files if nobody else has them open; tells whether it did.
    pub(super) fn remove(&self, layer: LayerId, data: &File) -> io::Result<bool> {
        if data.try_lock().is_err() {
            return Ok(false);
        }
        if data.metadata()?.nlink() == 0 {
            // Another process was faster; what has the name now is not this file.
            return Ok(true);
        }
        // Whoever opens them now waits for the lock, and then finds that they are gone.
        for path in [self.map_path(layer), self.data_path(layer)] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(true)
    }

    /// Counts what was written, and lets eviction look after the budget now and then.
    fn wrote(self: &Arc<Self>, bytes: u64) {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let check = CHECK_BYTES.min(self.config.bytes_max / 8);
        if written >= check && !self.evicting.swap(true, Ordering::SeqCst) {
            self.written.store(0, Ordering::Relaxed);
            let this = Arc::clone(self);
            let look = move || {
                this.keep_budget();
                this.evicting.store(false, Ordering::SeqCst);
            };
            match runtime() {
                Ok(runtime) => drop(runtime.spawn_blocking(look)),
                Err(_) => look(),
            }
        }
    }

    /// Evicts as much as the budget and the disk ask for. Blocks.
    pub fn keep_budget(&self) {
        match evict::evict(self) {
            Ok(has_room) => self.has_room.store(has_room, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(%error, "the cache can't be kept within its budget; nothing more is cached for now");
                self.has_room.store(false, Ordering::Relaxed);
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// A partial layer, open.
pub struct CacheFile {
    cache: Arc<Cache>,
    layer: LayerId,
    data: File,
    map: RwLock<PageMap>,
}

impl CacheFile {
    fn open(cache: &Arc<Cache>, layer: LayerId, length: u64) -> io::Result<CacheFile> {
        let data = loop {
            let data = open(&cache.data_path(layer))?;
            data.lock_shared()?;
            if data.metadata()?.nlink() > 0 {
                break data;
            }
        };
        let map_file = open(&cache.map_path(layer))?;
        let map = RwLock::new(PageMap::open(&map_file, layer, length)?);
        Ok(CacheFile {
            cache: Arc::clone(cache),
            layer,
            data,
            map,
        })
    }

    /// Makes room in the map for a layer that has grown to `length` bytes.
    pub fn grow(&self, length: u64) -> io::Result<()> {
        if length.div_ceil(PAGE) > self.map.read().pages() {
            let mut map = self.map.write();
            // It can't be removed while the data is locked.
            let map_file = open(&self.cache.map_path(self.layer))?;
            *map = PageMap::open(&map_file, self.layer, length)?;
        }
        Ok(())
    }

    /// Whether what is fetched now can be kept: there was room when the budget was looked at last.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.cache.has_room.load(Ordering::Relaxed)
    }

    /// Whether `begin..end` can be read from here.
    #[must_use]
    pub fn is_present(&self, begin: u64, end: u64) -> bool {
        self.map.read().is_present(begin / PAGE, end.div_ceil(PAGE))
    }

    /// How many bytes of `begin..end`, in whole pages, are here.
    #[must_use]
    pub fn present_bytes(&self, begin: u64, end: u64) -> u64 {
        self.map.read().present(begin / PAGE, end.div_ceil(PAGE)) * PAGE
    }

    /// Reads from `at` on, if all of it is here; tells whether it was.
    #[must_use]
    pub fn read(&self, out: &mut [u8], at: u64) -> bool {
        let map = self.map.read();
        let (first, behind) = (at / PAGE, (at + out.len() as u64).div_ceil(PAGE));
        if !map.is_present(first, behind) {
            return false;
        }
        map.touch(first, behind);
        match self.read_data(out, at) {
            // Eviction may have come in between: then the pages are not there any more.
            Ok(()) => map.is_present(first, behind),
            Err(error) => {
                tracing::warn!(layer = %self.layer, offset = at, %error, "the cache can't be read here; fetching anew");
                map.clear(first, behind);
                false
            }
        }
    }

    fn read_data(&self, out: &mut [u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < out.len() {
            match self.data.read_at(&mut out[done..], at + done as u64) {
                // Behind the last byte that was written: a page of zeros is a hole.
                Ok(0) => {
                    out[done..].fill(0);
                    break;
                }
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Keeps verified bytes that stand at `begin`, a multiple of 4096; what is not a whole page at
    /// their end is left out. `None` stands for zeros.
    pub fn store(&self, begin: u64, length: u64, bytes: Option<&[u8]>) {
        let length = length / PAGE * PAGE;
        if length == 0 || !self.cache.has_room.load(Ordering::Relaxed) {
            if length > 0 {
                self.cache.wrote(length);
            }
            return;
        }
        let map = self.map.read();
        let (first, behind) = (begin / PAGE, (begin + length) / PAGE);
        if !map.begin_write(first, behind) {
            // Unless the evicting process was killed, it is about to be through here.
            if evict::is_idle(&self.cache) {
                map.end_evict(first, behind);
            }
            return;
        }
        let written = match bytes {
            Some(bytes) => self.data.write_all_at(&bytes[..length as usize], begin),
            None => evict::punch(&self.data, begin, length),
        };
        match written {
            Ok(()) => map.end_write(first, behind),
            Err(error) => {
                tracing::debug!(layer = %self.layer, %error, "not cached");
                map.clear(first, behind);
            }
        }
        drop(map);
        self.cache.wrote(length);
    }

    /// What is here of `begin..end` did not match the layer's checksums: it is fetched anew.
    pub fn mistrust(&self, begin: u64, end: u64) {
        self.map.read().clear(begin / PAGE, end.div_ceil(PAGE));
    }
}
