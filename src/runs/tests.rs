//! Runs of a store in memory: what lists, logs and exports say of them, and what of it is read.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use flowrun_engine::event::Status;
use flowrun_engine::id::ValueHash;
use flowrun_engine::store::{Memory, Summary, Transaction};

use super::*;

const ID: &str = "20260101-000000-000-0000";

/// A store with one run.
fn store(id: &str) -> Memory {
    let store = Memory::default();
    begin(&store, id);
    store
}

fn begin(store: &Memory, id: &str) {
    let origin = json!({"reference": "w.yaml"});
    let run = RunInfo { id: id.to_owned(), workflow: "w".to_owned(), started_ms: 1_000, origin, summary: None };
    store.begin(&run).expect("a new run");
}

/// Keeps one transaction of events that are written without version, number and time.
fn append(store: &Memory, id: &str, first: u64, events: &[&str], values: &[&Value]) {
    let line = |(event, at): (&&str, u64)| {
        format!("{{\"v\":1,\"seq\":{at},\"us\":{}{}\n", 1_000 * at, event.replacen('{', ",", 1))
    };
    let lines = events.iter().zip(first..).map(line).collect();
    let values = values.iter().map(|value| (ValueHash::of(value), value.to_string().into())).collect();
    let run = id.into();
    let transaction = Transaction { run, first, lines, values, entries: Vec::new(), summary: None };
    store.append(transaction, Box::new(|kept| kept.expect("kept")));
}

fn summarize(store: &Memory, id: &str, status: Status) {
    let usage = Usage { calls: 3, prompt_tokens: 2, completion_tokens: 1 };
    let summary = Some(Some(Summary { status, wall_ms: 7, steps: 2, usage }));
    let (lines, values, entries) = (String::new(), Vec::new(), Vec::new());
    let transaction = Transaction { run: id.into(), first: 90, lines, values, entries, summary };
    store.append(transaction, Box::new(|kept| kept.expect("kept")));
}

fn only(store: &Memory) -> (Runs, RunInfo) {
    let runs = Runs::new(Arc::new(store.clone()));
    let run = runs.find("last").expect("there is one");
    (runs, run)
}

fn status(store: &Memory) -> String {
    let (runs, run) = only(store);
    runs.summary(&run).expect("readable").status
}

