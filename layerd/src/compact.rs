//! Compaction: fewer and smaller layers that say the same about every commit that is kept.
//!
//! Sealed layers of one database that stand on each other form a run. A run is folded to its kept
//! commits when that gives back enough; the new layers are complete, sealed and durable before one
//! catalog transaction puts them in the place of the old, and that transaction fails if anything
//! came to refer to a commit that was dropped. Readers go on with the old layers, whose files stay
//! until garbage collection finds them unpinned. A kill at any point leaves orphans and nothing
//! else.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::catalog::{
    CatalogError, Database, Inventory, LayerKind, LayerRow, LayerState, StatePoint,
};
use crate::fold::{DryRun, LayerWriter, fold};
use crate::frozen::CommitPoint;
use crate::gc::Index;
use crate::id::{DatabaseName, LayerId, Lsn};
use crate::image::Node;
use crate::layer::Layer;
use crate::load::{Images, Loaded, load, open_error, open_image};
use crate::new_image::NewImage;
use crate::pin::Pin;
use crate::resolve::layer_commits;
use crate::seal::seal_file;
use crate::store::{CompactReport, Progress, Result, Store, StoreError};

/// How much must be gained before anything is rewritten.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Bytes that must come back …
    pub gain_min: u64,
    /// … and which part of the run they must be, in hundredths.
    pub gain_percent: u64,
    /// A run of more layers than this is joined without any gain.
    pub layers_max: usize,
    /// A file of at least this size gets an image layer of its own.
    pub image_min: u64,
    /// Which part of an image layer must be dead before it is written anew, in hundredths.
    pub image_dead_percent: u64,
}

impl Effort {
    /// What a person asks for: give back what can be given back.
    pub const THOROUGH: Effort = Effort {
        gain_min: 64 << 10,
        gain_percent: 1,
        layers_max: 8,
        image_min: 4 << 20,
        image_dead_percent: 2,
    };
    /// What the mounting process does by itself: only what clearly pays.
    pub const BACKGROUND: Effort = Effort {
        gain_min: 64 << 20,
        gain_percent: 40,
        layers_max: 64,
        image_min: 64 << 20,
        image_dead_percent: 50,
    };
}

/// New layers are split at about this size.
const LAYER_BYTES: u64 = 256 << 20;

impl Store {
    /// Folds what retention does not keep any more out of a database's sealed layers.
    pub fn compact(
        self: &Arc<Self>,
        name: &DatabaseName,
        progress: Progress<'_>,
    ) -> Result<CompactReport> {
        let database = self.database(name)?;
        self.compact_with(&database, Effort::THOROUGH, progress, &|| ())
    }

    /// As [`Store::compact`]; `pace` is called after each megabyte, and may sleep.
    pub(crate) fn compact_with(
        self: &Arc<Self>,
        database: &Database,
        effort: Effort,
        progress: Progress<'_>,
        pace: &dyn Fn(),
    ) -> Result<CompactReport> {
        self.seal_rotated(database.id, pace)?;
        let report = CompactReport::default();
        let mut work = Compaction {
            store: self,
            effort,
            progress,
            pace,
            report,
        };
        let mut seen = HashSet::new();
        loop {
            // Read anew for each run: folding one moves what the others stand on.
            let inventory = self.catalog().inventory()?;
            let unseen = |run: &Vec<LayerRow>| run.iter().any(|row| !seen.contains(&row.id));
            let Some(run) = runs(&inventory, database).into_iter().find(unseen) else {
                return Ok(work.report);
            };
            seen.extend(run.iter().map(|row| row.id));
            match work.run(database, &inventory, &run) {
                Ok(new) => seen.extend(new),
                // Somebody else compacted it, or took a snapshot of what was to go: look again.
                Err(StoreError::Catalog(
                    error @ (CatalogError::NoSuchLayer(_) | CatalogError::Conflict(_)),
                )) => tracing::info!(%error, "a run of layers changed while it was compacted"),
                Err(error) => return Err(error),
            }
        }
    }
}

/// One compaction on its way.
struct Compaction<'a> {
    store: &'a Arc<Store>,
    effort: Effort,
    progress: Progress<'a>,
    pace: &'a dyn Fn(),
    report: CompactReport,
}

