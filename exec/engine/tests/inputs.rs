//! Rows that travel up: relations fed by a source, which waits without keeping a thread of DuckDB's.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use arrow_array::RecordBatch;
use common::{config, connect, drain, error, number, numbers, numbers_schema, open, run};
use engine::{RowSource, Start};

/// Batches that somebody sends, one by one.
struct Sent {
    rows: Receiver<Result<RecordBatch, String>>,
    waker: Arc<Mutex<Option<Waker>>>,
}

struct Feed {
    rows: Option<Sender<Result<RecordBatch, String>>>,
    waker: Arc<Mutex<Option<Waker>>>,
}

fn feed() -> (Feed, Box<Sent>) {
    let (sender, rows) = channel();
    let waker = Arc::new(Mutex::new(None));
    let feed = Feed {
        rows: Some(sender),
        waker: waker.clone(),
    };
    (feed, Box::new(Sent { rows, waker }))
}

impl Feed {
    fn send(&self, rows: Result<RecordBatch, String>) {
        if let Some(sender) = &self.rows {
            // Nobody listens once the statement has ended.
            let _ = sender.send(rows);
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.lock().expect("no panic").take() {
            waker.wake();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.rows = None;
        self.wake();
    }
}

impl RowSource for Sent {
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<RecordBatch>, String>> {
        // The waker first, so that what is sent behind the look is not missed.
        *self.waker.lock().expect("no panic") = Some(context.waker().clone());
        match self.rows.try_recv() {
            Ok(rows) => Poll::Ready(rows.map(Some)),
            Err(std::sync::mpsc::TryRecvError::Empty) => Poll::Pending,
            Err(std::sync::mpsc::TryRecvError::Disconnected) => Poll::Ready(Ok(None)),
        }
    }
}

#[test]
fn rows_arrive_as_they_are_sent() {
    let mut connection = connect();
    let (feed, source) = feed();
    let guard = connection
        .register_input("up", numbers_schema(), source)
        .expect("registers");
    let sender = thread::spawn(move || {
        for start in 0..50 {
            thread::sleep(Duration::from_millis(2));
            feed.send(Ok(numbers(start * 5000..(start + 1) * 5000)));
        }
    });
    run(&mut connection, &["CREATE TABLE t AS FROM up"]);
    sender.join().expect("no panic");
    assert_eq!(
        number(&mut connection, "SELECT count(DISTINCT i) FROM t"),
        250_000
    );
    assert_eq!(
        number(&mut connection, "SELECT sum(i)::BIGINT FROM t"),
        249_999 * 125_000
    );
    // And in their order.
    assert_eq!(
        number(&mut connection, "SELECT count(*) FROM t WHERE i <> rowid"),
        0
    );
    drop(guard);
    assert_eq!(error(&mut connection, "FROM up").kind, "Catalog");
}

#[test]
fn a_waiting_input_keeps_no_thread_busy() {
    // Two threads: one of DuckDB's own, and one that waits for the result.
    let instance = open(&config());
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut connection = instance.connect().expect("connects");
        let (feed, source) = feed();
        waiting.push((
            feed,
            thread::spawn(move || {
                let guard = connection
                    .register_input("up", numbers_schema(), source)
                    .expect("registers");
                let sum = number(&mut connection, "SELECT sum(i)::BIGINT FROM up");
                drop(guard);
                sum
            }),
        ));
    }
    thread::sleep(Duration::from_millis(100));
    let mut connection = instance.connect().expect("connects");
    assert_eq!(
        number(&mut connection, "SELECT count(*) FROM range(3000000)"),
        3_000_000
    );
    for (feed, query) in waiting {
        feed.send(Ok(numbers(0..10)));
        drop(feed);
        assert_eq!(query.join().expect("no panic"), 45);
    }
}

#[test]
fn one_input_serves_several_scans() {
    let mut connection = connect();
    let (feed, source) = feed();
    let guard = connection
        .register_input("up", numbers_schema(), source)
        .expect("registers");
    let sender = thread::spawn(move || {
        for start in 0..20 {
            feed.send(Ok(numbers(start * 3000..(start + 1) * 3000)));
            thread::sleep(Duration::from_millis(1));
        }
    });
    let sql =
        "SELECT count(*) FROM up a JOIN up b ON a.i = b.i WHERE a.i < (SELECT max(i) FROM up)";
    assert_eq!(number(&mut connection, sql), 59_999);
    sender.join().expect("no panic");
    drop(guard);
}

#[test]
fn only_the_columns_that_are_used_are_looked_at() {
    let mut connection = connect();
    let batch = connection
        .run("SELECT i, i::VARCHAR AS t, [i] AS l FROM range(5000) t(i)")
        .expect("runs");
    let schema = batch[0].schema();
    for (sql, expected) in [
        ("SELECT count(*) FROM up", 5000),
        ("SELECT sum(length(t))::BIGINT FROM up", 18_890),
        ("SELECT sum(l[1] + i)::BIGINT FROM up", 24_995_000),
        ("SELECT count(*) FROM up WHERE t = '7'", 1),
        ("SELECT count(*) FROM up a, up b WHERE a.t = b.t", 5000),
    ] {
        let guard = connection
            .register_input("up", schema.clone(), Box::new(batch.clone().into_iter()))
            .expect("registers");
        assert_eq!(number(&mut connection, sql), expected, "{sql}");
        drop(guard);
    }
}

#[test]
fn a_second_statement_gets_an_error_and_no_rows() {
    let mut connection = connect();
    let _guard = connection
        .register_input(
            "up",
            numbers_schema(),
            Box::new(vec![numbers(0..10)].into_iter()),
        )
        .expect("registers");
    assert_eq!(number(&mut connection, "SELECT count(*) FROM up"), 10);
    assert!(
        error(&mut connection, "SELECT count(*) FROM up")
            .message
            .contains("travel once")
    );
}

#[test]
fn a_sources_error_is_the_statements() {
    let mut connection = connect();
    let (feed, source) = feed();
    let _guard = connection
        .register_input("up", numbers_schema(), source)
        .expect("registers");
    feed.send(Ok(numbers(0..10)));
    feed.send(Err("the client went away".to_owned()));
    run(&mut connection, &["CREATE TABLE t (i BIGINT)"]);
    let error = error(&mut connection, "INSERT INTO t FROM up");
    assert!(error.message.contains("the client went away"), "{error:?}");
    assert_eq!(number(&mut connection, "SELECT count(*) FROM t"), 0);
}

struct Panics;

impl RowSource for Panics {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<RecordBatch>, String>> {
        panic!("a bug in a source")
    }
}

#[test]
fn a_sources_panic_stays_on_this_side() {
    let mut connection = connect();
    let _guard = connection
        .register_input("up", numbers_schema(), Box::new(Panics))
        .expect("registers");
    assert!(
        error(&mut connection, "FROM up")
            .message
            .contains("source of an input failed")
    );
    assert_eq!(number(&mut connection, "SELECT 1::BIGINT"), 1);
}

#[test]
fn a_waiting_statement_can_be_interrupted() {
    let mut connection = connect();
    let (feed, source) = feed();
    let _guard = connection
        .register_input("up", numbers_schema(), source)
        .expect("registers");
    let watch = connection.watch();
    let interrupter = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        watch.interrupt();
    });
    assert_eq!(
        error(&mut connection, "SELECT count(*) FROM up").kind,
        "INTERRUPT"
    );
    interrupter.join().expect("no panic");
    feed.send(Ok(numbers(0..10)));
    drop(feed);
    assert_eq!(number(&mut connection, "SELECT 1::BIGINT"), 1);
}

