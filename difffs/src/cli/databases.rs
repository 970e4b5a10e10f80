//! Databases as a whole: create, list, remove, undrop, retention.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use layerd::catalog::Database;
use layerd::id::{DatabaseName, Timestamp};
use serde_json::{Value, json};

use super::Context;
use super::format::{self, Table};
use super::output::{Reply, Style};

/// Create an empty database
///
/// `mount` does it by itself for a name that is new.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs create mydb")]
pub(crate) struct Create {
    /// The new database's name
    #[arg(value_name = "DB")]
    database: DatabaseName,
}

impl Create {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let database = context.store()?.create(&self.database)?;
        let name = &database.name;
        Ok(Reply::new(
            json!({ "database": document(&database, 0) }),
            format!(
                "created {name}, empty; `openduck-fs mount {name} DIR` makes its file appear in DIR"
            ),
        ))
    }
}

/// List the databases
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs list --json | jq -r '.databases[].name'")]
pub(crate) struct List {}

impl List {
    #[allow(clippy::unused_self, reason = "all commands are run alike")]
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let databases = store
            .list()?
            .into_iter()
            .map(|database| Ok((store.bytes(&database)?, database)))
            .collect::<Result<Vec<(u64, Database)>>>()?;
        let documents: Vec<Value> = databases
            .iter()
            .map(|(bytes, database)| document(database, *bytes))
            .collect();
        Ok(Reply::new(
            json!({ "databases": documents }),
            render_list(&databases, Timestamp::now(), context.output.style),
        ))
    }
}

/// A database as `--json` shows it.
pub(crate) fn document(database: &Database, bytes: u64) -> Value {
    json!({
        "name": database.name,
        "head_lsn": database.head.lsn(),
        "head_time": format::exact_time(database.head.time),
        "bytes": bytes,
        "created": format::exact_time(database.created),
        "retention_s": database.retention_s,
    })
}

fn render_list(databases: &[(u64, Database)], now: Timestamp, style: Style) -> String {
    if databases.is_empty() {
        return "no databases yet; `openduck-fs create DB` or `openduck-fs import FILE DB` makes one".to_owned();
    }
    let mut table = Table::new(&[
        "NAME",
        ">HEAD LSN",
        ">LAST COMMIT",
        ">SIZE",
        ">KEPT",
        "CREATED",
    ]);
    for (bytes, database) in databases {
        table.row(vec![
            database.name.to_string(),
            database.head.lsn().to_string(),
            match database.head.point {
                Some(_) => format!("{} ago", format::age(now, database.head.time)),
                None => "never".to_owned(),
            },
            format::size(*bytes),
            format::duration(database.retention_s),
            format::local_time(database.created),
        ]);
    }
    table.render(|head| style.bold(head))
}

/// Remove a database
///
/// Its name is free at once. Its layers stay for as long as its retention says, and until then
/// `undrop` brings it back.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs remove mydb")]
pub(crate) struct Remove {
    /// The database
    #[arg(value_name = "DB")]
    database: DatabaseName,
}

impl Remove {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let retention_s = store.database(&self.database)?.retention_s;
        store.remove(&self.database)?;
        let name = self.database;
        let kept = format::duration(retention_s);
        Ok(Reply::new(
            json!({ "removed": name, "retention_s": retention_s }),
            match retention_s {
                0 => format!("removed {name}; its layers go with the next `openduck-fs gc`"),
                _ => format!(
                    "removed {name}; for {kept}, `openduck-fs undrop {name}` brings it back"
                ),
            },
        ))
    }
}

/// Bring a removed database back
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs undrop mydb")]
pub(crate) struct Undrop {
    /// The removed database; the newest, should several have had this name
    #[arg(value_name = "DB")]
    database: DatabaseName,
}

impl Undrop {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let database = store.undrop(&self.database)?;
        let bytes = store.bytes(&database)?;
        let (name, lsn) = (&database.name, database.head.lsn());
        Ok(Reply::new(
            json!({ "database": document(&database, bytes) }),
            format!("{name} is back, at lsn {lsn}; `openduck-fs mount {name} DIR` opens it"),
        ))
    }
}

/// Set for how long every commit of a database is kept
///
/// Named snapshots are kept until `unsnapshot`, whatever this says.
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck-fs retention mydb 30d\n\nWith 0, only the newest state and named snapshots are kept: `compact` and `gc` then give the rest back."
)]
pub(crate) struct Retention {
    /// The database
    #[arg(value_name = "DB")]
    database: DatabaseName,
    /// For how long: 7d, 12h, 30m, 0
    #[arg(value_name = "DURATION", value_parser = format::parse_duration)]
    duration: Duration,
}

impl Retention {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        context
            .store()?
            .set_retention(&self.database, self.duration)?;
        let name = self.database;
        let seconds = self.duration.as_secs();
        let what = match seconds {
            0 => format!("{name} keeps its newest state and its named snapshots only"),
            _ => format!(
                "{name} keeps every commit for {}",
                format::duration(seconds)
            ),
        };
        Ok(Reply::new(
            json!({ "database": name, "retention_s": seconds }),
            format!(
                "{what}; `openduck-fs compact {name}` and `openduck-fs gc` free what has expired"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use layerd::catalog::{Head, StatePoint};
    use layerd::id::{DatabaseId, Epoch, LayerId, Lsn};

    use super::*;

    fn database(name: &str, lsn: u64, created: i64) -> Database {
        let created = Timestamp(created * 1_000_000_000);
        let layer = LayerId {
            epoch: Epoch(1),
            random: 1,
        };
        Database {
            id: DatabaseId(1),
            name: name.parse().unwrap(),
            created,
            dropped: None,
            retention_s: 604_800,
            head: Head {
                point: (lsn > 0).then_some(StatePoint {
                    layer,
                    lsn: Lsn(lsn),
                }),
                time: created,
                written_bytes: 0,
            },
            base: None,
            epoch: Epoch(1),
            generation: 0,
        }
    }

    #[test]
    fn the_list_aligns_and_says_when_the_last_commit_was() {
        let rows = [
            (1 << 20, database("mydb", 42, 0)),
            (0, database("a-new-one", 0, 0)),
        ];
        let shown = render_list(&rows, Timestamp(7_200_000_000_000), Style::default());
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("NAME       HEAD LSN"), "{shown}");
        assert!(
            lines[1].starts_with("mydb             42      2 h ago  1.0 MiB    7d  "),
            "{shown}"
        );
        assert!(
            lines[2].starts_with("a-new-one         0        never      0 B    7d  "),
            "{shown}"
        );
    }

    #[test]
    fn an_empty_list_says_what_to_do() {
        assert!(render_list(&[], Timestamp(0), Style::default()).contains("create DB"));
    }

    #[test]
    fn the_document_has_its_fixed_keys() {
        let document = document(&database("mydb", 3, 1), 5);
        assert_eq!(document["name"], "mydb");
        assert_eq!(document["head_lsn"], 3);
        assert_eq!(document["bytes"], 5);
        assert_eq!(document["created"], "1970-01-01T00:00:01Z");
    }
}
