//! What can go wrong inside a transaction, before the catalog's name is put to it.

use rusqlite::ffi::SQLITE_ERROR;
use rusqlite::{Error, ErrorCode};

use crate::catalog::CatalogError;

/// Why a transaction was rolled back.
#[derive(Debug)]
pub(super) enum Fault {
    /// The catalog's rules say no.
    Refused(CatalogError),
    /// SQLite says no.
    Sqlite(Error),
    /// A row, or the whole file, makes no sense.
    Damaged(String),
    /// The file can be read only.
    ReadOnly,
    /// The file can't be used, for a reason that SQLite does not know.
    Unusable(String),
}

/// Result of the work inside a transaction.
pub(super) type Outcome<T> = Result<T, Fault>;

impl From<CatalogError> for Fault {
    fn from(error: CatalogError) -> Self {
        Fault::Refused(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Sqlite(error)
    }
}

impl Fault {
    /// A refusal that goes away when the caller reads the catalog anew.
    pub(super) fn conflict(what: impl Into<String>) -> Fault {
        Fault::Refused(CatalogError::Conflict(what.into()))
    }

    /// The file, or the directory around it, does not let us write.
    pub(super) fn is_denial(&self) -> bool {
        match self {
            Fault::ReadOnly => true,
            Fault::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied)
            ),
            Fault::Refused(_) | Fault::Damaged(_) | Fault::Unusable(_) => false,
        }
    }

    /// The same as the caller of the catalog named `catalog` sees it.
    pub(super) fn into_error(self, catalog: &str) -> CatalogError {
        let catalog = catalog.to_owned();
        match self {
            Fault::Refused(error) => error,
            Fault::Damaged(reason) => CatalogError::Corrupt { catalog, reason },
            Fault::ReadOnly => CatalogError::ReadOnly { catalog },
            Fault::Unusable(reason) => CatalogError::Unavailable { catalog, reason },
            Fault::Sqlite(error) => sqlite_error(error, catalog),
        }
    }
}

fn sqlite_error(error: Error, catalog: String) -> CatalogError {
    let reason = error.to_string();
    match error {
        // What can't be read as what it should be: a column's type, a name, an id.
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::InvalidColumnName(_)
        | Error::Utf8Error(..)
        // A table or column that should be there is not.
        | Error::SqlInputError { .. } => return CatalogError::Corrupt { catalog, reason },
        Error::SqliteFailure(failure, _) if failure.extended_code == SQLITE_ERROR => {
            return CatalogError::Corrupt { catalog, reason };
        }
        _ => {}
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            CatalogError::Corrupt { catalog, reason }
        }
        Some(ErrorCode::ReadOnly) => CatalogError::ReadOnly { catalog },
        Some(ErrorCode::ConstraintViolation) => {
            CatalogError::Conflict(format!("a row would break the catalog's rules ({reason})"))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let waited_s = super::open::BUSY_TIMEOUT.as_secs();
            CatalogError::Unavailable {
                catalog,
                reason: format!("other processes have kept it locked for {waited_s} s"),
            }
        }
        _ => CatalogError::Unavailable { catalog, reason },
    }
}
