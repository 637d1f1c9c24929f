//! A run as a tree of steps, with the chain of steps that decided how long it took.
//!
//! Built from the log alone. The *critical path* is found backwards: from the leaf that ended last to the one that ended last
//! before it started, and so on; what remains between them is the engine's own time. O(steps log steps). What lost a race or
//! came after a stopping prefix decided nothing. Times leave out the gaps in which nobody drove the run.
//!
//! [`Trace::tree`], [`Trace::timeline`] and [`Trace::chrome`] show it.

mod chrome;
mod find;
mod found;
mod timeline;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use flowrun_engine::event::{Logged, Usage};

pub use found::{Found, Savings};

/// One try of a leaf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// When it could have started, in microseconds since the run started.
    pub ready_us: u64,
    /// When it did.
    pub started_us: u64,
    /// When it ended; `None` if the log ends before it does.
    pub ended_us: Option<u64>,
    /// Whether the run was cut off meanwhile, so that nobody knows how it ended.
    pub is_cut_off: bool,
    /// What went wrong, whole.
    pub error: Option<String>,
    /// Hash of its report.
    pub provenance: Option<String>,
}

/// One step in a trace.
#[derive(Clone, Debug, Default)]
pub struct TraceStep {
    /// Its path.
    pub path: String,
    /// What it is called below the step around it: `draft`, `[2]`, `#1`.
    pub name: String,
    /// Its state word; `suspended` while a person is asked, `unfinished` if the log ends before it does.
    pub state: String,
    /// When it became ready, if it still waits for room, in microseconds since the run started.
    pub ready_us: Option<u64>,
    /// When it first started or opened its frame, in microseconds since the run started.
    pub started_us: Option<u64>,
    /// When it ended.
    pub ended_us: Option<u64>,
    /// The attempts of a leaf, in order; of a step that asks a person the time of asking. Empty for everything that runs nothing itself.
    pub attempts: Vec<Attempt>,
    /// What its attempts cost.
    pub usage: Usage,
    /// Why it was skipped, or the first line of what went wrong.
    pub why: Option<String>,
    /// What else became of it: how its loop ended, who won its race, that it is unused, that it was cut off.
    pub notes: Vec<String>,
    /// Whether it is an item beyond the prefix that is its map's value.
    pub is_unused: bool,
    /// Hashes of its rendered input and of its value.
    pub input: Option<String>,
    /// See `input`.
    pub value: Option<String>,
    /// Hash of its last report.
    pub report: Option<String>,
    /// Where its value came from, if it did not make it itself; [`Trace::look_up`] fills it in.
    pub found: Option<Found>,
    /// Whether it waits for what another step asks at this moment.
    pub is_held: bool,
    /// Steps of the frame that it opened, by position in [`Trace::steps`].
    pub children: Vec<usize>,
    /// Whether it is part of the critical path.
    pub critical: bool,
}

impl TraceStep {
    /// How long it took, in microseconds.
    pub fn duration_us(&self) -> Option<u64> {
        Some(self.ended_us?.saturating_sub(self.started_us?))
    }

    /// Whether it runs something itself.
    pub fn is_leaf(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// The sign of its state.
    fn mark(&self) -> char {
        match self.state.as_str() {
            "succeeded" => '✓',
            "failed" => '✗',
            "skipped" => '-',
            "cancelled" => '■',
            "suspended" => '?',
            _ => '…',
        }
    }

    /// What it is called in a view that begins with it, or below the step around it.
    fn label(&self, depth: usize) -> &str {
        if depth > 0 { &self.name } else { self.path.rsplit('/').next().unwrap_or(&self.path) }
    }
}

/// A run as a tree.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// All steps in the order in which they were first heard of.
    pub steps: Vec<TraceStep>,
    /// Steps of the workflow itself.
    pub roots: Vec<usize>,
    /// From when it is shown, in microseconds since the run started.
    pub from_us: u64,
    /// Until when.
    pub until_us: u64,
    /// How long the steps of the critical path took together, in microseconds.
    pub critical_path_us: u64,
    /// Most leaf steps that ran at the same time.
    pub overlap: usize,
    /// The step that failed the run, if one did, and the whole error.
    pub failure: Option<(String, String)>,
    was_cancelled: bool,
    /// For how long nobody drove the run, in microseconds.
    idle_us: u64,
}

