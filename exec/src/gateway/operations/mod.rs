//! Operations of the store, as SQL.
//!
//! They are table functions that the gateway has and no worker: `FROM openduck_databases()`,
//! `CALL openduck_snapshot('mydb', 'nightly')`. A statement that calls one is found by its parse tree, and
//! runs here, in a DuckDB of the gateway's own that holds nothing, is locked down like any worker's, and has
//! for each of these functions a macro over rows that the gateway made. So all of SQL works on what they
//! show: projections, filters, joins of one with another, parameters. They can't be joined with the tables
//! of a database, which are not there.
//!
//! What changes something is only ever a plain `CALL`. Its macro gives back its arguments as one row, so
//! names, defaults and parameters are DuckDB's; then the gateway looks at rights, does it, and answers with
//! rows of its own.
//!
//! Results are small, and kept here: they go with the gateway that made them, unlike a worker's.

mod act;
mod answer;
mod rows;

use std::sync::Arc;

use arrow_array::{Array as _, RecordBatch, StringArray};
use engine::{Access, Connection, Instance, InstanceConfig, Statement, StatementKind};
use parking_lot::Mutex;
use proto::v1::{ExecuteQueryRequest, ExecuteQueryResponse};
use tonic::Status;

pub use self::answer::Operations;

use self::answer::Answered;
use super::Gateway;
use super::execute::{Kept, engine_error};
use super::running::Guard;
use crate::access::Caller;

/// Memory for the SQL around operations, in bytes. The log's 32 MiB of text fit.
const MEMORY_BYTES: u64 = 512 << 20;

/// A table function of the gateway's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Databases,
    Snapshots,
    Queries,
    Workers,
    Log,
    Create,
    Snapshot,
    Clone,
    Restore,
    Cancel,
}

/// All of them: the name, what it takes, and whether it changes something.
const FUNCTIONS: &[(Function, &str, &str, bool)] = &[
    (Function::Databases, "openduck_databases", "", false),
    (
        Function::Snapshots,
        "openduck_snapshots",
        "db := NULL",
        false,
    ),
    (Function::Queries, "openduck_queries", "", false),
    (Function::Workers, "openduck_workers", "", false),
    (Function::Log, "openduck_log", "", false),
    (Function::Create, "openduck_create", "db", true),
    (
        Function::Snapshot,
        "openduck_snapshot",
        "db, name := NULL",
        true,
    ),
    (
        Function::Clone,
        "openduck_clone",
        "db, new_db, ref := 'latest'",
        true,
    ),
    (Function::Restore, "openduck_restore", "db, ref", true),
    (Function::Cancel, "openduck_cancel", "query_id", true),
];

impl Function {
    fn row(self) -> &'static (Function, &'static str, &'static str, bool) {
        let found = FUNCTIONS.iter().find(|(function, ..)| *function == self);
        // Every one is in the list; the test below looks.
        found.unwrap_or(&FUNCTIONS[0])
    }

    fn name(self) -> &'static str {
        self.row().1
    }

    fn changes(self) -> bool {
        self.row().3
    }

    fn named(name: &str) -> Option<Function> {
        let found = FUNCTIONS.iter().find(|(_, known, ..)| *known == name);
        found.map(|(function, ..)| *function)
    }

    /// The macro that stands for it.
    fn definition(self) -> String {
        let (_, name, takes, changes) = *self.row();
        let gives = if changes {
            let arguments: Vec<String> = takes
                .split(", ")
                .map(|one| one.split(' ').next().unwrap_or_default())
                .map(|one| format!("CAST({one} AS VARCHAR) AS {one}"))
                .collect();
            format!("SELECT {}", arguments.join(", "))
        } else if takes.is_empty() {
            format!("SELECT * FROM temp.main.\"{name} rows\"")
        } else {
            // Of one database, or of all.
            format!(
                "SELECT * FROM temp.main.\"{name} rows\" AS r WHERE r.database = coalesce(db, r.database)"
            )
        };
        format!("CREATE TEMP MACRO {name}({takes}) AS TABLE {gives}")
    }
}

/// What a statement asks of the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A query over what these show.
    Show(Vec<Function>),
    /// To do this.
    Act(Function),
}

