//! Uploading a range of a layer as one segment.
//!
//! Each attempt takes a fresh random key, so nothing is ever overwritten, and what a failed or
//! killed attempt left is an object without a row, which garbage collection finds. An upload is
//! done when the object's end was read back from the store and is what was sent, at its whole
//! length; only then may the caller put the segment into the catalog.
//!
//! One attempt is made here (each request in it is retried by the store's client). Whether and
//! when to try again is left to the caller. It fails once nothing of it has arrived for as long as
//! the store's user is patient: one time for a small object, one for each part of a large one.

use std::io;

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::encode::{Encoder, ReadLayer};
use super::key::SegmentKey;
use super::layout::{Layout, sums_at};
use super::objects::{Objects, ObjectsError};
use super::runtime::{block_on, bounded, bounded_by, runtime};
use super::segment::{ENTRY_LENGTH, SEGMENT, SegmentError, TRAILER_LENGTH, Table};
use crate::catalog::{CommitRange, Segment};
use crate::disk::DiskFile;
use crate::id::{DatabaseId, LayerId};
use crate::machine::Instant;

/// Parts of one upload that are on their way at the same time; one or two more are being made.
pub const PARTS_IN_FLIGHT: usize = 3;
/// Uploads of more than two parts that this process does at the same time.
pub const PARALLEL: usize = 2;

static LARGE: Semaphore = Semaphore::const_new(PARALLEL);

/// Why an upload failed. No segment of it exists.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The local layer can't be read: trying again will not help before that is mended.
    #[error("layer {layer} cannot be read for its upload: {source}")]
    Layer {
        /// The layer.
        layer: LayerId,
        /// Why.
        source: io::Error,
    },
    /// The store refused, or did not answer: try again later.
    #[error("a segment of layer {layer} cannot be uploaded: {source}")]
    Store {
        /// The layer.
        layer: LayerId,
        /// Why.
        source: ObjectsError,
    },
    /// The store said that it has the object, and has something else: try again.
    #[error("the store returned something else than what was uploaded as {key}: {source}")]
    Different {
        /// The object.
        key: String,
        /// What is wrong with it.
        source: SegmentError,
    },
}

/// What to upload.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// The database that the layer was written for.
    pub database: DatabaseId,
    /// The layer.
    pub layer: LayerId,
    /// Its first byte; a multiple of 4096.
    pub begin: u64,
    /// Behind the last; see [`split`].
    pub end: u64,
    /// Where frames are cut.
    pub layout: &'a Layout,
    /// The commits whose records lie in it.
    pub commits: Option<CommitRange>,
}

/// The ranges of the segments in which `begin..end` of a layer is uploaded; `begin` is a multiple of
/// 4096, and so is each of theirs.
pub fn split(begin: u64, end: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    let mut begin = begin;
    std::iter::from_fn(move || {
        // What is left over is not worth a segment of its own.
        let to = if end.saturating_sub(begin) <= SEGMENT * 2 {
            end
        } else {
            begin + SEGMENT
        };
        let range = begin..to;
        begin = to;
        (!range.is_empty()).then_some(range)
    })
}

/// Uploads a range of a layer, whose bytes `read` supplies, and verifies the object. Blocks.
pub fn upload(
    objects: &Objects,
    range: Range<'_>,
    read: ReadLayer<'_>,
) -> Result<Segment, UploadError> {
    let layer = range.layer;
    let key = SegmentKey::random(range.database, layer, range.begin).to_string();
    let path = Key::from(key.as_str());
    let unread = |source| UploadError::Layer { layer, source };
    let failed = |source| UploadError::Store { layer, source };
    let mut encoder = Encoder::new(layer, range.begin, range.end, range.layout).map_err(unread)?;
    let mut parts = vec![encoder.next_part(read).map_err(unread)?];
    if !encoder.is_done() {
        parts.push(encoder.next_part(read).map_err(unread)?);
    }
    let patience = objects.patience();
    let mut since = Instant::now();
    if encoder.is_done() {
        let payload: PutPayload = parts.into_iter().map(Bytes::from).collect();
        block_on(bounded_by(patience, objects.store().put(&path, payload)))
            .map_err(|error| failed(error.into()))?
            .map_err(|error| failed(error.into()))?;
    } else {
        let runtime = runtime().map_err(|error| failed(error.into()))?;
        let _permit = runtime.block_on(LARGE.acquire());
        let begun = objects.store().put_multipart(&path);
        let begun = runtime.block_on(bounded_by(patience, begun));
        let mut sender = Sender {
            objects,
            runtime,
            upload: begun.map_err(|error| failed(error.into()))?,
            tasks: JoinSet::new(),
        };
        let sent = sender.send_all(layer, parts, &mut encoder, read);
        if let Err(error) = sent {
            sender.abort();
            return Err(error);
        }
        since = Instant::now();
    }
    let (bytes, tail, table) = encoder.finish();
    let segment = Segment {
        begin: range.begin,
        end: range.end,
        key,
        bytes,
        tail,
        commits: range.commits,
    };
    let left = patience.saturating_sub(since.elapsed());
    let stored = block_on(bounded_by(
        left,
        read_back(objects, &path, &segment, &table),
    ))
    .map_err(|error| failed(error.into()))?
    .map_err(|error| failed(error.into()))?;
    match stored {
        Ok(()) => Ok(segment),
        Err(source) => Err(UploadError::Different {
            key: segment.key,
            source,
        }),
    }
}

