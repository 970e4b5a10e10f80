//! `daemon`: care for all databases of a store, without mounting any.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;

use anyhow::{Context as _, Result};
use clap::Args;
use layerd::daemon;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::serve::start_log;
use super::{Context, target};
use crate::metrics;

/// Care for all databases of the store, from any host
///
/// Seals, compacts and collects garbage until SIGTERM or SIGINT. A mounted writer cares for its own
/// database; this does it for those that nobody writes, and takes the work off the writers' hosts.
/// Any number may run.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs daemon --metrics 9187")]
pub(crate) struct Daemon {
    /// Serve metrics of all databases for Prometheus at http://ADDR/metrics; a port alone is on
    /// 127.0.0.1
    #[arg(long, value_name = "ADDR", value_parser = target::listen_address)]
    metrics: Option<SocketAddr>,
}

impl Daemon {
    pub(crate) fn run(self, context: &Context) -> Result<()> {
        start_log();
        let store = context.store()?;
        let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot watch for signals")?;
        let (asked, ending) = channel();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    tracing::info!(signal, "asked to end");
                    // Nobody listens any more once it ends.
                    let _ = asked.send(());
                }
            })
            .context("cannot start a thread")?;
        if let Some(address) = self.metrics {
            let store = Arc::clone(&store);
            metrics::serve(address, Arc::new(move || metrics::of_store(&store)))
                .with_context(|| format!("cannot serve metrics at {address}"))?;
        }
        let mut daemon = daemon::Daemon::new(&store);
        let is_asked = std::cell::Cell::new(false);
        let ended = || {
            is_asked.set(is_asked.get() || ending.try_recv().is_ok());
            is_asked.get()
        };
        while !ended() {
            if let Err(error) = daemon.round(&ended) {
                tracing::warn!(%error, "the catalog does not answer; trying again");
            }
            if is_asked.get()
                || ending.recv_timeout(daemon::ROUND) != Err(RecvTimeoutError::Timeout)
            {
                break;
            }
        }
        Ok(())
    }
}
