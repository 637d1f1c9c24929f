//! A process that is killed between any two events, twice in a row: the run goes on to the same end, and nothing is paid twice.
//!
//! Each workflow is tried twice over. First the command itself: the server answers one call after the other, as it is told; when as
//! many as wanted are answered and the log stands still, every transaction that can be kept is, and the process is killed. Then a
//! process that embeds the library and kills itself before each of its transactions, and after each: see `mortal`.

use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};

use super::bench::{Bench, Case, Open, Watched, kill, undisturbed};
use super::mortal::Side;
use super::server::{Calls, Server};
use crate::cli::{stderr, stdout};

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
    for side in [Side::Before, Side::After] {
        let transactions = (1..).take_while(|last| survives_at(case, *last, side, &expected, &calls)).count() as u64;
        assert!(transactions > all, "only {transactions} transactions for {all} calls");
    }
}

/// Whether the process came as far as that transaction, and then ended there. The next one ends a few transactions later, on the
/// other side.
fn survives_at(case: &Case, last: u64, side: Side, expected: &Value, undisturbed: &Calls) -> bool {
    let what = format!("ended {side:?} transaction {last}");
    let bench = Bench::new(case, Server::open(&case.script));
    let mut open = Open::new();
    let other = if side == Side::Before { Side::After } else { Side::Before };
    for (process, (last, side)) in [(last, side), (1 + last % 4, other)].into_iter().enumerate() {
        if bench.go_on().is_none() {
            break;
        }
        let ended = bench.spawn_mortal(last, side).wait_with_output().unwrap();
        if ended.status.code() == Some(0) {
            if process == 0 {
                return false;
            }
            break;
        }
        assert_eq!(ended.status.signal(), Some(9), "{what}: {}{}", stdout(&ended), stderr(&ended));
        bench.add_open(&mut open, &what);
    }
    assert_eq!(bench.conclude(), *expected, "{what}");
    assert_eq!(bench.outcome(), *expected, "{what}");
    bench.assert_paid_once(undisturbed, &bench.prompts_of(&open), &what);
    true
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

#[test]
fn calls_of_itself_and_nested_loops_go_on() {
    let case = Case {
        inputs: vec!["parts=[\"a\", \"b\", \"c\"]"],
        ..Case::new(
            "flowrun: 1\ninputs: {parts: \"[string] = []\"}\nnodes:\n  \
             whole: {when: \"parts | length <= 1\", prompt: \"solve {{ parts }}\"}\n  \
             halves:\n    when: parts | length > 1\n    for_each: ['parts[:1]', 'parts[1:]']\n    sequential: true\n    \
             workflow: w.yaml\n    with: {parts: item}\n    max_depth: 4\n  \
             rounds:\n    when: parts | length > 1\n    repeat: {max: 2}\n    nodes:\n      \
             draft: {prompt: \"draft {{ halves }} {{ last.better | default('-') }}\"}\n      \
             better: {repeat: {max: 2}, prompt: \"better {{ draft }} {{ last.better | default('-') }}\"}\n    output: better\n  \
             answer: {needs: [whole, rounds], join: any, value: whole | default(rounds)}\noutput: answer\n",
        )
    };
    survives(&case, "success");
}

#[test]
fn a_quorum_and_a_deadline_go_on() {
    let case = Case::new(
        "flowrun: 1\nnodes:\n  votes: {for_each: '[1, 2, 3, 4]', prompt: \"vote {{ item }} [say yes]\", max_parallel: 2, quorum: 2}\n  \
         asked: {kind: human, prompt: \"Really {{ votes }}?\", schema: boolean, timeout: 300ms, default: false}\n  \
         end: {prompt: \"end {{ asked }}\"}\noutput: [asked, end]\n",
    );
    survives(&case, "success");
}
