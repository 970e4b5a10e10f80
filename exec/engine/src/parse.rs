//! What a text of SQL asks for, by DuckDB's own parser, before anything is bound or run.
//!
//! Every statement is walked whole: its query nodes, table references, expressions, and statements
//! inside it (EXPLAIN, PREPARE, common table expressions that change something, macro and view bodies).
//! What the walk meets and does not know goes to [`Facts::unknown`], so that a policy can refuse it: a
//! construct of a newer DuckDB must never be overlooked.

use crate::EngineError;
use crate::ffi::{self, FactKind};

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
    /// One that DuckDB runs as several, as a PIVOT whose values are not listed.
    Several,
    /// What an extension's parser made, and whatever else there is.
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
    /// A prepared statement, which DEALLOCATE drops.
    Prepared,
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
    /// It is an EXPLAIN ANALYZE, which runs what it explains.
    pub analyzes: bool,
    /// It is a VACUUM, not only an ANALYZE.
    pub vacuums: bool,
    /// What the walk does not know, by DuckDB's name of it. A policy refuses it.
    pub unknown: Vec<String>,
}

impl Facts {
    /// The statement is a query, or an EXPLAIN of one, that the text alone shows to change nothing. A
    /// function, view or macro in it may still change something: the binder has the last word.
    pub fn is_plainly_read(&self) -> bool {
        let reads =
            |kind: &StatementKind| matches!(kind, StatementKind::Select | StatementKind::Explain);
        self.statements.iter().all(reads)
            && self.changed.is_empty()
            && self.copies.is_empty()
            && self.pragmas.is_empty()
            && self.unknown.is_empty()
    }

    fn add(&mut self, fact: ffi::Fact) {
        let ffi::Fact {
            kind,
            a,
            b,
            c,
            flag,
        } = fact;
        let table = |catalog, schema, name| TableName {
            catalog,
            schema,
            name,
        };
        let function = |catalog, schema, name: String| FunctionName {
            catalog,
            schema,
            name: name.to_lowercase(),
        };
        match kind {
            FactKind::Statement => {
                let kind = StatementKind::from_duckdb(&a);
                if !self.statements.contains(&kind) {
                    self.statements.push(kind);
                }
            }
            FactKind::Table => self.tables.push(table(a, b, c)),
            FactKind::Changed => self.changed.push(table(a, b, c)),
            FactKind::Function => self.functions.push(function(a, b, c)),
            FactKind::TableFunction => self.table_functions.push(function(a, b, c)),
            FactKind::Pragma => self.pragmas.push(a.to_lowercase()),
            FactKind::Setting => self.settings.push(Setting {
                name: a.to_lowercase(),
                scope: SettingScope::from_duckdb(&b),
                reset: flag,
            }),
            FactKind::CopyFrom | FactKind::CopyTo => self.copies.push(CopiedData {
                from: kind == FactKind::CopyFrom,
                path: flag.then_some(a),
                format: b.to_lowercase(),
            }),
            FactKind::Created => {
                self.entries.push(EntryKind::from_duckdb(&a));
                self.temporary |= flag;
            }
            FactKind::Dropped | FactKind::Altered => {
                self.entries.push(EntryKind::from_duckdb(&a));
            }
            FactKind::Transaction => {
                self.transaction = Some(a.split('_').next().unwrap_or_default().to_owned());
            }
            FactKind::PreparedName => self.prepared_name = Some(a),
            FactKind::Shown => self.shown.push(a),
            FactKind::Explained => self.analyzes |= flag,
            FactKind::Vacuumed => self.vacuums |= flag,
            FactKind::Unknown => self.unknown.push(a),
            // No kind of this side: C++ enumerations are open.
            _ => self.unknown.push(a),
        }
    }
}

impl StatementKind {
    /// From DuckDB's name of its `StatementType`.
    pub(crate) fn from_duckdb(name: &str) -> Self {
        match name.strip_suffix("_STATEMENT").unwrap_or(name) {
            "SELECT" => Self::Select,
            "INSERT" => Self::Insert,
            "UPDATE" => Self::Update,
            "DELETE" => Self::Delete,
            "MERGE_INTO" => Self::MergeInto,
            "CREATE" => Self::Create,
            "DROP" => Self::Drop,
            "ALTER" => Self::Alter,
            "TRANSACTION" => Self::Transaction,
            "PREPARE" => Self::Prepare,
            "EXECUTE" => Self::Execute,
            "EXPLAIN" => Self::Explain,
            "COPY" => Self::Copy,
            "COPY_DATABASE" => Self::CopyDatabase,
            "EXPORT" => Self::Export,
            "SET" | "VARIABLE_SET" => Self::Set,
            "PRAGMA" => Self::Pragma,
            "CALL" => Self::Call,
            "VACUUM" => Self::Vacuum,
            "ANALYZE" => Self::Analyze,
            "ATTACH" => Self::Attach,
            "DETACH" => Self::Detach,
            "LOAD" => Self::Load,
            "UPDATE_EXTENSIONS" => Self::UpdateExtensions,
            "CONNECT" => Self::Connect,
            "DISCONNECT" => Self::Disconnect,
            "MULTI" => Self::Several,
            _ => Self::Other,
        }
    }
}

impl SettingScope {
    fn from_duckdb(name: &str) -> Self {
        match name {
            "LOCAL" => Self::Local,
            "SESSION" => Self::Session,
            "VARIABLE" => Self::Variable,
            "AUTOMATIC" => Self::Automatic,
            // What is not known reaches farthest.
            _ => Self::Global,
        }
    }
}

impl EntryKind {
    fn from_duckdb(name: &str) -> Self {
        match name.strip_suffix("_ENTRY").unwrap_or(name) {
            "TABLE" => Self::Table,
            "VIEW" => Self::View,
            "SCHEMA" => Self::Schema,
            "INDEX" => Self::Index,
            "SEQUENCE" => Self::Sequence,
            "TYPE" => Self::Type,
            "MACRO" | "TABLE_MACRO" => Self::Macro,
            "SECRET" => Self::Secret,
            "TRIGGER" => Self::Trigger,
            "PREPARED_STATEMENT" => Self::Prepared,
            _ => Self::Other,
        }
    }
}

/// Parses a text of any number of statements. Needs no instance.
///
/// # Errors
/// `Parser` errors with their position.
pub fn parse(sql: &str) -> Result<Vec<Statement>, EngineError> {
    let parsed = ffi::parse_statements(sql)?;
    Ok(parsed.into_iter().map(Statement::from).collect())
}

impl From<ffi::ParsedStatement> for Statement {
    fn from(parsed: ffi::ParsedStatement) -> Self {
        let mut facts = Facts::default();
        parsed.facts.into_iter().for_each(|fact| facts.add(fact));
        let mut parameters = parsed.parameters;
        parameters.sort();
        Self {
            kind: StatementKind::from_duckdb(&parsed.kind),
            sql: parsed.sql,
            parameters,
            facts,
        }
    }
}
