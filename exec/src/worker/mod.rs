//! One worker: stock DuckDB over one database, behind the two calls. Complete by itself: a client may
//! attach to it as to a gateway.
//!
//! A call is judged in `call`, waits for its session in `session`, runs in `statement` on a thread that
//! may block, and its rows leave through `output`, from where `endpoint` sends them. `instances` opens
//! the live database and snapshots over the directory that `mount` finds or makes, `lsn` knows how far it
//! is. `sweep` ends what nobody wants any more; `journal` remembers, over a sudden death, what a client
//! must be told.
//!
//! What must stay true: a slow client holds up its own statement and nobody else's; memory is bounded by
//! the arithmetic beside [`Limits`]; a statement that is not wanted any more is interrupted at once; a
//! write whose outcome is unknown is never run again.
//!
//! Left to others: who a caller is (`access`), the listening (`server`), where a statement should go
//! (`gateway`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use proto::v1::{ExecuteQueryRequest, ExecuteQueryResponse, Reason, StreamResultsRequest};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::access::Gate;
use crate::wire::body::Items;
use crate::wire::status::refused;

mod budget;
mod call;
mod claim;
mod config;
mod endpoint;
mod input;
mod instances;
mod journal;
mod kept;
mod lsn;
mod mount;
mod output;
mod query;
mod session;
mod shared;
mod spool;
mod statement;
mod sweep;

pub use claim::Claim;
pub use config::{Config, Limits, Place, Role};
pub use endpoint::Endpoint;
pub use mount::MountError;

/// How long statements that run may take to end when the worker does, once they were interrupted.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// A worker. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    shared: Arc<shared::Shared>,
    mount: Arc<mount::Mount>,
    gate: Arc<dyn Gate>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Worker")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Sessions that are there.
    pub sessions: usize,
    /// Results that are there, read or not.
    pub results: usize,
    /// Statements that run.
    pub running: usize,
    /// DuckDB instances that are open.
    pub instances: usize,
    /// Bytes of results in memory that are not sent yet.
    pub buffered_bytes: usize,
    /// The newest commit that it knows of.
    pub head_lsn: u64,
}

impl Worker {
    /// Opens the database, mounting it if need be, and serves who passes the gate. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    ///
    /// The database can't be mounted or opened.
    pub async fn open(config: Config, gate: Arc<dyn Gate>) -> anyhow::Result<Worker> {
        let opened = tokio::task::spawn_blocking(move || Worker::open_here(config, gate));
        let worker = opened.await.context("opening the database")??;
        tokio::spawn(sweep::run(Arc::clone(&worker.shared)));
        Ok(worker)
    }

    fn open_here(config: Config, gate: Arc<dyn Gate>) -> anyhow::Result<Worker> {
        let database = config.database.clone();
        std::fs::create_dir_all(&config.scratch)
            .with_context(|| format!("make the scratch directory {:?}", config.scratch))?;
        let mount = mount::Mount::open(&config.place, &database, config.role)
            .with_context(|| format!("mount {database}"))?;
        let mount = Arc::new(mount);
        let journal = match &config.journal {
            Some(path) => journal::Journal::open(path)
                .with_context(|| format!("open the journal {path:?}"))?,
            None => journal::Journal::default(),
        };
        let journal = Arc::new(journal);
        let config = Arc::new(config);
        let limits = &config.limits;
        let instances = instances::Instances::open(Arc::clone(&config), Arc::clone(&mount))
            .with_context(|| format!("open {database}"))?;
        let shared = Arc::new(shared::Shared {
            sessions: session::Sessions::new(
                limits.session_count,
                limits.session_idle,
                Arc::clone(&journal),
            ),
            queries: query::Queries::new(limits.result_count),
            kept: kept::Kept::new(limits.kept_answer_time, limits.kept_answer_bytes),
            journal,
            budget: Arc::new(budget::Budget::new(
                limits.buffer_bytes,
                limits.statement_buffer_bytes,
            )),
            quota: Arc::new(budget::Quota::new(limits.spill_bytes)),
            running: Arc::new(Semaphore::new(limits.statement_count)),
            is_ending: AtomicBool::new(false),
            broken: tokio::sync::Notify::new(),
            commits: AtomicU64::new(0),
            hidden: instances.hidden(),
            instances: Arc::new(instances),
            config,
        });
        Ok(Worker {
            shared,
            mount,
            gate,
        })
    }

    /// `ExecuteQuery`, in process.
    ///
    /// # Errors
    ///
    /// The call's status.
    pub async fn execute(
        &self,
        metadata: &MetadataMap,
        request: ExecuteQueryRequest,
    ) -> Result<ExecuteQueryResponse, Status> {
        let deadline = endpoint::deadline(metadata);
        let caller = self.gate.authenticate(metadata).await?;
        call::execute(&self.shared, caller, request, deadline).await
    }

    /// `StreamResults`, in process.
    ///
    /// # Errors
    ///
    /// The call's status.
    pub async fn stream(
        &self,
        metadata: &MetadataMap,
        request: &StreamResultsRequest,
    ) -> Result<Items, Status> {
        let deadline = endpoint::deadline(metadata);
        let caller = self.gate.authenticate(metadata).await?;
        call::stream(&self.shared, &caller, request, deadline)
    }

    /// What it is doing now.
    pub fn figures(&self) -> Figures {
        let shared = &self.shared;
        let limit = shared.config.limits.statement_count;
        Figures {
            sessions: shared.sessions.count(),
            results: shared.queries.all().len(),
            running: limit - shared.running.available_permits().min(limit),
            instances: shared.instances.count(),
            buffered_bytes: shared.budget.used(),
            head_lsn: shared.instances.head().known(),
        }
    }

    /// Returns when DuckDB has given its instance up (after a fatal error), so that only a new process
    /// can go on.
    pub async fn broken(&self) {
        self.shared.broken.notified().await;
    }

    /// Ends it: takes no more statements, waits up to `patience` for those that run, interrupts the
    /// rest, closes the database and takes its mount away.
    ///
    /// # Errors
    ///
    /// The mount stays; why.
    pub async fn close(&self, patience: Duration) -> Result<(), MountError> {
        let shared = &self.shared;
        shared.is_ending.store(true, Ordering::Relaxed);
        let deadline = tokio::time::Instant::now() + patience;
        let all_sent = async {
            for query in shared.queries.all() {
                if query.answered_at().is_none() || query.output.was_opened() {
                    query.output.spent().await;
                }
            }
        };
        let _ = tokio::time::timeout_at(deadline, all_sent).await;
        for query in shared.queries.all() {
            query.cancel(refused(Reason::Unavailable, "the worker is ending"));
            shared.queries.remove(&query);
        }
        shared.sessions.clear();
        let count = u32::try_from(shared.config.limits.statement_count).unwrap_or(u32::MAX);
        let ended = shared.running.acquire_many(count);
        if tokio::time::timeout(END_PATIENCE, ended).await.is_err() {
            tracing::warn!("a statement does not let itself be interrupted");
        }
        shared.instances.close().await;
        let mount = Arc::clone(&self.mount);
        let closed = tokio::task::spawn_blocking(move || mount.close()).await;
        closed.unwrap_or(Ok(()))
    }
}
