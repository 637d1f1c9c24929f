//! A process that is killed between any two transactions, twice in a row: the run goes on to the same end, and nothing is paid twice.
//!
//! The server answers one call after the other, as it is told. When as many as wanted are answered and the log stands still, every
//! transaction that can be kept is, and the process is killed.

use serde_json::{Value, json};

use super::bench::{Bench, Case, Open, Watched, kill, undisturbed};
use super::server::{Calls, Server};

/// Kills the process after each number of answers, and the one that goes on after as many `more`.
fn survives(case: &Case, status: &str) {
    let (expected, calls) = undisturbed(case);
    assert_eq!(expected["status"], json!(status), "{expected}");
    let all: u64 = calls.values().sum();
    assert!(all >= 3, "{calls:?}");
    let mut kills = 0;
    for answers in 0..all as usize {
        kills += survives_after(case, answers, answers % 3, &expected, &calls);
    }
    assert!(kills > all, "only {kills} of the processes lived until they were killed");
}

fn survives_after(case: &Case, answers: usize, more: usize, expected: &Value, undisturbed: &Calls) -> u64 {
    let what = format!("killed after {answers} answers, then after {more} more");
    let bench = Bench::new(case, Server::holding(&case.script));
    let (mut open, mut kills) = (Open::new(), 0);
    for allowed in [answers, more] {
        bench.server.allow(allowed);
        // A process may end by itself, waiting for people: the next one goes on.
        while let Some(mut command) = bench.go_on() {
            if let Watched::Still(child) = bench.watch(command.spawn().unwrap()) {
                kill(child);
                kills += 1;
                bench.add_open(&mut open, &what);
                break;
            }
        }
    }
    bench.server.allow(1 << 20);
    assert_eq!(bench.conclude(), *expected, "{what}");
    assert_eq!(bench.outcome(), *expected, "{what}");
    bench.assert_paid_once(undisturbed, &bench.prompts_of(&open), &what);
    kills
}

#[test]
fn a_chain_goes_on() {
    let case = Case::new(
        "flowrun: 1\nnodes:\n  a: {prompt: one}\n  b: {prompt: \"two {{ a }}\"}\n  c: {prompt: \"three {{ b }}\"}\n  \
         d: {prompt: \"four {{ a }} {{ c }}\"}\noutput: [a, b, c, d]\n",
    );
    survives(&case, "success");
}

#[test]
fn a_map_with_failures_and_retries_goes_on() {
    let case = Case::new(
        "flowrun: 1\nnodes:\n  parts:\n    for_each: '[\"a\", \"b [fail 1]\", \"c [status 400]\", \"d [fail 9]\"]'\n    \
         prompt: \"part {{ item }}\"\n    retry: {max: 2, backoff: 60ms}\n    on_item_error: skip\n  \
         all: {prompt: \"all {{ parts }}\"}\noutput: [parts, all]\n",
    );
    survives(&case, "success");
}

#[test]
fn a_loop_with_samples_goes_on() {
    let case = Case::new(
        "flowrun: 1\nnodes:\n  draft: {prompt: \"draft {{ last.judge | default('x') }}\", samples: 2, params: {temperature: 1}}\n  \
         judge: {prompt: \"judge {{ draft }}\", next: [{to: draft, max: 1}, {to: done}]}\n  done: {prompt: \"done {{ draft }}\"}\n\
         output: [done, draft]\n",
    );
    survives(&case, "success");
}

#[test]
fn a_plan_and_what_it_became_go_on() {
    let plan = json!({"steps": [
        {"id": "eggs", "ask": "How many eggs are there?", "type": "number"},
        {"id": "broken", "ask": "How many are broken?", "type": "number"},
        {"id": "left", "ask": "{eggs} - {broken}", "type": "calc"},
    ]});
    let script = vec![
        ("Q: ", "43 are left".to_owned()),
        ("How many eggs", "48".to_owned()),
        ("How many are broken", "5 eggs".to_owned()),
        ("What is left", plan.to_string()),
    ];
    let inputs = vec!["question=What is left?"];
    let case = Case { script, inputs, ..Case::new("@question-graph") };
    survives(&case, "success");
}

#[test]
fn a_run_that_asks_people_goes_on() {
    let case = Case {
        answers: vec![("ask", "true"), ("why", "because")],
        ..Case::new(
            "flowrun: 1\nnodes:\n  draft: {prompt: letter}\n  other: {prompt: other}\n  \
             ask: {kind: human, prompt: \"Send {{ draft }}?\", schema: boolean}\n  \
             sent: {prompt: \"sent {{ ask }}\"}\n  why: {kind: human, prompt: \"Why {{ sent }}?\"}\n  \
             end: {prompt: \"end {{ why }}\"}\noutput: [sent, other, end]\n",
        )
    };
    survives(&case, "success");
}

#[test]
fn a_race_goes_on() {
    let case = Case::new(
        "flowrun: 1\nnodes:\n  quick: {prompt: \"quick [say same]\", on_error: skip}\n  \
         careful: {prompt: \"careful [say same]\", on_error: skip}\n  broken: {prompt: \"broken [status 400]\", on_error: skip}\n  \
         answer: {needs: [quick, careful, broken], join: first, value: \"quick | default(careful) | default(broken)\"}\n  \
         end: {prompt: \"after {{ answer }}\"}\n  more: {prompt: \"more {{ end }}\"}\noutput: more\n",
    );
    survives(&case, "success");
}

#[test]
fn a_run_that_fails_fails_the_same_way() {
    let case = Case::new(
        "flowrun: 1\nnodes:\n  a: {prompt: one}\n  b: {prompt: \"two {{ a }}\"}\n  \
         c: {prompt: \"three {{ b }} [fail 9]\", retry: {max: 1, backoff: 1ms}}\noutput: [b, c]\n",
    );
    survives(&case, "failed");
}
