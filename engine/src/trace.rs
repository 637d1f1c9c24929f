//! A run as a tree of steps, with the chain of steps that decided how long it took.
//!
//! Built from the log alone. The *critical path* is found backwards: from the leaf attempt that ended last to the one that ended
//! last before it started, and so on; what remains between them is the engine's own time. O(steps log steps).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value;

use crate::event::{Logged, Usage};

/// One step in a trace.
#[derive(Clone, Debug, Default)]
pub struct TraceStep {
    /// Its path.
    pub path: String,
    /// Its state word; `unfinished` if the log ends before it does.
    pub state: String,
    /// When it became ready, first started (or opened its frame) and ended, in microseconds since the run started.
    pub ready_us: Option<u64>,
    /// See `ready_us`.
    pub started_us: Option<u64>,
    /// See `ready_us`.
    pub ended_us: Option<u64>,
    /// Attempts.
    pub attempts: u64,
    /// What its attempts cost.
    pub usage: Usage,
    /// Why it was skipped, or what went wrong.
    pub why: Option<String>,
    /// Hashes of its rendered input, value, and report.
    pub input: Option<String>,
    /// See `input`.
    pub value: Option<String>,
    /// See `input`.
    pub provenance: Option<String>,
    /// Steps of the frame that it opened, by position in [`Trace::steps`].
    pub children: Vec<usize>,
    /// Whether it runs something itself.
    pub is_leaf: bool,
    /// Whether it is part of the critical path.
    pub critical: bool,
}

impl TraceStep {
    /// How long it took, in microseconds.
    pub fn duration_us(&self) -> Option<u64> {
        Some(self.ended_us?.saturating_sub(self.started_us?))
    }
}

/// A run as a tree.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// All steps in the order in which they were first heard of.
    pub steps: Vec<TraceStep>,
    /// Steps of the workflow itself.
    pub roots: Vec<usize>,
    /// How long the steps of the critical path took together, in microseconds.
    pub critical_path_us: u64,
    /// Most leaf steps that ran at the same time.
    pub overlap: usize,
}

impl Trace {
    /// Builds the tree out of a log.
    pub fn new(events: &[Logged]) -> Self {
        let mut trace = Self::default();
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        for event in events.iter().filter(|event| !event.step.is_empty()) {
            let at = trace.step(&event.step, &mut index);
            trace.steps[at].take(event);
        }
        trace.mark_critical_path();
        trace.overlap = trace.most_at_once();
        trace
    }

    /// The step of that path; new ones are hung below their parents.
    fn step(&mut self, path: &str, index: &mut BTreeMap<String, usize>) -> usize {
        if let Some(at) = index.get(path) {
            return *at;
        }
        let at = self.steps.len();
        self.steps.push(TraceStep { path: path.to_owned(), state: "unfinished".to_owned(), ..TraceStep::default() });
        index.insert(path.to_owned(), at);
        match parent(path).and_then(|parent| index.get(parent).copied()) {
            Some(parent) => self.steps[parent].children.push(at),
            None => self.roots.push(at),
        }
        at
    }

    fn leaves(&self) -> impl Iterator<Item = (usize, u64, u64)> {
        let leaf =
            |(at, step): (usize, &TraceStep)| Some((at, step.started_us?, step.ended_us.filter(|_| step.is_leaf)?));
        self.steps.iter().enumerate().filter_map(leaf)
    }

    fn mark_critical_path(&mut self) {
        let mut by_end: BTreeSet<(u64, u64, usize)> = self.leaves().map(|(at, start, end)| (end, start, at)).collect();
        let mut next = by_end.last().copied();
        while let Some((end, start, at)) = next {
            self.steps[at].critical = true;
            self.critical_path_us += end - start;
            by_end.remove(&(end, start, at));
            next = by_end
                .range(..=(start, u64::MAX, usize::MAX))
                .next_back()
                .copied()
                .filter(|(_, earlier, _)| *earlier <= start);
            by_end.split_off(&(start, u64::MAX, usize::MAX));
        }
    }

    fn most_at_once(&self) -> usize {
        let mut moves: Vec<(u64, i64)> = self.leaves().flat_map(|(_, start, end)| [(start, 1), (end, -1)]).collect();
        moves.sort_unstable();
        let mut running = 0;
        moves
            .into_iter()
            .map(|(_, change)| {
                running += change;
                running
            })
            .max()
            .unwrap_or(0)
            .max(0) as usize
    }

    /// The tree as text, `width` characters wide; more than 20 items of a list are folded.
    pub fn tree(&self, width: usize) -> String {
        let mut text = String::new();
        let mut stack: Vec<(usize, usize)> = self.roots.iter().rev().map(|root| (*root, 0)).collect();
        let mut folded: BTreeMap<usize, usize> = BTreeMap::new();
        while let Some((at, depth)) = stack.pop() {
            if let Some(more) = folded.get(&at) {
                let _ = writeln!(text, "{}… {more} more", "  ".repeat(depth));
                continue;
            }
            let step = &self.steps[at];
            let _ = writeln!(text, "{}", self.line(step, depth, width));
            let shown = if step.children.len() > 20 { 19 } else { step.children.len() };
            if shown < step.children.len() {
                folded.insert(step.children[shown], step.children.len() - shown);
            }
            let kept = step.children.len().min(shown + 1);
            stack.extend(step.children[..kept].iter().rev().map(|child| (*child, depth + 1)));
        }
        text
    }

