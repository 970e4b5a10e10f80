//! One connection: a session of DuckDB's, which runs one statement at a time.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use crate::{EngineError, InputGuard, Prepared, RowSource, Running};

/// A session. A statement whose result is still open must be ended (drained or dropped) before the next
/// one is prepared or run.
#[derive(Debug)]
pub struct Connection {}

impl Connection {
    /// A handle with which another thread can interrupt and watch what runs here.
    pub fn watch(&self) -> Watch {
        todo!()
    }

    /// Sets a setting for this session alone; [`crate::admit::SETTINGS`] has those that a locked-down
    /// instance takes.
    ///
    /// # Errors
    /// `Catalog` for a name that DuckDB does not know, `InvalidInput` for a value that it does not take
    /// or a name that the instance's lock refuses.
    pub fn set_session(&mut self, _name: &str, _value: &str) -> Result<(), EngineError> {
        todo!()
    }

    /// Gives a setting its default back.
    ///
    /// # Errors
    /// As [`Self::set_session`].
    pub fn reset_session(&mut self, _name: &str) -> Result<(), EngineError> {
        todo!()
    }

    /// Whether `BEGIN` was said and neither `COMMIT` nor `ROLLBACK` since.
    pub fn in_transaction(&self) -> bool {
        todo!()
    }

    /// Lets the SQL of this connection use `name` as a relation, until the guard is dropped: a table or
    /// view of that name is hidden by it. Its rows are asked for when a statement runs, and once: a
    /// statement that reads the relation several times gets them from DuckDB's own (spilling) memory.
    ///
    /// # Errors
    /// `Binder` for a schema that DuckDB has no types for, or a name that is in use already.
    pub fn register_input(
        &mut self,
        _name: &str,
        _schema: SchemaRef,
        _rows: Box<dyn RowSource>,
    ) -> Result<InputGuard, EngineError> {
        todo!()
    }

    /// Parses, binds and plans exactly one statement.
    ///
    /// # Errors
    /// What DuckDB says; `InvalidInput` for several statements or none; `Permission` where the instance is
    /// locked down and the statement is not admitted.
    pub fn prepare(&mut self, _sql: &str) -> Result<Prepared, EngineError> {
        todo!()
    }

    /// Begins to run a statement, with one row of parameters if it has some: columns named `1`, `2`, … or
    /// with empty names are positional, others go to the parameter of that name.
    ///
    /// # Errors
    /// What DuckDB says before the first row; `InvalidInput` if parameters lack or are too many.
    pub fn execute(
        &mut self,
        _prepared: &Prepared,
        _parameters: Option<&RecordBatch>,
    ) -> Result<Running, EngineError> {
        todo!()
    }

    /// Prepares and runs one statement and collects its rows: for statements of the server's own, whose
    /// results are small.
    ///
    /// # Errors
    /// As [`Self::prepare`], [`Self::execute`] and [`Running::next`].
    pub fn run(&mut self, _sql: &str) -> Result<Vec<RecordBatch>, EngineError> {
        todo!()
    }
}

/// Interrupts and watches a connection from any thread. Holding it keeps the connection's memory, not
/// its database.
#[derive(Clone, Debug)]
pub struct Watch {}

impl Watch {
    /// Ends the statement that runs, which fails with `Interrupt`; nothing happens if none does.
    pub fn interrupt(&self) {
        todo!()
    }

    /// How far the running statement is, from 0 to 1, if DuckDB can tell.
    pub fn progress(&self) -> Option<f64> {
        todo!()
    }
}
