//! A transaction on the catalog's file: everything is carried out at once.

use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};

use crate::catalog::sql::fault::{Fault, Outcome};
use crate::catalog::sql::tx::{Query, Tx};
use crate::catalog::sql::value::{Row, Value};
use crate::id::Timestamp;

/// A transaction, and the time at which it began.
pub(super) struct SqliteTx<'a> {
    pub(super) connection: &'a Connection,
    pub(super) now: Timestamp,
}

impl Tx for SqliteTx<'_> {
    fn now(&self) -> Outcome<Timestamp> {
        Ok(self.now)
    }

    fn query_all(&self, queries: &[Query]) -> Outcome<Vec<Vec<Row>>> {
        queries.iter().map(|query| self.rows(query)).collect()
    }

    fn execute(&self, sql: &'static str, params: &[Value]) -> Outcome<()> {
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.execute(params_from_iter(params))?;
        Ok(())
    }

    fn announce(&self) -> Outcome<()> {
        // Nobody can be told.
        Ok(())
    }
}

impl SqliteTx<'_> {
    fn rows(&self, query: &Query) -> Outcome<Vec<Row>> {
        let mut statement = self.connection.prepare_cached(&query.sql)?;
        let columns: Arc<[String]> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query(params_from_iter(&query.params))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let values: Vec<Value> = (0..columns.len())
                .map(|position| value(row.get_ref(position)?))
                .collect::<Outcome<_>>()?;
            found.push(Row::new(Arc::clone(&columns), values));
        }
        Ok(found)
    }
}

fn value(found: ValueRef<'_>) -> Outcome<Value> {
    Ok(match found {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Integer(value),
        ValueRef::Text(bytes) => Value::Text(
            str::from_utf8(bytes)
                .map_err(|error| Fault::Damaged(format!("a text is none: {error}")))?
                .to_owned(),
        ),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        ValueRef::Real(value) => {
            return Err(Fault::Damaged(format!("it holds {value}, a fraction")));
        }
    })
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Integer(value) => ValueRef::Integer(*value),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}
