//! `flowrun check`: are these workflows sound? Also how every other command loads one.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueEnum;
use flowrun_engine::check::Library;
use flowrun_engine::diagnostic::Diagnostic;
use flowrun_engine::graph::Workflow;
use flowrun_engine::source::Source;

use super::{InputArgs, REFUSED, cost, print, refuse, say};
use crate::library::Files;
use crate::trace::counted;
use crate::{Flowrun, LoadError, library, report};

/// How problems are shown.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Name and text of a workflow: a file, `-`, or `@NAME`.
fn read(reference: &str) -> Result<(String, String), String> {
    if let Some(name) = reference.strip_prefix('@') {
        return Ok((reference.to_owned(), library::embedded(name)?.to_owned()));
    }
    if reference != "-" {
        return Ok((reference.to_owned(), library::read_file(Path::new(reference))?));
    }
    let mut text = String::new();
    let most = Source::BYTES_MAX as u64 + 1;
    let read = std::io::stdin().lock().take(most).read_to_string(&mut text);
    read.map(|_| ("<stdin>".to_owned(), text)).map_err(|error| format!("standard input cannot be read: {error}"))
}

/// Loads a workflow; problems are shown on standard error, warnings only if it is not to be quiet.
pub(super) fn load(flowrun: &Flowrun, reference: &str, quiet: bool) -> Result<Arc<Workflow>, ExitCode> {
    let (name, text) = read(reference).map_err(|problem| refuse(&problem))?;
    load_text(flowrun, &name, &text, &Files, quiet)
}

/// The same for a text that is at hand.
pub(super) fn load_text(
    flowrun: &Flowrun,
    name: &str,
    text: &str,
    library: &dyn Library,
    quiet: bool,
) -> Result<Arc<Workflow>, ExitCode> {
    match flowrun.check_text_with(name, text, library) {
        Ok((checked, source)) => {
            if !quiet {
                show(&checked.warnings, Some(&source));
            }
            Ok(checked.workflow)
        }
        Err(LoadError::Unreadable { reason, .. }) => Err(refuse(&reason)),
        Err(LoadError::Refused { diagnostics, file: source }) => {
            show(&diagnostics, source.as_deref());
            Err(ExitCode::from(REFUSED))
        }
    }
}

/// A problem as one line of JSON.
fn json_line(problem: &Diagnostic) -> String {
    serde_json::to_string(problem).expect("BUG: a diagnostic is texts and numbers")
}

fn show(diagnostics: &[Diagnostic], source: Option<&Source>) {
    if !diagnostics.is_empty() {
        let sources: Vec<&Source> = source.into_iter().collect();
        let styled = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
        say(report::render(diagnostics, &sources, styled).trim_end());
    }
}

pub(super) fn check(files: &[String], format: Format, costs: Option<&InputArgs>) -> ExitCode {
    let flowrun = Flowrun::builder().build();
    let mut refused = false;
    for file in files {
        let mut workflow = None;
        let (diagnostics, source) = match read(file) {
            Err(problem) => {
                refused = true;
                refuse(&problem);
                continue;
            }
            Ok((name, text)) => match flowrun.check_text(&name, &text) {
                Ok((checked, source)) => {
                    workflow = Some(checked.workflow);
                    (checked.warnings, Some(source))
                }
                Err(LoadError::Refused { diagnostics, file: source }) => (diagnostics, source.map(|source| *source)),
                Err(LoadError::Unreadable { reason, .. }) => {
                    refused = true;
                    refuse(&reason);
                    continue;
                }
            },
        };
        let errors = diagnostics.iter().filter(|problem| problem.is_error()).count();
        refused |= errors > 0;
        match format {
            Format::Json => {
                let lines: String = diagnostics.iter().map(|problem| json_line(problem) + "\n").collect();
                print(&lines);
            }
            Format::Text => {
                show(&diagnostics, source.as_ref());
                let warnings = diagnostics.len() - errors;
                let mut said = vec![if errors == 0 { "ok".to_owned() } else { counted(errors as u64, "error") }];
                said.extend((warnings > 0).then(|| counted(warnings as u64, "warning")));
                say(&format!("{file}: {}", said.join(", ")));
            }
        }
        if let (Some(inputs), Some(workflow)) = (costs, workflow) {
            match cost::cost(&flowrun, file, &workflow, inputs, format) {
                Ok(text) => {
                    let title =
                        if files.len() > 1 && matches!(format, Format::Text) { &format!("{file}\n") } else { "" };
                    print(&format!("{title}{text}"));
                }
                Err(problem) => {
                    refused = true;
                    refuse(&problem);
                }
            }
        }
    }
    if refused { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use flowrun_engine::diagnostic::codes;

    use super::*;

    #[test]
    fn a_line_for_editors_cannot_steer_a_terminal() {
        let problem = Diagnostic::error(codes::BAD_NAME, "nodes.x\u{1b}[2J", "no name: \u{1b}[31m\n");
        let line = json_line(&problem);
        assert!(!line.contains(['\u{1b}', '\n']), "{line}");
    }
}
