//! Snapshots: take one, let one go, list them and the commits between.

use anyhow::Result;
use clap::Args;
use layerd::catalog;
use layerd::id::{DatabaseName, Lsn, SnapshotId, SnapshotName};
use layerd::reference::Ref;
use layerd::store::CommitInfo;
use serde_json::{Value, json};

use super::format::{self, Table};
use super::output::{Reply, Style};
use super::{Context, target};

/// The document that `snapshot`, `clone` and `restore` share.
pub(crate) fn document(
    database: &DatabaseName,
    id: Option<SnapshotId>,
    name: Option<&SnapshotName>,
    lsn: Lsn,
) -> Value {
    json!({ "database": database, "snapshot": { "id": id, "name": name, "lsn": lsn } })
}

/// Take a snapshot of the newest commit
///
/// It takes milliseconds, copies nothing, and works while the database is mounted and being
/// written. A named snapshot is kept until `unsnapshot`; one without a name for as long as the
/// database's retention says.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs snapshot mydb before-migration")]
pub(crate) struct Snapshot {
    /// The database
    #[arg(value_name = "DB")]
    database: DatabaseName,
    /// The snapshot's name
    name: Option<SnapshotName>,
}

impl Snapshot {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let database = &self.database;
        let taken = context.store()?.snapshot(database, self.name.as_ref())?;
        let mut document = document(database, Some(taken.id), taken.name.as_ref(), taken.lsn);
        document["snapshot"]["time"] = format::exact_time(taken.time).into();
        let called = match &taken.name {
            Some(name) => format!("{name} ({})", taken.id),
            None => taken.id.to_string(),
        };
        let reference = taken
            .name
            .as_ref()
            .map_or(taken.id.to_string(), ToString::to_string);
        Ok(Reply::new(
            document,
            format!(
                "snapshot {called} of {database} at lsn {}, {}; `openduck-fs mount {database}@{reference} DIR` opens it",
                taken.lsn,
                format::local_time(taken.time),
            ),
        ))
    }
}

/// Let a snapshot go
///
/// Its commit then lives for as long as the database's retention says.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs unsnapshot mydb before-migration")]
pub(crate) struct Unsnapshot {
    /// The database
    #[arg(value_name = "DB")]
    database: DatabaseName,
    /// The snapshot's name or id
    #[arg(value_name = "NAME", value_parser = target::snapshot)]
    snapshot: Ref,
}

impl Unsnapshot {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        context
            .store()?
            .unsnapshot(&self.database, &self.snapshot)?;
        let (database, snapshot) = (self.database, self.snapshot.to_string());
        Ok(Reply::new(
            json!({ "database": database, "unsnapshot": snapshot }),
            format!(
                "let snapshot {snapshot} of {database} go; `openduck-fs gc` frees what nothing else keeps"
            ),
        ))
    }
}

/// List a database's snapshots, oldest first
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs log mydb --commits")]
pub(crate) struct Log {
    /// The database
    #[arg(value_name = "DB")]
    database: DatabaseName,
    /// Also list every commit that is still kept
    #[arg(long)]
    commits: bool,
}

impl Log {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let database = &self.database;
        let snapshots = store.snapshots(database)?;
        let mut document =
            json!({ "database": database, "snapshots": snapshot_documents(&snapshots) });
        let style = context.output.style;
        let text = if self.commits {
            let commits = store.commits(database)?;
            document["commits"] = commit_documents(&commits);
            render_commits(database, &commits, &snapshots, style)
        } else {
            render_snapshots(database, &snapshots, style)
        };
        Ok(Reply::new(document, text))
    }
}

/// What each step added to what had been written before it: the first one all of its own.
fn added(written: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    let mut before = 0;
    written.map(move |written| written.saturating_sub(std::mem::replace(&mut before, written)))
}

fn snapshot_documents(snapshots: &[catalog::Snapshot]) -> Value {
    let added = added(snapshots.iter().map(|snapshot| snapshot.written_bytes));
    let documents = snapshots.iter().zip(added).map(|(snapshot, added_bytes)| {
        json!({
            "id": snapshot.id,
            "name": snapshot.name,
            "lsn": snapshot.lsn,
            "time": format::exact_time(snapshot.time),
            "added_bytes": added_bytes,
            "created": format::exact_time(snapshot.created),
        })
    });
    documents.collect()
}

fn commit_documents(commits: &[CommitInfo]) -> Value {
    let added = added(commits.iter().map(|commit| commit.written_bytes));
    let documents = commits.iter().zip(added).map(|(commit, added_bytes)| {
        json!({
            "lsn": commit.lsn,
            "time": format::exact_time(commit.time),
            "added_bytes": added_bytes,
            "written_bytes": commit.written_bytes,
            "layer": commit.layer,
        })
    });
    documents.collect()
}

