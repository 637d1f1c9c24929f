//! Plans, checked like everything else: parsed, lowered, held to the rules of the node that runs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Checker, NoLibrary};
use crate::definition::{KindSpec, NodeDef, Word};
use crate::diagnostic::{Diagnostic, codes};
use crate::dialect::{ANSWER, Plan};
use crate::graph::{ExpansionRules, Graph};
use crate::source::Part;

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

    /// The tools that plans may call by these rules, in their order.
    pub fn tools(&self, rules: &ExpansionRules) -> Vec<&Word> {
        let words = self.kinds.get("tool").and_then(|spec| Some(&spec.names()?.words)).into_iter().flatten();
        words.filter(|word| rules.tools.contains(&word.name)).collect()
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
            let names = self.kinds.get(&node.kind).and_then(|spec| node.fields.get(&spec.names()?.name));
            let (key, word, allowed, list) = match names.and_then(Value::as_str) {
                Some(name) => ("tool", name, &rules.tools, "tools"),
                None => ("kind", node.kind.as_str(), &rules.kinds, "kinds"),
            };
            if allowed.iter().all(|allowed| allowed != word) {
                let message =
                    format!("the {key} `{word}` is not allowed here; `allow: {{{list}: …}}` names those that are");
                let key = if key == "kind" { "type" } else { key };
                problems.push(Diagnostic::error(codes::BAD_PLAN, format!("steps[{index}].{key}"), message));
            }
        }
        let mut checker = Checker::new(None, &self.kinds, &NoLibrary);
        let graph = checker.closed_graph(&definition);
        problems.extend(checker.finish().into_iter().filter(Diagnostic::is_error).map(|mut problem| {
            problem.path = plan_path(&plan, &problem.path);
            problem
        }));
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

impl Checker<'_> {
    /// Checks the `fallback` of a `plan` node as the plan that it is, with the step `answer` that will be appended.
    pub(super) fn fallback(&mut self, node: &NodeDef, rules: &ExpansionRules, path: &[&str]) {
        let Some(written) = node.fields.get("fallback") else { return };
        let keys: Vec<String> = match node.fields.get("with") {
            Some(Value::Object(with)) => with.keys().filter(|key| *key != "question").cloned().collect(),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let checked = Plan::from_value(written).and_then(|mut plan| {
            let combines = node.fields.get("combine") != Some(&Value::Bool(false));
            if combines && plan.steps.iter().all(|step| step.id != ANSWER) {
                plan.append_answer();
            }
            PlanChecker::new(Arc::new(self.kinds.clone())).check(&plan.to_value(), &keys, rules)
        });
        for problem in checked.err().unwrap_or_default() {
            let at: Vec<&str> = path.iter().copied().chain(["fallback"]).collect();
            let message = format!("the fallback is no good plan: {}: {}", problem.path, problem.message);
            self.error(codes::BAD_PLAN, &at, Part::Value, message).help.extend(problem.help);
        }
    }
}

/// `nodes.year.ask` as the plan has it: `steps[2].ask`.
fn plan_path(plan: &Plan, path: &str) -> String {
    let Some((id, rest)) = path.strip_prefix("nodes.").map(|path| path.split_once('.').unwrap_or((path, ""))) else {
        return path.to_owned();
    };
    let index = plan.steps.iter().position(|step| step.id == id).unwrap_or_default();
    let key = match rest.split('.').next().unwrap_or_default() {
        "" => return format!("steps[{index}]"),
        "calc" => "ask",
        "for_each" => "each",
        "when" => "if",
        other => other,
    };
    format!("steps[{index}].{key}")
}
