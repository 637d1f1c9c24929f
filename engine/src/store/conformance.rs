//! What every store does, as checks that any store can run.
//!
//! Each check takes a fresh store and holds it to sentences of [`Store`]'s documentation. They are for stores that say of a transaction
//! that it is kept only when it is: with [`Durability::Off`](super::Durability::Off) losses are told elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};

use super::{CacheEntry, EntryFilter, RunInfo, Store, StoreError, Stored, Summary, Transaction};
use crate::event::{Status, Usage};
use crate::id::ValueHash;

/// Runs every check against fresh, empty stores.
///
/// # Panics
/// With the first promise that a store does not keep.
pub fn check<S: Store>(fresh: impl Fn() -> S) {
    a_run_begins_once(&fresh());
    an_id_is_a_plain_file_name(&fresh());
    runs_come_in_the_order_of_ids(&fresh());
    transactions_are_kept_in_the_order_of_queueing(&fresh());
    a_log_is_read_from_any_event_on(&fresh());
    a_transaction_is_kept_whole(&fresh());
    a_transaction_of_no_run_is_not_kept_at_all(&fresh());
    a_callback_is_called_once_and_after_the_keeping(&fresh());
    what_is_queued_outlives_the_handle(fresh());
    a_value_is_kept_once_and_to_the_letter(&fresh());
    a_summary_is_set_and_unset(&fresh());
    an_entry_is_found_by_its_key(&fresh());
    entries_are_filtered_newest_first(&fresh());
    entries_are_forgotten(&fresh());
    letters_wait_for_a_verdict(&fresh());
    a_run_is_driven_by_one(&fresh());
    many_ask_for_one_lock(&fresh());
    pruning_forgets_runs_that_nobody_drives(&fresh());
    pruning_keeps_what_is_named(&fresh());
    pruning_keeps_what_is_named_by_values(&fresh());
    pruning_goes_on_beside_writing(&fresh());
    many_threads_append_to_many_runs(&fresh());
    sizes_add_up(&fresh());
}

/// A run that began a little while after 1970.
fn run(id: &str) -> RunInfo {
    let origin = json!({"file": "capital.yaml", "text": "flowrun: 1\n\"quoted\" ünïcödé 🦀", "options": [1, null]});
    RunInfo { id: id.to_owned(), workflow: format!("workflow of {id}"), started_ms: 1_234, origin, summary: None }
}

fn begun(store: &impl Store, ids: &[&str]) {
    ids.iter().for_each(|id| store.begin(&run(id)).expect("a new run is taken"));
}

fn text(text: &str) -> (ValueHash, Arc<str>) {
    (ValueHash::of_bytes(text.as_bytes()), text.into())
}

fn transaction(run: &str, first: u64) -> Transaction {
    Transaction {
        run: run.into(),
        first,
        lines: format!("{{\"v\":1,\"seq\":{first},\"type\":\"ready\"}}\n"),
        values: Vec::new(),
        entries: Vec::new(),
        summary: None,
    }
}

fn stored(transaction: &Transaction) -> Stored {
    Stored { first: transaction.first, lines: transaction.lines.clone() }
}

/// Appends all, then waits for all; gives what was called back, in the order of the transactions.
fn append(store: &impl Store, transactions: Vec<Transaction>) -> Vec<Result<(), StoreError>> {
    let waiting: Vec<_> = transactions.into_iter().map(|transaction| queue(store, transaction)).collect();
    waiting.into_iter().map(|done| done.recv().expect("a callback is called")).collect()
}

fn queue(store: &impl Store, transaction: Transaction) -> mpsc::Receiver<Result<(), StoreError>> {
    let (sender, receiver) = mpsc::channel();
    let done = Box::new(move |result| {
        let _gone = sender.send(result);
    });
    store.append(transaction, done);
    receiver
}

fn keep(store: &impl Store, transactions: Vec<Transaction>) {
    append(store, transactions).into_iter().for_each(|result| result.expect("a transaction is kept"));
}

fn a_run_begins_once(store: &impl Store) {
    assert_eq!(store.run("a"), Ok(None));
    assert_eq!(store.begin(&run("a")), Ok(()));
    assert_eq!(store.run("a"), Ok(Some(run("a"))));
    let again = RunInfo { workflow: "another".to_owned(), ..run("a") };
    assert_eq!(store.begin(&again), Err(StoreError::RunExists("a".to_owned())));
    assert_eq!(store.run("a"), Ok(Some(run("a"))), "the first one stays");
    let ended = Summary { status: Status::Failed, wall_ms: 1, steps: 2, usage: Usage::default() };
    let with_summary = RunInfo { summary: Some(ended), started_ms: u64::MAX, ..run("b") };
    assert_eq!(store.begin(&with_summary), Ok(()));
    assert_eq!(store.run("b"), Ok(Some(with_summary)));
}

