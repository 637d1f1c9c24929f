//! The library from outside: a run held by its handle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use flowrun::engine::store::{Durability, Memory, Store};
use flowrun::{
    AnswerError, Answers, Event, FieldFormat, Flowrun, Input, KindSpec, LoadError, Node, NodeContext, NodeDef,
    NodeError, Outcome, Output, RunError, RunOptions, Scripted, Status, StepError, Tool, ToolSpec, Update, Workflow,
    WorkflowDef, tool_fn,
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
            Update::Asked(question) => panic!("nobody is asked here: {question:?}"),
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

const PEOPLE: &str = "
flowrun: 1
nodes:
  one: {kind: human, prompt: \"'One' is a text.\", schema: integer}
  two: {kind: human, prompt: Anything?}
  known: {calc: 40 + 2}
  all: {value: [one, two, known]}
output: all
";

#[tokio::test]
async fn people_answer_through_the_handle() {
    let flowrun = Flowrun::builder().build();
    let workflow = flowrun.parse("people.yaml", PEOPLE).unwrap();
    let answers = Answers::default();
    let options = RunOptions { answers: Some(answers.clone()), ..RunOptions::default() };
    let mut run = flowrun.start(&workflow, json!({}), options).unwrap();
    let (mut asked, mut ended) = (Vec::new(), Vec::new());
    while let Some(update) = run.next().await {
        match update {
            Update::Asked(question) => {
                asked.push((question.path.to_string(), question.prompt.clone(), question.schema.is_some()));
                let bad = run.answer(&question.path, json!("text")).await;
                if &*question.path == "one" {
                    assert!(
                        matches!(&bad, Err(AnswerError::BadAnswer(reason)) if reason.contains("integer")),
                        "{bad:?}"
                    );
                    run.answer("one", json!(1)).await.unwrap();
                }
                let again = run.answer(&question.path, json!(2)).await;
                assert_eq!(again, Err(AnswerError::NotAsked(question.path.to_string())), "the first one wins");
            }
            Update::Record(record) if matches!(record.event, Event::Ended { .. }) => {
                ended.push(record.path.to_string())
            }
            _ => {}
        }
    }
    let prompts = [("one", "'One' is a text.", true), ("two", "Anything?", false)];
    assert_eq!(asked, prompts.map(|(path, prompt, schema)| (path.to_owned(), prompt.to_owned(), schema)));
    assert_eq!(ended.first().map(String::as_str), Some("known"), "the rest of the run goes on");
    assert_eq!(run.outcome().await.into_output().unwrap(), json!([1, "text", 42]));
    let late = answers.answer("one", json!(1)).await;
    assert_eq!(late, Err(AnswerError::NotAsked("one".to_owned())), "the run is over");
}

#[tokio::test]
async fn a_run_that_nobody_answers_ends_as_suspended() {
    let flowrun = Flowrun::builder().build();
    let workflow = flowrun.parse("people.yaml", PEOPLE).unwrap();
    let outcome = flowrun.run(&workflow, json!({}), RunOptions::default()).await.unwrap();
    assert_eq!((outcome.status, &outcome.asked), (Status::Suspended, &vec!["one".to_owned(), "two".to_owned()]));
    let run = flowrun.start(&workflow, json!({}), RunOptions::default()).unwrap();
    assert_eq!(run.answer("one", json!(1)).await, Err(AnswerError::NoAnswers));
    // Somebody was there, and has left.
    let options = RunOptions { answers: Some(Answers::default()), ..RunOptions::default() };
    let run = flowrun.start(&workflow, json!({}), options).unwrap();
    run.answer("two", json!("yes")).await.unwrap();
    run.leave();
    let outcome = run.outcome().await;
    assert_eq!((outcome.status, outcome.asked), (Status::Suspended, vec!["one".to_owned()]));
}

/// Says on whose behalf it is asked.
struct Who;

#[async_trait]
impl Tool for Who {
    fn spec(&self) -> ToolSpec {
        ToolSpec::new("says who asks")
    }

    async fn call(&self, context: &NodeContext, _: Map<String, Value>) -> Result<Value, StepError> {
        Ok(json!([context.run_id(), &*context.path]))
    }
}

#[tokio::test]
async fn a_tool_knows_for_which_run_it_is_asked() {
    let text = "flowrun: 1\nnodes: {a: {tool: who}}\noutput: a\n";
    let store = Arc::new(Memory::default());
    let recorded = Flowrun::builder().tool("who", Who).store(store.clone(), Durability::Normal).build();
    let unrecorded = Flowrun::builder().tool("who", Who).build();
    let mut said = Vec::new();
    for flowrun in [recorded, unrecorded] {
        let workflow = flowrun.parse("w.yaml", text).unwrap();
        let outcome = flowrun.run(&workflow, json!({}), RunOptions::default()).await.unwrap();
        said.push(outcome.into_output().unwrap());
    }
    assert_eq!(said, [json!([store.runs().unwrap()[0].id, "a"]), json!(["", "a"])]);
}
