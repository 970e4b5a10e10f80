//! A segment object as bytes: frames, the frame table, the trailer. FORMAT.md describes them; a
//! test pins them.
//!
//! The table tells for each frame which bytes of the layer it holds, where in the object, and the
//! checksum of the stored bytes. What is decoded here may be anything: a table that was accepted
//! has frames that follow each other without a gap from the segment's begin to its end, and that
//! lie within the object, so that nothing behind it allocates more than a frame.

use crate::checksum::checksum;
use crate::id::LayerId;
use crate::record::{u32_at, u64_at};

/// Frames begin at multiples of this.
pub const PAGE: u64 = 4096;
/// The most bytes of a layer that one frame holds: DuckDB's block, so that reading one fetches
/// one frame.
pub const FRAME_MAX: u64 = 256 << 10;
/// Length of the trailer.
pub const TRAILER_LENGTH: usize = 64;
/// Length of a frame's entry in the table.
pub const ENTRY_LENGTH: usize = 32;
/// A longer range of a layer goes as several segments, so that a failure does not begin at the
/// beginning. Arithmetic: a killed upload repeats at most twice this; S3 allows 10,000 parts of
/// 8 MiB, 600 times as much; a table has 512 entries at most, 16 KiB, unless the layer's records are
/// small.
pub const SEGMENT: u64 = 64 << 20;

const MAGIC: &[u8; 8] = b"OdSegmnt";
const VERSION: u32 = 1;
const SUM_AT: usize = TRAILER_LENGTH - 4;

/// How a frame is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Zeros only; no bytes are stored.
    Zeros,
    /// As it is.
    Raw,
    /// One zstd frame.
    Zstd,
}

/// Where one frame of a layer lies in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its first byte in the layer.
    pub begin: u64,
    /// How many bytes of the layer it holds.
    pub length: u32,
    /// How many bytes are stored.
    pub stored: u32,
    /// Where in the object.
    pub at: u64,
    /// Checksum of the stored bytes, seeded with layer and `begin`.
    pub sum: u32,
    /// How.
    pub kind: FrameKind,
}

impl Frame {
    /// Behind its last byte in the layer.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.begin + u64::from(self.length)
    }

    /// Behind its last byte in the object.
    #[must_use]
    pub fn stored_end(&self) -> u64 {
        self.at + u64::from(self.stored)
    }
}

/// Why the bytes of an object were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Not a segment at all.
    #[error("this is not a segment of a layer")]
    Foreign,
    /// Of a format that this program does not know.
    #[error("it is of format version {0}, which this program does not know")]
    Version(u32),
    /// Damaged.
    #[error("its {0} does not match its checksum")]
    Checksum(&'static str),
    /// Another segment's bytes.
    #[error("it is another layer's, or another part of it")]
    Other,
    /// The checksums are right and the content makes no sense.
    #[error("its frame table makes no sense")]
    Table,
    /// More bytes of the object's end are needed: so many.
    #[error("it is cut: {0} bytes of its end are needed")]
    Short(u64),
    /// A frame does not decode to the bytes that it should hold.
    #[error("a frame of it can't be decoded")]
    Frame,
}

/// The frames of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The layer.
    pub layer: LayerId,
    /// First byte of the layer that the segment holds.
    pub begin: u64,
    /// Behind the last.
    pub end: u64,
    /// By `begin`.
    pub frames: Vec<Frame>,
}

