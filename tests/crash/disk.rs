//! Full disks, closed folders, files that are cut short or changed, clocks that jump: each is said in words, and where there is something
//! left to go on with, the run goes on to the same end without paying twice.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use flowrun::engine::store::{EntryFilter, RunInfo, Store, Transaction};
use flowrun::{SqliteStore, ValueHash};
use serde_json::{Value, json};

use super::bench::{Bench, Case, Watched, kill, undisturbed, until};
use super::server::Server;
use crate::cli::{code, stderr, stdout};

/// Answers of some size, each asked for with the one before.
fn growing() -> Case {
    let big = |word: &str| word.repeat(8_000);
    let nodes: String =
        (1..6).map(|n| format!("  n{n}: {{prompt: \"word {n} of {{{{ n{} | length }}}}\"}}\n", n - 1)).collect();
    Case {
        script: vec![
            ("word 2", big("second ")),
            ("word 4", big("fourth ")),
            ("word 5", big("fifth ")),
            ("word", big("other ")),
        ],
        ..Case::new(&format!("flowrun: 1\nnodes:\n  n0: {{prompt: word 0}}\n{nodes}output: [n5, n1]\n"))
    }
}

/// The same command with files that cannot grow beyond a size.
fn with_room(bench: &Bench, command: &Command, kilobytes: u64) -> Output {
    let words: Vec<&str> = command.get_args().map(|word| word.to_str().unwrap()).collect();
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -f {}; exec \"$0\" \"$@\"", kilobytes * 2)]);
    limited.arg(command.get_program()).args(words).current_dir(bench.place.path());
    limited.stdin(std::process::Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.output().unwrap()
}

#[test]
fn on_a_full_disk_a_run_stops_and_goes_on_when_there_is_room() {
    let case = growing();
    let (expected, calls) = undisturbed(&case);
    let mut stopped = 0;
    for kilobytes in [150, 220, 300, 400, 600] {
        let bench = Bench::new(&case, Server::open(&case.script));
        let full = with_room(&bench, &bench.begin(), kilobytes);
        let said = stderr(&full);
        assert!(!said.contains("panicked") && !said.contains("BUG"), "{said}");
        if code(&full) != 0 && bench.server.calls().is_empty() {
            assert!([1, 2].contains(&code(&full)) && said.contains("no room is left"), "{kilobytes} kB: {said}");
        } else if code(&full) != 0 {
            stopped += 1;
            assert_eq!(code(&full), 1, "{kilobytes} kB: {said}");
            let report: Value = serde_json::from_str(&stdout(&full)).unwrap();
            assert_eq!((&report["status"], &report["error"]["code"]), (&json!("failed"), &json!("store")), "{report}");
            let id = bench.log().unwrap().info.id;
            for text in ["no room is left", "what had finished is kept", &format!("`flowrun resume {id}`")] {
                assert!(said.contains(text), "`{text}` is not in: {said}");
            }
        }
        let lost = bench.lost().0;
        assert_eq!(bench.conclude(), expected, "{kilobytes} kB");
        bench.assert_paid_once(&calls, &lost, &format!("{kilobytes} kB"));
    }
    assert!(stopped >= 2, "only {stopped} of the sizes stop a run in its midst");
}

#[test]
fn where_nothing_can_be_written_that_is_said_with_a_way_out() {
    let bench = Bench::new(&growing(), Server::open(&[]));
    let refused = bench.flowrun(&["run", "w.yaml", "--db", "w.yaml/runs.db"]);
    let said = stderr(&refused);
    assert!(code(&refused) == 2 && said.contains("w.yaml") && said.contains("`--no-record`"), "{said}");
    assert!(bench.server.calls().is_empty(), "nothing was paid");
    assert_eq!(code(&bench.flowrun(&["run", "w.yaml", "-q", "--no-record"])), 0);
}

