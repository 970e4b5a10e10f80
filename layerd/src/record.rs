//! Log records: the changes of an image, as bytes. FORMAT.md describes them; a test pins them.
//!
//! A record is a header of 64 bytes, a body (names, or a payload's checksums) and, for data, a
//! payload. Header and body carry one checksum; payloads have their own, one per
//! [`CHUNK`](crate::checksum::CHUNK), in the body. Payloads of a page or more are placed so that
//! physical and logical offset agree modulo the page size: a read never needs to shift bytes.
//!
//! Decoding trusts nothing: any bytes give a record, or a reason why not.

use crate::checksum::{checksum, chunk_count, seed};
use crate::frozen::FileKind;
use crate::id::{Epoch, FileId, LayerId, Lsn, Timestamp};

/// Records and small payloads begin at multiples of this.
pub const RECORD_ALIGN: u64 = 8;
/// Payloads of at least this size keep their alignment within a page of this size.
pub const PAGE: u64 = 4096;
/// Length of the fixed part.
pub const HEADER_LENGTH: usize = 64;
/// The longest payload of one record. Larger writes are split.
pub const PAYLOAD_MAX: usize = 8 << 20;
/// The longest body: two names and their lengths, or the sums of the longest payload.
const BODY_MAX: usize = {
    let sums = PAYLOAD_MAX / crate::checksum::CHUNK as usize * 4;
    let names = 2 * (NAME_MAX + 8) + 32;
    if sums > names { sums } else { names }
};
/// The longest stored name.
pub const NAME_MAX: usize = 255;

const MAGIC: u32 = u32::from_le_bytes(*b"OdR1");

/// One change of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `length` bytes of `file` at `offset` now stand at `payload_at` of this layer.
    Data {
        file: FileId,
        offset: u64,
        length: u64,
        payload_at: u64,
        sums: Vec<u32>,
    },
    /// The file is `size` long; what was behind is gone, what is new is a hole.
    Truncate { file: FileId, size: u64 },
    /// A range becomes a hole; the length stays.
    Punch {
        file: FileId,
        offset: u64,
        length: u64,
    },
    /// A new file or directory.
    Create {
        parent: FileId,
        file: FileId,
        kind: FileKind,
        mode: u32,
        uid: u32,
        gid: u32,
        name: Vec<u8>,
    },
    /// A name goes, and its file or directory with it.
    Unlink { parent: FileId, name: Vec<u8> },
    /// A name moves, replacing what has the new name, or changing places with it.
    Rename {
        from: (FileId, Vec<u8>),
        to: (FileId, Vec<u8>),
        exchange: bool,
    },
    /// Attributes.
    Attr {
        file: FileId,
        mode: u32,
        uid: u32,
        gid: u32,
        mtime: Timestamp,
    },
    /// The file's content is the whole of an image layer, `size` bytes.
    Image {
        file: FileId,
        layer: LayerId,
        size: u64,
    },
    /// A commit point. All bytes below `durable_end` of this layer were durable before this
    /// record was written.
    Commit {
        lsn: Lsn,
        durable_end: u64,
        written_bytes: u64,
    },
}

impl Change {
    /// Length of the body, without padding.
    #[must_use]
    pub fn body_length(&self) -> u64 {
        match self {
            Change::Data { length, .. } => chunk_count(*length) * 4,
            Change::Create { name, .. } | Change::Unlink { name, .. } => name.len() as u64,
            Change::Rename { from, to, .. } => (from.1.len() + to.1.len()) as u64,
            Change::Truncate { .. }
            | Change::Punch { .. }
            | Change::Attr { .. }
            | Change::Image { .. }
            | Change::Commit { .. } => 0,
        }
    }
}

/// A change, when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Wall time; becomes the file's mtime.
    pub time: Timestamp,
    /// What changed.
    pub change: Change,
}

