//! The `openduck-fs` command: what can be said on its command line, and who does it.
//!
//! Each command is a file here: its arguments, its call into the library, and how the outcome is
//! told. This file parses, finds the home, dispatches, and turns every failure into one line on
//! stderr and an exit status: 1 where something failed, 2 where the command line made no sense.

mod care;
mod daemon;
mod databases;
mod diff;
mod format;
mod history;
mod maintain;
mod mount;
mod output;
mod progress;
mod serve;
mod show;
mod snapshots;
mod status;
mod target;
mod transfer;
mod umount;
mod unmounting;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};
use layerd::settings;
use layerd::store::{Store, StoreConfig};
use tracing_subscriber::EnvFilter;

use crate::registry::Registry;
use output::{Output, Reply};

const GLOBAL_OPTIONS: &str = "Global options";

/// Snapshots, clones and time travel for DuckDB files, through a mount that any DuckDB opens.
#[derive(Parser)]
#[command(
    name = "openduck-fs",
    version,
    propagate_version = false,
    max_term_width = 100,
    after_help = "Example:\n  openduck-fs mount mydb /mnt/mydb\n  duckdb /mnt/mydb/mydb.duckdb\n  openduck-fs snapshot mydb nightly\n\n\
                  DB@REF names one state of a database: REF is `latest`, a snapshot's name or id, lsn:<n>,\n\
                  or a time (RFC 3339, or YYYY-MM-DD HH:MM[:SS] in local time)."
)]
struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct GlobalOptions {
    /// Where layers, catalog and logs live [default: the XDG data directory's `openduck`]
    #[arg(long, global = true, help_heading = GLOBAL_OPTIONS, value_name = "DIR", env = "OPENDUCK_HOME", hide_env_values = true, value_parser = target::any_path)]
    home: Option<PathBuf>,
    /// The catalog: `sqlite:PATH`, or, shared by hosts, `postgres://USER:PASSWORD@HOST/DATABASE` (a
    /// password is better left to the variable or the home's `openduck.toml`) [default: catalog.db
    /// in the home]
    #[arg(
        long,
        global = true, help_heading = GLOBAL_OPTIONS,
        value_name = "URL",
        env = "OPENDUCK_META",
        hide_env_values = true
    )]
    meta: Option<String>,
    /// The sealed layers: `file:PATH` [default: objects in the home]
    #[arg(
        long,
        global = true, help_heading = GLOBAL_OPTIONS,
        value_name = "URL",
        env = "OPENDUCK_OBJECTS",
        hide_env_values = true
    )]
    objects: Option<String>,
    /// How much of the disk may be taken for what was fetched from a remote store, and as much again
    /// for copies of what was written here: `20GiB`, `1.5TB`. Say the same to all commands of a home,
    /// best in its `openduck.toml` [default: 20GiB]
    #[arg(
        long,
        global = true, help_heading = GLOBAL_OPTIONS,
        value_name = "SIZE",
        env = "OPENDUCK_CACHE_SIZE",
        hide_env_values = true
    )]
    cache_size: Option<String>,
    /// Print one JSON document instead of text
    #[arg(long, global = true, help_heading = GLOBAL_OPTIONS)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    Mount(mount::Mount),
    Umount(umount::Umount),
    Create(databases::Create),
    List(databases::List),
    Show(show::Show),
    Status(status::Status),
    Snapshot(snapshots::Snapshot),
    Unsnapshot(snapshots::Unsnapshot),
    Log(snapshots::Log),
    Clone(history::CloneDatabase),
    Restore(history::Restore),
    Remove(databases::Remove),
    Undrop(databases::Undrop),
    Import(transfer::Import),
    Export(transfer::Export),
    Copy(transfer::Copy),
    Diff(diff::Diff),
    Verify(care::Verify),
    Compact(care::Compact),
    Gc(care::Gc),
    Retention(databases::Retention),
    Daemon(maintain::Daemon),
    Completions(Completions),
}

/// Print a shell's completion script
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck-fs completions bash > ~/.local/share/bash-completion/completions/openduck-fs"
)]
struct Completions {
    /// Which shell
    shell: clap_complete::Shell,
}

/// What every command works with.
struct Context {
    config: StoreConfig,
    output: Output,
}

