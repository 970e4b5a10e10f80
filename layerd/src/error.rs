//! What a file operation on an image can answer.

use std::io;

use crate::catalog::CatalogError;
use crate::id::LayerId;

/// Why a file operation failed. A filesystem maps each to one errno.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// No such file or directory (ENOENT).
    #[error("no such file or directory")]
    NotFound,
    /// The name is taken (EEXIST).
    #[error("file exists")]
    Exists,
    /// A directory that should be empty is not (ENOTEMPTY).
    #[error("directory not empty")]
    NotEmpty,
    /// A directory was expected (ENOTDIR).
    #[error("not a directory")]
    NotADirectory,
    /// A plain file was expected (EISDIR).
    #[error("is a directory")]
    IsADirectory,
    /// The name can't be stored: empty, `.`, `..`, with a slash, NUL or control characters
    /// (EINVAL).
    #[error("invalid name")]
    InvalidName,
    /// The name is longer than 255 bytes (ENAMETOOLONG).
    #[error("name too long")]
    NameTooLong,
    /// An argument is out of range: an offset beyond 2^63, a directory moved below itself (EINVAL).
    #[error("invalid argument")]
    Invalid,
    /// The file would be larger than 2^63 - 1 bytes (EFBIG).
    #[error("file too large")]
    TooLarge,
    /// The disk below has no room (ENOSPC).
    #[error("no space left on the device that holds the layers")]
    NoSpace,
    /// The disk below is read-only (EROFS).
    #[error("the disk that holds the layers is read-only")]
    ReadOnlyDisk,
    /// The commit this reader was looking at is not pinned any more (ESTALE).
    #[error("the snapshot is gone: its pin could not be renewed in time")]
    Stale,
    /// This writer's lease has ended or somebody else took over: nothing is acknowledged any more
    /// until it is mounted anew (EIO).
    #[error("the write lease is lost: {0}")]
    LeaseLost(String),
    /// Bytes in a layer are not what was written (EIO). Nothing was returned.
    #[error("layer {layer} is damaged at offset {offset}: {what}")]
    Damaged {
        /// The layer.
        layer: LayerId,
        /// Physical offset in its file.
        offset: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// An earlier write or sync of the active layer failed; every sync fails until the database is
    /// mounted anew (EIO).
    #[error("an earlier write to the layer failed ({0}); unmount and mount again to recover")]
    Poisoned(String),
    /// The commit could not be brought to the remote store in time, and durability is to be remote
    /// (EIO). It is on this host's disk; a later sync tries again.
    #[error("the commit is not in the store yet: {0}")]
    NotStored(String),
    /// The operating system refused (EIO, or its own errno).
    #[error(transparent)]
    Io(io::Error),
    /// The catalog refused (EIO).
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl From<io::Error> for FsError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FsError::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => FsError::ReadOnlyDisk,
            _ => FsError::Io(error),
        }
    }
}
