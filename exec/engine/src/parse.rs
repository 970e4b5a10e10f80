//! What a text of SQL asks for, by DuckDB's own parser, before anything is bound or run.
//!
//! Every statement is walked whole: its query nodes, table references, expressions, and statements
//! inside it (EXPLAIN, PREPARE, common table expressions that change something, macro and view bodies).
//! What the walk meets and does not know goes to [`Facts::unknown`], so that a policy can refuse it: a
//! construct of a newer DuckDB must never be overlooked.

use crate::EngineError;

/// One statement of a text, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What kind of statement it is.
    pub kind: StatementKind,
    /// Its own text.
    pub sql: String,
    /// Names of its parameters (`1`, `2`, …, or `name` of `$name`), sorted.
    pub parameters: Vec<String>,
    /// What it uses.
    pub facts: Facts,
}

/// The kind of a statement, as its first word tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // Each is the SQL word.
pub enum StatementKind {
    Select,
    Insert,
    Update,
    Delete,
    MergeInto,
    Create,
    Drop,
    Alter,
    /// BEGIN, COMMIT, ROLLBACK; [`Facts::transaction`] tells which.
    Transaction,
    Prepare,
    Execute,
    Explain,
    /// COPY … FROM, COPY … TO.
    Copy,
    CopyDatabase,
    Export,
    /// SET, RESET, SET VARIABLE.
    Set,
    Pragma,
    Call,
    Vacuum,
    Analyze,
    Attach,
    Detach,
    /// LOAD, INSTALL, and extension repositories.
    Load,
    UpdateExtensions,
    Connect,
    Disconnect,
    /// What an extension's parser made, several statements in one, and whatever else there is.
    Other,
}

/// The name of a table or view, as far as the text gives it; empty parts were not given. Unquoted names keep
/// the case of the text; DuckDB compares names without case.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// The database.
    pub catalog: String,
    /// The schema.
    pub schema: String,
    /// The table, view, or (bare, in single quotes) a file.
    pub name: String,
}

/// The name of a function, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FunctionName {
    /// The database.
    pub catalog: String,
    /// The schema.
    pub schema: String,
    /// The function.
    pub name: String,
}

/// How far a SET reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingScope {
    /// Not said: the session, where the setting has one, else all of them.
    Automatic,
    /// `SET LOCAL`: the transaction.
    Local,
    /// `SET SESSION`.
    Session,
    /// `SET GLOBAL`.
    Global,
    /// `SET VARIABLE`: no setting at all.
    Variable,
}

/// A setting that the statement changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, in lower case.
    pub name: String,
    /// How far it reaches.
    pub scope: SettingScope,
    /// It is a RESET.
    pub reset: bool,
}

/// A COPY between a table or query and a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedData {
    /// `COPY … FROM`; else `COPY … TO`.
    pub from: bool,
    /// The file, if the text says it as a constant.
    pub path: Option<String>,
    /// The format, in lower case; empty: by the file's name.
    pub format: String,
}

/// What is created, dropped or altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)] // Each is the SQL word.
pub enum EntryKind {
    Table,
    View,
    Schema,
    Index,
    Sequence,
    Type,
    Macro,
    Secret,
    Trigger,
    /// Whatever else.
    Other,
}

/// Everything a policy needs to know of a statement, of all that is nested in it too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The kinds of the statement and of those inside it, each once.
    pub statements: Vec<StatementKind>,
    /// Tables and views that are named, common table expressions too.
    pub tables: Vec<TableName>,
    /// Tables that are changed, created, altered or dropped.
    pub changed: Vec<TableName>,
    /// Scalar, aggregate, window functions and macros that are called.
    pub functions: Vec<FunctionName>,
    /// Table functions that are called.
    pub table_functions: Vec<FunctionName>,
    /// Pragmas that are called, in lower case.
    pub pragmas: Vec<String>,
    /// Settings that are changed.
    pub settings: Vec<Setting>,
    /// Files that are copied from or to.
    pub copies: Vec<CopiedData>,
    /// What is created, dropped or altered, other than by INSERT and the like.
    pub entries: Vec<EntryKind>,
    /// A temporary entry is created.
    pub temporary: bool,
    /// For BEGIN, COMMIT, ROLLBACK: that word.
    pub transaction: Option<String>,
    /// The name that a PREPARE gives, an EXECUTE or DEALLOCATE uses.
    pub prepared_name: Option<String>,
    /// A SHOW, DESCRIBE or SUMMARIZE: of what.
    pub shown: Vec<String>,
    /// What the walk does not know, by DuckDB's name of it. A policy refuses it.
    pub unknown: Vec<String>,
}

impl Facts {
    /// The statement is a query, or an EXPLAIN of one, that the text alone shows to change nothing. A
    /// function, view or macro in it may still change something: the binder has the last word.
    pub fn is_plainly_read(&self) -> bool {
        todo!()
    }
}

/// Parses a text of any number of statements. Needs no instance.
///
/// # Errors
/// `Parser` errors with their position.
pub fn parse(_sql: &str) -> Result<Vec<Statement>, EngineError> {
    todo!()
}
