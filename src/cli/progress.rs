//! What people see while a run goes on: on a terminal the running steps and how many there are of each kind, drawn anew in
//! place; elsewhere one line a step.
//!
//! The observer only counts and keeps lines; a thread of its own writes them, ten times a second. So no run waits for a slow
//! terminal, a step costs the same among a hundred thousand others, and each drawing fits the terminal as it is then.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::render::{self, clean, columns, fit, fit_end};
use crate::trace::{Found, Savings, counted, duration, thousands};
use flowrun_engine::event::{Decision, Event, Outcome, PassEnd, Record, SkipReason, Usage};
use flowrun_engine::expr::Datum;
use flowrun_engine::graph::Graph;
use flowrun_engine::id::{StepId, ValueHash};
use flowrun_engine::observer::{Observer, Records};
use serde_json::Value;

use super::screen::{self, Screen};
use super::{paint, say, width};

/// Time between two drawings.
const TICK: Duration = Duration::from_millis(100);
/// Characters that are kept of what a step says.
const TAIL: usize = 300;
/// So many times more lines about failures and plans than about steps are written at once.
const NOTABLE: usize = 8;

/// Watches a run for a person.
pub(super) struct Progress {
    state: Arc<Mutex<State>>,
    /// Something was drawn.
    painted: Arc<Condvar>,
    painter: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

/// A leaf between its first start and its end.
struct Leaf {
    first_us: u64,
    /// When the attempt in flight began, if there is one.
    since: Option<Instant>,
    tail: String,
}

/// Steps that are no frames, by how they ended; those that have not are `known` less all others.
#[derive(Default)]
struct Counts {
    known: u64,
    done: u64,
    skipped: u64,
    failed: u64,
    cancelled: u64,
}

struct State {
    began: Instant,
    live: bool,
    /// Lines that the terminal takes at once; the others are counted.
    room: usize,
    /// What is to be written, and whether all of it matters: then it is broken where it is too long, else cut.
    lines: Vec<(bool, String)>,
    left_out: u64,
    leaves: BTreeMap<Arc<str>, Leaf>,
    /// Open frames, by the step that opened them, with how many of their steps have not ended.
    frames: BTreeMap<StepId, u64>,
    /// Somebody else writes on the terminal.
    aside: bool,
    /// Whether the live part stands on the terminal.
    drawn: bool,
    counts: Counts,
    usage: Usage,
    /// Steps whose value was found and that have not ended yet.
    found: BTreeMap<Arc<str>, Found>,
    savings: Savings,
    values: BTreeMap<ValueHash, Arc<Datum>>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let live = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let state = Arc::new(Mutex::new(State::new(live)));
        let (stop, stopped) = mpsc::channel();
        let painted = Arc::new(Condvar::new());
        let (watched, done) = (state.clone(), painted.clone());
        let painter = std::thread::Builder::new()
            .name("flowrun-progress".into())
            .spawn(move || draw_until(&stopped, &watched, &done))
            .map(|thread| (stop, thread));
        // Without a thread nothing is drawn; the run is worth more than its picture.
        Self { state, painted, painter: Mutex::new(painter.ok()) }
    }

    /// Takes the live part off the terminal and writes nothing until the view may be there again.
    pub(super) fn step_aside(&self) {
        let mut state = self.state();
        state.aside = true;
        while state.drawn {
            state = self.painted.wait(state).expect("BUG: a panic in the progress view");
        }
    }

    /// The terminal is the view's again.
    pub(super) fn come_back(&self) {
        self.state().aside = false;
    }

    /// Writes what is left and takes the live part off the terminal.
    pub(super) fn finish(&self) {
        if let Some((stop, thread)) = self.painter.lock().expect("BUG: a panic while ending the progress view").take() {
            drop(stop);
            let _panicked = thread.join();
        }
    }

    /// Writes a line among the others.
    pub(super) fn say(&self, text: &str) {
        self.state().notable(text.to_owned());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("BUG: a panic in the progress view")
    }
}

fn draw_until(stopped: &Receiver<()>, watched: &Mutex<State>, painted: &Condvar) {
    let mut screen = Screen::default();
    loop {
        let last = stopped.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout);
        let (columns, rows) = screen::size();
        let mut state = watched.lock().expect("BUG: a panic in the progress view");
        if state.aside && !state.drawn && !last {
            continue;
        }
        let (live, lines) = (state.live, state.take_lines(columns, rows));
        let area = if last || !live || state.aside { Vec::new() } else { state.area(columns, rows) };
        let drawn = !area.is_empty();
        drop(state);
        if live {
            screen.draw(&lines, &area, columns);
        } else {
            lines.iter().for_each(|line| say(&paint(line)));
        }
        watched.lock().expect("BUG: a panic in the progress view").drawn = drawn;
        painted.notify_all();
        if last {
            return;
        }
    }
}

