//! Mounting and unmounting: the system calls, and `fusermount3` for those who may not make them.
//!
//! The connection is opened here and handed to fuser: fuser's own way of mounting would, at the end
//! of a session, unmount whatever lies at the path by then.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};

use crate::error::MountError;

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";
/// What the kernel calls our mounts: `fuse.openduck`.
const SUBTYPE: &str = "openduck";
const HELPER_CONF: &str = "/etc/fuse.conf";

/// A connection to the kernel, mounted.
pub(crate) struct Connection {
    pub(crate) device: OwnedFd,
    /// Other users may come in, as far as file modes let them.
    pub(crate) is_shared: bool,
}

/// Mounts at `dir`.
pub(crate) fn attach(dir: &Path, source: &str) -> Result<Connection, MountError> {
    let failed = |error: io::Error| MountError::Failed {
        dir: dir.to_owned(),
        error,
    };
    let device = match open_device() {
        // EPERM comes from a container's device rules.
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::PERM) => {
            return Err(MountError::NoFuseDevice);
        }
        // The helper opens it as the user, too.
        Err(Errno::ACCESS) => return Err(MountError::FuseForbidden),
        opened => opened.map_err(|error| failed(error.into()))?,
    };
    match attach_directly(&device, dir, source) {
        Ok(()) => Ok(Connection {
            device,
            is_shared: true,
        }),
        Err(Errno::PERM) => attach_by_helper(dir, source),
        Err(Errno::NODEV) => Err(MountError::NoFuseDevice),
        Err(error) => Err(failed(error.into())),
    }
}

/// Takes the mount at `dir` away, if nobody has a file open in it.
pub(crate) fn detach(dir: &Path) -> io::Result<()> {
    unmount_by(dir, UnmountFlags::NOFOLLOW, &["-u"])
}

/// Takes the mount at `dir` away, whoever uses it. Right only where its server is gone: what a
/// process does by path from then on happens beneath, beside what it does to its open files.
pub(crate) fn detach_dead(dir: &Path) -> io::Result<()> {
    unmount_by(
        dir,
        UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
        &["-u", "-z"],
    )
}

fn unmount_by(dir: &Path, flags: UnmountFlags, options: &[&str]) -> io::Result<()> {
    match unmount(dir, flags) {
        Err(Errno::PERM) => {
            let mut helper = Command::new(HELPER);
            let output = helper
                .args(options)
                .arg("--")
                .arg(dir)
                .stdin(Stdio::null())
                .output()?;
            if output.status.success() {
                Ok(())
            } else {
                Err(io::Error::other(complaint(&output.stderr)))
            }
        }
        result => Ok(result?),
    }
}

fn open_device() -> Result<OwnedFd, Errno> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

fn attach_directly(device: &OwnedFd, dir: &Path, source: &str) -> Result<(), Errno> {
    let options = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,allow_other,subtype={SUBTYPE}\0",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let options =
        std::ffi::CStr::from_bytes_until_nul(options.as_bytes()).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(
        source,
        dir,
        "fuse",
        MountFlags::NODEV | MountFlags::NOSUID,
        options,
    )
}

/// The helper mounts, and passes the connection back through a socket.
fn attach_by_helper(dir: &Path, source: &str) -> Result<Connection, MountError> {
    let failed = |error: io::Error| MountError::Failed {
        dir: dir.to_owned(),
        error,
    };
    let is_shared = helper_shares();
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| failed(error.into()))?;
    // Only this copy survives the helper's exec.
    let inherited = rustix::io::dup(&theirs).map_err(|error| failed(error.into()))?;
    drop(theirs);
    let mut options = format!("nodev,nosuid,default_permissions,fsname={source},subtype={SUBTYPE}");
    if is_shared {
        options.push_str(",allow_other");
    }
    let child = Command::new(HELPER)
        .args(["-o", &options, "--"])
        .arg(dir)
        .env("_FUSE_COMMFD", inherited.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    drop(inherited);
    let child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::NoHelper,
        _ => failed(error),
    })?;
    let device = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(failed)?;
    match device {
        Ok(Some(device)) => Ok(Connection { device, is_shared }),
        Ok(None) => Err(failed(io::Error::other(complaint(&output.stderr)))),
        Err(error) => Err(failed(error)),
    }
}

/// Whether the helper's configuration lets ordinary users share their mounts.
fn helper_shares() -> bool {
    let configuration = std::fs::read_to_string(HELPER_CONF).unwrap_or_default();
    configuration
        .lines()
        .any(|line| line.trim() == "user_allow_other")
}

/// `None` if the other side hung up without sending one.
fn receive_descriptor(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(descriptors.next())
}

fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("it gave no reason");
    format!(
        "{HELPER}: {}",
        line.strip_prefix("fusermount3: ").unwrap_or(line)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helpers_complaint_is_one_line() {
        assert_eq!(complaint(b"\nfusermount3: no\nmore\n"), "fusermount3: no");
        assert_eq!(complaint(b""), "fusermount3: it gave no reason");
    }
}
