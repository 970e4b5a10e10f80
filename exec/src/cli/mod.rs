//! The `openduck` command: what can be said on its command line, and who does it.
//!
//! Each command is a file here. This file parses, takes secrets out of the process's title before
//! anything else happens, finds the home, dispatches, and turns every failure into one line on stderr and
//! an exit status: 1 where something failed, 2 where the command line made no sense.

mod cancel;
mod connect;
mod extension;
mod keys;
mod output;
mod query;
mod rows;
mod serve;
mod status;
mod token;
mod worker;
mod worker_of_gateway;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use layerd::settings;
use layerd::store::{Store, StoreConfig};
use tracing_subscriber::EnvFilter;

use crate::access::title;

const GLOBAL_OPTIONS: &str = "Global options";

/// Serve DuckDB databases to other processes and hosts, and query them from there.
#[derive(Parser)]
#[command(
    name = "openduck",
    version,
    propagate_version = false,
    max_term_width = 100,
    after_help = "Example:\n  openduck serve -d mydb\n  openduck query 'SELECT 42' -d mydb\n  openduck token create --database mydb --read-only --expires 30d"
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
    #[arg(long, global = true, help_heading = GLOBAL_OPTIONS, value_name = "DIR", env = "OPENDUCK_HOME", hide_env_values = true)]
    home: Option<PathBuf>,
    /// The catalog: `sqlite:PATH`, or, shared by hosts, `postgres://USER:PASSWORD@HOST/DATABASE` (a
    /// password is better left to the variable or the home's `openduck.toml`) [default: catalog.db
    /// in the home]
    #[arg(long, global = true, help_heading = GLOBAL_OPTIONS, value_name = "URL", env = "OPENDUCK_META", hide_env_values = true)]
    meta: Option<String>,
    /// The sealed layers: `file:PATH`, `s3://BUCKET/PREFIX` [default: objects in the home]
    #[arg(long, global = true, help_heading = GLOBAL_OPTIONS, value_name = "URL", env = "OPENDUCK_OBJECTS", hide_env_values = true)]
    objects: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Gateway(serve::GatewayCommand),
    Worker(worker::WorkerCommand),
    Query(query::Query),
    Status(status::Status),
    Cancel(cancel::Cancel),
    Token(token::Token),
    Keys(keys::Keys),
    Extension(extension::Extension),
    Completions(Completions),
    #[command(name = crate::gateway::local::COMMAND, hide = true)]
    WorkerOfGateway,
}

/// Print a shell's completion script
#[derive(Args)]
#[command(
    after_help = "Example:\n  openduck completions bash > ~/.local/share/bash-completion/completions/openduck"
)]
struct Completions {
    /// Which shell
    shell: clap_complete::Shell,
}

impl Command {
    /// The secret that the command line, or the environment, brought along.
    fn secret(&self) -> Option<&str> {
        match self {
            Command::Serve(command) => command.token(),
            Command::Gateway(command) => command.token(),
            Command::Query(command) => command.connect.token(),
            Command::Status(command) => command.connect.token(),
            Command::Cancel(command) => command.connect.token(),
            Command::Worker(_)
            | Command::Token(_)
            | Command::Keys(_)
            | Command::Extension(_)
            | Command::Completions(_)
            | Command::WorkerOfGateway => None,
        }
    }
}

/// What every command works with.
struct Context {
    config: StoreConfig,
}

impl Context {
    fn new(global: GlobalOptions) -> Result<Context> {
        let directory = std::env::current_dir()
            .context("cannot tell the current directory; change to one that exists")?;
        let given = settings::Given {
            home: global.home,
            meta: global.meta,
            objects: global.objects,
            // That is for those who mount.
            cache_size: None,
        };
        let config = settings::resolve(given, &directory, |name| {
            std::env::var_os(name).map(PathBuf::from)
        })?;
        Ok(Context { config })
    }

    fn store(&self) -> Result<Arc<Store>> {
        Ok(Store::open(&self.config)?)
    }
}