/// Reads the object's end and compares it with what was sent.
async fn read_back(
    objects: &Objects,
    path: &Key,
    segment: &Segment,
    table: &Table,
) -> Result<Result<(), SegmentError>, object_store::Error> {
    let length = (table.frames.len() * ENTRY_LENGTH + TRAILER_LENGTH) as u64;
    let options = GetOptions {
        range: Some(GetRange::Bounded(segment.bytes - length..segment.bytes)),
        ..GetOptions::default()
    };
    let got = objects.store().get_opts(path, options).await?;
    if got.meta.size != segment.bytes {
        return Ok(Err(SegmentError::Other));
    }
    let bytes = got.bytes().await?;
    let found = Table::decode(table.layer, table.begin, table.end, segment.bytes, &bytes);
    Ok(found.and_then(|found| {
        if found == *table {
            Ok(())
        } else {
            Err(SegmentError::Other)
        }
    }))
}

/// An upload of several parts.
struct Sender<'a> {
    objects: &'a Objects,
    runtime: &'a Handle,
    upload: Box<dyn MultipartUpload>,
    tasks: JoinSet<Result<(), object_store::Error>>,
}

impl Sender<'_> {
    fn send_all(
        &mut self,
        layer: LayerId,
        parts: Vec<Vec<u8>>,
        encoder: &mut Encoder,
        read: ReadLayer<'_>,
    ) -> Result<(), UploadError> {
        let failed = |error: object_store::Error| UploadError::Store {
            layer,
            source: error.into(),
        };
        for part in parts {
            self.send(part).map_err(failed)?;
        }
        while !encoder.is_done() {
            let part = encoder
                .next_part(read)
                .map_err(|source| UploadError::Layer { layer, source })?;
            self.send(part).map_err(failed)?;
        }
        self.wait(0).map_err(failed)?;
        self.runtime
            .block_on(bounded_by(self.objects.patience(), self.upload.complete()))
            .map_err(failed)?;
        Ok(())
    }

    fn send(&mut self, part: Vec<u8>) -> Result<(), object_store::Error> {
        self.wait(PARTS_IN_FLIGHT - 1)?;
        let sending = self.upload.put_part(part.into());
        let sending = bounded_by(self.objects.patience(), sending);
        self.tasks.spawn_on(sending, self.runtime);
        Ok(())
    }

    /// Waits until at most so many parts are on their way.
    fn wait(&mut self, parts: usize) -> Result<(), object_store::Error> {
        while self.tasks.len() > parts {
            match self.runtime.block_on(self.tasks.join_next()) {
                Some(Ok(result)) => {
                    result?;
                    self.objects.note_arrival();
                }
                Some(Err(error)) => {
                    return Err(object_store::Error::Generic {
                        store: "remote",
                        source: error.into(),
                    });
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Gives the parts back that are in the store already.
    fn abort(mut self) {
        self.runtime.block_on(self.tasks.shutdown());
        if let Err(error) = self.runtime.block_on(bounded(self.upload.abort())) {
            tracing::warn!(
                %error,
                "a failed upload could not be aborted; the bucket's own rule for incomplete uploads removes it"
            );
        }
    }
}

/// Reads a delta layer's bytes from its file.
pub fn read_delta(file: &dyn DiskFile) -> impl FnMut(u64, &mut [u8]) -> io::Result<()> {
    move |at, out: &mut [u8]| read_exact(file, at, out)
}

/// Reads an image layer's bytes from its image of `size` bytes, zeros up to a page, and its sums.
pub fn read_image<'a>(
    image: &'a dyn DiskFile,
    size: u64,
    sums: &'a dyn DiskFile,
) -> impl FnMut(u64, &mut [u8]) -> io::Result<()> + 'a {
    move |at, out: &mut [u8]| {
        // Frames are cut where the sums begin.
        if at >= sums_at(size) {
            return read_exact(sums, at - sums_at(size), out);
        }
        let length = (out.len() as u64).min(size.saturating_sub(at)) as usize;
        out[length..].fill(0);
        read_exact(image, at, &mut out[..length])
    }
}

fn read_exact(file: &dyn DiskFile, at: u64, out: &mut [u8]) -> io::Result<()> {
    if file.read_at(out, at)? == out.len() {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("it ends before offset {}", at + out.len() as u64),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::encode::PART;
    use crate::remote::testing::{Faulty, LAYER, layer_bytes, reader};

    fn send(store: &std::sync::Arc<Faulty>, bytes: &[u8]) -> Result<Segment, UploadError> {
        let range = Range {
            database: DatabaseId(9),
            layer: LAYER,
            begin: 0,
            end: bytes.len() as u64,
            layout: &Layout::log(),
            commits: None,
        };
        upload(&store.objects(), range, &mut reader(bytes))
    }

    #[test]
    fn small_and_large_segments_arrive_whole() {
        let store = Faulty::new();
        let noise: Vec<u8> = layer_bytes(60 << 20, 5);
        for length in [1, 4096, 1_000_000, 60 << 20] {
            let segment = send(&store, &noise[..length]).unwrap();
            assert_eq!((segment.begin, segment.end), (0, length as u64));
            let key: SegmentKey = segment.key.parse().unwrap();
            assert_eq!(
                (key.database, key.layer, key.begin),
                (DatabaseId(9), LAYER, 0)
            );
            assert!(segment.tail <= segment.bytes);
            assert_eq!(segment.bytes > 2 * PART as u64, length > 40 << 20);
        }
        assert_eq!(store.aborts(), 0);
    }

    #[test]
    fn large_ranges_are_split_and_nothing_is_left_out() {
        let check = |begin, end, cuts: &[u64]| {
            let ranges: Vec<_> = split(begin, end).collect();
            let expected: Vec<_> = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
            assert_eq!(ranges, expected);
        };
        check(4096, 4096, &[]);
        check(0, 1, &[0, 1]);
        check(4096, 4096 + 2 * SEGMENT, &[4096, 4096 + 2 * SEGMENT]);
        let long = 3 * SEGMENT + 5000;
        check(0, long, &[0, SEGMENT, 2 * SEGMENT, long]);
    }

    #[test]
    fn a_failed_part_aborts_the_upload() {
        let store = Faulty::new();
        let bytes = layer_bytes(60 << 20, 5);
        store.fail_puts(1);
        let result = send(&store, &bytes);
        assert!(matches!(result, Err(UploadError::Store { .. })));
        assert_eq!(store.aborts(), 1);
        let mut objects = 0;
        let count = |_| {
            objects += 1;
            Ok::<(), ObjectsError>(())
        };
        store.objects().list("", count).unwrap();
        assert_eq!(objects, 0);
        send(&store, &bytes).unwrap();
    }

    #[test]
    fn what_the_store_changed_is_no_segment() {
        let store = Faulty::new();
        store.spoil_puts(1);
        let result = send(&store, &layer_bytes(100_000, 1));
        assert!(
            matches!(
                result,
                Err(UploadError::Different { .. } | UploadError::Store { .. })
            ),
            "{result:?}"
        );
        send(&store, &layer_bytes(100_000, 1)).unwrap();
    }

    #[test]
    fn a_layer_that_cannot_be_read_is_told_from_a_store_that_fails() {
        let store = Faulty::new();
        let range = Range {
            database: DatabaseId(9),
            layer: LAYER,
            begin: 0,
            end: 5000,
            layout: &Layout::log(),
            commits: None,
        };
        let mut read = |_, _: &mut [u8]| Err(io::Error::other("rot"));
        let result = upload(&store.objects(), range, &mut read);
        assert!(matches!(result, Err(UploadError::Layer { .. })));
    }
}
