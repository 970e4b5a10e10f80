//! One statement's result on its way out: a queue between the thread that runs the statement and the
//! streams that are read.
//!
//! Batches stand in the result's order, and a stream takes the first one whenever it can send: so one
//! reader gets all in order, several share the work, and a stream that nobody opens holds nothing up.
//! The queue is bounded in bytes; when it is full the running thread waits, unless the session wants
//! its connection back: then what does not fit goes to a [`Spool`].
//!
//! What must stay true: batch indexes have no gaps and grow within a stream; sequences have no gaps
//! within a stream; a stream ends once, with a summary, or with the error of all. A resumable stream
//! keeps what it handed out last, so that the same sequence always means the same batch.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use proto::v1::Summary;
use tokio::sync::Notify;
use tonic::{Code, Status};

use super::budget::{Budget, Quota};
use super::spool::{Place, Spool, SpoolError};
use crate::wire::batch::Message;
use crate::wire::body::Item;
use crate::wire::status::refused;
use proto::v1::Reason;

/// What an [`Output`] is made of.
#[derive(Clone, Debug)]
pub struct OutputOptions {
    /// How many streams it has, at least 1.
    pub streams: u32,
    /// Whether streams can be resumed.
    pub is_resumable: bool,
    /// How many bytes of it may come inside the answer.
    pub inline_bytes: u32,
    /// What a resumable stream keeps, in bytes.
    pub resume_bytes: usize,
    /// The most bytes that the result may have.
    pub result_bytes: Option<u64>,
    /// What may be in flight.
    pub budget: Arc<Budget>,
    /// What may be spilled.
    pub quota: Arc<Quota>,
    /// Where it is spilled to.
    pub scratch: PathBuf,
}

/// A result on its way out.
#[derive(Debug)]
pub struct Output {
    options: OutputOptions,
    state: Mutex<State>,
    /// For the running thread: there is room, or no need for it any more.
    room: Condvar,
    /// For streams, and whoever waits for rows: look again.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Unit>,
    /// Bytes of the queue that are in memory.
    queued_bytes: usize,
    /// The index of the next batch that is produced.
    next_index: u64,
    total_rows: u64,
    total_bytes: u64,
    dictionaries: Vec<Message>,
    spool: Option<Spool>,
    is_spooling: bool,
    produced: Produced,
    streams: Vec<Stream>,
}

#[derive(Debug)]
enum Produced {
    Running,
    Done(Totals),
    Failed(Status),
}

/// What is known of a statement when it has ended.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// The summary of stream 0, but for its rows and bytes.
    pub summary: Summary,
}

#[derive(Clone, Debug)]
struct Unit {
    index: u64,
    rows: u64,
    bytes: usize,
    payload: Payload,
}

#[derive(Clone, Debug)]
enum Payload {
    Memory(Message),
    Spooled(Place),
}

#[derive(Debug)]
struct Stream {
    /// The sequence of the next batch that is taken for it.
    next: u64,
    /// The sequence of the next item that its reader gets; below `next` while it is replayed.
    cursor: u64,
    rows: u64,
    bytes: u64,
    /// What was taken last, if it is resumable; ends below `next`.
    kept: VecDeque<Unit>,
    kept_bytes: usize,
    reader: Reader,
    /// Grows with each reader: an older one that still hangs on is told to end.
    generation: u64,
    has_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Never,
    Reading,
    Lost(Instant),
}

/// A reader's place in a stream.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    stream: u32,
    generation: u64,
}

/// Why the running thread shall not go on.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message())]
pub struct Stopped(pub Status);

