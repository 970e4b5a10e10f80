//! What PostgreSQL's errors mean to the catalog.

use std::error::Error as _;

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use super::CONNECT_TIMEOUT;
use super::tx::STATEMENT_TIMEOUT;
use crate::catalog::sql::fault::Fault;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error.as_db_error() {
            Some(refusal) => of_server(refusal),
            None => Fault::Lost(with_causes(&error)),
        }
    }
}

/// What the server says.
fn of_server(refusal: &DbError) -> Fault {
    let reason = refusal.message().to_owned();
    let code = refusal.code();
    match *code {
        SqlState::READ_ONLY_SQL_TRANSACTION => return Fault::ReadOnly,
        SqlState::UNDEFINED_TABLE
        | SqlState::UNDEFINED_COLUMN
        | SqlState::INVALID_SCHEMA_NAME
        | SqlState::DATATYPE_MISMATCH => return Fault::Damaged(reason),
        // Nothing of the transaction is left, and the next one may succeed.
        SqlState::T_R_SERIALIZATION_FAILURE
        | SqlState::T_R_DEADLOCK_DETECTED
        | SqlState::ADMIN_SHUTDOWN
        | SqlState::CRASH_SHUTDOWN
        | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => return Fault::Lost(reason),
        SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => {
            return Fault::Unusable(format!(
                "it did not answer within {} s, or other processes kept it locked ({reason})",
                STATEMENT_TIMEOUT.as_secs()
            ));
        }
        _ => {}
    }
    match code.code().get(..2) {
        Some("23") => Fault::broken_rule(&reason),
        Some("08") => Fault::Lost(reason),
        _ => Fault::Unusable(format!("{reason} (SQLSTATE {})", code.code())),
    }
}

/// Why there is no connection. To try again at once would not help.
pub(super) fn of_pool(error: PoolError) -> Fault {
    let reason = match error {
        PoolError::Backend(error) => match Fault::from(error) {
            Fault::Lost(reason) => reason,
            other => return other,
        },
        PoolError::Timeout(TimeoutType::Wait) => {
            "all connections of this process are busy".to_owned()
        }
        PoolError::Timeout(_) => {
            format!("it did not answer within {} s", CONNECT_TIMEOUT.as_secs())
        }
        other => other.to_string(),
    };
    Fault::Unusable(reason)
}

/// The error with what caused it, each said once.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
