//! Which corrections of a replay no step took: a value that goes nowhere must not pass for an answer.

use std::collections::BTreeMap;
use std::sync::Mutex;

use flowrun_engine::event::{Event, Outcome, Status};
use flowrun_engine::id::ValueHash;
use flowrun_engine::observer::{Observer, Records};

use serde_json::Value;

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
