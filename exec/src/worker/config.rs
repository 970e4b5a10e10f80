//! What a worker is told when it starts, and the limits that it keeps. Plain values with defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::claim::Claim;

/// Which part of the database a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The live database: reads, writes, sessions.
    Writer,
    /// Snapshots alone, moving to newer ones.
    Reader,
}

/// Where the database lies.
#[derive(Clone, Debug)]
pub enum Place {
    /// A mount at this directory, which is the worker's own: it mounts the database there (a reader:
    /// `--follow`) and takes the mount away when it ends. A mount that a worker left there that was killed
    /// is taken over.
    Mount {
        /// The mount point; made if it is not there.
        directory: PathBuf,
        /// The claim on it, where it was made already.
        claim: Option<Arc<Claim>>,
        /// The `openduck-fs` to mount with; `None`: the one beside this program, or on the `PATH`.
        program: Option<PathBuf>,
        /// What stands before its command: `--home DIR` and the like.
        arguments: Vec<String>,
    },
    /// A plain directory with `DB.duckdb` in it, without OpenDuck below: there are no snapshots, and
    /// each LSN is 0.
    Plain {
        /// The directory.
        directory: PathBuf,
    },
}

/// What a worker is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it is called in summaries, placements and logs.
    pub name: String,
    /// The one database that it serves.
    pub database: String,
    /// Its part.
    pub role: Role,
    /// Where the database lies.
    pub place: Place,
    /// A directory of its own, for spilled operators and results. Never shown, never reachable by SQL.
    pub scratch: PathBuf,
    /// A file that remembers, over restarts, which sessions and idempotency keys there were; `None`:
    /// nothing is remembered.
    pub journal: Option<PathBuf>,
    /// The storage version of a database that is new; `None`: DuckDB's default.
    pub storage_version: Option<String>,
    /// Folders that statements may read and write files in.
    pub allowed_directories: Vec<PathBuf>,
    /// Its limits.
    pub limits: Limits,
}

/// The limits of a worker.
///
/// Memory, at the most: `memory_bytes` for DuckDB; `buffer_bytes` for results in flight, and beyond it,
/// for each statement that runs, one message (`max_message_bytes`, 4 MiB), 16 MiB and one batch of 1 MiB
/// per thread that DuckDB is ahead with, and what its open streams are sending (one message each); `resume_bytes` for each stream that asked to be resumable;
/// `input_bytes` for each input that is being sent; `kept_answer_bytes` for answers with a key.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Memory of DuckDB's instances together, in bytes. Default: half of the machine's.
    pub memory_bytes: u64,
    /// Threads of DuckDB's instances together. Default: the machine's.
    pub threads: usize,
    /// What DuckDB's operators may spill, and what results may spill, each, in bytes. Default: 64 GiB.
    pub spill_bytes: u64,
    /// Results in flight of all statements together. Default: 256 MiB.
    pub buffer_bytes: usize,
    /// Results in flight of one statement. Default: 16 MiB.
    pub statement_buffer_bytes: usize,
    /// What a resumable stream keeps of what it sent. 16 MiB, by the protocol.
    pub resume_bytes: usize,
    /// Rows of one input that have arrived and were not read yet. Default: 16 MiB.
    pub input_bytes: usize,
    /// The largest request. Default: 24 MiB, so that 16 MiB of SQL and a chunk of an input fit.
    pub request_bytes: usize,
    /// The largest result of one statement; `None` (default): no limit.
    pub result_bytes: Option<u64>,
    /// How long a statement may run. Default: 1 hour.
    pub statement_time: Duration,
    /// How many statements run at once; others wait in order. Default: 256.
    pub statement_count: usize,
    /// How many results may be there at once, read or not. Default: 10,000.
    pub result_count: usize,
    /// How many sessions may be there at once. Default: 1,000.
    pub session_count: usize,
    /// When an idle session ends. Default: 15 minutes.
    pub session_idle: Duration,
    /// When an upload ends whose client sends nothing more. Default: 30 s.
    pub input_idle: Duration,
    /// How long a resumable stream is kept without a connection. 10 s, by the protocol.
    pub resume_time: Duration,
    /// How old a reader's state may be, unless a statement says otherwise. Default: 250 ms.
    pub staleness: Duration,
    /// How long a statement waits for the LSN that it asks for. Default: 1 s.
    pub lsn_wait: Duration,
    /// How long answers with an idempotency key are kept. Default: 10 minutes.
    pub kept_answer_time: Duration,
    /// How large they may be together. Default: 64 MiB.
    pub kept_answer_bytes: usize,
    /// After how many commits the writer checkpoints: a reader that opens a snapshot replays at most
    /// these, some 0.1 ms each. Default: 500.
    pub checkpoint_commits: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Limits {
            memory_bytes: rustix::system::sysinfo().totalram as u64 / 2,
            threads,
            spill_bytes: 64 << 30,
            buffer_bytes: 256 << 20,
            statement_buffer_bytes: 16 << 20,
            resume_bytes: 16 << 20,
            input_bytes: 16 << 20,
            request_bytes: 24 << 20,
            result_bytes: None,
            statement_time: Duration::from_secs(3600),
            statement_count: 256,
            result_count: 10_000,
            session_count: 1_000,
            session_idle: Duration::from_secs(15 * 60),
            input_idle: Duration::from_secs(30),
            resume_time: Duration::from_secs(10),
            staleness: Duration::from_millis(250),
            lsn_wait: Duration::from_secs(1),
            kept_answer_time: Duration::from_secs(600),
            kept_answer_bytes: 64 << 20,
            checkpoint_commits: 500,
        }
    }
}
