//! Deterministic repairs, to a fixpoint, each recorded.
//!
//! A small model that is shown its own bad plan returns the same plan; what mends plans is this. Each function below looks for
//! one thing that is wrong, mends the first and says so; they are tried in order until none finds anything. Every repair makes
//! the plan smaller or removes one defect for good, so this ends; a bound stands guard all the same.

#![expect(clippy::ptr_arg, reason = "all rules are of one type, and some of them remove steps")]

use std::fmt;

use serde::Serialize;

use super::repair_loop::{bad_again, bad_max, bad_until, under_each};
use super::{ANSWER, PlanStep, StepType, formula, is_truth};
use crate::calc::Formula;
use crate::definition::RESERVED;
use crate::diagnostic::did_you_mean;
use crate::expr::Slotted;

/// One repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// Id of the step, before the repair.
    pub step: String,
    /// What was done, for people.
    pub what: String,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.step, self.what)
    }
}

/// Repairs a plan. `keys` are the names beside `question` that its texts may mention, `iterations_max` bounds each loop. Of a block
/// of steps only the bound is repaired.
pub fn repair(
    mut steps: Vec<PlanStep>,
    question: &str,
    keys: &[String],
    iterations_max: u32,
) -> (Vec<PlanStep>, Vec<Repair>) {
    type Rule = fn(&mut Vec<PlanStep>, &Context) -> Option<Repair>;
    let rules: [Rule; 17] = [
        repeated_question, taken_id, doubled_id, equal_asks, bad_guard, under_each, bad_each, missing_item, stray_item,
        misspelt_slot, literal_number, bad_formula, bad_again, bad_until, bad_max, stated_result, mentioned_word,
    ];
    let context = Context { question: normal(question), keys, iterations_max };
    let mut repairs = Vec::new();
    let bound = 20 * steps.len() + 100;
    while repairs.len() < bound
        && let Some(repair) = rules.iter().find_map(|rule| rule(&mut steps, &context))
    {
        repairs.push(repair);
    }
    (steps, repairs)
}

pub(super) struct Context<'a> {
    question: String,
    keys: &'a [String],
    pub(super) iterations_max: u32,
}

pub(super) fn done(step: &str, what: impl Into<String>) -> Option<Repair> {
    Some(Repair { step: step.to_owned(), what: what.into() })
}

/// A text without case, spacing and punctuation at its ends.
fn normal(text: &str) -> String {
    let words: Vec<String> = text.to_lowercase().split_whitespace().map(str::to_owned).collect();
    words.join(" ").trim_matches(|c: char| !c.is_alphanumeric() && !"{}".contains(c)).to_owned()
}

fn position(steps: &[PlanStep], id: &str) -> Option<usize> {
    steps.iter().position(|step| step.id == id)
}

/// Renames every reference to a step (and not the step itself).
fn rename_references(steps: &mut [PlanStep], from: &str, to: &str) {
    for step in steps {
        replace_slot(step, from, to);
        for reference in [&mut step.each, &mut step.only_if, &mut step.unless].into_iter().flatten() {
            if reference == from {
                to.clone_into(reference);
            }
        }
        for need in &mut step.needs {
            if need.trim_end_matches('?') == from {
                *need = need.replace(from, to);
            }
        }
        if let Some(repeat) = &mut step.repeat {
            rename_references(&mut repeat.steps, from, to);
        }
    }
}

/// Changes what its texts mention; `item` means something else in each step of a block.
pub(super) fn replace_slot(step: &mut PlanStep, from: &str, to: &str) {
    let name = |name: &str| Ok(format!("{{{}}}", if name == from { to } else { name }));
    step.change_texts(|text| Slotted::parse(text).render(name).unwrap_or_else(|_| text.to_owned()));
    if let Some(repeat) = step.repeat.as_mut().filter(|_| from != "item") {
        repeat.steps.iter_mut().for_each(|inner| replace_slot(inner, from, to));
    }
}

/// The engine asks the question itself when all steps are answered.
fn repeated_question(steps: &mut Vec<PlanStep>, context: &Context) -> Option<Repair> {
    let repeats =
        |step: &PlanStep| step.tool.is_none() && step.block().is_empty() && normal(&step.ask) == context.question;
    let at = steps.iter().position(repeats)?;
    let dropped = steps.remove(at);
    for step in steps.iter_mut() {
        replace_slot(step, &dropped.id, "question");
        step.needs.retain(|need| need.trim_end_matches('?') != dropped.id);
    }
    done(&dropped.id, "it only repeats the question and was dropped")
}

