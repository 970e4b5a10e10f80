//! Requests that nobody sends on purpose: valid ones with bytes changed, cut out, put in or doubled, as whole
//! messages and as halves of them. Each must be answered, by a result or by a status that says something, and
//! the worker must go on as before.
//!
//! `OPENDUCK_GARBAGE_ROUNDS` runs more of them, `OPENDUCK_GARBAGE_SEED` others.

#![allow(clippy::unwrap_used, reason = "a call that fails is a test that fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Int64Array, RecordBatch, StringArray};
use bytes::{BufMut as _, Bytes, BytesMut};
use common::*;
use exec::wire::batch::{Encoder, schema_message};
use exec::worker::Limits;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use proto::v1::{ExecuteQueryRequest, Input, Options, StreamResultsRequest};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Status};

const EXECUTE: &str = "/openduck.v1.ExecutionService/ExecuteQuery";
const STREAM: &str = "/openduck.v1.ExecutionService/StreamResults";
const ROUNDS: u64 = 1500;
/// No answer takes longer: the worker interrupts what runs for a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// Knuth's generator: the same sequence for the same seed, wherever it runs.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most.max(1)
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Requests as clients send them, one of each kind.
fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let rows = RecordBatch::try_from_iter([
        ("a", Arc::new(Int64Array::from(vec![1, 2, 3])) as _),
        ("b", Arc::new(StringArray::from(vec!["x", "y", ""])) as _),
    ])
    .unwrap();
    let schema = schema_message(rows.schema_ref()).unwrap();
    let batch = Encoder::new(&rows).unwrap().encode(&rows).unwrap();
    let one = rows.slice(0, 1);
    let one_batch = Encoder::new(&one).unwrap().encode(&one).unwrap();
    let parameters = [
        schema.clone(),
        one_batch.to_bytes(),
        Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
    ];
    let input = Input {
        name: "given".into(),
        schema,
        batch: batch.to_bytes(),
        last: true,
        ..Input::default()
    };
    let options = Options {
        inline_bytes: 4096,
        max_streams: 2,
        placement: true,
        resumable: true,
        settings: [("TimeZone".to_owned(), "UTC".to_owned())].into(),
        ..Options::default()
    };
    let execute = [
        query("SELECT 42, 'text', [1, 2], {'a': 1}"),
        ExecuteQueryRequest {
            inputs: vec![input],
            ..with_options("SELECT a, b FROM given ORDER BY a", options)
        },
        ExecuteQueryRequest {
            parameters: parameters.concat().into(),
            ..in_session("garbage", "SELECT $a + 1, $b")
        },
        ExecuteQueryRequest {
            idempotency_key: "key".into(),
            min_lsn: 0,
            ..query("CREATE OR REPLACE TABLE t AS SELECT 1 AS i")
        },
        ExecuteQueryRequest {
            query_id: "0123456789abcdef0123456789abcdef".into(),
            ..ExecuteQueryRequest::default()
        },
    ];
    let stream = StreamResultsRequest {
        query_id: "0123456789abcdef0123456789abcdef".into(),
        stream: 1,
        resume_after: 7,
    };
    let execute = execute
        .iter()
        .map(|request| (EXECUTE, request.encode_to_vec()));
    execute.chain([(STREAM, stream.encode_to_vec())]).collect()
}

/// Spoils a message a little, or much.
fn spoil(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + dice.below(16)).min(bytes.len()))),
            4 => {
                let more: Vec<u8> = (0..dice.below(32)).map(|_| dice.below(256) as u8).collect();
                drop(bytes.splice(at..at, more));
            }
            5 => {
                let end = (at + dice.below(64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, part));
            }
            _ => {}
        }
    }
}

/// Sends bytes as one gRPC message, whose prefix may lie; what came of it.
async fn send(
    client: &Client,
    channel: &mut Channel,
    path: &str,
    message: &[u8],
    told: u32,
) -> Status {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(told);
    framed.put_slice(message);
    let metadata: MetadataMap = client.request(()).metadata().clone();
    let mut request = http::Request::post(path)
        .body(Body::new(Full::new(framed.freeze())))
        .unwrap();
    *request.headers_mut() = metadata.into_headers();
    for (name, value) in [
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", "15S"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    std::future::poll_fn(|context| tower_service::Service::poll_ready(channel, context))
        .await
        .unwrap();
    let response = tower_service::Service::call(channel, request)
        .await
        .unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().expect("a call ends with a status");
    Status::from_header_map(trailers).expect("a call ends with a status")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn garbage_is_answered_and_does_no_harm() {
    let host = Host::with(Limits {
        statement_time: Duration::from_secs(1),
        input_idle: Duration::from_secs(1),
        ..limits()
    })
    .await;
    let client = host.client().await;
    let mut channel = Channel::from_shared(format!("http://{}", host.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let seed = variable("OPENDUCK_GARBAGE_SEED", 1);
    let (mut good, mut bad) = (0, 0);
    for round in 0..variable("OPENDUCK_GARBAGE_ROUNDS", ROUNDS) {
        let mut dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let all = requests();
        let (path, mut message) = all[dice.below(all.len())].clone();
        spoil(&mut dice, &mut message);
        let told = match dice.below(20) {
            0 => dice.below(1 << 31) as u32,
            _ => message.len() as u32,
        };
        let sent = send(&client, &mut channel, path, &message, told);
        let status = tokio::time::timeout(PATIENCE, sent).await;
        let status =
            status.unwrap_or_else(|_| panic!("round {round} of seed {seed} has no answer"));
        match status.code() {
            Code::Ok => good += 1,
            code => {
                assert!(
                    !status.message().trim().is_empty(),
                    "round {round} of seed {seed}: {code:?}"
                );
                // Nothing that a client sends is the server's own failure.
                assert!(
                    !status.message().contains("the server's log says why")
                        && !status.message().contains("panic"),
                    "round {round} of seed {seed}: {status:?}"
                );
                bad += 1;
            }
        }
        if round % 100 == 0 {
            assert_eq!(client.sql("SELECT 42").await.unwrap().value(), "42");
        }
    }
    assert!(good > 20 && bad > 100, "{good} good, {bad} bad");
    assert_eq!(client.sql("SELECT 42").await.unwrap().value(), "42");
    host.close().await;
}