fn an_id_is_a_plain_file_name(store: &impl Store) {
    for id in ["", ".", "..", "a/b", "a b", "a_b", "ä", "a\0", &"a".repeat(65)] {
        assert_eq!(store.begin(&run(id)), Err(StoreError::BadId(id.to_owned())), "`{id}`");
    }
    begun(store, &[&"a".repeat(64), "20261126-070539-613-840d", "-"]);
}

fn runs_come_in_the_order_of_ids(store: &impl Store) {
    assert_eq!(store.runs(), Ok(Vec::new()));
    begun(store, &["b-2", "a", "b-10", "B", "c"]);
    let ids: Vec<String> = store.runs().expect("runs are read").into_iter().map(|run| run.id).collect();
    assert_eq!(ids, ["B", "a", "b-10", "b-2", "c"]);
    assert_eq!(store.runs().map(|runs| runs[1].clone()), Ok(run("a")));
}

fn transactions_are_kept_in_the_order_of_queueing(store: &impl Store) {
    begun(store, &["a", "b"]);
    let of = |run: &str| -> Vec<Transaction> { (0..200).map(|n| transaction(run, n * 3)).collect() };
    let mixed = of("a").into_iter().zip(of("b")).flat_map(|(a, b)| [a, b]).collect();
    keep(store, mixed);
    for run in ["a", "b"] {
        assert_eq!(store.log(run, 0), Ok(of(run).iter().map(stored).collect()));
    }
}

fn a_log_is_read_from_any_event_on(store: &impl Store) {
    assert_eq!(store.log("a", 0), Ok(Vec::new()));
    begun(store, &["a", "b"]);
    assert_eq!(store.log("a", 0), Ok(Vec::new()));
    let all: Vec<Transaction> = [0, 4, 5, 17, 1 << 32].map(|first| transaction("a", first)).into();
    keep(store, all.clone());
    keep(store, vec![transaction("b", 1)]);
    for (from, skipped) in [(0, 0), (1, 1), (4, 1), (5, 2), (6, 3), (17, 3), (18, 4), (1 << 32, 4), (1 << 33, 5)] {
        assert_eq!(store.log("a", from), Ok(all[skipped..].iter().map(stored).collect()), "from {from}");
    }
    assert_eq!(store.log("a", u64::MAX), Ok(Vec::new()));
}

fn entry(key: &str, node: &str, created_ms: u64) -> CacheEntry {
    CacheEntry {
        key: text(key).0,
        value: text("1").0,
        kind: "llm".to_owned(),
        node: node.to_owned(),
        run: "a".to_owned(),
        step: format!("{node}[3]/sub"),
        usage: Usage { calls: 2, prompt_tokens: 30, completion_tokens: 4 },
        created_ms,
    }
}

fn a_transaction_is_kept_whole(store: &impl Store) {
    begun(store, &["a"]);
    let (lines, kept) = (format!("{{\"n\":\"{}\"}}\n", "🦀".repeat(9_000)), entry("key", "n", 5));
    let summary = Summary { status: Status::Success, wall_ms: 7, steps: 1, usage: Usage::default() };
    let whole = Transaction {
        lines: lines.clone() + "{}\n",
        values: vec![text("1"), text("\"key\"")],
        entries: vec![kept.clone()],
        summary: Some(Some(summary.clone())),
        ..transaction("a", 0)
    };
    keep(store, vec![whole]);
    assert_eq!(store.log("a", 0), Ok(vec![Stored { first: 0, lines: lines + "{}\n" }]));
    assert_eq!(store.value(text("1").0), Ok(Some("1".into())));
    assert_eq!(store.value(text("\"key\"").0), Ok(Some("\"key\"".into())));
    assert_eq!(store.entry(kept.key), Ok(Some(kept)));
    assert_eq!(store.run("a").map(|run| run.and_then(|run| run.summary)), Ok(Some(summary)));
}

