//! The catalog's calls, once for every SQL database.
//!
//! The modules below each hold the calls about one thing, as plain functions over an open
//! transaction ([`Tx`]): they read rows, apply the catalog's rules, write rows. They know one SQL
//! text, with placeholders `?1`, `?2` …, which SQLite and PostgreSQL both understand. A driver
//! ([`Driver`]) opens transactions, carries them out, and tells how its database stores things;
//! whatever implements it is a [`Catalog`].
//!
//! The functions are written as if nobody else wrote at the same time. Each call says with its
//! [`Turn`] what must stand still meanwhile for that to be true, and the driver sees to it.

pub(super) mod fault;
pub(super) mod tx;
pub(super) mod value;

mod chain;
mod databases;
mod gc;
mod layers;
mod leases;
mod pins;
mod replace;
mod segments;
mod service;
mod snapshots;

use std::sync::Arc;
use std::time::Duration;

use self::fault::Outcome;
use self::tx::{Driver, Durability, Scope, Turn, Tx};
use super::service::{KnownWorker, NewToken, Service, SigningKey, Token, Tokens, Worker};
use super::{
    Base, Catalog, Chain, Changes, Database, Head, Holder, Inventory, LayerRow, Lease, NewSnapshot,
    Result, Rotation, Segment, Snapshot, StatePoint,
};
use crate::id::{
    DatabaseId, DatabaseName, Epoch, LayerId, Lsn, SnapshotId, SnapshotName, Timestamp, TokenId,
    WorkerId,
};

/// Runs `work` in one reading transaction.
fn read<T>(driver: &impl Driver, work: impl FnMut(&dyn Tx) -> Outcome<T>) -> Result<T> {
    run(driver, Turn::Read, work)
}

/// Runs `work` in one writing transaction that is on stable storage when this returns.
fn write<T>(
    driver: &impl Driver,
    scope: Scope,
    work: impl FnMut(&dyn Tx) -> Outcome<T>,
) -> Result<T> {
    run(driver, Turn::Write(scope, Durability::Durable), work)
}

/// Runs `work` in one writing transaction that a power loss may undo.
fn write_coalesced<T>(
    driver: &impl Driver,
    scope: Scope,
    work: impl FnMut(&dyn Tx) -> Outcome<T>,
) -> Result<T> {
    run(driver, Turn::Write(scope, Durability::Coalesced), work)
}

fn run<T>(driver: &impl Driver, turn: Turn, work: impl FnMut(&dyn Tx) -> Outcome<T>) -> Result<T> {
    driver
        .transact(turn, work)
        .map_err(|fault| fault.into_error(driver.name()))
}

impl<D: Driver> Catalog for D {
    fn now(&self) -> Result<Timestamp> {
        self.clock().map_err(|fault| fault.into_error(self.name()))
    }

    fn create_database(
        &self,
        name: &DatabaseName,
        retention_s: u64,
        base: Option<(Base, Timestamp, u64)>,
    ) -> Result<Database> {
        write(self, Scope::All, |tx| {
            databases::create(tx, name, retention_s, base)
        })
    }

    fn database(&self, name: &DatabaseName) -> Result<Database> {
        read(self, |tx| databases::by_name(tx, name))
    }

    fn database_by_id(&self, id: DatabaseId) -> Result<Database> {
        read(self, |tx| databases::by_id(tx, id))
    }

    fn databases(&self) -> Result<Vec<Database>> {
        read(self, databases::living)
    }

    fn drop_database(&self, id: DatabaseId) -> Result<()> {
        write(self, Scope::All, |tx| databases::remove(tx, id))
    }

    fn undrop_database(&self, name: &DatabaseName) -> Result<Database> {
        write(self, Scope::All, |tx| databases::bring_back(tx, name))
    }

    fn set_retention(&self, id: DatabaseId, retention_s: u64) -> Result<()> {
        write(self, Scope::Database(id), |tx| {
            databases::set_retention(tx, id, retention_s)
        })
    }

    fn acquire_lease(
        &self,
        id: DatabaseId,
        holder: &Holder,
        ttl: Duration,
        may_take: &dyn Fn(&Lease) -> bool,
    ) -> Result<Lease> {
        write(self, Scope::Database(id), |tx| {
            leases::acquire(tx, id, holder, ttl, may_take)
        })
    }

