//! A statement that was bound and planned, and what is known of it before it runs.

use std::fmt;
use std::sync::Arc;

use arrow_array::ffi::FFI_ArrowSchema;
use arrow_schema::{Schema, SchemaRef};
use cxx::{SharedPtr, UniquePtr};

use crate::ffi;
use crate::{EngineError, StatementKind};

/// A column as DuckDB names and types it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name; need not be unique.
    pub name: String,
    /// Its type in DuckDB's own spelling: `DECIMAL(18,3)`, `ENUM('a', 'b')`.
    pub duckdb_type: String,
}

/// What a statement gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    /// Rows.
    Rows,
    /// One row with the number of rows that it changed.
    ChangedRows,
    /// Nothing.
    Nothing,
}

/// What the binder found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// The statement changes no database but the temporary one (`temp`). `false` where that is not known
    /// before it runs.
    pub read_only: bool,
    /// The databases that it changes, by their names.
    pub modified_databases: Vec<String>,
    /// The databases that it reads, by their names.
    pub read_databases: Vec<String>,
    /// How many parameters it takes.
    pub parameter_count: usize,
    /// It does not run in a transaction that has failed; `ROLLBACK` does.
    pub needs_valid_transaction: bool,
}

/// One operator of a statement's plan; a parent stands before its children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorInfo {
    /// DuckDB's name of it: `HASH_JOIN`, `TABLE_SCAN`.
    pub name: String,
    /// How deep it stands below the root, which is 0.
    pub depth: u32,
    /// The rows that DuckDB expects of it; 0: unknown.
    pub estimated_rows: u64,
}

/// A statement that is ready to run on the connection that prepared it, any number of times.
pub struct Prepared {
    inner: UniquePtr<ffi::Statement>,
    /// What kind of statement it is.
    pub statement: StatementKind,
    /// What it gives.
    pub kind: ResultKind,
    /// Its columns. `None` where DuckDB knows them only when it runs: a type depends on a parameter, or it
    /// expands into several statements (`PIVOT` without a list of values); [`crate::Running`] always
    /// knows them.
    pub columns: Option<Vec<Column>>,
    /// The same as Arrow sees them, lossless: what Arrow has no type for carries its DuckDB type as an
    /// extension type.
    pub schema: Option<SchemaRef>,
    /// What the binder found out.
    pub properties: Properties,
    /// The operators of its plan after the optimizer, the root first. Empty where there is none before it
    /// runs.
    pub operators: Vec<OperatorInfo>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("statement", &self.statement)
            .field("columns", &self.columns)
            .finish_non_exhaustive()
    }
}

impl Prepared {
    pub(crate) fn new(
        inner: UniquePtr<ffi::Statement>,
        session: &SharedPtr<ffi::Session>,
    ) -> Result<Self, EngineError> {
        let mut described = inner.describe()?;
        let kind = ResultKind::new(described.return_type);
        let (columns, schema) = if !described.known {
            (None, None)
        } else if kind == ResultKind::Nothing {
            (Some(Vec::new()), Some(Arc::new(Schema::empty())))
        } else {
            let mut schema = FFI_ArrowSchema::empty();
            // SAFETY: C++ writes a whole schema into the empty one, or throws.
            unsafe { inner.schema((&raw mut schema).cast())? };
            let columns = std::mem::take(&mut described.columns);
            let columns = columns.into_iter().map(Column::from).collect();
            (Some(columns), Some(imported(&schema)?))
        };
        Ok(Self {
            statement: StatementKind::from_duckdb(&described.statement_type),
            kind,
            columns,
            schema,
            properties: Properties::from(described),
            operators: operators(session)?,
            inner,
        })
    }

    pub(crate) fn statement(&self) -> Result<&ffi::Statement, EngineError> {
        self.inner
            .as_ref()
            .ok_or_else(|| EngineError::new("Internal", "a statement was lost"))
    }
}

/// The operators that the last plan of a session had.
pub(crate) fn operators(
    session: &SharedPtr<ffi::Session>,
) -> Result<Vec<OperatorInfo>, EngineError> {
    let info = |op: ffi::PlannedOperator| OperatorInfo {
        name: op.name,
        depth: op.depth,
        estimated_rows: op.estimated_rows,
    };
    Ok(session.operators()?.into_iter().map(info).collect())
}

impl From<ffi::Described> for Properties {
    fn from(described: ffi::Described) -> Self {
        let temporary = |name: &String| name.eq_ignore_ascii_case("temp");
        Self {
            read_only: !described.expands && described.modified_databases.iter().all(temporary),
            modified_databases: described.modified_databases,
            read_databases: described.read_databases,
            parameter_count: described.parameter_count,
            needs_valid_transaction: described.needs_valid_transaction,
        }
    }
}

impl ResultKind {
    /// From the number of DuckDB's `StatementReturnType`.
    pub(crate) fn new(number: u8) -> Self {
        match number {
            0 => Self::Rows,
            1 => Self::ChangedRows,
            _ => Self::Nothing,
        }
    }
}

impl From<ffi::ColumnText> for Column {
    fn from(text: ffi::ColumnText) -> Self {
        Self {
            name: text.name,
            duckdb_type: text.duckdb_type,
        }
    }
}

/// A schema that C++ made.
pub(crate) fn imported(schema: &FFI_ArrowSchema) -> Result<SchemaRef, EngineError> {
    Schema::try_from(schema)
        .map(Arc::new)
        .map_err(|error| EngineError::new("Not implemented", error.to_string()))
}
