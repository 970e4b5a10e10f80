//! What can go wrong inside a transaction, before the catalog's name is put to it. Drivers turn
//! their database's errors into these where they happen.

use crate::catalog::CatalogError;

/// Why a transaction was undone.
#[derive(Debug)]
pub(in crate::catalog) enum Fault {
    /// The catalog's rules say no.
    Refused(CatalogError),
    /// A row, or all of them, make no sense.
    Damaged(String),
    /// It can be read only.
    ReadOnly,
    /// The operating system does not let us write, or not even read.
    Denied(String),
    /// The connection was lost, and nothing can have been committed: to begin anew may help.
    Lost(String),
    /// It can't be used for another reason.
    Unusable(String),
}

/// Result of the work inside a transaction.
pub(in crate::catalog) type Outcome<T> = Result<T, Fault>;

impl From<CatalogError> for Fault {
    fn from(error: CatalogError) -> Self {
        Fault::Refused(error)
    }
}

impl Fault {
    /// A refusal that goes away when the caller reads the catalog anew.
    pub(in crate::catalog) fn conflict(what: impl Into<String>) -> Fault {
        Fault::Refused(CatalogError::Conflict(what.into()))
    }

    /// The refusal of a row that breaks a constraint.
    pub(in crate::catalog) fn broken_rule(reason: &str) -> Fault {
        Fault::conflict(format!("a row would break the catalog's rules ({reason})"))
    }

    /// The same as the caller of the catalog named `catalog` sees it.
    pub(in crate::catalog) fn into_error(self, catalog: &str) -> CatalogError {
        let catalog = catalog.to_owned();
        match self {
            Fault::Refused(error) => error,
            Fault::Damaged(reason) => CatalogError::Corrupt { catalog, reason },
            Fault::ReadOnly => CatalogError::ReadOnly { catalog },
            Fault::Denied(reason) | Fault::Lost(reason) | Fault::Unusable(reason) => {
                CatalogError::Unavailable { catalog, reason }
            }
        }
    }
}
