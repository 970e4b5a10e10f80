//! How a command reaches the caller: its outcome on stdout, one line on stderr when it failed.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

/// Prints a text as it is. A reader that went away (`| head`) is no error; any other failure is.
pub(super) fn print(text: &dyn Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = write!(stdout, "{text}").and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Tells of a failure: one line on stderr. Whether anybody reads it can't be helped.
pub(super) fn complain(what: &dyn Display) {
    let mut line = String::new();
    for part in what.to_string().lines().map(str::trim) {
        if !line.is_empty() && !part.is_empty() {
            line.push(' ');
        }
        line.push_str(&printable(part));
    }
    let _ = writeln!(io::stderr(), "openduck: {line}");
}

/// Tells of something that went on meanwhile: one line on stderr, nothing that a program needs.
pub(super) fn remark(what: &dyn Display) {
    let _ = writeln!(io::stderr(), "{}", printable(&what.to_string()));
}

/// The text without what would make a terminal do things.
fn printable(text: &str) -> String {
    let plain = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(plain).collect()
}

/// Whether people look at stdout.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A table, with columns as wide as their widest cell.
pub(super) fn table(titles: &[String], rows: &[Vec<Option<String>>]) -> String {
    let shown = |cell: &Option<String>| match cell {
        Some(text) => printable(&text.replace('\n', "⏎")),
        None => "NULL".to_owned(),
    };
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(shown).collect())
        .collect();
    let titles: Vec<String> = titles.iter().map(|title| printable(title)).collect();
    let width = |place: usize| {
        let all = cells.iter().filter_map(|row| row.get(place));
        all.chain(titles.get(place))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line = |row: &[String]| {
        let padded: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let rule: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
    let mut text = line(&titles);
    text.push_str(&line(&rule));
    cells.iter().for_each(|row| text.push_str(&line(row)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_leaves_the_terminal_alone() {
        let text = table(
            &["a".into(), "long title".into()],
            &[
                vec![Some("wide cell".into()), None],
                vec![Some("ü\u{1b}[2J".into()), Some("x\ny".into())],
            ],
        );
        assert_eq!(
            text,
            "a          long title\n─────────  ──────────\nwide cell  NULL\nü\u{fffd}[2J      x⏎y\n"
        );
    }
}
