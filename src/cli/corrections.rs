//! What a replay came to, and which corrections no step took: a value that goes nowhere must not pass for an answer.

use std::collections::BTreeMap;
use std::sync::Mutex;

use flowrun_engine::event::{Event, Outcome, Status};
use flowrun_engine::id::ValueHash;
use flowrun_engine::observer::{Observer, Records};
use flowrun_engine::run::RunOutcome;
use serde_json::{Map, Value, json};

use crate::render::clean;
use crate::runs::RunLog;
use crate::trace::counted;

/// Watches what became of the steps that are to give another value.
pub(super) struct Watched {
    values: BTreeMap<String, ValueHash>,
    ended: Mutex<BTreeMap<String, Outcome>>,
}

impl Watched {
    /// Watches the steps of some corrections.
    pub(super) fn new(corrections: &BTreeMap<String, Value>) -> Self {
        let values = corrections.iter().map(|(step, value)| (step.clone(), ValueHash::of(value))).collect();
        Self { values, ended: Mutex::default() }
    }

    /// The steps that did not take what was set for them, each with the reason.
    pub(super) fn without_effect(&self, status: Status) -> Vec<(&str, &'static str)> {
        let ended = self.ended.lock().expect("BUG: a panic while an end was kept");
        let why = |(step, value): (&String, &ValueHash)| match ended.get(step) {
            Some(Outcome::Succeeded { value: own, recovered: None }) if own == value => None,
            Some(Outcome::Succeeded { .. }) => Some("the step came to another value"),
            Some(Outcome::Skipped(_)) => Some("the step was skipped"),
            Some(Outcome::Failed { .. }) => Some("the step failed"),
            Some(Outcome::Cancelled) => Some("the step was cancelled"),
            None if status == Status::Success => Some("the run had no such step"),
            None => Some("the run did not come to the end of the step"),
        };
        self.values.iter().filter_map(|pair| Some((pair.0.as_str(), why(pair)?))).collect()
    }
}

impl Observer for Watched {
    fn wants_values(&self) -> bool {
        false
    }

    fn records(&self, records: &Records<'_>) {
        for event in records.events().iter() {
            let Event::Ended { step, outcome } = event else { continue };
            let path = records.path(*step);
            if self.values.contains_key(&*path) {
                let mut ended = self.ended.lock().expect("BUG: a panic while an end was kept");
                ended.insert(path.to_string(), outcome.clone());
            }
        }
    }
}

/// What a replay came to, beside the run that it replays.
pub(super) fn compared(
    outcome: &RunOutcome,
    log: &RunLog,
    corrected: bool,
    watched: Option<&Watched>,
    more: &mut Map<String, Value>,
) -> String {
    let ended = log.events.iter().rev().find(|event| event.kind == "run_ended");
    let before = ended.and_then(|event| event.text("output")).and_then(|hash| log.value(hash));
    let changed = before != outcome.output;
    let id = &log.info.id;
    let idle = watched.map(|watched| watched.without_effect(outcome.status)).unwrap_or_default();
    let without_effect: Vec<Value> = idle.iter().map(|(step, why)| json!({"step": step, "why": why})).collect();
    let replay = json!({
        "of": id, "output_changed": changed, "reused": outcome.reused.steps, "ran": outcome.steps, "without_effect": without_effect,
    });
    more.insert("replay".to_owned(), replay);
    let usage = outcome.reused.usage;
    let tokens = counted(usage.prompt_tokens + usage.completion_tokens, "token");
    let saved = format!("{} and {tokens} saved", counted(usage.calls, "call"));
    let what = match (&before, changed) {
        (None, _) => "it had no output to compare with".to_owned(),
        (Some(_), _) if outcome.output.is_none() => "this time there is no output".to_owned(),
        (Some(_), false) if corrected => "the correction changes nothing about the output".to_owned(),
        (Some(_), true) if corrected => "the correction changes the output".to_owned(),
        (Some(_), false) => "the output is the same".to_owned(),
        (Some(_), true) => "the output is another one".to_owned(),
    };
    let (ran, reused) = (counted(outcome.steps, "step"), counted(outcome.reused.steps, "answer"));
    let note = |(step, why): &(&str, &str)| format!("note: the correction of `{}` had no effect: {why}\n", clean(step));
    let notes: String = idle.iter().map(note).collect();
    format!("{notes}replayed {id}: {reused} taken over ({saved}), {ran} ran; {what}")
}