impl Trace {
    /// Builds the tree out of a log.
    pub fn new(events: &[Logged]) -> Self {
        let times = driven_times(events);
        let until_us = times.last().copied().unwrap_or(0);
        let idle_us = events.last().map_or(0, |event| event.time_us - until_us);
        let mut trace = Self { until_us, idle_us, ..Self::default() };
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        for (event, now) in events.iter().zip(times) {
            if event.kind == "attached" {
                trace.steps.iter_mut().for_each(|step| step.cut_off(now));
            }
            if event.step.is_empty() {
                continue;
            }
            let at = trace.step(&event.step, event.text("in"), &mut index);
            trace.steps[at].take(event, now);
            if event.kind == "unused" {
                trace.leave_out(at, event.line["from"].as_u64().unwrap_or(0));
            }
        }
        trace.failure = events.iter().rev().find(|event| event.kind == "run_ended").and_then(|event| {
            let step = event.text("failed_step").unwrap_or_default();
            Some((step.to_owned(), event.line["error"]["message"].as_str()?.to_owned()))
        });
        trace.was_cancelled = events.last().is_some_and(|event| event.text("status") == Some("cancelled"));
        let failed = trace.failure.as_ref().and_then(|(step, _)| index.get(step.as_str()).copied());
        trace.mark_critical_path(failed);
        trace.overlap = most_at_once(trace.steps.iter().flat_map(|step| &step.attempts), trace.until_us);
        trace
    }

    /// The step of that path; new ones are hung below the step around them, which the path tells unless `around` does.
    fn step(&mut self, path: &str, around: Option<&str>, index: &mut BTreeMap<String, usize>) -> usize {
        if let Some(at) = index.get(path) {
            return *at;
        }
        let at = self.steps.len();
        let outer = [around, pass_parent(path), parent(path)].into_iter().flatten().find_map(|path| index.get(path));
        let name = match outer.map(|outer| &self.steps[*outer].path) {
            Some(outer) => {
                path.strip_prefix(outer).map_or_else(|| node_name(path), |rest| rest.trim_start_matches('/'))
            }
            None => path,
        };
        let state = "unfinished".to_owned();
        self.steps.push(TraceStep { path: path.to_owned(), name: name.to_owned(), state, ..TraceStep::default() });
        match outer {
            Some(outer) => self.steps[*outer].children.push(at),
            None => self.roots.push(at),
        }
        index.insert(path.to_owned(), at);
        at
    }

    /// Items from a number on are not part of their map's value.
    fn leave_out(&mut self, map: usize, from: u64) {
        for at in self.steps[map].children.clone() {
            let step = &mut self.steps[at];
            let number = step.name.trim_matches(['[', ']']).parse::<u64>();
            if number.is_ok_and(|number| number >= from) {
                step.is_unused = true;
                step.notes.push("unused".to_owned());
            }
        }
    }

    /// A step and everything below it, parents first.
    fn below(&self, at: usize) -> impl Iterator<Item = usize> {
        let mut stack = vec![at];
        std::iter::from_fn(move || {
            let next = stack.pop()?;
            stack.extend(self.steps[next].children.iter().rev());
            Some(next)
        })
    }

    /// From the failed step on, if one ended the run: what was cancelled because of it decided nothing.
    fn mark_critical_path(&mut self, failed: Option<usize>) {
        let decides =
            |step: &TraceStep| step.is_leaf() && !step.is_unused && (self.was_cancelled || step.state != "cancelled");
        let leaf =
            |(at, step): (usize, &TraceStep)| Some((step.ended_us.filter(|_| decides(step))?, step.started_us?, at));
        let mut by_end: BTreeSet<(u64, u64, usize)> = self.steps.iter().enumerate().filter_map(leaf).collect();
        let decisive = failed.into_iter().flat_map(|at| self.below(at)).filter(|at| self.steps[*at].state == "failed");
        let last_failed = decisive.filter_map(|at| leaf((at, &self.steps[at]))).max();
        let mut next = last_failed.or_else(|| by_end.last().copied());
        while let Some((end, start, at)) = next {
            self.steps[at].critical = true;
            self.critical_path_us += end.saturating_sub(start);
            by_end.remove(&(end, start, at));
            next = by_end
                .range(..=(start, u64::MAX, usize::MAX))
                .next_back()
                .copied()
                .filter(|(_, earlier, _)| *earlier <= start);
            by_end.split_off(&(start, u64::MAX, usize::MAX));
        }
    }

