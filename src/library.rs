//! The workflows that come along, and how one workflow finds another.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use flowrun_engine::check::Library;
use flowrun_engine::definition::{self, KindSpec, WorkflowDef};
use flowrun_engine::diagnostic::did_you_mean;
use flowrun_engine::source::Source;

/// The library: name and text of each workflow.
pub const WORKFLOWS: &[(&str, &str)] = &[
    ("question-graph", include_str!("../workflows/question-graph.yaml")),
    ("question-flowchart", include_str!("../workflows/question-flowchart.yaml")),
    ("zero-shot-cot", include_str!("../workflows/zero-shot-cot.yaml")),
    ("few-shot-cot", include_str!("../workflows/few-shot-cot.yaml")),
    ("self-consistency", include_str!("../workflows/self-consistency.yaml")),
    ("least-to-most", include_str!("../workflows/least-to-most.yaml")),
    ("scratchpad", include_str!("../workflows/scratchpad.yaml")),
    ("self-refine", include_str!("../workflows/self-refine.yaml")),
    ("tree-of-thoughts", include_str!("../workflows/tree-of-thoughts.yaml")),
    ("adapt", include_str!("../workflows/adapt.yaml")),
    ("diverse", include_str!("../workflows/diverse.yaml")),
];

/// The text of a library workflow.
pub(crate) fn embedded(name: &str) -> Result<&'static str, String> {
    let found = WORKFLOWS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    found.ok_or_else(|| {
        let near = did_you_mean(name, WORKFLOWS.iter().map(|(name, _)| *name));
        let help =
            near.map_or("`flowrun list` shows what there is".to_owned(), |near| format!("did you mean `@{near}`?"));
        format!("the library has no workflow `@{name}`; {help}")
    })
}

/// Reads a workflow file of the user's.
pub(crate) fn read_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        let near = path.to_str().filter(|name| embedded(name).is_ok());
        let help = near.map(|name| format!("; the library has a workflow `@{name}`")).unwrap_or_default();
        format!("`{shown}` cannot be read: {error}{help}")
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(Source::BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > Source::BYTES_MAX {
        return Err(format!("`{shown}` is larger than {} bytes, which is the most", Source::BYTES_MAX));
    }
    String::from_utf8(bytes).map_err(|_| format!("`{shown}` is not text (UTF-8)"))
}

/// Finds `@name` in the library and files beside or below the calling one.
pub(crate) struct Files;

impl Library for Files {
    fn load(
        &self,
        reference: &str,
        from: &str,
        kinds: &BTreeMap<String, Arc<KindSpec>>,
    ) -> Result<(WorkflowDef, Source), String> {
        let name = named(reference, from)?;
        let text = read(&name)?;
        parsed(&name, &text, kinds)
    }
}

/// What a workflow is called that another one calls.
pub(crate) fn named(reference: &str, from: &str) -> Result<String, String> {
    if reference.starts_with('@') {
        return Ok(reference.to_owned());
    }
    Ok(below(reference, from)?.display().to_string())
}

/// The text of a file or of a workflow of the library.
pub(crate) fn read(name: &str) -> Result<String, String> {
    match name.strip_prefix('@') {
        Some(name) => embedded(name).map(str::to_owned),
        None => read_file(Path::new(name)),
    }
}

/// The definition that a text is, without a single problem.
pub(crate) fn parsed(
    name: &str,
    text: &str,
    kinds: &BTreeMap<String, Arc<KindSpec>>,
) -> Result<(WorkflowDef, Source), String> {
    let refuse = |problems: Vec<flowrun_engine::diagnostic::Diagnostic>| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let parsed = definition::read(name, text, kinds).map_err(refuse)?;
    if parsed.diagnostics.is_empty() { Ok((parsed.definition, parsed.source)) } else { Err(refuse(parsed.diagnostics)) }
}

/// A path that stays in the folder of the file that names it.
fn below(reference: &str, from: &str) -> Result<PathBuf, String> {
    let path = Path::new(reference);
    let stays = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !stays {
        return Err(format!(
            "`{reference}` leads out of the folder of the file that calls it; write a path below it, or `@name`"
        ));
    }
    if from.starts_with('@') {
        return Err(format!("a workflow of the library calls only `@name`, not `{reference}`"));
    }
    let folder = Path::new(from).parent().unwrap_or(Path::new(""));
    // One file has one name, by which a workflow that calls itself is known.
    let plain: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let target = folder.join(plain);
    let real = |path: &Path| if path.as_os_str().is_empty() { Path::new(".") } else { path }.canonicalize();
    match (real(folder), real(&target)) {
        (Ok(folder), Ok(real)) if !real.starts_with(&folder) => {
            Err(format!("`{reference}` is a link out of the folder of the file that calls it"))
        }
        _ => Ok(target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below() {
        assert_eq!(below("b/c.yaml", "a/x.yaml").unwrap(), Path::new("a/b/c.yaml"));
        assert_eq!(below("./b/./c.yaml", "a/x.yaml").unwrap().as_os_str(), "a/b/c.yaml");
        for bad in ["../x.yaml", "/etc/passwd", "a/../../x"] {
            assert!(below(bad, "a/x.yaml").is_err(), "{bad}");
        }
    }
}
