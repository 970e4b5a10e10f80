//! The `openduck-fs` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    difffs::cli::run(std::env::args_os())
}
