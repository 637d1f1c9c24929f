//! Answers the scheduler's questions as a driver would, out of the world: names are looked up by the scheduler, nothing is evaluated.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::world::World;
use crate::event::{DecideField, Decision};
use crate::expr::{NameUse, Tree};
use crate::failure::StepError;
use crate::graph::{Field, Graph, Node, Work};
use crate::id::{StepId, ValueHash};
use crate::scheduler::{ChildResult, Children, Resolved, Scheduler, Scope};

/// What has been answered so far, as far as later answers need it.
pub(super) struct Answers<'w> {
    world: &'w World,
    drawn: &'w [Arc<Graph>],
    /// What a call was handed, by its step.
    inputs: BTreeMap<StepId, Value>,
}

type Seen = BTreeMap<String, Value>;

impl<'w> Answers<'w> {
    pub(super) fn new(world: &'w World, drawn: &'w [Arc<Graph>]) -> Self {
        Self { world, drawn, inputs: BTreeMap::new() }
    }

    /// What the work of a step reads.
    pub(super) fn sees(&self, scheduler: &Scheduler, step: StepId) -> Value {
        let node = scheduler.node(step).expect("BUG: the root reads nothing");
        let mut seen = Seen::new();
        for field in node.code.fields.values() {
            let scope = Scope::Step(step);
            match field {
                Field::Tree(tree) => self.look(scheduler, scope, tree, &mut seen),
                Field::Template(template) => self.look_up(scheduler, scope, template.names(), &mut seen),
                Field::Slotted(_) | Field::Formula(_) | Field::Literal(_) => {}
            }
        }
        json!(seen)
    }

    fn saw(&self, scheduler: &Scheduler, scope: Scope, tree: Option<&Tree>) -> Value {
        let mut seen = Seen::new();
        tree.into_iter().for_each(|tree| self.look(scheduler, scope, tree, &mut seen));
        json!(seen)
    }

    fn look(&self, scheduler: &Scheduler, scope: Scope, tree: &Tree, seen: &mut Seen) {
        for (_, leaf) in tree.leaves() {
            self.look_up(scheduler, scope, leaf.names(), seen);
        }
    }

    fn look_up(&self, scheduler: &Scheduler, scope: Scope, names: &[NameUse], seen: &mut Seen) {
        for mention in names.iter().filter(|mention| &*mention.name != "this") {
            let of = mention.attributes.first();
            let value = |resolved| self.value_of(scheduler, resolved, mention);
            let (key, value) = match (&*mention.name, of) {
                ("last", Some(of)) => (format!("last.{of}"), scheduler.last(scope, of).map_or(json!("none"), value)),
                ("past", Some(of)) => {
                    let past = scheduler.history(scope, of);
                    (format!("past.{of}"), past.map_or(json!("none"), |past| past.into_iter().map(value).collect()))
                }
                ("error", Some(of)) => {
                    let step = scheduler.resolve_step(scope, of);
                    let failed = step.is_some_and(|step| scheduler.error(step).is_some());
                    (format!("error.{of}"), if failed { json!("error") } else { Value::Null })
                }
                ("iteration", _) => ("iteration".to_owned(), json!(scheduler.iteration(scope))),
                ("pass", _) => ("pass".to_owned(), json!(scheduler.pass(scope))),
                (name, _) => (name.to_owned(), value(scheduler.resolve(scope, name))),
            };
            seen.insert(key, value);
        }
    }

    fn value_of(&self, scheduler: &Scheduler, resolved: Resolved, mention: &NameUse) -> Value {
        match resolved {
            Resolved::Value(hash) => value(hash),
            Resolved::Null => Value::Null,
            Resolved::Number(number) => json!(number),
            Resolved::Item { list, index } => json!([list, index]),
            Resolved::Input { frame_step } => self.inputs.get(&frame_step).cloned().unwrap_or_default(),
            Resolved::Unknown => json!("unknown"),
            Resolved::Unsettled(step) => {
                panic!("`{}` is read too early, of `{}`", mention.name, scheduler.path(step))
            }
        }
    }

    /// The answer to a question.
    pub(super) fn decide(&mut self, scheduler: &Scheduler, step: StepId, field: DecideField) -> Decision {
        let path = scheduler.path(step);
        let answer = match scheduler.node(step) {
            None => self.root(scheduler, step, field),
            Some(node) => self.answer(scheduler, step, field, node, &path),
        };
        answer.unwrap_or_else(Decision::Failed)
    }

    fn root(&self, scheduler: &Scheduler, step: StepId, field: DecideField) -> Result<Decision, StepError> {
        match field {
            DecideField::Value => self.frame(scheduler, step, "").map(Decision::Value),
            _ => Ok(Decision::Value(World::made("best", "", &Value::Null))),
        }
    }

