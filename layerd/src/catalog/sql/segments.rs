//! Segments' rows, and the garbage that is left of them: an object's key is in one of the two
//! tables at most, and goes from the first to the second in the transaction that takes its
//! segment away.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::fault::{Fault, Outcome};
use super::tx::{Query, Tx};
use super::value::{Bits, Row, earlier, later, values};
use crate::catalog::{CommitRange, LayerRow, Segment, segment};
use crate::id::{LayerId, Timestamp};

/// The segments that were found, by layer, in the order in which they were found.
pub(super) fn by_layer(rows: &[Row]) -> Outcome<HashMap<LayerId, Vec<Segment>>> {
    let mut found: HashMap<LayerId, Vec<Segment>> = HashMap::new();
    for row in rows {
        found
            .entry(row.get("layer")?)
            .or_default()
            .push(from_row(row)?);
    }
    Ok(found)
}

/// Find what [`append`] looks at.
pub(super) fn select_before(layer: LayerId, key: &str) -> [Query; 3] {
    let [named, garbage] = select_key(key);
    let last = Query::new(
        "SELECT * FROM segments WHERE layer = ?1 ORDER BY end_offset DESC LIMIT 1",
        values![layer],
    );
    [last, named, garbage]
}

/// Adds the segment that goes on where the layer's last one ended; nothing if it is the last.
/// `found` is what [`select_before`] found. Of the layer no more is looked at than its length.
pub(super) fn append(
    tx: &dyn Tx,
    layer: &LayerRow,
    segment: &Segment,
    found: &[Vec<Row>],
) -> Outcome<()> {
    let (last, taken) = found
        .split_first()
        .map_or((None, found), |(last, taken)| (last.first(), taken));
    let last = last.map(from_row).transpose()?;
    if last.as_ref() == Some(segment) {
        return Ok(());
    }
    segment::check_next(last.as_ref(), segment).map_err(Fault::conflict)?;
    segment::check_within(layer, segment).map_err(Fault::conflict)?;
    check_key(&segment.key, taken)?;
    insert(tx, layer.id, segment)
}

/// Adds the segments of a new layer, or of one that has none any more.
pub(super) fn insert_all(tx: &dyn Tx, layer: &LayerRow) -> Outcome<()> {
    segment::check_all(layer).map_err(Fault::conflict)?;
    let segments = &layer.segments;
    let queries: Vec<Query> = segments
        .iter()
        .flat_map(|segment| select_key(&segment.key))
        .collect();
    let found = tx.query_all(&queries)?;
    for (segment, taken) in segments.iter().zip(found.chunks(2)) {
        check_key(&segment.key, taken)?;
        insert(tx, layer.id, segment)?;
    }
    Ok(())
}

/// Puts the segments that come with `layer` in the place of those that it has.
pub(super) fn replace(tx: &dyn Tx, old: &[Segment], layer: &LayerRow) -> Outcome<()> {
    tx.execute("DELETE FROM segments WHERE layer = ?1", values![layer.id])?;
    insert_all(tx, layer)?;
    let now = tx.now()?;
    let used: HashSet<&str> = layer.segments.iter().map(|new| new.key.as_str()).collect();
    let unused = old.iter().map(|segment| segment.key.as_str());
    for key in unused.filter(|key| !used.contains(key)) {
        tx.execute(
            "INSERT INTO garbage (key, since) VALUES (?1, ?2)",
            values![key, now],
        )?;
    }
    Ok(())
}

/// Notes that the objects of a layer which is about to be deleted are garbage.
pub(super) fn discard(tx: &dyn Tx, layer: LayerId) -> Outcome<()> {
    let now = tx.now()?;
    tx.execute(
        "INSERT INTO garbage (key, since) SELECT key, ?2 FROM segments WHERE layer = ?1",
        values![layer, now],
    )
}

/// Whether a segment names the object.
pub(super) fn is_known(tx: &dyn Tx, key: &str) -> Outcome<bool> {
    let [named, _] = select_key(key);
    tx.exists(named)
}

