//! Sessions: which commit a process sees on a follow path.
//!
//! DuckDB opens its file several times (2.0: 16 bytes, then 12,288 bytes of headers, each closed;
//! the third open reuses those headers) and then looks for its WAL. All of that must come from one
//! commit, so a pin belongs to a process, not to a handle. A session begins at a process's first
//! open. It is *probing* until the process looks its WAL up or reads deep into the file; then it is
//! *real*. A real session ends with its last handle; a probing one [`LINGER`] after its last close,
//! and a reopen within that time keeps the commit.
//!
//! The kernel reports the close of a handle twice: *flush*, before `close` returns, and *release*,
//! at some time after. A process that closes and opens again must not meet the session that it
//! ended: [`Sessions::is_settling`] tells that all handles were flushed and their releases must be
//! about to come, so that the caller waits for them.
//!
//! No I/O, no clock: the caller passes the time, and whatever a pin holds on to is handed back, to
//! be dropped outside of locks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use layerd::id::Lsn;

use crate::process::Process;

/// How long a probing session outlives its last close.
const LINGER: Duration = Duration::from_secs(1);

/// How long the end of a session is remembered. It only has to bridge the time between a lookup
/// and the open that follows it in the same system call.
const MEMORY: Duration = Duration::from_secs(5);

/// An open file of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HandleId(pub(crate) u64);

/// The inode that is to be opened belongs to another commit than the process's: look the name up
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherCommit;

/// All sessions of one mount. `P` is what a pin holds: the image at the commit.
#[derive(Debug)]
pub(crate) struct Sessions<P> {
    sessions: HashMap<Process, Session<P>>,
    owners: HashMap<HandleId, Process>,
    ended: HashMap<Process, Ended>,
    next_handle: u64,
}

#[derive(Debug)]
struct Session<P> {
    commit: Lsn,
    pin: P,
    is_real: bool,
    open: HashMap<HandleId, Closing>,
    /// When the last handle was closed, if none is open.
    idle_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// A descriptor was closed; most likely the only one.
    Flushed,
    /// A descriptor was closed, but others, or mappings, keep the handle.
    Shared,
}

#[derive(Debug)]
struct Ended {
    commit: Lsn,
    at: Instant,
}

impl<P> Default for Sessions<P> {
    fn default() -> Self {
        Sessions {
            sessions: HashMap::new(),
            owners: HashMap::new(),
            ended: HashMap::new(),
            next_handle: 1,
        }
    }
}

impl<P: Clone> Sessions<P> {
    /// What the process is pinned to, if it has a session.
    pub(crate) fn pin(&self, process: Process, now: Instant) -> Option<P> {
        let session = self.sessions.get(&process)?;
        (!session.has_lingered(now)).then(|| session.pin.clone())
    }

    /// The process looks its WAL up: if it has the file open, it is in earnest.
    pub(crate) fn wal_looked_up(&mut self, process: Process) {
        if let Some(session) = self.sessions.get_mut(&process)
            && !session.open.is_empty()
        {
            session.is_real = true;
        }
    }

    /// The handle was read so far into the file that it can't be for the headers alone.
    pub(crate) fn deep_read(&mut self, handle: HandleId) {
        if let Some(session) = self
            .owners
            .get(&handle)
            .and_then(|process| self.sessions.get_mut(process))
        {
            session.is_real = true;
        }
    }

    /// Opens an inode of `commit`; `newest` is the newest commit there is.
    pub(crate) fn open(
        &mut self,
        process: Process,
        commit: Lsn,
        pin: P,
        newest: Lsn,
        now: Instant,
    ) -> Result<HandleId, OtherCommit> {
        if self
            .sessions
            .get(&process)
            .is_some_and(|session| session.has_lingered(now))
        {
            self.end(process, now);
        }
        match (self.sessions.get(&process), self.ended.get(&process)) {
            (Some(session), _) if session.commit != commit => return Err(OtherCommit),
            // Looked up in a session that has ended since.
            (None, Some(ended)) if commit <= ended.commit && commit < newest => {
                return Err(OtherCommit);
            }
            _ => {}
        }
        let session = self.sessions.entry(process).or_insert_with(|| Session {
            commit,
            pin,
            is_real: false,
            open: HashMap::new(),
            idle_since: None,
        });
        let handle = HandleId(self.next_handle);
        self.next_handle += 1;
        session.open.insert(handle, Closing::No);
        session.idle_since = None;
        self.owners.insert(handle, process);
        Ok(handle)
    }

    /// A descriptor of the handle was closed.
    pub(crate) fn flushed(&mut self, handle: HandleId) {
        if let Some(closing) = self.closing(handle)
            && *closing == Closing::No
        {
            *closing = Closing::Flushed;
        }
    }

    /// Whether the process's session is real and about to end: all its handles were flushed.
    pub(crate) fn is_settling(&self, process: Process) -> bool {
        self.sessions.get(&process).is_some_and(|session| {
            session.is_real
                && !session.open.is_empty()
                && session
                    .open
                    .values()
                    .all(|closing| *closing == Closing::Flushed)
        })
    }

    /// The releases that [`Sessions::is_settling`] promised did not come: the handles live on.
    pub(crate) fn settled(&mut self, process: Process) {
        if let Some(session) = self.sessions.get_mut(&process) {
            for closing in session
                .open
                .values_mut()
                .filter(|closing| **closing == Closing::Flushed)
            {
                *closing = Closing::Shared;
            }
        }
    }

    /// The handle is gone. Returns the pin if that ends the session.
    pub(crate) fn released(&mut self, handle: HandleId, now: Instant) -> Option<P> {
        let process = self.owners.remove(&handle)?;
        let session = self.sessions.get_mut(&process)?;
        session.open.remove(&handle);
        if !session.open.is_empty() {
            return None;
        }
        if session.is_real {
            return self.end(process, now);
        }
        session.idle_since = Some(now);
        None
    }

    /// Ends the probing sessions whose time is over, and forgets old ends. Returns the pins.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<P> {
        self.ended
            .retain(|_, ended| now.saturating_duration_since(ended.at) < MEMORY);
        let over: Vec<Process> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.has_lingered(now))
            .map(|(process, _)| *process)
            .collect();
        over.into_iter()
            .filter_map(|process| self.end(process, now))
            .collect()
    }

    fn end(&mut self, process: Process, now: Instant) -> Option<P> {
        let session = self.sessions.remove(&process)?;
        self.ended.insert(
            process,
            Ended {
                commit: session.commit,
                at: now,
            },
        );
        Some(session.pin)
    }

    fn closing(&mut self, handle: HandleId) -> Option<&mut Closing> {
        let process = self.owners.get(&handle)?;
        self.sessions.get_mut(process)?.open.get_mut(&handle)
    }
}

impl<P> Session<P> {
    fn has_lingered(&self, now: Instant) -> bool {
        self.idle_since
            .is_some_and(|since| now.saturating_duration_since(since) >= LINGER)
    }
}

#[cfg(test)]
mod tests;
