//! Replays with one thing changed: the steps that run are those whose keys changed, and no others.

use std::collections::BTreeSet;

use flowrun::runs::RunLog;
use serde_json::json;

use super::bench::{Bench, Case, outcome};
use super::server::Server;
use crate::cli::{code, stderr, stdout};

/// The keys of answers.
fn keys(log: &RunLog) -> BTreeSet<&str> {
    log.events.iter().filter_map(|event| event.text("key")).collect()
}

/// Replays the run of a case with a change and checks that what is said to run does, because its key is new; gives what came of it.
fn replayed(case: &Case, change: &[&str], expected: &[&str]) -> (Bench, serde_json::Value) {
    let bench = Bench::new(case, Server::open(&case.script));
    let first = bench.begin().output().unwrap();
    assert_eq!(code(&first), 0, "{}", stderr(&first));
    let old = bench.log().unwrap();
    let calls_before: u64 = bench.server.calls().values().sum();
    let replay = bench.flowrun(&[&["replay", "last"], change, &bench.words[..]].concat());
    assert_eq!(code(&replay), 0, "{}", stderr(&replay));
    let new = bench.log().unwrap();
    assert_ne!(old.info.id, new.info.id);
    let (old_keys, mut changed, mut ran) = (keys(&old), BTreeSet::new(), BTreeSet::new());
    for event in &new.events {
        if event.text("key").is_some_and(|key| !old_keys.contains(key)) {
            changed.insert(event.step.as_str());
        }
        if event.kind == "started" {
            ran.insert(event.step.as_str());
        }
    }
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    assert_eq!((&ran, &changed), (&expected, &expected), "{change:?}");
    let calls_after: u64 = bench.server.calls().values().sum();
    assert_eq!(calls_after - calls_before, expected.len() as u64, "one call for each step that ran");
    let outcome = outcome(&replay);
    (bench, outcome)
}

fn chain() -> Case {
    Case::new(
        "flowrun: 1\nnodes:\n  a: {prompt: \"one {{ 1 }}\"}\n  b: {prompt: \"two {{ a }} [say two]\"}\n  c: {prompt: \"three {{ b }}\"}\n  \
         d: {prompt: \"four {{ a }} {{ c }}\"}\n  e: {prompt: \"five {{ a }}\"}\noutput: [b, d, e]\n",
    )
}

#[test]
fn what_follows_from_a_changed_prompt_runs_again() {
    replayed(&chain(), &[], &[]);
    replayed(&chain(), &["--set", "c.prompt=drei {{ b }}"], &["c", "d"]);
    replayed(&chain(), &["--set", "b.prompt=zwei {{ a }} [say zwei]"], &["b", "c", "d"]);
    replayed(&chain(), &["--set", "a.prompt=eins {{ 1 }}"], &["a", "b", "d", "e"]);
    replayed(&chain(), &["--set", "e.params.temperature=0.5"], &["e"]);
}

#[test]
fn a_changed_prompt_that_gives_the_same_runs_alone() {
    let (_, outcome) = replayed(&chain(), &["--set", "b.prompt=zwei {{ a }} [say two]"], &["b"]);
    assert_eq!(outcome["output"][0], "two");
}

#[test]
fn only_the_items_of_a_map_that_changed_run() {
    let case = Case {
        inputs: vec!["words=[\"x\",\"y\",\"z\"]"],
        ..Case::new(
            "flowrun: 1\ninputs: {words: [string]}\nnodes:\n  parts: {for_each: words, prompt: \"part {{ item }}\"}\n  \
             all: {prompt: \"all {{ parts }}\"}\noutput: all\n",
        )
    };
    replayed(&case, &["--input", "words=[\"x\",\"new\",\"z\"]"], &["all", "parts[1]"]);
    replayed(&case, &["--input", "words=[\"z\",\"x\"]"], &["all"]);
    replayed(&case, &["--set", "parts.prompt=teil {{ item }}"], &["all", "parts[0]", "parts[1]", "parts[2]"]);
}