    fn renew_lease(&self, id: DatabaseId, epoch: Epoch, ttl: Duration) -> Result<Lease> {
        write_coalesced(self, Scope::Database(id), |tx| {
            leases::renew(tx, id, epoch, ttl)
        })
    }

    fn want_lease(&self, id: DatabaseId) -> Result<()> {
        write_coalesced(self, Scope::Database(id), |tx| leases::want(tx, id))
    }

    fn release_lease(&self, id: DatabaseId, epoch: Epoch) -> Result<()> {
        write(self, Scope::Database(id), |tx| {
            leases::release(tx, id, epoch)
        })
    }

    fn lease(&self, id: DatabaseId) -> Result<Option<Lease>> {
        read(self, |tx| leases::held(tx, id))
    }

    fn add_layer(&self, epoch: Epoch, layer: &LayerRow) -> Result<()> {
        write(self, Scope::All, |tx| layers::add(tx, epoch, layer))
    }

    fn publish(
        &self,
        id: DatabaseId,
        epoch: Epoch,
        head: &Head,
        segment: Option<&Segment>,
    ) -> Result<()> {
        let durability = match segment {
            Some(_) => Durability::Durable,
            None => Durability::Coalesced,
        };
        run(self, Turn::Write(Scope::Database(id), durability), |tx| {
            layers::publish(tx, id, epoch, head, segment)
        })
    }

    fn add_segment(
        &self,
        id: DatabaseId,
        epoch: Epoch,
        layer: LayerId,
        segment: &Segment,
    ) -> Result<()> {
        write(self, Scope::Database(id), |tx| {
            layers::add_segment(tx, id, epoch, layer, segment)
        })
    }

    fn rotate(&self, id: DatabaseId, epoch: Epoch, rotation: &Rotation, head: &Head) -> Result<()> {
        write(self, Scope::All, |tx| {
            layers::rotate(tx, id, epoch, rotation, head)
        })
    }

    fn seal(
        &self,
        layer: LayerId,
        bytes: u64,
        hash: [u8; 32],
        segments: Option<&[Segment]>,
    ) -> Result<bool> {
        write(self, Scope::All, |tx| {
            layers::seal(tx, layer, bytes, hash, segments)
        })
    }

    fn layers(&self, id: DatabaseId) -> Result<Vec<LayerRow>> {
        read(self, |tx| layers::living(tx, id))
    }

    fn find_lsn(&self, id: DatabaseId, lsn: Lsn) -> Result<Option<LayerRow>> {
        read(self, |tx| chain::find_lsn(tx, id, lsn))
    }

    fn replace_layers(
        &self,
        id: DatabaseId,
        old: &[LayerId],
        new: &[LayerRow],
        kept: &[Lsn],
    ) -> Result<()> {
        write(self, Scope::All, |tx| {
            replace::replace(tx, id, old, new, kept)
        })
    }

    fn add_snapshot(&self, id: DatabaseId, snapshot: &NewSnapshot) -> Result<Snapshot> {
        write(self, Scope::Database(id), |tx| {
            snapshots::add(tx, id, snapshot)
        })
    }

    fn snapshots(&self, id: DatabaseId) -> Result<Vec<Snapshot>> {
        read(self, |tx| snapshots::of(tx, id))
    }

    fn snapshot_by_name(&self, id: DatabaseId, name: &SnapshotName) -> Result<Snapshot> {
        read(self, |tx| snapshots::by_name(tx, id, name))
    }

    fn snapshot_by_id(&self, id: DatabaseId, snapshot: SnapshotId) -> Result<Snapshot> {
        read(self, |tx| snapshots::by_id(tx, id, snapshot))
    }

    fn remove_snapshot(&self, id: DatabaseId, snapshot: SnapshotId) -> Result<()> {
        write(self, Scope::Database(id), |tx| {
            snapshots::remove(tx, id, snapshot)
        })
    }

