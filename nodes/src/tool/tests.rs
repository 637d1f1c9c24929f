//! Tools in whole runs: what they are given, which one is called, what is refused before and during a run.

use std::sync::atomic::{AtomicU32, Ordering};

use flowrun_engine::check::{NoLibrary, check_text};
use flowrun_engine::diagnostic::Diagnostic;
use flowrun_engine::event::Status;
use flowrun_engine::failure::ErrorClass;
use flowrun_engine::node::Kinds;
use flowrun_engine::run::{RunOptions, RunOutcome, run};

use super::*;
use crate::model::{Models, Scripted};
use crate::register;

fn kinds() -> Kinds {
    let mut tools = Tools::default();
    let input = "{a: number, b?: number}".parse().unwrap();
    let sum = |with: Map<String, Value>| async move {
        let number = |name: &str| with.get(name).and_then(Value::as_f64).unwrap_or_default();
        Ok(json!(number("a") + number("b")))
    };
    tools.register("sum", tool_fn(ToolSpec::new("adds").input(input).without_effect(), sum));
    tools.register("echo", tool_fn("gives back", |with| async move { Ok(Value::Object(with)) }));
    let calls = AtomicU32::new(0);
    let flaky = move |_| {
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        async move { if first { Err(StepError::new("down", ErrorClass::Server, "not yet")) } else { Ok(json!("up")) } }
    };
    tools.register("flaky", tool_fn("fails at its first call", flaky));
    tools.register("slip", tool_fn("panics", |_| async { panic!("slipped") }));
    let mut kinds = Kinds::new();
    kinds.register(tools);
    kinds
}

fn said(node: &str) -> Vec<Diagnostic> {
    let text = format!("flowrun: 1\nnodes:\n  word: {{value: \"'sum'\"}}\n  a: {node}\noutput: [a, word]\n");
    match check_text("t.yaml", &text, kinds().specs(), &NoLibrary) {
        Ok((checked, _)) => checked.warnings,
        Err(refused) => refused.diagnostics,
    }
}

async fn outcome(node: &str) -> RunOutcome {
    let text = format!("flowrun: 1\nnodes:\n  word: {{value: \"'sum'\"}}\n  a: {node}\noutput: {{a: a, word: word}}\n");
    let checked = check_text("t.yaml", &text, kinds().specs(), &NoLibrary);
    let workflow = checked.unwrap_or_else(|refused| panic!("{:#?}", refused.diagnostics)).0.workflow;
    run(&workflow, Map::new(), &kinds(), RunOptions::default()).await.unwrap()
}

async fn value(node: &str) -> Value {
    let outcome = outcome(node).await;
    assert_eq!(outcome.status, Status::Success, "{outcome:?}");
    outcome.output.unwrap()["a"].clone()
}

async fn error(node: &str) -> (String, String) {
    let error = outcome(node).await.error.unwrap();
    (error.code.clone(), error.message.clone())
}

#[tokio::test]
async fn tools_are_called_with_values() {
    assert_eq!(value("{tool: sum, with: {a: 2, b: 3}}").await, json!(5.0));
    assert_eq!(value("{tool: echo}").await, json!({}));
    assert_eq!(value("{tool: echo, with: {x: word, y: [1, word]}}").await, json!({"x": "sum", "y": [1, "sum"]}));
    assert_eq!(value("{tool: sum, for_each: [1, 2], with: {a: item}, output: this + 1}").await, json!([2.0, 3.0]));
    assert_eq!(value("{tool: [echo, sum], choose: word, with: {a: 4}}").await, json!(4.0));
}

#[tokio::test]
async fn only_a_listed_tool_is_called() {
    let (code, message) = error("{tool: [echo, slip], choose: word}").await;
    assert_eq!(code, "unknown_tool");
    assert_eq!(message, "there is no tool `sum` in this step; it may call echo, slip");
    assert_eq!(error("{tool: [echo], choose: none}").await.0, "unknown_tool");
    assert_eq!(value("{tool: [echo], choose: word, on_error: {value: 7}}").await, json!(7));
}

#[tokio::test]
async fn arguments_must_fit() {
    let (code, message) = error("{tool: sum, with: {a: word}}").await;
    assert_eq!(code, "arguments");
    assert!(message.starts_with("`sum` takes {a: number, b?: number};") && message.contains("/a"), "{message}");
    assert_eq!(error("{tool: sum}").await.0, "arguments");
    assert_eq!(error("{tool: echo, with: word}").await.0, "arguments");
}

