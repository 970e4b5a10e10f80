//! Attributes: of everything that has an inode.

use std::time::Duration;

use fuser::{Errno, FileAttr, FileType, INodeNo};
use layerd::id::FileId;
use layerd::writer::SetAttr;

use super::Filesystem;
use super::file::HEAD_LSN_BYTES;
use crate::attr::{self, FOREVER, NOT_AT_ALL};
use crate::errno::errno;
use crate::node::{CONTROL, HEAD_LSN, LATEST, Node, Place, ROOT, SNAPSHOT, SNAPSHOTS, STATUS};
use crate::snapshot_file::Draft;
use crate::snapshots::SnapshotDir;
use crate::state::{Main, State};
use crate::status::Status;

impl Filesystem {
    pub(super) fn attr(&self, ino: INodeNo) -> Result<(Duration, FileAttr), Errno> {
        let state = &self.state;
        Ok(match self.place(ino)? {
            Place::Main(file) => match &state.main {
                Main::Live(live) => (FOREVER, live.attr(file)?),
                Main::Frozen(image) => {
                    let root = image
                        .frozen()?
                        .attr(FileId::ROOT)
                        .map_err(|error| errno(&error))?;
                    (FOREVER, attr::of_read_only_root(ROOT, &root))
                }
                Main::Follow(_) => (FOREVER, fixed_attr(state, ROOT)),
            },
            Place::Status => (NOT_AT_ALL, status_attr(state)),
            Place::Snapshots => (FOREVER, fixed_attr(state, SNAPSHOTS)),
            Place::Latest => (FOREVER, fixed_attr(state, LATEST)),
            Place::Control => (FOREVER, fixed_attr(state, CONTROL)),
            Place::Snapshot => (NOT_AT_ALL, fixed_attr(state, SNAPSHOT)),
            Place::HeadLsn => (FOREVER, head_lsn_attr(state)),
            Place::Node(node) => match node {
                Node::Snapshot(dir) => (FOREVER, snapshot_attr(state, &dir)),
                Node::ImageDir { image, file, .. } => {
                    let found = image.frozen()?.attr(file).map_err(|error| errno(&error))?;
                    (FOREVER, attr::of_image(ino.0, &found))
                }
                Node::ImageFile(file) | Node::FollowedFile(file) => {
                    (FOREVER, attr::of_image(ino.0, &file.attr))
                }
                Node::ScratchDir(dir) => (FOREVER, dir.attr()),
                Node::ScratchFile(file) => (NOT_AT_ALL, file.attr()?),
                Node::Draft(draft) => (NOT_AT_ALL, draft_attr(&draft)),
            },
        })
    }

    pub(super) fn set_attr(
        &self,
        ino: INodeNo,
        change: SetAttr,
    ) -> Result<(Duration, FileAttr), Errno> {
        match self.place(ino)? {
            Place::Main(file) => return Ok((FOREVER, self.live()?.set_attr(file, change)?)),
            Place::Node(Node::ScratchFile(file)) => {
                if let Some(size) = change.size {
                    file.set_size(size)?;
                }
            }
            Place::Node(Node::Draft(draft)) => {
                if let Some(size) = change.size {
                    draft.set_size(size)?;
                }
            }
            // Cutting it to nothing is how a shell begins to write into it.
            Place::Snapshot if change.size.is_some() => {}
            Place::Node(Node::ImageFile(_) | Node::FollowedFile(_) | Node::ImageDir { .. }) => {
                return Err(Errno::EROFS);
            }
            _ => return Err(Errno::EPERM),
        }
        self.attr(ino)
    }
}

/// Attributes of what is always there.
pub(super) fn fixed_attr(state: &State, ino: u64) -> FileAttr {
    let (kind, mode) = match ino {
        SNAPSHOTS => (FileType::Directory, 0o555),
        CONTROL if matches!(state.main, Main::Live(_)) => (FileType::Directory, 0o755),
        CONTROL => (FileType::Directory, 0o555),
        SNAPSHOT => (FileType::RegularFile, 0o644),
        STATUS | HEAD_LSN => (FileType::RegularFile, 0o444),
        // As in `attr::of_read_only_root`.
        _ => (FileType::Directory, 0o1777),
    };
    attr::plain(ino, kind, mode, state.owner, state.made)
}

pub(super) fn status_attr(state: &State) -> FileAttr {
    FileAttr {
        size: Status::of(state).text().len() as u64,
        ..fixed_attr(state, STATUS)
    }
}

pub(super) fn head_lsn_attr(state: &State) -> FileAttr {
    FileAttr {
        size: HEAD_LSN_BYTES as u64,
        ..fixed_attr(state, HEAD_LSN)
    }
}

pub(super) fn snapshot_attr(state: &State, dir: &SnapshotDir) -> FileAttr {
    attr::plain(dir.ino, FileType::Directory, 0o1777, state.owner, dir.time)
}

pub(super) fn draft_attr(draft: &Draft) -> FileAttr {
    FileAttr {
        size: draft.size(),
        ..attr::plain(
            draft.ino,
            FileType::RegularFile,
            0o644,
            draft.owner,
            draft.made,
        )
    }
}
