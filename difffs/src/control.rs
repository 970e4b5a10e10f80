//! Talking to the process that serves a mount: one request and one answer, each a line of JSON,
//! over a Unix socket.
//!
//! A request is `{"request":"status"}`; an answer `{"ok":…}` or `{"error":"…"}`. Only `wait` has
//! two answers: one at once, so that its caller knows that it will be told, and one at the end.
//! What a request does is its [`Handler`]'s business; here are the socket, the lines and the
//! patience. A server answers from a thread per connection, so that one slow caller never holds up
//! another, and a caller gives up after a while, so that a stopped server never hangs a command.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::registry::MountEntry;

/// Requests are a few dozen bytes; whoever sends more is not one of ours.
const REQUEST_BYTES_MAX: u64 = 4096;
/// How long a server waits for a caller to send its line or to take the answer.
const CALLER_PATIENCE: Duration = Duration::from_secs(10);

/// What a server can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase")]
pub enum Request {
    /// The object of `.openduck/status`.
    Status,
    /// Begin a new active layer, so that everything committed so far can be compacted.
    Rotate,
    /// Take over layers that were compacted meanwhile.
    Reload,
    /// Unmount. Answered at once; [`Request::Wait`] tells when it is done.
    End,
    /// Answered at once, and again when the mount has ended and everything is flushed.
    Wait,
}

impl Request {
    /// How long the answer may take before the caller gives up.
    fn patience(self) -> Duration {
        match self {
            Request::Status | Request::End | Request::Wait => Duration::from_secs(5),
            Request::Rotate | Request::Reload => Duration::from_secs(60),
        }
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// Done; with what was asked for, if it was something.
    Ok(Value),
    /// Not done, and why.
    Error(String),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The server has gone, or went away before it answered.
    #[error(
        "the server of {dir} (process {pid}) has gone; `openduck-fs umount {dir}` clears what it left"
    )]
    Gone {
        /// The mount.
        dir: String,
        /// Its server.
        pid: u32,
    },
    /// No answer in time: the server is stopped or its disk hangs. Trying again may help.
    #[error("the server of {dir} (process {pid}) did not answer within {seconds} s")]
    Silent {
        /// The mount.
        dir: String,
        /// Its server.
        pid: u32,
        /// How long it was given.
        seconds: u64,
    },
    /// The server did not do it.
    #[error("the server of {dir} (process {pid}) refused: {why}")]
    Refused {
        /// The mount.
        dir: String,
        /// Its server.
        pid: u32,
        /// Its own words.
        why: String,
    },
    /// The socket can't be used.
    #[error("cannot ask the server of {dir} (process {pid}): {source}")]
    Io {
        /// The mount.
        dir: String,
        /// Its server.
        pid: u32,
        /// Why.
        source: io::Error,
    },
}

/// Asks the server of `entry`, and waits for its answer.
pub fn request(entry: &MountEntry, request: Request) -> Result<Value, ControlError> {
    send(entry, request)?.answer(request.patience())
}

/// Asks the server of `entry` to tell when it has ended, and returns when that is sure to happen.
pub fn watch(entry: &MountEntry) -> Result<Pending, ControlError> {
    let mut pending = send(entry, Request::Wait)?;
    pending.answer(Request::Wait.patience())?;
    Ok(pending)
}

fn send(entry: &MountEntry, request: Request) -> Result<Pending, ControlError> {
    let attempt = || -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(Reachable::new(&entry.socket)?.path())?;
        stream.set_write_timeout(Some(CALLER_PATIENCE))?;
        write_line(&mut stream, &request)?;
        Ok(stream)
    };
    match attempt() {
        Ok(stream) => Ok(Pending {
            entry: entry.clone(),
            reader: BufReader::new(stream),
            line: Vec::new(),
        }),
        Err(source) => Err(failure(entry, source, CALLER_PATIENCE)),
    }
}

/// A request that was sent, and whose answer is to come.
pub struct Pending {
    entry: MountEntry,
    reader: BufReader<UnixStream>,
    /// What came of the answer before patience ran out.
    line: Vec<u8>,
}

impl Pending {
    /// Waits for the answer, at most for `patience`. After [`ControlError::Silent`] it may be asked
    /// again.
    pub fn answer(&mut self, patience: Duration) -> Result<Value, ControlError> {
        let read = self
            .reader
            .get_ref()
            .set_read_timeout(Some(patience))
            .and_then(|()| self.reader.read_until(b'\n', &mut self.line))
            .and_then(|_| match std::mem::take(&mut self.line).as_slice() {
                [] => Err(io::ErrorKind::UnexpectedEof.into()),
                line => Ok(serde_json::from_slice(line)?),
            });
        match read {
            Ok(Response::Ok(value)) => Ok(value),
            Ok(Response::Error(why)) => Err(ControlError::Refused {
                dir: self.entry.dir.display().to_string(),
                pid: self.entry.pid,
                why,
            }),
            Err(source) => Err(failure(&self.entry, source, patience)),
        }
    }
}