impl Table {
    /// Table and trailer: what stands behind the frames.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.frames.len() * ENTRY_LENGTH + TRAILER_LENGTH);
        for frame in &self.frames {
            bytes.extend(frame.begin.to_le_bytes());
            bytes.extend(frame.at.to_le_bytes());
            bytes.extend(frame.length.to_le_bytes());
            bytes.extend(frame.stored.to_le_bytes());
            bytes.extend(frame.sum.to_le_bytes());
            bytes.push(match frame.kind {
                FrameKind::Zeros => 0,
                FrameKind::Raw => 1,
                FrameKind::Zstd => 2,
            });
            bytes.extend([0; 3]);
        }
        let table_sum = checksum(self.layer, self.begin, &bytes);
        let mut trailer = MAGIC.to_vec();
        trailer.extend(VERSION.to_le_bytes());
        trailer.extend([0; 4]);
        for number in [self.layer.epoch.0, self.layer.random, self.begin, self.end] {
            trailer.extend(number.to_le_bytes());
        }
        trailer.extend((self.frames.len() as u32).to_le_bytes());
        trailer.extend(table_sum.to_le_bytes());
        trailer.extend([0; 4]);
        trailer.extend(crc32c::crc32c(&trailer).to_le_bytes());
        bytes.extend(trailer);
        bytes
    }

    /// Reads table and trailer from the last bytes of an object of `object_length` bytes, which
    /// must be the segment of `layer` that holds `begin..end`.
    pub fn decode(
        layer: LayerId,
        begin: u64,
        end: u64,
        object_length: u64,
        tail: &[u8],
    ) -> Result<Table, SegmentError> {
        let Some((rest, trailer)) = tail
            .len()
            .checked_sub(TRAILER_LENGTH)
            .map(|at| tail.split_at(at))
        else {
            return Err(SegmentError::Short(TRAILER_LENGTH as u64));
        };
        if trailer[..8] != *MAGIC {
            return Err(SegmentError::Foreign);
        }
        if crc32c::crc32c(&trailer[..SUM_AT]) != u32_at(trailer, SUM_AT) {
            return Err(SegmentError::Checksum("trailer"));
        }
        if u32_at(trailer, 8) != VERSION {
            return Err(SegmentError::Version(u32_at(trailer, 8)));
        }
        let numbers = [16, 24, 32, 40].map(|at| u64_at(trailer, at));
        if numbers != [layer.epoch.0, layer.random, begin, end] {
            return Err(SegmentError::Other);
        }
        let length = u32_at(trailer, 48) as usize * ENTRY_LENGTH;
        let Some(at) = rest.len().checked_sub(length) else {
            return Err(SegmentError::Short((length + TRAILER_LENGTH) as u64));
        };
        let bytes = &rest[at..];
        if checksum(layer, begin, bytes) != u32_at(trailer, 52) {
            return Err(SegmentError::Checksum("frame table"));
        }
        let frames_end = object_length
            .checked_sub((length + TRAILER_LENGTH) as u64)
            .ok_or(SegmentError::Table)?;
        let mut frames = Vec::with_capacity(length / ENTRY_LENGTH);
        let mut expected = begin;
        for entry in bytes.as_chunks::<ENTRY_LENGTH>().0 {
            let frame = entry_of(entry).ok_or(SegmentError::Table)?;
            let fits = frame.begin == expected
                && frame.begin.is_multiple_of(PAGE)
                && (1..=FRAME_MAX).contains(&u64::from(frame.length))
                && frame
                    .at
                    .checked_add(u64::from(frame.stored))
                    .is_some_and(|behind| behind <= frames_end);
            if !fits {
                return Err(SegmentError::Table);
            }
            expected = frame
                .begin
                .checked_add(u64::from(frame.length))
                .ok_or(SegmentError::Table)?;
            frames.push(frame);
        }
        if expected != end {
            return Err(SegmentError::Table);
        }
        Ok(Table {
            layer,
            begin,
            end,
            frames,
        })
    }

    /// The index of the frame that holds a byte of the layer.
    #[must_use]
    pub fn find(&self, at: u64) -> Option<usize> {
        let behind = self.frames.partition_point(|frame| frame.begin <= at);
        let n = behind.checked_sub(1)?;
        (at < self.frames[n].end()).then_some(n)
    }
}

