//! A transaction on a connection, in few round trips.
//!
//! Nothing is sent before something has to be known: the beginning travels with the first queries,
//! what changes rows with the next queries or with the commit, and whatever travels together is
//! answered together. So a call that reads once and then writes costs two round trips.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::FutureExt;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row as ServerRow};

use super::PostgresCatalog;
use super::location::Location;
use crate::catalog::sql::fault::{Fault, Outcome};
use crate::catalog::sql::tx::{Query, Scope, Turn, Tx};
use crate::catalog::sql::value::{Row, Value};
use crate::id::Timestamp;

/// How long the server works on one statement, waiting for locks included.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long we wait for its answer: a server that is stopped does not watch its own clock.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);
/// How long the server waits for us in a transaction, with the store locked.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The first half of the locks' keys ("ODlc"), so that other programs' locks are not met.
const LOCK_CLASS: i32 = 0x4f44_6c63;

const CLOCK: &str =
    "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint) AS microseconds";

/// A transaction that may not have been begun yet.
pub(super) struct PostgresTx<'a> {
    catalog: &'a PostgresCatalog,
    client: &'a Object,
    turn: Turn,
    begun: Cell<bool>,
    now: Cell<Option<Timestamp>>,
    /// What is to be sent before anything else.
    pending: RefCell<Vec<Step>>,
    announced: Cell<bool>,
    broken: Cell<bool>,
}

/// What is sent in one piece.
enum Step {
    /// Statements without parameters and answers.
    Script(String),
    /// One statement.
    Query(Query),
}

impl<'a> PostgresTx<'a> {
    pub(super) fn new(
        catalog: &'a PostgresCatalog,
        client: &'a Object,
        turn: Turn,
    ) -> PostgresTx<'a> {
        PostgresTx {
            catalog,
            client,
            turn,
            begun: Cell::new(false),
            now: Cell::new(None),
            pending: RefCell::new(Vec::new()),
            announced: Cell::new(false),
            broken: Cell::new(false),
        }
    }

    /// Statements to be carried out before the next query, or in the commit.
    pub(super) fn script(&self, sql: &str) {
        self.pending.borrow_mut().push(Step::Script(sql.to_owned()));
    }

    /// The store's schema.
    pub(super) fn schema(&self) -> &str {
        &self.catalog.location.schema
    }

    /// Whether the connection can't be used any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Commits what was done.
    pub(super) fn commit(&self) -> Outcome<()> {
        if self.turn == Turn::Read {
            self.end("COMMIT");
            return Ok(());
        }
        if self.announced.get() {
            let channel = Value::Text(self.catalog.location.channel());
            self.pending.borrow_mut().push(Step::Query(Query {
                sql: "SELECT pg_notify(?1, '')".into(),
                params: vec![channel],
            }));
        }
        if !self.begun.get() && self.pending.borrow().is_empty() {
            return Ok(());
        }
        if self.client.is_closed() {
            self.broken.set(true);
            return Err(Fault::Lost("the connection was closed".to_owned()));
        }
        self.script("COMMIT");
        self.send(&[]).map(drop).map_err(|fault| match fault {
            Fault::Lost(reason) => Fault::Unusable(format!(
                "it is not known whether the last change was made: {reason}"
            )),
            other => other,
        })
    }

    /// Undoes what was done.
    pub(super) fn roll_back(&self) {
        self.end("ROLLBACK");
    }

    /// Ends the transaction without waiting for the answer: whoever uses the connection next is
    /// answered behind it.
    fn end(&self, how: &str) {
        if self.begun.get() && !self.broken.get() {
            let sent = self.client.batch_execute(how).now_or_never();
            self.broken.set(matches!(sent, Some(Err(_))));
        }
    }

    /// Sends what is pending, and the queries, and returns the answers to these.
    fn send(&self, queries: &[Query]) -> Outcome<Vec<Vec<Row>>> {
        let mut steps = Vec::new();
        let clock_at = if self.begun.replace(true) {
            None
        } else {
            steps.push(Step::Script(beginning(self.turn, &self.catalog.location)));
            steps.push(Step::Query(Query {
                sql: CLOCK.into(),
                params: Vec::new(),
            }));
            Some(1)
        };
        steps.append(&mut self.pending.borrow_mut());
        let queries_at = steps.len();
        steps.extend(queries.iter().cloned().map(Step::Query));
        let sent = steps
            .into_iter()
            .map(|step| Box::pin(carry_out(self.client, step)))
            .collect();
        let answered = async { tokio::time::timeout(ANSWER_TIMEOUT, in_order(sent)).await };
        let Ok(answers) = self.catalog.runtime.wait_for(answered) else {
            self.broken.set(true);
            return Err(Fault::Unusable(format!(
                "it did not answer within {} s",
                ANSWER_TIMEOUT.as_secs()
            )));
        };
        // The first that failed is the reason why the others did.
        let mut found = Vec::new();
        for answer in answers {
            let rows = answer.map_err(|error| {
                self.broken
                    .set(self.broken.get() || self.client.is_closed());
                Fault::from(error)
            })?;
            found.push(rows);
        }
        if let Some(position) = clock_at {
            self.now.set(Some(self.time(&found[position])?));
        }
        found[queries_at..]
            .iter()
            .map(|rows| convert(rows))
            .collect()
    }

    fn time(&self, rows: &[ServerRow]) -> Outcome<Timestamp> {
        if let Some(clock) = &self.catalog.clock {
            return Ok(clock());
        }
        let rows = convert(rows)?;
        let row = rows
            .first()
            .ok_or_else(|| Fault::Damaged("the server has no clock".to_owned()))?;
        let microseconds: i64 = row.get("microseconds")?;
        Ok(Timestamp(microseconds.saturating_mul(1000)))
    }
}

