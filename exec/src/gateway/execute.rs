//! `ExecuteQuery`: from a client's request to a worker's answer.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::execution_service_client::ExecutionServiceClient;
use proto::v1::{ExecuteQueryRequest, ExecuteQueryResponse, Reason};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::Gateway;
use super::member::Member;
use super::operations;
use super::route::{Route, route};
use super::running::{Answer, Guard};
use super::service::pass_on;
use crate::access::Caller;
use crate::access::handle::{Handle, SealError};
use crate::wire::status::{Raised, detail, raised, refused};

/// The longest text of SQL, as the protocol says.
const SQL_BYTES_MAX: usize = 16 << 20;
/// Texts up to this length are parsed where they are; longer ones where they hold up nobody.
const SQL_BYTES_AT_ONCE: usize = 16 << 10;
/// The largest answer of a worker: 4 MiB of rows inside, and what stands around them.
const ANSWER_BYTES_MAX: usize = 24 << 20;
/// How often a statement that reached no worker is sent again.
const ATTEMPTS: usize = 5;

impl Gateway {
    /// Answers one call.
    pub(super) async fn execute(
        self: &Arc<Self>,
        metadata: MetadataMap,
        request: ExecuteQueryRequest,
    ) -> Result<ExecuteQueryResponse, Status> {
        let caller = self.gate.authenticate(&metadata).await?;
        if !request.query_id.is_empty() {
            return self.append(&caller, &metadata, request).await;
        }
        if request.sql.len() > SQL_BYTES_MAX {
            let why = format!("a statement has at most {SQL_BYTES_MAX} bytes; send rows as inputs");
            return Err(refused(Reason::Limit, why));
        }
        let statement = parse(&request.sql).await?;
        let guard = self.running.begin(&caller, &request.database, &request.sql);
        let entry = Arc::clone(guard.entry());
        let answering = async {
            if let Some(operation) = operations::recognise(&statement)? {
                // A worker would ask the same of any other statement.
                engine::admit::admit(&statement, &engine::admit::Policy::default())
                    .map_err(engine_error)?;
                return self.operate(&guard, &caller, operation, request).await;
            }
            check_name(&request.database)?;
            caller.may_use(&request.database)?;
            let place = self
                .queue
                .enter(&caller.token)
                .await
                .map_err(|full| refused(Reason::Limit, full.to_string()))?;
            guard.admitted(place);
            let is_read = statement.facts.is_plainly_read();
            self.run(&guard, &caller, &metadata, request, is_read).await
        };
        let answered = tokio::select! {
            answered = answering => answered,
            () = entry.cancel.cancelled() => Err(Status::cancelled("the query was cancelled")),
        };
        match answered {
            Ok((answer, kept)) => {
                if let Some(kept) = kept {
                    guard.answered(kept.of(&answer));
                }
                Ok(answer)
            }
            Err(status) => {
                tracing::debug!(query = format!("{:016x}", entry.number), code = ?status.code(), "a statement failed");
                guard.failed(&status);
                Err(status)
            }
        }
    }

    /// Runs a statement; what the caller's token does not allow is told in those words.
    async fn run(
        self: &Arc<Self>,
        guard: &Guard,
        caller: &Caller,
        metadata: &MetadataMap,
        request: ExecuteQueryRequest,
        is_read: bool,
    ) -> Result<(ExecuteQueryResponse, Option<Kept>), Status> {
        let routed = self.send_on(guard, caller, metadata, request, is_read);
        routed.await.map_err(|status| match reason(&status) {
            Reason::NeedsWriter if caller.read_only => {
                Status::permission_denied("this token may only read")
            }
            _ => status,
        })
    }

