//! The filesystem: the kernel's requests, each led to the part that answers it.
//!
//! A method here finds out what an inode stands for, asks that part, and replies; the parts know
//! nothing of each other. What asks the catalog goes to the background with its reply. Reads,
//! writes and syncs of the live file pass through without a lock or a table.
//!
//! A part that panics costs its caller an EIO, not the mount: the reply goes out when it is dropped.

mod attributes;
mod change;
mod file;
mod listing;
mod lookup;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use layerd::id::{FileId, Timestamp};

use crate::attr::{self, FOREVER, NOT_AT_ALL, Owner};
use crate::node::Place;
use crate::state::{Main, State};

const SNAPSHOTS_NAME: &[u8] = b".snapshots";
const LATEST_NAME: &[u8] = b"latest";
const CONTROL_NAME: &[u8] = b".openduck";
const STATUS_NAME: &[u8] = b"status";
const SNAPSHOT_NAME: &[u8] = b"snapshot";
const HEAD_LSN_NAME: &[u8] = b"head_lsn";

/// The largest request. More would not make anything faster, and costs memory per thread.
const REQUEST_SIZE_MAX: u32 = 1 << 20;

/// Requests that the kernel may have under way without anybody waiting: read-ahead, and pages
/// written through a shared mapping.
const BACKGROUND_COUNT_MAX: u16 = 64;

/// How deep backing files may be stacked: the home may lie on an overlay filesystem.
const STACK_DEPTH_MAX: u32 = 2;

/// Inode numbers are never reused, so there is only one generation.
const GENERATION: Generation = Generation(0);

/// A mount, as the kernel sees it.
pub(crate) struct Filesystem {
    state: Arc<State>,
}

/// A name that was found, and how long that may be believed.
struct Found {
    attr: FileAttr,
    attr_ttl: Duration,
    name_ttl: Duration,
}

impl Found {
    /// What can't change but through this mount.
    fn for_good(attr: FileAttr) -> Found {
        Found {
            attr,
            attr_ttl: FOREVER,
            name_ttl: FOREVER,
        }
    }

    /// What is something else for another process, or a moment later.
    fn for_now(attr: FileAttr) -> Found {
        Found {
            attr,
            attr_ttl: NOT_AT_ALL,
            name_ttl: NOT_AT_ALL,
        }
    }

    fn answer(self, reply: ReplyEntry) {
        reply.entry_with_ttls(&self.attr_ttl, &self.name_ttl, &self.attr, GENERATION);
    }
}

/// Why a name was not found.
enum Missing {
    /// There is none, and there will be none but through this mount: the kernel may remember that.
    ForGood,
    Error(Errno),
}

impl From<Errno> for Missing {
    fn from(error: Errno) -> Missing {
        Missing::Error(error)
    }
}

impl Filesystem {
    pub(crate) fn new(state: Arc<State>) -> Filesystem {
        Filesystem { state }
    }

    /// What an inode stands for. The kernel asks for what it was told, so ESTALE is rare.
    fn place(&self, ino: INodeNo) -> Result<Place, Errno> {
        self.state.nodes.place(ino.0).ok_or(Errno::ESTALE)
    }

    /// Answers from the background.
    fn later(&self, job: impl FnOnce(&Arc<State>) + Send + 'static) {
        let state = Arc::clone(&self.state);
        self.state.background.run(move || job(&state));
    }
}

/// Works an answer out; a panic becomes EIO.
fn guarded<T, E: From<Errno>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!("a request panicked; this is a bug");
        Err(Errno::EIO.into())
    })
}

fn answer_found(reply: ReplyEntry, found: Result<Found, Missing>) {
    match found {
        Ok(found) => found.answer(reply),
        // Inode 0 is how a name's absence is told together with a time to remember it.
        Err(Missing::ForGood) => {
            let nothing = attr::plain(
                0,
                FileType::RegularFile,
                0,
                Owner { uid: 0, gid: 0 },
                Timestamp(0),
            );
            reply.entry(&FOREVER, &nothing, GENERATION);
        }
        Err(Missing::Error(error)) => reply.error(error),
    }
}

fn answer_empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn caller(request: &Request) -> Owner {
    Owner {
        uid: request.uid(),
        gid: request.gid(),
    }
}

