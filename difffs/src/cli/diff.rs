//! What differs between two states, file by file.

use anyhow::Result;
use clap::Args;
use layerd::id::DatabaseName;
use layerd::store::FileDiff;
use serde_json::json;

use super::Context;
use super::format::{self, Table};
use super::output::{Reply, Style};
use super::target::Target;

/// Compare two states, of one database or of two
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs diff mydb@nightly mydb@latest")]
pub(crate) struct Diff {
    /// The state before; the newest commit, where none is named
    #[arg(value_name = "DB@REF", value_parser = Target::parse)]
    from: Target,
    /// The state after
    #[arg(value_name = "DB@REF", value_parser = Target::parse)]
    to: Target,
}

impl Diff {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let (from, to) = (&self.from, &self.to);
        let mut files = store.diff(from.database(), from.state(), to.database(), to.state())?;
        for file in &mut files {
            file.path = named(&file.path, to.database());
        }
        let document = json!({
            "from": from.text(),
            "to": to.text(),
            "same": files.is_empty(),
            "changed_bytes": files.iter().map(|file| file.changed_bytes).sum::<u64>(),
            "files": files,
        });
        let text = match files.as_slice() {
            [] => format!(
                "{} and {} are the same, byte for byte",
                from.text(),
                to.text()
            ),
            files => render(files, context.output.style),
        };
        Ok(Reply::new(document, text))
    }
}

/// The engine names a database's own files `*.duckdb…`, because two databases call them differently;
/// people know them by the name in the state after.
fn named(path: &str, database: &DatabaseName) -> String {
    match path.strip_prefix('*') {
        Some(rest) => format!("{database}{rest}"),
        None => path.to_owned(),
    }
}

fn render(files: &[FileDiff], style: Style) -> String {
    let mut table = Table::new(&[
        "FILE",
        "CHANGE",
        ">BEFORE",
        ">AFTER",
        ">DIFFERENT",
        ">RANGES",
    ]);
    for file in files {
        table.row(vec![
            file.path.clone(),
            file.change.to_owned(),
            format::size(file.size.0),
            format::size(file.size.1),
            format::size(file.changed_bytes),
            file.ranges.len().to_string(),
        ]);
    }
    table.render(|head| style.bold(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_a_line() {
        let file = FileDiff {
            path: "mydb.duckdb".into(),
            change: "changed",
            size: (4096, 8192),
            changed_bytes: 5000,
            ranges: vec![(0, 904), (4096, 4096)],
        };
        let shown = render(&[file], Style::default());
        let words: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            words,
            [
                "mydb.duckdb",
                "changed",
                "4.0",
                "KiB",
                "8.0",
                "KiB",
                "4.9",
                "KiB",
                "2"
            ]
        );
    }
}
