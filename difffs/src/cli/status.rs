//! What is mounted: every live mount of the home, asked over its socket.
//!
//! All are asked at once, and one that does not answer is listed with what the registry knows of
//! it, so that a stopped server is seen and hides nothing else.

use std::thread;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::format::{self, Table};
use super::output::{Reply, Style};
use crate::control::{self, Request};
use crate::registry::MountEntry;

/// The keys of a mount's status object, in their order.
const KEYS: [&str; 11] = [
    "database",
    "dir",
    "mode",
    "pid",
    "head_lsn",
    "epoch",
    "layers",
    "bytes_local",
    "bytes_remote",
    "upload_lag_ms",
    "cache",
];

/// Show the live mounts of this home
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs status --json | jq '.mounts[].head_lsn'")]
pub(crate) struct Status {}

impl Status {
    #[allow(clippy::unused_self, reason = "all commands are run alike")]
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let entries = context.registry().live()?;
        let mounts = ask_all(&entries);
        let text = render(&mounts, context.output.style);
        Ok(Reply::new(json!({ "mounts": mounts }), text))
    }
}

fn ask_all(entries: &[MountEntry]) -> Vec<Value> {
    thread::scope(|scope| {
        let asked: Vec<_> = entries
            .iter()
            .map(|entry| scope.spawn(move || control::request(entry, Request::Status)))
            .collect();
        entries
            .iter()
            .zip(asked)
            .filter_map(|(entry, answer)| match answer.join() {
                Ok(Ok(status)) => Some(status),
                // It ended between our look at the registry and the question.
                Ok(Err(control::ControlError::Gone { .. })) => None,
                Ok(Err(error)) => Some(known_of(entry, &error.to_string())),
                Err(_) => Some(known_of(entry, "the question failed")),
            })
            .collect()
    })
}

/// What can be said of a mount that does not answer: all keys are there, most of them null.
fn known_of(entry: &MountEntry, error: &str) -> Value {
    let mut status: Value = KEYS
        .iter()
        .map(|key| ((*key).to_owned(), Value::Null))
        .collect();
    status["database"] = json!(entry.database);
    status["dir"] = json!(entry.dir);
    status["mode"] = json!(entry.mode);
    status["pid"] = json!(entry.pid);
    status["error"] = json!(error);
    status
}

fn render(mounts: &[Value], style: Style) -> String {
    if mounts.is_empty() {
        return "nothing is mounted; `openduck-fs mount DB DIR` mounts a database".to_owned();
    }
    let mut table = Table::new(&[
        "DATABASE",
        "DIR",
        "MODE",
        ">PID",
        ">HEAD LSN",
        ">LAYERS",
        ">LOCAL",
        ">FETCHED",
    ]);
    for mount in mounts {
        let text = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let size = |value: &Value| value.as_u64().map_or("-".to_owned(), format::size);
        table.row(vec![
            text(&mount["database"]),
            text(&mount["dir"]),
            text(&mount["mode"]),
            text(&mount["pid"]),
            text(&mount["head_lsn"]),
            text(&mount["layers"]),
            size(&mount["bytes_local"]),
            size(&mount["cache"]["bytes"]),
        ]);
    }
    let mut shown = table.render(|head| style.bold(head));
    for error in mounts.iter().filter_map(|mount| mount["error"].as_str()) {
        shown.push_str(&format!("\n{}", style.yellow(&format::printable(error))));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> MountEntry {
        MountEntry {
            database: "mydb".into(),
            dir: "/mnt/mydb".into(),
            mode: "rw".into(),
            pid: 7,
            reference: None,
            socket: "/nowhere/7.sock".into(),
        }
    }

    #[test]
    fn a_mount_that_does_not_answer_still_has_all_keys() {
        let status = known_of(&entry(), "silent");
        for key in KEYS {
            assert!(status.get(key).is_some(), "{key}");
        }
        let shown = render(&[status], Style::default());
        assert!(
            shown
                .lines()
                .nth(1)
                .unwrap()
                .starts_with("mydb      /mnt/mydb  rw      7         -"),
            "{shown}"
        );
        assert!(shown.ends_with("silent"), "{shown}");
    }

    #[test]
    fn a_mount_that_ended_meanwhile_is_not_listed() {
        assert_eq!(ask_all(&[entry()]), Vec::<Value>::new());
    }

    #[test]
    fn without_mounts_it_says_how_to_get_one() {
        assert!(render(&[], Style::default()).contains("mount DB DIR"));
    }
}
