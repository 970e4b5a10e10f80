//! What the gateway tells Prometheus.
//!
//! Statements are counted when they are over; what is true at the moment (the queue, the workers) is
//! looked up when it is asked for.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::log::{Finished, Outcome};
use super::member::Member;
use layerd::catalog::service::WorkerKind;

type Labels = Vec<(&'static str, String)>;

/// From 0.1 ms to some 6 minutes.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 22))
}

/// What was counted so far.
pub(super) struct Metrics {
    statements: Family<Labels, Counter>,
    duration: Histogram,
    answered: Histogram,
    queued: Histogram,
    rows: Counter,
    bytes: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            statements: Family::default(),
            duration: seconds(),
            answered: seconds(),
            queued: seconds(),
            rows: Counter::default(),
            bytes: Counter::default(),
        }
    }
}

impl Metrics {
    pub(super) fn finished(&self, finished: &Finished) {
        let code = match &finished.outcome {
            Outcome::Done => "Ok",
            Outcome::Failed { code, .. } => code,
        };
        let labels = vec![("code", code.to_owned())];
        self.statements.get_or_create(&labels).inc();
        self.duration.observe(finished.duration_us as f64 / 1e6);
        self.queued.observe(finished.queued_us as f64 / 1e6);
        if let Some(answered_us) = finished.answered_us {
            self.answered.observe(answered_us as f64 / 1e6);
        }
        self.rows.inc_by(finished.rows.unwrap_or_default());
        self.bytes.inc_by(finished.bytes);
    }

    /// All metrics, in the OpenMetrics text format.
    pub(super) fn text(
        &self,
        running: usize,
        waiting: usize,
        members: &[Arc<Member>],
        log_dropped: u64,
    ) -> String {
        let mut registry = Registry::with_prefix("openduck");
        registry.register(
            "statements",
            "Statements that are over, by gRPC code",
            self.statements.clone(),
        );
        registry.register(
            "statement_seconds",
            "From a statement's arrival to the end of its result",
            self.duration.clone(),
        );
        registry.register(
            "statement_answered_seconds",
            "From a statement's arrival to its answer",
            self.answered.clone(),
        );
        registry.register(
            "statement_queued_seconds",
            "What of that was waiting in the queue",
            self.queued.clone(),
        );
        registry.register("result_rows", "Rows of results", self.rows.clone());
        registry.register("result_bytes", "Bytes of results", self.bytes.clone());
        gauge(
            &mut registry,
            "statements_running",
            "Statements that run, or are being read",
            running,
        );
        gauge(
            &mut registry,
            "statements_waiting",
            "Statements in the queue",
            waiting,
        );
        gauge(
            &mut registry,
            "log_dropped",
            "Lines of the log that were dropped",
            log_dropped as usize,
        );
        of_members(&mut registry, members);
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n# EOF\n"),
        }
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: usize) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

fn of_members(registry: &mut Registry, members: &[Arc<Member>]) {
    type Gauges = Family<Labels, Gauge<u64, AtomicU64>>;
    let up = Gauges::default();
    let running = Gauges::default();
    let lsn = Gauges::default();
    let lag = Gauges::default();
    for member in members {
        let database = member.database.clone().unwrap_or_default();
        let labels = vec![("worker", member.name()), ("database", database)];
        up.get_or_create(&labels).set(member.is_up().into());
        running.get_or_create(&labels).set(member.running() as u64);
        lsn.get_or_create(&labels).set(member.lsn());
        if member.kind == WorkerKind::Reader {
            let newest = members
                .iter()
                .filter(|other| other.database == member.database)
                .map(|other| other.lsn())
                .max();
            let behind = newest.unwrap_or_default().saturating_sub(member.lsn());
            lag.get_or_create(&labels).set(behind);
        }
    }
    registry.register("worker_up", "Whether the worker could be reached", up);
    registry.register(
        "worker_running",
        "Statements that the worker has to do",
        running,
    );
    registry.register(
        "worker_lsn",
        "The newest state that the worker read or wrote",
        lsn,
    );
    registry.register(
        "reader_lag_commits",
        "Commits between the newest state that is known and the one that the reader read last",
        lag,
    );
}
