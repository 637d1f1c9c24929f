//! The command `flowrun`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
