//! A log read step by step: what was decided of each, what it asked, and what became of it.
//!
//! A step's *facts* are what must be equal in two runs that went the same way: guards, lists of items, routes, inputs, what its key
//! was made of, winners, ends of passes, outcomes. What depends on timing or luck alone (attempts, durations, whether an answer was
//! found) is no fact.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use flowrun_engine::event::{Logged, Usage};
use flowrun_engine::id::ValueHash;

use crate::Origin;
use crate::runs::RunLog;
use crate::trace;

/// Most frames around a step that are told of: a log may say anything, also that a step stands in itself.
const DEPTH_MAX: usize = 100;

/// One thing that was decided of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// What: a field of the node, `input`, `key`, `winner`, `pass 2`, `outcome`.
    pub what: String,
    /// What it came to.
    pub value: Value,
    /// Position of its event in the log.
    pub at: usize,
}

/// Who paid for an answer that a step did not ask for itself, or that somebody set it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// In one word: `cached`, `shared` with a step that was asking for the same, `reused` from the run that is replayed, `corrected`;
    /// `found` where the log does not say how.
    pub word: String,
    /// The run that paid.
    pub run: Option<String>,
    /// The path of the step that paid.
    pub step: Option<String>,
    /// What was paid, which this step saved.
    pub usage: Usage,
}

impl Found {
    /// Whether nobody was asked: it was set by hand.
    pub fn is_corrected(&self) -> bool {
        self.word == "corrected"
    }
}

impl From<trace::Found> for Found {
    fn from(found: trace::Found) -> Self {
        let named = |text: String| Some(text).filter(|text| !text.is_empty());
        Self { word: found.word().to_owned(), run: named(found.run), step: named(found.step), usage: found.usage }
    }
}

/// What became of one step.
#[derive(Clone, Debug, Default)]
pub struct StepHistory {
    /// The step around it, where its path does not tell.
    pub around: Option<String>,
    /// Positions of its events in the log.
    pub events: Vec<usize>,
    /// What was decided of it, in order.
    pub facts: Vec<Fact>,
    /// `succeeded`, `failed`, `skipped`, `cancelled`; before that `suspended`, `running`, `backoff`, `ready`, or `unfinished`.
    pub state: String,
    /// Hash of its rendered input.
    pub input: Option<String>,
    /// Hash of what its key was made of.
    pub key: Option<String>,
    /// Hash of its value.
    pub value: Option<String>,
    /// Why it failed.
    pub error: Option<Value>,
    /// Attempts that started.
    pub attempts: usize,
    /// What its attempts cost.
    pub usage: Usage,
    /// Who paid, if its answer was found; that it was set, also of what is computed.
    pub found: Option<Found>,
    /// When it first started, opened its frame or was found, in microseconds for which the run was driven.
    pub started_us: Option<u64>,
    /// When it ended.
    pub ended_us: Option<u64>,
}

/// Every step of a run.
#[derive(Debug)]
pub struct History<'a> {
    /// The run.
    pub log: &'a RunLog,
    /// When each event of the log happened, in microseconds for which the run was driven.
    pub times_us: Vec<u64>,
    /// By path; the root's is empty.
    pub steps: BTreeMap<&'a str, StepHistory>,
}

impl<'a> History<'a> {
    /// Reads a log. O(events × log steps).
    pub fn new(log: &'a RunLog) -> Self {
        let mut steps: BTreeMap<&str, StepHistory> = BTreeMap::new();
        let times_us = trace::driven_times(&log.events);
        for (at, event) in log.events.iter().enumerate() {
            // Events of the whole run name no step; those of the root name an empty path.
            if event.line.get("step").is_some() {
                steps.entry(&event.step).or_insert_with(StepHistory::unheard).take(at, event, times_us[at], log);
            }
        }
        let origin = Origin::of(&log.info);
        for (path, value) in &origin.corrections {
            // What stands for a loop of `next` gives nothing that others read.
            let step = steps.get_mut(path.as_str()).filter(|_| !node_name(path).starts_with("loop("));
            if let Some(step) = step {
                step.corrected(path, value, log);
            }
        }
        Self { log, times_us, steps }
    }

    /// Whether a fact came to the same as one of another run.
    pub fn is_same(&self, fact: &Fact, other: &History<'_>, others: &Fact) -> bool {
        let is_equal = (&fact.what, &fact.value) == (&others.what, &others.value);
        is_equal || (fact.what == "key" && others.what == "key" && self.rest(fact) == other.rest(others))
    }

    /// What a key is made of beside the rendered input.
    fn rest(&self, key: &Fact) -> Value {
        rest_of_key(self.log, key.value.as_str().unwrap_or_default())
    }

    /// A step that the log tells of.
    pub fn step(&self, path: &str) -> Option<&StepHistory> {
        self.steps.get(path)
    }

