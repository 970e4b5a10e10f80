//! The two calls, as a worker answers them: what is checked before anything runs, and what a call waits
//! for.
//!
//! A call that is dropped before its answer interrupts its statement. A call with an idempotency key runs
//! on its own, so that its outcome is kept whoever still listens; and an append that is dropped changes
//! nothing, since it may be repeated.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::stream;
use proto::v1::{
    ErrorDetail, ExecuteQueryRequest, ExecuteQueryResponse, Options, Reason, StreamResultsRequest,
};
use tonic::{Code, Status};

use super::input::InputQueue;
use super::instances::Want;
use super::kept::{self, KEY_BYTES_MAX, Known};
use super::output::{Output, OutputOptions, Position};
use super::query::{Query, cancelled};
use super::session::{InUse, Slot, Taken};
use super::shared::Shared;
use super::statement::{Statement, Text};
use crate::access::Caller;
use crate::wire::body::{Item, Items};
use crate::wire::input::parameters;
use crate::wire::status::{refused, status};

const SQL_BYTES_MAX: usize = 16 << 20;
const INLINE_BYTES_MAX: u32 = 4 << 20;
const INPUT_COUNT_MAX: usize = 64;
const INPUT_NAME_BYTES_MAX: usize = 256;
const STREAM_COUNT_MAX: u32 = 64;
const MESSAGE_BYTES: u32 = 4 << 20;
const MESSAGE_BYTES_MIN: u32 = 64 << 10;
const HANDLE_TTL: Duration = Duration::from_secs(30);
const HANDLE_TTL_MAX: Duration = Duration::from_secs(600);

/// How long an answer waits for more of the rows that may come inside it.
const INLINE_PATIENCE: Duration = Duration::from_millis(50);

/// `ExecuteQuery`. `deadline` is the call's own.
///
/// # Errors
///
/// The call's status.
pub async fn execute(
    shared: &Arc<Shared>,
    caller: Caller,
    request: ExecuteQueryRequest,
    deadline: Option<Instant>,
) -> Result<ExecuteQueryResponse, Status> {
    if !request.query_id.is_empty() {
        return append(shared, &caller, request, deadline).await;
    }
    if shared.is_ending.load(Ordering::Relaxed) {
        return Err(refused(Reason::Unavailable, "the worker is ending"));
    }
    check(shared, &caller, &request)?;
    if request.idempotency_key.is_empty() {
        return begin(shared, caller, request, deadline, false).await;
    }
    let (running, is_old) = match shared.kept.look_up(&caller.token, &request)? {
        Known::New(running) => (running, false),
        Known::Old(running) => (running, true),
        Known::Same(outcome) => return kept::outcome(outcome).await,
    };
    // The guard ends with this call; the task goes on to tell the outcome.
    let (gone, is_gone) = tokio::sync::oneshot::channel::<()>();
    let shared = Arc::clone(shared);
    let task = tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = begin(&shared, caller, request, deadline, is_old) => outcome,
            _ = is_gone => Err(cancelled("its call was dropped")),
        };
        running.tell(&outcome);
        outcome
    });
    let outcome = task.await;
    drop(gone);
    outcome.unwrap_or_else(|_| Err(refused(Reason::Unavailable, "the worker is ending")))
}

