//! Statements through the gateway, and `openduck query`.

use tonic::Code;

use super::server::*;

#[tokio::test(flavor = "multi_thread")]
async fn statements_go_through_and_results_come_back() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let client = server.client().await;
    let made = client
        .ok("CREATE TABLE t AS SELECT range AS i, 'row ' || range AS s FROM range(100000)")
        .await;
    assert!(made.answer.lsn > 0);
    let read = client
        .ok("SELECT count(*), sum(i)::BIGINT, max(s) FROM t")
        .await;
    assert_eq!(read.rows(), [["100000", "4999950000", "row 99999"]]);
    let all = client.ok("FROM t ORDER BY i").await;
    assert_eq!(all.summary.total_rows, 100_000);
    let rows = all.rows();
    assert_eq!(
        (rows.len(), &rows[77_777][1]),
        (100_000, &"row 77777".to_owned())
    );
    let wrong = client.refused("SELECT no_such_column FROM t").await;
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(wrong.message().contains("no_such_column"), "{wrong}");
    for (nothing, why) in [
        ("", "no statement"),
        ("SELECT 1; SELECT 2", "several"),
        ("SELEC", "syntax"),
    ] {
        let status = client.refused(nothing).await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(why), "{status}");
    }
    assert!(server.end().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_a_transaction_with_one_worker() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let client = server.client().await;
    client.ok("CREATE TABLE t (i INT)").await;
    let run =
        async |session: &str, sql: &str| client.answered(in_session(session, sql)).await.unwrap();
    run("one", "BEGIN").await;
    run("one", "INSERT INTO t VALUES (1), (2)").await;
    assert_eq!(run("one", "SELECT count(*) FROM t").await.cell(), "2");
    assert_eq!(client.ok("SELECT count(*) FROM t").await.cell(), "0");
    run("one", "COMMIT").await;
    assert_eq!(client.ok("SELECT count(*) FROM t").await.cell(), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_read_and_the_writer_writes() {
    let home = Home::new();
    let server = Server::start(&home, &["gateway", "--readers", "1"]);
    let client = server.client().await;
    client.ok("CALL openduck_create('mydb')").await;
    let made = client
        .ok("CREATE TABLE t AS FROM range(1000) AS r(i)")
        .await;
    assert!(
        made.summary.worker.starts_with("writer"),
        "{:?}",
        made.summary
    );
    until("a reader takes reads", async || {
        let read = client.ok("SELECT count(*) FROM t").await;
        assert_eq!(read.cell(), "1000");
        read.summary.worker.starts_with("reader")
    })
    .await;
    // A write in a reader's clothes: the reader's binder has the last word.
    let made = client.ok("CREATE SEQUENCE numbers").await;
    let mut asked = request("SELECT nextval('numbers')");
    asked.min_lsn = made.answer.lsn;
    let next = client.answered(asked).await.unwrap();
    assert_eq!(next.cell(), "1");
    assert!(
        next.summary.worker.starts_with("writer"),
        "{:?}",
        next.summary
    );
    // What the client has just written, it reads.
    for number in 0..20 {
        let written = client.ok(&format!("INSERT INTO t VALUES ({number})")).await;
        let mut asked = request("SELECT count(*) FROM t");
        asked.min_lsn = written.answer.lsn;
        let read = client.answered(asked).await.unwrap();
        assert_eq!(read.cell(), (1001 + number).to_string());
        assert!(read.answer.lsn >= written.answer.lsn);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_not_made() {
    let home = Home::new();
    let server = Server::start(&home, &["gateway"]);
    let client = server.client().await;
    let status = client.refused("SELECT 1").await;
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert_eq!(
        client
            .ok("SELECT count(*) FROM openduck_databases()")
            .await
            .cell(),
        "0"
    );
    client.ok("CALL openduck_create('mydb')").await;
    assert_eq!(client.ok("SELECT 1").await.cell(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_workers_end_and_come_back() {
    let home = Home::new();
    let server = Server::start(&home, &["gateway", "--idle", "1s"]);
    let client = server.client().await;
    client.ok("CALL openduck_create('mydb')").await;
    client.ok("CREATE TABLE t AS SELECT 42 AS a").await;
    assert_eq!(server.children().len(), 1);
    until("the worker ends", async || server.children().is_empty()).await;
    assert_eq!(client.ok("FROM t").await.cell(), "42");
}

#[test]
fn the_command_prints_rows_in_every_form() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    let query = |arguments: &[&str]| {
        let mut all = vec![
            "query",
            "--endpoint",
            &server.url,
            "-t",
            TOKEN,
            "-d",
            "mydb",
        ];
        all.extend(arguments);
        home.run(&all)
    };
    query(&["CREATE TABLE t AS SELECT 1 AS a, 'x,y' AS b, 3.50::DECIMAL(9, 2) AS c, NULL AS d"]);
    assert_eq!(query(&["FROM t"]), "a,b,c,d\n1,\"x,y\",3.50,\n");
    let table = query(&["FROM t", "--format", "table"]);
    assert_eq!(
        table,
        "a  b    c     d\n─  ───  ────  ────\n1  x,y  3.50  NULL\n"
    );
    let json: serde_json::Value = serde_json::from_str(&query(&["FROM t", "-f", "json"])).unwrap();
    assert_eq!(json["c"], 3.5);
    let file = home.path().join("t.parquet");
    query(&["FROM t", "-f", "parquet", "-o", file.to_str().unwrap()]);
    assert_eq!(&std::fs::read(&file).unwrap()[..4], b"PAR1");
    let file = home.path().join("t.arrow");
    query(&["FROM t", "-f", "arrow", "-o", file.to_str().unwrap()]);
    let stream = arrow_ipc::reader::StreamReader::try_new(std::fs::File::open(file).unwrap(), None);
    let rows: usize = stream.unwrap().map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 1);
    let failed = home.output(&[
        "query",
        "--endpoint",
        &server.url,
        "-t",
        TOKEN,
        "-d",
        "mydb",
        "FROM nowhere",
    ]);
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(
        said.contains("nowhere") && said.trim_end().lines().count() == 1,
        "{said}"
    );
}

#[test]
fn on_its_own_host_the_command_needs_no_token() {
    let home = Home::new();
    let mut command = home.command(&["serve", "-d", "mydb", "--listen", "127.0.0.1:0"]);
    let server = Server::of({
        command.env_remove("OPENDUCK_TOKEN");
        command
    });
    let arguments = [
        "query",
        "SELECT 42 AS a",
        "-d",
        "mydb",
        "--endpoint",
        &server.url,
    ];
    assert_eq!(home.run(&arguments), "a\n42\n");
    let stranger = Home::new();
    let refused = stranger.output(&arguments);
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("token"), "{said}");
}
