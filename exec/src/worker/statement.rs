//! One statement on one connection: from its text to its last row. Blocks; runs on a thread that may.
//!
//! The order matters. The statement is judged as text, then bound, then judged by what the binder found;
//! only then is anything run. The answer is given once DuckDB has begun, before the first row, unless
//! there are no rows to wait for: then it is given behind the commit, with its LSN. Whatever happens,
//! the query ends with a result or an error, and the connection goes back to its session as it was.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use engine::admit::{self, Policy};
use engine::{
    Connection, Flow, InputGuard, ResultKind, Running, SettingScope, Start, StatementKind as Kind,
};
use proto::v1::{Operator, Reason, StatementKind, Summary};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::instances::Held;
use super::journal;
use super::lsn::Committing;
use super::output::{Stopped, Totals};
use super::query::{Answer, Query};
use super::session::Taken;
use super::shared::Shared;
use crate::wire::batch::{Encoder, Message, schema_message};
use crate::wire::body::ENVELOPE_BYTES_MAX;
use crate::wire::input::COLUMN_COUNT_MAX;
use crate::wire::status::{refused, status};

/// What DuckDB's threads may be ahead of the thread that takes their batches, which only waits for the
/// streams: enough to keep them busy while it is waken up. Each time that it is full they are descheduled,
/// and waking them spins: with a quarter of this, locking and unlocking was 6 % of a large scan's time.
const ENGINE_BUFFER_BYTES: u64 = 16 << 20;

/// A statement that is to run now.
#[derive(Debug)]
pub struct Statement {
    /// The worker.
    pub shared: Arc<Shared>,
    /// What the calls about it share.
    pub query: Arc<Query>,
    /// What it was asked for.
    pub text: Text,
    /// Its connection.
    pub taken: Taken,
    /// The instance that it runs on, where the connection has none yet.
    pub held: Arc<Held>,
    /// Its place among those that run.
    pub permit: OwnedSemaphorePermit,
}

/// A statement as the client gave it.
#[derive(Debug)]
pub struct Text {
    /// The SQL.
    pub sql: String,
    /// One row.
    pub parameters: Option<RecordBatch>,
    /// Settings for it alone.
    pub settings: Vec<(String, String)>,
    /// It may not change the database; and what to say if it would.
    pub read_only: Option<Status>,
    /// Where each operator runs is asked for.
    pub placement: bool,
    /// The largest message that its client takes, in bytes.
    pub message_bytes: usize,
    /// Its idempotency key; empty: none.
    pub key: String,
    /// The key was used before, and it is not known what came of it.
    pub is_key_old: bool,
}

impl Statement {
    /// Runs it to its end.
    pub fn run(mut self) {
        // Also where something below panics, somebody has to tell those who wait.
        let _end = End(Arc::clone(&self.query));
        let queued = self.query.begun.elapsed();
        let ended = self.execute(queued);
        self.query.set_running(None);
        match ended {
            Ok((answer, totals)) => {
                self.query.output.finish(totals);
                if let Some(answer) = answer {
                    if self.query.output.figures().0 == 0 {
                        self.shared.queries.is_rowless(&self.query);
                    }
                    self.query.answer(Ok(answer));
                }
            }
            Err(Stopped(status)) => {
                // Where it was cancelled, what it was cancelled with is told, not DuckDB's interrupt.
                let status = self.query.output.failure().unwrap_or(status);
                for input in &self.query.inputs {
                    input.fail(status.message());
                }
                self.query.output.fail(status.clone());
                // Who reads the result, or goes on with an input, is told; then it is forgotten.
                self.query.answer(Err(status));
            }
        }
        drop(self.permit);
        let Some(connection) = self.taken.connection.as_ref() else {
            return;
        };
        if !connection.in_transaction() {
            self.taken.transaction_lsn = None;
        }
        // A connection of its own goes first, then the instance that it was in.
        if !self.taken.is_session() {
            self.taken.connection = None;
        }
    }

    fn execute(&mut self, queued: Duration) -> Result<(Option<Answer>, Totals), Stopped> {
        let mut connection = self.connection()?;
        let done = self.execute_on(&mut connection, queued);
        self.taken.connection = Some(connection);
        done
    }

