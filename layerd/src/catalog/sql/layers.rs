//! Layers' rows through their life, and the head that moves over them.
//!
//! A row is *bare* without what is in tables of their own, its images and segments: a layer that is
//! being written may have thousands of segments, and who only asks whether it lives need not read
//! them.

use std::collections::{HashMap, HashSet};

use super::fault::{Fault, Outcome};
use super::tx::{Query, Tx};
use super::value::{Bits, Row, Value, values};
use super::{databases, leases, segments};
use crate::catalog::{
    CatalogError, Head, LayerKind, LayerRow, LayerState, Rotation, Segment, StatePoint,
};
use crate::id::{DatabaseId, Epoch, LayerId, Lsn};

// ---- finding ----

/// The layer's row, dead or alive.
pub(super) fn find(tx: &dyn Tx, id: LayerId) -> Outcome<Option<LayerRow>> {
    Ok(select(tx, "id = ?1", values![id])?.pop())
}

/// The layers' bare rows, dead or alive, in the same order.
pub(super) fn find_bare(tx: &dyn Tx, ids: &[LayerId]) -> Outcome<Vec<Option<LayerRow>>> {
    let queries: Vec<Query> = ids.iter().copied().map(select_bare).collect();
    let found = tx.query_all(&queries)?;
    found
        .iter()
        .map(|rows| rows.first().map(from_row).transpose())
        .collect()
}

/// The layer's bare row, if it lives.
fn find_living(tx: &dyn Tx, id: LayerId) -> Outcome<LayerRow> {
    living_bare(id, &tx.query(select_bare(id))?)
}

/// Finds a bare row, for [`living_bare`].
fn select_bare(id: LayerId) -> Query {
    Query::new("SELECT * FROM layers WHERE id = ?1", values![id])
}

/// The bare row that was found, if the layer lives.
fn living_bare(id: LayerId, rows: &[Row]) -> Outcome<LayerRow> {
    let row = rows.first().map(from_row).transpose()?;
    row.filter(|row| row.dead_since.is_none())
        .ok_or_else(|| CatalogError::NoSuchLayer(id).into())
}

/// Whether the layer has a row, dead or alive.
pub(super) fn is_known(tx: &dyn Tx, id: LayerId) -> Outcome<bool> {
    tx.exists(select_bare(id))
}

/// The database's living layers by first LSN, image layers first.
pub(super) fn living(tx: &dyn Tx, id: DatabaseId) -> Outcome<Vec<LayerRow>> {
    let mut queries = vec![databases::select(id)];
    queries.extend(select_queries(
        "database_id = ?1 AND dead_since IS NULL",
        values![id],
    ));
    let found = tx.query_all(&queries)?;
    let (database, layers) = found.split_at(1);
    databases::one(id, &database[0])?;
    let mut rows = assemble(layers)?;
    rows.sort_by_key(|row| {
        let is_delta = row.kind == LayerKind::Delta;
        (is_delta, row.first_lsn, row.created, row.id)
    });
    Ok(rows)
}

/// The database's living delta layer that holds, or may hold, the commit.
pub(super) fn covering(tx: &dyn Tx, id: DatabaseId, lsn: Lsn) -> Outcome<Option<LayerRow>> {
    let found = select(
        tx,
        "id IN (SELECT id FROM layers
             WHERE database_id = ?1 AND first_lsn <= ?2 AND kind = 'delta'
                 AND (last_lsn >= ?2 OR state = 'active') AND dead_since IS NULL
             ORDER BY first_lsn DESC LIMIT 1)",
        values![id, lsn],
    )?;
    Ok(found.into_iter().next())
}

/// Every layer of the state, and of all that it stands on, dead or alive, in no order.
pub(super) fn below(tx: &dyn Tx, layer: LayerId) -> Outcome<HashMap<LayerId, LayerRow>> {
    // UNION, not UNION ALL: a ring of layers ends where it began. Each parent is looked up by
    // itself: PostgreSQL would make a join of it, and read the whole table for each step.
    let found = select(
        tx,
        "id IN (WITH RECURSIVE below (layer) AS (
                 SELECT id FROM layers WHERE id = ?1
                 UNION
                 SELECT (SELECT parent_layer FROM layers WHERE layers.id = below.layer)
                 FROM below WHERE below.layer IS NOT NULL
             )
             SELECT layer FROM below
             UNION
             SELECT image FROM layer_images JOIN below ON layer_images.layer = below.layer)",
        values![layer],
    )?;
    Ok(found.into_iter().map(|row| (row.id, row)).collect())
}

