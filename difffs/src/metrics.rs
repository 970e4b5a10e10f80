//! Metrics: what a mount says of itself, for Prometheus.
//!
//! Nothing is counted here: each scrape asks for the status anew and writes it down in the
//! OpenMetrics text format. The server answers `GET /metrics` and nothing else, in a thread of its
//! own.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::status::Status;

/// Gives the states to report, at each scrape.
pub type Source = Arc<dyn Fn() -> Vec<Status> + Send + Sync>;

/// What tells one mount's values from another's.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    database: String,
    dir: String,
    mode: String,
}

/// Serves `GET /metrics` at `address` until the process ends. Returns the address, with the port
/// that was taken where it asked for any.
pub fn serve(address: SocketAddr, source: Source) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("metrics".into())
        .spawn(move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let app = Router::new().route("/metrics", get(move || answer(source)));
                axum::serve(listener, app).await
            });
            if let Err(error) = served {
                tracing::error!(%error, "metrics are not served any more");
            }
        })?;
    Ok(bound)
}

async fn answer(source: Source) -> impl IntoResponse {
    // The status asks the catalog, which blocks.
    let text = tokio::task::spawn_blocking(move || text(&source())).await;
    let kind = [(
        header::CONTENT_TYPE,
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )];
    match text {
        Ok(Ok(text)) => (StatusCode::OK, kind, text),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, kind, error.to_string()),
    }
}

/// One value of a status, if it is known.
type Value = fn(&Status) -> Option<f64>;

/// Name, help, value. Numbers that only grow are gauges too: a mount's counters begin anew with it.
const METRICS: [(&str, &str, Value); 10] = [
    (
        "head_lsn",
        "Last acknowledged commit of the database",
        |it| it.head_lsn.map(|lsn| lsn.0 as f64),
    ),
    ("lsn", "Commit that an open sees now", |it| {
        it.lsn.map(|lsn| lsn.0 as f64)
    }),
    ("epoch", "Number of the writer's lease", |it| {
        it.epoch.map(|epoch| epoch.0 as f64)
    }),
    ("layers", "Layers in the image's chain", |it| {
        it.layers.map(|count| count as f64)
    }),
    ("local_bytes", "Bytes of the database's layers", |it| {
        it.bytes_local.map(|bytes| bytes as f64)
    }),
    ("remote_bytes", "Bytes of them in the remote store", |it| {
        Some(it.bytes_remote as f64)
    }),
    (
        "upload_lag_seconds",
        "Age of the oldest acknowledged commit that is not in the remote store",
        |it| Some(it.upload_lag_ms as f64 / 1000.0),
    ),
    ("cache_hits", "Reads that found their bytes here", |it| {
        Some(it.cache.hits as f64)
    }),
    ("cache_misses", "Reads that had to fetch", |it| {
        Some(it.cache.misses as f64)
    }),
    (
        "fetched_bytes",
        "Bytes fetched from the remote store",
        |it| Some(it.cache.bytes as f64),
    ),
];

fn text(mounts: &[Status]) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("openduck_mount");
    for (name, help, value) in METRICS {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for status in mounts {
            if let Some(value) = value(status) {
                let labels = Labels {
                    database: status.database.clone(),
                    dir: status.dir.display().to_string(),
                    mode: status.mode.to_owned(),
                };
                family.get_or_create(&labels).set(value);
            }
        }
        registry.register(name, help, family);
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use layerd::id::Lsn;

    use super::*;

    fn status() -> Status {
        Status {
            database: "my\"db".into(),
            dir: "/mnt/a".into(),
            file: "/mnt/a/db.duckdb".into(),
            mode: "rw",
            pid: 7,
            reference: None,
            lsn: Some(Lsn(41)),
            head_lsn: Some(Lsn(42)),
            epoch: None,
            layers: Some(3),
            bytes_local: None,
            bytes_remote: 5,
            upload_lag_ms: 1500,
            cache: crate::status::CacheStatus::default(),
        }
    }

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_scrape_shows_what_is_known_and_leaves_out_what_is_not() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = serve(any, Arc::new(|| vec![status()])).unwrap();
        let answer = ask(address, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let labels = r#"{database="my\"db",dir="/mnt/a",mode="rw"}"#;
        for line in [
            format!("openduck_mount_head_lsn{labels} 42.0"),
            format!("openduck_mount_upload_lag_seconds{labels} 1.5"),
        ] {
            assert!(answer.contains(&line), "{line} is not in {answer}");
        }
        assert!(!answer.contains("openduck_mount_epoch{"), "{answer}");
        assert!(ask(address, "/").starts_with("HTTP/1.1 404"));
    }
}
