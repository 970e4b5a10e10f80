//! The one writer of a database: the live image and its log.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::again::again;
use crate::catalog::{CatalogError, CommitRange, Database, Head, LayerRow, Rotation, StatePoint};
use crate::error::FsError;
use crate::format::LayerHeader;
use crate::frozen::{self, Attr, CommitPoint, DirEntry, FileKind, Frozen, Hold};
use crate::head::{HeadFile, HeadWord};
use crate::id::{DatabaseId, Epoch, FileId, LayerId, Lsn, Timestamp};
use crate::image::{self, Image, Node};
use crate::layer::{Cache, Layer};
use crate::lease::HeldLease;
use crate::log::{Commit, Ending, Log, NextLayer};
use crate::machine::{self, Condvar, Instant, JoinHandle, Mutex, MutexGuard};
use crate::maintain::Caretaker;
use crate::names::Naming;
use crate::record::Change;
use crate::store::{Store, StoreError, io_error};
use crate::uploads::Uploads;

/// What a new file or directory begins with.
#[derive(Clone, Copy, Debug)]
pub struct NewFile {
    /// Plain file or directory.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What `setattr` changes; `None` leaves a thing as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// New length: cuts, or extends by a hole.
    pub size: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of content.
    pub mtime: Option<Timestamp>,
}

/// What a rename does where the new name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// The new name's old file goes, at once.
    Replace,
    /// `EEXIST`.
    NoReplace,
    /// The two files change places.
    Exchange,
}

/// The live image. All calls may be made from any thread.
///
/// Dropping it without [`Writer::close`] is like killing the process: nothing acknowledged is
/// lost, the next opening recovers.
pub struct Writer {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle>>,
}

/// What the writer's threads share.
struct Shared {
    store: Arc<Store>,
    database: DatabaseId,
    naming: Naming,
    hold: Arc<Hold>,
    lease: HeldLease,
    log: Log,
    /// What goes to a remote store, where there is one.
    uploads: Option<Uploads>,
    durability: Durability,
    head: HeadFile,
    committed: RwLock<Arc<Frozen>>,
    /// How many handles each file has; a file without a name lives as long as it has one.
    open: Mutex<HashMap<FileId, u64>>,
    /// Held from looking at names to having changed them.
    names: Mutex<()>,
    /// Held while the active layer is ended: one rotation at a time, and none beside the close.
    rotation: Mutex<()>,
    /// First LSN of the active layer, and how many layers the image rests on.
    active: Mutex<Active>,
    publishing: Mutex<Publishing>,
    wake: Condvar,
}

struct Active {
    first_lsn: Lsn,
    first_time: Option<Timestamp>,
    since: Instant,
    /// The layers that the live image may refer to.
    layers: Vec<Arc<Layer>>,
    /// The catalog's generation of those layers.
    generation: u64,
}

impl Active {
    /// A commit is on the disk.
    fn note(&mut self, commit: &Commit) {
        if commit.lsn >= self.first_lsn {
            self.first_time.get_or_insert(commit.time);
        }
    }
}

#[derive(Default)]
struct Publishing {
    head: Option<Head>,
    ended: bool,
}

/// What an answer to fsync promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The commit is on this host's disk, and in a remote store within the lag.
    Local,
    /// The commit is in the remote store, and another host can read it.
    Remote,
}

/// How a database is opened for writing.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// Ask a living holder of the lease to hand over, and wait for it up to 20 s.
    pub steal: bool,
    /// What an answer to fsync promises; of no meaning where the store is local.
    pub durability: Durability,
    /// How long after a commit it is in a remote store, as long as that keeps up.
    pub lag: Duration,
}

impl Default for WriterOptions {
    fn default() -> WriterOptions {
        WriterOptions {
            steal: false,
            durability: Durability::Local,
            lag: Duration::from_secs(1),
        }
    }
}

/// A sync fails when nothing of it has come to the remote store for so long, and so does an
/// unmount.
const REMOTE_TIME_MAX: Duration = Duration::from_secs(60);
/// The catalog's head moves at most this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether another host replaced layers.
const GENERATION_EVERY: Duration = Duration::from_secs(10);
/// How long a catalog that does not answer is left alone.
const CATALOG_PAUSE: Duration = Duration::from_millis(200);
/// How often the background looks for something to do.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(1);
/// A layer of this size is ended at the next commit.
const LAYER_BYTES_MAX: u64 = 256 << 20;
/// A layer of this age is ended, so that its commits can be compacted.
const LAYER_AGE_MAX: Duration = Duration::from_secs(3600);
/// The largest file: offsets are signed for the kernel.
const FILE_SIZE_MAX: u64 = i64::MAX as u64;

