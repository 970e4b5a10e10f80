//! `status`: what a gateway has and does.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value};

use super::connect::{Client, Connect};
use super::rows::{self, Listed};
use super::{Context, output, runtime};

const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What is shown: the heading, the statement.
const PARTS: &[(&str, &str)] = &[
    (
        "databases",
        "SELECT name, head_lsn, bytes, is_written FROM openduck_databases() ORDER BY name",
    ),
    (
        "workers",
        "SELECT name, database, origin, is_up, running, lsn FROM openduck_workers() ORDER BY database, name",
    ),
    (
        "queries",
        "SELECT query_id, database, token, state, elapsed_us // 1000 AS elapsed_ms, worker, bytes, \
         regexp_replace(sql[:60], '\\s+', ' ', 'g') AS sql \
         FROM openduck_queries() WHERE database <> '' ORDER BY began",
    ),
];

/// Show databases, workers and what runs
#[derive(Args)]
#[command(after_help = "Example:\n  openduck status --watch")]
pub(super) struct Status {
    /// Show it again each second, until it is interrupted
    #[arg(long)]
    watch: bool,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) connect: Connect,
}

impl Status {
    pub(super) fn run(self, context: &Context) -> Result<()> {
        runtime()?.block_on(async {
            let mut client = self.connect.open(context).await?;
            loop {
                let text = match self.json {
                    true => format!("{}\n", document(&mut client).await?),
                    false => text(&mut client).await?,
                };
                if self.watch && output::is_terminal() {
                    output::print(&"\x1b[H\x1b[2J")?;
                }
                output::print(&text)?;
                if !self.watch {
                    return Ok(());
                }
                tokio::time::sleep(WATCH_EVERY).await;
            }
        })
    }
}

async fn text(client: &mut Client) -> Result<String> {
    let mut parts = Vec::new();
    for (_, sql) in PARTS {
        let Listed { titles, rows, .. } = rows::list(client, sql).await?;
        parts.push(output::table(&titles, &rows));
    }
    Ok(parts.join("\n"))
}

async fn document(client: &mut Client) -> Result<Value> {
    let mut document = Map::new();
    for (heading, sql) in PARTS {
        let Listed {
            titles,
            types,
            rows,
        } = rows::list(client, sql).await?;
        let objects = rows.into_iter().map(|row| {
            let cells = row
                .into_iter()
                .zip(&types)
                .map(|(cell, kind)| value(cell, kind));
            Value::Object(titles.iter().cloned().zip(cells).collect())
        });
        document.insert((*heading).to_owned(), objects.collect());
    }
    Ok(Value::Object(document))
}

/// A cell as JSON has it: numbers and truths as such.
fn value(cell: Option<String>, duckdb_type: &str) -> Value {
    let Some(text) = cell else {
        return Value::Null;
    };
    match duckdb_type {
        "UBIGINT" | "BIGINT" | "BOOLEAN" => text.parse().unwrap_or(Value::String(text)),
        _ => Value::String(text),
    }
}
