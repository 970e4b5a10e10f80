//! One statement from its call to its last row, and the table of all of them.
//!
//! A [`Query`] is what the calls about one statement share: its result on its way out, the answer that
//! its first call waits for, its inputs, and the way to interrupt it. It says nothing of how it runs.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::Watch;
use parking_lot::Mutex;
use proto::v1::{Column, Operator, Reason, StatementKind};
use tokio::sync::watch;
use tonic::{Code, Status};

use super::input::InputQueue;
use super::output::Output;
use crate::wire::status::refused;

/// The pause before the first repetition of an interrupt, which doubles: one that comes just before
/// DuckDB begins is lost.
const INTERRUPT_PAUSE: Duration = Duration::from_millis(2);

/// One statement.
#[derive(Debug)]
pub struct Query {
    /// Its handle: 128 random bits, of use to its owner only.
    pub id: String,
    /// The token that it belongs to.
    pub owner: Arc<str>,
    /// Its result.
    pub output: Output,
    /// Its inputs.
    pub inputs: Vec<Arc<InputQueue>>,
    /// When its call came.
    pub begun: Instant,
    /// How long its result is kept unopened.
    pub handle_ttl: Duration,
    phase: watch::Sender<Phase>,
    /// What runs it now. Interrupts go through this lock, so that none hits the connection's next
    /// statement.
    running: Mutex<Option<Watch>>,
}

/// How far a statement is.
#[derive(Clone, Debug)]
pub enum Phase {
    /// It waits for its turn, or is being bound.
    Waiting,
    /// It is bound and reads its inputs.
    Bound,
    /// Its answer is there.
    Answered(Result<Arc<Answer>, Status>, Instant),
}

/// What the call about a statement is answered with, but for rows.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The encapsulated schema message.
    pub schema: Bytes,
    /// DuckDB's names and types.
    pub columns: Vec<Column>,
    /// What kind of statement it was.
    pub kind: StatementKind,
    /// The LSN that it reads, or its commit.
    pub lsn: u64,
    /// Where each operator runs.
    pub placement: Vec<Operator>,
    /// The session is inside a transaction.
    pub in_transaction: bool,
    /// How many streams it has.
    pub streams: u32,
    /// The schema that it saw, or left behind; 0: unknown.
    pub schema_version: u64,
}

impl Query {
    /// A statement whose call has come.
    pub fn new(
        owner: Arc<str>,
        output: Output,
        inputs: Vec<Arc<InputQueue>>,
        handle_ttl: Duration,
    ) -> Result<Query, Status> {
        Ok(Query {
            id: random_id()?,
            owner,
            output,
            inputs,
            begun: Instant::now(),
            handle_ttl,
            phase: watch::Sender::new(Phase::Waiting),
            running: Mutex::default(),
        })
    }

    /// Says that it is bound.
    pub fn bound(&self) {
        self.phase.send_replace(Phase::Bound);
    }

    /// Gives its answer, once.
    pub fn answer(&self, answer: Result<Answer, Status>) {
        self.phase.send_if_modified(|phase| {
            if matches!(phase, Phase::Answered(..)) {
                return false;
            }
            *phase = Phase::Answered(answer.map(Arc::new), Instant::now());
            true
        });
    }

    /// Waits for its answer.
    ///
    /// # Errors
    ///
    /// What it failed with.
    pub async fn answered(&self) -> Result<Arc<Answer>, Status> {
        match self
            .phase_when(|phase| matches!(phase, Phase::Answered(..)))
            .await
        {
            Phase::Answered(answer, _) => answer,
            Phase::Waiting | Phase::Bound => Err(lost()),
        }
    }

    /// Waits until it is bound, or answered already.
    ///
    /// # Errors
    ///
    /// What it failed with.
    pub async fn opened(&self) -> Result<(), Status> {
        match self
            .phase_when(|phase| !matches!(phase, Phase::Waiting))
            .await
        {
            Phase::Answered(Err(status), _) => Err(status),
            _ => Ok(()),
        }
    }

