//! Comparisons and explanations of made-up logs, and of small runs with scripted replies.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use flowrun_engine::expr::Datum;
use flowrun_engine::graph::Graph;
use flowrun_engine::id::ValueHash;
use flowrun_engine::store::{CacheEntry, Memory, RunInfo, Store, Transaction};

use super::*;
use crate::runs::{RunLog, Runs};
use crate::{Builder, Flowrun, LogWriter, Observer, Records, RunOptions, Scripted, Usage};

/// A store and what is in it. In events and values the text `@name` stands for the hash of the value of that name.
#[derive(Default)]
pub(crate) struct World(Arc<Memory>);

fn hash(name: &str) -> ValueHash {
    ValueHash::of_bytes(name.as_bytes())
}

fn with_hashes(value: &Value) -> Value {
    match value {
        Value::String(text) => json!(text.strip_prefix('@').map_or(text.clone(), |name| hash(name).to_string())),
        Value::Array(items) => items.iter().map(with_hashes).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), with_hashes(value))).collect(),
        other => other.clone(),
    }
}

impl World {
    fn add(&self, id: &str, lines: String, values: Vec<(ValueHash, Arc<str>)>, entries: Vec<CacheEntry>) {
        let transaction = Transaction { run: id.into(), first: 0, lines, values, entries, summary: None };
        self.0.append(transaction, Box::new(|kept| kept.unwrap()));
    }

    fn begin(&self, id: &str) -> RunInfo {
        let (id, workflow, origin) = (id.to_owned(), "w".to_owned(), Value::Null);
        let run = RunInfo { id, workflow, started_ms: 1_000, origin, summary: None };
        self.0.begin(&run).unwrap();
        run
    }

    /// A run out of events: microseconds, path (`-` for the run), the rest of the line.
    pub(crate) fn run(&self, id: &str, events: &[(u64, &str, Value)], values: &[(&str, Value)]) -> RunLog {
        let run = self.begin(id);
        let line = |(seq, (us, step, rest)): (usize, &(u64, &str, Value))| {
            let mut line = json!({"v": 1, "seq": seq, "us": us});
            let fields = line.as_object_mut().unwrap();
            if *step != "-" {
                fields.insert("step".to_owned(), json!(step));
            }
            fields.extend(with_hashes(rest).as_object().unwrap().clone());
            format!("{line}\n")
        };
        let lines = events.iter().enumerate().map(line).collect();
        let values = values.iter().map(|(name, value)| (hash(name), with_hashes(value).to_string().into()));
        self.add(id, lines, values.collect(), Vec::new());
        Runs::new(self.0.clone()).load(&run).unwrap()
    }

    /// An entry of the cache for a node `a`.
    fn entry(&self, key: &str, run: &str, created_ms: u64) {
        let (kind, node, step) = ("llm".to_owned(), "a".to_owned(), "a".to_owned());
        let (key, value, run) = (hash(key), hash("v"), run.to_owned());
        let entry = CacheEntry { key, value, kind, node, run, step, usage: Usage::default(), created_ms };
        self.add(&entry.run.clone(), String::new(), Vec::new(), vec![entry]);
    }

    /// A real run.
    pub(crate) async fn execute(&self, id: &str, text: &str, replies: &str, inputs: Value) -> (RunLog, Arc<Graph>) {
        self.execute_with(Flowrun::builder(), id, text, replies, inputs).await
    }

    /// A real run of a program that has more than a model.
    pub(crate) async fn execute_with(
        &self,
        builder: Builder,
        id: &str,
        text: &str,
        replies: &str,
        inputs: Value,
    ) -> (RunLog, Arc<Graph>) {
        let run = self.begin(id);
        let flowrun = builder.model("default", Scripted::parse("replies", replies).unwrap()).build();
        let workflow = flowrun.parse("w.yaml", text).unwrap_or_else(|problem| panic!("{problem:?}"));
        let mut options = RunOptions::default();
        let written = Arc::new(Written::default());
        options.observers.add(written.clone());
        flowrun.run(&workflow, inputs, options).await.unwrap();
        let (_, lines, values) = std::mem::take(&mut *written.0.lock().unwrap());
        self.add(id, lines, values, Vec::new());
        (Runs::new(self.0.clone()).load(&run).unwrap(), workflow.graph.clone())
    }
}

