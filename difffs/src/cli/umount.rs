//! Ending a mount: unmounted first, so that nothing more can be written, then waited for until
//! its server has flushed, sealed, published and released.
//!
//! The server itself tells over its socket how that went; that its lock is free says that the
//! process is gone. A mount whose server was killed is only detached: what it had acknowledged is
//! recovered by the next mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use rustix::io::Errno;
use serde::Serialize;
use serde_json::{Value, json};

use super::output::{Reply, remark};
use super::unmounting::unmount;
use super::{Context, target};
use crate::control::{self, ControlError, Pending, Request};
use crate::registry::{Departure, MountEntry};
use crate::{mount, mountpoint};

/// The kernel's name for our mounts.
const OUR_KIND: &str = "fuse.openduck";
/// How long a server may take to flush before we say that we wait.
const SHORT_WAIT: Duration = Duration::from_secs(3);
/// How long it may take at all.
const LONG_WAIT: Duration = Duration::from_secs(600);

/// Unmount a database: flush, seal, publish, release
///
/// Returns when all of it is done.
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs umount /mnt/mydb")]
pub(crate) struct Umount {
    /// The mount point
    #[arg(value_parser = target::path)]
    dir: PathBuf,
}

impl Umount {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let dir = mountpoint::absolute(&self.dir)
            .with_context(|| format!("cannot find {}", self.dir.display()))?;
        let shown = target::utf8(&dir)?;
        // A caller that sits in the mount should be named, not this process, which inherited that.
        std::env::set_current_dir("/").context("cannot change to /")?;
        let entry = context.registry().at(&dir)?;
        let row = mountpoint::topmost(&dir)?;
        let is_ours = row.as_ref().is_some_and(|row| row.kind == OUR_KIND);
        match (row, entry) {
            (Some(_), Some(entry)) if is_ours => end(&entry, || unmount(&dir)),
            (Some(_), None) if is_ours && is_dead(&dir) => clear_dead(&dir),
            (Some(_), None) if is_ours => end_unknown(context, &dir),
            // Mounted in another mount namespace: only the server can reach it.
            (_, Some(entry)) => end(&entry, || {
                Ok(control::request(&entry, Request::End).map(drop)?)
            }),
            (Some(row), None) => bail!("{shown} is a mount of {}, not one of OpenDuck's", row.kind),
            (None, None) => {
                bail!("nothing is mounted at {shown}; `openduck-fs status` shows what is")
            }
        }
    }
}

/// Whether the mount at `path` is there and its server is not.
pub(crate) fn is_dead(path: &Path) -> bool {
    matches!(
        rustix::fs::statfs(path),
        Err(Errno::NOTCONN | Errno::CONNABORTED)
    )
}

fn clear_dead(dir: &Path) -> Result<Reply> {
    mount::detach(dir).with_context(|| format!("cannot unmount {}", dir.display()))?;
    let shown = dir.display();
    Ok(Reply::new(
        json!({ "dir": dir, "clean": false }),
        format!(
            "cleared {shown}, whose server is gone; mounting the database again recovers every acknowledged commit"
        ),
    ))
}

/// Ends a mount that this home does not know of: one of another home, or a read-only one of a home
/// that can't be written. Only where there is nothing to flush, because nobody can be waited for.
fn end_unknown(context: &Context, dir: &Path) -> Result<Reply> {
    let shown = dir.display();
    let status = fs::read(dir.join(".openduck/status"))
        .with_context(|| format!("{shown} does not tell its status"))?;
    let status: Value =
        serde_json::from_slice(&status).with_context(|| format!("the status of {shown}"))?;
    if status["mode"] != "ro" {
        bail!(
            "{shown} is served from another home than {}; name that home with --home and unmount again",
            context.config.home.display()
        );
    }
    unmount(dir)?;
    Ok(ended(
        dir,
        &status["database"],
        &status["pid"],
        format!("unmounted {shown}"),
    ))
}

fn ended(dir: &Path, database: impl Serialize, pid: impl Serialize, text: String) -> Reply {
    let document = json!({ "dir": dir, "database": database, "pid": pid, "clean": true });
    Reply::new(document, text)
}

/// Ends a living mount by `unmount`, and waits for its server.
fn end(entry: &MountEntry, unmount: impl FnOnce() -> Result<()>) -> Result<Reply> {
    // Both before the end begins: afterwards there may be nobody left to ask.
    let departure = Departure::of(entry)?;
    let mut outcome = control::watch(entry);
    unmount()?;
    let started = Instant::now();
    match &mut outcome {
        Ok(pending) => wait_for(entry, pending)?,
        Err(ControlError::Gone { .. }) => {}
        Err(error) => remark(error),
    }
    if !departure.wait(LONG_WAIT.saturating_sub(started.elapsed()))? {
        return Err(too_long(entry));
    }
    let (database, dir) = (&entry.database, entry.dir.display());
    let text = match entry.mode.as_str() {
        "rw" => {
            format!("unmounted {dir}; {database} is flushed, sealed and free for the next writer")
        }
        _ => format!("unmounted {dir}"),
    };
    Ok(ended(&entry.dir, database, entry.pid, text))
}

fn wait_for(entry: &MountEntry, pending: &mut Pending) -> Result<()> {
    let dir = entry.dir.display();
    let mut answer = pending.answer(SHORT_WAIT);
    if let Err(ControlError::Silent { .. }) = answer {
        remark(&format_args!(
            "{dir} is unmounted; waiting for process {} to flush and seal {}",
            entry.pid, entry.database
        ));
        answer = pending.answer(LONG_WAIT);
    }
    match answer {
        Ok(_) => Ok(()),
        Err(ControlError::Silent { .. }) => Err(too_long(entry)),
        Err(ControlError::Refused { why, .. }) => Err(anyhow!(
            "{dir} is unmounted, but {} could not be closed: {why}; what was acknowledged is kept, the next mount recovers it",
            entry.database
        )),
        Err(ControlError::Gone { .. }) => Err(anyhow!(
            "{dir} is unmounted, but its server died before it had closed {}; what was acknowledged is kept, the next mount recovers it",
            entry.database
        )),
        Err(error @ ControlError::Io { .. }) => Err(error.into()),
    }
}

fn too_long(entry: &MountEntry) -> anyhow::Error {
    anyhow!(
        "{} is unmounted, but process {} is still not done with {} after {} min; look into its log in the home, it goes on",
        entry.dir.display(),
        entry.pid,
        entry.database,
        LONG_WAIT.as_secs() / 60
    )
}
