//! What a leaf is given to work on: its rendered fields, its model, its key.

use std::sync::Arc;

use serde_json::Value;

use super::Driver;
use super::evaluate::Evaluated;
use crate::definition::ModelDef;
use crate::event::Decision;
use crate::graph::{Field, Node, NodeCode};
use crate::id::{StepId, ValueHash};
use crate::node::{Fields, Input, ModelChoice, REPAIR_TURNS};
use crate::scheduler::Scope;

/// The input of a leaf that has nothing to evaluate.
pub(super) fn constant_input(code: &NodeCode) -> Input {
    let constant = |(name, field): (&Arc<str>, &Field)| Some((name.clone(), field.constant()?.clone()));
    let fields = code.fields.iter().filter_map(constant).collect();
    Input { fields, schema: code.schema.clone(), model: ModelChoice::default(), rules: code.expansion.clone() }
}

impl Driver {
    /// Answers `Decide(Input)` of a leaf.
    pub(super) fn leaf_input(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        let input = self.render(step, &node.code)?;
        let calls = calls_of_one_attempt(&node.code, &input.fields);
        let hash = self.announce(&node.code, &input);
        let key = self.key(step, &node.code, &input, hash)?;
        self.rendered.insert(step, input);
        let held = self.recall(step, key, &node.code);
        Ok(Decision::Input { hash, calls, key: key.map(|key| key.hash), held })
    }

    /// The rendered input of a leaf.
    pub(super) fn render(&mut self, step: StepId, code: &NodeCode) -> Evaluated<Input> {
        let mut fields = Vec::with_capacity(code.fields.len());
        for (name, field) in &code.fields {
            let value = match field {
                Field::Template(template) => Value::String(self.text(step, name, template)?),
                Field::Slotted(slotted) => Value::String(self.question(step, code, slotted)?),
                Field::Formula(formula) => Value::String(formula.text().to_owned()),
                Field::Tree(tree) => self.tree(Scope::Step(step), name, Some(tree), None)?,
                Field::Literal(value) => value.clone(),
            };
            fields.push((name.clone(), value));
        }
        let fields: Fields = fields.into_iter().collect();
        let model = if code.asks() { self.model(step, &fields) } else { ModelChoice::default() };
        Ok(Input { fields, schema: code.schema.clone(), model, rules: code.expansion.clone() })
    }

    /// Tells the observers and the store of a rendered input.
    pub(super) fn announce(&mut self, code: &NodeCode, input: &Input) -> ValueHash {
        let json_schema = input.schema.as_ref().map(|schema| schema.json_schema());
        self.values.announce_input(&code.kind, &input.fields, json_schema)
    }

    fn model(&self, step: StepId, fields: &Fields) -> ModelChoice {
        let alias = fields.get("model").and_then(Value::as_str).map(str::to_owned);
        let declared = self.declared_model(step, alias.as_deref().unwrap_or("default"));
        ModelChoice { alias, declared }
    }

    /// What the innermost workflow around a step that declares the alias says about it.
    fn declared_model(&self, step: StepId, alias: &str) -> Option<Arc<ModelDef>> {
        let around = std::iter::successors(Some(step), |step| self.scheduler.parent(*step));
        around.filter_map(|step| self.scheduler.body(step)).find_map(|graph| graph.models.get(alias).cloned())
    }
}

/// Most model calls of one attempt: one, and the repair turns of whatever must be structured.
fn calls_of_one_attempt(code: &NodeCode, fields: &Fields) -> u32 {
    if !code.spec.as_ref().is_some_and(|spec| spec.calls_model) {
        return 0;
    }
    let structured = code.schema.is_some() || code.expansion.is_some();
    let repair = fields.get("repair").and_then(Value::as_u64).map_or(REPAIR_TURNS, |turns| turns.min(100) as u32);
    1 + if structured { repair } else { 0 }
}
