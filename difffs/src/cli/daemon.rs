//! Being the server in the background: a process that was started for just that.
//!
//! Nothing of the caller's stays open: not its session, its directory, its descriptors, nor its
//! output. What this process has to say goes to a log file in the home, a panic's message too.
//! The caller hears one line, a [`Readiness`], over the pipe that it gave as stdout; after that
//! the pipe is closed, and the caller may go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::serve::{Job, Live, cannot_be_written, serve, start_log};
use super::target::Target;
use super::{Context, with_causes};

/// A log is kept for so long after the last line in it.
const LOG_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a server tells its caller, once.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Readiness {
    /// The file can be opened.
    Live(Live),
    /// It can't, and why.
    Failed(String),
}

/// Serves in the background, with the caller's pipe as stdout.
pub(crate) fn run(context: &Context, job: &Job) -> Result<()> {
    let mut told = false;
    let result = leave_caller().and_then(|()| {
        let path = log_path(&context.config.home, &job.target, std::process::id());
        match log_to(&path) {
            Err(error) if !job.is_live() && cannot_be_written(&error) => {}
            logged => logged.with_context(|| format!("cannot log to {}", path.display()))?,
        }
        serve(context, job, |live| {
            told = true;
            // A caller that went away meanwhile did not want the mount any more.
            tell(&Readiness::Live(live.clone())).context("the caller went away")?;
            forget_stdout().context("cannot let go of the caller's pipe")
        })
    });
    if let Err(error) = &result {
        let why = with_causes(error);
        tracing::error!("{why}");
        if !told {
            let _ = tell(&Readiness::Failed(why));
        }
    }
    result
}

/// Where the server with this pid logs.
pub(crate) fn log_path(home: &Path, target: &Target, pid: u32) -> PathBuf {
    home.join("log")
        .join(format!("mount-{}-{pid}.log", target.database()))
}

/// Closes every descriptor that the caller handed down, but for the three that it chose for us: a file
/// that it has open in some other mount would keep that one from being ended as long as ours is there.
/// To be called at the beginning of a process, before it opens anything.
pub(crate) fn close_inherited() -> Result<()> {
    // SAFETY: this is the beginning of a process that is going to be the server: it has one thread
    // and has opened nothing yet, so no value here owns any of these descriptors.
    let closed = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    if closed != 0 {
        return Err(io::Error::last_os_error())
            .context("cannot close the descriptors of the caller");
    }
    Ok(())
}

/// Lets go of the session, the directory and the descriptors of the caller.
fn leave_caller() -> Result<()> {
    close_inherited()?;
    rustix::process::setsid().context("cannot begin a session")?;
    std::env::set_current_dir("/").context("cannot change to /")
}

fn log_to(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
        remove_old_logs(directory)?;
    }
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    rustix::stdio::dup2_stderr(&file)?;
    start_log();
    Ok(())
}

/// Removes logs that nothing was written to for [`LOG_AGE_MAX`] and whose server is gone.
fn remove_old_logs(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix("mount-")?.strip_suffix(".log"))
            .and_then(|middle| middle.rsplit_once('-')?.1.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        let is_old = |modified: SystemTime| {
            modified
                .elapsed()
                .is_ok_and(|elapsed| elapsed > LOG_AGE_MAX)
        };
        if !Path::new("/proc").join(pid.to_string()).exists()
            && entry.metadata()?.modified().is_ok_and(is_old)
        {
            // Another server that starts may be faster.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn tell(readiness: &Readiness) -> io::Result<()> {
    let mut line = serde_json::to_vec(readiness)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

fn forget_stdout() -> io::Result<()> {
    let nowhere = File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(&nowhere)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_logs_of_servers_that_are_gone_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - LOG_AGE_MAX - Duration::from_secs(60);
        // The largest process id of any Linux is 4,194,304.
        let names = [
            ("mount-db-4194305.log", old),
            ("mount-db-4194306.log", SystemTime::now()),
            (&*format!("mount-db-{}.log", std::process::id()), old),
            ("notes.log", old),
        ];
        for (name, modified) in names {
            let file = File::create(home.path().join(name)).unwrap();
            file.set_modified(modified).unwrap();
        }
        remove_old_logs(home.path()).unwrap();
        assert!(!home.path().join(names[0].0).exists());
        for (name, _) in &names[1..] {
            assert!(home.path().join(name).exists(), "{name}");
        }
    }
}
