//! Workers that this gateway starts by itself, on this host: one writer for each database that is asked for,
//! and as many readers as the operator wants.
//!
//! Each is a process `openduck` of its own, told by its stdin what to be and by whom it may be called: no
//! secret is ever on a command line or in an environment. Stdin stays open; when it closes, because the
//! gateway ended or was killed, the worker ends as well. It says on stdout that it is ready, and where.
//!
//! A worker that dies while its database is wanted is started anew at once; one that dies again and again,
//! after waits that grow up to `RESTART_WAIT_MAX`. Of a database that nobody used for a while, all
//! workers end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use layerd::catalog::service::{Worker, WorkerKind};
use layerd::id::{DatabaseName, WorkerId, random_u64};
use layerd::store::{Store, StoreConfig};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::announce::Announcement;
use super::fleet::Fleet;
use super::member::{Credential, Member, NewMember, Origin};
use crate::access::peer::Secret;

/// How long a worker may take to be ready: another host's lease may have to run out first.
const READY_TIMEOUT: Duration = Duration::from_secs(40);
/// How long one may take to end: it closes its database and takes its mount away.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// A worker that lived for this long did not die of its beginning.
const STABLE_AFTER: Duration = Duration::from_secs(10);
const RESTART_WAIT_MIN: Duration = Duration::from_millis(100);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(5);

/// How workers are started.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The program: `openduck` itself.
    pub program: PathBuf,
    /// What mounts a database; `None`: the one beside the program, or on the `PATH`.
    pub mounter: Option<PathBuf>,
    /// Where databases are.
    pub store: StoreConfig,
    /// How many readers each database has.
    pub readers: usize,
    /// After how long without a statement a database's workers end; `None`: never.
    pub idle: Option<Duration>,
    /// The storage version of new databases; `None`: DuckDB's newest.
    pub storage_version: Option<String>,
    /// Memory of each worker, in bytes; `None`: its default.
    pub memory_bytes: Option<u64>,
    /// Threads of each worker; `None`: its default.
    pub threads: Option<usize>,
    /// Directories that SQL may read and write files in.
    pub allowed_directories: Vec<PathBuf>,
    /// How long a statement may run; `None`: the worker's default.
    pub statement_time: Option<Duration>,
}

/// What a worker is told on its stdin, one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// Its name, for people.
    pub name: String,
    /// Its database.
    pub database: String,
    /// Whether it holds the live mount; else it reads snapshots.
    pub is_writer: bool,
    /// The secret of who may call it.
    pub secret: String,
    /// The home; catalog and layers, where they are elsewhere, stand in the environment.
    pub home: PathBuf,
    /// A directory of its own below which it mounts and spills.
    pub directory: PathBuf,
    /// As [`LocalConfig::mounter`].
    pub mounter: Option<PathBuf>,
    /// As [`LocalConfig::storage_version`].
    pub storage_version: Option<String>,
    /// As [`LocalConfig::memory_bytes`].
    pub memory_bytes: Option<u64>,
    /// As [`LocalConfig::threads`].
    pub threads: Option<usize>,
    /// As [`LocalConfig::allowed_directories`].
    pub allowed_directories: Vec<PathBuf>,
    /// As [`LocalConfig::statement_time`], in ms.
    pub statement_time_ms: Option<u64>,
}

/// What a worker says on its stdout, one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// It can be called.
    Ready(Address),
    /// It can't be what it should be, and why.
    Failed(String),
}

/// Where a worker can be called.
#[derive(Debug, Serialize, Deserialize)]
pub struct Address {
    /// By anybody on this host who has its secret.
    pub url: String,
    /// The same, by a local socket, where its path is short enough for one.
    pub socket: Option<PathBuf>,
}

/// The hidden command that makes the program such a worker.
pub const COMMAND: &str = "worker-of-gateway";

/// The workers of this host.
pub struct Local {
    config: LocalConfig,
    store: Arc<Store>,
    databases: Mutex<HashMap<String, Arc<Database>>>,
}

/// One database's workers.
struct Database {
    name: String,
    used: Mutex<Instant>,
    /// What its workers should do now.
    wanted: watch::Sender<Wanted>,
    /// How many processes there are.
    living: watch::Sender<usize>,
    /// Why the writer does not come up, while it does not.
    failure: Mutex<Option<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// They should live.
    Run,
    /// Nobody needs them now; they come back when somebody does.
    Idle,
    /// They must not live now.
    Paused,
}

impl Local {
    /// No worker yet.
    #[must_use]
    pub fn new(config: LocalConfig, store: Arc<Store>) -> Arc<Local> {
        Arc::new(Local {
            config,
            store,
            databases: Mutex::default(),
        })
    }

