//! Leases: one row per database that is being written. The epoch outlives it in the database's
//! own row.

use std::time::Duration;

use super::databases;
use super::fault::{Fault, Outcome};
use super::tx::{Query, Tx};
use super::value::{Row, later, values};
use crate::catalog::{CatalogError, Database, Holder, Lease};
use crate::id::{DatabaseId, Epoch, Timestamp};

pub(super) fn acquire(
    tx: &dyn Tx,
    id: DatabaseId,
    holder: &Holder,
    ttl: Duration,
    may_take: &dyn Fn(&Lease) -> bool,
) -> Outcome<Lease> {
    let database = databases::living_by_id(tx, id)?;
    let now = tx.now()?;
    if let Some(lease) = held(tx, id)?
        && !may_take(&lease)
    {
        return Err(refusal(now, &database, lease).into());
    }
    let lease = Lease {
        epoch: Epoch(database.epoch.0 + 1),
        holder: holder.clone(),
        renewed: now,
        expires: later(now, ttl),
        wanted: false,
    };
    tx.execute(
        "UPDATE databases SET epoch = ?2 WHERE id = ?1",
        values![id, lease.epoch],
    )?;
    tx.execute("DELETE FROM leases WHERE database_id = ?1", values![id])?;
    tx.execute(
        "INSERT INTO leases (database_id, epoch, host, pid, instance, renewed, expires, wanted)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        values![
            id,
            lease.epoch,
            lease.holder.host.as_str(),
            lease.holder.pid,
            lease.holder.instance.as_str(),
            lease.renewed,
            lease.expires,
            lease.wanted,
        ],
    )?;
    Ok(lease)
}

pub(super) fn renew(tx: &dyn Tx, id: DatabaseId, epoch: Epoch, ttl: Duration) -> Outcome<Lease> {
    databases::fenced_by_id(tx, id, epoch)?;
    let now = tx.now()?;
    tx.execute(
        "UPDATE leases SET renewed = ?2, expires = ?3 WHERE database_id = ?1 AND wanted = 0",
        values![id, now, later(now, ttl)],
    )?;
    newest(tx, id)?
        .ok_or_else(|| Fault::conflict(format!("the lease of epoch {epoch} was released")))
}

pub(super) fn want(tx: &dyn Tx, id: DatabaseId) -> Outcome<()> {
    databases::living_by_id(tx, id)?;
    tx.execute(
        "UPDATE leases SET wanted = 1 WHERE database_id = ?1",
        values![id],
    )
}

pub(super) fn release(tx: &dyn Tx, id: DatabaseId, epoch: Epoch) -> Outcome<()> {
    tx.execute(
        "DELETE FROM leases WHERE database_id = ?1 AND epoch = ?2",
        values![id, epoch],
    )
}

/// The lease that has neither ended nor expired.
pub(super) fn held(tx: &dyn Tx, id: DatabaseId) -> Outcome<Option<Lease>> {
    databases::by_id(tx, id)?;
    let now = tx.now()?;
    Ok(newest(tx, id)?.filter(|lease| now < lease.expires))
}

/// Checks that `lease`, the database's newest, is of that epoch, and held: neither released nor
/// expired.
pub(super) fn check_held(lease: Option<&Lease>, now: Timestamp, epoch: Epoch) -> Outcome<()> {
    match lease {
        Some(lease) if lease.epoch == epoch && now < lease.expires => Ok(()),
        _ => Err(Fault::conflict(format!(
            "the lease of epoch {epoch} has expired, and an object that was uploaded under it may be deleted by now"
        ))),
    }
}

/// Finds all leases, for [`with_database`].
pub(super) fn select_all() -> Query {
    Query::new("SELECT * FROM leases", values![])
}

/// A lease, and the database it is of.
pub(super) fn with_database(row: &Row) -> Outcome<(DatabaseId, Lease)> {
    Ok((row.get("database_id")?, from_row(row)?))
}

/// Why the database can't be had while `lease` is held.
pub(super) fn refusal(now: Timestamp, database: &Database, lease: Lease) -> CatalogError {
    CatalogError::lease_held(&database.name, lease, now)
}

/// Finds the newest lease of a database, for [`from_row`].
pub(super) fn select(id: DatabaseId) -> Query {
    Query::new("SELECT * FROM leases WHERE database_id = ?1", values![id])
}

fn newest(tx: &dyn Tx, id: DatabaseId) -> Outcome<Option<Lease>> {
    let row = tx.query_row(select(id))?;
    row.as_ref().map(from_row).transpose()
}

pub(super) fn from_row(row: &Row) -> Outcome<Lease> {
    Ok(Lease {
        epoch: row.get("epoch")?,
        holder: holder(row)?,
        renewed: row.get("renewed")?,
        expires: row.get("expires")?,
        wanted: row.get("wanted")?,
    })
}

/// The three columns that say who holds a lease or a pin.
pub(super) fn holder(row: &Row) -> Outcome<Holder> {
    Ok(Holder {
        host: row.get("host")?,
        pid: row.get("pid")?,
        instance: row.get("instance")?,
    })
}
