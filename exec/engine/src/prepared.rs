//! A statement that was bound and planned, and what is known of it before it runs.

use arrow_schema::SchemaRef;

use crate::StatementKind;

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
    /// The statement changes no database. A temporary one counts as a database, under the name `temp`.
    pub read_only: bool,
    /// The databases that it changes, by their names.
    pub modified_databases: Vec<String>,
    /// The databases that it reads, by their names.
    pub read_databases: Vec<String>,
    /// How many parameters it takes.
    pub parameter_count: usize,
    /// It runs even in a transaction that has failed, as `ROLLBACK` does.
    pub needs_no_valid_transaction: bool,
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
#[derive(Debug)]
pub struct Prepared {
    /// What kind of statement it is.
    pub statement: StatementKind,
    /// What it gives.
    pub kind: ResultKind,
    /// Its columns. `None` where DuckDB knows them only when it runs (`PIVOT` without a list of values
    /// expands into two statements); [`crate::Running`] always knows them.
    pub columns: Option<Vec<Column>>,
    /// The same as Arrow sees them, lossless: what Arrow has no type for carries its DuckDB type as an
    /// extension type.
    pub schema: Option<SchemaRef>,
    /// What the binder found out.
    pub properties: Properties,
}

impl Prepared {
    /// The operators of its plan, the root first. Empty where the plan is made only when it runs.
    pub fn operators(&self) -> Vec<OperatorInfo> {
        todo!()
    }
}
