//! A worker as a gRPC service.
//!
//! `ExecuteQuery` goes the usual way. `StreamResults` is answered with a body of its own, which sends
//! batches without copying them; on the wire it looks like any other.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Limited};
use prost::Message as _;
use proto::v1::execution_service_server::{ExecutionService, ExecutionServiceServer};
use proto::v1::{
    ExecuteQueryRequest, ExecuteQueryResponse, StreamResultsRequest, StreamResultsResponse,
};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tower_service::Service;

use super::Worker;
use crate::wire::body::{ItemBody, Items};

/// The path of the call that streams.
const STREAM_PATH: &str = "/openduck.v1.ExecutionService/StreamResults";

/// The largest request to stream: a handle has 512 bytes at most.
const STREAM_REQUEST_BYTES_MAX: usize = 4096;

/// A worker that can be added to a [`tonic::transport::Server`].
#[derive(Clone, Debug)]
pub struct Endpoint {
    worker: Worker,
    unary: ExecutionServiceServer<Worker>,
}

impl Endpoint {
    /// Serves a worker.
    pub fn new(worker: Worker) -> Endpoint {
        let bytes = worker.shared.config.limits.request_bytes;
        Endpoint {
            unary: ExecutionServiceServer::new(worker.clone())
                .max_decoding_message_size(bytes)
                .max_encoding_message_size(usize::MAX),
            worker,
        }
    }
}

impl NamedService for Endpoint {
    const NAME: &'static str = <ExecutionServiceServer<Worker> as NamedService>::NAME;
}

type Body = tonic::body::Body;
type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl Service<http::Request<Body>> for Endpoint {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        if request.uri().path() != STREAM_PATH {
            return self.unary.call(request);
        }
        let worker = self.worker.clone();
        Box::pin(async move {
            Ok(match open(&worker, request).await {
                Ok(items) => {
                    let mut response = http::Response::new(Body::new(ItemBody::new(items)));
                    response.headers_mut().insert(
                        http::header::CONTENT_TYPE,
                        tonic::metadata::GRPC_CONTENT_TYPE,
                    );
                    response
                }
                Err(status) => status.into_http(),
            })
        })
    }
}

async fn open(worker: &Worker, request: http::Request<Body>) -> Result<Items, Status> {
    let (parts, body) = request.into_parts();
    let metadata = MetadataMap::from_headers(parts.headers);
    let body = Limited::new(body, STREAM_REQUEST_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Status::invalid_argument(format!("the request: {error}")))?;
    let request = StreamResultsRequest::decode(one_message(body.to_bytes())?)
        .map_err(|error| Status::invalid_argument(format!("the request: {error}")))?;
    worker.stream(&metadata, &request).await
}

/// The one message of a request.
fn one_message(mut body: Bytes) -> Result<Bytes, Status> {
    let invalid = || Status::invalid_argument("the request is not one gRPC message");
    if body.len() < 5 {
        return Err(invalid());
    }
    if body.get_u8() != 0 {
        return Err(Status::unimplemented(
            "compressed requests are not supported",
        ));
    }
    match body.get_u32() as usize == body.len() {
        true => Ok(body),
        false => Err(invalid()),
    }
}

/// When a call ends by its own will, from its `grpc-timeout`.
pub(super) fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (unit_at, unit) = text.char_indices().next_back()?;
    let amount: u64 = text[..unit_at].parse().ok()?;
    let time = match unit {
        'H' => Duration::from_secs(amount.saturating_mul(3600)),
        'M' => Duration::from_secs(amount.saturating_mul(60)),
        'S' => Duration::from_secs(amount),
        'm' => Duration::from_millis(amount),
        'u' => Duration::from_micros(amount),
        'n' => Duration::from_nanos(amount),
        _ => return None,
    };
    Instant::now().checked_add(time)
}

#[tonic::async_trait]
impl ExecutionService for Worker {
    async fn execute_query(
        &self,
        request: Request<ExecuteQueryRequest>,
    ) -> Result<Response<ExecuteQueryResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let response = self.execute(&metadata, request).await?;
        Ok(Response::new(response))
    }

    type StreamResultsStream =
        Pin<Box<dyn futures_util::Stream<Item = Result<StreamResultsResponse, Status>> + Send>>;

    async fn stream_results(
        &self,
        request: Request<StreamResultsRequest>,
    ) -> Result<Response<Self::StreamResultsStream>, Status> {
        let (metadata, _, request) = request.into_parts();
        let items = self.stream(&metadata, &request).await?;
        Ok(Response::new(Box::pin(
            items.map(|item| item.map(Into::into)),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_what_grpc_says() {
        let left = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata).map(|at| at.saturating_duration_since(Instant::now()))
        };
        let near = |text, wanted: Duration| {
            let left = left(text).unwrap();
            assert!(
                left <= wanted && left + Duration::from_secs(1) > wanted,
                "{text}: {left:?}"
            );
        };
        near("90S", Duration::from_secs(90));
        near("2M", Duration::from_secs(120));
        near("5000m", Duration::from_secs(5));
        near("99999999H", Duration::from_secs(99_999_999 * 3600));
        assert_eq!(left("S"), None);
        assert_eq!(left("5x"), None);
    }
}
