//! Taking a run up again: its log is folded, which rebuilds the scheduler exactly, and the driver goes on from there.
//!
//! The input events of the log are applied once more; what is derived from them must be what the log says, line by line, or the
//! workflow is not the one that was run. Nothing is evaluated but the graphs of expansions and the inputs of leaves that have not ended,
//! which are checked against their hashes. Timers keep their times, also across the gap: they are measured by the clock on the wall,
//! and where that went backwards by the log alone.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::drive::Driver;
use super::recall::{Key, now_ms};
use super::{RunOutcome, StartError, check_inputs};
use crate::cache::{Found, Source};
use crate::definition::CacheScope;
use crate::event::{Command, DecideField, Decision, Event, Record, TimerKind, Usage, input_event};
use crate::expr::Datum;
use crate::graph::{Graph, NodeCode};
use crate::id::{StepId, ValueHash};
use crate::scheduler::Effects;
use crate::store::Stored;

/// A run that is about to go on.
pub(super) struct TakenUp {
    driver: Driver,
    how: How,
}

enum How {
    /// Its log is empty: it was interrupted before anything happened.
    Begin(Map<String, Value>),
    GoOn,
}

impl TakenUp {
    pub(super) async fn drive(self) -> RunOutcome {
        match self.how {
            How::Begin(inputs) => self.driver.begin(inputs).await,
            How::GoOn => {
                let max_parallel = self.driver.options.max_parallel;
                self.driver.drive(Event::Attached { max_parallel }).await
            }
        }
    }
}

/// A timer that was set and has not been looked at, by the microsecond of the run at which it runs out.
struct Pending {
    at_us: u64,
    step: StepId,
    attempt: u32,
    timer: TimerKind,
}

impl Driver {
    /// Takes the right to drive the run; a new one is made known to the store.
    pub(super) fn open_journal(&mut self, is_new: bool) -> Result<(), StartError> {
        let Some(mut to) = self.options.record.take() else { return Ok(()) };
        let lock = to.store.lock(&to.run.id)?.ok_or_else(|| StartError::Driven(to.run.id.clone()))?;
        if is_new {
            to.store.begin(&to.run)?;
        }
        self.values.save_all(std::mem::take(&mut to.values));
        self.journal = super::journal::Journal::new(to, lock);
        Ok(())
    }

    /// Folds the log of the run that is to go on.
    pub(super) fn take_up(mut self) -> Result<TakenUp, StartError> {
        let info = self.options.record.as_ref().map(|record| record.run.clone()).expect("BUG: nothing says which run");
        self.open_journal(false)?;
        let store = self.journal.store().cloned().expect("BUG: a journal without a store");
        let log = store.log(&info.id, 0)?;
        if log.is_empty() {
            let inputs = info.origin["inputs"].as_object().cloned().unwrap_or_default();
            let inputs = check_inputs(&self.workflow, inputs)?;
            return Ok(TakenUp { driver: self, how: How::Begin(inputs) });
        }
        let unfoldable = |reason| StartError::Unfoldable { id: info.id.clone(), reason };
        let mut timers = Vec::new();
        for transaction in &log {
            self.fold(transaction, &mut timers, &info.id)?;
        }
        if let Some(status) = self.ended.as_ref().map(|ended| ended.status) {
            return Err(StartError::Over { id: info.id, status });
        }
        self.go_on_at(now_ms().saturating_sub(info.started_ms).saturating_mul(1_000), timers);
        self.prepare_leaves().map_err(unfoldable)?;
        Ok(TakenUp { driver: self, how: How::GoOn })
    }

