//! Checksums: CRC-32C, seeded with where the bytes belong.
//!
//! The seed mixes the layer's id and the physical offset in, so that bytes which are right but in
//! the wrong place (a misdirected write, a stale block, a copy of another layer) do not pass.

use crate::id::LayerId;

/// Payloads are summed in pieces of this many bytes, counted from the payload's begin. Arithmetic:
/// one sum (4 bytes) per 32 KiB is 0.01 %, a 256 KiB block needs 32 bytes of memory, and a 4 KiB
/// read verifies 32 KiB, some 3 µs.
pub const CHUNK: u64 = 32 * 1024;

/// The checksum of `bytes`, which stand at physical offset `at` of `layer`.
#[must_use]
pub fn checksum(layer: LayerId, at: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed(layer, at), bytes)
}

/// The checksum of the empty string at that place; `crc32c_append` goes on from it.
#[must_use]
pub fn seed(layer: LayerId, at: u64) -> u32 {
    let mut place = [0; 24];
    place[..8].copy_from_slice(&layer.epoch.0.to_le_bytes());
    place[8..16].copy_from_slice(&layer.random.to_le_bytes());
    place[16..].copy_from_slice(&at.to_le_bytes());
    crc32c::crc32c(&place)
}

/// The sums of a payload that begins at physical offset `at`, one per [`CHUNK`].
pub fn chunk_sums(layer: LayerId, at: u64, payload: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let starts = (at..).step_by(CHUNK as usize);
    payload
        .chunks(CHUNK as usize)
        .zip(starts)
        .map(move |(chunk, at)| checksum(layer, at, chunk))
}

/// How many sums a payload of that length has.
#[must_use]
pub fn chunk_count(length: u64) -> u64 {
    length.div_ceil(CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;

    #[test]
    fn right_bytes_in_the_wrong_place_do_not_pass() {
        let a = LayerId {
            epoch: Epoch(1),
            random: 2,
        };
        let b = LayerId {
            epoch: Epoch(1),
            random: 3,
        };
        let sum = checksum(a, 4096, b"quack");
        assert_eq!(sum, checksum(a, 4096, b"quack"));
        assert_ne!(sum, checksum(a, 8192, b"quack"));
        assert_ne!(sum, checksum(b, 4096, b"quack"));
    }
}