/// A run that was killed when so many of its calls were answered; everything is in the one file.
fn killed(case: &Case, answers: usize) -> Bench {
    let bench = Bench::new(case, Server::holding(&case.script));
    bench.server.allow(answers);
    let Watched::Still(child) = bench.watch(bench.begin().spawn().unwrap()) else { panic!("it ended") };
    kill(child);
    bench.server.allow(1 << 20);
    drop(bench.store());
    assert!(!bench.place.path().join(".flowrun/flowrun.db-wal").exists());
    bench
}

/// Damage is refused in words, or does not matter: never is there another end, nor a panic.
fn assert_said(bench: &Bench, expected: &Value, what: &str) -> bool {
    let resumed = bench.flowrun(&["resume", "last", "--json", "--quiet"]);
    let said = stderr(&resumed);
    assert!(!said.contains("panicked") && !said.contains("BUG"), "{what}: {said}");
    if code(&resumed) == 0 {
        let report: Value = serde_json::from_str(&stdout(&resumed)).unwrap();
        assert_eq!(json!({"status": report["status"], "output": report["output"]}), *expected, "{what}");
        return false;
    }
    assert!(resumed.status.code().is_some() && stdout(&resumed).is_empty(), "{what}: {said}");
    let known =
        ["damaged", "is not in the store", "cannot be followed", "no store", "there are no runs", "cannot be read"];
    assert!(known.iter().any(|text| said.contains(text)), "{what}: {said}");
    true
}

#[test]
fn a_damaged_file_is_said_and_never_becomes_another_end() {
    let case = growing();
    let (expected, _) = undisturbed(&case);
    let bench = killed(&case, 4);
    let whole = fs::read(bench.database()).unwrap();
    let mut refused = 0;
    for part in 0..12 {
        let mut flipped = whole.clone();
        let at = whole.len() * (2 * part + 1) / 24;
        flipped[at..at + 8].iter_mut().for_each(|byte| *byte ^= 0x55);
        restore(&bench, &flipped);
        refused += u32::from(assert_said(&bench, &expected, &format!("bytes changed at {at}")));
    }
    for length in [whole.len() / 2, whole.len() - 1_000, 4_096, 100, 0] {
        restore(&bench, &whole[..length]);
        refused += u32::from(assert_said(&bench, &expected, &format!("cut to {length} of {} bytes", whole.len())));
    }
    assert!(refused >= 3, "only {refused} kinds of damage were noticed");
    restore(&bench, &whole);
    assert_eq!(bench.conclude(), expected);
}

fn restore(bench: &Bench, bytes: &[u8]) {
    for ending in ["-wal", "-shm"] {
        let _none = fs::remove_file(bench.place.path().join(format!(".flowrun/flowrun.db{ending}")));
    }
    fs::write(bench.database(), bytes).unwrap();
}

/// A power cut leaves the end of the write-ahead log torn: what was whole before it counts.
#[test]
fn a_torn_end_of_the_write_ahead_log_costs_what_is_in_it_and_no_more() {
    let case = growing();
    let (expected, calls) = undisturbed(&case);
    for torn in [1, 1_000, 30_000] {
        let bench = Bench::new(&case, Server::holding(&case.script));
        bench.server.allow(4);
        let Watched::Still(child) = bench.watch(bench.begin().spawn().unwrap()) else { panic!("it ended") };
        kill(child);
        let log = bench.place.path().join(".flowrun/flowrun.db-wal");
        tear(&log, torn);
        let lost = bench.lost().0;
        assert!(!lost.is_empty(), "the last answer is lost, and with it the call in flight, if there is one: {lost:?}");
        bench.server.allow(1 << 20);
        assert_eq!(bench.conclude(), expected, "{torn} bytes");
        bench.assert_paid_once(&calls, &lost, &format!("{torn} bytes"));
    }
}

/// The last bytes of a file are those of something else.
fn tear(path: &Path, bytes: i64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    file.seek(SeekFrom::End(-bytes)).unwrap();
    let mut end = Vec::new();
    file.read_to_end(&mut end).unwrap();
    end.iter_mut().for_each(|byte| *byte ^= 0x55);
    file.seek(SeekFrom::End(-bytes)).unwrap();
    file.write_all(&end).unwrap();
}

