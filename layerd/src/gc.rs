//! Garbage collection: what nothing refers to is deleted, after a grace period.
//!
//! Marked are the chains of all heads, snapshots, clones' bases and retained commits, and what
//! living readers have pinned. The rest is noted as dead, and swept when it has been dead for the
//! grace period; rows go first, in one transaction with the marking, files after. A kill in
//! between leaves files without a row, and those are orphans: deleted once they are old enough.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::catalog::{Database, Inventory, LayerKind, LayerRow, LayerState};
use crate::id::{DatabaseId, LayerId, Lsn};
use crate::instance;
use crate::store::{GcReport, Result, Store, io_error};

/// Longer than a pin lives, so that whoever resolved a state and is about to pin it is safe.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(15 * 60);

impl Store {
    /// Deletes what nothing refers to and what has been so for `grace` (default 15 minutes).
    pub fn gc(self: &Arc<Self>, grace: Option<Duration>, dry_run: bool) -> Result<GcReport> {
        let grace = grace.unwrap_or(GRACE_DEFAULT);
        let locks = self.files().locks();
        if !dry_run {
            // Readers of this home that were killed pin nothing any more.
            for pin in self
                .catalog()
                .inventory()?
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
            for path in self.layer_paths(row) {
                report.bytes_freed += remove(&path, dry_run)?;
            }
            report.layers_deleted += 1;
        }
        self.sweep_orphans(grace, dry_run, &swept, &mut report)?;
        Ok(report)
    }

    fn layer_paths(&self, row: &LayerRow) -> Vec<std::path::PathBuf> {
        let files = self.files();
        match row.kind {
            LayerKind::Delta => vec![files.active(row.id), files.sealed(row.id)],
            LayerKind::Image => vec![
                files.image(row.id),
                files.sums(row.id),
                files.hash_note(row.id),
            ],
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
        let active = self.files().active_directory();
        let mut orphans = HashSet::new();
        for directory in [active.as_path(), self.files().layer_directory()] {
            let entries = std::fs::read_dir(directory)
                .map_err(|e| io_error(&format!("list {}", directory.display()), e))?;
            for entry in entries {
                let entry =
                    entry.map_err(|e| io_error(&format!("list {}", directory.display()), e))?;
                let path = entry.path();
                let layer = path
                    .file_stem()
                    .and_then(|stem| stem.to_str())
                    .and_then(|stem| stem.parse::<LayerId>().ok());
                let Some(layer) = layer else { continue };
                let age = entry
                    .metadata()
                    .and_then(|meta| meta.modified())
                    .ok()
                    .and_then(|at| SystemTime::now().duration_since(at).ok());
                // A layer in the making has no row yet and was written to just now.
                let young = age.is_none_or(|age| age < grace.max(ORPHAN_AGE_MIN));
                if young
                    || swept.iter().any(|row| row.id == layer)
                    || self.catalog().knows_layer(layer)?
                {
                    continue;
                }
                report.bytes_freed += remove(&path, dry_run)?;
                orphans.insert(layer);
            }
        }
        report.layers_deleted += orphans.len() as u64;
        Ok(())
    }
}

/// However short the grace is, a file without a row may belong to a layer that is just being
/// written.
const ORPHAN_AGE_MIN: Duration = Duration::from_secs(60);

/// Removes a file; returns how many bytes of disk that gives back.
fn remove(path: &std::path::Path, dry_run: bool) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = std::fs::metadata(path) else {
        return Ok(0);
    };
    if !dry_run {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error(&format!("remove {}", path.display()), error));
            }
            _ => {}
        }
    }
    Ok(meta.blocks() * 512)
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
