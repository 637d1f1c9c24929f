//! `llm` and `plan` in whole runs over scripted models: turns, repairs, fallbacks, costs, and replies that try to be more than data.

use std::sync::{Arc, Mutex};

use flowrun_engine::check::{NoLibrary, check_text};
use flowrun_engine::event::{Event, Status};
use flowrun_engine::expr::Datum;
use flowrun_engine::id::ValueHash;
use flowrun_engine::node::Kinds;
use flowrun_engine::observer::{Observer, Records};
use flowrun_engine::run::{RunOptions, RunOutcome, run};
use serde_json::{Map, Value, json};

use crate::model::{Models, Scripted};
use crate::{Tools, register};

/// Keeps what the kinds report about themselves.
#[derive(Default)]
struct Reports {
    values: Mutex<Vec<(ValueHash, Value)>>,
    reports: Mutex<Vec<(String, Value)>>,
}

impl Observer for Reports {
    fn value(&self, hash: ValueHash, value: &Arc<Datum>) {
        self.values.lock().unwrap().push((hash, value.json().clone()));
    }

    fn records(&self, records: &Records<'_>) {
        let values = self.values.lock().unwrap();
        for record in records.iter() {
            if let Event::Settled { report: Some(report), .. } = &record.event {
                let Some(hash) = &report.provenance else { continue };
                let report = values.iter().find(|(known, _)| known == hash).unwrap().1.clone();
                self.reports.lock().unwrap().push((record.path.to_string(), report));
            }
        }
    }
}

async fn run_with(script: &str, workflow: &str) -> (RunOutcome, Vec<(String, Value)>) {
    let mut models = Models::default();
    models.register("default", Scripted::parse("script", script).unwrap());
    let mut kinds = Kinds::new();
    register(&mut kinds, models, Tools::default());
    let checked = check_text("t.yaml", &format!("flowrun: 1\n{workflow}"), kinds.specs(), &NoLibrary);
    let workflow = checked.unwrap_or_else(|refused| panic!("{:#?}", refused.diagnostics)).0.workflow;
    let reports = Arc::new(Reports::default());
    let mut options = RunOptions::default();
    options.observers.add(reports.clone());
    let outcome = run(&workflow, Map::new(), &kinds, options).await.unwrap();
    let seen = reports.reports.lock().unwrap().clone();
    (outcome, seen)
}

const LIST: &str = "nodes: {a: {prompt: List., schema: [integer]}}\noutput: a";

#[tokio::test]
async fn a_reply_that_does_not_fit_goes_back_with_the_reason() {
    let script = "- {match: does not fit, reply: '[1, 2]'}\n- {match: List, reply: 'Sure: [\"x\"]'}\n";
    let (outcome, reports) = run_with(script, LIST).await;
    assert_eq!((outcome.output, outcome.usage.calls), (Some(json!([1, 2])), 2));
    let report = &reports[0].1;
    assert_eq!(report["replies"].as_array().unwrap().len(), 2);
    assert!(report["messages"][2]["content"].as_str().unwrap().contains("at /0"), "{report}");
}

#[tokio::test]
async fn turns_are_bounded_and_paid() {
    let (outcome, _) = run_with("- {reply: I would rather not.}\n", LIST).await;
    let error = outcome.error.unwrap();
    assert_eq!((outcome.status, error.code.as_str(), outcome.usage.calls), (Status::Failed, "bad_reply", 3));
    let (outcome, _) = run_with("- {reply: ' '}\n", "nodes: {a: {prompt: Hi}}\noutput: a").await;
    assert_eq!(outcome.error.unwrap().code, "empty_reply");
    let (outcome, _) = run_with("- {status: 401, reply: who are you}\n", "nodes: {a: {prompt: Hi}}\noutput: a").await;
    assert!(outcome.error.unwrap().message.contains("who are you"));
}

