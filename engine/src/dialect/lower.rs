//! From a plan to an ordinary definition, step by step; what cannot be lowered is reported.
//!
//! A step becomes the node of its id. One that repeats becomes a group (`lower_loop.rs`) whose value is
//! `{value, repeated, values}`. Guards and `each` read `id.value`, formulas by way of a node `id_value`, since a formula can only say
//! `{id}`; an `ask` that mentions it is told all of it in words, by a node `id_in_words`.

use std::cell::RefCell;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::lower_loop::Around;
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
/// What a step in a loop is told: a small model answers a background in place of the question.
pub(super) const IN_LOOP: &str = "Answer with the answer alone, as briefly as possible.";
/// What the answer step is told.
const CONCLUSION: &str =
    "Answer the question, using the answers to its parts below it. Values that were calculated are exact. Be brief.";

impl Plan {
    /// Lowers the plan: id → node, `ask` → `ask:` of kind llm, a formula → `calc:`, guards → `when`, `each` → `for_each`, a loop →
    /// a group with `repeat`. `keys` are the names beside `question` that its texts may mention.
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
        let scope = Scope { plan: self, keys, read: RefCell::default() };
        let mut problems = scope.doubled_ids();
        for (index, step) in self.steps.iter().enumerate() {
            let lowering = Lowering { scope: &scope, path: format!("steps[{index}]"), step, around: None };
            let node = match &step.repeat {
                Some(repeat) => lowering.repeated(repeat, &mut problems),
                None => lowering.node(&mut problems),
            };
            definition.nodes.insert(step.id.clone(), node);
        }
        definition.nodes.extend(scope.read.into_inner());
        if self.steps.is_empty() {
            problems.push(bad("steps", "the plan has no steps"));
        }
        let answer = self.steps.iter().find(|step| step.id == ANSWER).or(self.steps.last());
        definition.output = answer.map(|step| Value::String(step.id.clone()));
        if problems.is_empty() { Ok(definition) } else { Err(problems) }
    }
}

/// The names of a plan and what they mean.
pub(super) struct Scope<'p> {
    plan: &'p Plan,
    keys: &'p [String],
    /// Nodes that only say the value of a loop, for those that can say nothing but `{id}`.
    read: RefCell<IndexMap<String, NodeDef>>,
}

impl<'p> Scope<'p> {
    /// The step of that id and, if it stands in a block, the block.
    pub(super) fn find(&self, id: &str) -> Option<(&'p PlanStep, Option<&'p PlanStep>)> {
        let own = self.plan.steps.iter().find(|step| step.id == id).map(|step| (step, None));
        let inside = |block: &'p PlanStep| Some((block.block().iter().find(|step| step.id == id)?, Some(block)));
        own.or_else(|| self.plan.steps.iter().find_map(inside))
    }

    fn ids(&self) -> impl Iterator<Item = &'p str> {
        let with_block = |step: &'p PlanStep| std::iter::once(step).chain(step.block());
        self.plan.steps.iter().flat_map(with_block).map(|step| step.id.as_str())
    }

    fn doubled_ids(&self) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        for (index, step) in self.plan.steps.iter().enumerate() {
            let inner = step.block().iter().enumerate();
            let inner = inner.map(|(at, inner)| (format!("steps[{index}].repeat.steps[{at}].id"), inner));
            for (path, step) in std::iter::once((format!("steps[{index}].id"), step)).chain(inner) {
                let id = step.id.as_str();
                let first = self.find(id).is_some_and(|(first, _)| std::ptr::eq(first, step));
                if id == "question" || self.keys.iter().any(|key| key == id) || !first {
                    problems.push(bad(path, format!("the id `{}` is taken", excerpt(id))));
                }
            }
        }
        problems
    }

    /// A name like `base` that nothing has.
    pub(super) fn free(&self, base: String) -> String {
        let taken = |name: &str| self.ids().any(|id| id == name) || self.keys.iter().any(|key| key == name);
        (0..).map(|n| format!("{base}{}", "_".repeat(n))).find(|name| !taken(name)).expect("BUG: names ran out")
    }

    /// The expression that gives the value of a step: for loops that of the last pass.
    pub(super) fn expression(&self, id: &str) -> String {
        match self.find(id) {
            Some((step, None)) if step.repeat.is_some() => format!("{id}.value"),
            Some((_, Some(block))) => format!("{}.value.{id}", block.id),
            _ => id.to_owned(),
        }
    }

    /// The node that has the value which a slot of that name means.
    pub(super) fn slot(&self, id: &str, is_formula: bool) -> String {
        let expression = self.expression(id);
        if expression == id {
            return id.to_owned();
        }
        let is_whole_loop = self.find(id).is_some_and(|(_, block)| block.is_none());
        let (name, value) = match is_whole_loop && !is_formula {
            true => (format!("{id}_in_words"), in_words(id)),
            false => (format!("{id}_value"), expression),
        };
        let name = self.free(name);
        self.read.borrow_mut().insert(name.clone(), NodeDef { on_error: ErrorPolicyDef::Skip, ..set(json!(value)) });
        name
    }
}

