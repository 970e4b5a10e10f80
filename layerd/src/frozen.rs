//! The image at one commit: immutable, cheap to hold, readable from any thread.

use std::fs::File;
use std::sync::Arc;

use crate::catalog::StatePoint;
use crate::error::FsError;
use crate::extents::Extent;
use crate::hashes::ImageHashes;
use crate::id::{FileId, LayerId, Lsn, Timestamp};
use crate::image::{self, Image};
use crate::layer::Cache;
use crate::names::Naming;
use crate::pin::Pin;

/// Plain file or directory: all that an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
}

/// What `stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Which file.
    pub file: FileId,
    /// Plain file or directory.
    pub kind: FileKind,
    /// Length in bytes; 0 for directories.
    pub size: u64,
    /// Bytes that are not holes.
    pub allocated: u64,
    /// Permission bits (0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Number of names: 1, or 0 for a file that was unlinked and is still open.
    pub nlink: u32,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, as a process sees it (the database's own files begin with its current name).
    pub name: Vec<u8>,
    /// What it names.
    pub file: FileId,
    /// Plain file or directory.
    pub kind: FileKind,
}

/// A file whose whole content is one image layer, byte for byte: a candidate for passthrough.
#[derive(Clone, Debug)]
pub struct WholeImage {
    /// The image layer.
    pub layer: LayerId,
    /// The bare file, open for reading. Its length equals the file's size.
    pub file: Arc<File>,
}

/// The image of a database at one commit.
pub struct Frozen {
    image: Image,
    commit: CommitPoint,
    hold: Arc<Hold>,
}

/// Which commit an image is.
#[derive(Clone, Copy, Debug)]
pub struct CommitPoint {
    /// The commit and the layer that holds it; `None` for the empty database.
    pub point: Option<StatePoint>,
    /// Its time.
    pub time: Timestamp,
    /// Payload bytes ever written, up to it.
    pub written_bytes: u64,
}

/// What the frozen images of one reader or writer share.
pub struct Hold {
    /// How names are shown.
    pub naming: Naming,
    /// Keeps the layers from garbage collection; `None` where nothing can be pinned (a read-only
    /// home).
    pub pin: Option<Arc<Pin>>,
    /// Which image layers may be passed through.
    pub hashes: Arc<ImageHashes>,
}

impl Frozen {
    pub(crate) fn new(image: Image, commit: CommitPoint, hold: Arc<Hold>) -> Frozen {
        Frozen {
            image,
            commit,
            hold,
        }
    }

    /// The commit.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.commit.point.map_or(Lsn::EMPTY, |point| point.lsn)
    }

    /// The commit's time.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.commit.time
    }

    /// The commit and what is known of it.
    #[must_use]
    pub fn commit(&self) -> &CommitPoint {
        &self.commit
    }

    /// The image, with stored names.
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// Whether the layers below may be gone: nothing is answered from them any more.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.hold.pin.as_ref().is_some_and(|pin| pin.is_stale())
    }

    fn check(&self) -> Result<(), FsError> {
        if self.is_stale() {
            Err(FsError::Stale)
        } else {
            Ok(())
        }
    }

    /// Finds a name in a directory.
    pub fn lookup(&self, parent: FileId, name: &[u8]) -> Result<Attr, FsError> {
        self.check()?;
        self.image.directory(parent)?;
        let stored = self.hold.naming.stored(parent, name)?;
        self.attr(self.image.find(parent, &stored).ok_or(FsError::NotFound)?)
    }

    /// A file's attributes.
    pub fn attr(&self, file: FileId) -> Result<Attr, FsError> {
        self.check()?;
        Ok(self.image.node(file)?.attr(file))
    }

    /// A directory's names, in order.
    pub fn list(&self, directory: FileId) -> Result<Vec<DirEntry>, FsError> {
        self.check()?;
        list(&self.image, &self.hold.naming, directory)
    }

    /// Fills `out` from `offset` on, and returns how many bytes came: fewer only at the end of the
    /// file. Every byte was checked against its checksum, or is a hole.
    pub fn read(&self, file: FileId, offset: u64, out: &mut [u8]) -> Result<usize, FsError> {
        self.check()?;
        image::read(self.image.node(file)?, offset, Cache::Here, out)
    }

    /// The first offset at or behind `offset` that is not in a hole; `None` if there is none.
    pub fn seek_data(&self, file: FileId, offset: u64) -> Result<Option<u64>, FsError> {
        Ok(self.image.node(file)?.seek_data(offset))
    }

    /// The first offset at or behind `offset` that is in a hole; the end of the file counts.
    pub fn seek_hole(&self, file: FileId, offset: u64) -> Result<u64, FsError> {
        Ok(self.image.node(file)?.seek_hole(offset))
    }

    /// Whether all of the file is on a disk of this machine, so that nothing is fetched for it.
    pub fn is_here(&self, file: FileId) -> Result<bool, FsError> {
        let extents = &self.image.node(file)?.extents;
        let is_here = |run: &Extent| run.layer.file().is_here(run.at, run.length);
        Ok(extents.iter().all(|(_, run)| is_here(run)))
    }

    /// The image layer that is this whole file, where one is and its hash was found right since
    /// this machine was booted. Where that is not known yet, a check begins in the background and
    /// a later call may find it.
    #[must_use]
    pub fn whole_image(&self, file: FileId) -> Option<WholeImage> {
        let node = self.image.node(file).ok()?;
        let (start, run) = node.extents.iter().next()?;
        let whole = start == 0 && run.at == 0 && run.length == node.size;
        if !whole || !run.layer.is_image() {
            return None;
        }
        let file = run.layer.file().file()?;
        let layer = run.layer.id();
        self.hold
            .hashes
            .is_verified(layer, file)
            .then(|| WholeImage {
                layer,
                file: Arc::clone(file),
            })
    }
}

/// A directory's names as processes see them.
pub(crate) fn list(
    image: &Image,
    naming: &Naming,
    directory: FileId,
) -> Result<Vec<DirEntry>, FsError> {
    image.directory(directory)?;
    let entry = |(name, file): (&[u8], FileId)| {
        let kind = image.node(file)?.kind;
        Ok(DirEntry {
            name: naming.shown(directory, name),
            file,
            kind,
        })
    };
    image.entries(directory).map(entry).collect()
}
