//! Care of the layers: verify them, compact them, give space back.
//!
//! The layer that a mount is writing can't be compacted, so `compact` first asks the mount to
//! begin a new one, and afterwards asks all mounts of the database to use what replaced theirs. A
//! mount that does not take over keeps reading the old layers, which its pins keep alive.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use layerd::id::DatabaseName;
use layerd::store::{CompactReport, GcReport, VerifyReport};
use serde_json::{Value, json};

use super::format::{self, count};
use super::output::{Reply, remark};
use super::{Context, progress};
use crate::control::{self, Request};
use crate::registry::MountEntry;

/// Check the stored layers against their checksums
///
/// Without a database, everything in the store. Exits with 1 where something is damaged.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs verify --deep")]
pub(crate) struct Verify {
    /// Only this database
    #[arg(value_name = "DB")]
    database: Option<DatabaseName>,
    /// Read every byte of every layer file, referenced or not
    #[arg(long)]
    deep: bool,
}

impl Verify {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let report = progress::with_bar("verifying".to_owned(), |progress| {
            store.verify(self.database.as_ref(), self.deep, progress)
        })?;
        Ok(verify_reply(&report))
    }
}

fn verify_reply(report: &VerifyReport) -> Reply {
    let document = json!({
        "ok": report.ok,
        "checked_bytes": report.checked_bytes,
        "problems": report.problems,
    });
    let checked = format::size(report.checked_bytes);
    if report.ok {
        return Reply::new(document, format!("ok: {checked} checked, no problem found"));
    }
    let lines: Vec<String> = report
        .problems
        .iter()
        .map(|problem| {
            format::printable(&format!(
                "{} at {}: {}",
                problem.layer, problem.offset, problem.what
            ))
        })
        .collect();
    let found = count(report.problems.len() as u64, "problem");
    Reply::new(document, lines.join("\n")).failing(format!(
        "{found} found in {checked}; `openduck-fs log DB` lists the snapshots that may still be whole, and `export` tries them"
    ))
}

/// Rewrite a database's layers into fewer and smaller ones
///
/// States that are kept stay as they are; readers and the writer go on meanwhile. What was
/// replaced goes with the next `gc`.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs compact mydb && openduck-fs gc")]
pub(crate) struct Compact {
    /// The database
    #[arg(value_name = "DB")]
    database: DatabaseName,
}

impl Compact {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let name = &self.database;
        let mounts = mounts_of(context, name)?;
        for mount in mounts.iter().filter(|mount| mount.mode == "rw") {
            if let Err(error) = control::request(mount, Request::Rotate) {
                bail!("{error}; unmount {name} or try again, then compact");
            }
        }
        let report = progress::with_bar(format!("compacting {name}"), |progress| {
            store.compact(name, progress)
        })?;
        // Mounts that came meanwhile loaded the new layers or hold pins on the old ones.
        for mount in &mounts {
            if let Err(error) = control::request(mount, Request::Reload) {
                remark(&format_args!("{error}; it goes on with the old layers"));
            }
        }
        Ok(Reply::new(
            compact_document(name, &report),
            compact_text(name, &report),
        ))
    }
}

fn mounts_of(context: &Context, name: &DatabaseName) -> Result<Vec<MountEntry>> {
    let mut mounts = context.registry().live()?;
    mounts.retain(|mount| mount.database == name.as_str());
    Ok(mounts)
}

fn compact_document(name: &DatabaseName, report: &CompactReport) -> Value {
    json!({
        "database": name,
        "layers_before": report.layers_before,
        "layers_after": report.layers_after,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
    })
}

fn compact_text(name: &DatabaseName, report: &CompactReport) -> String {
    if report.layers_before == 0 {
        return format!(
            "nothing to compact in {name}: its layers are as few and small as what is kept allows"
        );
    }
    format!(
        "compacted {name}: {} ({}) became {} ({}); `openduck-fs gc` deletes what was replaced",
        count(report.layers_before, "layer"),
        format::size(report.bytes_before),
        count(report.layers_after, "layer"),
        format::size(report.bytes_after),
    )
}

/// Delete layers that nothing refers to any more
///
/// Heads, snapshots, clones, retention and readers keep layers; what none of them keeps is deleted
/// once that has been so for the grace period.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs gc --dry-run --grace 0s")]
pub(crate) struct Gc {
    /// Tell what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// For how long a layer must have been unreferenced, or an object in the store left over: 1h, 0s
    /// [default: longer than a pin lives; a day]
    #[arg(long, value_name = "DURATION", value_parser = format::parse_duration, allow_hyphen_values = true)]
    grace: Option<Duration>,
}

impl Gc {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let report = context.store()?.gc(self.grace, self.dry_run)?;
        let document = json!({
            "layers_deleted": report.layers_deleted,
            "bytes_freed": report.bytes_freed,
            "layers_kept": report.layers_kept,
            "dry_run": self.dry_run,
        });
        Ok(Reply::new(document, gc_text(&report, self.dry_run)))
    }
}

fn gc_text(report: &GcReport, dry_run: bool) -> String {
    let deleted = count(report.layers_deleted, "layer");
    let freed = format::size(report.bytes_freed);
    let kept = report.layers_kept;
    match (report.layers_deleted, dry_run) {
        (0, _) => format!("nothing to delete; {} kept", count(kept, "layer")),
        (_, true) => format!(
            "would delete {deleted} and free {freed}; {kept} would stay; without --dry-run it does"
        ),
        (_, false) => format!("deleted {deleted}, freed {freed}; {kept} kept"),
    }
}

#[cfg(test)]
mod tests {
    use layerd::store::Problem;

    use super::*;

    #[test]
    fn damage_fails_the_command_and_is_listed() {
        let report = VerifyReport {
            ok: false,
            checked_bytes: 2048,
            problems: vec![Problem {
                layer: "00000001-0000000000000002".into(),
                offset: 512,
                what: "record checksum".into(),
            }],
        };
        let reply = verify_reply(&report);
        assert!(
            reply
                .failure()
                .unwrap()
                .starts_with("1 problem found in 2.0 KiB")
        );
        let good = VerifyReport {
            ok: true,
            ..VerifyReport::default()
        };
        assert_eq!(verify_reply(&good).failure(), None);
    }

    #[test]
    fn reports_say_what_was_done() {
        let gc = GcReport {
            layers_deleted: 2,
            bytes_freed: 1024,
            layers_kept: 3,
        };
        assert_eq!(
            gc_text(&gc, false),
            "deleted 2 layers, freed 1.0 KiB; 3 kept"
        );
        assert!(gc_text(&gc, true).starts_with("would delete 2 layers"));
        assert_eq!(
            gc_text(&GcReport::default(), true),
            "nothing to delete; 0 layers kept"
        );
        let name: DatabaseName = "mydb".parse().unwrap();
        assert!(compact_text(&name, &CompactReport::default()).starts_with("nothing to compact"));
    }
}