/// Renames a step where it means itself: its loop does.
fn rename_own(step: &mut PlanStep, from: &str, to: &str) {
    if step.repeat.is_some() {
        let first = step.ask.clone();
        replace_slot(step, from, to);
        step.ask = first;
    }
    to.clone_into(&mut step.id);
}

fn taken_id(steps: &mut Vec<PlanStep>, context: &Context) -> Option<Repair> {
    let is_taken = |id: &str| {
        id == ANSWER || id == "question" || RESERVED.contains(&id) || context.keys.iter().any(|key| key == id)
    };
    let at = steps.iter().position(|step| is_taken(&step.id))?;
    let old = steps[at].id.clone();
    let new = format!("{old}_step");
    let is_key = old == "question" || context.keys.contains(&old);
    if !is_key {
        rename_references(steps, &old, &new);
    }
    rename_own(&mut steps[at], &old, &new);
    done(&old, format!("the id is taken; it is called `{new}` now"))
}

fn doubled_id(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let at = (1..steps.len()).find(|at| steps[..*at].iter().any(|other| other.id == steps[*at].id))?;
    let old = steps[at].id.clone();
    let new = (2..).map(|n| format!("{old}_{n}")).find(|new| position(steps, new).is_none())?;
    rename_own(&mut steps[at], &old, &new);
    done(&old, format!("the id is used twice; the second is called `{new}` now"))
}

fn equal_asks(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let same = |a: &PlanStep, b: &PlanStep| {
        let ask = a.tool.is_none() && b.tool.is_none() && normal(&a.ask) == normal(&b.ask);
        ask && a.kind == b.kind && a.each == b.each && a.guard() == b.guard() && a.repeat == b.repeat
    };
    let (at, first) = (1..steps.len())
        .find_map(|at| (0..at).find(|first| same(&steps[*first], &steps[at])).map(|first| (at, first)))?;
    let dropped = steps.remove(at);
    let kept = steps[first].id.clone();
    rename_references(steps, &dropped.id, &kept);
    done(&dropped.id, format!("it asks the same as `{kept}` and was merged with it"))
}

fn bad_guard(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let all = steps.clone();
    for step in steps.iter_mut() {
        if step.only_if.is_some() && step.unless.is_some() {
            step.unless = None;
            return done(&step.id, "it has two guards; `unless` was dropped");
        }
        let Some((guard, _)) = step.guard() else { continue };
        let holds = guard != step.id && position(&all, guard).is_some_and(|at| is_truth(&all[at]));
        if !holds {
            let what = format!("its guard `{guard}` is no yes-or-no step and was dropped");
            (step.only_if, step.unless) = (None, None);
            return done(&step.id, what);
        }
    }
    None
}

fn bad_each(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let all = steps.clone();
    for step in steps.iter_mut() {
        let Some(source) = step.each.clone() else { continue };
        let is_list = |at: usize| (all[at].kind == StepType::List || all[at].tool.is_some()) && all[at].each.is_none();
        let found = position(&all, &source).filter(|_| source != step.id);
        if step.kind == StepType::Calc || !found.is_some_and(is_list) {
            step.each = None;
            let to = if found.is_some() { source.as_str() } else { "question" };
            replace_slot(step, "item", to);
            return done(&step.id, format!("`each: {source}` does not name a list and was dropped"));
        }
    }
    None
}

fn missing_item(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let can_mention = |step: &PlanStep, source: &str| step.tool.is_none() || mentions(step, source);
    let lacks = |step: &&mut PlanStep| {
        step.each.as_ref().is_some_and(|source| !mentions(step, "item") && can_mention(step, source))
    };
    let step = steps.iter_mut().find(lacks)?;
    let source = step.each.clone().unwrap_or_default();
    if mentions(step, &source) {
        replace_slot(step, &source, "item");
        return done(&step.id, format!("under `each` the element is `{{item}}`, not `{{{source}}}`"));
    }
    step.ask.push_str(" {item}");
    done(&step.id, "its text does not mention the element; `{item}` was appended")
}

fn stray_item(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let at =
        steps.iter().position(|step| step.each.is_none() && step.kind != StepType::Calc && mentions(step, "item"))?;
    let mut lists = steps[..at].iter().filter(|step| step.kind == StepType::List && step.each.is_none());
    let list = lists.next().map(|step| step.id.clone()).filter(|_| lists.next().is_none())?;
    steps[at].each = Some(list.clone());
    done(&steps[at].id, format!("it mentions `{{item}}`; `each: {list}` was added"))
}

