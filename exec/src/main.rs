//! The `openduck` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    exec::cli::run(std::env::args_os())
}
