//! The statements that run, or whose results are being read, through this gateway.
//!
//! A statement is entered when it arrives and leaves once: when it failed, when it has no more to say, when
//! its streams are over, or when nobody came for them. Then its place in the queue is free, and what is
//! known of it goes to the log and the metrics. Cancelling it by its number works all that time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use layerd::id::{Timestamp, random_u64};
use parking_lot::Mutex;
use proto::v1::{StreamResultsResponse, Summary, stream_results_response::Content};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::log::{Finished, Outcome};
use super::member::{Busy, Member};
use super::queue::Place;
use super::relay;
use crate::access::Caller;
use crate::access::handle::Handle;

/// As much of a statement's text is remembered.
const SQL_BYTES_MAX: usize = 4096;
/// Results are kept by the worker for so long where nobody opens a stream, unless the client says.
const UNOPENED_TTL: Duration = Duration::from_secs(30);
/// What is added to that here, so that the worker is the one to say that it is over.
const UNOPENED_EXTRA: Duration = Duration::from_secs(2);
/// A lost stream may be resumed within this time.
const RESUME_TTL: Duration = Duration::from_secs(11);

/// Called with each statement that is over.
pub type OnFinished = Arc<dyn Fn(&Finished) + Send + Sync>;

/// All statements.
pub struct Running {
    entries: Mutex<Entries>,
    on_finished: OnFinished,
}

#[derive(Default)]
struct Entries {
    by_number: HashMap<u64, Arc<Entry>>,
    by_handle: HashMap<Handle, Arc<Entry>>,
}

/// One statement.
pub struct Entry {
    /// Its number, for logs and for cancelling.
    pub number: u64,
    /// Who sent it.
    pub caller: Caller,
    /// What it runs on.
    pub database: String,
    /// Its text, cut.
    pub sql: String,
    /// When it came.
    pub began: Timestamp,
    /// Cancels it.
    pub cancel: CancellationToken,
    came: Instant,
    bytes: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    place: Option<Place>,
    busy: Option<Busy>,
    handle: Option<Handle>,
    queued: Duration,
    answered: Option<Duration>,
    lsn: u64,
    rows: Option<u64>,
    streams: u32,
    streams_over: u32,
    streams_open: u32,
    unopened_ttl: Duration,
    is_resumable: bool,
    /// Since when nobody reads.
    left: Option<Instant>,
    failure: Option<(tonic::Code, String)>,
    is_over: bool,
}

/// What is told of a statement that runs.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its number.
    pub number: u64,
    /// Who sent it.
    pub token: Arc<str>,
    /// What it runs on.
    pub database: String,
    /// Its text.
    pub sql: String,
    /// `queued`, `running`, `reading` or `waiting` (for somebody to read).
    pub state: &'static str,
    /// When it came.
    pub began: Timestamp,
    /// How long ago.
    pub elapsed: Duration,
    /// The worker that runs it.
    pub worker: Option<String>,
    /// Bytes that went to the client.
    pub bytes: u64,
}

impl Running {
    /// Nothing runs.
    #[must_use]
    pub fn new(on_finished: OnFinished) -> Arc<Running> {
        Arc::new(Running {
            entries: Mutex::default(),
            on_finished,
        })
    }

    /// Enters a statement. It leaves when what is returned is dropped, unless it is kept for its streams.
    pub fn begin(self: &Arc<Self>, caller: &Caller, database: &str, sql: &str) -> Guard {
        let entry = Arc::new(Entry {
            number: random_u64(),
            caller: caller.clone(),
            database: database.to_owned(),
            sql: shortened(sql),
            began: Timestamp::now(),
            cancel: CancellationToken::new(),
            came: Instant::now(),
            bytes: AtomicU64::new(0),
            state: Mutex::default(),
        });
        let mut entries = self.entries.lock();
        entries.by_number.insert(entry.number, Arc::clone(&entry));
        Guard {
            running: Arc::clone(self),
            entry,
            is_kept: false,
        }
    }

