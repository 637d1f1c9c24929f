//! What flowrun tells other programs about itself: the schema of its files for editors, completions for shells.

use std::process::ExitCode;

use clap::CommandFactory;

use super::{Cli, print};
use crate::{Flowrun, file_schema};

pub(super) fn schema() -> ExitCode {
    let schema = file_schema(Flowrun::builder().build().kinds().specs());
    print(&format!("{schema:#}\n"))
}

pub(super) fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "flowrun", &mut text);
    print(&String::from_utf8_lossy(&text))
}
