//! What outlives a run, seen from outside: runs shown, removed and written out, answers that are kept, hits, and damage.

use std::fs;
use std::path::PathBuf;

use flowrun::engine::store::{CacheEntry, Durability, RunInfo, Store, Summary, Transaction};
use flowrun::store::SqliteStore;
use flowrun::{Status, Usage, ValueHash};
use serde_json::{Value, json};

use super::cli::{Place, code, stderr, stdout};

const DAY_MS: u64 = 86_400_000;

fn database(place: &Place) -> PathBuf {
    place.path().join(".flowrun/flowrun.db")
}

/// Written by hand: what no run of a test can be made to write.
fn kept(place: &Place) -> SqliteStore {
    SqliteStore::open(&database(place), Durability::Normal).unwrap()
}

fn now_ms() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

fn begin(store: &SqliteStore, id: &str, days_ago: u64) {
    let origin = json!({"reference": "w.yaml", "model": "scripted:x", "replay_of": "r0"});
    let started_ms = now_ms() - days_ago * DAY_MS;
    store.begin(&RunInfo { id: id.to_owned(), workflow: "w".to_owned(), started_ms, origin, summary: None }).unwrap();
}

fn append(store: &SqliteStore, transaction: Transaction) {
    let (sender, kept) = std::sync::mpsc::channel();
    store.append(transaction, Box::new(move |result| sender.send(result).unwrap()));
    kept.recv().unwrap().unwrap();
}

fn transaction(id: &str, first: u64, events: &[&str], values: &[Value]) -> Transaction {
    let line = |(event, at): (&&str, u64)| {
        format!("{{\"v\":1,\"seq\":{at},\"us\":{}{}\n", 1_000 * at, event.replacen('{', ",", 1))
    };
    let lines = events.iter().zip(first..).map(line).collect();
    let values = values.iter().map(|value| (ValueHash::of(value), value.to_string().into())).collect();
    Transaction { run: id.into(), first, lines, values, entries: Vec::new(), summary: None }
}