    /// What runs, oldest first.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        let entries = self.entries.lock();
        let mut shown: Vec<Shown> = entries
            .by_number
            .values()
            .map(|entry| entry.show())
            .collect();
        shown.sort_by_key(|shown| (shown.began, shown.number));
        shown
    }

    /// How many run.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.lock().by_number.len()
    }

    /// Cancels a statement, if the caller may: his own, or any where he has a right to all databases.
    /// Returns the handle whose result lies at a worker, and that worker.
    #[must_use]
    pub fn cancel(&self, number: u64, caller: &Caller) -> Option<Cancelled> {
        let entry = self.entries.lock().by_number.get(&number).cloned()?;
        let is_operator = caller.databases == crate::access::Databases::All && !caller.read_only;
        if entry.caller.token != caller.token && !is_operator {
            return None;
        }
        entry.cancel.cancel();
        let state = entry.state.lock();
        let member = state.busy.as_ref().map(|busy| Arc::clone(busy.member()));
        Some(Cancelled {
            owner: entry.caller.clone(),
            result: state.handle.clone().zip(member),
        })
    }

    /// The statement whose result this is, if it came this way.
    #[must_use]
    pub fn with_handle(&self, handle: &Handle) -> Option<Arc<Entry>> {
        self.entries.lock().by_handle.get(handle).cloned()
    }

    /// Lets go of results that nobody reads. To be called every second or so.
    pub fn sweep(&self) {
        let all: Vec<Arc<Entry>> = self.entries.lock().by_handle.values().cloned().collect();
        for entry in all {
            if entry.is_abandoned() {
                self.finish(&entry);
            }
        }
    }

    fn finish(&self, entry: &Arc<Entry>) {
        let finished = {
            let mut state = entry.state.lock();
            if std::mem::replace(&mut state.is_over, true) {
                return;
            }
            let finished = entry.finished(&state);
            state.place = None;
            state.busy = None;
            finished
        };
        {
            let mut entries = self.entries.lock();
            entries.by_number.remove(&entry.number);
            if let Some(handle) = &entry.state.lock().handle {
                entries.by_handle.remove(handle);
            }
        }
        (self.on_finished)(&finished);
    }
}

/// A statement that was cancelled.
pub struct Cancelled {
    /// Who sent it.
    pub owner: Caller,
    /// The result that a worker keeps for it.
    pub result: Option<(Handle, Arc<Member>)>,
}

fn shortened(sql: &str) -> String {
    let mut end = sql.len().min(SQL_BYTES_MAX);
    while !sql.is_char_boundary(end) {
        end -= 1;
    }
    sql[..end].to_owned()
}

