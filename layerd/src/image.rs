//! The image of a database: its files, names and extent maps, as a value.
//!
//! Persistent like the extent maps within it: cloning is O(1), and a clone never changes. The live
//! image and the image that recovery builds are made by the same function, [`Image::apply`], so
//! they can't disagree about what a record means.

use std::sync::Arc;

use imbl::OrdMap;

use crate::error::FsError;
use crate::extents::{Extent, Extents};
use crate::frozen::{Attr, FileKind};
use crate::id::{FileId, LayerId, Timestamp};
use crate::layer::{Cache, Layer, Piece};
use crate::record::{Change, Record};

/// A file or directory.
#[derive(Clone)]
pub struct Node {
    /// Plain file or directory.
    pub kind: FileKind,
    /// Length in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of content.
    pub mtime: Timestamp,
    /// The directory it stands in; `None` once it was unlinked.
    pub parent: Option<FileId>,
    /// Where its bytes lie.
    pub extents: Extents,
}

impl Node {
    /// An empty file without a name.
    #[must_use]
    pub fn nothing() -> Node {
        Node {
            kind: FileKind::File,
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Timestamp(0),
            parent: None,
            extents: Extents::default(),
        }
    }

    /// What `stat` tells.
    #[must_use]
    pub fn attr(&self, file: FileId) -> Attr {
        Attr {
            file,
            kind: self.kind,
            size: self.size,
            allocated: self.extents.allocated(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            nlink: u32::from(self.parent.is_some()),
        }
    }

    /// The first offset at or behind `offset` that is not in a hole.
    #[must_use]
    pub fn seek_data(&self, offset: u64) -> Option<u64> {
        self.extents.next_data(offset).filter(|at| *at < self.size)
    }

    /// The first offset at or behind `offset` that is in a hole; the end of the file counts.
    #[must_use]
    pub fn seek_hole(&self, offset: u64) -> u64 {
        self.extents.next_hole(offset).min(self.size).max(offset)
    }
}

/// A directory image at one moment.
#[derive(Clone)]
pub struct Image {
    nodes: OrdMap<FileId, Arc<Node>>,
    names: OrdMap<(FileId, Arc<[u8]>), FileId>,
    next_file: u64,
}

/// Why a record does not fit the image it is applied to: the log is not what a writer wrote.
pub type Misfit = &'static str;

impl Image {
    /// The empty database: a root directory.
    #[must_use]
    pub fn empty() -> Image {
        let root = Node {
            kind: FileKind::Directory,
            size: 0,
            mode: 0o755,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: Timestamp(0),
            parent: Some(FileId::ROOT),
            extents: Extents::default(),
        };
        Image {
            nodes: OrdMap::unit(FileId::ROOT, Arc::new(root)),
            names: OrdMap::new(),
            next_file: FileId::ROOT.0 + 1,
        }
    }

    /// The number that the next new file gets.
    #[must_use]
    pub fn next_file(&self) -> FileId {
        FileId(self.next_file)
    }

    /// A file or directory.
    pub fn node(&self, file: FileId) -> Result<&Arc<Node>, FsError> {
        self.nodes.get(&file).ok_or(FsError::NotFound)
    }

    /// All files and directories, by number.
    pub fn nodes(&self) -> impl Iterator<Item = (FileId, &Arc<Node>)> {
        self.nodes.iter().map(|(file, node)| (*file, node))
    }

    /// Finds a stored name.
    #[must_use]
    pub fn find(&self, parent: FileId, name: &[u8]) -> Option<FileId> {
        self.names.get(&(parent, Arc::from(name))).copied()
    }

    /// A directory's stored names, in order.
    pub fn entries(&self, directory: FileId) -> impl Iterator<Item = (&[u8], FileId)> {
        let from = (directory, Arc::from([].as_slice()));
        let to = (FileId(directory.0 + 1), Arc::from([].as_slice()));
        self.names
            .range(from..to)
            .map(|((_, name), file)| (&**name, *file))
    }

