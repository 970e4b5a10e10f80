//! `serve` and `gateway`: a gateway, and whatever workers it starts by itself.
//!
//! `serve` is all of it for one laptop: one database, made if it is new, and one worker that writes and
//! reads. `gateway` is the same for many databases and hosts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use layerd::catalog::CatalogError;
use layerd::catalog::service::WorkerKind;
use layerd::id::DatabaseName;
use layerd::store::{Store, StoreError};
use tokio::signal::unix::{SignalKind, signal};
use tonic::service::Routes;

use super::{Context, LogFormat, connect, log_as_server, output, runtime};
use crate::access::Databases;
use crate::access::peer::Secret;
use crate::access::token::{Operator, TokenGate};
use crate::gateway::fleet::Fleet;
use crate::gateway::local::{Local, LocalConfig};
use crate::gateway::log::SqlKept;
use crate::gateway::member::{Credential, Member, NewMember, Origin};
use crate::gateway::queue::Limits;
use crate::gateway::{
    Config, Gateway, GatewayService, LOG_BYTES_MAX, REQUEST_BYTES_MAX, extensions,
};
use crate::server::tls::{ServerTls, TlsFiles};
use crate::server::{self, Listener, Parts};

/// The variable with the secret of workers that the operator named.
pub(super) const WORKER_SECRET: &str = "OPENDUCK_WORKER_SECRET";

/// Serve a database: gateway and worker in one command
///
/// The database is made if it is new. Clients on this host, of the same user, need no token; others show
/// the one given by --token, or one made by `openduck token create`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck serve -d mydb\n  openduck query 'CREATE TABLE t AS FROM range(10)' -d mydb"
)]
pub(super) struct Serve {
    /// The database
    #[arg(short, long, value_name = "DB")]
    database: DatabaseName,
    #[command(flatten)]
    options: ServerOptions,
    #[command(flatten)]
    local: LocalOptions,
}

/// Serve all databases of a store, by workers here or elsewhere
///
/// Workers are started on this host for each database that is asked for, unless --no-local-workers is
/// given; workers that announced themselves in the catalog, and those named here, are used as well.
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck gateway --readers 2 --idle 10m\n  openduck gateway --no-local-workers --listen 0.0.0.0:7878 --tls-cert cert.pem --tls-key key.pem"
)]
pub(super) struct GatewayCommand {
    /// A worker that writes, as [DB=]URL; may be repeated. Its secret stands in OPENDUCK_WORKER_SECRET;
    /// without one it is shown the client's own token
    #[arg(long, value_name = "[DB=]URL", value_parser = named)]
    worker: Vec<Named>,
    /// A worker that reads, as --worker
    #[arg(long, value_name = "[DB=]URL", value_parser = named)]
    reader: Vec<Named>,
    /// Whom to trust where a worker's address is https: authorities in PEM [default: the system's]
    #[arg(long, value_name = "FILE")]
    worker_ca: Option<PathBuf>,
    /// Start no workers
    #[arg(long)]
    no_local_workers: bool,
    /// Readers that are started beside each database's writer
    #[arg(long, value_name = "N", default_value_t = 0)]
    readers: usize,
    /// After this time without a statement a database's workers end
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "20m")]
    idle: Duration,
    #[command(flatten)]
    options: ServerOptions,
    #[command(flatten)]
    local: LocalOptions,
}

#[derive(Args)]
struct ServerOptions {
    /// The operator's token, which opens everything (better left to the variable) [default: one that is
    /// made and kept in the home]
    #[arg(
        short,
        long,
        value_name = "TOKEN",
        env = "OPENDUCK_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// Where to listen; beyond this host only with TLS
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7878")]
    listen: SocketAddr,
    #[command(flatten)]
    tls: TlsOptions,
    /// How long statements that run may go on when the server ends
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    grace: Duration,
    /// Statements that run, or are being read, at once; others wait
    #[arg(long, value_name = "N", default_value_t = Limits::default().running_max)]
    max_running: usize,
    /// Of these, of one token
    #[arg(long, value_name = "N", default_value_t = Limits::default().running_per_token_max)]
    max_running_per_token: usize,
    /// Statements of one token that wait
    #[arg(long, value_name = "N", default_value_t = Limits::default().waiting_per_token_max)]
    max_waiting_per_token: usize,
    /// How long a statement waits for its turn
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    max_wait: Duration,
    /// What of a statement's text is kept in the log of statements
    #[arg(long, value_enum, default_value_t = LogSql::Text)]
    log_sql: LogSql,
    /// The repository of extensions to serve under /extension, see `openduck extension publish` [default:
    /// extensions in the home]
    #[arg(long, value_name = "DIR")]
    extensions: Option<PathBuf>,
    /// How this server's own log looks
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Args)]
pub(super) struct TlsOptions {
    /// The certificate and those it rests on, in PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let in only clients with a certificate from these authorities, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Listen beyond this host without TLS: tokens and rows can be read on the way
    #[arg(long)]
    pub(super) insecure: bool,
}

