//! Rows that travel up.

#![allow(clippy::unwrap_used, reason = "a call that fails is a test that fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use common::*;
use exec::wire::status::detail;
use exec::worker::Limits;
use proto::v1::{ExecuteQueryRequest, Input, StatementKind};
use tonic::Code;

fn numbers(from: i64, to: i64) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
    RecordBatch::try_from_iter([("n", column)]).unwrap()
}

fn begin(sql: &str, name: &str) -> ExecuteQueryRequest {
    let mut request = query(sql);
    let mut first = input(name, &[numbers(0, 1)], false);
    first.batch = bytes::Bytes::new();
    request.inputs = vec![first];
    request
}

fn append(
    query_id: &str,
    name: &str,
    chunk_seq: u64,
    rows: (i64, i64),
    last: bool,
) -> ExecuteQueryRequest {
    ExecuteQueryRequest {
        query_id: query_id.into(),
        inputs: vec![Input {
            name: name.into(),
            chunk_seq,
            batch: chunk(&[numbers(rows.0, rows.1)]),
            last,
            ..Input::default()
        }],
        ..ExecuteQueryRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_input_comes_with_the_statement() {
    let host = Host::new().await;
    let client = host.client().await;
    let mut request = query("SELECT sum(n)::BIGINT FROM x JOIN y USING (n)");
    request.inputs = vec![
        input("x", &[numbers(0, 10)], true),
        input("y", &[numbers(5, 20)], true),
    ];
    assert_eq!(
        client.run(request).await.unwrap().value(),
        (5..10).sum::<i64>().to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_million_rows_arrive_once() {
    let host = Host::new().await;
    let client = host.client().await;
    let opened = client
        .execute(begin("CREATE TABLE t AS SELECT * FROM x", "x"))
        .await
        .unwrap();
    assert!(opened.schema.is_empty() && opened.streams == 0);
    let id = opened.query_id;
    // Four at once, and every third one twice.
    let (chunks, each) = (20, 500_000);
    let mut answers = Vec::new();
    for first in (0..chunks).step_by(4) {
        let calls = (first..first + 4).flat_map(|seq| {
            let rows = (seq * each, (seq + 1) * each);
            let repeat = if seq % 3 == 0 && seq + 1 < chunks {
                2
            } else {
                1
            };
            let request = append(&id, "x", 1 + seq as u64 - 1, rows, seq + 1 == chunks);
            // The statement's own call brought chunk 0, without rows.
            let request = ExecuteQueryRequest {
                inputs: vec![Input {
                    chunk_seq: seq as u64 + 1,
                    ..request.inputs[0].clone()
                }],
                ..request
            };
            std::iter::repeat_n(request, repeat)
        });
        let calls = calls.map(|request| client.execute(request));
        answers.extend(futures_util::future::join_all(calls).await);
    }
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    let done = answers
        .iter()
        .find(|answer| !answer.schema.is_empty())
        .unwrap();
    assert_eq!(done.kind(), StatementKind::ChangedRows);
    let check = client
        .sql("SELECT count(*), count(DISTINCT n), max(n) FROM t")
        .await
        .unwrap();
    assert_eq!(check.table(), [["10000000", "10000000", "9999999"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_out_of_range_and_can_be_filled() {
    let host = Host::new().await;
    let client = host.client().await;
    let id = client
        .execute(begin("SELECT sum(n)::BIGINT FROM x", "x"))
        .await
        .unwrap()
        .query_id;
    let error = client
        .execute(append(&id, "x", 2, (100, 200), true))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
    client
        .execute(append(&id, "x", 1, (0, 100), false))
        .await
        .unwrap();
    let answer = client
        .execute(append(&id, "x", 2, (100, 200), true))
        .await
        .unwrap();
    assert_eq!(
        client.read(answer).await.unwrap().value(),
        (0..200).sum::<i64>().to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_may_be_used_twice() {
    let host = Host::new().await;
    let client = host.client().await;
    let sql = "SELECT count(*) FROM x a JOIN x b ON a.n = b.n WHERE a.n >= (SELECT avg(n) FROM x)";
    let id = client.execute(begin(sql, "x")).await.unwrap().query_id;
    for seq in 1..=10 {
        let rows = ((seq - 1) * 100_000, seq * 100_000);
        let answer = client
            .execute(append(&id, "x", seq as u64, rows, seq == 10))
            .await
            .unwrap();
        if seq == 10 {
            assert_eq!(client.read(answer).await.unwrap().value(), "500000");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_upload_is_rolled_back() {
    let host = Host::with(Limits {
        input_idle: Duration::from_millis(300),
        ..limits()
    })
    .await;
    let client = host.client().await;
    client.sql("CREATE TABLE t (n BIGINT)").await.unwrap();
    let id = client
        .execute(begin("INSERT INTO t FROM x", "x"))
        .await
        .unwrap()
        .query_id;
    client
        .execute(append(&id, "x", 1, (0, 100_000), false))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let error = client
        .execute(append(&id, "x", 2, (0, 1), true))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(
        client.sql("SELECT count(*) FROM t").await.unwrap().value(),
        "0"
    );
    assert_eq!(host.worker.figures().running, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_statement_fails_the_pending_append() {
    let host = Host::new().await;
    let client = host.client().await;
    let id = client
        .execute(begin(
            "SELECT max(1000 // (n - 5)) FROM x WHERE error('bad ' || n) IS NULL",
            "x",
        ))
        .await
        .unwrap()
        .query_id;
    let mut failure = None;
    for seq in 1..=100 {
        match client
            .execute(append(&id, "x", seq, (0, 10_000), seq == 100))
            .await
        {
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let error = failure.unwrap();
    assert!(error.message().contains("bad "), "{error:?}");
    assert_eq!(detail(&error).unwrap().exception_type, "Invalid Input");
    // What does not bind fails the call that opens it.
    let error = client
        .execute(begin("SELECT nothing FROM x", "x"))
        .await
        .unwrap_err();
    assert_eq!(detail(&error).unwrap().exception_type, "Binder");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_statement_does_not_read_is_taken_all_the_same() {
    let host = Host::new().await;
    let client = host.client().await;
    let id = client
        .execute(begin("FROM x LIMIT 1", "x"))
        .await
        .unwrap()
        .query_id;
    for seq in 1..=8 {
        let answer = client
            .execute(append(&id, "x", seq, (7, 500_007), seq == 8))
            .await
            .unwrap();
        if seq == 8 {
            assert_eq!(client.read(answer).await.unwrap().value(), "7");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_upload_holds_up_nobody() {
    let host = Host::with(Limits {
        threads: 1,
        ..limits()
    })
    .await;
    let client = host.client().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(
            client
                .execute(begin("SELECT sum(n)::BIGINT FROM x", "x"))
                .await
                .unwrap()
                .query_id,
        );
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        client
            .sql("SELECT sum(range)::BIGINT FROM range(1000000)")
            .await
            .unwrap()
            .value(),
        "499999500000"
    );
    for id in ids {
        let answer = client
            .execute(append(&id, "x", 1, (0, 10), true))
            .await
            .unwrap();
        assert_eq!(client.read(answer).await.unwrap().value(), "45");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_inputs_are_refused() {
    let host = Host::new().await;
    let client = host.client().await;
    let good = input("x", &[numbers(0, 10)], true);
    let with = |inputs: Vec<Input>| ExecuteQueryRequest {
        inputs,
        ..query("FROM x")
    };
    let named = |name: &str| Input {
        name: name.into(),
        ..good.clone()
    };
    let cases = [
        vec![Input {
            schema: bytes::Bytes::new(),
            ..good.clone()
        }],
        vec![Input {
            schema: good.batch.clone(),
            ..good.clone()
        }],
        vec![Input {
            batch: good.schema.clone(),
            ..good.clone()
        }],
        vec![Input {
            batch: good.batch.slice(..good.batch.len() - 3),
            ..good.clone()
        }],
        vec![Input {
            batch: vec![0xff; 1000].into(),
            ..good.clone()
        }],
        vec![named("")],
        vec![named(&"x".repeat(257))],
        vec![named("x"), named("X")],
        vec![good.clone(); 65],
    ];
    for (number, inputs) in cases.into_iter().enumerate() {
        let error = client.run(with(inputs)).await.unwrap_err();
        assert_eq!(
            error.code(),
            Code::InvalidArgument,
            "case {number}: {error}"
        );
    }
    assert_eq!(client.run(with(vec![good])).await.unwrap().rows(), 10);
    assert_eq!(host.worker.figures().running, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_goes_out_and_comes_back() {
    let host = Host::new().await;
    let client = host.client().await;
    let out = client.sql("FROM test_all_types()").await.unwrap();
    assert_eq!(out.rows(), 3);
    let back = |sql: &str| ExecuteQueryRequest {
        inputs: vec![input("x", &out.batches, true)],
        ..query(sql)
    };
    let same = "SELECT count(*) FROM (FROM test_all_types() EXCEPT FROM x)";
    assert_eq!(client.run(back(same)).await.unwrap().value(), "0");
    let typed = client.run(back("FROM x")).await.unwrap();
    for (sent, came) in typed.response.columns.iter().zip(&out.response.columns) {
        // What Arrow has no word for comes as what it can say: an ENUM as text, a TUPLE as a STRUCT.
        if !came.r#type.contains("ENUM(") && !came.r#type.contains("TUPLE(") {
            assert_eq!(sent, came);
        }
    }
}