    /// Applies one transaction again.
    fn fold(&mut self, stored: &Stored, timers: &mut Vec<Pending>, id: &str) -> Result<(), StartError> {
        let unfoldable = |reason: String| StartError::Unfoldable { id: id.to_owned(), reason };
        let mut effects = Effects::default();
        let mut time_us = 0;
        for line in stored.lines.lines() {
            let value: Value = serde_json::from_str(line)
                .map_err(|error| unfoldable(format!("a line after event {} is no JSON: {error}", stored.first)))?;
            time_us = value["us"].as_u64().unwrap_or_default();
            let mut regraph = |step, plan| self.regraph(step, plan);
            let Some(event) = input_event(&value, &mut regraph).map_err(unfoldable)? else { continue };
            if let Event::RunStarted(started) = &event
                && started.workflow != self.workflow.hash
            {
                return Err(StartError::Changed(id.to_owned()));
            }
            if let Event::Attached { .. } = &event {
                self.idle_us += time_us.saturating_sub(self.before_us);
            }
            self.load_values_of(&event).map_err(unfoldable)?;
            if let Event::RunStarted(started) = &event {
                let inputs = self.values.get(started.inputs).json().as_object().into_iter().flatten();
                let inputs = inputs.map(|(name, value)| (name.clone(), Datum::new(value.clone()))).collect();
                self.inputs.insert(StepId::ROOT, inputs);
            }
            let awaited = self.scheduler.accepts(&event);
            if !awaited {
                return Err(unfoldable(format!("nothing waits for event {}", value["seq"])));
            }
            self.remember(&event);
            let at = effects.events.len();
            effects.events.push(Event::Cancel);
            self.scheduler.apply(&event, &mut effects);
            effects.events[at] = event;
        }
        let records = self.records(&effects.events, stored.first, time_us);
        self.compare(&records, stored).map_err(unfoldable)?;
        self.take_note(&effects.events);
        self.sequence = stored.first + effects.events.len() as u64;
        for command in effects.commands {
            if let Command::Timer { step, attempt, timer, delay_ms } = command {
                timers.push(Pending {
                    at_us: time_us.saturating_add(delay_ms.saturating_mul(1_000)),
                    step,
                    attempt,
                    timer,
                });
            }
        }
        self.before_us = time_us;
        Ok(())
    }

    fn records(&self, events: &[Event], first: u64, time_us: u64) -> Vec<Record> {
        let numbered = events.iter().zip(first..);
        let record = |(event, sequence): (&Event, u64)| {
            let path = event.step().map(|step| self.scheduler.path(step)).unwrap_or_default();
            let around = event.step().and_then(|step| self.scheduler.parent(step)).unwrap_or(StepId::ROOT);
            Record { sequence, time_us, path, around, event: event.clone() }
        };
        numbered.map(record).collect()
    }

    /// Whether the events are those of the log, line by line.
    fn compare(&mut self, records: &[Record], stored: &Stored) -> Result<(), String> {
        let mut lines = stored.lines.lines();
        for record in records {
            let mut line = String::new();
            self.journal.writer.write(record, &mut line);
            if lines.next() != Some(line.trim_end()) {
                let step = if record.path.is_empty() { "the run" } else { &*record.path };
                return Err(format!("event {} of {step} is not what follows from the workflow", record.sequence));
            }
        }
        match lines.next() {
            None => Ok(()),
            Some(_) => Err(format!("what follows event {} does not follow from the workflow", stored.first)),
        }
    }

