//! Who may do what.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tonic::Code;

use super::server::*;

fn make_token(home: &Home, arguments: &[&str]) -> (String, String) {
    let mut all = vec!["token", "create", "--json"];
    all.extend(arguments);
    let made: serde_json::Value = serde_json::from_str(&home.run(&all)).unwrap();
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    (text("id"), text("token"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_its_databases_and_no_others() {
    let home = Home::new();
    let server = Server::start(&home, &["gateway"]);
    let operator = server.client().await;
    operator.ok("CALL openduck_create('mydb')").await;
    operator.ok("CALL openduck_create('other')").await;
    let (_, text) = make_token(&home, &["--database", "mydb"]);
    let client = server.client_with(&text).await;
    client.ok("CREATE TABLE t AS SELECT 1 AS a").await;
    let mut elsewhere = request("SELECT 1");
    for database in ["other", "not-even-there"] {
        elsewhere.database = database.to_owned();
        let status = client.execute(elsewhere.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
    let shown = client.ok("SELECT name FROM openduck_databases()").await;
    assert_eq!(shown.cell(), "mydb");
    for not_his in [
        "CALL openduck_snapshot('other')",
        "CALL openduck_clone('other', 'mydb')",
        "CALL openduck_clone('mydb', 'other')",
        "CALL openduck_restore('other', 'latest')",
        "CALL openduck_create('third')",
    ] {
        let status = client.refused(not_his).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{not_his}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_token_changes_nothing() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    server
        .client()
        .await
        .ok("CREATE TABLE t AS SELECT 1 AS a")
        .await;
    let (_, text) = make_token(&home, &["--read-only"]);
    let client = server.client_with(&text).await;
    assert_eq!(client.ok("FROM t").await.cell(), "1");
    for change in [
        "INSERT INTO t VALUES (2)",
        "CREATE TABLE u (a INT)",
        "DROP TABLE t",
        "WITH x AS (DELETE FROM t RETURNING a) FROM x",
        "CALL openduck_snapshot('mydb')",
        "CALL openduck_restore('mydb', 'latest')",
        "CALL openduck_clone('mydb', 'mine')",
    ] {
        let status = client.refused(change).await;
        let is_refused = matches!(
            status.code(),
            Code::PermissionDenied | Code::InvalidArgument
        );
        assert!(is_refused, "{change}: {status}");
    }
    assert_eq!(client.ok("FROM t").await.cell(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_revoked_or_has_expired_is_refused() {
    let home = Home::new();
    let server = Server::serve(&home, &[]);
    server.client().await.ok("SELECT 1").await;
    let (_, expires) = make_token(&home, &["--expires", "2s"]);
    let (id, text) = make_token(&home, &[]);
    let client = server.client_with(&text).await;
    client.ok("SELECT 1").await;
    server.client_with(&expires).await.ok("SELECT 1").await;
    home.run(&["token", "revoke", &id]);
    let begin = Instant::now();
    for text in [&text, &expires] {
        let client = server.client_with(text).await;
        until("the token is refused", async || {
            client.sql("SELECT 1").await.is_err()
        })
        .await;
        assert!(begin.elapsed() < Duration::from_secs(5));
        assert_eq!(
            client.refused("SELECT 1").await.code(),
            Code::Unauthenticated
        );
    }
    let listed = home.run(&["token", "list"]);
    assert!(
        listed.contains("revoked") && listed.contains("expired"),
        "{listed}"
    );
    assert!(
        !listed.contains(&text) && !listed.contains("od_"),
        "{listed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_anywhere_to_be_seen() {
    let home = Home::new();
    let log = std::fs::File::create(home.path().join("log")).unwrap();
    let mut command = home.command(&["serve", "-d", "mydb", "--listen", "127.0.0.1:0"]);
    command
        .args(["--token", TOKEN])
        .env("OPENDUCK_LOG", "trace,h2=info")
        .stderr(log);
    let server = Server::of(command);
    let client = server.client().await;
    client.ok("SELECT 1").await;
    server
        .client_with("a-wrong-token-of-somebody")
        .await
        .refused("SELECT 1")
        .await;
    let mut all = vec![server.pid()];
    all.extend(server.children());
    for pid in all {
        for file in ["cmdline", "environ"] {
            let shown = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
            let shown = String::from_utf8_lossy(&shown).into_owned();
            assert!(!shown.contains(TOKEN), "{file} of {pid}");
        }
    }
    signal(server.pid(), Signal::TERM);
    assert!(server.end().success());
    let log = std::fs::read_to_string(home.path().join("log")).unwrap();
    assert!(log.len() > 1000, "{log}");
    assert!(
        !log.contains(TOKEN) && !log.contains("a-wrong-token"),
        "{log}"
    );
}

#[test]
fn a_server_beyond_this_host_wants_tls_or_a_loud_word() {
    let home = Home::new();
    let refused = home.output(&["serve", "-d", "mydb", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("--insecure") && said.contains("--tls-cert"),
        "{said}"
    );
    let mut command = home.command(&["gateway", "--listen", "0.0.0.0:0", "--insecure"]);
    Server::of({
        command.env("OPENDUCK_TOKEN", TOKEN);
        command
    });
}
