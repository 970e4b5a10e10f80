//! Verifying a segment where it lies: every byte of the object, past the cache.

use std::io;

use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use super::fetch::{FetchError, GET_MAX};
use super::frame::FrameDecoder;
use super::objects::Objects;
use super::runtime::{block_on, bounded};
use super::segment::{Frame, FrameKind, SegmentError, TRAILER_LENGTH, Table};
use crate::catalog::Segment;
use crate::id::LayerId;

/// What a check calls with the bytes of the object that it has read since it called last.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Reads a whole segment from the store and checks each of its frames. Blocks, one request of at
/// most 4 MiB after the other. Calls `problem` with the offset in the layer of each frame that is
/// damaged; an error is a segment that can't be read at all, or whose table is damaged.
pub fn check(
    objects: &Objects,
    layer: LayerId,
    segment: &Segment,
    problem: &mut dyn FnMut(u64, SegmentError),
    progress: Progress<'_>,
) -> io::Result<()> {
    let object = Object {
        objects,
        layer,
        segment,
        key: Key::from(segment.key.as_str()),
    };
    let table = object.table()?;
    let mut frames: Vec<&Frame> = table.frames.iter().collect();
    frames.retain(|frame| frame.kind != FrameKind::Zeros);
    frames.sort_by_key(|frame| frame.at);
    let mut decoder = FrameDecoder::new()?;
    let mut rest = frames.as_slice();
    while let Some(first) = rest.first() {
        let within = rest.partition_point(|frame| frame.stored_end() - first.at <= GET_MAX);
        let (group, behind) = rest.split_at(within.max(1));
        let end = group.last().map_or(first.at, |last| last.stored_end());
        let bytes = object.get(first.at, end)?;
        for frame in group {
            let stored = (frame.at - first.at) as usize..(frame.stored_end() - first.at) as usize;
            let decoded = match bytes.get(stored) {
                Some(stored) => decoder.decode(layer, frame, stored),
                None => Err(SegmentError::Frame),
            };
            if let Err(error) = decoded {
                problem(frame.begin, error);
            }
        }
        progress(end - first.at);
        rest = behind;
    }
    Ok(())
}

struct Object<'a> {
    objects: &'a Objects,
    layer: LayerId,
    segment: &'a Segment,
    key: Key,
}

impl Object<'_> {
    fn table(&self) -> io::Result<Table> {
        let segment = self.segment;
        let mut length = segment.tail.clamp(TRAILER_LENGTH as u64, GET_MAX);
        loop {
            let from = segment.bytes.saturating_sub(length);
            let bytes = self.get(from, segment.bytes)?;
            match Table::decode(
                self.layer,
                segment.begin,
                segment.end,
                segment.bytes,
                &bytes,
            ) {
                Err(SegmentError::Short(need)) if need > length && need <= segment.bytes => {
                    length = need;
                }
                Ok(table) => return Ok(table),
                Err(source) => {
                    return Err(FetchError::Damaged {
                        layer: self.layer,
                        key: segment.key.clone(),
                        store: self.objects.url().into(),
                        source,
                    }
                    .into());
                }
            }
        }
    }

    fn get(&self, begin: u64, end: u64) -> io::Result<bytes::Bytes> {
        let store: &dyn ObjectStore = &**self.objects.store();
        let get = bounded(store.get_range(&self.key, begin..end));
        block_on(get)?.map_err(|error| {
            FetchError::Store {
                layer: self.layer,
                key: self.segment.key.clone(),
                store: self.objects.url().into(),
                reason: error.to_string(),
            }
            .into()
        })
    }
}
