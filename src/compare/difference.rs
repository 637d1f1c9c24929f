//! Two runs beside each other.
//!
//! Steps are matched by path. The *first difference* is found by following the log of the second run: it is the first event there
//! that decides something otherwise than the first run did, or that is of a step which the first run did not have. Whatever an event
//! follows from stands before it in the log, so everything that the step depends on was the same up to there. Only if nothing of the second run
//! is different, the first run is followed for what the second one did not come to. O(events × log steps).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use flowrun_engine::event::Usage;

use super::history::{Fact, Found, History, StepHistory, rest_of_key};
use super::parts::{Part, differing};
use crate::runs::RunLog;

/// One run of two, in short.
#[derive(Clone, Debug, Serialize)]
pub struct RunSide {
    /// Its id.
    pub run: String,
    /// The workflow's name.
    pub workflow: String,
    /// Identity of the workflow's definition.
    pub definition: Option<String>,
    /// How it ended, or how far it is.
    pub status: String,
    /// Its output; `None` if there is none.
    pub output: Option<Value>,
    /// What failed it.
    pub error: Option<String>,
    /// What it paid.
    pub usage: Usage,
    /// What it did not pay, because answers were found.
    pub saved: Usage,
    /// Steps whose answers were found; a value that was set by hand is none.
    pub found: u64,
    /// How long it was driven, in milliseconds.
    pub wall_ms: u64,
}

/// A step in one of two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepSide {
    /// Its state word.
    pub state: String,
    /// Hash of its rendered input.
    pub input: Option<String>,
    /// Hash of what its key was made of.
    pub key: Option<String>,
    /// Hash of its value.
    pub value: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Who paid, if its answer was found, or that it was set by hand.
    pub found: Option<Found>,
    /// Attempts that started.
    pub attempts: usize,
    /// What they cost.
    pub usage: Usage,
    /// How long it took, in milliseconds.
    pub took_ms: Option<u64>,
}

/// How a step stands in two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Everything that was decided of it is equal.
    Same,
    /// Something was decided otherwise.
    Changed,
    /// The first run alone has it.
    OnlyA,
    /// The second run alone has it.
    OnlyB,
}

/// A step in two runs.
#[derive(Clone, Debug, Serialize)]
pub struct StepDifference {
    /// Its path.
    pub step: String,
    /// How it stands.
    pub kind: Kind,
    /// What was decided otherwise, in order: `when`, `for_each`, `input`, `key`, `next`, `value`, `state`, …
    pub changed: Vec<String>,
    /// In the first run.
    pub a: Option<StepSide>,
    /// In the second run.
    pub b: Option<StepSide>,
}

/// What leads from one rendered input, value or key to another.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// What changed: `input`, `key`, `for_each`, `value`, …
    pub what: String,
    /// Where, and from what to what.
    pub parts: Vec<Part>,
}

/// Two runs beside each other.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The first run.
    pub a: RunSide,
    /// The second run.
    pub b: RunSide,
    /// Whether both ended alike: status, output, and what failed them.
    pub same_outcome: bool,
    /// What the inputs of the runs differ in.
    pub inputs: Vec<Part>,
    /// What the outputs differ in.
    pub outputs: Vec<Part>,
    /// The first step that went another way.
    pub first: Option<String>,
    /// What changed about it.
    pub first_changes: Vec<Change>,
    /// Every step, in the order of the first run's log, then those of the second run alone.
    pub steps: Vec<StepDifference>,
}

impl Difference {
    /// Compares two runs.
    pub fn of(a: &RunLog, b: &RunLog) -> Self {
        let (history_a, history_b) = (History::new(a), History::new(b));
        let (side_a, side_b) = (RunSide::of(&history_a), RunSide::of(&history_b));
        let ended = |side: &RunSide| (side.status.clone(), side.output.clone(), side.error.clone());
        let first = first_difference(&history_a, &history_b);
        let changes = first.map(|path| changes(&history_a, &history_b, path)).unwrap_or_default();
        Self {
            same_outcome: ended(&side_a) == ended(&side_b),
            inputs: differing(&run_inputs(a), &run_inputs(b)),
            outputs: match (&side_a.output, &side_b.output) {
                (Some(a), Some(b)) => differing(a, b),
                _ => Vec::new(),
            },
            first: first.map(str::to_owned),
            first_changes: changes,
            steps: all_steps(&history_a, &history_b),
            a: side_a,
            b: side_b,
        }
    }

    /// The step of that path.
    pub fn step(&self, path: &str) -> Option<&StepDifference> {
        self.steps.iter().find(|step| step.step == path)
    }
}

/// What changed about a step from one run to another.
pub fn step_changes(a: &RunLog, b: &RunLog, path: &str) -> Vec<Change> {
    changes(&History::new(a), &History::new(b), path)
}

impl RunSide {
    fn of(history: &History<'_>) -> Self {
        let log = history.log;
        let summary = log.summary();
        let line = |kind: &str| log.events.iter().rev().find(|event| event.kind == kind);
        let (mut saved, mut found) = (Usage::default(), 0);
        let all = history.steps.values().filter_map(|step| step.found.as_ref());
        for paid in all.filter(|found| !found.is_corrected()) {
            saved += paid.usage;
            found += 1;
        }
        let ended = line("run_ended");
        Self {
            run: log.info.id.clone(),
            workflow: log.info.workflow.clone(),
            definition: line("run_started").and_then(|event| event.text("workflow")).map(str::to_owned),
            status: summary.status,
            output: ended.and_then(|event| event.text("output")).map(|hash| known(log, hash)),
            error: ended.and_then(|event| event.line["error"]["message"].as_str()).map(str::to_owned),
            usage: summary.usage,
            saved,
            found,
            wall_ms: summary.wall_ms,
        }
    }
}