impl Context {
    fn new(global: GlobalOptions) -> Result<Context> {
        let directory = std::env::current_dir()
            .context("cannot tell the current directory; change to one that exists")?;
        let given = settings::Given {
            home: global.home,
            meta: global.meta,
            objects: global.objects,
            cache_size: global.cache_size,
        };
        let config = settings::resolve(given, &directory, |name| {
            std::env::var_os(name).map(PathBuf::from)
        })?;
        Ok(Context {
            config,
            output: Output::to_stdout(global.json),
        })
    }

    fn store(&self) -> Result<Arc<Store>> {
        Ok(Store::open(&self.config)?)
    }

    /// Another catalog and store, seen from this home.
    fn other_store(&self, meta: String, objects: String) -> Result<Arc<Store>> {
        let directory = std::env::current_dir()
            .context("cannot tell the current directory; change to one that exists")?;
        Ok(Store::open(&StoreConfig {
            // What is kept here of one store must not be taken for the other's.
            home: self.config.home.join("copy"),
            meta: Some(settings::absolute(&meta, &directory)),
            objects: Some(settings::absolute(&objects, &directory)),
            cache: self.config.cache,
        })?)
    }

    fn registry(&self) -> Registry {
        Registry::of_home(&self.config.home)
    }
}

/// Runs one command line; returns what the process is to exit with.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            return finish(output::print_line(&error.render()).map_err(Into::into));
        }
        Err(error) => {
            output::complain(&usage_line(&error));
            return ExitCode::from(2);
        }
    };
    finish(execute(cli))
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse_from(arguments)?;
    if let Command::Mount(mount) = &cli.command
        && let Some(contradiction) = mount.contradiction()
    {
        return Err(Cli::command().error(ErrorKind::ArgumentConflict, contradiction));
    }
    Ok(cli)
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and what caused it, each told once: many errors end with their cause's own words.
fn with_causes(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line
}

fn execute(cli: Cli) -> Result<()> {
    if let Command::Completions(completions) = &cli.command {
        return print_completions(completions);
    }
    let context = Context::new(cli.global)?;
    let reply = match cli.command {
        // It tells its own story, while it goes on serving.
        Command::Mount(command) => return command.run(&context),
        Command::Daemon(command) => return command.run(&context),
        command => {
            log_to_stderr_if_asked();
            reply_to(command, &context)?
        }
    };
    context
        .output
        .print(&reply)
        .context("cannot write to stdout")?;
    match reply.failure() {
        None => Ok(()),
        Some(why) => Err(anyhow!("{why}")),
    }
}

fn reply_to(command: Command, context: &Context) -> Result<Reply> {
    match command {
        Command::Umount(command) => command.run(context),
        Command::Create(command) => command.run(context),
        Command::List(command) => command.run(context),
        Command::Show(command) => command.run(context),
        Command::Status(command) => command.run(context),
        Command::Snapshot(command) => command.run(context),
        Command::Unsnapshot(command) => command.run(context),
        Command::Log(command) => command.run(context),
        Command::Clone(command) => command.run(context),
        Command::Restore(command) => command.run(context),
        Command::Remove(command) => command.run(context),
        Command::Undrop(command) => command.run(context),
        Command::Import(command) => command.run(context),
        Command::Export(command) => command.run(context),
        Command::Copy(command) => command.run(context),
        Command::Diff(command) => command.run(context),
        Command::Verify(command) => command.run(context),
        Command::Compact(command) => command.run(context),
        Command::Gc(command) => command.run(context),
        Command::Retention(command) => command.run(context),
        Command::Mount(_) | Command::Daemon(_) | Command::Completions(_) => {
            unreachable!("these print for themselves")
        }
    }
}

fn print_completions(completions: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        completions.shell,
        &mut Cli::command(),
        "openduck-fs",
        &mut script,
    );
    let script = String::from_utf8_lossy(&script);
    output::print_line(&script.trim_end()).context("cannot write to stdout")
}

