//! What the functions that show something show: rows, of which each caller sees those that he has a right
//! to.
//!
//! Databases, snapshots and workers are shown to whoever has a right to the database; statements to whoever
//! sent them, and all of them to a caller who may write to all databases.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use layerd::id::Timestamp;
use layerd::store::StoreError;
use tonic::Status;

use super::Function;
use crate::access::{Caller, Databases};
use crate::gateway::Gateway;
use crate::gateway::log::Outcome;

/// Whether the caller runs the place.
pub(super) fn is_operator(caller: &Caller) -> bool {
    caller.databases == Databases::All && !caller.read_only
}

/// What the store said, as a client may hear it.
pub(super) fn store_error(error: &StoreError) -> Status {
    use layerd::catalog::CatalogError as C;
    let message = error.to_string();
    match error {
        StoreError::NoSuchRef(_)
        | StoreError::Catalog(C::NoSuchDatabase(_) | C::NoSuchSnapshot { .. }) => {
            Status::not_found(message)
        }
        StoreError::Catalog(C::DatabaseExists(_) | C::SnapshotExists { .. }) => {
            Status::already_exists(message)
        }
        StoreError::Refused(_) | StoreError::Catalog(C::LeaseHeld { .. }) => {
            Status::failed_precondition(message)
        }
        StoreError::Catalog(C::Conflict(_)) => Status::aborted(message),
        // These may hold paths of the server.
        _ => {
            tracing::error!(%error, "an operation failed");
            Status::internal("the store failed; the gateway's log says why")
        }
    }
}

pub(super) fn text(values: impl IntoIterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

pub(super) fn numbers(values: impl IntoIterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<UInt64Array>())
}

pub(super) fn times(values: impl IntoIterator<Item = Timestamp>) -> ArrayRef {
    let micros = values.into_iter().map(|time| Some(time.0 / 1000));
    Arc::new(
        micros
            .collect::<TimestampMicrosecondArray>()
            .with_timezone("UTC"),
    )
}

fn truths(values: impl IntoIterator<Item = bool>) -> ArrayRef {
    Arc::new(values.into_iter().map(Some).collect::<BooleanArray>())
}

fn durations_us(values: impl IntoIterator<Item = Option<u64>>) -> ArrayRef {
    let signed = values
        .into_iter()
        .map(|value| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)));
    Arc::new(signed.collect::<Int64Array>())
}

pub(super) fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, Status> {
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(columns)
        .map_err(|error| Status::internal(error.to_string()))
}

impl Gateway {
    /// What a function shows to the caller. Blocks.
    pub(super) fn rows_of(
        &self,
        function: Function,
        caller: &Caller,
    ) -> Result<RecordBatch, Status> {
        match function {
            Function::Databases => self.databases(caller),
            Function::Snapshots => self.snapshots(caller),
            Function::Queries => self.queries(caller),
            Function::Workers => self.workers(caller),
            _ => self.finished(caller),
        }
    }

    fn databases(&self, caller: &Caller) -> Result<RecordBatch, Status> {
        let mut all = self.store.list().map_err(|error| store_error(&error))?;
        all.retain(|database| caller.databases.contain(database.name.as_str()));
        let bytes = all.iter().map(|database| self.store.bytes(database).ok());
        let is_written = all.iter().map(|database| {
            let lease = self.store.catalog().lease(database.id);
            lease.is_ok_and(|lease| lease.is_some())
        });
        batch(vec![
            (
                "name",
                text(all.iter().map(|one| Some(one.name.to_string()))),
            ),
            (
                "head_lsn",
                numbers(all.iter().map(|one| Some(one.head.lsn().0))),
            ),
            ("head_time", times(all.iter().map(|one| one.head.time))),
            ("bytes", numbers(bytes)),
            ("created", times(all.iter().map(|one| one.created))),
            ("is_written", truths(is_written)),
        ])
    }

    fn snapshots(&self, caller: &Caller) -> Result<RecordBatch, Status> {
        let catalog = self.store.catalog();
        let failed = |error| store_error(&StoreError::Catalog(error));
        let mut all = Vec::new();
        for database in catalog.databases().map_err(failed)? {
            if caller.databases.contain(database.name.as_str()) {
                let snapshots = catalog.snapshots(database.id).map_err(failed)?;
                all.extend(
                    snapshots
                        .into_iter()
                        .map(|one| (database.name.clone(), one)),
                );
            }
        }
        let each = || all.iter().map(|(_, snapshot)| snapshot);
        batch(vec![
            (
                "database",
                text(all.iter().map(|(name, _)| Some(name.to_string()))),
            ),
            ("id", text(each().map(|one| Some(one.id.to_string())))),
            (
                "name",
                text(each().map(|one| one.name.as_ref().map(ToString::to_string))),
            ),
            ("lsn", numbers(each().map(|one| Some(one.lsn.0)))),
            ("time", times(each().map(|one| one.time))),
            ("created", times(each().map(|one| one.created))),
        ])
    }

