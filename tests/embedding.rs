//! The library from outside: a run held by its handle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use flowrun::{
    Event, FieldFormat, Flowrun, Input, KindSpec, LoadError, Node, NodeContext, NodeDef, NodeError, Outcome, Output,
    RunError, RunOptions, Scripted, Status, StepError, Tool, ToolSpec, Update, Workflow, WorkflowDef, tool_fn,
};
use serde_json::{Map, Value, json};

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
            Update::Asked(question) => panic!("nobody is there to be asked: {question:?}"),
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

/// A tool with a state of its own: what was bought so far.
#[derive(Clone, Default)]
struct Shop(Arc<Mutex<Vec<String>>>);

#[async_trait]
impl Tool for Shop {
    fn spec(&self) -> ToolSpec {
        ToolSpec::new("buys a thing").input("{thing: string}".parse().unwrap())
    }

    async fn call(&self, context: &NodeContext, arguments: Map<String, Value>) -> Result<Value, StepError> {
        let thing = arguments["thing"].as_str().unwrap_or_default();
        if thing == "moon" {
            return Err(StepError::terminal("not_for_sale", "nobody sells the moon"));
        }
        self.0.lock().unwrap().push(format!("{thing} for {}", context.path));
        Ok(json!({"bought": thing}))
    }
}

fn shopping(shop: &Shop, chosen: &str) -> Flowrun {
    let price = tool_fn(ToolSpec::new("says a price").without_effect(), |arguments: Map<String, Value>| async move {
        Ok(json!(arguments["thing"].as_str().unwrap_or_default().len()))
    });
    let model = Scripted::parse("replies", &format!("- {{reply: {chosen}}}")).unwrap();
    Flowrun::builder().model("default", model).tool("buy", shop.clone()).tool("price", price).build()
}

const SHOPPING: &str = "
flowrun: 1
inputs: {things: '[string]'}
nodes:
  prices: {tool: price, for_each: things, with: {thing: item}}
  wish: {prompt: What is to be done?, needs: [prices]}
  act:
    tool: [buy, price]
    choose: wish
    with: {thing: things | first}
    on_error: {value: \"'nothing'\"}
output: {prices: prices, act: act}
";

#[tokio::test]
async fn a_model_chooses_among_the_tools_of_a_program() {
    let run = async |chosen: &str, things: Value| {
        let shop = Shop::default();
        let flowrun = shopping(&shop, chosen);
        let workflow = flowrun.parse("shopping.yaml", SHOPPING).unwrap();
        let outcome = flowrun.run(&workflow, json!({"things": things}), RunOptions::default()).await.unwrap();
        let bought = shop.0.lock().unwrap().join(", ");
        (outcome.into_output().unwrap(), bought)
    };
    let (output, bought) = run("buy", json!(["tea", "salt"])).await;
    assert_eq!((output, bought.as_str()), (json!({"prices": [3, 4], "act": {"bought": "tea"}}), "tea for act"));
    let (output, bought) = run("price", json!(["tea"])).await;
    assert_eq!((output, bought.as_str()), (json!({"prices": [3], "act": 3}), ""));
    // What no tool of the list is called, and what a tool refuses, are errors of the step.
    let (output, bought) = run("steal", json!(["tea"])).await;
    assert_eq!((output, bought.as_str()), (json!({"prices": [3], "act": "nothing"}), ""));
    assert_eq!(run("buy", json!(["moon"])).await.0["act"], json!("nothing"));
}

#[test]
fn a_tool_that_is_not_registered_is_refused_before_a_run() {
    let flowrun = shopping(&Shop::default(), "buy");
    let text = SHOPPING.replace("tool: price", "tool: pirce");
    let Err(LoadError::Refused { diagnostics, .. }) = flowrun.parse("shopping.yaml", &text) else { panic!("accepted") };
    let [problem] = diagnostics.as_slice() else { panic!("{diagnostics:?}") };
    assert_eq!(
        problem.to_string(),
        "shopping.yaml:5:18: error[FR012]: no tool is called `pirce`\n  help: did you mean `price`?\n  help: `tool` may be buy, price"
    );
    let definition = WorkflowDef::new("built").node("a", NodeDef::new("tool").field("tool", "sell")).output("a");
    assert!(matches!(flowrun.check(definition), Err(LoadError::Refused { .. })));
}
