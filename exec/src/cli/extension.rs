//! `extension`: signs the client's extension and puts it where the gateway serves it.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::keys::KeyOption;
use super::{Context, output};
use crate::extension::key::SigningKey;
use crate::extension::repository::{self, Published};

/// Sign DuckDB's extension, and serve it to clients
#[derive(Args)]
#[command(after_help = "Example:\n  openduck extension publish openduck.duckdb_extension")]
pub(super) struct Extension {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Publish(Publish),
}

/// Sign extensions and put them into a repository
///
/// A repository is a directory from which DuckDB installs, and which gateways serve under /extension. All
/// that is in one should be signed with the same key.
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck keys create\n  openduck extension publish openduck.duckdb_extension od.duckdb_extension"
)]
struct Publish {
    /// Extensions, as scripts/build-extension makes them
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    key: KeyOption,
    /// The repository [default: extensions in the home, which the home's gateways serve]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// The repository of a home, which its gateways serve.
pub(super) fn own_repository(context: &Context) -> PathBuf {
    context.config.home.join("extensions")
}

impl Extension {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        match self.command {
            Command::Publish(publish) => publish.run(context),
        }
    }
}

impl Publish {
    fn run(self, context: &Context) -> Result<()> {
        let key = SigningKey::read(&self.key.path(context))?;
        let to = self.to.unwrap_or_else(|| own_repository(context));
        let publish = |file: &PathBuf| repository::publish(file, &key, &to);
        let published: Vec<Published> = self.files.iter().map(publish).collect::<Result<_, _>>()?;
        if self.json {
            let each = |one: &Published| {
                json!({
                    "name": one.name,
                    "duckdb": one.footer.duckdb_version,
                    "platform": one.footer.platform,
                    "path": one.path,
                })
            };
            let all: Vec<_> = published.iter().map(each).collect();
            let document = json!({ "repository": to, "published": all });
            return Ok(output::print(&format_args!("{document}\n"))?);
        }
        for one in published {
            let line = format!(
                "{} for DuckDB {} on {}: {}\n",
                one.name,
                one.footer.duckdb_version,
                one.footer.platform,
                one.path.display()
            );
            output::print(&line)?;
        }
        Ok(())
    }
}