impl State {
    fn new(live: bool) -> Self {
        let (leaves, frames, values) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (counts, usage, lines) = (Counts::default(), Usage::default(), Vec::new());
        let (room, left_out, aside, drawn) = (24, 0, false, false);
        let (began, found, savings) = (Instant::now(), BTreeMap::new(), Savings::default());
        Self { began, live, room, lines, left_out, leaves, frames, aside, drawn, counts, usage, found, savings, values }
    }

    /// Keeps a line about a step. Between two drawings a terminal gets no more of them than it has rows.
    fn line(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.live && self.lines.len() >= self.room {
            self.left_out += 1;
        } else {
            let line = line(self);
            self.lines.push((false, line));
        }
    }

    /// Keeps a line that should not go under.
    fn notable(&mut self, line: String) {
        if self.live && self.lines.len() >= NOTABLE * self.room {
            self.left_out += 1;
        } else {
            self.lines.push((true, line));
        }
    }

    /// What is to be written, on a terminal in lines that fit.
    fn take_lines(&mut self, columns: usize, rows: usize) -> Vec<String> {
        self.room = rows;
        let mut lines = Vec::new();
        for (whole, text) in std::mem::take(&mut self.lines) {
            for line in text.lines() {
                match (self.live, whole) {
                    (false, _) => lines.push(line.to_owned()),
                    (true, false) => lines.push(fit(line, columns).to_owned()),
                    (true, true) => broken(line, columns, &mut lines),
                }
            }
        }
        let left_out = std::mem::take(&mut self.left_out);
        lines.extend((left_out > 0).then(|| format!("… and {} more", thousands(left_out))));
        lines
    }

    fn take(&mut self, record: &Record) {
        match &record.event {
            Event::FrameOpened { step, children, .. } => {
                let frame = u64::from(!record.path.is_empty());
                self.counts.known = (self.counts.known + u64::from(*children)).saturating_sub(frame);
                self.frames.insert(*step, u64::from(*children));
            }
            Event::PassEnded { step, end: PassEnd::Again, .. } => {
                self.counts.known += 1;
                self.frames.entry(*step).and_modify(|unended| *unended += 1);
            }
            // On a terminal the question itself follows, at once or at the end.
            Event::Suspended { .. } if !self.live => {
                self.line(|_| format!("? {}  waits for an answer", clean(&record.path)))
            }
            Event::Started { attempt, .. } => {
                let new = || Leaf { first_us: record.time_us, since: None, tail: String::new() };
                let leaf = self.leaves.entry(record.path.clone()).or_insert_with(new);
                leaf.since = Some(Instant::now());
                leaf.tail.clear();
                if *attempt > 1 {
                    self.line(|_| format!("  {} attempt {attempt}", clean(&record.path)));
                }
            }
            Event::Settled { report, .. } => {
                if let Some(leaf) = self.leaves.get_mut(&record.path) {
                    leaf.since = None;
                }
                if let Some(report) = report {
                    self.usage += report.usage;
                    self.reported(&record.path, report.provenance);
                }
            }
            Event::Backoff { delay_ms, error, .. } => self.line(|_| {
                let (path, message) = (clean(&record.path), clean(&error.message));
                format!("  {path}: {message}; next attempt in {}", duration(1_000 * *delay_ms))
            }),
            Event::Decided { decision: Decision::Graph { graph, plan }, .. } => {
                let plan = self.values.get(plan).map(|plan| plan.json().clone());
                self.notable(drawn(&record.path, graph, plan.as_ref()));
            }
            Event::Ended { step, outcome } if !record.path.is_empty() => self.ended(*step, record, outcome),
            _ => {}
        }
    }

