//! The JSON form of the log: one object a line, versioned.
//!
//! `{"v":1,"seq":7,"us":12000,"step":"facts[2]","type":"started","attempt":1,"input":"<hash>"}`. Values stand beside the log,
//! by hash. The first event of a node in a loop names the pass, which the path does not: `"step":"draft#1","in":"loop(draft)#1"`. The reader
//! is for views: it keeps what it does not know and reports a line that was cut off.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{AttemptReport, Decision, Event, Outcome, Record, SkipReason, Usage};
use crate::id::StepId;

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
        lines.push_str(&self.json(record).to_string());
        lines.push('\n');
    }

    /// The JSON of the next record of a log. Records come in order.
    pub fn json(&mut self, record: &Record) -> Value {
        let first = record.event.step().filter(|step| !self.paths.contains_key(step));
        let around = first.and_then(|step| {
            self.paths.insert(step, record.path.clone());
            self.paths.get(&record.around).filter(|around| !record.path.starts_with(&***around)).cloned()
        });
        let mut line = Map::new();
        line.insert("v".into(), json!(VERSION));
        line.insert("seq".into(), json!(record.sequence));
        line.insert("us".into(), json!(record.time_us));
        if let Some(step) = record.event.step() {
            line.insert("step".into(), json!(&*record.path));
            line.insert("id".into(), json!(step.0));
        }
        line.extend(around.map(|around| ("in".to_owned(), json!(&*around))));
        let (kind, fields) = self.fields(&record.event);
        line.insert("type".into(), json!(kind));
        if let Value::Object(fields) = fields {
            line.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        }
        Value::Object(line)
    }

    fn path(&self, step: StepId) -> Value {
        json!(self.paths.get(&step).map_or("", |path| path))
    }

    fn fields(&self, event: &Event) -> (&'static str, Value) {
        match event {
            Event::RunStarted(run) => {
                let limits = &run.limits;
                let value = json!({
                    "semantics": run.semantics, "workflow": run.workflow, "inputs": run.inputs, "max_parallel": run.max_parallel,
                    "calls_max": run.calls_max,
                    "limits": {"steps": limits.steps, "items": limits.items, "depth": limits.depth, "nodes": limits.nodes,
                        "output": limits.output_bytes, "iterations": limits.iterations},
                });
                ("run_started", value)
            }
            Event::Decided { field, decision, .. } => {
                let mut value = decision_json(decision);
                value["field"] = json!(field);
                ("decided", value)
            }
            Event::Settled { attempt, result, report, .. } => {
                let (value, error) = (result.as_ref().ok(), result.as_ref().err());
                let AttemptReport { usage, provenance, key } = report.as_deref().copied().unwrap_or_default();
                (
                    "settled",
                    json!({"attempt": attempt, "value": value, "error": error, "usage": usage, "provenance": provenance, "key": key}),
                )
            }
            Event::Timer { attempt, timer, .. } => ("timer", json!({"attempt": attempt, "timer": timer})),
            Event::Answered { value, .. } => ("answered", json!({"value": value})),
            Event::Missed { .. } => ("missed", Value::Null),
            Event::Attached { max_parallel } => ("attached", json!({"max_parallel": max_parallel})),
            Event::Cancel => ("cancel", Value::Null),
            Event::Ready { winner, .. } => ("ready", json!({"winner": winner.map(|step| self.path(step))})),
            Event::Suspended { input, .. } => ("suspended", json!({"input": input})),
            Event::PassEnded { pass, end, .. } => ("pass_ended", json!({"pass": pass, "end": end})),
            Event::Unused { from, .. } => ("unused", json!({"from": from})),
            Event::Started { attempt, input, .. } => ("started", json!({"attempt": attempt, "input": input})),
            Event::Backoff { attempt, delay_ms, error, .. } => {
                ("backoff", json!({"attempt": attempt, "delay_ms": delay_ms, "error": error}))
            }
            Event::FrameOpened { graph, children, .. } => {
                ("frame_opened", json!({"graph": graph, "children": children}))
            }
            Event::Ended { outcome, .. } => ("ended", self.outcome(outcome)),
            Event::RunEnded(run) => {
                let failed = run.failed_step.map(|step| self.path(step));
                let value = json!({
                    "status": run.status, "output": run.output, "error": run.error, "failed_step": failed, "bound": run.bound,
                    "usage": run.usage,
                });
                ("run_ended", value)
            }
        }
    }

    fn outcome(&self, outcome: &Outcome) -> Value {
        match outcome {
            Outcome::Succeeded { value, recovered } => {
                json!({"state": "succeeded", "value": value, "recovered": recovered})
            }
            Outcome::Failed { error, tolerated } => json!({"state": "failed", "error": error, "tolerated": tolerated}),
            Outcome::Skipped(reason) => {
                let (why, step) = match reason {
                    SkipReason::Requires(step) => ("requires", Some(self.path(*step))),
                    SkipReason::NoneOf => ("none_of", None),
                    SkipReason::NotRouted => ("not_routed", None),
                    SkipReason::Guard => ("guard", None),
                    SkipReason::OutputRequires(step) => ("output_requires", Some(self.path(*step))),
                };
                json!({"state": "skipped", "reason": why, "source": step})
            }
            Outcome::Cancelled => json!({"state": "cancelled"}),
        }
    }
}

fn decision_json(decision: &Decision) -> Value {
    match decision {
        Decision::Guard(holds) => json!({"holds": holds}),
        Decision::Counts(counts) => json!({"counts": counts}),
        Decision::Stop(holds) | Decision::Again(holds) => json!({"holds": holds}),
        Decision::Route { case, passed_over } => json!({"case": case, "passed_over": passed_over}),
        Decision::Items { list, count } => json!({"list": list, "count": count}),
        Decision::Input { hash, calls, key, held } => {
            json!({"input": hash, "calls": calls, "key": key, "held": held.then_some(true)})
        }
        Decision::Graph { plan, graph } => json!({"plan": plan, "graph": graph.hash}),
        Decision::Value(value) => json!({"value": value}),
        Decision::Failed(error) => json!({"error": error}),
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