    fn connection(&mut self) -> Result<Connection, Stopped> {
        if let Some(connection) = self.taken.connection.take() {
            return Ok(connection);
        }
        let instance = self.held.instance();
        let instance =
            instance.ok_or_else(|| Stopped(Status::internal("the instance is closed")))?;
        let mut connection = instance.connect().map_err(|error| self.failed(error))?;
        connection.set_flow(Flow {
            buffer_bytes: ENGINE_BUFFER_BYTES,
            ..Flow::default()
        });
        self.taken.held = Some(Arc::clone(&self.held));
        Ok(connection)
    }

    fn execute_on(
        &mut self,
        connection: &mut Connection,
        queued: Duration,
    ) -> Result<(Option<Answer>, Totals), Stopped> {
        self.query.set_running(Some(connection.watch()));
        self.taken.runs(&self.query);
        let set = self.set_settings(connection)?;
        let ended = self.execute_set(connection, queued);
        for name in set {
            // The session's own value comes back as it came the first time.
            let back = match self.taken.settings.get(&name.to_lowercase()) {
                Some(statement) => connection.run(statement).map(drop),
                None => connection.reset_session(name),
            };
            if let Err(error) = back {
                tracing::warn!("setting {name} back: {error}");
            }
        }
        ended
    }

    fn execute_set(
        &mut self,
        connection: &mut Connection,
        queued: Duration,
    ) -> Result<(Option<Answer>, Totals), Stopped> {
        let parsed = self.parse()?;
        let inputs = self.register_inputs(connection)?;
        if let Some(status) = self.query.output.failure() {
            return Err(Stopped(status));
        }
        // Whether it changes something is known for sure only when it was bound; nothing is committed
        // before its end, but by COMMIT itself.
        let may_change = !parsed.facts.is_plainly_read();
        let mut committing = match may_change {
            true => self.committing()?,
            false => None,
        };
        let mut running = self.start(connection)?;
        if !may_change && modifies(&running) {
            committing = self.committing()?;
        }
        self.query.bound();
        let is_commit = parsed.facts.transaction.is_some();
        if !modifies(&running) && !is_commit {
            committing = None;
        }
        let mut answer = self.answer(&mut running)?;
        let has_rows = running.kind == ResultKind::Rows;
        if has_rows {
            answer.lsn = self.read_lsn(connection.in_transaction())?;
            answer.in_transaction = connection.in_transaction();
            answer.schema_version = self.schema_version(connection);
            self.query.answer(Ok(answer.clone()));
        }
        self.drain(&mut running)?;
        drop((running, inputs));
        self.note_settings(&parsed);

        let in_transaction = connection.in_transaction();
        let lsn = match committing {
            Some(committing) if !in_transaction => self.committed(committing)?,
            _ if has_rows => answer.lsn,
            _ => self.read_lsn(in_transaction)?,
        };
        let totals = Totals {
            summary: Summary {
                lsn,
                elapsed_us: micros(self.query.begun.elapsed()),
                queued_us: micros(queued),
                worker: self.shared.config.name.clone(),
                in_transaction,
                ..Summary::default()
            },
        };
        if !has_rows {
            answer.lsn = lsn;
            answer.in_transaction = in_transaction;
            answer.schema_version = self.schema_version(connection);
        }
        Ok(((!has_rows).then_some(answer), totals))
    }

    /// Parses it, and judges the text.
    fn parse(&self) -> Result<engine::Statement, Stopped> {
        let statements = engine::parse(&self.text.sql).map_err(|error| self.failed(error))?;
        let count = statements.len();
        let mut statements = statements.into_iter();
        let (Some(statement), None) = (statements.next(), statements.next()) else {
            return Err(Stopped(Status::invalid_argument(format!(
                "a call runs one statement, and here are {count}"
            ))));
        };
        let policy = Policy {
            allowed_directories: self.shared.config.allowed_directories.clone(),
        };
        admit::admit(&statement, &policy).map_err(|error| self.failed(error))?;
        if statement.kind == Kind::Transaction && !self.taken.is_session() {
            return Err(Stopped(Status::failed_precondition(
                "a transaction belongs to a session: give the calls of it one session_id",
            )));
        }
        Ok(statement)
    }

