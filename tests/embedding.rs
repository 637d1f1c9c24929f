//! The library from outside: a run held by its handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use flowrun::{
    Event, FieldFormat, Flowrun, Input, KindSpec, Node, NodeContext, NodeDef, NodeError, Outcome, Output, RunError,
    RunOptions, Status, Update, Workflow, WorkflowDef,
};
use serde_json::json;

/// The kind `wait`: never ends by itself, and notes when it is dropped.
#[derive(Clone, Default)]
struct Wait(Arc<AtomicBool>);

struct Note(Arc<AtomicBool>);

impl Drop for Note {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Node for Wait {
    fn spec(&self) -> KindSpec {
        KindSpec::leaf("wait").field("say", FieldFormat::Text, "what it says first")
    }

    async fn run(&self, context: &NodeContext, input: Input) -> Result<Output, NodeError> {
        let _note = Note(self.0.clone());
        context.tokens().send(input.fields["say"].as_str().unwrap_or_default());
        context.cancelled().cancelled().await;
        Ok(Output::default())
    }
}

fn waiting(wait: &Wait) -> (Flowrun, Arc<Workflow>) {
    let flowrun = Flowrun::builder().kind(wait.clone()).build();
    let definition = WorkflowDef::new("waiting")
        .node("known", NodeDef::new("set").field("value", "40 + 2"))
        .node("wait", NodeDef::new("wait").field("say", "here I am").needs("known"))
        .output("wait");
    let workflow = flowrun.check(definition).unwrap().workflow;
    (flowrun, workflow)
}

#[tokio::test]
async fn a_handle_gives_records_values_and_tokens() {
    let (flowrun, workflow) = waiting(&Wait::default());
    let mut run = flowrun.start(&workflow, json!({}), RunOptions::default()).unwrap();
    let (mut known, mut said, mut ends) = (None, String::new(), Vec::new());
    while let Some(update) = run.next().await {
        match update {
            Update::Tokens { path, text } => {
                assert_eq!(&*path, "wait");
                said.push_str(&text);
                run.cancel();
            }
            Update::Record(record) => match &record.event {
                Event::Ended { outcome: Outcome::Succeeded { value, .. }, .. } => known = run.value(*value).cloned(),
                Event::Ended { outcome, .. } => ends.push((record.path.to_string(), outcome.clone())),
                _ => {}
            },
        }
    }
    assert_eq!((known, said.as_str()), (Some(json!(42)), "here I am"));
    assert_eq!(ends, [("wait".to_owned(), Outcome::Cancelled), (String::new(), Outcome::Cancelled)]);
    let outcome = run.outcome().await;
    assert_eq!(outcome.status, Status::Cancelled);
    assert_eq!(outcome.into_output().unwrap_err().to_string(), "the run was cancelled");
}

#[tokio::test]
async fn the_outcome_is_there_without_reading_updates() {
    let (flowrun, workflow) = waiting(&Wait::default());
    let run = flowrun.start(&workflow, json!({}), RunOptions::default()).unwrap();
    run.cancel();
    assert_eq!(run.outcome().await.status, Status::Cancelled);
}

#[tokio::test]
async fn dropping_a_run_stops_its_work() {
    let wait = Wait::default();
    let (flowrun, workflow) = waiting(&wait);
    let mut run = flowrun.start(&workflow, json!({}), RunOptions::default()).unwrap();
    while !matches!(run.next().await.unwrap(), Update::Tokens { .. }) {}
    assert!(!wait.0.load(Ordering::SeqCst));
    drop(run);
    while !wait.0.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }

    let wait = Wait::default();
    let (flowrun, workflow) = waiting(&wait);
    let running = flowrun.run(&workflow, json!({}), RunOptions::default());
    tokio::select! {
        biased;
        outcome = running => panic!("it cannot end: {outcome:?}"),
        () = async { for _ in 0..100 { tokio::task::yield_now().await } } => {}
    }
    while !wait.0.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_run_that_cannot_begin_is_a_typed_error() {
    let (flowrun, workflow) = waiting(&Wait::default());
    let begin = |inputs| flowrun.start(&workflow, inputs, RunOptions::default()).err().unwrap();
    assert!(matches!(begin(json!({})), RunError::NoRuntime));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    assert!(matches!(begin(json!([1])), RunError::NoObject(_)));
    assert!(matches!(begin(json!({"x": 1})), RunError::Start(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_runs_go_on_at_once() {
    let flowrun = Flowrun::builder().build();
    let workflow = flowrun.parse("n", "{flowrun: 1, inputs: {n: integer}, nodes: {m: {calc: '{n} * 2'}}, output: m}");
    let workflow = workflow.unwrap();
    let start = |n| flowrun.start(&workflow, json!({"n": n}), RunOptions::default()).unwrap();
    let runs: Vec<_> = (0..500).map(start).collect();
    for (n, run) in runs.into_iter().enumerate() {
        assert_eq!(run.outcome().await.into_output().unwrap(), json!(2 * n));
    }
}
