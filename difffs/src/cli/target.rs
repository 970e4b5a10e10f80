//! Arguments that name things: `DB`, `DB@REF`, paths, snapshots. Each is checked while the command
//! line is parsed, so that a command only ever sees names that are valid.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use layerd::id::{DatabaseName, InvalidName};
use layerd::reference::{DatabaseRef, Ref};

/// `DB` or `DB@REF`, and how it was written: a time keeps its zone and digits that way.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    text: String,
    value: DatabaseRef,
}

impl Target {
    /// For the parser.
    pub(crate) fn parse(text: &str) -> Result<Target, InvalidName> {
        Ok(Target {
            text: text.to_owned(),
            value: text.parse()?,
        })
    }

    /// For the parser, where the state must be named.
    pub(crate) fn parse_with_ref(text: &str) -> Result<Target, String> {
        let target = Target::parse(text).map_err(|error| error.to_string())?;
        match target.value.reference {
            Some(_) => Ok(target),
            None => Err(format!(
                "{text:?} names no state: write DB@REF, such as {text}@nightly or {text}@lsn:7"
            )),
        }
    }

    /// The database.
    pub(crate) fn database(&self) -> &DatabaseName {
        &self.value.database
    }

    /// The state, where one was named.
    pub(crate) fn reference(&self) -> Option<&Ref> {
        self.value.reference.as_ref()
    }

    /// The state; the newest where none was named.
    pub(crate) fn state(&self) -> &Ref {
        self.reference().unwrap_or(&Ref::Latest)
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The state as it was written, where one was named.
    pub(crate) fn reference_text(&self) -> Option<&str> {
        self.text.split_once('@').map(|(_, reference)| reference)
    }
}

/// A snapshot's name or id, for the parser.
pub(crate) fn snapshot(text: &str) -> Result<Ref, String> {
    match text.parse() {
        Ok(reference @ (Ref::Name(_) | Ref::Id(_))) => Ok(reference),
        Ok(_) => Err(format!(
            "{text:?} is no snapshot's name or id; `openduck-fs log DB` lists them"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// A path, for the parser: not empty. (Arguments that are not UTF-8 the parser refuses by itself,
/// because the JSON documents could not name such files.)
pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("the path is empty".to_owned()),
        text => Ok(PathBuf::from(text)),
    }
}

/// A path that was found, as text: a link may have led to one that is not UTF-8.
pub(crate) fn utf8(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("the path {} is not UTF-8; choose another", path.display()))
}

/// As [`path()`], but empty means that none was given, as an empty environment variable does.
#[allow(
    clippy::unnecessary_wraps,
    reason = "the parser wants a fallible function"
)]
pub(crate) fn any_path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}
/// Where to listen: `HOST:PORT`, or a port on 127.0.0.1.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let parsed = match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        Err(_) => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not an address; write 127.0.0.1:9187, or 9187"))
}
