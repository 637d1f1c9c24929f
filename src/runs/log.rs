//! The log of one run with its values, which are read when they are asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use flowrun_engine::event::{Logged, Usage};
use flowrun_engine::id::ValueHash;
use flowrun_engine::store::{RunInfo, Store, StoreError, Stored};

use super::{RunSummary, Runs, now_ms};

/// The log of one run.
#[derive(Clone)]
pub struct RunLog {
    /// Who it is.
    pub info: RunInfo,
    /// The events in order, as far as they can be read.
    pub events: Vec<Logged>,
    /// How long it has been going on, in microseconds, if it is.
    pub running_us: Option<u64>,
    /// What of the log is missing or cannot be read.
    pub damage: Option<String>,
    store: Arc<dyn Store>,
}

impl fmt::Debug for RunLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunLog").field("info", &self.info).field("events", &self.events.len()).finish_non_exhaustive()
    }
}

impl RunLog {
    pub(super) fn load(runs: &Runs, info: RunInfo) -> Result<Self, StoreError> {
        let store = runs.store.clone();
        // Before the log is read: a run that ends in between is seen to end.
        let is_driven = store.is_driven(&info.id)?;
        let (transactions, mut damage) = match (store.log(&info.id, 0), &runs.salvage) {
            (Err(StoreError::Damaged { detail, .. }), Some(salvage)) => {
                let (transactions, damage) = salvage(&info.id)?;
                // Where all that is there can be read, something is not there.
                (transactions, damage.or(Some(detail)))
            }
            (read, _) => (read?, None),
        };
        let mut events: Vec<Logged> = Vec::new();
        for Stored { first, lines } in &transactions {
            let next = events.last().map_or(0, |event| event.sequence.saturating_add(1));
            if *first != next {
                damage.get_or_insert_with(|| match first.saturating_sub(1) {
                    last if last == next => format!("event {next} is missing"),
                    last => format!("events {next} to {last} are missing"),
                });
            }
            for line in lines.lines() {
                match Logged::parse(line) {
                    Ok(event) => events.push(event),
                    Err(problem) => drop(damage.get_or_insert(problem)),
                }
            }
        }
        let has_ended = events.last().is_some_and(|event| event.kind == "run_ended");
        let running_us = (is_driven && !has_ended).then(|| running_us(&info, &events));
        Ok(Self { info, events, running_us, damage, store })
    }

    /// The run in short: out of its summary, or out of the log if it has none.
    pub fn summary(&self) -> RunSummary {
        let last = |kind: &str| self.events.iter().rev().find(|event| event.kind == kind);
        let known = self.info.summary.as_ref().filter(|_| self.running_us.is_none());
        let unended = match self.running_us {
            Some(_) => "running",
            None if self.waits_for_people() => "suspended",
            None => "interrupted",
        };
        let logged = last("run_ended").and_then(|event| event.text("status")).unwrap_or(unended);
        let usage = || last("run_ended").map_or_else(|| self.usage_so_far(), Logged::usage);
        let first = |event: &&Logged| event.kind == "started" && event.line["attempt"] == 1;
        let steps = || self.events.iter().filter(first).count() as u64;
        let until_us = || self.running_us.or(self.events.last().map(|event| event.time_us)).unwrap_or(0);
        let wall_us = || until_us().saturating_sub(idle_us(&self.events));
        RunSummary {
            id: self.info.id.clone(),
            workflow: self.info.workflow.clone(),
            status: known.map_or(logged, |known| known.status.word()).to_owned(),
            started_ms: self.info.started_ms,
            wall_ms: known.map_or_else(|| wall_us() / 1_000, |known| known.wall_ms),
            steps: known.map_or_else(steps, |known| known.steps),
            usage: known.map_or_else(usage, |known| known.usage),
        }
    }

    /// The steps that wait for a person, in the order of asking, each with the hash of what is asked.
    pub fn asked(&self) -> Vec<(&str, Option<&str>)> {
        let mut asked: Vec<(&str, Option<&str>)> = Vec::new();
        for event in self.events.iter().filter(|event| !event.step.is_empty()) {
            match event.kind.as_str() {
                "suspended" => {
                    asked.retain(|(step, _)| *step != event.step);
                    asked.push((&event.step, event.text("input")));
                }
                "answered" | "ended" => asked.retain(|(step, _)| *step != event.step),
                _ => {}
            }
        }
        asked
    }

    /// Whether the log ends where nothing but people can make the run go on: every step that began and has not ended asks one.
    fn waits_for_people(&self) -> bool {
        let mut open: BTreeMap<&str, &str> = BTreeMap::new();
        for event in self.events.iter().filter(|event| !event.step.is_empty()) {
            match event.kind.as_str() {
                "frame_opened" | "ended" => drop(open.remove(event.step.as_str())),
                kind @ ("ready" | "started" | "suspended" | "answered" | "backoff") => {
                    open.insert(&event.step, kind);
                }
                _ => {}
            }
        }
        !open.is_empty() && open.values().all(|kind| *kind == "suspended")
    }

    fn usage_so_far(&self) -> Usage {
        let mut total = Usage::default();
        for event in self.events.iter().filter(|event| event.kind == "settled") {
            total += event.usage();
        }
        total
    }

    /// A value's JSON text.
    pub(super) fn text(&self, hash: ValueHash) -> Result<Option<Arc<str>>, StoreError> {
        self.store.value(hash)
    }

    /// A value by its hash; `None` if it is not there or cannot be read.
    pub fn value(&self, hash: &str) -> Option<Value> {
        let text = self.text(ValueHash::from_hex(hash)?).ok()??;
        serde_json::from_str(&text).ok()
    }
}

/// For how long nobody drove the run before somebody went on with it.
fn idle_us(events: &[Logged]) -> u64 {
    let attached = events.windows(2).filter(|pair| pair[1].kind == "attached");
    attached.map(|pair| pair[1].time_us.saturating_sub(pair[0].time_us)).sum()
}

/// How far the clock of a run that is being driven has come.
fn running_us(info: &RunInfo, events: &[Logged]) -> u64 {
    let last_us = events.last().map_or(0, |event| event.time_us);
    last_us.max(1_000 * now_ms().saturating_sub(info.started_ms))
}
