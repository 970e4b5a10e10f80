//! Databases: made, named, removed, brought back.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::Outcome;
use super::values::Bits;
use super::{chain, layers, leases};
use crate::catalog::{Base, CatalogError, Database, Head, StatePoint};
use crate::id::{DatabaseId, DatabaseName, Epoch, LayerId, Lsn, Timestamp, random_u64};

pub(super) fn create(
    tx: &Connection,
    now: Timestamp,
    name: &DatabaseName,
    retention_s: u64,
    base: Option<(Base, Timestamp, u64)>,
) -> Outcome<Database> {
    if living_by_name(tx, name)?.is_some() {
        return Err(CatalogError::DatabaseExists(name.to_string()).into());
    }
    let empty = Head {
        point: None,
        time: now,
        written_bytes: 0,
    };
    let (base, head) = match base {
        None => (None, empty),
        Some((base, time, written_bytes)) => {
            living_by_id(tx, base.database)?;
            if let Some(point) = base.point {
                layers::check_point(tx, point)?;
            }
            (
                Some(base),
                Head {
                    point: base.point,
                    time,
                    written_bytes,
                },
            )
        }
    };
    let database = Database {
        id: DatabaseId(random_u64()),
        name: name.clone(),
        created: now,
        dropped: None,
        retention_s,
        head,
        base,
        epoch: Epoch(0),
        generation: 0,
    };
    let base_point = base.and_then(|base| base.point);
    tx.prepare_cached(
        "INSERT INTO databases (id, name, created, retention_s, head_layer, head_lsn, head_time,
             head_written_bytes, base_database, base_layer, base_lsn)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        database.id,
        database.name,
        database.created,
        Bits(database.retention_s),
        head.point.map(|point| point.layer),
        head.point.map(|point| point.lsn),
        head.time,
        Bits(head.written_bytes),
        base.map(|base| base.database),
        base_point.map(|point| point.layer),
        base_point.map(|point| point.lsn),
    ])?;
    Ok(database)
}

/// The living database of that name.
pub(super) fn by_name(tx: &Connection, name: &DatabaseName) -> Outcome<Database> {
    living_by_name(tx, name)?.ok_or_else(|| CatalogError::NoSuchDatabase(name.to_string()).into())
}

fn living_by_name(tx: &Connection, name: &DatabaseName) -> Outcome<Option<Database>> {
    Ok(tx
        .prepare_cached("SELECT * FROM databases WHERE name = ?1 AND dropped IS NULL")?
        .query_row([name], from_row)
        .optional()?)
}

/// The database of that id, removed or not.
pub(super) fn by_id(tx: &Connection, id: DatabaseId) -> Outcome<Database> {
    tx.prepare_cached("SELECT * FROM databases WHERE id = ?1")?
        .query_row([id], from_row)
        .optional()?
        .ok_or_else(|| CatalogError::NoSuchDatabase(id.to_string()).into())
}

/// The database of that id, unless it was removed.
pub(super) fn living_by_id(tx: &Connection, id: DatabaseId) -> Outcome<Database> {
    let database = by_id(tx, id)?;
    if database.dropped.is_some() {
        return Err(CatalogError::NoSuchDatabase(database.name.to_string()).into());
    }
    Ok(database)
}

/// The living database of that id, if `epoch` is its newest.
pub(super) fn fenced_by_id(tx: &Connection, id: DatabaseId, epoch: Epoch) -> Outcome<Database> {
    let database = living_by_id(tx, id)?;
    if database.epoch != epoch {
        return Err(CatalogError::Fenced {
            ours: epoch,
            current: database.epoch,
        }
        .into());
    }
    Ok(database)
}

/// All living databases by name.
pub(super) fn living(tx: &Connection) -> Outcome<Vec<Database>> {
    let mut query =
        tx.prepare_cached("SELECT * FROM databases WHERE dropped IS NULL ORDER BY name")?;
    let found = query.query_map([], from_row)?.collect::<Result<_, _>>()?;
    Ok(found)
}

