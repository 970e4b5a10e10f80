//! A set of byte ranges: which bytes of a file were touched.

use std::collections::BTreeMap;

/// Sorted, disjoint, merged ranges.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    /// Begin to end.
    spans: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds a range.
    pub fn add(&mut self, offset: u64, length: u64) {
        if length == 0 {
            return;
        }
        let (mut begin, mut end) = (offset, offset.saturating_add(length));
        while let Some((&start, &stop)) = self.spans.range(..=end).next_back() {
            if stop < begin {
                break;
            }
            begin = begin.min(start);
            end = end.max(stop);
            self.spans.remove(&start);
        }
        self.spans.insert(begin, end);
    }

    /// All ranges in order, as (begin, end).
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.spans.iter().map(|(begin, end)| (*begin, *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(adds: &[(u64, u64)], expected: &[(u64, u64)]) {
        let mut ranges = Ranges::default();
        adds.iter()
            .for_each(|(begin, end)| ranges.add(*begin, end - begin));
        assert_eq!(ranges.iter().collect::<Vec<_>>(), expected, "{adds:?}");
    }

    #[test]
    fn touching_ranges_merge() {
        check(&[(0, 4), (4, 6)], &[(0, 6)]);
        check(&[(4, 6), (0, 4)], &[(0, 6)]);
        check(&[(0, 2), (4, 6), (8, 9), (1, 8)], &[(0, 9)]);
        check(&[(0, 10), (2, 3)], &[(0, 10)]);
        check(&[(5, 6), (0, 1), (2, 2)], &[(0, 1), (5, 6)]);
    }
}
