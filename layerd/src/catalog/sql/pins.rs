//! Pins: readers' claims on layers. A pin counts until it expires, and can be renewed until the
//! sweep that finds it expired deletes it: only sweeps take layers away, so up to then it still
//! holds what it held.

use std::collections::HashMap;
use std::time::Duration;

use super::fault::Outcome;
use super::layers;
use super::leases::holder;
use super::tx::{Query, Tx};
use super::value::{Bits, Row, later, values};
use crate::catalog::{CatalogError, Holder, Pin};
use crate::id::{LayerId, Timestamp};

/// Checks that the pin may keep these layers: those of the catalog that live, or that it holds.
pub(super) fn check(tx: &dyn Tx, pin: u64, layers: &[LayerId]) -> Outcome<()> {
    let held = tx.query(Query::new(
        "SELECT layer FROM pin_layers WHERE pin = ?1",
        values![Bits(pin)],
    ))?;
    let held: Vec<LayerId> = held
        .iter()
        .map(|row| row.get("layer"))
        .collect::<Outcome<_>>()?;
    for (row, &layer) in layers::find_bare(tx, layers)?.into_iter().zip(layers) {
        let row = row.ok_or(CatalogError::NoSuchLayer(layer))?;
        if row.dead_since.is_some() && !held.contains(&layer) {
            return Err(CatalogError::NoSuchLayer(layer).into());
        }
    }
    Ok(())
}

/// Makes the pin, or makes it anew, with these layers.
pub(super) fn write(
    tx: &dyn Tx,
    pin: u64,
    holder: &Holder,
    layers: &[LayerId],
    ttl: Duration,
) -> Outcome<()> {
    let expires = later(tx.now()?, ttl);
    end(tx, pin)?;
    tx.execute(
        "INSERT INTO pins (id, host, pid, instance, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
        values![
            Bits(pin),
            holder.host.as_str(),
            holder.pid,
            holder.instance.as_str(),
            expires,
        ],
    )?;
    for (position, &layer) in (0_i64..).zip(layers) {
        tx.execute(
            "INSERT INTO pin_layers (pin, position, layer) VALUES (?1, ?2, ?3)
             ON CONFLICT DO NOTHING",
            values![Bits(pin), position, layer],
        )?;
    }
    Ok(())
}

pub(super) fn renew(tx: &dyn Tx, pin: u64, ttl: Duration) -> Outcome<bool> {
    let expires = later(tx.now()?, ttl);
    tx.exists(Query::new(
        "UPDATE pins SET expires = ?2 WHERE id = ?1 RETURNING id",
        values![Bits(pin), expires],
    ))
}

pub(super) fn end(tx: &dyn Tx, pin: u64) -> Outcome<()> {
    tx.execute("DELETE FROM pins WHERE id = ?1", values![Bits(pin)])
}

/// Find all pins, and all their layers, for [`unexpired`].
pub(super) fn select_all() -> [Query; 2] {
    [
        Query::new("SELECT * FROM pins ORDER BY id", values![]),
        Query::new("SELECT * FROM pin_layers ORDER BY pin, position", values![]),
    ]
}

/// The pins that have not expired.
pub(super) fn unexpired(now: Timestamp, pins: &[Row], layers: &[Row]) -> Outcome<Vec<Pin>> {
    let mut held: HashMap<u64, Vec<LayerId>> = HashMap::new();
    for row in layers {
        let pin = row.get::<Bits>("pin")?.0;
        held.entry(pin).or_default().push(row.get("layer")?);
    }
    let mut found = Vec::new();
    for row in pins {
        let id = row.get::<Bits>("id")?.0;
        let pin = Pin {
            id,
            holder: holder(row)?,
            expires: row.get("expires")?,
            layers: held.remove(&id).unwrap_or_default(),
        };
        if now < pin.expires {
            found.push(pin);
        }
    }
    Ok(found)
}

pub(super) fn delete_expired(tx: &dyn Tx) -> Outcome<()> {
    let now = tx.now()?;
    tx.execute("DELETE FROM pins WHERE expires <= ?1", values![now])
}