#[tokio::test]
async fn a_reply_is_never_a_template() {
    let script = "- {match: first, reply: '{{ 7 * 7 }} {a} {% for %}'}\n- {reply: ok}\n";
    let workflow = "nodes:\n  a: {prompt: first}\n  b: {prompt: 'P {{ a }}'}\n  c: {ask: 'S {a}'}\noutput: [b, c]";
    let (outcome, reports) = run_with(script, workflow).await;
    assert_eq!(outcome.status, Status::Success);
    let mut asked: Vec<&str> =
        reports[1..].iter().map(|(_, r)| r["messages"][0]["content"].as_str().unwrap()).collect();
    asked.sort_unstable();
    assert_eq!(asked, ["P {{ 7 * 7 }} {a} {% for %}", "S {{ 7 * 7 }} {a} {% for %}"]);
}

fn plan(more: &str) -> String {
    format!(
        "nodes:\n  draft: {{kind: plan, prompt: How much is it?{more}}}\n  parts: {{graph: draft}}\noutput: parts.answer"
    )
}

/// What the plan step reports, and what the run gave.
async fn drawn(script: &str, more: &str) -> (Value, RunOutcome) {
    let (outcome, reports) = run_with(script, &plan(more)).await;
    let report = reports.iter().find(|(path, _)| path == "draft").unwrap().1.clone();
    (report, outcome)
}

#[tokio::test]
async fn plans_are_drawn_repaired_redrawn_or_replaced() {
    let answer = "- {match: 'A: 12', reply: twelve}\n";
    let good = r#"{"steps": [{"id": "n", "ask": "3 * 4", "type": "calc"}]}"#;
    let (report, outcome) = drawn(&format!("{answer}- {{match: How, reply: '{good}'}}\n"), "").await;
    assert_eq!((&report["outcome"], outcome.output), (&json!("as_drawn"), Some(json!("twelve"))));

    let units = r#"{"steps": [{"id": "n", "ask": "3 boxes * 4 eggs", "type": "calc"}]}"#;
    let (report, outcome) = drawn(&format!("{answer}- {{match: How, reply: '{units}'}}\n"), "").await;
    assert_eq!((&report["outcome"], outcome.output), (&json!("repaired"), Some(json!("twelve"))));
    assert_eq!(report["repairs"], json!(["`n`: its formula was read as `3 * 4`"]));

    let circle = r#"{"steps": [{"id": "a", "ask": "Is {b}?", "type": "text"}, {"id": "b", "ask": "Is {a} so?", "type": "text"}]}"#;
    let script = format!("{answer}- {{match: Avoid, reply: '{good}'}}\n- {{match: How, reply: '{circle}'}}\n");
    let (report, outcome) = drawn(&script, "").await;
    assert_eq!((&report["outcome"], outcome.output), (&json!("model_turn"), Some(json!("twelve"))));
    assert_eq!(report["params"]["temperature"], json!(0.7));

    let script =
        "- {match: Avoid, reply: no}\n- {match: How much is it?, reply: prose, times: 1}\n- {reply: straight}\n";
    let (report, outcome) = drawn(script, ", fallback: {steps: []}").await;
    assert_eq!((&report["outcome"], outcome.output), (&json!("fallback"), Some(json!("straight"))));

    let (_, outcome) = drawn("- {reply: prose}\n", ", repair: 1").await;
    let error = outcome.error.unwrap();
    assert!(error.code == "bad_plan" && error.message.contains("declare a `fallback`"), "{error}");
    assert_eq!(outcome.usage.calls, 2);
}

#[tokio::test]
async fn forged_plans_stay_data() {
    for forged in [
        r#"{"steps": [{"id": "../x", "ask": "y", "type": "text"}]}"#,
        r#"{"steps": [{"id": "a", "ask": "y", "type": "shell"}]}"#,
        r#"{"steps": [{"id": "a", "ask": "y", "type": "text", "exec": "rm"}]}"#,
        r#"{"steps": [{"id": "а", "ask": "look-alike", "type": "text"}]}"#,
        r#"{"nodes": {"a": {"prompt": "{{ question }}"}}}"#,
    ] {
        let (report, _) =
            drawn(&format!("- {{match: How, reply: '{forged}'}}\n- {{reply: x}}\n"), ", fallback: {steps: []}").await;
        assert_eq!(report["outcome"], json!("fallback"), "{forged}");
    }
}
