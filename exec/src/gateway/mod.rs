//! The gateway: one address for all databases of a store, whatever workers there are behind it.
//!
//! A call comes in (`service`); who calls is settled first. A statement is parsed by DuckDB's own parser,
//! waits for its turn (`queue`), goes to the worker that should run it (`route`, `fleet`, `member`), and
//! what comes back gets a handle that any replica of the gateway understands. Result streams go by
//! without being looked into (`relay`). Statements that are operations of the store are carried out here
//! (`operations`). `running` knows what is under way; `log` and `metrics` are told when it is over.
//!
//! What must stay true: no right is decided by the text of a statement but by its parse tree, and no
//! statement reaches a worker for a caller who has no right to its database; nothing that a replica knows
//! alone is needed to serve a handle; a slow client holds up its own results alone.

pub mod announce;
mod execute;
pub mod extensions;
pub mod fleet;
pub mod local;
pub mod log;
pub mod member;
mod metrics;
pub mod operations;
pub mod queue;
mod relay;
mod route;
mod running;
mod service;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use layerd::store::Store;

pub use self::service::GatewayService;

use self::fleet::Fleet;
use self::log::{QueryLog, SqlKept};
use self::metrics::Metrics;
use self::operations::Operations;
use self::queue::{Limits, Queue};
use self::running::Running;
use crate::access::Gate;
use crate::access::handle::KeyRing;

/// How often what nobody uses any more is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What a gateway is told.
pub struct Config {
    /// Limits on what runs at once.
    pub limits: Limits,
    /// The most that one request may have, in bytes: SQL, parameters and inputs together.
    pub request_bytes_max: usize,
    /// Where the log of finished statements is.
    pub log_directory: PathBuf,
    /// Its size, in bytes; up to twice that is kept.
    pub log_bytes_max: u64,
    /// What of a statement's text is kept there.
    pub log_sql: SqlKept,
}

/// The largest request: 16 MiB of SQL, or a chunk of an input, with room around it.
pub const REQUEST_BYTES_MAX: usize = 24 << 20;
/// The log's size, unless the operator says.
pub const LOG_BYTES_MAX: u64 = 16 << 20;

/// A gateway. It lives as long as something of it is in use.
pub struct Gateway {
    store: Arc<Store>,
    gate: Arc<dyn Gate>,
    keys: Arc<KeyRing>,
    fleet: Arc<Fleet>,
    queue: Arc<Queue>,
    running: Arc<Running>,
    operations: Operations,
    log: Arc<QueryLog>,
    metrics: Arc<Metrics>,
    request_bytes_max: usize,
}

impl Gateway {
    /// A gateway to the workers of `fleet`, for whom `gate` lets in. Begins its housekeeping, so it must
    /// be called within a runtime.
    ///
    /// # Errors
    /// Where the log can't be written.
    pub fn new(
        config: Config,
        store: Arc<Store>,
        gate: Arc<dyn Gate>,
        fleet: Arc<Fleet>,
    ) -> io::Result<Arc<Gateway>> {
        let log = QueryLog::open(&config.log_directory, config.log_bytes_max, config.log_sql)?;
        let log = Arc::new(log);
        let metrics = Arc::new(Metrics::default());
        let running = Running::new({
            let (log, metrics) = (Arc::clone(&log), Arc::clone(&metrics));
            Arc::new(move |finished| {
                log.add(finished);
                metrics.finished(finished);
            })
        });
        let gateway = Arc::new(Gateway {
            keys: Arc::new(KeyRing::new(Arc::clone(&store))),
            operations: Operations::default(),
            queue: Queue::new(config.limits),
            store,
            gate,
            fleet,
            running,
            log,
            metrics,
            request_bytes_max: config.request_bytes_max,
        });
        tokio::spawn(Arc::clone(&gateway.fleet).follow_catalog());
        tokio::spawn(Arc::clone(&gateway.keys).follow_catalog());
        let weak = Arc::downgrade(&gateway);
        tokio::spawn(async move {
            while let Some(gateway) = weak.upgrade() {
                gateway.sweep();
                drop(gateway);
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        });
        Ok(gateway)
    }

    fn sweep(&self) {
        self.running.sweep();
        self.operations.sweep();
        if let Some(local) = self.fleet.local() {
            let running = self.running.shown();
            local.end_idle(|database| running.iter().any(|one| one.database == database));
        }
    }

    /// Whether it can do its work: the catalog answers. Blocks.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), String> {
        self.store
            .catalog()
            .workers(Duration::ZERO)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// Its metrics, in the OpenMetrics text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        let (running, waiting) = self.queue.counts();
        self.metrics
            .text(running, waiting, &self.fleet.all(), self.log.dropped())
    }

    /// Statements that run, or whose results are being read.
    #[must_use]
    pub fn running_count(&self) -> usize {
        self.running.count()
    }
}
