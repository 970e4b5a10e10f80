//! Sending a layer's bytes to the store, as segments that the caller then puts into the catalog.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::catalog::{CommitRange, LayerKind, LayerRow, Segment};
use crate::error::FsError;
use crate::files::Files;
use crate::format::{LayerFooter, RECORDS_AT};
use crate::id::DatabaseId;
use crate::layer::Layer;
use crate::load::open_error;
use crate::record::Change;
use crate::remote::layout::{Layout, image_end};
use crate::remote::objects::Objects;
use crate::remote::segment::SEGMENT;
use crate::remote::upload::{Range, UploadError, read_delta, read_image, split, upload};
use crate::scan::{LogScan, read_footer, scan_index};
use crate::store::StoreError;

/// A sealed layer in more segments than this, shorter ones than [`MERGE_BELOW`] on average, is sent
/// anew as a whole: each segment is a request of its own to whoever opens the layer.
const SEGMENTS_MAX: u64 = 4;
const MERGE_BELOW: u64 = 4 << 20;

/// Records of an unsealed layer.
pub struct LogRange {
    /// Where the first record begins that was not sent yet; 0 in a layer of which nothing was.
    pub from: u64,
    /// Behind the last one.
    pub end: u64,
    /// The commits among them.
    pub commits: Option<CommitRange>,
}

/// Sends records, or the first of them where they are long. The segment that reaches the end of
/// the range has its commits.
pub fn send_log(
    objects: &Objects,
    database: DatabaseId,
    layer: &Layer,
    log: &LogRange,
) -> Result<Segment, UploadError> {
    let unread = |source| UploadError::Layer {
        layer: layer.id(),
        source,
    };
    let mut layout = Layout::log();
    let mut scan = LogScan::new(layer, log.from.max(RECORDS_AT), log.end);
    while scan.at() < log.end.min(log.from + SEGMENT) {
        let at = scan.at();
        let scanned = scan.next().map_err(unread)?.map_err(|_| {
            let what = format!("a record that was applied can't be read back at {at}");
            unread(io::Error::new(io::ErrorKind::InvalidData, what))
        })?;
        note_payload(&mut layout, &scanned.record.change);
    }
    let end = scan.at();
    let range = Range {
        database,
        layer: layer.id(),
        begin: Segment::begin_behind(log.from),
        end,
        layout: &layout,
        commits: log.commits.filter(|_| end == log.end),
    };
    upload(objects, range, &mut read_delta(&**layer.file()))
}

/// Sends what is missing of a sealed layer in the local files: `row` has the segments that are
/// there, if any, and the layer's length. Returns all its segments.
pub fn send_sealed(
    objects: &Objects,
    files: &Files,
    row: &LayerRow,
) -> Result<Vec<Segment>, StoreError> {
    match row.kind {
        LayerKind::Delta => send_sealed_delta(objects, files, row),
        LayerKind::Image => send_image(objects, files, row),
    }
}

fn send_sealed_delta(
    objects: &Objects,
    files: &Files,
    row: &LayerRow,
) -> Result<Vec<Segment>, StoreError> {
    let unusable = |error| StoreError::Fs(open_error(row.id, error));
    let file = files
        .disk()
        .open(&files.sealed(row.id), false)
        .map_err(FsError::from)?;
    let footer = read_footer(row.id, &*file).map_err(unusable)?;
    let length = file.length().map_err(FsError::from)?;
    let layer = Arc::new(Layer::new(row.id, file));
    let layout = sealed_layout(&layer, &footer, length).map_err(unusable)?;
    let count = row.segments.len() as u64;
    let is_scattered = count > SEGMENTS_MAX && footer.end / count < MERGE_BELOW;
    let mut segments = if is_scattered {
        Vec::new()
    } else {
        // A takeover may have ended the layer before what its writer had sent: there the log went on,
        // and here the index begins.
        let is_within = |segment: &&Segment| segment.end <= footer.end;
        row.segments.iter().take_while(is_within).cloned().collect()
    };
    let commits = match (row.last_lsn, row.first_time, row.last_time) {
        (Some(last_lsn), Some(first_time), Some(last_time)) => Some(CommitRange {
            first_lsn: row.first_lsn,
            last_lsn,
            first_time,
            last_time,
        }),
        _ => None,
    };
    let whole = segments.is_empty();
    send_range(
        objects,
        row,
        length,
        &layout,
        &mut segments,
        &mut read_delta(&**layer.file()),
    )?;
    if whole && let Some(last) = segments.last_mut() {
        last.commits = commits;
    }
    Ok(segments)
}

fn sealed_layout(
    layer: &Arc<Layer>,
    footer: &LayerFooter,
    length: u64,
) -> Result<Layout, crate::scan::OpenError> {
    let mut layout = Layout::sealed(footer, length);
    scan_index(layer, footer, |scanned| {
        note_payload(&mut layout, &scanned.record.change);
        Ok(true)
    })?;
    Ok(layout)
}

fn send_image(
    objects: &Objects,
    files: &Files,
    row: &LayerRow,
) -> Result<Vec<Segment>, StoreError> {
    let open = |path: PathBuf| files.disk().open(&path, false).map_err(FsError::from);
    let image = open(files.image(row.id))?;
    let sums = open(files.sums(row.id))?;
    let size = image.length().map_err(FsError::from)?;
    let mut segments = Vec::new();
    let mut read = read_image(&*image, size, &*sums);
    send_range(
        objects,
        row,
        image_end(size),
        &Layout::image(size),
        &mut segments,
        &mut read,
    )?;
    Ok(segments)
}

/// Adds segments until they reach `end`.
fn send_range(
    objects: &Objects,
    row: &LayerRow,
    end: u64,
    layout: &Layout,
    segments: &mut Vec<Segment>,
    read: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Result<(), StoreError> {
    let sent = segments.last().map_or(0, |last| last.end);
    if sent >= end {
        return Ok(());
    }
    for piece in split(Segment::begin_behind(sent), end) {
        let range = Range {
            database: row.database,
            layer: row.id,
            begin: piece.start,
            end: piece.end,
            layout,
            commits: None,
        };
        segments.push(upload(objects, range, read)?);
    }
    Ok(())
}

fn note_payload(layout: &mut Layout, change: &Change) {
    if let Change::Data {
        payload_at, length, ..
    } = change
    {
        layout.add_payload(*payload_at, *length);
    }
}