    fn ended(&mut self, step: StepId, record: &Record, outcome: &Outcome) {
        if let Some(unended) = self.frames.get_mut(&record.around) {
            *unended = unended.saturating_sub(1);
        }
        match (self.frames.remove(&step), outcome) {
            // Items that were never opened have no end of their own.
            (Some(unopened), _) => self.counts.known = self.counts.known.saturating_sub(unopened),
            (None, Outcome::Succeeded { .. }) => self.counts.done += 1,
            (None, Outcome::Failed { .. }) => self.counts.failed += 1,
            (None, Outcome::Skipped(_)) => self.counts.skipped += 1,
            (None, Outcome::Cancelled) => self.counts.cancelled += 1,
        }
        let leaf = self.leaves.remove(&record.path);
        let found = self.found.remove(&record.path).map(|found| found.word());
        let is_leaf = leaf.is_some() || found.is_some();
        let took = leaf.map(|leaf| duration(record.time_us.saturating_sub(leaf.first_us)));
        let took = found.map(str::to_owned).or(took).map(|said| format!("  {said}"));
        let (path, took) = (clean(&record.path), took.unwrap_or_default());
        match outcome {
            Outcome::Succeeded { recovered: None, .. } if !is_leaf => {}
            Outcome::Succeeded { recovered: None, value } => self.line(|state| {
                let value = state.values.get(value).map(|value| excerpt(value.json())).unwrap_or_default();
                format!("✓ {path}{took}  {value}")
            }),
            Outcome::Succeeded { recovered: Some(error), .. } => {
                self.notable(format!("✓ {path}{took}  recovered from: {}", clean(&error.message)));
            }
            Outcome::Failed { error, tolerated } => {
                let word = if *tolerated { " (tolerated)" } else { "" };
                self.notable(format!("✗ {path}{took}{word}  {}", clean(&error.message)));
            }
            Outcome::Skipped(SkipReason::Guard) => self.line(|_| format!("- {path}  skipped: its `when` is false")),
            Outcome::Skipped(SkipReason::NotRouted) => self.line(|_| format!("- {path}  skipped: no edge led to it")),
            Outcome::Skipped(_) => self.line(|_| format!("- {path}  skipped: what it needs is not there")),
            Outcome::Cancelled => {}
        }
    }

    fn reported(&mut self, path: &Arc<str>, provenance: Option<ValueHash>) {
        let Some(report) = provenance.and_then(|hash| self.values.get(&hash).cloned()) else { return };
        if let Some(found) = Found::of(report.json()) {
            self.savings.add(&found);
            self.found.insert(path.clone(), found);
            return;
        }
        // Nobody asks for it again, and it holds all that was said. Several steps may find the same.
        provenance.iter().for_each(|hash| drop(self.values.remove(hash)));
        let path = clean(path);
        for repair in report.json()["repairs"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.notable(format!("  {path}: repaired {}", clean(repair)));
        }
        if report.json()["outcome"] == "fallback" {
            self.notable(format!("  {path}: no plan of the model was usable; its `fallback` is used"));
        }
    }

    /// Keeps the end of what a step says.
    fn tokens(&mut self, path: &str, text: &str) {
        if let Some(leaf) = self.leaves.get_mut(path).filter(|leaf| leaf.since.is_some()) {
            let end = |text: &str| text.char_indices().rev().nth(TAIL).map_or(0, |(at, _)| at);
            leaf.tail.extend(text[end(text)..].chars().map(|c| if c.is_control() { ' ' } else { c }));
            if leaf.tail.len() > 8 * TAIL {
                leaf.tail.drain(..end(&leaf.tail));
            }
        }
    }

    /// The live part: the steps that have run longest, then the counts. A fifth of the width stays free, because a terminal
    /// that is made narrower breaks lines that do not fit before they can be drawn anew.
    fn area(&self, columns: usize, rows: usize) -> Vec<String> {
        let room = columns - columns / 5;
        let running = || self.leaves.iter().filter_map(|(path, leaf)| Some((leaf.since?, path, leaf)));
        let mut status = self.status(running().count() as u64, room);
        status.truncate(rows - 1);
        let most = (rows * 2 / 3).saturating_sub(status.len());
        let mut oldest: Vec<_> = running().collect();
        if oldest.len() > most && most > 0 {
            oldest.select_nth_unstable_by_key(most - 1, |(since, path, _)| (*since, *path));
        }
        oldest.truncate(most);
        oldest.sort_by_key(|(since, path, _)| (*since, *path));
        oldest.into_iter().map(|(since, path, leaf)| step_line(path, since, &leaf.tail, room)).chain(status).collect()
    }

    fn status(&self, running: u64, room: usize) -> Vec<String> {
        let Counts { known, done, skipped, failed, cancelled } = self.counts;
        let waiting = known.saturating_sub(done + skipped + failed + cancelled + running);
        let count = |number: u64, word: &str| format!("{} {word}", thousands(number));
        let seen = |number: u64, word: &str| (number > 0).then(|| count(number, word));
        let mut parts = vec![count(running, "running"), count(waiting, "waiting"), count(done, "done")];
        parts.extend(
            [seen(skipped, "skipped"), seen(failed, "failed"), seen(cancelled, "cancelled")].into_iter().flatten(),
        );
        parts.extend((self.savings.hits() > 0).then(|| self.savings.to_string()));
        parts.push(counted(self.usage.calls, "call"));
        parts.push(counted(self.usage.prompt_tokens + self.usage.completion_tokens, "token"));
        parts.push(elapsed(self.began));
        let mut lines: Vec<String> = Vec::new();
        for part in parts {
            match lines.last_mut().filter(|line| line.len() + 2 + part.len() <= room) {
                Some(line) => *line = format!("{line}, {part}"),
                None => lines.push(part),
            }
        }
        lines
    }
}

