//! What flowrun tells other programs about itself: the schema of its files for editors, completions for shells, manual pages.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap_mangen::Man;

use super::{definition, print, refuse};
use crate::{Flowrun, file_schema};

pub(super) fn schema() -> ExitCode {
    let schema = file_schema(Flowrun::builder().build().kinds().specs());
    print(&format!("{schema:#}\n"))
}

pub(super) fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut definition(), "flowrun", &mut text);
    print(&String::from_utf8_lossy(&text))
}

pub(super) fn man(folder: Option<&Path>) -> ExitCode {
    let command = definition().disable_help_subcommand(true);
    let Some(folder) = folder else {
        let mut page = Vec::new();
        return match Man::new(command).render(&mut page) {
            Ok(()) => print(&String::from_utf8_lossy(&page)),
            Err(error) => refuse(&format!("the manual page cannot be made: {error}")),
        };
    };
    match fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&format!("the manual pages cannot be written to `{}`: {error}", folder.display())),
    }
}
