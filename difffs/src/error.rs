//! Why a mount fails: one line each, which names the thing and the next step.

use std::io;
use std::path::PathBuf;

use layerd::id::DatabaseName;
use layerd::reference::Ref;
use layerd::store::StoreError;

/// Why a mount could not be made, or ended badly: one line, with the next step in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// There is nothing at the path.
    #[error("mount point {dir} does not exist; make the directory first", dir = .dir.display())]
    Missing {
        /// The mount point.
        dir: PathBuf,
    },
    /// The path is a file, or leads through one.
    #[error("mount point {dir} is not a directory; name an empty directory", dir = .dir.display())]
    NotADirectory {
        /// The mount point.
        dir: PathBuf,
    },
    /// There are files in it, which the mount would hide.
    #[error("mount point {dir} is not empty; name an empty directory", dir = .dir.display())]
    NotEmpty {
        /// The mount point.
        dir: PathBuf,
    },
    /// A living mount is there.
    #[error("{what} is mounted at {dir} already; unmount it first (`openduck-fs umount {dir}`)", dir = .dir.display())]
    AlreadyMounted {
        /// The mount point.
        dir: PathBuf,
        /// The source of what is mounted there.
        what: String,
    },
    /// The mount point may not be used by this user.
    #[error("no permission to mount at {dir}; name a directory that you own and can write to", dir = .dir.display())]
    NoPermission {
        /// The mount point.
        dir: PathBuf,
    },
    /// The mount point can't be examined.
    #[error("mount point {dir} cannot be used: {error}", dir = .dir.display())]
    Unusable {
        /// The mount point.
        dir: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// What a killed server left at the mount point can't be cleared away.
    #[error("the dead mount at {dir} cannot be cleared away ({error}); run `umount -l {dir}`", dir = .dir.display())]
    StaleMount {
        /// The mount point.
        dir: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The kernel has no FUSE.
    #[error(
        "there is no FUSE here: /dev/fuse cannot be opened; load the module (`modprobe fuse`), or give the container the device"
    )]
    NoFuseDevice,
    /// This user may not use FUSE.
    #[error(
        "/dev/fuse may not be opened by this user; root can allow it (`chmod 666 /dev/fuse`), or mount as root"
    )]
    FuseForbidden,
    /// Only root can mount without it.
    #[error(
        "fusermount3 is not installed, without which only root can mount; install it (package fuse3)"
    )]
    NoHelper,
    /// The mount table can't be read.
    #[error("/proc/self/mountinfo cannot be read: {0}")]
    NoMountTable(#[source] io::Error),
    /// Mounting failed.
    #[error("cannot mount at {dir}: {error}", dir = .dir.display())]
    Failed {
        /// The mount point.
        dir: PathBuf,
        /// What the kernel or the helper said.
        error: io::Error,
    },
    /// A mount can't be both frozen and following.
    #[error(
        "--follow shows the newest commit; it goes with no other reference than `latest`, not with {0}"
    )]
    FollowsNothing(Ref),
    /// The database can't be opened; the message is complete.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The mount has ended, but the database could not be closed; the next mount recovers it.
    #[error(
        "{database} could not be closed: {error}; everything acknowledged is kept, and the next mount recovers it"
    )]
    Close {
        /// The database.
        database: DatabaseName,
        /// What went wrong.
        error: StoreError,
    },
    /// The connection to the kernel broke, or threads can't be started.
    #[error("the filesystem at {dir} failed: {error}", dir = .dir.display())]
    Broken {
        /// The mount point.
        dir: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}