/// Finds out whether the statement is one for the gateway.
///
/// # Errors
/// Where something that changes is not simply called.
pub(super) fn recognise(statement: &Statement) -> Result<Option<Operation>, Status> {
    let facts = &statement.facts;
    let used: Vec<Function> = facts
        .table_functions
        .iter()
        .filter(|function| function.catalog.is_empty() && function.schema.is_empty())
        .filter_map(|function| Function::named(&function.name))
        .collect();
    let Some(acting) = used.iter().copied().find(|function| function.changes()) else {
        if used.is_empty() {
            return Ok(None);
        }
        if !facts.is_plainly_read() {
            return Err(Status::invalid_argument(
                "what openduck_… functions show can be queried, and not be written to a table in the same statement",
            ));
        }
        return Ok(Some(Operation::Show(used)));
    };
    let is_plain = statement.kind == StatementKind::Call && facts.table_functions.len() == 1;
    if is_plain {
        return Ok(Some(Operation::Act(acting)));
    }
    let name = acting.name();
    Err(Status::invalid_argument(format!(
        "{name} changes something, so it is called alone: CALL {name}(…)"
    )))
}

impl Gateway {
    /// Carries out an operation.
    pub(super) async fn operate(
        self: &Arc<Self>,
        guard: &Guard,
        caller: &Caller,
        operation: Operation,
        request: ExecuteQueryRequest,
    ) -> Result<(ExecuteQueryResponse, Option<Kept>), Status> {
        let answered = match operation {
            Operation::Show(functions) => self.show(caller, functions, &request).await?,
            Operation::Act(function) => {
                let arguments = self.arguments(function, &request).await?;
                let rows = self.act(caller, function, &arguments).await?;
                Answered::of_rows(rows)?
            }
        };
        guard.answered_here(answered.rows());
        let answer = self
            .operations
            .answer(&self.keys, caller, &request, answered)?;
        // There is nothing to wait for: what is kept of it takes no place.
        Ok((answer, None))
    }

    async fn show(
        self: &Arc<Self>,
        caller: &Caller,
        functions: Vec<Function>,
        request: &ExecuteQueryRequest,
    ) -> Result<Answered, Status> {
        let (gateway, caller) = (Arc::clone(self), caller.clone());
        let (sql, parameters) = (request.sql.clone(), request.parameters.clone());
        blocking(move || {
            let mut connection = gateway.operations.connect()?;
            for function in functions {
                let rows = gateway.rows_of(function, &caller)?;
                let name = function.name();
                let schema = rows.schema();
                let _input = connection
                    .register_input("rows_of_gateway", schema, Box::new(vec![rows].into_iter()))
                    .map_err(engine_error)?;
                let table = format!("CREATE TEMP TABLE \"{name} rows\" AS FROM rows_of_gateway");
                connection.run(&table).map_err(engine_error)?;
                connection
                    .run(&function.definition())
                    .map_err(engine_error)?;
            }
            query(&mut connection, &sql, parameters)
        })
        .await
    }

    /// The arguments of a call, as DuckDB makes them of its text and parameters.
    async fn arguments(
        self: &Arc<Self>,
        function: Function,
        request: &ExecuteQueryRequest,
    ) -> Result<Arguments, Status> {
        let gateway = Arc::clone(self);
        let (sql, parameters) = (request.sql.clone(), request.parameters.clone());
        blocking(move || {
            let mut connection = gateway.operations.connect()?;
            connection
                .run(&function.definition())
                .map_err(engine_error)?;
            let answered = query(&mut connection, &sql, parameters)?;
            Arguments::of(&answered.batches)
        })
        .await
    }
}

fn query(
    connection: &mut Connection,
    sql: &str,
    parameters: bytes::Bytes,
) -> Result<Answered, Status> {
    let parameters = match parameters.is_empty() {
        true => None,
        false => Some(crate::wire::input::parameters(parameters)?),
    };
    let prepared = connection.prepare(sql).map_err(engine_error)?;
    let mut running = connection
        .execute(&prepared, parameters.as_ref())
        .map_err(engine_error)?;
    let mut answered = Answered {
        columns: running
            .columns
            .iter()
            .map(|column| (column.name.clone(), column.duckdb_type.clone()))
            .collect(),
        schema: Arc::clone(&running.schema),
        batches: Vec::new(),
    };
    while let Some(batch) = running.next().map_err(engine_error)? {
        answered.batches.push(batch);
    }
    Ok(answered)
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(error.to_string()))?
}