/// Keeps what a run tells its observers.
#[derive(Default)]
struct Written(Mutex<(LogWriter, String, Texts)>);

type Texts = Vec<(ValueHash, Arc<str>)>;

impl Observer for Written {
    fn value(&self, hash: ValueHash, value: &Arc<Datum>) {
        self.0.lock().unwrap().2.push((hash, value.json().to_string().into()));
    }

    fn records(&self, records: &Records<'_>) {
        let mut written = self.0.lock().unwrap();
        for record in records.iter() {
            let line = written.0.json(&record);
            written.1.push_str(&format!("{line}\n"));
        }
    }
}

pub(crate) fn log(events: &[(u64, &str, Value)], values: &[(&str, Value)]) -> RunLog {
    World::default().run("run-1", events, values)
}

fn input(hash: &str) -> Value {
    json!({"type": "decided", "field": "input", "input": hash, "calls": 1})
}

fn succeeded(hash: &str) -> Value {
    json!({"type": "ended", "state": "succeeded", "value": hash})
}

fn run_ended(output: &str) -> Value {
    json!({"type": "run_ended", "status": "success", "output": output, "usage": {"calls": 2}})
}

fn texts(said: &[Said]) -> Vec<&str> {
    said.iter().map(|said| said.text.as_str()).collect()
}

#[test]
fn the_first_difference_is_what_the_second_run_decided_otherwise_first() {
    let world = World::default();
    let values = [
        ("one", json!({"kind": "llm", "fields": {"prompt": "same"}})),
        ("two", json!({"kind": "llm", "fields": {"prompt": "a\nb"}})),
        ("three", json!({"kind": "llm", "fields": {"prompt": "a\nc"}})),
        ("x", json!("x")),
        ("y", json!({"n": [1, 2]})),
        ("z", json!({"n": [1, 3]})),
    ];
    let a = [
        (0, "first", input("@one")),
        (1, "first", succeeded("@x")),
        (2, "second", input("@two")),
        (3, "second", succeeded("@y")),
        (4, "last", succeeded("@y")),
        (5, "gone", succeeded("@x")),
        (6, "-", run_ended("@y")),
    ];
    // In another order, and `last` differs only because `second` does.
    let b = [
        (0, "second", input("@three")),
        (1, "second", succeeded("@z")),
        (2, "last", succeeded("@z")),
        (3, "first", input("@one")),
        (4, "first", succeeded("@x")),
        (5, "new", succeeded("@x")),
        (6, "-", run_ended("@z")),
    ];
    let (a, b) = (world.run("1", &a, &values), world.run("2", &b, &values));
    let difference = Difference::of(&a, &b);
    assert_eq!(difference.first.as_deref(), Some("second"));
    let what: Vec<&str> = difference.first_changes.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(what, ["input", "value"]);
    assert_eq!(difference.first_changes[0].parts[0].path, "fields.prompt");
    assert_eq!(difference.first_changes[0].parts[0].lines.len(), 3);
    let kinds: Vec<(&str, Kind)> = difference.steps.iter().map(|step| (step.step.as_str(), step.kind)).collect();
    let expected = [
        ("first", Kind::Same),
        ("second", Kind::Changed),
        ("last", Kind::Changed),
        ("gone", Kind::OnlyA),
        ("new", Kind::OnlyB),
    ];
    assert_eq!(kinds, expected);
    assert!(!difference.same_outcome);
    assert_eq!(difference.outputs[0].path, "n[1]");
    assert_eq!(Difference::of(&b, &a).first.as_deref(), Some("second"), "the other way round");
}

