//! The checker.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::definition::{KindSpec, WorkflowDef};
use crate::diagnostic::Diagnostic;
use crate::graph::{ExpansionRules, Graph, Workflow};
use crate::source::Source;

/// Loads workflows that others call.
pub trait Library: Send + Sync {
    /// The definition of `reference` (`@name` or a path relative to `from`) with its source, or why it cannot be had.
    fn load(&self, reference: &str, from: &str) -> Result<(WorkflowDef, Source), String>;
}

/// A checked workflow with its warnings.
#[derive(Debug)]
pub struct Checked {
    /// The workflow.
    pub workflow: Arc<Workflow>,
    /// Warnings.
    pub warnings: Vec<Diagnostic>,
}

/// Checks a definition; every problem is reported.
pub fn check(
    _definition: WorkflowDef,
    _source: Option<&Source>,
    _kinds: &BTreeMap<String, Arc<KindSpec>>,
    _library: &dyn Library,
) -> Result<Checked, Vec<Diagnostic>> {
    todo!()
}

/// The kinds that the engine does itself.
pub fn builtin_kinds() -> Vec<KindSpec> {
    todo!()
}

/// Lowers and checks plans: given to `plan` nodes and used by the driver for `expand`.
#[derive(Clone, Debug)]
pub struct PlanChecker {
    kinds: Arc<BTreeMap<String, Arc<KindSpec>>>,
}

impl PlanChecker {
    /// A checker for the given kinds.
    pub fn new(kinds: Arc<BTreeMap<String, Arc<KindSpec>>>) -> Self {
        Self { kinds }
    }

    /// Parses, lowers and checks the value of a `plan` node (no repair). `keys` are the keys of `with:`.
    pub fn check(
        &self,
        _plan: &Value,
        _keys: &[String],
        _rules: &ExpansionRules,
    ) -> Result<Arc<Graph>, Vec<Diagnostic>> {
        let _ = &self.kinds;
        todo!()
    }
}
