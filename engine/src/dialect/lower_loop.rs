//! A loop of a plan as a group that repeats.
//!
//! `{id: n, ask: "1", type: calc, repeat: {again: "{n} * 2", until: "{n} > 100", max: 20}}` becomes
//!
//! ```yaml
//! n:
//!   kind: group
//!   repeat: {until: n_done, max: 21}
//!   nodes:
//!     n_first: {kind: calc, when: iteration == 0, calc: "1"}
//!     n_now: {kind: set, needs: ["n_first?"], value: last.n_next | default(n_first)}
//!     n_done: {kind: calc, calc: "{n_now} > 100"}
//!     n_next: {kind: calc, when: iteration < 20 and not n_done, calc: "{n_now} * 2"}
//!   output: {value: n_now, repeated: iteration, values: past.n_now + [n_now]}
//! ```
//!
//! so a first value that is good already is never changed, and nothing is asked that nobody reads. A failing pass fails the loop, and
//! whatever a loop mentions from outside it requires: with a part unknown it would ask nonsense until its bound.

use std::cell::RefCell;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::lower::{IN_LOOP, Lowering, Scope, set};
use super::parse::bad;
use super::{PlanStep, Repeat, StepType, is_truth};
use crate::calc::Formula;
use crate::definition::{ErrorPolicyDef, Need, NodeDef, RepeatDef};
use crate::diagnostic::Diagnostic;
use crate::schema::Schema;

/// The loop around a text.
pub(super) struct Around<'s> {
    /// What the steps of the loop mean here, as expressions.
    own: IndexMap<String, String>,
    found: &'s Found,
}

/// What the texts of a loop were found to need.
#[derive(Default)]
struct Found {
    /// Nodes that say what a step gave in the pass before.
    before: RefCell<IndexMap<String, NodeDef>>,
    /// Nodes outside that are mentioned.
    outside: RefCell<Vec<String>>,
}

impl Around<'_> {
    pub(super) fn expression(&self, scope: &Scope, id: &str) -> String {
        if let Some(own) = self.own.get(id) {
            return own.clone();
        }
        let expression = scope.expression(id);
        self.found.note(scope, id, expression.split('.').next().unwrap_or(id));
        expression
    }

    pub(super) fn slot(&self, scope: &Scope, id: &str, is_formula: bool) -> String {
        let Some(own) = self.own.get(id) else {
            let name = scope.slot(id, is_formula);
            self.found.note(scope, id, &name);
            return name;
        };
        if !own.starts_with("last.") {
            return own.clone();
        }
        let name = scope.free(format!("{id}_before"));
        self.found.before.borrow_mut().insert(name.clone(), set(json!(own)));
        name
    }
}

impl Found {
    fn note(&self, scope: &Scope, id: &str, node: &str) {
        let mut outside = self.outside.borrow_mut();
        if scope.find(id).is_some() && !outside.iter().any(|known| known == node) {
            outside.push(node.to_owned());
        }
    }
}

