//! The `flowrun` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    flowrun::cli::main()
}
