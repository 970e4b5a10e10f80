//! Access: who calls, and what he may touch.
//!
//! A [`Gate`] turns the metadata of a call into a [`Caller`], or refuses it. It is asked once for each
//! call, before anything of the request is looked at; what a caller may do is then decided by the
//! [`Caller`] alone. Nothing here knows SQL.

use std::collections::BTreeSet;
use std::sync::Arc;

use tonic::Status;
use tonic::metadata::MetadataMap;

pub mod handle;
pub mod peer;
pub mod title;
pub mod token;

/// Decides who a caller is.
#[tonic::async_trait]
pub trait Gate: Send + Sync + 'static {
    /// The caller behind these metadata.
    ///
    /// # Errors
    ///
    /// `UNAUTHENTICATED` where the credential is missing, wrong, expired or revoked, always with the
    /// same words; `UNAVAILABLE` where that can't be found out now.
    async fn authenticate(&self, metadata: &MetadataMap) -> Result<Caller, Status>;
}

/// Who calls. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The id of the token, which is no secret: results and sessions belong to it.
    pub token: Arc<str>,
    /// The databases that it has a right to.
    pub databases: Databases,
    /// Whether it may only read.
    pub read_only: bool,
}

/// A set of databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Databases {
    /// All of the store, and those that will come.
    All,
    /// These alone.
    Some(Arc<BTreeSet<String>>),
}

impl Databases {
    /// Whether `database` is one of them.
    pub fn contain(&self, database: &str) -> bool {
        match self {
            Databases::All => true,
            Databases::Some(names) => names.contains(database),
        }
    }
}

impl Caller {
    /// Refuses a database that the caller has no right to, in the words that one which does not exist
    /// gets: whether it exists is not for him to know.
    ///
    /// # Errors
    ///
    /// `PERMISSION_DENIED`.
    pub fn may_use(&self, database: &str) -> Result<(), Status> {
        if self.databases.contain(database) {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "this token has no right to a database {database:?}"
        )))
    }
}