    /// Binds it and begins to run it, unless it would change what may not be changed.
    fn start(&self, connection: &mut Connection) -> Result<Running, Stopped> {
        let refusal = match (self.held_lsn(), &self.text.read_only) {
            (Some(_), _) => Some(self.shared.is_read_only_here()),
            (None, refusal) => refusal.clone(),
        };
        let how = Start {
            read_only: refusal.is_some(),
            operators: self.text.placement,
        };
        let started = connection.start(&self.text.sql, self.text.parameters.as_ref(), how);
        started.map_err(|error| match refusal {
            Some(refusal) if error.needs_writer() => Stopped(refusal),
            _ => self.failed(error),
        })
    }

    /// The state that it reads; `None`: the live database.
    fn held_lsn(&self) -> Option<u64> {
        self.taken.held.as_ref().and_then(|held| held.lsn())
    }

    /// Gets ready for a commit, whose key is noted first.
    fn committing(&self) -> Result<Option<Committing>, Stopped> {
        if self.held_lsn().is_some() || self.text.read_only.is_some() {
            return Ok(None);
        }
        if !self.text.key.is_empty() {
            let (owner, key) = (&self.query.owner, &self.text.key);
            let journal = &self.shared.journal;
            if self.text.is_key_old || journal.was_there(journal::Kind::Key, owner, key) {
                return Err(Stopped(refused(
                    Reason::OutcomeUnknown,
                    "this statement was sent before, and whether it was committed is not known any more; look before it is repeated",
                )));
            }
            journal
                .add(journal::Kind::Key, owner, key)
                .map_err(|error| {
                    tracing::error!("noting an idempotency key: {error}");
                    Stopped(Status::internal(
                        "the server can't note the idempotency key on its disk",
                    ))
                })?;
        }
        Ok(Some(self.shared.instances.head().committing()))
    }

    /// The LSN of a commit that was just made.
    fn committed(&self, committing: Committing) -> Result<u64, Stopped> {
        let lsn = self.shared.instances.head().ask().map_err(|error| {
            tracing::error!("asking the mount for a commit's LSN: {error}");
            Stopped(refused(
                Reason::OutcomeUnknown,
                "the statement was committed by DuckDB, and the storage below does not answer; look before it is repeated",
            ))
        })?;
        drop(committing);
        self.shared.count_commit();
        Ok(lsn)
    }

    /// The LSN that a statement reads which has begun.
    fn read_lsn(&mut self, in_transaction: bool) -> Result<u64, Stopped> {
        if let Some(lsn) = self.held_lsn() {
            return Ok(lsn);
        }
        if let Some(lsn) = self.taken.transaction_lsn.filter(|_| in_transaction) {
            return Ok(lsn);
        }
        let lsn = self.shared.instances.head().read().map_err(|error| {
            tracing::error!("asking the mount for its newest commit: {error}");
            Stopped(refused(
                Reason::Unavailable,
                "the database's storage does not answer; try again",
            ))
        })?;
        self.taken.transaction_lsn = in_transaction.then_some(lsn);
        Ok(lsn)
    }

    fn answer(&self, running: &mut Running) -> Result<Answer, Stopped> {
        let is_nothing = running.kind == ResultKind::Nothing;
        check_width(running.columns.len())?;
        let schema = match is_nothing {
            true => schema_message(&Schema::empty()),
            false => schema_message(&running.schema),
        };
        let schema = schema.map_err(|error| Stopped(Status::internal(error.to_string())))?;
        let columns = running.columns.iter().filter(|_| !is_nothing);
        Ok(Answer {
            schema,
            columns: columns
                .map(|column| proto::v1::Column {
                    name: column.name.clone(),
                    r#type: column.duckdb_type.clone(),
                })
                .collect(),
            kind: match running.kind {
                ResultKind::Rows => StatementKind::Rows,
                ResultKind::ChangedRows => StatementKind::ChangedRows,
                ResultKind::Nothing => StatementKind::Nothing,
            },
            lsn: 0,
            placement: std::mem::take(&mut running.operators)
                .into_iter()
                .map(|operator| Operator {
                    name: operator.name,
                    depth: operator.depth,
                    worker: self.shared.config.name.clone(),
                    estimated_rows: operator.estimated_rows,
                })
                .collect(),
            in_transaction: false,
            streams: self.query.output.stream_count(),
            schema_version: 0,
        })
    }

    fn schema_version(&self, connection: &Connection) -> u64 {
        let held = self.taken.held.as_ref();
        held.map_or(0, |held| held.schema_version(connection))
    }

