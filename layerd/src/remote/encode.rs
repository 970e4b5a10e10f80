//! Turning a range of a layer into the parts of a segment object, one part at a time.
//!
//! The encoder asks for the layer's bytes frame by frame, in the order of the object, and hands out
//! parts of [`PART`] bytes: so its memory is one part, one frame and the table, whatever the
//! segment's length.

use std::io;

use super::frame::FrameEncoder;
use super::layout::Layout;
use super::segment::{FRAME_MAX, Frame, Table};
use crate::checksum::checksum;
use crate::id::LayerId;

/// All parts but the last have this length: what stores with multipart uploads ask for.
pub const PART: usize = 8 << 20;

/// Fills a buffer with the layer's bytes from an offset on.
pub type ReadLayer<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>;

/// Encodes one segment.
pub struct Encoder {
    table: Table,
    order: Vec<(u64, u64)>,
    body_count: usize,
    next: usize,
    frames: FrameEncoder,
    pending: Vec<u8>,
    /// How much of the object was encoded, handed out or not.
    encoded: u64,
    tail_at: u64,
    ended: bool,
}

impl Encoder {
    /// For the bytes `begin..end` of a layer.
    pub fn new(layer: LayerId, begin: u64, end: u64, layout: &Layout) -> io::Result<Encoder> {
        let (order, body_count) = layout.frames(begin, end);
        Ok(Encoder {
            table: Table {
                layer,
                begin,
                end,
                frames: Vec::with_capacity(order.len()),
            },
            order,
            body_count,
            next: 0,
            frames: FrameEncoder::new(layout.effort())?,
            pending: Vec::new(),
            encoded: 0,
            tail_at: 0,
            ended: false,
        })
    }

    /// The next part of the object: [`PART`] bytes, fewer at its end, and then nothing.
    pub fn next_part(&mut self, read: ReadLayer<'_>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; FRAME_MAX as usize];
        while self.pending.len() < PART && self.next < self.order.len() {
            let (begin, length) = self.order[self.next];
            if self.next == self.body_count {
                self.tail_at = self.encoded;
            }
            self.next += 1;
            let bytes = &mut bytes[..length as usize];
            read(begin, bytes)?;
            let (kind, stored) = self.frames.encode(bytes);
            self.table.frames.push(Frame {
                begin,
                length: length as u32,
                stored: stored.len() as u32,
                at: self.encoded,
                sum: checksum(self.table.layer, begin, stored),
                kind,
            });
            self.pending.extend_from_slice(stored);
            self.encoded += stored.len() as u64;
        }
        if self.next == self.order.len() && !self.ended {
            self.ended = true;
            if self.body_count == self.order.len() {
                self.tail_at = self.encoded;
            }
            self.table.frames.sort_unstable_by_key(|frame| frame.begin);
            let end = self.table.encode();
            self.encoded += end.len() as u64;
            self.pending.extend(end);
        }
        let rest = self.pending.split_off(self.pending.len().min(PART));
        Ok(std::mem::replace(&mut self.pending, rest))
    }

    /// Whether everything was handed out.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ended && self.pending.is_empty()
    }

    /// The object's length, how much of its end is its tail, and its table; complete once
    /// [`Encoder::is_done`].
    #[must_use]
    pub fn finish(self) -> (u64, u64, Table) {
        (self.encoded, self.encoded - self.tail_at, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::frame::FrameDecoder;
    use crate::remote::testing::{LAYER, layer_bytes, reader};
    use proptest::prelude::*;

    fn check(bytes: &[u8], begin: u64, layout: &Layout) {
        let end = bytes.len() as u64;
        let mut encoder = Encoder::new(LAYER, begin, end, layout).unwrap();
        let mut object = Vec::new();
        while !encoder.is_done() {
            let part = encoder.next_part(&mut reader(bytes)).unwrap();
            assert!(part.len() == PART || encoder.is_done());
            object.extend(part);
        }
        let (length, tail, table) = encoder.finish();
        assert_eq!(length, object.len() as u64);
        let last = &object[(length - tail) as usize..];
        assert_eq!(
            Table::decode(LAYER, begin, end, length, last),
            Ok(table.clone())
        );
        let mut decoder = FrameDecoder::new().unwrap();
        let (order, body_count) = layout.frames(begin, end);
        for frame in &table.frames {
            let stored = &object[frame.at as usize..frame.stored_end() as usize];
            let expected = &bytes[frame.begin as usize..frame.end() as usize];
            assert!(decoder.decode(LAYER, frame, stored).unwrap() == expected);
            let is_tail = order[body_count..]
                .iter()
                .any(|(begin, _)| *begin == frame.begin);
            if is_tail {
                assert!(frame.at >= length - tail);
            } else {
                assert!(frame.stored_end() <= length - tail);
            }
        }
    }

    #[test]
    fn large_objects_come_in_parts_of_one_length() {
        let bytes = layer_bytes(40 << 20, 3);
        check(&bytes, 0, &Layout::image((39 << 20) + 5));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_frame_of_any_range_comes_back(
            length in 1_usize..2_000_000,
            seed in any::<u64>(),
            begin in 0_u64..400,
            payloads in proptest::collection::vec((0_u64..2_000_000, 1_u64..500_000), 0..6),
        ) {
            let begin = (begin * 4096).min(length as u64 / 4096 * 4096);
            prop_assume!(begin < length as u64);
            let mut layout = Layout::log();
            for (at, length) in payloads {
                layout.add_payload(at, length);
            }
            check(&layer_bytes(length, seed), begin, &layout);
        }
    }
}
