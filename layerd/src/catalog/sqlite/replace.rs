//! Compaction's transaction: layers make way for others that hold the commits still wanted.
//!
//! Everything that stands on an old layer is looked at before anything is written: what needs a
//! commit that is not kept stops the whole call.

use std::collections::{BTreeSet, HashSet};

use rusqlite::{Connection, params};

use super::fault::{Fault, Outcome};
use super::{databases, layers, snapshots};
use crate::catalog::{LayerKind, LayerRow, LayerState, StatePoint};
use crate::id::{DatabaseId, LayerId, Lsn, Timestamp};

pub(super) fn replace(
    tx: &Connection,
    now: Timestamp,
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
        kept: kept.iter().copied().collect(),
    };
    change.check_new_rows(tx)?;
    change.check_snapshots(tx)?;
    let children = change.children(tx)?;
    let references = change.database_references(tx)?;
    let touched = change.touched_databases(tx)?;

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
        layers::mark_spent(tx, now, row.id)?;
    }
    for image in change.old.iter().flat_map(|row| &row.images) {
        if !is_used(tx, *image)? {
            layers::mark_dead(tx, now, *image)?;
        }
    }
    for database in touched {
        raise_generation(tx, database)?;
    }
    Ok(())
}

struct Change<'a> {
    id: DatabaseId,
    old: Vec<LayerRow>,
    old_ids: HashSet<LayerId>,
    new: &'a [LayerRow],
    kept: BTreeSet<Lsn>,
}

/// A head or a base that moves.
enum Reference {
    Head(DatabaseId, StatePoint),
    Base(DatabaseId, StatePoint),
}

impl Reference {
    fn write(&self, tx: &Connection) -> Outcome<()> {
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
        tx.prepare_cached(sql)?
            .execute(params![database, point.layer])?;
        Ok(())
    }
}

/// The rows that are to be replaced, each a living, sealed delta layer of the database.
fn old_rows(tx: &Connection, id: DatabaseId, old: &[LayerId]) -> Outcome<Vec<LayerRow>> {
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
    fn check_new_rows(&self, tx: &Connection) -> Outcome<()> {
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

    fn check_new_row(&self, tx: &Connection, row: &LayerRow) -> Outcome<()> {
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

    fn check_snapshots(&self, tx: &Connection) -> Outcome<()> {
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
    fn children(&self, tx: &Connection) -> Outcome<Vec<(LayerId, StatePoint)>> {
        let mut found = Vec::new();
        for row in &self.old {
            for child in layers::children(tx, row.id)? {
                let Some(parent) = child.parent.filter(|_| !self.old_ids.contains(&child.id))
                else {
                    continue;
                };
                match self.moved(parent) {
                    Ok(Some(parent)) => found.push((child.id, parent)),
                    Ok(None) => {}
                    Err(_) if child.dead_since.is_some() => {}
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(found)
    }

    /// The heads and bases that move.
    fn database_references(&self, tx: &Connection) -> Outcome<Vec<Reference>> {
        let mut found = Vec::new();
        for database in databases::all(tx)? {
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
    fn touched_databases(&self, tx: &Connection) -> Outcome<BTreeSet<DatabaseId>> {
        let mut above = self.old_ids.clone();
        let mut todo: Vec<LayerId> = above.iter().copied().collect();
        while let Some(layer) = todo.pop() {
            for child in layers::children(tx, layer)? {
                if child.dead_since.is_none() && above.insert(child.id) {
                    todo.push(child.id);
                }
            }
        }
        let is_above = |point: Option<StatePoint>| point.is_some_and(|p| above.contains(&p.layer));
        Ok(databases::all(tx)?
            .into_iter()
            .filter(|database| {
                database.id == self.id
                    || is_above(database.head.point)
                    || is_above(database.base.and_then(|base| base.point))
            })
            .map(|database| database.id)
            .collect())
    }
}

fn set_parent(tx: &Connection, child: LayerId, parent: StatePoint) -> Outcome<()> {
    tx.prepare_cached("UPDATE layers SET parent_layer = ?2 WHERE id = ?1")?
        .execute(params![child, parent.layer])?;
    Ok(())
}

fn raise_generation(tx: &Connection, database: DatabaseId) -> Outcome<()> {
    tx.prepare_cached("UPDATE databases SET generation = generation + 1 WHERE id = ?1")?
        .execute([database])?;
    Ok(())
}

fn is_used(tx: &Connection, image: LayerId) -> Outcome<bool> {
    Ok(tx
        .prepare_cached(
            "SELECT 1 FROM layer_images JOIN layers ON layers.id = layer_images.layer
             WHERE image = ?1 AND dead_since IS NULL",
        )?
        .exists([image])?)
}
