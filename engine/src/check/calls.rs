//! Workflows that call others: loaded, checked with the same checker, closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Checker;
use crate::definition::{KindSpec, NodeDef, WorkflowDef};
use crate::diagnostic::{Diagnostic, codes};
use crate::graph::{Called, Workflow};
use crate::source::{Part, Source};

/// Loads workflows that others call.
pub trait Library: Send + Sync {
    /// The definition that `reference` (`@name`, or a path relative to the file `from`) names, with its text.
    ///
    /// # Errors
    /// Why it cannot be had, in one line.
    fn load(
        &self,
        reference: &str,
        from: &str,
        kinds: &BTreeMap<String, Arc<KindSpec>>,
    ) -> Result<(WorkflowDef, Source), String>;
}

/// A library without workflows.
#[derive(Clone, Copy, Debug)]
pub struct NoLibrary;

impl Library for NoLibrary {
    fn load(
        &self,
        reference: &str,
        _: &str,
        _: &BTreeMap<String, Arc<KindSpec>>,
    ) -> Result<(WorkflowDef, Source), String> {
        Err(format!("there is no library to load `{reference}` from"))
    }
}

/// Calls inside calls.
const DEPTH_MAX: usize = 16;
/// Most errors of a called workflow that are shown.
const ERRORS_SHOWN: usize = 10;

impl Checker<'_> {
    /// The graph that a `workflow:` node runs, which stands so many groups deep.
    pub(super) fn called(&mut self, node: &NodeDef, path: &[&str], depth: u32) -> Option<Called> {
        let reference = node.fields.get("workflow")?.as_str()?;
        let at: Vec<&str> = path.iter().copied().chain(["workflow"]).collect();
        let from = self.source.map(|source| source.name().to_string()).unwrap_or_default();
        let (definition, source) = match self.library.load(reference, &from, self.kinds) {
            Ok(loaded) => loaded,
            Err(reason) => {
                self.error(codes::BAD_CALL, &at, Part::Value, reason);
                return None;
            }
        };
        if let Some(around) = self.calling.iter().find(|(name, _)| **name == **source.name()) {
            let around = around.1.clone();
            self.check_with(node, &definition, path);
            return Some(Called::Around(around));
        }
        if self.calling.len() >= DEPTH_MAX {
            self.error(codes::LIMIT, &at, Part::Value, format!("calls nest deeper than {DEPTH_MAX}"));
            return None;
        }
        self.check_with(node, &definition, path);
        let name = source.name().to_string();
        if !self.called.contains_key(&name) {
            let workflow = self.check_called(reference, definition, &source, &at, depth);
            self.called.insert(name.clone(), workflow);
        }
        self.called[&name].as_ref().map(|workflow| Called::Other(workflow.graph.clone()))
    }

    /// Checks a called workflow; its errors are shown with their own places. Each is checked once, however often it is called.
    fn check_called(
        &mut self,
        reference: &str,
        definition: WorkflowDef,
        source: &Source,
        at: &[&str],
        depth: u32,
    ) -> Option<Arc<Workflow>> {
        let mut inner = Checker::new(Some(source), self.kinds, self.library);
        inner.calling = self.calling.iter().cloned().chain(inner.calling).collect();
        inner.depth = self.depth + depth + 1;
        inner.called = std::mem::take(&mut self.called);
        let workflow = inner.workflow(definition);
        self.called = std::mem::take(&mut inner.called);
        let refused = inner.errors.found > 0;
        let errors = inner.finish().into_iter().filter(Diagnostic::is_error);
        if refused {
            let message = format!("the workflow `{reference}` does not check");
            let problem = self.error(codes::BAD_CALL, at, Part::Value, message);
            let placed = errors.flat_map(|error| {
                let inner = error.related.into_iter().filter(|(_, place)| place.file != *source.name());
                error.place.map(|place| (error.message, place)).into_iter().chain(inner.collect::<Vec<_>>())
            });
            problem.related.extend(placed.take(ERRORS_SHOWN));
            return None;
        }
        workflow
    }

    /// The keys of `with` against the inputs of the called workflow.
    fn check_with(&mut self, node: &NodeDef, definition: &WorkflowDef, path: &[&str]) {
        let with = node.fields.get("with");
        let given = with.and_then(Value::as_object);
        for (name, value) in given.into_iter().flatten() {
            let at: Vec<&str> = path.iter().copied().chain(["with", name.as_str()]).collect();
            match definition.inputs.get(name) {
                None => {
                    let message = format!("`{}` has no input `{name}`", definition.name);
                    let known = definition.inputs.keys().map(String::as_str);
                    let near = self.near(name, known.clone()).map(|near| format!("did you mean `{near}`?"));
                    let known: Vec<&str> = known.collect();
                    let all = if known.is_empty() {
                        "it takes none".into()
                    } else {
                        format!("its inputs are {}", known.join(", "))
                    };
                    let help = near.unwrap_or(all);
                    self.error(codes::UNKNOWN_NAME, &at, Part::Key, message).help.push(help);
                }
                Some(input) if !value.is_string() && !value.is_array() && !value.is_object() => {
                    if let Err(reason) = input.schema.validate(value) {
                        self.error(codes::TYPE_MISMATCH, &at, Part::Value, format!("input `{name}`: {reason}"));
                    }
                }
                Some(_) => {}
            }
        }
        if with.is_none_or(Value::is_object) {
            let missing = definition.inputs.iter().filter(|(name, input)| {
                input.default.is_none() && given.is_none_or(|given| !given.contains_key(*name))
            });
            for (name, input) in missing {
                let message = format!("`{}` needs the input `{name}` ({})", definition.name, input.schema.describe());
                self.error(codes::MISSING_KEY, path, Part::Key, message)
                    .help
                    .push(format!("add `with: {{{name}: …}}`"));
            }
        }
    }
}
