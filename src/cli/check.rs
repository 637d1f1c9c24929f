//! `flowrun check`: every problem of every file.

use flowrun::{Flowrun, LoadError};

use super::{CheckFormat, Refusal, output, report};

pub(super) fn check(files: &[String], format: CheckFormat) -> Result<u8, Refusal> {
    let flowrun = Flowrun::builder().build();
    let mut refused = false;
    for file in files {
        let checked = flowrun::Workflows::read(file).and_then(|text| flowrun.check_text(file, &text));
        let (found, source, nodes) = match checked {
            Ok((checked, source)) => (checked.warnings, Some(source), checked.workflow.graph.nodes().len()),
            Err(LoadError { diagnostics, source }) => {
                refused = true;
                (diagnostics, source, 0)
            }
        };
        if format == CheckFormat::Json {
            output::data(&found.iter().map(|problem| report::json_line(problem) + "\n").collect::<String>());
            continue;
        }
        let sources: Vec<_> = source.iter().collect();
        output::say_raw(&report::render(&found, &sources, output::Styled::stderr()));
        let errors = found.iter().filter(|problem| problem.is_error()).count();
        let warnings = found.len() - errors;
        output::say(&match (errors, warnings) {
            (0, 0) => format!("`{file}` is good: {}", counted(nodes, "node")),
            (0, _) => format!("`{file}` can be run: {}", counted(warnings, "warning")),
            (_, 0) => format!("`{file}`: {}", counted(errors, "error")),
            _ => format!("`{file}`: {}, {}", counted(errors, "error"), counted(warnings, "warning")),
        });
    }
    Ok(if refused { 2 } else { 0 })
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
