//! One connection: a session of DuckDB's, which runs one statement at a time.

use std::fmt;

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_schema::{Schema, SchemaRef};
use cxx::SharedPtr;

use crate::ffi;
use crate::{EngineError, InputGuard, Prepared, RowSource, Running};

/// How much of a result is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The most rows of a batch.
    pub batch_rows: u64,
    /// The size at which a batch ends, in bytes. Batches are at most a quarter larger where rows are of
    /// about the same size; a single row may be of any size.
    pub batch_bytes: u64,
    /// The most bytes that wait to be taken. Each of DuckDB's threads may hold one more batch.
    pub buffer_bytes: u64,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            batch_rows: 122_880,
            batch_bytes: 1 << 20,
            buffer_bytes: 16 << 20,
        }
    }
}

impl From<Flow> for ffi::Flow {
    fn from(flow: Flow) -> Self {
        Self {
            batch_rows: flow.batch_rows.max(1),
            batch_bytes: flow.batch_bytes.max(1),
            buffer_bytes: flow.buffer_bytes,
        }
    }
}

/// How [`Connection::start`] starts a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Refuse it, before anything has happened, if it changes any database but the temporary one.
    pub read_only: bool,
    /// Note the operators of its plan, for [`Running::operators`].
    pub operators: bool,
}

/// A session. A statement whose result is still open must be ended (drained or dropped) before the next
/// one is prepared or run.
pub struct Connection {
    session: SharedPtr<ffi::Session>,
    flow: Flow,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn new(session: SharedPtr<ffi::Session>) -> Self {
        Self {
            session,
            flow: Flow::default(),
        }
    }

    /// Changes how much of a result is in flight, for statements that are run from now on.
    pub fn set_flow(&mut self, flow: Flow) {
        self.flow = flow;
    }

    /// A handle with which another thread can interrupt and watch what runs here.
    pub fn watch(&self) -> Watch {
        Watch {
            session: self.session.clone(),
        }
    }

    /// Sets a setting for this session alone; [`crate::admit::SETTINGS`] has those that a locked-down
    /// instance takes.
    ///
    /// # Errors
    /// `Catalog` for a name that DuckDB does not know, `Invalid Input` for a value that it does not take
    /// or a name that the instance's lock refuses.
    pub fn set_session(&mut self, name: &str, value: &str) -> Result<(), EngineError> {
        Ok(self.session.set(name, value)?)
    }

    /// Gives a setting its default back.
    ///
    /// # Errors
    /// As [`Self::set_session`].
    pub fn reset_session(&mut self, name: &str) -> Result<(), EngineError> {
        Ok(self.session.reset(name)?)
    }

    /// Whether `BEGIN` was said and neither `COMMIT` nor `ROLLBACK` since.
    pub fn in_transaction(&self) -> bool {
        self.session.in_transaction().unwrap_or(false)
    }

    /// How often the main database's catalog was changed in this instance, as this connection's transaction
    /// sees it: where it is the same, the schema is the same.
    ///
    /// # Errors
    /// What beginning a transaction says.
    pub fn catalog_version(&self) -> Result<u64, EngineError> {
        Ok(self.session.catalog_version()?)
    }

    /// A hash of all that the main database's catalog holds, as this connection's transaction sees it: the same
    /// in each instance over the same schema, and never 0 but by chance. Takes some 10 µs for each table.
    ///
    /// # Errors
    /// As [`Self::catalog_version`].
    pub fn schema_hash(&self) -> Result<u64, EngineError> {
        Ok(self.session.schema_hash()?)
    }

    /// Lets the SQL of this connection use `name` as a relation, until the guard is dropped. Its rows are
    /// asked for when a statement runs, and travel once: a statement that reads the relation several
    /// times gets them from DuckDB's own (spilling) memory, a second statement gets an error.
    ///
    /// # Errors
    /// `Binder` for a schema without columns, or a name that a table or view has; `Not implemented` for a
    /// schema that DuckDB has no types for.
    pub fn register_input(
        &mut self,
        name: &str,
        schema: SchemaRef,
        rows: Box<dyn RowSource>,
    ) -> Result<InputGuard, EngineError> {
        let mut schema = FFI_ArrowSchema::try_from(schema.as_ref())
            .map_err(|error| EngineError::new("Not implemented", error.to_string()))?;
        let source = Box::new(ffi::Source { rows, ended: false });
        // SAFETY: the schema is whole; C++ takes it over and leaves an empty one.
        unsafe {
            self.session
                .add_input(name, (&raw mut schema).cast(), source, ffi::new_parked())?;
        }
        Ok(InputGuard::new(self.session.clone(), name))
    }