/// The same runs as if the clock had stood elsewhere when they began.
fn begun_at(bench: &Bench, moved_ms: i64) {
    let old = bench.store();
    let path = bench.place.path().join("moved.db");
    let new = SqliteStore::open(&path, flowrun::engine::store::Durability::Normal).unwrap();
    for run in old.runs().unwrap() {
        let started_ms = run.started_ms.saturating_add_signed(moved_ms);
        new.begin(&RunInfo { started_ms, ..run.clone() }).unwrap();
        let mut entries = old.entries(&EntryFilter::default()).unwrap();
        for stored in old.log(&run.id, 0).unwrap() {
            let hashes = stored.lines.split('"').filter_map(ValueHash::from_hex);
            let named = hashes.chain(entries.iter().flat_map(|entry| [entry.key, entry.value]));
            let values = named.filter_map(|hash| Some((hash, old.value(hash).unwrap()?))).collect();
            let run = Arc::from(run.id.as_str());
            let entries = std::mem::take(&mut entries);
            let transaction =
                Transaction { run, first: stored.first, lines: stored.lines, values, entries, summary: None };
            let (sender, kept) = mpsc::channel();
            new.append(transaction, Box::new(move |result| sender.send(result).unwrap()));
            kept.recv().unwrap().unwrap();
        }
    }
    drop((old, new));
    restore(bench, &fs::read(path).unwrap());
}

/// A question that is open for an hour, with an answer for when nobody gives one; the process that asked is killed.
fn asked() -> Bench {
    let case = Case::new(
        "flowrun: 1\nnodes:\n  a: {prompt: letter}\n  ask: {kind: human, prompt: \"Send {{ a }}?\", timeout: 1h, default: \"'nobody'\"}\n  \
         b: {prompt: \"told {{ ask }}\"}\noutput: [ask, b]\n",
    );
    let bench = Bench::new(&case, Server::open(&[]));
    let child = bench.begin().spawn().unwrap();
    until("the question", || has(&bench, "suspended"));
    kill(child);
    bench
}

fn has(bench: &Bench, kind: &str) -> bool {
    bench.log().is_some_and(|log| log.events.iter().any(|event| event.kind == kind))
}

#[test]
fn a_deadline_that_passed_while_nobody_drove_is_over_at_once() {
    let bench = asked();
    begun_at(&bench, -86_400_000);
    let resumed = bench.flowrun(&["resume", "last", "--json", "--quiet", "--no-input"]);
    assert_eq!(code(&resumed), 0, "{}", stderr(&resumed));
    assert_eq!(bench.outcome()["output"][0], "nobody");
    let wall_ms = serde_json::from_slice::<Value>(&resumed.stdout).unwrap()["wall_ms"].as_u64().unwrap();
    assert!(wall_ms < 3_600_000, "{wall_ms} ms: nobody drove it for a day");
    assert!(bench.log().unwrap().summary().wall_ms.abs_diff(wall_ms) < 1_000);
    assert!(bench.server.calls().values().all(|calls| *calls == 1));
}

#[test]
fn a_clock_that_went_back_leaves_deadlines_to_the_log() {
    let bench = asked();
    begun_at(&bench, 86_400_000);
    let child = bench.command(&["resume", "last", "--json", "--quiet", "--no-input"]).spawn().unwrap();
    until("the process that goes on", || has(&bench, "attached"));
    thread::sleep(Duration::from_millis(100));
    assert!(!has(&bench, "timer"), "the hour is not over");
    let answered = bench.flowrun(&["answer", "last", "ask", "yes"]);
    assert_eq!(code(&answered), 0, "{}", stderr(&answered));
    let ended = child.wait_with_output().unwrap();
    assert_eq!((code(&ended), &bench.outcome()["output"][0]), (0, &json!("yes")), "{}", stderr(&ended));
}