fn render_snapshots(
    database: &DatabaseName,
    snapshots: &[catalog::Snapshot],
    style: Style,
) -> String {
    if snapshots.is_empty() {
        return format!(
            "{database} has no snapshots; `openduck-fs snapshot {database} NAME` takes one"
        );
    }
    let mut table = Table::new(&["ID", "NAME", ">LSN", "TIME", ">ADDED"]);
    let added = added(snapshots.iter().map(|snapshot| snapshot.written_bytes));
    for (snapshot, added) in snapshots.iter().zip(added) {
        table.row(vec![
            snapshot.id.to_string(),
            snapshot
                .name
                .as_ref()
                .map_or("-".to_owned(), ToString::to_string),
            snapshot.lsn.to_string(),
            format::local_time(snapshot.time),
            format::size(added),
        ]);
    }
    table.render(|head| style.bold(head))
}

fn render_commits(
    database: &DatabaseName,
    commits: &[CommitInfo],
    snapshots: &[catalog::Snapshot],
    style: Style,
) -> String {
    if commits.is_empty() {
        return format!("{database} has no commits yet; mount it and write");
    }
    let mut table = Table::new(&[">LSN", "TIME", ">ADDED", "LAYER", "SNAPSHOTS"]);
    let added = added(commits.iter().map(|commit| commit.written_bytes));
    for (commit, added) in commits.iter().zip(added) {
        // Sorted by LSN, as the catalog returns them.
        let first = snapshots.partition_point(|snapshot| snapshot.lsn < commit.lsn);
        let here = snapshots[first..]
            .iter()
            .take_while(|snapshot| snapshot.lsn == commit.lsn);
        let names: Vec<String> = here
            .map(|snapshot| {
                snapshot
                    .name
                    .as_ref()
                    .map_or(snapshot.id.to_string(), ToString::to_string)
            })
            .collect();
        table.row(vec![
            commit.lsn.to_string(),
            format::local_time(commit.time),
            format::size(added),
            commit.layer.to_string(),
            names.join(" "),
        ]);
    }
    table.render(|head| style.bold(head))
}

#[cfg(test)]
mod tests {
    use layerd::id::{Epoch, LayerId, Timestamp};

    use super::*;

    fn snapshot(id: u64, name: Option<&str>, lsn: u64, written_bytes: u64) -> catalog::Snapshot {
        catalog::Snapshot {
            id: SnapshotId(id),
            name: name.map(|name| name.parse().unwrap()),
            lsn: Lsn(lsn),
            time: Timestamp(1_500_000_000),
            written_bytes,
            created: Timestamp(2_000_000_000),
        }
    }

    fn commit(lsn: u64, written_bytes: u64) -> CommitInfo {
        CommitInfo {
            lsn: Lsn(lsn),
            time: Timestamp(1_500_000_000),
            written_bytes,
            layer: LayerId {
                epoch: Epoch(1),
                random: 2,
            },
        }
    }

    #[test]
    fn added_bytes_are_the_difference_to_the_snapshot_before() {
        let snapshots = [
            snapshot(1, Some("a"), 3, 100),
            snapshot(2, None, 5, 100),
            snapshot(3, None, 9, 350),
        ];
        let documents = snapshot_documents(&snapshots);
        let added: Vec<u64> = documents
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d["added_bytes"].as_u64().unwrap())
            .collect();
        assert_eq!(added, [100, 0, 250]);
        assert_eq!(
            documents[1],
            json!({"id": "snap-0000000000000002", "name": null, "lsn": 5, "time": "1970-01-01T00:00:01.5Z",
                   "added_bytes": 0, "created": "1970-01-01T00:00:02Z"})
        );
    }

    #[test]
    fn commits_name_the_snapshots_on_them() {
        let database: DatabaseName = "mydb".parse().unwrap();
        let snapshots = [
            snapshot(1, Some("a"), 2, 10),
            snapshot(2, Some("b"), 2, 10),
            snapshot(3, None, 3, 10),
        ];
        let shown = render_commits(
            &database,
            &[commit(1, 5), commit(2, 10), commit(3, 2_058)],
            &snapshots,
            Style::default(),
        );
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].ends_with("00000001-0000000000000002"), "{shown}");
        assert!(lines[2].ends_with("a b"), "{shown}");
        assert!(
            lines[3].contains("2.0 KiB") && lines[3].ends_with("snap-0000000000000003"),
            "{shown}"
        );
    }

    #[test]
    fn the_shared_document_has_its_fixed_keys() {
        let database: DatabaseName = "new".parse().unwrap();
        assert_eq!(
            document(&database, None, None, Lsn(4)),
            json!({"database": "new", "snapshot": {"id": null, "name": null, "lsn": 4}})
        );
    }
}
