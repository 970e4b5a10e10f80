//! References: how a person names one state of a database.
//!
//! `latest`, a snapshot's name or id, `lsn:<n>`, or a time: RFC 3339, or
//! `YYYY-MM-DD HH:MM[:SS]` (also with a `T`) in local time. A time means the newest commit point
//! that is not after it. Finding the state is the store's business; here text becomes a value.

use std::fmt;
use std::str::FromStr;

use crate::id::{DatabaseName, InvalidName, Lsn, SnapshotId, SnapshotName, Timestamp};

/// One state of a database, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ref {
    /// The newest acknowledged commit.
    Latest,
    /// A snapshot by its name.
    Name(SnapshotName),
    /// A snapshot by its id.
    Id(SnapshotId),
    /// A commit by its number.
    Lsn(Lsn),
    /// The newest commit not after this time.
    Time(Timestamp),
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ref::Latest => f.write_str("latest"),
            Ref::Name(name) => name.fmt(f),
            Ref::Id(id) => id.fmt(f),
            Ref::Lsn(lsn) => write!(f, "lsn:{lsn}"),
            Ref::Time(at) => at.fmt(f),
        }
    }
}

impl FromStr for Ref {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text == "latest" {
            return Ok(Ref::Latest);
        }
        if let Some(number) = text.strip_prefix("lsn:") {
            let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            return match number.parse() {
                Ok(lsn) if plain => Ok(Ref::Lsn(Lsn(lsn))),
                _ => Err(InvalidName::new("reference", text, "lsn:<number>")),
            };
        }
        if text.starts_with(SnapshotId::PREFIX) {
            return text.parse().map(Ref::Id);
        }
        if looks_like_time(text) {
            return parse_time(text).map(Ref::Time).ok_or_else(|| {
                InvalidName::new(
                    "time",
                    text,
                    "RFC 3339 (2026-01-31T12:00:00Z) or local YYYY-MM-DD HH:MM[:SS]",
                )
            });
        }
        text.parse().map(Ref::Name).map_err(|_| {
            InvalidName::new(
                "reference",
                text,
                "latest, a snapshot's name or id, lsn:<number>, or a time",
            )
        })
    }
}

/// `DB` or `DB@REF`, as the commands take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRef {
    /// The database.
    pub database: DatabaseName,
    /// The state, where one was named.
    pub reference: Option<Ref>,
}

impl FromStr for DatabaseRef {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (database, reference) = match text.split_once('@') {
            Some((database, reference)) => (database, Some(reference.parse()?)),
            None => (text, None),
        };
        Ok(DatabaseRef {
            database: database.parse()?,
            reference,
        })
    }
}

impl fmt::Display for DatabaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reference {
            Some(reference) => write!(f, "{}@{reference}", self.database),
            None => self.database.fmt(f),
        }
    }
}

/// Whether `text` has a date's shape (`dddd-dd-dd…`), so that it can't be a snapshot's name.
pub(crate) fn looks_like_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 10
        && bytes[..10].iter().enumerate().all(|(i, b)| match i {
            4 | 7 => *b == b'-',
            _ => b.is_ascii_digit(),
        })
}

fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.into());
    }
    let local = text.replacen('T', " ", 1);
    let at = [
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%d %H:%M",
    ]
    .iter()
    .find_map(|format| jiff::civil::DateTime::strptime(format, &local).ok())?;
    Some(
        at.to_zoned(jiff::tz::TimeZone::system())
            .ok()?
            .timestamp()
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_parses() {
        assert_eq!("latest".parse(), Ok(Ref::Latest));
        assert_eq!("lsn:17".parse(), Ok(Ref::Lsn(Lsn(17))));
        assert_eq!(
            "snap-00000000000000ff".parse(),
            Ok(Ref::Id(SnapshotId(255)))
        );
        assert_eq!("nightly".parse(), Ok(Ref::Name("nightly".parse().unwrap())));
        assert_eq!(
            "1970-01-01T00:00:01Z".parse(),
            Ok(Ref::Time(Timestamp(1_000_000_000)))
        );
        assert!(matches!("2026-01-31 12:00".parse(), Ok(Ref::Time(_))));
        assert!(matches!("2026-01-31T12:00:30".parse(), Ok(Ref::Time(_))));
        assert!(matches!(
            "2026-01-31T12:00:30+02:00".parse(),
            Ok(Ref::Time(_))
        ));
    }

    #[test]
    fn garbage_is_refused() {
        for bad in [
            "",
            "lsn:",
            "lsn:-1",
            "lsn:+1",
            "lsn:x",
            "lsn:99999999999999999999999",
            "snap-1",
            "a/b",
            "2026-13-01",
            "2026-01-01x",
            "a\0",
        ] {
            assert!(bad.parse::<Ref>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn database_and_reference_split_at_the_first_at() {
        let both: DatabaseRef = "mydb@lsn:3".parse().unwrap();
        assert_eq!(both.to_string(), "mydb@lsn:3");
        assert!("@x".parse::<DatabaseRef>().is_err());
        assert!("a@b@c".parse::<DatabaseRef>().is_err());
    }
}
