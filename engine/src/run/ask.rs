//! The text of an `ask`: literal, with values in place of its slots and the answers that it does not mention below it.

use serde_json::Value;

use super::Driver;
use super::evaluate::{Evaluated, expression_error};
use crate::expr::{ExprError, Slotted, print_items, print_value};
use crate::graph::{Field, NodeCode};
use crate::id::StepId;
use crate::scheduler::{ChildResult, Children, Scope};

impl Driver {
    /// An `ask` text: slots replaced in one pass, then what `needs` names and the text does not mention.
    pub(super) fn question(&mut self, step: StepId, code: &NodeCode, ask: &Slotted) -> Evaluated<String> {
        let mut text = self.asked(step, ask)?;
        let mut entries = String::new();
        for source in &code.appended {
            let Some(source) = self.scheduler.resolve_step(Scope::Step(step), source) else { continue };
            let Some(answer) = self.printed_step(source) else { continue };
            let question = self.asked_of(source)?;
            entries.push_str(&format!("Q: {question}\nA: {answer}\n"));
        }
        if !entries.is_empty() {
            text = format!("{text}\n\n{}", entries.trim_end());
        }
        Ok(text)
    }

    fn asked(&mut self, step: StepId, ask: &Slotted) -> Evaluated<String> {
        let printed = |name: &str| -> Result<String, ExprError> {
            let source = self.scheduler.resolve_step(Scope::Step(step), name);
            let text = match source {
                Some(source) => Some(self.printed_step(source).unwrap_or_else(|| print_value(&Value::Null))),
                None => self.named(Scope::Step(step), name).map(|value| print_value(value.json())),
            };
            Ok(text.unwrap_or_else(|| format!("{{{name}}}")))
        };
        ask.render(printed).map_err(|error| expression_error("ask", &error))
    }

    /// What a node was asked: its `ask` after replacing, its formula, else its name.
    fn asked_of(&mut self, step: StepId) -> Evaluated<String> {
        let code = self.scheduler.node(step).map(|node| node.code.clone()).expect("BUG: the root was never asked");
        match code.fields.get("ask").or_else(|| code.fields.get("calc")) {
            Some(Field::Slotted(ask)) => self.asked(step, ask),
            Some(Field::Formula(formula)) => Ok(formula.text().to_owned()),
            _ => Ok(self.scheduler.name(step).to_owned()),
        }
    }

    /// A step's value as text; `None` if it is null.
    fn printed_step(&self, step: StepId) -> Option<String> {
        let value = self.values.get(self.scheduler.value(step)?).json();
        if value.is_null() {
            return None;
        }
        let Some(list) = self.scheduler.items(step) else { return Some(print_value(value)) };
        let Some(Children::Items(children)) = self.scheduler.children(step) else {
            panic!("BUG: items without a frame")
        };
        let items = self.values.get(list).json().as_array().into_iter().flatten().zip(&children);
        let kept: Value =
            items.filter(|(_, result)| **result != ChildResult::Dropped).map(|(item, _)| item.clone()).collect();
        Some(print_items(&kept, value))
    }
}
