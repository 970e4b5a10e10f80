//! Plain DuckDB files in and out.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use layerd::id::DatabaseName;
use serde_json::json;

use super::format;
use super::output::Reply;
use super::target::{self, Target};
use super::{Context, databases, progress};

/// Copy a plain DuckDB file, and its WAL, into a new database
///
/// Refused while another process has the file open for writing.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs import sales.duckdb sales")]
pub(crate) struct Import {
    /// The file; its .wal files beside it come along
    #[arg(value_parser = target::path)]
    file: PathBuf,
    /// The new database's name
    #[arg(value_name = "DB")]
    database: DatabaseName,
}

impl Import {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let name = &self.database;
        let file = self.file.display();
        let database = progress::with_bar(format!("importing {file}"), |progress| {
            store.import(&self.file, name, progress)
        })
        .with_context(|| format!("import of {file} as {name}"))?;
        let bytes = store.bytes(&database)?;
        let (lsn, size) = (database.head.lsn(), format::size(bytes));
        Ok(Reply::new(
            json!({ "database": databases::document(&database, bytes) }),
            format!(
                "imported {file} as {name}, {size}, at lsn {lsn}; `openduck-fs mount {name} DIR` opens it"
            ),
        ))
    }
}

/// Write a state of a database to a plain DuckDB file
///
/// The file, and its WAL if that state has one, are what DuckDB wrote, bit by bit. Nothing is
/// overwritten.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs export mydb@nightly backup.duckdb")]
pub(crate) struct Export {
    /// What to export; the newest commit, where no state is named
    #[arg(value_name = "DB[@REF]", value_parser = Target::parse)]
    target: Target,
    /// The file to make
    #[arg(value_parser = target::path)]
    file: PathBuf,
}

impl Export {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let target = self.target.text();
        let file = self.file.display();
        let files = progress::with_bar(format!("exporting {target}"), |progress| {
            store.export(
                self.target.database(),
                self.target.state(),
                &self.file,
                progress,
            )
        })
        .with_context(|| format!("export of {target} to {file}"))?;
        let written: Vec<String> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        let text = format!(
            "exported {target} to {}; any DuckDB opens it",
            written.join(" and ")
        );
        Ok(Reply::new(
            json!({ "database": self.target.database(), "files": written }),
            text,
        ))
    }
}

/// Copy a database, with its history, to another catalog and store
///
/// From a home of its own to PostgreSQL and a bucket, or back. Commits and snapshots keep their
/// numbers and names; the database here stays as it is. Refused while it is mounted for writing.
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck-fs copy sales --to-meta postgres://db/openduck --to-objects s3://bucket/ducks"
)]
pub(crate) struct Copy {
    /// What to copy
    #[arg(value_name = "DB")]
    database: DatabaseName,
    /// The other catalog; a URL with a password is better given as OPENDUCK_TO_META
    #[arg(
        long,
        value_name = "URL",
        env = "OPENDUCK_TO_META",
        hide_env_values = true
    )]
    to_meta: String,
    /// The other store of layers
    #[arg(
        long,
        value_name = "URL",
        env = "OPENDUCK_TO_OBJECTS",
        hide_env_values = true
    )]
    to_objects: String,
}

impl Copy {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let target = context.other_store(self.to_meta, self.to_objects)?;
        let name = &self.database;
        let database = progress::with_bar(format!("copying {name}"), |progress| {
            store.copy_to(name, &target, progress)
        })
        .with_context(|| format!("copy of {name}"))?;
        let bytes = target.bytes(&database)?;
        let home = target.home().to_owned();
        drop(target);
        std::fs::remove_dir_all(&home)
            .with_context(|| format!("cannot remove {}", home.display()))?;
        let (lsn, size) = (database.head.lsn(), format::size(bytes));
        Ok(Reply::new(
            json!({ "database": databases::document(&database, bytes) }),
            format!("copied {name}, {size}, at lsn {lsn}, with its history"),
        ))
    }
}