/// What a loop came to, as a model reads it best: `1280 (repeated 8 times: 5, 10, …, 1280)`.
fn in_words(id: &str) -> String {
    format!("{id}.value ~ ' (repeated ' ~ {id}.repeated ~ ' times: ' ~ ({id}.values | join(', ')) ~ ')'")
}

/// A node that has a value.
pub(super) fn set(value: Value) -> NodeDef {
    NodeDef::new("set").field("value", value)
}

/// One step on its way.
pub(super) struct Lowering<'s, 'p> {
    pub(super) scope: &'s Scope<'p>,
    /// Where it stands in the plan.
    pub(super) path: String,
    pub(super) step: &'p PlanStep,
    /// The loop around it.
    pub(super) around: Option<Around<'s>>,
}

impl<'p> Lowering<'_, 'p> {
    /// Reports a reference that names no step.
    pub(super) fn require(&self, key: &str, id: &str, problems: &mut Vec<Diagnostic>) {
        if self.scope.find(id).is_none() {
            let problem = bad(format!("{}.{key}", self.path), format!("`{}` names no step", excerpt(id)));
            let near = did_you_mean(id, self.scope.ids());
            problems.push(match near {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem,
            });
        }
    }

    pub(super) fn node(&self, problems: &mut Vec<Diagnostic>) -> NodeDef {
        let step = self.step;
        let system = match () {
            () if step.id == ANSWER => CONCLUSION,
            () if self.around.is_some() => IN_LOOP,
            () => BACKGROUND,
        };
        let mut node = match &step.tool {
            Some(tool) => self.call(tool, problems),
            None => self.work("ask", &step.ask, step.kind, system, problems),
        };
        if step.id != ANSWER {
            node.on_error = ErrorPolicyDef::Skip;
        }
        if let Some(source) = &step.each {
            self.require("each", source, problems);
            node.for_each = Some(json!(self.expression(source)));
            node.on_item_error = ErrorPolicyDef::Skip;
        }
        self.guard(&mut node, problems);
        node
    }

    pub(super) fn guard(&self, node: &mut NodeDef, problems: &mut Vec<Diagnostic>) {
        if let Some((guard, yes)) = self.step.guard() {
            self.require(if yes { "if" } else { "unless" }, guard, problems);
            let guard = self.expression(guard);
            node.when = Some(json!(if yes { guard } else { format!("not {guard}") }));
        }
        for need in &self.step.needs {
            self.require("needs", need.trim_end_matches('?'), problems);
        }
    }

    /// The node that calls a tool; in its arguments a loop is its last value.
    fn call(&self, tool: &str, problems: &mut Vec<Diagnostic>) -> NodeDef {
        let mut step = self.step.clone();
        let mut names = Vec::new();
        for text in self.step.texts() {
            names.extend(self.mentioned("with", text, false, problems));
        }
        let slots: IndexMap<&String, String> = names.iter().map(|name| (name, self.slot(name, true))).collect();
        let slot = |name: &str| Ok(format!("{{{}}}", slots.get(&name.to_owned()).map_or(name, String::as_str)));
        step.change_texts(|text| Slotted::parse(text).render(slot).unwrap_or_else(|_| text.to_owned()));
        let mut node = NodeDef::new("tool").field("tool", tool);
        match tools::arguments(&Value::Object(step.with)) {
            Some(with) => drop(node.fields.insert("with".to_owned(), with)),
            None => {
                let message = "a text of an argument is longer than 2,000 bytes";
                problems.push(bad(format!("{}.with", self.path), message));
            }
        }
        if self.around.is_none() {
            node.needs = self.needs(&names);
        }
        node
    }

    /// The node that asks or computes a text.
    pub(super) fn work(
        &self,
        key: &str,
        text: &str,
        kind: StepType,
        system: &str,
        problems: &mut Vec<Diagnostic>,
    ) -> NodeDef {
        let is_formula = kind == StepType::Calc;
        let names = self.mentioned(key, text, is_formula, problems);
        let text = self.said(text, &names, is_formula);
        if is_formula {
            return NodeDef::new("calc").field("calc", text);
        }
        let mut node = NodeDef::new("llm").field("system", system).field("ask", text);
        if self.around.is_none() {
            node.needs = self.needs(&names);
        }
        match kind {
            StepType::Number => node.output = Some(json!("this | number(words=true)")),
            StepType::YesNo => node.schema = Schema::from_json_schema(json!({"type": "boolean"})).ok(),
            StepType::List => {
                let list = json!({"type": "array", "minItems": 1, "items": {"type": ["string", "number"]}});
                node.schema = Schema::from_json_schema(list).ok();
            }
            StepType::Text | StepType::Calc => {}
        }
        node
    }

    /// The names in a text or formula; those that mean nothing are reported.
    fn mentioned(&self, key: &str, text: &str, is_formula: bool, problems: &mut Vec<Diagnostic>) -> Vec<String> {
        let at = format!("{}.{key}", self.path);
        let names: Vec<String> = if is_formula {
            match Formula::parse(text) {
                Ok(formula) => formula.names().iter().map(|(name, _)| name.clone()).collect(),
                Err(error) => {
                    problems.push(bad(&at, format!("`{}` is no formula: {}", excerpt(text), error.message)));
                    Vec::new()
                }
            }
        } else {
            Slotted::parse(text).slots().iter().map(|(name, _)| name.clone()).collect()
        };
        for name in &names {
            let is_item = name == "item" && self.step.each.is_some();
            let is_input = name == "question" || self.scope.keys.contains(name);
            if !is_item && !is_input {
                self.require(key, name, problems);
            }
        }
        names
    }

    /// The text with the names of the lowered nodes.
    fn said(&self, text: &str, names: &[String], is_formula: bool) -> String {
        let names: IndexMap<&str, String> =
            names.iter().map(|name| (name.as_str(), self.slot(name, is_formula))).collect();
        if names.iter().all(|(name, slot)| name == slot) {
            return text.to_owned();
        }
        if !is_formula {
            let slot = |name: &str| Ok(format!("{{{}}}", names[name]));
            return Slotted::parse(text).render(slot).expect("BUG: every slot has a name");
        }
        let pieces =
            text.split_inclusive('}').map(|piece| match piece.strip_suffix('}').and_then(|p| p.rsplit_once('{')) {
                Some((before, name)) => format!("{before}{{{}}}", names.get(name.trim()).map_or(name, String::as_str)),
                None => piece.to_owned(),
            });
        pieces.collect()
    }

    /// Written needs, and every mentioned step that is guarded otherwise than this one: its answer may be missing.
    fn needs(&self, names: &[String]) -> Vec<Need> {
        let written = self.step.needs.iter();
        let written =
            written.map(|need| Need { name: need.trim_end_matches('?').to_owned(), optional: need.ends_with('?') });
        let mut needs: Vec<Need> = Vec::new();
        let guarded = names.iter().filter(|name| {
            let source = self.scope.find(name).and_then(|(step, block)| block.unwrap_or(step).guard());
            source.is_some() && source != self.step.guard()
        });
        for need in written.chain(guarded.map(|name| Need { name: name.clone(), optional: true })) {
            // A guard is never optional: without its answer nothing says that the step is wanted.
            let is_guard = self.step.guard().is_some_and(|(guard, _)| guard == need.name);
            let need = Need { name: self.slot(&need.name, false), optional: need.optional && !is_guard };
            if !needs.iter().any(|known| known.name == need.name) {
                needs.push(need);
            }
        }
        needs
    }

    /// The expression for a step, here.
    fn expression(&self, id: &str) -> String {
        match &self.around {
            Some(around) => around.expression(self.scope, id),
            None => self.scope.expression(id),
        }
    }

    /// The node that a slot names, here.
    fn slot(&self, id: &str, is_formula: bool) -> String {
        match &self.around {
            Some(around) => around.slot(self.scope, id, is_formula),
            None => self.scope.slot(id, is_formula),
        }
    }
}
