//! What the command line keeps of a run while it goes on: its log for `--json`, its plan for `--save-plan`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use flowrun_engine::definition::WorkflowDef;
use flowrun_engine::dialect::Plan;
use flowrun_engine::event::{Decision, Event, Logged, Writer};
use flowrun_engine::expr::Datum;
use flowrun_engine::id::ValueHash;
use flowrun_engine::observer::{Observer, Records};

use super::say;

/// Remembers the events for `--json`, and the last plan that was expanded, with the keys that its texts may mention.
#[derive(Default)]
pub(super) struct Seen {
    values: Mutex<BTreeMap<ValueHash, Arc<Datum>>>,
    plan: Mutex<Option<(ValueHash, Vec<String>)>>,
    pub(super) log: Mutex<(Writer, Vec<Logged>)>,
}

impl Observer for Seen {
    fn value(&self, hash: ValueHash, value: &Arc<Datum>) {
        self.values.lock().expect("BUG: a panic while a value was kept").insert(hash, value.clone());
    }

    fn records(&self, records: &Records<'_>) {
        let mut log = self.log.lock().expect("BUG: a panic while an event was kept");
        for record in records.iter() {
            let line = log.0.json(&record).to_string();
            log.1.extend(Logged::parse(&line).ok());
            if let Event::Decided { decision: Decision::Graph { plan, graph }, .. } = &record.event {
                let names = graph.inputs.iter().flatten().map(|(name, _)| name.clone());
                let keys = names.filter(|name| name != "question").collect();
                *self.plan.lock().expect("BUG: a panic while a plan was kept") = Some((*plan, keys));
            }
        }
    }
}

impl Seen {
    /// Writes the last plan that was expanded as a workflow file.
    pub(super) fn save_plan(&self, path: &Path) {
        let last = self.plan.lock().expect("BUG: a panic while a plan was kept").clone();
        let Some((hash, keys)) = last else { return say("warning: no plan was drawn, so none was saved") };
        let values = self.values.lock().expect("BUG: a panic while a value was kept");
        let Some(value) = values.get(&hash) else { return };
        let text = match Plan::from_value(value.json()).and_then(|plan| plan.lower(&keys)) {
            Ok(definition) => WorkflowDef::to_yaml(&definition),
            Err(problems) => {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                return say(&format!("warning: the plan cannot be written as a workflow: {first}"));
            }
        };
        match fs::write(path, text) {
            Ok(()) => say(&format!("plan written to `{}`", path.display())),
            Err(error) => say(&format!("warning: the plan could not be written to `{}`: {error}", path.display())),
        }
    }
}
