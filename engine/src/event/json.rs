//! The JSON form of the log: one object a line, versioned.
//!
//! `{"v":1,"seq":7,"us":12000,"step":"facts[2]","type":"started","attempt":1,"input":"<hash>"}`. Values stand beside the log,
//! by hash. The first event of a node in a loop names the pass, which the path does not: `"step":"draft#1","in":"loop(draft)#1"`. The reader
//! is for views: it keeps what it does not know and reports a line that was cut off.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::{AttemptReport, Decision, Event, Outcome, Record, RunStarted, SkipReason, Usage};
use crate::id::{StepId, ValueHash};

/// Version of the form.
const VERSION: u64 = 1;
/// Latest time that is read, in microseconds: about a year. A log may say anything, and its times are added up.
const TIME_MAX_US: u64 = 1 << 45;
/// Largest count of calls or tokens that is read of one event, for the same reason.
const COUNT_MAX: u64 = 1 << 40;

/// Turns records into JSON. It remembers the paths of steps, because some events name other steps.
#[derive(Debug, Default)]
pub struct Writer {
    paths: BTreeMap<StepId, Arc<str>>,
}

impl Writer {
    /// Appends the next record of a log as a line. Records come in order.
    pub fn write(&mut self, record: &Record, lines: &mut String) {
        let mut line = Fields::begin(lines);
        line.number("v", VERSION);
        line.number("seq", record.sequence);
        line.number("us", record.time_us);
        if let Some(step) = record.event.step() {
            line.text("step", &record.path);
            line.number("id", u64::from(step.0));
            if self.paths.insert(step, record.path.clone()).is_none() {
                let around = self.paths.get(&record.around).filter(|around| !record.path.starts_with(&***around));
                line.maybe(around, |line, around| line.text("in", around));
            }
        }
        self.event(&record.event, &mut line);
        lines.push_str("}\n");
    }

    /// The JSON of the next record of a log. Records come in order.
    pub fn json(&mut self, record: &Record) -> Value {
        let mut line = String::new();
        self.write(record, &mut line);
        serde_json::from_str(&line).expect("BUG: a line of the log is no JSON")
    }

    fn path(&self, step: StepId) -> &str {
        self.paths.get(&step).map_or("", |path| path)
    }

    fn event(&self, event: &Event, line: &mut Fields<'_>) {
        match event {
            Event::RunStarted(run) => {
                line.text("type", "run_started");
                run_started(run, line);
            }
            Event::Decided { field, decision, .. } => {
                line.text("type", "decided");
                write_decision(decision, line);
                line.value("field", field);
            }
            Event::Settled { attempt, result, report, .. } => {
                let AttemptReport { usage, provenance, key } = report.as_deref().copied().unwrap_or_default();
                line.text("type", "settled");
                line.number("attempt", u64::from(*attempt));
                match result {
                    Ok(value) => line.hash("value", value),
                    Err(error) => line.value("error", error),
                }
                line.maybe((usage != Usage::default()).then_some(usage), |line, usage| line.value("usage", &usage));
                line.maybe(provenance.as_ref(), |line, hash| line.hash("provenance", hash));
                line.maybe(key.as_ref(), |line, hash| line.hash("key", hash));
            }
            Event::Timer { attempt, timer, .. } => {
                line.text("type", "timer");
                line.number("attempt", u64::from(*attempt));
                line.value("timer", timer);
            }
            Event::Answered { value, .. } => {
                line.text("type", "answered");
                line.hash("value", value);
            }
            Event::Missed { .. } => line.text("type", "missed"),
            Event::Attached { max_parallel } => {
                line.text("type", "attached");
                line.number("max_parallel", u64::from(*max_parallel));
            }
            Event::Cancel => line.text("type", "cancel"),
            derived => self.derived(derived, line),
        }
    }