    /// Shows a run that goes on up to the moment, in microseconds since it began.
    pub fn go_on_until(&mut self, running_us: u64) {
        self.until_us = running_us.saturating_sub(self.idle_us);
    }

    /// How long a step took, until now if it has not ended.
    fn took_us(&self, step: &TraceStep) -> Option<u64> {
        Some(step.ended_us.unwrap_or(self.until_us).saturating_sub(step.started_us?))
    }

    /// Shows only this step, by position in [`Trace::steps`], and what is below it.
    pub fn only(&mut self, at: usize) {
        let step = &self.steps[at];
        let first = step.attempts.first().map(|attempt| attempt.ready_us);
        self.from_us = first.or(step.started_us).or(step.ready_us).or(step.ended_us).unwrap_or(0);
        self.until_us = step.ended_us.unwrap_or(self.until_us);
        self.roots = vec![at];
    }

    /// The steps that are shown, in the order in which they were first heard of.
    pub fn shown(&self) -> Vec<&TraceStep> {
        let shown: BTreeSet<usize> = self.roots.iter().flat_map(|root| self.below(*root)).collect();
        shown.into_iter().map(|at| &self.steps[at]).collect()
    }

    /// The shown steps of the critical path, first to last.
    fn critical_path(&self) -> Vec<usize> {
        let shown = self.roots.iter().flat_map(|root| self.below(*root));
        let mut path: Vec<usize> = shown.filter(|at| self.steps[*at].critical).collect();
        path.sort_by_key(|at| (self.steps[*at].started_us, self.steps[*at].ended_us));
        path
    }
}

/// When each event happened on a clock that stands still while nobody drives the run: such a gap begins with the event before an
/// `attached` one, and ends with that.
pub(crate) fn driven_times(events: &[Logged]) -> Vec<u64> {
    let (mut idle_us, mut before_us) = (0, None);
    let driven = |event: &Logged| {
        let last_us = before_us.replace(event.time_us).filter(|_| event.kind == "attached");
        idle_us += last_us.map_or(0, |last_us| event.time_us.saturating_sub(last_us));
        event.time_us.saturating_sub(idle_us)
    };
    events.iter().map(driven).collect()
}

/// Most attempts that ran at the same time.
fn most_at_once<'a>(attempts: impl Iterator<Item = &'a Attempt>, end: u64) -> usize {
    let moves = |attempt: &Attempt| [(attempt.started_us, 1), (attempt.ended_us.unwrap_or(end), -1_i64)];
    let mut moves: Vec<(u64, i64)> = attempts.flat_map(moves).collect();
    moves.sort_unstable();
    let running = moves.iter().scan(0, |running, (_, change)| {
        *running += change;
        Some(*running)
    });
    running.max().unwrap_or(0).max(0) as usize
}

impl TraceStep {
    fn take(&mut self, event: &Logged, now: u64) {
        match event.kind.as_str() {
            "decided" if event.text("field") == Some("input") => {
                self.input = self.input.take().or(event.text("input").map(str::to_owned));
                self.is_held = event.line["held"] == true;
            }
            "missed" => self.is_held = false,
            "ready" => {
                self.ready_us = Some(now);
                self.notes.extend(event.text("winner").map(|winner| format!("`{winner}` won")));
            }
            "started" | "suspended" => {
                let ready_us = self.ready_us.take().unwrap_or(now);
                if self.attempts.last().is_some_and(|attempt| attempt.is_cut_off) {
                    self.notes.push("cut off; started again".to_owned());
                }
                self.attempts.push(Attempt { ready_us, started_us: now, ..Attempt::default() });
                self.is_held = false;
                self.started_us = self.started_us.or(Some(now));
                self.input = event.text("input").map(str::to_owned);
                if event.kind == "suspended" {
                    self.state = "suspended".to_owned();
                }
            }
            "answered" => self.end_attempt(now),
            "pass_ended" => self.notes.extend(loop_ended(event)),
            "frame_opened" => self.started_us = self.started_us.or(Some(now)),
            "settled" => {
                self.end_attempt(now);
                self.usage += event.usage();
                self.is_held = false;
                self.report = event.text("provenance").map(str::to_owned);
                if event.line["attempt"] == 0 && event.text("value").is_some() {
                    self.found = Some(Found::default());
                } else if let Some(attempt) = self.attempts.last_mut() {
                    attempt.provenance = self.report.clone();
                }
                self.attempt_failed(event);
            }
            "backoff" => self.attempt_failed(event),
            "ended" => {
                self.end_attempt(now);
                self.attempt_failed(event);
                self.ended_us = Some(now);
                self.is_held = false;
                self.state = event.text("state").unwrap_or("?").to_owned();
                self.value = event.text("value").map(str::to_owned);
                self.why = why(event);
            }
            _ => {}
        }
    }

