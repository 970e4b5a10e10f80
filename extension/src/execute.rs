//! Running one statement: the call, and when it may be repeated.
//!
//! What is repeated: a call that was answered UNAVAILABLE, outside of sessions. Reads may always be
//! repeated, writes carry an idempotency key.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use bytes::Bytes;
use proto::v1::{ExecuteQueryRequest, ExecuteQueryResponse, Options};

use crate::channel::Client;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::ipc;
use crate::result::Rows;

/// How long a server that says that it is starting is asked again.
const STARTING_MAX: Duration = Duration::from_secs(30);
/// How long a server that can't be reached is.
const UNREACHABLE_MAX: Duration = Duration::from_secs(1);
/// Between the first tries, and between the later ones.
const PAUSE_MIN: Duration = Duration::from_millis(30);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A statement and how to run it. Texts that are empty are not sent.
#[derive(Clone, Debug, Default)]
pub struct Statement {
    /// The database.
    pub database: String,
    /// One statement.
    pub sql: String,
    /// The session that it belongs to; empty: none.
    pub session: String,
    /// The state that is read; empty: the newest.
    pub snapshot: String,
    /// Makes a repeated call harmless; empty: the statement only reads, or is in a session.
    pub idempotency_key: String,
    /// What is read is at least as new as this.
    pub min_lsn: u64,
    /// How much of the result may come with the answer, in bytes.
    pub inline_bytes: u32,
    /// The most streams that are wanted; 0: as the server likes.
    pub streams_max: u32,
    /// After how long the statement is interrupted, in ms; 0: as the server likes.
    pub timeout_ms: u64,
    /// Settings for this statement alone.
    pub settings: HashMap<String, String>,
    /// One row of parameters.
    pub parameters: Option<RecordBatch>,
    /// Whether a statement that writes is refused.
    pub read_only: bool,
}

impl Statement {
    /// The message.
    ///
    /// # Errors
    /// The parameters have no form on the wire.
    pub(crate) fn request(&self) -> Result<ExecuteQueryRequest, Failure> {
        let parameters = match &self.parameters {
            Some(batch) => Bytes::from(ipc::stream(batch)?),
            None => Bytes::new(),
        };
        Ok(ExecuteQueryRequest {
            database: self.database.clone(),
            sql: self.sql.clone(),
            session_id: self.session.clone(),
            snapshot: self.snapshot.clone(),
            min_lsn: self.min_lsn,
            idempotency_key: self.idempotency_key.clone(),
            parameters,
            options: Some(Options {
                inline_bytes: self.inline_bytes,
                max_streams: self.streams_max,
                statement_timeout_ms: self.timeout_ms,
                settings: self.settings.clone(),
                read_only: self.read_only,
                ..Options::default()
            }),
            ..ExecuteQueryRequest::default()
        })
    }

    /// Runs it. The result's rows are not asked for before they are.
    ///
    /// # Errors
    /// Whatever the other side raised, or the way there; an interrupt.
    pub fn run(&self, client: &Arc<Client>, interrupt: Interrupt) -> Result<Rows, Failure> {
        let request = self.request()?;
        let repeatable = self.session.is_empty();
        let answer = interrupt.wait(call(client, request, repeatable))?;
        Rows::new(client, answer, self.inline_bytes > 0)
    }
}

/// Calls, and calls again where that is allowed and may help.
pub(crate) async fn call(
    client: &Client,
    request: ExecuteQueryRequest,
    repeatable: bool,
) -> Result<ExecuteQueryResponse, Failure> {
    let begin = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let mut service = client.service()?;
        let failure = match service.execute_query(request.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => Failure::of(client.endpoint(), &status),
        };
        let patience = match failure.starting {
            true => STARTING_MAX,
            false => UNREACHABLE_MAX,
        };
        if !repeatable || !failure.again || begin.elapsed() + pause > patience {
            return Err(failure);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