fn failure(entry: &MountEntry, source: io::Error, patience: Duration) -> ControlError {
    let dir = entry.dir.display().to_string();
    let pid = entry.pid;
    match source.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => ControlError::Gone { dir, pid },
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ControlError::Silent {
            dir,
            pid,
            seconds: patience.as_secs(),
        },
        _ => ControlError::Io { dir, pid, source },
    }
}

/// What a server does when it is asked.
pub trait Handler: Send + Sync {
    /// The mount's status object.
    fn status(&self) -> Result<Value, String>;
    /// As [`Request::Rotate`].
    fn rotate(&self) -> Result<(), String>;
    /// As [`Request::Reload`].
    fn reload(&self) -> Result<(), String>;
    /// As [`Request::End`].
    fn end(&self);
}

/// The answering side. It serves until the process ends.
pub struct Server {
    waiting: Arc<Mutex<Waiting>>,
}

/// Who wants to know of the end, or, afterwards, what to tell.
enum Waiting {
    Callers(Vec<UnixStream>),
    Ended(Response),
}

impl Server {
    /// Listens at `socket`, and answers from threads of its own.
    pub fn start(socket: &Path, handler: Arc<dyn Handler>) -> io::Result<Server> {
        let listener = UnixListener::bind(Reachable::new(socket)?.path())?;
        fs::set_permissions(socket, Permissions::from_mode(0o600))?;
        let waiting = Arc::new(Mutex::new(Waiting::Callers(Vec::new())));
        let server = Server {
            waiting: Arc::clone(&waiting),
        };
        thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                for stream in listener.incoming() {
                    match stream {
                        Ok(stream) => answer_in_thread(stream, &handler, &waiting),
                        Err(error) => {
                            // Out of descriptors, most likely: give the process a moment.
                            tracing::warn!(%error, "a control connection was lost");
                            thread::sleep(Duration::from_millis(100));
                        }
                    }
                }
            })?;
        Ok(server)
    }

    /// The mount has ended: answers everybody who waits for that, and whoever will.
    pub fn finish(&self, outcome: Result<(), String>) {
        let response = match outcome {
            Ok(()) => Response::Ok(Value::Null),
            Err(why) => Response::Error(why),
        };
        let before = std::mem::replace(&mut *self.waiting.lock(), Waiting::Ended(response.clone()));
        if let Waiting::Callers(callers) = before {
            for mut caller in callers {
                reply(&mut caller, &response);
            }
        }
    }
}

fn answer_in_thread(stream: UnixStream, handler: &Arc<dyn Handler>, waiting: &Arc<Mutex<Waiting>>) {
    let handler = Arc::clone(handler);
    let waiting = Arc::clone(waiting);
    let spawned = thread::Builder::new()
        .name("control-answer".into())
        .spawn(move || answer(stream, &*handler, &waiting));
    if let Err(error) = spawned {
        tracing::warn!(%error, "a control request could not be answered");
    }
}

fn answer(mut stream: UnixStream, handler: &dyn Handler, waiting: &Mutex<Waiting>) {
    let done = |result: Result<(), String>| match result {
        Ok(()) => Response::Ok(Value::Null),
        Err(why) => Response::Error(why),
    };
    let response = match receive(&stream) {
        Err(error) => Response::Error(format!("not a request: {error}")),
        Ok(Request::Status) => handler.status().map_or_else(Response::Error, Response::Ok),
        Ok(Request::Rotate) => done(handler.rotate()),
        Ok(Request::Reload) => done(handler.reload()),
        Ok(Request::End) => {
            handler.end();
            Response::Ok(Value::Null)
        }
        Ok(Request::Wait) => {
            // Under the lock, so that the end can't come between the two answers.
            let mut waiting = waiting.lock();
            reply(&mut stream, &Response::Ok(Value::Null));
            match &mut *waiting {
                Waiting::Callers(callers) => return callers.push(stream),
                Waiting::Ended(response) => response.clone(),
            }
        }
    };
    reply(&mut stream, &response);
}