    fn line(&self, step: &TraceStep, depth: usize, width: usize) -> String {
        let mark = match step.state.as_str() {
            "succeeded" => "✓",
            "failed" => "✗",
            "skipped" => "-",
            "cancelled" => "■",
            _ => "…",
        };
        let name = step.path.rsplit('/').next().unwrap_or(&step.path);
        let name =
            if depth > 0 && step.path.ends_with(']') { name.rfind('[').map_or(name, |at| &name[at..]) } else { name };
        let left = format!("{}{mark} {name}", "  ".repeat(depth));
        let mut right = String::new();
        if let Some(took) = step.duration_us().filter(|us| *us >= 1_000 || step.is_leaf) {
            let _ = write!(right, "{:>9}", duration(took));
        }
        if step.usage.calls > 0 {
            let _ = write!(right, "  {} tokens", step.usage.prompt_tokens + step.usage.completion_tokens);
        }
        if step.attempts > 1 {
            let _ = write!(right, "  {} attempts", step.attempts);
        }
        right.push_str(if step.critical { "  *" } else { "" });
        if let Some(why) = &step.why {
            let _ = write!(right, "  {why}");
        }
        let column = left.chars().count().max(34);
        let line = format!("{left:<column$} {right}");
        let cut: String = line.trim_end().chars().take(width.max(20)).collect();
        cut
    }
}

impl TraceStep {
    fn take(&mut self, event: &Logged) {
        match event.kind.as_str() {
            "ready" => self.ready_us = self.ready_us.or(Some(event.time_us)),
            "started" => {
                self.is_leaf = true;
                self.attempts += 1;
                self.started_us = self.started_us.or(Some(event.time_us));
                self.input = event.text("input").map(str::to_owned);
            }
            "frame_opened" => self.started_us = self.started_us.or(Some(event.time_us)),
            "settled" => {
                self.usage += serde_json::from_value(event.line["usage"].clone()).unwrap_or_default();
                self.provenance = event.text("provenance").map(str::to_owned);
            }
            "ended" => {
                self.ended_us = Some(event.time_us);
                self.state = event.text("state").unwrap_or("?").to_owned();
                self.value = event.text("value").map(str::to_owned);
                self.why = why(event);
            }
            _ => {}
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
        Some("none_of") => Some("none of what it joins succeeded".to_owned()),
        _ => match message(&event.line["recovered"]) {
            Some(error) => Some(format!("recovered from: {error}")),
            None => message(&event.line["error"]),
        },
    }
}

/// The path of the step that a path hangs below; `None` for a node of the workflow itself.
fn parent(path: &str) -> Option<&str> {
    match path.strip_suffix(']') {
        Some(_) => path.rfind('[').map(|at| &path[..at]),
        None => path.rfind('/').map(|at| &path[..at]),
    }
}

/// A duration in microseconds, for people.
pub fn duration(us: u64) -> String {
    let tenths = |of: f64| format!("{:.1}", us as f64 / of);
    match us {
        0..10_000 => format!("{} ms", tenths(1e3).trim_end_matches(".0")),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..60_000_000 => format!("{} s", tenths(1e6)),
        _ => format!("{} min {} s", us / 60_000_000, us % 60_000_000 / 1_000_000),
    }
}

/// A count with its word: `1 call`, `1,200 tokens`.
pub fn counted(number: u64, word: &str) -> String {
    format!("{} {word}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// A number with commas.
pub fn thousands(number: u64) -> String {
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
mod tests {
    use super::*;

    fn log(lines: &[(u64, &str, &str)]) -> Vec<Logged> {
        let line = |(us, step, rest): &(u64, &str, &str)| {
            Logged::parse(&format!(r#"{{"v":1,"seq":0,"us":{us},"step":"{step}",{rest}}}"#)).unwrap()
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn the_tree_shows_times_reasons_and_the_critical_path() {
        let (start, end) = (r#""type":"started","attempt":1"#, r#""type":"ended","state":"succeeded""#);
        let trace = Trace::new(&log(&[
            (0, "a", start),
            (0, "b", r#""type":"frame_opened","children":2"#),
            (0, "b[0]", start),
            (5, "b[1]", start),
            (10, "a", end),
            (30, "b[0]", end),
            (90, "b[1]", end),
            (90, "b", end),
            (90, "c", r#""type":"ended","state":"skipped","reason":"requires","source":"x""#),
            (91, "d", start),
            (100, "d", end),
        ]));
        let critical: Vec<&str> = trace.steps.iter().filter(|s| s.critical).map(|s| s.path.as_str()).collect();
        assert_eq!(critical, ["b[1]", "d"]);
        assert_eq!((trace.critical_path_us, trace.overlap), (94, 3));
        let text = trace.tree(100);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert!(lines[2].starts_with("  ✓ [0]") && lines[3].ends_with('*'), "{text}");
        assert!(lines[4].contains("- c") && lines[4].ends_with("needs `x`"), "{text}");
        assert_eq!((counted(1, "call"), counted(1_200, "token")), ("1 call".into(), "1,200 tokens".into()));
        assert_eq!(trace.tree(20).lines().map(|line| line.chars().count()).max(), Some(20));
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            (thousands(1_234_567), thousands(12), duration(999_900), duration(61_500_000)),
            ("1,234,567".into(), "12".into(), "999 ms".into(), "1 min 1 s".into())
        );
        let times = [0, 40, 60, 6_240, 8_000, 12_900, 1_240_000].map(duration);
        assert_eq!(times, ["0 ms", "0 ms", "0.1 ms", "6.2 ms", "8 ms", "12 ms", "1.2 s"]);
    }
}