/// Breaks a line into lines that fit.
fn broken(line: &str, columns: usize, lines: &mut Vec<String>) {
    let mut rest = line.to_owned();
    while render::columns(&rest) > columns {
        let head = fit(&rest, columns).to_owned();
        rest = format!("    {}", rest[head.len()..].trim_start());
        lines.push(head);
    }
    lines.push(rest);
}

/// One running step: its path, how long it has run, and the end of what it says.
fn step_line(path: &str, since: Instant, tail: &str, room: usize) -> String {
    let path = clean(path);
    let name = fit_end(&path, room / 2);
    let cut = if name.len() < path.len() { "…" } else { "" };
    let line = format!("… {cut}{name}  {}  ", elapsed(since));
    let left = room.saturating_sub(columns(&line));
    fit(&format!("{line}{}", clean(fit_end(tail, left))), room).trim_end().to_owned()
}

fn elapsed(since: Instant) -> String {
    let us = since.elapsed().as_micros() as u64;
    if us < 60_000_000 { format!("{:.1} s", us as f64 / 1e6) } else { duration(us) }
}

impl Observer for Progress {
    fn value(&self, hash: ValueHash, value: &Arc<Datum>) {
        self.state().values.insert(hash, value.clone());
    }

    fn records(&self, records: &Records<'_>) {
        let mut state = self.state();
        records.iter().for_each(|record| state.take(&record));
    }

    fn tokens(&self, path: &str, text: &str) {
        self.state().tokens(path, text);
    }
}

/// The graph of an expansion as it opens, with what each step asks.
fn drawn(path: &str, graph: &Graph, plan: Option<&Value>) -> String {
    let steps = plan.and_then(|plan| plan["steps"].as_array()).into_iter().flatten();
    let asks = steps.filter(|step| step["id"] != "answer").map(|step| {
        let text = |key: &str| clean(step[key].as_str().unwrap_or_default());
        format!("    {}: {}{}\n", text("id"), text("ask"), again(&step["repeat"]))
    });
    let boxes = render::graph(graph, width().saturating_sub(4));
    let boxes: String = boxes.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "  {} opens a graph of {}:\n{boxes}{}",
        clean(path),
        counted(graph.nodes().len() as u64, "step"),
        asks.collect::<String>()
    )
    .trim_end()
    .to_owned()
}

/// What a step of a plan does again, behind what it asks first.
fn again(repeat: &Value) -> String {
    let Some(max) = repeat["max"].as_u64() else { return String::new() };
    let ids = repeat["steps"].as_array().into_iter().flatten().filter_map(|step| step["id"].as_str());
    let block: Vec<&str> = ids.collect();
    let again = repeat["again"].as_str().map_or_else(|| block.join(", "), |text| format!("; again: {text}"));
    let until = repeat["until"].as_str().map(|text| format!("; until: {text}")).unwrap_or_default();
    clean(&format!("{again}{until}; at most {}", counted(max, "time")))
}

fn excerpt(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let clean = clean(&text);
    let short: String = clean.chars().take(60).collect();
    if short.len() < clean.len() { format!("{short}…") } else { short }
}

#[cfg(test)]
mod tests {
    use flowrun_engine::event::AttemptReport;
    use flowrun_engine::id::StepId;

    use super::*;

    /// An event of a step of the workflow, or of what the first one opened.
    fn record(path: &str, event: Event) -> Record {
        let around = StepId(u32::from(path.len() > 1));
        Record { sequence: 0, time_us: 0, path: path.into(), around, event }
    }

    fn started(step: u32) -> Event {
        Event::Started { step: StepId(step), attempt: 1, input: None }
    }

    fn ended(step: u32, outcome: Outcome) -> Event {
        Event::Ended { step: StepId(step), outcome }
    }

    /// A run whose only node has that many items.
    fn run(items: u32) -> State {
        let mut state = State::new(true);
        state.take(&record("", frame(0, 1)));
        state.take(&record("a", frame(1, items)));
        state
    }

    fn frame(step: u32, children: u32) -> Event {
        Event::FrameOpened { step: StepId(step), graph: None, children }
    }