    fn answer(
        &mut self,
        scheduler: &Scheduler,
        step: StepId,
        field: DecideField,
        node: &Node,
        path: &str,
    ) -> Result<Decision, StepError> {
        let (world, code) = (self.world, &node.code);
        let saw = |tree| self.saw(scheduler, Scope::Step(step), tree);
        Ok(match field {
            DecideField::Guard => Decision::Guard(world.guard(path, &saw(code.guard.as_deref()))?),
            DecideField::Counts => Decision::Counts(code.counts.iter().map(|(_, tree)| count(tree)).collect()),
            DecideField::Items => {
                let count = world.items(path, &saw(code.items.as_deref()))?;
                Decision::Items { list: ValueHash::of(&json!(path)), count }
            }
            DecideField::Stop => {
                Decision::Stop(world.stop(path, scheduler.prefix(step), &saw(code.stop.as_deref()))?)
            }
            DecideField::Again => {
                let last = scheduler.last_pass(step).expect("a question about a pass that is not complete");
                let pass = scheduler.path(last).rsplit('#').next().and_then(|pass| pass.parse().ok());
                let pass = pass.expect("BUG: a pass without a number");
                let in_body = matches!(node.work, Work::Group(_)) && scheduler.body(last).is_some();
                let scope = if in_body { Scope::Body(last) } else { Scope::Step(last) };
                Decision::Again(world.again(path, pass, &self.saw(scheduler, scope, code.until.as_deref()))?)
            }
            DecideField::Route => self.route(scheduler, step, node, path),
            DecideField::Input => {
                let saw = self.sees(scheduler, step);
                let calls = world.input(path, &saw)?;
                let hash = World::made("input", path, &saw);
                self.inputs.insert(step, json!(hash));
                Decision::Input {
                    hash,
                    calls: if matches!(node.work, Work::Leaf) { calls } else { 0 },
                    key: None,
                    held: false,
                }
            }
            DecideField::Graph => {
                let number = world.drawn(path, self.drawn.len())?;
                Decision::Graph { plan: ValueHash::of(&json!(number)), graph: self.drawn[number].clone() }
            }
            DecideField::Value => Decision::Value(self.value(scheduler, step, node, path)?),
            DecideField::ErrorValue => {
                world.value("error", path)?;
                Decision::Value(World::made("error", path, &Value::Null))
            }
            DecideField::Default => {
                world.value("default", path)?;
                Decision::Value(World::made("default", path, &self.sees(scheduler, step)))
            }
            DecideField::BestOutput => panic!("BUG: not asked of this workflow"),
        })
    }

    fn route(&self, scheduler: &Scheduler, step: StepId, node: &Node, path: &str) -> Decision {
        let mut passed_over = None;
        for (number, (case, spent)) in node.next.iter().zip(scheduler.spent(step)).enumerate() {
            let saw = self.saw(scheduler, Scope::Step(step), node.code.cases[number].as_ref());
            if case.guarded && !self.world.route(path, number, &saw) {
                continue;
            }
            let number = Some(number as u32);
            if !spent {
                return Decision::Route { case: number, passed_over };
            }
            if case.bound.is_some_and(|bound| bound.fails) {
                return Decision::Route { case: None, passed_over: number };
            }
            passed_over = passed_over.or(number);
        }
        Decision::Route { case: None, passed_over }
    }

    fn value(&self, scheduler: &Scheduler, step: StepId, node: &Node, path: &str) -> Result<ValueHash, StepError> {
        if matches!(node.work, Work::Loop(_)) {
            return Ok(ValueHash::of(&Value::Null));
        }
        if scheduler.has_passes(step) {
            let pass = scheduler.last_pass(step).map(|pass| scheduler.child_result(pass));
            let null = ValueHash::of(&Value::Null);
            return Ok(if let Some(ChildResult::Value(hash)) = pass { hash } else { null });
        }
        if !scheduler.does_work(step) {
            self.world.value("value", path)?;
            let Some(Children::Items(items)) = scheduler.children(step) else { panic!("a list without items") };
            let kept = items.into_iter().filter(|result| *result != ChildResult::Dropped);
            let list: Value = kept
                .map(|result| if let ChildResult::Value(hash) = result { value(hash) } else { Value::Null })
                .collect();
            return Ok(World::made("list", path, &list));
        }
        match &node.work {
            Work::Value => {
                self.world.value("value", path)?;
                Ok(World::made("value", path, &self.sees(scheduler, step)))
            }
            Work::Leaf | Work::Human { .. } => {
                self.world.value("value", path)?;
                Ok(scheduler.value(step).expect("a leaf without its raw value"))
            }
            Work::Group(_) | Work::Call(_) | Work::Expand | Work::Loop(_) => self.frame(scheduler, step, path),
        }
    }

    /// The value of a frame over a graph.
    fn frame(&self, scheduler: &Scheduler, step: StepId, path: &str) -> Result<ValueHash, StepError> {
        self.world.value("value", path)?;
        let graph = scheduler.body(step).expect("a value of a frame without a graph");
        let scope = Scope::Body(step);
        let mut seen = Seen::new();
        match &graph.output {
            Some(tree) => self.look(scheduler, scope, tree, &mut seen),
            None => {
                for name in graph.names().filter(|name| !name.starts_with("loop(")) {
                    let resolved = scheduler.resolve(scope, name);
                    let resolved = if let Resolved::Value(hash) = resolved { value(hash) } else { Value::Null };
                    seen.insert(name.to_string(), resolved);
                }
            }
        }
        Ok(World::made("frame", path, &json!(seen)))
    }
}

/// A value as accounts note it: null is null, wherever it comes from.
fn value(hash: ValueHash) -> Value {
    if hash == ValueHash::of(&Value::Null) { Value::Null } else { json!(hash) }
}

/// What an expression such as `2 + 0` says.
fn count(tree: &Tree) -> u32 {
    let text = tree.leaves().first().map(|(_, leaf)| leaf.text().to_owned()).unwrap_or_default();
    text.split(" + ").next().and_then(|count| count.parse().ok()).expect("BUG: a count that is no sum")
}
