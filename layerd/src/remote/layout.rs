//! Where frames are cut, which of them stand at an object's end, how hard to compress them.
//!
//! A read of a payload should touch as few frames as possible: so frames are cut where large
//! payloads begin and end. What is needed to open a layer (its header, index and footer, an image's
//! sums, and the headers of the database file in it) stands last in the object, just before the
//! table, so that one request brings all of it.

use std::ops::Range;

use super::frame::Effort;
use super::segment::{FRAME_MAX, PAGE};
use crate::checksum::chunk_count;
use crate::format::{LayerFooter, PAGE_LENGTH};

/// Payloads of at least this length get frames of their own.
const OWN_FRAMES: u64 = 64 << 10;
/// DuckDB's blocks begin behind three header pages.
const DUCKDB_BLOCKS_AT: u64 = 3 * PAGE;

/// How the bytes of a segment are cut into frames.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Frames begin at these, all multiples of [`PAGE`].
    cuts: Vec<u64>,
    /// These bytes of the layer stand at the object's end.
    tail: Vec<Range<u64>>,
    /// From here on, frames are also cut at each [`FRAME_MAX`], wherever the segment begins.
    grid: Option<u64>,
    effort: Effort,
}

impl Layout {
    /// For a part of a delta layer's log, beside its writer. Its header page stands last.
    #[must_use]
    pub fn log() -> Layout {
        let mut layout = Layout::default();
        layout.add_tail(0..PAGE);
        layout
    }

    /// For a whole sealed delta layer of `length` bytes, or any part of it.
    #[must_use]
    pub fn sealed(footer: &LayerFooter, length: u64) -> Layout {
        let mut layout = Layout {
            effort: Effort::Rest,
            ..Layout::log()
        };
        layout.add_tail(footer.index_at..length);
        layout
    }

    /// For an image layer whose image has `size` bytes, or any part of it.
    #[must_use]
    pub fn image(size: u64) -> Layout {
        let mut layout = Layout {
            grid: Some(DUCKDB_BLOCKS_AT),
            effort: Effort::Rest,
            ..Layout::default()
        };
        layout.add_tail(0..DUCKDB_BLOCKS_AT.min(size));
        layout.add_tail(sums_at(size)..image_end(size));
        layout
    }

    /// How hard to compress.
    #[must_use]
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// Notes that a record's payload stands at `at`. Called in any order.
    pub fn add_payload(&mut self, at: u64, length: u64) {
        if length >= OWN_FRAMES {
            self.cuts.push(at / PAGE * PAGE);
            self.cuts.push((at + length).next_multiple_of(PAGE));
        }
    }

    fn add_tail(&mut self, range: Range<u64>) {
        let range = range.start / PAGE * PAGE..range.end;
        self.cuts.push(range.start);
        self.cuts.push(range.end.next_multiple_of(PAGE));
        self.tail.push(range);
    }

    fn is_tail(&self, begin: u64) -> bool {
        self.tail.iter().any(|range| range.contains(&begin))
    }

    /// The frames of `begin..end` in the order in which they stand in the object, as begin and
    /// length; and how many of them come before the tail.
    #[must_use]
    pub fn frames(&self, begin: u64, end: u64) -> (Vec<(u64, u64)>, usize) {
        let mut cuts: Vec<u64> = self
            .cuts
            .iter()
            .copied()
            .filter(|cut| (begin..end).contains(cut))
            .chain([begin, end])
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        let (mut body, mut tail) = (Vec::new(), Vec::new());
        for pair in cuts.windows(2) {
            let frames = if self.is_tail(pair[0]) {
                &mut tail
            } else {
                &mut body
            };
            let mut at = pair[0];
            while at < pair[1] {
                let into = match self.grid {
                    Some(grid) if at > grid => (at - grid) % FRAME_MAX,
                    _ => 0,
                };
                let length = (FRAME_MAX - into).min(pair[1] - at);
                frames.push((at, length));
                at += length;
            }
        }
        let body_count = body.len();
        body.append(&mut tail);
        (body, body_count)
    }
}

/// Where the content of the `.sums` file begins in an image layer's bytes.
#[must_use]
pub fn sums_at(size: u64) -> u64 {
    size.next_multiple_of(PAGE)
}

/// How long the content of the `.sums` file is.
#[must_use]
pub fn sums_length(size: u64) -> u64 {
    PAGE_LENGTH as u64 + 4 * chunk_count(size)
}

/// Where an image layer's bytes end.
#[must_use]
pub fn image_end(size: u64) -> u64 {
    sums_at(size) + sums_length(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_an_image_is_one_frame_and_its_headers_stand_last() {
        let size = DUCKDB_BLOCKS_AT + 2 * FRAME_MAX;
        let (frames, body) = Layout::image(size).frames(0, image_end(size));
        let blocks = [
            (DUCKDB_BLOCKS_AT, FRAME_MAX),
            (DUCKDB_BLOCKS_AT + FRAME_MAX, FRAME_MAX),
        ];
        assert_eq!(frames[..body], blocks);
        assert_eq!(
            frames[body..],
            [(0, DUCKDB_BLOCKS_AT), (size, 4096 + 4 * 17)]
        );
    }

    #[test]
    fn blocks_are_frames_in_every_segment_of_an_image() {
        let layout = Layout::image(1 << 40);
        let begin = 1 << 30;
        let (frames, _) = layout.frames(begin, begin + (1 << 20));
        let first = DUCKDB_BLOCKS_AT;
        assert_eq!(frames[0], (begin, first));
        assert_eq!(frames[1], (begin + first, FRAME_MAX));
        assert_eq!(frames[2], (begin + first + FRAME_MAX, FRAME_MAX));
    }

    #[test]
    fn large_payloads_get_frames_of_their_own() {
        let mut layout = Layout::log();
        layout.add_payload(8192, FRAME_MAX);
        layout.add_payload(300_001, 70_000);
        layout.add_payload(400_000, 100);
        let (frames, body) = layout.frames(0, 400_501);
        assert_eq!(
            frames[..body],
            [
                (4096, 4096),
                (8192, FRAME_MAX),
                (270_336, 28_672),
                (299_008, 73_728),
                (372_736, 27_765),
            ]
        );
        assert_eq!(frames[body..], [(0, 4096)]);
    }

    #[test]
    fn frames_cover_a_part_without_a_gap() {
        for (begin, end) in [(0, 1), (4096, 1_000_000), (299_008, 299_009), (0, 5 << 20)] {
            let mut layout = Layout::image(3_333_333);
            layout.add_payload(70_000, 300_000);
            let (mut frames, _) = layout.frames(begin, end);
            frames.sort_unstable();
            let mut at = begin;
            for (frame, length) in frames {
                assert_eq!(frame, at);
                assert!(frame.is_multiple_of(PAGE) && (1..=FRAME_MAX).contains(&length));
                at += length;
            }
            assert_eq!(at, end);
        }
    }
}