/// The gateway's own DuckDB, once it was needed.
#[derive(Default)]
pub(super) struct Own(Mutex<Option<(Instance, tempfile::TempDir)>>);

impl Own {
    /// A connection of its own, with nothing in it.
    fn connect(&self) -> Result<Connection, Status> {
        let mut own = self.0.lock();
        let (instance, _) = match &mut *own {
            Some(opened) => opened,
            none => none.insert(open()?),
        };
        instance.connect().map_err(engine_error)
    }
}

fn open() -> Result<(Instance, tempfile::TempDir), Status> {
    let scratch = tempfile::tempdir()
        .map_err(|error| Status::internal(format!("no directory for temporary files: {error}")))?;
    let config = InstanceConfig {
        path: None,
        access: Access::ReadWrite,
        memory_bytes: MEMORY_BYTES,
        threads: 1,
        temp_directory: scratch.path().to_owned(),
        temp_bytes_max: 0,
        storage_version: None,
        allowed_directories: Vec::new(),
        locked_down: true,
    };
    let instance = Instance::open(&config).map_err(engine_error)?;
    Ok((instance, scratch))
}

/// The arguments of a call, by name.
pub(super) struct Arguments(Vec<(String, Option<String>)>);

impl Arguments {
    fn of(batches: &[RecordBatch]) -> Result<Arguments, Status> {
        let wrong = || Status::internal("a call did not give one row of arguments");
        let mut rows = batches.iter().filter(|batch| batch.num_rows() > 0);
        let (Some(batch), None) = (rows.next(), rows.next()) else {
            return Err(wrong());
        };
        let mut all = Vec::new();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let text =
                arrow_cast::cast(column, &arrow_schema::DataType::Utf8).map_err(|_| wrong())?;
            let text = text
                .as_any()
                .downcast_ref::<StringArray>()
                .ok_or_else(wrong)?;
            let value = text.is_valid(0).then(|| text.value(0).to_owned());
            all.push((field.name().clone(), value));
        }
        Ok(Arguments(all))
    }

    /// The argument, if it was given and is not NULL.
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        value.as_deref()
    }

    /// The argument, which must be given, and make sense.
    fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, Status> {
        let value = self
            .get(name)
            .ok_or_else(|| Status::invalid_argument(format!("{name} must not be NULL")))?;
        let parsed = value.parse();
        parsed.map_err(|error: T::Err| Status::invalid_argument(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognised(sql: &str) -> Result<Option<Operation>, Status> {
        recognise(&engine::parse(sql).unwrap()[0])
    }

    #[test]
    fn every_function_is_in_the_list() {
        for (function, name, ..) in FUNCTIONS {
            assert_eq!(Function::named(name), Some(*function));
            assert_eq!(function.name(), *name);
        }
    }

    #[test]
    fn operations_are_found_in_the_tree_and_not_in_the_text() {
        for other in [
            "SELECT 'openduck_databases()'",
            "FROM openduck_databases",
            "FROM s.openduck_databases()",
            "SELECT openduck_snapshot('a') -- FROM openduck_databases()",
            "FROM openduck_unheard_of()",
        ] {
            assert_eq!(recognised(other).unwrap(), None, "{other}");
        }
        let shown = recognised(
            "SELECT * FROM (FROM /**/ OpenDuck_Log()) JOIN openduck_workers() USING (a)",
        );
        let expected = Operation::Show(vec![Function::Log, Function::Workers]);
        assert_eq!(shown.unwrap(), Some(expected));
        let called = recognised("CALL openduck_snapshot('a', name := 'b')");
        assert_eq!(called.unwrap(), Some(Operation::Act(Function::Snapshot)));
    }

    #[test]
    fn what_changes_something_is_called_alone() {
        for wrong in [
            "FROM openduck_restore('a', 'b')",
            "SELECT count(*) FROM openduck_cancel('1'), openduck_log()",
            "CREATE TABLE t AS FROM openduck_create('x')",
            "EXPLAIN CALL openduck_create('x')",
            "INSERT INTO t FROM openduck_log()",
        ] {
            assert!(recognised(wrong).is_err(), "{wrong}");
        }
    }
}
