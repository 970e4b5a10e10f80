//! Snapshots: commits that were asked to be kept.

use super::fault::{Fault, Outcome};
use super::tx::{Query, Tx};
use super::value::{Bits, Row, values};
use super::{databases, layers};
use crate::catalog::{CatalogError, NewSnapshot, Snapshot};
use crate::id::{DatabaseId, Lsn, SnapshotId, SnapshotName, random_u64};

pub(super) fn add(tx: &dyn Tx, id: DatabaseId, new: &NewSnapshot) -> Outcome<Snapshot> {
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
        created: tx.now()?,
    };
    tx.execute(
        "INSERT INTO snapshots (id, database_id, name, lsn, time, written_bytes, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        values![
            snapshot.id,
            id,
            snapshot.name.as_ref(),
            snapshot.lsn,
            snapshot.time,
            Bits(snapshot.written_bytes),
            snapshot.created,
        ],
    )?;
    Ok(snapshot)
}

/// The database's snapshots by LSN, then by creation.
pub(super) fn of(tx: &dyn Tx, id: DatabaseId) -> Outcome<Vec<Snapshot>> {
    databases::by_id(tx, id)?;
    let rows = tx.query(Query::new(
        "SELECT * FROM snapshots WHERE database_id = ?1 ORDER BY lsn, number",
        values![id],
    ))?;
    rows.iter().map(from_row).collect()
}

/// Finds all snapshots of all databases, for [`with_database`].
pub(super) fn select_all() -> Query {
    Query::new(
        "SELECT * FROM snapshots ORDER BY database_id, lsn, number",
        values![],
    )
}

/// A snapshot, and the database it is of.
pub(super) fn with_database(row: &Row) -> Outcome<(DatabaseId, Snapshot)> {
    Ok((row.get("database_id")?, from_row(row)?))
}

/// The LSNs from `first` to `last` of which the database has a snapshot.
pub(super) fn lsns_within(tx: &dyn Tx, id: DatabaseId, first: Lsn, last: Lsn) -> Outcome<Vec<Lsn>> {
    let rows = tx.query(Query::new(
        "SELECT lsn FROM snapshots WHERE database_id = ?1 AND lsn BETWEEN ?2 AND ?3",
        values![id, first, last],
    ))?;
    rows.iter().map(|row| row.get("lsn")).collect()
}

pub(super) fn by_name(tx: &dyn Tx, id: DatabaseId, name: &SnapshotName) -> Outcome<Snapshot> {
    let database = databases::by_id(tx, id)?;
    find_by_name(tx, id, name)?.ok_or_else(|| {
        CatalogError::NoSuchSnapshot {
            database: database.name.to_string(),
            snapshot: name.to_string(),
        }
        .into()
    })
}

fn find_by_name(tx: &dyn Tx, id: DatabaseId, name: &SnapshotName) -> Outcome<Option<Snapshot>> {
    let row = tx.query_row(Query::new(
        "SELECT * FROM snapshots WHERE database_id = ?1 AND name = ?2",
        values![id, name],
    ))?;
    row.as_ref().map(from_row).transpose()
}

pub(super) fn by_id(tx: &dyn Tx, id: DatabaseId, snapshot: SnapshotId) -> Outcome<Snapshot> {
    let database = databases::by_id(tx, id)?;
    let row = tx.query_row(Query::new(
        "SELECT * FROM snapshots WHERE database_id = ?1 AND id = ?2",
        values![id, snapshot],
    ))?;
    let row = row.ok_or_else(|| CatalogError::NoSuchSnapshot {
        database: database.name.to_string(),
        snapshot: snapshot.to_string(),
    })?;
    from_row(&row)
}

pub(super) fn remove(tx: &dyn Tx, id: DatabaseId, snapshot: SnapshotId) -> Outcome<()> {
    by_id(tx, id, snapshot)?;
    tx.execute(
        "DELETE FROM snapshots WHERE database_id = ?1 AND id = ?2",
        values![id, snapshot],
    )
}

fn from_row(row: &Row) -> Outcome<Snapshot> {
    Ok(Snapshot {
        id: row.get("id")?,
        name: row.get("name")?,
        lsn: row.get("lsn")?,
        time: row.get("time")?,
        written_bytes: row.get::<Bits>("written_bytes")?.0,
        created: row.get("created")?,
    })
}
