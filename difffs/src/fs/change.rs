//! Changing names: directories made and removed, files unlinked and renamed.
//!
//! On a read-only mount nothing can be changed but the spill directory, and what is in it.

use fuser::{Errno, INodeNo, RenameFlags, ReplyEmpty, Request};
use layerd::id::FileId;
use layerd::writer::RenameMode;

use super::lookup::found_spill;
use super::{
    CONTROL_NAME, Filesystem, Found, SNAPSHOT_NAME, SNAPSHOTS_NAME, answer_empty, caller, guarded,
    is_root,
};
use crate::node::{Node, Place};
use crate::process::Process;

impl Filesystem {
    pub(super) fn make_directory(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &[u8],
        mode: u32,
    ) -> Result<Found, Errno> {
        let place = self.place(parent)?;
        if self.has_spill(&place) && self.state.is_spill(name) {
            let process = Process::of_thread(request.pid()).ok_or(Errno::EACCES)?;
            let ino = self.state.nodes.allocate();
            let dir = self
                .state
                .scratch
                .make(parent.0, process, ino, mode, caller(request))?;
            return Ok(found_spill(&self.state, &dir));
        }
        match place {
            Place::Main(directory) => {
                let made = self
                    .live()?
                    .make_directory(directory, name, mode, caller(request))?;
                Ok(Found::for_good(made))
            }
            place => Err(refuse_change(&place)),
        }
    }

    pub(super) fn remove_directory(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &[u8],
    ) -> Result<(), Errno> {
        let place = self.place(parent)?;
        if self.has_spill(&place) && self.state.is_spill(name) {
            let process = Process::of_thread(request.pid()).ok_or(Errno::EACCES)?;
            return self.state.scratch.remove(parent.0, process);
        }
        match place {
            Place::Main(directory) if is_root(directory) && is_fixed(name) => Err(Errno::EPERM),
            Place::Main(directory) => self.live()?.remove_directory(directory, name),
            place => Err(refuse_change(&place)),
        }
    }

    pub(super) fn unlink(&self, parent: INodeNo, name: &[u8]) -> Result<(), Errno> {
        match self.place(parent)? {
            Place::Main(directory) => self.live()?.unlink(directory, name),
            Place::Node(Node::ScratchDir(dir)) => dir.unlink(name),
            // Before it renames its own file over it. The name stays.
            Place::Control if name == SNAPSHOT_NAME && self.live().is_ok() => Ok(()),
            Place::Control => self.state.drafts.take(name).map(drop).ok_or(Errno::ENOENT),
            place => Err(refuse_change(&place)),
        }
    }

    pub(super) fn rename(
        &self,
        from: (INodeNo, &[u8]),
        to: (INodeNo, &[u8]),
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let places = self
            .place(from.0)
            .and_then(|source| Ok((source, self.place(to.0)?)));
        let (source, target) = match places {
            Ok(places) => places,
            Err(error) => return reply.error(error),
        };
        if let (Place::Control, Place::Control) = (&source, &target) {
            return self.rename_draft(from.1, to.1, flags, reply);
        }
        let renamed = guarded(|| match (source, target) {
            (Place::Main(source), Place::Main(target)) => {
                let reserved = |directory: FileId, name: &[u8]| {
                    is_root(directory) && (is_fixed(name) || self.state.is_spill(name))
                };
                if reserved(source, from.1) || reserved(target, to.1) {
                    return Err(Errno::EPERM);
                }
                self.live()?
                    .rename((source, from.1), (target, to.1), rename_mode(flags)?)
            }
            (Place::Node(Node::ScratchDir(source)), Place::Node(Node::ScratchDir(target)))
                if source.ino == target.ino =>
            {
                match rename_mode(flags)? {
                    RenameMode::Replace => source.rename(from.1, to.1, true),
                    RenameMode::NoReplace => source.rename(from.1, to.1, false),
                    RenameMode::Exchange => Err(Errno::EINVAL),
                }
            }
            (
                Place::Main(_) | Place::Node(Node::ScratchDir(_)),
                Place::Main(_) | Place::Node(Node::ScratchDir(_)),
            ) => Err(Errno::EXDEV),
            (source, _) => Err(refuse_change(&source)),
        });
        answer_empty(reply, renamed);
    }

    /// A draft that becomes `snapshot` is a snapshot taken; one that becomes another draft is one.
    fn rename_draft(&self, from: &[u8], to: &[u8], flags: RenameFlags, reply: ReplyEmpty) {
        if to != SNAPSHOT_NAME || !rename_mode(flags).is_ok_and(|mode| mode == RenameMode::Replace)
        {
            return reply.error(Errno::EPERM);
        }
        // Whatever becomes of it, the draft has served: a second COPY wants to make it anew.
        let Some(draft) = self.state.drafts.take(from) else {
            return reply.error(Errno::ENOENT);
        };
        self.later(move |state| {
            answer_empty(
                reply,
                draft.snapshot_name().and_then(|name| state.snapshot(&name)),
            );
        });
    }

    /// Whether a directory offers a spill directory.
    fn has_spill(&self, place: &Place) -> bool {
        match place {
            Place::Main(directory) => is_root(*directory),
            Place::Latest | Place::Node(Node::Snapshot(_)) => true,
            _ => false,
        }
    }
}

fn is_fixed(name: &[u8]) -> bool {
    name == SNAPSHOTS_NAME || name == CONTROL_NAME
}

/// Why nothing can be changed in a directory.
fn refuse_change(place: &Place) -> Errno {
    match place {
        Place::Main(_) | Place::Latest | Place::Node(Node::ImageDir { .. } | Node::Snapshot(_)) => {
            Errno::EROFS
        }
        _ => Errno::EPERM,
    }
}

fn rename_mode(flags: RenameFlags) -> Result<RenameMode, Errno> {
    match flags {
        flags if flags.is_empty() => Ok(RenameMode::Replace),
        RenameFlags::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ => Err(Errno::EINVAL),
    }
}