    fn derived(&self, event: &Event, line: &mut Fields<'_>) {
        match event {
            Event::Ready { winner, .. } => {
                line.text("type", "ready");
                line.maybe(*winner, |line, winner| line.text("winner", self.path(winner)));
            }
            Event::Suspended { input, .. } => {
                line.text("type", "suspended");
                line.maybe(input.as_ref(), |line, hash| line.hash("input", hash));
            }
            Event::PassEnded { pass, end, .. } => {
                line.text("type", "pass_ended");
                line.number("pass", u64::from(*pass));
                line.value("end", end);
            }
            Event::Unused { from, .. } => {
                line.text("type", "unused");
                line.number("from", u64::from(*from));
            }
            Event::Started { attempt, input, .. } => {
                line.text("type", "started");
                line.number("attempt", u64::from(*attempt));
                line.maybe(input.as_ref(), |line, hash| line.hash("input", hash));
            }
            Event::Backoff { attempt, delay_ms, error, .. } => {
                line.text("type", "backoff");
                line.number("attempt", u64::from(*attempt));
                line.number("delay_ms", *delay_ms);
                line.value("error", error);
            }
            Event::FrameOpened { graph, children, .. } => {
                line.text("type", "frame_opened");
                line.maybe(graph.as_ref(), |line, hash| line.hash("graph", hash));
                line.number("children", u64::from(*children));
            }
            Event::Ended { outcome, .. } => {
                line.text("type", "ended");
                self.outcome(outcome, line);
            }
            Event::RunEnded(run) => {
                line.text("type", "run_ended");
                line.value("status", &run.status);
                line.maybe(run.output.as_ref(), |line, hash| line.hash("output", hash));
                line.maybe(run.error.as_ref(), |line, error| line.value("error", error));
                line.maybe(run.failed_step, |line, step| line.text("failed_step", self.path(step)));
                line.maybe(run.bound.as_ref(), |line, bound| line.value("bound", bound));
                line.value("usage", &run.usage);
            }
            input => panic!("BUG: {input:?} is no derived event"),
        }
    }

    fn outcome(&self, outcome: &Outcome, line: &mut Fields<'_>) {
        match outcome {
            Outcome::Succeeded { value, recovered } => {
                line.text("state", "succeeded");
                line.hash("value", value);
                line.maybe(recovered.as_ref(), |line, error| line.value("recovered", error));
            }
            Outcome::Failed { error, tolerated } => {
                line.text("state", "failed");
                line.value("error", error);
                line.value("tolerated", tolerated);
            }
            Outcome::Skipped(reason) => {
                let (why, step) = match reason {
                    SkipReason::Requires(step) => ("requires", Some(*step)),
                    SkipReason::NoneOf => ("none_of", None),
                    SkipReason::NotRouted => ("not_routed", None),
                    SkipReason::Guard => ("guard", None),
                    SkipReason::OutputRequires(step) => ("output_requires", Some(*step)),
                };
                line.text("state", "skipped");
                line.text("reason", why);
                line.maybe(step, |line, step| line.text("source", self.path(step)));
            }
            Outcome::Cancelled => line.text("state", "cancelled"),
        }
    }
}

fn run_started(run: &RunStarted, line: &mut Fields<'_>) {
    let limits = &run.limits;
    line.number("semantics", u64::from(run.semantics));
    line.hash("workflow", &run.workflow);
    line.hash("inputs", &run.inputs);
    line.number("max_parallel", u64::from(run.max_parallel));
    line.maybe(run.calls_max, |line, calls| line.number("calls_max", calls));
    line.value(
        "limits",
        &json!({"steps": limits.steps, "items": limits.items, "depth": limits.depth, "nodes": limits.nodes,
            "output": limits.output_bytes, "iterations": limits.iterations}),
    );
}

fn write_decision(decision: &Decision, line: &mut Fields<'_>) {
    match decision {
        Decision::Guard(holds) | Decision::Stop(holds) | Decision::Again(holds) => line.value("holds", holds),
        Decision::Counts(counts) => line.value("counts", counts),
        Decision::Route { case, passed_over } => {
            line.maybe(case.as_ref(), |line, case| line.value("case", case));
            line.maybe(passed_over.as_ref(), |line, case| line.value("passed_over", case));
        }
        Decision::Items { list, count } => {
            line.hash("list", list);
            line.number("count", u64::from(*count));
        }
        Decision::Input { hash, calls, key, held } => {
            line.hash("input", hash);
            line.number("calls", u64::from(*calls));
            line.maybe(key.as_ref(), |line, hash| line.hash("key", hash));
            line.maybe(held.then_some(true), |line, held| line.value("held", &held));
        }
        Decision::Graph { plan, graph } => {
            line.hash("plan", plan);
            line.hash("graph", &graph.hash);
        }
        Decision::Value(value) => line.hash("value", value),
        Decision::Failed(error) => line.value("error", error),
    }
}

/// Writes the fields of one object, without a value in between: a log has several lines a step.
struct Fields<'l> {
    to: &'l mut String,
    first: bool,
}

impl<'l> Fields<'l> {
    fn begin(to: &'l mut String) -> Self {
        to.push('{');
        Self { to, first: true }
    }

    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.first) {
            self.to.push(',');
        }
        self.to.push('"');
        self.to.push_str(key);
        self.to.push_str("\":");
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        self.to.push_str(itoa::Buffer::new().format(number));
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        if text.bytes().all(|byte| (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\') {
            self.to.push('"');
            self.to.push_str(text);
            self.to.push('"');
        } else {
            self.to.push_str(&Value::from(text).to_string());
        }
    }

    fn hash(&mut self, key: &str, hash: &ValueHash) {
        self.key(key);
        self.to.push('"');
        hash.write_hex(self.to);
        self.to.push('"');
    }

    fn value(&mut self, key: &str, value: &impl Serialize) {
        self.key(key);
        self.to.push_str(&serde_json::to_string(value).expect("BUG: a part of an event is no JSON"));
    }

    fn maybe<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// One line of a log as views read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// Position in the log.
    pub sequence: u64,
    /// Microseconds since the run started.
    pub time_us: u64,
    /// Path of the step; empty for the run.
    pub step: String,
    /// The type word, such as `started`.
    pub kind: String,
    /// The whole line.
    pub line: Value,
}

