//! Operations as SQL.

use tonic::Code;

use super::server::*;

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_clones_and_restores_are_sql() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let client = server.client().await;
    client.ok("CREATE TABLE t AS SELECT 1 AS a").await;
    let taken = client.ok("CALL openduck_snapshot('mydb', 'before')").await;
    assert_eq!(taken.rows()[0][1], "before");
    client.ok("INSERT INTO t VALUES (2)").await;
    client
        .ok("CALL openduck_snapshot('mydb', name := 'after')")
        .await;
    let listed = client
        .ok("SELECT name FROM openduck_snapshots('mydb') WHERE name LIKE 'b%'")
        .await;
    assert_eq!(listed.cell(), "before");
    let counted = client.ok("SELECT count(*) FROM openduck_snapshots()").await;
    assert_eq!(counted.cell(), "2");

    let mut then = request("SELECT count(*) FROM t");
    then.snapshot = "before".to_owned();
    assert_eq!(client.answered(then).await.unwrap().cell(), "1");

    client
        .ok("CALL openduck_clone('mydb', 'dev', ref := 'before')")
        .await;
    let mut dev = request("SELECT count(*) FROM t");
    dev.database = "dev".to_owned();
    assert_eq!(client.answered(dev).await.unwrap().cell(), "1");

    // With a result open, and work going on.
    let open = client
        .execute(request("FROM range(100000000)"))
        .await
        .unwrap();
    let restored = client.ok("CALL openduck_restore('mydb', 'before')").await;
    assert_eq!(restored.rows()[0][0], "mydb");
    assert_eq!(client.ok("SELECT count(*) FROM t").await.cell(), "1");
    drop(open);
    client.ok("INSERT INTO t VALUES (3)").await;
    assert_eq!(client.ok("SELECT sum(a)::BIGINT FROM t").await.cell(), "4");

    for (wrong, code) in [
        (
            "CALL openduck_snapshot('mydb', 'before')",
            Code::AlreadyExists,
        ),
        ("CALL openduck_snapshot('nowhere')", Code::NotFound),
        ("CALL openduck_restore('mydb', 'never')", Code::NotFound),
        ("CALL openduck_snapshot(NULL)", Code::InvalidArgument),
        (
            "CALL openduck_snapshot('mydb', '../x')",
            Code::InvalidArgument,
        ),
        ("CALL openduck_snapshot()", Code::InvalidArgument),
        ("FROM openduck_snapshot('mydb')", Code::InvalidArgument),
        (
            "CREATE TABLE x AS FROM openduck_databases()",
            Code::InvalidArgument,
        ),
        (
            "SELECT * FROM openduck_databases(), t",
            Code::InvalidArgument,
        ),
        (
            "FROM openduck_databases(), read_text('/etc/passwd')",
            Code::PermissionDenied,
        ),
    ] {
        let status = client.refused(wrong).await;
        assert_eq!(status.code(), code, "{wrong}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_runs_is_seen_and_cancelled() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let client = server.client().await;
    client.ok("SELECT 1").await;
    // One that is still computing, and one whose result nobody reads.
    let endless =
        "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3";
    let computing = tokio::spawn({
        let client = client.clone();
        async move { client.sql(&format!("CREATE TABLE slow AS {endless}")).await }
    });
    let unread = client
        .execute(request("FROM range(1000000000)"))
        .await
        .unwrap();
    let list = "SELECT query_id FROM openduck_queries() WHERE sql LIKE '%range(1000000%' AND worker IS NOT NULL ORDER BY began";
    let mut running = Vec::new();
    until("both run", async || client.ok(list).await.rows().len() == 2).await;
    running.extend(client.ok(list).await.rows());
    for query in &running {
        let shown = home.run(&["cancel", &query[0], "--endpoint", &server.url, "-t", TOKEN]);
        assert!(shown.contains(&query[0]), "{shown}");
    }
    let status = computing.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Cancelled, "{status}");
    let status = client.read(unread).await.unwrap_err();
    assert!(
        matches!(status.code(), Code::Cancelled | Code::NotFound),
        "{status}"
    );
    until("none runs", async || {
        client.ok(list).await.rows().is_empty()
    })
    .await;
    // The worker has let go as well.
    assert_eq!(client.ok("SELECT 42").await.cell(), "42");
    let unknown = client
        .refused("CALL openduck_cancel('0123456789abcdef')")
        .await;
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_cancels_or_sees_what_is_not_his() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let operator = server.client().await;
    let made = home.run(&["token", "create", "-d", "mydb"]);
    let client = server.client_with(made.trim()).await;
    let _unread = operator
        .execute(request("FROM range(1000000000)"))
        .await
        .unwrap();
    let list = "SELECT query_id FROM openduck_queries() WHERE sql LIKE '%range(10000%' AND worker IS NOT NULL";
    let his = operator.ok(list).await.cell();
    assert!(client.ok(list).await.rows().is_empty());
    let status = client
        .refused(&format!("CALL openduck_cancel('{his}')"))
        .await;
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_statements_are_in_the_log() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let client = server.client().await;
    client.ok("SELECT 'needle' FROM range(1000)").await;
    client.refused("SELECT needle").await;
    let list = "SELECT code, rows, worker[:6], (bytes > 0)::VARCHAR FROM openduck_log() WHERE sql LIKE '%needle%' AND sql NOT LIKE '%openduck%' ORDER BY began";
    until("both are there", async || {
        client.ok(list).await.rows().len() == 2
    })
    .await;
    let rows = client.ok(list).await.rows();
    assert_eq!(rows[0], ["Ok", "1000", "writer", "true"]);
    assert_eq!(rows[1][0], "InvalidArgument");
}

#[test]
fn status_shows_databases_workers_and_queries() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let endpoint = ["--endpoint", &server.url, "-t", TOKEN];
    let query = ["query", "CREATE TABLE t AS SELECT 1", "-d", "mydb"];
    home.run(&[&query[..], &endpoint].concat());
    let text = home.run(&[&["status"][..], &endpoint].concat());
    assert!(text.contains("mydb") && text.contains("writer-"), "{text}");
    let json = home.run(&[&["status", "--json"][..], &endpoint].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["databases"][0]["name"], "mydb");
    assert_eq!(json["workers"][0]["origin"], "local");
}