    /// The directory `directory`, or an error that says what it is instead.
    pub fn directory(&self, directory: FileId) -> Result<&Arc<Node>, FsError> {
        let node = self.node(directory)?;
        if node.kind == FileKind::Directory {
            Ok(node)
        } else {
            Err(FsError::NotADirectory)
        }
    }

    /// Whether a directory has no names in it.
    #[must_use]
    pub fn is_empty_directory(&self, directory: FileId) -> bool {
        self.entries(directory).next().is_none()
    }

    /// Applies one record of `layer`. `images` finds image layers by id.
    pub fn apply(
        &mut self,
        record: &Record,
        layer: &Arc<Layer>,
        images: &dyn Fn(LayerId) -> Option<Arc<Layer>>,
    ) -> Result<(), Misfit> {
        let time = record.time;
        match &record.change {
            Change::Data {
                file,
                offset,
                length,
                payload_at,
                ..
            } => self.change(*file, |node| {
                if *length > 0 {
                    node.extents.insert(
                        *offset,
                        Extent {
                            length: *length,
                            at: *payload_at,
                            layer: Arc::clone(layer),
                        },
                    );
                }
                node.size = node.size.max(offset + length);
                node.mtime = time;
            }),
            Change::Truncate { file, size } => self.change(*file, |node| {
                if *size < node.size {
                    node.extents.remove(*size, u64::MAX - size);
                }
                node.size = *size;
                node.mtime = time;
            }),
            Change::Punch {
                file,
                offset,
                length,
            } => self.change(*file, |node| {
                node.extents.remove(*offset, *length);
                node.mtime = time;
            }),
            Change::Attr {
                file,
                mode,
                uid,
                gid,
                mtime,
            } => self.change(*file, |node| {
                (node.mode, node.uid, node.gid, node.mtime) = (*mode, *uid, *gid, *mtime);
            }),
            Change::Image { file, layer, size } => {
                let layer = images(*layer).ok_or("an image layer that it refers to is missing")?;
                self.change(*file, |node| {
                    node.extents = Extents::default();
                    if *size > 0 {
                        node.extents.insert(
                            0,
                            Extent {
                                length: *size,
                                at: 0,
                                layer,
                            },
                        );
                    }
                    node.size = *size;
                    node.mtime = time;
                });
            }
            Change::Create {
                parent,
                file,
                kind,
                mode,
                uid,
                gid,
                name,
            } => {
                if self.find(*parent, name).is_some() || self.nodes.contains_key(file) {
                    return Err("it creates a file that exists");
                }
                let node = Node {
                    kind: *kind,
                    size: 0,
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                    mtime: time,
                    parent: Some(*parent),
                    extents: Extents::default(),
                };
                self.nodes.insert(*file, Arc::new(node));
                self.names
                    .insert((*parent, Arc::from(name.as_slice())), *file);
                self.next_file = self.next_file.max(file.0.saturating_add(1));
                self.touch(*parent, time);
            }
            Change::Unlink { parent, name } => {
                let file = self.names.remove(&(*parent, Arc::from(name.as_slice())));
                self.unlinked(file.ok_or("it unlinks a file that does not exist")?);
                self.touch(*parent, time);
            }
            Change::Rename { from, to, exchange } => self.rename(from, to, *exchange, time)?,
            Change::Commit { .. } => {}
        }
        Ok(())
    }