impl Logged {
    /// Reads one line.
    ///
    /// # Errors
    /// If it is cut off, or of a version that this program does not read.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line: Value =
            serde_json::from_str(line).map_err(|error| format!("a line of the log cannot be read: {error}"))?;
        if line["v"].as_u64() != Some(VERSION) {
            return Err(format!("the log is of version {}; this program reads version {VERSION}", line["v"]));
        }
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            sequence: line["seq"].as_u64().unwrap_or_default(),
            time_us: line["us"].as_u64().unwrap_or_default().min(TIME_MAX_US),
            step: text("step"),
            kind: text("type"),
            line,
        })
    }

    /// What the event says that was used; nothing, where it says nothing.
    pub fn usage(&self) -> Usage {
        let count = |key: &str| self.line["usage"][key].as_u64().unwrap_or_default().min(COUNT_MAX);
        Usage {
            calls: count("calls"),
            prompt_tokens: count("prompt_tokens"),
            completion_tokens: count("completion_tokens"),
        }
    }

    /// A text field of the line.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.line.get(key)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Status, Usage};
    use crate::failure::StepError;
    use crate::id::ValueHash;

    fn record(sequence: u64, path: &str, event: Event) -> Record {
        Record { sequence, time_us: 10 * sequence, path: path.into(), around: StepId::ROOT, event }
    }

    #[test]
    fn a_node_in_a_loop_names_its_pass_once() {
        let mut writer = Writer::default();
        let ready = |step| Event::Ready { step: StepId(step), winner: None };
        let mut around = |path, step, around| {
            let record = Record { around: StepId(around), ..record(0, path, ready(step)) };
            writer.json(&record).get("in").cloned()
        };
        assert_eq!([around("loop(a)", 1, 0), around("loop(a)#0", 2, 1)], [None, None]);
        assert_eq!([around("a#0", 3, 2), around("a#0", 3, 2)], [Some(json!("loop(a)#0")), None]);
        assert_eq!(around("a#0/inner", 4, 3), None);
    }

    #[test]
    fn a_log_reads_as_it_was_written() {
        let value = ValueHash::of(&json!("x"));
        let mut writer = Writer::default();
        let skipped = Outcome::Skipped(SkipReason::Requires(StepId(1)));
        let error = StepError::terminal("panic", "oh");
        let ended = crate::event::RunEnded {
            status: Status::Failed,
            output: None,
            error: Some(error.clone()),
            failed_step: Some(StepId(1)),
            bound: None,
            usage: Usage { calls: 1, prompt_tokens: 2, completion_tokens: 3 },
        };
        let records = [
            record(0, "a", Event::Started { step: StepId(1), attempt: 1, input: Some(value) }),
            record(1, "a", Event::Ended { step: StepId(1), outcome: Outcome::Failed { error, tolerated: true } }),
            record(2, "b[0]", Event::Ended { step: StepId(2), outcome: skipped }),
            record(3, "", Event::RunEnded(Box::new(ended))),
        ];
        let logged: Vec<Logged> =
            records.iter().map(|record| Logged::parse(&writer.json(record).to_string()).unwrap()).collect();
        assert_eq!((logged[0].kind.as_str(), logged[0].text("input")), ("started", Some(value.to_string().as_str())));
        assert_eq!(logged[1].line["error"], json!({"code": "panic", "class": "terminal", "message": "oh"}));
        assert_eq!(
            (logged[2].step.as_str(), logged[2].text("reason"), logged[2].text("source")),
            ("b[0]", Some("requires"), Some("a"))
        );
        assert_eq!(
            (logged[3].text("status"), logged[3].text("failed_step"), logged[3].time_us),
            (Some("failed"), Some("a"), 30)
        );
        assert_eq!(logged[3].usage(), Usage { calls: 1, prompt_tokens: 2, completion_tokens: 3 });
        assert_eq!(logged[0].usage(), Usage::default());
        let far = Logged::parse(&json!({"v": 1, "us": u64::MAX, "usage": {"calls": u64::MAX}}).to_string()).unwrap();
        assert!(far.time_us < u64::MAX / 1_000 && far.usage().calls < u64::MAX / 1_000);
        assert!(Logged::parse(r#"{"v":2}"#).is_err() && Logged::parse(r#"{"v":1,"se"#).is_err());
    }
}