/// What can be said of a request before it is looked at closely.
fn check(shared: &Shared, caller: &Caller, request: &ExecuteQueryRequest) -> Result<(), Status> {
    let invalid = |message: String| Err(Status::invalid_argument(message));
    if request.database.is_empty() || request.database.len() > 64 {
        return invalid("database: 1 to 64 bytes".to_owned());
    }
    caller.may_use(&request.database)?;
    if request.database != shared.config.database {
        return Err(Status::not_found(format!(
            "there is no database {:?} here",
            request.database
        )));
    }
    if request.sql.len() > SQL_BYTES_MAX {
        return Err(refused(
            Reason::Limit,
            format!("sql: {SQL_BYTES_MAX} bytes are the most"),
        ));
    }
    if request.idempotency_key.len() > KEY_BYTES_MAX {
        return invalid(format!("idempotency_key: at most {KEY_BYTES_MAX} bytes"));
    }
    if request.inputs.len() > INPUT_COUNT_MAX {
        return invalid(format!("inputs: at most {INPUT_COUNT_MAX}"));
    }
    let mut names = HashSet::new();
    for input in &request.inputs {
        if input.name.is_empty() || input.name.len() > INPUT_NAME_BYTES_MAX {
            return invalid(format!(
                "inputs: a name has 1 to {INPUT_NAME_BYTES_MAX} bytes"
            ));
        }
        if !names.insert(input.name.to_lowercase()) {
            return invalid(format!("inputs: {:?} is there twice", input.name));
        }
        if input.chunk_seq != 0 {
            return Err(Status::out_of_range(format!(
                "input {:?}: the first chunk has number 0, not {}",
                input.name, input.chunk_seq
            )));
        }
    }
    Ok(())
}

/// Begins a statement, and waits for its answer.
async fn begin(
    shared: &Arc<Shared>,
    caller: Caller,
    request: ExecuteQueryRequest,
    deadline: Option<Instant>,
    is_key_old: bool,
) -> Result<ExecuteQueryResponse, Status> {
    let options = request.options.unwrap_or_default();
    let inputs = request.inputs.iter().map(|input| {
        InputQueue::new(
            &input.name,
            input.schema.clone(),
            shared.config.limits.input_bytes,
        )
    });
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let parameters = match request.parameters.is_empty() {
        true => None,
        false => Some(parameters(request.parameters)?),
    };
    let read_only = if caller.read_only {
        Some(refused(
            Reason::NotAdmitted,
            "the statement changes the database, and this token may only read",
        ))
    } else if options.read_only {
        Some(refused(
            Reason::NeedsWriter,
            "the statement changes the database, and only a read was asked for",
        ))
    } else {
        None
    };
    let text = Text {
        sql: request.sql,
        parameters,
        settings: options.settings.clone().into_iter().collect(),
        read_only,
        placement: options.placement,
        message_bytes: match options.max_message_bytes {
            0 => MESSAGE_BYTES,
            bytes => bytes.max(MESSAGE_BYTES_MIN),
        } as usize,
        key: request.idempotency_key,
        is_key_old,
    };
    let want = match request.snapshot.is_empty() {
        false => Want::Snapshot(request.snapshot.clone()),
        true => Want::Newest {
            min_lsn: request.min_lsn,
            staleness: options
                .max_staleness_ms
                .map_or(shared.config.limits.staleness, Duration::from_millis),
        },
    };
    let session = match request.session_id.is_empty() {
        true => None,
        false => Some(shared.sessions.find(
            &caller.token,
            &request.session_id,
            &request.snapshot,
        )?),
    };
    let query = Arc::new(Query::new(
        caller.token,
        output(shared, &options),
        inputs,
        handle_ttl(&options),
    )?);
    shared.queries.add(&query)?;
    let mut guard = CallGuard {
        shared: Arc::clone(shared),
        query: Some(Arc::clone(&query)),
    };
    watch(
        &query,
        &options,
        deadline,
        shared.config.limits.statement_time,
    );
    let is_streaming = request.inputs.iter().any(|input| !input.last);
    for (queue, input) in query.inputs.iter().zip(request.inputs) {
        queue.append(0, input.batch, input.last).await?;
    }

    start(shared, &query, text, &want, session).await;
    if is_streaming {
        query.opened().await?;
        guard.keep();
        return Ok(ExecuteQueryResponse {
            query_id: query.id.clone(),
            ..ExecuteQueryResponse::default()
        });
    }
    let response = respond(shared, &query, options.inline_bytes).await?;
    guard.keep();
    Ok(response)
}