/// The bare rows of all layers that stand on another, dead ones too.
pub(super) fn all_standing(tx: &dyn Tx) -> Outcome<Vec<LayerRow>> {
    let rows = tx.query(Query::new(
        "SELECT * FROM layers WHERE parent_layer IS NOT NULL ORDER BY id",
        values![],
    ))?;
    rows.iter().map(from_row).collect()
}

/// Find all layers, dead ones too, for [`all`].
pub(super) fn select_all() -> [Query; 3] {
    select_queries("TRUE", values![])
}

/// All layers that were found, by database and LSN, image layers first.
pub(super) fn all(found: &[Vec<Row>]) -> Outcome<Vec<LayerRow>> {
    let mut rows = assemble(found)?;
    rows.sort_by_key(|row| {
        let is_delta = row.kind == LayerKind::Delta;
        (row.database.0, is_delta, row.first_lsn, row.created, row.id)
    });
    Ok(rows)
}

/// The layers that the condition selects, in no order.
fn select(tx: &dyn Tx, condition: &str, params: &[Value]) -> Outcome<Vec<LayerRow>> {
    assemble(&tx.query_all(&select_queries(condition, params))?)
}

/// Find the layers that the condition selects, and what other tables hold of them.
fn select_queries(condition: &str, params: &[Value]) -> [Query; 3] {
    let of = match condition {
        "TRUE" => "TRUE".to_owned(),
        _ => format!("layer IN (SELECT id FROM layers WHERE {condition})"),
    };
    [
        format!("SELECT * FROM layers WHERE {condition}"),
        format!("SELECT * FROM layer_images WHERE {of} ORDER BY layer, position"),
        format!("SELECT * FROM segments WHERE {of} ORDER BY layer, end_offset"),
    ]
    .map(|sql| Query::new(sql, params))
}

