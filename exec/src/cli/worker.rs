//! `worker`: one worker by itself, for gateways on other hosts, or for clients directly.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use layerd::catalog::service::{Worker as Announced, WorkerKind};
use layerd::id::{DatabaseName, WorkerId, random_u64};
use layerd::store::Store;
use tokio::signal::unix::{SignalKind, signal};
use tonic::service::Routes;

use super::serve::{self, TlsOptions};
use super::{Context, LogFormat, log_as_server, output, runtime};
use crate::access::peer::{PeerGate, Secret};
use crate::access::token::{Operator, TokenGate};
use crate::access::{Databases, Gate, title};
use crate::gateway::announce::Announcement;
use crate::gateway::local::worker_name;
use crate::server::{self, Listener, Parts};
use crate::worker::{Claim, Config, Endpoint, Limits, Place, Role, Worker};

/// The mount point in a worker's directory.
const MOUNT: &str = "mount";
/// How many directories are looked at for one that no reader has.
const READERS_OF_A_HOME_MAX: usize = 1000;

/// Run one worker of a database
///
/// With --announce, gateways over the same catalog find it, and nobody else may call it. With a secret in
/// OPENDUCK_WORKER_SECRET, gateways that have the same secret, and nobody else. Otherwise it is a backend by
/// itself, and checks clients' tokens.
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck worker -d mydb --announce\n  openduck worker -d mydb --reader --listen 10.0.0.7:7879 --tls-cert cert.pem --tls-key key.pem --announce"
)]
pub(super) struct WorkerCommand {
    /// The database
    #[arg(short, long, value_name = "DB")]
    database: DatabaseName,
    /// Read snapshots, instead of holding the live database
    #[arg(long)]
    reader: bool,
    /// Tell gateways of it, by the catalog
    #[arg(long)]
    announce: bool,
    /// The URL that gateways are told [default: the address that it listens on]
    #[arg(long, value_name = "URL", requires = "announce")]
    advertise: Option<String>,
    /// Where to listen; beyond this host only with TLS
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[command(flatten)]
    tls: TlsOptions,
    /// A directory of its own, to mount in and for temporary files [default: one in the home]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How long statements that run may go on when the worker ends
    #[arg(long, value_name = "DURATION", value_parser = serve::duration, default_value = "30s")]
    grace: Duration,
    /// How this worker's own log looks
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(flatten)]
    local: serve::LocalOptions,
}

