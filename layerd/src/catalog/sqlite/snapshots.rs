//! Snapshots: commits that were asked to be kept.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::{Fault, Outcome};
use super::values::Bits;
use super::{databases, layers};
use crate::catalog::{CatalogError, NewSnapshot, Snapshot};
use crate::id::{DatabaseId, Lsn, SnapshotId, SnapshotName, Timestamp, random_u64};

pub(super) fn add(
    tx: &Connection,
    now: Timestamp,
    id: DatabaseId,
    new: &NewSnapshot,
) -> Outcome<Snapshot> {
    let database = databases::living_by_id(tx, id)?;
    if let Some(name) = &new.name
        && find_by_name(tx, id, name)?.is_some()
    {
        return Err(CatalogError::SnapshotExists {
            database: database.name.to_string(),
            snapshot: name.to_string(),
        }
        .into());
    }
    let is_base = database
        .base
        .and_then(|base| base.point)
        .is_some_and(|point| point.lsn == new.lsn);
    if !is_base && layers::covering(tx, id, new.lsn)?.is_none() {
        return Err(Fault::conflict(format!(
            "commit {} of database {} is in no layer any more",
            new.lsn, database.name
        )));
    }
    let snapshot = Snapshot {
        id: SnapshotId(random_u64()),
        name: new.name.clone(),
        lsn: new.lsn,
        time: new.time,
        written_bytes: new.written_bytes,
        created: now,
    };
    tx.prepare_cached(
        "INSERT INTO snapshots (id, database_id, name, lsn, time, written_bytes, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        snapshot.id,
        id,
        snapshot.name,
        snapshot.lsn,
        snapshot.time,
        Bits(snapshot.written_bytes),
        snapshot.created,
    ])?;
    Ok(snapshot)
}

/// The database's snapshots by LSN, then by creation.
pub(super) fn of(tx: &Connection, id: DatabaseId) -> Outcome<Vec<Snapshot>> {
    databases::by_id(tx, id)?;
    let mut query =
        tx.prepare_cached("SELECT * FROM snapshots WHERE database_id = ?1 ORDER BY lsn, number")?;
    let found = query.query_map([id], from_row)?.collect::<Result<_, _>>()?;
    Ok(found)
}

/// All snapshots of all databases.
pub(super) fn all(tx: &Connection) -> Outcome<Vec<(DatabaseId, Snapshot)>> {
    let mut query =
        tx.prepare_cached("SELECT * FROM snapshots ORDER BY database_id, lsn, number")?;
    let found = query
        .query_map([], |row| Ok((row.get("database_id")?, from_row(row)?)))?
        .collect::<Result<_, _>>()?;
    Ok(found)
}

/// The LSNs from `first` to `last` of which the database has a snapshot.
pub(super) fn lsns_within(
    tx: &Connection,
    id: DatabaseId,
    first: Lsn,
    last: Lsn,
) -> Outcome<Vec<Lsn>> {
    let mut query = tx.prepare_cached(
        "SELECT lsn FROM snapshots WHERE database_id = ?1 AND lsn BETWEEN ?2 AND ?3",
    )?;
    let found = query
        .query_map(params![id, first, last], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(found)
}

pub(super) fn by_name(tx: &Connection, id: DatabaseId, name: &SnapshotName) -> Outcome<Snapshot> {
    let database = databases::by_id(tx, id)?;
    find_by_name(tx, id, name)?.ok_or_else(|| {
        CatalogError::NoSuchSnapshot {
            database: database.name.to_string(),
            snapshot: name.to_string(),
        }
        .into()
    })
}

fn find_by_name(tx: &Connection, id: DatabaseId, name: &SnapshotName) -> Outcome<Option<Snapshot>> {
    Ok(tx
        .prepare_cached("SELECT * FROM snapshots WHERE database_id = ?1 AND name = ?2")?
        .query_row(params![id, name], from_row)
        .optional()?)
}

pub(super) fn by_id(tx: &Connection, id: DatabaseId, snapshot: SnapshotId) -> Outcome<Snapshot> {
    let database = databases::by_id(tx, id)?;
    tx.prepare_cached("SELECT * FROM snapshots WHERE database_id = ?1 AND id = ?2")?
        .query_row(params![id, snapshot], from_row)
        .optional()?
        .ok_or_else(|| {
            CatalogError::NoSuchSnapshot {
                database: database.name.to_string(),
                snapshot: snapshot.to_string(),
            }
            .into()
        })
}

pub(super) fn remove(tx: &Connection, id: DatabaseId, snapshot: SnapshotId) -> Outcome<()> {
    by_id(tx, id, snapshot)?;
    tx.prepare_cached("DELETE FROM snapshots WHERE database_id = ?1 AND id = ?2")?
        .execute(params![id, snapshot])?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    Ok(Snapshot {
        id: row.get("id")?,
        name: row.get("name")?,
        lsn: row.get("lsn")?,
        time: row.get("time")?,
        written_bytes: row.get::<_, Bits>("written_bytes")?.0,
        created: row.get("created")?,
    })
}