/// A run that has ended as one word says, with a value of its own.
fn ended(store: &SqliteStore, id: &str, days_ago: u64, status: Status) {
    begin(store, id, days_ago);
    let output = json!(format!("the output of {id}"));
    let event = format!(r#"{{"type":"run_ended","status":"{}","output":"{}"}}"#, status.word(), ValueHash::of(&output));
    let mut transaction = transaction(id, 0, &[&event], &[output]);
    transaction.summary = Some(Some(Summary { status, wall_ms: 12, steps: 2, usage: Usage::default() }));
    append(store, transaction);
}

fn entry(key: &Value, value: &Value, node: &str, days_ago: u64) -> CacheEntry {
    CacheEntry {
        key: ValueHash::of(key),
        value: ValueHash::of(value),
        kind: "llm".to_owned(),
        node: node.to_owned(),
        run: "r1".to_owned(),
        step: format!("{node}[3]"),
        usage: Usage { calls: 2, prompt_tokens: 30, completion_tokens: 4 },
        created_ms: now_ms() - days_ago * DAY_MS,
    }
}

fn lines(output: &std::process::Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_is_shown_with_all_that_is_known_of_it() {
    let place = Place::new();
    place.run(&["two.yaml", "--input", "word=x\u{1b}[2J"]);
    let shown = stdout(&place.flowrun(&["runs", "show"]));
    for text in [": success\n", "workflow    two", " UTC, took ", "2 calls, ", "in 2 steps", "output      two\n"] {
        assert!(shown.contains(text), "`{text}` is not in:\n{shown}");
    }
    assert!(!shown.contains('\u{1b}') && shown.contains("flowrun trace 20"), "{shown}");
    let all = &lines(&place.flowrun(&["runs", "show", "last", "--json"]))[0];
    assert_eq!((&all["inputs"]["n"], &all["output"], &all["steps"]), (&json!(1), &json!("two"), &json!(2)));
    assert_eq!((&all["hits"], &all["damage"], &all["error"]), (&json!(0), &Value::Null, &Value::Null));

    place.write("ask.yaml", "flowrun: 1\nnodes:\n  ask: {kind: human, prompt: Well?, schema: boolean}\noutput: ask\n");
    place.run(&["ask.yaml", "-q"]);
    let shown = stdout(&place.flowrun(&["runs", "show"]));
    assert!(shown.contains(": suspended\n") && shown.contains("step `ask` asks for yes or no:\n"), "{shown}");
    let all = &lines(&place.flowrun(&["runs", "show", "--json"]))[0];
    assert_eq!(all["asked"], json!([{"step": "ask", "prompt": "Well?", "schema": {"type": "boolean"}}]));

    place.write("broken.yaml", &super::cli::asks("broken"));
    place.run(&["broken.yaml", "-q"]);
    let shown = stdout(&place.flowrun(&["runs", "show"]));
    assert!(shown.contains(": failed\n") && shown.contains("error       step `a` failed: "), "{shown}");
    let wrong = place.flowrun(&["runs", "show", "x"]);
    assert!(code(&wrong) == 2 && stderr(&wrong).contains("no run begins with `x`"), "{}", stderr(&wrong));
}

#[test]
fn the_time_between_a_kill_and_whoever_went_on_is_nowhere() {
    let place = Place::new();
    let store = kept(&place);
    begin(&store, "r1", 0);
    let events = [
        (0, r#""step":"w","type":"started","attempt":1"#),
        (200_000, r#""step":"x","type":"ended","state":"succeeded""#),
        (5_200_000, r#""type":"attached""#),
        (5_200_000, r#""step":"w","type":"started","attempt":2"#),
        (5_500_000, r#""step":"w","type":"ended","state":"succeeded""#),
        (5_500_000, r#""type":"run_ended","status":"success","usage":{}"#),
    ];
    let line = |(at, (us, event)): (usize, &(u64, &str))| format!("{{\"v\":1,\"seq\":{at},\"us\":{us},{event}}}\n");
    let lines = events.iter().enumerate().map(line).collect();
    append(&store, Transaction { lines, ..transaction("r1", 0, &[], &[]) });
    let tree = stdout(&place.flowrun(&["trace", "last"]));
    assert!(
        tree.starts_with("✓ w  500 ms  2 attempts") && tree.contains("0 tokens, 500 ms\ncritical path (*): 500 ms"),
        "{tree}"
    );
    let timeline = stdout(&place.flowrun(&["trace", "last", "--format", "timeline"]));
    assert!(timeline.contains("wall 500 ms; critical path 500 ms (100 %)"), "{timeline}");
    let step = stdout(&place.flowrun(&["explain", "last", "w"]));
    assert!(step.contains("attempt 2 began at 200 ms and after 300 ms it gave an answer"), "{step}");
    let both = stdout(&place.flowrun(&["diff", "last", "last", "w"]));
    assert!(both.contains("  r1  succeeded, -, 500 ms\n"), "{both}");
}

#[test]
fn lists_are_as_short_as_they_are_wanted() {
    let place = Place::new();
    assert_eq!((stdout(&place.flowrun(&["runs"])).as_str(), database(&place).exists()), ("", false));
    let store = kept(&place);
    [("r1", Status::Success), ("r2", Status::Failed), ("r3", Status::Success)]
        .iter()
        .for_each(|(id, status)| ended(&store, id, 0, *status));
    begin(&store, "r4", 0);
    let ids = |arguments: &[&str]| -> Vec<String> {
        let listed = lines(&place.flowrun(&[&["runs", "list", "--json"], arguments].concat()));
        listed.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&[]), ["r1", "r2", "r3", "r4"]);
    assert_eq!(ids(&["--limit", "2"]), ["r3", "r4"]);
    assert_eq!(ids(&["--status", "success"]), ["r1", "r3"]);
    assert_eq!(ids(&["--status", "success", "--limit", "1"]), ["r3"]);
    assert_eq!(ids(&["--status", "interrupted"]), ["r4"]);
    let unknown = place.flowrun(&["runs", "--status", "good"]);
    assert!(code(&unknown) == 2 && stderr(&unknown).contains("interrupted"), "{}", stderr(&unknown));
    assert_eq!(stdout(&place.flowrun(&["runs", "--limit", "1"])).matches("← last").count(), 1);
    assert!(!stdout(&place.flowrun(&["runs", "--status", "failed"])).contains("← last"));
}

#[test]
fn pruning_removes_what_is_meant_and_never_what_goes_on() {
    let place = Place::new();
    let store = kept(&place);
    for (id, days) in [("r1", 40), ("r2", 20), ("r3", 10), ("r4", 1)] {
        ended(&store, id, days, if id == "r3" { Status::Failed } else { Status::Success });
    }
    ended(&store, "r5", 50, Status::Suspended);
    begin(&store, "r6", 60);
    let driven = store.lock("r6").unwrap().unwrap();
    let prune = |arguments: &[&str]| place.flowrun(&[&["runs", "prune"], arguments].concat());
    let left = || -> Vec<String> { store.runs().unwrap().into_iter().map(|run| run.id).collect() };
    for (arguments, text) in [
        (&[][..], "`--keep N`"),
        (&["--status", "suspended"], "goes only by name"),
        (&["--older-than", "30"], "an age is written `30d`"),
        (&["r6"], "r6 is running"),
        (&["r9"], "no run begins with `r9`"),
    ] {
        let refused = prune(arguments);
        assert!(code(&refused) == 2 && stderr(&refused).contains(text), "{arguments:?}: {}", stderr(&refused));
    }
    let tried = prune(&["--older-than", "30d", "--dry-run"]);
    assert!(stdout(&tried).contains("r1") && stderr(&tried).contains("1 run would go"), "{}", stderr(&tried));
    assert_eq!(left().len(), 6);
    let pruned = prune(&["--older-than", "30d"]);
    assert!(
        stderr(&pruned).contains("1 run removed, with 1 value of 18 bytes; the database is "),
        "{}",
        stderr(&pruned)
    );
    assert_eq!(left(), ["r2", "r3", "r4", "r5", "r6"]);
    assert_eq!(code(&prune(&["--status", "failed"])), 0);
    assert_eq!(code(&prune(&["--keep", "1"])), 0);
    assert_eq!(left(), ["r4", "r5", "r6"], "the newest of those that ended, and those that go on");
    assert_eq!(code(&prune(&["r5"])), 0);
    drop(driven);
    assert_eq!(code(&prune(&["--keep", "0"])), 0);
    assert_eq!(left(), ["r6"], "what was interrupted can go on");
    assert_eq!(code(&prune(&["--keep", "0", "--status", "interrupted"])), 0);
    assert!(left().is_empty() && store.size().unwrap().values == 0);
}

#[test]
fn an_export_is_the_whole_run_for_other_programs() {
    let place = Place::new();
    place.run(&["two.yaml", "--input", "word=x", "-q"]);
    let (bare, whole) = (place.flowrun(&["export", "last"]), place.flowrun(&["export", "last", "--values"]));
    assert_eq!((code(&bare), code(&whole), stderr(&whole).as_str()), (0, 0, ""));
    let events = stdout(&place.flowrun(&["trace", "--format", "jsonl"]));
    assert_eq!(stdout(&bare).split_once('\n').unwrap().1, events);
    assert_eq!((&lines(&bare)[0]["type"], &lines(&bare)[0]["workflow"]), (&json!("run"), &json!("two")));
    let mut known = Vec::new();
    for line in lines(&whole) {
        if line["type"] == "value" {
            assert_eq!(line["hash"], json!(ValueHash::of(&line["value"])));
            known.push(line["hash"].clone());
        }
        for field in ["inputs", "input", "value", "provenance", "output"] {
            let hash = &line[field];
            assert!(line["type"] == "value" || hash.is_null() || known.contains(hash), "{line}");
        }
    }
    assert!(known.len() > 5);
}

#[test]
fn hits_are_shown_and_who_paid_for_them() {
    let place = Place::new();
    let store = kept(&place);
    begin(&store, "r7", 0);
    let (asked, answer) = (json!({"kind": "llm", "fields": {"prompt": "Q"}}), json!("an answer"));
    let report = |how: &str| {
        let usage = json!({"calls": 2, "prompt_tokens": 30, "completion_tokens": 4});
        json!({"from": {"how": how, "run": "r1", "step": "old", "usage": usage}})
    };
    let (input, value) = (ValueHash::of(&asked), ValueHash::of(&answer));
    let found = |step: &str, how: &str| {
        let (step, report) = (format!(r#""step":"{step}""#), ValueHash::of(&report(how)));
        [
            format!(r#"{{{step},"type":"ready"}}"#),
            format!(
                r#"{{{step},"type":"decided","field":"input","input":"{input}","calls":1,"key":"{input}","held":true}}"#
            ),
            format!(r#"{{{step},"type":"settled","attempt":0,"value":"{value}","provenance":"{report}"}}"#),
            format!(r#"{{{step},"type":"ended","state":"succeeded","value":"{value}"}}"#),
        ]
    };
    let events = [found("a", "cache"), found("b", "replay")].concat();
    let mut events: Vec<&str> = events.iter().map(String::as_str).collect();
    events.push(r#"{"step":"c","type":"started","attempt":1}"#);
    append(&store, transaction("r7", 0, &events, &[asked, answer, report("cache"), report("replay")]));
    let more = [
        r#"{"type":"attached"}"#,
        r#"{"step":"c","type":"started","attempt":2}"#,
        r#"{"step":"c","type":"ended","state":"succeeded"}"#,
    ];
    append(&store, transaction("r7", 9, &more, &[]));
    let tree = stdout(&place.flowrun(&["trace"]));
    for text in
        ["  cached\n", "  reused\n", "  2 attempts", "cut off; started again", ", 1 cached, 1 reused (4 calls saved), "]
    {
        assert!(tree.contains(text), "`{text}` is not in:\n{tree}");
    }
    let timeline = stdout(&place.flowrun(&["trace", "--format", "timeline"]));
    assert_eq!(timeline.matches('◆').count(), 3, "two rows and what the sign means:\n{timeline}");
    let prompts = stdout(&place.flowrun(&["trace", "last", "a", "--prompts"]));
    assert!(
        prompts.contains("── a (cached)\n   paid by │ run r1, step `old`: 2 calls, 34 tokens\n     asked │ Q\n"),
        "{prompts}"
    );
    assert!(prompts.contains("value │ an answer"), "{prompts}");
    assert!(stdout(&place.flowrun(&["runs", "show"])).contains("1 cached, 1 reused (4 calls saved)"));
}

#[test]
fn kept_answers_are_counted_listed_shown_and_forgotten() {
    let place = Place::new();
    assert!(stdout(&place.flowrun(&["cache", "stats"])).contains("0 runs"));
    let store = kept(&place);
    begin(&store, "r1", 0);
    let input = |prompt: &str| json!({"kind": "llm", "fields": {"prompt": prompt}});
    let made_of = |prompt: &str| json!({"kind": "llm", "input": ValueHash::of(&input(prompt))});
    let answers: Vec<(Value, Value, &str, u64)> = vec![
        (made_of("old?"), json!("an old answer\u{1b}[2J"), "facts", 40),
        (made_of("new?"), json!({"n": 1}), "facts", 1),
        (made_of("other?"), json!("another"), "report", 2),
    ];
    let mut transaction = transaction("r1", 0, &[], &[]);
    for (key, value, node, days) in &answers {
        transaction.values.extend([key, value].map(|value| (ValueHash::of(value), value.to_string().into())));
        transaction.entries.push(entry(key, value, node, *days));
    }
    let inputs = ["old?", "new?", "other?"].map(input);
    transaction.values.extend(inputs.iter().map(|value| (ValueHash::of(value), value.to_string().into())));
    append(&store, transaction);
    let stats = stdout(&place.flowrun(&["cache", "stats"]));
    let rows: Vec<Vec<&str>> = stats.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        (&rows[1][..], &rows[2][..]),
        (&["llm", "3", "6", "102", "40", "d", "ago"][..], &["all", "3", "6", "102", "40", "d", "ago"][..])
    );
    let stats = &lines(&place.flowrun(&["cache", "stats", "--json"]))[0];
    assert_eq!((&stats["entries"], &stats["kinds"]["llm"]["usage"]["calls"]), (&json!(3), &json!(6)));

    let listed = stdout(&place.command(&["cache", "list"]).env("COLUMNS", "160").output().unwrap());
    let keys: Vec<&str> = listed.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    let short = |at: usize| ValueHash::of(&answers[at].0).short();
    assert_eq!(keys, [short(1), short(2), short(0)], "newest first");
    assert!(
        listed.contains("40 d  2 calls, 34 tokens  an old answer [2J") && listed.contains("r1 report[3]"),
        "{listed}"
    );
    let only = lines(&place.flowrun(&["cache", "list", "--node", "facts", "--limit", "1", "--json"]));
    assert_eq!((only.len(), &only[0]["value"], &only[0]["node"]), (1, &json!({"n": 1}), &json!("facts")));
    assert!(stderr(&place.flowrun(&["cache", "list", "--limit", "2"])).contains("there are more"));

    let shown = stdout(&place.flowrun(&["cache", "show", &short(1)]));
    for text in ["the key is made of:\n", "\"prompt\": \"new?\"", "paid by   run r1, step `facts[3]`", "\"n\": 1"] {
        assert!(shown.contains(text), "`{text}` is not in:\n{shown}");
    }
    for (key, text) in [("", "several keys begin"), ("xyz", "no key begins")] {
        let refused = place.flowrun(&["cache", "show", key]);
        assert!(code(&refused) == 2 && stderr(&refused).contains(text), "{}", stderr(&refused));
    }
    let tried = place.flowrun(&["cache", "prune", "--older-than", "30d", "--dry-run"]);
    assert!(stdout(&tried).contains(&short(0)) && stderr(&tried).contains("1 entry would go"), "{}", stderr(&tried));
    let pruned = place.flowrun(&["cache", "prune", "--older-than", "30d", "--kind", "llm"]);
    assert!(stderr(&pruned).contains("1 entry forgotten, with 3 values of "), "{}", stderr(&pruned));
    let refused = place.flowrun(&["cache", "clear"]);
    assert!(code(&refused) == 2 && stderr(&refused).contains("`--yes`"), "{}", stderr(&refused));
    assert_eq!(store.size().unwrap().entries, 2);
    assert_eq!(code(&place.flowrun(&["cache", "clear", "--yes"])), 0);
    assert_eq!((store.size().unwrap().entries, store.size().unwrap().values), (0, 0));
}

#[test]
fn what_is_intact_of_a_damaged_database_is_still_there() {
    let place = Place::new();
    let store = kept(&place);
    assert!(stdout(&place.flowrun(&["runs", "check"])).contains("nothing is damaged: 0 runs"));
    ended(&store, "r1", 0, Status::Success);
    begin(&store, "r2", 0);
    for number in 0..3 {
        let event = format!(r#"{{"step":"step{number}","type":"ready","note":"{}"}}"#, "x".repeat(2_000));
        append(&store, transaction("r2", number, &[&event], &[]));
    }
    assert_eq!(code(&place.flowrun(&["runs", "check"])), 0);
    drop(store);
    let mut bytes = fs::read(database(&place)).unwrap();
    let at = bytes.windows(5).position(|window| window == b"step1").unwrap();
    bytes[at + 4] = b'7';
    fs::write(database(&place), bytes).unwrap();
    let tree = stdout(&place.flowrun(&["trace"]));
    assert!(tree.contains("step0") && !tree.contains("step1") && tree.contains("step2"), "{tree}");
    assert!(tree.contains("the log is damaged: run `r2`: what follows from event 1 is not what was written"), "{tree}");
    let exported = place.flowrun(&["export", "r2"]);
    assert_eq!((code(&exported), lines(&exported).len()), (1, 3));
    assert!(stderr(&exported).contains("missing: run `r2`"), "{}", stderr(&exported));
    assert_eq!(code(&place.flowrun(&["export", "r1", "--values"])), 0);
    let checked = place.flowrun(&["runs", "check"]);
    assert!(code(&checked) == 1 && stdout(&checked).contains("run `r2`"), "{}", stdout(&checked));
    assert!(stdout(&place.flowrun(&["runs"])).contains("  interrupted  "));
}

#[test]
fn what_is_no_database_is_said_and_nothing_is_left_beside_it() {
    let place = Place::new();
    place.write("text.db", "a shopping list");
    std::fs::create_dir(place.path().join("folder.db")).unwrap();
    let before = std::fs::read_dir(place.path()).unwrap().count();
    for (arguments, said, ends) in [
        (&["runs", "check", "--db", "text.db"][..], "nothing can be read of it", 1),
        (&["runs", "--db", "folder.db"], "it is no file", 2),
        (&["resume", "--db", "folder.db"], "it is no file", 2),
        (&["resume"], "there are no runs in `.flowrun/flowrun.db`", 2),
        (&["answer", "last", "a", "b"], "there are no runs in `.flowrun/flowrun.db`", 2),
        (&["replay", "last"], "there are no runs in `.flowrun/flowrun.db`", 2),
        (&["resume", "--db", "text.db"], "is damaged: ", 2),
    ] {
        let output = place.flowrun(arguments);
        let message = stderr(&output);
        assert!(code(&output) == ends && message.contains(said), "{arguments:?}: {} {message}", code(&output));
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), before);
}

#[test]
fn a_database_that_is_removed_under_a_run_is_missed() {
    let place = Place::new();
    place.write("r.yaml", "- {reply: fine, delay_ms: 400}\n");
    place.write("slow.yaml", "flowrun: 1\nnodes: {a: {prompt: a}}\noutput: a\n");
    let mut command = place.command(&["run", "slow.yaml", "--model", "scripted:r.yaml"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let database = database(&place);
    // The run is begun when its log has something.
    while SqliteStore::open_to_read(&database).is_ok_and(|store| store.runs().is_ok_and(|runs| runs.is_empty())) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    fs::remove_dir_all(database.parent().unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert!(code(&output) == 0 && said.contains("was removed while it went on"), "{} {said}", code(&output));
}
