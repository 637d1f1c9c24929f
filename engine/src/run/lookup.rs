//! What the names in a text mean: values of nodes, items, inputs, earlier passes, errors.
//!
//! A text or expression is given just the names that it mentions, so an evaluation costs what it reads, not what exists.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Driver;
use super::evaluate::{Evaluated, expression_error};
use crate::expr::{BareName, Datum, NameUse, Scope as Names, Template, Tree};
use crate::id::StepId;
use crate::scheduler::{Resolved, Scope};

/// The names of one evaluation, in order.
struct Known(Vec<(Arc<str>, Arc<Datum>)>);

impl Names for Known {
    fn get(&self, name: &str) -> Option<Arc<Datum>> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(self.0[at].1.clone())
    }
}

impl Driver {
    /// Evaluates a tree of expressions, leaf by leaf; a leaf that is a bare name is that value and needs no evaluation.
    pub(super) fn tree(
        &mut self,
        scope: Scope,
        field: &str,
        tree: Option<&Tree>,
        this: Option<Value>,
    ) -> Evaluated<Value> {
        let tree = tree.unwrap_or_else(|| panic!("BUG: `{field}` was asked for and is not there"));
        let this = this.map(Datum::new);
        tree.eval(|leaf| {
            let bare = match leaf.bare_name() {
                Some(BareName::Node(node)) => self.json_of(self.scheduler.step_of(scope, node)),
                Some(BareName::Other("this")) => this.as_ref().map(|this| this.json().clone()),
                Some(BareName::Other(name)) => self.named(scope, name).map(|value| value.json().clone()),
                None => None,
            };
            match bare {
                Some(value) => Ok(value),
                None => leaf.eval(&self.known(scope, leaf.names(), this.as_ref())),
            }
        })
        .map_err(|error| expression_error(field, &error))
    }

    pub(super) fn text(&mut self, step: StepId, field: &str, template: &Template) -> Evaluated<String> {
        let known = self.known(Scope::Step(step), template.names(), None);
        template.render(&known).map_err(|error| expression_error(field, &error))
    }

    fn known(&mut self, scope: Scope, mentions: &[NameUse], this: Option<&Arc<Datum>>) -> Arc<dyn Names> {
        let mut known = Vec::with_capacity(mentions.len() + 1);
        for (index, mention) in mentions.iter().enumerate().filter(|(_, mention)| *mention.name != *"this") {
            let special = matches!(&*mention.name, "last" | "past" | "error" | "iteration" | "pass");
            let value = match special {
                true if mentions[..index].iter().any(|before| before.name == mention.name) => None,
                true => self.special(scope, &mention.name, mentions),
                false => self.mentioned(scope, mention),
            };
            known.extend(value.map(|value| (mention.name.clone(), value)));
        }
        known.extend(this.map(|this| ("this".into(), this.clone())));
        known.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Arc::new(Known(known))
    }

    /// What loops and errors are called: of `last`, `past` and `error` just the nodes that the text mentions.
    fn special(&mut self, scope: Scope, name: &str, mentions: &[NameUse]) -> Option<Arc<Datum>> {
        match name {
            "iteration" => return self.scheduler.iteration(scope).map(|pass| Datum::new(Value::from(pass))),
            "pass" => return Some(Datum::new(Value::from(self.scheduler.pass(scope)))),
            _ => {}
        }
        let nodes = mentions.iter().filter(|mention| *mention.name == *name);
        let mut known = Map::new();
        for node in nodes.filter_map(|mention| mention.attributes.first()) {
            let value = match name {
                "last" => self.scheduler.last(scope, node).map(|value| self.json_or_null(value)),
                "past" => self
                    .scheduler
                    .history(scope, node)
                    .map(|past| past.into_iter().map(|value| self.json_or_null(value)).collect()),
                _ => Some(self.error_of(scope, node)),
            };
            known.insert(node.clone(), value.unwrap_or_default());
        }
        Some(Datum::new(Value::Object(known)))
    }

    pub(super) fn json_or_null(&self, resolved: Resolved) -> Value {
        self.resolved(resolved).map_or(Value::Null, |value| value.json().clone())
    }

    /// `{code, message}` of a node that failed, else null.
    fn error_of(&self, scope: Scope, node: &str) -> Value {
        let step = self.scheduler.resolve_step(scope, node);
        match step.and_then(|step| self.scheduler.error(step)) {
            Some(error) => json!({"code": error.code, "message": error.message}),
            None => Value::Null,
        }
    }

    /// The value of a name that a text mentions.
    fn mentioned(&mut self, scope: Scope, mention: &NameUse) -> Option<Arc<Datum>> {
        match mention.node {
            Some(node) => self.value_of(self.scheduler.step_of(scope, node)),
            None => self.named(scope, &mention.name),
        }
    }

    /// The value of a name; null for a node that gave none.
    pub(super) fn named(&mut self, scope: Scope, name: &str) -> Option<Arc<Datum>> {
        match self.scheduler.resolve(scope, name) {
            Resolved::Input { frame_step } => self.inputs_of(frame_step).get(name).cloned(),
            resolved => self.resolved(resolved),
        }
    }

    /// The value of a step; null if it gave none.
    fn value_of(&self, step: StepId) -> Option<Arc<Datum>> {
        match self.values.of_step(step) {
            Some(value) => Some(value.clone()),
            None => self.resolved(self.scheduler.resolved(step)),
        }
    }

    fn json_of(&self, step: StepId) -> Option<Value> {
        match self.values.of_step(step) {
            Some(value) => Some(value.json().clone()),
            None => self.resolved(self.scheduler.resolved(step)).map(|value| value.json().clone()),
        }
    }

    fn resolved(&self, resolved: Resolved) -> Option<Arc<Datum>> {
        match resolved {
            Resolved::Value(hash) => Some(self.values.get(hash).clone()),
            Resolved::Null => Some(Datum::new(Value::Null)),
            Resolved::Number(number) => Some(Datum::new(Value::from(number))),
            Resolved::Item { list, index } => Some(Datum::new(self.values.get(list).json()[index as usize].clone())),
            Resolved::Unsettled(step) => Some(Datum::new(self.unfinished_value(step))),
            Resolved::Input { .. } | Resolved::Unknown => None,
        }
    }

    fn inputs_of(&mut self, frame_step: StepId) -> &BTreeMap<String, Arc<Datum>> {
        let (scheduler, values) = (&self.scheduler, &self.values);
        self.inputs.entry(frame_step).or_insert_with(|| {
            let hash = scheduler.input(frame_step).expect("BUG: a closed frame without inputs");
            let inputs = values.get(hash).json().as_object().expect("BUG: inputs are no map");
            inputs.iter().map(|(name, value)| (name.clone(), Datum::new(value.clone()))).collect()
        })
    }
}
