//! `mount`: serving one mount in this process, until it ends.
//!
//! In order: a place in the registry, the mount, and only when that is live the signals, the
//! socket, the entry, and the word to the caller. Whatever fails after that ends the mount again;
//! the end, however it came, is told to whoever waits for it on the socket, and the registry's
//! lock is let go last.
//!
//! Being a process in the background is [`super::daemon`]'s part.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use layerd::catalog::CatalogError;
use layerd::id::DatabaseName;
use layerd::store::{Store, StoreError};
use layerd::writer::WriterOptions;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::EnvFilter;

use super::output::Reply;
use super::target::Target;
use super::{Context, log_filter};
use crate::control::{Handler, Server};
use crate::metrics;
use crate::registry::{MountEntry, Reservation};
use crate::server::{self, MountOptions, Mounted};

/// How long fetching ahead rests after a failure.
const PREFETCH_PAUSE: Duration = Duration::from_secs(5);

/// What to mount, and where.
pub(crate) struct Job {
    pub(crate) target: Target,
    /// Absolute and without links.
    pub(crate) dir: PathBuf,
    pub(crate) follow: bool,
    pub(crate) writer: WriterOptions,
    /// Fetch everything beside the work.
    pub(crate) prefetch: bool,
    /// Where to serve metrics.
    pub(crate) metrics: Option<SocketAddr>,
}

impl Job {
    /// Whether this is the live database, and not a read-only state of it.
    pub(crate) fn is_live(&self) -> bool {
        self.target.reference().is_none() && !self.follow
    }
}

/// A mount that is live.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Live {
    database: String,
    dir: PathBuf,
    file: PathBuf,
    mode: String,
    pid: u32,
    #[serde(rename = "ref")]
    reference: Option<String>,
    /// The database is new.
    created: bool,
}

impl Live {
    pub(crate) fn reply(&self) -> Reply {
        let (file, dir) = (self.file.display(), self.dir.display());
        let made = if self.created {
            format!("created {}, which is new\n", self.database)
        } else {
            String::new()
        };
        let what = match &self.reference {
            None => format!("{} is live at {file}", self.database),
            Some(reference) => format!("{}@{reference} is at {file}, read-only", self.database),
        };
        let document = serde_json::to_value(self).unwrap_or(Value::Null);
        Reply::new(
            document,
            format!(
                "{made}{what}, served by process {}; `openduck-fs umount {dir}` ends it",
                self.pid
            ),
        )
    }
}

/// Serves in the caller's process and terminal.
pub(crate) fn attached(context: &Context, job: &Job) -> Result<()> {
    start_log();
    serve(context, job, |live| {
        context
            .output
            .print(&live.reply())
            .context("cannot write to stdout")
    })
}

/// What is logged where nobody asks for more or less. The store's client tells of each retry; what
/// fails in the end is told by who called it.
const LOG_DEFAULT: &str = "info,object_store=warn";

/// Begins the log on stderr, at the level that `OPENDUCK_LOG` or `RUST_LOG` wants.
pub(crate) fn start_log() {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter().unwrap_or_else(|| EnvFilter::new(LOG_DEFAULT)))
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(|| Forgiving(io::stderr()))
        .init();
}

/// A log that can't be written (its disk is full, or gone) must not end what it tells about: the
/// subscriber would report the failure to stderr, which is the same file, and panic.
struct Forgiving(io::Stderr);