    /// Several events tell of the same failure; an attempt that ran out of time has the last of them only.
    fn attempt_failed(&mut self, event: &Logged) {
        let message = event.line["error"]["message"].as_str();
        if let (Some(attempt), Some(message)) = (self.attempts.last_mut(), message) {
            attempt.error.get_or_insert_with(|| message.to_owned());
        }
    }

    /// Whoever drove the run is gone, and with it whatever was in flight. A person who is asked stays asked.
    fn cut_off(&mut self, last_us: u64) {
        let open = self.attempts.last_mut().filter(|attempt| attempt.ended_us.is_none());
        if let Some(attempt) = open.filter(|_| self.state != "suspended") {
            attempt.ended_us = Some(last_us);
            attempt.is_cut_off = true;
        }
    }

    fn end_attempt(&mut self, now: u64) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.ended_us = attempt.ended_us.or(Some(now));
        }
    }
}

fn why(event: &Logged) -> Option<String> {
    let source = event.text("source").unwrap_or_default();
    let message =
        |error: &Value| error["message"].as_str().map(|text| text.lines().next().unwrap_or_default().to_owned());
    match event.text("reason") {
        Some("requires") => Some(format!("needs `{source}`")),
        Some("output_requires") => Some(format!("its output needs `{source}`")),
        Some("guard") => Some("its `when` is false".to_owned()),
        Some("not_routed") => Some("no edge led to it".to_owned()),
        Some("none_of") => Some("none of what it joins succeeded".to_owned()),
        _ => match message(&event.line["recovered"]) {
            Some(error) => Some(format!("recovered from: {error}")),
            None => message(&event.line["error"]),
        },
    }
}

/// How a loop ended, if it did.
fn loop_ended(event: &Logged) -> Option<String> {
    let passes = match event.line["pass"].as_u64().unwrap_or(0) {
        0 => "1 pass".to_owned(),
        last => format!("{} passes", thousands(last + 1)),
    };
    match event.text("end")? {
        "again" => None,
        "limit" => Some(format!("ended at its bound after {passes}")),
        "exit" => Some(format!("left in pass #{}", event.line["pass"])),
        _ => Some(passes),
    }
}

/// The path of the step that a pass hangs below.
fn pass_parent(path: &str) -> Option<&str> {
    let (outer, number) = path.rsplit_once('#')?;
    number.chars().all(|c| c.is_ascii_digit()).then_some(outer)
}

/// The node's name in the path of a step in a loop, without the numbers of the passes around: `draft` of `g/draft#1.0`.
fn node_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('#').next().unwrap_or(name)
}

/// The path of the step that a path hangs below; `None` for a node of the workflow itself.
fn parent(path: &str) -> Option<&str> {
    match path.strip_suffix(']') {
        Some(_) => path.rfind('[').map(|at| &path[..at]),
        None => path.rfind('/').map(|at| &path[..at]),
    }
}

/// A duration in microseconds, for people.
pub(crate) fn duration(us: u64) -> String {
    let tenths = |of: f64| format!("{:.1}", us as f64 / of);
    match us {
        0..10_000 => format!("{} ms", tenths(1e3).trim_end_matches(".0")),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..60_000_000 => format!("{} s", tenths(1e6)),
        _ => format!("{} min {} s", us / 60_000_000, us % 60_000_000 / 1_000_000),
    }
}

/// A count with its word: `1 call`, `1,200 tokens`.
pub(crate) fn counted(number: u64, word: &str) -> String {
    format!("{} {word}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// A number with commas.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
