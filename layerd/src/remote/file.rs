//! A file of a remote layer: what the engine reads instead of a local one.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::fetch::RemoteLayer;
use super::readahead::ReadAhead;
use crate::catalog::Segment;
use crate::disk::DiskFile;

/// A delta layer's file, an image, or an image's sums. Reading blocks until the bytes are there, or
/// answers an error that names the segment.
pub struct RemoteFile {
    layer: Arc<RemoteLayer>,
    /// Where it begins in the layer's bytes.
    base: u64,
    /// `None`: as far as the layer's segments go.
    length: Option<u64>,
    ahead: Mutex<ReadAhead>,
}

impl RemoteFile {
    pub(super) fn new(layer: Arc<RemoteLayer>, base: u64, length: Option<u64>) -> RemoteFile {
        RemoteFile {
            layer,
            base,
            length,
            ahead: Mutex::default(),
        }
    }

    pub(super) fn layer(&self) -> &Arc<RemoteLayer> {
        &self.layer
    }

    /// Where it lies in the layer's bytes.
    pub(super) fn range(&self) -> Range<u64> {
        self.base..self.base + self.known_length()
    }

    /// Takes over the layer's newer list of segments, or the end of one: the file grows. An older
    /// list changes nothing; one that does not fit is an error.
    pub fn extend(&self, segments: &[Segment]) -> io::Result<()> {
        self.layer.extend(segments)
    }

    /// How many of its bytes are in the local cache, in whole pages.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        let range = self.range();
        self.layer
            .cached()
            .map_or(0, |cached| cached.present_bytes(range.start, range.end))
    }

    fn known_length(&self) -> u64 {
        self.length
            .unwrap_or_else(|| self.layer.end().saturating_sub(self.base))
    }
}

fn read_only<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "layers in the remote store are never written",
    ))
}

impl DiskFile for RemoteFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.known_length().saturating_sub(offset);
        let length = left.min(bytes.len() as u64);
        if length == 0 {
            return Ok(0);
        }
        let at = self.base + offset;
        let ahead = self.ahead.lock().read(at, at + length);
        if let Some(range) = ahead {
            let end = range.end.min(self.range().end);
            self.layer.fetch_ahead(range.start..end, at..at + length);
        }
        self.layer.read(&mut bytes[..length as usize], at)?;
        Ok(length as usize)
    }

    fn write_at(&self, _parts: &[&[u8]], _offset: u64) -> io::Result<()> {
        read_only()
    }

    fn sync(&self) -> io::Result<()> {
        read_only()
    }

    fn allocate(&self, _begin: u64, _end: u64) -> io::Result<()> {
        read_only()
    }

    fn set_length(&self, _length: u64) -> io::Result<()> {
        read_only()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.known_length())
    }

    fn file(&self) -> Option<&Arc<File>> {
        None
    }

    fn is_here(&self, begin: u64, length: u64) -> bool {
        let at = self.base.saturating_add(begin);
        self.layer.is_cached(&(at..at.saturating_add(length)))
    }

    fn mistrust(&self, begin: u64, length: u64) -> bool {
        let known = self.known_length();
        if begin >= known {
            return false;
        }
        let end = begin.saturating_add(length).min(known);
        self.layer.mistrust(self.base + begin..self.base + end);
        true
    }
}
