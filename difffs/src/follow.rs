//! Follow paths: the newest commit, for whoever opens next.
//!
//! Which commit that is for a process is `session.rs`'s to say; here it meets the engine, the clock
//! and the locks. Every commit has inodes of its own, and no name on a follow path may be remembered
//! by the kernel, so that each open asks here again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fuser::Errno;
use layerd::FsError;
use layerd::store::Follower;
use layerd::writer::Writer;
use parking_lot::{Condvar, Mutex};

use crate::errno::errno;
use crate::image::{Image, ImageFile, Keeper};
use crate::process::Process;
use crate::session::{HandleId, Sessions};

/// How long a lookup waits for the release of a handle whose flush has arrived. The release is
/// under way; only a descriptor that was duplicated, or a mapping, makes this time pass.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// Reads from here on are not for the headers. The headers end at byte 12,288, but the kernel reads
/// ahead: up to its window of 1 MiB, twice.
const DEEP_OFFSET: u64 = 4 << 20;

/// Where the newest commit comes from.
pub(crate) enum Source {
    /// This mount's own writer.
    Writer(Arc<Writer>),
    /// The head that another process publishes.
    Follower(Arc<Follower>),
}

impl Source {
    fn newest(&self) -> Result<(Arc<layerd::frozen::Frozen>, Keeper), FsError> {
        match self {
            Source::Writer(writer) => Ok((writer.committed(), Keeper::Writer)),
            Source::Follower(follower) => {
                Ok((follower.latest()?, Keeper::Follower(Arc::clone(follower))))
            }
        }
    }
}

/// The follow paths of a mount: they share sessions.
pub(crate) struct Follow {
    source: Source,
    sessions: Mutex<Sessions<Arc<Image>>>,
    released: Condvar,
    newest: Mutex<Option<Arc<Image>>>,
    has_advised: AtomicBool,
}

impl Follow {
    pub(crate) fn new(source: Source) -> Follow {
        Follow {
            source,
            sessions: Mutex::default(),
            released: Condvar::new(),
            newest: Mutex::default(),
            has_advised: AtomicBool::new(false),
        }
    }

    /// The newest commit.
    pub(crate) fn newest(&self) -> Result<Arc<Image>, Errno> {
        let (frozen, keeper) = self.source.newest().map_err(|error| errno(&error))?;
        let mut newest = self.newest.lock();
        if let Some(image) = &*newest
            && image.commit() == frozen.lsn()
        {
            return Ok(Arc::clone(image));
        }
        let image = Image::new(frozen, keeper);
        let before = newest.replace(Arc::clone(&image));
        drop(newest);
        drop(before);
        Ok(image)
    }

    /// What a process sees now: its pin, or else the newest commit.
    pub(crate) fn seen_by(&self, process: Option<Process>) -> Result<Arc<Image>, Errno> {
        let pin = process.and_then(|process| self.sessions.lock().pin(process, Instant::now()));
        pin.map_or_else(|| self.newest(), Ok)
    }

    /// A process looked its WAL up.
    pub(crate) fn wal_looked_up(&self, process: Process) {
        self.sessions.lock().wal_looked_up(process);
    }

    /// Whether [`Follow::settle`] would have to wait.
    pub(crate) fn is_settling(&self, process: Process) -> bool {
        self.sessions.lock().is_settling(process)
    }

    /// Waits until the handles that a process has closed are released.
    pub(crate) fn settle(&self, process: Process) {
        let deadline = Instant::now() + SETTLE_TIME;
        let mut sessions = self.sessions.lock();
        while sessions.is_settling(process) {
            if self
                .released
                .wait_until(&mut sessions, deadline)
                .timed_out()
            {
                sessions.settled(process);
            }
        }
    }

    /// Opens a file for a process.
    pub(crate) fn open(
        &self,
        process: Option<Process>,
        file: &ImageFile,
    ) -> Result<HandleId, Errno> {
        let Some(process) = process else {
            if !self.has_advised.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "a process in another PID namespace tried to open the newest commit: it can't be told from \
                     others there; give it a fixed one (mount DB@REF, or .snapshots/<ref>)"
                );
            }
            return Err(Errno::EACCES);
        };
        let commit = file.image.commit();
        let newest = self.newest().map_or(commit, |image| image.commit());
        let now = Instant::now();
        let mut sessions = self.sessions.lock();
        let over = sessions.expire(now);
        let opened = sessions.open(process, commit, Arc::clone(&file.image), newest, now);
        drop(sessions);
        drop(over);
        opened.map_err(|_| Errno::ESTALE)
    }

    /// Whether a read from here on is one that [`Follow::deep_read`] must know of.
    pub(crate) fn is_deep(offset: u64) -> bool {
        offset >= DEEP_OFFSET
    }

    pub(crate) fn deep_read(&self, handle: HandleId) {
        self.sessions.lock().deep_read(handle);
    }

    pub(crate) fn flushed(&self, handle: HandleId) {
        self.sessions.lock().flushed(handle);
    }

    pub(crate) fn released(&self, handle: HandleId) {
        let over = self.sessions.lock().released(handle, Instant::now());
        self.released.notify_all();
        drop(over);
    }

    /// Lets go of what probing sessions left behind.
    pub(crate) fn expire(&self) {
        let over = self.sessions.lock().expire(Instant::now());
        drop(over);
    }
}