fn a_transaction_of_no_run_is_not_kept_at_all(store: &impl Store) {
    begun(store, &["a"]);
    let lost =
        Transaction { values: vec![text("2")], entries: vec![entry("lost", "n", 1)], ..transaction("nowhere", 0) };
    let results = append(store, vec![transaction("a", 0), lost, transaction("a", 1)]);
    assert_eq!(results, [Ok(()), Err(StoreError::NoRun("nowhere".to_owned())), Ok(())]);
    assert_eq!(store.log("nowhere", 0), Ok(Vec::new()));
    assert_eq!(store.value(text("2").0), Ok(None));
    assert_eq!(store.entry(text("lost").0), Ok(None));
    assert_eq!(store.log("a", 0).map(|log| log.len()), Ok(2), "others go on");
}

fn a_callback_is_called_once_and_after_the_keeping(store: &impl Store) {
    begun(store, &["a"]);
    for first in 0..50 {
        let done = queue(store, transaction("a", first));
        assert_eq!(done.recv(), Ok(Ok(())));
        assert_eq!(store.log("a", first).map(|log| log.len()), Ok(1), "what is called kept is kept");
        assert!(done.recv().is_err(), "it is called once");
    }
}

fn what_is_queued_outlives_the_handle(store: impl Store) {
    begun(&store, &["a"]);
    let waiting: Vec<_> = (0..500).map(|first| queue(&store, transaction("a", first))).collect();
    drop(store);
    for done in waiting {
        assert_eq!(done.recv(), Ok(Ok(())));
    }
}

fn a_value_is_kept_once_and_to_the_letter(store: &impl Store) {
    begun(store, &["a", "b"]);
    assert_eq!(store.value(text("1").0), Ok(None));
    let long = format!("\"{}\"", "ä€🦀".repeat(200_000));
    let texts = ["1", "{ \"b\":1,\n \"a\" : 1.50 }", "\"\\u0000\"", "null", "", &long];
    let values: Vec<_> = texts.into_iter().map(text).collect();
    let twice = [values.clone(), values.clone()].concat();
    keep(store, vec![Transaction { values: twice, ..transaction("a", 0) }]);
    keep(store, vec![Transaction { values: values.clone(), ..transaction("b", 0) }]);
    for (hash, text) in &values {
        assert_eq!(store.value(*hash), Ok(Some(text.clone())));
    }
    assert_eq!(store.size().map(|size| size.values), Ok(values.len() as u64));
}

fn a_summary_is_set_and_unset(store: &impl Store) {
    begun(store, &["a", "b"]);
    let usage = Usage { calls: 1, prompt_tokens: 2, completion_tokens: 3 };
    let summary = Summary { status: Status::Suspended, wall_ms: 10, steps: 4, usage };
    let found = || store.run("a").map(|run| run.and_then(|run| run.summary));
    let with = |first, summary| Transaction { summary, ..transaction("a", first) };
    keep(store, vec![with(0, None)]);
    assert_eq!(found(), Ok(None));
    keep(store, vec![with(1, Some(Some(summary.clone())))]);
    assert_eq!(found(), Ok(Some(summary.clone())));
    keep(store, vec![with(2, None)]);
    assert_eq!(found(), Ok(Some(summary.clone())), "what says nothing changes nothing");
    assert_eq!(store.runs().map(|runs| runs[0].summary.clone()), Ok(Some(summary)));
    assert_eq!(store.runs().map(|runs| runs[1].summary.clone()), Ok(None), "another run's is its own");
    keep(store, vec![with(3, Some(None))]);
    assert_eq!(found(), Ok(None));
}

fn an_entry_is_found_by_its_key(store: &impl Store) {
    begun(store, &["a"]);
    assert_eq!(store.entry(text("k").0), Ok(None));
    let (old, new) = (entry("k", "n", 1), CacheEntry { value: text("2").0, ..entry("k", "m", 2) });
    let with = |first, entry: &CacheEntry| Transaction { entries: vec![entry.clone()], ..transaction("a", first) };
    keep(store, vec![with(0, &old)]);
    assert_eq!(store.entry(old.key), Ok(Some(old)));
    keep(store, vec![with(1, &new)]);
    assert_eq!(store.entry(new.key), Ok(Some(new.clone())), "the last one stays");
    assert_eq!(store.entries(&EntryFilter::default()), Ok(vec![new]));
}

