//! What is killed comes back, and nothing acknowledged is lost.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tonic::Code;

use super::server::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_fails_its_queries_and_the_next_one_works() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let client = server.client().await;
    client.ok("CREATE TABLE t (i INT)").await;
    for round in 0..3 {
        for number in 0..10 {
            client.ok(&format!("INSERT INTO t VALUES ({number})")).await;
        }
        let answer = client
            .execute(request("FROM range(1000000000)"))
            .await
            .unwrap();
        let mut stream = client.open(&answer.query_id, 0).await.unwrap();
        stream.message().await.unwrap();
        let computing = tokio::spawn({
            let client = client.clone();
            async move {
                client.sql("CREATE TABLE never AS SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b").await
            }
        });
        until("it runs", async || {
            let running = client.ok("SELECT count(*) FROM openduck_queries() WHERE sql LIKE '%never%' AND state = 'running'").await;
            running.cell() != "0"
        })
        .await;
        let [worker] = server.children()[..] else {
            panic!("one worker")
        };
        signal(worker, Signal::KILL);
        let begin = Instant::now();
        let status = loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended as if all were there"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        let status = computing.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        let expected = ((round + 1) * 10).to_string();
        assert_eq!(client.ok("SELECT count(*) FROM t").await.cell(), expected);
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{:?}",
            begin.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_end_with_their_gateway() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let client = server.client().await;
    client.ok("CREATE TABLE t AS SELECT 7 AS a").await;
    let [worker] = server.children()[..] else {
        panic!("one worker")
    };
    server.kill();
    let is_there = || std::path::Path::new(&format!("/proc/{worker}")).exists();
    until("the worker is gone", async || !is_there()).await;
    let again = Server::serve(&home, &[]);
    assert_eq!(again.client().await.ok("FROM t").await.cell(), "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_stops_its_query() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let client = server.client().await;
    client.ok("SELECT 1").await;
    let list = "SELECT count(*) FROM openduck_queries() WHERE sql LIKE '%10000000%' AND sql NOT LIKE '%openduck%'";
    let answer = client
        .execute(request("FROM range(1000000000000)"))
        .await
        .unwrap();
    let mut stream = client.open(&answer.query_id, 0).await.unwrap();
    stream.message().await.unwrap();
    assert_eq!(client.ok(list).await.cell(), "1");
    drop(stream);
    until("it is over", async || client.ok(list).await.cell() == "0").await;
    let slow =
        "CREATE TABLE x AS SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b";
    let calling = client.sql(slow);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), calling)
            .await
            .is_err()
    );
    until("it is over", async || client.ok(list).await.cell() == "0").await;
}
