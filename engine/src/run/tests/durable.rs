//! What is true at the moment between a transaction's being handed to the store and its being kept.
#![allow(clippy::disallowed_methods, reason = "runs go on beside the test")]

use super::*;
use crate::cache::Flights;
use crate::store::hooked::{Hook, Hooked};
use crate::store::{Done, Durability, Memory, RunInfo, Store, Transaction};

/// A store that may take its time over transactions.
#[derive(Clone, Default)]
struct Slow {
    kept: Memory,
    waiting: Arc<Mutex<Waiting>>,
}

/// Whether nothing is kept, and what waits.
type Waiting = (bool, Vec<(Transaction, Done)>);

impl Slow {
    /// From now on nothing is kept.
    fn stop(&self) {
        self.waiting.lock().unwrap().0 = true;
    }

    /// Keeps what waits, and from now on everything.
    fn go(&self) {
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap();
            waiting.0 = false;
            std::mem::take(&mut waiting.1)
        };
        waiting.into_iter().for_each(|(transaction, done)| self.kept.append(transaction, done));
    }

    fn recording(&self, id: &str) -> Recording {
        let (workflow, origin) = ("t".to_owned(), json!({}));
        let run = RunInfo { id: id.to_owned(), workflow, started_ms: 1, origin, summary: None };
        Recording { store: Arc::new(Hooked(self.clone())), run, durability: Durability::Normal, values: Vec::new() }
    }

    fn options(&self, id: &str) -> RunOptions {
        RunOptions { record: Some(self.recording(id)), ..RunOptions::default() }
    }

    fn logged(&self, id: &str, kind: &str) -> bool {
        self.kept.log(id, 0).unwrap().iter().any(|stored| stored.lines.contains(&format!("\"type\":\"{kind}\"")))
    }
}

impl Hook for Slow {
    fn store(&self) -> &dyn Store {
        &self.kept
    }

    fn append(&self, transaction: Transaction, done: Done) {
        let mut waiting = self.waiting.lock().unwrap();
        if waiting.0 {
            return waiting.1.push((transaction, done));
        }
        drop(waiting);
        self.kept.append(transaction, done);
    }
}

