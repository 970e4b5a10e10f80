//! What SQLite's errors mean to the catalog.

use rusqlite::ffi::SQLITE_ERROR;
use rusqlite::{Error, ErrorCode};

use super::open::BUSY_TIMEOUT;
use crate::catalog::sql::fault::Fault;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let reason = error.to_string();
        match &error {
            // What can't be read as what it should be.
            Error::InvalidColumnType(..) | Error::Utf8Error(..)
            // A table or column that should be there is not.
            | Error::SqlInputError { .. } => return Fault::Damaged(reason),
            Error::SqliteFailure(failure, _) if failure.extended_code == SQLITE_ERROR => {
                return Fault::Damaged(reason);
            }
            _ => {}
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Fault::Damaged(reason),
            Some(ErrorCode::ReadOnly) => Fault::ReadOnly,
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => Fault::Denied(reason),
            Some(ErrorCode::ConstraintViolation) => Fault::broken_rule(&reason),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Fault::Unusable(format!(
                "other processes have kept it locked for {} s",
                BUSY_TIMEOUT.as_secs()
            )),
            _ => Fault::Unusable(reason),
        }
    }
}

/// The file, or the directory around it, does not let us write.
pub(super) fn is_denial(fault: &Fault) -> bool {
    matches!(fault, Fault::ReadOnly | Fault::Denied(_))
}
