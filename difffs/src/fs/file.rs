//! Content: opening, reading, writing and closing files.

use std::cell::RefCell;
use std::sync::Arc;

use fuser::{
    Errno, FileHandle, FopenFlags, INodeNo, OpenAccMode, OpenFlags, ReplyCreate, ReplyData,
    ReplyEmpty, ReplyOpen, ReplyWrite, Request,
};
use layerd::aligned::AlignedBuffer;
use layerd::id::Lsn;

use super::attributes::draft_attr;
use super::{Filesystem, GENERATION, caller, guarded, is_root, opened_unbuffered};
use crate::attr::{FOREVER, NOT_AT_ALL};
use crate::follow::Follow;
use crate::handles::Handle;
use crate::node::{Node, Place};
use crate::process::Process;
use crate::snapshot_file::PartialLine;
use crate::state::Main;
use crate::status::Status;

/// Most files remember nothing per open.
const NO_HANDLE: FileHandle = FileHandle(0);

/// The kernel keeps the pages across opens, and does not tell of each close.
const KEPT: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_NOFLUSH);

/// The kernel keeps nothing: each read comes here.
const UNBUFFERED: FopenFlags = FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_NOFLUSH);

/// The size of `.openduck/head_lsn`: the largest number, with blanks behind it and a line's end.
pub(super) const HEAD_LSN_BYTES: usize = 24;

/// As [`KEPT`], where the kernel reads and writes the file itself: there are no pages to keep.
const PASSED_THROUGH: FopenFlags = FopenFlags::FOPEN_NOFLUSH;

thread_local! {
    /// Where a read's answer is put together; as large as the largest request was.
    static BUFFER: RefCell<AlignedBuffer> = const { RefCell::new(AlignedBuffer::new()) };
}

/// Has `length` bytes of the thread's buffer filled, and answers with as many as came.
fn answer_filled(
    reply: ReplyData,
    length: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
) {
    BUFFER.with_borrow_mut(|buffer| {
        let buffer = buffer.get(length);
        match guarded(|| fill(buffer)) {
            Ok(got) => reply.data(&buffer[..got]),
            Err(error) => reply.error(error),
        }
    });
}

/// What of `text` a read of `length` bytes at `offset` gets.
/// The content of `.openduck/head_lsn`.
fn head_lsn_text(lsn: Lsn) -> Vec<u8> {
    format!("{:<1$}\n", lsn.0, HEAD_LSN_BYTES - 1).into_bytes()
}

fn part(text: &[u8], offset: u64, length: usize) -> &[u8] {
    let begin = usize::try_from(offset).map_or(text.len(), |offset| offset.min(text.len()));
    &text[begin..][..length.min(text.len() - begin)]
}

impl Filesystem {
    pub(super) fn create_file(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &[u8],
        mode: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let state = &self.state;
        let made = guarded(|| match self.place(parent)? {
            Place::Main(directory) if is_root(directory) && state.is_spill(name) => {
                Err(Errno::EPERM)
            }
            Place::Main(directory) => {
                let attr = self
                    .live()?
                    .create(directory, name, mode, caller(request), flags)?;
                Ok((FOREVER, attr, NO_HANDLE, KEPT, None))
            }
            Place::Node(Node::ScratchDir(dir)) => {
                let ino = state.nodes.allocate();
                let file = state
                    .scratch
                    .create(&dir, name, ino, mode, caller(request))?;
                let attr = file.attr()?;
                let backing = file.backing(&state.passthrough, |file| reply.open_backing(file));
                state.nodes.tell_owned(ino, &Node::ScratchFile(file));
                Ok((NOT_AT_ALL, attr, NO_HANDLE, KEPT, backing))
            }
            Place::Control if matches!(state.main, Main::Live(_)) => {
                let draft = state
                    .drafts
                    .make(state.nodes.allocate(), name, caller(request))?;
                state
                    .nodes
                    .tell_owned(draft.ino, &Node::Draft(Arc::clone(&draft)));
                Ok((
                    NOT_AT_ALL,
                    draft_attr(&draft),
                    NO_HANDLE,
                    FopenFlags::FOPEN_DIRECT_IO,
                    None,
                ))
            }
            Place::Latest | Place::Node(Node::Snapshot(_) | Node::ImageDir { .. }) => {
                Err(Errno::EROFS)
            }
            _ => Err(Errno::EPERM),
        });
        match made {
            Ok((ttl, attr, handle, _, Some(backing))) => {
                reply.created_passthrough(
                    &ttl,
                    &attr,
                    GENERATION,
                    handle,
                    PASSED_THROUGH,
                    &backing,
                );
            }
            Ok((ttl, attr, handle, flags, None)) => {
                reply.created(&ttl, &attr, GENERATION, handle, flags)
            }
            Err(error) => reply.error(error),
        }
    }