/// The rows that [`select_queries`] found.
fn assemble(found: &[Vec<Row>]) -> Outcome<Vec<LayerRow>> {
    let [layers, images, segments] = found else {
        return Ok(Vec::new());
    };
    let mut images_of: HashMap<LayerId, Vec<LayerId>> = HashMap::new();
    for row in images {
        let image = row.get("image")?;
        images_of.entry(row.get("layer")?).or_default().push(image);
    }
    let mut segments_of = segments::by_layer(segments)?;
    layers
        .iter()
        .map(|row| {
            let row = from_row(row)?;
            Ok(LayerRow {
                images: images_of.remove(&row.id).unwrap_or_default(),
                segments: segments_of.remove(&row.id).unwrap_or_default(),
                ..row
            })
        })
        .collect()
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
pub(super) fn check_point(tx: &dyn Tx, point: StatePoint) -> Outcome<()> {
    let layer = find_living(tx, point.layer)?;
    check_covers(&layer, point)
}

fn check_covers(layer: &LayerRow, point: StatePoint) -> Outcome<()> {
    if covers(layer, point.lsn) {
        return Ok(());
    }
    Err(Fault::conflict(format!(
        "layer {} does not hold commit {}",
        point.layer, point.lsn
    )))
}

// ---- writing ----

pub(super) fn add(tx: &dyn Tx, epoch: Epoch, layer: &LayerRow) -> Outcome<()> {
    databases::fenced_by_id(tx, layer.database, epoch)?;
    if let Some(parent) = layer.parent {
        check_point(tx, parent)?;
    }
    check_images(tx, &layer.images)?;
    insert(tx, layer)
}

/// Adds a living layer's row, whose references were checked.
pub(super) fn insert(tx: &dyn Tx, layer: &LayerRow) -> Outcome<()> {
    if is_known(tx, layer.id)? {
        return Err(Fault::conflict(format!(
            "layer {} is in the catalog already",
            layer.id
        )));
    }
    tx.execute(
        "INSERT INTO layers (id, database_id, kind, state, parent_layer, parent_lsn, first_lsn,
             last_lsn, first_time, last_time, end_offset, bytes, hash, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        values![
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
        ],
    )?;
    set_images(tx, layer.id, &layer.images)?;
    segments::insert_all(tx, layer)
}

/// Moves the head, and, with a segment, adds that to its layer. Everything that is looked at is
/// asked for at once: this is the call that a writer waits for.
pub(super) fn publish(
    tx: &dyn Tx,
    id: DatabaseId,
    epoch: Epoch,
    head: &Head,
    segment: Option<&Segment>,
) -> Outcome<()> {
    let mut queries = vec![databases::select(id), leases::select(id)];
    if let Some(point) = head.point {
        queries.push(select_bare(point.layer));
        if let Some(segment) = segment {
            queries.extend(segments::select_before(point.layer, &segment.key));
        }
    }
    let found = tx.query_all(&queries)?;
    let (holder, below) = found.split_at(2);

    let database = databases::fenced(databases::one(id, &holder[0])?, epoch)?;
    if head.lsn() < database.head.lsn() {
        return Err(Fault::conflict(format!(
            "database {} is at commit {} already, and can't go back to {}",
            database.name,
            database.head.lsn(),
            head.lsn()
        )));
    }
    let layer = match (head.point, below.first()) {
        (Some(point), Some(rows)) => {
            let layer = living_bare(point.layer, rows)?;
            check_covers(&layer, point)?;
            Some(layer)
        }
        _ => None,
    };
    if let Some(segment) = segment {
        let lease = holder[1].first().map(leases::from_row).transpose()?;
        leases::check_held(lease.as_ref(), tx.now()?, epoch)?;
        let layer = layer
            .filter(|layer| layer.database == id)
            .ok_or_else(|| Fault::conflict("the head is in no layer of this database"))?;
        segments::append(tx, &layer, segment, &below[1..])?;
    }
    databases::set_head(tx, id, head)?;
    tx.announce()
}

/// Adds a segment to a living layer.
pub(super) fn add_segment(
    tx: &dyn Tx,
    id: DatabaseId,
    epoch: Epoch,
    layer: LayerId,
    segment: &Segment,
) -> Outcome<()> {
    let mut queries = vec![
        databases::select(id),
        leases::select(id),
        select_bare(layer),
    ];
    queries.extend(segments::select_before(layer, &segment.key));
    let found = tx.query_all(&queries)?;
    databases::fenced(databases::one(id, &found[0])?, epoch)?;
    let lease = found[1].first().map(leases::from_row).transpose()?;
    leases::check_held(lease.as_ref(), tx.now()?, epoch)?;
    let layer = living_bare(layer, &found[2])?;
    if layer.database != id {
        return Err(Fault::conflict(format!(
            "layer {} is not one of this database",
            layer.id
        )));
    }
    segments::append(tx, &layer, segment, &found[3..])?;
    tx.announce()
}

pub(super) fn rotate(
    tx: &dyn Tx,
    id: DatabaseId,
    epoch: Epoch,
    rotation: &Rotation,
    head: &Head,
) -> Outcome<()> {
    databases::fenced_by_id(tx, id, epoch)?;
    if find(tx, rotation.layer)?.is_some_and(|layer| is_rotated_so(&layer, id, rotation)) {
        // The answer to an earlier call was lost.
        return Ok(());
    }
    let layer = find_living(tx, rotation.layer)?;
    if layer.database != id || layer.state != LayerState::Active {
        return Err(Fault::conflict(format!(
            "layer {} is not an active one of this database",
            layer.id
        )));
    }
    check_images(tx, &rotation.images)?;
    let commits = rotation.commits;
    if commits.is_none() && has_living_children(tx, layer.id)? {
        return Err(Fault::conflict(format!(
            "layer {} has no commit, but another one stands on it",
            layer.id
        )));
    }
    let now = tx.now()?;
    tx.execute(
        "UPDATE layers SET state = ?2, end_offset = ?3, first_lsn = ?4, last_lsn = ?5,
             first_time = ?6, last_time = ?7, dead_since = ?8, spent = ?9
         WHERE id = ?1",
        values![
            layer.id,
            LayerState::Rotated,
            Bits(rotation.end),
            commits.map_or(layer.first_lsn, |commits| commits.first_lsn),
            commits.map(|commits| commits.last_lsn),
            commits.map(|commits| commits.first_time),
            commits.map(|commits| commits.last_time),
            commits.is_none().then_some(now),
            commits.is_none(),
        ],
    )?;
    set_images(tx, layer.id, &rotation.images)?;
    // Only now: the new head has to be in the layer as it has become.
    publish(tx, id, epoch, head, None)
}

/// Whether that rotation of the layer was done before.
fn is_rotated_so(layer: &LayerRow, id: DatabaseId, rotation: &Rotation) -> bool {
    layer.database == id
        && layer.state != LayerState::Active
        && layer.end == Some(rotation.end)
        && layer.last_lsn == rotation.commits.map(|commits| commits.last_lsn)
}

fn has_living_children(tx: &dyn Tx, id: LayerId) -> Outcome<bool> {
    tx.exists(Query::new(
        "SELECT 1 FROM layers WHERE parent_layer = ?1 AND dead_since IS NULL",
        values![id],
    ))
}

/// Dead layers are sealed like others: a sweep may yet find that they are needed.
pub(super) fn seal(
    tx: &dyn Tx,
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
            tx.execute(
                "UPDATE layers SET state = ?2, bytes = ?3, hash = ?4 WHERE id = ?1",
                values![id, LayerState::Sealed, Bits(bytes), hash],
            )?;
            if let Some(segments) = segments {
                let sealed = LayerRow {
                    state: LayerState::Sealed,
                    bytes: Some(bytes),
                    segments: segments.to_vec(),
                    ..layer.clone()
                };
                segments::replace(tx, &layer.segments, &sealed)?;
                tx.announce()?;
            }
            Ok(true)
        }
    }
}