fn receive(stream: &UnixStream) -> io::Result<Request> {
    stream.set_read_timeout(Some(CALLER_PATIENCE))?;
    stream.set_write_timeout(Some(CALLER_PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// A caller that went away meanwhile is none of our worries.
fn reply(stream: &mut UnixStream, response: &Response) {
    if let Err(error) = write_line(stream, response) {
        tracing::debug!(%error, "nobody took a control answer");
    }
}

fn write_line(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// A path to a socket that fits into the 108 bytes a socket address has, however deep the home
/// lies: by way of the directory's descriptor.
struct Reachable {
    _directory: File,
    path: PathBuf,
}

impl Reachable {
    fn new(socket: &Path) -> io::Result<Reachable> {
        let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = File::open(parent)?;
        let path = Path::new("/proc/self/fd")
            .join(directory.as_raw_fd().to_string())
            .join(name);
        Ok(Reachable {
            _directory: directory,
            path,
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use serde_json::json;

    use super::*;

    #[derive(Default)]
    struct Probe {
        ended: AtomicBool,
    }

    impl Handler for Probe {
        fn status(&self) -> Result<Value, String> {
            Ok(json!({"database": "mydb"}))
        }
        fn rotate(&self) -> Result<(), String> {
            Err("the disk is full".into())
        }
        fn reload(&self) -> Result<(), String> {
            Ok(())
        }
        fn end(&self) {
            self.ended.store(true, Ordering::SeqCst);
        }
    }

    struct Running {
        entry: MountEntry,
        probe: Arc<Probe>,
        server: Server,
        _home: tempfile::TempDir,
    }

    /// A server whose socket's path is longer than a socket address can be.
    fn running() -> Running {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("d".repeat(120));
        fs::create_dir(&deep).unwrap();
        let entry = MountEntry {
            database: "mydb".into(),
            dir: "/mnt/mydb".into(),
            mode: "rw".into(),
            pid: 1,
            reference: None,
            socket: deep.join("s.sock"),
        };
        let probe = Arc::new(Probe::default());
        let server = Server::start(&entry.socket, Arc::clone(&probe) as Arc<dyn Handler>).unwrap();
        Running {
            entry,
            probe,
            server,
            _home: home,
        }
    }

    #[test]
    fn answers_come_back_as_they_were_given() {
        let running = running();
        assert_eq!(
            request(&running.entry, Request::Status).unwrap(),
            json!({"database": "mydb"})
        );
        assert_eq!(
            request(&running.entry, Request::Reload).unwrap(),
            Value::Null
        );
        let refused = request(&running.entry, Request::Rotate).unwrap_err();
        assert!(
            refused.to_string().contains("the disk is full"),
            "{refused}"
        );
        request(&running.entry, Request::End).unwrap();
        assert!(running.probe.ended.load(Ordering::SeqCst));
    }

    #[test]
    fn waiting_ends_with_the_outcome_and_not_before() {
        let running = running();
        let mut early = watch(&running.entry).unwrap();
        let none = early.answer(Duration::from_millis(50)).unwrap_err();
        assert!(matches!(none, ControlError::Silent { .. }), "{none}");
        running.server.finish(Err("could not seal".into()));
        for outcome in [
            early.answer(Duration::from_secs(10)),
            watch(&running.entry)
                .unwrap()
                .answer(Duration::from_secs(10)),
        ] {
            assert!(outcome.unwrap_err().to_string().contains("could not seal"));
        }
    }

    #[test]
    fn nonsense_gets_an_error_and_does_no_harm() {
        let running = running();
        for nonsense in [
            "",
            "\n",
            "{}\n",
            "[[[[\n",
            "{\"request\":\"format\"}\n",
            &"x".repeat(10_000),
        ] {
            let mut stream =
                UnixStream::connect(Reachable::new(&running.entry.socket).unwrap().path()).unwrap();
            // What is too long is cut off, so a write may fail.
            let _ = stream.write_all(nonsense.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            assert!(
                answer.is_empty() || answer.contains("not a request"),
                "{answer}"
            );
        }
        assert!(request(&running.entry, Request::Status).is_ok());
    }

    #[test]
    fn a_server_that_has_gone_is_told_from_one_that_is_silent() {
        let mut entry = running().entry;
        entry.socket.set_file_name("nobody.sock");
        let gone = request(&entry, Request::Status).unwrap_err();
        assert!(matches!(gone, ControlError::Gone { .. }), "{gone}");
    }

    #[test]
    fn lines_are_as_documented() {
        assert_eq!(
            serde_json::to_string(&Request::Rotate).unwrap(),
            r#"{"request":"rotate"}"#
        );
        assert_eq!(
            serde_json::to_string(&Response::Ok(Value::Null)).unwrap(),
            r#"{"ok":null}"#
        );
        assert_eq!(
            serde_json::to_string(&Response::Error("x".into())).unwrap(),
            r#"{"error":"x"}"#
        );
    }
}
