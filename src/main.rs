//! `goat`: see `goat help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(goat::cli::main(std::env::args_os().skip(1)))
}