    /// Values that expressions may read again.
    fn load_values_of(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::RunStarted(started) => self.load_value(started.inputs),
            Event::Settled { result: Ok(value), .. } | Event::Answered { value, .. } => self.load_value(*value),
            Event::Decided { decision, step, .. } => match decision {
                Decision::Items { list, .. } => self.load_value(*list),
                Decision::Value(value) => self.load_value(*value),
                Decision::Graph { plan, .. } => self.load_value(*plan),
                // The rendered inputs of leaves are read by nobody but their attempts.
                Decision::Input { hash, key: None, .. } if !self.scheduler.is_leaf(*step) => self.load_value(*hash),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn load_value(&mut self, hash: ValueHash) -> Result<(), String> {
        if self.values.has(hash) {
            return Ok(());
        }
        let store = self.journal.store().expect("BUG: a fold without a store");
        let text = store.value(hash).map_err(|error| error.to_string())?;
        let value = text.as_deref().and_then(Datum::parse);
        let value = value.ok_or_else(|| format!("the value {} is not in the store", hash.short()))?;
        self.values.load(hash, value);
        Ok(())
    }

    /// Makes the graph of an expansion again, by the rules of its node.
    fn regraph(&mut self, step: StepId, plan: ValueHash) -> Result<Arc<Graph>, String> {
        self.load_value(plan)?;
        let node = self.scheduler.node(step).ok_or("an expansion of the whole run")?;
        let rules = node.code.expansion.clone().ok_or("an expansion without rules")?;
        let plan = self.values.get(plan).clone();
        self.graph_of_plan(step, plan.json(), &rules).map_err(|error| error.message.clone())
    }

    /// What the log tells of answers.
    fn remember(&mut self, event: &Event) {
        match event {
            Event::Decided { step, field: DecideField::Input, decision: Decision::Input { key: Some(key), .. } } => {
                if let Some(scope) = self.scheduler.node(*step).map(|node| node.code.cache.scope) {
                    self.note_key(*step, Key { hash: *key, scope, looked: None });
                }
            }
            Event::Settled { step, result: Ok(value), report, .. } => {
                let report = report.as_deref().copied().unwrap_or_default();
                // What was found has cost nothing, also where an attempt had to be started to find it.
                let provenance = report.provenance.filter(|_| report.usage == Usage::default());
                let datum = self.values.get(*value).clone();
                let found = provenance.and_then(|hash| Found::told(self.stored(hash)?.json(), datum));
                if let Some(found) = found.as_ref().filter(|found| found.source != Source::Correction) {
                    self.found.steps += 1;
                    self.found.usage += found.usage;
                }
                let key = self.key_of(*step).filter(|key| key.scope != CacheScope::Off);
                let key = key.map(|key| Key { hash: report.key.unwrap_or(key.hash), ..key });
                let node = self.scheduler.node(*step);
                let schema = node.and_then(|node| node.code.schema.as_ref());
                let fits = schema.is_none_or(|schema| schema.validate(self.values.get(*value).json()).is_ok());
                match (key.filter(|_| fits), found) {
                    (None, _) | (_, Some(Found { source: Source::Correction, .. })) => {}
                    (Some(key), found) => self.know(*step, key.hash, *value, report.usage, found),
                }
            }
            _ => {}
        }
    }

    /// The run goes on at the later of what the log and the clock on the wall say; timers that are over run out at once.
    fn go_on_at(&mut self, wall_us: u64, timers: Vec<Pending>) {
        let last_us = self.before_us;
        self.before_us = last_us.max(wall_us);
        self.idle_us += self.before_us - last_us;
        let now = Instant::now();
        for Pending { at_us, step, attempt, timer } in timers {
            let left = Duration::from_micros(at_us.saturating_sub(self.before_us));
            self.timers.insert((now + left, step, attempt, timer));
        }
    }

    /// Renders the inputs of leaves that have not ended, and finds out who owns which answer.
    fn prepare_leaves(&mut self) -> Result<(), String> {
        let mut keyed: Vec<(StepId, Key, Arc<NodeCode>)> = Vec::new();
        for step in (1..self.scheduler.step_count() as u32).map(StepId) {
            let waits = !self.scheduler.state(step).is_terminal() && self.scheduler.is_leaf(step);
            let Some(hash) = self.scheduler.input(step).filter(|_| waits) else { continue };
            let code = self.scheduler.node(step).map(|node| node.code.clone()).expect("BUG: the root is no leaf");
            let input = self.render(step, &code).map_err(|error| error.message.clone())?;
            if self.announce(&code, &input) != hash {
                return Err(format!("the input of `{}` is not what it was", self.scheduler.path(step)));
            }
            if let Some(logged) = self.key_of(step) {
                // Another model, or another version of a kind, may stand under the same name by now.
                let key = self.key(step, &code, &input, hash).map_err(|error| error.message.clone())?.unwrap_or(logged);
                self.note_changed_key(step, logged, key);
                keyed.push((step, key, code));
            }
            self.rendered.insert(step, input);
        }
        self.own_again(&keyed);
        Ok(())
    }
}
