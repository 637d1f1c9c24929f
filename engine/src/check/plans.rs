//! Plans, checked like everything else: parsed, lowered, held to the rules of the node that runs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Checker, NoLibrary};
use crate::definition::KindSpec;
use crate::diagnostic::{Diagnostic, codes};
use crate::dialect::{ANSWER, Plan};
use crate::graph::{ExpansionRules, Graph};

/// Lowers and checks plans: given to `plan` nodes, and used by the driver for `expand`.
#[derive(Clone, Debug)]
pub struct PlanChecker {
    kinds: Arc<BTreeMap<String, Arc<KindSpec>>>,
}

impl PlanChecker {
    /// A checker for the given kinds.
    pub fn new(kinds: Arc<BTreeMap<String, Arc<KindSpec>>>) -> Self {
        Self { kinds }
    }

    /// Parses, lowers and checks the value of a `plan` node; nothing is repaired. `keys` are the names beside `question` that
    /// its texts may mention.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(&self, plan: &Value, keys: &[String], rules: &ExpansionRules) -> Result<Arc<Graph>, Vec<Diagnostic>> {
        let plan = Plan::from_value(plan)?;
        let own = plan.steps.iter().filter(|step| step.id != ANSWER).count();
        if own > rules.nodes_max as usize {
            let message = format!("{own} steps are more than `limits.nodes` allows ({})", rules.nodes_max);
            return Err(vec![Diagnostic::error(codes::LIMIT, "steps", message)]);
        }
        let definition = plan.lower(keys)?;
        let mut problems = Vec::new();
        for (index, node) in definition.nodes.values().enumerate() {
            if !rules.kinds.contains(&node.kind) {
                let message =
                    format!("the kind `{}` is not allowed here; `allow: {{kinds: …}}` names those that are", node.kind);
                problems.push(Diagnostic::error(codes::BAD_PLAN, format!("steps[{index}].type"), message));
            }
        }
        let mut checker = Checker::new(None, &self.kinds, &NoLibrary);
        let graph = checker.closed_graph(&definition);
        problems.extend(checker.problems.into_iter().filter(Diagnostic::is_error));
        match graph {
            Some(mut graph) if problems.is_empty() => {
                graph.expansion = true;
                graph.output = None;
                graph.output_requires.clear();
                Ok(Arc::new(graph))
            }
            _ => Err(problems),
        }
    }
}
