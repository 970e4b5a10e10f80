//! The shell around a service: one port on which it answers, and what every server tells of itself there.
//!
//! On the port are gRPC with the health and reflection services, and over plain HTTP (1.1 or 2) `/health`
//! (the process answers), `/ready` (it can do its work; 503 and a reason otherwise) and `/metrics`
//! (Prometheus). Gateway and worker differ in the service alone.
//!
//! Beyond the loopback address there is TLS, unless the operator said aloud that there is not
//! ([`Refused`]). Ending is orderly: first `/ready` says no, then nothing new is taken, then what runs may
//! finish within the grace period, and what still runs then is cut off.

mod connection;
mod listen;
pub mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tonic::service::Routes;
use tonic_health::ServingStatus;

pub use self::listen::{Listener, Refused};

/// Windows of flow control: a stream may have 2 MiB under way and a connection 16 MiB, so a few slow
/// streams do not stop their connection. This is the most that a client makes the server hold for it
/// below the messages themselves.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Batches are large; the default of 16 KiB would cost a frame's header for every few rows.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// A client that is gone without a word is noticed within half a minute.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many calls one connection may have open.
const STREAMS_MAX: u32 = 1024;
/// How often health is asked for anew.
const HEALTH_EVERY: Duration = Duration::from_secs(2);

/// Tells whether a server can do its work now, or else why not. It may block.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What is served.
pub struct Parts {
    /// The service, with the path of its calls.
    pub execution: Routes,
    /// Whether it can do its work now; else why not.
    pub ready: Ready,
    /// Its metrics, in the OpenMetrics text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// What else is served over plain HTTP.
    pub more: Router,
}

/// Serves until `ending` is ready, then for `grace` longer at most what is under way.
///
/// # Errors
/// Where the port can't be served any more.
pub async fn serve(
    listener: Listener,
    parts: Parts,
    ending: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> Result<(), tonic::transport::Error> {
    let (ended, end) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        ending.await;
        ended.send_replace(true);
    });
    let (health, health_service) = tonic_health::server::health_reporter();
    tokio::spawn(watch_health(health, Arc::clone(&parts.ready), end.clone()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    let mut routes = parts.execution.add_service(health_service);
    match reflection {
        Ok(reflection) => routes = routes.add_service(reflection),
        Err(error) => tracing::error!(%error, "reflection is not served"),
    }
    let router = routes
        .into_axum_router()
        .merge(pages(parts.ready, parts.metrics, end.clone()))
        .merge(parts.more);
    let wait = |mut end: tokio::sync::watch::Receiver<bool>| async move {
        // An error means that the sender is gone, which is the end as well.
        let _gone = end.wait_for(|ended| *ended).await;
    };
    let serving = tonic::transport::Server::builder()
        .accept_http1(true)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_routes(Routes::from(router))
        .serve_with_incoming_shutdown(listener.accept(), wait(end.clone()));
    let cut_off = async {
        wait(end).await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        served = serving => served,
        () = cut_off => {
            tracing::warn!(?grace, "what still ran at the end was cut off");
            Ok(())
        }
    }
}

/// `/health`, `/ready` and `/metrics`.
fn pages(
    ready: Ready,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    end: tokio::sync::watch::Receiver<bool>,
) -> Router {
    let is_ready = move || {
        let (ready, is_ending) = (Arc::clone(&ready), *end.borrow());
        async move {
            page_of(match is_ending {
                true => Err("it is ending".to_owned()),
                false => ask(ready).await,
            })
        }
    };
    let metrics = move || {
        let text = metrics();
        async move {
            const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, KIND)], text)
        }
    };
    Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(is_ready))
        .route("/metrics", get(metrics))
}

async fn ask(ready: Ready) -> Result<(), String> {
    let asked = tokio::task::spawn_blocking(move || ready()).await;
    asked.unwrap_or_else(|error| Err(error.to_string()))
}

fn page_of(said: Result<(), String>) -> Response {
    match said {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Keeps gRPC's health service in step with `/ready`.
async fn watch_health(
    health: tonic_health::server::HealthReporter,
    ready: Ready,
    mut end: tokio::sync::watch::Receiver<bool>,
) {
    const SERVICE: &str = "openduck.v1.ExecutionService";
    loop {
        let is_ending = *end.borrow();
        let is_ready = !is_ending && ask(Arc::clone(&ready)).await.is_ok();
        let status = match is_ready {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        for service in ["", SERVICE] {
            health.set_service_status(service, status).await;
        }
        if is_ending {
            return;
        }
        // Either way it looks again.
        let _ended = tokio::time::timeout(HEALTH_EVERY, end.changed()).await;
    }
}

/// Whether the address is this host's own, which nobody else reaches.
#[must_use]
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