/// Lets everything go on that can, on paused time.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_wait_for_a_run_that_is_taken_up() {
    let store = Slow::default();
    let asking = workflow("nodes: {ask: {kind: human, prompt: Well?}}\noutput: ask");
    let outcome = run(&asking, Map::new(), &kinds(), store.options("r1")).await.unwrap();
    assert_eq!(outcome.status, Status::Suspended);
    let answers = Answers::default();
    let taken = answers.hand_in("ask", json!("yes"));
    answers.leave();
    store.stop();
    let options = RunOptions { answers: Some(answers), ..store.options("r1") };
    let going_on = tokio::spawn(resume(&asking, &kinds(), options).unwrap());
    a_while().await;
    store.go();
    assert_eq!(taken.await, Ok(()));
    assert_eq!(going_on.await.unwrap().output, Some(json!("yes")));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_confirmed_when_it_is_kept() {
    let store = Slow::default();
    let asking = workflow("nodes: {ask: {kind: human, prompt: Well?}, other: {act: sleep 9000}}\noutput: ask");
    let answers = Answers::default();
    let options = RunOptions { answers: Some(answers.clone()), ..store.options("r1") };
    let going_on = tokio::spawn(begin(&asking, Map::new(), &kinds(), options).unwrap());
    a_while().await;
    store.stop();
    let answered = tokio::spawn(answers.hand_in("ask", json!("yes")));
    a_while().await;
    assert!(!answered.is_finished() && !store.logged("r1", "answered"));
    store.go();
    assert_eq!(answered.await.unwrap(), Ok(()));
    assert!(store.logged("r1", "answered"), "while the rest of the run goes on");
    assert_eq!(going_on.await.unwrap().status, Status::Success);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_kept_yet_is_not_made_again() {
    let (store, flights) = (Slow::default(), Flights::default());
    let options = |id: &str| RunOptions { flights: flights.clone(), ..store.options(id) };
    let asking = workflow("nodes: {a: {act: sleep 10, cache: shared}}\noutput: a");
    let first = tokio::spawn(begin(&asking, Map::new(), &kinds(), options("r1")).unwrap());
    tokio::task::yield_now().await;
    store.stop();
    a_while().await;
    assert!(!first.is_finished() && !store.logged("r1", "settled"), "it has its answer, which is not kept");
    let second = tokio::spawn(begin(&asking, Map::new(), &kinds(), options("r2")).unwrap());
    a_while().await;
    store.go();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.usage.calls, second.usage.calls, second.reused.steps), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_beginning_is_not_kept_yet_may_be_stopped() {
    let store = Slow::default();
    let text = "nodes: {a: {act: sleep 20}, b: {act: sleep 9000, needs: [a]}, c: {act: sleep 30}, \
        d: {needs: [b, c], join: first, value: c}}\noutput: d";
    let going_on = tokio::spawn(begin(&workflow(text), Map::new(), &kinds(), store.options("r1")).unwrap());
    tokio::time::sleep(Duration::from_millis(10)).await;
    store.stop();
    // `b` is about to begin when `c` wins.
    a_while().await;
    store.go();
    let outcome = going_on.await.unwrap();
    assert_eq!((outcome.status, outcome.usage.calls), (Status::Success, 2), "nobody has asked for `b`: {outcome:?}");
}

/// The one that asks first fails; while it waits to ask again the other asks, for longer than that.
#[tokio::test(start_paused = true)]
async fn a_step_that_asks_again_waits_for_the_one_that_asks_in_its_place() {
    for scope in ["run", "shared"] {
        let text = format!(
            "nodes:\n  all: {{for_each: [1, 2], act: shaky 3000, cache: {scope}, retry: {{max: 2, backoff: 10ms}}}}\noutput: all"
        );
        let outcome = run(&workflow(&text), Map::new(), &kinds(), Slow::default().options("r1")).await.unwrap();
        assert_eq!((outcome.status, outcome.usage.calls, outcome.reused.steps), (Status::Success, 2, 1), "{scope}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_while_a_step_waited_for_its_turn_is_found() {
    let (store, flights) = (Slow::default(), Flights::default());
    let options = |id: &str| RunOptions { flights: flights.clone(), max_parallel: 1, ..store.options(id) };
    let waiting = workflow("nodes: {first: {act: sleep 500}, a: {act: sleep 10, cache: shared}}\noutput: [first, a]");
    let waiting = tokio::spawn(begin(&waiting, Map::new(), &kinds(), options("r1")).unwrap());
    a_while().await;
    let quick = workflow("nodes: {a: {act: sleep 10, cache: shared}}\noutput: a");
    let quick = run(&quick, Map::new(), &kinds(), options("r2")).await.unwrap();
    assert!(!waiting.is_finished());
    let waiting = waiting.await.unwrap();
    assert_eq!((quick.usage.calls, waiting.usage.calls, waiting.reused.steps), (1, 1, 1));
}

#[tokio::test]
async fn steps_that_end_at_once_do_not_hold_up_the_others() {
    let store = Slow::default();
    let text =
        "nodes: {slow: {act: sleep 1}, quick: {for_each: 'range(3000) | list', act: '{{ item }}'}}\noutput: slow";
    let outcome = run(&workflow(text), Map::new(), &kinds(), store.options("r1")).await.unwrap();
    assert_eq!(outcome.output, Some(json!("slept")));
    let log: Vec<String> = store.kept.log("r1", 0).unwrap().into_iter().map(|stored| stored.lines).collect();
    let settled = |step: &str| {
        let wanted = format!("\"step\":\"{step}\"");
        log.iter().position(|lines| lines.contains("\"type\":\"settled\"") && lines.contains(&wanted)).unwrap()
    };
    assert!(settled("slow") < settled("quick[2999]"), "{} of {}", settled("slow"), log.len());
}