#[test]
fn a_found_answer_is_no_difference_but_another_model_is() {
    let world = World::default();
    let key = |model: &str, run: &str| json!({"kind": "llm", "input": "@i", "identity": {"model": model}, "run": run});
    let usage = json!({"calls": 2, "prompt_tokens": 30, "completion_tokens": 4});
    let values = [
        ("ka", key("small", "1")),
        ("kb", key("small", "2")),
        ("kc", key("large", "3")),
        ("i", json!({"kind": "llm", "fields": {"prompt": "p"}})),
        ("v", json!("v")),
        ("p", json!({"from": {"how": "cache", "run": "1", "step": "a", "usage": usage}})),
    ];
    let decided = |key: &str| {
        let mut event = input("@i");
        event["key"] = json!(key);
        event
    };
    let ran = |id: &str, key: &str| {
        let events = [
            (0, "a", decided(key)),
            (0, "a", json!({"type": "started", "attempt": 1, "input": "@i"})),
            (9, "a", json!({"type": "settled", "attempt": 1, "value": "@v", "usage": usage})),
            (9, "a", succeeded("@v")),
            (9, "-", run_ended("@v")),
        ];
        world.run(id, &events, &values)
    };
    let found = [
        (0, "a", decided("@kb")),
        (0, "a", json!({"type": "settled", "attempt": 0, "value": "@v", "provenance": "@p"})),
        (0, "a", succeeded("@v")),
        (0, "-", json!({"type": "run_ended", "status": "success", "output": "@v", "usage": {}})),
    ];
    let (paid, found, other) = (ran("1", "@ka"), world.run("2", &found, &values), ran("3", "@kc"));
    let difference = Difference::of(&paid, &found);
    assert_eq!((difference.first.as_deref(), difference.same_outcome), (None, true));
    assert_eq!((difference.b.found, difference.b.saved.calls, difference.a.found), (1, 2, 0));
    assert_eq!(difference.steps[0].kind, Kind::Same);
    let difference = Difference::of(&paid, &other);
    assert_eq!((difference.first.as_deref(), difference.same_outcome), (Some("a"), true));
    let part = &difference.first_changes[0].parts[0];
    assert_eq!((difference.first_changes[0].what.as_str(), part.path.as_str()), ("key", "identity.model"));
}

#[test]
fn what_a_run_did_not_come_to_is_a_difference_of_the_other() {
    let world = World::default();
    let whole = [(0, "a", succeeded("@v")), (1, "b", succeeded("@v")), (2, "-", run_ended("@v"))];
    let (whole, cut) = (world.run("1", &whole, &[]), world.run("2", &whole[..1], &[]));
    let difference = Difference::of(&whole, &cut);
    assert_eq!(difference.first.as_deref(), Some("b"));
    assert_eq!((difference.b.status.as_str(), difference.same_outcome), ("interrupted", false));
    assert!(find_step(&[&whole, &cut], "b").is_ok());
    assert_eq!(find_step(&[&whole], "c").unwrap_err().near, ["a"]);
}

