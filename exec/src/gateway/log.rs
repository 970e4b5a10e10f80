//! The log of finished statements: one line of JSON each, in a file of bounded size.
//!
//! The file is `queries.jsonl` in the home's directory `exec`; when it is full it becomes
//! `queries.1.jsonl`, in place of the one before. So between one and two times the limit is kept. Lines are
//! written by a thread of their own: no statement waits for the disk, and where lines come faster than it
//! writes, the newest are dropped and counted.
//!
//! A text of SQL may hold what is nobody's business. The operator chooses whether it is kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use layerd::id::Timestamp;
use serde::{Deserialize, Serialize};

/// Lines that wait for the disk.
const WAITING_MAX: usize = 4096;

/// How a statement ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should.
    Done,
    /// With an error.
    Failed {
        /// The gRPC code.
        code: String,
        /// What the client was told.
        message: String,
    },
}

/// A statement that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Its number, as 16 hex digits.
    pub id: String,
    /// When it came.
    pub began: Timestamp,
    /// The id of the token that sent it.
    pub token: String,
    /// What it ran on.
    pub database: String,
    /// Its text, cut at 4 KiB; `None` where texts are not kept.
    pub sql: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// From its arrival until the last byte of its result was taken, in µs.
    pub duration_us: u64,
    /// Of that, waiting in the queue.
    pub queued_us: u64,
    /// From its arrival until it was answered.
    pub answered_us: Option<u64>,
    /// Rows of its result, where they are known.
    pub rows: Option<u64>,
    /// Bytes of its result that went this way.
    pub bytes: u64,
    /// The worker that ran it.
    pub worker: Option<String>,
    /// The state that it read or wrote.
    pub lsn: u64,
}

/// What is kept of a statement's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlKept {
    /// All of it (up to 4 KiB).
    Text,
    /// The text with constants and comments taken out.
    Redacted,
    /// Nothing.
    Nothing,
}

/// The log.
pub struct QueryLog {
    files: Files,
    kept: SqlKept,
    lines: SyncSender<Finished>,
    dropped: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Files {
    current: PathBuf,
    older: PathBuf,
    bytes_max: u64,
}

impl QueryLog {
    /// Goes on with the log in `directory`, which is made if it is missing.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn open(directory: &Path, bytes_max: u64, kept: SqlKept) -> io::Result<QueryLog> {
        fs::create_dir_all(directory)?;
        let files = Files {
            current: directory.join("queries.jsonl"),
            older: directory.join("queries.1.jsonl"),
            bytes_max,
        };
        let file = files.open()?;
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let writing = files.clone();
        thread::Builder::new()
            .name("query-log".into())
            .spawn(move || write_all(&writing, file, &waiting))?;
        Ok(QueryLog {
            files,
            kept,
            lines,
            dropped: Arc::default(),
        })
    }

    /// Adds a line, soon.
    pub fn add(&self, finished: &Finished) {
        let mut finished = finished.clone();
        finished.sql = match self.kept {
            SqlKept::Text => finished.sql,
            // What can't be redacted is not kept.
            SqlKept::Redacted => finished.sql.and_then(|sql| engine::redact(&sql).ok()),
            SqlKept::Nothing => None,
        };
        if self.lines.try_send(finished).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were dropped because the disk was too slow, or refused them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What is kept, oldest first. Lines that make no sense (a process was killed while it wrote one) are
    /// passed over.
    ///
    /// # Errors
    /// Where the files can't be read.
    pub fn read(&self) -> io::Result<Vec<Finished>> {
        let mut all = Vec::new();
        for path in [&self.files.older, &self.files.current] {
            let file = match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            for line in BufReader::new(file).split(b'\n') {
                all.extend(serde_json::from_slice::<Finished>(&line?).ok());
            }
        }
        Ok(all)
    }
}

impl Files {
    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.current)
    }
}

fn write_all(files: &Files, mut file: File, waiting: &Receiver<Finished>) {
    while let Ok(finished) = waiting.recv() {
        if let Err(error) = write_one(files, &mut file, &finished) {
            tracing::warn!(%error, path = %files.current.display(), "the log of statements can't be written");
        }
    }
}

fn write_one(files: &Files, file: &mut File, finished: &Finished) -> io::Result<()> {
    let mut line = serde_json::to_vec(finished)?;
    line.push(b'\n');
    if file.metadata()?.len() + line.len() as u64 > files.bytes_max {
        fs::rename(&files.current, &files.older)?;
        *file = files.open()?;
    }
    // In one call, so that lines of two processes do not mix.
    file.write_all(&line)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn finished(number: u64) -> Finished {
        Finished {
            id: format!("{number:016x}"),
            began: Timestamp(1),
            token: "operator".to_owned(),
            database: "a".to_owned(),
            sql: Some("SELECT 'secret'".to_owned()),
            outcome: Outcome::Done,
            duration_us: 5,
            queued_us: 0,
            answered_us: None,
            rows: Some(1),
            bytes: 8,
            worker: None,
            lsn: 0,
        }
    }

    /// Reads until the newest line is there.
    fn read_until(log: &QueryLog, newest: u64) -> Vec<Finished> {
        let begin = Instant::now();
        loop {
            let read = log.read().unwrap();
            if read
                .last()
                .is_some_and(|last| last.id == format!("{newest:016x}"))
            {
                return read;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "{read:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn lines_come_back_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let log = QueryLog::open(directory.path(), 4000, SqlKept::Text).unwrap();
        for number in 0..100 {
            log.add(&finished(number));
        }
        let read = read_until(&log, 99);
        let first = 100 - read.len() as u64;
        assert!((10..90).contains(&first), "{first}");
        let expected: Vec<Finished> = (first..100).map(finished).collect();
        assert_eq!(read, expected);
        for file in fs::read_dir(directory.path()).unwrap() {
            assert!(file.unwrap().metadata().unwrap().len() <= 4000);
        }
    }

    #[test]
    fn a_text_that_is_not_to_be_kept_is_nowhere() {
        for (kept, expected) in [
            (SqlKept::Nothing, None),
            (SqlKept::Redacted, Some("SELECT ?".to_owned())),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let log = QueryLog::open(directory.path(), 4000, kept).unwrap();
            log.add(&finished(1));
            assert_eq!(read_until(&log, 1)[0].sql, expected);
            let text = fs::read_to_string(directory.path().join("queries.jsonl")).unwrap();
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn a_torn_line_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("queries.jsonl"), "{\"id\":\n").unwrap();
        let log = QueryLog::open(directory.path(), 4000, SqlKept::Text).unwrap();
        log.add(&finished(1));
        assert_eq!(read_until(&log, 1), [finished(1)]);
    }
}
