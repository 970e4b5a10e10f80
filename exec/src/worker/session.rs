//! Sessions: connections that live longer than a call.
//!
//! A session is a DuckDB connection, and whoever runs a statement on it holds its [`Slot`] until all of
//! the result is produced; calls wait for it in the order in which they came. DuckDB holds one open
//! result per connection, so a call that has to wait tells the one before it to make room: what that
//! has not sent yet goes to the disk, and the connection is free, however slow its reader is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use engine::Connection;
use parking_lot::Mutex;
use proto::v1::Reason;
use tokio::sync::OwnedMutexGuard;
use tonic::Status;

use super::instances::Held;
use super::journal::{Journal, Kind};
use super::query::Query;
use crate::wire::status::refused;

/// How many ended sessions are remembered, so that their clients hear of it.
const ENDED_COUNT_MAX: usize = 100_000;

/// The longest name of a session.
const NAME_BYTES_MAX: usize = 64;

/// A connection and what belongs to it.
#[derive(Debug, Default)]
pub struct Slot {
    /// Made by the first statement.
    pub connection: Option<Connection>,
    /// The instance that it is a connection of; closed after the connection.
    pub held: Option<Arc<Held>>,
    /// The SET statements that its settings come from, by the settings' names in lower case.
    pub settings: HashMap<String, String>,
    /// The LSN that the open transaction reads.
    pub transaction_lsn: Option<u64>,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// The state that it reads; empty: the newest.
    snapshot: String,
    slot: Arc<tokio::sync::Mutex<Slot>>,
    /// Whose result is open.
    open: Mutex<Weak<Query>>,
    waiting: AtomicUsize,
    used: Mutex<Used>,
}

#[derive(Debug)]
struct Used {
    /// Calls and results that are under way.
    count: usize,
    last: Instant,
}

/// A session that is in use, which does not expire.
#[derive(Debug)]
pub struct InUse(Arc<Session>);

impl InUse {
    fn new(session: Arc<Session>) -> InUse {
        session.used.lock().count += 1;
        InUse(session)
    }

    /// Waits for the connection, and makes the one who has it hurry.
    pub async fn enter(self) -> Taken {
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(&self.0);
        if let Some(open) = self.0.open.lock().upgrade() {
            open.output.make_room();
        }
        let slot = Arc::clone(&self.0.slot).lock_owned().await;
        drop(waiting);
        Taken::Session(slot, self)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut used = self.0.used.lock();
        used.count -= 1;
        used.last = Instant::now();
    }
}

struct Waiting<'a>(&'a Session);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection that a statement has for itself.
#[derive(Debug)]
pub enum Taken {
    /// A session's, given back when it is dropped.
    Session(OwnedMutexGuard<Slot>, InUse),
    /// One for this statement.
    Own(Slot),
}

impl Taken {
    /// Says whose result is open on it. Who waits already makes it give way at once.
    pub fn runs(&self, query: &Arc<Query>) {
        if let Taken::Session(_, InUse(session)) = self {
            *session.open.lock() = Arc::downgrade(query);
            if session.waiting.load(Ordering::SeqCst) > 0 {
                query.output.make_room();
            }
        }
    }

    /// Whether it belongs to a session.
    pub fn is_session(&self) -> bool {
        matches!(self, Taken::Session(..))
    }
}

impl Deref for Taken {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        match self {
            Taken::Session(slot, _) => slot,
            Taken::Own(slot) => slot,
        }
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut Slot {
        match self {
            Taken::Session(slot, _) => slot,
            Taken::Own(slot) => slot,
        }
    }
}

/// All sessions of a worker.
#[derive(Debug)]
pub struct Sessions {
    count_max: usize,
    idle_max: Duration,
    journal: Arc<Journal>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<Key, Arc<Session>>,
    ended: HashSet<Key>,
    ended_order: VecDeque<Key>,
}

type Key = (Arc<str>, String);

impl Sessions {
    /// None yet.
    pub fn new(count_max: usize, idle_max: Duration, journal: Arc<Journal>) -> Sessions {
        Sessions {
            count_max,
            idle_max,
            journal,
            table: Mutex::default(),
        }
    }

    /// The owner's session of this name, made if it is new.
    ///
    /// # Errors
    ///
    /// A name that is none, a session that has ended or reads another snapshot, too many of them.
    pub fn find(&self, owner: &Arc<str>, name: &str, snapshot: &str) -> Result<InUse, Status> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.len() > NAME_BYTES_MAX || !name.bytes().all(is_name) {
            return Err(Status::invalid_argument(format!(
                "session_id: at most {NAME_BYTES_MAX} ASCII letters, digits, `-` and `_`"
            )));
        }
        let key = (Arc::clone(owner), name.to_owned());
        let mut table = self.table.lock();
        if let Some(session) = table.sessions.get(&key) {
            if session.snapshot != snapshot {
                return Err(Status::invalid_argument(format!(
                    "this session reads {}, and no other state",
                    match session.snapshot.as_str() {
                        "" => "the newest state".to_owned(),
                        snapshot => format!("snapshot {snapshot:?}"),
                    }
                )));
            }
            return Ok(InUse::new(Arc::clone(session)));
        }
        if table.ended.contains(&key) || self.journal.was_there(Kind::Session, owner, name) {
            return Err(refused(
                Reason::Gone,
                "this session has ended, and with it its transaction and its temporary tables; begin another one",
            ));
        }
        if table.sessions.len() >= self.count_max {
            return Err(refused(
                Reason::Limit,
                format!(
                    "there are {} sessions already, which is this server's limit",
                    self.count_max
                ),
            ));
        }
        self.journal
            .add(Kind::Session, owner, name)
            .map_err(|error| {
                tracing::error!("noting a session: {error}");
                Status::internal("the server can't note a session on its disk")
            })?;
        let session = Arc::new(Session {
            snapshot: snapshot.to_owned(),
            slot: Arc::default(),
            open: Mutex::default(),
            waiting: AtomicUsize::new(0),
            used: Mutex::new(Used {
                count: 0,
                last: Instant::now(),
            }),
        });
        table.sessions.insert(key, Arc::clone(&session));
        Ok(InUse::new(session))
    }

    /// Ends those that nobody used for long. Their transactions are rolled back.
    pub fn expire(&self) {
        let mut ended = Vec::new();
        {
            let mut table = self.table.lock();
            let is_idle = |session: &Session| {
                let used = session.used.lock();
                used.count == 0 && used.last.elapsed() > self.idle_max
            };
            let idle: Vec<Key> = table
                .sessions
                .iter()
                .filter(|(_, session)| is_idle(session))
                .map(|(key, _)| key.clone())
                .collect();
            for key in idle {
                ended.extend(table.sessions.remove(&key));
                table.end(key);
            }
        }
        close(ended);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.table.lock().sessions.len()
    }

    /// Ends all.
    pub fn clear(&self) {
        let sessions = std::mem::take(&mut self.table.lock().sessions);
        close(sessions.into_values().collect());
    }
}

/// Lets sessions go where it may take a while.
fn close(sessions: Vec<Arc<Session>>) {
    if !sessions.is_empty() {
        tokio::task::spawn_blocking(move || drop(sessions));
    }
}

impl Table {
    fn end(&mut self, key: Key) {
        if self.ended.insert(key.clone()) {
            self.ended_order.push_back(key);
        }
        if self.ended_order.len() > ENDED_COUNT_MAX
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }
}
