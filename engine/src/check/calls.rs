//! Workflows that call others: loaded, checked with the same checker, closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Checker, Part};
use crate::definition::{KindSpec, NodeDef, WorkflowDef};
use crate::diagnostic::{codes, did_you_mean};
use crate::graph::Graph;
use crate::source::Source;

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

impl Checker<'_> {
    /// The graph that a `workflow:` node runs.
    pub(super) fn called(&mut self, node: &NodeDef, path: &[&str]) -> Option<Arc<Graph>> {
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
        if self.calling.iter().any(|name| **name == **source.name()) || self.calling.len() > DEPTH_MAX {
            let chain = self.calling.iter().map(String::as_str).chain([reference]).collect::<Vec<_>>().join(" → ");
            let message = format!("this version does not run recursive calls yet ({chain})");
            self.error(codes::NOT_YET, &at, Part::Value, message);
            return None;
        }
        self.check_with(node, &definition, path);
        let mut inner = Checker::new(Some(&source), self.kinds, self.library);
        inner.calling = self.calling.iter().cloned().chain(inner.calling).collect();
        let workflow = inner.workflow(definition);
        let errors: Vec<String> =
            inner.problems.iter().filter(|problem| problem.is_error()).map(ToString::to_string).collect();
        if errors.is_empty() {
            return workflow.map(|workflow| workflow.graph.clone());
        }
        let message = format!("the workflow `{reference}` does not check");
        self.error(codes::BAD_CALL, &at, Part::Value, message).help.extend(errors);
        None
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
                    let near = did_you_mean(name, known.clone()).map(|near| format!("did you mean `{near}`?"));
                    let help =
                        near.unwrap_or_else(|| format!("its inputs are {}", known.collect::<Vec<_>>().join(", ")));
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
