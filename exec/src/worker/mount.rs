//! The directory that the database lies in: a mount of the worker's own, or a plain directory.
//!
//! The mount is a process of its own and outlives the worker's sudden death: the next worker of that
//! mount point finds it and goes on with it at once. A worker that ends in good order takes it away, and
//! the next one waits for that (`claim`).
//!
//! The live database is opened through a descriptor of the mount's root, never by the mount point's path:
//! were the mount gone in between, DuckDB would make a new, empty database in the directory beneath.

use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::Deserialize;

use super::claim::Claim;
use super::config::{Place, Role};

/// How long the worker before may take to end.
const CLAIM_PATIENCE: Duration = Duration::from_secs(25);

/// How long a mount may take to come up: another host's lease may have to run out first.
const MOUNT_PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether it is up.
const MOUNT_POLL: Duration = Duration::from_millis(5);

/// How what a mount tells is opened.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// The command.
const PROGRAM: &str = "openduck-fs";

/// A database's directory is not to be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// `openduck-fs` could not be run.
    #[error("running {program:?}: {error}; install openduck-fs beside this program, or name it")]
    Program {
        /// What was tried.
        program: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It ended, and has said why on stderr.
    #[error("openduck-fs {what} failed: {said}")]
    Failed {
        /// What it was to do.
        what: String,
        /// The end of what it said.
        said: String,
    },
    /// The directory can't be used.
    #[error("{directory:?}: {error}")]
    Directory {
        /// Which.
        directory: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Something else is mounted there.
    #[error("{directory:?} is a mount of {found}, not of {wanted}; name another directory")]
    Other {
        /// Where.
        directory: PathBuf,
        /// What is there.
        found: String,
        /// What should be.
        wanted: String,
    },
}

/// What is read of `.openduck/status`.
#[derive(Debug, Deserialize)]
struct StatusFile {
    database: String,
    mode: String,
    head_lsn: Option<u64>,
}

/// A database's directory.
#[derive(Debug)]
pub struct Mount {
    database: String,
    directory: PathBuf,
    /// The program and its first arguments; `None` for a plain directory.
    program: Option<(PathBuf, Vec<String>)>,
    /// `None` in a plain directory, and once the mount was taken away.
    own: Mutex<Option<Own>>,
}

/// A mount that this worker has.
#[derive(Debug)]
struct Own {
    /// Its root; who reads by it holds no lock meanwhile.
    root: Arc<OwnedFd>,
    /// Its newest commit's number, in a live mount.
    head: Option<Arc<OwnedFd>>,
    /// Its process, if this worker started it.
    child: Option<Child>,
    _claim: Arc<Claim>,
}

impl Mount {
    /// Makes the mount, or goes on with the one that a worker before left. Blocks until it is live.
    ///
    /// # Errors
    ///
    /// [`MountError`].
    pub fn open(place: &Place, database: &str, role: Role) -> Result<Mount, MountError> {
        match place {
            Place::Plain { directory } => Ok(Mount {
                database: database.to_owned(),
                directory: canonical(directory)?,
                program: None,
                own: Mutex::default(),
            }),
            Place::Mount {
                directory,
                claim,
                program,
                arguments,
            } => {
                let parent = directory.parent().unwrap_or(directory);
                std::fs::create_dir_all(parent).map_err(|error| directory_error(parent, error))?;
                let claim = match claim {
                    Some(claim) => Arc::clone(claim),
                    None => Arc::new(
                        Claim::of(directory, CLAIM_PATIENCE)
                            .map_err(|error| directory_error(directory, error))?,
                    ),
                };
                std::fs::create_dir_all(directory).or_else(|error| match error.kind() {
                    // A mount whose server is dead; `openduck-fs mount` takes it away.
                    io::ErrorKind::NotConnected | io::ErrorKind::AlreadyExists => Ok(()),
                    _ => Err(directory_error(directory, error)),
                })?;
                let program = program.clone().unwrap_or_else(find_program);
                let mount = Mount {
                    database: database.to_owned(),
                    directory: directory.clone(),
                    program: Some((program, arguments.clone())),
                    own: Mutex::default(),
                };
                let (root, child) = match live_root(directory) {
                    Some((root, status)) => {
                        mount.check(&status, role)?;
                        (root, None)
                    }
                    None => {
                        let (root, child) = mount.make(role)?;
                        (root, Some(child))
                    }
                };
                Ok(Mount {
                    directory: canonical(directory)?,
                    own: Mutex::new(Some(Own {
                        head: openat(&root, ".openduck/head_lsn", READ, Mode::empty())
                            .ok()
                            .map(Arc::new),
                        root: Arc::new(root),
                        child,
                        _claim: claim,
                    })),
                    ..mount
                })
            }
        }
    }

    fn check(&self, status: &StatusFile, role: Role) -> Result<(), MountError> {
        let mode = if role == Role::Writer { "rw" } else { "ro" };
        if status.database != self.database || (role == Role::Writer && status.mode != mode) {
            return Err(MountError::Other {
                directory: self.directory.clone(),
                found: format!("{} ({})", status.database, status.mode),
                wanted: format!("{} ({mode})", self.database),
            });
        }
        Ok(())
    }

    fn make(&self, role: Role) -> Result<(OwnedFd, Child), MountError> {
        let mut arguments = vec!["mount", self.database.as_str()];
        if role == Role::Reader {
            arguments.push("--follow");
        }
        arguments.push("--foreground");
        let mut command = self.command(&arguments);
        command.arg(&self.directory);
        // Not in our process group: what ends the worker from a terminal must not end the mount first.
        command.process_group(0).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(|error| self.program_error(error))?;
        let deadline = Instant::now() + MOUNT_PATIENCE;
        loop {
            if let Some((root, _)) = live_root(&self.directory) {
                return Ok((root, child));
            }
            let ended = child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                let said = match ended {
                    Some(status) => format!("it ended with {status}; see its message above"),
                    None => format!("it was not live after {} s", MOUNT_PATIENCE.as_secs()),
                };
                return Err(MountError::Failed {
                    what: format!("mount {}", self.database),
                    said,
                });
            }
            std::thread::sleep(MOUNT_POLL);
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let (program, first) = match &self.program {
            Some((program, first)) => (program.as_path(), first.as_slice()),
            None => (Path::new(PROGRAM), [].as_slice()),
        };
        let mut command = Command::new(program);
        command.args(first).args(arguments);
        command
    }

    fn program_error(&self, error: io::Error) -> MountError {
        let program = self.program.as_ref().map(|(program, _)| program.clone());
        MountError::Program {
            program: program.unwrap_or_default(),
            error,
        }
    }

    /// Takes the mount away. Everything that has files open in it must be closed.
    ///
    /// # Errors
    ///
    /// [`MountError`]; the mount is still there then, for the next worker.
    pub fn close(&self) -> Result<(), MountError> {
        let Some(own) = self.own.lock().take() else {
            return Ok(());
        };
        drop((own.root, own.head));
        let mut command = self.command(&["umount"]);
        let output = command.arg(&self.directory).stdin(Stdio::null()).output();
        let output = output.map_err(|error| self.program_error(error))?;
        if !output.status.success() {
            return Err(MountError::Failed {
                what: format!("umount {}", self.directory.display()),
                said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        if let Some(mut child) = own.child {
            let _ = child.wait();
        }
        Ok(())
    }

    /// Whether there are snapshots and LSNs here.
    pub fn is_plain(&self) -> bool {
        self.program.is_none()
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The live database's file, by a path that leads into this mount or nowhere.
    pub fn live_file(&self) -> PathBuf {
        let directory = self.root_path();
        directory
            .as_deref()
            .unwrap_or(&self.directory)
            .join(self.file_name())
    }

    /// The mount's root as a path of this process; `None` in a plain directory, and once the mount is gone.
    pub fn root_path(&self) -> Option<PathBuf> {
        Some(format!("/proc/self/fd/{}", self.root()?.as_raw_fd()).into())
    }

    fn root(&self) -> Option<Arc<OwnedFd>> {
        Some(Arc::clone(&self.own.lock().as_ref()?.root))
    }

    /// The database's file as it is in a state, by a reference's text.
    pub fn snapshot_file(&self, reference: &str) -> PathBuf {
        let directory = self.directory.join(".snapshots").join(reference);
        directory.join(self.file_name())
    }

    fn file_name(&self) -> String {
        format!("{}.duckdb", self.database)
    }

    /// The last acknowledged commit as this mount knows it; 0 in a plain directory and before the first
    /// commit. Blocks: for one request to a live mount, longer for others, which ask the catalog.
    ///
    /// # Errors
    ///
    /// The mount does not answer.
    pub fn head(&self) -> io::Result<u64> {
        if self.is_plain() {
            return Ok(0);
        }
        let head = self.own.lock().as_ref().and_then(|own| own.head.clone());
        if let Some(head) = head {
            let mut text = [0; 32];
            let length = rustix::io::pread(&*head, &mut text, 0)?;
            let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
            return text.trim().parse().map_err(|_| no_answer());
        }
        let status = self.root().and_then(|root| status(&root));
        let status = status.ok_or_else(no_answer)?;
        Ok(status.head_lsn.unwrap_or(0))
    }

    /// The LSN that a reference means, by asking `openduck-fs`; `None` where there is no such state.
    /// Blocks for some 10 ms.
    ///
    /// # Errors
    ///
    /// [`MountError::Program`].
    pub fn lsn_of(&self, reference: &str) -> Result<Option<u64>, MountError> {
        #[derive(Deserialize)]
        struct Shown {
            lsn: Option<u64>,
        }
        if let Some(lsn) = reference.strip_prefix("lsn:") {
            return Ok(lsn.parse().ok());
        }
        let state = format!("{}@{reference}", self.database);
        let output = self.command(&["--json", "show", &state]).output();
        let output = output.map_err(|error| self.program_error(error))?;
        let shown = serde_json::from_slice::<Shown>(&output.stdout).ok();
        Ok(shown.and_then(|shown| shown.lsn))
    }
}

/// What is mounted at a directory, if something is and answers: its root, and what it says of itself.
fn live_root(directory: &Path) -> Option<(OwnedFd, StatusFile)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, directory, flags, Mode::empty()).ok()?;
    let status = status(&root)?;
    Some((root, status))
}

fn no_answer() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the database's mount does not answer",
    )
}

fn status(root: &OwnedFd) -> Option<StatusFile> {
    let file = openat(root, ".openduck/status", READ, Mode::empty()).ok()?;
    let mut text = Vec::new();
    std::fs::File::from(file).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn directory_error(directory: &Path, error: io::Error) -> MountError {
    MountError::Directory {
        directory: directory.to_owned(),
        error,
    }
}

fn canonical(directory: &Path) -> Result<PathBuf, MountError> {
    let found = directory.canonicalize();
    found.map_err(|error| directory_error(directory, error))
}

/// The command beside this program, or as the `PATH` has it.
fn find_program() -> PathBuf {
    let beside = std::env::current_exe().ok();
    let beside = beside.map(|program| program.with_file_name(PROGRAM));
    match beside.filter(|program| program.is_file()) {
        Some(program) => program,
        None => PROGRAM.into(),
    }
}
