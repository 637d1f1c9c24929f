//! Two processes and one run: only one drives it, and an answer that is given is neither lost nor given twice.

use std::thread;
use std::time::Duration;

use flowrun::engine::store::Store;
use serde_json::{Value, json};

use super::bench::{Bench, Case, kill, outcome, until};
use super::server::Server;
use crate::cli::{code, stderr, stdout};

fn asking() -> Case {
    Case::new(
        "flowrun: 1\nnodes:\n  draft: {prompt: letter}\n  ask: {kind: human, prompt: \"Send?\"}\n  other: {prompt: \"other {{ draft }}\"}\n\
         output: [ask, other]\n",
    )
}

impl Bench {
    fn has(&self, kind: &str) -> bool {
        self.log().is_some_and(|log| log.events.iter().any(|event| event.kind == kind))
    }
}

#[test]
fn a_run_that_is_driven_cannot_be_resumed() {
    let bench = Bench::new(&asking(), Server::holding(&[]));
    let child = bench.begin().spawn().unwrap();
    until("the call", || bench.server.held() == 1);
    let refused = bench.flowrun(&["resume", "last", "--json"]);
    let said = stderr(&refused);
    assert!(code(&refused) == 2 && said.contains("goes on in another process at this moment"), "{said}");
    assert_eq!(stdout(&refused), "");
    kill(child);
    bench.server.allow(10);
    let resumed = bench.flowrun(&["resume", "last", "--json", "--no-input"]);
    assert_eq!((code(&resumed), outcome(&resumed)), (5, json!({"status": "suspended", "output": null})));
}

#[test]
fn the_last_run_that_can_go_on_is_resumed() {
    let bench = Bench::new(&asking(), Server::open(&[]));
    let first = bench.begin().output().unwrap();
    assert_eq!(code(&first), 5, "{}", stderr(&first));
    bench.place.write("over.yaml", "flowrun: 1\nnodes: {a: {prompt: a}}\noutput: a\n");
    let second = bench.flowrun(&["run", "over.yaml"]);
    assert_eq!(code(&second), 0, "{}", stderr(&second));
    let resumed = bench.flowrun(&["resume", "--json", "--no-input"]);
    assert_eq!((code(&resumed), outcome(&resumed)), (5, json!({"status": "suspended", "output": null})));
    let run = |output| serde_json::from_str::<Value>(&stdout(output)).unwrap()["run"].clone();
    assert_eq!(run(&resumed), run(&first));
}

#[test]
fn an_answer_reaches_the_process_that_drives_the_run() {
    let bench = Bench::new(&asking(), Server::holding(&[]));
    bench.server.allow(1);
    let child = bench.begin().spawn().unwrap();
    until("the question and the other call", || bench.server.held() == 1 && bench.has("suspended"));
    let answered = bench.flowrun(&["answer", "last", "ask", "yes"]);
    let said = stdout(&answered);
    assert!(code(&answered) == 0 && said.contains("`ask` of the run ") && said.contains("has its answer"), "{said}");
    assert!(bench.has("answered"), "what was confirmed is kept");
    let again = bench.flowrun(&["answer", "last", "ask", "no"]);
    assert!(code(&again) == 2 && stderr(&again).contains("`ask` does not wait for an answer"), "{}", stderr(&again));
    bench.server.allow(1);
    let ended = child.wait_with_output().unwrap();
    assert_eq!((code(&ended), &outcome(&ended)["output"][0]), (0, &json!("yes")));
}

#[test]
fn of_two_answers_at_once_the_first_one_counts() {
    for _ in 0..6 {
        let bench = Bench::new(&asking(), Server::open(&[]));
        assert_eq!(code(&bench.begin().output().unwrap()), 5);
        let words = ["yes", "no"];
        let children =
            words.map(|word| bench.command(&["answer", "last", "ask", word, "--json", "--no-input"]).spawn().unwrap());
        let ended = children.map(|child| child.wait_with_output().unwrap());
        let taken = bench.outcome()["output"][0].clone();
        for (word, output) in words.into_iter().zip(ended) {
            let said = stderr(&output);
            if taken == word {
                assert_eq!(code(&output), 0, "{word} was taken: {said}");
            } else {
                assert!(
                    code(&output) == 2 && said.contains("`ask` does not wait for an answer"),
                    "{word} was not taken: {said}"
                );
            }
        }
        assert!(words.iter().any(|word| taken == *word), "{taken}");
    }
}

/// The driver goes to sleep as soon as there is nothing but the question, and the answer comes at that moment.
#[test]
fn an_answer_that_comes_as_the_driver_goes_to_sleep_is_not_lost() {
    for round in 0..20 {
        let bench = Bench::new(&asking(), Server::holding(&[]));
        bench.server.allow(1);
        let child = bench.begin().spawn().unwrap();
        until("the question and the other call", || bench.server.held() == 1 && bench.has("suspended"));
        let answer = bench.command(&["answer", "last", "ask", "yes", "--json", "--no-input"]).spawn().unwrap();
        thread::sleep(Duration::from_millis(round * 4));
        bench.server.allow(1);
        let (ended, answered) = (child.wait_with_output().unwrap(), answer.wait_with_output().unwrap());
        assert_eq!(code(&answered), 0, "round {round}: {}", stderr(&answered));
        assert!([0, 5].contains(&code(&ended)), "round {round}: {}", stderr(&ended));
        assert_eq!(bench.outcome()["output"][0], "yes", "round {round}");
        assert!(bench.server.calls().values().all(|calls| *calls == 1), "round {round}");
    }
}

/// What an answering process was told is so, whatever happens to the driver in the next moment.
#[test]
fn an_answer_that_was_confirmed_outlives_the_driver() {
    let bench = Bench::new(&asking(), Server::holding(&[]));
    bench.server.allow(1);
    let child = bench.begin().spawn().unwrap();
    until("the question and the other call", || bench.server.held() == 1 && bench.has("suspended"));
    let store = bench.store();
    let run = bench.log().unwrap().info.id;
    let letter = store.post(&run, "ask", &json!("yes")).unwrap();
    until("the verdict", || store.verdict(letter).unwrap().is_some());
    kill(child);
    assert!(bench.has("answered"));
    drop(store);
    bench.server.allow(10);
    assert_eq!(bench.conclude()["output"][0], "yes");
}