fn entries_are_filtered_newest_first(store: &impl Store) {
    begun(store, &["a"]);
    let mut all: Vec<CacheEntry> = (0..40).map(|n| entry(&format!("k{n}"), ["x", "y"][n % 2], n as u64 / 4)).collect();
    all.iter_mut().step_by(3).for_each(|entry| entry.kind = "tool".to_owned());
    keep(store, vec![Transaction { entries: all.clone(), ..transaction("a", 0) }]);
    all.sort_by_key(|entry| (std::cmp::Reverse(entry.created_ms), entry.key));
    let prefix = all[7].key.to_string();
    let none = EntryFilter::default();
    let with_prefix = |prefix: &str| EntryFilter { prefix: Some(prefix.to_owned()), ..none.clone() };
    let filters = [
        none.clone(),
        EntryFilter { kind: Some("tool".to_owned()), ..none.clone() },
        EntryFilter { node: Some("y".to_owned()), ..none.clone() },
        EntryFilter { kind: Some("llm".to_owned()), node: Some("x".to_owned()), limit: Some(3), ..none.clone() },
        EntryFilter { kind: Some("none".to_owned()), ..none.clone() },
        EntryFilter { before_ms: Some(4), ..none.clone() },
        EntryFilter { before_ms: Some(0), ..none.clone() },
        EntryFilter { before_ms: Some(u64::MAX), limit: Some(u64::MAX), ..none.clone() },
        EntryFilter { limit: Some(0), ..none.clone() },
        with_prefix(""),
        with_prefix(&prefix[..1]),
        with_prefix(&prefix[..9]),
        with_prefix(&prefix),
        with_prefix(&(prefix.clone() + "0")),
        with_prefix(&prefix.to_uppercase()),
        with_prefix("%"),
        EntryFilter { limit: Some(2), ..with_prefix(&prefix[..1]) },
    ];
    for filter in filters {
        let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        let wanted: Vec<CacheEntry> = all.iter().filter(|entry| filter.admits(entry)).take(limit).cloned().collect();
        assert_eq!(store.entries(&filter), Ok(wanted), "{filter:?}");
    }
}

fn entries_are_forgotten(store: &impl Store) {
    begun(store, &["a"]);
    let entries: Vec<_> = (0..4).map(|n| entry(&n.to_string(), "n", 4 - n)).collect();
    let values = vec![text("1")];
    keep(store, vec![Transaction { entries: entries.clone(), values, ..transaction("a", 0) }]);
    assert_eq!(store.forget(&[]), Ok(0));
    assert_eq!(store.forget(&[entries[1].key, text("unknown").0, entries[2].key, entries[1].key]), Ok(2));
    assert_eq!(store.entry(entries[1].key), Ok(None));
    assert_eq!(store.entries(&EntryFilter::default()), Ok(vec![entries[0].clone(), entries[3].clone()]));
    assert_eq!(store.value(text("1").0), Ok(Some("1".into())), "the value stays until somebody prunes");
}

fn letters_wait_for_a_verdict(store: &impl Store) {
    begun(store, &["a", "b"]);
    assert_eq!(store.post("nowhere", "s", &json!(1)), Err(StoreError::NoRun("nowhere".to_owned())));
    assert_eq!(store.letters("nowhere"), Ok(Vec::new()));
    let values = [json!({"yes": true, "why": "\"ä\""}), json!(null), json!(3)];
    let post = |(run, value): (&str, &Value)| store.post(run, "ask[2]/who", value).expect("a letter is posted");
    let numbers: Vec<u64> = ["a", "b", "a"].into_iter().zip(&values).map(post).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    let open = |run: &str| store.letters(run).expect("letters are read");
    let letters = open("a");
    assert_eq!(letters.iter().map(|letter| letter.number).collect::<Vec<_>>(), [numbers[0], numbers[2]]);
    assert_eq!((&*letters[0].step, &letters[0].value, &letters[1].value), ("ask[2]/who", &values[0], &values[2]));
    assert_eq!(store.verdict(numbers[0]), Ok(None));
    assert_eq!(store.judge(numbers[0], &Err("it is no number".to_owned())), Ok(()));
    assert_eq!(store.judge(numbers[1], &Ok(())), Ok(()));
    assert_eq!(store.judge(numbers[1], &Err("too late".to_owned())), Ok(()));
    assert_eq!(store.verdict(numbers[0]), Ok(Some(Err("it is no number".to_owned()))));
    assert_eq!(store.verdict(numbers[1]), Ok(Some(Ok(()))));
    assert_eq!(store.verdict(numbers[2]), Ok(None));
    assert_eq!(store.verdict(u64::MAX), Ok(None));
    assert_eq!((open("a").len(), open("b").len()), (1, 0), "those with a verdict wait no more");
}

