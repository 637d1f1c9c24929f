//! `flowrun list` and `flowrun show`: the workflows that come along.

use std::process::ExitCode;

use super::{print, refuse};
use crate::{Flowrun, WORKFLOWS, library};

pub(super) fn list() -> ExitCode {
    let flowrun = Flowrun::builder().build();
    let mut text = String::new();
    for (name, _) in WORKFLOWS {
        match flowrun.load(format!("@{name}")) {
            Ok(workflow) => {
                let description = workflow.definition.description.clone().unwrap_or_default();
                text.push_str(&format!("{:<20} {description}\n", format!("@{name}")));
            }
            Err(problem) => return refuse(&format!("BUG: `@{name}` does not load: {problem}")),
        }
    }
    print(&text)
}

pub(super) fn show(name: &str) -> ExitCode {
    match library::embedded(name.trim_start_matches('@')) {
        Ok(text) => print(text),
        Err(problem) => refuse(&problem),
    }
}
