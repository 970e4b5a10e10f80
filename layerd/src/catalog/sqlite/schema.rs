//! The schema and its versions.
//!
//! `user_version` of the file is the number of migrations that were applied to it. A file is
//! brought up to date inside one immediate transaction, which looks at the version again: so any
//! number of processes may open a new file at one moment. A migration is never changed once it
//! was released; a newer schema is one more entry in [`MIGRATIONS`].
//!
//! How values are stored, `sql/value.rs` says.

use rusqlite::{Connection, TransactionBehavior};

use crate::catalog::sql::fault::{Fault, Outcome};

/// What brings a file from each version to the next.
const MIGRATIONS: &[&str] = &[
    include_str!("v1.sql"),
    include_str!("v2.sql"),
    include_str!("v3.sql"),
];

/// The newest version.
const KNOWN: i64 = MIGRATIONS.len() as i64;

/// Marks the file as ours ("ODlc"), so that another program's file is never written to.
const APPLICATION_ID: i64 = 0x4f44_6c63;

/// Whether the file is ready for use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// It has the schema that this program knows.
    Current,
    /// It is empty, or has an older schema: [`migrate`] it.
    Older,
}

/// Says which schema the file has; an error where it is no catalog, or one of a newer version.
pub(super) fn version(connection: &Connection) -> Outcome<Version> {
    let found = pragma(connection, "user_version")?;
    let is_ours = pragma(connection, "application_id")? == APPLICATION_ID;
    match found {
        KNOWN if is_ours => Ok(Version::Current),
        _ if is_ours && (1..KNOWN).contains(&found) => Ok(Version::Older),
        0 if is_empty(connection)? => Ok(Version::Older),
        _ if is_ours => Err(Fault::Damaged(format!(
            "its version is {found}, and this program knows only those up to {KNOWN}; use a newer one"
        ))),
        _ => Err(Fault::Damaged(
            "it is a database of another program".to_owned(),
        )),
    }
}

/// Applies the migrations that are missing, if another process did not do so meanwhile.
pub(super) fn migrate(connection: &mut Connection) -> Outcome<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if version(&transaction)? == Version::Older {
        let found = pragma(&transaction, "user_version")?;
        for (version, migration) in (1..).zip(MIGRATIONS) {
            if found < version {
                transaction.execute_batch(migration)?;
            }
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", KNOWN)?;
    }
    transaction.commit()?;
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> Outcome<i64> {
    Ok(connection.pragma_query_value(None, name, |row| row.get(0))?)
}

fn is_empty(connection: &Connection) -> Outcome<bool> {
    Ok(connection.query_row(
        "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)",
        [],
        |row| row.get(0),
    )?)
}
