//! Databases: made, named, removed, brought back.

use super::fault::Outcome;
use super::tx::{Query, Tx};
use super::value::{Bits, Row, values};
use super::{chain, layers, leases};
use crate::catalog::{Base, CatalogError, Database, Head, StatePoint};
use crate::id::{DatabaseId, DatabaseName, Epoch, LayerId, Lsn, Timestamp, random_u64};

pub(super) fn create(
    tx: &dyn Tx,
    name: &DatabaseName,
    retention_s: u64,
    base: Option<(Base, Timestamp, u64)>,
) -> Outcome<Database> {
    if living_by_name(tx, name)?.is_some() {
        return Err(CatalogError::DatabaseExists(name.to_string()).into());
    }
    let now = tx.now()?;
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
    tx.execute(
        "INSERT INTO databases (id, name, created, retention_s, head_layer, head_lsn, head_time,
             head_written_bytes, base_database, base_layer, base_lsn)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        values![
            database.id,
            &database.name,
            database.created,
            Bits(database.retention_s),
            head.point.map(|point| point.layer),
            head.point.map(|point| point.lsn),
            head.time,
            Bits(head.written_bytes),
            base.map(|base| base.database),
            base_point.map(|point| point.layer),
            base_point.map(|point| point.lsn),
        ],
    )?;
    Ok(database)
}

/// The living database of that name.
pub(super) fn by_name(tx: &dyn Tx, name: &DatabaseName) -> Outcome<Database> {
    living_by_name(tx, name)?.ok_or_else(|| CatalogError::NoSuchDatabase(name.to_string()).into())
}

fn living_by_name(tx: &dyn Tx, name: &DatabaseName) -> Outcome<Option<Database>> {
    let row = tx.query_row(Query::new(
        "SELECT * FROM databases WHERE name = ?1 AND dropped IS NULL",
        values![name],
    ))?;
    row.as_ref().map(from_row).transpose()
}

/// The database of that id, removed or not.
pub(super) fn by_id(tx: &dyn Tx, id: DatabaseId) -> Outcome<Database> {
    one(id, &tx.query(select(id))?)
}

/// Finds a database, for [`one`].
pub(super) fn select(id: DatabaseId) -> Query {
    Query::new("SELECT * FROM databases WHERE id = ?1", values![id])
}

/// The database of that id that was found.
pub(super) fn one(id: DatabaseId, rows: &[Row]) -> Outcome<Database> {
    match rows.first() {
        Some(row) => from_row(row),
        None => Err(CatalogError::NoSuchDatabase(id.to_string()).into()),
    }
}

/// The database of that id, unless it was removed.
pub(super) fn living_by_id(tx: &dyn Tx, id: DatabaseId) -> Outcome<Database> {
    alive(by_id(tx, id)?)
}

fn alive(database: Database) -> Outcome<Database> {
    if database.dropped.is_some() {
        return Err(CatalogError::NoSuchDatabase(database.name.to_string()).into());
    }
    Ok(database)
}

/// The living database of that id, if `epoch` is its newest.
pub(super) fn fenced_by_id(tx: &dyn Tx, id: DatabaseId, epoch: Epoch) -> Outcome<Database> {
    fenced(by_id(tx, id)?, epoch)
}