#[test]
fn an_input_may_be_used_beneath_anything() {
    let mut connection = connect();
    run(
        &mut connection,
        &["CREATE TABLE t AS SELECT range AS i FROM range(100)"],
    );
    for sql in [
        "WITH c AS MATERIALIZED (FROM up) SELECT count(*) FROM c a, c b WHERE a.i = b.i",
        "SELECT count(*) FROM t WHERE i IN (FROM up)",
        "SELECT count(*) FROM t SEMI JOIN up USING (i)",
        "SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY i DESC) FROM up)",
        "SELECT (SELECT count(*) FROM up)",
        "SELECT count(*) FROM (FROM up UNION ALL FROM up) WHERE i >= 5",
    ] {
        let batches = vec![numbers(0..5), numbers(5..10)];
        let guard = connection
            .register_input("up", numbers_schema(), Box::new(batches.into_iter()))
            .expect("registers");
        assert_eq!(number(&mut connection, sql), 10, "{sql}");
        drop(guard);
    }
}

#[test]
fn the_name_of_a_table_is_taken() {
    let mut connection = connect();
    run(&mut connection, &["CREATE TABLE up (i BIGINT)"]);
    let taken = connection.register_input("UP", numbers_schema(), Box::new(Vec::new().into_iter()));
    assert_eq!(taken.expect_err("taken").kind, "Binder");
    assert_eq!(
        error(&mut connection, "FROM openduck_input()").kind,
        "Binder"
    );
}

#[test]
fn an_abandoned_statement_lets_its_source_go() {
    let mut connection = connect();
    let (feed, source) = feed();
    let guard = connection
        .register_input("up", numbers_schema(), source)
        .expect("registers");
    feed.send(Ok(numbers(0..10)));
    let running = connection
        .start("FROM up", None, Start::default())
        .expect("starts");
    drop(running);
    drop(guard);
    feed.send(Ok(numbers(0..10)));
    let again = connection
        .register_input(
            "up",
            numbers_schema(),
            Box::new(vec![numbers(0..3)].into_iter()),
        )
        .expect("the name is free");
    let rows = drain(
        connection
            .start("FROM up", None, Start::default())
            .expect("starts"),
    )
    .expect("runs");
    assert_eq!(rows[0].num_rows(), 3);
    drop(again);
}
