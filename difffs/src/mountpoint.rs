//! Mount points: whether something may be mounted at a directory, and what is.
//!
//! What is mounted where is read from `/proc/self/mountinfo`. The directory itself is asked only
//! when no FUSE mount lies on it: the process behind that may be dead, or stopped.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;

use crate::error::MountError;
use crate::mount;

/// What is mounted where. Whoever polls it learns of changes.
pub(crate) const TABLE: &str = "/proc/self/mountinfo";

/// One line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountRow {
    /// Identifies the mount as long as it exists.
    pub(crate) id: u32,
    /// Major and minor number of the mounted filesystem.
    pub(crate) device: (u32, u32),
    pub(crate) at: PathBuf,
    pub(crate) kind: String,
    source: String,
}

/// Checks that `dir` can be mounted on; clears away what a killed server left there. Returns its
/// absolute path.
pub(crate) fn prepare(dir: &Path) -> Result<PathBuf, MountError> {
    let path = absolute(dir).map_err(|error| refusal(dir, error))?;
    while let Some(row) = topmost(&path)?.filter(|row| row.kind.starts_with("fuse")) {
        match rustix::fs::statfs(&path) {
            Err(Errno::NOTCONN | Errno::CONNABORTED) => {
                tracing::warn!(
                    "{}: clearing away the mount of a server that is gone",
                    path.display()
                );
                mount::detach_dead(&path).map_err(|error| MountError::StaleMount {
                    dir: path.clone(),
                    error,
                })?;
            }
            _ => {
                return Err(MountError::AlreadyMounted {
                    dir: path,
                    what: row.source,
                });
            }
        }
    }
    let meta = fs::metadata(&path).map_err(|error| refusal(&path, error))?;
    if !meta.is_dir() {
        return Err(MountError::NotADirectory { dir: path });
    }
    let mut entries = fs::read_dir(&path).map_err(|error| refusal(&path, error))?;
    if entries.next().is_some() {
        return Err(MountError::NotEmpty { dir: path });
    }
    // fusermount3 wants it, and root always has it.
    rustix::fs::access(&path, Access::WRITE_OK).map_err(|error| refusal(&path, error.into()))?;
    Ok(path)
}

/// The mount that is on top at `path`, if one is.
pub(crate) fn topmost(path: &Path) -> Result<Option<MountRow>, MountError> {
    let table = fs::read(TABLE).map_err(MountError::NoMountTable)?;
    Ok(rows(&table).into_iter().rfind(|row| row.at == path))
}

/// Whether a filesystem is mounted anywhere; `true` where the table can't be read.
pub(crate) fn is_mounted(device: (u32, u32)) -> bool {
    match fs::read(TABLE) {
        Ok(table) => rows(&table).iter().any(|row| row.device == device),
        Err(_) => true,
    }
}

/// The path without links; the last part is not looked at, for it may be a dead mount.
pub(crate) fn absolute(dir: &Path) -> io::Result<PathBuf> {
    let is_link = fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_symlink());
    match (dir.parent(), dir.file_name()) {
        (Some(parent), Some(name)) if !is_link => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            Ok(fs::canonicalize(parent)?.join(name))
        }
        _ => fs::canonicalize(dir),
    }
}

fn refusal(dir: &Path, error: io::Error) -> MountError {
    let dir = dir.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => MountError::Missing { dir },
        io::ErrorKind::NotADirectory => MountError::NotADirectory { dir },
        io::ErrorKind::PermissionDenied => MountError::NoPermission { dir },
        _ => MountError::Unusable { dir, error },
    }
}

fn rows(table: &[u8]) -> Vec<MountRow> {
    table.split(|byte| *byte == b'\n').filter_map(row).collect()
}

/// `id parent major:minor root at options [optional …] - kind source super-options`
fn row(line: &[u8]) -> Option<MountRow> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let (major, minor) = std::str::from_utf8(fields.nth(1)?).ok()?.split_once(':')?;
    let at = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let mut tail = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(tail.next()?).into_owned();
    let source = String::from_utf8_lossy(&unescape(tail.next()?)).into_owned();
    Some(MountRow {
        id,
        device: (major.parse().ok()?, minor.parse().ok()?),
        at,
        kind,
        source,
    })
}

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let digits = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            plain.push(byte);
            rest = &tail[3..];
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_the_kernel_writes_them() {
        let table = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw\n\
            40 35 0:51 / /mnt/a\\040b rw - fuse.openduck openduck:mydb rw\nnonsense\n\n";
        let rows = rows(table);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].kind, "ext3");
        assert_eq!(rows[1].at, Path::new("/mnt/a b"));
        assert_eq!((rows[1].id, rows[1].device), (40, (0, 51)));
        assert_eq!(rows[1].source, "openduck:mydb");
    }

    #[test]
    fn unsuitable_mount_points_are_refused_by_name() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::write(at("file"), b"").unwrap();
        fs::create_dir_all(at("full/inner")).unwrap();
        fs::create_dir(at("good")).unwrap();
        std::os::unix::fs::symlink(at("good"), at("link")).unwrap();
        assert!(matches!(
            prepare(&at("none")),
            Err(MountError::Missing { .. })
        ));
        assert!(matches!(
            prepare(&at("none/deeper")),
            Err(MountError::Missing { .. })
        ));
        assert!(matches!(
            prepare(&at("file")),
            Err(MountError::NotADirectory { .. })
        ));
        assert!(matches!(
            prepare(&at("full")),
            Err(MountError::NotEmpty { .. })
        ));
        let good = fs::canonicalize(at("good")).unwrap();
        assert_eq!(prepare(&at("good")).unwrap(), good);
        assert_eq!(prepare(&at("link")).unwrap(), good);
    }
}