impl WorkerCommand {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        log_as_server(self.log_format);
        let store = context.store()?;
        runtime()?.block_on(self.serve(context, store))
    }

    async fn serve(self, context: &Context, store: Arc<Store>) -> Result<()> {
        let listener = Listener::bind(self.listen, self.tls.load()?, self.tls.insecure).await?;
        let id = WorkerId::random();
        let secret: [u8; 32] = std::array::from_fn(|_| random_u64().to_ne_bytes()[0]);
        let gate = self.gate(&store, &secret)?;
        let worker = Worker::open(self.config(context, id)?, gate).await?;
        let url = self.advertise.clone().unwrap_or_else(|| listener.url());
        let announcement = Announcement::new(
            Arc::clone(&store),
            Announced {
                id,
                address: url.clone(),
                kind: self.kind(),
                database: self.database.clone(),
                host: rustix::system::uname()
                    .nodename()
                    .to_string_lossy()
                    .into_owned(),
                pid: std::process::id(),
                secret,
            },
        );
        let metrics = worker.clone();
        let parts = Parts {
            execution: Routes::new(Endpoint::new(worker.clone())),
            ready: Arc::new(|| Ok(())),
            metrics: Arc::new(move || figures(&metrics)),
            more: axum::Router::new(),
        };
        let ending = ending(worker.clone())?;
        output::print(&format_args!("{} served at {url}\n", self.database))?;
        let serving = server::serve(listener, parts, ending, self.grace);
        if self.announce {
            tokio::select! {
                served = serving => served?,
                never = announcement.go_on() => match never {},
            }
            announcement.end().await;
        } else {
            serving.await?;
        }
        worker.close(Duration::ZERO).await?;
        Ok(())
    }

    fn kind(&self) -> WorkerKind {
        match self.reader {
            true => WorkerKind::Reader,
            false => WorkerKind::Writer,
        }
    }

    /// Who may call it.
    fn gate(&self, store: &Arc<Store>, announced: &[u8; 32]) -> Result<Arc<dyn Gate>> {
        if self.announce {
            let text: String = announced.iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(Arc::new(PeerGate::new(Secret::new(&text)?)));
        }
        match std::env::var(serve::WORKER_SECRET) {
            Ok(secret) => {
                title::scrub(&secret).context("cannot hide the workers' secret")?;
                Ok(Arc::new(PeerGate::new(Secret::new(&secret)?)))
            }
            Err(_) => Ok(Arc::new(TokenGate::new(
                Arc::clone(store),
                Operator::Nobody,
                Databases::All,
            ))),
        }
    }

    /// Its directory, and the claim on the mount point in it. Where none was named it is always the same for
    /// a database's writer, and the first that no other worker has for a reader: so the next worker
    /// goes on with what one that was killed has left.
    fn directory(&self, home: &Path) -> Result<(PathBuf, Option<Arc<Claim>>)> {
        if let Some(directory) = &self.directory {
            return Ok((directory.clone(), None));
        }
        let all = home.join("exec").join(self.database.as_str());
        if !self.reader {
            return Ok((all.join("writer-of-its-own"), None));
        }
        for number in 0..READERS_OF_A_HOME_MAX {
            let directory = all.join(format!("reader-of-its-own-{number}"));
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("make {}", directory.display()))?;
            match Claim::of(&directory.join(MOUNT), Duration::ZERO) {
                Ok(claim) => return Ok((directory, Some(Arc::new(claim)))),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("claim {}", directory.display()));
                }
            }
        }
        anyhow::bail!(
            "this home has {READERS_OF_A_HOME_MAX} readers of {} already; name a directory with --directory",
            self.database
        )
    }

    fn config(&self, context: &Context, id: WorkerId) -> Result<Config> {
        let home = &context.config.home;
        let (directory, claim) = self.directory(home)?;
        let mut limits = Limits::default();
        self.local.apply(&mut limits);
        Ok(Config {
            name: worker_name(self.kind(), id),
            database: self.database.to_string(),
            role: match self.reader {
                true => Role::Reader,
                false => Role::Writer,
            },
            place: Place::Mount {
                directory: directory.join(MOUNT),
                claim,
                program: self.local.mounter.clone(),
                arguments: vec!["--home".to_owned(), home.display().to_string()],
            },
            scratch: directory.join("scratch"),
            journal: Some(directory.join("journal")),
            storage_version: self.local.storage_version.clone(),
            allowed_directories: self.local.allow_directory.clone(),
            limits,
        })
    }
}

/// Ready when the worker is to end.
fn ending(worker: Worker) -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
            () = worker.broken() => tracing::error!("DuckDB has given up; a new process must go on"),
        }
    })
}

/// What it does, for Prometheus.
pub(super) fn figures(worker: &Worker) -> String {
    use prometheus_client::metrics::gauge::Gauge;
    let figures = worker.figures();
    let mut registry = prometheus_client::registry::Registry::with_prefix("openduck_worker");
    let as_number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    for (name, help, value) in [
        (
            "sessions",
            "Sessions that are there",
            as_number(figures.sessions),
        ),
        (
            "results",
            "Results that are there, read or not",
            as_number(figures.results),
        ),
        ("running", "Statements that run", as_number(figures.running)),
        (
            "instances",
            "DuckDB instances that are open",
            as_number(figures.instances),
        ),
        (
            "buffered_bytes",
            "Bytes of results that are not sent yet",
            as_number(figures.buffered_bytes),
        ),
        (
            "head_lsn",
            "The newest commit that it knows of",
            i64::try_from(figures.head_lsn).unwrap_or(i64::MAX),
        ),
    ] {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        Err(error) => format!("# {error}\n# EOF\n"),
    }
}
