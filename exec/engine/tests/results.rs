//! Statements run, and their results come out whole, in order, and bounded.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use common::{config, connect, drain, error, file, number, open, run, texts};
use engine::{Access, Flow, ResultKind, Start, StatementKind};

#[test]
fn kinds_of_results_are_told() {
    let mut connection = connect();
    let mut kind = |sql: &str| {
        let running = connection.start(sql, None, Start::default()).expect(sql);
        let kind = (running.statement, running.kind, running.columns.len());
        drain(running).expect(sql);
        kind
    };
    assert_eq!(
        kind("CREATE TABLE t (i INTEGER)"),
        (StatementKind::Create, ResultKind::Nothing, 0)
    );
    assert_eq!(
        kind("INSERT INTO t VALUES (1), (2)"),
        (StatementKind::Insert, ResultKind::ChangedRows, 1)
    );
    assert_eq!(
        kind("INSERT INTO t VALUES (3) RETURNING i"),
        (StatementKind::Insert, ResultKind::Rows, 1)
    );
    assert_eq!(kind("FROM t"), (StatementKind::Select, ResultKind::Rows, 1));
}

#[test]
fn the_state_of_an_aggregate_stays_in_the_database() {
    let mut connection = connect();
    for sql in [
        "SELECT sum(i) EXPORT_STATE AS s FROM range(3) r(i)",
        "SELECT [{'s': s}] FROM (SELECT sum(i) EXPORT_STATE AS s FROM range(3) r(i))",
    ] {
        assert_eq!(error(&mut connection, sql).kind, "Not implemented", "{sql}");
    }
    run(&mut connection, &["SELECT 42"]);
}

#[test]
fn changed_rows_are_counted() {
    let mut connection = connect();
    let sql = "CREATE TABLE t AS FROM range(1000)";
    let mut running = connection.start(sql, None, Start::default()).expect(sql);
    while running.next().expect("runs").is_some() {}
    assert_eq!(running.changed_rows(), Some(1000));
}

#[test]
fn a_result_keeps_its_order_over_many_batches() {
    let mut connection = connect();
    connection.set_flow(Flow {
        batch_bytes: 32 << 10,
        ..Flow::default()
    });
    run(
        &mut connection,
        &["CREATE TABLE t AS SELECT range AS i FROM range(1000000)"],
    );
    let batches = connection.run("FROM t").expect("runs");
    assert!(batches.len() > 100, "{} batches", batches.len());
    let column = |batch: &RecordBatch| {
        batch
            .column(0)
            .as_primitive::<Int64Type>()
            .values()
            .to_vec()
    };
    let values: Vec<i64> = batches.iter().flat_map(column).collect();
    assert!(values.into_iter().eq(0..1_000_000));
}

#[test]
fn long_rows_make_short_batches() {
    let mut connection = connect();
    connection.set_flow(Flow {
        batch_bytes: 1 << 20,
        ..Flow::default()
    });
    let sql = "SELECT repeat('x', 300000) AS x FROM range(200)";
    for batch in connection.run(sql).expect("runs") {
        assert!(
            batch.num_rows() <= 8,
            "{} rows in a batch",
            batch.num_rows()
        );
    }
}

#[test]
fn nobody_takes_and_nothing_is_collected() {
    let mut connection = connect();
    // 160 GB, of which no more than the buffer and a batch per thread exist at any time.
    let sql = "SELECT i, repeat('x', 1000) AS x FROM range(160000000) t(i)";
    let mut running = connection
        .start(sql, None, Start::default())
        .expect("starts");
    let first = running.next().expect("runs").expect("has rows");
    assert!(first.num_rows() > 0);
    std::thread::sleep(Duration::from_millis(300));
    drop(running);
    assert_eq!(number(&mut connection, "SELECT 42::BIGINT"), 42);
}

