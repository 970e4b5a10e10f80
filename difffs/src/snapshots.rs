//! `.snapshots/<ref>`: any state of the database that a reference can name, as a directory.
//!
//! A reference by name or id costs one catalog row to find; its layers are opened when something in
//! the directory is asked for. What the kernel still remembers keeps its reader, and so its pin; the
//! caretaker makes the kernel forget what was not used for long.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicI64, Ordering};

use fuser::Errno;
use layerd::catalog::{CatalogError, Snapshot};
use layerd::id::{DatabaseId, DatabaseName, Lsn, Timestamp};
use layerd::reference::Ref;
use layerd::store::{Store, StoreError};
use parking_lot::Mutex;

use crate::errno::store_errno;
use crate::image::Image;

/// How many snapshots may stay open for nobody but the kernel's memory.
const IDLE_COUNT_MAX: usize = 16;

/// Finds states of one database.
pub(crate) struct Snapshots {
    store: Arc<Store>,
    database: DatabaseName,
    /// A database that is removed may be followed by another one of its name, which is not ours.
    id: DatabaseId,
    images: Mutex<HashMap<Lsn, Weak<Image>>>,
}

/// What a reference was found to mean.
pub(crate) struct Resolved {
    pub(crate) reference: Ref,
    pub(crate) commit: Lsn,
    pub(crate) time: Timestamp,
    image: Option<Arc<Image>>,
}

/// The directory of one reference, as long as it means the same commit.
pub(crate) struct SnapshotDir {
    pub(crate) ino: u64,
    /// As the user wrote it.
    pub(crate) name: String,
    pub(crate) time: Timestamp,
    reference: Ref,
    commit: Lsn,
    image: Mutex<Option<Arc<Image>>>,
    used: AtomicI64,
}

impl SnapshotDir {
    pub(crate) fn new(ino: u64, name: String, resolved: Resolved) -> SnapshotDir {
        SnapshotDir {
            ino,
            name,
            time: resolved.time,
            reference: resolved.reference,
            commit: resolved.commit,
            image: Mutex::new(resolved.image),
            used: AtomicI64::new(Timestamp::now().0),
        }
    }

    /// The image, if it is open already.
    pub(crate) fn opened(&self) -> Option<Arc<Image>> {
        self.used.store(Timestamp::now().0, Ordering::Relaxed);
        self.image.lock().clone()
    }

    fn is_idle(&self) -> bool {
        self.image
            .lock()
            .as_ref()
            .is_some_and(|image| image.open_count() == 0)
    }
}

impl Snapshots {
    pub(crate) fn new(store: Arc<Store>, database: DatabaseName, id: DatabaseId) -> Snapshots {
        Snapshots {
            store,
            database,
            id,
            images: Mutex::default(),
        }
    }

    /// Finds what `name` means. Asks the catalog.
    pub(crate) fn resolve(&self, name: &str) -> Result<Resolved, Errno> {
        let reference: Ref = name.parse().map_err(|_| Errno::ENOENT)?;
        self.check_identity()?;
        let row = match &reference {
            Ref::Name(name) => Some(self.store.catalog().snapshot_by_name(self.id, name)),
            Ref::Id(id) => Some(self.store.catalog().snapshot_by_id(self.id, *id)),
            Ref::Latest | Ref::Lsn(_) | Ref::Time(_) => None,
        };
        if let Some(row) = row {
            let Snapshot { lsn, time, .. } = row.map_err(|error| store_errno(&error.into()))?;
            return Ok(Resolved {
                reference,
                commit: lsn,
                time,
                image: None,
            });
        }
        let known = match &reference {
            Ref::Lsn(commit) => self.known(*commit),
            _ => None,
        };
        let image = match known {
            Some(image) => image,
            None => self.open(&reference)?,
        };
        let time = image.frozen()?.time();
        Ok(Resolved {
            reference,
            commit: image.commit(),
            time,
            image: Some(image),
        })
    }

    /// The image of a snapshot directory; opens it if need be.
    pub(crate) fn image(&self, dir: &SnapshotDir) -> Result<Arc<Image>, Errno> {
        if let Some(image) = dir.opened() {
            return Ok(image);
        }
        let image = match self.known(dir.commit) {
            Some(image) => image,
            None => {
                self.check_identity()?;
                self.open(&dir.reference)?
            }
        };
        if image.commit() != dir.commit {
            // The name was given to another commit meanwhile; a new lookup finds that one.
            return Err(Errno::ESTALE);
        }
        Ok(Arc::clone(dir.image.lock().get_or_insert(image)))
    }

    /// The names to list.
    pub(crate) fn names(&self) -> Result<Vec<String>, Errno> {
        self.check_identity()?;
        let rows = self
            .store
            .snapshots(&self.database)
            .map_err(|error| store_errno(&error))?;
        Ok(rows
            .into_iter()
            .filter_map(|row| row.name)
            .map(|name| name.to_string())
            .collect())
    }

    /// Of the directories that the kernel knows, those that it had better forget.
    pub(crate) fn surplus(&self, mut dirs: Vec<Arc<SnapshotDir>>) -> Vec<Arc<SnapshotDir>> {
        self.images
            .lock()
            .retain(|_, image| image.strong_count() > 0);
        dirs.retain(|dir| dir.is_idle());
        dirs.sort_by_key(|dir| dir.used.load(Ordering::Relaxed));
        dirs.truncate(dirs.len().saturating_sub(IDLE_COUNT_MAX));
        dirs
    }

    fn known(&self, commit: Lsn) -> Option<Arc<Image>> {
        self.images.lock().get(&commit).and_then(Weak::upgrade)
    }

    fn open(&self, reference: &Ref) -> Result<Arc<Image>, Errno> {
        let reader = self
            .store
            .open_reader(&self.database, reference)
            .map_err(|error| store_errno(&error))?;
        let image = Image::of_reader(reader);
        self.images
            .lock()
            .insert(image.commit(), Arc::downgrade(&image));
        Ok(image)
    }

    fn check_identity(&self) -> Result<(), Errno> {
        match self.store.database(&self.database) {
            Ok(database) if database.id == self.id => Ok(()),
            Ok(_) | Err(StoreError::Catalog(CatalogError::NoSuchDatabase(_))) => Err(Errno::ENOENT),
            Err(error) => Err(store_errno(&error)),
        }
    }
}