#[test]
fn a_miss_names_the_nearest_entry_and_what_changed_since() {
    let world = World::default();
    let rendered = |prompt: &str| json!({"kind": "llm", "fields": {"prompt": prompt}});
    let key = |input: &str, model: &str, seed: u64| json!({"kind": "llm", "version": 1, "input": input, "identity": {"model": model, "params": {"seed": seed}}});
    let values = [
        ("near", rendered("Q\nBe brief.")),
        ("now", rendered("Q\nBe thorough.")),
        ("k-far", key("@near", "large", 2)),
        ("k-near", key("@near", "small", 1)),
        ("k-old", key("@near", "small", 1)),
        ("k-later", key("@now", "small", 2)),
        ("k-now", key("@now", "small", 1)),
        ("v", json!("v")),
    ];
    let mut decided = input("@now");
    decided["key"] = json!("@k-now");
    let events = [
        (0, "a", json!({"type": "ready"})),
        (0, "a", decided),
        (0, "a", json!({"type": "started", "attempt": 1, "input": "@now"})),
        (9, "a", json!({"type": "settled", "attempt": 1, "value": "@v", "usage": {"calls": 1}})),
        (9, "a", succeeded("@v")),
    ];
    for id in ["1", "2", "9"] {
        world.run(id, &[], &[]);
    }
    let run = world.run("3", &events, &values);
    for (key, id, created) in [("k-old", "1", 1), ("k-far", "2", 3), ("k-near", "2", 2), ("k-later", "9", 9)] {
        world.entry(key, id, created);
    }
    let context = Context { store: Some(&*world.0), ..Context::default() };
    let explained = explain(&run, "a", &context).unwrap();
    assert!(explained.answer[0].text.contains("no answer was found under its key"), "{explained:?}");
    assert_eq!(explained.answer[0].log, [1]);
    let nearest = &explained.nearest[0];
    assert_eq!((nearest.run.as_str(), nearest.key.as_deref()), ("2", Some(hash("k-near").to_string().as_str())));
    let paths: Vec<&str> = nearest.parts.iter().map(|part| part.path.as_str()).collect();
    assert_eq!(paths, ["input.fields.prompt"], "the model and the seed are the same");
    assert_eq!(nearest.parts[0].lines[1], Line::Removed("Be brief.".to_owned()));
    // An entry that came to be only afterwards is no reason.
    world.entry("k-now", "9", 10);
    let explained = explain(&run, "a", &context).unwrap();
    assert!(explained.answer[1].text.contains("run 9 paid for"), "{explained:?}");
    assert_eq!(explained.attempts.len(), 1);
}

#[test]
fn a_hit_names_who_paid_and_a_promise_that_was_not_kept_is_told() {
    let held = json!({"type": "decided", "field": "input", "input": "@i", "calls": 1, "key": "@k", "held": true});
    let usage = json!({"calls": 1, "prompt_tokens": 20, "completion_tokens": 3});
    let values = [("p", json!({"from": {"how": "flight", "run": "1", "step": "b", "usage": usage}})), ("k", json!({}))];
    let found = log(
        &[
            (0, "a", held.clone()),
            (5, "a", json!({"type": "settled", "attempt": 0, "value": "@v", "provenance": "@p"})),
            (5, "a", succeeded("@v")),
        ],
        &values,
    );
    let explained = explain(&found, "a", &Context::default()).unwrap();
    let expected = "`b` of the run 1 was asking for the same: both share one answer; that saved 1 call and 23 tokens";
    assert_eq!((texts(&explained.answer), &explained.answer[0].log[..]), (vec![expected], &[0, 1][..]));
    assert!(explained.attempts.is_empty() && explained.nearest.is_empty());
    let missed = log(
        &[
            (0, "a", held.clone()),
            (5, "a", json!({"type": "missed"})),
            (5, "a", json!({"type": "started", "attempt": 1, "input": "@i"})),
        ],
        &values,
    );
    let explained = explain(&missed, "a", &Context::default()).unwrap();
    assert!(explained.answer[0].text.contains("did not come, so it asked for itself"), "{explained:?}");
    let waits = log(&[(0, "a", held)], &values);
    let explained = explain(&waits, "a", &Context::default()).unwrap();
    assert_eq!(explained.state, "unfinished");
    assert!(explained.why[0].text.contains("interrupted"), "nobody drives it: {explained:?}");
}

const FLOW: &str = r#"
flowrun: 1
inputs: {word: string}
nodes:
  a: {prompt: "first {{ word }}"}
  b: {when: "word == 'x'", prompt: "second {{ a }}"}
  c: {prompt: "third {{ b }}"}
  d: {for_each: "[1, 2]", prompt: "item {{ item }}"}
  g: {value: a, next: [{when: "a == 'one'", to: h}, {to: i}]}
  h: {prompt: "routed"}
  i: {prompt: "elsewhere"}
  k: {value: "[h, d]"}
output: {k: k, c: c | default(0)}
"#;

const REPLIES: &str = "- {match: first, reply: one}\n- {match: '', reply: two}\n";

