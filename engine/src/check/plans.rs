//! Plans, checked like everything else: parsed, lowered, held to the rules of the node that runs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Checker, NoLibrary};
use crate::definition::{ErrorPolicyDef, KindSpec, NodeDef, Word};
use crate::diagnostic::{Diagnostic, codes};
use crate::dialect::{ANSWER, Dialect, Plan};
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

    /// Why the rules forbid a node, if they do.
    fn not_allowed(&self, node: &NodeDef, rules: &ExpansionRules, at: &str) -> Option<Diagnostic> {
        let names = self.kinds.get(&node.kind).and_then(|spec| node.fields.get(&spec.names()?.name));
        let (key, what, word, allowed, list) = match names.and_then(Value::as_str) {
            Some(name) => ("tool", "tool", name, &rules.tools, "tools"),
            None => ("type", "kind", node.kind.as_str(), &rules.kinds, "kinds"),
        };
        let message = format!("the {what} `{word}` is not allowed here; `allow: {{{list}: …}}` names those that are");
        let is_allowed = allowed.iter().any(|allowed| allowed == word);
        (!is_allowed).then(|| Diagnostic::error(codes::BAD_PLAN, format!("{at}.{key}"), message))
    }

    /// Parses, lowers and checks the value of a `plan` node; nothing is repaired. `keys` are the names beside `question` that
    /// its texts may mention.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(&self, plan: &Value, keys: &[String], rules: &ExpansionRules) -> Result<Arc<Graph>, Vec<Diagnostic>> {
        let plan = Plan::from_value(plan)?;
        let own = plan.size();
        if own > rules.nodes_max as usize {
            let message = format!("{own} steps are more than `limits.nodes` allows ({})", rules.nodes_max);
            return Err(vec![Diagnostic::error(codes::LIMIT, "steps", message)]);
        }
        let mut problems = loops_allowed(&plan, rules);
        let mut definition = plan.lower(keys).map_err(|more| [std::mem::take(&mut problems), more].concat())?;
        for node in definition.nodes.values_mut().filter(|_| rules.steps_fail) {
            node.on_error = ErrorPolicyDef::Fail;
        }
        for (index, step) in plan.steps.iter().enumerate() {
            for node in drawn(&definition.nodes[&step.id]) {
                problems.extend(self.not_allowed(node, rules, &format!("steps[{index}]")));
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

/// A loop is of the dialect `flowchart`, and bounded.
fn loops_allowed(plan: &Plan, rules: &ExpansionRules) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let loops = plan.steps.iter().enumerate().filter_map(|(index, step)| Some((index, step.repeat.as_ref()?)));
    for (index, repeat) in loops {
        if rules.dialect != Dialect::Flowchart {
            let problem =
                Diagnostic::error(codes::BAD_PLAN, format!("steps[{index}].repeat"), "this plan may not loop");
            problems.push(problem.help("`dialect: flowchart` on `plan` and beside `graph` allows loops"));
            continue;
        }
        let at = format!("steps[{index}].repeat.max");
        match repeat.max {
            Some(1..) if repeat.max <= Some(rules.iterations_max) => {}
            Some(max) if max > 0 => {
                let message =
                    format!("{max} passes are more than `limits.iterations` allows here ({})", rules.iterations_max);
                problems.push(Diagnostic::error(codes::LIMIT, at, message));
            }
            _ => {
                let problem = Diagnostic::error(codes::BAD_PLAN, at, "`repeat` needs `max`, a number from 1");
                problems.push(problem.help("no loop without a bound"));
            }
        }
    }
    problems
}

/// What a step was drawn to do: of a loop its parts, what only hands values on apart.
fn drawn(node: &NodeDef) -> impl Iterator<Item = &NodeDef> {
    let parts: Vec<&NodeDef> = if node.nodes.is_empty() { vec![node] } else { node.nodes.values().collect() };
    parts.into_iter().filter(|node| node.kind != "set")
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
            let message = format!("the fallback is no good plan: {}", problem.line());
            self.error(codes::BAD_PLAN, &at, Part::Value, message).help.extend(problem.help);
        }
    }
}

/// `nodes.year.ask` as the plan has it: `steps[2].ask`.
fn plan_path(plan: &Plan, path: &str) -> String {
    let Some((id, rest)) = path.strip_prefix("nodes.").map(|path| path.split_once('.').unwrap_or((path, ""))) else {
        return path.to_owned();
    };
    let Some(index) = plan.steps.iter().position(|step| step.id == id) else { return path.to_owned() };
    let mut at = format!("steps[{index}]");
    let mut rest = rest;
    if let Some((inner, more)) = rest.strip_prefix("nodes.").map(|path| path.split_once('.').unwrap_or((path, ""))) {
        let block = plan.steps[index].repeat.as_ref().map_or(&[][..], |repeat| &repeat.steps);
        let part = inner.strip_prefix(id).unwrap_or_default().trim_end_matches('_');
        match (block.iter().position(|step| step.id == inner), part) {
            (Some(inner), _) => at = format!("{at}.repeat.steps[{inner}]"),
            (None, "_done") => return format!("{at}.repeat.until"),
            (None, "_next") => return format!("{at}.repeat.again"),
            (None, "_first") => {}
            (None, _) => return format!("{at}.repeat"),
        }
        rest = more;
    }
    let key = match rest.split('.').next().unwrap_or_default() {
        "" => return at,
        "calc" => "ask",
        "for_each" => "each",
        "when" => "if",
        other => other,
    };
    format!("{at}.{key}")
}