/// Where a record's parts lie in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Begin of the payload; the end of the body where there is none.
    pub payload_at: u64,
    /// Begin of the next record.
    pub end: u64,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotARecord {
    /// All zero: nothing was written here.
    Blank,
    /// The bytes end before the record does.
    Short {
        /// How many bytes header and body have.
        need: usize,
    },
    /// Something else.
    Bad(&'static str),
}

/// Where the payload of a data record that begins at `at` goes.
#[must_use]
pub fn place_data(at: u64, offset: u64, length: u64) -> Place {
    let body_end = at + HEADER_LENGTH as u64 + align(chunk_count(length) * 4, RECORD_ALIGN);
    let payload_at = if length >= PAGE {
        let shift = (offset % PAGE + PAGE - body_end % PAGE) % PAGE;
        body_end + shift
    } else {
        body_end
    };
    Place {
        payload_at,
        end: align(payload_at + length, RECORD_ALIGN),
    }
}

/// The next multiple of `to`, a power of two.
#[must_use]
pub fn align(value: u64, to: u64) -> u64 {
    value.next_multiple_of(to)
}

impl Record {
    /// Header and body as bytes, for a record that begins at `at` of `layer`.
    #[must_use]
    pub fn encode(&self, layer: LayerId, at: u64) -> Vec<u8> {
        let mut body = Vec::new();
        // kind, flags, file, offset, length, payload_at, extra
        let (kind, flags, file, offset, length, payload_at, extra): (
            u8,
            u8,
            u64,
            u64,
            u64,
            u64,
            u64,
        ) = match &self.change {
            Change::Data {
                file,
                offset,
                length,
                payload_at,
                sums,
            } => {
                body.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
                (1, 0, file.0, *offset, *length, *payload_at, 0)
            }
            Change::Truncate { file, size } => (2, 0, file.0, *size, 0, 0, 0),
            Change::Punch {
                file,
                offset,
                length,
            } => (3, 0, file.0, *offset, *length, 0, 0),
            Change::Create {
                parent,
                file,
                kind,
                mode,
                uid,
                gid,
                name,
            } => {
                body.extend(name);
                let flags = u8::from(*kind == FileKind::Directory);
                (
                    4,
                    flags,
                    file.0,
                    parent.0,
                    name.len() as u64,
                    u64::from(*mode),
                    pair(*uid, *gid),
                )
            }
            Change::Unlink { parent, name } => {
                body.extend(name);
                (5, 0, parent.0, 0, name.len() as u64, 0, 0)
            }
            Change::Rename { from, to, exchange } => {
                body.extend(&from.1);
                body.extend(&to.1);
                (
                    6,
                    u8::from(*exchange),
                    from.0.0,
                    to.0.0,
                    from.1.len() as u64,
                    to.1.len() as u64,
                    0,
                )
            }
            Change::Attr {
                file,
                mode,
                uid,
                gid,
                mtime,
            } => (
                7,
                0,
                file.0,
                mtime.0.cast_unsigned(),
                u64::from(*mode),
                0,
                pair(*uid, *gid),
            ),
            Change::Image { file, layer, size } => {
                (8, 0, file.0, layer.epoch.0, *size, layer.random, 0)
            }
            Change::Commit {
                lsn,
                durable_end,
                written_bytes,
            } => (9, 0, lsn.0, *durable_end, 0, 0, *written_bytes),
        };
        let body_length = body.len() as u32;
        body.resize(align(body.len() as u64, RECORD_ALIGN) as usize, 0);
        let mut bytes = Vec::with_capacity(HEADER_LENGTH + body.len());
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend([0; 4]); // The checksum's place.
        bytes.extend([kind, flags, 0, 0]);
        bytes.extend(body_length.to_le_bytes());
        for field in [
            file,
            offset,
            length,
            payload_at,
            extra,
            self.time.0.cast_unsigned(),
        ] {
            bytes.extend(field.to_le_bytes());
        }
        debug_assert_eq!(bytes.len(), HEADER_LENGTH);
        bytes.extend(body);
        let sum = checksum(layer, at, &bytes);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Length of header and body of the record in `bytes`, which decoded.
    #[must_use]
    pub fn header_and_body_length(bytes: &[u8]) -> usize {
        HEADER_LENGTH + align(u64::from(u32_at(bytes, 12)), RECORD_ALIGN) as usize
    }

    /// Reads the record that begins at `at` of `layer` from `bytes`, which begin there. Returns it
    /// and where its parts lie. The payload is not looked at.
    pub fn decode(layer: LayerId, at: u64, bytes: &[u8]) -> Result<(Record, Place), NotARecord> {
        let Some(header) = bytes.first_chunk::<HEADER_LENGTH>() else {
            return Err(NotARecord::Short {
                need: HEADER_LENGTH,
            });
        };
        if header.iter().all(|b| *b == 0) {
            return Err(NotARecord::Blank);
        }
        if header[..4] != MAGIC.to_le_bytes() {
            return Err(NotARecord::Bad("not a record"));
        }
        let body_length = u32_at(header, 12) as usize;
        if body_length > BODY_MAX {
            return Err(NotARecord::Bad("record header with an impossible length"));
        }
        let whole = HEADER_LENGTH + align(body_length as u64, RECORD_ALIGN) as usize;
        let Some(bytes) = bytes.get(..whole) else {
            return Err(NotARecord::Short { need: whole });
        };
        // The checksum covers header and body with its own place taken as zero.
        let sum = [&bytes[..4], &[0; 4], &bytes[8..]]
            .iter()
            .fold(seed(layer, at), |sum, part| {
                crc32c::crc32c_append(sum, part)
            });
        if sum != u32_at(header, 4) {
            return Err(NotARecord::Bad("record header does not match its checksum"));
        }
        let body = &bytes[HEADER_LENGTH..HEADER_LENGTH + body_length];
        let [file, offset, length, payload_at, extra, time] =
            [16, 24, 32, 40, 48, 56].map(|i| u64_at(header, i));
        let flags = header[9];
        let change = match header[8] {
            1 => {
                let place =
                    (length <= PAYLOAD_MAX as u64).then(|| place_data(at, offset % PAGE, length));
                if place.is_none_or(|place| place.payload_at != payload_at)
                    || chunk_count(length) * 4 != body_length as u64
                    || offset
                        .checked_add(length)
                        .is_none_or(|end| end > i64::MAX as u64)
                {
                    return Err(NotARecord::Bad("data record that contradicts itself"));
                }
                let sums = body
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|sum| u32::from_le_bytes(*sum))
                    .collect();
                Change::Data {
                    file: FileId(file),
                    offset,
                    length,
                    payload_at,
                    sums,
                }
            }
            2 => Change::Truncate {
                file: FileId(file),
                size: offset,
            },
            3 => Change::Punch {
                file: FileId(file),
                offset,
                length,
            },
            4 => Change::Create {
                parent: FileId(offset),
                file: FileId(file),
                kind: if flags & 1 == 1 {
                    FileKind::Directory
                } else {
                    FileKind::File
                },
                mode: payload_at as u32,
                uid: extra as u32,
                gid: (extra >> 32) as u32,
                name: body.to_vec(),
            },
            5 => Change::Unlink {
                parent: FileId(file),
                name: body.to_vec(),
            },
            6 => {
                let Some((from, to)) = usize::try_from(length)
                    .ok()
                    .and_then(|at| body.split_at_checked(at))
                else {
                    return Err(NotARecord::Bad("rename record that contradicts itself"));
                };
                Change::Rename {
                    from: (FileId(file), from.to_vec()),
                    to: (FileId(offset), to.to_vec()),
                    exchange: flags & 1 == 1,
                }
            }
            7 => Change::Attr {
                file: FileId(file),
                mode: length as u32,
                uid: extra as u32,
                gid: (extra >> 32) as u32,
                mtime: Timestamp(offset.cast_signed()),
            },
            8 => Change::Image {
                file: FileId(file),
                layer: LayerId {
                    epoch: Epoch(offset),
                    random: payload_at,
                },
                size: length,
            },
            9 => Change::Commit {
                lsn: Lsn(file),
                durable_end: offset,
                written_bytes: extra,
            },
            _ => return Err(NotARecord::Bad("record of an unknown kind")),
        };
        let place = match change {
            Change::Data { offset, length, .. } => place_data(at, offset, length),
            _ => Place {
                payload_at: at + whole as u64,
                end: at + whole as u64,
            },
        };
        Ok((
            Record {
                time: Timestamp(time.cast_signed()),
                change,
            },
            place,
        ))
    }
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The four bytes at `at`; callers have checked the length.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |b| u32::from_le_bytes(*b))
}