impl TlsOptions {
    /// Reads the certificates; must be called within a runtime.
    pub(super) fn load(&self) -> Result<Option<ServerTls>> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Ok(Some(ServerTls::load(&TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                clients: self.tls_client_ca.clone(),
            })?)),
            _ => Ok(None),
        }
    }
}

#[derive(Args)]
pub(super) struct LocalOptions {
    /// The storage version of new databases, for older DuckDBs: `v1.4.0` [default: DuckDB 2.0's]
    #[arg(long, value_name = "VERSION")]
    pub(super) storage_version: Option<String>,
    /// Memory of each worker's DuckDB, in bytes or as `4GiB` [default: half of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// Threads of each worker's DuckDB [default: the machine's]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The longest that a statement may run [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    statement_timeout: Option<Duration>,
    /// A directory in which SQL may read and write files; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(super) allow_directory: Vec<PathBuf>,
    /// The `openduck-fs` to mount with [default: the one beside this program, or on the PATH]
    #[arg(long, value_name = "FILE")]
    pub(super) mounter: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogSql {
    /// All of it, up to 4 KiB.
    Text,
    /// The text without constants and comments.
    Redacted,
    /// Nothing.
    None,
}

/// A worker that the operator named.
#[derive(Clone, Debug)]
struct Named {
    database: Option<String>,
    address: String,
}

fn named(text: &str) -> Result<Named, String> {
    let (database, address) = match text.split_once('=') {
        Some((database, address)) => {
            let name: DatabaseName = database.parse().map_err(|error| format!("{error}"))?;
            (Some(name.to_string()), address)
        }
        None => (None, text),
    };
    if !address.starts_with("http://") && !address.starts_with("https://") {
        return Err(format!(
            "{address:?} is no worker's address: it must be http://HOST:PORT or https://HOST:PORT"
        ));
    }
    Ok(Named {
        database,
        address: address.to_owned(),
    })
}

/// A time: `30s`, `10m`, `12h`, `30d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; it should look like 30s, 10m, 12h or 30d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let seconds = match &text[digits.len()..] {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => number,
        "m" => number.saturating_mul(60),
        "h" => number.saturating_mul(3600),
        "d" => number.saturating_mul(86_400),
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(seconds))
}

/// A number of bytes: `4GiB`, `512MB`, `1000`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000_u64.pow(2),
        "gb" => 1000_u64.pow(3),
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        _ => 0,
    };
    let number: Option<u64> = digits.parse().ok();
    match number.and_then(|number| number.checked_mul(unit)) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(format!(
            "{text:?} is no size; it should look like 512MiB or 4GiB"
        )),
    }
}

impl Serve {
    pub(super) fn token(&self) -> Option<&str> {
        self.options.token.as_deref()
    }

    pub(super) fn run(self, context: &Context) -> Result<()> {
        log_as_server(self.options.log_format);
        let store = context.store()?;
        match store.create(&self.database) {
            Ok(_) => output::remark(&format_args!("created {}, which is new", self.database)),
            Err(StoreError::Catalog(CatalogError::DatabaseExists(_))) => {}
            Err(error) => return Err(error.into()),
        }
        let local = self.local.config(context, 0, None)?;
        let fleet = Begin {
            local: Some(local),
            named: Vec::new(),
            authority: None,
        };
        let first = self.database.to_string();
        runtime()?.block_on(serve(context, &self.options, store, fleet, Some(first)))
    }
}

impl GatewayCommand {
    pub(super) fn token(&self) -> Option<&str> {
        self.options.token.as_deref()
    }

    pub(super) fn run(self, context: &Context) -> Result<()> {
        log_as_server(self.options.log_format);
        let store = context.store()?;
        let local = match self.no_local_workers {
            true => None,
            false => Some(self.local.config(context, self.readers, Some(self.idle))?),
        };
        let authority = match &self.worker_ca {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?,
            ),
            None => None,
        };
        let writers = self.worker.into_iter().map(|one| (WorkerKind::Writer, one));
        let readers = self.reader.into_iter().map(|one| (WorkerKind::Reader, one));
        let fleet = Begin {
            local,
            named: writers.chain(readers).collect(),
            authority,
        };
        runtime()?.block_on(serve(context, &self.options, store, fleet, None))
    }
}

