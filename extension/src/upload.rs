//! Rows on their way up, as the one input of a statement.
//!
//! Few rows go inside the statement's own call. More than that are cut into chunks, which one task
//! sends one after the other while the next is made; who pushes faster than the other side takes, waits.
//!
//! What must stay true: a statement whose upload is given up never finishes. (It is cancelled, or, where
//! that is lost, abandoned by the server after 30 s.)

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::v1::{ExecuteQueryRequest, ExecuteQueryResponse, Input, StreamResultsRequest};
use tokio::sync::{mpsc, oneshot};

use crate::channel::Client;
use crate::execute::{Statement, call};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::ipc;
use crate::result::Rows;
use crate::runtime;

/// How large a chunk becomes before it is sent.
const CHUNK_BYTES: usize = 4 << 20;

/// Chunks that wait to be sent, at most.
const CHUNKS_AHEAD: usize = 2;

/// A statement that gets its rows.
#[derive(Debug)]
pub struct Upload {
    client: Arc<Client>,
    statement: Statement,
    name: String,
    schema: Bytes,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    chunk: Vec<u8>,
    way: Option<Way>,
}

/// Chunks go in here, the statement's answer comes out there.
#[derive(Debug)]
struct Way {
    chunks: mpsc::Sender<(Bytes, bool)>,
    answer: oneshot::Receiver<Result<ExecuteQueryResponse, Failure>>,
}

impl Upload {
    /// Nothing is sent before there are rows enough.
    ///
    /// # Errors
    /// A type that can't travel.
    pub fn new(
        client: &Arc<Client>,
        statement: Statement,
        name: &str,
        schema: &Schema,
    ) -> Result<Self, Failure> {
        Ok(Self {
            client: Arc::clone(client),
            statement,
            name: name.to_owned(),
            schema: ipc::schema(schema)?.into(),
            state: Mutex::new(State {
                chunk: Vec::new(),
                way: None,
            }),
        })
    }

    /// Adds rows, in the order of the calls.
    ///
    /// # Errors
    /// What the statement raised meanwhile; an interrupt.
    pub fn push(&self, rows: &RecordBatch, interrupt: Interrupt) -> Result<(), Failure> {
        let mut message = Vec::with_capacity(rows.get_array_memory_size() + 4096);
        ipc::append(rows, &mut message)?;
        let mut state = self.state.lock();
        if state.chunk.is_empty() {
            state.chunk = message;
        } else {
            state.chunk.extend_from_slice(&message);
        }
        if state.chunk.len() < CHUNK_BYTES {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut state.chunk));
        self.send(&mut state, chunk, false, interrupt)
    }

    /// That was all: the statement's answer.
    ///
    /// # Errors
    /// What the statement raised; an interrupt.
    pub fn finish(&self, interrupt: Interrupt) -> Result<Rows, Failure> {
        let mut state = self.state.lock();
        let chunk = Bytes::from(std::mem::take(&mut state.chunk));
        if state.way.is_none() {
            let mut request = self.statement.request()?;
            request.inputs = vec![self.first(chunk, true)];
            let repeatable = self.statement.session.is_empty();
            let answer = interrupt.wait(call(&self.client, request, repeatable))?;
            return Rows::new(&self.client, answer, self.statement.inline_bytes > 0);
        }
        self.send(&mut state, chunk, true, interrupt)?;
        let Some(way) = state.way.take() else {
            return Err(Failure::io("the upload has ended already"));
        };
        let answer = interrupt.wait(async {
            way.answer
                .await
                .unwrap_or_else(|_| Err(Failure::io("the upload was given up")))
        })?;
        Rows::new(&self.client, answer, self.statement.inline_bytes > 0)
    }

    fn first(&self, batch: Bytes, last: bool) -> Input {
        Input {
            name: self.name.clone(),
            schema: self.schema.clone(),
            chunk_seq: 0,
            batch,
            last,
        }
    }

    fn send(
        &self,
        state: &mut State,
        chunk: Bytes,
        last: bool,
        interrupt: Interrupt,
    ) -> Result<(), Failure> {
        if state.way.is_none() {
            state.way = Some(self.begin()?);
        }
        let Some(way) = state.way.as_mut() else {
            return Ok(());
        };
        interrupt.wait(async {
            if way.chunks.send((chunk, last)).await.is_ok() {
                return Ok(());
            }
            // Nobody takes chunks any more: the answer says why.
            match (&mut way.answer).await {
                Ok(Err(failure)) => Err(failure),
                _ => Err(Failure::io("the upload was given up")),
            }
        })
    }

    fn begin(&self) -> Result<Way, Failure> {
        let (_, runtime) = runtime::runtime()?;
        let (chunks, taken) = mpsc::channel(CHUNKS_AHEAD);
        let (told, answer) = oneshot::channel();
        let mut request = self.statement.request()?;
        request.inputs = vec![self.first(Bytes::new(), false)];
        let (client, name) = (Arc::clone(&self.client), self.name.clone());
        let repeatable = self.statement.session.is_empty();
        runtime.spawn(async move {
            let answer = send_all(&client, request, repeatable, name, taken).await;
            drop(told.send(answer));
        });
        Ok(Way { chunks, answer })
    }
}

/// Sends chunks as they come. A channel that closes before the last one cancels the statement.
async fn send_all(
    client: &Client,
    first: ExecuteQueryRequest,
    repeatable: bool,
    name: String,
    mut chunks: mpsc::Receiver<(Bytes, bool)>,
) -> Result<ExecuteQueryResponse, Failure> {
    let query_id = call(client, first, repeatable).await?.query_id;
    let mut chunk_seq = 0;
    while let Some((batch, last)) = chunks.recv().await {
        chunk_seq += 1;
        let append = ExecuteQueryRequest {
            query_id: query_id.clone(),
            inputs: vec![Input {
                name: name.clone(),
                schema: Bytes::new(),
                chunk_seq,
                batch,
                last,
            }],
            ..ExecuteQueryRequest::default()
        };
        // A chunk that arrived already does nothing.
        let answer = call(client, append, true).await?;
        if last {
            return Ok(answer);
        }
    }
    if let Ok(mut service) = client.service() {
        let request = StreamResultsRequest {
            query_id,
            ..StreamResultsRequest::default()
        };
        drop(service.stream_results(request).await);
    }
    Err(Failure::interrupted())
}