fn a_run_is_driven_by_one(store: &impl Store) {
    begun(store, &["a", "b"]);
    assert_eq!(store.is_driven("a"), Ok(false));
    let lock = store.lock("a").expect("locks work");
    assert!(lock.is_some() && store.is_driven("a") == Ok(true));
    assert!(store.lock("a").expect("locks work").is_none());
    assert_eq!(store.is_driven("a"), Ok(true), "being asked for changes nothing");
    assert_eq!(store.is_driven("b"), Ok(false));
    assert!(store.lock("b").expect("locks work").is_some());
    drop(lock);
    assert_eq!(store.is_driven("a"), Ok(false));
    assert!(store.lock("a").expect("locks work").is_some());
}

fn many_ask_for_one_lock(store: &impl Store) {
    begun(store, &["a"]);
    let driving = std::sync::atomic::AtomicUsize::new(0);
    let ordering = std::sync::atomic::Ordering::SeqCst;
    let ask = || {
        let mut taken = 0;
        for _ in 0..100 {
            assert!(store.is_driven("a").is_ok());
            let Some(lock) = store.lock("a").expect("locks work") else { continue };
            assert_eq!(driving.fetch_add(1, ordering), 0, "two drive the run");
            taken += 1;
            driving.fetch_sub(1, ordering);
            drop(lock);
        }
        taken
    };
    let taken: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
    });
    assert!(taken > 0 && store.is_driven("a") == Ok(false));
    // A look keeps nobody from driving.
    let looks_on = std::sync::atomic::AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            while looks_on.load(ordering) {
                assert!(store.is_driven("a").is_ok());
            }
        });
        let missed = (0..200).filter(|_| store.lock("a").expect("locks work").is_none()).count();
        looks_on.store(false, ordering);
        assert_eq!(missed, 0, "a look took the run away");
    });
}

fn pruning_forgets_runs_that_nobody_drives(store: &impl Store) {
    begun(store, &["a", "b", "c"]);
    let with_value = |run: &str| {
        let value = text(&format!("\"of {run}\""));
        let lines = format!("{{\"value\":\"{}\"}}\n", value.0);
        Transaction { lines, values: vec![value], ..transaction(run, 0) }
    };
    keep(store, vec![with_value("a"), with_value("b"), with_value("c")]);
    let letter = store.post("a", "s", &json!(1)).expect("a letter is posted");
    let lock = store.lock("b").expect("locks work");
    let runs = ["a", "b", "nowhere"].map(str::to_owned);
    let ids = || store.runs().map(|runs| runs.into_iter().map(|run| run.id).collect::<Vec<_>>());
    assert_eq!(store.prune(&runs), Ok(1));
    assert_eq!(ids(), Ok(["b", "c"].map(str::to_owned).into()));
    assert_eq!((store.log("a", 0), store.letters("a")), (Ok(Vec::new()), Ok(Vec::new())));
    assert_eq!(store.verdict(letter), Ok(None));
    assert_eq!(store.value(text("\"of a\"").0), Ok(None));
    assert_eq!(store.value(text("\"of b\"").0), Ok(Some("\"of b\"".into())), "a driven run stays whole");
    assert_eq!(store.log("b", 0).map(|log| log.len()), Ok(1));
    drop(lock);
    assert_eq!(store.prune(&runs), Ok(1));
    assert_eq!(store.value(text("\"of b\"").0), Ok(None));
    begun(store, &["a"]);
    assert_eq!(store.log("a", 0), Ok(Vec::new()), "an id that is free again begins from nothing");
}

fn pruning_keeps_what_is_named(store: &impl Store) {
    let [by_line, by_origin, by_key, by_entry, by_nothing] = ["\"l\"", "\"o\"", "\"k\"", "\"e\"", "\"n\""].map(text);
    let info = RunInfo { origin: json!({"workflow": [by_origin.0.to_string()]}), ..run("a") };
    store.begin(&info).expect("a new run is taken");
    let values = [&by_line, &by_origin, &by_key, &by_entry, &by_nothing].map(Clone::clone);
    let named = CacheEntry { key: by_key.0, value: by_entry.0, ..entry("", "n", 1) };
    let lines = format!("{{\"v\":1}}\n{{\"value\":\"{}\"}}\n", by_line.0);
    keep(store, vec![Transaction { lines, values: values.into(), entries: vec![named], ..transaction("a", 0) }]);
    assert_eq!(store.prune(&[]), Ok(1));
    let kept = |(hash, _): &(ValueHash, Arc<str>)| store.value(*hash).expect("values are read").is_some();
    let all = [&by_line, &by_origin, &by_key, &by_entry, &by_nothing].map(kept);
    assert_eq!(all, [true, true, true, true, false]);
    assert_eq!(store.prune(&["a".to_owned()]), Ok(2), "an entry outlives the run that paid");
    assert_eq!([&by_line, &by_origin, &by_key, &by_entry].map(kept), [false, false, true, true]);
    assert_eq!(store.forget(&[by_key.0]), Ok(1));
    assert_eq!(store.prune(&[]), Ok(2));
    assert_eq!(store.size().map(|size| (size.runs, size.entries, size.values)), Ok((0, 0, 0)));
}

