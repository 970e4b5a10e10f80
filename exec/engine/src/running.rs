//! A statement that runs, and its rows on their way out.
//!
//! DuckDB's threads produce Arrow batches into a buffer of bounded size; the one who calls `next` takes
//! them out, and lends a hand while there are none. Dropping it ends the statement: outside a
//! transaction what it changed is rolled back, inside one that it changed something is invalidated.

use std::fmt;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow_array::types::Int64Type;
use arrow_array::{RecordBatch, StructArray};
use arrow_schema::{DataType, Schema, SchemaRef};
use cxx::{SharedPtr, UniquePtr};

use crate::ffi;
use crate::prepared::{imported, operators};
use crate::{Column, EngineError, OperatorInfo, Properties, ResultKind, StatementKind};

/// An open result. It keeps its connection alive; the connection runs nothing else until it ends.
pub struct Running {
    /// What kind of statement it is.
    pub statement: StatementKind,
    /// What it gives.
    pub kind: ResultKind,
    /// The columns as DuckDB names and types them; none for a statement that gives nothing.
    pub columns: Vec<Column>,
    /// The columns as Arrow sees them; every batch has exactly this schema.
    pub schema: SchemaRef,
    /// What the binder found out.
    pub properties: Properties,
    /// The operators of its plan after the optimizer, the root first, if they were asked for.
    pub operators: Vec<OperatorInfo>,
    stream: UniquePtr<ffi::Stream>,
    changed_rows: Option<u64>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

impl Running {
    pub(crate) fn new(
        stream: UniquePtr<ffi::Stream>,
        session: &SharedPtr<ffi::Session>,
    ) -> Result<Self, EngineError> {
        let mut described = stream.describe()?;
        let kind = ResultKind::new(described.return_type);
        let (columns, schema) = if kind == ResultKind::Nothing {
            (Vec::new(), Arc::new(Schema::empty()))
        } else {
            let mut schema = FFI_ArrowSchema::empty();
            // SAFETY: C++ writes a whole schema into the empty one, or throws.
            unsafe { stream.schema((&raw mut schema).cast())? };
            let columns = std::mem::take(&mut described.columns);
            let columns = columns.into_iter().map(Column::from).collect();
            (columns, imported(&schema)?)
        };
        Ok(Self {
            statement: StatementKind::from_duckdb(&described.statement_type),
            kind,
            columns,
            schema,
            properties: Properties::from(described),
            operators: operators(session)?,
            stream,
            changed_rows: None,
        })
    }

    /// The next batch, in the result's order; `None` at its end, and from then on. Waits until DuckDB
    /// has one. A statement outside a transaction is committed when this returns `None`, not before.
    ///
    /// # Errors
    /// What DuckDB says; the statement has ended then.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        while let Some(stream) = self.stream.as_mut() {
            let mut array = FFI_ArrowArray::empty();
            // SAFETY: C++ writes a whole array into the empty one, leaves it empty, or throws.
            if !unsafe { stream.next((&raw mut array).cast())? } {
                self.stream = UniquePtr::null();
                break;
            }
            if self.kind == ResultKind::Nothing {
                continue;
            }
            let fields = DataType::Struct(self.schema.fields().clone());
            // SAFETY: DuckDB made the array for the columns of which the schema was made.
            let data = unsafe { from_ffi_and_data_type(array, fields) }
                .map_err(|error| EngineError::new("Not implemented", error.to_string()))?;
            let (_, columns, _) = StructArray::from(data).into_parts();
            let batch = RecordBatch::try_new(self.schema.clone(), columns)
                .map_err(|error| EngineError::new("Internal", error.to_string()))?;
            if self.kind == ResultKind::ChangedRows {
                self.changed_rows = count(&batch);
            }
            return Ok(Some(batch));
        }
        Ok(None)
    }

    /// How many rows a statement of kind [`ResultKind::ChangedRows`] changed, once its batch was taken.
    pub fn changed_rows(&self) -> Option<u64> {
        self.changed_rows
    }
}

/// The one number of a batch.
fn count(batch: &RecordBatch) -> Option<u64> {
    let column = batch.columns().first()?.as_primitive_opt::<Int64Type>()?;
    let number = column.values().first()?;
    u64::try_from(*number).ok()
}
