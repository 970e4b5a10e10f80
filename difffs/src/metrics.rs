//! Metrics: what a mount says of itself, and the daemon of all databases, for Prometheus.
//!
//! Nothing is counted here: each scrape asks for the state anew and writes it down in the
//! OpenMetrics text format. The server answers `GET /metrics` and nothing else, in a thread of its
//! own.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use layerd::catalog::Database;
use layerd::id::Timestamp;
use layerd::store::Store;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::status::Status;

/// Gives what is to be reported, at each scrape.
pub type Source = Arc<dyn Fn() -> Vec<Subject> + Send + Sync>;

/// One thing that values are told of.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// What tells it from others: name and value.
    pub labels: Vec<(String, String)>,
    /// Name, help, and value; what is not known is left out.
    pub values: Vec<(&'static str, &'static str, Option<f64>)>,
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

/// A mount's values. Numbers that only grow are gauges too: they begin anew with each mount.
#[must_use]
pub fn of_mount(status: &Status) -> Subject {
    let cache = &status.cache;
    Subject {
        labels: vec![
            ("database".to_owned(), status.database.clone()),
            ("dir".to_owned(), status.dir.display().to_string()),
            ("mode".to_owned(), status.mode.to_owned()),
        ],
        values: vec![
            (
                "openduck_mount_head_lsn",
                "Last acknowledged commit of the database",
                status.head_lsn.map(|lsn| lsn.0 as f64),
            ),
            (
                "openduck_mount_lsn",
                "Commit that an open sees now",
                status.lsn.map(|lsn| lsn.0 as f64),
            ),
            (
                "openduck_mount_epoch",
                "Number of the writer's lease",
                status.epoch.map(|epoch| epoch.0 as f64),
            ),
            (
                "openduck_mount_layers",
                "Layers in the image's chain",
                status.layers.map(|count| count as f64),
            ),
            (
                "openduck_mount_local_bytes",
                "Bytes of the database's layers",
                status.bytes_local.map(|bytes| bytes as f64),
            ),
            (
                "openduck_mount_remote_bytes",
                "Bytes of them in the remote store, as stored",
                Some(status.bytes_remote as f64),
            ),
            (
                "openduck_mount_upload_lag_seconds",
                "Age of the oldest acknowledged commit that is not in the remote store",
                Some(status.upload_lag_ms as f64 / 1000.0),
            ),
            (
                "openduck_mount_upload_queue_bytes",
                "Bytes of the log that are not in the remote store",
                Some(status.upload_queue_bytes as f64),
            ),
            (
                "openduck_mount_cache_hits",
                "Reads of remote layers that found their bytes here",
                Some(cache.hits as f64),
            ),
            (
                "openduck_mount_cache_misses",
                "Reads of remote layers that had to wait for the store",
                Some(cache.misses as f64),
            ),
            (
                "openduck_mount_fetched_bytes",
                "Bytes fetched from the remote store",
                Some(cache.bytes as f64),
            ),
        ],
    }
}

/// All databases of a store, as its catalog has them; a catalog that does not answer gives none,
/// and `openduck_catalog_up` tells.
#[must_use]
pub fn of_store(store: &Arc<Store>) -> Vec<Subject> {
    let databases = store.catalog().databases();
    let up = Subject {
        labels: Vec::new(),
        values: vec![(
            "openduck_catalog_up",
            "Whether the catalog answers",
            Some(f64::from(u8::from(databases.is_ok()))),
        )],
    };
    let of_database = |database: &Database| Subject {
        labels: vec![("database".to_owned(), database.name.to_string())],
        values: vec![
            (
                "openduck_database_head_lsn",
                "Newest published commit",
                Some(database.head.lsn().0 as f64),
            ),
            (
                "openduck_database_head_age_seconds",
                "Age of the newest published commit",
                Some((Timestamp::now().0 - database.head.time.0) as f64 / 1e9),
            ),
            (
                "openduck_database_written",
                "Whether a writer holds the lease",
                store
                    .catalog()
                    .lease(database.id)
                    .ok()
                    .map(|lease| f64::from(u8::from(lease.is_some()))),
            ),
            (
                "openduck_database_bytes",
                "Bytes of its layers",
                store.bytes(database).ok().map(|bytes| bytes as f64),
            ),
            (
                "openduck_database_remote_bytes",
                "Bytes of them in the remote store, as stored",
                store.bytes_remote(database).ok().map(|bytes| bytes as f64),
            ),
        ],
    };
    let all = databases.unwrap_or_default();
    std::iter::once(up)
        .chain(all.iter().map(of_database))
        .collect()
}

fn text(subjects: &[Subject]) -> Result<String, std::fmt::Error> {
    type Values = Family<Vec<(String, String)>, Gauge<f64, AtomicU64>>;
    let mut families: BTreeMap<&str, (&str, Values)> = BTreeMap::new();
    for subject in subjects {
        for (name, help, value) in &subject.values {
            let (_, family) = families
                .entry(name)
                .or_insert_with(|| (help, Values::default()));
            if let Some(value) = value {
                family.get_or_create(&subject.labels).set(*value);
            }
        }
    }
    let mut registry = Registry::default();
    for (name, (help, family)) in families {
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
            upload_queue_bytes: 9,
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
        let address = serve(any, Arc::new(|| vec![of_mount(&status())])).unwrap();
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
