//! Listing directories.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::{Errno, FileHandle, FileType, FopenFlags, INodeNo, ReplyDirectory, ReplyOpen, Request};
use layerd::frozen::DirEntry;
use layerd::id::FileId;

use super::{
    CONTROL_NAME, Filesystem, LATEST_NAME, SNAPSHOT_NAME, SNAPSHOTS_NAME, STATUS_NAME, guarded,
    is_root,
};
use crate::attr;
use crate::errno::errno;
use crate::handles::{Entry, Handle, UNKNOWN_INO};
use crate::image::Image;
use crate::node::{CONTROL, LATEST, Node, Place, SNAPSHOT, SNAPSHOTS, STATUS};
use crate::process::Process;
use crate::state::{Main, State};

impl Filesystem {
    pub(super) fn open_directory(&self, request: &Request, ino: INodeNo, reply: ReplyOpen) {
        let place = match self.place(ino) {
            Ok(place) => place,
            Err(error) => return reply.error(error),
        };
        let tid = request.pid();
        let needs_catalog = match &place {
            Place::Snapshots => true,
            Place::Latest => self.state.latest().is_none(),
            Place::Node(Node::Snapshot(dir)) => dir.opened().is_none(),
            _ => false,
        };
        let answer = move |state: &Arc<State>| match guarded(|| listing(state, ino.0, &place, tid))
        {
            Ok(entries) => reply.opened(
                state.handles.open(Handle::Listing(entries)),
                FopenFlags::empty(),
            ),
            Err(error) => reply.error(error),
        };
        if needs_catalog {
            self.later(answer)
        } else {
            answer(&self.state)
        }
    }

    pub(super) fn list(&self, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let handle = match self.state.handles.get(handle) {
            Ok(handle) => handle,
            Err(error) => return reply.error(error),
        };
        let Handle::Listing(entries) = &*handle else {
            return reply.error(Errno::ENOTDIR);
        };
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, entry) in entries.iter().enumerate().skip(first) {
            // The offset of an entry is where the next request goes on.
            if reply.add(
                INodeNo(entry.ino),
                index as u64 + 1,
                entry.kind,
                OsStr::from_bytes(&entry.name),
            ) {
                break;
            }
        }
        reply.ok();
    }
}

/// Everything in a directory.
fn listing(state: &State, ino: u64, place: &Place, tid: u32) -> Result<Vec<Entry>, Errno> {
    let mut entries = vec![
        Entry::new(ino, FileType::Directory, "."),
        Entry::new(UNKNOWN_INO, FileType::Directory, ".."),
    ];
    let frozen = |image: &Image, directory: FileId| -> Result<Vec<DirEntry>, Errno> {
        image
            .frozen()?
            .list(directory)
            .map_err(|error| errno(&error))
    };
    let unnumbered = |found: Vec<DirEntry>| {
        found
            .into_iter()
            .map(|entry| Entry::new(UNKNOWN_INO, attr::file_type(entry.kind), entry.name))
    };
    match place {
        Place::Main(directory) => {
            match &state.main {
                Main::Live(live) => {
                    entries.extend(live.list(*directory)?.into_iter().map(|entry| {
                        Entry::new(entry.file.0, attr::file_type(entry.kind), entry.name)
                    }))
                }
                Main::Frozen(image) => entries.extend(unnumbered(frozen(image, *directory)?)),
                Main::Follow(follow) => {
                    let image = follow.seen_by(Process::of_thread(tid))?;
                    entries.extend(unnumbered(frozen(&image, FileId::ROOT)?));
                }
            }
            if is_root(*directory) {
                entries.push(Entry::new(SNAPSHOTS, FileType::Directory, SNAPSHOTS_NAME));
                entries.push(Entry::new(CONTROL, FileType::Directory, CONTROL_NAME));
            }
        }
        Place::Latest => {
            let image = state.open_latest()?.seen_by(Process::of_thread(tid))?;
            entries.extend(unnumbered(frozen(&image, FileId::ROOT)?));
        }
        Place::Snapshots => {
            entries.push(Entry::new(LATEST, FileType::Directory, LATEST_NAME));
            let names = state.snapshots.names()?;
            entries.extend(
                names
                    .into_iter()
                    .map(|name| Entry::new(UNKNOWN_INO, FileType::Directory, name)),
            );
        }
        Place::Control => {
            entries.push(Entry::new(STATUS, FileType::RegularFile, STATUS_NAME));
            if let Main::Live(_) = state.main {
                entries.push(Entry::new(SNAPSHOT, FileType::RegularFile, SNAPSHOT_NAME));
            }
            let drafts = state.drafts.all();
            entries.extend(
                drafts
                    .iter()
                    .map(|draft| Entry::new(draft.ino, FileType::RegularFile, draft.name.clone())),
            );
        }
        Place::Node(Node::Snapshot(dir)) => {
            let image = state.snapshots.image(dir)?;
            entries.extend(unnumbered(frozen(&image, FileId::ROOT)?));
        }
        Place::Node(Node::ImageDir { image, file, .. }) => {
            entries.extend(unnumbered(frozen(image, *file)?))
        }
        Place::Node(Node::ScratchDir(dir)) => {
            entries.extend(
                dir.list()
                    .into_iter()
                    .map(|(ino, name)| Entry::new(ino, FileType::RegularFile, name)),
            );
        }
        Place::Status
        | Place::Snapshot
        | Place::HeadLsn
        | Place::Node(
            Node::ImageFile(_) | Node::FollowedFile(_) | Node::ScratchFile(_) | Node::Draft(_),
        ) => {
            return Err(Errno::ENOTDIR);
        }
    }
    let own_spill = Process::of_thread(tid).and_then(|process| state.scratch.find(ino, process));
    if let Some(dir) = own_spill {
        entries.push(Entry::new(dir.ino, FileType::Directory, state.spill_name()));
    }
    Ok(entries)
}
