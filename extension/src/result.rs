//! A result: all its streams as one queue of batches, in the result's order.
//!
//! A task for each stream puts batches into the queue, a few ahead at most; callers take the batch with
//! the next place in the result, from as many threads as they like, and decode it themselves. Each
//! stream's places rise, so the next one is always at the head of some stream: nothing can wait in a circle.
//!
//! What must stay true: a result is complete, to its last row, or a failure. Who drops one cancels
//! what still runs of it, also where nothing was read.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use proto::v1::stream_results_response::Content;
use proto::v1::{
    Column, ExecuteQueryResponse, StatementKind, StreamResultsRequest, StreamResultsResponse,
    Summary,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::channel::Client;
use crate::failure::Failure;
use crate::interrupt::{ASKED_EVERY, Interrupt};
use crate::ipc;
use crate::runtime;

/// Batches of one stream that wait to be taken, at most: some 4 MiB each.
const AHEAD: usize = 4;

/// A result, or what is left of it.
#[derive(Debug)]
pub struct Rows {
    client: Arc<Client>,
    answer: ExecuteQueryResponse,
    schema: SchemaRef,
    queue: Arc<Queue>,
    reader: Mutex<Option<Arc<ipc::Reader>>>,
}

/// What [`Rows::next`] gives.
#[derive(Debug)]
pub enum Next {
    /// Rows, and their place in the result.
    Batch(u64, RecordBatch),
    /// There are no more.
    End,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Batches that came, by their place. The permit makes room for another of the same stream.
    batches: BTreeMap<u64, (Bytes, Option<OwnedSemaphorePermit>)>,
    /// The place of the batch that is taken next.
    next: u64,
    /// Dictionaries, the same in all streams: those of the one that came first.
    dictionaries: Vec<Bytes>,
    opened: bool,
    /// Streams that have not ended.
    open: u32,
    summary: Option<Summary>,
    failure: Option<Failure>,
    tasks: Vec<AbortHandle>,
}

impl Rows {
    /// What an answer brings. `inline`: rows were asked for inside of it.
    pub(crate) fn new(
        client: &Arc<Client>,
        mut answer: ExecuteQueryResponse,
        inline: bool,
    ) -> Result<Self, Failure> {
        let broken = |what: &dyn std::fmt::Display| Failure::broken(client.endpoint(), what);
        let schema = ipc::read_schema(&answer.schema).map_err(|error| broken(&error))?;
        if schema.fields().len() != answer.columns.len() {
            return Err(broken(&"columns and schema differ"));
        }
        let mut state = State::default();
        for response in std::mem::take(&mut answer.inline) {
            match response.content {
                Some(Content::Batch(bytes)) if response.sequence == 0 => {
                    state.dictionaries.push(bytes);
                }
                Some(Content::Batch(bytes)) => {
                    state.batches.insert(response.batch_index, (bytes, None));
                }
                Some(Content::Summary(summary)) if inline => {
                    state.summary = Some(summary);
                    state.opened = true;
                }
                _ => return Err(broken(&"rows that nobody asked for")),
            }
        }
        Ok(Self {
            client: Arc::clone(client),
            answer,
            schema: Arc::new(schema),
            queue: Arc::new(Queue {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
            reader: Mutex::default(),
        })
    }

    /// The Arrow schema.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// DuckDB's names and types of the columns.
    pub fn columns(&self) -> &[Column] {
        &self.answer.columns
    }

    /// How many streams feed it.
    pub fn streams(&self) -> u32 {
        self.answer.streams
    }

    /// The LSN that is read, or that was written.
    pub fn lsn(&self) -> u64 {
        let state = self.queue.state.lock();
        state
            .summary
            .as_ref()
            .map_or(self.answer.lsn, |summary| summary.lsn.max(self.answer.lsn))
    }

    /// What kind of statement it was.
    pub fn kind(&self) -> StatementKind {
        self.answer.kind()
    }

    /// The version of the database's schema; 0: unknown.
    pub fn schema_version(&self) -> u64 {
        self.answer.schema_version
    }

    /// The next batch in the result's order; of several threads that ask, each gets another.
    ///
    /// # Errors
    /// What the statement raised while it ran, a lost connection, an interrupt.
    pub fn next(&self, interrupt: Interrupt) -> Result<Next, Failure> {
        let (place, bytes, dictionaries) = {
            let mut state = self.queue.state.lock();
            if !state.opened {
                state.opened = true;
                self.open(&mut state)?;
            }
            loop {
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                let place = state.next;
                if let Some((bytes, _room)) = state.batches.remove(&place) {
                    state.next += 1;
                    break (place, bytes, state.dictionaries.clone());
                }
                if state.open == 0 {
                    return self.ended(&state);
                }
                self.queue.changed.wait_for(&mut state, ASKED_EVERY);
                if interrupt.is_raised() {
                    return Err(Failure::interrupted());
                }
            }
        };
        self.decode(&bytes, &dictionaries)
            .map(|batch| Next::Batch(place, batch))
    }

    /// All streams have ended: was that all?
    fn ended(&self, state: &State) -> Result<Next, Failure> {
        let broken = |what: &str| Err(Failure::broken(self.client.endpoint(), what));
        match &state.summary {
            None => broken("a result without an end"),
            Some(_) if !state.batches.is_empty() => broken("a result with a gap"),
            Some(_) => Ok(Next::End),
        }
    }

    fn decode(&self, bytes: &Bytes, dictionaries: &[Bytes]) -> Result<RecordBatch, Failure> {
        let broken =
            |error: arrow_schema::ArrowError| Failure::broken(self.client.endpoint(), error);
        let mut known = self.reader.lock();
        let reader = match &*known {
            Some(reader) => Arc::clone(reader),
            None => {
                let made = ipc::Reader::new(&self.schema, dictionaries).map_err(broken)?;
                Arc::clone(known.insert(Arc::new(made)))
            }
        };
        drop(known);
        reader.read(bytes).map_err(broken)
    }

    /// Opens all streams.
    fn open(&self, state: &mut State) -> Result<(), Failure> {
        let (_, runtime) = runtime::runtime()?;
        state.open = self.answer.streams;
        for stream in 0..self.answer.streams {
            let service = self.client.service()?;
            let request = StreamResultsRequest {
                query_id: self.answer.query_id.clone(),
                stream,
                resume_after: 0,
            };
            let queue = Arc::clone(&self.queue);
            let client = Arc::clone(&self.client);
            let task = runtime.spawn(async move {
                let read = read(service, request, &queue, client.endpoint()).await;
                let mut state = queue.state.lock();
                state.open -= 1;
                if let Err(failure) = read {
                    state.failure.get_or_insert(failure);
                }
                drop(state);
                queue.changed.notify_all();
            });
            state.tasks.push(task.abort_handle());
        }
        Ok(())
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        for task in state.tasks.drain(..) {
            task.abort();
        }
        if state.opened || self.answer.streams == 0 {
            return;
        }
        // Nobody reads it: a stream that is opened and dropped says so.
        if let (Ok((_, runtime)), Ok(mut service)) = (runtime::runtime(), self.client.service()) {
            let request = StreamResultsRequest {
                query_id: self.answer.query_id.clone(),
                ..StreamResultsRequest::default()
            };
            runtime.spawn(async move { drop(service.stream_results(request).await) });
        }
    }
}

/// Puts a stream's batches into the queue.
async fn read(
    mut service: crate::channel::Service,
    request: StreamResultsRequest,
    queue: &Queue,
    endpoint: &str,
) -> Result<(), Failure> {
    let of = |status: tonic::Status| Failure::of(endpoint, &status);
    let stream = request.stream;
    let room = Arc::new(Semaphore::new(AHEAD));
    let mut responses = service
        .stream_results(request)
        .await
        .map_err(of)?
        .into_inner();
    let mut dictionaries = Vec::new();
    while let Some(StreamResultsResponse {
        content,
        sequence,
        batch_index,
    }) = responses.message().await.map_err(of)?
    {
        match content {
            Some(Content::Batch(bytes)) if sequence == 0 => dictionaries.push(bytes),
            Some(Content::Batch(bytes)) => {
                let permit = Arc::clone(&room).acquire_owned().await.ok();
                let mut state = queue.state.lock();
                if state.dictionaries.is_empty() {
                    state.dictionaries = std::mem::take(&mut dictionaries);
                }
                state.batches.insert(batch_index, (bytes, permit));
                drop(state);
                queue.changed.notify_all();
            }
            Some(Content::Summary(summary)) => {
                if stream == 0 {
                    queue.state.lock().summary = Some(summary);
                }
                return Ok(());
            }
            None => return Err(Failure::broken(endpoint, "a response without content")),
        }
    }
    Err(Failure::broken(endpoint, "a stream without its end"))
}