    fn queries(&self, caller: &Caller) -> Result<RecordBatch, Status> {
        let mut all = self.running.shown();
        all.retain(|one| is_operator(caller) || one.token == caller.token);
        let elapsed = all
            .iter()
            .map(|one| u64::try_from(one.elapsed.as_micros()).ok());
        batch(vec![
            (
                "query_id",
                text(all.iter().map(|one| Some(format!("{:016x}", one.number)))),
            ),
            (
                "database",
                text(all.iter().map(|one| Some(one.database.clone()))),
            ),
            (
                "token",
                text(all.iter().map(|one| Some(one.token.to_string()))),
            ),
            (
                "state",
                text(all.iter().map(|one| Some(one.state.to_owned()))),
            ),
            ("began", times(all.iter().map(|one| one.began))),
            ("elapsed_us", durations_us(elapsed)),
            ("worker", text(all.iter().map(|one| one.worker.clone()))),
            ("bytes", numbers(all.iter().map(|one| Some(one.bytes)))),
            ("sql", text(all.iter().map(|one| Some(one.sql.clone())))),
        ])
    }

    fn workers(&self, caller: &Caller) -> Result<RecordBatch, Status> {
        let mut all = self.fleet.all();
        all.retain(|one| match &one.database {
            Some(database) => caller.databases.contain(database),
            None => is_operator(caller),
        });
        all.sort_by_key(|one| (one.database.clone(), one.name()));
        let kind = |name: String| name.split('-').next().map(str::to_owned);
        let origin =
            |one: &crate::gateway::member::Member| format!("{:?}", one.origin).to_lowercase();
        batch(vec![
            ("name", text(all.iter().map(|one| Some(one.name())))),
            ("kind", text(all.iter().map(|one| kind(one.name())))),
            ("database", text(all.iter().map(|one| one.database.clone()))),
            ("origin", text(all.iter().map(|one| Some(origin(one))))),
            ("is_up", truths(all.iter().map(|one| one.is_up()))),
            (
                "running",
                numbers(all.iter().map(|one| Some(one.running() as u64))),
            ),
            ("lsn", numbers(all.iter().map(|one| Some(one.lsn())))),
        ])
    }

    fn finished(&self, caller: &Caller) -> Result<RecordBatch, Status> {
        let mut all = self.log.read().map_err(|error| {
            tracing::error!(%error, "the log of statements can't be read");
            Status::internal("the log can't be read; the gateway's own log says why")
        })?;
        all.retain(|one| is_operator(caller) || *one.token == *caller.token);
        let code = |outcome: &Outcome| match outcome {
            Outcome::Done => "Ok".to_owned(),
            Outcome::Failed { code, .. } => code.clone(),
        };
        let message = |outcome: &Outcome| match outcome {
            Outcome::Done => None,
            Outcome::Failed { message, .. } => Some(message.clone()),
        };
        batch(vec![
            ("query_id", text(all.iter().map(|one| Some(one.id.clone())))),
            ("began", times(all.iter().map(|one| one.began))),
            (
                "database",
                text(all.iter().map(|one| Some(one.database.clone()))),
            ),
            ("token", text(all.iter().map(|one| Some(one.token.clone())))),
            ("sql", text(all.iter().map(|one| one.sql.clone()))),
            ("code", text(all.iter().map(|one| Some(code(&one.outcome))))),
            ("message", text(all.iter().map(|one| message(&one.outcome)))),
            (
                "duration_us",
                durations_us(all.iter().map(|one| Some(one.duration_us))),
            ),
            (
                "queued_us",
                durations_us(all.iter().map(|one| Some(one.queued_us))),
            ),
            (
                "answered_us",
                durations_us(all.iter().map(|one| one.answered_us)),
            ),
            ("rows", numbers(all.iter().map(|one| one.rows))),
            ("bytes", numbers(all.iter().map(|one| Some(one.bytes)))),
            ("worker", text(all.iter().map(|one| one.worker.clone()))),
            ("lsn", numbers(all.iter().map(|one| Some(one.lsn)))),
        ])
    }
}