#[tokio::test]
async fn a_failing_tool_is_tried_again_only_when_asked() {
    assert_eq!(error("{tool: flaky}").await, ("down".to_owned(), "not yet".to_owned()));
    assert_eq!(value("{tool: flaky, retry: {max: 1, backoff: 1ms}}").await, json!("up"));
    assert_eq!(error("{tool: slip, retry: 3}").await.0, "panic");
}

#[test]
fn names_are_checked_before_a_run() {
    let codes = |node: &str| said(node).iter().map(|problem| problem.code.0).collect::<Vec<_>>();
    assert_eq!(codes("{tool: echo}"), [""; 0]);
    let unknown = &said("{tool: ehco}")[0];
    assert_eq!(unknown.message, "no tool is called `ehco`");
    assert_eq!(unknown.help, ["did you mean `echo`?", "`tool` may be echo, flaky, slip, sum"]);
    assert_eq!(unknown.place.as_ref().map(|place| (place.line, place.column)), Some((4, 13)));
    assert_eq!(codes("{tool: [echo, sum]}"), ["FR005"]);
    assert_eq!(codes("{tool: echo, choose: word}"), ["FR009"]);
    assert_eq!(codes("{tool: [], choose: word}"), ["FR006"]);
    assert_eq!(codes("{tool: [echo, echo], choose: word}"), ["FR009"]);
    assert_eq!(codes("{tool: 3}"), ["FR006"]);
}

#[test]
fn a_node_with_an_effect_need_not_be_read() {
    let warned = |nodes: &str| {
        let text = format!("flowrun: 1\nnodes:\n  a: {{value: 1}}\n  b: {nodes}\noutput: a\n");
        let (checked, _) = check_text("t.yaml", &text, kinds().specs(), &NoLibrary).unwrap();
        !checked.warnings.is_empty()
    };
    assert!(!warned("{tool: echo}") && !warned("{nodes: {c: {tool: echo}}}"));
    assert!(!warned("{tool: [sum, echo], choose: \"'sum'\"}"));
    assert!(warned("{tool: sum, with: {a: 1}}") && warned("{nodes: {c: {tool: sum, with: {a: 1}}}}"));
}

/// Runs a plan that a scripted model draws, with `allow` as written.
async fn drawn(plan: &Value, allow: &str) -> RunOutcome {
    let mut tools = Tools::default();
    let find = |with: Map<String, Value>| async move { Ok(json!(format!("found {}", with["query"]))) };
    tools.register("find", tool_fn("finds", find));
    let script = json!([
        {"match": "How is it?", "reply": plan, "times": 1},
        {"match": "A: found \"red wine\"", "reply": "with wine"},
        {"match": "Which colour?", "reply": "red"},
        {"reply": "without"},
    ]);
    let mut models = Models::default();
    models.register("default", Scripted::parse("script", &script.to_string()).unwrap());
    let mut kinds = Kinds::new();
    register(&mut kinds, models, tools);
    let text = format!(
        "flowrun: 1\nnodes:\n  draft: {{kind: plan, prompt: How is it?, fallback: {{steps: []}}{allow}}}\n  parts: {{graph: draft{allow}}}\noutput: parts.answer\n"
    );
    let checked = check_text("t.yaml", &text, kinds.specs(), &NoLibrary);
    let workflow = checked.unwrap_or_else(|refused| panic!("{:#?}", refused.diagnostics)).0.workflow;
    run(&workflow, Map::new(), &kinds, RunOptions::default()).await.unwrap()
}

#[tokio::test]
async fn a_plan_calls_tools_only_where_they_are_allowed() {
    let plan = json!({"steps": [
        {"id": "colour", "ask": "Which colour?", "type": "text"},
        {"id": "page", "tool": "find", "with": {"query": "{colour} wine"}},
    ]});
    assert_eq!(drawn(&plan, ", allow: {tools: [find]}").await.output, Some(json!("with wine")));
    assert_eq!(drawn(&plan, "").await.output, Some(json!("without")));
    assert_eq!(drawn(&plan, ", allow: {kinds: [llm, calc, tool]}").await.output, Some(json!("without")));
    let forged = json!({"steps": [{"id": "page", "tool": "rm", "with": {"query": "all"}}]});
    assert_eq!(drawn(&forged, ", allow: {tools: [find]}").await.output, Some(json!("without")));
}
