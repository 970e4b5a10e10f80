//! Attributes: what the engine knows of a file, in the kernel's terms.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use layerd::frozen::{Attr, FileKind};
use layerd::id::Timestamp;

/// How long the kernel may believe what can't change behind its back.
pub(crate) const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// For what differs from process to process, or from one moment to the next.
pub(crate) const NOT_AT_ALL: Duration = Duration::ZERO;

/// Who owns the directories that only the mount knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    /// Who runs this process.
    pub(crate) fn ourselves() -> Owner {
        Owner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }
}

pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
    }
}

/// A file or directory of an image.
pub(crate) fn of_image(ino: u64, attr: &Attr) -> FileAttr {
    FileAttr {
        size: attr.size,
        blocks: attr.allocated.div_ceil(512),
        nlink: if attr.kind == FileKind::Directory {
            2
        } else {
            attr.nlink
        },
        ..plain(
            ino,
            file_type(attr.kind),
            attr.mode,
            Owner {
                uid: attr.uid,
                gid: attr.gid,
            },
            attr.mtime,
        )
    }
}

/// The directory at the top of a read-only image. Anybody may make a spill directory in it, and
/// nothing else can be made in it: like `/tmp`, with the sticky bit.
pub(crate) fn of_read_only_root(ino: u64, attr: &Attr) -> FileAttr {
    FileAttr {
        perm: 0o1777,
        ..of_image(ino, attr)
    }
}

/// Something that only the mount knows.
pub(crate) fn plain(
    ino: u64,
    kind: FileType,
    mode: u32,
    owner: Owner,
    time: Timestamp,
) -> FileAttr {
    let time = system_time(time);
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: (mode & 0o7777) as u16,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: owner.uid,
        gid: owner.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

pub(crate) fn system_time(time: Timestamp) -> SystemTime {
    let distance = Duration::from_nanos(time.0.unsigned_abs());
    let moved = if time.0 < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    moved.unwrap_or(UNIX_EPOCH)
}

pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let nanoseconds = |distance: Duration| i64::try_from(distance.as_nanos()).unwrap_or(i64::MAX);
    Timestamp(match time.duration_since(UNIX_EPOCH) {
        Ok(after) => nanoseconds(after),
        Err(before) => -nanoseconds(before.duration()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_way_there_and_back() {
        for nanoseconds in [0, 1, -1, 1_763_700_000_123_456_789, -86_400_000_000_000] {
            assert_eq!(
                timestamp(system_time(Timestamp(nanoseconds))),
                Timestamp(nanoseconds)
            );
        }
    }
}
