//! Identifiers: each number or name the engine hands around has a type of its own.
//!
//! Names that people choose are validated here, once, at the edge: whoever holds a
//! [`DatabaseName`] or a [`SnapshotName`] may build a path or a message from it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A database's commit number: never falls, never repeats. 0 is the empty database, before its
/// first commit.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The state before the first commit: an empty directory.
    pub const EMPTY: Lsn = Lsn(0);

    /// The commit number after this one.
    #[must_use]
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fencing number of a lease: grows with each grant, is part of every layer's name, and is
/// compared in every publishing transaction.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The wall clock, now.
    #[must_use]
    pub fn now() -> Timestamp {
        crate::machine::wall_clock()
    }

    /// The moment `seconds` later (or earlier, if negative); saturates.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(seconds.saturating_mul(1_000_000_000)))
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(at: jiff::Timestamp) -> Self {
        Timestamp(i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(at) => write!(f, "{at:.6}"),
            Err(_) => write!(f, "{} ns", self.0),
        }
    }
}

/// A file or directory of a database's image; never reused within a database and its clones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

impl FileId {
    /// The image's root directory.
    pub const ROOT: FileId = FileId(1);
}

/// A database's identity, which outlives its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DatabaseId(pub u64);

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for DatabaseId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        hex_u64(text)
            .map(DatabaseId)
            .ok_or_else(|| InvalidName::new("database id", text, "16 hexadecimal digits"))
    }
}

/// A layer's name for ever: the epoch of the writer that made it, and a random part.
/// Printed, and used in file names, as `<epoch as 8 or more hex digits>-<16 hex digits>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId {
    /// The lease under which the layer was created.
    pub epoch: Epoch,
    /// Chosen at random, so that no two writers can meet in one name.
    pub random: u64,
}

impl LayerId {
    /// A fresh name under `epoch`.
    #[must_use]
    pub fn random(epoch: Epoch) -> LayerId {
        LayerId {
            epoch,
            random: random_u64(),
        }
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:016x}", self.epoch.0, self.random)
    }
}

impl FromStr for LayerId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let parse = || {
            let (epoch, random) = text.split_once('-')?;
            if !(8..=16).contains(&epoch.len()) || random.len() != 16 {
                return None;
            }
            Some(LayerId {
                epoch: Epoch(hex_u64(epoch)?),
                random: hex_u64(random)?,
            })
        };
        parse().ok_or_else(|| InvalidName::new("layer id", text, "<epoch>-<16 hexadecimal digits>"))
    }
}

impl Serialize for LayerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Random bits.
#[must_use]
pub fn random_u64() -> u64 {
    crate::machine::random_u64()
}

fn hex_u64(text: &str) -> Option<u64> {
    let plain = !text.is_empty()
        && text.len() <= 16
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// A database's name: 1 to 63 characters, letters, digits, `_` and `-`, beginning with a letter
/// or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DatabaseName(String);

impl DatabaseName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DatabaseName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if plain_name(text, 63, |c| c == '_' || c == '-') {
            Ok(DatabaseName(text.to_owned()))
        } else {
            Err(InvalidName::new(
                "database name",
                text,
                "1 to 63 of A-Z a-z 0-9 _ - and begin with a letter or digit",
            ))
        }
    }
}

/// A snapshot's name: 1 to 127 characters, letters, digits, `_`, `-` and `.`, beginning with a
/// letter or digit; not `latest`, not of the form of a snapshot id (`snap-…`), a date or a bare
/// `lsn`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SnapshotName(String);

impl SnapshotName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SnapshotName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if !plain_name(text, 127, |c| c == '_' || c == '-' || c == '.') {
            return Err(InvalidName::new(
                "snapshot name",
                text,
                "1 to 127 of A-Z a-z 0-9 _ - . and begin with a letter or digit",
            ));
        }
        if text == "latest"
            || text.starts_with(SnapshotId::PREFIX)
            || crate::reference::looks_like_time(text)
        {
            return Err(InvalidName::new(
                "snapshot name",
                text,
                "something else: this form is taken by latest, ids and times",
            ));
        }
        Ok(SnapshotName(text.to_owned()))
    }
}

/// A snapshot's id, printed as `snap-<16 hex digits>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub u64);

impl SnapshotId {
    /// What every printed id begins with.
    pub const PREFIX: &'static str = "snap-";
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:016x}", Self::PREFIX, self.0)
    }
}

impl FromStr for SnapshotId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.strip_prefix(Self::PREFIX)
            .filter(|digits| digits.len() == 16)
            .and_then(hex_u64)
            .map(SnapshotId)
            .ok_or_else(|| InvalidName::new("snapshot id", text, "snap-<16 hexadecimal digits>"))
    }
}

impl Serialize for SnapshotId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! random_ids {
    ($($(#[$doc:meta])+ $id:ident, $what:literal;)+) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $id(pub u64);

        impl $id {
            /// A fresh one.
            #[must_use]
            pub fn random() -> $id {
                $id(random_u64())
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $id {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Some(text)
                    .filter(|digits| digits.len() == 16)
                    .and_then(hex_u64)
                    .map($id)
                    .ok_or_else(|| InvalidName::new($what, text, "16 hexadecimal digits"))
            }
        }

        impl Serialize for $id {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

random_ids! {
    /// One life of a worker's process, printed as 16 hex digits.
    WorkerId, "worker id";
    /// A client's token; this is no secret. Printed as 16 hex digits.
    TokenId, "token id";
}

fn plain_name(text: &str, length_max: usize, extra: impl Fn(char) -> bool) -> bool {
    text.len() <= length_max
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || extra(c))
}

/// A name that was refused, and what it should have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: it must be {rule}")]
pub struct InvalidName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl InvalidName {
    pub(crate) fn new(what: &'static str, text: &str, rule: &'static str) -> InvalidName {
        // A hostile name must not flood a log or a terminal.
        let mut text: String = text.chars().take(80).collect();
        if text.len() == 80 {
            text.push('…');
        }
        InvalidName { what, text, rule }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_validated_at_the_edge() {
        let long = "x".repeat(300);
        for bad in [
            "",
            "a/b",
            "..",
            ".",
            "a\0b",
            "a\nb",
            "-a",
            "_a",
            "é",
            "a b",
            "a.b",
            long.as_str(),
        ] {
            assert!(bad.parse::<DatabaseName>().is_err(), "{bad:?}");
        }
        for good in ["a", "mydb", "My-db_2", "1"] {
            assert!(good.parse::<DatabaseName>().is_ok(), "{good:?}");
        }
        for bad in [
            "latest",
            "snap-1",
            "2026-11-21",
            "2026-11-21T10:00:00Z",
            "lsn:1",
            "a/b",
            "..",
            long.as_str(),
        ] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad:?}");
        }
        for good in ["nightly", "v1.2", "before-migration", "2026"] {
            assert!(good.parse::<SnapshotName>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn printed_ids_parse_back() {
        let layer = LayerId {
            epoch: Epoch(0x1_2345_6789),
            random: 7,
        };
        assert_eq!(layer.to_string(), "123456789-0000000000000007");
        assert_eq!(layer.to_string().parse(), Ok(layer));
        let snapshot = SnapshotId(255);
        assert_eq!(snapshot.to_string().parse(), Ok(snapshot));
        assert!("1-2".parse::<LayerId>().is_err());
    }
}
