//! SQL from clients can't reach the host, and never sees where the database lies.

#![allow(clippy::unwrap_used, reason = "a call that fails is a test that fails")]

mod common;

use common::*;
use exec::wire::status::detail;
use proto::v1::Reason;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_out_of_reach() {
    let host = Host::new().await;
    let client = host.client().await;
    client.sql("CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
    let database = host.directory.path().join("ducks.duckdb");
    let database = database.to_str().unwrap();
    let before = std::fs::read(database).unwrap();
    let refused = [
        format!("COPY t TO '{database}'"),
        format!("COPY t FROM '{database}'"),
        format!("FROM read_blob('{database}')"),
        format!("FROM read_text('{database}.wal')"),
        format!("ATTACH '{database}' AS again"),
        "COPY t TO '/tmp/openduck-escaped.csv'".to_owned(),
        "FROM read_csv('/etc/passwd')".to_owned(),
        "FROM glob('/*')".to_owned(),
        "SELECT getenv('HOME')".to_owned(),
        "WITH x AS (FROM read_blob('/etc/passwd')) SELECT 1 FROM t WHERE EXISTS (FROM x)"
            .to_owned(),
        "CREATE VIEW v AS FROM read_text('/etc/passwd')".to_owned(),
        "CREATE MACRO m() AS TABLE FROM read_text('/etc/passwd')".to_owned(),
        "EXPLAIN ANALYZE COPY t TO '/tmp/openduck-escaped.csv'".to_owned(),
        "ATTACH ':memory:' AS other".to_owned(),
        "DETACH ducks".to_owned(),
        "INSTALL httpfs".to_owned(),
        "LOAD '/tmp/x.duckdb_extension'".to_owned(),
        "EXPORT DATABASE '/tmp/openduck-escaped'".to_owned(),
        "IMPORT DATABASE '/tmp/openduck-escaped'".to_owned(),
        "CREATE SECRET s (TYPE s3, KEY_ID 'x')".to_owned(),
        "SET GLOBAL memory_limit = '100GB'".to_owned(),
        "SET memory_limit = '100GB'".to_owned(),
        "SET temp_directory = '/tmp'".to_owned(),
        "PRAGMA enable_profiling".to_owned(),
        "SET profiling_output = '/tmp/openduck-escaped'".to_owned(),
        "FORCE CHECKPOINT".to_owned(),
    ];
    for sql in refused {
        let error = client.sql(&sql).await.expect_err(&sql);
        assert_eq!(error.code(), Code::PermissionDenied, "{sql}: {error:?}");
        let reason = detail(&error).expect(&sql).reason();
        assert_eq!(reason, Reason::NotAdmitted, "{sql}");
    }
    // A file's name is the name of a table here, and of none that there is.
    let error = client.sql("FROM '/etc/passwd'").await.unwrap_err();
    assert_eq!(detail(&error).unwrap().exception_type, "Catalog");
    assert_eq!(std::fs::read(database).unwrap(), before);
    assert!(!std::path::Path::new("/tmp/openduck-escaped.csv").exists());
    assert_eq!(client.sql("FROM t").await.unwrap().value(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_shows_where_the_database_lies() {
    let host = Host::new().await;
    let client = host.client().await;
    let hidden = host.directory.path().to_str().unwrap();
    let asked = [
        "FROM duckdb_databases()",
        "PRAGMA database_list",
        "FROM pragma_database_list()",
        "SHOW DATABASES",
        "SHOW ALL TABLES",
        "FROM duckdb_settings()",
        "SELECT current_setting('temp_directory')",
        "FROM duckdb_temporary_files()",
        "FROM duckdb_logs()",
        "FROM pragma_storage_info('t')",
        "CALL pragma_database_size()",
        "FROM duckdb_extensions()",
        "FROM duckdb_views()",
        "SELECT current_database(), current_catalog()",
        "FROM nowhere",
        "DESCRIBE duckdb_databases",
        "FROM duckdb_databases",
        "FROM pg_catalog.pg_database",
        "FROM information_schema.schemata",
    ];
    client.sql("CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
    for sql in asked {
        let shown = match client.sql(sql).await {
            Ok(outcome) => format!("{:?}", outcome.table()),
            Err(error) => format!("{error:?}"),
        };
        assert!(!shown.contains(hidden), "{sql}: {shown}");
        assert!(!shown.contains("scratch"), "{sql}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_and_the_worker_goes_on() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let host = Host::new().await;
    let client = host.client().await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\xff\x01\x05\0\0\0\x01garbage",
    ] {
        let mut socket = tokio::net::TcpStream::connect(host.address).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        let _ = tokio::time::timeout(std::time::Duration::from_millis(100), socket.read_u8()).await;
    }
    let mut request = query("SELECT $1");
    request.parameters = vec![0xff; 100].into();
    assert_eq!(
        client.run(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let huge = query("-".repeat(17 << 20));
    assert_eq!(
        client.run(huge).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    assert_eq!(client.sql("SELECT 1").await.unwrap().value(), "1");
}
