//! Layers' rows through their life, and the head that moves over them.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::fault::{Fault, Outcome};
use super::values::Bits;
use super::{databases, leases, segments};
use crate::catalog::{
    CatalogError, Head, LayerKind, LayerRow, LayerState, Rotation, Segment, StatePoint,
};
use crate::id::{DatabaseId, Epoch, LayerId, Lsn, Timestamp};

// ---- finding ----

/// The layer's row, dead or alive.
pub(super) fn find(tx: &Connection, id: LayerId) -> Outcome<Option<LayerRow>> {
    Ok(select(tx, "id = ?1", params![id])?.pop())
}

/// The layer's row, if it lives.
pub(super) fn find_living(tx: &Connection, id: LayerId) -> Outcome<LayerRow> {
    find(tx, id)?
        .filter(|row| row.dead_since.is_none())
        .ok_or_else(|| CatalogError::NoSuchLayer(id).into())
}

/// Whether the layer has a row, dead or alive.
pub(super) fn is_known(tx: &Connection, id: LayerId) -> Outcome<bool> {
    Ok(tx
        .prepare_cached("SELECT 1 FROM layers WHERE id = ?1")?
        .exists([id])?)
}

/// The database's living layers by first LSN, image layers first.
pub(super) fn living(tx: &Connection, id: DatabaseId) -> Outcome<Vec<LayerRow>> {
    databases::by_id(tx, id)?;
    let mut rows = select(tx, "database_id = ?1 AND dead_since IS NULL", params![id])?;
    rows.sort_by_key(|row| {
        (
            row.kind == LayerKind::Delta,
            row.first_lsn,
            row.created,
            row.id,
        )
    });
    Ok(rows)
}

/// The database's living delta layer that holds, or may hold, the commit.
pub(super) fn covering(tx: &Connection, id: DatabaseId, lsn: Lsn) -> Outcome<Option<LayerRow>> {
    let row: Option<LayerId> = tx
        .prepare_cached(
            "SELECT id FROM layers
             WHERE database_id = ?1 AND first_lsn <= ?2 AND kind = 'delta'
                 AND (last_lsn >= ?2 OR state = 'active') AND dead_since IS NULL
             ORDER BY first_lsn DESC LIMIT 1",
        )?
        .query_row(params![id, lsn], |row| row.get(0))
        .optional()?;
    match row {
        Some(id) => find(tx, id),
        None => Ok(None),
    }
}

/// The layers that stand on this one, dead ones too.
pub(super) fn children(tx: &Connection, id: LayerId) -> Outcome<Vec<LayerRow>> {
    select(tx, "parent_layer = ?1", params![id])
}

/// All layers, dead ones too.
pub(super) fn all(tx: &Connection) -> Outcome<Vec<LayerRow>> {
    let mut rows = select(tx, "TRUE", params![])?;
    rows.sort_by_key(|row| (row.database.0, row.kind == LayerKind::Delta, row.first_lsn));
    Ok(rows)
}

/// The layers that the condition selects, in no order, with what other tables hold of them.
fn select(tx: &Connection, condition: &str, params: &[&dyn ToSql]) -> Outcome<Vec<LayerRow>> {
    let of = format!("layer IN (SELECT id FROM layers WHERE {condition})");
    let mut images: HashMap<LayerId, Vec<LayerId>> = HashMap::new();
    let mut query = tx.prepare_cached(&format!(
        "SELECT layer, image FROM layer_images WHERE {of} ORDER BY layer, position"
    ))?;
    for pair in query.query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))? {
        let (layer, image) = pair?;
        images.entry(layer).or_default().push(image);
    }
    let mut segments = segments::find(tx, &of, params)?;
    let mut query = tx.prepare_cached(&format!("SELECT * FROM layers WHERE {condition}"))?;
    let mut rows: Vec<LayerRow> = query
        .query_map(params, from_row)?
        .collect::<Result<_, _>>()?;
    for row in &mut rows {
        row.images = images.remove(&row.id).unwrap_or_default();
        row.segments = segments.remove(&row.id).unwrap_or_default();
    }
    Ok(rows)
}

/// Whether the layer holds, or may hold, the commit.
pub(super) fn covers(layer: &LayerRow, lsn: Lsn) -> bool {
    layer.kind == LayerKind::Delta
        && layer.first_lsn <= lsn
        && (layer.state == LayerState::Active || layer.last_lsn.is_some_and(|last| lsn <= last))
}

/// Whether two layers may hold the same commit of one database.
pub(super) fn overlap(one: &LayerRow, other: &LayerRow) -> bool {
    let last = |row: &LayerRow| row.last_lsn.unwrap_or(Lsn(u64::MAX));
    one.database == other.database
        && one.kind == LayerKind::Delta
        && other.kind == LayerKind::Delta
        && one.first_lsn <= last(other)
        && other.first_lsn <= last(one)
}

