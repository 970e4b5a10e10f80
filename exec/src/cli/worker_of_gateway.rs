//! What `openduck` is when a gateway started it as one of its own workers: see `gateway/local.rs`, which
//! tells what is said on stdin and stdout.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tonic::service::Routes;

use super::{LogFormat, log_as_server, runtime};
use crate::access::peer::{PeerGate, Secret};
use crate::gateway::local::{Address, Orders, Readiness};
use crate::server::{self, Listener, Parts};
use crate::worker::{Config, Endpoint, Limits, Place, Role, Worker};

/// How long what runs may go on when the worker is to end.
const GRACE: Duration = Duration::from_secs(5);

/// The kernel's limit, `sun_path`, with the zero at its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

pub(super) fn run() -> Result<()> {
    log_as_server(LogFormat::Text);
    let orders = hear().context("this command is for gateways; use `openduck worker`")?;
    runtime()?.block_on(serve(orders))
}

fn hear() -> Result<Orders> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn say(readiness: &Readiness) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(readiness)?)?;
    Ok(stdout.flush()?)
}

async fn serve(orders: Orders) -> Result<()> {
    let begun = async {
        let secret = Secret::new(&orders.secret)?;
        let worker = Worker::open(config(&orders), Arc::new(PeerGate::new(secret))).await?;
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listener = Listener::bind(any, None, false).await?;
        Ok::<_, anyhow::Error>((worker, listener))
    };
    let (worker, listener) = match begun.await {
        Ok(begun) => begun,
        Err(error) => {
            say(&Readiness::Failed(super::with_causes(&error)))?;
            return Err(error);
        }
    };
    let url = listener.url();
    let socket = orders.directory.join("socket");
    let has_socket = socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
    let listener = match has_socket {
        true => listener.also_at(&socket)?,
        false => listener,
    };
    let socket = has_socket.then_some(socket);
    let parts = Parts {
        execution: Routes::new(Endpoint::new(worker.clone())),
        ready: Arc::new(|| Ok(())),
        metrics: Arc::new({
            let worker = worker.clone();
            move || super::worker::figures(&worker)
        }),
        more: axum::Router::new(),
    };
    let serving = server::serve(listener, parts, ending(worker.clone())?, GRACE);
    say(&Readiness::Ready(Address { url, socket }))?;
    serving.await?;
    worker.close(Duration::ZERO).await?;
    Ok(())
}

/// Ready when the worker is to end: it was told so, its gateway is gone, or its DuckDB is broken.
fn ending(worker: Worker) -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (gone, mut is_gone) = tokio::sync::mpsc::channel::<()>(1);
    // A thread, since stdin can't be waited for otherwise; it ends with the process.
    std::thread::Builder::new()
        .name("leash".into())
        .spawn(move || {
            let mut rest = Vec::new();
            // Whatever ends it: nobody is there.
            let _end = io::stdin().lock().read_to_end(&mut rest);
            drop(gone);
        })?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = is_gone.recv() => {}
            () = worker.broken() => tracing::error!("DuckDB has given up; a new process must go on"),
        }
    })
}

fn config(orders: &Orders) -> Config {
    // Catalog and layers stand in the environment: a URL may hold a password.
    let arguments = vec!["--home".to_owned(), orders.home.display().to_string()];
    let mut limits = Limits::default();
    if let Some(bytes) = orders.memory_bytes {
        limits.memory_bytes = bytes;
    }
    if let Some(threads) = orders.threads {
        limits.threads = threads;
    }
    if let Some(ms) = orders.statement_time_ms {
        limits.statement_time = Duration::from_millis(ms);
    }
    Config {
        name: orders.name.clone(),
        database: orders.database.clone(),
        role: match orders.is_writer {
            true => Role::Writer,
            false => Role::Reader,
        },
        place: Place::Mount {
            directory: orders.directory.join("mount"),
            claim: None,
            program: orders.mounter.clone(),
            arguments,
        },
        scratch: orders.directory.join("scratch"),
        journal: Some(orders.directory.join("journal")),
        storage_version: orders.storage_version.clone(),
        allowed_directories: orders.allowed_directories.clone(),
        limits,
    }
}