#[test]
fn every_type_arrives_and_returns() {
    let mut connection = connect();
    let prepared = connection
        .prepare("FROM test_all_types()")
        .expect("prepares");
    let columns = prepared.columns.clone().expect("known");
    let schema = prepared.schema.clone().expect("known");
    let batches = drain(connection.execute(&prepared, None).expect("runs")).expect("runs");
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    for (index, column) in columns.iter().enumerate() {
        let field = Arc::new(schema.fields()[index].as_ref().clone().with_name("c"));
        let schema = Arc::new(arrow_schema::Schema::new(vec![field]));
        let arrays: Vec<ArrayRef> = batches.iter().map(|b| b.column(index).clone()).collect();
        let up = |array| RecordBatch::try_new(schema.clone(), vec![array]).expect("one column");
        let rows: Vec<RecordBatch> = arrays.into_iter().map(up).collect();
        let guard = connection
            .register_input("up", schema.clone(), Box::new(rows.into_iter()))
            .unwrap_or_else(|error| panic!("{}: {error}", column.name));
        let sql = format!(
            "SELECT count(*) FROM (SELECT \"{0}\" AS a FROM test_all_types()) POSITIONAL JOIN \
             (SELECT c::{1} AS b FROM up) WHERE a IS DISTINCT FROM b",
            column.name, column.duckdb_type
        );
        assert_eq!(number(&mut connection, &sql), 0, "{}", column.name);
        drop(guard);
    }
}

#[test]
fn variants_arrive() {
    let mut connection = connect();
    let running = connection
        .start("SELECT {'a': [1, 2]}::VARIANT AS v", None, Start::default())
        .expect("starts");
    assert_eq!(running.columns[0].duckdb_type, "VARIANT");
    assert_eq!(drain(running).expect("runs")[0].num_rows(), 1);
}

#[test]
fn dictionaries_of_enums_are_the_same_in_every_batch() {
    let mut connection = connect();
    connection.set_flow(Flow {
        batch_rows: 2048,
        ..Flow::default()
    });
    let sql = "SELECT CASE WHEN i < 9000 THEN 'a' ELSE 'b' END::ENUM('a', 'b', 'c') AS e FROM range(20000) t(i)";
    let batches = connection.run(sql).expect("runs");
    assert!(batches.len() > 5);
    for batch in &batches {
        let dictionary = batch.column(0).as_any_dictionary().values().clone();
        assert_eq!(
            dictionary
                .as_string::<i32>()
                .iter()
                .flatten()
                .collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
    }
}

#[test]
fn parameters_are_one_row() {
    let mut connection = connect();
    let number: ArrayRef = Arc::new(Int32Array::from(vec![40]));
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("x")]));
    let positional = RecordBatch::try_from_iter_with_nullable([
        ("", number.clone(), true),
        ("", text.clone(), true),
    ])
    .expect("two columns");
    let sql = "SELECT concat($1 + 2, $2)";
    let prepared = connection.prepare(sql).expect("prepares");
    assert_eq!(prepared.properties.parameter_count, 2);
    let running = connection
        .execute(&prepared, Some(&positional))
        .expect("runs");
    assert_eq!(
        drain(running).expect("runs")[0]
            .column(0)
            .as_string::<i32>()
            .value(0),
        "42x"
    );

    let named = RecordBatch::try_from_iter([("b", text), ("a", number)]).expect("two columns");
    let running = connection
        .start("SELECT concat($a + 2, $b)", Some(&named), Start::default())
        .expect("runs");
    assert_eq!(
        drain(running).expect("runs")[0]
            .column(0)
            .as_string::<i32>()
            .value(0),
        "42x"
    );

    let lacking = connection.execute(&prepared, None).expect_err("they lack");
    assert_eq!(lacking.kind, "Invalid Input");
}

