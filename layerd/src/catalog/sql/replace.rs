//! Compaction's transaction: layers make way for others that hold the commits still wanted.
//!
//! Everything that stands on an old layer is looked at before anything is written: what needs a
//! commit that is not kept stops the whole call.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::fault::{Fault, Outcome};
use super::tx::{Query, Tx};
use super::value::values;
use super::{databases, layers, snapshots};
use crate::catalog::{Database, LayerKind, LayerRow, LayerState, StatePoint};
use crate::id::{DatabaseId, LayerId, Lsn};

pub(super) fn replace(
    tx: &dyn Tx,
    id: DatabaseId,
    old: &[LayerId],
    new: &[LayerRow],
    kept: &[Lsn],
) -> Outcome<()> {
    databases::by_id(tx, id)?;
    let change = Change {
        id,
        old: old_rows(tx, id, old)?,
        old_ids: old.iter().copied().collect(),
        new,
        standing: layers::all_standing(tx)?,
        kept: kept.iter().copied().collect(),
    };
    change.check_new_rows(tx)?;
    change.check_snapshots(tx)?;
    let children = change.children()?;
    let databases = databases::all(tx)?;
    let references = change.database_references(&databases)?;
    let touched = change.touched_databases(&databases);

    for row in new {
        layers::insert(tx, row)?;
    }
    for (child, parent) in children {
        set_parent(tx, child, parent)?;
    }
    for reference in references {
        reference.write(tx)?;
    }
    for row in &change.old {
        layers::mark_spent(tx, row.id)?;
    }
    for image in unused(tx, change.old.iter().flat_map(|row| &row.images))? {
        layers::mark_dead(tx, image)?;
    }
    for database in touched {
        raise_generation(tx, database)?;
    }
    tx.announce()
}

struct Change<'a> {
    id: DatabaseId,
    old: Vec<LayerRow>,
    old_ids: HashSet<LayerId>,
    new: &'a [LayerRow],
    /// The bare rows of all layers that stand on another, as they were before.
    standing: Vec<LayerRow>,
    kept: BTreeSet<Lsn>,
}

/// A head or a base that moves.
enum Reference {
    Head(DatabaseId, StatePoint),
    Base(DatabaseId, StatePoint),
}

impl Reference {
    fn write(&self, tx: &dyn Tx) -> Outcome<()> {
        let (sql, database, point) = match self {
            Reference::Head(database, point) => (
                "UPDATE databases SET head_layer = ?2 WHERE id = ?1",
                database,
                point,
            ),
            Reference::Base(database, point) => (
                "UPDATE databases SET base_layer = ?2 WHERE id = ?1",
                database,
                point,
            ),
        };
        tx.execute(sql, values![*database, point.layer])
    }
}

/// The rows that are to be replaced, each a living, sealed delta layer of the database.
fn old_rows(tx: &dyn Tx, id: DatabaseId, old: &[LayerId]) -> Outcome<Vec<LayerRow>> {
    old.iter()
        .map(|&layer| {
            layers::find(tx, layer)?
                .filter(|row| {
                    row.database == id
                        && row.kind == LayerKind::Delta
                        && row.state == LayerState::Sealed
                        && row.dead_since.is_none()
                })
                .ok_or_else(|| {
                    Fault::conflict(format!(
                        "layer {layer} is no living, sealed delta layer of this database"
                    ))
                })
        })
        .collect()
}

