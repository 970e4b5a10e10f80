//! Results of operations, on their way to the client: inside the answer where they may be, and as one
//! stream that is kept here until it was read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType, SchemaRef};
use bytes::{BufMut as _, Bytes, BytesMut};
use engine::Connection;
use http_body_util::StreamBody;
use layerd::id::{WorkerId, random_u64};
use parking_lot::Mutex;
use prost::Message as _;
use proto::v1::stream_results_response::Content;
use proto::v1::{
    Column, ExecuteQueryRequest, ExecuteQueryResponse, Reason, StatementKind, StreamResultsRequest,
    StreamResultsResponse, Summary,
};
use tonic::Status;
use tonic::body::Body;

use super::Own;
use crate::access::Caller;
use crate::access::handle::{Handle, KeyRing};
use crate::gateway::execute::unsealed;
use crate::wire::batch::{Encoder, schema_message};
use crate::wire::status::refused;

/// Batches are cut until they are no larger, which every client takes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How long a result is kept.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How many results are kept, and how large they may be together; the oldest go.
const KEPT_MAX: usize = 256;
const KEPT_BYTES_MAX: usize = 256 << 20;
const NAME: &str = "gateway";

/// The gateway's own results, and the DuckDB that makes them.
pub struct Operations {
    /// What stands in handles where a worker stands else.
    id: WorkerId,
    own: Own,
    kept: Mutex<HashMap<Handle, Kept>>,
}

struct Kept {
    token: Arc<str>,
    responses: Arc<[StreamResultsResponse]>,
    bytes: usize,
    since: Instant,
}

impl Default for Operations {
    fn default() -> Operations {
        Operations {
            id: WorkerId::random(),
            own: Own::default(),
            kept: Mutex::default(),
        }
    }
}

/// What a statement gave.
pub(super) struct Answered {
    /// Names and DuckDB types.
    pub(super) columns: Vec<(String, String)>,
    pub(super) schema: SchemaRef,
    pub(super) batches: Vec<RecordBatch>,
}

impl Answered {
    /// What the gateway made itself.
    pub(super) fn of_rows(rows: RecordBatch) -> Result<Answered, Status> {
        let schema = rows.schema();
        let columns = schema.fields().iter().map(|field| {
            let duckdb_type = match field.data_type() {
                DataType::UInt64 => "UBIGINT",
                DataType::Int64 => "BIGINT",
                DataType::Boolean => "BOOLEAN",
                DataType::Timestamp(..) => "TIMESTAMP WITH TIME ZONE",
                _ => "VARCHAR",
            };
            (field.name().clone(), duckdb_type.to_owned())
        });
        Ok(Answered {
            columns: columns.collect(),
            schema: rows.schema(),
            batches: vec![rows],
        })
    }

    pub(super) fn rows(&self) -> u64 {
        self.batches
            .iter()
            .map(|batch| batch.num_rows() as u64)
            .sum()
    }

    /// The one stream.
    fn responses(&self) -> Result<Vec<StreamResultsResponse>, ArrowError> {
        let empty = RecordBatch::new_empty(Arc::clone(&self.schema));
        let mut encoder = Encoder::new(self.batches.first().unwrap_or(&empty))?;
        let mut responses: Vec<StreamResultsResponse> = encoder
            .dictionaries()
            .iter()
            .map(|dictionary| StreamResultsResponse {
                content: Some(Content::Batch(dictionary.clone())),
                ..StreamResultsResponse::default()
            })
            .collect();
        let mut waiting: Vec<RecordBatch> = self.batches.iter().rev().cloned().collect();
        let (mut sequence, mut bytes) = (0, 0);
        while let Some(batch) = waiting.pop() {
            if batch.num_rows() == 0 {
                continue;
            }
            let message = encoder.encode(&batch)?;
            if message.len() > MESSAGE_BYTES_MAX && batch.num_rows() > 1 {
                let half = batch.num_rows() / 2;
                waiting.push(batch.slice(half, batch.num_rows() - half));
                waiting.push(batch.slice(0, half));
                continue;
            }
            sequence += 1;
            bytes += message.len() as u64;
            responses.push(StreamResultsResponse {
                content: Some(Content::Batch(message.to_bytes())),
                sequence,
                batch_index: sequence - 1,
            });
        }
        let summary = Summary {
            rows: self.rows(),
            bytes,
            total_rows: self.rows(),
            worker: NAME.to_owned(),
            ..Summary::default()
        };
        responses.push(StreamResultsResponse {
            content: Some(Content::Summary(summary)),
            sequence: sequence + 1,
            batch_index: 0,
        });
        Ok(responses)
    }
}