/// All databases, removed ones too.
pub(super) fn all(tx: &Connection) -> Outcome<Vec<Database>> {
    let mut query = tx.prepare_cached("SELECT * FROM databases ORDER BY name, created")?;
    let found = query.query_map([], from_row)?.collect::<Result<_, _>>()?;
    Ok(found)
}

pub(super) fn remove(tx: &Connection, now: Timestamp, id: DatabaseId) -> Outcome<()> {
    let database = living_by_id(tx, id)?;
    if let Some(lease) = leases::held(tx, now, id)? {
        return Err(leases::refusal(now, &database, lease).into());
    }
    tx.prepare_cached("UPDATE databases SET dropped = ?2 WHERE id = ?1")?
        .execute(params![id, now])?;
    Ok(())
}

/// Brings the database back with all the layers of its head, if none of them was deleted. Layers
/// that only its history needs come back with the next sweep that marks them.
pub(super) fn bring_back(tx: &Connection, name: &DatabaseName) -> Outcome<Database> {
    if living_by_name(tx, name)?.is_some() {
        return Err(CatalogError::DatabaseExists(name.to_string()).into());
    }
    let removed = tx
        .prepare_cached(
            "SELECT * FROM databases WHERE name = ?1 AND dropped IS NOT NULL
             ORDER BY dropped DESC, created DESC LIMIT 1",
        )?
        .query_row([name], from_row)
        .optional()?;
    let Some(mut database) = removed else {
        return Err(CatalogError::NoSuchDatabase(name.to_string()).into());
    };
    if !chain::revive(tx, database.head.point)? {
        return Err(CatalogError::NoSuchDatabase(name.to_string()).into());
    }
    tx.prepare_cached("UPDATE databases SET dropped = NULL WHERE id = ?1")?
        .execute([database.id])?;
    database.dropped = None;
    Ok(database)
}

pub(super) fn set_retention(tx: &Connection, id: DatabaseId, retention_s: u64) -> Outcome<()> {
    living_by_id(tx, id)?;
    tx.prepare_cached("UPDATE databases SET retention_s = ?2 WHERE id = ?1")?
        .execute(params![id, Bits(retention_s)])?;
    Ok(())
}

/// Deletes the row, with its snapshots and its lease.
pub(super) fn delete(tx: &Connection, id: DatabaseId) -> Outcome<()> {
    tx.prepare_cached("DELETE FROM databases WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

pub(super) fn set_head(tx: &Connection, id: DatabaseId, head: &Head) -> Outcome<()> {
    tx.prepare_cached(
        "UPDATE databases SET head_layer = ?2, head_lsn = ?3, head_time = ?4,
             head_written_bytes = ?5
         WHERE id = ?1",
    )?
    .execute(params![
        id,
        head.point.map(|point| point.layer),
        head.point.map(|point| point.lsn),
        head.time,
        Bits(head.written_bytes),
    ])?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Database> {
    let base_database: Option<DatabaseId> = row.get("base_database")?;
    let base_point = point(row, "base_layer", "base_lsn")?;
    Ok(Database {
        id: row.get("id")?,
        name: row.get("name")?,
        created: row.get("created")?,
        dropped: row.get("dropped")?,
        retention_s: row.get::<_, Bits>("retention_s")?.0,
        head: Head {
            point: point(row, "head_layer", "head_lsn")?,
            time: row.get("head_time")?,
            written_bytes: row.get::<_, Bits>("head_written_bytes")?.0,
        },
        base: base_database.map(|database| Base {
            database,
            point: base_point,
        }),
        epoch: row.get("epoch")?,
        generation: row.get::<_, Bits>("generation")?.0,
    })
}

/// The state point in two columns that are null together.
pub(super) fn point(row: &Row<'_>, layer: &str, lsn: &str) -> rusqlite::Result<Option<StatePoint>> {
    let (layer, lsn): (Option<LayerId>, Option<Lsn>) = (row.get(layer)?, row.get(lsn)?);
    Ok(layer.zip(lsn).map(|(layer, lsn)| StatePoint { layer, lsn }))
}
