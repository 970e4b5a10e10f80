//! The catalog in one SQLite file, for all processes of one host.
//!
//! The file is in WAL mode: readers and the one writer of a moment do not wait for each other, and
//! a killed process leaves nothing to repair. Every writing call is one `BEGIN IMMEDIATE`
//! transaction, so what it read is still so when it commits; it waits for other writers' turns for
//! at most 30 s.
//!
//! **Durability.** One connection serves all calls and switches `synchronous` between them: FULL
//! syncs the WAL in the commit, NORMAL leaves it to the next checkpoint or FULL commit. The WAL is
//! one sequence, so a FULL commit makes all earlier ones durable too, and none can be lost from
//! between others. A second connection would cost every command another opening, and would save
//! only that a process's own calls wait for each other.
//!
//! **Callbacks** (`may_take`, `mark`) run inside the transaction, with the connection locked: they
//! must not call the catalog.
//!
//! The modules below each hold the calls about one thing, as plain functions over an open
//! transaction; opening, locking, committing and naming the catalog in errors is done here.

mod chain;
mod databases;
mod fault;
mod gc;
mod layers;
mod leases;
mod open;
mod pins;
mod replace;
mod schema;
mod segments;
mod snapshots;
#[cfg(test)]
mod tests;
mod values;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use self::fault::{Fault, Outcome};
use self::open::Access;
use super::{
    Base, Catalog, Chain, Database, Head, Holder, Inventory, LayerRow, Lease, NewSnapshot, Result,
    Rotation, Segment, Snapshot, StatePoint,
};
use crate::id::{
    DatabaseId, DatabaseName, Epoch, LayerId, Lsn, SnapshotId, SnapshotName, Timestamp,
};

/// What tells the time; the wall clock, except in tests.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A catalog in one SQLite file.
pub struct SqliteCatalog {
    /// The file's path, as errors name it.
    name: String,
    clock: Clock,
    access: Access,
    handle: Mutex<Handle>,
}

struct Handle {
    connection: Connection,
    synchronous: Option<Durability>,
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    /// It survives a power loss.
    Durable,
    /// It survives the process.
    Coalesced,
}

impl SqliteCatalog {
    /// Opens the catalog in the file `path`, and makes it if it is missing (not its directory).
    /// Where it can't be written it is opened for reading, see [`SqliteCatalog::is_read_only`].
    pub fn open(path: &Path) -> Result<SqliteCatalog> {
        SqliteCatalog::open_with_clock(path, wall_clock())
    }

    /// As [`SqliteCatalog::open`], with a clock of the caller's.
    pub fn open_with_clock(path: &Path, clock: Clock) -> Result<SqliteCatalog> {
        let name = path.display().to_string();
        match open::open(path) {
            Ok((connection, access)) => Ok(SqliteCatalog::new(name, clock, access, connection)),
            Err(fault) => Err(fault.into_error(&name)),
        }
    }

    /// A catalog of its own that is gone when it is dropped.
    pub fn open_in_memory() -> Result<SqliteCatalog> {
        let name = ":memory:".to_owned();
        match open::in_memory() {
            Ok(connection) => Ok(SqliteCatalog::new(
                name,
                wall_clock(),
                Access::ReadWrite,
                connection,
            )),
            Err(fault) => Err(fault.into_error(&name)),
        }
    }

    /// Whether the file could be opened for reading only: calls that would change it fail with
    /// [`CatalogError::ReadOnly`](super::CatalogError::ReadOnly).
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        !matches!(self.access, Access::ReadWrite)
    }

    fn new(name: String, clock: Clock, access: Access, connection: Connection) -> SqliteCatalog {
        let handle = Mutex::new(Handle {
            connection,
            synchronous: None,
        });
        SqliteCatalog {
            name,
            clock,
            access,
            handle,
        }
    }

    /// Runs `work` in one reading transaction.
    fn read<T>(&self, work: impl FnOnce(&Transaction<'_>, Timestamp) -> Outcome<T>) -> Result<T> {
        let run = || {
            let mut handle = self.handle.lock();
            let transaction = handle.connection.transaction()?;
            let found = work(&transaction, (self.clock)());
            transaction.finish()?;
            match &self.access {
                Access::Frozen(stamp) if !stamp.still_holds() => Err(Fault::Unusable(
                    "it was changed while it was read from a place where it can't be locked; try again"
                        .to_owned(),
                )),
                _ => found,
            }
        };
        run().map_err(|fault| fault.into_error(&self.name))
    }

    /// Runs `work` in one writing transaction, which is rolled back if it fails. The time it gets
    /// is that after the wait for other writers.
    fn write<T>(
        &self,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Outcome<T>,
    ) -> Result<T> {
        let run = || {
            if self.is_read_only() {
                return Err(Fault::ReadOnly);
            }
            let mut handle = self.handle.lock();
            handle.set_durability(durability)?;
            let transaction = handle
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction, (self.clock)())?;
            transaction.commit()?;
            Ok(done)
        };
        run().map_err(|fault| fault.into_error(&self.name))
    }

    fn write_durably<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Timestamp) -> Outcome<T>,
    ) -> Result<T> {
        self.write(Durability::Durable, work)
    }
}

