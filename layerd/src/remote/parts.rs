//! The segments of one layer, in order: which of them holds a page.
//!
//! A segment begins at the page in which the one before ended, and that page is complete in the
//! later one; so a page belongs to the last segment that begins at or before it. A layer that grows
//! gets more segments, and its small ones may be replaced by fewer that hold the same bytes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::path::Path as Key;
use parking_lot::Mutex;

use super::segment::PAGE;
use crate::catalog::Segment;
use crate::id::LayerId;

/// One segment.
pub struct Part {
    /// Names it within the process.
    pub number: u64,
    /// As the catalog has it.
    pub segment: Segment,
    /// Where it lies in the store.
    pub key: Key,
    /// Held while its frame table is fetched, so that it is fetched once.
    pub gate: tokio::sync::Mutex<()>,
    /// What it has of its last page, where that page is not complete: never kept in the cache,
    /// because its content grows.
    last: Mutex<Option<Arc<[u8]>>>,
}

impl Part {
    fn new(segment: &Segment) -> Part {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Part {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            key: Key::from(segment.key.as_str()),
            segment: segment.clone(),
            gate: tokio::sync::Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// Behind its last whole page.
    #[must_use]
    pub fn whole_end(&self) -> u64 {
        self.segment.end / PAGE * PAGE
    }

    /// What it has of its last page, if that is not complete and was fetched.
    #[must_use]
    pub fn last(&self) -> Option<Arc<[u8]>> {
        self.last.lock().clone()
    }

    /// Keeps what a frame from `begin` on has of the last page.
    pub fn keep_last(&self, begin: u64, bytes: &[u8]) {
        let end = begin + bytes.len() as u64;
        if end == self.segment.end && self.whole_end() < end {
            let skip = self.whole_end().saturating_sub(begin) as usize;
            *self.last.lock() = Some(Arc::from(&bytes[skip..]));
        }
    }
}

/// All segments of a layer.
#[derive(Clone, Default)]
pub struct Parts(Vec<Arc<Part>>);

impl Parts {
    /// Takes over a newer list, or the end of one: it replaces what is known from its first
    /// segment's begin on. One that reaches less far is older and passed over.
    pub fn extend(&mut self, layer: LayerId, segments: &[Segment]) -> io::Result<()> {
        let mut segments: Vec<&Segment> = segments.iter().collect();
        segments.sort_by_key(|segment| (segment.begin, segment.end));
        let (Some(first), Some(end)) = (segments.first(), segments.iter().map(|s| s.end).max())
        else {
            return Ok(());
        };
        if end < self.end() {
            return Ok(());
        }
        let mut parts: Vec<Arc<Part>> = self
            .0
            .iter()
            .filter(|part| part.segment.begin < first.begin)
            .cloned()
            .collect();
        let known: HashMap<&str, &Arc<Part>> = self
            .0
            .iter()
            .map(|part| (part.segment.key.as_str(), part))
            .collect();
        for segment in segments {
            // A later segment that begins at the same page has all that this one has.
            while parts
                .last()
                .is_some_and(|last| last.segment.begin == segment.begin)
            {
                parts.pop();
            }
            let part = match known.get(segment.key.as_str()) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Part::new(segment)),
            };
            parts.push(part);
        }
        let mut reached = 0;
        for Segment { begin, end, .. } in parts.iter().map(|part| &part.segment) {
            if *begin > reached / PAGE * PAGE || !begin.is_multiple_of(PAGE) || end <= begin {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "the catalog's segments of layer {layer} do not fit together at offset {begin}; `openduck-fs verify` names what is missing"
                    ),
                ));
            }
            reached = *end;
        }
        self.0 = parts;
        Ok(())
    }

    /// Behind the layer's last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |part| part.segment.end)
    }

    /// The pieces of `begin..end`, each with the segment that holds it.
    #[must_use]
    pub fn pieces(&self, begin: u64, end: u64) -> Vec<(Arc<Part>, u64, u64)> {
        let end = end.min(self.end());
        let mut pieces = Vec::new();
        let mut at = begin;
        let mut n = self.0.partition_point(|part| part.segment.begin <= at);
        while at < end {
            let Some(part) = n.checked_sub(1).and_then(|n| self.0.get(n)) else {
                break;
            };
            let next = self.0.get(n).map_or(u64::MAX, |next| next.segment.begin);
            let to = end.min(next);
            pieces.push((Arc::clone(part), at, to));
            at = to;
            n += 1;
        }
        pieces
    }

    /// All of them, or the first and the last.
    #[must_use]
    pub fn to_open(&self, all: bool) -> Vec<Arc<Part>> {
        let last = self.0.len().saturating_sub(1);
        let wanted = |(n, _): &(usize, &Arc<Part>)| all || *n == 0 || *n == last;
        let parts = self.0.iter().enumerate().filter(wanted);
        parts.map(|(_, part)| Arc::clone(part)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::testing::LAYER;

    fn segment(begin: u64, end: u64) -> Segment {
        Segment {
            begin,
            end,
            key: format!("{begin}-{end}"),
            bytes: 100,
            tail: 100,
            commits: None,
        }
    }

    fn parts(ranges: &[(u64, u64)]) -> Parts {
        let mut parts = Parts::default();
        let segments: Vec<Segment> = ranges.iter().map(|(b, e)| segment(*b, *e)).collect();
        parts.extend(LAYER, &segments).unwrap();
        parts
    }

    fn check(parts: &Parts, begin: u64, end: u64, expected: &[(&str, u64, u64)]) {
        let pieces = parts.pieces(begin, end);
        let found: Vec<(&str, u64, u64)> = pieces
            .iter()
            .map(|(part, begin, end)| (part.segment.key.as_str(), *begin, *end))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_page_belongs_to_the_last_segment_that_has_it() {
        let parts = parts(&[(0, 5000), (4096, 6000), (4096, 9000), (8192, 8200 + 4096)]);
        assert_eq!(parts.end(), 12_296);
        check(
            &parts,
            10,
            20_000,
            &[
                ("0-5000", 10, 4096),
                ("4096-9000", 4096, 8192),
                ("8192-12296", 8192, 12_296),
            ],
        );
        check(&parts, 8192, 8193, &[("8192-12296", 8192, 8193)]);
        check(&parts, 12_296, 13_000, &[]);
    }

    #[test]
    fn a_layer_grows_and_its_small_segments_are_replaced() {
        let mut parts = parts(&[(0, 5000)]);
        parts.extend(LAYER, &[segment(4096, 10_000)]).unwrap();
        let kept = Arc::clone(&parts.0[0]);
        parts.extend(LAYER, &[segment(8192, 10_500)]).unwrap();
        assert!(Arc::ptr_eq(&kept, &parts.0[0]));
        assert_eq!(parts.end(), 10_500);
        parts.extend(LAYER, &[segment(0, 10_500)]).unwrap();
        check(&parts, 0, 10_500, &[("0-10500", 0, 10_500)]);
        // An older list.
        parts.extend(LAYER, &[segment(0, 5000)]).unwrap();
        assert_eq!(parts.end(), 10_500);
    }

    #[test]
    fn a_list_with_a_gap_is_refused() {
        let mut parts = parts(&[(0, 5000)]);
        for bad in [
            segment(8192, 9000),
            segment(4097, 9000),
            segment(12_288, 12_289),
        ] {
            assert!(parts.extend(LAYER, &[bad]).is_err());
        }
        assert_eq!(parts.end(), 5000);
        assert!(
            Parts::default()
                .extend(LAYER, &[segment(4096, 9000)])
                .is_err()
        );
    }
}