/// The eight bytes at `at`; callers have checked the length.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LAYER: LayerId = LayerId {
        epoch: Epoch(3),
        random: 0x0123_4567_89ab_cdef,
    };

    fn examples() -> Vec<Change> {
        let name = b"\x01.wal".to_vec();
        let place = place_data(4096, 100, 40_000);
        vec![
            Change::Data {
                file: FileId(2),
                offset: 100,
                length: 40_000,
                payload_at: place.payload_at,
                sums: vec![1, 2],
            },
            Change::Truncate {
                file: FileId(2),
                size: 9,
            },
            Change::Punch {
                file: FileId(2),
                offset: 4096,
                length: 8192,
            },
            Change::Create {
                parent: FileId::ROOT,
                file: FileId(7),
                kind: FileKind::Directory,
                mode: 0o755,
                uid: 1,
                gid: 2,
                name: name.clone(),
            },
            Change::Unlink {
                parent: FileId::ROOT,
                name: name.clone(),
            },
            Change::Rename {
                from: (FileId(1), b"a".to_vec()),
                to: (FileId(5), name),
                exchange: true,
            },
            Change::Attr {
                file: FileId(2),
                mode: 0o600,
                uid: 3,
                gid: 4,
                mtime: Timestamp(-5),
            },
            Change::Image {
                file: FileId(2),
                layer: LAYER,
                size: 1 << 40,
            },
            Change::Commit {
                lsn: Lsn(12),
                durable_end: 4096,
                written_bytes: 77,
            },
        ]
    }

    #[test]
    fn every_kind_comes_back() {
        for change in examples() {
            let record = Record {
                time: Timestamp(42),
                change,
            };
            let bytes = record.encode(LAYER, 4096);
            let (back, place) = Record::decode(LAYER, 4096, &bytes).unwrap();
            assert_eq!(back, record);
            assert_eq!(place.end % RECORD_ALIGN, 0);
        }
    }

    #[test]
    fn a_record_elsewhere_or_with_a_flipped_bit_is_bad() {
        for change in examples() {
            let bytes = Record {
                time: Timestamp(42),
                change,
            }
            .encode(LAYER, 4096);
            assert!(Record::decode(LAYER, 8192, &bytes).is_err());
            assert!(Record::decode(LayerId { random: 1, ..LAYER }, 4096, &bytes).is_err());
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Record::decode(LAYER, 4096, &bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn large_payloads_keep_their_place_in_the_page() {
        for offset in [0, 4096, 100, 4095, 12_288] {
            for at in [4096, 4168, 8184] {
                let place = place_data(at, offset, 262_144);
                assert_eq!(place.payload_at % PAGE, offset % PAGE);
                assert!(place.payload_at - at <= HEADER_LENGTH as u64 + 32 + PAGE);
            }
        }
        assert_eq!(place_data(4096, 77, 200).payload_at, 4096 + 64 + 8);
    }

    #[test]
    fn the_bytes_are_as_the_format_says() {
        let commit = Record {
            time: Timestamp(5),
            change: Change::Commit {
                lsn: Lsn(2),
                durable_end: 3,
                written_bytes: 4,
            },
        };
        let bytes = commit.encode(LAYER, 4096);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let sum = &hex[8..16];
        assert_eq!(
            hex,
            format!(
                "4f645231{sum}0900000000000000020000000000000003000000000000000000000000000000\
                 000000000000000004000000000000000500000000000000"
            )
        );
        assert_eq!(sum, "68e4a16e");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
            }
            prop_assert!(Record::decode(LAYER, 4096, &bytes).is_err());
        }
    }
}
