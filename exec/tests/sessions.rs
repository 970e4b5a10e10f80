//! Sessions, their transactions, and results that give way.

#![allow(clippy::unwrap_used, reason = "a call that fails is a test that fails")]

mod common;

use std::time::{Duration, Instant};

use common::*;
use exec::wire::status::detail;
use exec::worker::Limits;
use proto::v1::{Options, Reason};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_carries_transactions_and_temporary_tables() {
    let host = Host::new().await;
    let client = host.client().await;
    client.sql("CREATE TABLE t (a INTEGER)").await.unwrap();
    let begun = client.run(in_session("s", "BEGIN")).await.unwrap();
    assert!(begun.response.in_transaction && begun.summary.in_transaction);
    client
        .run(in_session("s", "INSERT INTO t VALUES (1)"))
        .await
        .unwrap();
    client
        .run(in_session("s", "CREATE TEMP TABLE mine AS SELECT 7 AS x"))
        .await
        .unwrap();
    assert_eq!(
        client
            .run(in_session("s", "SELECT count(*) FROM t"))
            .await
            .unwrap()
            .value(),
        "1"
    );
    assert_eq!(
        client.sql("SELECT count(*) FROM t").await.unwrap().value(),
        "0"
    );
    assert!(client.sql("FROM mine").await.is_err());
    let committed = client.run(in_session("s", "COMMIT")).await.unwrap();
    assert!(!committed.response.in_transaction);
    assert_eq!(
        client.sql("SELECT count(*) FROM t").await.unwrap().value(),
        "1"
    );
    assert_eq!(
        client
            .run(in_session("s", "FROM mine"))
            .await
            .unwrap()
            .value(),
        "7"
    );
    client.run(in_session("s", "BEGIN")).await.unwrap();
    client.run(in_session("s", "DELETE FROM t")).await.unwrap();
    client.run(in_session("s", "ROLLBACK")).await.unwrap();
    assert_eq!(
        client.sql("SELECT count(*) FROM t").await.unwrap().value(),
        "1"
    );
    // The same name of another token is another session.
    let other = host.client_of(caller("other")).await;
    assert!(other.run(in_session("s", "FROM mine")).await.is_err());
    let error = client.sql("BEGIN").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_open_results_of_one_transaction_do_not_wait_for_each_other() {
    let host = Host::new().await;
    let client = host.client().await;
    client
        .sql("CREATE TABLE t AS SELECT range AS a, 'row ' || range AS b FROM range(10000000)")
        .await
        .unwrap();
    client.run(in_session("s", "BEGIN")).await.unwrap();
    client
        .run(in_session("s", "INSERT INTO t VALUES (10000000, 'mine')"))
        .await
        .unwrap();
    let first = client.execute(in_session("s", "FROM t")).await.unwrap();
    let begun = Instant::now();
    // Nobody reads the first one yet.
    let second = client
        .execute(in_session("s", "SELECT a FROM t"))
        .await
        .unwrap();
    let (first, second) = tokio::join!(client.read(first), client.read(second));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.rows(), second.rows()), (10_000_001, 10_000_001));
    assert_eq!(first.summary.total_rows, 10_000_001);
    let last = first.batches.last().unwrap();
    let text =
        arrow_cast::display::array_value_to_string(last.column(1), last.num_rows() - 1).unwrap();
    assert_eq!(text, "mine");
    println!(
        "two scans of 10 M rows in one transaction: {:?}",
        begun.elapsed()
    );
    client.run(in_session("s", "COMMIT")).await.unwrap();
    assert_eq!(
        client.sql("SELECT count(*) FROM t").await.unwrap().value(),
        "10000001"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gives_way_stays_below_the_limit() {
    let host = Host::with(Limits {
        spill_bytes: 20 << 20,
        ..limits()
    })
    .await;
    let client = host.client().await;
    let first = client
        .execute(in_session("s", "FROM range(100000000)"))
        .await
        .unwrap();
    assert_eq!(
        client
            .run(in_session("s", "SELECT 1"))
            .await
            .unwrap()
            .value(),
        "1"
    );
    let error = client.read(first).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert_eq!(detail(&error).unwrap().reason(), Reason::Limit);
    assert_eq!(
        client
            .run(in_session("s", "SELECT 2"))
            .await
            .unwrap()
            .value(),
        "2"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_session_come_in_order() {
    let host = Host::new().await;
    let client = host.client().await;
    client.sql("CREATE SEQUENCE q").await.unwrap();
    let slow = tokio::spawn({
        let client = client.clone();
        async move {
            let sql = "SELECT nextval('q') FROM (SELECT max(range * 3 % 7) FROM range(50000000))";
            client.run(in_session("s", sql)).await.unwrap().value()
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        client
            .run(in_session("s", "SELECT nextval('q')"))
            .await
            .unwrap()
            .value(),
        "2"
    );
    assert_eq!(slow.await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_ends_and_its_client_hears_of_it() {
    let host = Host::with(Limits {
        session_idle: Duration::from_millis(300),
        ..limits()
    })
    .await;
    let client = host.client().await;
    client.run(in_session("s", "BEGIN")).await.unwrap();
    client
        .run(in_session("s", "CREATE TABLE t (a INTEGER)"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let error = client.run(in_session("s", "COMMIT")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(detail(&error).unwrap().reason(), Reason::Gone);
    assert!(client.sql("FROM t").await.is_err());
    assert_eq!(host.worker.figures().sessions, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_an_earlier_life_is_gone() {
    let host = Host::new().await;
    let client = host.client().await;
    client.run(in_session("s", "BEGIN")).await.unwrap();
    let directory = host.close().await;
    let host = Host::of(config(directory.path(), limits()), directory).await;
    let client = host.client().await;
    let error = client.run(in_session("s", "COMMIT")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    client.run(in_session("s2", "SELECT 1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_for_the_statement_alone() {
    let host = Host::new().await;
    let client = host.client().await;
    let mut request = in_session("s", "SELECT '2024-01-01 12:00:00+00'::TIMESTAMPTZ::VARCHAR");
    client
        .run(in_session("s", "SET TimeZone = 'Asia/Tokyo'"))
        .await
        .unwrap();
    request.options = Some(Options {
        settings: [("TimeZone".to_owned(), "Europe/Berlin".to_owned())].into(),
        ..Options::default()
    });
    assert_eq!(
        client.run(request.clone()).await.unwrap().value(),
        "2024-01-01 13:00:00+01"
    );
    request.options = None;
    assert_eq!(
        client.run(request.clone()).await.unwrap().value(),
        "2024-01-01 21:00:00+09"
    );
    request.options = Some(Options {
        settings: [("memory_limit".to_owned(), "1TB".to_owned())].into(),
        ..Options::default()
    });
    let error = client.run(request).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert_eq!(detail(&error).unwrap().reason(), Reason::NotAdmitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_sessions_and_no_more() {
    let host = Host::with(Limits {
        session_count: 2,
        ..limits()
    })
    .await;
    let client = host.client().await;
    for session in ["a", "b"] {
        client.run(in_session(session, "SELECT 1")).await.unwrap();
    }
    let error = client.run(in_session("c", "SELECT 1")).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    client.run(in_session("a", "SELECT 1")).await.unwrap();
    for name in ["no spaces", "../x", &"x".repeat(65)] {
        let error = client.run(in_session(name, "SELECT 1")).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}
