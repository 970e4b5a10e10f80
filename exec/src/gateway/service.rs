//! The two calls, as HTTP/2 brings them.
//!
//! `ExecuteQuery` is an ordinary gRPC call. `StreamResults` is answered with the worker's own bytes: only
//! its request is read. Dropping what is returned here, because the client went away, drops the call to
//! the worker; its deadline travels in the headers.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use proto::v1::{ExecuteQueryRequest, ExecuteQueryResponse, Reason, StreamResultsRequest};
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::{NamedService, UnaryService};
use tower::ServiceExt as _;

use super::Gateway;
use super::relay::Relay;
use super::running::Reading;
use crate::wire::status::refused;

const EXECUTE: &str = "/openduck.v1.ExecutionService/ExecuteQuery";
const STREAM: &str = "/openduck.v1.ExecutionService/StreamResults";
/// A request to read a stream is a handle and two numbers.
const STREAM_REQUEST_BYTES_MAX: usize = 4 << 10;
const WORKER_GONE: &str = "the worker that has this result is gone; run the query again";
/// The prefix of a gRPC message.
const PREFIX_BYTES: usize = 5;

/// The gateway as a service that can be added to a server's routes.
#[derive(Clone)]
pub struct GatewayService(Arc<Gateway>);

impl GatewayService {
    /// The service of a gateway.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> GatewayService {
        GatewayService(gateway)
    }
}

impl NamedService for GatewayService {
    const NAME: &'static str = "openduck.v1.ExecutionService";
}

type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl tower::Service<http::Request<Body>> for GatewayService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        let gateway = Arc::clone(&self.0);
        Box::pin(async move {
            Ok(match request.uri().path() {
                EXECUTE => {
                    let request_bytes_max = gateway.request_bytes_max;
                    let codec = tonic_prost::ProstCodec::default();
                    tonic::server::Grpc::new(codec)
                        .apply_max_message_size_config(Some(request_bytes_max), None)
                        .unary(Execute(gateway), request)
                        .await
                }
                STREAM => match gateway.stream(request).await {
                    Ok(response) => response,
                    Err(status) => status.into_http(),
                },
                _ => Status::unimplemented("there is no such call").into_http(),
            })
        })
    }
}

struct Execute(Arc<Gateway>);

impl UnaryService<ExecuteQueryRequest> for Execute {
    type Response = ExecuteQueryResponse;
    type Future =
        Pin<Box<dyn Future<Output = Result<tonic::Response<ExecuteQueryResponse>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<ExecuteQueryRequest>) -> Self::Future {
        let gateway = Arc::clone(&self.0);
        Box::pin(async move {
            let (metadata, _, request) = request.into_parts();
            let answer = gateway.execute(metadata, request).await?;
            Ok(tonic::Response::new(answer))
        })
    }
}

impl Gateway {
    async fn stream(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let metadata = MetadataMap::from_headers(parts.headers);
        let caller = self.gate.authenticate(&metadata).await?;
        let message: StreamResultsRequest = read_message(body).await?;
        let gone = || refused(Reason::Gone, "there is no such result, or it is gone");
        let handle = self
            .keys
            .open(&message.query_id, &caller.token)
            .map_err(|_| gone())?;
        if let Some(response) = self.operations.stream(&handle, &caller, &message)? {
            return Ok(response);
        }
        let member = self
            .fleet
            .find(handle.worker)
            .await
            .ok_or_else(|| refused(Reason::Unavailable, WORKER_GONE))?;
        let entry = self.running.with_handle(&handle);
        let (cancelled, reading) = match entry {
            Some(entry) => (
                entry.cancel.clone(),
                StreamListener(Some(self.running.open_stream(entry))),
            ),
            // Another replica took the statement in.
            None => Default::default(),
        };
        let mut reading = reading;
        let upstream = StreamResultsRequest {
            query_id: handle.query,
            ..message
        };
        let mut headers = MetadataMap::new();
        member.credentials(&caller, &metadata, &mut headers);
        pass_on(&metadata, &mut headers);
        let called = call(member.channel(), headers, &upstream);
        let answered = tokio::select! {
            answered = called => answered,
            () = cancelled.cancelled() => Err(Status::cancelled("the query was cancelled")),
        };
        let response = match answered {
            Ok(response) => response,
            Err(status) => {
                let is_gone = member.disowns(&status);
                if is_gone || status.code() == tonic::Code::Unavailable {
                    member.is_down();
                }
                let status = match is_gone {
                    true => refused(Reason::Unavailable, WORKER_GONE),
                    false => status,
                };
                super::relay::Listener::over(&mut reading, None, Some(&status));
                return Err(status);
            }
        };
        let (parts, body) = response.into_parts();
        let relay = Relay::new(body, cancelled.cancelled_owned(), reading);
        Ok(http::Response::from_parts(parts, Body::new(relay)))
    }
}

/// What is told of a stream whose statement came through here; nothing where it did not.
#[derive(Default)]
struct StreamListener(Option<Reading>);

impl super::relay::Listener for StreamListener {
    fn passed(&mut self, bytes: usize) {
        if let Some(reading) = &mut self.0 {
            reading.passed(bytes);
        }
    }

    fn over(&mut self, summary: Option<proto::v1::Summary>, status: Option<&Status>) {
        if let Some(mut reading) = self.0.take() {
            reading.over(summary, status);
        }
    }
}

/// What of a client's metadata a worker should know: how much time there is, and the trace that this is
/// part of.
pub(super) fn pass_on(from: &MetadataMap, to: &mut MetadataMap) {
    for name in ["grpc-timeout", "traceparent", "tracestate"] {
        if let Some(value) = from.get(name) {
            to.insert(name, value.clone());
        }
    }
}

/// Reads the one message of a request.
async fn read_message<M: prost::Message + Default>(body: Body) -> Result<M, Status> {
    let invalid = || Status::invalid_argument("the request is not one gRPC message");
    let body = Limited::new(body, STREAM_REQUEST_BYTES_MAX);
    let mut bytes = body.collect().await.map_err(|_| invalid())?.to_bytes();
    if bytes.len() < PREFIX_BYTES {
        return Err(invalid());
    }
    let is_compressed = bytes.get_u8() != 0;
    let length = bytes.get_u32() as usize;
    if is_compressed {
        return Err(Status::unimplemented("requests must not be compressed"));
    }
    if length != bytes.len() {
        return Err(invalid());
    }
    M::decode(bytes).map_err(|_| invalid())
}

fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// Calls a worker's `StreamResults`; answers once the stream has begun.
async fn call(
    mut channel: tonic::transport::Channel,
    metadata: MetadataMap,
    message: &StreamResultsRequest,
) -> Result<http::Response<Body>, Status> {
    let lost = |error: tonic::transport::Error| {
        tracing::debug!(%error, "a worker does not answer");
        refused(
            Reason::Unavailable,
            "the worker that has this result does not answer; run the query again",
        )
    };
    let mut request = http::Request::new(Body::new(Full::new(framed(message))));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(STREAM);
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = metadata.into_headers();
    let headers = request.headers_mut();
    headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/grpc"),
    );
    let channel = channel.ready().await.map_err(lost)?;
    let response = tower::Service::call(channel, request).await.map_err(lost)?;
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != tonic::Code::Ok => Err(status),
        _ if response.status() != http::StatusCode::OK => Err(refused(
            Reason::Unavailable,
            format!("the worker answered HTTP status {}", response.status()),
        )),
        _ => Ok(response),
    }
}