    #[test]
    fn a_hundred_thousand_steps_are_a_few_lines() {
        let mut state = run(100_001);
        (0..100_000).for_each(|n| state.take(&record(&format!("a[{n}]"), started(n + 2))));
        state.tokens("a[7]", &"東京".repeat(1_000));
        for (columns, rows) in [(20, 4), (40, 12), (80, 24), (200, 50)] {
            let area = state.area(columns, rows);
            assert!(area.len() < rows && area.iter().all(|line| render::columns(line) < columns), "{area:?}");
            assert!(area.iter().any(|line| line.starts_with("100,000 running")), "{area:?}");
        }
        let area = state.area(80, 24);
        assert!(area[0].starts_with("… a[0]  ") && area.iter().any(|line| line.contains("東京東京")), "{area:?}");
        let hash = ValueHash::of_bytes(b"");
        let done = || Outcome::Succeeded { value: hash, recovered: None };
        (0..100_000).for_each(|n| state.take(&record(&format!("a[{n}]"), ended(n + 2, done()))));
        let lines = state.take_lines(80, 24);
        assert_eq!((lines.len(), lines.last().unwrap().as_str()), (25, "… and 99,976 more"));
        assert_eq!(
            state.area(100, 24),
            [format!("0 running, 1 waiting, 100,000 done, 0 calls, 0 tokens, {}", elapsed(state.began))]
        );
    }

    #[test]
    fn every_step_is_counted_once() {
        let mut state = run(5);
        let error = flowrun_engine::failure::StepError::terminal("x", "it was refused, and why is a long story");
        let failed = Outcome::Failed { error, tolerated: false };
        state.take(&record("a[0]", started(2)));
        state.take(&record("a[0]", ended(2, failed.clone())));
        assert_eq!(state.take_lines(20, 24), ["✗ a[0]  0 ms  it was", "    refused, and why", "    is a long story"]);
        state.take(&record("a[1]", ended(3, Outcome::Skipped(SkipReason::Guard))));
        state.take(&record("a[2]", started(4)));
        assert!(state.area(80, 24)[1].starts_with("1 running, 2 waiting, 0 done, 1 skipped, 1 failed, 0 calls"));
        state.take(&record("a[2]", ended(4, Outcome::Cancelled)));
        state.take(&record("a", ended(1, failed)));
        let status = &state.area(80, 24)[0];
        assert!(status.starts_with("0 running, 0 waiting, 0 done, 1 skipped, 1 failed, 1 cancelled"), "{status}");
    }

    #[test]
    fn steps_whose_answers_were_found_are_said_and_counted() {
        let mut state = run(2);
        let usage = serde_json::json!({"calls": 2});
        let report = Datum::new(serde_json::json!({"from": {"how": "cache", "run": "r", "step": "s", "usage": usage}}));
        let (provenance, value) = (ValueHash::of(report.json()), ValueHash::of(&Value::Null));
        state.values.insert(provenance, report);
        for (path, step) in [("a[0]", 2), ("a[1]", 3)] {
            let report = AttemptReport { provenance: Some(provenance), ..AttemptReport::default() };
            state.take(&record(
                path,
                Event::Settled { step: StepId(step), attempt: 0, result: Ok(value), report: report.boxed() },
            ));
            state.take(&record(path, ended(step, Outcome::Succeeded { value, recovered: None })));
        }
        assert_eq!(state.take_lines(80, 24), ["✓ a[0]  cached", "✓ a[1]  cached"].map(|line| format!("{line}  ")));
        let status = &state.area(120, 24)[0];
        assert!(status.starts_with("0 running, 0 waiting, 2 done, 2 cached (4 calls saved), 0 calls"), "{status}");
    }

    #[test]
    fn passes_are_counted_as_they_open() {
        let mut state = run(1);
        let done = || Outcome::Succeeded { value: ValueHash::of_bytes(b""), recovered: None };
        let pass_ended = |end| Event::PassEnded { step: StepId(1), pass: 0, end };
        for pass in 0..3 {
            assert!(state.area(100, 24)[0].starts_with(&format!("0 running, 1 waiting, {pass} done")));
            let path = format!("a#{pass}");
            state.take(&record(&path, started(pass + 2)));
            state.take(&record(&path, ended(pass + 2, done())));
            state.take(&record("a", pass_ended(if pass < 2 { PassEnd::Again } else { PassEnd::Limit })));
        }
        state.take(&record("a", ended(1, done())));
        assert!(state.area(100, 24)[0].starts_with("0 running, 0 waiting, 3 done"));
    }
}