impl Change<'_> {
    /// The new rows fit into what stays, and hold every commit that is kept.
    fn check_new_rows(&self, tx: &dyn Tx) -> Outcome<()> {
        for row in self.new {
            self.check_new_row(tx, row)?;
        }
        let living = layers::living(tx, self.id)?;
        let staying: Vec<&LayerRow> = living
            .iter()
            .filter(|row| !self.old_ids.contains(&row.id))
            .collect();
        for (position, row) in self.new.iter().enumerate() {
            let others = staying.iter().copied().chain(&self.new[..position]);
            if let Some(other) = others.into_iter().find(|other| layers::overlap(row, other)) {
                return Err(Fault::conflict(format!(
                    "layers {} and {} would hold the same commits",
                    row.id, other.id
                )));
            }
        }
        for &lsn in &self.kept {
            if !self.old.iter().any(|row| layers::covers(row, lsn)) {
                return Err(Fault::conflict(format!(
                    "commit {lsn} is in none of the old layers"
                )));
            }
            if self.covering(lsn).is_none() {
                return Err(Fault::conflict(format!(
                    "commit {lsn} is in none of the new layers"
                )));
            }
        }
        Ok(())
    }

    fn check_new_row(&self, tx: &dyn Tx, row: &LayerRow) -> Outcome<()> {
        let has_range = row.last_lsn.is_some() == (row.kind == LayerKind::Delta);
        if row.database != self.id || row.state != LayerState::Sealed || !has_range {
            return Err(Fault::conflict(format!(
                "layer {} is no sealed layer of this database",
                row.id
            )));
        }
        if let Some(parent) = row.parent {
            let stands_on_new = self
                .new
                .iter()
                .any(|other| other.id == parent.layer && layers::covers(other, parent.lsn));
            if self.old_ids.contains(&parent.layer) {
                return Err(Fault::conflict(format!(
                    "layer {} stands on an old one",
                    row.id
                )));
            }
            if !stands_on_new {
                self.check_staying(layers::check_point(tx, parent).map(drop))?;
            }
        }
        for &image in &row.images {
            let is_new = self
                .new
                .iter()
                .any(|other| other.id == image && other.kind == LayerKind::Image);
            if !is_new {
                self.check_staying(layers::check_images(tx, &[image]))?;
            }
        }
        Ok(())
    }

    /// What a new layer needs and does not find was taken away since it was planned.
    fn check_staying(&self, check: Outcome<()>) -> Outcome<()> {
        check.map_err(|fault| match fault {
            Fault::Refused(refusal) => Fault::conflict(refusal.to_string()),
            other => other,
        })
    }

    /// The new layer for a commit of the old ones.
    fn covering(&self, lsn: Lsn) -> Option<LayerId> {
        self.new
            .iter()
            .find(|row| layers::covers(row, lsn))
            .map(|row| row.id)
    }

    /// Where a reference to an old layer goes; `None` if it is to another layer.
    fn moved(&self, point: StatePoint) -> Outcome<Option<StatePoint>> {
        if !self.old_ids.contains(&point.layer) {
            return Ok(None);
        }
        self.kept
            .contains(&point.lsn)
            .then(|| self.covering(point.lsn))
            .flatten()
            .map(|layer| {
                Some(StatePoint {
                    layer,
                    lsn: point.lsn,
                })
            })
            .ok_or_else(|| Fault::conflict(format!("commit {} is still needed", point.lsn)))
    }

    fn check_snapshots(&self, tx: &dyn Tx) -> Outcome<()> {
        for row in &self.old {
            let Some(last) = row.last_lsn else { continue };
            for lsn in snapshots::lsns_within(tx, self.id, row.first_lsn, last)? {
                if !self.kept.contains(&lsn) {
                    return Err(Fault::conflict(format!("commit {lsn} has a snapshot")));
                }
            }
        }
        Ok(())
    }

    /// The layers that stand on old ones, each with its new parent. Of dead layers only those
    /// that can move do: they hold nobody up.
    fn children(&self) -> Outcome<Vec<(LayerId, StatePoint)>> {
        let mut found = Vec::new();
        for child in &self.standing {
            let Some(parent) = child.parent.filter(|_| !self.old_ids.contains(&child.id)) else {
                continue;
            };
            match self.moved(parent) {
                Ok(Some(parent)) => found.push((child.id, parent)),
                Ok(None) => {}
                Err(_) if child.dead_since.is_some() => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(found)
    }

    /// The heads and bases that move.
    fn database_references(&self, databases: &[Database]) -> Outcome<Vec<Reference>> {
        let mut found = Vec::new();
        for database in databases {
            if let Some(point) = database.head.point
                && let Some(point) = self.moved(point)?
            {
                found.push(Reference::Head(database.id, point));
            }
            if let Some(point) = database.base.and_then(|base| base.point)
                && let Some(point) = self.moved(point)?
            {
                found.push(Reference::Base(database.id, point));
            }
        }
        Ok(found)
    }

    /// The owner, and every database whose image or whose base is made of old layers.
    fn touched_databases(&self, databases: &[Database]) -> BTreeSet<DatabaseId> {
        let mut children: HashMap<LayerId, Vec<LayerId>> = HashMap::new();
        for row in self.standing.iter().filter(|row| row.dead_since.is_none()) {
            if let Some(parent) = row.parent {
                children.entry(parent.layer).or_default().push(row.id);
            }
        }
        let mut above = self.old_ids.clone();
        let mut todo: Vec<LayerId> = above.iter().copied().collect();
        while let Some(layer) = todo.pop() {
            let on_it = children.remove(&layer).unwrap_or_default();
            todo.extend(on_it.into_iter().filter(|child| above.insert(*child)));
        }
        let is_above = |point: Option<StatePoint>| point.is_some_and(|p| above.contains(&p.layer));
        databases
            .iter()
            .filter(|database| {
                database.id == self.id
                    || is_above(database.head.point)
                    || is_above(database.base.and_then(|base| base.point))
            })
            .map(|database| database.id)
            .collect()
    }
}

fn set_parent(tx: &dyn Tx, child: LayerId, parent: StatePoint) -> Outcome<()> {
    tx.execute(
        "UPDATE layers SET parent_layer = ?2 WHERE id = ?1",
        values![child, parent.layer],
    )
}

fn raise_generation(tx: &dyn Tx, database: DatabaseId) -> Outcome<()> {
    tx.execute(
        "UPDATE databases SET generation = generation + 1 WHERE id = ?1",
        values![database],
    )
}

/// Those of the images that no living layer uses.
fn unused<'a>(
    tx: &dyn Tx,
    images: impl Iterator<Item = &'a LayerId>,
) -> Outcome<BTreeSet<LayerId>> {
    let mut images: BTreeSet<LayerId> = images.copied().collect();
    let uses: Vec<Query> = images
        .iter()
        .map(|&image| {
            Query::new(
                "SELECT 1 FROM layer_images JOIN layers ON layers.id = layer_images.layer
                 WHERE image = ?1 AND dead_since IS NULL LIMIT 1",
                values![image],
            )
        })
        .collect();
    let mut uses = tx.query_all(&uses)?.into_iter();
    images.retain(|_| uses.next().is_none_or(|users| users.is_empty()));
    Ok(images)
}
