//! An open layer: its file, and the checksums of every payload in it.
//!
//! Whatever is read through a layer is compared with its checksum first; a mismatch is
//! [`FsError::Damaged`] and nothing is returned. Payload sums are kept in memory (four bytes per
//! 32 KiB), loaded from the index of a sealed layer, or added record by record while a layer is
//! written or followed.

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::aligned::AlignedBuffer;
use crate::checksum::{CHUNK, checksum, chunk_count};
use crate::disk::DiskFile;
use crate::error::FsError;
use crate::id::LayerId;

/// An open layer file. Cheap to share; the file closes with the last reference.
pub struct Layer {
    id: LayerId,
    image: bool,
    file: Arc<dyn DiskFile>,
    payloads: RwLock<Payloads>,
}

/// The payloads of a layer by physical offset, and their sums.
#[derive(Default)]
struct Payloads {
    table: Vec<Payload>,
    sums: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Payload {
    at: u64,
    length: u64,
    first_sum: usize,
}

impl Payload {
    fn end(&self) -> u64 {
        self.at + self.length
    }
}

impl Payloads {
    /// The payload that holds physical offset `at`.
    fn find(&self, at: u64) -> Option<Payload> {
        let behind = self.table.partition_point(|payload| payload.at <= at);
        let payload = *self.table.get(behind.checked_sub(1)?)?;
        (at < payload.end()).then_some(payload)
    }

    /// The chunk-aligned span of the payload around `at..at + length`, and its sums.
    fn span(&self, at: u64, length: u64) -> Option<Span> {
        let payload = self.find(at)?;
        if at + length > payload.end() {
            return None;
        }
        let first = (at - payload.at) / CHUNK;
        let last = (at + length - payload.at).div_ceil(CHUNK);
        let begin = payload.at + first * CHUNK;
        let end = (payload.at + last * CHUNK).min(payload.end());
        let sums = self
            .sums
            .get(payload.first_sum + first as usize..payload.first_sum + last as usize)?;
        Some((begin, end, sums.to_vec()))
    }
}

/// Whole chunks of one payload: from where to where, and their sums.
type Span = (u64, u64, Vec<u32>);

thread_local! {
    /// Where pieces are read that are not whole chunks.
    static BOUNCE: RefCell<AlignedBuffer> = const { RefCell::new(AlignedBuffer::new()) };
}

/// A part of a read: `length` bytes at physical offset `at` go to `to` in the reader's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Physical offset.
    pub at: u64,
    /// Bytes.
    pub length: u64,
    /// Position in the buffer.
    pub to: usize,
}

/// Who keeps the bytes of a read, for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// The page cache of the layer files: several images share them.
    Here,
    /// Whoever asked, for as long as there is memory: a second copy would be a waste of memory and
    /// of the time to make it.
    Above,
}

/// Pieces below this size that lie close together are fetched with one system call.
const SMALL: u64 = CHUNK;
/// How far apart they may lie: reading 8 KiB too much from the page cache costs less than a
/// second system call.
const GAP_MAX: u64 = 8 * 1024;
/// How much one such call fetches at the most.
const GROUP_MAX: u64 = 1 << 20;

impl Layer {
    /// A delta layer without known payloads.
    #[must_use]
    pub fn new(id: LayerId, file: Arc<dyn DiskFile>) -> Layer {
        Layer {
            id,
            image: false,
            file,
            payloads: RwLock::default(),
        }
    }

    /// An image layer of `size` bytes and its sums.
    #[must_use]
    pub fn image(id: LayerId, file: Arc<dyn DiskFile>, size: u64, sums: Vec<u32>) -> Layer {
        let table = if size > 0 {
            vec![Payload {
                at: 0,
                length: size,
                first_sum: 0,
            }]
        } else {
            Vec::new()
        };
        Layer {
            id,
            image: true,
            file,
            payloads: RwLock::new(Payloads { table, sums }),
        }
    }