    pub(super) fn open_file(
        &self,
        request: &Request,
        ino: INodeNo,
        flags: OpenFlags,
        reply: ReplyOpen,
    ) {
        let state = &self.state;
        let place = match self.place(ino) {
            Ok(place) => place,
            Err(error) => return reply.error(error),
        };
        match place {
            Place::Main(file) => match guarded(|| self.live()?.open(file, flags.0)) {
                Ok(()) => reply.opened(NO_HANDLE, KEPT),
                Err(error) => reply.error(error),
            },
            Place::Node(Node::ImageFile(file)) => match guarded(|| file.check_open(flags)) {
                Ok(()) => file.open(
                    &state.passthrough,
                    NO_HANDLE,
                    FopenFlags::FOPEN_NOFLUSH,
                    reply,
                ),
                Err(error) => reply.error(error),
            },
            Place::Node(Node::FollowedFile(file)) => {
                let opened = guarded(|| {
                    file.check_open(flags)?;
                    let follow = state.latest().ok_or(Errno::ESTALE)?;
                    follow.open(Process::of_thread(request.pid()), &file)
                });
                match opened {
                    Ok(session) => {
                        let handle = Handle::Followed(Arc::clone(&file), session);
                        let handle = state.handles.open(handle);
                        file.open(&state.passthrough, handle, FopenFlags::empty(), reply);
                    }
                    Err(error) => reply.error(error),
                }
            }
            Place::Node(Node::ScratchFile(file)) => {
                if flags.0 & libc::O_TRUNC != 0
                    && let Err(error) = file.set_size(0)
                {
                    return reply.error(error);
                }
                match file.backing(&state.passthrough, |file| reply.open_backing(file)) {
                    Some(backing) => reply.opened_passthrough(NO_HANDLE, PASSED_THROUGH, &backing),
                    None => reply.opened(NO_HANDLE, KEPT),
                }
            }
            Place::Node(Node::Draft(draft)) => {
                let cut = if flags.0 & libc::O_TRUNC != 0 {
                    draft.set_size(0)
                } else {
                    Ok(())
                };
                match cut {
                    Ok(()) => opened_unbuffered(reply, NO_HANDLE),
                    Err(error) => reply.error(error),
                }
            }
            Place::Status if flags.acc_mode() != OpenAccMode::O_RDONLY => {
                reply.error(Errno::EACCES)
            }
            Place::Status => self.later(move |state| {
                let text = Status::of(state).text();
                opened_unbuffered(reply, state.handles.open(Handle::Text(text)));
            }),
            Place::HeadLsn if flags.acc_mode() != OpenAccMode::O_RDONLY => {
                reply.error(Errno::EACCES)
            }
            // Each read is told anew.
            Place::HeadLsn => reply.opened(NO_HANDLE, UNBUFFERED),
            Place::Snapshot => {
                opened_unbuffered(
                    reply,
                    state.handles.open(Handle::Lines(PartialLine::default())),
                );
            }
            Place::Snapshots
            | Place::Latest
            | Place::Control
            | Place::Node(Node::ImageDir { .. } | Node::Snapshot(_) | Node::ScratchDir(_)) => {
                reply.error(Errno::EISDIR)
            }
        }
    }

