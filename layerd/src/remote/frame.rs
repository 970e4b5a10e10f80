//! One frame's bytes: compressing and getting back.
//!
//! What zstd makes of DuckDB's own blocks (TPC-H, scale 1, one core): level 1 leaves 0.805 of them at
//! 510 MB/s, level 2 0.776 at 340, level 3 0.733 at 260, level 7 0.712 at 100; all decode at 1.2 GB/s.
//! So what is uploaded beside a working writer is level 2, what is written at leisure level 3.
//! What saves less than a sixteenth is stored as it is, because reading it back then costs nothing.

use zstd::bulk::{Compressor, Decompressor};

use super::segment::{Frame, FrameKind, SegmentError};
use crate::checksum::checksum;
use crate::id::LayerId;

/// How hard to try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// Somebody waits, or wants the processor.
    #[default]
    Live,
    /// It stays for long, and nobody waits.
    Rest,
}

impl Effort {
    fn level(self) -> i32 {
        match self {
            Effort::Live => 2,
            Effort::Rest => 3,
        }
    }
}

/// Compresses frames; keeps the compressor's memory between them.
pub struct FrameEncoder {
    compressor: Compressor<'static>,
    buffer: Vec<u8>,
}

impl FrameEncoder {
    /// An encoder.
    pub fn new(effort: Effort) -> std::io::Result<FrameEncoder> {
        Ok(FrameEncoder {
            compressor: Compressor::new(effort.level())?,
            buffer: Vec::new(),
        })
    }

    /// How `bytes` are stored, and as what.
    pub fn encode<'a>(&'a mut self, bytes: &'a [u8]) -> (FrameKind, &'a [u8]) {
        if is_zero(bytes) {
            return (FrameKind::Zeros, &[]);
        }
        // Less room than that is not worth it: zstd then stops with an error.
        let room = bytes.len() - bytes.len() / 16;
        self.buffer.resize(room, 0);
        match self
            .compressor
            .compress_to_buffer(bytes, self.buffer.as_mut_slice())
        {
            Ok(length) if length < bytes.len() => (FrameKind::Zstd, &self.buffer[..length]),
            _ => (FrameKind::Raw, bytes),
        }
    }
}

/// Whether all bytes are zero.
fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|b| *b == 0)
}

/// Gets frames back; keeps the decompressor's memory between them.
pub struct FrameDecoder(Decompressor<'static>);

impl FrameDecoder {
    /// A decoder.
    pub fn new() -> std::io::Result<FrameDecoder> {
        Ok(FrameDecoder(Decompressor::new()?))
    }

    /// The layer's bytes that a frame holds. Nothing is returned that does not match the frame's
    /// checksum and length.
    pub fn decode(
        &mut self,
        layer: LayerId,
        frame: &Frame,
        stored: &[u8],
    ) -> Result<Vec<u8>, SegmentError> {
        if stored.len() != frame.stored as usize {
            return Err(SegmentError::Frame);
        }
        let length = frame.length as usize;
        if frame.kind == FrameKind::Zeros {
            return Ok(vec![0; length]);
        }
        if checksum(layer, frame.begin, stored) != frame.sum {
            return Err(SegmentError::Checksum("frame"));
        }
        if frame.kind == FrameKind::Raw {
            return Ok(stored.to_vec());
        }
        let mut bytes = Vec::with_capacity(length);
        match self.0.decompress_to_buffer(stored, &mut bytes) {
            Ok(got) if got == length => Ok(bytes),
            _ => Err(SegmentError::Frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;
    use proptest::prelude::*;

    const LAYER: LayerId = LayerId {
        epoch: Epoch(1),
        random: 2,
    };

    fn frame_of(bytes: &[u8]) -> (Frame, Vec<u8>) {
        let mut encoder = FrameEncoder::new(Effort::Live).unwrap();
        let (kind, stored) = encoder.encode(bytes);
        let frame = Frame {
            begin: 4096,
            length: bytes.len() as u32,
            stored: stored.len() as u32,
            at: 0,
            sum: checksum(LAYER, 4096, stored),
            kind,
        };
        (frame, stored.to_vec())
    }

    #[test]
    fn each_kind_comes_back() {
        let noise: Vec<u8> = (0..100_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ (n >> 5) as u8)
            .collect();
        let text = b"quack ".repeat(1000);
        let cases = [
            (vec![0; 5000], FrameKind::Zeros),
            (text, FrameKind::Zstd),
            (noise[..17].to_vec(), FrameKind::Raw),
        ];
        let mut decoder = FrameDecoder::new().unwrap();
        for (bytes, kind) in cases {
            let (frame, stored) = frame_of(&bytes);
            assert_eq!(frame.kind, kind);
            assert_eq!(decoder.decode(LAYER, &frame, &stored), Ok(bytes));
        }
    }

    #[test]
    fn a_frame_that_holds_more_or_less_than_it_says_is_refused() {
        let (frame, stored) = frame_of(&b"quack ".repeat(1000));
        let mut decoder = FrameDecoder::new().unwrap();
        for length in [1, 5999, 6001, 200_000] {
            let bad = Frame { length, ..frame };
            let result = decoder.decode(LAYER, &bad, &stored);
            assert_eq!(result, Err(SegmentError::Frame), "{length}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_an_error(at in 0_usize..6000, mask in 1_u8.., cut in 1_usize..100) {
            let (frame, stored) = frame_of(&b"quack ".repeat(1000));
            let mut bad = stored.clone();
            let at = at % bad.len();
            bad[at] ^= mask;
            let mut decoder = FrameDecoder::new().unwrap();
            prop_assert!(decoder.decode(LAYER, &frame, &bad).is_err());
            // Also where the checksum was made for the garbage.
            let summed = Frame { sum: checksum(LAYER, 4096, &bad), ..frame };
            if let Ok(bytes) = decoder.decode(LAYER, &summed, &bad) {
                prop_assert_eq!(bytes.len(), 6000);
            }
            let cut = &stored[..stored.len() - cut.min(stored.len())];
            prop_assert!(decoder.decode(LAYER, &frame, cut).is_err());
        }
    }
}
