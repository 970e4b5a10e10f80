//! `mount`: the caller's side. Checks the mount point, starts the server, and returns when the
//! file can be opened.
//!
//! The server is this same program, started anew, so that it has one thread and nothing of the
//! caller's when it begins; what it needs stands on its command line, with all paths absolute. It
//! tells in one line on its stdout how it went: see [`super::daemon`].

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, ValueEnum};
use layerd::reference::Ref;
use layerd::writer::{self, WriterOptions};

use super::Context;
use super::daemon::{self, Readiness};
use super::format;
use super::output::remark;
use super::serve::{self, Job, Live};
use super::target::{self, Target};
use super::umount::is_dead;
use crate::mountpoint;

/// The hidden flag that makes `mount` the server in the background.
const SERVER_FLAG: &str = "serve-in-background";

/// Mount a database, or one state of it
///
/// DB alone is the live database, for one writer at a time, made if it is new; DB@REF is one state
/// of it, read-only and for any number of readers; --follow gives the newest commit, read-only, to
/// whoever opens next. Returns when the file can be opened; a process in the background serves it
/// until `umount`.
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck-fs mount mydb /mnt/mydb\n  openduck-fs mount mydb@nightly /mnt/nightly\n  openduck-fs mount mydb --follow /mnt/newest"
)]
pub(crate) struct Mount {
    /// What to mount
    #[arg(value_name = "DB[@REF]", value_parser = Target::parse)]
    target: Target,
    /// Where: an empty directory
    #[arg(value_parser = target::path)]
    dir: PathBuf,
    /// Read-only, and always the newest commit
    #[arg(long, conflicts_with = "steal")]
    follow: bool,
    /// Serve in this process, until SIGTERM, SIGINT or `umount`; log to stderr
    #[arg(long)]
    foreground: bool,
    /// Ask a writer that has the database open to hand it over
    #[arg(long)]
    steal: bool,
    /// What fsync promises: `local`, that the commit is on this host's disk, and in a remote store
    /// within the lag; `remote`, that it is in the store
    #[arg(long, value_enum, default_value_t = Durability::Local)]
    durability: Durability,
    /// How long after a commit it is in a remote store, while that keeps up
    #[arg(long, value_name = "DURATION", value_parser = format::parse_duration, default_value = "1s")]
    lag: Duration,
    /// Fetch everything from a remote store in the background, so that reads become local
    #[arg(long)]
    prefetch: bool,
    /// Serve metrics for Prometheus at http://ADDR/metrics; a port alone is on 127.0.0.1
    #[arg(long, value_name = "ADDR", value_parser = target::listen_address)]
    metrics: Option<SocketAddr>,
    #[arg(long = SERVER_FLAG, hide = true, conflicts_with = "foreground")]
    serve_in_background: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    Local,
    Remote,
}

impl Mount {
    /// What the parser can't see: which flags go with which kind of target.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let target = self.target.text();
        match self.target.reference() {
            None => None,
            Some(_) if self.steal => Some(format!(
                "--steal is for the live database; {target} is read-only and needs no lease"
            )),
            Some(Ref::Latest) => None,
            Some(_) if self.follow => Some(format!(
                "--follow means the newest commit; {target} is a fixed state, leave out one of the two"
            )),
            Some(_) => None,
        }
    }

    pub(crate) fn run(self, context: &Context) -> Result<()> {
        let mut job = Job {
            target: self.target,
            dir: self.dir,
            follow: self.follow,
            prefetch: self.prefetch,
            metrics: self.metrics,
            writer: WriterOptions {
                steal: self.steal,
                durability: match self.durability {
                    Durability::Local => writer::Durability::Local,
                    Durability::Remote => writer::Durability::Remote,
                },
                lag: self.lag,
            },
        };
        if self.serve_in_background {
            return daemon::run(context, &job);
        }
        if self.foreground {
            daemon::close_inherited()?;
        }
        job.dir = make_ready(&job.dir)?;
        if self.foreground {
            return serve::attached(context, &job);
        }
        let live = start_server(context, &job)?;
        context
            .output
            .print(&live.reply())
            .context("cannot write to stdout")
    }
}

