//! What a run shows while it goes on: repairs, the drawn graph, one line a finished step; on a terminal also what runs now.
//!
//! It watches the same events that are recorded, so what it shows is what happened.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use flowrun::{Event, Graph, Observer, Record};
use flowrun_engine::event::{Decision, Logged, Outcome, SkipReason, Writer};
use flowrun_engine::expr::Datum;
use flowrun_engine::id::{StepId, ValueHash};
use flowrun_engine::render;
use flowrun_engine::trace::{Trace, seconds};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::output;

/// Characters of a value that are shown beside its step.
const VALUE_SHOWN: usize = 60;

/// Shows a run.
pub(super) struct Progress {
    quiet: bool,
    bar: ProgressBar,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    values: BTreeMap<ValueHash, Arc<Datum>>,
    running: BTreeMap<StepId, (Arc<str>, u64)>,
    paths: BTreeMap<StepId, Arc<str>>,
    frames: BTreeMap<StepId, u32>,
    done: usize,
    plan: Option<(Value, Vec<String>)>,
    writer: Writer,
    log: Vec<Logged>,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        let live = !quiet && std::io::stderr().is_terminal();
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if live {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { quiet, bar, seen: Mutex::new(Seen::default()) }
    }

    /// Clears the live line.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// The first plan that was run, with the keys that its texts may mention.
    pub(super) fn plan(&self) -> Option<(Value, Vec<String>)> {
        self.seen().plan.clone()
    }

    /// How long the steps that decided the duration took together, in milliseconds.
    pub(super) fn critical_path_ms(&self) -> u64 {
        Trace::new(&self.seen().log).critical_path_ms
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("BUG: a panic while a run was shown")
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| output::say(text));
        }
    }
}

impl Observer for Progress {
    fn value(&self, hash: ValueHash, value: &Arc<Datum>) {
        self.seen().values.insert(hash, value.clone());
    }

    fn records(&self, records: &[Record]) {
        let mut seen = self.seen();
        for record in records {
            let line = seen.writer.json(record).to_string();
            seen.log.extend(Logged::parse(&line).ok());
            if let Some(text) = seen.take(record) {
                self.say(&text);
            }
        }
        if !self.bar.is_hidden() {
            self.bar.set_message(seen.now());
        }
    }
}

impl Seen {
    fn json(&self, hash: ValueHash) -> Value {
        self.values.get(&hash).map_or(Value::Null, |datum| datum.json().clone())
    }

    /// What is to be said about a record.
    fn take(&mut self, record: &Record) -> Option<String> {
        if let Some(step) = record.event.step() {
            self.paths.entry(step).or_insert_with(|| record.path.clone());
        }
        match &record.event {
            Event::Started { step, .. } => {
                self.running.insert(*step, (record.path.clone(), record.time_ms));
                None
            }
            Event::Settled { provenance: Some(report), .. } => repairs(&record.path, &self.json(*report)),
            Event::Backoff { step, error, delay_ms, .. } => {
                self.running.remove(step);
                let why = output::one_line(&error.message, 120);
                Some(format!("… {}: {why}; again in {}", shown(&record.path), seconds(*delay_ms)))
            }
            Event::Decided { decision: Decision::Graph { plan, graph }, .. } => {
                let plan = self.json(*plan);
                let text = drawn(&record.path, graph, &plan);
                let inputs = graph.inputs.iter().flatten().map(|(name, _)| name.clone());
                self.plan.get_or_insert_with(|| (plan, inputs.filter(|name| name != "question").collect()));
                Some(text)
            }
            Event::FrameOpened { step, children, .. } => {
                self.frames.insert(*step, *children);
                None
            }
            Event::Ended { step, outcome } if *step != StepId::ROOT => {
                let started = self.running.remove(step).map(|(_, at)| at);
                self.done += 1;
                let took = started.map(|at| record.time_ms.saturating_sub(at));
                self.ended(*step, &record.path, took, outcome)
            }
            _ => None,
        }
    }

    /// The line of a finished step; frames are told by their steps, unless something went wrong.
    fn ended(&self, step: StepId, path: &str, took: Option<u64>, outcome: &Outcome) -> Option<String> {
        let took = took.map(seconds).unwrap_or_default();
        let line = |mark: &str, text: &str| {
            let line = format!("{mark} {:<24} {took:>8}  {text}", shown(path));
            line.trim_end().to_owned()
        };
        match outcome {
            Outcome::Succeeded { recovered: Some(error), .. } => {
                Some(line("✓", &format!("recovered from: {}", output::one_line(&error.message, 120))))
            }
            Outcome::Succeeded { .. } if self.frames.contains_key(&step) => None,
            Outcome::Succeeded { value, .. } => {
                Some(line("✓", &output::one_line(&output::plain(&self.json(*value)), VALUE_SHOWN)))
            }
            Outcome::Failed { error, .. } => Some(line("✗", &output::one_line(&error.message, 200))),
            Outcome::Skipped(reason) => Some(line("-", &self.skipped(*reason))),
            Outcome::Cancelled => Some(line("■", "cancelled")),
        }
    }

    fn skipped(&self, reason: SkipReason) -> String {
        let name = |step| self.paths.get(&step).map_or_else(String::new, |path| shown(path));
        match reason {
            SkipReason::Requires(step) => format!("skipped: needs `{}`", name(step)),
            SkipReason::OutputRequires(step) => format!("skipped: its output needs `{}`", name(step)),
            SkipReason::NoneOf => "skipped: none of what it joins succeeded".to_owned(),
            SkipReason::Guard => "skipped: its `when` is false".to_owned(),
        }
    }

    /// What runs now, in one line.
    fn now(&self) -> String {
        let names: Vec<String> = self.running.values().take(6).map(|(path, _)| shown(path)).collect();
        let more = self.running.len().saturating_sub(names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{} done, running: {}{more}", self.done, names.join(", "))
    }
}

fn shown(path: &str) -> String {
    output::one_line(path, 60)
}

/// What had to be mended in a plan.
fn repairs(path: &str, report: &Value) -> Option<String> {
    let path = shown(path);
    let mut lines = match report["outcome"].as_str()? {
        "fallback" => vec![format!("{path}: no plan of the model could be used; the declared fallback is")],
        "model_turn" => vec![format!("{path}: the model's first plan could not be used; a further one is")],
        _ => Vec::new(),
    };
    for repair in report["repairs"].as_array().into_iter().flatten() {
        lines.push(format!("{path}: repaired: {}", output::one_line(&output::plain(repair), 160)));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// The drawn graph with what its steps ask.
fn drawn(path: &str, graph: &Graph, plan: &Value) -> String {
    let mut lines = vec![format!("the graph of `{}`:", shown(path))];
    lines.extend(render::graph(graph, output::width().saturating_sub(2)).lines().map(|line| format!("  {line}")));
    for step in plan["steps"].as_array().into_iter().flatten() {
        let (id, ask) = (output::plain(&step["id"]), output::plain(&step["ask"]));
        if id != flowrun_engine::dialect::ANSWER {
            let room = output::width().saturating_sub(22);
            lines.push(format!("  {:<16} {}", output::one_line(&id, 30), output::one_line(&ask, room)));
        }
    }
    lines.join("\n")
}