impl Compaction<'_> {
    /// Folds one run if that pays; returns the new layers.
    fn run(
        &mut self,
        database: &Database,
        inventory: &Inventory,
        run: &[LayerRow],
    ) -> Result<Vec<LayerId>> {
        let (store, effort) = (self.store, self.effort);
        let _pin = store.pin_run(database, run)?;
        let kept = store.kept(database, inventory, run)?;
        let (Some(first), false) = (run.first(), kept.is_empty()) else {
            // Nothing of it is kept: it is garbage as a whole.
            return Ok(Vec::new());
        };
        let images = store.images_of(run)?;
        let image_bytes: BTreeMap<LayerId, u64> = inventory
            .layers
            .iter()
            .filter(|row| images.contains_key(&row.id))
            .map(|row| (row.id, row.bytes.unwrap_or(0)))
            .collect();
        let before =
            run.iter().filter_map(|row| row.bytes).sum::<u64>() + image_bytes.values().sum::<u64>();
        let wants_image = |node: &Node, image: Option<&Layer>| wants_image(effort, node, image);
        let below = || -> Result<Loaded> {
            let chain = store.catalog().chain(first.database, first.parent)?;
            Ok(load(store.files(), &chain)?)
        };
        let mut dry = DryRun::new(image_bytes);
        fold(
            store.files(),
            run,
            below()?,
            &kept,
            &images,
            &wants_image,
            &mut dry,
        )?;
        let gain = before.saturating_sub(dry.bytes);
        let pays = gain >= effort.gain_min && gain * 100 >= before * effort.gain_percent;
        if !pays && run.len() <= effort.layers_max {
            return Ok(Vec::new());
        }
        let mut done = 0;
        let mut step = |bytes: u64| {
            done += bytes;
            (self.progress)(done.min(dry.bytes), dry.bytes);
            (self.pace)();
        };
        let mut writer = LayerWriter::new(
            store.files(),
            database.id,
            database.epoch,
            first.parent,
            LAYER_BYTES,
            &mut step,
        );
        let folded = fold(
            store.files(),
            run,
            below()?,
            &kept,
            &images,
            &wants_image,
            &mut writer,
        )
        .and_then(|()| writer.finish());
        let (layers, new_images) = (
            std::mem::take(&mut writer.done),
            std::mem::take(&mut writer.new_images),
        );
        drop(writer);
        let replaced = folded
            .map_err(Into::into)
            .and_then(|()| store.replace(database, run, layers, &new_images, &kept));
        match replaced {
            Ok(rows) => {
                for image in &new_images {
                    store.hashes().written(image.row.id);
                }
                self.report.layers_before += run.len() as u64;
                self.report.layers_after += rows.len() as u64;
                self.report.bytes_before += before;
                self.report.bytes_after += rows.iter().filter_map(|row| row.bytes).sum::<u64>();
                Ok(rows.into_iter().map(|row| row.id).collect())
            }
            Err(error) => {
                for image in &new_images {
                    let files = store.files();
                    let _ = files.disk().remove(&files.image(image.row.id));
                    let _ = files.disk().remove(&files.sums(image.row.id));
                }
                Err(error)
            }
        }
    }
}

impl Store {
    /// Seals the new layers and puts them in the place of the old. Returns their rows.
    fn replace(
        &self,
        database: &Database,
        run: &[LayerRow],
        layers: Vec<(crate::new_layer::NewLayer, Vec<LayerId>)>,
        new_images: &[NewImage],
        kept: &[Lsn],
    ) -> Result<Vec<LayerRow>> {
        let mut rows = Vec::new();
        for image in new_images {
            rows.push(self.sent(image.row.clone())?);
        }
        let mut layers = layers;
        for (layer, images) in &mut layers {
            let (bytes, hash) = seal_file(
                self.files(),
                layer.id(),
                &self.files().active(layer.id()),
                layer.end(),
                &|| (),
            )?;
            rows.push(self.sent(LayerRow {
                state: LayerState::Sealed,
                bytes: Some(bytes),
                hash: Some(hash),
                ..layer.row(images)
            })?);
        }
        let old: Vec<LayerId> = run.iter().map(|row| row.id).collect();
        let replaced = self
            .catalog()
            .replace_layers(database.id, &old, &rows, kept);
        if let Err(error) = replaced {
            for (layer, _) in &layers {
                let _ = self.files().disk().remove(&self.files().sealed(layer.id()));
            }
            return Err(error.into());
        }
        layers.iter_mut().for_each(|(layer, _)| layer.keep());
        Ok(rows)
    }

    /// Keeps a run, and what it stands on, from garbage collection while it is read.
    fn pin_run(&self, database: &Database, run: &[LayerRow]) -> Result<Option<Arc<Pin>>> {
        let last = run.last().and_then(|row| {
            let lsn = row.last_lsn?;
            Some(StatePoint { layer: row.id, lsn })
        });
        Ok(self.pin(database.id, last)?.1)
    }