    /// Parses, binds and plans exactly one statement.
    ///
    /// # Errors
    /// What DuckDB says; `Invalid Input` for several statements or none; `Permission` where the instance is
    /// locked down and the plan is not admitted.
    pub fn prepare(&mut self, sql: &str) -> Result<Prepared, EngineError> {
        Prepared::new(ffi::prepare(&self.session, sql)?, &self.session)
    }

    /// Begins to run a statement, with one row of parameters if it has some: columns named `1`, `2`, … or
    /// with empty names are positional, others go to the parameter of that name.
    ///
    /// # Errors
    /// What DuckDB says before the first row; `Invalid Input` if parameters lack or are too many.
    pub fn execute(
        &mut self,
        prepared: &Prepared,
        parameters: Option<&RecordBatch>,
    ) -> Result<Running, EngineError> {
        let (mut schema, mut array) = parameters.map_or_else(no_row, one_row)?;
        // SAFETY: both structures are whole or empty; C++ takes them over and leaves empty ones.
        let stream = unsafe {
            ffi::execute(
                &self.session,
                prepared.statement()?,
                (&raw mut schema).cast(),
                (&raw mut array).cast(),
                &self.flow.into(),
            )?
        };
        Running::new(stream, &self.session)
    }

    /// Parses, binds, plans and begins to run exactly one statement, in one go: about half the work of
    /// [`Self::prepare`] and [`Self::execute`] for a small one, which DuckDB binds twice there.
    ///
    /// # Errors
    /// What DuckDB says before the first row; [`EngineError::needs_writer`] if it would change something and
    /// was not to; the rest as in [`Self::prepare`] and [`Self::execute`].
    pub fn start(
        &mut self,
        sql: &str,
        parameters: Option<&RecordBatch>,
        how: Start,
    ) -> Result<Running, EngineError> {
        let (mut schema, mut array) = parameters.map_or_else(no_row, one_row)?;
        let start = ffi::Start {
            read_only: how.read_only,
            operators: how.operators,
        };
        // SAFETY: both structures are whole or empty; C++ takes them over and leaves empty ones.
        let stream = unsafe {
            ffi::start(
                &self.session,
                sql,
                (&raw mut schema).cast(),
                (&raw mut array).cast(),
                &self.flow.into(),
                &start,
            )?
        };
        Running::new(stream, &self.session)
    }

    /// Runs one statement and collects its rows: for statements of the server's own, whose
    /// results are small.
    ///
    /// # Errors
    /// As [`Self::start`] and [`Running::next`].
    pub fn run(&mut self, sql: &str) -> Result<Vec<RecordBatch>, EngineError> {
        let mut running = self.start(sql, None, Start::default())?;
        let mut batches = Vec::new();
        while let Some(batch) = running.next()? {
            batches.push(batch);
        }
        Ok(batches)
    }
}

type ForeignRow = (FFI_ArrowSchema, FFI_ArrowArray);

fn no_row() -> Result<ForeignRow, EngineError> {
    Ok((FFI_ArrowSchema::empty(), FFI_ArrowArray::empty()))
}

/// A row of parameters in the shape that crosses the boundary.
fn one_row(row: &RecordBatch) -> Result<ForeignRow, EngineError> {
    if row.num_rows() != 1 {
        return Err(EngineError::new(
            "Invalid Input",
            format!("parameters are one row, and these are {}", row.num_rows()),
        ));
    }
    let schema: &Schema = row.schema_ref();
    let schema = FFI_ArrowSchema::try_from(schema)
        .map_err(|error| EngineError::new("Not implemented", error.to_string()))?;
    let array = FFI_ArrowArray::new(&StructArray::from(row.clone()).into_data());
    Ok((schema, array))
}

/// Interrupts and watches a connection from any thread. Holding it keeps the connection alive.
#[derive(Clone)]
pub struct Watch {
    session: SharedPtr<ffi::Session>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Ends the statement that runs, which fails with `INTERRUPT`; nothing happens if none does.
    pub fn interrupt(&self) {
        // It sets a flag, and throws nothing.
        let _ = self.session.interrupt();
    }

    /// How far the running statement is, from 0 to 1, if DuckDB can tell.
    pub fn progress(&self) -> Option<f64> {
        let progress = self.session.progress().ok()?;
        (progress >= 0.0).then_some(progress)
    }
}