fn mentions(step: &PlanStep, name: &str) -> bool {
    step.texts().iter().any(|text| has_slot(text, name))
}

pub(super) fn has_slot(text: &str, name: &str) -> bool {
    Slotted::parse(text).slots().iter().any(|(slot, _)| slot == name)
}

fn misspelt_slot(steps: &mut Vec<PlanStep>, context: &Context) -> Option<Repair> {
    let ids: Vec<String> = steps.iter().map(|step| step.id.clone()).collect();
    for step in steps.iter_mut() {
        let slots = |text: &str| Slotted::parse(text).slots().iter().map(|(slot, _)| slot.clone()).collect::<Vec<_>>();
        for slot in &step.texts().into_iter().flat_map(slots).collect::<Vec<_>>() {
            let known =
                ids.contains(slot) || context.keys.contains(slot) || ["question", "item"].contains(&slot.as_str());
            let others = ids.iter().map(String::as_str).filter(|id| *id != step.id || step.repeat.is_some());
            if !known && let Some(near) = did_you_mean(slot, others) {
                let what = format!("`{{{slot}}}` names nothing; `{{{near}}}` was meant");
                replace_slot(step, slot, near);
                return done(&step.id, what);
            }
        }
    }
    None
}

fn literal_number(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let is_asked = |step: &&mut PlanStep| step.kind == StepType::Number && step.each.is_none();
    let literal = |step: &PlanStep| formula::literal(&step.ask).filter(|n| step.repeat.is_none() || *n != step.ask);
    let (step, number) = steps.iter_mut().filter(is_asked).find_map(|step| literal(step).map(|n| (step, n)))?;
    if step.repeat.is_none() {
        step.kind = StepType::Calc;
    }
    step.ask.clone_from(&number);
    done(&step.id, format!("it asks nothing; it is the constant {number}"))
}

fn bad_formula(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let all: Vec<String> = steps.iter().map(|step| step.id.clone()).collect();
    let step = steps.iter_mut().find(|step| step.kind == StepType::Calc && Formula::parse(&step.ask).is_err())?;
    let ids: Vec<&str> = all.iter().map(String::as_str).filter(|id| *id != step.id).collect();
    match formula::read(&step.ask, &ids) {
        Some(formula) => {
            step.ask.clone_from(&formula);
            done(&step.id, format!("its formula was read as `{formula}`"))
        }
        None => {
            step.kind = StepType::Number;
            done(&step.id, "its text is no formula; it is asked as a number")
        }
    }
}

/// `6 * 8 = 48` in a step that guards nothing is a calculation with the model's own result behind it: the result is dropped.
fn stated_result(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let guards: Vec<String> = steps.iter().filter_map(PlanStep::guard).map(|(id, _)| id.to_owned()).collect();
    for step in steps.iter_mut().filter(|step| step.kind == StepType::Calc && !guards.contains(&step.id)) {
        let Some((formula, result)) = step.ask.split_once('=') else { continue };
        let formula = formula.trim().to_owned();
        let calculates = formula.contains(['+', '-', '*', '/', '^', '(']);
        if calculates && formula::literal(result).is_some() && Formula::parse(&formula).is_ok() {
            step.ask.clone_from(&formula);
            return done(&step.id, format!("its stated result was dropped; it is computed as `{formula}`"));
        }
    }
    None
}

/// A text that names an earlier step's id as a word most likely wants its answer.
fn mentioned_word(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    for at in 1..steps.len() {
        let step = &steps[at];
        if step.kind == StepType::Calc || step.repeat.is_some() {
            continue;
        }
        let words: Vec<&str> = step.ask.split(|c: char| !c.is_alphanumeric() && !"_{}".contains(c)).collect();
        let linked = |id: &str| mentions(step, id) || step.needs.iter().any(|need| need.trim_end_matches('?') == id);
        let of = steps[..at].iter().find(|earlier| {
            words.contains(&earlier.id.as_str()) && !linked(&earlier.id) && step.each.as_ref() != Some(&earlier.id)
        });
        if let Some(id) = of.map(|earlier| earlier.id.clone()) {
            steps[at].needs.push(format!("{id}?"));
            return done(&steps[at].id, format!("its text names `{id}`; it is given that answer"));
        }
    }
    None
}