impl Operations {
    pub(super) fn connect(&self) -> Result<Connection, Status> {
        self.own.connect()
    }

    /// Lets go of what nobody read.
    pub(in crate::gateway) fn sweep(&self) {
        self.kept
            .lock()
            .retain(|_, kept| kept.since.elapsed() < KEPT_FOR);
    }

    pub(super) fn answer(
        &self,
        keys: &KeyRing,
        caller: &Caller,
        request: &ExecuteQueryRequest,
        answered: Answered,
    ) -> Result<ExecuteQueryResponse, Status> {
        let encoded = |error: ArrowError| Status::internal(error.to_string());
        let responses = answered.responses().map_err(encoded)?;
        let handle = Handle {
            worker: self.id,
            query: format!("{:016x}", random_u64()),
        };
        let bytes: usize = responses
            .iter()
            .map(StreamResultsResponse::encoded_len)
            .sum();
        let inline_max = request
            .options
            .as_ref()
            .map_or(0, |options| options.inline_bytes.min(4 << 20))
            as usize;
        let answer = ExecuteQueryResponse {
            query_id: keys.seal(&handle, &caller.token).map_err(unsealed)?,
            schema: schema_message(&answered.schema).map_err(encoded)?,
            streams: 1,
            columns: answered
                .columns
                .into_iter()
                .map(|(name, r#type)| Column { name, r#type })
                .collect(),
            inline: if bytes <= inline_max {
                responses.clone()
            } else {
                Vec::new()
            },
            kind: StatementKind::Rows.into(),
            ..ExecuteQueryResponse::default()
        };
        let kept = match answer.inline.is_empty() {
            true => responses,
            // What came inside is not repeated; the summary may be asked for all the same.
            false => responses.into_iter().next_back().into_iter().collect(),
        };
        self.keep(handle, caller, kept);
        Ok(answer)
    }

    fn keep(&self, handle: Handle, caller: &Caller, responses: Vec<StreamResultsResponse>) {
        let new = Kept {
            token: Arc::clone(&caller.token),
            bytes: responses
                .iter()
                .map(StreamResultsResponse::encoded_len)
                .sum(),
            responses: responses.into(),
            since: Instant::now(),
        };
        let mut kept = self.kept.lock();
        kept.insert(handle, new);
        while kept.len() > KEPT_MAX
            || kept.values().map(|one| one.bytes).sum::<usize>() > KEPT_BYTES_MAX
        {
            let oldest = kept.iter().min_by_key(|(_, one)| one.since);
            let Some(oldest) = oldest.map(|(handle, _)| handle.clone()) else {
                break;
            };
            kept.remove(&oldest);
        }
    }

    /// The stream of a result that is kept here; `None` where the handle is of a worker's.
    pub(in crate::gateway) fn stream(
        &self,
        handle: &Handle,
        caller: &Caller,
        request: &StreamResultsRequest,
    ) -> Result<Option<http::Response<Body>>, Status> {
        if handle.worker != self.id {
            return Ok(None);
        }
        let gone = || refused(Reason::Gone, "there is no such result, or it is gone");
        if request.stream != 0 {
            return Err(Status::not_found("the result has one stream"));
        }
        let responses = {
            let kept = self.kept.lock();
            let one = kept.get(handle).filter(|one| one.token == caller.token);
            Arc::clone(&one.ok_or_else(gone)?.responses)
        };
        let after = request.resume_after;
        let frames = (0..responses.len()).filter_map(move |place| {
            let response = &responses[place];
            let is_wanted = response.sequence == 0 || response.sequence > after;
            is_wanted.then(|| http_body::Frame::data(framed(response)))
        });
        let mut trailers = http::HeaderMap::new();
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"));
        let frames = frames
            .chain(std::iter::once(http_body::Frame::trailers(trailers)))
            .map(Ok::<_, Status>);
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let mut response = http::Response::new(Body::new(body));
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/grpc"),
        );
        Ok(Some(response))
    }
}

fn framed(response: &StreamResultsResponse) -> Bytes {
    let length = response.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&response.encode_to_vec());
    bytes.freeze()
}