#[test]
fn errors_are_duckdbs_own() {
    let mut connection = connect();
    run(
        &mut connection,
        &[
            "CREATE TABLE t (i INTEGER PRIMARY KEY)",
            "INSERT INTO t VALUES (1)",
        ],
    );
    let mut check = |sql: &str, kind: &str, position: Option<u64>| {
        let error = error(&mut connection, sql);
        assert_eq!(
            (error.kind.as_str(), error.position),
            (kind, position),
            "{error:?}"
        );
        assert!(
            error.message.starts_with(&format!("{kind} Error: ")),
            "{}",
            error.message
        );
        assert_eq!(
            error.message.contains("LINE 1"),
            position.is_some(),
            "{}",
            error.message
        );
    };
    check("SELECT * FRM t", "Parser", Some(13));
    check("SELECT nope FROM t", "Binder", Some(7));
    check("FROM nowhere", "Catalog", Some(5));
    check("INSERT INTO t VALUES (1)", "Constraint", None);
    check("SELECT 'x'::INTEGER", "Conversion", Some(10));
    check("SELECT 1; SELECT 2", "Invalid Input", None);
    check("", "Invalid Input", None);
    check("COMMIT", "TransactionContext", None);
}

#[test]
fn an_interrupt_ends_a_statement_and_only_that() {
    let mut connection = connect();
    let watch = connection.watch();
    let sql =
        "SELECT count(*) FROM range(10000000000) a, range(1000) b WHERE a.range % 7 = b.range";
    let begun = Instant::now();
    let interrupter = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        watch.interrupt();
    });
    assert_eq!(error(&mut connection, sql).kind, "INTERRUPT");
    assert!(begun.elapsed() < Duration::from_secs(20));
    interrupter.join().expect("no panic");
    assert_eq!(number(&mut connection, "SELECT 42::BIGINT"), 42);
}

#[test]
fn progress_is_told() {
    let mut connection = connect();
    run(
        &mut connection,
        &["CREATE TABLE t AS SELECT range AS i FROM range(3000000)"],
    );
    let watch = connection.watch();
    let running = connection
        .start(
            "SELECT max(sin(cos(tan(i)))) FROM t",
            None,
            Start::default(),
        )
        .expect("starts");
    let watcher = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if watch
                .progress()
                .is_some_and(|progress| progress > 0.0 && progress <= 1.0)
            {
                return true;
            }
        }
        false
    });
    drain(running).expect("runs");
    assert!(watcher.join().expect("no panic"));
}

#[test]
fn dropping_a_result_rolls_back() {
    let mut connection = connect();
    run(&mut connection, &["CREATE TABLE t (i BIGINT)"]);
    let sql = "INSERT INTO t FROM range(500000) RETURNING i";
    let mut running = connection
        .start(sql, None, Start::default())
        .expect("starts");
    assert!(running.next().expect("runs").is_some());
    drop(running);
    assert_eq!(number(&mut connection, "SELECT count(*) FROM t"), 0);
}

#[test]
fn transactions_are_seen() {
    let mut connection = connect();
    assert!(!connection.in_transaction());
    run(&mut connection, &["BEGIN", "CREATE TABLE t (i BIGINT)"]);
    assert!(connection.in_transaction());
    run(&mut connection, &["ROLLBACK"]);
    assert!(!connection.in_transaction());
    assert_eq!(error(&mut connection, "FROM t").kind, "Catalog");
}

#[test]
fn a_writing_statement_is_refused_before_it_happens() {
    let mut connection = connect();
    run(
        &mut connection,
        &["CREATE TABLE t (i BIGINT)", "CREATE SEQUENCE s"],
    );
    let read_only = Start {
        read_only: true,
        ..Start::default()
    };
    for sql in [
        "INSERT INTO t VALUES (1)",
        "SELECT nextval('s')",
        "CREATE TABLE u (i BIGINT)",
        "WITH x AS (INSERT INTO t VALUES (2) RETURNING i) FROM x",
    ] {
        let error = connection.start(sql, None, read_only).expect_err(sql);
        assert!(error.needs_writer(), "{sql}: {error:?}");
    }
    for sql in ["FROM t", "EXPLAIN FROM t", "CREATE TEMP TABLE u (i BIGINT)"] {
        drain(connection.start(sql, None, read_only).expect(sql)).expect(sql);
    }
    assert_eq!(number(&mut connection, "SELECT count(*) FROM t"), 0);
}