/// Notes that nothing refers to the layer any more, unless that was known.
pub(super) fn mark_dead(tx: &dyn Tx, id: LayerId) -> Outcome<()> {
    let now = tx.now()?;
    tx.execute(
        "UPDATE layers SET dead_since = ?2 WHERE id = ?1 AND dead_since IS NULL",
        values![id, now],
    )
}

/// Brings a dead layer back.
pub(super) fn mark_living(tx: &dyn Tx, id: LayerId) -> Outcome<()> {
    tx.execute(
        "UPDATE layers SET dead_since = NULL WHERE id = ?1",
        values![id],
    )
}

/// Notes that the layer's commits live in other layers now: it is dead for ever.
pub(super) fn mark_spent(tx: &dyn Tx, id: LayerId) -> Outcome<()> {
    let now = tx.now()?;
    tx.execute(
        "UPDATE layers SET dead_since = ?2, spent = 1 WHERE id = ?1",
        values![id, now],
    )
}

pub(super) fn delete(tx: &dyn Tx, id: LayerId) -> Outcome<()> {
    tx.execute("DELETE FROM layers WHERE id = ?1", values![id])
}

/// The layers whose commits live in other layers now, or that never had one.
pub(super) fn spent(tx: &dyn Tx) -> Outcome<HashSet<LayerId>> {
    let rows = tx.query(Query::new(
        "SELECT id FROM layers WHERE spent = 1",
        values![],
    ))?;
    rows.iter().map(|row| row.get("id")).collect()
}

/// Checks that all are living image layers.
pub(super) fn check_images(tx: &dyn Tx, images: &[LayerId]) -> Outcome<()> {
    for (row, &image) in find_bare(tx, images)?.into_iter().zip(images) {
        let row = row
            .filter(|row| row.dead_since.is_none())
            .ok_or(CatalogError::NoSuchLayer(image))?;
        if row.kind != LayerKind::Image {
            return Err(Fault::conflict(format!("layer {image} is no image layer")));
        }
    }
    Ok(())
}

fn set_images(tx: &dyn Tx, layer: LayerId, images: &[LayerId]) -> Outcome<()> {
    tx.execute("DELETE FROM layer_images WHERE layer = ?1", values![layer])?;
    for (position, &image) in (0_i64..).zip(images) {
        tx.execute(
            "INSERT INTO layer_images (layer, position, image) VALUES (?1, ?2, ?3)",
            values![layer, position, image],
        )?;
    }
    Ok(())
}

/// A bare row.
fn from_row(row: &Row) -> Outcome<LayerRow> {
    Ok(LayerRow {
        kind: row.get("kind")?,
        state: row.get("state")?,
        last_lsn: row.get("last_lsn")?,
        first_time: row.get("first_time")?,
        last_time: row.get("last_time")?,
        end: row.get::<Option<Bits>>("end_offset")?.map(|end| end.0),
        bytes: row.get::<Option<Bits>>("bytes")?.map(|bytes| bytes.0),
        hash: row.get("hash")?,
        dead_since: row.get("dead_since")?,
        ..LayerRow::begun(
            row.get("id")?,
            row.get("database_id")?,
            databases::point(row, "parent_layer", "parent_lsn")?,
            row.get("first_lsn")?,
            row.get("created")?,
        )
    })
}
