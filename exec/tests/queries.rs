//! Statements and their results, through a real server and a real DuckDB.

#![allow(clippy::unwrap_used, reason = "a call that fails is a test that fails")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use common::*;
use exec::wire::status::detail;
use proto::v1::stream_results_response::Content;
use proto::v1::{Options, Reason, StatementKind};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_query_gives_its_rows_in_order() {
    let host = Host::new().await;
    let client = host.client().await;
    let outcome = client
        .sql("SELECT range AS r, 'x' || range AS t FROM range(1000000)")
        .await
        .unwrap();
    assert_eq!(outcome.rows(), 1_000_000);
    let mut next = 0;
    for batch in &outcome.batches {
        let column = batch
            .column(0)
            .as_any()
            .downcast_ref::<Int64Array>()
            .unwrap();
        for value in column.values() {
            assert_eq!(*value, next);
            next += 1;
        }
    }
    assert_eq!(outcome.response.kind(), StatementKind::Rows);
    assert_eq!(outcome.response.streams, 1);
    let columns: Vec<_> = outcome
        .response
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.r#type.as_str()))
        .collect();
    assert_eq!(columns, [("r", "BIGINT"), ("t", "VARCHAR")]);
    let summary = &outcome.summary;
    assert_eq!((summary.rows, summary.total_rows), (1_000_000, 1_000_000));
    assert_eq!(summary.worker, "worker-1");
    assert!(summary.bytes > 8_000_000 && summary.elapsed_us > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_streams_are_one_result() {
    let host = Host::new().await;
    let client = host.client().await;
    let options = Options {
        max_streams: 4,
        ..Options::default()
    };
    let response = client
        .execute(with_options("FROM range(3000000)", options))
        .await
        .unwrap();
    assert_eq!(response.streams, 4);
    let reads = (0..4).map(|stream| {
        let (client, id) = (client.clone(), response.query_id.clone());
        tokio::spawn(async move {
            let mut items = client.open(&id, stream, 0).await.unwrap();
            let (mut indexes, mut summary, mut sequence) = (Vec::new(), None, 0);
            while let Some(item) = items.message().await.unwrap() {
                sequence += 1;
                assert_eq!(item.sequence, sequence);
                match item.content.unwrap() {
                    Content::Batch(_) => indexes.push(item.batch_index),
                    Content::Summary(figures) => summary = Some(figures),
                }
            }
            assert!(indexes.is_sorted());
            (indexes, summary.unwrap())
        })
    });
    let mut all = Vec::new();
    let mut rows = 0;
    for (stream, read) in futures_util::future::join_all(reads)
        .await
        .into_iter()
        .enumerate()
    {
        let (indexes, summary) = read.unwrap();
        all.extend(indexes);
        rows += summary.rows;
        assert_eq!(summary.total_rows, if stream == 0 { 3_000_000 } else { 0 });
    }
    all.sort_unstable();
    assert_eq!(all, (0..all.len() as u64).collect::<Vec<_>>());
    assert_eq!(rows, 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_without_rows_run_to_their_end() {
    let host = Host::new().await;
    let client = host.client().await;
    let made = client
        .execute(query("CREATE TABLE t (a INTEGER PRIMARY KEY, b VARCHAR)"))
        .await
        .unwrap();
    assert_eq!(made.kind(), StatementKind::Nothing);
    assert_eq!((made.streams, made.columns.len()), (1, 0));
    // Nobody read anything of it, and yet it happened.
    let inserted = client
        .sql("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
        .await
        .unwrap();
    assert_eq!(inserted.response.kind(), StatementKind::ChangedRows);
    assert_eq!(inserted.value(), "2");
    let dropped = client.read(made).await.unwrap();
    assert_eq!(dropped.rows(), 0);
    let returned = client
        .sql("UPDATE t SET b = 'c' WHERE a = 2 RETURNING a, b")
        .await
        .unwrap();
    assert_eq!(returned.table(), [["2", "c"]]);
    assert_eq!(
        client.sql("SELECT count(*) FROM t").await.unwrap().value(),
        "2"
    );
    let empty = client.sql("FROM t WHERE false").await.unwrap();
    assert_eq!((empty.rows(), empty.response.columns.len()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_result_comes_with_the_answer() {
    let host = Host::new().await;
    let client = host.client().await;
    let options = |bytes| Options {
        inline_bytes: bytes,
        ..Options::default()
    };
    let response = client
        .execute(with_options("SELECT 42 AS x", options(65536)))
        .await
        .unwrap();
    assert_eq!(response.inline.len(), 2);
    assert!(matches!(
        response.inline[1].content,
        Some(Content::Summary(_))
    ));
    let id = response.query_id.clone();
    assert_eq!(client.read(response).await.unwrap().value(), "42");
    let error = client.open(&id, 0, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);

    // What does not fit is not repeated: `read` counts on it.
    let outcome = client
        .run(with_options("FROM range(2000000)", options(4 << 20)))
        .await
        .unwrap();
    assert!(!outcome.response.inline.is_empty());
    assert_eq!(outcome.rows(), 2_000_000);
    let enums = "SELECT ['a', 'b'][1 + i % 2]::ENUM('a', 'b') AS e FROM range(3) t(i)";
    let outcome = client
        .run(with_options(enums, options(65536)))
        .await
        .unwrap();
    assert_eq!(outcome.table(), [["a"], ["b"], ["a"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_one_row() {
    let host = Host::new().await;
    let client = host.client().await;
    let row = |names: [&str; 2]| {
        let number: ArrayRef = Arc::new(Int32Array::from(vec![20]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["ö"]));
        let batch = RecordBatch::try_from_iter([(names[0], number), (names[1], text)]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    };
    let mut request = query("SELECT $1 + 1, $2 || '!'");
    request.parameters = row(["1", "2"]).into();
    assert_eq!(
        client.run(request.clone()).await.unwrap().table(),
        [["21", "ö!"]]
    );
    request.parameters = row(["", ""]).into();
    assert_eq!(
        client.run(request.clone()).await.unwrap().table(),
        [["21", "ö!"]]
    );
    request.sql = "SELECT $n + 1, $t || '!'".into();
    request.parameters = row(["n", "t"]).into();
    assert_eq!(
        client.run(request.clone()).await.unwrap().table(),
        [["21", "ö!"]]
    );
    request.parameters = bytes::Bytes::new();
    let error = client.run(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_those_of_duckdb() {
    let host = Host::new().await;
    let client = host.client().await;
    client
        .sql("CREATE TABLE t (a INTEGER PRIMARY KEY)")
        .await
        .unwrap();
    client.sql("INSERT INTO t VALUES (1)").await.unwrap();
    let table = [
        ("SELEC 1", Code::InvalidArgument, "Parser"),
        ("SELECT nothing FROM t", Code::InvalidArgument, "Binder"),
        ("FROM nowhere", Code::InvalidArgument, "Catalog"),
        ("SELECT 'x'::INTEGER", Code::InvalidArgument, "Conversion"),
        (
            "SELECT 127::TINYINT + 1::TINYINT",
            Code::InvalidArgument,
            "Out of Range",
        ),
        (
            "INSERT INTO t VALUES (1)",
            Code::FailedPrecondition,
            "Constraint",
        ),
        (
            "SELECT error('my own')",
            Code::InvalidArgument,
            "Invalid Input",
        ),
    ];
    for (sql, code, exception) in table {
        let error = client.sql(sql).await.expect_err(sql);
        let detail = detail(&error).expect(sql);
        assert_eq!(error.code(), code, "{sql}: {error:?}");
        assert_eq!(detail.exception_type, exception, "{sql}");
        assert_eq!(detail.reason(), Reason::Duckdb, "{sql}");
        assert!(!error.message().is_empty());
    }
    let error = client.sql("SELECT nothing FROM t").await.unwrap_err();
    assert_eq!(
        detail(&error).unwrap().position,
        Some(7),
        "{:?}",
        detail(&error)
    );
    for (sql, part) in [("", "here are 0"), ("SELECT 1; SELECT 2", "here are 2")] {
        let error = client.sql(sql).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(part), "{error}");
    }
    // A failure behind the first rows is the stream's.
    let late =
        "SELECT CASE WHEN range = 2999999 THEN error('late') ELSE range END FROM range(3000000)";
    let response = client.execute(query(late)).await.unwrap();
    let error = client.read(response).await.unwrap_err();
    assert!(error.message().contains("late"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_aborted() {
    let host = Host::new().await;
    let client = host.client().await;
    client.sql("CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
    for session in ["s1", "s2"] {
        client.run(in_session(session, "BEGIN")).await.unwrap();
        client.run(in_session(session, "FROM t")).await.unwrap();
    }
    client
        .run(in_session("s1", "UPDATE t SET a = 2"))
        .await
        .unwrap();
    let error = client
        .run(in_session("s2", "UPDATE t SET a = 3"))
        .await
        .unwrap_err();
    assert_eq!(
        error.code(),
        Code::Aborted,
        "{error:?} {:?}",
        detail(&error)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn others_see_nothing_of_a_result() {
    let host = Host::new().await;
    let (mine, other) = (host.client().await, host.client_of(caller("other")).await);
    let response = mine.execute(query("SELECT 1")).await.unwrap();
    let error = other.open(&response.query_id, 0, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let forged = other
        .open("00000000000000000000000000000000", 0, 0)
        .await
        .unwrap_err();
    assert_eq!(
        (forged.code(), forged.message()),
        (error.code(), error.message())
    );
    assert_eq!(
        mine.open(&response.query_id, 7, 0)
            .await
            .unwrap_err()
            .code(),
        Code::InvalidArgument
    );
    assert_eq!(mine.read(response.clone()).await.unwrap().value(), "1");
    let again = mine.open(&response.query_id, 0, 0).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_kept() {
    let host = Host::new().await;
    let mut reader = caller("reader");
    reader.read_only = true;
    let client = host.client_of(reader).await;
    assert_eq!(client.sql("SELECT 1").await.unwrap().value(), "1");
    let error = client.sql("CREATE TABLE t (a INTEGER)").await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    let mut stranger = caller("stranger");
    stranger.databases = exec::access::Databases::Some(Arc::default());
    let client = host.client_of(stranger).await;
    let error = client.sql("SELECT 1").await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    let client = host.client().await;
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    let error = client
        .run(with_options("CREATE TABLE t (a INTEGER)", options))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert_eq!(detail(&error).unwrap().reason(), Reason::NeedsWriter);
    let mut elsewhere = query("SELECT 1");
    elsewhere.database = "geese".into();
    assert_eq!(
        client.run(elsewhere).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_cancels_at_once() {
    let host = Host::new().await;
    let client = host.client().await;
    let response = client
        .execute(query("FROM range(100000000000)"))
        .await
        .unwrap();
    let mut items = client.open(&response.query_id, 0, 0).await.unwrap();
    items.message().await.unwrap().unwrap();
    drop(items);
    ends(&host, Duration::from_secs(1)).await;
    let error = client.open(&response.query_id, 0, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_interrupts() {
    let host = Host::new().await;
    let client = host.client().await;
    let slow = "CREATE TABLE t AS SELECT count(*) AS c FROM range(10000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3";
    let call = tokio::time::timeout(Duration::from_millis(200), client.execute(query(slow))).await;
    assert!(call.is_err(), "it is slow");
    ends(&host, Duration::from_secs(2)).await;
    assert!(client.sql("FROM t").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_has_its_time() {
    let host = Host::new().await;
    let client = host.client().await;
    let slow =
        "SELECT count(*) FROM range(10000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3";
    let options = Options {
        statement_timeout_ms: 100,
        ..Options::default()
    };
    let begun = Instant::now();
    let error = client.run(with_options(slow, options)).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    assert_eq!(detail(&error).unwrap().exception_type, "Interrupt");
    assert!(begun.elapsed() < Duration::from_secs(3));
    ends(&host, Duration::from_secs(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_nobody_opens_expires() {
    let host = Host::new().await;
    let client = host.client().await;
    let options = Options {
        handle_ttl_ms: 100,
        ..Options::default()
    };
    let response = client
        .execute(with_options("FROM range(100000000000)", options))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(
        client
            .open(&response.query_id, 0, 0)
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    ends(&host, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_stream_goes_on_where_it_was() {
    let host = Host::new().await;
    let client = host.client().await;
    let options = Options {
        resumable: true,
        ..Options::default()
    };
    let response = client
        .execute(with_options("FROM range(3000000)", options))
        .await
        .unwrap();
    let (mut indexes, mut last, mut connections) = (Vec::new(), 0, 0);
    'whole: loop {
        // A connection of its own, which is torn down in the middle.
        let client = host.client().await;
        connections += 1;
        let mut items = client.open(&response.query_id, 0, last).await.unwrap();
        for _ in 0..3 {
            match items.message().await.unwrap() {
                Some(item) => {
                    assert_eq!(item.sequence, last + 1);
                    last = item.sequence;
                    match item.content.unwrap() {
                        Content::Batch(_) => indexes.push(item.batch_index),
                        Content::Summary(summary) => {
                            assert_eq!(summary.total_rows, 3_000_000);
                            break 'whole;
                        }
                    }
                }
                None => unreachable!("the summary comes first"),
            }
        }
    }
    assert!(connections > 3);
    assert_eq!(indexes, (0..indexes.len() as u64).collect::<Vec<_>>());
    let error = client
        .open(&response.query_id, 0, last + 5)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kept_any_more_is_out_of_range() {
    let host = Host::with(exec::worker::Limits {
        resume_bytes: 3 << 20,
        ..limits()
    })
    .await;
    let client = host.client().await;
    let options = Options {
        resumable: true,
        ..Options::default()
    };
    let response = client
        .execute(with_options("FROM range(3000000)", options))
        .await
        .unwrap();
    let mut items = client.open(&response.query_id, 0, 0).await.unwrap();
    for _ in 0..10 {
        items.message().await.unwrap().unwrap();
    }
    drop(items);
    let error = client.open(&response.query_id, 0, 1).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_have_the_size_that_the_client_takes() {
    let host = Host::new().await;
    let client = host.client().await;
    let options = Options {
        max_message_bytes: 64 << 10,
        ..Options::default()
    };
    let sql = "SELECT range, repeat('x', (range % 5000)::INT) FROM range(20000)";
    let outcome = client
        .run(with_options(sql, options.clone()))
        .await
        .unwrap();
    assert_eq!(outcome.rows(), 20_000);
    assert!(outcome.summary.bytes > 40_000_000);
    let large = "SELECT repeat('x', 100000)";
    let error = client.run(with_options(large, options)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(detail(&error).unwrap().reason(), Reason::Limit);
    assert_eq!(client.sql(large).await.unwrap().rows(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_runs_once_per_key() {
    let host = Host::new().await;
    let client = host.client().await;
    client.sql("CREATE TABLE t (a INTEGER)").await.unwrap();
    let mut request = query("INSERT INTO t VALUES (1)");
    request.idempotency_key = "k1".into();
    let (first, second) = tokio::join!(
        client.execute(request.clone()),
        client.execute(request.clone())
    );
    assert_eq!(first.unwrap().query_id, second.unwrap().query_id);
    client.execute(request.clone()).await.unwrap();
    assert_eq!(
        client.sql("SELECT count(*) FROM t").await.unwrap().value(),
        "1"
    );
    request.sql = "INSERT INTO t VALUES (2)".into();
    assert_eq!(
        client.execute(request.clone()).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    // In the next life of the worker nobody knows what came of it.
    request.sql = "INSERT INTO t VALUES (1)".into();
    let directory = host.close().await;
    let host = Host::of(config(directory.path(), limits()), directory).await;
    let client = host.client().await;
    let error = client.execute(request.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    assert_eq!(detail(&error).unwrap().reason(), Reason::OutcomeUnknown);
    assert_eq!(
        client.sql("SELECT count(*) FROM t").await.unwrap().value(),
        "1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_columns_are_refused() {
    let host = Host::new().await;
    let client = host.client().await;
    let columns: Vec<String> = (0..100_000).map(|i| format!("{i} AS c{i}")).collect();
    let error = client
        .sql(format!("SELECT {}", columns.join(", ")))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    assert!(error.message().contains("100000 columns"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_itself_only() {
    let host = Host::new().await;
    let client = host.client().await;
    let response = client
        .execute(query("FROM range(10000000000)"))
        .await
        .unwrap();
    let mut slow = client.open(&response.query_id, 0, 0).await.unwrap();
    slow.message().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held = host.worker.figures().buffered_bytes;
    assert!(held <= 16 << 20, "{held}");
    let quick = host.client().await;
    for _ in 0..20 {
        assert_eq!(quick.sql("SELECT 1").await.unwrap().value(), "1");
    }
    slow.message().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn placement_names_the_operators() {
    let host = Host::new().await;
    let client = host.client().await;
    let options = Options {
        placement: true,
        ..Options::default()
    };
    let response = client
        .execute(with_options(
            "SELECT count(*) FROM range(10) WHERE range > 3",
            options,
        ))
        .await
        .unwrap();
    assert!(response.placement.len() >= 2, "{:?}", response.placement);
    assert!(
        response
            .placement
            .iter()
            .all(|operator| operator.worker == "worker-1")
    );
    assert_eq!(response.placement[0].depth, 0);
}

/// Waits until nothing runs any more.
async fn ends(host: &Host, patience: Duration) {
    let begun = Instant::now();
    while host.worker.figures().running > 0 {
        assert!(begun.elapsed() < patience, "{:?}", host.worker.figures());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
