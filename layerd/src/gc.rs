//! Garbage collection: what nothing refers to is deleted, after a grace period.
//!
//! Marked are the chains of all heads, snapshots, clones' bases and retained commits, and what
//! living readers have pinned. The rest is noted as dead, and swept when it has been dead for the
//! grace period; rows go first, in one transaction with the marking, files after. A kill in
//! between leaves files without a row, and those are orphans: deleted once they are old enough.
//! Objects without a row in a remote store have rules of their own (`orphans.rs`).

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::catalog::{CatalogError, Database, Inventory, LayerKind, LayerRow, LayerState};
use crate::files::is_open;
use crate::id::{DatabaseId, LayerId, Lsn};
use crate::instance;
use crate::layer::Layer;
use crate::machine;
use crate::remote::objects::{LAYERS, Objects};
use crate::scan::read_header;
use crate::store::{GcReport, Result, Store, io_error};

/// Longer than a pin lives, so that whoever resolved a state and is about to pin it is safe.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(15 * 60);

impl Store {
    /// Deletes what nothing refers to and what has been so for `grace` (default 15 minutes, and a
    /// day for objects that never had a row).
    pub fn gc(self: &Arc<Self>, grace: Option<Duration>, dry_run: bool) -> Result<GcReport> {
        let asked = grace;
        let grace = grace.unwrap_or(GRACE_DEFAULT);
        let locks = self.files().locks();
        let before = self.catalog().inventory()?;
        if !dry_run {
            // Readers of this home that were killed pin nothing any more.
            for pin in before
                .pins
                .iter()
                .filter(|pin| instance::is_dead(&locks, &pin.holder))
            {
                self.catalog().unpin(pin.id)?;
            }
        }
        let mut living = 0;
        let swept = self.catalog().sweep(grace, dry_run, &mut |inventory| {
            let is_dead = |holder: &crate::catalog::Holder| instance::is_dead(&locks, holder);
            let marked = mark(inventory, &is_dead);
            living = inventory.layers.len() as u64;
            marked.into_iter().collect()
        })?;
        let mut report = GcReport {
            layers_kept: living - swept.len() as u64,
            ..GcReport::default()
        };
        for row in &swept {
            report.bytes_freed += self.delete_layer(row.id, row.kind, dry_run)?;
            report.layers_deleted += 1;
        }
        self.sweep_orphans(grace, dry_run, &swept, &mut report)?;
        if let Some(objects) = self.remote() {
            let of_swept = swept.iter().flat_map(|row| &row.segments);
            report.bytes_freed += of_swept.map(|segment| segment.bytes).sum::<u64>();
            if !dry_run {
                self.sweep_garbage(objects, grace)?;
                self.forget_cached()?;
            }
            let gone = self.gone(&before)?;
            report.bytes_freed += self.sweep_objects(objects, asked, &gone, dry_run)?;
        }
        Ok(report)
    }

    /// Deletes what there is of a layer; returns how many bytes of disk that gives back.
    fn delete_layer(&self, layer: LayerId, kind: LayerKind, dry_run: bool) -> Result<u64> {
        let names: &[&str] = match kind {
            LayerKind::Delta => &["delta"],
            LayerKind::Image => &["image", "sums"],
        };
        let active = self.files().active(layer);
        let mut freed = 0;
        if !active.exists() || !self.may_be_lost(&active, layer)? {
            freed += remove(&active, dry_run)?;
        }
        if kind == LayerKind::Image {
            remove(&self.files().hash_note(layer), dry_run)?;
        }
        for end in names {
            freed += self.delete_object(&format!("{layer}.{end}"), dry_run)?;
        }
        Ok(freed)
    }

    fn delete_object(&self, name: &str, dry_run: bool) -> Result<u64> {
        let freed = disk_bytes(&self.files().layer_directory().join(name));
        if !dry_run {
            self.objects().delete([format!("{LAYERS}/{name}")])?;
        }
        Ok(freed)
    }