/// Runs one command line; returns what the process is to exit with.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            return finish(output::print(&error.render()).map_err(Into::into));
        }
        Err(error) => {
            output::complain(&usage_line(&error));
            return ExitCode::from(2);
        }
    };
    // While there is one thread, and before anything takes time.
    if let Some(secret) = cli.command.secret()
        && let Err(error) = title::scrub(secret)
    {
        output::complain(&format!(
            "the token stays visible to other users of this host ({error}); use OPENDUCK_TOKEN"
        ));
    }
    finish(execute(cli))
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

fn execute(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Completions(completions) => return print_completions(&completions),
        Command::WorkerOfGateway => return worker_of_gateway::run(),
        _ => {}
    }
    let context = Context::new(cli.global)?;
    match cli.command {
        Command::Serve(command) => command.run(&context),
        Command::Gateway(command) => command.run(&context),
        Command::Worker(command) => command.run(&context),
        command => {
            log_if_asked();
            match command {
                Command::Query(command) => command.run(&context),
                Command::Status(command) => command.run(&context),
                Command::Cancel(command) => command.run(&context),
                Command::Token(command) => command.run(&context),
                Command::Keys(command) => command.run(&context),
                Command::Extension(command) => command.run(&context),
                _ => Ok(()),
            }
        }
    }
}

fn print_completions(completions: &Completions) -> Result<()> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(completions.shell, &mut command, "openduck", &mut script);
    output::print(&String::from_utf8_lossy(&script)).context("cannot write to stdout")
}

/// What to log, as `OPENDUCK_LOG` or else `RUST_LOG` says.
fn log_filter() -> Option<EnvFilter> {
    ["OPENDUCK_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| EnvFilter::try_from_env(name).ok())
}

/// Commands say what failed in one line; the log is for those who ask for it.
fn log_if_asked() {
    if let Some(filter) = log_filter() {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
    }
}

/// How a server's log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A server logs what an operator should know, on stderr.
fn log_as_server(format: LogFormat) {
    let filter = log_filter().unwrap_or_else(|| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// The runtime of a command.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")
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

/// What was wrong with a command line, in one line, and where to look.
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
    format!("{what}; `openduck help` tells more")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(line: &str) -> Option<String> {
        let words = ["openduck"].into_iter().chain(line.split_whitespace());
        let parsed = Cli::try_parse_from(words);
        parsed.err().map(|error| usage_line(&error))
    }

    #[test]
    fn the_parser_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        let command = Cli::command();
        for command in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            let example = format!("Example:\n  openduck {}", command.get_name());
            assert!(help.contains(&example), "{}: {help:?}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn all_documented_forms_parse() {
        for line in [
            "serve -d mydb",
            "serve -d mydb -t TOKEN --listen 127.0.0.1:7878",
            "serve -d mydb --listen 0.0.0.0:7878 --tls-cert c.pem --tls-key k.pem",
            "gateway --readers 2 --idle 10m",
            "worker -d mydb --announce --reader",
            "gateway --worker mydb=http://127.0.0.1:1 --reader http://127.0.0.1:2",
            "query SQL -d mydb",
            "query - -d mydb --format csv --at lsn:3",
            "status --watch",
            "status --json",
            "cancel 0123456789abcdef",
            "token create --database mydb --read-only --expires 30d",
            "token create",
            "token list",
            "token revoke 0123456789abcdef",
            "completions zsh",
        ] {
            assert_eq!(complaint(line), None, "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_one_line_that_names_it() {
        for (line, names) in [
            ("", "no command"),
            ("frobnicate", "'frobnicate'"),
            ("serve", "--database"),
            ("serve -d a/b", "database name \"a/b\""),
            ("serve -d a --tls-cert c", "--tls-key"),
            ("query", "--database"),
            ("cancel zz", "zz"),
            ("token revoke 1", "token id"),
            ("token create --expires soon", "soon"),
            ("gateway --worker ftp://x", "ftp://x"),
        ] {
            let said = complaint(line).expect(line);
            assert!(said.contains(names), "{line}: {said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }
}