impl Output {
    /// An empty one.
    pub fn new(options: OutputOptions) -> Output {
        let streams = (0..options.streams.max(1)).map(|_| Stream {
            next: 1,
            cursor: 1,
            rows: 0,
            bytes: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            reader: Reader::Never,
            generation: 0,
            has_ended: false,
        });
        Output {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                queued_bytes: 0,
                next_index: 0,
                total_rows: 0,
                total_bytes: 0,
                dictionaries: Vec::new(),
                spool: None,
                is_spooling: false,
                produced: Produced::Running,
                streams: streams.collect(),
            }),
            room: Condvar::new(),
            changed: Notify::new(),
            options,
        }
    }

    // --- The running thread's side.

    /// The dictionaries of all batches. Comes before the first of them.
    pub fn set_dictionaries(&self, dictionaries: Vec<Message>) {
        self.state.lock().dictionaries = dictionaries;
    }

    /// Adds a batch; waits for room, or spills.
    ///
    /// # Errors
    ///
    /// [`Stopped`] where the result is not wanted any more, or passes a limit.
    pub fn push(&self, message: Message, rows: u64) -> Result<(), Stopped> {
        let bytes = message.len();
        let mut state = self.state.lock();
        let over_limit = self
            .options
            .result_bytes
            .filter(|limit| state.total_bytes + bytes as u64 > *limit);
        if let Some(limit) = over_limit {
            return Err(Stopped(refused(
                Reason::Limit,
                format!("the result has more than {limit} bytes, which is this server's limit"),
            )));
        }
        loop {
            if let Produced::Failed(status) = &state.produced {
                return Err(Stopped(status.clone()));
            }
            if self.options.budget.admits(state.queued_bytes, bytes) {
                break;
            }
            if state.is_spooling {
                return self.push_spooled(state, &message, rows);
            }
            self.room.wait(&mut state);
        }
        self.options.budget.take(bytes);
        state.queued_bytes += bytes;
        state.enqueue(bytes, rows, Payload::Memory(message));
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Adds a batch to the spool. Only one thread pushes, so the order is kept without the lock.
    fn push_spooled(
        &self,
        mut state: parking_lot::MutexGuard<'_, State>,
        message: &Message,
        rows: u64,
    ) -> Result<(), Stopped> {
        let spool = state.spool.take();
        drop(state);
        let written = (|| {
            let mut spool = match spool {
                Some(spool) => spool,
                None => Spool::new(&self.options.scratch, Arc::clone(&self.options.quota))?,
            };
            let place = spool.write(message)?;
            Ok((spool, place))
        })();
        let (spool, place) = written.map_err(|error: SpoolError| match error {
            SpoolError::Full { .. } => Stopped(refused(Reason::Limit, error.to_string())),
            SpoolError::Disk(error) => {
                // Where the file is does not concern a client.
                tracing::error!("spilling a result: {error}");
                Stopped(Status::internal(
                    "spilling a result failed on the server's disk",
                ))
            }
        })?;
        let mut state = self.state.lock();
        state.spool = Some(spool);
        state.enqueue(message.len(), rows, Payload::Spooled(place));
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// Says that all batches are there.
    pub fn finish(&self, mut totals: Totals) {
        let mut state = self.state.lock();
        if matches!(state.produced, Produced::Running) {
            totals.summary.total_rows = state.total_rows;
            state.produced = Produced::Done(totals);
            state.spool = None;
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Ends it with an error, unless it has ended already. What waits in the queue is dropped. Returns
    /// whether it was still wanted.
    pub fn fail(&self, status: Status) -> bool {
        let mut state = self.state.lock();
        if state.has_ended() {
            return false;
        }
        state.produced = Produced::Failed(status);
        self.options.budget.give(state.queued_bytes);
        state.queued_bytes = 0;
        state.spool = None;
        let dropped = std::mem::take(&mut state.queue);
        drop(state);
        drop(dropped);
        self.room.notify_all();
        self.changed.notify_waiters();
        true
    }

    /// The error that it ended with.
    pub fn failure(&self) -> Option<Status> {
        match &self.state.lock().produced {
            Produced::Failed(status) => Some(status.clone()),
            Produced::Running | Produced::Done(_) => None,
        }
    }

    /// Whether all batches are there, or none will come.
    pub fn is_produced(&self) -> bool {
        !matches!(self.state.lock().produced, Produced::Running)
    }

    /// From now on what does not fit into memory goes to the disk: somebody waits for the connection.
    pub fn make_room(&self) {
        self.state.lock().is_spooling = true;
        self.room.notify_all();
    }

    /// Waits until all batches are there, or none will come.
    pub async fn produced(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_produced() {
                return;
            }
            changed.await;
        }
    }

    // --- The readers' side.

    /// How many bytes of it may come inside the answer.
    pub fn inline_bytes(&self) -> u32 {
        self.options.inline_bytes
    }

    /// How many streams it has.
    pub fn stream_count(&self) -> u32 {
        self.options.streams.max(1)
    }

    /// Takes the first rows for the answer: as many whole batches as `bytes` allow. Waits for more of
    /// them until the statement has ended, a batch does not fit, or `patience` is over. Where all of the
    /// result fitted, the last item is the summary.
    pub async fn inline(&self, bytes: usize, patience: Duration) -> Vec<Item> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut items = Vec::new();
        let mut left = bytes;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state.lock();
                if items.is_empty() && !state.dictionaries.is_empty() {
                    let size: usize = state.dictionaries.iter().map(Message::len).sum();
                    if size > left {
                        return items;
                    }
                    left -= size;
                    items.extend(state.dictionary_items());
                }
                while state.queue.front().is_some_and(|unit| {
                    unit.bytes <= left && matches!(unit.payload, Payload::Memory(_))
                }) {
                    let Some((sequence, unit)) = self.take(&mut state, 0) else {
                        break;
                    };
                    left -= unit.bytes;
                    if let Payload::Memory(message) = unit.payload {
                        items.push(Item::Batch {
                            message,
                            sequence,
                            batch_index: unit.index,
                        });
                    }
                    // The answer is its own: nothing of it is resumed.
                    let stream = &mut state.streams[0];
                    stream.cursor = stream.next;
                    stream.kept.clear();
                    stream.kept_bytes = 0;
                }
                if !state.queue.is_empty() {
                    return items;
                }
                match &state.produced {
                    Produced::Running => {}
                    Produced::Failed(_) => return items,
                    Produced::Done(_) => {
                        items.extend(state.end(0));
                        return items;
                    }
                }
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return items;
            }
        }
    }

    /// Opens a stream behind the sequence `resume_after`.
    ///
    /// # Errors
    ///
    /// The status of the call.
    pub fn open(&self, stream: u32, resume_after: u64) -> Result<Position, Status> {
        let mut state = self.state.lock();
        let count = state.streams.len();
        let Some(open) = state.streams.get_mut(stream as usize) else {
            return Err(Status::invalid_argument(format!(
                "stream {stream} of a result with {count}"
            )));
        };
        let first_kept = open.next - open.kept.len() as u64;
        match open.reader {
            Reader::Never => {
                // Behind what came inside the answer, said or not.
                if resume_after != 0 && resume_after + 1 != open.next {
                    return Err(Status::out_of_range(format!(
                        "stream {stream} was not read up to {resume_after}"
                    )));
                }
                open.cursor = open.next;
            }
            Reader::Reading | Reader::Lost(_) if !self.options.is_resumable => {
                return Err(Status::failed_precondition(format!(
                    "stream {stream} was read already, and did not ask to be resumable"
                )));
            }
            Reader::Reading | Reader::Lost(_) => {
                // A summary is made anew, so a reader may be behind the last batch.
                let from = if resume_after > open.next {
                    None
                } else {
                    Some((resume_after + 1).min(open.next)).filter(|from| *from >= first_kept)
                };
                let Some(from) = from else {
                    return Err(Status::out_of_range(format!(
                        "stream {stream} can be resumed from {} to {}, and not after {resume_after}",
                        first_kept - 1,
                        open.next - 1,
                    )));
                };
                open.cursor = from;
                open.has_ended = false;
            }
        }
        open.reader = Reader::Reading;
        open.generation += 1;
        let generation = open.generation;
        drop(state);
        self.changed.notify_waiters();
        Ok(Position { stream, generation })
    }

    /// The dictionaries, which each reader gets first. Waits for the first batch.
    pub async fn dictionaries(&self) -> Vec<Item> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state.lock();
                if state.next_index > 0 || !matches!(state.produced, Produced::Running) {
                    return state.dictionary_items().collect();
                }
            }
            changed.await;
        }
    }

    /// The next item of a stream; `None` behind its summary.
    ///
    /// # Errors
    ///
    /// What ended the statement, or that another reader took over.
    pub async fn next(&self, position: Position) -> Result<Option<Item>, Status> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let taken = {
                let mut state = self.state.lock();
                let stream = &state.streams[position.stream as usize];
                if stream.generation != position.generation {
                    return Err(Status::aborted("another call goes on with this stream"));
                }
                if stream.has_ended {
                    return Ok(None);
                }
                if let Produced::Failed(status) = &state.produced {
                    return Err(status.clone());
                }
                let taken = self.take(&mut state, position.stream);
                if taken.is_none()
                    && let Some(end) = state.end(position.stream)
                {
                    drop(state);
                    self.changed.notify_waiters();
                    return Ok(Some(end));
                }
                taken
            };
            let Some((sequence, unit)) = taken else {
                changed.await;
                continue;
            };
            let message = match unit.payload {
                Payload::Memory(message) => message,
                Payload::Spooled(place) => read(place).await?,
            };
            return Ok(Some(Item::Batch {
                message,
                sequence,
                batch_index: unit.index,
            }));
        }
    }

    /// The next batch for a stream: one that is replayed, or the first of the queue.
    fn take(&self, state: &mut State, stream: u32) -> Option<(u64, Unit)> {
        let replayed = &mut state.streams[stream as usize];
        if replayed.cursor < replayed.next {
            let back = (replayed.next - replayed.cursor) as usize;
            let at = replayed.kept.len().checked_sub(back)?;
            let unit = replayed.kept.get(at)?.clone();
            replayed.cursor += 1;
            return Some((replayed.cursor - 1, unit));
        }
        let unit = state.queue.pop_front()?;
        if let Payload::Memory(_) = unit.payload {
            state.queued_bytes -= unit.bytes;
            self.options.budget.give(unit.bytes);
            self.room.notify_all();
        }
        let stream = &mut state.streams[stream as usize];
        let sequence = stream.next;
        stream.next += 1;
        stream.cursor = stream.next;
        stream.rows += unit.rows;
        stream.bytes += unit.bytes as u64;
        if self.options.is_resumable {
            stream.kept_bytes += unit.bytes;
            stream.kept.push_back(unit.clone());
            while stream.kept_bytes > self.options.resume_bytes && stream.kept.len() > 1 {
                if let Some(oldest) = stream.kept.pop_front() {
                    stream.kept_bytes -= oldest.bytes;
                }
            }
        }
        Some((sequence, unit))
    }

    /// A reader is gone. Says whether the result is to be given up: it is, unless the stream was at its
    /// end, can be resumed, or has another reader.
    pub fn lose(&self, position: Position) -> bool {
        let mut state = self.state.lock();
        let stream = &mut state.streams[position.stream as usize];
        if stream.generation != position.generation {
            return false;
        }
        stream.reader = Reader::Lost(Instant::now());
        !stream.has_ended && !self.options.is_resumable
    }

    /// Since when nobody reads any stream, though one was opened; `None` while somebody does, or nobody
    /// ever did.
    pub fn lost_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        let mut since = None;
        for stream in &state.streams {
            match stream.reader {
                Reader::Reading => return None,
                Reader::Lost(at) => since = since.max(Some(at)),
                Reader::Never => {}
            }
        }
        since
    }

    /// Whether any stream was opened.
    pub fn was_opened(&self) -> bool {
        let state = self.state.lock();
        state
            .streams
            .iter()
            .any(|stream| stream.reader != Reader::Never)
    }

    /// Whether every stream was read to its end.
    pub fn is_spent(&self) -> bool {
        let state = self.state.lock();
        state.streams.iter().all(|stream| stream.has_ended)
    }

    /// Waits until every stream was read to its end, or none will be.
    pub async fn spent(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_spent() || self.failure().is_some() {
                return;
            }
            changed.await;
        }
    }

    /// Whether nobody can have a use for it: every stream was read to its end, and can't be resumed.
    pub fn is_done_with(&self) -> bool {
        !self.options.is_resumable && self.is_spent()
    }

    /// Rows and bytes that were produced so far.
    pub fn figures(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.total_rows, state.total_bytes)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.options.budget.give(self.state.get_mut().queued_bytes);
    }
}