    /// Removes what this home has cached of layers that have no row any more.
    fn forget_cached(&self) -> Result<()> {
        let Some(cache) = self.files().tier().and_then(|tier| tier.cache()) else {
            return Ok(());
        };
        let failed = |error| io_error("clear the cache", error);
        for layer in cache.layers().map_err(failed)? {
            if !self.catalog().knows_layer(layer)? {
                cache.forget(layer).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The databases that had a row before, and have none any more.
    fn gone(&self, before: &Inventory) -> Result<HashSet<DatabaseId>> {
        let mut gone = HashSet::new();
        for database in before.databases.iter().filter(|it| it.dropped.is_some()) {
            match self.catalog().database_by_id(database.id) {
                Err(CatalogError::NoSuchDatabase(_)) => {
                    gone.insert(database.id);
                }
                known => drop(known?),
            }
        }
        Ok(gone)
    }

    /// Deletes the objects that were a segment's until their layers went, or were replaced.
    fn sweep_garbage(&self, objects: &Objects, grace: Duration) -> Result<()> {
        for keys in self.catalog().garbage(grace)?.chunks(FORGET_AT_ONCE) {
            objects.delete(keys.iter().cloned())?;
            self.catalog().forget_garbage(keys)?;
        }
        Ok(())
    }

    /// Whether an unsealed layer's file may hold commits that were acknowledged on this host and
    /// never published, before its writer was replaced: `keep_lost` takes care of those.
    fn may_be_lost(&self, path: &Path, layer: LayerId) -> Result<bool> {
        let Some(file) = self.files().disk().open(path, false).ok() else {
            return Ok(false);
        };
        // The layers that compaction makes begin with no commit of their own.
        let header = read_header(layer, &*file).ok();
        let Some(header) = header.filter(|header| header.first_lsn > Lsn::EMPTY) else {
            return Ok(false);
        };
        if self.remote().is_none() {
            return Ok(false);
        }
        match self.catalog().database_by_id(header.database) {
            Ok(database) => Ok(layer.epoch < database.epoch
                && self.is_lost(&database, &Layer::new(layer, file))?),
            Err(CatalogError::NoSuchDatabase(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Layer files that the catalog does not know: left over from something that was killed.
    fn sweep_orphans(
        &self,
        grace: Duration,
        dry_run: bool,
        swept: &[LayerRow],
        report: &mut GcReport,
    ) -> Result<()> {
        let is_orphan = |path: &Path, modified: SystemTime| {
            let age = machine::age(modified);
            if age < grace {
                return false;
            }
            // A file is made first and locked then: give it that moment.
            machine::sleep(MAKING_MAX.saturating_sub(age));
            !is_open(path)
        };
        let mut orphans = HashSet::new();
        let mut orphan = |path: &Path, modified: SystemTime| -> Result<bool> {
            let stem = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .map(str::parse::<LayerId>);
            let Some(Ok(layer)) = stem else {
                return Ok(false);
            };
            if swept.iter().any(|row| row.id == layer)
                || self.catalog().knows_layer(layer)?
                || !is_orphan(path, modified)
                // It may have got its row in that moment.
                || self.catalog().knows_layer(layer)?
            {
                return Ok(false);
            }
            orphans.insert(layer);
            Ok(true)
        };
        self.objects().list(LAYERS, |object| -> Result<()> {
            let Some((_, name)) = object.key.rsplit_once('/') else {
                return Ok(());
            };
            if orphan(&self.files().layer_directory().join(name), object.modified)? {
                report.bytes_freed += self.delete_object(name, dry_run)?;
            }
            Ok(())
        })?;
        let active = self.files().active_directory();
        let failed = |error| io_error(&format!("list {}", active.display()), error);
        for entry in std::fs::read_dir(&active).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // It may have been sealed or removed meanwhile.
            let Ok(modified) = entry.metadata().and_then(|meta| meta.modified()) else {
                continue;
            };
            let path = entry.path();
            let layer = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            let is_copy = path.extension().is_some_and(|end| end == "copy");
            if let Some(layer) = layer.filter(|_| !is_copy)
                && !self.catalog().knows_layer(layer)?
                && self.may_be_lost(&path, layer)?
            {
                continue;
            }
            // A copy is nobody's but the sealing process's that makes it.
            let is_left_over = is_copy && is_orphan(&path, modified);
            if is_left_over || orphan(&path, modified)? {
                report.bytes_freed += remove(&path, dry_run)?;
            }
        }
        report.layers_deleted += orphans.len() as u64;
        Ok(())
    }
}

/// Rows that are forgotten in one transaction.
const FORGET_AT_ONCE: usize = 100;
/// Longer than it takes from making a file to locking it.
const MAKING_MAX: Duration = Duration::from_millis(200);

/// Removes a file that may be gone already; returns how many bytes of disk that gives back.
fn remove(path: &Path, dry_run: bool) -> Result<u64> {
    let freed = disk_bytes(path);
    match if dry_run {
        Ok(())
    } else {
        std::fs::remove_file(path)
    } {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error(&format!("remove {}", path.display()), error))
        }
        _ => Ok(freed),
    }
}

/// What a file takes on the disk; nothing if there is none.
fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

/// The layers that something refers to.
pub(crate) fn mark(
    inventory: &Inventory,
    is_dead: &dyn Fn(&crate::catalog::Holder) -> bool,
) -> HashSet<LayerId> {
    let index = Index::new(inventory);
    let mut roots: Vec<LayerId> = Vec::new();
    for database in &inventory.databases {
        if is_expired(inventory, database) {
            continue;
        }
        roots.extend(database.head.point.map(|point| point.layer));
        roots.extend(
            database
                .base
                .and_then(|base| base.point)
                .map(|point| point.layer),
        );
        roots.extend(index.retained(inventory, database));
    }
    let live: HashSet<DatabaseId> = inventory
        .databases
        .iter()
        .filter(|database| !is_expired(inventory, database))
        .map(|database| database.id)
        .collect();
    let snapshots = inventory
        .snapshots
        .iter()
        .filter(|(database, _)| live.contains(database));
    roots.extend(
        snapshots
            .filter_map(|(database, snapshot)| index.find(*database, snapshot.lsn))
            .map(|row| row.id),
    );
    let mut marked = HashSet::new();
    while let Some(id) = roots.pop() {
        let Some(row) = index.rows.get(&id) else {
            continue;
        };
        if marked.insert(id) {
            roots.extend(row.parent.map(|point| point.layer));
            roots.extend(&row.images);
        }
    }
    marked.extend(
        inventory
            .pins
            .iter()
            .filter(|pin| !is_dead(&pin.holder))
            .flat_map(|pin| pin.layers.iter().copied()),
    );
    marked
}

/// Whether a database was removed so long ago that nothing brings it back.
fn is_expired(inventory: &Inventory, database: &Database) -> bool {
    database
        .dropped
        .is_some_and(|at| at.plus_seconds(database.retention_s.cast_signed()) < inventory.now)
}

/// The inventory by id and by LSN.
pub(crate) struct Index<'a> {
    rows: HashMap<LayerId, &'a LayerRow>,
    /// Living delta layers of each database, by first LSN.
    deltas: HashMap<DatabaseId, Vec<&'a LayerRow>>,
    databases: HashMap<DatabaseId, &'a Database>,
}

impl<'a> Index<'a> {
    pub(crate) fn new(inventory: &'a Inventory) -> Index<'a> {
        let mut deltas: HashMap<DatabaseId, Vec<&LayerRow>> = HashMap::new();
        for row in inventory
            .layers
            .iter()
            .filter(|row| row.kind == LayerKind::Delta && row.dead_since.is_none())
        {
            deltas.entry(row.database).or_default().push(row);
        }
        deltas
            .values_mut()
            .for_each(|rows| rows.sort_by_key(|row| row.first_lsn));
        Index {
            rows: inventory.layers.iter().map(|row| (row.id, row)).collect(),
            deltas,
            databases: inventory
                .databases
                .iter()
                .map(|database| (database.id, database))
                .collect(),
        }
    }

    /// Living delta layers of a database, by first LSN.
    pub(crate) fn deltas(&self, database: DatabaseId) -> &[&'a LayerRow] {
        self.deltas.get(&database).map_or(&[], Vec::as_slice)
    }

    /// The layer that holds a commit of a database or, before it was cloned, of its source.
    fn find(&self, database: DatabaseId, lsn: Lsn) -> Option<&'a LayerRow> {
        let mut database = self.databases.get(&database)?;
        while let Some(base) = database
            .base
            .filter(|base| base.point.is_some_and(|point| lsn <= point.lsn))
        {
            database = self.databases.get(&base.database)?;
        }
        let own = self.deltas(database.id);
        own.iter()
            .rev()
            .find(|row| row.first_lsn <= lsn && row.last_lsn.is_none_or(|last| lsn <= last))
            .copied()
    }

    /// The layers of a database in which some commit is still kept by retention, or that are not
    /// complete yet. A removed database keeps all it had.
    fn retained(&self, inventory: &Inventory, database: &Database) -> Vec<LayerId> {
        let rows = self.deltas(database.id);
        let oldest = inventory
            .now
            .plus_seconds(-database.retention_s.cast_signed());
        let superseded = |n: usize| match rows.get(n + 1) {
            // An active layer's first commit may not be there yet.
            Some(next) => next.first_time,
            None => None,
        };
        let kept = |(n, row): &(usize, &&LayerRow)| {
            database.dropped.is_some()
                || row.state == LayerState::Active
                || superseded(*n).is_none_or(|at| at >= oldest)
        };
        rows.iter()
            .enumerate()
            .filter(kept)
            .map(|(_, row)| row.id)
            .collect()
    }
}