fn entry_of(entry: &[u8; ENTRY_LENGTH]) -> Option<Frame> {
    let frame = Frame {
        begin: u64_at(entry, 0),
        at: u64_at(entry, 8),
        length: u32_at(entry, 16),
        stored: u32_at(entry, 20),
        sum: u32_at(entry, 24),
        kind: match entry[28] {
            0 => FrameKind::Zeros,
            1 => FrameKind::Raw,
            2 => FrameKind::Zstd,
            _ => return None,
        },
    };
    let stored_right = match frame.kind {
        FrameKind::Zeros => frame.stored == 0,
        FrameKind::Raw => frame.stored == frame.length,
        FrameKind::Zstd => frame.stored < frame.length,
    };
    stored_right.then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;
    use proptest::prelude::*;

    const LAYER: LayerId = LayerId {
        epoch: Epoch(2),
        random: 0x1122_3344_5566_7788,
    };

    fn frame(begin: u64, length: u32, at: u64, stored: u32, kind: FrameKind) -> Frame {
        Frame {
            begin,
            length,
            stored,
            at,
            sum: 0xaabb_ccdd,
            kind,
        }
    }

    fn table() -> Table {
        Table {
            layer: LAYER,
            begin: 8192,
            end: 24_577,
            frames: vec![
                frame(8192, 4096, 12_288, 4000, FrameKind::Zstd),
                frame(12_288, 8192, 0, 8192, FrameKind::Raw),
                frame(20_480, 4097, 0, 0, FrameKind::Zeros),
            ],
        }
    }

    const OBJECT: u64 = 16_288 + 3 * 32 + 64;

    fn decode(bytes: &[u8]) -> Result<Table, SegmentError> {
        Table::decode(LAYER, 8192, 24_577, OBJECT, bytes)
    }

    #[test]
    fn a_table_comes_back() {
        let bytes = table().encode();
        assert_eq!(decode(&bytes), Ok(table()));
        let behind_frames = [&[7; 100], bytes.as_slice()].concat();
        assert_eq!(decode(&behind_frames), Ok(table()));
        assert_eq!(table().find(24_576), Some(2));
        assert_eq!(table().find(8191), None);
        assert_eq!(table().find(24_577), None);
    }

    #[test]
    fn the_bytes_are_as_the_format_says() {
        let bytes = table().encode();
        assert_eq!(bytes.len(), 3 * 32 + 64);
        assert_eq!(
            bytes[..32],
            [
                0, 0x20, 0, 0, 0, 0, 0, 0, // begin
                0, 0x30, 0, 0, 0, 0, 0, 0, // where in the object
                0, 0x10, 0, 0, // length
                0xa0, 0x0f, 0, 0, // stored
                0xdd, 0xcc, 0xbb, 0xaa, // checksum
                2, 0, 0, 0, // kind
            ]
        );
        let trailer = &bytes[96..];
        assert_eq!(trailer[..16], *b"OdSegmnt\x01\0\0\0\0\0\0\0");
        let numbers = [16, 24, 32, 40].map(|at| u64_at(trailer, at));
        assert_eq!(numbers, [2, 0x1122_3344_5566_7788, 8192, 24_577]);
        assert_eq!(u32_at(trailer, 48), 3);
        assert_eq!(u32_at(trailer, 52), checksum(LAYER, 8192, &bytes[..96]));
        assert_eq!(u32_at(trailer, 56), 0);
        assert_eq!(u32_at(trailer, 60), crc32c::crc32c(&trailer[..60]));
    }

    #[test]
    fn what_is_not_this_segment_is_refused() {
        let bytes = table().encode();
        let other = LayerId { random: 1, ..LAYER };
        for (layer, begin, end) in [
            (other, 8192, 24_577),
            (LAYER, 4096, 24_577),
            (LAYER, 8192, 24_578),
        ] {
            let result = Table::decode(layer, begin, end, OBJECT, &bytes);
            assert_eq!(result, Err(SegmentError::Other));
        }
        assert_eq!(decode(&bytes[1..]), Err(SegmentError::Short(160)));
        assert_eq!(decode(&bytes[120..]), Err(SegmentError::Short(64)));
        // Frames that would lie behind the table.
        let result = Table::decode(LAYER, 8192, 24_577, OBJECT - 1, &bytes);
        assert_eq!(result, Err(SegmentError::Table));
    }

    #[test]
    fn tables_with_right_sums_and_wrong_content_are_refused() {
        let spoil: [fn(&mut Table); 8] = [
            |t| t.frames[1].begin += PAGE,
            |t| t.frames[1].length -= 1,
            |t| t.frames[2].length = 0,
            |t| t.frames[0].stored = 4096,
            |t| t.frames[2].stored = 1,
            |t| t.frames[1].at = u64::MAX,
            |t| t.frames[1].length = u32::MAX,
            |t| t.frames.clear(),
        ];
        for (n, spoil) in spoil.iter().enumerate() {
            let mut bad = table();
            spoil(&mut bad);
            assert_eq!(decode(&bad.encode()), Err(SegmentError::Table), "case {n}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_an_error(
            flips in proptest::collection::vec((0_usize..160, 1_u8..), 1..4),
            cut in 0_usize..160,
        ) {
            let mut bytes = table().encode();
            for (at, mask) in &flips {
                bytes[*at] ^= mask;
            }
            prop_assume!(bytes != table().encode());
            prop_assert!(decode(&bytes).is_err());
            prop_assert!(decode(&table().encode()[..cut]).is_err());
        }
    }
}