    /// Sees to it that the database's workers live, or will.
    pub fn want(self: &Arc<Self>, fleet: &Arc<Fleet>, name: &str) {
        let mut databases = self.databases.lock();
        if let Some(database) = databases.get(name) {
            *database.used.lock() = Instant::now();
            database.wanted.send_if_modified(|wanted| {
                let is_idle = *wanted == Wanted::Idle;
                if is_idle {
                    *wanted = Wanted::Run;
                }
                is_idle
            });
            return;
        }
        let database = Arc::new(Database {
            name: name.to_owned(),
            used: Mutex::new(Instant::now()),
            wanted: watch::Sender::new(Wanted::Run),
            living: watch::Sender::new(0),
            failure: Mutex::default(),
        });
        databases.insert(name.to_owned(), Arc::clone(&database));
        let writer = std::iter::once((WorkerKind::Writer, 0));
        let readers = (0..self.config.readers).map(|number| (WorkerKind::Reader, number));
        for (kind, number) in writer.chain(readers) {
            let keeper = Keeper {
                local: Arc::clone(self),
                fleet: Arc::clone(fleet),
                database: Arc::clone(&database),
                kind,
                number,
            };
            tokio::spawn(keeper.keep());
        }
    }

    /// Notes that the database was used.
    pub fn touch(&self, name: &str) {
        if let Some(database) = self.databases.lock().get(name) {
            *database.used.lock() = Instant::now();
        }
    }

    /// Why the database's writer does not come up, if it has said so.
    #[must_use]
    pub fn failure(&self, name: &str) -> Option<String> {
        let databases = self.databases.lock();
        databases.get(name)?.failure.lock().clone()
    }

    /// Ends the workers of databases that were not used for the idle time, and that nothing runs on.
    pub fn end_idle(&self, is_busy: impl Fn(&str) -> bool) {
        let Some(idle) = self.config.idle else {
            return;
        };
        for (name, database) in &*self.databases.lock() {
            let is_idle = database.used.lock().elapsed() > idle && !is_busy(name);
            if is_idle && *database.wanted.borrow() == Wanted::Run {
                tracing::info!(
                    database = name,
                    "nobody used it for a while; its workers end"
                );
                database.wanted.send_replace(Wanted::Idle);
            }
        }
    }

    /// Ends the database's workers, in good order, and keeps them from coming back until what is returned
    /// is dropped.
    pub async fn pause(&self, name: &str) -> Option<Paused> {
        let database = self.databases.lock().get(name).cloned()?;
        database.wanted.send_replace(Wanted::Paused);
        let paused = Paused(Arc::clone(&database));
        let mut living = database.living.subscribe();
        // The sender lives as long as the database.
        let _all_gone = living.wait_for(|living| *living == 0).await;
        Some(paused)
    }

    /// Ends all workers, in good order.
    pub async fn end_all(&self) {
        let all: Vec<_> = self.databases.lock().drain().map(|(_, all)| all).collect();
        for database in &all {
            database.wanted.send_replace(Wanted::Paused);
        }
        for database in &all {
            let mut living = database.living.subscribe();
            let _all_gone = living.wait_for(|living| *living == 0).await;
        }
    }
}

/// Workers that may not come back until this is dropped.
pub struct Paused(Arc<Database>);

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.wanted.send_replace(Wanted::Run);
    }
}

/// Keeps one worker alive.
struct Keeper {
    local: Arc<Local>,
    fleet: Arc<Fleet>,
    database: Arc<Database>,
    kind: WorkerKind,
    number: usize,
}

/// A worker that is ready.
struct Live {
    child: Child,
    /// Its stdin: it ends when this does.
    _leash: tokio::process::ChildStdin,
    worker: Worker,
    member: Arc<Member>,
}

impl Keeper {
    async fn keep(self) {
        let mut wanted = self.database.wanted.subscribe();
        let mut wait = RESTART_WAIT_MIN;
        loop {
            while *wanted.borrow_and_update() != Wanted::Run {
                // A database that was forgotten is not started again under this keeper.
                if !self.is_current() || wanted.changed().await.is_err() {
                    return;
                }
            }
            let began = Instant::now();
            self.database.living.send_modify(|living| *living += 1);
            let ended = self.live(&mut wanted).await;
            self.database.living.send_modify(|living| *living -= 1);
            let Err(why) = ended else {
                continue;
            };
            tracing::warn!(database = self.database.name, kind = ?self.kind, why, "a worker ended");
            if began.elapsed() >= STABLE_AFTER {
                wait = RESTART_WAIT_MIN;
                continue;
            }
            tokio::time::sleep(wait).await;
            wait = RESTART_WAIT_MAX.min(wait * 2);
        }
    }

    fn is_current(&self) -> bool {
        let databases = self.local.databases.lock();
        databases
            .get(&self.database.name)
            .is_some_and(|current| Arc::ptr_eq(current, &self.database))
    }

    /// One life of the worker; an error where it ended without having been asked to.
    async fn live(&self, wanted: &mut watch::Receiver<Wanted>) -> Result<(), String> {
        let started = self.start().await;
        if self.kind == WorkerKind::Writer {
            *self.database.failure.lock() = started.as_ref().err().cloned();
        }
        let mut live = started?;
        self.fleet.add(&live.member);
        // Other replicas of the gateway use it as well.
        let announcing = Announcement::new(Arc::clone(&self.local.store), live.worker.clone());
        let ended = tokio::select! {
            ended = live.child.wait() => Err(match ended {
                Ok(status) => format!("it ended by itself ({status})"),
                Err(error) => error.to_string(),
            }),
            _no_more = wanted.wait_for(|wanted| *wanted != Wanted::Run) => Ok(()),
            never = announcing.go_on() => match never {},
        };
        self.fleet.remove(live.member.id);
        announcing.end().await;
        if ended.is_ok() {
            end(&mut live).await;
        }
        ended
    }

