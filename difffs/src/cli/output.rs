//! What a command answers, and how it reaches the caller: one JSON document or text on stdout,
//! one line on stderr when it failed.
//!
//! A reader that went away (`| head`) is no error; any other failure to print is.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::format::printable;

/// What a command has to say when it is done.
pub(crate) struct Reply {
    document: Value,
    text: String,
    failure: Option<String>,
}

impl Reply {
    /// The document that `--json` prints, and the text that people get instead.
    pub(crate) fn new(document: Value, text: impl Into<String>) -> Reply {
        Reply {
            document,
            text: text.into(),
            failure: None,
        }
    }

    /// The command did its work, and what it found makes its exit status 1.
    pub(crate) fn failing(mut self, why: String) -> Reply {
        self.failure = Some(why);
        self
    }

    /// Why the exit status is to be 1, if it is.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

/// How to print.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    /// Print the document, not the text.
    pub(crate) json: bool,
    /// How the text may look.
    pub(crate) style: Style,
}

impl Output {
    /// Text for people is coloured only on a terminal, and not where `NO_COLOR` is set.
    pub(crate) fn to_stdout(json: bool) -> Output {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let color = !refused && !dumb && io::stdout().is_terminal();
        Output {
            json,
            style: Style { color },
        }
    }

    /// Prints a reply.
    pub(crate) fn print(&self, reply: &Reply) -> io::Result<()> {
        if self.json {
            print_line(&reply.document)
        } else {
            print_line(&reply.text)
        }
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Default)]
pub(crate) struct Style {
    color: bool,
}

impl Style {
    /// The head of a table, the name of a thing.
    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    /// What matters less.
    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// What still changes.
    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// Where something was cut.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// What can be read as it lies there.
    pub(crate) fn cyan(self, text: &str) -> String {
        self.wrap("36", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Colours, as on a terminal.
    #[cfg(test)]
    pub(crate) fn colored() -> Style {
        Style { color: true }
    }
}

/// Prints `text` and a line end.
pub(crate) fn print_line(text: &dyn Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Tells of a failure: one line on stderr. Whether anybody reads it can't be helped.
pub(crate) fn complain(what: &dyn Display) {
    let mut line = String::new();
    for part in what.to_string().lines().map(str::trim) {
        if !line.is_empty() && !part.is_empty() {
            line.push(' ');
        }
        line.push_str(&printable(part));
    }
    let _ = writeln!(io::stderr(), "openduck-fs: {line}");
}

/// Tells of something that went on meanwhile: one line on stderr, nothing that a program needs.
pub(crate) fn remark(what: &dyn Display) {
    let _ = writeln!(io::stderr(), "{}", printable(&what.to_string()));
}
