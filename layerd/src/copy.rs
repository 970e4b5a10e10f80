//! Moving house: a database with its history, from one catalog and store to another.
//!
//! Layers keep their names and bytes, snapshots and commits their numbers. The source is held while
//! it is read, so that the copy is all there is, and stays as it is. A copy that fails takes the
//! half-made database away again; what it had sent is left to garbage collection.

use std::sync::Arc;

use crate::catalog::{Database, Head, LayerKind, LayerRow, NewSnapshot};
use crate::disk;
use crate::error::FsError;
use crate::lease::HeldLease;
use crate::store::{Progress, Result, Store, StoreError};

impl Store {
    /// Copies a database with all that is kept of its history to another store, under its name.
    /// Refused while somebody writes to it, and for a clone: its history is another database's.
    pub fn copy_to(
        self: &Arc<Self>,
        name: &crate::id::DatabaseName,
        target: &Arc<Store>,
        progress: Progress<'_>,
    ) -> Result<Database> {
        let database = self.catalog().database(name)?;
        if let Some(base) = database.base {
            let source = self.catalog().database_by_id(base.database)?;
            return Err(StoreError::Refused(format!(
                "{name} is a clone of {}, which holds a part of its history; copy that one, or `export` {name} and `import` it there",
                source.name
            )));
        }
        let lease = self.acquire(&database)?;
        let copied = self.copy_held(&database, &lease, target, progress);
        lease.release()?;
        copied
    }

    fn copy_held(
        self: &Arc<Self>,
        database: &Database,
        lease: &HeldLease,
        target: &Arc<Store>,
        progress: Progress<'_>,
    ) -> Result<Database> {
        self.recover_layers(database.id, lease)?;
        self.seal_rotated(database.id, &|| ())?;
        let database = self.catalog().database_by_id(database.id)?;
        let new = target
            .catalog()
            .create_database(&database.name, database.retention_s, None)?;
        let filled = self.fill_copy(&database, target, &new, progress);
        if filled.is_err() {
            target.catalog().drop_database(new.id)?;
        }
        filled?;
        target.database(&database.name)
    }

    fn fill_copy(
        self: &Arc<Self>,
        database: &Database,
        target: &Arc<Store>,
        new: &Database,
        progress: Progress<'_>,
    ) -> Result<()> {
        // Images first, and each layer behind what it stands on.
        let rows = self.catalog().layers(database.id)?;
        let total = rows.iter().filter_map(|row| row.bytes).sum();
        let theirs = target.acquire(new)?;
        let mut done = 0;
        let mut copy = || -> Result<()> {
            for row in &rows {
                self.copy_files(row, target, &mut |bytes| {
                    done += bytes;
                    progress(done, total);
                })?;
                let copied = target.sent(LayerRow {
                    database: new.id,
                    segments: Vec::new(),
                    ..row.clone()
                })?;
                target.catalog().add_layer(theirs.epoch(), &copied)?;
            }
            if database.head.point.is_some() {
                let head: &Head = &database.head;
                target
                    .catalog()
                    .publish(new.id, theirs.epoch(), head, None)?;
            }
            for snapshot in self.catalog().snapshots(database.id)? {
                let same = NewSnapshot {
                    name: snapshot.name,
                    lsn: snapshot.lsn,
                    time: snapshot.time,
                    written_bytes: snapshot.written_bytes,
                };
                target.catalog().add_snapshot(new.id, &same)?;
            }
            Ok(())
        };
        let copied = copy();
        theirs.release()?;
        copied
    }

    /// Copies a sealed layer's files into the target's own.
    fn copy_files(
        &self,
        row: &LayerRow,
        target: &Store,
        copied: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let (from, to) = (self.files(), target.files());
        let pairs = match row.kind {
            LayerKind::Delta => vec![(
                from.open_delta(row.id, Some(row)).map_err(FsError::from)?,
                to.sealed(row.id),
            )],
            LayerKind::Image => {
                let (image, sums) = from.open_image(row).map_err(FsError::from)?;
                vec![(image, to.image(row.id)), (sums, to.sums(row.id))]
            }
        };
        for (source, path) in pairs {
            if path.exists() && from.layer_directory() == to.layer_directory() {
                return Err(StoreError::Refused(format!(
                    "{} would be copied over itself; name another store",
                    path.display()
                )));
            }
            // One that is there already was left by an attempt that was stopped, or has the same bytes.
            let length = source.length().map_err(FsError::from)?;
            disk::copy(&**to.disk(), &*source, length, &path, copied).map_err(FsError::from)?;
        }
        Ok(to
            .disk()
            .sync_directory(to.layer_directory())
            .map_err(FsError::from)?)
    }
}
