//! A file's extent map: which bytes lie where.
//!
//! Sorted, non-overlapping runs over logical offsets; what no run covers is a hole and reads as
//! zeros. The map is persistent (structure-sharing, `imbl`): a clone is one reference count, and a
//! change to one of two clones copies only the nodes on its way. That is what makes a commit point
//! O(1), whatever the size of the database.

use std::sync::Arc;

use imbl::OrdMap;

use crate::layer::Layer;

/// A run of bytes in one layer.
#[derive(Clone)]
pub struct Extent {
    /// Length in bytes, never 0.
    pub length: u64,
    /// Physical offset of its first byte.
    pub at: u64,
    /// The layer; the reference keeps its file open.
    pub layer: Arc<Layer>,
}

impl Extent {
    /// The same run without its first `count` bytes.
    fn skip(&self, count: u64) -> Extent {
        Extent {
            length: self.length - count,
            at: self.at + count,
            layer: Arc::clone(&self.layer),
        }
    }
}

/// The map of one file.
#[derive(Clone, Default)]
pub struct Extents {
    runs: OrdMap<u64, Extent>,
    allocated: u64,
}

impl Extents {
    /// Bytes that are not holes.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Puts a run at `offset`, over whatever was there.
    pub fn insert(&mut self, offset: u64, extent: Extent) {
        self.remove(offset, extent.length);
        self.allocated += extent.length;
        self.runs.insert(offset, extent);
    }

    /// Makes a range a hole.
    pub fn remove(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        // From the back, so that one search finds that nothing is (any more) in the way: each
        // search of a large map is mostly waiting for memory.
        while let Some(last) = end.checked_sub(1)
            && let Some((&start, run)) = self.runs.get_prev(&last)
        {
            let run_end = start + run.length;
            if run_end <= offset {
                break;
            }
            let run = run.clone();
            self.allocated -= run_end.min(end) - start.max(offset);
            if start < offset {
                let length = offset - start;
                self.runs.insert(
                    start,
                    Extent {
                        length,
                        ..run.clone()
                    },
                );
            } else {
                self.runs.remove(&start);
            }
            if run_end > end {
                self.runs.insert(end, run.skip(end - start));
            }
        }
    }

    /// The runs that overlap a range, cut to it, in order.
    pub fn range(&self, offset: u64, length: u64) -> impl Iterator<Item = (u64, Extent)> + '_ {
        let end = offset.saturating_add(length);
        let first = self
            .runs
            .get_prev(&offset)
            .map_or(offset, |(&start, _)| start);
        self.runs
            .range(first..end)
            .filter_map(move |(&start, run)| {
                let run_end = start + run.length;
                if run_end <= offset {
                    return None;
                }
                let skip = offset.saturating_sub(start);
                let cut = run.skip(skip);
                let length = cut.length.min(end - (start + skip));
                Some((start + skip, Extent { length, ..cut }))
            })
    }

    /// All runs in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Extent)> {
        self.runs.iter().map(|(&start, run)| (start, run))
    }

    /// The first offset at or behind `offset` that is not in a hole.
    #[must_use]
    pub fn next_data(&self, offset: u64) -> Option<u64> {
        self.range(offset, u64::MAX - offset)
            .next()
            .map(|(start, _)| start)
    }

    /// The first offset at or behind `offset` that no run covers.
    #[must_use]
    pub fn next_hole(&self, offset: u64) -> u64 {
        let mut at = offset;
        for (start, run) in self.range(offset, u64::MAX - offset) {
            if start > at {
                break;
            }
            at = start + run.length;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `check("0..6 a, 2..4 b", "aabbaa")`: runs put in order, `-` for a hole.
    fn check(steps: &str, expected: &str) {
        let layers: Vec<Arc<Layer>> = (0..4).map(|_| Layer::for_tests()).collect();
        let mut map = Extents::default();
        for step in steps.split(", ") {
            let (range, what) = step.split_once(' ').unwrap();
            let (start, end) = range.split_once("..").unwrap();
            let (start, end): (u64, u64) = (start.parse().unwrap(), end.parse().unwrap());
            match what {
                "-" => map.remove(start, end - start),
                letter => {
                    let layer = Arc::clone(&layers[(letter.as_bytes()[0] - b'a') as usize]);
                    map.insert(
                        start,
                        Extent {
                            length: end - start,
                            at: start,
                            layer,
                        },
                    );
                }
            }
        }
        let mut text = String::new();
        for (start, run) in map.range(0, expected.len() as u64) {
            assert_eq!(run.at, start, "physical follows logical in this test");
            text.extend(std::iter::repeat_n('-', start as usize - text.len()));
            let letter = layers
                .iter()
                .position(|layer| Arc::ptr_eq(layer, &run.layer))
                .unwrap();
            text.extend(std::iter::repeat_n(
                (b'a' + letter as u8) as char,
                run.length as usize,
            ));
        }
        text.extend(std::iter::repeat_n('-', expected.len() - text.len()));
        assert_eq!(text, expected, "{steps}");
        let covered = expected.bytes().filter(|b| *b != b'-').count() as u64;
        assert_eq!(map.allocated(), covered, "{steps}");
        let first_data = expected.find(|c| c != '-').map(|at| at as u64);
        assert_eq!(map.next_data(0), first_data, "{steps}");
        let first_hole = expected.find('-').unwrap_or(expected.len()) as u64;
        assert_eq!(map.next_hole(0), first_hole, "{steps}");
    }

    #[test]
    fn newest_run_wins() {
        check("0..6 a, 2..4 b", "aabbaa");
        check("0..6 a, 0..6 b", "bbbbbb");
        check("2..4 a, 0..6 b", "bbbbbb");
        check("0..3 a, 3..6 b, 2..4 c", "aaccbb");
        check("0..2 a, 4..6 b, 1..5 -", "a----b");
        check("0..8 a, 2..4 -, 3..6 b", "aa-bbbaa");
        check("3..5 a", "---aa");
    }

    proptest! {
        #[test]
        fn map_equals_byte_vector(steps in prop::collection::vec((0u64..40, 1u64..20, 0u8..5), 1..40)) {
            let mut flat = [b'-'; 64];
            let mut text = Vec::new();
            for (start, length, what) in steps {
                let end = start + length;
                let letter = if what == 4 { b'-' } else { b'a' + what };
                flat[start as usize..end as usize].fill(letter);
                text.push(format!("{start}..{end} {}", letter as char));
            }
            check(&text.join(", "), std::str::from_utf8(&flat).unwrap());
        }
    }
}