    /// The image layers that a run refers to, opened.
    fn images_of(&self, run: &[LayerRow]) -> Result<Images> {
        let mut images = Images::new();
        let rows = self.catalog().inventory()?.layers;
        for id in run.iter().flat_map(|row| &row.images) {
            if !images.contains_key(id) {
                let row = rows.iter().find(|row| row.id == *id);
                let row = row.ok_or(CatalogError::NoSuchLayer(*id))?;
                let image = open_image(self.files(), row);
                images.insert(*id, image.map_err(|error| open_error(*id, error))?);
            }
        }
        Ok(images)
    }

    /// The commits of a run that must stay: retained ones, snapshots, and whatever layer, clone or
    /// head stands on one.
    fn kept(
        &self,
        database: &Database,
        inventory: &Inventory,
        run: &[LayerRow],
    ) -> Result<Vec<Lsn>> {
        let in_run = |point: &StatePoint| run.iter().any(|row| row.id == point.layer);
        let ids: BTreeSet<LayerId> = run.iter().map(|row| row.id).collect();
        let mut kept: BTreeSet<Lsn> = BTreeSet::new();
        let outside = inventory
            .layers
            .iter()
            .filter(|row| row.dead_since.is_none() && !ids.contains(&row.id));
        kept.extend(
            outside
                .filter_map(|row| row.parent)
                .filter(&in_run)
                .map(|point| point.lsn),
        );
        for other in &inventory.databases {
            kept.extend(other.head.point.filter(&in_run).map(|point| point.lsn));
            kept.extend(
                other
                    .base
                    .and_then(|base| base.point)
                    .filter(&in_run)
                    .map(|point| point.lsn),
            );
        }
        kept.extend(
            inventory
                .snapshots
                .iter()
                .filter(|(id, _)| *id == database.id)
                .map(|(_, snapshot)| snapshot.lsn),
        );
        // Retention: a commit is kept while the one behind it is young.
        let oldest = inventory
            .now
            .plus_seconds(-database.retention_s.cast_signed());
        let head = CommitPoint {
            point: database.head.point,
            time: database.head.time,
            written_bytes: database.head.written_bytes,
        };
        let mut commits = Vec::new();
        for row in run {
            commits.extend(layer_commits(self.files(), row, &head)?);
        }
        let index = Index::new(inventory);
        let behind = run.last().and_then(|last| {
            let next = index
                .deltas(database.id)
                .iter()
                .find(|row| Some(row.first_lsn) > last.last_lsn)
                .copied();
            next.map(|row| row.first_time)
        });
        for (n, commit) in commits.iter().enumerate() {
            let superseded = match commits.get(n + 1) {
                Some(next) => Some(next.time),
                // Nothing behind it, or an active layer that may be without a commit yet.
                None => behind.flatten(),
            };
            if superseded.is_none_or(|at| at >= oldest) {
                kept.insert(commit.lsn);
            }
        }
        let there: BTreeSet<Lsn> = commits.iter().map(|commit| commit.lsn).collect();
        Ok(kept.intersection(&there).copied().collect())
    }
}

/// The sealed layers of a database as runs, each layer standing on the end of the one before.
fn runs(inventory: &Inventory, database: &Database) -> Vec<Vec<LayerRow>> {
    let index = Index::new(inventory);
    let mut runs: Vec<Vec<LayerRow>> = Vec::new();
    for row in index.deltas(database.id) {
        if row.state != LayerState::Sealed || row.kind != LayerKind::Delta {
            continue;
        }
        let stands_on = |last: &LayerRow| {
            row.parent
                .is_some_and(|point| point.layer == last.id && Some(point.lsn) == last.last_lsn)
        };
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(stands_on) => run.push((*row).clone()),
            _ => runs.push(vec![(*row).clone()]),
        }
    }
    runs
}

/// A large file without an image layer gets one; one whose image is largely dead gets another.
fn wants_image(effort: Effort, node: &Node, image: Option<&Layer>) -> bool {
    // A file that is mostly a hole would cost its length to hash.
    if node.size < effort.image_min || node.extents.allocated() < node.size / 2 {
        return false;
    }
    let Some(image) = image else { return true };
    let alive: u64 = node
        .extents
        .iter()
        .filter(|(_, run)| run.layer.id() == image.id())
        .map(|(_, run)| run.length)
        .sum();
    let size = image.file().length().unwrap_or(u64::MAX).max(1);
    let dead = size.saturating_sub(alive);
    dead * 100 >= size.saturating_mul(effort.image_dead_percent)
        || node.extents.allocated() > alive + alive / 2
}