impl Tx for PostgresTx<'_> {
    fn now(&self) -> Outcome<Timestamp> {
        if self.now.get().is_none() {
            self.send(&[])?;
        }
        self.now
            .get()
            .ok_or_else(|| Fault::Damaged("the server has no clock".to_owned()))
    }

    fn query_all(&self, queries: &[Query]) -> Outcome<Vec<Vec<Row>>> {
        if queries.is_empty() {
            return Ok(Vec::new());
        }
        self.send(queries)
    }

    fn execute(&self, sql: &'static str, params: &[Value]) -> Outcome<()> {
        self.pending.borrow_mut().push(Step::Query(Query {
            sql: sql.into(),
            params: params.to_vec(),
        }));
        Ok(())
    }

    fn announce(&self) -> Outcome<()> {
        self.announced.set(true);
        Ok(())
    }
}

/// What begins a transaction, and takes its locks.
fn beginning(turn: Turn, location: &Location) -> String {
    let schema = &location.schema;
    let key = crc32c::crc32c(schema.as_bytes()).cast_signed();
    let (isolation, lock) = match turn {
        Turn::Read => ("REPEATABLE READ READ ONLY", String::new()),
        Turn::Write(Scope::All, _) => (
            "READ COMMITTED",
            format!("SELECT pg_advisory_xact_lock({LOCK_CLASS}, {key});"),
        ),
        Turn::Write(Scope::Pins, _) => (
            "READ COMMITTED",
            format!("SELECT pg_advisory_xact_lock_shared({LOCK_CLASS}, {key});"),
        ),
        Turn::Write(Scope::Database(id), _) => (
            "READ COMMITTED",
            format!(
                "SELECT pg_advisory_xact_lock_shared({LOCK_CLASS}, {key});
                 SELECT id FROM databases WHERE id = {} FOR UPDATE;",
                id.0.cast_signed()
            ),
        ),
    };
    format!(
        "BEGIN ISOLATION LEVEL {isolation};
         SET LOCAL search_path = \"{schema}\";
         SET LOCAL statement_timeout = {};
         SET LOCAL idle_in_transaction_session_timeout = {};
         {lock}",
        STATEMENT_TIMEOUT.as_millis(),
        IDLE_TIMEOUT.as_millis(),
    )
}

async fn carry_out(client: &Object, step: Step) -> Result<Vec<ServerRow>, Error> {
    match step {
        Step::Script(sql) => client.batch_execute(&sql).await.map(|()| Vec::new()),
        Step::Query(query) => {
            let params: Vec<_> = query.params.iter().map(param).collect();
            // The calls' placeholders are SQLite's.
            let sql = query.sql.replace('?', "$");
            client.query_typed(&sql, &params).await
        }
    }
}

/// The outputs of futures that each send something when they are first polled, and are answered
/// one after the other.
async fn in_order<F: Future>(mut futures: Vec<Pin<Box<F>>>) -> Vec<F::Output> {
    let mut done = Vec::with_capacity(futures.len());
    let mut ready: Vec<Option<F::Output>> = Vec::new();
    let mut is_sent = false;
    poll_fn(|context| {
        if !is_sent {
            is_sent = true;
            for future in &mut futures {
                ready.push(match future.as_mut().poll(context) {
                    Poll::Ready(output) => Some(output),
                    Poll::Pending => None,
                });
            }
        }
        for (future, ready) in futures.iter_mut().zip(&mut ready).skip(done.len()) {
            match ready.take() {
                Some(output) => done.push(output),
                None => match future.as_mut().poll(context) {
                    Poll::Ready(output) => done.push(output),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
        Poll::Ready(())
    })
    .await;
    done
}

fn convert(rows: &[ServerRow]) -> Outcome<Vec<Row>> {
    let Some(first) = rows.first() else {
        return Ok(Vec::new());
    };
    let columns: Arc<[String]> = first
        .columns()
        .iter()
        .map(|column| column.name().to_owned())
        .collect();
    rows.iter()
        .map(|row| {
            let values: Vec<Value> = (0..columns.len())
                .map(|position| value(row, position))
                .collect::<Outcome<_>>()?;
            Ok(Row::new(Arc::clone(&columns), values))
        })
        .collect()
}

fn value(row: &ServerRow, at: usize) -> Outcome<Value> {
    let column = &row.columns()[at];
    let read = || -> Result<Option<Value>, Error> {
        Ok(match *column.type_() {
            Type::INT8 => row.try_get::<_, Option<i64>>(at)?.map(Value::Integer),
            Type::INT4 => {
                let value = row.try_get::<_, Option<i32>>(at)?;
                value.map(|value| Value::Integer(value.into()))
            }
            Type::BOOL => {
                let value = row.try_get::<_, Option<bool>>(at)?;
                value.map(|value| Value::Integer(value.into()))
            }
            Type::TEXT => row.try_get::<_, Option<String>>(at)?.map(Value::Text),
            Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(at)?.map(Value::Bytes),
            // Of a function that returns nothing.
            _ => None,
        })
    };
    read()
        .map(|value| value.unwrap_or(Value::Null))
        .map_err(|error| {
            Fault::Damaged(format!("column {:?} can't be read: {error}", column.name()))
        })
}

/// What is sent for a parameter, and as what.
fn param(value: &Value) -> (&(dyn ToSql + Sync), Type) {
    match value {
        // The server takes it for what stands in its place.
        Value::Null => (&None::<&str>, Type::UNKNOWN),
        Value::Integer(value) => (value, Type::INT8),
        Value::Text(text) => (text, Type::TEXT),
        Value::Bytes(bytes) => (bytes, Type::BYTEA),
    }
}