fn pruning_keeps_what_is_named_by_values(store: &impl Store) {
    begun(store, &["a", "b"]);
    // A chain of values of which each names the one before it, and a log that names the last.
    let mut chain = vec![text("\"the first\"")];
    for n in 0..300 {
        let (before, _) = chain[n];
        chain.push(text(&format!("{{\"n\":{n},\"input\":\"{before}\"}}")));
    }
    let last = chain[300].0;
    let values = [chain.clone(), vec![text("\"alone\"")]].concat();
    keep(store, vec![Transaction { lines: format!("\"{last}\"\n"), values, ..transaction("a", 0) }]);
    keep(store, vec![Transaction { values: chain.clone(), lines: "{}\n".to_owned(), ..transaction("b", 0) }]);
    assert_eq!(store.prune(&["b".to_owned()]), Ok(1));
    assert!(chain.iter().all(|(hash, text)| store.value(*hash) == Ok(Some(text.clone()))));
    assert_eq!(store.prune(&["a".to_owned()]), Ok(301));
}

fn pruning_goes_on_beside_writing(store: &impl Store) {
    begun(store, &["a", "old"]);
    let named = |n: u64| {
        let value = text(&n.to_string());
        Transaction { lines: format!("\"{}\"\n", value.0), values: vec![value], ..transaction("a", n) }
    };
    thread::scope(|scope| {
        let writer = scope.spawn(|| keep(store, (0..1_000).map(named).collect()));
        while !writer.is_finished() {
            assert_eq!(store.prune(&["old".to_owned()]), Ok(0), "everything is named");
        }
    });
    assert!((0..1_000).all(|n: u64| store.value(named(n).values[0].0).expect("values are read").is_some()));
}

fn many_threads_append_to_many_runs(store: &impl Store) {
    let ids: Vec<String> = (0..24).map(|n| format!("run-{n}")).collect();
    thread::scope(|scope| {
        for ids in ids.chunks(4) {
            scope.spawn(move || {
                begun(store, &ids.iter().map(String::as_str).collect::<Vec<_>>());
                let one = |run: &String, n: u64| {
                    // Some values are everybody's.
                    let values = vec![text(&n.to_string()), text(&format!("[{n},\"{run}\"]"))];
                    Transaction { values, ..transaction(run, n) }
                };
                keep(store, (0..50).flat_map(|n| ids.iter().map(move |run| one(run, n))).collect());
            });
        }
    });
    let runs: BTreeSet<String> = store.runs().expect("runs are read").into_iter().map(|run| run.id).collect();
    assert_eq!(runs, ids.iter().cloned().collect());
    for run in &ids {
        let wanted: Vec<Stored> = (0..50).map(|n| stored(&transaction(run, n))).collect();
        assert_eq!(store.log(run, 0), Ok(wanted));
    }
    assert_eq!(store.size().map(|size| size.values), Ok(50 + 24 * 50));
}

fn sizes_add_up(store: &impl Store) {
    let size = store.size().expect("sizes are read");
    assert_eq!((size.runs, size.entries, size.values, size.value_bytes), (0, 0, 0, 0));
    begun(store, &["a", "b"]);
    let values = vec![text("\"ä\""), text("1"), text("1")];
    let entries = vec![entry("x", "n", 1), entry("y", "n", 2), entry("x", "n", 3)];
    keep(store, vec![Transaction { values, entries, ..transaction("a", 0) }]);
    let size = store.size().expect("sizes are read");
    assert_eq!((size.runs, size.entries, size.values, size.value_bytes), (2, 2, 2, 5));
    assert_eq!(store.damage(), Ok(Vec::new()));
}
