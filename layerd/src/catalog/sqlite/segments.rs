//! Segments' rows, and the garbage that is left of them: an object's key is in one of the two
//! tables at most, and goes from the first to the second in the transaction that takes its
//! segment away.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rusqlite::{Connection, Params, Row, params};

use super::fault::{Fault, Outcome};
use super::values::{Bits, earlier};
use crate::catalog::{CommitRange, LayerRow, Segment, segment};
use crate::id::{LayerId, Timestamp};

/// The segments of all layers that `of` (a condition on the column `layer`) selects, by layer,
/// each in order.
pub(super) fn find(
    tx: &Connection,
    of: &str,
    params: impl Params,
) -> Outcome<HashMap<LayerId, Vec<Segment>>> {
    let mut query = tx.prepare_cached(&format!(
        "SELECT * FROM segments WHERE {of} ORDER BY layer, end_offset"
    ))?;
    let mut found: HashMap<LayerId, Vec<Segment>> = HashMap::new();
    for pair in query.query_map(params, |row| Ok((row.get("layer")?, from_row(row)?)))? {
        let (layer, segment) = pair?;
        found.entry(layer).or_default().push(segment);
    }
    Ok(found)
}

/// Adds the segment that goes on where the layer's last one ended; nothing if it is the last.
pub(super) fn append(tx: &Connection, layer: &LayerRow, segment: &Segment) -> Outcome<()> {
    let last = layer.segments.last();
    if last == Some(segment) {
        return Ok(());
    }
    segment::check_next(last, segment).map_err(Fault::conflict)?;
    segment::check_within(layer, segment).map_err(Fault::conflict)?;
    insert(tx, layer.id, segment)
}

/// Adds the segments of a new layer, or of one that has none any more.
pub(super) fn insert_all(tx: &Connection, layer: &LayerRow) -> Outcome<()> {
    segment::check_all(layer).map_err(Fault::conflict)?;
    layer
        .segments
        .iter()
        .try_for_each(|segment| insert(tx, layer.id, segment))
}

/// Puts the segments that come with `layer` in the place of those that it has.
pub(super) fn replace(
    tx: &Connection,
    now: Timestamp,
    old: &[Segment],
    layer: &LayerRow,
) -> Outcome<()> {
    tx.prepare_cached("DELETE FROM segments WHERE layer = ?1")?
        .execute([layer.id])?;
    insert_all(tx, layer)?;
    let used: HashSet<&str> = layer.segments.iter().map(|new| new.key.as_str()).collect();
    let unused = old.iter().map(|segment| &segment.key);
    for key in unused.filter(|key| !used.contains(key.as_str())) {
        tx.prepare_cached("INSERT INTO garbage (key, since) VALUES (?1, ?2)")?
            .execute(params![key, now])?;
    }
    Ok(())
}

/// Notes that the objects of a layer which is about to be deleted are garbage.
pub(super) fn discard(tx: &Connection, now: Timestamp, layer: LayerId) -> Outcome<()> {
    tx.prepare_cached(
        "INSERT INTO garbage (key, since) SELECT key, ?2 FROM segments WHERE layer = ?1",
    )?
    .execute(params![layer, now])?;
    Ok(())
}

/// Whether a segment names the object.
pub(super) fn is_known(tx: &Connection, key: &str) -> Outcome<bool> {
    Ok(tx
        .prepare_cached("SELECT 1 FROM segments WHERE key = ?1")?
        .exists([key])?)
}

/// The objects that have been garbage for so long, oldest first.
pub(super) fn garbage(
    tx: &Connection,
    now: Timestamp,
    older_than: Duration,
) -> Outcome<Vec<String>> {
    let mut query =
        tx.prepare_cached("SELECT key FROM garbage WHERE since <= ?1 ORDER BY since, key")?;
    let found = query
        .query_map([earlier(now, older_than)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(found)
}

/// Notes that the objects are deleted.
pub(super) fn forget(tx: &Connection, keys: &[String]) -> Outcome<()> {
    let mut delete = tx.prepare_cached("DELETE FROM garbage WHERE key = ?1")?;
    for key in keys {
        delete.execute([key])?;
    }
    Ok(())
}

fn insert(tx: &Connection, layer: LayerId, segment: &Segment) -> Outcome<()> {
    let key = &segment.key;
    if is_known(tx, key)? {
        return Err(Fault::conflict(format!(
            "object {key:?} is a segment already"
        )));
    }
    if is_garbage(tx, key)? {
        return Err(Fault::conflict(format!(
            "object {key:?} is garbage and may be deleted by now"
        )));
    }
    let commits = segment.commits;
    tx.prepare_cached(
        "INSERT INTO segments (layer, begin_offset, end_offset, key, bytes, tail, first_lsn,
             last_lsn, first_time, last_time)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        layer,
        Bits(segment.begin),
        Bits(segment.end),
        key,
        Bits(segment.bytes),
        Bits(segment.tail),
        commits.map(|commits| commits.first_lsn),
        commits.map(|commits| commits.last_lsn),
        commits.map(|commits| commits.first_time),
        commits.map(|commits| commits.last_time),
    ])?;
    Ok(())
}

fn is_garbage(tx: &Connection, key: &str) -> Outcome<bool> {
    Ok(tx
        .prepare_cached("SELECT 1 FROM garbage WHERE key = ?1")?
        .exists([key])?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Segment> {
    let first_lsn: Option<_> = row.get("first_lsn")?;
    let commits = match first_lsn {
        None => None,
        Some(first_lsn) => Some(CommitRange {
            first_lsn,
            last_lsn: row.get("last_lsn")?,
            first_time: row.get("first_time")?,
            last_time: row.get("last_time")?,
        }),
    };
    Ok(Segment {
        begin: row.get::<_, Bits>("begin_offset")?.0,
        end: row.get::<_, Bits>("end_offset")?.0,
        key: row.get("key")?,
        bytes: row.get::<_, Bits>("bytes")?.0,
        tail: row.get::<_, Bits>("tail")?.0,
        commits,
    })
}