/// Checks that the state is one of a living layer, and so may be referred to.
pub(super) fn check_point(tx: &Connection, point: StatePoint) -> Outcome<LayerRow> {
    let layer = find_living(tx, point.layer)?;
    if !covers(&layer, point.lsn) {
        return Err(Fault::conflict(format!(
            "layer {} does not hold commit {}",
            point.layer, point.lsn
        )));
    }
    Ok(layer)
}

// ---- writing ----

pub(super) fn add(tx: &Connection, epoch: Epoch, layer: &LayerRow) -> Outcome<()> {
    databases::fenced_by_id(tx, layer.database, epoch)?;
    if let Some(parent) = layer.parent {
        check_point(tx, parent)?;
    }
    check_images(tx, &layer.images)?;
    insert(tx, layer)
}

/// Adds a living layer's row, whose references were checked.
pub(super) fn insert(tx: &Connection, layer: &LayerRow) -> Outcome<()> {
    if is_known(tx, layer.id)? {
        return Err(Fault::conflict(format!(
            "layer {} is in the catalog already",
            layer.id
        )));
    }
    tx.prepare_cached(
        "INSERT INTO layers (id, database_id, kind, state, parent_layer, parent_lsn, first_lsn,
             last_lsn, first_time, last_time, end_offset, bytes, hash, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute(params![
        layer.id,
        layer.database,
        layer.kind,
        layer.state,
        layer.parent.map(|parent| parent.layer),
        layer.parent.map(|parent| parent.lsn),
        layer.first_lsn,
        layer.last_lsn,
        layer.first_time,
        layer.last_time,
        layer.end.map(Bits),
        layer.bytes.map(Bits),
        layer.hash,
        layer.created,
    ])?;
    set_images(tx, layer.id, &layer.images)?;
    segments::insert_all(tx, layer)
}

/// Moves the head, and, with a segment, adds that to its layer.
pub(super) fn publish(
    tx: &Connection,
    now: Timestamp,
    id: DatabaseId,
    epoch: Epoch,
    head: &Head,
    segment: Option<&Segment>,
) -> Outcome<()> {
    let database = databases::fenced_by_id(tx, id, epoch)?;
    if head.lsn() < database.head.lsn() {
        return Err(Fault::conflict(format!(
            "database {} is at commit {} already, and can't go back to {}",
            database.name,
            database.head.lsn(),
            head.lsn()
        )));
    }
    let layer = head.point.map(|point| check_point(tx, point)).transpose()?;
    if let Some(segment) = segment {
        leases::check_held(tx, now, id, epoch)?;
        let layer = layer
            .filter(|layer| layer.database == id)
            .ok_or_else(|| Fault::conflict("the head is in no layer of this database"))?;
        segments::append(tx, &layer, segment)?;
    }
    databases::set_head(tx, id, head)
}

/// Adds a segment to a living layer.
pub(super) fn add_segment(
    tx: &Connection,
    now: Timestamp,
    id: DatabaseId,
    epoch: Epoch,
    layer: LayerId,
    segment: &Segment,
) -> Outcome<()> {
    databases::fenced_by_id(tx, id, epoch)?;
    leases::check_held(tx, now, id, epoch)?;
    let layer = find_living(tx, layer)?;
    if layer.database != id {
        return Err(Fault::conflict(format!(
            "layer {} is not one of this database",
            layer.id
        )));
    }
    segments::append(tx, &layer, segment)
}

pub(super) fn rotate(
    tx: &Connection,
    now: Timestamp,
    id: DatabaseId,
    epoch: Epoch,
    rotation: &Rotation,
    head: &Head,
) -> Outcome<()> {
    databases::fenced_by_id(tx, id, epoch)?;
    let layer = find_living(tx, rotation.layer)?;
    if layer.database != id || layer.state != LayerState::Active {
        return Err(Fault::conflict(format!(
            "layer {} is not an active one of this database",
            layer.id
        )));
    }
    check_images(tx, &rotation.images)?;
    let commits = rotation.commits;
    let has_children = children(tx, layer.id)?
        .iter()
        .any(|child| child.dead_since.is_none());
    if commits.is_none() && has_children {
        return Err(Fault::conflict(format!(
            "layer {} has no commit, but another one stands on it",
            layer.id
        )));
    }
    tx.prepare_cached(
        "UPDATE layers SET state = ?2, end_offset = ?3, first_lsn = ?4, last_lsn = ?5,
             first_time = ?6, last_time = ?7, dead_since = ?8, spent = ?9
         WHERE id = ?1",
    )?
    .execute(params![
        layer.id,
        LayerState::Rotated,
        Bits(rotation.end),
        commits.map_or(layer.first_lsn, |commits| commits.first_lsn),
        commits.map(|commits| commits.last_lsn),
        commits.map(|commits| commits.first_time),
        commits.map(|commits| commits.last_time),
        commits.is_none().then_some(now),
        commits.is_none(),
    ])?;
    set_images(tx, layer.id, &rotation.images)?;
    // Only now: the new head has to be in the layer as it has become.
    publish(tx, now, id, epoch, head, None)
}

/// Dead layers are sealed like others: a sweep may yet find that they are needed.
pub(super) fn seal(
    tx: &Connection,
    now: Timestamp,
    id: LayerId,
    bytes: u64,
    hash: [u8; 32],
    segments: Option<&[Segment]>,
) -> Outcome<bool> {
    let layer = find(tx, id)?.ok_or(CatalogError::NoSuchLayer(id))?;
    match layer.state {
        LayerState::Sealed => Ok(segments.is_some_and(|segments| segments == layer.segments)),
        LayerState::Active => Err(Fault::conflict(format!(
            "layer {id} is still being written"
        ))),
        LayerState::Rotated => {
            tx.prepare_cached("UPDATE layers SET state = ?2, bytes = ?3, hash = ?4 WHERE id = ?1")?
                .execute(params![id, LayerState::Sealed, Bits(bytes), hash])?;
            if let Some(segments) = segments {
                let sealed = LayerRow {
                    state: LayerState::Sealed,
                    bytes: Some(bytes),
                    segments: segments.to_vec(),
                    ..layer.clone()
                };
                segments::replace(tx, now, &layer.segments, &sealed)?;
            }
            Ok(true)
        }
    }
}

/// Notes that nothing refers to the layer any more, unless that was known.
pub(super) fn mark_dead(tx: &Connection, now: Timestamp, id: LayerId) -> Outcome<()> {
    tx.prepare_cached("UPDATE layers SET dead_since = ?2 WHERE id = ?1 AND dead_since IS NULL")?
        .execute(params![id, now])?;
    Ok(())
}

/// Brings a dead layer back.
pub(super) fn mark_living(tx: &Connection, id: LayerId) -> Outcome<()> {
    tx.prepare_cached("UPDATE layers SET dead_since = NULL WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// Notes that the layer's commits live in other layers now: it is dead for ever.
pub(super) fn mark_spent(tx: &Connection, now: Timestamp, id: LayerId) -> Outcome<()> {
    tx.prepare_cached("UPDATE layers SET dead_since = ?2, spent = 1 WHERE id = ?1")?
        .execute(params![id, now])?;
    Ok(())
}

pub(super) fn delete(tx: &Connection, id: LayerId) -> Outcome<()> {
    tx.prepare_cached("DELETE FROM layers WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// Whether the layer's commits live in other layers now, or it never had one.
pub(super) fn is_spent(tx: &Connection, id: LayerId) -> Outcome<bool> {
    Ok(tx
        .prepare_cached("SELECT 1 FROM layers WHERE id = ?1 AND spent")?
        .exists([id])?)
}

/// Checks that all are living image layers.
pub(super) fn check_images(tx: &Connection, images: &[LayerId]) -> Outcome<()> {
    for &image in images {
        if find_living(tx, image)?.kind != LayerKind::Image {
            return Err(Fault::conflict(format!("layer {image} is no image layer")));
        }
    }
    Ok(())
}

fn set_images(tx: &Connection, layer: LayerId, images: &[LayerId]) -> Outcome<()> {
    tx.prepare_cached("DELETE FROM layer_images WHERE layer = ?1")?
        .execute([layer])?;
    let mut insert =
        tx.prepare_cached("INSERT INTO layer_images (layer, position, image) VALUES (?1, ?2, ?3)")?;
    for (position, image) in (0_i64..).zip(images) {
        insert.execute(params![layer, position, image])?;
    }
    Ok(())
}

/// A layer's row without what is in tables of their own: its images and segments.
fn from_row(row: &Row<'_>) -> rusqlite::Result<LayerRow> {
    Ok(LayerRow {
        id: row.get("id")?,
        database: row.get("database_id")?,
        kind: row.get("kind")?,
        state: row.get("state")?,
        parent: databases::point(row, "parent_layer", "parent_lsn")?,
        first_lsn: row.get("first_lsn")?,
        last_lsn: row.get("last_lsn")?,
        first_time: row.get("first_time")?,
        last_time: row.get("last_time")?,
        end: row.get::<_, Option<Bits>>("end_offset")?.map(|end| end.0),
        bytes: row.get::<_, Option<Bits>>("bytes")?.map(|bytes| bytes.0),
        hash: row.get("hash")?,
        images: Vec::new(),
        segments: Vec::new(),
        created: row.get("created")?,
        dead_since: row.get("dead_since")?,
    })
}