#[tokio::test]
async fn a_skip_is_followed_to_its_first_cause() {
    let world = World::default();
    let (log, graph) = world.execute("1", FLOW, REPLIES, json!({"word": "y"})).await;
    let context = Context { graph: Some(&graph), ..Context::default() };
    let why = |step: &str| {
        let explained = explain(&log, step, &context).unwrap();
        assert!(explained.why.iter().all(|said| !said.log.is_empty()), "{explained:?}");
        texts(&explained.why).join("; ")
    };
    assert_eq!(
        why("c"),
        "`c` was skipped: it requires `b`, which was skipped; `b` was skipped: its `when` is false: word == 'x'"
    );
    assert_eq!(why("i"), "`i` was skipped: no `next` led to it; `g` succeeded, and its `next` led to `h` (a == 'one')");
    let explained = explain(&log, "h", &context).unwrap();
    assert_eq!(texts(&explained.ran_because), ["`g` succeeded, and its `next` led to `h` (a == 'one')"]);
    assert_eq!(explained.next, "`k` (succeeded) depends on it");
    assert_eq!(explained.kind.as_deref(), Some("llm"));
    let explained = explain(&log, "d[1]", &context).unwrap();
    assert_eq!(texts(&explained.place), ["it is item 1 of `d`, counted from 0"]);
    assert_eq!(explained.next, "`k` (succeeded) depends on `d`, which it is part of");
    let explained = explain(&log, "k", &context).unwrap();
    assert_eq!(texts(&explained.answer), ["it has no key: it is computed from what is there and costs nothing"]);
    assert_eq!(explained.next, "the output depends on it");
    assert_eq!(explain(&log, "hh", &context).unwrap_err().near, ["h"]);
    assert!(explain(&log, "", &context).is_err());
    // Without the graph less is said, and nothing that is wrong.
    let bare = explain(&log, "i", &Context::default()).unwrap();
    assert_eq!(texts(&bare.why), ["`i` was skipped: no `next` led to it"]);
    assert!(bare.readers.is_none());
}

#[tokio::test]
async fn a_failure_is_followed_inside_and_a_cancelled_step_to_what_failed() {
    let world = World::default();
    let text = r#"
flowrun: 1
nodes:
  quick: {prompt: broken, retry: {max: 1, on: [server], backoff: 1ms}}
  g: {nodes: {inner: {prompt: "broken {{ quick }}"}}}
  slow: {prompt: slow}
  after: {prompt: "{{ slow }} {{ quick }}"}
output: after
"#;
    let replies = "- {match: broken, status: 503, reply: tired}\n- {match: slow, reply: late, delay_ms: 60000}\n";
    let (log, graph) = world.execute("1", text, replies, json!({})).await;
    let context = Context { graph: Some(&graph), ..Context::default() };
    let quick = explain(&log, "quick", &context).unwrap();
    assert_eq!(quick.attempts.len(), 3, "two attempts and why there was a second: {quick:?}");
    assert!(quick.attempts[1].text.contains("errors of the class `server`"), "{quick:?}");
    let slow = explain(&log, "slow", &context).unwrap();
    let why = texts(&slow.why);
    assert_eq!(why[0], "`slow` was cancelled: `quick` failed, and nothing tolerates that");
    assert!(why[1].starts_with("`quick` failed: ") && why.len() == 2, "{why:?}");
    assert!(slow.attempts[0].text.ends_with("it was cancelled"), "{slow:?}");
}

#[test]
fn a_race_a_prefix_and_a_caller_cancel_too() {
    let cancelled = json!({"type": "ended", "state": "cancelled"});
    let log = log(
        &[
            (0, "m", json!({"type": "frame_opened"})),
            (1, "j", json!({"type": "ready", "winner": "h"})),
            (1, "i", cancelled.clone()),
            (2, "m", json!({"type": "unused", "from": 1})),
            (2, "m[1]", cancelled.clone()),
            (3, "-", json!({"type": "cancel"})),
            (3, "z", cancelled.clone()),
            (4, "lost", cancelled),
        ],
        &[],
    );
    let why = |step: &str| explain(&log, step, &Context::default()).unwrap().why[0].text.clone();
    assert_eq!(why("i"), "`i` was cancelled: `h` came first at `j`, and nothing else needs it");
    assert_eq!(why("m[1]"), "`m[1]` was cancelled: the first 1 items of `m` are its value (`stop_when`)");
    assert_eq!(why("z"), "`z` was cancelled: who began the run ended it");
    assert_eq!(why("lost"), "`lost` was cancelled");
}

