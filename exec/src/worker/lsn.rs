//! Which commit the live database is at.
//!
//! The mount says so, and asking it costs a tenth of a millisecond or more. The worker is the only
//! writer, so between its own commits the number stands still; a read asks the mount only while a
//! commit is under way. What is told of a read is never too low: whoever asks a reader for that LSN sees
//! what was seen here.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::mount::Mount;

/// The LSN of the live database.
#[derive(Debug)]
pub struct Head {
    mount: Arc<Mount>,
    state: Mutex<State>,
    /// One asks at a time; who comes meanwhile shares the next answer.
    asking: Mutex<()>,
}

#[derive(Debug)]
struct State {
    lsn: u64,
    /// Statements that may commit, or have and were not counted yet.
    committing: usize,
    /// Counts questions to the mount: how many began, and how many of them were answered.
    asked: u64,
    answered: u64,
}

/// A statement that may commit. Until it is dropped, nobody relies on the last known LSN.
#[derive(Debug)]
pub struct Committing(Arc<Head>);

impl Head {
    /// Begins with what the mount says now. Blocks.
    ///
    /// # Errors
    ///
    /// The mount does not answer.
    pub fn new(mount: Arc<Mount>) -> io::Result<Arc<Head>> {
        let lsn = mount.head()?;
        Ok(Arc::new(Head {
            mount,
            state: Mutex::new(State {
                lsn,
                committing: 0,
                asked: 0,
                answered: 0,
            }),
            asking: Mutex::new(()),
        }))
    }

    /// A commit may come now.
    pub fn committing(self: &Arc<Self>) -> Committing {
        self.state.lock().committing += 1;
        Committing(Arc::clone(self))
    }

    /// The LSN that a statement reads which has begun already. Blocks while a commit is under way.
    ///
    /// # Errors
    ///
    /// The mount does not answer.
    pub fn read(&self) -> io::Result<u64> {
        {
            let state = self.state.lock();
            if state.committing == 0 {
                return Ok(state.lsn);
            }
        }
        self.ask()
    }

    /// Asks the mount, or shares the answer to a question that begins from now on. Blocks.
    ///
    /// # Errors
    ///
    /// The mount does not answer.
    pub fn ask(&self) -> io::Result<u64> {
        let wanted = self.state.lock().asked + 1;
        let _asking = self.asking.lock();
        {
            let mut state = self.state.lock();
            if state.answered >= wanted {
                return Ok(state.lsn);
            }
            state.asked += 1;
        }
        let lsn = self.mount.head()?;
        let mut state = self.state.lock();
        state.lsn = state.lsn.max(lsn);
        state.answered = state.asked;
        Ok(state.lsn)
    }

    /// The newest that is known, without asking.
    pub fn known(&self) -> u64 {
        self.state.lock().lsn
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        self.0.state.lock().committing -= 1;
    }
}
