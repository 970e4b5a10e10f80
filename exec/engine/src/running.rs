//! A statement that runs, and its rows on their way out.
//!
//! DuckDB's threads produce Arrow batches into a buffer of bounded size; the one who calls `next` takes
//! them out. Dropping it ends the statement: outside a transaction what it changed is rolled back.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use crate::{Column, EngineError};

/// An open result. It keeps its connection alive; the connection runs nothing else until it ends.
#[derive(Debug)]
pub struct Running {
    /// The columns as DuckDB names and types them.
    pub columns: Vec<Column>,
    /// The columns as Arrow sees them; every batch has exactly this schema.
    pub schema: SchemaRef,
}

impl Running {
    /// The next batch, in the result's order; `None` at its end. Waits until DuckDB has one. A
    /// statement outside a transaction is committed when this returns `None`, not before.
    ///
    /// # Errors
    /// What DuckDB says; the statement has ended then.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        todo!()
    }

    /// How many rows a statement of kind `ChangedRows` changed, once it has ended.
    pub fn changed_rows(&self) -> Option<u64> {
        todo!()
    }
}
