//! Where things lie on the local disk.
//!
//! ```text
//! <objects>/active/<layer>.delta   layers that are being written, or wait to be sealed
//! <objects>/layers/<layer>.delta   sealed layers, read in place
//! <objects>/layers/<layer>.image   image layers: a bare file …
//! <objects>/layers/<layer>.sums    … and its hash and checksums
//! <home>/heads/<database>          head words
//! <home>/locks/                    what living processes keep locked
//! ```
//!
//! A layer moves from `active` to `layers` by one rename when it is sealed; whoever opens one looks
//! in both places.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::catalog::{LayerKind, LayerRow, LayerState};
use crate::disk::{Disk, DiskFile};
use crate::id::{DatabaseId, LayerId};
use crate::remote::objects::LAYERS;
use crate::remote::tier::Tier;

/// The directories of one home.
#[derive(Clone)]
pub struct Files {
    home: PathBuf,
    /// On the same disk as `layers`: a layer moves there by a rename.
    active: PathBuf,
    layers: PathBuf,
    disk: Arc<dyn Disk>,
    tier: Option<Arc<Tier>>,
}

impl Files {
    /// For a home and the directory of its objects; makes the directories.
    pub fn open(home: &Path, objects: &Path, disk: Arc<dyn Disk>) -> io::Result<Files> {
        let files = Files {
            home: home.to_owned(),
            active: objects.join("active"),
            layers: objects.join(LAYERS),
            disk,
            tier: None,
        };
        for directory in [
            files.layers.clone(),
            objects.join("active"),
            home.join("heads"),
            home.join("locks"),
            home.join("hashes"),
        ] {
            // A home on a read-only disk can still be read; whoever writes there says what fails.
            match std::fs::create_dir_all(&directory) {
                Err(_) if directory.is_dir() => {}
                Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
                result => result?,
            }
        }
        Ok(files)
    }

    /// The same, with layers that are not here read from a remote store.
    #[must_use]
    pub fn with_tier(self, tier: Arc<Tier>) -> Files {
        Files {
            tier: Some(tier),
            ..self
        }
    }

    /// The remote store, and what is kept of it here.
    #[must_use]
    pub fn tier(&self) -> Option<&Arc<Tier>> {
        self.tier.as_ref()
    }

    /// The home.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Free and total bytes of the disk that the home is on.
    pub fn free_space(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(&self.home)?;
        Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
    }

    /// The disk below.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The directory of unsealed layers.
    #[must_use]
    pub fn active_directory(&self) -> PathBuf {
        self.active.clone()
    }

    /// The directory of sealed layers.
    #[must_use]
    pub fn layer_directory(&self) -> &Path {
        &self.layers
    }

    /// An unsealed delta layer.
    #[must_use]
    pub fn active(&self, layer: LayerId) -> PathBuf {
        self.active.join(format!("{layer}.delta"))
    }

    /// A copy of an unsealed layer, in the making.
    #[must_use]
    pub fn copy_of(&self, layer: LayerId) -> PathBuf {
        self.active.join(format!("{layer}.copy"))
    }

    /// A sealed delta layer.
    #[must_use]
    pub fn sealed(&self, layer: LayerId) -> PathBuf {
        self.layers.join(format!("{layer}.delta"))
    }

    /// An image layer's bare file.
    #[must_use]
    pub fn image(&self, layer: LayerId) -> PathBuf {
        self.layers.join(format!("{layer}.image"))
    }

    /// An image layer's hash and checksums.
    #[must_use]
    pub fn sums(&self, layer: LayerId) -> PathBuf {
        self.layers.join(format!("{layer}.sums"))
    }

    /// A database's head word.
    #[must_use]
    pub fn head(&self, database: DatabaseId) -> PathBuf {
        self.home.join("heads").join(database.to_string())
    }

    /// The directory of lock files.
    #[must_use]
    pub fn locks(&self) -> PathBuf {
        self.home.join("locks")
    }

    /// Where it is noted that an image layer's hash was found right since the machine was booted.
    #[must_use]
    pub fn hash_note(&self, layer: LayerId) -> PathBuf {
        self.home.join("hashes").join(layer.to_string())
    }

    /// Opens a delta layer wherever it is: here, or in the remote store. `row` is what the catalog
    /// says of it, if that was asked.
    pub fn open_delta(
        &self,
        layer: LayerId,
        row: Option<&LayerRow>,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let stored = row.filter(|row| self.tier.is_some() && !row.segments.is_empty());
        // Another host may have sealed it: then the log that is here is no sealed layer.
        let sealed_elsewhere = stored.is_some_and(|row| row.state == LayerState::Sealed);
        // It may be renamed from active to sealed between two looks; then the third finds it.
        let mut paths = vec![self.sealed(layer)];
        if !sealed_elsewhere {
            paths.extend([self.active(layer), self.sealed(layer)]);
        }
        for path in paths {
            match self.disk.open(&path, false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => return result,
            }
        }
        if let (Some(tier), Some(row)) = (&self.tier, stored) {
            return Ok(tier.delta(layer, &row.segments)?);
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("layer file {} is missing", self.sealed(layer).display()),
        ))
    }

    /// Opens an image layer's two files: the image, and its sums.
    pub fn open_image(&self, row: &LayerRow) -> io::Result<(Arc<dyn DiskFile>, Arc<dyn DiskFile>)> {
        let open = |path: &Path| self.disk.open(path, false);
        match (open(&self.image(row.id)), open(&self.sums(row.id))) {
            (Ok(image), Ok(sums)) => Ok((image, sums)),
            (Err(error), _) | (_, Err(error)) => match (&self.tier, row.end) {
                (Some(tier), Some(size)) if !row.segments.is_empty() => {
                    let (image, sums) = tier.image(row.id, size, &row.segments)?;
                    Ok((image, sums))
                }
                _ => Err(error),
            },
        }
    }

    /// Whether a layer's bytes are here, and not only in the remote store.
    #[must_use]
    pub fn has(&self, row: &LayerRow) -> bool {
        match row.kind {
            LayerKind::Image => self.image(row.id).exists() && self.sums(row.id).exists(),
            LayerKind::Delta if row.state == LayerState::Sealed => self.sealed(row.id).exists(),
            LayerKind::Delta => self.sealed(row.id).exists() || self.active(row.id).exists(),
        }
    }

    /// Fetches, at once for all layers that are not here, what opening them reads.
    pub fn warm(&self, rows: &[LayerRow]) -> io::Result<()> {
        let Some(tier) = &self.tier else {
            return Ok(());
        };
        let mut files = Vec::new();
        for row in rows
            .iter()
            .filter(|row| !row.segments.is_empty() && !self.has(row))
        {
            match (row.kind, row.end) {
                (LayerKind::Delta, _) => {
                    let file = tier.delta(row.id, &row.segments)?;
                    files.push((file, row.state != LayerState::Sealed));
                }
                (LayerKind::Image, Some(size)) => {
                    files.push((tier.image(row.id, size, &row.segments)?.0, false));
                }
                (LayerKind::Image, None) => {}
            }
        }
        tier.warm(&files)
    }
}

/// Whether the process that made a file still has it open.
pub fn is_open(path: &Path) -> bool {
    match std::fs::File::open(path) {
        Ok(file) => file.try_lock().is_err(),
        Err(_) => false,
    }
}
