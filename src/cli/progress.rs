//! What people see while a run goes on: a live view on a terminal, one line a step otherwise.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flowrun_engine::event::{Decision, Event, Outcome, Record, SkipReason};
use flowrun_engine::expr::Datum;
use flowrun_engine::graph::Graph;
use flowrun_engine::id::{StepId, ValueHash};
use flowrun_engine::observer::Observer;
use flowrun_engine::render;
use flowrun_engine::trace::{counted, duration};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use super::{say, width};

/// Most running steps that the live view shows at once.
const BARS_MAX: usize = 12;

/// Watches a run for a person.
pub(super) struct Progress {
    state: Mutex<State>,
}

struct State {
    live: Option<MultiProgress>,
    bars: BTreeMap<StepId, ProgressBar>,
    started: BTreeMap<StepId, u64>,
    values: BTreeMap<ValueHash, Arc<Datum>>,
    plans: Vec<Value>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let live = std::io::stderr().is_terminal().then(MultiProgress::new);
        let (bars, started, values) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { state: Mutex::new(State { live, bars, started, values, plans: Vec::new() }) }
    }
}

impl State {
    fn say(&self, text: &str) {
        match &self.live {
            Some(live) => {
                let _unseen = live.println(text);
            }
            None => say(text),
        }
    }

    fn take(&mut self, record: &Record) {
        match &record.event {
            Event::Started { step, attempt, .. } => {
                self.started.insert(*step, record.time_us);
                if *attempt > 1 {
                    self.say(&format!("  {} attempt {attempt}", record.path));
                }
                self.open_bar(*step, &record.path);
            }
            Event::Settled { step, provenance, .. } => {
                self.close_bar(*step);
                self.repairs(&record.path, *provenance);
            }
            Event::Backoff { delay_ms, error, .. } => {
                self.say(&format!(
                    "  {}: {}; next attempt in {}",
                    record.path,
                    error.message,
                    duration(1_000 * *delay_ms)
                ));
            }
            Event::Decided { decision: Decision::Graph { graph, plan }, .. } => {
                let plan = self.values.get(plan).map(|plan| plan.json().clone());
                self.say(&drawn(&record.path, graph, plan.as_ref()));
                self.plans.extend(plan);
            }
            Event::Ended { step, outcome } => self.ended(record, *step, outcome),
            _ => {}
        }
    }

    fn ended(&mut self, record: &Record, step: StepId, outcome: &Outcome) {
        self.close_bar(step);
        let took = self.started.remove(&step).map(|from| record.time_us.saturating_sub(from));
        let took = took.map(|us| format!("  {}", duration(us))).unwrap_or_default();
        let path = render::clean(&record.path);
        if path.is_empty() {
            return;
        }
        match outcome {
            Outcome::Succeeded { recovered: None, .. } if took.is_empty() => {}
            Outcome::Succeeded { recovered: None, value } => {
                let value = self.values.get(value).map(|value| excerpt(value.json())).unwrap_or_default();
                self.say(&format!("✓ {path}{took}  {value}"));
            }
            Outcome::Succeeded { recovered: Some(error), .. } => {
                self.say(&format!("✓ {path}{took}  recovered from: {}", error.message))
            }
            Outcome::Failed { error, tolerated } => {
                let word = if *tolerated { " (tolerated)" } else { "" };
                self.say(&format!("✗ {path}{took}{word}  {}", error.message));
            }
            Outcome::Skipped(SkipReason::Guard) => self.say(&format!("- {path}  skipped: its `when` is false")),
            Outcome::Skipped(_) => self.say(&format!("- {path}  skipped: what it needs is not there")),
            Outcome::Cancelled => {}
        }
    }

    fn repairs(&self, path: &str, provenance: Option<ValueHash>) {
        let Some(report) = provenance.and_then(|hash| self.values.get(&hash)) else { return };
        for repair in report.json()["repairs"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.say(&format!("  {path}: repaired {}", render::clean(repair)));
        }
        if report.json()["outcome"] == "fallback" {
            self.say(&format!("  {path}: no plan of the model was usable; its `fallback` is used"));
        }
    }

    fn open_bar(&mut self, step: StepId, path: &str) {
        let Some(live) = self.live.as_ref().filter(|_| self.bars.len() < BARS_MAX) else { return };
        let bar = live.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(render::clean(path));
        bar.enable_steady_tick(Duration::from_millis(120));
        self.bars.insert(step, bar);
    }

    fn close_bar(&mut self, step: StepId) {
        if let Some(bar) = self.bars.remove(&step) {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Progress {
    fn value(&self, hash: ValueHash, value: &Arc<Datum>) {
        self.state.lock().expect("BUG: a panic in the progress view").values.insert(hash, value.clone());
    }

    fn records(&self, records: &Arc<[Record]>) {
        let mut state = self.state.lock().expect("BUG: a panic in the progress view");
        records.iter().for_each(|record| state.take(record));
    }

    fn tokens(&self, path: &str, text: &str) {
        let state = self.state.lock().expect("BUG: a panic in the progress view");
        if let Some(bar) = state.bars.values().find(|bar| bar.prefix() == path) {
            let so_far = format!("{}{}", bar.message(), render::clean(text));
            let tail: String = so_far.chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect();
            bar.set_message(tail);
        }
    }
}

/// The graph of an expansion as it opens, with what each step asks.
fn drawn(path: &str, graph: &Graph, plan: Option<&Value>) -> String {
    let steps = plan.and_then(|plan| plan["steps"].as_array()).into_iter().flatten();
    let asks = steps.filter(|step| step["id"] != "answer").map(|step| {
        let text = |key: &str| render::clean(step[key].as_str().unwrap_or_default());
        format!("    {}: {}\n", text("id"), text("ask"))
    });
    let boxes = render::graph(graph, width().saturating_sub(4));
    let boxes: String = boxes.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "  {} opens a graph of {}:\n{boxes}{}",
        render::clean(path),
        counted(graph.nodes().len() as u64, "step"),
        asks.collect::<String>()
    )
    .trim_end()
    .to_owned()
}

fn excerpt(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let clean = render::clean(&text);
    let short: String = clean.chars().take(60).collect();
    if short.len() < clean.len() { format!("{short}…") } else { short }
}
