//! Local copies: sealed layers that the remote store has too stay on the writer's disk as long as
//! there is room, because they are what is read soonest. When there is not, the oldest go; they
//! are read from the store then, through the cache.
//!
//! Only what the catalog lists as wholly stored is dropped, and an upload is read back before it is
//! listed. Readers that have a file open keep reading it; its space comes back when they let go.

use std::fs;
use std::time::SystemTime;

use crate::catalog::{LayerRow, LayerState};
use crate::id::LayerId;
use crate::remote::cache::CacheConfig;
use crate::store::{Result, Store, io_error};

impl Store {
    /// Free and total bytes of the disk that the home is on.
    pub fn free_space(&self) -> Result<(u64, u64)> {
        let failed = |error| io_error(&format!("look at {}", self.home().display()), error);
        self.files().free_space().map_err(failed)
    }

    /// Drops local copies until they and the disk are within the cache's limits. Returns how many
    /// files were dropped.
    pub(crate) fn drop_local_copies(&self, limits: CacheConfig) -> Result<u64> {
        if self.remote().is_none() {
            return Ok(0);
        }
        let mut copies = self.local_copies()?;
        let mut bytes: u64 = copies.iter().map(|copy| copy.bytes).sum();
        let mut dropped = 0;
        copies.sort_by_key(|copy| copy.modified);
        let mut rows: Option<Vec<LayerRow>> = None;
        for copy in copies {
            let (free, total) = self.free_space()?;
            let is_full = free < total / 100 * u64::from(limits.free_percent_min);
            if bytes <= limits.bytes_max && !is_full {
                break;
            }
            let rows = match &mut rows {
                Some(rows) => rows,
                rows @ None => rows.insert(self.catalog().inventory()?.layers),
            };
            let is_stored = rows
                .iter()
                .any(|row| row.id == copy.layer && is_stored(row));
            if is_stored && fs::remove_file(&copy.path).is_ok() {
                bytes -= copy.bytes;
                dropped += 1;
            }
        }
        Ok(dropped)
    }

    fn local_copies(&self) -> Result<Vec<Copy>> {
        let directory = self.files().layer_directory();
        let failed = |error| io_error(&format!("list {}", directory.display()), error);
        let mut copies = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let layer = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            // A file may be gone since it was listed.
            if let (Some(layer), Ok(meta)) = (layer, path.metadata()) {
                use std::os::unix::fs::MetadataExt;
                copies.push(Copy {
                    layer,
                    bytes: meta.blocks() * 512,
                    modified: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    path,
                });
            }
        }
        Ok(copies)
    }
}

/// A sealed layer's file in this home.
struct Copy {
    layer: LayerId,
    path: std::path::PathBuf,
    bytes: u64,
    modified: SystemTime,
}

/// Whether the store has all of a layer.
fn is_stored(row: &LayerRow) -> bool {
    let end = row.segments.last().map(|last| last.end);
    row.state == LayerState::Sealed && end.is_some() && end == row.length()
}
