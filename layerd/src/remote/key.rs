//! The key of a segment object.
//!
//! `<database>/<layer>/<begin, 12 hex digits>-<random, 16 hex digits>`: so that whoever lists a
//! store can tell whose an object is, and a layer's name begins with the epoch of its writer. The
//! catalog keeps keys whole; nothing is read from them but by garbage collection.

use std::fmt;
use std::str::FromStr;

use crate::id::{DatabaseId, InvalidName, LayerId, random_u64};

/// A segment's key below the store's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentKey {
    /// The database that the layer was written for.
    pub database: DatabaseId,
    /// The layer.
    pub layer: LayerId,
    /// The segment's first byte in it.
    pub begin: u64,
    /// Tells attempts to upload the same bytes apart.
    pub random: u64,
}

impl SegmentKey {
    /// A fresh key.
    #[must_use]
    pub fn random(database: DatabaseId, layer: LayerId, begin: u64) -> SegmentKey {
        SegmentKey {
            database,
            layer,
            begin,
            random: random_u64(),
        }
    }
}

impl fmt::Display for SegmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SegmentKey {
            database,
            layer,
            begin,
            random,
        } = self;
        write!(f, "{database}/{layer}/{begin:012x}-{random:016x}")
    }
}

impl FromStr for SegmentKey {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let parse = || {
            let (database, rest) = text.split_once('/')?;
            let (layer, rest) = rest.split_once('/')?;
            let (begin, random) = rest.split_once('-')?;
            let key = SegmentKey {
                database: database.parse().ok()?,
                layer: layer.parse().ok()?,
                begin: u64::from_str_radix(begin, 16).ok()?,
                random: u64::from_str_radix(random, 16).ok()?,
            };
            // Only what this program writes.
            (key.to_string() == text).then_some(key)
        };
        parse().ok_or_else(|| {
            InvalidName::new("segment key", text, "<database>/<layer>/<begin>-<random>")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::testing::LAYER;

    #[test]
    fn keys_are_as_the_format_says_and_parse_back() {
        let key = SegmentKey {
            database: DatabaseId(9),
            layer: LAYER,
            begin: 4096,
            random: 255,
        };
        let text = "0000000000000009/00000003-000000000000feed/000000001000-00000000000000ff";
        assert_eq!(key.to_string(), text);
        assert_eq!(text.parse(), Ok(key));
        let far = SegmentKey {
            begin: u64::MAX,
            ..key
        };
        assert_eq!(far.to_string().parse(), Ok(far));
    }

    #[test]
    fn other_objects_are_not_taken_for_segments() {
        for text in [
            "",
            "layers/a.delta",
            "0000000000000009/00000003-000000000000feed/000000001000",
            "0000000000000009/00000003-000000000000feed/00000001000-00000000000000ff",
            "0000000000000009/00000003-000000000000feed/00000000100G-00000000000000ff",
            "0000000000000009/00000003-000000000000feed/000000001000-00000000000000ff/x",
            "9/3-feed/1000-ff",
        ] {
            assert!(text.parse::<SegmentKey>().is_err(), "{text:?}");
        }
    }
}