fn output(shared: &Shared, options: &Options) -> Output {
    Output::new(OutputOptions {
        streams: options.max_streams.clamp(1, STREAM_COUNT_MAX),
        is_resumable: options.resumable,
        inline_bytes: options.inline_bytes.min(INLINE_BYTES_MAX),
        resume_bytes: shared.config.limits.resume_bytes,
        result_bytes: shared.config.limits.result_bytes,
        budget: Arc::clone(&shared.budget),
        quota: Arc::clone(&shared.quota),
        scratch: shared.config.scratch.clone(),
    })
}

fn handle_ttl(options: &Options) -> Duration {
    match options.handle_ttl_ms {
        0 => HANDLE_TTL,
        ms => Duration::from_millis(ms.into()).min(HANDLE_TTL_MAX),
    }
}

/// Ends the statement when its time is over.
fn watch(query: &Arc<Query>, options: &Options, call: Option<Instant>, limit: Duration) {
    let time = match options.statement_timeout_ms {
        0 => limit,
        ms => limit.min(Duration::from_millis(ms)),
    };
    let end = query.begun + time;
    let query = Arc::clone(query);
    tokio::spawn(async move {
        let over = |message: String| {
            let detail = ErrorDetail {
                reason: Reason::Duckdb.into(),
                exception_type: "Interrupt".to_owned(),
                query_id: query.id.clone(),
                ..ErrorDetail::default()
            };
            query.cancel(status(Code::DeadlineExceeded, message, detail));
        };
        if let Some(call) = call.filter(|call| *call < end) {
            // The call's own deadline counts until its answer.
            tokio::select! {
                _ = query.answered() => {}
                () = tokio::time::sleep_until(call.into()) => {
                    return over("the call's deadline is over".to_owned());
                }
            }
        }
        tokio::select! {
            () = query.output.produced() => {}
            () = tokio::time::sleep_until(end.into()) => over(format!(
                "the statement took longer than {} ms and was interrupted",
                time.as_millis()
            )),
        }
    });
}

/// Waits for the statement's turn, and has it run. Where it can't, the query has failed.
async fn start(
    shared: &Arc<Shared>,
    query: &Arc<Query>,
    text: Text,
    want: &Want,
    session: Option<InUse>,
) {
    let ready = async {
        let taken = match session {
            Some(session) => session.enter().await,
            None => Taken::Own(Slot::default()),
        };
        let permit = Arc::clone(&shared.running).acquire_owned().await;
        let permit = permit.map_err(|_| refused(Reason::Unavailable, "the worker is ending"))?;
        let held = match &taken.held {
            Some(held) => {
                shared.instances.check_fresh(held, want).await?;
                Arc::clone(held)
            }
            None => shared.instances.find(want).await?,
        };
        Ok::<_, Status>((taken, permit, held))
    };
    tokio::select! {
        ready = ready => match ready {
            Ok((taken, permit, held)) => {
                let statement = Statement {
                    shared: Arc::clone(shared),
                    query: Arc::clone(query),
                    text,
                    taken,
                    held,
                    permit,
                };
                drop(tokio::task::spawn_blocking(move || statement.run()));
            }
            Err(status) => query.cancel(status),
        },
        // Cancelled, or too late, before it began.
        () = query.output.produced() => {}
    }
}