impl fuser::Filesystem for Filesystem {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.set_max_write(REQUEST_SIZE_MAX);
        if let Err(possible) = config.set_max_readahead(REQUEST_SIZE_MAX) {
            let _ = config.set_max_readahead(possible);
        }
        let _ = config.set_max_background(BACKGROUND_COUNT_MAX);
        let wanted = [
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            // No file has bits to be cleared by a write (see `live.rs`), so a write need not ask.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            // Content changes only through the kernel: no answer of ours makes its pages wrong.
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        ];
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!("the kernel lacks {flag:?}");
            }
        }
        if config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(STACK_DEPTH_MAX).is_ok()
        {
            self.state.passthrough.allow();
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.look_up(request, parent, name.as_bytes(), reply);
    }

    fn forget(&self, _request: &Request, ino: INodeNo, nlookup: u64) {
        if let Some(node) = self.state.nodes.forget(ino.0, nlookup) {
            // It may be the last to hold a reader, whose end is a catalog call.
            self.state.background.run(move || drop(node));
        }
    }

    fn getattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        if let Ok(Place::Status) = self.place(ino) {
            return self
                .later(move |state| reply.attr(&NOT_AT_ALL, &attributes::status_attr(state)));
        }
        match guarded(|| self.attr(ino)) {
            Ok((ttl, attr)) => reply.attr(&ttl, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mtime = mtime.map(|time| match time {
            TimeOrNow::SpecificTime(time) => attr::timestamp(time),
            TimeOrNow::Now => Timestamp::now(),
        });
        let change = layerd::writer::SetAttr {
            size,
            mode,
            uid,
            gid,
            mtime,
        };
        match guarded(|| self.set_attr(ino, change)) {
            Ok((ttl, attr)) => reply.attr(&ttl, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _request: &Request, _ino: INodeNo, reply: ReplyData) {
        reply.error(Errno::EINVAL);
    }

    fn mknod(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn symlink(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn link(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _parent: INodeNo,
        _name: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = guarded(|| self.make_directory(request, parent, name.as_bytes(), mode));
        answer_found(reply, made.map_err(Missing::Error));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(reply, guarded(|| self.unlink(parent, name.as_bytes())));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer_empty(
            reply,
            guarded(|| self.remove_directory(request, parent, name.as_bytes())),
        );
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.rename(
            (parent, name.as_bytes()),
            (newparent, newname.as_bytes()),
            flags,
            reply,
        );
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.open_directory(request, ino, reply);
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.list(handle, offset, reply);
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        drop(self.state.handles.close(handle));
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        answer_empty(reply, guarded(|| self.sync(ino)));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.create_file(request, parent, name.as_bytes(), mode, flags, reply);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.open_file(request, ino, flags, reply);
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.read_file(ino, handle, offset, size as usize, reply);
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.write_file(ino, handle, offset, data, reply);
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.flush_file(handle, reply);
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.release_file(ino, handle);
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        answer_empty(reply, guarded(|| self.sync(ino)));
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer_empty(reply, guarded(|| self.allocate(ino, offset, length, mode)));
    }

    fn lseek(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match guarded(|| self.seek(ino, offset, whence)) {
            Ok(offset) => reply.offset(offset),
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match guarded(|| self.space()) {
            Ok((free, total)) => {
                let block = 4096;
                let free = free / block;
                reply.statfs(
                    total / block,
                    free,
                    free,
                    0,
                    0,
                    block as u32,
                    255,
                    block as u32,
                );
            }
            Err(error) => reply.error(error),
        }
    }

    // The kernel remembers ENOSYS and does not ask again.

    fn setxattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _request: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _request: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _ino_in: INodeNo,
        _handle_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _handle_out: FileHandle,
        _offset_out: u64,
        _length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}

impl Filesystem {
    /// Free and total bytes of the disk below.
    fn space(&self) -> Result<(u64, u64), Errno> {
        match &self.state.main {
            Main::Live(live) => live.space(),
            Main::Frozen(_) | Main::Follow(_) => {
                let disk = rustix::fs::statvfs(self.state.store.home()).map_err(io::Error::from)?;
                Ok((
                    disk.f_bavail.saturating_mul(disk.f_frsize),
                    disk.f_blocks.saturating_mul(disk.f_frsize),
                ))
            }
        }
    }

    /// Makes everything durable that needs to be.
    fn sync(&self, ino: INodeNo) -> Result<(), Errno> {
        match (&self.state.main, self.place(ino)?) {
            (Main::Live(live), Place::Main(_)) => live.sync(),
            _ => Ok(()),
        }
    }

    /// The live image, if `file` is one of its.
    fn live(&self) -> Result<&crate::live::Live, Errno> {
        match &self.state.main {
            Main::Live(live) => Ok(live),
            Main::Frozen(_) | Main::Follow(_) => Err(Errno::EROFS),
        }
    }
}

/// Answers an open of something whose pages must not be kept.
fn opened_unbuffered(reply: ReplyOpen, handle: FileHandle) {
    reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO);
}

/// Whether a directory is the mount's top.
fn is_root(file: FileId) -> bool {
    file == FileId::ROOT
}