    fn pin_chain(
        &self,
        id: DatabaseId,
        point: Option<StatePoint>,
        pin: u64,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Chain> {
        write_coalesced(self, Scope::Pins, |tx| {
            let chain = chain::resolve(tx, id, point)?;
            let layers: Vec<LayerId> = chain.layers.iter().map(|layer| layer.id).collect();
            pins::write(tx, pin, holder, &layers, ttl)?;
            Ok(chain)
        })
    }

    fn chain(&self, id: DatabaseId, point: Option<StatePoint>) -> Result<Chain> {
        read(self, |tx| chain::resolve(tx, id, point))
    }

    fn set_pin(&self, pin: u64, holder: &Holder, layers: &[LayerId], ttl: Duration) -> Result<()> {
        write_coalesced(self, Scope::Pins, |tx| {
            pins::check(tx, pin, layers)?;
            pins::write(tx, pin, holder, layers, ttl)
        })
    }

    fn renew_pin(&self, pin: u64, ttl: Duration) -> Result<bool> {
        write_coalesced(self, Scope::Pins, |tx| pins::renew(tx, pin, ttl))
    }

    fn unpin(&self, pin: u64) -> Result<()> {
        write_coalesced(self, Scope::Pins, |tx| pins::end(tx, pin))
    }

    fn inventory(&self) -> Result<Inventory> {
        read(self, gc::inventory)
    }

    fn sweep(
        &self,
        grace: Duration,
        dry_run: bool,
        mark: &mut dyn FnMut(&Inventory) -> Vec<LayerId>,
    ) -> Result<Vec<LayerRow>> {
        if dry_run {
            read(self, |tx| Ok(gc::plan(tx, grace, mark)?.deleted))
        } else {
            write(self, Scope::All, |tx| {
                let plan = gc::plan(tx, grace, mark)?;
                gc::carry_out(tx, &plan)?;
                Ok(plan.deleted)
            })
        }
    }

    fn knows_layer(&self, layer: LayerId) -> Result<bool> {
        read(self, |tx| layers::is_known(tx, layer))
    }

    fn segments(&self, layer: LayerId) -> Result<Vec<Segment>> {
        let found = read(self, |tx| layers::find(tx, layer))?;
        Ok(found.map_or_else(Vec::new, |row| row.segments))
    }

    fn knows_object(&self, key: &str) -> Result<bool> {
        read(self, |tx| segments::is_known(tx, key))
    }

    fn garbage(&self, older_than: Duration) -> Result<Vec<String>> {
        read(self, |tx| segments::garbage(tx, older_than))
    }

    fn condemn(&self, keys: &[String], remembered: Duration) -> Result<Vec<String>> {
        write(self, Scope::All, |tx| {
            segments::condemn(tx, keys, remembered)
        })
    }

    fn forget_garbage(&self, keys: &[String]) -> Result<()> {
        write_coalesced(self, Scope::All, |tx| segments::forget(tx, keys))
    }

    fn changes(&self) -> Option<Arc<Changes>> {
        self.watch()
    }
}

impl<D: Driver> Service for D {
    fn announce_worker(&self, worker: &Worker) -> Result<()> {
        write_coalesced(self, Scope::Pins, |tx| service::announce(tx, worker))
    }

    fn workers(&self, ttl: Duration) -> Result<Vec<KnownWorker>> {
        read(self, |tx| service::workers(tx, ttl))
    }

    fn remove_worker(&self, id: WorkerId) -> Result<()> {
        write_coalesced(self, Scope::Pins, |tx| service::remove_worker(tx, id))
    }

    fn add_token(&self, token: &NewToken) -> Result<Token> {
        write(self, Scope::All, |tx| service::add_token(tx, token))
    }

    fn tokens(&self) -> Result<Tokens> {
        read(self, service::tokens)
    }

    fn revoke_token(&self, id: TokenId) -> Result<Token> {
        write(self, Scope::All, |tx| service::revoke_token(tx, id))
    }

    fn signing_keys(&self, renew_after: Duration, keep: Duration) -> Result<Vec<SigningKey>> {
        let (now, keys) = read(self, service::signing_keys)?;
        if !service::wants_new_key(&keys, now, renew_after) {
            return Ok(keys);
        }
        write(self, Scope::All, |tx| {
            service::renew_signing_keys(tx, renew_after, keep)
        })
    }
}