    fn rename(
        &mut self,
        from: &(FileId, Vec<u8>),
        to: &(FileId, Vec<u8>),
        exchange: bool,
        time: Timestamp,
    ) -> Result<(), Misfit> {
        let from_key = (from.0, Arc::from(from.1.as_slice()));
        let to_key = (to.0, Arc::from(to.1.as_slice()));
        let moved = self
            .names
            .remove(&from_key)
            .ok_or("it renames a file that does not exist")?;
        let replaced = self.names.insert(to_key, moved);
        self.change(moved, |node| node.parent = Some(to.0));
        match (replaced, exchange) {
            (Some(other), true) => {
                self.names.insert(from_key, other);
                self.change(other, |node| node.parent = Some(from.0));
            }
            (None, true) => return Err("it exchanges a file with one that does not exist"),
            (Some(other), false) if other != moved => self.unlinked(other),
            (Some(_) | None, false) => {}
        }
        self.touch(from.0, time);
        self.touch(to.0, time);
        Ok(())
    }

    /// Changes a node; a file that is gone (unlinked while its last writes were on their way) is
    /// passed over.
    fn change(&mut self, file: FileId, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(&file) {
            change(Arc::make_mut(node));
        }
    }

    fn touch(&mut self, directory: FileId, time: Timestamp) {
        self.change(directory, |node| node.mtime = time);
    }

    /// The file has no name any more. It stays until [`Image::forget`]: somebody may have it open.
    fn unlinked(&mut self, file: FileId) {
        self.change(file, |node| node.parent = None);
    }

    /// Drops a file that has no name, if it is one.
    pub fn forget(&mut self, file: FileId) {
        if self
            .nodes
            .get(&file)
            .is_some_and(|node| node.parent.is_none())
        {
            self.nodes.remove(&file);
        }
    }

    /// Drops all files that have no name: what a replay does in the end, since no handle survives.
    pub fn forget_unlinked(&mut self) {
        let orphans: Vec<FileId> = self
            .nodes()
            .filter(|(_, node)| node.parent.is_none())
            .map(|(file, _)| file)
            .collect();
        for file in orphans {
            self.nodes.remove(&file);
        }
    }

    /// Takes over another image's unlinked files: they are open in this process, whatever the
    /// names say now.
    pub fn adopt_unlinked(&mut self, other: &Image) {
        for (file, node) in other.nodes().filter(|(_, node)| node.parent.is_none()) {
            self.nodes.insert(file, Arc::clone(node));
        }
    }

    /// Path of a file from the root, stored names joined by `/`.
    #[must_use]
    pub fn path(&self, file: FileId) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        let mut at = file;
        while at != FileId::ROOT {
            let Some(parent) = self.nodes.get(&at).and_then(|node| node.parent) else {
                break;
            };
            let Some((name, _)) = self.entries(parent).find(|(_, entry)| *entry == at) else {
                break;
            };
            parts.push(name.to_vec());
            at = parent;
        }
        parts.reverse();
        parts
    }
}

/// Fills `out` with a file's bytes from `offset` on; returns how many came: fewer only at its end.
pub fn read(node: &Node, offset: u64, cache: Cache, out: &mut [u8]) -> Result<usize, FsError> {
    if node.kind == FileKind::Directory {
        return Err(FsError::IsADirectory);
    }
    let length = (out.len() as u64).min(node.size.saturating_sub(offset));
    let target = &mut out[..length as usize];
    // Only holes are filled with zeros: what is read need not be cleared first.
    let mut filled = 0;
    let mut pieces: Vec<Piece> = Vec::new();
    let mut current: Option<Arc<Layer>> = None;
    for (start, run) in node.extents.range(offset, length) {
        let piece = Piece {
            at: run.at,
            length: run.length,
            to: (start - offset) as usize,
        };
        target[filled..piece.to].fill(0);
        filled = piece.to + piece.length as usize;
        match &current {
            Some(layer) if Arc::ptr_eq(layer, &run.layer) => {}
            Some(layer) => {
                layer.read(&pieces, cache, target)?;
                pieces.clear();
                current = Some(run.layer);
            }
            None => current = Some(run.layer),
        }
        pieces.push(piece);
    }
    target[filled..].fill(0);
    if let Some(layer) = current {
        layer.read(&pieces, cache, target)?;
    }
    Ok(target.len())
}