/// The mount point's absolute path, when a database can be mounted there. The server looks again,
/// but a database that is new should not be made for nothing.
fn make_ready(dir: &Path) -> Result<PathBuf> {
    let was_dead = is_dead(dir);
    let dir = mountpoint::prepare(dir)?;
    let shown = target::utf8(&dir)?;
    if was_dead {
        remark(&format_args!(
            "cleared {shown}, where a mount was left whose server is gone"
        ));
    }
    Ok(dir)
}

/// Starts the server in the background and waits until it is live, or has said why not.
fn start_server(context: &Context, job: &Job) -> Result<Live> {
    let mut server = server_command(context, job)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the server process")?;
    let mut line = String::new();
    if let Some(stdout) = server.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("cannot hear from the server process")?;
    }
    match serde_json::from_str(&line) {
        Ok(Readiness::Live(live)) => Ok(live),
        Ok(Readiness::Failed(why)) => Err(anyhow!("{why}")),
        Err(_) => Err(died(context, job, &mut server)),
    }
}

fn server_command(context: &Context, job: &Job) -> Result<Command> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let config = &context.config;
    let mut command = Command::new(program);
    command.arg0("openduck-fs").arg("--home").arg(&config.home);
    command.arg(format!("--cache-size={}", config.cache.bytes_max));
    // Not on the command line, which everybody on this host can read: a URL may hold a password.
    for (variable, url) in [
        ("OPENDUCK_META", &config.meta),
        ("OPENDUCK_OBJECTS", &config.objects),
    ] {
        match url {
            Some(url) => command.env(variable, url),
            None => command.env_remove(variable),
        };
    }
    command.arg("mount").arg(format!("--{SERVER_FLAG}"));
    let is_remote = job.writer.durability == writer::Durability::Remote;
    command.args(is_remote.then_some("--durability=remote"));
    if let Some(address) = job.metrics {
        command.arg(format!("--metrics={address}"));
    }
    command.arg(format!("--lag={}ms", job.writer.lag.as_millis()));
    for (flag, wanted) in [
        ("--follow", job.follow),
        ("--steal", job.writer.steal),
        ("--prefetch", job.prefetch),
    ] {
        if wanted {
            command.arg(flag);
        }
    }
    command.arg("--").arg(job.target.text()).arg(&job.dir);
    Ok(command)
}

fn died(context: &Context, job: &Job, server: &mut Child) -> anyhow::Error {
    let how = match server.wait() {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let log = daemon::log_path(&context.config.home, &job.target, server.id());
    anyhow!(
        "the server of {} ended before the mount was live ({how}); its log is {}",
        job.target.text(),
        log.display()
    )
}

#[cfg(test)]
mod tests {
    use layerd::store::StoreConfig;

    use super::*;
    use crate::cli::output::Output;

    #[test]
    fn the_catalogs_password_is_in_no_command_line() {
        let context = Context {
            config: StoreConfig {
                meta: Some("postgres://me:s3cret@host/db".into()),
                objects: Some("file:/objects".into()),
                ..StoreConfig::of_home("/home")
            },
            output: Output::to_stdout(false),
        };
        let job = Job {
            target: Target::parse("mydb").unwrap(),
            dir: "/mnt".into(),
            follow: false,
            writer: WriterOptions::default(),
            prefetch: false,
            metrics: None,
        };
        let command = server_command(&context, &job).unwrap();
        let arguments: Vec<_> = command.get_args().collect();
        assert!(
            !format!("{arguments:?}").contains("s3cret"),
            "{arguments:?}"
        );
        let variables: Vec<_> = command.get_envs().collect();
        assert!(format!("{variables:?}").contains("s3cret"), "{variables:?}");
    }
}