#[test]
fn a_statement_that_expands_has_its_columns_when_it_runs() {
    let mut connection = connect();
    run(
        &mut connection,
        &["CREATE TABLE t AS SELECT 'a' AS k, 1 AS v UNION ALL SELECT 'b', 2"],
    );
    let prepared = connection
        .prepare("PIVOT t ON k USING sum(v)")
        .expect("prepares");
    assert!(prepared.columns.is_none());
    let running = connection.execute(&prepared, None).expect("runs");
    let names: Vec<&str> = running
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(drain(running).expect("runs")[0].num_rows(), 1);
}

#[test]
fn the_plan_is_told_where_it_was_asked_for() {
    let mut connection = connect();
    run(&mut connection, &["CREATE TABLE t AS FROM range(100)"]);
    let how = Start {
        operators: true,
        ..Start::default()
    };
    let running = connection
        .start("SELECT count(*) FROM t WHERE range > 5", None, how)
        .expect("starts");
    let names: Vec<&str> = running
        .operators
        .iter()
        .map(|op| op.name.as_str())
        .collect();
    assert!(
        names.iter().any(|name| name.contains("AGGREGATE")),
        "{names:?}"
    );
    assert!(names.iter().any(|name| name.contains("SCAN")), "{names:?}");
    assert_eq!(running.operators[0].depth, 0);
}

#[test]
fn a_session_has_settings_of_its_own() {
    let instance = open(&config());
    let (mut one, mut other) = (
        instance.connect().expect("connects"),
        instance.connect().expect("connects"),
    );
    one.set_session("TimeZone", "Asia/Tokyo").expect("sets");
    let zone = "SELECT current_setting('TimeZone')";
    assert_eq!(texts(&mut one, zone), ["Asia/Tokyo"]);
    assert_ne!(texts(&mut other, zone), ["Asia/Tokyo"]);
    one.reset_session("TimeZone").expect("resets");
    assert_ne!(texts(&mut one, zone), ["Asia/Tokyo"]);
    assert_eq!(
        one.set_session("no'such\"thing", "x")
            .expect_err("unknown")
            .kind,
        "Catalog"
    );
}

#[test]
fn memory_and_threads_change_under_way() {
    let instance = open(&config());
    let mut connection = instance.connect().expect("connects");
    instance.set_memory(512 << 20).expect("sets");
    instance.set_threads(1).expect("sets");
    assert_eq!(
        texts(&mut connection, "SELECT current_setting('memory_limit')"),
        ["512.0 MiB"]
    );
    assert_eq!(
        number(&mut connection, "SELECT count(*) FROM range(1000000)"),
        1_000_000
    );
    assert_eq!(
        instance.set_threads(0).expect_err("none").kind,
        "Invalid Input"
    );
}

#[test]
fn a_file_is_opened_read_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("d.duckdb");
    {
        let instance = open(&file(path.clone()));
        let mut connection = instance.connect().expect("connects");
        run(&mut connection, &["CREATE TABLE t AS FROM range(10)"]);
        instance.checkpoint().expect("checkpoints");
        assert!(!path.with_extension("duckdb.wal").exists());
    }
    let mut config = file(path);
    config.access = Access::ReadOnly;
    let mut connection = open(&config).connect().expect("connects");
    assert_eq!(number(&mut connection, "SELECT count(*) FROM t"), 10);
    assert_eq!(error(&mut connection, "DROP TABLE t").kind, "Invalid Input");
}

#[test]
fn what_postgres_calls_icu_is_linked_in() {
    let mut connection = connect();
    let sql =
        "SELECT (current_date + INTERVAL 1 DAY > now())::BIGINT + ('a' COLLATE de = 'a')::BIGINT";
    assert_eq!(number(&mut connection, sql), 2);
}
