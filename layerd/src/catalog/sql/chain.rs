//! From a commit to the layers that make its image.
//!
//! All layers below a point are read at once, and walked parent by parent in memory. LSNs fall
//! with every step, so that even a damaged catalog can't lead in a ring.

use std::collections::{HashMap, HashSet};

use super::fault::{Fault, Outcome};
use super::tx::Tx;
use super::{databases, layers};
use crate::catalog::{CatalogError, Chain, LayerRow, StatePoint};
use crate::id::{DatabaseId, LayerId, Lsn};

/// The layers of the state, bottom first, image layers before the delta layers that use them.
pub(super) fn resolve(tx: &dyn Tx, id: DatabaseId, point: Option<StatePoint>) -> Outcome<Chain> {
    let generation = databases::by_id(tx, id)?.generation;
    let mut rows = below(tx, point)?;
    let mut take = |layer: LayerId| {
        rows.remove(&layer)
            .filter(|row| row.dead_since.is_none())
            .ok_or(CatalogError::NoSuchLayer(layer))
    };
    let deltas = walk(point, |layer| Ok(Some(take(layer)?)))?;
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for delta in deltas.into_iter().rev() {
        for &image in &delta.images {
            if seen.insert(image) {
                found.push(take(image)?);
            }
        }
        found.push(delta);
    }
    Ok(Chain {
        point,
        layers: found,
        generation,
    })
}

/// Brings the dead layers of the state back. `false`, and nothing is changed, if one of them was
/// deleted, or its commits went to another layer.
pub(super) fn revive(tx: &dyn Tx, point: Option<StatePoint>) -> Outcome<bool> {
    let rows = below(tx, point)?;
    let spent = layers::spent(tx)?;
    let mut needed: Vec<LayerId> = Vec::new();
    let mut is_whole = true;
    let mut find = |layer: LayerId| {
        let row = rows.get(&layer);
        is_whole &= match row {
            None => false,
            Some(row) if row.dead_since.is_none() => true,
            Some(row) => {
                let living = layers::living(tx, row.database)?;
                !spent.contains(&layer) && !living.iter().any(|other| layers::overlap(row, other))
            }
        };
        Ok(row.cloned())
    };
    for delta in walk(point, &mut find)? {
        for &image in &delta.images {
            find(image)?;
            needed.push(image);
        }
        needed.push(delta.id);
    }
    if is_whole {
        for layer in needed {
            layers::mark_living(tx, layer)?;
        }
    }
    Ok(is_whole)
}

fn below(tx: &dyn Tx, point: Option<StatePoint>) -> Outcome<HashMap<LayerId, LayerRow>> {
    point.map_or_else(
        || Ok(HashMap::new()),
        |point| layers::below(tx, point.layer),
    )
}

/// The delta layers of the state, top first, as far as `find` finds them.
fn walk(
    point: Option<StatePoint>,
    mut find: impl FnMut(LayerId) -> Outcome<Option<LayerRow>>,
) -> Outcome<Vec<LayerRow>> {
    let mut found = Vec::new();
    let mut next = point;
    while let Some(point) = next {
        let Some(layer) = find(point.layer)? else {
            break;
        };
        if !layers::covers(&layer, point.lsn) {
            let what = format!("layer {} does not hold commit {}", point.layer, point.lsn);
            // The first point is the caller's, the others are the catalog's own.
            return Err(if found.is_empty() {
                Fault::conflict(what)
            } else {
                Fault::Damaged(what)
            });
        }
        next = layer.parent;
        if next.is_some_and(|parent| parent.lsn >= point.lsn) {
            return Err(Fault::Damaged(format!(
                "layer {} stands on a later commit",
                layer.id
            )));
        }
        found.push(layer);
    }
    Ok(found)
}

/// The living layer of the database or of its ancestors that holds, or may hold, the commit.
pub(super) fn find_lsn(tx: &dyn Tx, id: DatabaseId, lsn: Lsn) -> Outcome<Option<LayerRow>> {
    // Beyond that, SQL's order of numbers is not that of LSNs; no commit has such an LSN.
    let lsn = lsn.min(Lsn(i64::MAX.cast_unsigned()));
    let mut database = databases::by_id(tx, id)?;
    let mut seen = HashSet::new();
    loop {
        let inherited = database
            .base
            .filter(|base| base.point.is_some_and(|point| lsn <= point.lsn));
        let Some(base) = inherited else {
            return layers::covering(tx, database.id, lsn);
        };
        if !seen.insert(database.id) {
            return Err(Fault::Damaged(format!(
                "database {} is its own ancestor",
                database.name
            )));
        }
        database = databases::by_id(tx, base.database)?;
    }
}
