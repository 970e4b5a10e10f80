//! Writing an image layer: one whole file, byte for byte, and its hash and checksums beside it.
//!
//! Zeros are left as holes. Both files are durable when this returns; they exist for others from
//! the moment their row is in the catalog.

use std::sync::Arc;

use crate::catalog::{LayerKind, LayerRow, LayerState};
use crate::checksum::{CHUNK, chunk_sums};
use crate::disk::DiskFile;
use crate::error::FsError;
use crate::files::Files;
use crate::format::{ImageHeader, PAGE_LENGTH};
use crate::id::{DatabaseId, LayerId, Lsn, Timestamp};

/// How much is read and written at a time: whole chunks.
const STEP: u64 = 32 * CHUNK;

/// Fills a buffer with what stands at an offset; called with ascending offsets.
pub type Fill<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> Result<(), FsError>;

/// An image layer that is durable and not in the catalog yet. Its files stay open, and with that
/// locked, so that garbage collection does not take them for orphans.
pub struct NewImage {
    /// The layer's row.
    pub row: LayerRow,
    _files: [Arc<dyn DiskFile>; 2],
}

/// Writes an image layer of `size` bytes that `read` supplies.
pub fn write_image(
    files: &Files,
    id: LayerId,
    database: DatabaseId,
    size: u64,
    read: Fill<'_>,
) -> Result<NewImage, FsError> {
    let result = write(files, id, database, size, read);
    if result.is_err() {
        // Whatever is left over is an orphan, which garbage collection finds.
        let _ = files.disk().remove(&files.image(id));
        let _ = files.disk().remove(&files.sums(id));
    }
    result
}

fn write(
    files: &Files,
    id: LayerId,
    database: DatabaseId,
    size: u64,
    read: Fill<'_>,
) -> Result<NewImage, FsError> {
    let file = files.disk().create(&files.image(id))?;
    file.set_length(size)?;
    let mut hasher = blake3::Hasher::new();
    let mut sums: Vec<u8> = Vec::new();
    let mut buffer = vec![0; STEP as usize];
    let mut at = 0;
    while at < size {
        let bytes = &mut buffer[..(size - at).min(STEP) as usize];
        read(at, bytes)?;
        hasher.update(bytes);
        sums.extend(chunk_sums(id, at, bytes).flat_map(u32::to_le_bytes));
        for (n, chunk) in bytes.chunks(CHUNK as usize).enumerate() {
            if chunk.iter().any(|b| *b != 0) {
                file.write_at(&[chunk], at + n as u64 * CHUNK)?;
            }
        }
        at += bytes.len() as u64;
    }
    file.sync()?;
    let hash = *hasher.finalize().as_bytes();
    let header = ImageHeader {
        id,
        database,
        size,
        hash,
        sums_hash: *blake3::hash(&sums).as_bytes(),
    };
    let sums_file = files.disk().create(&files.sums(id))?;
    sums_file.write_at(&[&header.encode(), &sums], 0)?;
    sums_file.sync()?;
    files.disk().sync_directory(files.layer_directory())?;
    let row = LayerRow {
        kind: LayerKind::Image,
        state: LayerState::Sealed,
        end: Some(size),
        bytes: Some(size + sums.len() as u64 + PAGE_LENGTH as u64),
        hash: Some(hash),
        ..LayerRow::begun(id, database, None, Lsn::EMPTY, Timestamp::now())
    };
    Ok(NewImage {
        row,
        _files: [file, sums_file],
    })
}