impl Entry {
    fn show(&self) -> Shown {
        let state = self.state.lock();
        let is_answered = state.answered.is_some();
        Shown {
            number: self.number,
            token: Arc::clone(&self.caller.token),
            database: self.database.clone(),
            sql: self.sql.clone(),
            state: match (&state.busy, is_answered, state.streams_open) {
                (None, _, _) => "queued",
                (Some(_), false, _) => "running",
                (Some(_), true, 0) => "waiting",
                (Some(_), true, _) => "reading",
            },
            began: self.began,
            elapsed: self.came.elapsed(),
            worker: state.busy.as_ref().map(|busy| busy.member().name()),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn is_abandoned(&self) -> bool {
        let state = self.state.lock();
        let patience = match state.streams_over + state.streams_open {
            0 => state.unopened_ttl + UNOPENED_EXTRA,
            _ if state.is_resumable => RESUME_TTL,
            // Its other streams may still be opened.
            _ => UNOPENED_TTL,
        };
        state.streams_open == 0 && state.left.is_some_and(|left| left.elapsed() > patience)
    }

    fn finished(&self, state: &State) -> Finished {
        let outcome = match (&state.failure, self.cancel.is_cancelled()) {
            (Some((code, message)), _) => Outcome::Failed {
                code: format!("{code:?}"),
                message: message.clone(),
            },
            (None, true) => Outcome::Failed {
                code: "Cancelled".to_owned(),
                message: "the query was cancelled".to_owned(),
            },
            (None, false) => Outcome::Done,
        };
        Finished {
            id: format!("{:016x}", self.number),
            began: self.began,
            token: self.caller.token.to_string(),
            database: self.database.clone(),
            sql: Some(self.sql.clone()),
            outcome,
            duration_us: micros(self.came.elapsed()),
            queued_us: micros(state.queued),
            answered_us: state.answered.map(micros),
            rows: state.rows,
            bytes: self.bytes.load(Ordering::Relaxed),
            worker: state.busy.as_ref().map(|busy| busy.member().name()),
            lsn: state.lsn,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

/// A statement that was entered.
pub struct Guard {
    running: Arc<Running>,
    entry: Arc<Entry>,
    is_kept: bool,
}

/// What an answer says of the statement's result.
pub struct Answer<'a> {
    /// Where the result is.
    pub handle: Handle,
    /// How many streams it has; 0: more input is to come.
    pub streams: u32,
    /// What came inside the answer.
    pub inline: &'a [StreamResultsResponse],
    /// What it read or wrote.
    pub lsn: u64,
    /// How long the result waits for somebody who reads it; `None`: the default.
    pub unopened_ttl: Option<Duration>,
    /// Whether its streams survive a lost connection.
    pub is_resumable: bool,
}

impl Guard {
    /// The statement.
    #[must_use]
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// It has a place in the queue.
    pub fn admitted(&self, place: Place) {
        let mut state = self.entry.state.lock();
        state.queued = self.entry.came.elapsed();
        state.place = Some(place);
    }

    /// A worker runs it.
    pub fn sent_to(&self, member: &Arc<Member>) {
        self.entry.state.lock().busy = Some(member.begin());
    }

    /// It failed.
    pub fn failed(&self, status: &Status) {
        let mut state = self.entry.state.lock();
        state.failure = Some((status.code(), status.message().to_owned()));
    }

    /// It was answered without a worker.
    pub fn answered_here(&self, rows: u64) {
        let mut state = self.entry.state.lock();
        state.answered = Some(self.entry.came.elapsed());
        state.rows = Some(rows);
    }

    /// It was answered; where the answer is not all, the statement stays.
    pub fn answered(mut self, answer: Answer<'_>) {
        let entry = Arc::clone(&self.entry);
        let summary = entry.answered(&answer);
        if summary {
            return;
        }
        self.is_kept = true;
        let mut entries = self.running.entries.lock();
        entries.by_handle.insert(answer.handle, entry);
    }
}

impl Entry {
    /// Notes an answer, also one to an append; says whether it is all there is.
    fn answered(&self, answer: &Answer<'_>) -> bool {
        let mut state = self.state.lock();
        state.answered = Some(self.came.elapsed());
        state.lsn = answer.lsn;
        state.streams = answer.streams;
        state.is_resumable = answer.is_resumable;
        state.unopened_ttl = answer.unopened_ttl.unwrap_or(UNOPENED_TTL);
        state.left = Some(Instant::now());
        state.handle = Some(answer.handle.clone());
        let mut is_all = false;
        for response in answer.inline {
            match &response.content {
                Some(Content::Batch(batch)) => {
                    self.bytes.fetch_add(batch.len() as u64, Ordering::Relaxed);
                }
                Some(Content::Summary(summary)) => {
                    state.rows = Some(summary.total_rows);
                    is_all = true;
                }
                None => {}
            }
        }
        is_all
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.is_kept {
            self.running.finish(&self.entry);
        }
    }
}

impl Running {
    /// An append was answered.
    pub fn appended(&self, entry: &Arc<Entry>, answer: &Answer<'_>) {
        if entry.answered(answer) {
            self.finish(entry);
        }
    }

    /// The statement failed, or what it wrote to failed.
    pub fn failed(&self, entry: &Arc<Entry>, status: &Status) {
        entry.state.lock().failure = Some((status.code(), status.message().to_owned()));
        self.finish(entry);
    }

    /// Somebody begins to read a stream of it.
    #[must_use]
    pub fn open_stream(self: &Arc<Self>, entry: Arc<Entry>) -> Reading {
        let mut state = entry.state.lock();
        state.streams_open += 1;
        state.left = None;
        drop(state);
        Reading {
            running: Arc::clone(self),
            entry,
        }
    }
}

/// One stream that is being read.
pub struct Reading {
    running: Arc<Running>,
    entry: Arc<Entry>,
}

impl relay::Listener for Reading {
    fn passed(&mut self, bytes: usize) {
        self.entry.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn over(&mut self, summary: Option<Summary>, status: Option<&Status>) {
        let is_over = {
            let mut state = self.entry.state.lock();
            state.streams_open = state.streams_open.saturating_sub(1);
            state.left = Some(Instant::now());
            match (&summary, status) {
                (Some(summary), _) => {
                    state.streams_over += 1;
                    if summary.total_rows > 0 || state.rows.is_none() {
                        state.rows = Some(summary.total_rows);
                    }
                    if summary.lsn > 0 {
                        state.lsn = summary.lsn;
                    }
                }
                (None, Some(status)) if status.code() == tonic::Code::Ok => {
                    state.streams_over += 1;
                }
                (None, Some(status)) => {
                    state.failure = Some((status.code(), status.message().to_owned()));
                }
                (None, None) if !state.is_resumable => {
                    let gone = "the client went away".to_owned();
                    state.failure = Some((tonic::Code::Cancelled, gone));
                }
                (None, None) => {}
            }
            let is_lost = state.failure.is_some();
            is_lost || (state.streams_open == 0 && state.streams_over >= state.streams)
        };
        if is_over {
            self.running.finish(&self.entry);
        }
    }
}
