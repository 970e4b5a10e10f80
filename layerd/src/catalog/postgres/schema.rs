//! The schema and its versions.
//!
//! A table of its own holds the number of migrations that were applied. They are applied in one
//! transaction that holds the store's lock and looks at the number again: so any number of
//! processes may open a new store at one moment. A migration is never changed once it was
//! released; a newer schema is one more entry in [`MIGRATIONS`]. Whoever finds the schema up to
//! date needs no right to change it.
//!
//! How values are stored, `sql/value.rs` says.

use super::PostgresCatalog;
use super::tx::PostgresTx;
use crate::catalog::sql::fault::{Fault, Outcome};
use crate::catalog::sql::tx::{Durability, Query, Scope, Turn, Tx};
use crate::catalog::sql::value::values;

/// What brings a store from each version to the next.
const MIGRATIONS: &[&str] = &[include_str!("v1.sql"), include_str!("v2.sql")];

/// The newest version.
const KNOWN: i64 = MIGRATIONS.len() as i64;

/// Makes the store, or brings it up to date; an error where it is none, or of a newer version.
pub(super) fn bring_up_to_date(catalog: &PostgresCatalog) -> Outcome<()> {
    if catalog.run(Turn::Read, version)? == KNOWN {
        return Ok(());
    }
    let turn = Turn::Write(Scope::All, Durability::Durable);
    catalog.run(turn, |tx| {
        let found = version(tx)?;
        if found == 0 {
            begin(tx)?;
        }
        for (version, migration) in (1..).zip(MIGRATIONS) {
            if found < version {
                tx.script(migration);
            }
        }
        tx.execute("DELETE FROM catalog_version", values![])?;
        tx.execute(
            "INSERT INTO catalog_version (version) VALUES (?1)",
            values![KNOWN],
        )
    })
}

/// The store's version; 0 if there is none yet.
fn version(tx: &PostgresTx<'_>) -> Outcome<i64> {
    let table = Query::new(
        "SELECT 1 FROM pg_tables WHERE schemaname = ?1 AND tablename = 'catalog_version'",
        values![tx.schema()],
    );
    if tx.query_all(&[table])?.concat().is_empty() {
        return Ok(0);
    }
    let rows = tx
        .query_all(&[Query::new("SELECT version FROM catalog_version", values![])])?
        .concat();
    let [row] = rows.as_slice() else {
        return Err(Fault::Damaged("it has no version".to_owned()));
    };
    match row.get("version")? {
        found if (1..=KNOWN).contains(&found) => Ok(found),
        found => Err(Fault::Damaged(format!(
            "its version is {found}, and this program knows only those up to {KNOWN}; use a newer one"
        ))),
    }
}

/// Makes the schema, unless it was made for us and is empty.
fn begin(tx: &PostgresTx<'_>) -> Outcome<()> {
    let schema = tx.schema();
    let queries = [
        "SELECT 1 FROM pg_namespace WHERE nspname = ?1",
        "SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE nspname = ?1 LIMIT 1",
    ]
    .map(|sql| Query::new(sql, values![schema]));
    let found = tx.query_all(&queries)?;
    if !found[1].is_empty() {
        return Err(Fault::Damaged(format!(
            "its schema {schema} has tables of another program; choose another with ?schema=NAME"
        )));
    }
    if found[0].is_empty() {
        tx.script(&format!("CREATE SCHEMA \"{schema}\""));
    }
    Ok(())
}
