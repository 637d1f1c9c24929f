//! Where a recorded run came from: what whoever resumes or replays it has to know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flowrun_engine::graph::Workflow;
use flowrun_engine::id::ValueHash;
use flowrun_engine::run::Recording;
use flowrun_engine::store::{Durability, RunInfo, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Where a run came from. Kept with it, as [`RunInfo::origin`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// What was asked for: a file, `@NAME`, `-` for standard input; empty for a workflow that was built in code.
    pub reference: String,
    /// Hash of the value that is the workflow's text (YAML).
    pub definition: Option<ValueHash>,
    /// Those of the workflows that it calls, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: BTreeMap<String, ValueHash>,
    /// The inputs as they were given.
    pub inputs: Map<String, Value>,
    /// `--model`, if it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Most model calls, if somebody said more than the workflow does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_calls: Option<u64>,
    /// Whether it took no answers of earlier runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// The run that it replays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<String>,
    /// Of a replay: values that take the place of what steps would give, by path.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub corrections: Map<String, Value>,
    /// Of a replay: models of single nodes, as they were written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_models: Vec<String>,
    /// What was changed for the replay, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

impl Origin {
    /// That of a recorded run; what cannot be read of it is empty.
    pub fn of(run: &RunInfo) -> Self {
        Self::deserialize(&run.origin).unwrap_or_default()
    }

    /// The text of the workflow as it was run.
    pub fn text(&self, store: &dyn Store) -> Option<String> {
        text_of(self.definition?, store)
    }

    /// What diagnostics call the workflow, and where its calls are looked for.
    pub fn name(&self) -> String {
        if self.reference.is_empty() { "workflow".to_owned() } else { self.reference.clone() }
    }

    /// A new run of a workflow, for [`RunOptions::record`](crate::RunOptions::record).
    pub fn recording(mut self, workflow: &Workflow, store: Arc<dyn Store>, durability: Durability) -> Recording {
        let own = workflow.text().clone();
        let called: Vec<_> = workflow.calls.iter().map(|(name, called)| (name, called.text())).collect();
        self.definition = Some(own.0);
        self.calls = called.iter().map(|(name, (hash, _))| ((*name).clone(), *hash)).collect();
        let run = RunInfo {
            id: run_id(),
            workflow: workflow.name.clone(),
            started_ms: crate::runs::now_ms(),
            origin: json!(self),
            summary: None,
        };
        let values = std::iter::once(own).chain(called.into_iter().map(|(_, text)| text)).collect();
        Recording { store, run, durability, values }
    }
}

/// A text that a store has as a value.
pub(crate) fn text_of(hash: ValueHash, store: &dyn Store) -> Option<String> {
    serde_json::from_str(&store.value(hash).ok()??).ok()
}

/// Sortable by time, to the millisecond, and unique on this machine.
fn run_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = jiff::Timestamp::now();
    let stamp = now.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%d-%H%M%S-%3f");
    let mix = now.as_nanosecond() as u64 ^ u64::from(std::process::id()) << 32;
    let count = COUNT.fetch_add(1, Ordering::Relaxed) & 0xffff;
    format!("{stamp}-{count:04x}{:04x}", mix.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48)
}