impl Writer {
    /// Takes the lease, recovers, loads, and begins a new layer.
    pub(crate) fn open(
        store: &Arc<Store>,
        database: &Database,
        lease: HeldLease,
        options: WriterOptions,
    ) -> Result<Writer, StoreError> {
        let epoch = lease.epoch();
        if let Err(error) = store.recover_layers(database.id, &lease) {
            // Whoever tries next need not wait for its end.
            let _ = lease.release();
            return Err(error);
        }
        let (database, (loaded, pin, generation)) = again(|| {
            let database = store.catalog().database_by_id(database.id)?;
            let loaded = store.load_pinned(database.id, database.head.point)?;
            Ok((database, loaded))
        })?;
        let hold = Arc::new(Hold {
            naming: Naming::new(&database.name),
            pin,
            hashes: Arc::clone(store.hashes()),
        });
        let layer = new_layer_file(store, epoch)?;
        let time = loaded.time.max(database.head.time);
        let written_bytes = database.head.written_bytes;
        let first_lsn = database.head.lsn().next();
        let commit = CommitPoint {
            point: database.head.point,
            time,
            written_bytes,
        };
        let committed = Arc::new(Frozen::new(loaded.image.clone(), commit, Arc::clone(&hold)));
        let head = HeadFile::open(&store.files().head(database.id), true)
            .map_err(|e| io_error("map the head word", e))?;
        let log = Log::new(
            Arc::clone(&layer),
            database.head.lsn(),
            time,
            written_bytes,
            loaded.image,
        );
        let uploads = store.remote().map(|objects| {
            Uploads::new(
                store.shared_catalog(),
                objects.clone(),
                database.id,
                &layer,
                database.head.lsn(),
                options.lag,
            )
        });
        let shared = Arc::new(Shared {
            uploads,
            durability: options.durability,
            store: Arc::clone(store),
            database: database.id,
            naming: Naming::new(&database.name),
            hold,
            lease,
            log,
            head,
            committed: RwLock::new(committed),
            open: Mutex::default(),
            names: Mutex::new(()),
            rotation: Mutex::new(()),
            active: Mutex::new(Active {
                first_lsn,
                first_time: None,
                since: Instant::now(),
                layers: loaded.layers,
                generation,
            }),
            publishing: Mutex::default(),
            wake: Condvar::new(),
        });
        shared.announce(&layer, database.head.point, first_lsn, written_bytes)?;
        let spawn = |name: &str, run: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            machine::spawn(name, move || run(&shared)).map_err(|e| io_error("start a thread", e))
        };
        let publish = match &shared.uploads {
            None => Shared::publish_loop,
            Some(_) => Shared::upload_loop,
        };
        let threads = vec![
            spawn("publish", publish)?,
            spawn("maintenance", Shared::maintenance_loop)?,
        ];
        Ok(Writer {
            shared,
            threads: Mutex::new(threads),
        })
    }

    /// The lease's number.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.shared.lease.epoch()
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> DatabaseId {
        self.shared.database
    }

    /// The newest acknowledged commit, as an image: one `Arc` clone.
    #[must_use]
    pub fn committed(&self) -> Arc<Frozen> {
        Arc::clone(&self.shared.committed.read())
    }

    /// How many layers the live image rests on, the active one included.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.shared.active.lock().layers.len() + 1
    }

    /// Bytes used in the active layer.
    #[must_use]
    pub fn active_bytes(&self) -> u64 {
        self.shared.log.position().1
    }

    /// Finds a name in a directory.
    pub fn lookup(&self, parent: FileId, name: &[u8]) -> Result<Attr, FsError> {
        let stored = self.shared.naming.stored(parent, name)?;
        let image = self.shared.log.image();
        image.directory(parent)?;
        let file = image.find(parent, &stored).ok_or(FsError::NotFound)?;
        Ok(image.node(file)?.attr(file))
    }

    /// A file's attributes.
    pub fn attr(&self, file: FileId) -> Result<Attr, FsError> {
        Ok(self.shared.log.image().node(file)?.attr(file))
    }

    /// A directory's names, in order.
    pub fn list(&self, directory: FileId) -> Result<Vec<DirEntry>, FsError> {
        let image = self.shared.log.image().clone();
        frozen::list(&image, &self.shared.naming, directory)
    }

    /// As [`Frozen::read`]. The bytes are taken to be cached by whoever reads: there is one live
    /// image, and every change of it passes there.
    pub fn read(&self, file: FileId, offset: u64, out: &mut [u8]) -> Result<usize, FsError> {
        image::read(&*self.node(file)?, offset, Cache::Above, out)
    }

    /// As [`Frozen::seek_data`].
    pub fn seek_data(&self, file: FileId, offset: u64) -> Result<Option<u64>, FsError> {
        Ok(self.node(file)?.seek_data(offset))
    }

    /// As [`Frozen::seek_hole`].
    pub fn seek_hole(&self, file: FileId, offset: u64) -> Result<u64, FsError> {
        Ok(self.node(file)?.seek_hole(offset))
    }

    fn node(&self, file: FileId) -> Result<Arc<Node>, FsError> {
        self.shared.log.image().node(file).map(Arc::clone)
    }

    /// The plain file `file`, or an error that says what it is instead.
    fn plain_file(&self, file: FileId) -> Result<Arc<Node>, FsError> {
        let node = self.node(file)?;
        if node.kind == FileKind::File {
            Ok(node)
        } else {
            Err(FsError::IsADirectory)
        }
    }

    /// Makes a file or directory; [`FsError::Exists`] if the name is taken.
    pub fn create(&self, parent: FileId, name: &[u8], new: NewFile) -> Result<Attr, FsError> {
        let name = self.shared.naming.stored(parent, name)?;
        let _names = self.shared.names.lock();
        let file = {
            let image = self.shared.log.image();
            image.directory(parent)?;
            if image.find(parent, &name).is_some() {
                return Err(FsError::Exists);
            }
            image.next_file()
        };
        let NewFile {
            kind,
            mode,
            uid,
            gid,
        } = new;
        self.shared.log.append(Change::Create {
            parent,
            file,
            kind,
            mode: mode & 0o7777,
            uid,
            gid,
            name,
        })?;
        self.attr(file)
    }

    /// Takes a file's name away; the content lives on until the last [`Writer::released`].
    pub fn unlink(&self, parent: FileId, name: &[u8]) -> Result<(), FsError> {
        self.remove_name(parent, name, |image, file| {
            if image.node(file)?.kind == FileKind::Directory {
                Err(FsError::IsADirectory)
            } else {
                Ok(())
            }
        })
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: FileId, name: &[u8]) -> Result<(), FsError> {
        self.remove_name(parent, name, |image, file| {
            image.directory(file)?;
            if image.is_empty_directory(file) {
                Ok(())
            } else {
                Err(FsError::NotEmpty)
            }
        })
    }

    fn remove_name(
        &self,
        parent: FileId,
        name: &[u8],
        check: impl Fn(&Image, FileId) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let name = self.shared.naming.stored(parent, name)?;
        let _names = self.shared.names.lock();
        let file = {
            let image = self.shared.log.image();
            image.directory(parent)?;
            let file = image.find(parent, &name).ok_or(FsError::NotFound)?;
            check(&image, file)?;
            file
        };
        self.shared.log.append(Change::Unlink { parent, name })?;
        self.shared.forget_if_closed(file);
        Ok(())
    }

    /// Moves a name. What a directory replaces must be an empty directory, what a file replaces a
    /// file; a directory can't be moved below itself.
    pub fn rename(
        &self,
        from: (FileId, &[u8]),
        to: (FileId, &[u8]),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let from = (from.0, self.shared.naming.stored(from.0, from.1)?);
        let to = (to.0, self.shared.naming.stored(to.0, to.1)?);
        let _names = self.shared.names.lock();
        let replaced = {
            let image = self.shared.log.image();
            image.directory(from.0)?;
            image.directory(to.0)?;
            let moved = image.find(from.0, &from.1).ok_or(FsError::NotFound)?;
            let replaced = image.find(to.0, &to.1);
            check_rename(&image, moved, to.0, replaced, mode)?;
            if replaced == Some(moved) {
                return Ok(());
            }
            replaced
        };
        let exchange = mode == RenameMode::Exchange;
        self.shared
            .log
            .append(Change::Rename { from, to, exchange })?;
        if let (Some(file), false) = (replaced, exchange) {
            self.shared.forget_if_closed(file);
        }
        Ok(())
    }

    /// Changes attributes.
    pub fn set_attr(&self, file: FileId, change: SetAttr) -> Result<Attr, FsError> {
        if let Some(size) = change.size {
            let node = self.plain_file(file)?;
            if size > FILE_SIZE_MAX {
                return Err(FsError::TooLarge);
            }
            if size != node.size {
                self.shared.log.append(Change::Truncate { file, size })?;
            }
        }
        let SetAttr {
            mode,
            uid,
            gid,
            mtime,
            ..
        } = change;
        if mode.is_some() || uid.is_some() || gid.is_some() || mtime.is_some() {
            let node = self.node(file)?;
            self.shared.log.append(Change::Attr {
                file,
                mode: mode.unwrap_or(node.mode) & 0o7777,
                uid: uid.unwrap_or(node.uid),
                gid: gid.unwrap_or(node.gid),
                mtime: mtime.unwrap_or(node.mtime),
            })?;
        }
        self.attr(file)
    }

    /// Writes all of `data` at `offset`, growing the file if needed. Any size.
    pub fn write(&self, file: FileId, offset: u64, data: &[u8]) -> Result<(), FsError> {
        if offset
            .checked_add(data.len() as u64)
            .is_none_or(|end| end > FILE_SIZE_MAX)
        {
            return Err(FsError::TooLarge);
        }
        self.plain_file(file)?;
        self.shared.log.append_data(file, offset, data)
    }

    /// Turns a range into a hole; the length stays (fallocate PUNCH_HOLE and ZERO_RANGE).
    pub fn punch_hole(&self, file: FileId, offset: u64, length: u64) -> Result<(), FsError> {
        let node = self.plain_file(file)?;
        let end = offset.checked_add(length).ok_or(FsError::TooLarge)?;
        if node.extents.range(offset, end - offset).next().is_none() {
            return Ok(());
        }
        self.shared.log.append(Change::Punch {
            file,
            offset,
            length,
        })
    }

    /// Makes sure there is room for a range (fallocate); grows the file unless `keep_size`.
    ///
    /// In an append-only store room can't be set aside for one range: what is checked is that the
    /// disk has so much left now.
    pub fn allocate(
        &self,
        file: FileId,
        offset: u64,
        length: u64,
        keep_size: bool,
    ) -> Result<(), FsError> {
        let node = self.plain_file(file)?;
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= FILE_SIZE_MAX)
            .ok_or(FsError::TooLarge)?;
        let there: u64 = node
            .extents
            .range(offset, length)
            .map(|(_, run)| run.length)
            .sum();
        if self.space()?.0 < length - there {
            return Err(FsError::NoSpace);
        }
        if !keep_size && end > node.size {
            self.shared
                .log
                .append(Change::Truncate { file, size: end })?;
        }
        Ok(())
    }

    /// A handle on the file was opened: from now on it survives its unlink. Pairs with
    /// [`Writer::released`].
    pub fn opened(&self, file: FileId) {
        *self.shared.open.lock().entry(file).or_default() += 1;
    }

    /// A handle was released.
    pub fn released(&self, file: FileId) {
        {
            let mut open = self.shared.open.lock();
            match open.get_mut(&file) {
                Some(count) if *count > 1 => {
                    *count -= 1;
                    return;
                }
                _ => open.remove(&file),
            };
        }
        self.shared.forget_if_closed(file);
    }

    /// Makes everything written so far durable, as one commit point if there is anything new.
    /// When it returns, the commit survives a kill and a power loss. Concurrent calls share one
    /// fdatasync. Returns the newest durable commit.
    pub fn sync(&self) -> Result<Lsn, FsError> {
        let lsn = self
            .shared
            .log
            .sync(&|commit| self.shared.acknowledge(commit))?;
        self.shared.lease.check()?;
        Ok(lsn)
    }

    /// Free and total bytes of the disk that holds the layers.
    pub fn space(&self) -> Result<(u64, u64), FsError> {
        Ok(self.shared.store.files().free_space()?)
    }

    /// Set when another process asked this one to hand the lease over, or the lease was lost: the
    /// mount should end.
    #[must_use]
    pub fn should_end(&self) -> bool {
        self.shared.lease.should_end()
    }

    /// Ends the active layer and goes on in a new one, so that everything up to now can be sealed,
    /// compacted, verified. Makes a commit point if there is anything unsynced. Returns whether
    /// there was anything to end.
    pub fn rotate(&self) -> Result<bool, FsError> {
        self.shared.rotate()
    }

    /// Takes over what compaction made of the layers below: the live image is loaded anew from
    /// the catalog's chain, caught up with the log, and swapped in. Nothing waits for it.
    pub fn reload(&self) -> Result<(), StoreError> {
        self.shared.reload(false)
    }

    /// How long the oldest commit that is not in the remote store has been waiting for it.
    #[must_use]
    pub fn upload_lag(&self) -> Duration {
        let uploads = self.shared.uploads.as_ref();
        uploads.map_or(Duration::ZERO, Uploads::lag)
    }

    /// Bytes of the log that are acknowledged and not in the remote store.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.shared
            .uploads
            .as_ref()
            .map_or(0, Uploads::waiting_bytes)
    }

    /// The generation of the layers that the live image rests on, to compare with the catalog's.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.active.lock().generation
    }

    /// Stops taking changes, commits what was taken, seals and publishes, releases the lease.
    /// Further changes and syncs fail; reads go on.
    pub fn close(&self) -> Result<(), StoreError> {
        let shared = &self.shared;
        // From here on no change is accepted, so that the layer can be ended; what was accepted is
        // committed.
        shared.log.close();
        self.stop_threads();
        let _rotation = shared.rotation.lock();
        let synced = self.sync().map_err(StoreError::from);
        let result = synced.and_then(|_| shared.end());
        if let Some(pin) = &shared.hold.pin {
            pin.end();
        }
        let released = shared.lease.release().map_err(StoreError::from);
        result.and(released)
    }

    fn stop_threads(&self) {
        self.shared.publishing.lock().ended = true;
        self.shared.wake.notify_all();
        if let Some(uploads) = &self.shared.uploads {
            uploads.stop();
        }
        for thread in self.threads.lock().drain(..) {
            // A panic in it was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

impl Shared {
    /// After the fdatasync, before the answer: is this still the writer? Then everybody may know.
    fn acknowledge(&self, commit: &Commit) -> Result<(), FsError> {
        let point = StatePoint {
            layer: commit.layer.id(),
            lsn: commit.lsn,
        };
        let (time, written_bytes) = (commit.time, commit.written_bytes);
        let head = Head {
            point: Some(point),
            time,
            written_bytes,
        };
        // What is on the disk is a part of the database, and later commits stand on it, whether it
        // can be acknowledged now or not.
        self.active.lock().note(commit);
        if let Some(uploads) = &self.uploads {
            uploads.committed(commit, head);
        }
        self.lease.check()?;
        if let Some(uploads) = &self.uploads
            && self.durability == Durability::Remote
        {
            let stored = uploads.wait_for(commit.lsn, REMOTE_TIME_MAX, &self.lease);
            stored.map_err(|error| FsError::NotStored(error.to_string()))?;
            self.lease.check()?;
        }
        self.head.store(&HeadWord {
            epoch: self.lease.epoch(),
            point,
            end: commit.end,
            time,
            written_bytes,
        });
        let frozen = Arc::new(Frozen::new(
            commit.image.clone(),
            commit.point(),
            Arc::clone(&self.hold),
        ));
        let previous = std::mem::replace(&mut *self.committed.write(), frozen);
        // Where there is a remote store, the head moves as the commits come there.
        if self.uploads.is_none() && self.publishing.lock().head.replace(head).is_none() {
            self.wake.notify_all();
        }
        // Dropped with no lock held: it may be the last reference to a large image.
        drop(previous);
        Ok(())
    }

    fn publish_loop(&self) {
        let mut publishing = self.publishing.lock();
        while !publishing.ended {
            let Some(head) = publishing.head.take() else {
                self.wake.wait(&mut publishing);
                continue;
            };
            MutexGuard::unlocked(&mut publishing, || self.publish(&head));
            // Whatever is committed in this time is published together.
            let until = Instant::now() + PUBLISH_EVERY;
            while !publishing.ended && !self.wake.wait_until(&mut publishing, until).timed_out() {}
        }
    }

    fn publish(&self, head: &Head) {
        match self
            .store
            .catalog()
            .publish(self.database, self.lease.epoch(), head, None)
        {
            Ok(()) => {}
            Err(error @ CatalogError::Fenced { .. }) => self.lease.lose(&error),
            // The next commit, or the end of the layer, publishes.
            Err(error) => {
                tracing::warn!(%error, "the head could not be published; trying again with the next commit")
            }
        }
    }

    fn upload_loop(&self) {
        if let Some(uploads) = &self.uploads {
            uploads.run(&self.lease);
        }
    }

    fn maintenance_loop(&self) {
        let mut caretaker = Caretaker::new(&self.store, self.database);
        let mut looked = Instant::now();
        let mut publishing = self.publishing.lock();
        while !publishing.ended {
            let until = Instant::now() + MAINTENANCE_EVERY;
            while !publishing.ended && !self.wake.wait_until(&mut publishing, until).timed_out() {}
            if !publishing.ended {
                MutexGuard::unlocked(&mut publishing, || {
                    self.maintain(&mut caretaker, &mut looked)
                });
            }
        }
    }

    fn maintain(&self, caretaker: &mut Caretaker, looked: &mut Instant) {
        let ended = || self.publishing.lock().ended;
        let mut round = || -> Result<(), StoreError> {
            if self.wants_rotation() {
                self.rotate()?;
            }
            if caretaker.round(self.log.position().1, &ended)? {
                self.reload(true)?;
            } else if self.uploads.is_some() && looked.elapsed() >= GENERATION_EVERY {
                *looked = Instant::now();
                // Another host may have compacted.
                self.reload(false)?;
            }
            Ok(())
        };
        if let Err(error) = round() {
            tracing::warn!(%error, "maintenance failed; trying again later");
        }
    }

    fn wants_rotation(&self) -> bool {
        let (_, end) = self.log.position();
        let old = self.active.lock().since.elapsed() >= LAYER_AGE_MAX;
        end > crate::format::RECORDS_AT && (old || end >= LAYER_BYTES_MAX)
    }

    fn forget_if_closed(&self, file: FileId) {
        let open = self.open.lock();
        if !open.contains_key(&file) {
            self.log.with_image(|image| image.forget(file));
        }
    }

    /// Writes a new layer's header page and its row: from then on it exists.
    fn announce(
        &self,
        layer: &Arc<Layer>,
        parent: Option<StatePoint>,
        first_lsn: Lsn,
        written_bytes: u64,
    ) -> Result<(), FsError> {
        let created = Timestamp::now();
        let header = LayerHeader {
            id: layer.id(),
            database: self.database,
            parent,
            first_lsn,
            created,
            written_bytes,
        };
        layer.file().write_at(&[&header.encode()], 0)?;
        layer.file().sync()?;
        let files = self.store.files();
        files.disk().sync_directory(&files.active_directory())?;
        let mut row = LayerRow::begun(layer.id(), self.database, parent, first_lsn, created);
        // A catalog that is away for a moment is no reason to end a database: until the lease ends,
        // what waits for this waits longer.
        loop {
            match self.store.catalog().add_layer(self.lease.epoch(), &row) {
                Err(error @ CatalogError::Unavailable { .. }) => {
                    self.lease.check()?;
                    tracing::warn!(%error, "a new layer waits for the catalog");
                    machine::sleep(CATALOG_PAUSE);
                }
                // Compaction put another layer in the place of the one that it stands on.
                Err(CatalogError::NoSuchLayer(id)) if self.has_moved(id, &mut row)? => {}
                // The answer to an earlier try was lost.
                Err(CatalogError::Conflict(_)) if self.store.catalog().knows_layer(row.id)? => {
                    return Ok(());
                }
                added => return Ok(added?),
            }
        }
    }

    /// Whether the commit that a new layer stands on is in another layer now; if so, the row says so.
    fn has_moved(&self, from: LayerId, row: &mut LayerRow) -> Result<bool, FsError> {
        let Some(parent) = row.parent.filter(|parent| parent.layer == from) else {
            return Ok(false);
        };
        let found = self.store.catalog().find_lsn(self.database, parent.lsn)?;
        let Some(found) = found.filter(|found| found.id != from) else {
            return Ok(false);
        };
        row.parent = Some(StatePoint {
            layer: found.id,
            ..parent
        });
        Ok(true)
    }

    fn rotate(&self) -> Result<bool, FsError> {
        let _rotation = self.rotation.lock();
        let next = NextLayer {
            layer: new_layer_file(&self.store, self.lease.epoch())?,
        };
        let first_lsn = self.active.lock().first_lsn;
        let has_begun = Cell::new(false);
        let ready = |ending: &Ending| {
            let commit = ending.commit.as_ref().map(Commit::point);
            let commit = commit.unwrap_or(*self.committed.read().commit());
            let head = self.end_layer(&ending.layer, first_lsn, ending.end, commit)?;
            let next_lsn = ending.lsn.next();
            self.announce(&next.layer, head.point, next_lsn, head.written_bytes)?;
            if let Some(uploads) = &self.uploads {
                uploads.begun(&next.layer);
            }
            let mut active = self.active.lock();
            active.layers.push(Arc::clone(&ending.layer));
            (active.first_lsn, active.first_time, active.since) = (next_lsn, None, Instant::now());
            has_begun.set(true);
            Ok(())
        };
        let rotated = self
            .log
            .rotate(&next, first_lsn, &|commit| self.acknowledge(commit), &ready);
        if has_begun.get() {
            let repinned = match self.repin() {
                // Compacted already: the next reload goes over to what took its place.
                Err(FsError::Catalog(CatalogError::NoSuchLayer(_))) => Ok(()),
                repinned => repinned,
            };
            rotated.and(repinned)?;
            // It may have taken long.
            self.lease.check()?;
            return Ok(true);
        }
        let files = self.store.files();
        let _ = files.disk().remove(&files.active(next.layer.id()));
        rotated
    }

    /// Tells the catalog that a layer is complete; `commit` is the newest one.
    fn end_layer(
        &self,
        layer: &Arc<Layer>,
        first_lsn: Lsn,
        end: u64,
        commit: CommitPoint,
    ) -> Result<Head, FsError> {
        let (head, commits) = match commit.point {
            Some(point) if point.layer == layer.id() => {
                let first_time = self.active.lock().first_time.unwrap_or(commit.time);
                let range = CommitRange {
                    first_lsn,
                    last_lsn: point.lsn,
                    first_time,
                    last_time: commit.time,
                };
                (
                    Head {
                        point: Some(point),
                        time: commit.time,
                        written_bytes: commit.written_bytes,
                    },
                    Some(range),
                )
            }
            // Nothing was committed in this layer: the head stays where it is.
            _ => (
                self.store.catalog().database_by_id(self.database)?.head,
                None,
            ),
        };
        let rotation = Rotation {
            layer: layer.id(),
            end,
            commits,
            images: Vec::new(),
        };
        match &self.uploads {
            // Once it is in the store.
            Some(uploads) if commits.is_some() => uploads.ended(rotation, head),
            _ => {
                let epoch = self.lease.epoch();
                let catalog = self.store.catalog();
                catalog.rotate(self.database, epoch, &rotation, &head)?;
            }
        }
        Ok(head)
    }

    /// The last steps of a writer: its layer is ended and sealed.
    fn end(&self) -> Result<(), StoreError> {
        let (layer, end) = self.log.position();
        let first_lsn = self.active.lock().first_lsn;
        self.lease.check()?;
        // The layers before it come first, and so does their head.
        self.drain()?;
        let commit = *self.committed.read().commit();
        let head = self.end_layer(&layer, first_lsn, end, commit)?;
        self.drain()?;
        if head.point.is_none_or(|point| point.layer != layer.id()) {
            // Nothing was committed in it: the catalog has marked it dead.
            let path = self.store.files().active(layer.id());
            let removed = self.store.files().disk().remove(&path);
            return removed.map_err(|e| io_error(&format!("remove {}", path.display()), e));
        }
        self.store.seal_rotated(self.database, &|| ())
    }

    /// Brings to the store what is ended and not there yet.
    fn drain(&self) -> Result<(), StoreError> {
        let Some(uploads) = &self.uploads else {
            return Ok(());
        };
        let drained = uploads.drain(REMOTE_TIME_MAX, &self.lease);
        drained.map_err(|source| {
            let name = self.store.catalog().database_by_id(self.database);
            StoreError::NotStored {
                database: name.map_or_else(|_| self.database.to_string(), |it| it.name.to_string()),
                source: Box::new(source),
            }
        })
    }

    fn repin(&self) -> Result<(), FsError> {
        let Some(pin) = &self.hold.pin else {
            return Ok(());
        };
        let layers: Vec<LayerId> = self
            .active
            .lock()
            .layers
            .iter()
            .map(|layer| layer.id())
            .collect();
        Ok(pin.set(&layers)?)
    }

    /// With `anyway`, also where the catalog's layers are the ones that are in use.
    fn reload(&self, anyway: bool) -> Result<(), StoreError> {
        // The active layer stays the active one meanwhile; all else goes on.
        let _rotation = self.rotation.lock();
        let catalog = self.store.catalog();
        let generation = catalog.database_by_id(self.database)?.generation;
        if !anyway && generation == self.active.lock().generation {
            return Ok(());
        }
        let active = self.log.position().0;
        let row = catalog
            .layers(self.database)?
            .into_iter()
            .find(|row| row.id == active.id());
        // What the layer stands on now: without its row there is nothing to go by.
        let row = row.ok_or(CatalogError::NoSuchLayer(active.id()))?;
        let (chain, _pin) = self.store.pin(self.database, row.parent)?;
        let mut loaded = crate::load::load(self.store.files(), &chain)?;
        self.log.replace_image(&active, &mut loaded)?;
        {
            let mut active = self.active.lock();
            active.layers = std::mem::take(&mut loaded.layers);
            active.generation = chain.generation;
        }
        self.refreeze()?;
        Ok(self.repin()?)
    }

    /// Makes the newest acknowledged commit's image rest on the new layers too.
    fn refreeze(&self) -> Result<(), StoreError> {
        let old = *self.committed.read().commit();
        // The layer that holds the commit may be another one now.
        let row = self.store.catalog().find_lsn(self.database, old.lsn())?;
        let commit = CommitPoint {
            point: row.map(|row| StatePoint {
                layer: row.id,
                lsn: old.lsn(),
            }),
            ..old
        };
        let chain = self.store.catalog().chain(self.database, commit.point)?;
        let loaded = crate::load::load(self.store.files(), &chain)?;
        let frozen = Arc::new(Frozen::new(loaded.image, commit, Arc::clone(&self.hold)));
        let mut committed = self.committed.write();
        // A commit that came meanwhile was made of the new image already.
        if committed.lsn() == commit.lsn() {
            *committed = frozen;
        }
        Ok(())
    }
}

/// POSIX's rules for what may take whose place.
fn check_rename(
    image: &Image,
    moved: FileId,
    to: FileId,
    replaced: Option<FileId>,
    mode: RenameMode,
) -> Result<(), FsError> {
    let mut above = Some(to);
    while let Some(directory) = above.filter(|directory| *directory != FileId::ROOT) {
        if directory == moved {
            return Err(FsError::Invalid);
        }
        above = image.node(directory)?.parent;
    }
    let moved_kind = image.node(moved)?.kind;
    match (mode, replaced) {
        (RenameMode::NoReplace, Some(_)) => Err(FsError::Exists),
        (RenameMode::Exchange, None) => Err(FsError::NotFound),
        (RenameMode::Replace, Some(other)) if other != moved => {
            match (moved_kind, image.node(other)?.kind) {
                (FileKind::File, FileKind::Directory) => Err(FsError::IsADirectory),
                (FileKind::Directory, FileKind::File) => Err(FsError::NotADirectory),
                (FileKind::Directory, FileKind::Directory) if !image.is_empty_directory(other) => {
                    Err(FsError::NotEmpty)
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// A new, empty layer file under a fresh name.
fn new_layer_file(store: &Store, epoch: Epoch) -> Result<Arc<Layer>, FsError> {
    let id = LayerId::random(epoch);
    let file = store.files().disk().create(&store.files().active(id))?;
    Ok(Arc::new(Layer::new(id, file)))
}