    /// How many items a map has, where that is decided.
    pub(super) fn items(&self, map: &str) -> Option<u64> {
        let events = self.step(map).into_iter().flat_map(|step| &step.events).map(|at| &self.log.events[*at]);
        let mut items = events.filter(|event| event.kind == "decided" && event.text("field") == Some("items"));
        items.next_back().and_then(|event| event.line["count"].as_u64())
    }

    /// The step around a step; `None` for the root.
    pub fn parent<'b>(&'b self, path: &'b str) -> Option<&'b str> {
        let around = self.step(path).and_then(|step| step.around.as_deref());
        let outer = around.or_else(|| pass_parent(path).filter(|outer| self.steps.contains_key(outer)));
        match outer.or_else(|| path_parent(path)) {
            Some(outer) => Some(outer),
            None if path.is_empty() => None,
            None => Some(""),
        }
    }

    /// The steps around a step, innermost first, without the root; no more than 100, whatever the log says.
    pub fn parents<'b>(&'b self, path: &'b str) -> impl Iterator<Item = &'b str> {
        std::iter::successors(self.parent(path), |path| self.parent(path))
            .take_while(|path| !path.is_empty())
            .take(DEPTH_MAX)
    }
}

impl StepHistory {
    fn unheard() -> Self {
        Self { state: "unfinished".to_owned(), ..Self::default() }
    }

    fn take(&mut self, at: usize, event: &Logged, now_us: u64, log: &RunLog) {
        self.events.push(at);
        if self.around.is_none() {
            self.around = event.text("in").map(str::to_owned);
        }
        let line = &event.line;
        match event.kind.as_str() {
            "ready" => {
                self.state = "ready".to_owned();
                self.fact("winner", at, line["winner"].clone());
            }
            "decided" => self.decided(at, event),
            "suspended" => {
                self.state = "suspended".to_owned();
                self.begin(now_us);
                self.asks(at, event);
            }
            "started" => {
                self.state = "running".to_owned();
                self.attempts += 1;
                self.begin(now_us);
                self.asks(at, event);
            }
            "frame_opened" => {
                self.state = "running".to_owned();
                self.begin(now_us);
            }
            "settled" => self.settled(event, now_us, log),
            "backoff" => self.state = "backoff".to_owned(),
            "pass_ended" => {
                let what = format!("pass {}", line["pass"]);
                self.fact(&what, at, line["end"].clone());
            }
            "ended" => self.ended(at, event, now_us),
            _ => {}
        }
    }

    fn begin(&mut self, now_us: u64) {
        self.started_us.get_or_insert(now_us);
    }

    /// The input of a step is told when it is decided; where it is a constant, with the first attempt.
    fn asks(&mut self, at: usize, event: &Logged) {
        if let (None, Some(input)) = (&self.input, event.text("input")) {
            self.input = Some(input.to_owned());
            self.fact("input", at, json!(input));
        }
    }

    fn decided(&mut self, at: usize, event: &Logged) {
        let line = &event.line;
        match event.text("field").unwrap_or_default() {
            "guard" => self.fact("when", at, line["holds"].clone()),
            "counts" => self.fact("counts", at, line["counts"].clone()),
            "items" => self.fact("for_each", at, line["list"].clone()),
            "graph" => self.fact("graph", at, line["graph"].clone()),
            "route" => self.fact("next", at, json!({"case": line["case"]})),
            "input" => {
                self.asks(at, event);
                if let Some(key) = event.text("key") {
                    self.key = Some(key.to_owned());
                    self.fact("key", at, json!(key));
                }
            }
            _ => {}
        }
    }

    fn settled(&mut self, event: &Logged, now_us: u64, log: &RunLog) {
        // Who called a model has paid: most reports need not be read.
        let report = event.text("provenance").filter(|_| event.usage().calls == 0);
        let report = report.and_then(|hash| log.value(hash)).unwrap_or_default();
        let paid = trace::Found::of(&report).or_else(|| (event.line["attempt"] == 0).then(trace::Found::default));
        if let Some(paid) = paid.filter(|_| event.line.get("error").is_none()) {
            self.begin(now_us);
            self.found = Some(paid.into());
        }
        self.usage += event.usage();
    }

    /// What asks nobody tells of no answer in the log: where the value that was set came out, the step took it.
    fn corrected(&mut self, path: &str, value: &Value, log: &RunLog) {
        let took = self.state == "succeeded" && self.value == Some(ValueHash::of(value).to_string());
        if took && self.attempts == 0 && self.found.is_none() {
            let (run, step) = (Some(log.info.id.clone()), Some(path.to_owned()));
            self.found = Some(Found { word: "corrected".to_owned(), run, step, usage: Usage::default() });
        }
    }

