//! What all parts of one worker share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::EngineError;
use proto::v1::Reason;
use tokio::sync::Semaphore;
use tonic::Status;

use super::budget::{Budget, Quota};
use super::config::{Config, Role};
use super::instances::Instances;
use super::journal::Journal;
use super::kept::Kept;
use super::query::Queries;
use super::session::Sessions;
use crate::wire::status::{self, Raised, refused};

/// DuckDB's name for the errors behind which an instance takes no more statements.
const FATAL: &str = "FATAL";

/// One worker's state.
#[derive(Debug)]
pub struct Shared {
    /// What it was told.
    pub config: Arc<Config>,
    /// DuckDB.
    pub instances: Arc<Instances>,
    /// Connections that live longer than a call.
    pub sessions: Sessions,
    /// Statements whose handles are good.
    pub queries: Queries,
    /// Answers to calls that may be repeated.
    pub kept: Arc<Kept>,
    /// What earlier lives did.
    pub journal: Arc<Journal>,
    /// Results in memory.
    pub budget: Arc<Budget>,
    /// Results on the disk.
    pub quota: Arc<Quota>,
    /// Places for statements that run.
    pub running: Arc<Semaphore>,
    /// No new statements are taken.
    pub is_ending: AtomicBool,
    /// Told when DuckDB has given its instance up.
    pub broken: tokio::sync::Notify,
    /// Commits since the last checkpoint.
    pub commits: AtomicU64,
    /// Paths that no message may show.
    pub hidden: Vec<String>,
}

impl Shared {
    /// What DuckDB raised, as a status, without the server's paths.
    pub fn raised(&self, error: EngineError) -> Status {
        if error.kind == FATAL {
            tracing::error!("DuckDB has given up: {error}");
            self.broken.notify_one();
        }
        let clean = |text: String| {
            self.hidden
                .iter()
                .fold(text, |text, path| text.replace(path, "…"))
        };
        let extra = error.extra.into_iter();
        let raised = Raised {
            message: clean(error.message),
            position: error.position,
            extra: extra.map(|(name, value)| (name, clean(value))).collect(),
            exception_type: error.kind,
        };
        status::raised(raised)
    }

    /// What a statement hears that would change a state which can't be changed.
    pub fn is_read_only_here(&self) -> Status {
        match self.config.role {
            Role::Reader => refused(
                Reason::NeedsWriter,
                "the statement changes the database, and this worker only reads",
            ),
            Role::Writer => Status::failed_precondition(
                "the statement changes the database, and a snapshot stays as it is",
            ),
        }
    }

    /// Counts a commit; after some of them the log is written into the database file, so that whoever
    /// opens a snapshot has little of it to replay.
    pub fn count_commit(&self) {
        let count = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        if count < self.config.limits.checkpoint_commits {
            return;
        }
        let Some(live) = self.instances.live() else {
            return;
        };
        self.commits.store(0, Ordering::Relaxed);
        let head = Arc::clone(self.instances.head());
        let retry = self.config.limits.checkpoint_commits;
        let checkpoint = move || {
            let _committing = head.committing();
            let Some(instance) = live.instance() else {
                return;
            };
            if let Err(error) = instance.checkpoint() {
                // Somebody writes; the next commits try again.
                tracing::debug!("a checkpoint after {retry} commits has to wait: {error}");
            }
            if let Err(error) = head.ask() {
                tracing::error!("asking the mount for its newest commit: {error}");
            }
        };
        drop(tokio::task::spawn_blocking(checkpoint));
    }
}
