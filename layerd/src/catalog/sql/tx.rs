//! What the calls need of a database: transactions, and queries in them.

use std::borrow::Cow;
use std::sync::Arc;

use super::fault::Outcome;
use super::value::{Row, Value};
use crate::catalog::Changes;
use crate::id::{DatabaseId, Timestamp};

/// Opens transactions. Whatever implements it is a catalog.
pub(in crate::catalog) trait Driver: Send + Sync {
    /// The catalog's name, as errors tell it: a path, or a URL without credentials.
    fn name(&self) -> &str;

    /// The catalog's clock.
    fn clock(&self) -> Outcome<Timestamp>;

    /// Runs `work` in one transaction, which is undone if `work` fails. Where a connection was
    /// lost before anything could be committed, `work` may run once more from the beginning.
    fn transact<T>(&self, turn: Turn, work: impl FnMut(&dyn Tx) -> Outcome<T>) -> Outcome<T>;

    /// Word of other processes' changes, where the database can give it.
    fn watch(&self) -> Option<Arc<Changes>> {
        None
    }
}

/// What a transaction is about to do, and what must stand still meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::catalog) enum Turn {
    /// It reads one state of everything, and waits for nobody.
    Read,
    /// It writes.
    Write(Scope, Durability),
}

/// What a writing transaction relies on. Whatever the scope, every query in it sees all that was
/// committed before by those it had to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::catalog) enum Scope {
    /// Nobody else writes.
    All,
    /// Nobody writes with this scope and database, or with [`Scope::All`]. What it writes is of
    /// this database alone: its row, lease, snapshots, segments.
    Database(DatabaseId),
    /// Nobody writes with [`Scope::All`]. It writes one pin, or one worker, which has one owner.
    Pins,
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::catalog) enum Durability {
    /// It survives a power loss.
    Durable,
    /// It survives the process; a driver may do more.
    Coalesced,
}

/// A query and its parameters.
#[derive(Clone, Debug)]
pub(in crate::catalog) struct Query {
    pub(in crate::catalog) sql: Cow<'static, str>,
    pub(in crate::catalog) params: Vec<Value>,
}

impl Query {
    pub(in crate::catalog) fn new(sql: impl Into<Cow<'static, str>>, params: &[Value]) -> Query {
        Query {
            sql: sql.into(),
            params: params.to_vec(),
        }
    }
}

/// An open transaction.
pub(in crate::catalog) trait Tx {
    /// The catalog's clock, after the wait for others.
    fn now(&self) -> Outcome<Timestamp>;

    /// The rows of each of the queries, which may travel together.
    fn query_all(&self, queries: &[Query]) -> Outcome<Vec<Vec<Row>>>;

    /// Changes rows. It may be carried out later, together with others: before the next query, or
    /// in the commit, which then fails if it does.
    fn execute(&self, sql: &'static str, params: &[Value]) -> Outcome<()>;

    /// Tells whoever watches ([`Driver::watch`]), once this is committed.
    fn announce(&self) -> Outcome<()>;
}

impl dyn Tx + '_ {
    /// The rows of one query.
    pub(super) fn query(&self, query: Query) -> Outcome<Vec<Row>> {
        Ok(self.query_all(&[query])?.pop().unwrap_or_default())
    }

    /// The only row of a query, if it has one.
    pub(super) fn query_row(&self, query: Query) -> Outcome<Option<Row>> {
        Ok(self.query(query)?.into_iter().next())
    }

    /// Whether the query finds a row.
    pub(super) fn exists(&self, query: Query) -> Outcome<bool> {
        Ok(!self.query(query)?.is_empty())
    }
}