/// The objects that have been garbage for so long, oldest first.
pub(super) fn garbage(tx: &dyn Tx, older_than: Duration) -> Outcome<Vec<String>> {
    let rows = tx.query(Query::new(
        "SELECT key FROM garbage WHERE since <= ?1 ORDER BY since, key",
        values![earlier(tx.now()?, older_than)],
    ))?;
    rows.iter().map(|row| row.get("key")).collect()
}

/// Makes garbage of those objects that no segment names and that are none yet, from `remembered` in
/// the future on; returns them, and those of which that was made before.
pub(super) fn condemn(tx: &dyn Tx, keys: &[String], remembered: Duration) -> Outcome<Vec<String>> {
    let now = tx.now()?;
    let since = later(now, remembered);
    let queries: Vec<Query> = keys
        .iter()
        .flat_map(|key| {
            let [named, _] = select_key(key);
            let key = key.as_str();
            let garbage = Query::new("SELECT since FROM garbage WHERE key = ?1", values![key]);
            [named, garbage]
        })
        .collect();
    let found = tx.query_all(&queries)?;
    let mut condemned = Vec::new();
    for (key, taken) in keys.iter().zip(found.chunks(2)) {
        let (named, garbage) = (&taken[0], &taken[1]);
        let is_free = match garbage.first() {
            _ if !named.is_empty() => false,
            None => {
                tx.execute(
                    "INSERT INTO garbage (key, since) VALUES (?1, ?2)",
                    values![key.as_str(), since],
                )?;
                true
            }
            // A segment named it until a moment ago: that has its grace period.
            Some(row) => row.get::<Timestamp>("since")? > now,
        };
        if is_free {
            condemned.push(key.clone());
        }
    }
    Ok(condemned)
}

/// Notes that the objects are deleted.
pub(super) fn forget(tx: &dyn Tx, keys: &[String]) -> Outcome<()> {
    keys.iter()
        .try_for_each(|key| tx.execute("DELETE FROM garbage WHERE key = ?1", values![key.as_str()]))
}

/// Find whether a segment names the object, and whether it is garbage.
fn select_key(key: &str) -> [Query; 2] {
    [
        Query::new("SELECT 1 FROM segments WHERE key = ?1", values![key]),
        Query::new("SELECT 1 FROM garbage WHERE key = ?1", values![key]),
    ]
}

/// Checks that the object is free to be a segment; `taken` is what [`select_key`] found.
fn check_key(key: &str, taken: &[Vec<Row>]) -> Outcome<()> {
    match taken.iter().position(|rows| !rows.is_empty()) {
        None => Ok(()),
        Some(0) => Err(Fault::conflict(format!(
            "object {key:?} is a segment already"
        ))),
        Some(_) => Err(Fault::conflict(format!(
            "object {key:?} is garbage and may be deleted by now"
        ))),
    }
}

fn insert(tx: &dyn Tx, layer: LayerId, segment: &Segment) -> Outcome<()> {
    let commits = segment.commits;
    tx.execute(
        "INSERT INTO segments (layer, begin_offset, end_offset, key, bytes, tail, first_lsn,
             last_lsn, first_time, last_time)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        values![
            layer,
            Bits(segment.begin),
            Bits(segment.end),
            segment.key.as_str(),
            Bits(segment.bytes),
            Bits(segment.tail),
            commits.map(|commits| commits.first_lsn),
            commits.map(|commits| commits.last_lsn),
            commits.map(|commits| commits.first_time),
            commits.map(|commits| commits.last_time),
        ],
    )
}

fn from_row(row: &Row) -> Outcome<Segment> {
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
        begin: row.get::<Bits>("begin_offset")?.0,
        end: row.get::<Bits>("end_offset")?.0,
        key: row.get("key")?,
        bytes: row.get::<Bits>("bytes")?.0,
        tail: row.get::<Bits>("tail")?.0,
        commits,
    })
}