impl Handle {
    fn set_durability(&mut self, durability: Durability) -> Outcome<()> {
        if self.synchronous != Some(durability) {
            let level = match durability {
                Durability::Durable => "FULL",
                Durability::Coalesced => "NORMAL",
            };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.synchronous = Some(durability);
        }
        Ok(())
    }
}

fn wall_clock() -> Clock {
    Arc::new(Timestamp::now)
}

impl Catalog for SqliteCatalog {
    fn now(&self) -> Result<Timestamp> {
        Ok((self.clock)())
    }

    fn create_database(
        &self,
        name: &DatabaseName,
        retention_s: u64,
        base: Option<(Base, Timestamp, u64)>,
    ) -> Result<Database> {
        self.write_durably(|tx, now| databases::create(tx, now, name, retention_s, base))
    }

    fn database(&self, name: &DatabaseName) -> Result<Database> {
        self.read(|tx, _| databases::by_name(tx, name))
    }

    fn database_by_id(&self, id: DatabaseId) -> Result<Database> {
        self.read(|tx, _| databases::by_id(tx, id))
    }

    fn databases(&self) -> Result<Vec<Database>> {
        self.read(|tx, _| databases::living(tx))
    }

    fn drop_database(&self, id: DatabaseId) -> Result<()> {
        self.write_durably(|tx, now| databases::remove(tx, now, id))
    }

    fn undrop_database(&self, name: &DatabaseName) -> Result<Database> {
        self.write_durably(|tx, _| databases::bring_back(tx, name))
    }

    fn set_retention(&self, id: DatabaseId, retention_s: u64) -> Result<()> {
        self.write_durably(|tx, _| databases::set_retention(tx, id, retention_s))
    }

    fn acquire_lease(
        &self,
        id: DatabaseId,
        holder: &Holder,
        ttl: Duration,
        may_take: &dyn Fn(&Lease) -> bool,
    ) -> Result<Lease> {
        self.write_durably(|tx, now| leases::acquire(tx, now, id, holder, ttl, may_take))
    }

    fn renew_lease(&self, id: DatabaseId, epoch: Epoch, ttl: Duration) -> Result<Lease> {
        self.write(Durability::Coalesced, |tx, now| {
            leases::renew(tx, now, id, epoch, ttl)
        })
    }

    fn want_lease(&self, id: DatabaseId) -> Result<()> {
        self.write(Durability::Coalesced, |tx, _| leases::want(tx, id))
    }

    fn release_lease(&self, id: DatabaseId, epoch: Epoch) -> Result<()> {
        self.write_durably(|tx, _| leases::release(tx, id, epoch))
    }

    fn lease(&self, id: DatabaseId) -> Result<Option<Lease>> {
        self.read(|tx, now| leases::held(tx, now, id))
    }

    fn add_layer(&self, epoch: Epoch, layer: &LayerRow) -> Result<()> {
        self.write_durably(|tx, _| layers::add(tx, epoch, layer))
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
        self.write(durability, |tx, now| {
            layers::publish(tx, now, id, epoch, head, segment)
        })
    }

    fn add_segment(
        &self,
        id: DatabaseId,
        epoch: Epoch,
        layer: LayerId,
        segment: &Segment,
    ) -> Result<()> {
        self.write_durably(|tx, now| layers::add_segment(tx, now, id, epoch, layer, segment))
    }

    fn rotate(&self, id: DatabaseId, epoch: Epoch, rotation: &Rotation, head: &Head) -> Result<()> {
        self.write_durably(|tx, now| layers::rotate(tx, now, id, epoch, rotation, head))
    }