    /// Sends a statement to where it should run, and on to the writer where that one can't.
    async fn send_on(
        self: &Arc<Self>,
        guard: &Guard,
        caller: &Caller,
        metadata: &MetadataMap,
        request: ExecuteQueryRequest,
        is_read: bool,
    ) -> Result<(ExecuteQueryResponse, Option<Kept>), Status> {
        let is_guarded = caller.read_only
            || request
                .options
                .as_ref()
                .is_some_and(|options| options.read_only);
        if let Route::Reader { min_lsn } = route(&request, is_read)
            && let Some(reader) = self.fleet.reader(&request.database, min_lsn)
        {
            let mut asked = request.clone();
            asked.options.get_or_insert_default().read_only = true;
            match self.send(guard, &reader, caller, metadata, asked).await {
                Err(status) if goes_to_writer(&status, is_guarded) => {
                    tracing::debug!(reader = reader.name(), "a statement goes on to the writer");
                }
                answered => return answered,
            }
        }
        let mut asked = request;
        asked.options.get_or_insert_default().read_only |= caller.read_only;
        // A statement that only reads may run twice; another one is sent again only if it was not sent.
        let may_repeat = is_read && asked.session_id.is_empty();
        for attempt in 1.. {
            let writer = self.fleet.writer(&asked.database).await?;
            let sent = self
                .send(guard, &writer, caller, metadata, asked.clone())
                .await;
            let status = match sent {
                Ok(answered) => return Ok(answered),
                Err(status) => status,
            };
            let is_lost = status.code() == Code::Unavailable;
            if attempt < ATTEMPTS && is_lost && (may_repeat || was_not_sent(&status)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            return Err(status);
        }
        Err(Status::internal("no attempt was made"))
    }

    async fn send(
        &self,
        guard: &Guard,
        member: &Arc<Member>,
        caller: &Caller,
        metadata: &MetadataMap,
        request: ExecuteQueryRequest,
    ) -> Result<(ExecuteQueryResponse, Option<Kept>), Status> {
        guard.sent_to(member);
        let kept = Kept::of_request(&request);
        let mut answer = self.call(member, caller, metadata, request).await?;
        let handle = Handle {
            worker: member.id,
            query: std::mem::take(&mut answer.query_id),
        };
        answer.query_id = self.keys.seal(&handle, &caller.token).map_err(unsealed)?;
        Ok((answer, Some(kept.at(handle))))
    }

    async fn call(
        &self,
        member: &Arc<Member>,
        caller: &Caller,
        metadata: &MetadataMap,
        request: ExecuteQueryRequest,
    ) -> Result<ExecuteQueryResponse, Status> {
        let mut call = tonic::Request::new(request);
        member.credentials(caller, metadata, call.metadata_mut());
        pass_on(metadata, call.metadata_mut());
        let mut client = ExecutionServiceClient::new(member.channel())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
            .max_encoding_message_size(self.request_bytes_max + (1 << 20));
        match client.execute_query(call).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                member.saw(answer.lsn);
                Ok(answer)
            }
            Err(status) if is_of_transport(&status) => {
                member.is_down();
                Err(lost(status))
            }
            Err(status) if member.disowns(&status) => {
                member.is_down();
                let mut lost = lost(status);
                lost.set_source(Arc::new(NotSent));
                Err(lost)
            }
            Err(status) => Err(status),
        }
    }

    /// More rows for a statement that runs: goes to the worker that its handle names.
    async fn append(
        &self,
        caller: &Caller,
        metadata: &MetadataMap,
        mut request: ExecuteQueryRequest,
    ) -> Result<ExecuteQueryResponse, Status> {
        let gone = || refused(Reason::Gone, "there is no such statement, or it is over");
        let text = request.query_id;
        let handle = self.keys.open(&text, &caller.token).map_err(|_| gone())?;
        let member = self.fleet.find(handle.worker).await.ok_or_else(|| {
            let why = "the worker that ran this statement is gone; begin anew";
            refused(Reason::Unavailable, why)
        })?;
        let entry = self.running.with_handle(&handle);
        request.query_id = handle.query.clone();
        let kept = Kept::of_request(&request).at(handle);
        let calling = self.call(&member, caller, metadata, request);
        let answered = match &entry {
            None => calling.await,
            Some(entry) => tokio::select! {
                answered = calling => answered,
                () = entry.cancel.cancelled() => Err(Status::cancelled("the query was cancelled")),
            },
        };
        match answered {
            Ok(mut answer) => {
                answer.query_id = text;
                if let Some(entry) = &entry {
                    self.running.appended(entry, &kept.of(&answer));
                }
                Ok(answer)
            }
            Err(status) => {
                // A gap or a bad chunk fails its append, and not the statement.
                let is_of_append =
                    matches!(status.code(), Code::OutOfRange | Code::InvalidArgument);
                if let Some(entry) = entry.filter(|_| !is_of_append) {
                    self.running.failed(&entry, &status);
                }
                Err(status)
            }
        }
    }
}

