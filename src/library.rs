//! Where workflows come from: the library that is built in (`@name`), and files.
//!
//! A workflow that calls another by path names a file in its own folder or below: a stranger's file reads nothing above it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use flowrun_engine::check::Library;
use flowrun_engine::definition::{self, KindSpec, WorkflowDef};
use flowrun_engine::diagnostic::{Diagnostic, codes, did_you_mean};
use flowrun_engine::source::Source;

use crate::facade::LoadError;

/// A workflow that is built in.
#[derive(Clone, Copy, Debug)]
pub struct Embedded {
    /// Its name, without the `@`.
    pub name: &'static str,
    /// Its file.
    pub text: &'static str,
}

/// The library, in the order of the docs.
const EMBEDDED: &[Embedded] = &[
    Embedded { name: "question-graph", text: include_str!("../workflows/question-graph.yaml") },
    Embedded { name: "zero-shot-cot", text: include_str!("../workflows/zero-shot-cot.yaml") },
    Embedded { name: "few-shot-cot", text: include_str!("../workflows/few-shot-cot.yaml") },
    Embedded { name: "self-consistency", text: include_str!("../workflows/self-consistency.yaml") },
];

/// The built-in library together with the files around a workflow.
#[derive(Clone, Copy, Debug)]
pub struct Workflows;

impl Workflows {
    /// All built-in workflows.
    pub fn embedded() -> &'static [Embedded] {
        EMBEDDED
    }

    /// The text of a workflow: `@name` from the library, `-` from stdin, anything else from a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(reference: &str) -> Result<String, LoadError> {
        Ok(read(reference)?)
    }
}

impl Library for Workflows {
    fn load(
        &self,
        reference: &str,
        from: &str,
        kinds: &BTreeMap<String, Arc<KindSpec>>,
    ) -> Result<(WorkflowDef, Source), String> {
        let name = if reference.starts_with('@') { reference.to_owned() } else { beside(reference, from)? };
        let text = read(&name).map_err(|problem| one_line(&problem))?;
        let refused = |problems: &[Diagnostic]| {
            let lines: Vec<String> = problems.iter().take(3).map(one_line).collect();
            format!("`{reference}` cannot be read: {}", lines.join("; "))
        };
        let parsed = definition::read(&name, &text, kinds).map_err(|problems| refused(&problems))?;
        if parsed.diagnostics.is_empty() {
            Ok((parsed.definition, parsed.source))
        } else {
            Err(refused(&parsed.diagnostics))
        }
    }
}

fn one_line(problem: &Diagnostic) -> String {
    let help = problem.help.first().map(|help| format!("; {help}")).unwrap_or_default();
    match &problem.place {
        Some(place) => format!("{}:{}:{}: {}{help}", place.file, place.line, place.column, problem.message),
        None => format!("{}{help}", problem.message),
    }
}

/// The path of a file that the workflow `from` calls.
fn beside(reference: &str, from: &str) -> Result<String, String> {
    if from.starts_with('@') {
        return Err(format!("a workflow of the library calls others by `@name`, not by the path `{reference}`"));
    }
    let path = Path::new(reference);
    let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if reference.is_empty() || !inside {
        return Err(format!("`{reference}` leads out of the folder of the calling file; put the file in it or below"));
    }
    let folder = Path::new(from).parent().map_or_else(PathBuf::new, Path::to_owned);
    let plain: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    let target = folder.join(plain);
    let real = |path: &Path| if path.as_os_str().is_empty() { Path::new(".") } else { path }.canonicalize();
    if let (Ok(folder), Ok(target)) = (real(&folder), real(&target))
        && !target.starts_with(folder)
    {
        return Err(format!("`{reference}` is a link out of the folder of the calling file"));
    }
    Ok(target.to_string_lossy().into_owned())
}

/// The text of a workflow: `@name` from the library, anything else from a file.
pub(crate) fn read(reference: &str) -> Result<String, Diagnostic> {
    match reference.strip_prefix('@') {
        Some(name) => embedded(name).map(|found| found.text.to_owned()),
        None if reference == "-" => bounded(&mut std::io::stdin().lock(), "stdin"),
        None => read_file(reference),
    }
}

fn embedded(name: &str) -> Result<&'static Embedded, Diagnostic> {
    let names = || EMBEDDED.iter().map(|found| found.name);
    EMBEDDED.iter().find(|found| found.name == name).ok_or_else(|| {
        let problem = Diagnostic::error(codes::UNREADABLE, "", format!("the library has no workflow `@{name}`"));
        match did_you_mean(name, names()) {
            Some(near) => problem.help(format!("did you mean `@{near}`?")),
            None => {
                problem.help(format!("it has {}", names().map(|n| format!("`@{n}`")).collect::<Vec<_>>().join(", ")))
            }
        }
    })
}

fn read_file(path: &str) -> Result<String, Diagnostic> {
    let bad = |why: String| Diagnostic::error(codes::UNREADABLE, "", format!("`{path}` cannot be read: {why}"));
    let mut file = File::open(path).map_err(|error| {
        let problem = bad(error.to_string());
        match embedded(path) {
            Ok(found) => problem.help(format!("the library has a workflow `@{}`", found.name)),
            Err(_) => problem,
        }
    })?;
    bounded(&mut file, path)
}

/// A text of bounded size.
fn bounded(reader: &mut dyn Read, name: &str) -> Result<String, Diagnostic> {
    let bad = |why: String| Diagnostic::error(codes::UNREADABLE, "", format!("`{name}` cannot be read: {why}"));
    let mut bytes = Vec::new();
    reader.take(Source::BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
    if bytes.len() > Source::BYTES_MAX {
        return Err(bad(format!("it is larger than {} MiB", Source::BYTES_MAX >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        bad(format!("byte {} is no UTF-8 text", error.utf8_error().valid_up_to())).help("save the file as UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_called_file_lies_in_the_folder_of_its_caller() {
        let check = |reference: &str, from: &str, expected: Option<&str>| {
            assert_eq!(beside(reference, from).ok().as_deref(), expected, "{reference} from {from}");
        };
        check("b.yaml", "dir/a.yaml", Some("dir/b.yaml"));
        check("./sub/b.yaml", "a.yaml", Some("sub/b.yaml"));
        check("b.yaml", "-", Some("b.yaml"));
        check("../b.yaml", "dir/a.yaml", None);
        check("sub/../../b.yaml", "dir/a.yaml", None);
        check("/etc/passwd", "a.yaml", None);
        check("", "a.yaml", None);
        check("b.yaml", "@question-graph", None);
    }

    #[test]
    fn a_wrong_name_gets_a_suggestion() {
        assert_eq!(read("@self-consistancy").unwrap_err().help, ["did you mean `@self-consistency`?"]);
        assert_eq!(read("question-graph").unwrap_err().help, ["the library has a workflow `@question-graph`"]);
        assert!(bounded(&mut [0xff, 0xfe].as_slice(), "x").unwrap_err().message.contains("UTF-8"));
        assert!(bounded(&mut std::io::repeat(b'a'), "x").unwrap_err().message.contains("8 MiB"));
    }

    #[test]
    fn every_workflow_of_the_library_checks_without_a_word() {
        let flowrun = crate::Flowrun::builder().build();
        for found in Workflows::embedded() {
            let (checked, _) = flowrun.check_text(&format!("@{}", found.name), found.text).expect(found.name);
            assert!(checked.warnings.is_empty(), "{}: {:?}", found.name, checked.warnings);
            assert_eq!(checked.workflow.name, found.name);
            assert!(checked.workflow.definition.description.is_some());
        }
    }
}