#[test]
fn a_status_is_the_summarys_or_what_the_log_tells() {
    let kept = store(ID);
    append(&kept, ID, 0, &[r#"{"type":"run_started"}"#, r#"{"step":"a","type":"started","attempt":1}"#], &[]);
    assert_eq!(status(&kept), "interrupted");
    let driven = kept.lock(ID).expect("a lock").expect("free");
    assert_eq!(status(&kept), "running");
    drop(driven);
    append(
        &kept,
        ID,
        2,
        &[r#"{"step":"a","type":"settled","usage":{"calls":2}}"#, r#"{"step":"a","type":"ended"}"#],
        &[],
    );
    append(&kept, ID, 4, &[r#"{"step":"b","type":"ready"}"#, r#"{"step":"b","type":"suspended"}"#], &[]);
    let (runs, run) = only(&kept);
    let summary = runs.summary(&run).expect("readable");
    assert_eq!((summary.status.as_str(), summary.steps, summary.usage.calls, summary.wall_ms), ("suspended", 1, 2, 5));
    assert_eq!(runs.load(&run).expect("readable").asked(), [("b", None)]);
    append(&kept, ID, 6, &[r#"{"step":"b","type":"ended"}"#, r#"{"type":"run_ended","status":"failed"}"#], &[]);
    assert_eq!(status(&kept), "failed");
    summarize(&kept, ID, Status::Exhausted);
    let (runs, run) = only(&kept);
    let summary = runs.summary(&run).expect("readable");
    assert_eq!((summary.status.as_str(), summary.steps, summary.usage.calls, summary.wall_ms), ("exhausted", 2, 3, 7));
    assert!(runs.load(&run).expect("readable").asked().is_empty());
}

#[test]
fn runs_are_found_by_what_is_unique() {
    let kept = Memory::default();
    let runs = Runs::new(Arc::new(kept.clone())).at("here.db");
    assert_eq!(runs.find("last").map(|run| run.id), Err("there are no runs in `here.db`".to_owned()));
    ["a1", "a12", "b"].iter().for_each(|id| begin(&kept, id));
    let find = |wanted: &str| runs.find(wanted).map(|run| run.id);
    assert_eq!((find("last"), find("a1"), find("a12")), (Ok("b".into()), Ok("a1".into()), Ok("a12".into())));
    assert!(find("a").is_err_and(|why| why.contains("2 runs begin with `a`")));
    assert!(find("c").is_err_and(|why| why.contains("no run begins with `c`; the last one is `b`")));
}

#[test]
fn a_gap_in_a_log_is_said_and_what_is_around_it_shown() {
    let kept = store(ID);
    let ready = r#"{"step":"a","type":"ready"}"#;
    append(&kept, ID, 0, &[ready, ready], &[]);
    append(&kept, ID, 5, &[ready], &[]);
    let (runs, run) = only(&kept);
    let log = runs.load(&run).expect("readable");
    assert_eq!((log.events.len(), log.damage.as_deref()), (3, Some("events 2 to 4 are missing")));
    append(&kept, ID, 6, &[r#"{"type":"cut"#, ready], &[]);
    assert_eq!(runs.load(&run).expect("readable").events.len(), 4, "a line that cannot be read costs itself");
}

#[test]
fn an_export_names_every_value_before_it_is_used() {
    let kept = store(ID);
    let (prompt, reply) = (json!({"prompt": "a"}), json!("b"));
    let (asked, replied) = (ValueHash::of(&prompt), ValueHash::of(&reply));
    let report = json!({"asked": asked, "unknown": ValueHash::of(&json!("no value"))});
    let event = format!(
        r#"{{"step":"a","type":"settled","attempt":1,"value":"{replied}","provenance":"{}"}}"#,
        ValueHash::of(&report)
    );
    append(&kept, ID, 0, &[&event, &event], &[&prompt, &reply, &report]);
    let (runs, run) = only(&kept);
    let written = |with_values: bool| {
        let mut out = Vec::new();
        let problems = export(&runs.load(&run).expect("readable"), with_values, &mut out).expect("writes");
        let text = String::from_utf8(out).expect("text");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        (lines, problems)
    };
    let (lines, problems) = written(true);
    let types: Vec<&str> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
    assert_eq!((types, problems), (vec!["run", "value", "value", "value", "settled", "settled"], vec![]));
    assert_eq!(
        (&lines[0]["v"], &lines[0]["id"], &lines[0]["origin"]["reference"]),
        (&json!(1), &json!(ID), &json!("w.yaml"))
    );
    let values: Vec<&Value> = lines[1..4].iter().map(|line| &line["value"]).collect();
    assert_eq!(values, [&reply, &prompt, &report], "what a value names comes before it");
    assert!(lines[1..4].iter().all(|line| line["hash"] == json!(ValueHash::of(&line["value"]))));
    assert_eq!(written(false).0.len(), 3);

    let gone = ValueHash::of(&json!("gone"));
    append(&kept, ID, 2, &[&format!(r#"{{"type":"run_ended","output":"{gone}"}}"#)], &[]);
    append(&kept, ID, 4, &[r#"{"step":"a","type":"ready"}"#], &[]);
    let (lines, problems) = written(true);
    assert_eq!(lines.len(), 8);
    assert_eq!(problems, [format!("the value {}… is not there", gone.short()), "event 3 is missing".to_owned()]);
}

/// A store that counts which logs are read.
struct Counted(Memory, AtomicUsize);

mod counted {
    use super::*;
    use flowrun_engine::store::{CacheEntry, Done, EntryFilter, Letter, RunLock, StoreSize};

    type Answer<T> = Result<T, StoreError>;

    #[rustfmt::skip]
    impl Store for Counted {
        fn log(&self, run: &str, from: u64) -> Answer<Vec<Stored>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.log(run, from)
        }
        fn begin(&self, run: &RunInfo) -> Answer<()> { self.0.begin(run) }
        fn append(&self, transaction: Transaction, done: Done) { self.0.append(transaction, done) }
        fn run(&self, id: &str) -> Answer<Option<RunInfo>> { self.0.run(id) }
        fn runs(&self) -> Answer<Vec<RunInfo>> { self.0.runs() }
        fn value(&self, hash: ValueHash) -> Answer<Option<Arc<str>>> { self.0.value(hash) }
        fn entry(&self, key: ValueHash) -> Answer<Option<CacheEntry>> { self.0.entry(key) }
        fn entries(&self, filter: &EntryFilter) -> Answer<Vec<CacheEntry>> { self.0.entries(filter) }
        fn forget(&self, keys: &[ValueHash]) -> Answer<u64> { self.0.forget(keys) }
        fn prune(&self, runs: &[String]) -> Answer<u64> { self.0.prune(runs) }
        fn lock(&self, run: &str) -> Answer<Option<Box<dyn RunLock>>> { self.0.lock(run) }
        fn is_driven(&self, run: &str) -> Answer<bool> { self.0.is_driven(run) }
        fn post(&self, run: &str, step: &str, value: &Value) -> Answer<u64> { self.0.post(run, step, value) }
        fn letters(&self, run: &str) -> Answer<Vec<Letter>> { self.0.letters(run) }
        fn judge(&self, letter: u64, verdict: &Result<(), String>) -> Answer<()> { self.0.judge(letter, verdict) }
        fn verdict(&self, letter: u64) -> Answer<Option<Result<(), String>>> { self.0.verdict(letter) }
        fn damage(&self) -> Answer<Vec<String>> { self.0.damage() }
        fn size(&self) -> Answer<StoreSize> { self.0.size() }
    }
}

#[test]
fn only_runs_without_a_summary_have_their_logs_read() {
    let kept = Memory::default();
    for number in 0..20 {
        let id = format!("r{number}");
        begin(&kept, &id);
        if number != 7 {
            summarize(&kept, &id, Status::Success);
        }
    }
    let counted = Arc::new(Counted(kept, AtomicUsize::new(0)));
    let runs = Runs::new(counted.clone());
    let all = runs.all().expect("readable");
    let interrupted = all.iter().filter(|run| runs.summary(run).is_ok_and(|run| run.status == "interrupted")).count();
    assert_eq!((all.len(), interrupted, counted.1.load(Ordering::Relaxed)), (20, 1, 1));
}

#[test]
fn a_damaged_log_is_salvaged_where_somebody_can() {
    let kept = store(ID);
    append(&kept, ID, 0, &[r#"{"step":"a","type":"ready"}"#], &[]);
    let (runs, run) = only(&kept);
    let called = Arc::new(AtomicUsize::new(0));
    let counter = called.clone();
    let runs = runs.with_salvage(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok((Vec::new(), Some("a page is gone".to_owned())))
    }));
    assert_eq!(runs.load(&run).expect("readable").damage, None);
    assert_eq!(called.load(Ordering::Relaxed), 0, "what is whole needs no salvage");
}