    fn seal(
        &self,
        layer: LayerId,
        bytes: u64,
        hash: [u8; 32],
        segments: Option<&[Segment]>,
    ) -> Result<bool> {
        self.write_durably(|tx, now| layers::seal(tx, now, layer, bytes, hash, segments))
    }

    fn layers(&self, id: DatabaseId) -> Result<Vec<LayerRow>> {
        self.read(|tx, _| layers::living(tx, id))
    }

    fn find_lsn(&self, id: DatabaseId, lsn: Lsn) -> Result<Option<LayerRow>> {
        self.read(|tx, _| chain::find_lsn(tx, id, lsn))
    }

    fn replace_layers(
        &self,
        id: DatabaseId,
        old: &[LayerId],
        new: &[LayerRow],
        kept: &[Lsn],
    ) -> Result<()> {
        self.write_durably(|tx, now| replace::replace(tx, now, id, old, new, kept))
    }

    fn add_snapshot(&self, id: DatabaseId, snapshot: &NewSnapshot) -> Result<Snapshot> {
        self.write_durably(|tx, now| snapshots::add(tx, now, id, snapshot))
    }

    fn snapshots(&self, id: DatabaseId) -> Result<Vec<Snapshot>> {
        self.read(|tx, _| snapshots::of(tx, id))
    }

    fn snapshot_by_name(&self, id: DatabaseId, name: &SnapshotName) -> Result<Snapshot> {
        self.read(|tx, _| snapshots::by_name(tx, id, name))
    }

    fn snapshot_by_id(&self, id: DatabaseId, snapshot: SnapshotId) -> Result<Snapshot> {
        self.read(|tx, _| snapshots::by_id(tx, id, snapshot))
    }

    fn remove_snapshot(&self, id: DatabaseId, snapshot: SnapshotId) -> Result<()> {
        self.write_durably(|tx, _| snapshots::remove(tx, id, snapshot))
    }

    fn pin_chain(
        &self,
        id: DatabaseId,
        point: Option<StatePoint>,
        pin: u64,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Chain> {
        self.write(Durability::Coalesced, |tx, now| {
            let chain = chain::resolve(tx, id, point)?;
            let layers: Vec<LayerId> = chain.layers.iter().map(|layer| layer.id).collect();
            pins::write(tx, now, pin, holder, &layers, ttl)?;
            Ok(chain)
        })
    }

    fn chain(&self, id: DatabaseId, point: Option<StatePoint>) -> Result<Chain> {
        self.read(|tx, _| chain::resolve(tx, id, point))
    }

    fn set_pin(&self, pin: u64, holder: &Holder, layers: &[LayerId], ttl: Duration) -> Result<()> {
        self.write(Durability::Coalesced, |tx, now| {
            pins::check(tx, pin, layers)?;
            pins::write(tx, now, pin, holder, layers, ttl)
        })
    }

    fn renew_pin(&self, pin: u64, ttl: Duration) -> Result<bool> {
        self.write(Durability::Coalesced, |tx, now| {
            pins::renew(tx, now, pin, ttl)
        })
    }

    fn unpin(&self, pin: u64) -> Result<()> {
        self.write(Durability::Coalesced, |tx, _| pins::end(tx, pin))
    }

    fn inventory(&self) -> Result<Inventory> {
        self.read(|tx, now| gc::inventory(tx, now))
    }

    fn sweep(
        &self,
        grace: Duration,
        dry_run: bool,
        mark: &mut dyn FnMut(&Inventory) -> Vec<LayerId>,
    ) -> Result<Vec<LayerRow>> {
        if dry_run {
            self.read(|tx, now| Ok(gc::plan(tx, now, grace, mark)?.deleted))
        } else {
            self.write_durably(|tx, now| {
                let plan = gc::plan(tx, now, grace, mark)?;
                gc::carry_out(tx, now, &plan)?;
                Ok(plan.deleted)
            })
        }
    }

    fn knows_layer(&self, layer: LayerId) -> Result<bool> {
        self.read(|tx, _| layers::is_known(tx, layer))
    }

    fn knows_object(&self, key: &str) -> Result<bool> {
        self.read(|tx, _| segments::is_known(tx, key))
    }

    fn garbage(&self, older_than: Duration) -> Result<Vec<String>> {
        self.read(|tx, now| segments::garbage(tx, now, older_than))
    }

    fn forget_garbage(&self, keys: &[String]) -> Result<()> {
        self.write(Durability::Coalesced, |tx, _| segments::forget(tx, keys))
    }
}
