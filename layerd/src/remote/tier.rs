//! The remote tier of one home: the door to remote layers.
//!
//! All files that show parts of one layer share what is known of it: its segments, the requests
//! that are under way, its partial file.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock, Weak};

use futures_util::future::try_join_all;
use parking_lot::Mutex;

use super::cache::Cache;
use super::fetch::RemoteLayer;
use super::file::RemoteFile;
use super::layout::{image_end, sums_at, sums_length};
use super::objects::Objects;
use super::runtime::block_on;
use super::stats::Stats;
use super::tables::Tables;
use crate::catalog::{Catalog, Segment};
use crate::id::LayerId;

/// The remote store, and what this process knows and keeps of it.
pub struct Tier {
    objects: Objects,
    cache: Option<Arc<Cache>>,
    tables: Tables,
    stats: Stats,
    layers: Mutex<HashMap<LayerId, Weak<RemoteLayer>>>,
    catalog: OnceLock<Arc<dyn Catalog>>,
}

impl Tier {
    /// For a store, and a cache where the home has room for one.
    #[must_use]
    pub fn new(objects: Objects, cache: Option<Arc<Cache>>) -> Arc<Tier> {
        Arc::new(Tier {
            objects,
            cache,
            tables: Tables::default(),
            stats: Stats::default(),
            layers: Mutex::default(),
            catalog: OnceLock::new(),
        })
    }

    /// Says who knows which segments a layer has, once those that are known here are gone.
    pub fn ask(&self, catalog: Arc<dyn Catalog>) {
        // The first one stays.
        let _ = self.catalog.set(catalog);
    }

    /// The segments that a layer has now; none where nobody can be asked.
    pub(super) fn segments(&self, layer: LayerId) -> io::Result<Vec<Segment>> {
        match self.catalog.get() {
            Some(catalog) => catalog.segments(layer).map_err(io::Error::other),
            None => Ok(Vec::new()),
        }
    }

    /// The store.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// What was read and fetched.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// A delta layer's file. Nothing is fetched yet.
    pub fn delta(
        self: &Arc<Self>,
        layer: LayerId,
        segments: &[Segment],
    ) -> io::Result<Arc<RemoteFile>> {
        let layer = self.layer(layer, segments)?;
        Ok(Arc::new(RemoteFile::new(layer, 0, None)))
    }

    /// An image layer's two files: the image of `size` bytes, and its sums.
    pub fn image(
        self: &Arc<Self>,
        layer: LayerId,
        size: u64,
        segments: &[Segment],
    ) -> io::Result<(Arc<RemoteFile>, Arc<RemoteFile>)> {
        let remote = self.layer(layer, segments)?;
        if size > MAX_IMAGE || remote.end() != image_end(size) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the catalog's segments of image layer {layer} end at {}, not where an image of {size} bytes and its sums do",
                    remote.end()
                ),
            ));
        }
        let image = RemoteFile::new(Arc::clone(&remote), 0, Some(size));
        let sums = RemoteFile::new(remote, sums_at(size), Some(sums_length(size)));
        Ok((Arc::new(image), Arc::new(sums)))
    }

    /// Fetches, for all of `files` at once, what opening them reads: header, index and footer, an
    /// image's sums; with `true`, what all their segments have at their ends, as reading the log
    /// of a layer that is not sealed wants it. Small segments come whole.
    pub fn warm(&self, files: &[(Arc<RemoteFile>, bool)]) -> io::Result<()> {
        let open = |(file, all): &(Arc<RemoteFile>, bool)| Arc::clone(file.layer()).open(*all);
        let all = || block_on(try_join_all(files.iter().map(open)));
        let mut opened = all()?;
        // Each of them may have been sent anew since its row was read.
        for _ in files {
            let Err(error) = &opened else { break };
            let of = error.layer();
            let Some((file, _)) = files.iter().find(|(file, _)| file.layer().id() == of) else {
                break;
            };
            if !file.layer().has_moved(error)? {
                break;
            }
            opened = all()?;
        }
        Ok(opened.map(drop)?)
    }

    fn layer(self: &Arc<Self>, id: LayerId, segments: &[Segment]) -> io::Result<Arc<RemoteLayer>> {
        let mut layers = self.layers.lock();
        if let Some(layer) = layers.get(&id).and_then(Weak::upgrade) {
            drop(layers);
            layer.extend(segments)?;
            return Ok(layer);
        }
        let layer = Arc::new(RemoteLayer::new(self, id, segments)?);
        layers.retain(|_, layer| layer.strong_count() > 0);
        layers.insert(id, Arc::downgrade(&layer));
        Ok(layer)
    }
}

/// Larger images, with their sums, would not fit the numbers.
const MAX_IMAGE: u64 = 1 << 62;