/// What is remembered of a request for when it is answered.
pub(super) struct Kept {
    handle: Handle,
    unopened_ttl: Option<Duration>,
    is_resumable: bool,
}

impl Kept {
    fn of_request(request: &ExecuteQueryRequest) -> Kept {
        let options = request.options.as_ref();
        let ttl_ms = options.map_or(0, |options| options.handle_ttl_ms);
        Kept {
            handle: Handle {
                worker: layerd::id::WorkerId(0),
                query: String::new(),
            },
            unopened_ttl: (ttl_ms > 0).then(|| Duration::from_millis(ttl_ms.into())),
            is_resumable: options.is_some_and(|options| options.resumable),
        }
    }

    fn at(self, handle: Handle) -> Kept {
        Kept { handle, ..self }
    }

    fn of(self, answer: &ExecuteQueryResponse) -> Answer<'_> {
        Answer {
            handle: self.handle,
            streams: answer.streams,
            inline: &answer.inline,
            lsn: answer.lsn,
            unopened_ttl: self.unopened_ttl,
            is_resumable: self.is_resumable,
        }
    }
}

/// Operations need no database, all else does.
fn check_name(database: &str) -> Result<(), Status> {
    let parsed = database.parse::<layerd::id::DatabaseName>();
    parsed.map(drop).map_err(|_| {
        Status::invalid_argument(
            "the request names no database: a name has 1 to 63 of A-Z a-z 0-9 _ -",
        )
    })
}

/// The one statement in a text.
async fn parse(sql: &str) -> Result<engine::Statement, Status> {
    let parsed = if sql.len() <= SQL_BYTES_AT_ONCE {
        engine::parse(sql)
    } else {
        let sql = sql.to_owned();
        tokio::task::spawn_blocking(move || engine::parse(&sql))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
    };
    let mut statements = parsed.map_err(engine_error)?.into_iter();
    match (statements.next(), statements.next()) {
        (Some(statement), None) => Ok(statement),
        (None, _) => Err(Status::invalid_argument(
            "there is no statement in the text",
        )),
        _ => Err(Status::invalid_argument(
            "there are several statements in the text; send them one by one",
        )),
    }
}

/// What DuckDB raised, as a status.
pub(super) fn engine_error(error: engine::EngineError) -> Status {
    raised(Raised {
        exception_type: error.kind,
        message: error.message,
        position: error.position,
        extra: error.extra.into_iter().collect(),
    })
}

pub(super) fn unsealed(error: SealError) -> Status {
    tracing::error!(%error, "a handle can't be made");
    refused(
        Reason::Unavailable,
        "the result can't be named now, because the catalog does not answer; try again",
    )
}

fn reason(status: &Status) -> Reason {
    detail(status).map_or(Reason::Unspecified, |detail| detail.reason())
}

/// A reader could not do it, and the writer may.
fn goes_to_writer(status: &Status, is_guarded: bool) -> bool {
    match reason(status) {
        Reason::NeedsWriter => !is_guarded,
        _ => status.code() == Code::Unavailable,
    }
}

/// The status is not the worker's own: the connection failed.
fn is_of_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// What the client is told where a worker did not answer: whatever broke, it is UNAVAILABLE.
fn lost(status: Status) -> Status {
    tracing::debug!(%status, "a worker does not answer");
    let mut told = refused(
        Reason::Unavailable,
        "the worker does not answer, or went away while it ran the statement; \
         if the statement only reads, run it again",
    );
    if was_not_sent(&status) {
        told.set_source(Arc::new(NotSent));
    }
    told
}

/// A statement reached no worker.
#[derive(Debug, thiserror::Error)]
#[error("no worker got it")]
struct NotSent;

fn was_not_sent(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<NotSent>() || error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