/// The database, if it lives and `epoch` is its newest.
pub(super) fn fenced(database: Database, epoch: Epoch) -> Outcome<Database> {
    let database = alive(database)?;
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
pub(super) fn living(tx: &dyn Tx) -> Outcome<Vec<Database>> {
    let rows = tx.query(Query::new(
        "SELECT * FROM databases WHERE dropped IS NULL ORDER BY name",
        values![],
    ))?;
    rows.iter().map(from_row).collect()
}

/// All databases, removed ones too.
pub(super) fn all(tx: &dyn Tx) -> Outcome<Vec<Database>> {
    tx.query(select_all())?.iter().map(from_row).collect()
}

/// Finds all databases, for [`from_row`].
pub(super) fn select_all() -> Query {
    Query::new("SELECT * FROM databases ORDER BY name, created", values![])
}

pub(super) fn remove(tx: &dyn Tx, id: DatabaseId) -> Outcome<()> {
    let database = living_by_id(tx, id)?;
    let now = tx.now()?;
    if let Some(lease) = leases::held(tx, id)? {
        return Err(leases::refusal(now, &database, lease).into());
    }
    tx.execute(
        "UPDATE databases SET dropped = ?2 WHERE id = ?1",
        values![id, now],
    )
}

/// Brings the database back with all the layers of its head, if none of them was deleted. Layers
/// that only its history needs come back with the next sweep that marks them.
pub(super) fn bring_back(tx: &dyn Tx, name: &DatabaseName) -> Outcome<Database> {
    if living_by_name(tx, name)?.is_some() {
        return Err(CatalogError::DatabaseExists(name.to_string()).into());
    }
    let removed = tx.query_row(Query::new(
        "SELECT * FROM databases WHERE name = ?1 AND dropped IS NOT NULL
         ORDER BY dropped DESC, created DESC LIMIT 1",
        values![name],
    ))?;
    let Some(removed) = removed else {
        return Err(CatalogError::NoSuchDatabase(name.to_string()).into());
    };
    let mut database = from_row(&removed)?;
    if !chain::revive(tx, database.head.point)? {
        return Err(CatalogError::NoSuchDatabase(name.to_string()).into());
    }
    tx.execute(
        "UPDATE databases SET dropped = NULL WHERE id = ?1",
        values![database.id],
    )?;
    database.dropped = None;
    Ok(database)
}

pub(super) fn set_retention(tx: &dyn Tx, id: DatabaseId, retention_s: u64) -> Outcome<()> {
    living_by_id(tx, id)?;
    tx.execute(
        "UPDATE databases SET retention_s = ?2 WHERE id = ?1",
        values![id, Bits(retention_s)],
    )
}

/// Deletes the row, with its snapshots and its lease.
pub(super) fn delete(tx: &dyn Tx, id: DatabaseId) -> Outcome<()> {
    tx.execute("DELETE FROM databases WHERE id = ?1", values![id])
}

pub(super) fn set_head(tx: &dyn Tx, id: DatabaseId, head: &Head) -> Outcome<()> {
    tx.execute(
        "UPDATE databases SET head_layer = ?2, head_lsn = ?3, head_time = ?4,
             head_written_bytes = ?5
         WHERE id = ?1",
        values![
            id,
            head.point.map(|point| point.layer),
            head.point.map(|point| point.lsn),
            head.time,
            Bits(head.written_bytes),
        ],
    )
}

pub(super) fn from_row(row: &Row) -> Outcome<Database> {
    let base_database: Option<DatabaseId> = row.get("base_database")?;
    let base_point = point(row, "base_layer", "base_lsn")?;
    Ok(Database {
        id: row.get("id")?,
        name: row.get("name")?,
        created: row.get("created")?,
        dropped: row.get("dropped")?,
        retention_s: row.get::<Bits>("retention_s")?.0,
        head: Head {
            point: point(row, "head_layer", "head_lsn")?,
            time: row.get("head_time")?,
            written_bytes: row.get::<Bits>("head_written_bytes")?.0,
        },
        base: base_database.map(|database| Base {
            database,
            point: base_point,
        }),
        epoch: row.get("epoch")?,
        generation: row.get::<Bits>("generation")?.0,
    })
}

/// The state point in two columns that are null together.
pub(super) fn point(row: &Row, layer: &str, lsn: &str) -> Outcome<Option<StatePoint>> {
    let (layer, lsn): (Option<LayerId>, Option<Lsn>) = (row.get(layer)?, row.get(lsn)?);
    Ok(layer.zip(lsn).map(|(layer, lsn)| StatePoint { layer, lsn }))
}