    /// Takes all rows out.
    fn drain(&self, running: &mut Running) -> Result<(), Stopped> {
        let mut encoder = None;
        while let Some(batch) = running.next().map_err(|error| self.failed(error))? {
            if batch.num_columns() == 0 || batch.num_rows() == 0 {
                continue;
            }
            let encoder = match &mut encoder {
                Some(encoder) => encoder,
                none => {
                    let made = Encoder::new(&batch).map_err(unencodable)?;
                    let dictionaries = made.dictionaries().iter().cloned();
                    self.query
                        .output
                        .set_dictionaries(dictionaries.map(Message::from).collect());
                    none.insert(made)
                }
            };
            self.push(encoder, &batch)?;
        }
        Ok(())
    }

    /// Sends a batch, in as many messages as the client wants it in.
    fn push(&self, encoder: &mut Encoder, batch: &RecordBatch) -> Result<(), Stopped> {
        let message = encoder.encode(batch).map_err(unencodable)?;
        let most = self.text.message_bytes - ENVELOPE_BYTES_MAX;
        if message.len() <= most {
            return self.query.output.push(message, batch.num_rows() as u64);
        }
        let rows = batch.num_rows();
        if rows == 1 {
            return Err(Stopped(refused(
                Reason::Limit,
                format!(
                    "one row takes {} bytes, and {} is the most for a message (max_message_bytes)",
                    message.len(),
                    self.text.message_bytes
                ),
            )));
        }
        // Rows may differ in size, so a part may have to be parted again.
        let part = (rows * most / message.len()).clamp(1, rows - 1);
        for begin in (0..rows).step_by(part) {
            self.push(encoder, &batch.slice(begin, part.min(rows - begin)))?;
        }
        Ok(())
    }

    fn register_inputs(&self, connection: &mut Connection) -> Result<Vec<InputGuard>, Stopped> {
        let inputs = self.query.inputs.iter().map(|input| {
            let (schema, rows) = (Arc::clone(input.schema()), Box::new(input.rows()));
            connection
                .register_input(input.name(), schema, rows)
                .map_err(|error| self.failed(error))
        });
        inputs.collect()
    }

    /// Sets the statement's own settings; returns their names.
    fn set_settings(&self, connection: &mut Connection) -> Result<Vec<&'static str>, Stopped> {
        let mut set = Vec::new();
        for (name, value) in &self.text.settings {
            let known = admit::SETTINGS
                .iter()
                .find(|known| known.eq_ignore_ascii_case(name));
            let Some(known) = known else {
                return Err(Stopped(refused(
                    Reason::NotAdmitted,
                    format!("the setting {name:?} can't be changed here"),
                )));
            };
            connection
                .set_session(known, value)
                .map_err(|error| self.failed(error))?;
            set.push(*known);
        }
        Ok(set)
    }

    /// Remembers which settings the statement changed, to set them back behind one that has its own.
    fn note_settings(&mut self, parsed: &engine::Statement) {
        for setting in &parsed.facts.settings {
            if setting.scope == SettingScope::Variable {
                continue;
            }
            let name = setting.name.to_lowercase();
            match setting.reset {
                true => self.taken.settings.remove(&name),
                false => self.taken.settings.insert(name, parsed.sql.clone()),
            };
        }
    }

    fn failed(&self, error: engine::EngineError) -> Stopped {
        Stopped(self.shared.raised(error))
    }
}

/// Whether it changes a database; a temporary one is the session's own.
fn modifies(running: &Running) -> bool {
    let modified = &running.properties.modified_databases;
    modified.iter().any(|database| database != "temp")
}

fn check_width(columns: usize) -> Result<(), Stopped> {
    if columns <= COLUMN_COUNT_MAX {
        return Ok(());
    }
    Err(Stopped(refused(
        Reason::Limit,
        format!("the result has {columns} columns, and {COLUMN_COUNT_MAX} is the most"),
    )))
}

fn unencodable(error: arrow_schema::ArrowError) -> Stopped {
    Stopped(status(
        tonic::Code::Internal,
        format!("the result can't be sent: {error}"),
        proto::v1::ErrorDetail::default(),
    ))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Ends a query that nobody ended.
struct End(Arc<Query>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.set_running(None);
        if !self.0.output.is_produced() {
            let status =
                Status::internal("the statement failed inside the server, whose log says why");
            self.0.output.fail(status.clone());
            self.0.answer(Err(status));
        }
    }
}