    /// Whether it is an image layer: physical offsets are the file's own.
    #[must_use]
    pub fn is_image(&self) -> bool {
        self.image
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> LayerId {
        self.id
    }

    /// Its file.
    #[must_use]
    pub fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Makes a payload known. Payloads are added in the order of their offsets; one that is not
    /// behind the last is known already (two followers of one layer) and is passed over.
    pub fn add_payload(&self, at: u64, length: u64, sums: &[u32]) {
        debug_assert_eq!(chunk_count(length), sums.len() as u64);
        let mut payloads = self.payloads.write();
        if payloads.table.last().is_some_and(|last| last.at >= at) || length == 0 {
            return;
        }
        let first_sum = payloads.sums.len();
        payloads.sums.extend_from_slice(sums);
        payloads.table.push(Payload {
            at,
            length,
            first_sum,
        });
    }

    /// Gives back what the tables were over-allocated by, once nothing more will be added.
    pub fn shrink(&self) {
        let mut payloads = self.payloads.write();
        payloads.table.shrink_to_fit();
        payloads.sums.shrink_to_fit();
    }

    /// Reads pieces, given in the order of the reader's offsets, into `out`.
    pub fn read(&self, pieces: &[Piece], cache: Cache, out: &mut [u8]) -> Result<(), FsError> {
        let mut rest = pieces;
        while let Some(first) = rest.first() {
            let mut count = 1;
            if first.length < SMALL {
                let mut end = first.at + first.length;
                while let Some(next) = rest.get(count) {
                    let near = next.at >= end && next.at - end <= GAP_MAX;
                    if next.length >= SMALL || !near || next.at + next.length - first.at > GROUP_MAX
                    {
                        break;
                    }
                    end = next.at + next.length;
                    count += 1;
                }
            }
            let (group, behind) = rest.split_at(count);
            self.read_group(group, cache, out)?;
            rest = behind;
        }
        Ok(())
    }

    /// Reads pieces that lie close together with one system call, verifies and copies them.
    fn read_group(&self, group: &[Piece], cache: Cache, out: &mut [u8]) -> Result<(), FsError> {
        let mut spans = Vec::with_capacity(group.len());
        {
            let payloads = self.payloads.read();
            for piece in group {
                let span = payloads.span(piece.at, piece.length);
                spans.push(
                    span.ok_or_else(|| self.damaged(piece.at, "no record covers these bytes"))?,
                );
            }
        }
        let (Some((begin, ..)), Some((_, end, _))) = (spans.first(), spans.last()) else {
            return Ok(());
        };
        let (begin, end) = (*begin, *end);
        if let ([piece], [(_, _, sums)]) = (group, spans.as_slice())
            && (piece.at, piece.length) == (begin, end - begin)
        {
            // The common case, whole chunks of one payload: straight into the reader's buffer.
            let target = &mut out[piece.to..piece.to + piece.length as usize];
            self.read_exact(target, begin, cache)?;
            return self.verify(target, begin, sums);
        }
        BOUNCE.with_borrow_mut(|buffer| {
            let buffer = buffer.get((end - begin) as usize);
            self.read_exact(buffer, begin, cache)?;
            self.hand_out(group, &spans, buffer, out)
        })
    }

    /// Verifies what `buffer` holds of the group's spans, from the first one's begin on, and copies
    /// the pieces.
    fn hand_out(
        &self,
        group: &[Piece],
        spans: &[Span],
        buffer: &mut [u8],
        out: &mut [u8],
    ) -> Result<(), FsError> {
        let begin = spans.first().map_or(0, |(begin, ..)| *begin);
        let mut verified_to = begin;
        for (piece, (from, to, sums)) in group.iter().zip(spans) {
            if *to > verified_to {
                let bytes = &mut buffer[(from - begin) as usize..(to - begin) as usize];
                self.verify(bytes, *from, sums)?;
                verified_to = *to;
            }
            let from = (piece.at - begin) as usize;
            let length = piece.length as usize;
            out[piece.to..piece.to + length].copy_from_slice(&buffer[from..from + length]);
        }
        Ok(())
    }

    fn read_exact(&self, target: &mut [u8], at: u64, cache: Cache) -> Result<(), FsError> {
        let read = match cache {
            Cache::Here => self.file.read_at(target, at),
            Cache::Above => self.file.read_uncached_at(target, at),
        };
        match read {
            Ok(n) if n == target.len() => Ok(()),
            Ok(n) => Err(self.damaged(at + n as u64, "the file ends too early")),
            Err(error) => {
                tracing::error!(layer = %self.id, offset = at, %error, "cannot read layer");
                Err(error.into())
            }
        }
    }

    /// Compares what was read from `begin` on with its sums. A copy that does not match is read
    /// once more, from where it was copied.
    fn verify(&self, bytes: &mut [u8], begin: u64, sums: &[u32]) -> Result<(), FsError> {
        let Some(at) = self.mismatch(bytes, begin, sums) else {
            return Ok(());
        };
        if !self.file.mistrust(begin, bytes.len() as u64) {
            return Err(self.damaged(at, "the data does not match its checksum"));
        }
        self.read_exact(bytes, begin, Cache::Here)?;
        match self.mismatch(bytes, begin, sums) {
            None => Ok(()),
            Some(at) => Err(self.damaged(at, "the data does not match its checksum")),
        }
    }

    /// The first chunk that does not match its sum.
    fn mismatch(&self, bytes: &[u8], begin: u64, sums: &[u32]) -> Option<u64> {
        let starts = (begin..).step_by(CHUNK as usize);
        bytes
            .chunks(CHUNK as usize)
            .zip(sums)
            .zip(starts)
            .find(|((chunk, sum), at)| checksum(self.id, *at, chunk) != **sum)
            .map(|(_, at)| at)
    }

    /// The error for a damaged place, logged: this is where it is found.
    pub fn damaged(&self, offset: u64, what: &'static str) -> FsError {
        tracing::error!(layer = %self.id, offset, what, "layer is damaged");
        FsError::Damaged {
            layer: self.id,
            offset,
            what,
        }
    }

    /// Checks every known payload against its sums; calls `problem` with the offset of each chunk
    /// that does not match, and `progress` with the bytes read.
    pub fn verify_payloads(
        &self,
        mut problem: impl FnMut(u64, String),
        mut progress: impl FnMut(u64),
    ) {
        let table = self.payloads.read().table.clone();
        let mut buffer = vec![0; GROUP_MAX as usize];
        for payload in table {
            let mut at = payload.at;
            while at < payload.end() {
                let length = (payload.end() - at).min(GROUP_MAX);
                let bytes = &mut buffer[..length as usize];
                let Some((_, _, sums)) = self.payloads.read().span(at, length) else {
                    break;
                };
                match self.file.read_at(bytes, at) {
                    Ok(n) if n == bytes.len() => {
                        for (i, (chunk, sum)) in bytes.chunks(CHUNK as usize).zip(&sums).enumerate()
                        {
                            let chunk_at = at + i as u64 * CHUNK;
                            if checksum(self.id, chunk_at, chunk) != *sum {
                                problem(
                                    chunk_at,
                                    "the data does not match its checksum".to_owned(),
                                );
                            }
                        }
                    }
                    Ok(n) => problem(at + n as u64, "the file ends too early".to_owned()),
                    Err(error) => problem(at, format!("cannot be read: {error}")),
                }
                progress(length);
                at += length;
            }
        }
    }

    /// An empty layer over no particular file.
    #[cfg(test)]
    #[must_use]
    pub fn for_tests() -> Arc<Layer> {
        use crate::disk::{Disk, RealDisk};
        let id = LayerId {
            epoch: crate::id::Epoch(1),
            random: crate::id::random_u64(),
        };
        let file = RealDisk
            .open(std::path::Path::new("/dev/null"), false)
            .unwrap();
        Arc::new(Layer::new(id, file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::chunk_sums;
    use crate::disk::{Disk, RealDisk};
    use crate::id::Epoch;

    fn layer_with(payloads: &[(u64, usize)]) -> (Layer, Vec<u8>, tempfile::TempDir) {
        let home = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&home.path().join("layer")).unwrap();
        let layer = Layer::new(
            LayerId {
                epoch: Epoch(1),
                random: 9,
            },
            file,
        );
        let mut image = vec![0; 1 << 20];
        for (n, (at, length)) in payloads.iter().enumerate() {
            let bytes: Vec<u8> = (0..*length).map(|i| (i * 7 + n) as u8).collect();
            layer.file.write_at(&[&bytes], *at).unwrap();
            let sums: Vec<u32> = chunk_sums(layer.id, *at, &bytes).collect();
            layer.add_payload(*at, *length as u64, &sums);
            image[*at as usize..*at as usize + length].copy_from_slice(&bytes);
        }
        (layer, image, home)
    }

    #[test]
    fn any_part_of_any_payload_reads_back() {
        let (layer, image, _home) =
            layer_with(&[(100, 300), (500, 40), (4096, 100_000), (300_000, 32_768)]);
        for (at, length) in [
            (100, 300),
            (150, 20),
            (4096, 100_000),
            (5000, 1),
            (40_000, 60_000),
            (300_000, 32_768),
        ] {
            let mut out = vec![0; length];
            layer
                .read(
                    &[Piece {
                        at,
                        length: length as u64,
                        to: 0,
                    }],
                    Cache::Here,
                    &mut out,
                )
                .unwrap();
            assert_eq!(out, image[at as usize..at as usize + length]);
        }
        let pieces = [
            Piece {
                at: 110,
                length: 10,
                to: 0,
            },
            Piece {
                at: 120,
                length: 5,
                to: 10,
            },
            Piece {
                at: 501,
                length: 9,
                to: 15,
            },
        ];
        let mut out = vec![0; 24];
        layer.read(&pieces, Cache::Here, &mut out).unwrap();
        assert_eq!(
            out,
            [&image[110..120], &image[120..125], &image[501..510]].concat()
        );
    }

    #[test]
    fn a_flipped_bit_is_an_error_and_never_data() {
        let (layer, image, _home) = layer_with(&[(100, 300), (4096, 100_000)]);
        for at in [100, 399, 4096, 40_000, 104_095] {
            layer
                .file
                .write_at(&[&[image[at as usize] ^ 4]], at)
                .unwrap();
            let mut out = vec![0; 1];
            let result = layer.read(
                &[Piece {
                    at,
                    length: 1,
                    to: 0,
                }],
                Cache::Here,
                &mut out,
            );
            assert!(matches!(result, Err(FsError::Damaged { .. })));
            assert_eq!(out, [0]);
            layer.file.write_at(&[&[image[at as usize]]], at).unwrap();
            layer
                .read(
                    &[Piece {
                        at,
                        length: 1,
                        to: 0,
                    }],
                    Cache::Here,
                    &mut out,
                )
                .unwrap();
        }
    }

    #[test]
    fn a_cut_file_is_an_error() {
        let (layer, _, _home) = layer_with(&[(4096, 100_000)]);
        layer.file.set_length(50_000).unwrap();
        let mut out = vec![0; 100_000];
        let result = layer.read(
            &[Piece {
                at: 4096,
                length: 100_000,
                to: 0,
            }],
            Cache::Here,
            &mut out,
        );
        assert!(matches!(result, Err(FsError::Damaged { .. })));
    }

    #[test]
    fn bytes_outside_of_payloads_are_never_returned() {
        let (layer, _, _home) = layer_with(&[(4096, 100)]);
        let mut out = vec![0; 10];
        assert!(
            layer
                .read(
                    &[Piece {
                        at: 4190,
                        length: 10,
                        to: 0
                    }],
                    Cache::Here,
                    &mut out
                )
                .is_err()
        );
    }
}