    async fn start(&self) -> Result<Live, String> {
        let id = WorkerId::random();
        let config = &self.local.config;
        let kind = match self.kind {
            WorkerKind::Writer => "writer".to_owned(),
            WorkerKind::Reader => format!("reader-{}", self.number),
        };
        let secret: [u8; 32] = std::array::from_fn(|_| random_u64().to_ne_bytes()[0]);
        let secret_text: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let directory = config
            .store
            .home
            .join("exec")
            .join(&self.database.name)
            .join(kind);
        std::fs::create_dir_all(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let orders = Orders {
            name: worker_name(self.kind, id),
            database: self.database.name.clone(),
            is_writer: self.kind == WorkerKind::Writer,
            secret: secret_text.clone(),
            home: config.store.home.clone(),
            directory,
            mounter: config.mounter.clone(),
            storage_version: config.storage_version.clone(),
            memory_bytes: config.memory_bytes,
            threads: config.threads,
            allowed_directories: config.allowed_directories.clone(),
            statement_time_ms: config
                .statement_time
                .map(|time| time.as_millis().try_into().unwrap_or(u64::MAX)),
        };
        let (child, leash, address) = spawn(config, &orders).await?;
        let pid = child.id().unwrap_or_default();
        let member = Member::new(
            NewMember {
                id,
                kind: self.kind,
                database: Some(self.database.name.clone()),
                address: address.url.clone(),
                origin: Origin::Local,
                credential: Credential::Secret(
                    Secret::new(&secret_text).map_err(|error| error.to_string())?,
                ),
                socket: address.socket,
            },
            None,
        )
        .map_err(|error| error.to_string())?;
        let database: DatabaseName = self
            .database
            .name
            .parse()
            .map_err(|error: layerd::id::InvalidName| error.to_string())?;
        tracing::info!(worker = member.name(), database = %database, pid, "a worker is ready");
        Ok(Live {
            child,
            _leash: leash,
            worker: Worker {
                id,
                address: address.url,
                kind: self.kind,
                database,
                host: rustix::system::uname()
                    .nodename()
                    .to_string_lossy()
                    .into_owned(),
                pid,
                secret,
            },
            member,
        })
    }
}

/// A worker's name, as it stands in summaries and lists.
#[must_use]
pub fn worker_name(kind: WorkerKind, id: WorkerId) -> String {
    match kind {
        WorkerKind::Writer => format!("writer-{id}"),
        WorkerKind::Reader => format!("reader-{id}"),
    }
}

async fn spawn(
    config: &LocalConfig,
    orders: &Orders,
) -> Result<(Child, tokio::process::ChildStdin, Address), String> {
    let program = &config.program;
    let mut command = Command::new(program);
    // As `openduck-fs` gets them: a URL may hold a password, and command lines are everybody's.
    for (variable, url) in [
        ("OPENDUCK_META", &config.store.meta),
        ("OPENDUCK_OBJECTS", &config.store.objects),
    ] {
        match url {
            Some(url) => command.env(variable, url),
            None => command.env_remove(variable),
        };
    }
    let mut child = command
        .arg(COMMAND)
        .env_remove("OPENDUCK_TOKEN")
        // Not in our process group: what a terminal sends us must not end it before its clients.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("a worker has neither stdin nor stdout".to_owned());
    };
    let mut line = serde_json::to_vec(orders).map_err(|error| error.to_string())?;
    line.push(b'\n');
    let talk = async {
        stdin.write_all(&line).await?;
        let mut said = String::new();
        BufReader::new(stdout).read_line(&mut said).await?;
        Ok::<_, std::io::Error>(said)
    };
    let said = match tokio::time::timeout(READY_TIMEOUT, talk).await {
        Ok(Ok(said)) => said,
        Ok(Err(error)) => return Err(format!("a worker could not be told what to be: {error}")),
        Err(_) => {
            return Err(format!(
                "a worker was not ready after {} s",
                READY_TIMEOUT.as_secs()
            ));
        }
    };
    match serde_json::from_str(&said) {
        Ok(Readiness::Ready(address)) => Ok((child, stdin, address)),
        Ok(Readiness::Failed(why)) => Err(why),
        Err(_) => Err("a worker ended before it was ready; its last words are above".to_owned()),
    }
}

/// Asks a worker to end, and sees that it does.
async fn end(live: &mut Live) {
    if let Some(pid) = live
        .child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()))
    {
        // It may have ended a moment ago.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(END_TIMEOUT, live.child.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            worker = live.member.name(),
            "a worker does not end; it is killed"
        );
        if let Err(error) = live.child.kill().await {
            tracing::error!(%error, "a worker can't be killed");
        }
    }
}
