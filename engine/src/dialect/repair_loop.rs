//! Repairs of steps that repeat, among those of `repair.rs`.

#![expect(clippy::ptr_arg, reason = "all rules are of one type")]

use std::sync::LazyLock;

use regex::Regex;

use super::repair::{Context, Repair, done, has_slot, replace_slot};
use super::{PlanStep, StepType, formula};
use crate::calc::Formula;

/// An `until` that only says how often.
static TIMES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^\s*(?:done |repeated |after )*(\d{1,9}) times\s*\.?\s*$").expect("BUG: a fixed pattern")
});

pub(super) fn under_each(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let step = steps.iter_mut().find(|step| step.repeat.is_some() && step.each.is_some())?;
    let source = step.each.take().unwrap_or_default();
    replace_slot(step, "item", &source);
    done(&step.id, format!("a step that repeats is not asked for each element; `each: {source}` was dropped"))
}

/// What is done again makes the next value out of the current one: it mentions it, and under `calc` it is a formula.
pub(super) fn bad_again(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let all: Vec<String> = steps.iter().map(|step| step.id.clone()).collect();
    let ids: Vec<&str> = all.iter().map(String::as_str).collect();
    for step in steps.iter_mut().filter(|step| step.block().is_empty()) {
        let Some(repeat) = &mut step.repeat else { continue };
        let own = format!("{{{}}}", step.id);
        if repeat.again.trim().is_empty() {
            step.repeat = None;
            return done(&step.id, "`repeat` says nothing to do again and was dropped");
        }
        if step.kind == StepType::Calc {
            let Some(next) = next_formula(&repeat.again, &step.ask, &step.id, &ids) else {
                step.kind = StepType::Number;
                return done(&step.id, "what is done again is no formula; it is asked as a number");
            };
            if next != repeat.again {
                repeat.again.clone_from(&next);
                return done(&step.id, format!("what is done again was read as `{next}`"));
            }
        } else if !has_slot(&repeat.again, &step.id) {
            repeat.again = format!("{} {own}", repeat.again.trim());
            return done(&step.id, format!("what is done again does not mention the value; `{own}` was appended"));
        }
    }
    None
}

/// The formula of the next value that a text most likely means: without what it is assigned to, with the value in it.
fn next_formula(text: &str, first: &str, id: &str, ids: &[&str]) -> Option<String> {
    let own = format!("{{{id}}}");
    let whole = match text.split_once('=') {
        Some((left, right)) if [id, own.as_str()].contains(&left.trim()) => right.trim(),
        Some((left, _)) if !left.ends_with(['<', '>']) => left.trim(),
        _ => text,
    };
    let whole = if whole.starts_with(['*', '/', '+', '-', '^', '×', '÷']) && !has_slot(whole, id) {
        format!("{own} {whole}")
    } else {
        whole.to_owned()
    };
    let next = if Formula::parse(&whole).is_ok() { whole } else { formula::read(&whole, ids)? };
    let first = format!(" {} ", first.trim());
    let spaced = format!(" {next} ");
    // A formula of constants would give the same value for ever: most likely the first value stands for the current one.
    if next.contains('{') || spaced.matches(&first).count() != 1 {
        return Some(next);
    }
    Some(spaced.replacen(&first, &format!(" {own} "), 1).trim().to_owned())
}

/// `until` is a question about the value or, where it is computed, a comparison; else only `max` ends the loop.
pub(super) fn bad_until(steps: &mut Vec<PlanStep>, _: &Context) -> Option<Repair> {
    let all: Vec<String> = steps.iter().map(|step| step.id.clone()).collect();
    let ids: Vec<&str> = all.iter().map(String::as_str).collect();
    for step in steps.iter_mut().filter(|step| step.block().is_empty()) {
        let Some(repeat) = &mut step.repeat else { continue };
        let Some(until) = repeat.until.clone() else { continue };
        if let Some(times) = TIMES.captures(&until).and_then(|found| found[1].parse().ok()) {
            (repeat.until, repeat.max) = (None, Some(times));
            return done(&step.id, format!("`until: {}` was read as `max: {times}`", until.trim()));
        }
        let own = format!("{{{}}}", step.id);
        let compares =
            |text: &str| text.contains('{') && Formula::parse(text).is_ok_and(|formula| formula.is_comparison());
        let is_calc = step.kind == StepType::Calc;
        let is_number = is_calc || step.kind == StepType::Number;
        if is_number && compares(&until) {
            continue;
        }
        let begins_with_sign = until.trim().starts_with(['<', '>', '=']);
        let whole = if begins_with_sign { format!("{own} {}", until.trim()) } else { until.clone() };
        let read =
            if compares(&whole) { Some(whole) } else { formula::read(&whole, &ids).filter(|text| compares(text)) };
        if let Some(read) = read.filter(|_| is_calc || (is_number && begins_with_sign)) {
            repeat.until = Some(read.clone());
            return done(&step.id, format!("`until` was read as `{read}`"));
        }
        let is_mentioned = has_slot(&until, &step.id);
        if is_calc || (Formula::parse(&until).is_ok() && !is_mentioned) {
            repeat.until = None;
            let what = format!("`until: {}` compares nothing with the value and was dropped", until.trim());
            return done(&step.id, what);
        }
        if !is_mentioned {
            repeat.until = Some(format!("{} {own}", until.trim()));
            return done(&step.id, format!("`until` does not mention the value; `{own}` was appended"));
        }
    }
    None
}

/// No loop without a bound, and none beyond the limit.
pub(super) fn bad_max(steps: &mut Vec<PlanStep>, context: &Context) -> Option<Repair> {
    let most = context.iterations_max;
    let step = steps
        .iter_mut()
        .find(|step| step.repeat.as_ref().is_some_and(|repeat| repeat.max.is_none_or(|max| max == 0 || max > most)))?;
    let repeat = step.repeat.as_mut()?;
    if repeat.max.is_none() && repeat.until.is_none() && repeat.steps.is_empty() {
        step.repeat = None;
        return done(&step.id, "nothing says when `repeat` ends; it was dropped");
    }
    repeat.max = Some(most);
    done(&step.id, format!("it repeats at most {most} times"))
}
