//! The sweep. What is to be kept, the caller's `mark` says; here it is planned and carried out.
//!
//! A mistaken mark must not break what is in use: a row is not deleted while an unexpired pin, a
//! living database's head, or a kept layer refers to it, whatever `mark` says. And to be kept is not
//! to live: a dead layer, which a reader's pin may hold for hours, lives again only if what it
//! stands on lives, and if no replacement has put another layer in its place meanwhile.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::fault::Outcome;
use super::tx::Tx;
use super::value::later;
use super::{databases, layers, leases, pins, segments, snapshots};
use crate::catalog::{Database, Inventory, LayerKind, LayerRow};
use crate::id::{DatabaseId, LayerId, Timestamp};

/// Everything, in one reading.
pub(super) fn inventory(tx: &dyn Tx) -> Outcome<Inventory> {
    let mut queries = vec![
        databases::select_all(),
        snapshots::select_all(),
        leases::select_all(),
    ];
    queries.extend(pins::select_all());
    queries.extend(layers::select_all());
    let found = tx.query_all(&queries)?;
    let now = tx.now()?;
    let (some, layers) = found.split_at(5);
    let leases = some[2].iter().map(leases::with_database);
    Ok(Inventory {
        now,
        databases: some[0]
            .iter()
            .map(databases::from_row)
            .collect::<Outcome<_>>()?,
        snapshots: some[1]
            .iter()
            .map(snapshots::with_database)
            .collect::<Outcome<_>>()?,
        leases: leases
            .filter(|lease| !matches!(lease, Ok((_, lease)) if lease.expires <= now))
            .collect::<Outcome<_>>()?,
        pins: pins::unexpired(now, &some[3], &some[4])?,
        layers: layers::all(layers)?,
    })
}

/// What a sweep changes.
pub(super) struct Plan {
    /// Layers that die.
    dying: Vec<LayerId>,
    /// Dead layers that live again.
    revived: Vec<LayerId>,
    /// Rows that go.
    pub(super) deleted: Vec<LayerRow>,
    /// Removed databases that go.
    databases: Vec<DatabaseId>,
}

/// Asks `mark`, and finds what follows from its answer.
pub(super) fn plan(
    tx: &dyn Tx,
    grace: Duration,
    mark: &mut dyn FnMut(&Inventory) -> Vec<LayerId>,
) -> Outcome<Plan> {
    let inventory = inventory(tx)?;
    let now = inventory.now;
    let kept: HashSet<LayerId> = mark(&inventory).into_iter().collect();
    let needed = needed(&inventory, &kept);
    let mut plan = Plan {
        dying: Vec::new(),
        revived: Vec::new(),
        deleted: Vec::new(),
        databases: Vec::new(),
    };
    let mut owners: HashSet<DatabaseId> = HashSet::new();
    for row in &inventory.layers {
        let is_kept = kept.contains(&row.id);
        let dead_since = row.dead_since.unwrap_or(now);
        if !is_kept && !needed.contains(&row.id) && later(dead_since, grace) <= now {
            plan.deleted.push(LayerRow {
                dead_since: Some(dead_since),
                ..row.clone()
            });
            continue;
        }
        owners.insert(row.database);
        if !is_kept && row.dead_since.is_none() {
            plan.dying.push(row.id);
        }
    }
    plan.revived = revived(tx, &inventory.layers, &kept)?;
    plan.databases = expired_databases(inventory.databases, &owners, now);
    Ok(plan)
}

/// What must not be deleted, whatever the mark was.
fn needed(inventory: &Inventory, kept: &HashSet<LayerId>) -> HashSet<LayerId> {
    let heads = inventory
        .databases
        .iter()
        .filter(|database| database.dropped.is_none())
        .filter_map(|database| database.head.point);
    let below = inventory.layers.iter().filter(|row| kept.contains(&row.id));
    let parents = below.clone().filter_map(|row| row.parent);
    heads
        .chain(parents)
        .map(|point| point.layer)
        .chain(below.flat_map(|row| row.images.iter().copied()))
        .chain(
            inventory
                .pins
                .iter()
                .flat_map(|pin| pin.layers.iter().copied()),
        )
        .collect()
}

/// The dead layers among the kept ones that can live again: no other layer holds their commits,
/// and all that they need lives.
fn revived(tx: &dyn Tx, rows: &[LayerRow], kept: &HashSet<LayerId>) -> Outcome<Vec<LayerId>> {
    let (dead, living): (Vec<&LayerRow>, Vec<&LayerRow>) = rows
        .iter()
        .filter(|row| kept.contains(&row.id))
        .partition(|row| row.dead_since.is_some());
    let mut living: HashMap<LayerId, &LayerRow> =
        living.into_iter().map(|row| (row.id, row)).collect();
    let mut candidates = Vec::new();
    if !dead.is_empty() {
        let spent = layers::spent(tx)?;
        candidates.extend(dead.into_iter().filter(|row| !spent.contains(&row.id)));
    }
    // What a layer needs comes before it: images, and parents, whose commits are earlier.
    candidates.sort_by_key(|row| (row.kind == LayerKind::Delta, row.first_lsn));
    let mut revived = Vec::new();
    for row in candidates {
        let stands = row.parent.is_none_or(|point| {
            living
                .get(&point.layer)
                .is_some_and(|below| layers::covers(below, point.lsn))
        });
        if stands
            && row.images.iter().all(|image| living.contains_key(image))
            && !living.values().any(|other| layers::overlap(row, other))
        {
            living.insert(row.id, row);
            revived.push(row.id);
        }
    }
    Ok(revived)
}

/// The removed databases that own no layer, are beyond their retention, and are the base of none
/// that stays. Such a clone may go in the same sweep, and its base with it.
fn expired_databases(
    mut databases: Vec<Database>,
    owners: &HashSet<DatabaseId>,
    now: Timestamp,
) -> Vec<DatabaseId> {
    let mut expired = Vec::new();
    loop {
        let bases: HashSet<DatabaseId> = databases
            .iter()
            .filter_map(|database| Some(database.base?.database))
            .collect();
        let is_expired = |database: &Database| {
            database.dropped.is_some_and(|dropped| {
                later(dropped, Duration::from_secs(database.retention_s)) <= now
            }) && !owners.contains(&database.id)
                && !bases.contains(&database.id)
        };
        let count = expired.len();
        databases.retain(|database| {
            let goes = is_expired(database);
            if goes {
                expired.push(database.id);
            }
            !goes
        });
        if expired.len() == count {
            return expired;
        }
    }
}

/// Does what was planned.
pub(super) fn carry_out(tx: &dyn Tx, plan: &Plan) -> Outcome<()> {
    for &layer in &plan.dying {
        layers::mark_dead(tx, layer)?;
    }
    for &layer in &plan.revived {
        layers::mark_living(tx, layer)?;
    }
    for row in &plan.deleted {
        segments::discard(tx, row.id)?;
        layers::delete(tx, row.id)?;
    }
    // In this order: a clone goes before its base.
    for &database in &plan.databases {
        databases::delete(tx, database)?;
    }
    pins::delete_expired(tx)
}