/// What to log, as `OPENDUCK_LOG` or else `RUST_LOG` says.
fn log_filter() -> Option<EnvFilter> {
    ["OPENDUCK_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| EnvFilter::try_from_env(name).ok())
}

/// Commands say what failed in one line; the engine's own log is for those who ask for it.
fn log_to_stderr_if_asked() {
    if let Some(filter) = log_filter() {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
    }
}

/// What was wrong with a command line, in one line: the parser's first paragraph, or the value's
/// own complaint where a value was refused, and where to look.
fn usage_line(error: &clap::Error) -> String {
    const LINE_CHARS_MAX: usize = 300;
    let refused =
        std::error::Error::source(error).filter(|_| error.kind() == ErrorKind::ValueValidation);
    let what = match refused {
        Some(source) => source.to_string(),
        None if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "no command was given".to_owned()
        }
        None => {
            let text = error.render().to_string();
            let paragraph = text.split("\n\n").next().unwrap_or_default();
            let words: Vec<&str> = paragraph.split_whitespace().collect();
            let line = words.join(" ");
            // The parser repeats what it was given, however long that is.
            line.trim_start_matches("error: ")
                .chars()
                .take(LINE_CHARS_MAX)
                .collect()
        }
    };
    let suggestion = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(names)) => {
            Some(format!("; did you mean `{}`?", names.join("` or `")))
        }
        _ => None,
    };
    let help = suggestion.unwrap_or_else(|| "; `openduck-fs help` tells more".to_owned());
    format!("{what}{help}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Cli, clap::Error> {
        parse(
            ["openduck-fs"]
                .into_iter()
                .chain(line.split_whitespace())
                .map(OsString::from),
        )
    }

    fn complaint(line: &str) -> String {
        parse_line(line)
            .err()
            .map_or("accepted".to_owned(), |error| usage_line(&error))
    }

    #[test]
    fn the_parser_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let example = format!("Example:\n  openduck-fs {}", command.get_name());
            assert!(help.contains(&example), "{}: {help:?}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn all_documented_forms_parse() {
        for line in [
            "mount mydb /mnt/mydb",
            "mount mydb@nightly /mnt/r --foreground",
            "mount mydb --follow /mnt/r --json",
            "mount mydb@latest /mnt/r --follow",
            "--home /h --meta sqlite:/m --objects file:/o mount mydb /mnt --steal",
            "umount /mnt/mydb",
            "create mydb",
            "list",
            "show mydb@lsn:3",
            "status --home /h",
            "snapshot mydb",
            "snapshot mydb nightly",
            "unsnapshot mydb nightly",
            "unsnapshot mydb snap-00000000000000ff",
            "log mydb --commits",
            "clone mydb new",
            "clone mydb@2026-01-31T12:00:00Z new",
            "restore mydb@nightly",
            "remove mydb",
            "undrop mydb",
            "import /tmp/x.duckdb mydb",
            "export mydb@nightly /tmp/x.duckdb",
            "diff mydb@a mydb@b",
            "verify",
            "verify mydb --deep",
            "compact mydb",
            "gc --dry-run --grace 0s",
            "retention mydb 7d",
            "retention mydb 0",
            "completions zsh",
        ] {
            assert!(parse_line(line).is_ok(), "{line}: {}", complaint(line));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_one_line_that_names_it() {
        for (line, names) in [
            ("", "no command"),
            ("frobnicate", "'frobnicate'"),
            ("snapshots mydb", "did you mean `"),
            ("create", "<DB>"),
            ("create a/b", "database name \"a/b\""),
            ("create ../x", "database name"),
            ("snapshot mydb latest", "snapshot name \"latest\""),
            ("restore mydb", "DB@REF"),
            ("clone mydb@lsn:x new", "\"lsn:x\""),
            ("unsnapshot mydb lsn:3", "snapshot"),
            ("retention mydb soon", "\"soon\""),
            ("gc --grace -1s", "\"-1s\" is negative"),
            ("mount mydb@a /mnt --follow", "--follow"),
            ("mount mydb@a /mnt --steal", "--steal"),
            ("completions tcsh", "'tcsh'"),
        ] {
            let line_said = complaint(line);
            assert!(line_said.contains(names), "{line}: {line_said}");
            assert!(!line_said.contains('\n'), "{line_said}");
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("disk on fire");
        let wrapped = layerd::store::StoreError::Io {
            what: "cannot write".to_owned(),
            source: cause,
        };
        let error = anyhow::Error::from(wrapped).context("import of x");
        assert_eq!(
            with_causes(&error),
            "import of x: cannot write: disk on fire"
        );
    }

    #[test]
    fn long_and_hostile_values_do_not_flood_the_terminal() {
        let name = format!("{}\u{1b}[2J", "x".repeat(3_000));
        for arguments in [
            vec!["openduck-fs", "create", &name],
            vec!["openduck-fs", &name],
        ] {
            let error = Cli::try_parse_from(arguments).err().expect("refused");
            assert!(usage_line(&error).chars().count() < 400);
        }
    }
}