#[test]
fn a_log_that_goes_in_circles_is_told_once() {
    let skipped = |source: &str| json!({"type": "ended", "state": "skipped", "reason": "requires", "source": source});
    let log =
        log(&[(0, "a", skipped("b")), (0, "b", skipped("a")), (0, "a#0", json!({"in": "a#0", "type": "ready"}))], &[]);
    assert_eq!(explain(&log, "a", &Context::default()).unwrap().why.len(), 2);
    assert!(explain(&log, "a#0", &Context::default()).is_ok());
}

#[tokio::test]
async fn steps_in_loops_and_groups_are_found_in_the_graph() {
    let world = World::default();
    let text = r#"
flowrun: 1
nodes:
  draft: {prompt: "draft {{ last.judge | default('') }}"}
  judge: {prompt: "judge {{ draft }}", next: [{when: "this == 'bad'", to: draft, max: 1}, {to: end}]}
  end: {nodes: {x: {prompt: "x {{ draft }}"}, y: {prompt: "y {{ x }}"}}}
output: end
"#;
    let replies = "- {match: judge, reply: bad}\n- {match: '', reply: two}\n";
    let (log, graph) = world.execute("1", text, replies, json!({})).await;
    let context = Context { graph: Some(&graph), ..Context::default() };
    let judge = explain(&log, "judge#1", &context).unwrap();
    assert_eq!(texts(&judge.place)[1..], ["`loop(draft)#1` is pass 1 of `loop(draft)`, counted from 0"]);
    assert_eq!(texts(&judge.ran_because), ["it requires `draft#1`, which succeeded"]);
    let inner = explain(&log, "end/x", &context).unwrap();
    assert_eq!(inner.next, "`end/y` (succeeded) and the value of `end` depend on it");
    let around = explain(&log, "loop(draft)", &context).unwrap();
    assert_eq!(texts(&around.why), ["`loop(draft)` succeeded", "it ended after 2 passes: a bound was reached"]);
}

#[test]
fn an_attempt_that_was_cut_off_is_told() {
    let started = |attempt: u64| json!({"type": "started", "attempt": attempt, "input": "@i"});
    let log = log(
        &[
            (0, "a", json!({"type": "ready"})),
            (0, "a", started(1)),
            (5_000, "-", json!({"type": "attached"})),
            (5_000, "a", started(2)),
            (9_000, "a", json!({"type": "settled", "attempt": 2, "value": "@v", "usage": {"calls": 1}})),
            (9_000, "a", succeeded("@v")),
        ],
        &[("i", json!({"kind": "llm", "fields": {}}))],
    );
    let explained = explain(&log, "a", &Context::default()).unwrap();
    let expected = [
        "attempt 1 was cut off: whoever drove the run was gone",
        "attempt 2 began at 0 ms and after 4 ms it gave an answer",
    ];
    assert_eq!(texts(&explained.attempts), expected);
}

#[test]
fn a_key_that_is_no_more_than_a_hash_tells_of_a_change_beside_the_input() {
    let world = World::default();
    let ran = |id: &str, prompt: &str, key: &str| {
        let mut decided = input(&format!("@{prompt}"));
        decided["key"] = json!(key);
        let values = [(prompt, json!({"kind": "tool", "fields": {"with": prompt}}))];
        world.run(id, &[(0, "a", decided), (1, "a", succeeded("@v"))], &values)
    };
    let (a, b, c) = (ran("1", "p", "@k1"), ran("2", "p", "@k2"), ran("3", "q", "@k3"));
    let changed = |a: &RunLog, b: &RunLog| Difference::of(a, b).steps[0].changed.join(", ");
    assert_eq!((changed(&a, &b).as_str(), changed(&a, &c).as_str(), changed(&a, &a).as_str()), ("key", "input", ""));
}
