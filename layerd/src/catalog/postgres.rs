//! The catalog in a PostgreSQL database, for processes of several hosts.
//!
//! All tables are in a schema of their own, so that several stores, and other programs, can share
//! a database. Nothing but listening is kept in a session: every transaction sets what it needs,
//! so that a pooler may stand between (whose users are told of commits late, see `watch`).
//!
//! **Turns.** The calls' rules are written for one writer at a time. An advisory lock per store
//! gives that: a writing transaction takes it alone, or, where it changes one database only (a
//! head, a lease, a snapshot) or one pin, shared, together with the database's row. So writers of
//! different databases publish side by side. A transaction gets its lock before it reads anything,
//! and reads committed rows from then on; a reading one reads one snapshot and waits for nobody.
//!
//! **Nobody is waited for endlessly.** A process that is stopped while it holds the lock loses it
//! after 5 s, a statement ends after 30 s, and a cut network is noticed within 10 s. A call that
//! fails so says [`CatalogError::Unavailable`](super::CatalogError::Unavailable); it is begun anew
//! once if the connection was lost before the commit was sent.
//!
//! **Durability.** Every commit is durable, whatever the call asks for: the server can fail alone,
//! and a lease's renewal that it forgot would let a second writer in while the first one counts
//! on it.
//!
//! **Time** is the server's, read in the transaction behind its locks.

mod fault;
mod location;
mod schema;
mod tls;
mod tx;
mod watch;

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use tokio::runtime::Runtime;

use self::location::Location;
use self::tx::PostgresTx;
use super::sql::fault::{Fault, Outcome};
use super::sql::tx::{Driver, Turn, Tx};
use super::{Changes, Result};
use crate::id::Timestamp;

pub use self::location::is_postgres;

/// What tells the time instead of the server, in tests.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Connections of one process: a writer's publishing and its heartbeat, pins, and one to spare.
const CONNECTIONS_MAX: usize = 4;
/// How long a call waits for one of them; longer than a statement may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(35);
/// How long connecting may take, with all that is said before the first statement.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A catalog in a PostgreSQL database.
pub struct PostgresCatalog {
    location: Location,
    clock: Option<Clock>,
    pool: Pool,
    changes: OnceLock<Arc<Changes>>,
    /// Drives the connections; its threads end with the catalog.
    runtime: Background,
}

impl PostgresCatalog {
    /// Opens the catalog at a URL, and makes its tables if they are missing:
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with what libpq understands behind `?`, of
    /// which `sslmode` may be `disable`, `prefer`, `require`, `verify-ca` and `verify-full`,
    /// `sslrootcert` names a file of certificates to trust instead of the system's, and `schema`
    /// is the store's own (default `openduck`).
    pub fn open(url: &str) -> Result<PostgresCatalog> {
        PostgresCatalog::open_at(url, None)
    }

    /// As [`PostgresCatalog::open`], with a clock of the caller's.
    pub fn open_with_clock(url: &str, clock: Clock) -> Result<PostgresCatalog> {
        PostgresCatalog::open_at(url, Some(clock))
    }

    fn open_at(url: &str, clock: Option<Clock>) -> Result<PostgresCatalog> {
        let location = Location::parse(url)?;
        let name = location.name.clone();
        let open = || {
            let connector = tls::connector(&location.tls)?;
            let runtime = Background::start()?;
            let manager = Manager::from_config(
                location.config.clone(),
                connector,
                ManagerConfig {
                    recycling_method: RecyclingMethod::Fast,
                },
            );
            let pool = Pool::builder(manager)
                .max_size(CONNECTIONS_MAX)
                .wait_timeout(Some(CONNECTION_TIMEOUT))
                .create_timeout(Some(CONNECT_TIMEOUT))
                .runtime(deadpool_postgres::Runtime::Tokio1)
                .build()
                .map_err(|error| Fault::Unusable(error.to_string()))?;
            let catalog = PostgresCatalog {
                location,
                clock,
                pool,
                changes: OnceLock::new(),
                runtime,
            };
            schema::bring_up_to_date(&catalog)?;
            Ok(catalog)
        };
        open().map_err(|fault: Fault| fault.into_error(&name))
    }

    /// Runs `work` in a transaction, and once more if the connection was lost before the commit.
    fn run<T>(
        &self,
        turn: Turn,
        mut work: impl FnMut(&PostgresTx<'_>) -> Outcome<T>,
    ) -> Outcome<T> {
        match self.attempt(turn, &mut work) {
            Err(Fault::Lost(reason)) => {
                tracing::debug!(
                    reason,
                    "the connection to the catalog was lost; trying again"
                );
                // The others were lost with it.
                self.pool.retain(|_, _| false);
                self.attempt(turn, &mut work)
            }
            done => done,
        }
    }

    fn attempt<T>(
        &self,
        turn: Turn,
        work: &mut impl FnMut(&PostgresTx<'_>) -> Outcome<T>,
    ) -> Outcome<T> {
        let client = self
            .runtime
            .wait_for(self.pool.get())
            .map_err(fault::of_pool)?;
        let tx = PostgresTx::new(self, &client, turn);
        let done = match work(&tx) {
            Ok(done) => tx.commit().map(|()| done),
            Err(fault) => {
                tx.roll_back();
                Err(fault)
            }
        };
        if tx.is_broken() {
            // Not back into the pool: what it would answer next belongs to this call.
            drop(Object::take(client));
        }
        done
    }
}

impl Driver for PostgresCatalog {
    fn name(&self) -> &str {
        &self.location.name
    }

    fn clock(&self) -> Outcome<Timestamp> {
        self.run(Turn::Read, |tx| tx.now())
    }

    fn transact<T>(&self, turn: Turn, mut work: impl FnMut(&dyn Tx) -> Outcome<T>) -> Outcome<T> {
        self.run(turn, |tx| work(tx))
    }

    fn watch(&self) -> Option<Arc<Changes>> {
        let changes = self.changes.get_or_init(|| {
            let changes = Arc::new(Changes::default());
            watch::start(&self.runtime, &self.location, Arc::clone(&changes));
            changes
        });
        Some(Arc::clone(changes))
    }
}

/// A runtime of one thread beside the callers, which wait for it and need not be its tasks.
struct Background(Option<Runtime>);

impl Background {
    fn start() -> Outcome<Background> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postgres")
            .enable_all()
            .build()
            .map_err(|error| Fault::Unusable(format!("no thread for it: {error}")))?;
        Ok(Background(Some(runtime)))
    }

    fn get(&self) -> Option<&Runtime> {
        self.0.as_ref()
    }

    /// Waits in the calling thread, which may be one of another runtime.
    fn wait_for<F: Future>(&self, future: F) -> F::Output {
        let _context = self.get().map(Runtime::enter);
        pollster::block_on(future)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Not by its own drop, which must not happen within another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