impl LocalOptions {
    /// Puts what was given into a worker's limits.
    pub(super) fn apply(&self, limits: &mut crate::worker::Limits) {
        limits.memory_bytes = self.memory.unwrap_or(limits.memory_bytes);
        limits.threads = self.threads.unwrap_or(limits.threads);
        limits.statement_time = self.statement_timeout.unwrap_or(limits.statement_time);
    }

    fn config(
        &self,
        context: &Context,
        readers: usize,
        idle: Option<Duration>,
    ) -> Result<LocalConfig> {
        Ok(LocalConfig {
            program: std::env::current_exe().context("cannot find this program's own file")?,
            mounter: self.mounter.clone(),
            store: context.config.clone(),
            readers,
            idle,
            storage_version: self.storage_version.clone(),
            memory_bytes: self.memory,
            threads: self.threads,
            allowed_directories: self.allow_directory.clone(),
            statement_time: self.statement_timeout,
        })
    }
}

/// The workers that there will be.
struct Begin {
    local: Option<LocalConfig>,
    named: Vec<(WorkerKind, Named)>,
    authority: Option<String>,
}

impl Begin {
    fn fleet(self, store: &Arc<Store>) -> Result<Arc<Fleet>> {
        let credential = match std::env::var(WORKER_SECRET) {
            Ok(secret) => {
                crate::access::title::scrub(&secret).context("cannot hide the workers' secret")?;
                Credential::Secret(Secret::new(&secret)?)
            }
            Err(_) => Credential::Clients,
        };
        let mut members = Vec::new();
        for (kind, named) in self.named {
            let new = NewMember {
                id: Member::id_of_named(&named.address),
                kind,
                database: named.database,
                address: named.address.clone(),
                origin: Origin::Named,
                credential: credential.clone(),
                socket: None,
            };
            let member = Member::new(new, self.authority.as_deref())
                .with_context(|| format!("{:?} is no worker's address", named.address))?;
            members.push(member);
        }
        let local = self
            .local
            .map(|config| Local::new(config, Arc::clone(store)));
        Ok(Fleet::new(
            Arc::clone(store),
            local,
            members,
            self.authority,
        ))
    }
}

async fn serve(
    context: &Context,
    options: &ServerOptions,
    store: Arc<Store>,
    begin: Begin,
    first: Option<String>,
) -> Result<()> {
    let tls = options.tls.load()?;
    let listener = Listener::bind(options.listen, tls, options.tls.insecure).await?;
    let url = listener.url();
    let token = match &options.token {
        Some(token) if token.is_empty() => bail!("the token is empty"),
        Some(token) => token.clone(),
        None => connect::make_own_token(&context.config.home)?,
    };
    let gate = TokenGate::new(
        Arc::clone(&store),
        Operator::with_token(&token),
        Databases::All,
    );
    drop(token);
    let fleet = begin.fleet(&store)?;
    if let (Some(local), Some(first)) = (fleet.local(), &first) {
        local.want(&fleet, first);
    }
    let config = Config {
        limits: Limits {
            running_max: options.max_running.max(1),
            running_per_token_max: options.max_running_per_token.max(1),
            waiting_per_token_max: options.max_waiting_per_token,
            wait_max: options.max_wait,
        },
        request_bytes_max: REQUEST_BYTES_MAX,
        log_directory: context.config.home.join("exec"),
        log_bytes_max: LOG_BYTES_MAX,
        log_sql: match options.log_sql {
            LogSql::Text => SqlKept::Text,
            LogSql::Redacted => SqlKept::Redacted,
            LogSql::None => SqlKept::Nothing,
        },
    };
    let gateway = Gateway::new(config, store, Arc::new(gate), Arc::clone(&fleet))
        .context("cannot write the log of statements")?;
    let (ready, metrics) = (Arc::clone(&gateway), Arc::clone(&gateway));
    let own = || super::extension::own_repository(context);
    let repository = options.extensions.clone().unwrap_or_else(own);
    let parts = Parts {
        execution: Routes::new(GatewayService::new(gateway)),
        ready: Arc::new(move || ready.ready()),
        metrics: Arc::new(move || metrics.metrics()),
        more: extensions::pages(repository),
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let ending = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("ending");
    };
    let what = first.unwrap_or_else(|| "all databases".to_owned());
    output::print(&format_args!("{what} served at {url}\n"))?;
    server::serve(listener, parts, ending, options.grace).await?;
    if let Some(local) = fleet.local() {
        local.end_all().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("1000"), Ok(1000));
        for wrong in ["", "s", "-1s", "1", "1y", "1.5h"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", "0", "GiB", "1 GB", "99999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong:?}");
        }
    }
}