impl io::Write for Forgiving {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(self.0.write(bytes).unwrap_or(bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Mounts, and serves until the mount has ended and everything is flushed. `announce` is called
/// when the mount is live; its failure ends the mount.
pub(crate) fn serve(
    context: &Context,
    job: &Job,
    announce: impl FnOnce(&Live) -> Result<()>,
) -> Result<()> {
    let store = context.store()?;
    let created = job.is_live() && make_if_new(&store, job.target.database())?;
    let reservation = reserve(context, job)?;
    let options = MountOptions {
        database: job.target.database().clone(),
        reference: job.target.reference().cloned(),
        follow: job.follow,
        dir: job.dir.clone(),
        writer: job.writer,
    };
    let mut control = None;
    let mut failure = None;
    let served = server::serve(store, options, |mounted| {
        let live = Live {
            database: job.target.database().to_string(),
            dir: job.dir.clone(),
            file: mounted.file(),
            mode: mounted.mode().to_owned(),
            pid: std::process::id(),
            reference: match job.follow {
                true => Some("latest".to_owned()),
                false => job.target.reference_text().map(str::to_owned),
            },
            created,
        };
        let opened = end_on_signals(&mounted).and_then(|()| {
            if job.prefetch {
                fetch_ahead(&mounted, &job.target)?;
            }
            if let Some(address) = job.metrics {
                let mounted = Arc::clone(&mounted);
                metrics::serve(
                    address,
                    Arc::new(move || vec![metrics::of_mount(&mounted.status())]),
                )
                .with_context(|| format!("cannot serve metrics at {address}"))?;
            }
            if let Some(reservation) = &reservation {
                control = Some(open_to_others(&mounted, &live, reservation)?);
            }
            announce(&live)
        });
        match opened {
            Ok(()) => {
                tracing::info!(database = live.database, dir = %live.dir.display(), mode = live.mode, "live")
            }
            Err(error) => {
                failure = Some(error);
                mounted.end();
            }
        }
    });
    if let Some(control) = control {
        control.finish(served.as_ref().copied().map_err(ToString::to_string));
    }
    tracing::info!("ended");
    match (failure, served) {
        (Some(failure), _) => Err(failure),
        (None, served) => Ok(served?),
    }
}

/// `true` if the database was made now.
fn make_if_new(store: &Arc<Store>, name: &DatabaseName) -> Result<bool> {
    match store.database(name) {
        Ok(_) => return Ok(false),
        Err(StoreError::Catalog(CatalogError::NoSuchDatabase(_))) => {}
        Err(error) => return Err(error.into()),
    }
    match store.create(name) {
        Ok(_) => Ok(true),
        // Somebody else was faster.
        Err(StoreError::Catalog(CatalogError::DatabaseExists(_))) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A place in the registry. A home that can't be written has none to give, and a read-only mount
/// does without: the other commands will not find it, but the kernel does.
fn reserve(context: &Context, job: &Job) -> Result<Option<Reservation>> {
    match context.registry().reserve() {
        Ok(reservation) => Ok(Some(reservation)),
        Err(error) if !job.is_live() && cannot_be_written(&error) => {
            tracing::warn!(%error, "the home can't be written: the mount is not noted there");
            Ok(None)
        }
        Err(error) => Err(error)
            .with_context(|| format!("cannot note the mount in {}", context.config.home.display())),
    }
}

pub(crate) fn cannot_be_written(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    )
}

/// Ends the mount when the process is asked to go. Until the mount is live, a signal just ends the
/// process: the store is made for that, and nobody should wait for a long recovery to stop it.
fn end_on_signals(mounted: &Arc<Mounted>) -> Result<()> {
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot watch for signals")?;
    let mounted = Arc::clone(mounted);
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                tracing::info!(signal, "asked to end");
                mounted.end();
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

/// Fetches what the mounted state needs from a remote store, beside the work, until it is all here
/// or the process ends.
fn fetch_ahead(mounted: &Arc<Mounted>, target: &Target) -> Result<()> {
    let (mounted, database) = (Arc::downgrade(mounted), target.database().clone());
    let reference = target.state().clone();
    thread::Builder::new()
        .name("prefetch".into())
        .spawn(move || {
            while let Some(store) = mounted.upgrade().map(|mounted| mounted.store()) {
                match store.prefetch(&database, &reference, &AtomicBool::new(false)) {
                    Ok(()) => return tracing::info!("everything is here"),
                    Err(error) => tracing::warn!(%error, "cannot fetch ahead; trying again"),
                }
                thread::sleep(PREFETCH_PAUSE);
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

/// Makes a live mount answer on its socket, and be found by the other commands.
fn open_to_others(
    mounted: &Arc<Mounted>,
    live: &Live,
    reservation: &Reservation,
) -> Result<Server> {
    let socket = reservation.socket();
    let server = Server::start(socket, Arc::new(Serving(Arc::clone(mounted))))
        .with_context(|| format!("cannot listen at {}", socket.display()))?;
    reservation
        .publish(&MountEntry {
            database: live.database.clone(),
            dir: live.dir.clone(),
            mode: live.mode.clone(),
            pid: live.pid,
            reference: live.reference.clone(),
            socket: socket.to_owned(),
        })
        .map_err(|error| anyhow!("cannot note the mount beside {}: {error}", socket.display()))?;
    Ok(server)
}

/// A mount that answers on its socket.
struct Serving(Arc<Mounted>);

impl Handler for Serving {
    fn status(&self) -> Result<Value, String> {
        serde_json::to_value(self.0.status()).map_err(|error| error.to_string())
    }

    fn rotate(&self) -> Result<(), String> {
        match self.0.writer() {
            Some(writer) => writer.rotate().map(drop).map_err(|error| error.to_string()),
            None => Err("a read-only mount has nothing to rotate".to_owned()),
        }
    }

    /// Read-only mounts stay with the layers that they pinned.
    fn reload(&self) -> Result<(), String> {
        match self.0.writer() {
            Some(writer) => writer.reload().map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    fn end(&self) {
        self.0.end();
    }
}