/// The answer to a statement, with its first rows where they were asked for.
async fn respond(
    shared: &Shared,
    query: &Arc<Query>,
    inline_bytes: u32,
) -> Result<ExecuteQueryResponse, Status> {
    let answer = match query.answered().await {
        Ok(answer) => answer,
        Err(status) => {
            shared.queries.remove(query);
            return Err(status);
        }
    };
    let inline = match inline_bytes.min(INLINE_BYTES_MAX) {
        0 => Vec::new(),
        bytes => query.output.inline(bytes as usize, INLINE_PATIENCE).await,
    };
    if matches!(inline.last(), Some(Item::Summary { .. })) && query.output.is_spent() {
        shared.queries.remove(query);
    }
    Ok(ExecuteQueryResponse {
        query_id: query.id.clone(),
        schema: answer.schema.clone(),
        streams: answer.streams,
        lsn: answer.lsn,
        columns: answer.columns.clone(),
        inline: inline.into_iter().map(Into::into).collect(),
        kind: answer.kind.into(),
        placement: answer.placement.clone(),
        schema_version: answer.schema_version,
        in_transaction: answer.in_transaction,
    })
}

/// More rows for the inputs of a statement that runs.
async fn append(
    shared: &Arc<Shared>,
    caller: &Caller,
    request: ExecuteQueryRequest,
    deadline: Option<Instant>,
) -> Result<ExecuteQueryResponse, Status> {
    let query = shared.queries.find(&request.query_id, &caller.token)?;
    let appending = async {
        for input in request.inputs {
            let queue = query.inputs.iter().find(|queue| queue.name() == input.name);
            let queue = queue.ok_or_else(|| {
                Status::invalid_argument(format!("the statement has no input {:?}", input.name))
            })?;
            // What the statement failed with says more than that it reads no more.
            let appended = queue.append(input.chunk_seq, input.batch, input.last).await;
            if let Some(failure) = query.output.failure() {
                return Err(failure);
            }
            appended?;
        }
        if query.inputs.iter().any(|input| !input.is_complete()) {
            return Ok(ExecuteQueryResponse {
                query_id: query.id.clone(),
                ..ExecuteQueryResponse::default()
            });
        }
        respond(shared, &query, query.output.inline_bytes()).await
    };
    match deadline {
        None => appending.await,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), appending)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the call's deadline is over"))),
    }
}

/// A call that waits for its statement's answer.
struct CallGuard {
    shared: Arc<Shared>,
    query: Option<Arc<Query>>,
}

impl CallGuard {
    fn keep(&mut self) {
        self.query = None;
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        if let Some(query) = self.query.take() {
            query.cancel(cancelled("its call was dropped"));
            self.shared.queries.remove(&query);
        }
    }
}

/// `StreamResults`. `deadline` is the call's own.
///
/// # Errors
///
/// The call's status.
pub fn stream(
    shared: &Arc<Shared>,
    caller: &Caller,
    request: &StreamResultsRequest,
    deadline: Option<Instant>,
) -> Result<Items, Status> {
    let query = shared.queries.find(&request.query_id, &caller.token)?;
    let position = query.output.open(request.stream, request.resume_after)?;
    let reading = Reading {
        shared: Arc::clone(shared),
        query,
        position,
    };
    let state = (reading, None::<std::vec::IntoIter<Item>>);
    let items = stream::try_unfold(state, move |(reading, dictionaries)| async move {
        let next = async {
            let mut dictionaries = match dictionaries {
                Some(dictionaries) => dictionaries,
                None => reading.query.output.dictionaries().await.into_iter(),
            };
            let item = match dictionaries.next() {
                Some(item) => Some(item),
                None => reading.query.output.next(reading.position).await?,
            };
            Ok::<_, Status>(item.map(|item| (item, dictionaries)))
        };
        let next = match deadline {
            None => next.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), next)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("the call's deadline is over"))),
        };
        Ok(next?.map(|(item, dictionaries)| (item, (reading, Some(dictionaries)))))
    });
    Ok(Box::pin(items))
}

/// A stream that is read.
struct Reading {
    shared: Arc<Shared>,
    query: Arc<Query>,
    position: Position,
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.query.output.lose(self.position) {
            self.query
                .cancel(cancelled("a stream of its result was dropped"));
            self.shared.queries.remove(&self.query);
        } else if self.query.output.is_done_with() {
            self.shared.queries.remove(&self.query);
        }
    }
}
