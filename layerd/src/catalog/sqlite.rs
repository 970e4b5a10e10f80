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
//! The calls themselves are those of `sql`; the modules here open the file and carry out queries.

mod fault;
mod open;
mod schema;
#[cfg(test)]
mod tests;
mod tx;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, TransactionBehavior};

use self::open::Access;
use self::tx::SqliteTx;
use super::Result;
use super::sql::fault::{Fault, Outcome};
use super::sql::tx::{Driver, Durability, Turn, Tx};
use crate::id::Timestamp;

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

    fn read<T>(&self, mut work: impl FnMut(&dyn Tx) -> Outcome<T>) -> Outcome<T> {
        let mut handle = self.handle.lock();
        let transaction = handle.connection.transaction()?;
        let found = work(&SqliteTx {
            connection: &transaction,
            now: (self.clock)(),
        });
        transaction.finish()?;
        match &self.access {
            Access::Frozen(stamp) if !stamp.still_holds() => Err(Fault::Unusable(
                "it was changed while it was read from a place where it can't be locked; try again"
                    .to_owned(),
            )),
            _ => found,
        }
    }

    /// The time that `work` gets is that after the wait for other writers.
    fn write<T>(
        &self,
        durability: Durability,
        mut work: impl FnMut(&dyn Tx) -> Outcome<T>,
    ) -> Outcome<T> {
        if self.is_read_only() {
            return Err(Fault::ReadOnly);
        }
        let mut handle = self.handle.lock();
        handle.set_durability(durability)?;
        let transaction = handle
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&SqliteTx {
            connection: &transaction,
            now: (self.clock)(),
        })?;
        transaction.commit()?;
        Ok(done)
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

impl Driver for SqliteCatalog {
    fn name(&self) -> &str {
        &self.name
    }

    fn clock(&self) -> Outcome<Timestamp> {
        Ok((self.clock)())
    }

    fn transact<T>(&self, turn: Turn, work: impl FnMut(&dyn Tx) -> Outcome<T>) -> Outcome<T> {
        match turn {
            Turn::Read => self.read(work),
            // There is one writer at a time, whatever it writes.
            Turn::Write(_, durability) => self.write(durability, work),
        }
    }
}