    async fn phase_when(&self, wanted: impl FnMut(&Phase) -> bool) -> Phase {
        let mut phase = self.phase.subscribe();
        match phase.wait_for(wanted).await {
            Ok(phase) => phase.clone(),
            Err(_) => Phase::Answered(Err(lost()), Instant::now()),
        }
    }

    /// When it was answered.
    pub fn answered_at(&self) -> Option<Instant> {
        match &*self.phase.borrow() {
            Phase::Answered(_, at) => Some(*at),
            Phase::Waiting | Phase::Bound => None,
        }
    }

    /// A connection runs it now, or does no more.
    pub fn set_running(&self, watch: Option<Watch>) {
        *self.running.lock() = watch;
    }

    /// Fails it, unless it has ended: its calls and streams get `status`, and what runs is interrupted.
    /// Returns at once.
    pub fn cancel(self: &Arc<Self>, status: Status) {
        for input in &self.inputs {
            input.fail(status.message());
        }
        let was_wanted = self.output.fail(status.clone());
        self.answer(Err(status));
        if was_wanted && self.interrupt() {
            let query = Arc::clone(self);
            tokio::spawn(async move {
                let mut pause = INTERRUPT_PAUSE;
                loop {
                    tokio::time::sleep(pause).await;
                    if !query.interrupt() {
                        return;
                    }
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            });
        }
    }

    /// Interrupts what runs; whether anything did.
    fn interrupt(&self) -> bool {
        let running = self.running.lock();
        running
            .as_ref()
            .inspect(|watch| watch.interrupt())
            .is_some()
    }
}

fn lost() -> Status {
    refused(Reason::Unavailable, "the worker is ending")
}

fn random_id() -> Result<String, Status> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Status::internal(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The status of a statement that a client does not want any more.
pub fn cancelled(why: &str) -> Status {
    Status::new(
        Code::Cancelled,
        format!("the statement was cancelled: {why}"),
    )
}

/// All statements of a worker whose handles are good.
#[derive(Debug)]
pub struct Queries {
    count_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    queries: HashMap<String, Arc<Query>>,
    /// Those without rows to read, oldest first: clients seldom come back for these.
    rowless: VecDeque<String>,
}

impl Queries {
    /// A table for `count_max` of them.
    pub fn new(count_max: usize) -> Queries {
        Queries {
            count_max,
            table: Mutex::default(),
        }
    }

    /// Adds one. Where there is no place, the oldest answered one without rows goes.
    ///
    /// # Errors
    ///
    /// The limit.
    pub fn add(&self, query: &Arc<Query>) -> Result<(), Status> {
        let mut table = self.table.lock();
        while table.queries.len() >= self.count_max {
            let Some(oldest) = table.rowless.pop_front() else {
                return Err(refused(
                    Reason::Limit,
                    format!(
                        "there are {} results already, which is this server's limit; read or drop some",
                        self.count_max
                    ),
                ));
            };
            table.queries.remove(&oldest);
        }
        table.queries.insert(query.id.clone(), Arc::clone(query));
        Ok(())
    }

    /// Says that one was answered and has no rows.
    pub fn is_rowless(&self, query: &Query) {
        let mut table = self.table.lock();
        if table.rowless.len() >= 2 * self.count_max {
            let Table { queries, rowless } = &mut *table;
            rowless.retain(|id| queries.contains_key(id));
        }
        table.rowless.push_back(query.id.clone());
    }

    /// The one with this handle, if it is the caller's.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND`, in the same words for those that never were and those of others.
    pub fn find(&self, id: &str, owner: &str) -> Result<Arc<Query>, Status> {
        let table = self.table.lock();
        let query = table.queries.get(id).filter(|query| *query.owner == *owner);
        query.cloned().ok_or_else(|| {
            refused(
                Reason::Gone,
                "there is no such result: it was read, dropped, or has expired",
            )
        })
    }

    /// Forgets one.
    pub fn remove(&self, query: &Query) {
        self.table.lock().queries.remove(&query.id);
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Query>> {
        self.table.lock().queries.values().cloned().collect()
    }
}
