//! Pins: readers' claims on layers. A pin counts until it expires, and can be renewed until the
//! sweep that finds it expired deletes it: only sweeps take layers away, so up to then it still
//! holds what it held.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::fault::Outcome;
use super::layers;
use super::leases::holder;
use super::values::{Bits, later};
use crate::catalog::{CatalogError, Holder, Pin};
use crate::id::{LayerId, Timestamp};

/// Checks that the pin may keep these layers: those of the catalog that live, or that it holds.
pub(super) fn check(tx: &Connection, pin: u64, layers: &[LayerId]) -> Outcome<()> {
    let held = layers_of(tx, pin)?;
    for &layer in layers {
        let row = layers::find(tx, layer)?.ok_or(CatalogError::NoSuchLayer(layer))?;
        if row.dead_since.is_some() && !held.contains(&layer) {
            return Err(CatalogError::NoSuchLayer(layer).into());
        }
    }
    Ok(())
}

/// Makes the pin, or makes it anew, with these layers.
pub(super) fn write(
    tx: &Connection,
    now: Timestamp,
    pin: u64,
    holder: &Holder,
    layers: &[LayerId],
    ttl: Duration,
) -> Outcome<()> {
    end(tx, pin)?;
    tx.prepare_cached(
        "INSERT INTO pins (id, host, pid, instance, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        Bits(pin),
        holder.host,
        holder.pid,
        holder.instance,
        later(now, ttl)
    ])?;
    let mut insert = tx.prepare_cached(
        "INSERT OR IGNORE INTO pin_layers (pin, position, layer) VALUES (?1, ?2, ?3)",
    )?;
    for (position, layer) in (0_i64..).zip(layers) {
        insert.execute(params![Bits(pin), position, layer])?;
    }
    Ok(())
}

pub(super) fn renew(tx: &Connection, now: Timestamp, pin: u64, ttl: Duration) -> Outcome<bool> {
    let changed = tx
        .prepare_cached("UPDATE pins SET expires = ?2 WHERE id = ?1")?
        .execute(params![Bits(pin), later(now, ttl)])?;
    Ok(changed == 1)
}

pub(super) fn end(tx: &Connection, pin: u64) -> Outcome<()> {
    tx.prepare_cached("DELETE FROM pins WHERE id = ?1")?
        .execute([Bits(pin)])?;
    Ok(())
}

/// All pins that have not expired.
pub(super) fn all_unexpired(tx: &Connection, now: Timestamp) -> Outcome<Vec<Pin>> {
    let mut query = tx.prepare_cached("SELECT * FROM pins WHERE ?1 < expires ORDER BY id")?;
    let mut pins: Vec<Pin> = query
        .query_map([now], |row| {
            Ok(Pin {
                id: row.get::<_, Bits>("id")?.0,
                holder: holder(row)?,
                expires: row.get("expires")?,
                layers: Vec::new(),
            })
        })?
        .collect::<Result<_, _>>()?;
    for pin in &mut pins {
        pin.layers = layers_of(tx, pin.id)?;
    }
    Ok(pins)
}

pub(super) fn delete_expired(tx: &Connection, now: Timestamp) -> Outcome<()> {
    tx.prepare_cached("DELETE FROM pins WHERE expires <= ?1")?
        .execute([now])?;
    Ok(())
}

fn layers_of(tx: &Connection, pin: u64) -> Outcome<Vec<LayerId>> {
    let mut query =
        tx.prepare_cached("SELECT layer FROM pin_layers WHERE pin = ?1 ORDER BY position")?;
    let found = query
        .query_map([Bits(pin)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(found)
}