/// A value; where it is lost, what says so.
fn known(log: &RunLog, hash: &str) -> Value {
    log.value(hash).unwrap_or_else(|| json!({"lost": hash}))
}

fn run_inputs(log: &RunLog) -> Value {
    let started = log.events.iter().find(|event| event.kind == "run_started");
    started.and_then(|event| event.text("inputs")).map_or(Value::Null, |hash| known(log, hash))
}

/// Where one run, as its log goes on, first leaves the way of another: the path of the step.
fn leaves<'a>(from: &History<'a>, other: &History<'_>) -> Option<&'a str> {
    let position = |(path, step): (&&'a str, &StepHistory)| {
        let at = match other.step(path) {
            None => step.events.first().copied()?,
            Some(others) => {
                let pairs = step.facts.iter().zip(&others.facts);
                let same = pairs.take_while(|(fact, others)| from.is_same(fact, other, others)).count();
                step.facts.get(same)?.at
            }
        };
        Some((at, *path))
    };
    let steps = from.steps.iter().filter(|(path, _)| !path.is_empty());
    steps.filter_map(position).min().map(|(_, path)| path)
}

fn first_difference<'a>(a: &History<'a>, b: &History<'a>) -> Option<&'a str> {
    leaves(b, a).or_else(|| leaves(a, b))
}

fn all_steps(a: &History<'_>, b: &History<'_>) -> Vec<StepDifference> {
    let mut told = BTreeSet::from([""]);
    let paths = a.log.events.iter().chain(&b.log.events).map(|event| event.step.as_str());
    paths.filter(|path| told.insert(path)).map(|path| beside(path, a, b)).collect()
}

fn beside(path: &str, history_a: &History<'_>, history_b: &History<'_>) -> StepDifference {
    let (a, b) = (history_a.step(path), history_b.step(path));
    let changed = match (a, b) {
        (Some(a), Some(b)) => changed_words((history_a, a), (history_b, b)),
        _ => Vec::new(),
    };
    let kind = match (a, b) {
        (Some(_), None) => Kind::OnlyA,
        (None, _) => Kind::OnlyB,
        (Some(_), Some(_)) if changed.is_empty() => Kind::Same,
        (Some(_), Some(_)) => Kind::Changed,
    };
    StepDifference { step: path.to_owned(), kind, changed, a: a.map(StepSide::of), b: b.map(StepSide::of) }
}

/// The last word on each thing that was decided of a step.
fn last_facts(step: &StepHistory) -> BTreeMap<&str, &Fact> {
    step.facts.iter().map(|fact| (fact.what.as_str(), fact)).collect()
}

/// What two runs say otherwise of one step, in words.
fn changed_words((of_a, a): (&History<'_>, &StepHistory), (of_b, b): (&History<'_>, &StepHistory)) -> Vec<String> {
    let (before, after) = (last_facts(a), last_facts(b));
    let mut words: Vec<String> = Vec::new();
    for fact in a.facts.iter().chain(&b.facts) {
        let is_same = match (before.get(fact.what.as_str()), after.get(fact.what.as_str())) {
            (Some(before), Some(after)) => of_a.is_same(before, of_b, after),
            _ => false,
        };
        // Where answers are not kept, a key is no more than a hash, which says nothing beside an input that changed.
        let is_bare =
            || fact.value.as_str().is_some_and(|key| of_a.log.value(key).or_else(|| of_b.log.value(key)).is_none());
        if is_same || (fact.what == "key" && words.iter().any(|word| word == "input") && is_bare()) {
            continue;
        }
        let word = match fact.what.as_str() {
            "outcome" if a.state != b.state => "state",
            "outcome" if a.value != b.value => "value",
            "outcome" if a.error != b.error => "error",
            "outcome" => "reason",
            other => other,
        };
        if !words.iter().any(|known| known == word) {
            words.push(word.to_owned());
        }
    }
    // Where neither has ended, how far each is still tells them apart.
    if words.is_empty() && a.state != b.state {
        words.push("state".to_owned());
    }
    words
}

impl StepSide {
    fn of(step: &StepHistory) -> Self {
        Self {
            state: step.state.clone(),
            input: step.input.clone(),
            key: step.key.clone(),
            value: step.value.clone(),
            error: step.error.as_ref().and_then(|error| error["message"].as_str()).map(str::to_owned),
            found: step.found.clone(),
            attempts: step.attempts,
            usage: step.usage,
            took_ms: step.duration_us().map(|us| us / 1_000),
        }
    }
}

fn changes(a: &History<'_>, b: &History<'_>, path: &str) -> Vec<Change> {
    let (Some(first), Some(second)) = (a.step(path), b.step(path)) else { return Vec::new() };
    let mut changes = Vec::new();
    for what in changed_words((a, first), (b, second)) {
        let value = |history: &History<'_>, step: &StepHistory| {
            let fact = if what == "reason" { "outcome" } else { &what };
            let fact = last_facts(step).get(fact).map_or(Value::Null, |fact| fact.value.clone());
            match what.as_str() {
                "value" => step.value.as_deref().map_or(Value::Null, |hash| known(history.log, hash)),
                "state" => json!(step.state),
                "error" => step.error.clone().unwrap_or_default(),
                "input" | "for_each" => fact.as_str().map_or(Value::Null, |hash| known(history.log, hash)),
                "key" => fact.as_str().map_or(Value::Null, |key| rest_of_key(history.log, key)),
                _ => fact,
            }
        };
        let parts = differing(&value(a, first), &value(b, second));
        changes.push(Change { what: what.clone(), parts });
    }
    changes
}