    pub(super) fn read_file(
        &self,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: usize,
        reply: ReplyData,
    ) {
        let place = match self.place(ino) {
            Ok(place) => place,
            Err(error) => return reply.error(error),
        };
        match place {
            Place::Main(file) => {
                answer_filled(reply, length, |out| self.live()?.read(file, offset, out))
            }
            Place::Node(Node::ImageFile(file)) => {
                answer_filled(reply, length, |out| file.read(offset, out));
            }
            Place::Node(Node::FollowedFile(file)) => answer_filled(reply, length, |out| {
                if Follow::is_deep(offset)
                    && let Handle::Followed(_, session) = &*self.state.handles.get(handle)?
                    && let Some(follow) = self.state.latest()
                {
                    follow.deep_read(*session);
                }
                file.read(offset, out)
            }),
            Place::Node(Node::ScratchFile(file)) => {
                answer_filled(reply, length, |out| file.read(offset, out))
            }
            Place::Node(Node::Draft(draft)) => reply.data(&draft.read(offset, length)),
            Place::Status => match guarded(|| self.state.handles.get(handle)) {
                Ok(opened) => match &*opened {
                    Handle::Text(text) => reply.data(part(text, offset, length)),
                    _ => reply.data(&[]),
                },
                Err(error) => reply.error(error),
            },
            Place::HeadLsn => {
                let text = guarded(|| Ok(head_lsn_text(self.live()?.writer().committed().lsn())));
                match text {
                    Ok(text) => reply.data(part(&text, offset, length)),
                    Err(error) => reply.error(error),
                }
            }
            // It holds nothing; who writes a name into it need not read it back.
            Place::Snapshot => reply.data(&[]),
            _ => reply.error(Errno::EISDIR),
        }
    }

    pub(super) fn write_file(
        &self,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        reply: ReplyWrite,
    ) {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let written = guarded(|| match self.place(ino)? {
            Place::Main(file) => self.live()?.write(file, offset, data).map(|()| None),
            Place::Node(Node::ScratchFile(file)) => file.write(offset, data).map(|()| None),
            Place::Node(Node::Draft(draft)) => draft.write(offset, data).map(|()| None),
            Place::Snapshot => match &*self.state.handles.get(handle)? {
                Handle::Lines(line) => line.add(data).map(Some),
                _ => Err(Errno::EBADF),
            },
            _ => Err(Errno::EROFS),
        });
        match written {
            Ok(None) => reply.written(length),
            Ok(Some(names)) if names.is_empty() => reply.written(length),
            Ok(Some(names)) => self.later(move |state| {
                match names.iter().try_for_each(|name| state.snapshot(name)) {
                    Ok(()) => reply.written(length),
                    Err(error) => reply.error(error),
                }
            }),
            Err(error) => reply.error(error),
        }
    }

    /// A descriptor was closed. Only followed files wait for that.
    pub(super) fn flush_file(&self, handle: FileHandle, reply: ReplyEmpty) {
        let Ok(handle) = self.state.handles.get(handle) else {
            return reply.ok();
        };
        if let Handle::Followed(_, session) = &*handle
            && let Some(follow) = self.state.latest()
        {
            follow.flushed(*session);
        }
        reply.ok();
    }

    pub(super) fn release_file(&self, ino: INodeNo, handle: FileHandle) {
        if let Some(handle) = self.state.handles.close(handle) {
            match &*handle {
                Handle::Followed(file, session) => {
                    file.release();
                    if let Some(follow) = self.state.latest() {
                        follow.released(*session);
                    }
                }
                Handle::Lines(line) if line.is_unfinished() => {
                    tracing::warn!(
                        "no snapshot: the name that was written has no newline behind it"
                    );
                }
                Handle::Lines(_) | Handle::Text(_) | Handle::Listing(_) => {}
            }
            // It may be the last to hold a reader, whose end is a catalog call.
            return self.state.background.run(move || drop(handle));
        }
        match self.place(ino) {
            Ok(Place::Main(file)) => {
                if let Ok(live) = self.live() {
                    live.release(file);
                }
            }
            Ok(Place::Node(Node::ImageFile(file))) => file.release(),
            _ => {}
        }
    }

    pub(super) fn allocate(
        &self,
        ino: INodeNo,
        offset: u64,
        length: u64,
        mode: i32,
    ) -> Result<(), Errno> {
        match self.place(ino)? {
            Place::Main(file) => self.live()?.fallocate(file, offset, length, mode),
            Place::Node(Node::ScratchFile(file)) => file.fallocate(mode, offset, length),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Finds data and holes; the kernel itself does the other seeks.
    pub(super) fn seek(&self, ino: INodeNo, offset: i64, whence: i32) -> Result<i64, Errno> {
        let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let found = match self.place(ino)? {
            Place::Main(file) => self.live()?.seek(file, from, whence)?,
            Place::Node(Node::ImageFile(file) | Node::FollowedFile(file)) => {
                file.seek(from, whence)?
            }
            Place::Node(Node::ScratchFile(file)) => file.seek(from, whence)?,
            _ => return Err(Errno::EINVAL),
        };
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }
}
