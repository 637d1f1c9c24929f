//! From a plan to an ordinary definition, step by step; what cannot be lowered is reported.

use serde_json::{Value, json};

use super::parse::{bad, excerpt};
use super::{ANSWER, Plan, PlanStep, StepType, tools};
use crate::calc::Formula;
use crate::definition::{ErrorPolicyDef, InputDef, Need, NodeDef, WorkflowDef};
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::expr::Slotted;
use crate::schema::Schema;

/// What a step is told beside its question.
const BACKGROUND: &str =
    "Answer with the answer alone, as briefly as possible.\nBackground, the larger question: {{ question }}";
/// What the answer step is told.
const CONCLUSION: &str =
    "Answer the question, using the answers to its parts below it. Values that were calculated are exact. Be brief.";

impl Plan {
    /// Lowers the plan: id → node, `ask` → `ask:` of kind llm, a formula → `calc:`, guards → `when`, `each` → `for_each`. `keys`
    /// are the names beside `question` that its texts may mention.
    ///
    /// # Errors
    /// Every reference that names nothing, every formula that does not parse, every doubled id.
    pub fn lower(&self, keys: &[String]) -> Result<WorkflowDef, Vec<Diagnostic>> {
        let mut definition = WorkflowDef { name: "plan".to_owned(), ..WorkflowDef::default() };
        let default = Some(Value::String(self.question.clone()));
        definition.inputs.insert("question".to_owned(), InputDef { schema: Schema::any(), default });
        definition
            .inputs
            .extend(keys.iter().map(|key| (key.clone(), InputDef { schema: Schema::any(), default: None })));
        let mut problems = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let lowering = Lowering { plan: self, keys, index, step };
            let node = lowering.node(&mut problems);
            if keys.contains(&step.id)
                || step.id == "question"
                || definition.nodes.insert(step.id.clone(), node).is_some()
            {
                problems.push(bad(format!("steps[{index}].id"), format!("the id `{}` is taken", excerpt(&step.id))));
            }
        }
        if self.steps.is_empty() {
            problems.push(bad("steps", "the plan has no steps"));
        }
        let answer = self.steps.iter().find(|step| step.id == ANSWER).or(self.steps.last());
        definition.output = answer.map(|step| Value::String(step.id.clone()));
        if problems.is_empty() { Ok(definition) } else { Err(problems) }
    }
}

struct Lowering<'p> {
    plan: &'p Plan,
    keys: &'p [String],
    index: usize,
    step: &'p PlanStep,
}

impl Lowering<'_> {
    fn find(&self, id: &str) -> Option<&PlanStep> {
        self.plan.steps.iter().find(|step| step.id == id)
    }

    /// Reports a reference that names no step.
    fn require(&self, key: &str, id: &str, problems: &mut Vec<Diagnostic>) {
        if self.find(id).is_none() {
            let problem = bad(format!("steps[{}].{key}", self.index), format!("`{}` names no step", excerpt(id)));
            let near = did_you_mean(id, self.plan.steps.iter().map(|step| step.id.as_str()));
            problems.push(match near {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem,
            });
        }
    }

    fn node(&self, problems: &mut Vec<Diagnostic>) -> NodeDef {
        let step = self.step;
        let on_error = if step.id == ANSWER { ErrorPolicyDef::Default } else { ErrorPolicyDef::Skip };
        let mut node = NodeDef { on_error, ..NodeDef::default() };
        let names = self.mentioned(problems);
        if let Some(tool) = &step.tool {
            node.kind = "tool".to_owned();
            node.fields.insert("tool".to_owned(), json!(tool));
            match tools::arguments(&Value::Object(step.with.clone())) {
                Some(with) => drop(node.fields.insert("with".to_owned(), with)),
                None => problems.push(bad(
                    format!("steps[{}].with", self.index),
                    "a text of an argument is longer than 2,000 bytes",
                )),
            }
            node.needs = self.needs(&names);
        } else if step.kind == StepType::Calc {
            node.kind = "calc".to_owned();
            node.fields.insert("calc".to_owned(), json!(step.ask));
        } else {
            node.kind = "llm".to_owned();
            let system = if step.id == ANSWER { CONCLUSION } else { BACKGROUND };
            node.fields.insert("system".to_owned(), json!(system));
            node.fields.insert("ask".to_owned(), json!(step.ask));
            node.needs = self.needs(&names);
        }
        match step.kind {
            StepType::Number => node.output = Some(json!("this | number(words=true)")),
            StepType::YesNo => node.schema = Schema::from_json_schema(json!({"type": "boolean"})).ok(),
            StepType::List => {
                let list = json!({"type": "array", "minItems": 1, "items": {"type": ["string", "number"]}});
                node.schema = Schema::from_json_schema(list).ok();
            }
            StepType::Text | StepType::Calc => {}
        }
        if let Some(source) = &step.each {
            self.require("each", source, problems);
            node.for_each = Some(json!(source));
            node.on_item_error = ErrorPolicyDef::Skip;
        }
        if let Some((guard, yes)) = step.guard() {
            self.require(if yes { "if" } else { "unless" }, guard, problems);
            node.when = Some(json!(if yes { guard.to_owned() } else { format!("not {guard}") }));
        }
        for need in &step.needs {
            self.require("needs", need.trim_end_matches('?'), problems);
        }
        node
    }

    /// The names in the text or formula; those that mean nothing are reported.
    fn mentioned(&self, problems: &mut Vec<Diagnostic>) -> Vec<String> {
        let key = if self.step.tool.is_some() { "with" } else { "ask" };
        let at = format!("steps[{}].{key}", self.index);
        let names: Vec<String> = if self.step.kind == StepType::Calc {
            match Formula::parse(&self.step.ask) {
                Ok(formula) => formula.names().iter().map(|(name, _)| name.clone()).collect(),
                Err(error) => {
                    problems.push(bad(&at, format!("`{}` is no formula: {}", excerpt(&self.step.ask), error.message)));
                    Vec::new()
                }
            }
        } else {
            let slots =
                |text: &str| Slotted::parse(text).slots().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            self.step.texts().into_iter().flat_map(slots).collect()
        };
        for name in &names {
            let is_item = name == "item" && self.step.each.is_some();
            let is_input = name == "question" || self.keys.contains(name);
            if !is_item && !is_input {
                self.require(key, name, problems);
            }
        }
        names
    }

    /// Written needs, and every mentioned step that is guarded otherwise than this one: its answer may be missing.
    fn needs(&self, names: &[String]) -> Vec<Need> {
        let written = self.step.needs.iter();
        let written =
            written.map(|need| Need { name: need.trim_end_matches('?').to_owned(), optional: need.ends_with('?') });
        let mut needs: Vec<Need> = Vec::new();
        let guarded = names.iter().filter(|name| {
            let source = self.find(name).and_then(PlanStep::guard);
            source.is_some() && source != self.step.guard()
        });
        for need in written.chain(guarded.map(|name| Need { name: name.clone(), optional: true })) {
            if !needs.iter().any(|known| known.name == need.name) {
                needs.push(need);
            }
        }
        needs
    }
}
