//! Waiting for a commit to be published: what other databases stand on, other hosts must be able to read.
//!
//! With a remote store, a commit that was acknowledged is on its writer's host alone until it was
//! uploaded, and it never becomes part of its database if that host is replaced before. A clone of it
//! would be a database that nobody can open.

use std::time::Duration;

use crate::catalog::Database;
use crate::id::Lsn;
use crate::machine::{Instant, sleep};
use crate::store::{Result, Store, StoreError};

/// How long a commit is waited for: a lag, and an upload that is tried again.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// How often the catalog is asked meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Store {
    /// Returns once the catalog's head has reached `lsn`. [`StoreError::Refused`] if it did not in
    /// 20 s, or nobody is there who would move it. Where layers are read in place, a commit that was
    /// acknowledged is there for everybody.
    pub(crate) fn wait_until_published(&self, database: &Database, lsn: Lsn) -> Result<()> {
        if self.remote().is_none() {
            return Ok(());
        }
        let begin = Instant::now();
        loop {
            // In this order: a writer publishes before it ends.
            let is_written = self.is_written(database)?;
            let published = self.catalog().database_by_id(database.id)?.head.lsn();
            if published >= lsn {
                return Ok(());
            }
            if !is_written || begin.elapsed() >= WAIT_MAX {
                let name = &database.name;
                return Err(StoreError::Refused(format!(
                    "commit {lsn} of {name} is on this host alone, and the remote store does not take it; try again once that answers, or use an earlier commit: {name}@lsn:{published} is there"
                )));
            }
            sleep(LOOK_EVERY);
        }
    }
}