#[test]
fn of_a_loop_what_comes_after_the_change_runs() {
    let case = Case::new(
        "flowrun: 1\nnodes:\n  draft: {prompt: \"draft {{ last.judge | default('x') }}\"}\n  \
         judge: {prompt: \"judge {{ draft }}\", next: [{to: draft, max: 1}, {to: done}]}\n  done: {prompt: \"done {{ draft }}\"}\noutput: done\n",
    );
    replayed(&case, &["--set", "judge.prompt=richte {{ draft }}"], &["judge#0", "draft#1", "judge#1", "done"]);
    replayed(&case, &["--set", "done.prompt=fertig {{ draft }}"], &["done"]);
}

#[test]
fn a_correction_runs_what_follows_from_it() {
    let (bench, outcome) = replayed(&chain(), &["--correct", "b=other"], &["c", "d"]);
    assert_eq!(outcome, json!({"status": "success", "output": bench.outcome()["output"]}));
    assert_eq!(outcome["output"][0], "other");
}

#[test]
fn a_run_does_not_go_on_as_another_workflow() {
    let inner = "flowrun: 1\nnodes:\n  b: {prompt: inside}\noutput: b\n";
    let case = Case::new(
        "flowrun: 1\nnodes:\n  a: {prompt: outside}\n  ask: {kind: human, prompt: \"{{ a }}?\"}\n  \
         b: {workflow: inner.yaml, needs: [ask]}\noutput: [ask, b]\n",
    );
    let bench = Bench::new(&case, Server::open(&[]));
    bench.place.write("inner.yaml", inner);
    let begun = bench.begin().output().unwrap();
    assert_eq!(code(&begun), 5, "{}", stderr(&begun));
    for (file, text, word) in [("inner.yaml", inner, "inside"), ("w.yaml", &*case.workflow, "outside")] {
        bench.place.write(file, &text.replace(word, "elsewhere"));
        let refused = bench.flowrun(&["answer", "last", "ask", "well"]);
        let said = stderr(&refused);
        assert_eq!((code(&refused), &*stdout(&refused)), (2, ""), "{said}");
        for part in [
            &*format!("`{file}` has changed since the run "),
            &*format!("prompt: {word}\n"),
            "prompt: elsewhere\n",
            "help: `flowrun replay ",
            "--file w.yaml",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(said.matches("has changed").count(), 1, "{said}");
        bench.place.write(file, text);
    }
    let resumed = bench.flowrun(&["resume", "last", "--json", "--no-input"]);
    assert_eq!((code(&resumed), &outcome(&resumed)["output"][0]), (0, &json!("well")), "{}", stderr(&resumed));
}

#[test]
fn a_replay_calls_what_was_called_then() {
    let case = Case::new(
        "flowrun: 1\nnodes:\n  a: {workflow: ./inner.yaml}\n  ask: {kind: human, prompt: \"{{ a }}?\"}\noutput: [a, ask]\n",
    );
    let bench = Bench::new(&case, Server::open(&[]));
    bench.place.write("inner.yaml", "flowrun: 1\nnodes:\n  b: {prompt: inside}\noutput: b\n");
    let begun = bench.begin().output().unwrap();
    assert_eq!(code(&begun), 5, "{}", stderr(&begun));
    std::fs::remove_file(bench.place.path().join("inner.yaml")).unwrap();
    let answered = bench.flowrun(&["answer", "last", "ask", "well"]);
    assert_eq!(code(&answered), 0, "what is not there any more is as it was: {}", stderr(&answered));
    bench.place.write("inner.yaml", "flowrun: 1\nnodes:\n  b: {prompt: elsewhere}\noutput: b\n");
    let replayed = bench.flowrun(&["replay", "last", "--json", "--quiet", "--correct", "ask=so"]);
    assert_eq!((code(&replayed), &outcome(&replayed)["output"][1]), (0, &json!("so")), "{}", stderr(&replayed));
    let changed = bench.flowrun(&["replay", "last", "--file", "w.yaml", "--json", "--quiet", "--correct", "ask=so"]);
    assert_eq!(code(&changed), 0, "{}", stderr(&changed));
    let calls = bench.server.calls();
    assert_eq!((calls.get("inside"), calls.get("elsewhere")), (Some(&1), Some(&1)), "{calls:?}");
}

#[test]
fn a_replay_of_another_file_goes_on_as_that_file() {
    let case = Case::new("flowrun: 1\nnodes:\n  a: {prompt: here}\noutput: a\n");
    let bench = Bench::new(&case, Server::open(&[]));
    assert_eq!(code(&bench.begin().output().unwrap()), 0);
    std::fs::create_dir(bench.place.path().join("other")).unwrap();
    bench.place.write("other/inner.yaml", "flowrun: 1\nnodes:\n  b: {prompt: inside}\noutput: b\n");
    bench.place.write(
        "other/new.yaml",
        "flowrun: 1\nnodes:\n  ask: {kind: human, prompt: \"Well?\"}\n  a: {workflow: inner.yaml, needs: [ask]}\noutput: [ask, a]\n",
    );
    let replayed = bench.flowrun(&["replay", "last", "--file", "other/new.yaml", "--no-input"]);
    assert_eq!(code(&replayed), 5, "{}", stderr(&replayed));
    let answered = bench.flowrun(&["answer", "last", "ask", "well", "--json", "--quiet"]);
    assert_eq!((code(&answered), &outcome(&answered)["output"][0]), (0, &json!("well")), "{}", stderr(&answered));
}

#[test]
fn a_run_is_kept_as_long_as_a_replay_needs_it() {
    let case = Case::new(
        "flowrun: 1\nnodes:\n  a: {prompt: first, cache: run}\n  b: {prompt: \"then {{ a }}\", cache: run}\noutput: b\n",
    );
    let mut held = case.clone();
    held.workflow = held
        .workflow
        .replace("\"then", "\"{{ ask }} then")
        .replace("  b:", "  ask: {kind: human, prompt: \"Well?\"}\n  b:");
    let bench = Bench::new(&case, Server::open(&[]));
    assert_eq!(code(&bench.begin().output().unwrap()), 0);
    let first = bench.log().unwrap().info.id;
    bench.place.write("held.yaml", &held.workflow);
    let replay = bench.flowrun(&["replay", "last", "--file", "held.yaml", "--no-input"]);
    assert_eq!(code(&replay), 5, "{}", stderr(&replay));
    let refused = bench.flowrun(&["runs", "prune", &first]);
    assert!(
        code(&refused) == 2 && stderr(&refused).contains("and is not over; `flowrun resume "),
        "{}",
        stderr(&refused)
    );
    let other = bench.flowrun(&["replay", &first, "--file", "held.yaml", "--no-input"]);
    assert_eq!(code(&other), 5, "{}", stderr(&other));
    let one_of_two = bench.flowrun(&["runs", "prune", &first, "last"]);
    assert_eq!(code(&one_of_two), 2, "the other replay needs it too: {}", stderr(&one_of_two));
    assert_eq!(code(&bench.flowrun(&["runs", "prune", "last"])), 0);
    let none = bench.flowrun(&["runs", "prune", "--keep", "0"]);
    assert!(code(&none) == 0 && stderr(&none).contains("no run is meant"), "{}", stderr(&none));
    let answered = bench.flowrun(&["answer", "last", "ask", "so", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout(&answered)).unwrap();
    assert_eq!((code(&answered), &report["replay"]["of"]), (0, &json!(first)), "{report}");
    assert!(stderr(&answered).contains(&format!("replayed {first}: ")), "{}", stderr(&answered));
    assert_eq!(bench.server.calls().get("first"), Some(&1));
    assert_eq!(code(&bench.flowrun(&["runs", "prune", &first])), 0);
}