    fn ended(&mut self, at: usize, event: &Logged, now_us: u64) {
        let line = &event.line;
        self.state = event.text("state").unwrap_or("?").to_owned();
        self.ended_us = Some(now_us);
        self.value = event.text("value").map(str::to_owned);
        self.error = line.get("error").or(line.get("recovered")).cloned();
        let mut outcome = Map::new();
        for key in ["state", "value", "reason", "source"] {
            outcome.extend(line.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        let error = self.error.as_ref().map(|error| json!([error["code"], error["message"]]));
        outcome.extend(error.map(|error| ("error".to_owned(), error)));
        self.fact("outcome", at, Value::Object(outcome));
    }

    fn fact(&mut self, what: &str, at: usize, value: Value) {
        // An attempt after a pause may say again what was known; a pass ends once.
        let may_repeat = !what.starts_with("pass ");
        let is_known = may_repeat && self.facts.iter().any(|fact| fact.what == what && fact.value == value);
        if !value.is_null() && !is_known {
            self.facts.push(Fact { what: what.to_owned(), value, at });
        }
    }

    /// How long it took, in microseconds.
    pub fn duration_us(&self) -> Option<u64> {
        Some(self.ended_us?.saturating_sub(self.started_us?))
    }
}

/// What a key is made of beside the rendered input, which is a fact of its own, and the run, which is never the same. Where answers are
/// not kept only the hash of it is known, and is given.
pub(super) fn rest_of_key(log: &RunLog, key: &str) -> Value {
    match log.value(key) {
        Some(Value::Object(parts)) => {
            Value::Object(parts.into_iter().filter(|(name, _)| name != "input" && name != "run").collect())
        }
        Some(other) => other,
        None => json!(key),
    }
}

/// The path of the step that a pass hangs below.
fn pass_parent(path: &str) -> Option<&str> {
    let (outer, number) = path.rsplit_once('#')?;
    number.chars().all(|c| c.is_ascii_digit()).then_some(outer)
}

/// The path of the step that a path hangs below; `None` for a node of the workflow itself.
fn path_parent(path: &str) -> Option<&str> {
    match path.strip_suffix(']') {
        Some(_) => path.rfind('[').map(|at| &path[..at]),
        None => path.rfind('/').map(|at| &path[..at]),
    }
}

/// The node's name in a path: `draft` of `g/draft#1.0[2]`.
pub fn node_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(['#', '[']).next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::log;

    #[test]
    fn a_found_answer_names_who_paid() {
        let usage = json!({"calls": 2, "prompt_tokens": 30, "completion_tokens": 4});
        let log = log(
            &[
                (
                    0,
                    "a",
                    json!({"type": "decided", "field": "input", "input": "@in", "calls": 1, "key": "@k", "held": true}),
                ),
                (7, "a", json!({"type": "settled", "attempt": 0, "value": "@v", "provenance": "@p"})),
                (7, "a", json!({"type": "ended", "state": "succeeded", "value": "@v"})),
            ],
            &[
                ("p", json!({"from": {"how": "cache", "run": "r1", "step": "b", "usage": usage}})),
                ("k", json!({"kind": "llm", "version": 1, "input": "@in", "run": "r2"})),
            ],
        );
        let history = History::new(&log);
        let step = history.step("a").unwrap();
        let found = step.found.as_ref().unwrap();
        assert_eq!((found.word.as_str(), found.run.as_deref(), found.usage.calls), ("cached", Some("r1"), 2));
        assert_eq!((step.usage, step.attempts, step.key.is_some()), (Usage::default(), 0, true));
        let facts: Vec<&str> = step.facts.iter().map(|fact| fact.what.as_str()).collect();
        assert_eq!(facts, ["input", "key", "outcome"]);
        let rest = history.rest(&step.facts[1]);
        assert_eq!(rest, json!({"kind": "llm", "version": 1}), "neither the run nor the input again");
    }

    #[test]
    fn steps_hang_below_what_is_around_them() {
        let frame = json!({"type": "frame_opened"});
        let inside = |pass: &str| json!({"type": "ready", "in": pass});
        let log = log(
            &[
                (0, "loop(draft)", frame.clone()),
                (0, "loop(draft)#1", frame.clone()),
                (0, "draft#1", inside("loop(draft)#1")),
                (0, "g/d[3]", json!({"type": "ready"})),
            ],
            &[],
        );
        let history = History::new(&log);
        assert_eq!(history.parents("draft#1").collect::<Vec<_>>(), ["loop(draft)#1", "loop(draft)"]);
        assert_eq!(history.parents("g/d[3]").collect::<Vec<_>>(), ["g/d", "g"]);
        assert_eq!((history.parent("g"), history.parent("")), (Some(""), None));
        assert_eq!([node_name("g/draft#1.0[2]"), node_name("loop(a)#1")], ["draft", "loop(a)"]);
    }
}
