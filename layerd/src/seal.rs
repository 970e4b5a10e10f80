//! Sealing: a layer that is not appended to any more gets its index and its hash, and from then on
//! never changes.
//!
//! Order: cut what was allocated ahead, write index and footer, sync, move the file to its place
//! among the sealed layers, sync the directories, bring what is new to a remote store, then tell the
//! catalog. A crash in between leaves
//! a rotated layer that the next sealing begins anew with (one process at a time: a database has a
//! lock for it); readers read the log part, which is the
//! same before and after.
//!
//! A replaced writer's file is not touched while that writer still has it open (it was stopped, and may
//! wake up), nor while it holds records behind the layer's end: they may be commits that nobody else
//! has, and `keep_lost` takes care of them, now or once it can. The log is copied then, and the copy
//! sealed.

use std::io;
use std::path::Path;

use crate::catalog::LayerRow;
use crate::disk;
use crate::error::FsError;
use crate::files::{Files, is_open};
use crate::format::{LayerFooter, PAGE_LENGTH, RECORDS_AT};
use crate::id::LayerId;
use crate::layer::Layer;
use crate::load::open_error;
use crate::record::{NotARecord, PAGE, align};
use crate::scan::{LogScan, encode_index_entry, read_footer, read_header};
use crate::store::{Store, StoreError};

/// Seals a rotated layer. `pace` is called after each megabyte, and may sleep.
pub fn seal(store: &Store, row: &LayerRow, pace: &dyn Fn()) -> Result<(), StoreError> {
    let (files, id) = (store.files(), row.id);
    let end = row.end.ok_or(FsError::Invalid)?;
    let active = files.active(id);
    let (bytes, hash) = if !active.exists() && files.sealed(id).exists() {
        moved(files, id)?
    } else if active.exists() && !is_replaced_writers(store, row, end)? {
        seal_file(files, id, &active, end, pace)?
    } else {
        let copy = files.copy_of(id);
        copy_log(files, row, end, &copy)?;
        seal_file(files, id, &copy, end, pace)?
    };
    let sealed = store.sent(LayerRow {
        bytes: Some(bytes),
        ..row.clone()
    })?;
    let segments = store.remote().map(|_| sealed.segments.as_slice());
    if store.catalog().seal(id, bytes, hash, segments)? {
        tracing::debug!(layer = %id, bytes, "sealed");
    }
    Ok(())
}

/// Whether the layer's file must stay as it is: its writer was replaced, and either is still there
/// (when it wakes up it may write to its file once more, whatever became of that) or had gone on
/// behind what became the layer's end.
fn is_replaced_writers(store: &Store, row: &LayerRow, end: u64) -> Result<bool, StoreError> {
    let database = store.catalog().database_by_id(row.database)?;
    if row.id.epoch >= database.epoch {
        return Ok(false);
    }
    let active = store.files().active(row.id);
    if is_open(&active) {
        return Ok(true);
    }
    let file = store.files().disk().open(&active, false);
    let log = Layer::new(row.id, file.map_err(FsError::from)?);
    Ok(has_more(&log, end).map_err(FsError::from)?)
}

/// Whether a log holds records behind `end`.
pub(crate) fn has_more(log: &Layer, end: u64) -> io::Result<bool> {
    Ok(LogScan::new(log, end, u64::MAX).next()?.is_ok())
}

/// Copies a layer's log, from this home or from the store.
fn copy_log(files: &Files, row: &LayerRow, end: u64, to: &Path) -> Result<(), FsError> {
    let source = files.open_delta(row.id, Some(row))?;
    Ok(disk::copy(&**files.disk(), &*source, end, to, &mut |_| ())?)
}

/// Length and hash of a layer that was moved to the sealed ones before the catalog heard of it.
fn moved(files: &Files, id: LayerId) -> Result<(u64, [u8; 32]), FsError> {
    let file = files.disk().open(&files.sealed(id), false)?;
    let footer = read_footer(id, &*file).map_err(|error| open_error(id, error))?;
    Ok((file.length()?, footer.hash))
}

/// Seals a layer's file `path`, whose log ends at `end`, and moves it to the sealed ones. Returns
/// its length and hash.
pub fn seal_file(
    files: &Files,
    id: LayerId,
    path: &Path,
    end: u64,
    pace: &dyn Fn(),
) -> Result<(u64, [u8; 32]), FsError> {
    let file = files.disk().open(path, true)?;
    read_header(id, &*file).map_err(|error| open_error(id, error))?;
    let layer = Layer::new(id, file.clone());
    let (index, records) = build_index(&layer, end)?;
    file.set_length(end)?;
    let index_at = align(end, PAGE);
    let footer_at = align(index_at + index.len() as u64, PAGE);
    let mut tail = vec![0; (footer_at - end) as usize];
    tail[(index_at - end) as usize..][..index.len()].copy_from_slice(&index);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < end {
        let length = (end - at).min(buffer.len() as u64) as usize;
        if file.read_at(&mut buffer[..length], at)? < length {
            return Err(layer.damaged(at, "the file ends too early"));
        }
        hasher.update(&buffer[..length]);
        at += length as u64;
        pace();
    }
    hasher.update(&tail);
    let hash = *hasher.finalize().as_bytes();
    let footer = LayerFooter {
        id,
        end,
        index_at,
        index_length: index.len() as u64,
        records,
        hash,
    };
    file.write_at(&[&tail, &footer.encode()], end)?;
    file.sync()?;
    files.disk().rename(path, &files.sealed(id))?;
    files.disk().sync_directory(files.layer_directory())?;
    files.disk().sync_directory(&files.active_directory())?;
    Ok((footer_at + PAGE_LENGTH as u64, hash))
}

/// The index: all headers and bodies up to `end`.
fn build_index(layer: &Layer, end: u64) -> Result<(Vec<u8>, u64), FsError> {
    let mut index = Vec::new();
    let mut records = 0;
    let mut scan = LogScan::new(layer, RECORDS_AT, end);
    while scan.at() < end {
        let at = scan.at();
        match scan.next()? {
            Ok(scanned) => {
                encode_index_entry(at, &scanned.record.encode(layer.id(), at), &mut index);
                records += 1;
            }
            Err(NotARecord::Bad(what)) => return Err(layer.damaged(at, what)),
            Err(NotARecord::Blank | NotARecord::Short { .. }) => {
                return Err(layer.damaged(at, "the log ends before its end"));
            }
        }
    }
    Ok((index, records))
}
