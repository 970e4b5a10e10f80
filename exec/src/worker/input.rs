//! An input of a statement: a bounded queue between the calls that append to it and DuckDB's scan.
//!
//! An append is answered when its chunk is in the queue, and waits while that is full: this is the
//! client's backpressure. Chunks are taken in the order of their numbers; one that was taken already is
//! passed over, so an append may be repeated. DuckDB's threads never wait here: the scan is parked, and
//! woken by the next append.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tonic::Status;

use crate::wire::input::{InputDecoder, InputError};

/// How long a chunk waits for those before it: calls of one client may overtake each other.
const GAP_PATIENCE: Duration = Duration::from_secs(1);

/// Chunks up to this size are decoded where they arrive; larger ones would hold other calls up.
const DECODED_HERE_BYTES_MAX: usize = 64 * 1024;

/// Rows on their way into a statement.
#[derive(Debug)]
pub struct InputQueue {
    name: String,
    schema: SchemaRef,
    bytes_max: usize,
    state: Mutex<State>,
    /// Room came, a chunk was taken, or it is over.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    batches: VecDeque<(RecordBatch, usize)>,
    bytes: usize,
    next_chunk: u64,
    /// `None` while a chunk is decoded.
    decoder: Option<InputDecoder>,
    has_last: bool,
    /// The statement reads no more of it: what comes is dropped.
    is_closed: bool,
    failure: Option<String>,
    waker: Option<Waker>,
    appends: usize,
    used: Instant,
}

/// The end that DuckDB reads.
#[derive(Debug)]
pub struct InputRows(Arc<InputQueue>);

impl InputQueue {
    /// A queue for the input `name`.
    ///
    /// # Errors
    ///
    /// The schema is none.
    pub fn new(name: &str, schema: Bytes, bytes_max: usize) -> Result<Arc<InputQueue>, InputError> {
        let decoder = InputDecoder::new(name, schema)?;
        Ok(Arc::new(InputQueue {
            name: name.to_owned(),
            schema: Arc::clone(decoder.schema()),
            bytes_max,
            state: Mutex::new(State {
                batches: VecDeque::new(),
                bytes: 0,
                next_chunk: 0,
                decoder: Some(decoder),
                has_last: false,
                is_closed: false,
                failure: None,
                waker: None,
                appends: 0,
                used: Instant::now(),
            }),
            changed: Notify::new(),
        }))
    }

    /// The name that the SQL uses.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The end that DuckDB reads; there is one.
    pub fn rows(self: &Arc<Self>) -> InputRows {
        InputRows(Arc::clone(self))
    }

    /// Whether the last chunk came.
    pub fn is_complete(&self) -> bool {
        self.state.lock().has_last
    }

    /// How long nothing came, while more should.
    pub fn idle(&self) -> Option<Duration> {
        let state = self.state.lock();
        (!state.has_last && state.appends == 0).then(|| state.used.elapsed())
    }

    /// Takes a chunk once those before it are there and there is room.
    ///
    /// # Errors
    ///
    /// A gap in the numbers; bytes that are no Arrow IPC, after which the input has failed.
    pub async fn append(&self, chunk: u64, bytes: Bytes, is_last: bool) -> Result<(), Status> {
        self.state.lock().appends += 1;
        let _counted = Counted(self);
        let size = bytes.len();
        let gap_deadline = tokio::time::Instant::now() + GAP_PATIENCE;
        let mut decoder = loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let is_gap = {
                let mut state = self.state.lock();
                if chunk < state.next_chunk {
                    return Ok(());
                }
                if state.is_closed {
                    state.next_chunk = chunk + 1;
                    state.has_last |= is_last;
                    return Ok(());
                }
                if state.has_last {
                    return Err(Status::out_of_range(format!(
                        "input {:?}: chunk {chunk} comes behind the last one",
                        self.name
                    )));
                }
                let is_gap = chunk > state.next_chunk;
                let has_room = state.bytes == 0 || state.bytes + size <= self.bytes_max;
                if !is_gap
                    && has_room
                    && let Some(decoder) = state.decoder.take()
                {
                    break decoder;
                }
                is_gap.then_some(state.next_chunk)
            };
            match is_gap {
                None => changed.await,
                Some(next) => {
                    if tokio::time::timeout_at(gap_deadline, changed)
                        .await
                        .is_err()
                    {
                        return Err(Status::out_of_range(format!(
                            "input {:?}: chunk {chunk} came before chunk {next}",
                            self.name
                        )));
                    }
                }
            }
        };
        let decode = move || {
            let batches = decoder.chunk(bytes);
            (decoder, batches)
        };
        // Not to be cut short: a cancelled call must not take the decoder along.
        let decoded = if size <= DECODED_HERE_BYTES_MAX {
            decode()
        } else {
            let decoding = tokio::task::spawn_blocking(decode);
            let mut back = Returned {
                queue: self,
                is_back: false,
            };
            let decoded = decoding
                .await
                .map_err(|_| Status::unavailable("the worker is ending"))?;
            back.is_back = true;
            decoded
        };
        let (decoder, batches) = decoded;
        let mut state = self.state.lock();
        state.decoder = Some(decoder);
        let result = match batches {
            Ok(batches) => {
                let count = batches.len().max(1);
                for batch in batches.into_iter().filter(|batch| batch.num_rows() > 0) {
                    state.batches.push_back((batch, size / count));
                    state.bytes += size / count;
                }
                state.next_chunk = chunk + 1;
                state.has_last = is_last;
                Ok(())
            }
            Err(error) => {
                state.failure = Some(error.to_string());
                Err(error.into())
            }
        };
        self.wake(state);
        result
    }

    /// Ends it: the statement fails with this.
    pub fn fail(&self, why: impl Into<String>) {
        let mut state = self.state.lock();
        state.failure.get_or_insert_with(|| why.into());
        state.is_closed = true;
        self.wake(state);
    }

    fn wake(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        self.changed.notify_waiters();
    }
}

/// An append that is under way, however it ends.
struct Counted<'a>(&'a InputQueue);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.appends -= 1;
        state.used = Instant::now();
    }
}

/// Fails the input where a call is cut short between taking a chunk and queueing it.
struct Returned<'a> {
    queue: &'a InputQueue,
    is_back: bool,
}

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        if !self.is_back {
            self.queue.fail("an append was cancelled while it was read");
        }
    }
}

impl engine::RowSource for InputRows {
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<RecordBatch>, String>> {
        let mut state = self.0.state.lock();
        if let Some(why) = &state.failure {
            return Poll::Ready(Err(format!("input {:?}: {why}", self.0.name)));
        }
        if let Some((batch, bytes)) = state.batches.pop_front() {
            state.bytes -= bytes;
            drop(state);
            self.0.changed.notify_waiters();
            return Poll::Ready(Ok(Some(batch)));
        }
        if state.has_last {
            return Poll::Ready(Ok(None));
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for InputRows {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_closed = true;
        state.batches.clear();
        state.bytes = 0;
        drop(state);
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
