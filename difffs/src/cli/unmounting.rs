//! Taking a mount away without force, and finding out who is in the way.
//!
//! Nothing here asks the filesystem itself: its server may be stopped. Who uses it is read from
//! the other processes' links in `/proc`, as far as this user may look.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::format::count;

/// Takes the mount at `path` away, unless somebody uses it. Ordinary users go through fusermount3,
/// as they did to mount.
pub(crate) fn unmount(path: &Path) -> Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(busy(path)),
        Err(Errno::PERM) => unmount_as_user(path),
        Err(error) => Err(anyhow!(
            "cannot unmount {}: {}",
            path.display(),
            io::Error::from(error)
        )),
    }
}

fn unmount_as_user(path: &Path) -> Result<()> {
    let shown = path.display();
    let ran = Command::new("fusermount3")
        .args(["-u", "--"])
        .arg(path)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .with_context(|| {
            format!("cannot unmount {shown}: fusermount3 (Debian package fuse3) does not run")
        })?;
    let said = String::from_utf8_lossy(&ran.stderr);
    match ran.status.success() {
        true => Ok(()),
        false if said.contains("busy") => Err(busy(path)),
        false => Err(anyhow!("cannot unmount {shown}: {}", said.trim())),
    }
}

fn busy(path: &Path) -> anyhow::Error {
    let shown = path.display();
    let holders = holders(path);
    let (named, more) = holders.split_at(holders.len().min(3));
    let who = match (named, more.len() as u64) {
        ([], _) => "a process has a file or its current directory there".to_owned(),
        (named, 0) => format!("in use by {}", named.join(", ")),
        (named, more) => format!(
            "in use by {} and {}",
            named.join(", "),
            count(more, "other")
        ),
    };
    anyhow!("{shown} is busy: {who}; close that, then unmount again")
}

/// The processes, as far as we may look, that have a file or a directory below `path` open.
fn holders(path: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut holders: Vec<(u32, String)> = processes
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let process = entry.path();
            let descriptors = fs::read_dir(process.join("fd"))
                .into_iter()
                .flatten()
                .flatten();
            let links = descriptors
                .map(|fd| fd.path())
                .chain([process.join("cwd"), process.join("root")]);
            let holds = links
                .filter_map(|link| fs::read_link(link).ok())
                .any(|target| target.starts_with(path));
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            holds.then(|| (pid, format!("process {pid} ({})", name.trim())))
        })
        .collect();
    holders.sort_unstable();
    holders.into_iter().map(|(_, who)| who).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_sits_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let _open = fs::File::create(root.join("file")).unwrap();
        let me = format!("process {} ", std::process::id());
        assert!(
            holders(&root).iter().any(|who| who.starts_with(&me)),
            "{:?}",
            holders(&root)
        );
        assert!(
            busy(&root)
                .to_string()
                .contains("is busy: in use by process")
        );
    }
}
