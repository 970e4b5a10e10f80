//! Handles: whose they are, and which gateway serves them.

use tonic::Code;

use super::server::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_of_no_use_to_others() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let client = server.client().await;
    let made = home.run(&["token", "create"]);
    let other = server.client_with(made.trim()).await;
    for sql in ["FROM range(10)", "FROM openduck_databases()"] {
        let answer = client.execute(request(sql)).await.unwrap();
        let mut forged = answer.query_id.clone().into_bytes();
        forged[20] ^= 1;
        let forged = String::from_utf8(forged).unwrap();
        for (who, handle) in [
            (&other, &answer.query_id),
            (&client, &forged),
            (&client, &"x".repeat(5000)),
        ] {
            let status = who.open(handle, 0).await.err().unwrap();
            let is_unknown = matches!(status.code(), Code::NotFound | Code::InvalidArgument);
            assert!(is_unknown, "{status}");
        }
        assert!(client.read(answer).await.is_ok(), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_serves_any_stream_and_one_may_die() {
    let home = Home::new();
    let with_workers = Server::serve(&home, &[]);
    let replica = || Server::start(&home, &["gateway", "--no-local-workers"]);
    let (second, third) = (replica(), replica());
    let client = second.client().await;
    client
        .ok("CREATE TABLE t AS FROM range(1000000) AS r(i)")
        .await;
    let answer = client.execute(request("FROM t")).await.unwrap();
    // The one that took the statement in is gone when its streams are read.
    second.kill();
    let read = third.client().await.read(answer).await.unwrap();
    assert_eq!(read.summary.total_rows, 1_000_000);
    // A session goes on, too.
    let first = with_workers.client().await;
    first.answered(in_session("s", "BEGIN")).await.unwrap();
    first
        .answered(in_session("s", "INSERT INTO t VALUES (-1)"))
        .await
        .unwrap();
    let other = third.client().await;
    let seen = other
        .answered(in_session("s", "SELECT min(i) FROM t"))
        .await
        .unwrap();
    assert_eq!(seen.cell(), "-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_announced_themselves_are_used_and_replaced() {
    let home = Home::new();
    let gateway = Server::start(&home, &["gateway", "--no-local-workers"]);
    let client = gateway.client().await;
    client.ok("CALL openduck_create('mydb')").await;
    let start = |more: &[&str]| {
        let mut arguments = vec!["worker", "-d", "mydb", "--announce"];
        arguments.extend(more);
        Server::of(home.command(&arguments))
    };
    let writer = start(&[]);
    let reader = start(&["--reader"]);
    client
        .ok("CREATE TABLE t AS FROM range(1000) AS r(i)")
        .await;
    until("the reader is used", async || {
        let read = client.ok("SELECT count(*) FROM t").await;
        assert_eq!(read.cell(), "1000");
        read.summary.worker.starts_with("reader")
    })
    .await;
    // Nobody but a gateway may call it, not even the operator.
    let status = writer.client().await.refused("SELECT 1").await;
    assert_eq!(status.code(), Code::Unauthenticated);
    // Restarted one after the other, with statements all the time.
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let working = tokio::spawn({
        let client = client.clone();
        async move {
            let mut done = 0;
            while !*stopped.borrow_and_update() {
                match client.sql("SELECT count(*) FROM t WHERE i >= 0").await {
                    Ok(read) => {
                        assert_eq!(read.cell(), "1000");
                        done += 1;
                    }
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
                }
            }
            done
        }
    });
    assert!(reader.end().success());
    let _reader = start(&["--reader"]);
    assert!(writer.end().success());
    let _writer = start(&[]);
    client.ok("INSERT INTO t VALUES (-1)").await;
    stop.send(true).unwrap();
    assert!(working.await.unwrap() > 0);
}