impl State {
    fn enqueue(&mut self, bytes: usize, rows: u64, payload: Payload) {
        if !matches!(self.produced, Produced::Running) {
            // Given up while it was written to the disk; nobody will read it.
            return;
        }
        self.queue.push_back(Unit {
            index: self.next_index,
            rows,
            bytes,
            payload,
        });
        self.next_index += 1;
        self.total_rows += rows;
        self.total_bytes += bytes as u64;
    }

    fn has_ended(&self) -> bool {
        match self.produced {
            Produced::Running => false,
            Produced::Failed(_) => true,
            Produced::Done(_) => self.streams.iter().all(|stream| stream.has_ended),
        }
    }

    fn dictionary_items(&self) -> impl Iterator<Item = Item> {
        self.dictionaries.iter().map(|message| Item::Batch {
            message: message.clone(),
            sequence: 0,
            batch_index: 0,
        })
    }

    /// A stream's summary.
    fn end(&mut self, index: u32) -> Option<Item> {
        let Produced::Done(totals) = &self.produced else {
            return None;
        };
        let stream = self.streams.get_mut(index as usize)?;
        stream.has_ended = true;
        let figures = Summary {
            rows: stream.rows,
            bytes: stream.bytes,
            ..Summary::default()
        };
        let summary = match index {
            0 => Summary {
                rows: figures.rows,
                bytes: figures.bytes,
                ..totals.summary.clone()
            },
            _ => figures,
        };
        Some(Item::Summary {
            sequence: stream.next,
            summary,
        })
    }
}

async fn read(place: Place) -> Result<Message, Status> {
    let read = tokio::task::spawn_blocking(move || place.read()).await;
    match read {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(error)) => {
            tracing::error!("reading a spilled result: {error}");
            Err(Status::new(
                Code::Internal,
                "a spilled result can't be read back",
            ))
        }
        Err(_) => Err(refused(Reason::Unavailable, "the worker is ending")),
    }
}