impl<'p> Lowering<'_, 'p> {
    /// The group of a step that repeats.
    pub(super) fn repeated(&self, repeat: &'p Repeat, problems: &mut Vec<Diagnostic>) -> NodeDef {
        let found = Found::default();
        let mut group = match repeat.steps.as_slice() {
            [] => self.single(repeat, &found, problems),
            steps => self.block(repeat, steps, &found, problems),
        };
        group.kind = "group".to_owned();
        group.on_error = ErrorPolicyDef::Skip;
        let written = self.step.needs.iter();
        let written =
            written.map(|need| Need { name: need.trim_end_matches('?').to_owned(), optional: need.ends_with('?') });
        let mentioned = found.outside.take().into_iter().map(|name| Need { name, optional: false });
        for need in mentioned.chain(written) {
            if !group.needs.iter().any(|known| known.name == need.name) {
                group.needs.push(need);
            }
        }
        self.guard(&mut group, problems);
        if self.step.each.is_some() {
            problems.push(bad(format!("{}.each", self.path), "a step that repeats is not asked for each element"));
        }
        group
    }

    fn single(&self, repeat: &Repeat, found: &Found, problems: &mut Vec<Diagnostic>) -> NodeDef {
        let (scope, step) = (self.scope, self.step);
        let part = |part: &str| scope.free(format!("{}_{part}", step.id));
        let (first, now, done, next) = (part("first"), part("now"), part("done"), part("next"));
        let inside = |own: &[(&str, &str)]| Lowering {
            scope,
            path: self.path.clone(),
            step,
            around: Some(Around {
                own: own.iter().map(|(id, name)| ((*id).to_owned(), (*name).to_owned())).collect(),
                found,
            }),
        };
        let mut nodes = IndexMap::new();
        let asked = inside(&[]).work("ask", &step.ask, computed(step.kind, &step.ask), IN_LOOP, problems);
        nodes.insert(first.clone(), asked.when("iteration == 0"));
        let mut value = set(json!(format!("last.{next} | default({first})")));
        value.needs = vec![Need { name: first.clone(), optional: true }];
        if step.kind == StepType::Number {
            value.schema = Schema::from_json_schema(json!({"type": "number"})).ok();
        }
        nodes.insert(now.clone(), value);
        let inside = inside(&[(&step.id, &now)]);
        if let Some(until) = &repeat.until {
            let kind = if computed(step.kind, until) == StepType::Calc { StepType::Calc } else { StepType::YesNo };
            if kind == StepType::Calc && !Formula::parse(until).is_ok_and(|formula| formula.is_comparison()) {
                problems.push(bad(format!("{}.repeat.until", self.path), "`until` is a comparison with > < = here"));
            }
            nodes.insert(done.clone(), inside.work("repeat.until", until, kind, IN_LOOP, problems));
        }
        let max = repeat.max.unwrap_or_default();
        let again = inside.work("repeat.again", &repeat.again, computed(step.kind, &repeat.again), IN_LOOP, problems);
        let goes_on = if repeat.until.is_some() { format!(" and not {done}") } else { String::new() };
        nodes.insert(next, again.when(format!("iteration < {max}{goes_on}")));
        NodeDef {
            repeat: Some(RepeatDef {
                until: repeat.until.as_ref().map(|_| json!(done)),
                max: Some(json!(u64::from(max) + 1)),
                limit_fails: false,
            }),
            nodes,
            output: Some(report(json!(now), &now)),
            ..NodeDef::default()
        }
    }

    /// A block of steps: one that is read before it is reached means the pass before.
    fn block(&self, repeat: &Repeat, steps: &'p [PlanStep], found: &Found, problems: &mut Vec<Diagnostic>) -> NodeDef {
        let mut nodes = IndexMap::new();
        for (at, step) in steps.iter().enumerate() {
            let meaning = |(index, other): (usize, &PlanStep)| {
                let name = if index < at { other.id.clone() } else { format!("last.{}", other.id) };
                (other.id.clone(), name)
            };
            let around = Around { own: steps.iter().enumerate().map(meaning).collect(), found };
            let path = format!("{}.repeat.steps[{at}]", self.path);
            let node = Lowering { scope: self.scope, path, step, around: Some(around) }.node(problems);
            nodes.insert(step.id.clone(), node);
        }
        let pass = self.scope.free(format!("{}_pass", self.step.id));
        let value = |step: &PlanStep| (step.id.clone(), json!(format!("{} | default(none)", step.id)));
        nodes.insert(pass.clone(), set(Value::Object(steps.iter().map(value).collect())));
        nodes.extend(found.before.take());
        if let Some(until) = &repeat.until
            && !steps.iter().any(|step| step.id == *until && is_truth(step))
        {
            let message = "`until` names no yes-or-no step of the block";
            problems.push(bad(format!("{}.repeat.until", self.path), message));
        }
        NodeDef {
            repeat: Some(RepeatDef {
                until: repeat.until.as_ref().map(|until| json!(until)),
                max: Some(json!(repeat.max.unwrap_or_default())),
                limit_fails: false,
            }),
            nodes,
            output: Some(report(json!(pass), &pass)),
            ..NodeDef::default()
        }
    }
}

/// The value of a loop: the last value, how often it was made anew, and all of them in order.
fn report(value: Value, of: &str) -> Value {
    json!({"value": value, "repeated": "iteration", "values": format!("past.{of} + [{of}]")})
}

/// How a text of a loop is worked out: what reads as a formula is computed where numbers are wanted.
fn computed(kind: StepType, text: &str) -> StepType {
    let is_formula = kind == StepType::Number && Formula::parse(text).is_ok();
    if is_formula { StepType::Calc } else { kind }
}
