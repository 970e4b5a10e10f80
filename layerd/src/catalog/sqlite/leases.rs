//! Leases: one row per database that is being written. The epoch outlives it in the database's
//! own row.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::databases;
use super::fault::{Fault, Outcome};
use super::values::later;
use crate::catalog::{CatalogError, Database, Holder, Lease};
use crate::id::{DatabaseId, Epoch, Timestamp};

pub(super) fn acquire(
    tx: &Connection,
    now: Timestamp,
    id: DatabaseId,
    holder: &Holder,
    ttl: Duration,
    may_take: &dyn Fn(&Lease) -> bool,
) -> Outcome<Lease> {
    let database = databases::living_by_id(tx, id)?;
    if let Some(lease) = held(tx, now, id)?
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
    tx.prepare_cached("UPDATE databases SET epoch = ?2 WHERE id = ?1")?
        .execute(params![id, lease.epoch])?;
    tx.prepare_cached(
        "INSERT OR REPLACE INTO leases
             (database_id, epoch, host, pid, instance, renewed, expires, wanted)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        id,
        lease.epoch,
        lease.holder.host,
        lease.holder.pid,
        lease.holder.instance,
        lease.renewed,
        lease.expires,
        lease.wanted,
    ])?;
    Ok(lease)
}

pub(super) fn renew(
    tx: &Connection,
    now: Timestamp,
    id: DatabaseId,
    epoch: Epoch,
    ttl: Duration,
) -> Outcome<Lease> {
    databases::fenced_by_id(tx, id, epoch)?;
    tx.prepare_cached("UPDATE leases SET renewed = ?2, expires = ?3 WHERE database_id = ?1")?
        .execute(params![id, now, later(now, ttl)])?;
    newest(tx, id)?
        .ok_or_else(|| Fault::conflict(format!("the lease of epoch {epoch} was released")))
}

pub(super) fn want(tx: &Connection, id: DatabaseId) -> Outcome<()> {
    databases::living_by_id(tx, id)?;
    tx.prepare_cached("UPDATE leases SET wanted = 1 WHERE database_id = ?1")?
        .execute([id])?;
    Ok(())
}

pub(super) fn release(tx: &Connection, id: DatabaseId, epoch: Epoch) -> Outcome<()> {
    tx.prepare_cached("DELETE FROM leases WHERE database_id = ?1 AND epoch = ?2")?
        .execute(params![id, epoch])?;
    Ok(())
}

/// The lease that has neither ended nor expired.
pub(super) fn held(tx: &Connection, now: Timestamp, id: DatabaseId) -> Outcome<Option<Lease>> {
    databases::by_id(tx, id)?;
    Ok(newest(tx, id)?.filter(|lease| now < lease.expires))
}

/// Checks that the lease of that epoch is held: it was not released, and has not expired.
pub(super) fn check_held(
    tx: &Connection,
    now: Timestamp,
    id: DatabaseId,
    epoch: Epoch,
) -> Outcome<()> {
    match newest(tx, id)? {
        Some(lease) if lease.epoch == epoch && now < lease.expires => Ok(()),
        _ => Err(Fault::conflict(format!(
            "the lease of epoch {epoch} has expired, and an object that was uploaded under it may be deleted by now"
        ))),
    }
}

/// All leases that have neither ended nor expired.
pub(super) fn all_held(tx: &Connection, now: Timestamp) -> Outcome<Vec<(DatabaseId, Lease)>> {
    let mut query = tx.prepare_cached("SELECT * FROM leases WHERE ?1 < expires")?;
    let found = query
        .query_map([now], |row| Ok((row.get("database_id")?, from_row(row)?)))?
        .collect::<Result<_, _>>()?;
    Ok(found)
}

/// Why the database can't be had while `lease` is held.
pub(super) fn refusal(now: Timestamp, database: &Database, lease: Lease) -> CatalogError {
    CatalogError::lease_held(&database.name, lease, now)
}

fn newest(tx: &Connection, id: DatabaseId) -> Outcome<Option<Lease>> {
    Ok(tx
        .prepare_cached("SELECT * FROM leases WHERE database_id = ?1")?
        .query_row([id], from_row)
        .optional()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Lease> {
    Ok(Lease {
        epoch: row.get("epoch")?,
        holder: holder(row)?,
        renewed: row.get("renewed")?,
        expires: row.get("expires")?,
        wanted: row.get("wanted")?,
    })
}

/// The three columns that say who holds a lease or a pin.
pub(super) fn holder(row: &Row<'_>) -> rusqlite::Result<Holder> {
    Ok(Holder {
        host: row.get("host")?,
        pid: row.get("pid")?,
        instance: row.get("instance")?,
    })
}
