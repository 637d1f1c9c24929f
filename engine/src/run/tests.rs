//! The driver with real nodes on real (or paused) time: what a run gives, and that nothing is lost, repeated or left behind.

mod durable;
mod flow;
mod fold;
mod recall;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::check::{NoLibrary, check_text};
use crate::definition::{FieldFormat, KindSpec};
use crate::event::{Event, Record};
use crate::expr::Datum;
use crate::failure::ErrorClass;
use crate::id::ValueHash;
use crate::node::{Input, Node, NodeContext, NodeError, Output};
use crate::observer::Records;
use crate::retry::RetryPolicy;

/// A node that does what its text says: `echo …`, `fail`, `flaky N`, `panic`, `sleep MS`, `deaf`, `big N`, `calls N`.
#[derive(Default)]
struct Act {
    attempts: AtomicU32,
    most: AtomicU32,
    running: AtomicU32,
    stopped: Arc<AtomicU32>,
    name: &'static str,
}

#[async_trait]
impl Node for Act {
    fn spec(&self) -> KindSpec {
        KindSpec {
            work_keys: if self.name == "llm" { vec!["ask".into()] } else { vec!["act".into()] },
            calls_model: true,
            samples: true,
            retry: RetryPolicy { max: 2, on: vec![ErrorClass::Server], backoff_ms: 1_000 },
            ..KindSpec::leaf(if self.name.is_empty() { "act" } else { self.name })
        }
        .field("act", FieldFormat::Template, "what to do")
        .field("ask", FieldFormat::Slotted, "what to do, literal")
        .field("system", FieldFormat::Template, "background")
    }

    async fn run(&self, context: &NodeContext, input: Input) -> Result<Output, NodeError> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        let text =
            input.fields.get("act").or(input.fields.get("ask")).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let number = rest.parse::<u64>().unwrap_or(0);
        let usage = Usage { calls: 1, prompt_tokens: 2, completion_tokens: 3 };
        let result = match word {
            "fail" => Err(StepError::terminal("no", "it fails").into()),
            "flaky" if u64::from(context.attempt) <= number => {
                Err(StepError::new("busy", ErrorClass::Server, "busy").into())
            }
            "panic" => panic!("oh dear"),
            "sleep" => {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(number)) => Ok(json!("slept")),
                    () = context.cancelled().cancelled() => {
                        self.stopped.fetch_add(1, Ordering::SeqCst);
                        Err(StepError::terminal("cancelled", "stopped").into())
                    }
                }
            }
            // The first one fails at once, the others take their time.
            "shaky" if self.attempts.load(Ordering::SeqCst) == 0 => {
                Err(StepError::new("busy", ErrorClass::Server, "busy").into())
            }
            "shaky" => {
                tokio::time::sleep(Duration::from_millis(number)).await;
                Ok(json!("steady"))
            }
            "deaf" => {
                std::future::pending::<()>().await;
                Ok(Value::Null)
            }
            "big" => Ok(json!("x".repeat(number as usize))),
            _ => Ok(json!(text)),
        };
        self.attempts.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
            .map(|value| Output { value, usage, provenance: None })
            .map_err(|error: NodeError| NodeError { usage, ..error })
    }
}

fn kinds() -> Kinds {
    let mut kinds = Kinds::new();
    kinds.register(Act::default()).register(Act { name: "llm", ..Act::default() });
    kinds
}

fn workflow(text: &str) -> Arc<Workflow> {
    let text = format!("flowrun: 1\n{text}");
    let checked = check_text("t.yaml", &text, kinds().specs(), &NoLibrary);
    checked.unwrap_or_else(|refused| panic!("{:#?}", refused.diagnostics)).0.workflow
}

async fn run_with(text: &str, options: RunOptions) -> RunOutcome {
    run(&workflow(text), Map::new(), &kinds(), options).await.unwrap()
}

async fn output(text: &str) -> Value {
    let outcome = run_with(text, RunOptions::default()).await;
    assert_eq!(outcome.status, Status::Success, "{outcome:?}");
    outcome.output.unwrap()
}

async fn failure(text: &str) -> (String, String) {
    let outcome = run_with(text, RunOptions::default()).await;
    assert_eq!(outcome.status, Status::Failed, "{outcome:?}");
    (outcome.failed_step.unwrap_or_default(), outcome.error.map(|error| error.code.clone()).unwrap_or_default())
}

#[tokio::test]
async fn values_flow_through_items_samples_groups_and_branches() {
    let text = "
nodes:
  list: {value: ['\"a\"', '\"b\"', '\"c\"']}
  each: {for_each: list, act: 'echo {{ item }}'}
  many: {samples: 3, act: 'echo s'}
  group:
    for_each: list
    as: letter
    nodes:
      x: {act: 'echo {{ letter }}{{ list | length }}'}
      y: {value: x ~ '!'}
    output: y
  no: {when: 'false', act: echo no}
  yes: {when: list | length == 3, act: echo yes}
  joined: {needs: [no, yes], join: any, value: no | default(yes)}
  dead: {value: no}
output: {each: each, many: many, group: group, joined: joined, dead: dead | default('-')}";
    let expected = json!({
        "each": ["echo a", "echo b", "echo c"], "many": ["echo s", "echo s", "echo s"],
        "group": ["echo a3!", "echo b3!", "echo c3!"], "joined": "echo yes", "dead": "-",
    });
    assert_eq!(output(text).await, expected);
}

#[tokio::test]
async fn failures_go_the_way_their_node_declares() {
    assert_eq!(failure("nodes: {a: {act: fail}}").await, ("a".into(), "no".into()));
    assert_eq!(failure("nodes: {a: {act: panic}}").await, ("a".into(), "panic".into()));
    assert_eq!(failure("nodes: {g: {nodes: {x: {act: fail}}}}").await, ("g/x".into(), "no".into()));
    assert_eq!(
        failure("nodes: {a: {when: 'false', value: '1'}}\noutput: a").await,
        ("a".into(), "output_skipped".into())
    );
    assert_eq!(failure("nodes: {a: {for_each: '[1] | first', value: item}}").await, ("a".into(), "expression".into()));
    assert_eq!(
        output("nodes: {a: {act: fail, on_error: skip}, b: {value: 'a | default(7)'}}\noutput: b").await,
        json!(7)
    );
    assert_eq!(output("nodes: {a: {act: fail, on_error: {value: '5'}}, b: {value: a + 1}}\noutput: b").await, json!(6));
    let items = |policy: &str| {
        format!(
            "nodes: {{a: {{for_each: [1, 2, 3], act: '{{% if item == 2 %}}fail{{% else %}}{{{{ item }}}}{{% endif %}}', on_item_error: {policy}}}}}\noutput: a"
        )
    };
    assert_eq!(output(&items("drop")).await, json!(["1", "3"]));
    assert_eq!(output(&items("skip")).await, json!(["1", null, "3"]));
    assert_eq!(output(&items("{value: item * 10}")).await, json!(["1", 20, "3"]));
    assert_eq!(failure(&items("fail")).await, ("a[1]".into(), "no".into()));
    assert_eq!(output("nodes: {a: {for_each: [], act: fail}}\noutput: a").await, json!([]));
}

#[tokio::test(start_paused = true)]
async fn retries_wait_and_timeouts_end_attempts() {
    let started = tokio::time::Instant::now();
    assert_eq!(output("nodes: {a: {act: flaky 2}}\noutput: a").await, json!("flaky 2"));
    assert_eq!(started.elapsed().as_millis(), 3_000);
    assert_eq!(failure("nodes: {a: {act: flaky 3}}").await.1, "busy");
    let late = "nodes: {a: {act: sleep 5000, timeout: 1s, retry: {max: 1, on: [timeout], backoff: 1s}}}";
    let started = tokio::time::Instant::now();
    assert_eq!(failure(late).await, ("a".into(), "timeout".into()));
    assert_eq!(started.elapsed().as_millis(), 3_000);
    let group = "nodes: {g: {timeout: 1s, on_error: {value: '\"late\"'}, nodes: {a: {act: sleep 100}, b: {act: sleep 9000}}}}\noutput: g";
    assert_eq!(output(group).await, json!("late"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_ignores_its_end_is_taken_down_after_its_grace() {
    let started = tokio::time::Instant::now();
    assert_eq!(failure("nodes: {a: {act: deaf, timeout: 1s}}").await.1, "timeout");
    assert_eq!(started.elapsed().as_millis(), u128::from(1_000 + crate::scheduler::GRACE_MS));
}

#[tokio::test(start_paused = true)]
async fn cancelling_stops_nodes_and_keeps_what_finished() {
    let stopped = Arc::new(AtomicU32::new(0));
    let mut kinds = Kinds::new();
    kinds.register(Act { stopped: stopped.clone(), ..Act::default() });
    let text = "nodes: {a: {act: echo 1}, b: {needs: [a], act: sleep 60000}, c: {needs: [a], act: sleep 60000}, d: {needs: [b], act: echo}}";
    let seen = Arc::new(Seen::default());
    let mut options = RunOptions::default();
    options.observers.add(seen.clone());
    let cancel = options.cancel.clone();
    let workflow = workflow(text);
    let running = run(&workflow, Map::new(), &kinds, options);
    let (outcome, ()) = tokio::join!(running, async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
    });
    assert_eq!(outcome.unwrap().status, Status::Cancelled);
    assert_eq!(stopped.load(Ordering::SeqCst), 2);
    let records = seen.records.lock().unwrap();
    let ended = records.iter().filter(|record| matches!(record.event, Event::Ended { .. })).count();
    assert_eq!(ended, 5, "four nodes and the root");
    assert!(records.iter().any(|record| &*record.path == "a" && matches!(record.event, Event::Settled { .. })));
}

#[tokio::test]
async fn used_up_means_end_with_the_best_output() {
    let text = "budget: {calls: 2}\nnodes: {l: {value: [1, 2, 3, 4]}, a: {for_each: l, max_parallel: 1, act: 'echo {{ item }}'}}\noutput: a";
    let outcome = run_with(text, RunOptions { max_parallel: 1, ..RunOptions::default() }).await;
    assert_eq!((outcome.status, outcome.bound, outcome.usage.calls), (Status::Exhausted, Some(Bound::Calls), 2));
    assert_eq!(outcome.output, Some(json!(["echo 1", "echo 2", null, null])));
    let text = "limits: {steps: 3}\nnodes: {l: {value: [1, 2, 3, 4]}, a: {for_each: l, act: echo}}\noutput: {n: 1}";
    assert_eq!(run_with(text, RunOptions::default()).await.bound, Some(Bound::Steps));
}

#[tokio::test]
async fn sizes_of_one_thing_fail_that_thing() {
    let items = "limits: {items: 2}\nnodes: {a: {for_each: [1, 2, 3], value: item}}";
    assert_eq!(failure(items).await, ("a".into(), "limit_items".into()));
    assert_eq!(failure("limits: {output: 100}\nnodes: {a: {act: big 200}}").await, ("a".into(), "limit_output".into()));
    let deep = "limits: {depth: 2}\nnodes: {a: {for_each: [1], nodes: {b: {for_each: [1], act: echo}}}}";
    assert_eq!(failure(deep).await.1, "limit_depth");
}

#[tokio::test]
async fn plans_run_as_closed_frames() {
    let plan = json!({"question": "How many?", "steps": [
        {"id": "eggs", "ask": "6 * 8", "type": "calc"},
        {"id": "names", "ask": "List {{ 7 }}.", "type": "text"},
        {"id": "bad", "ask": "fail", "type": "text"},
        {"id": "after", "ask": "Is {bad} there?", "type": "text"},
        {"id": "many", "ask": "{eggs} > 40", "type": "calc"},
        {"id": "why", "ask": "Why {eggs}?", "type": "text", "if": "many"},
        {"id": "not", "ask": "Why not?", "type": "text", "unless": "many"},
        {"id": "answer", "ask": "{question}", "type": "text", "needs": ["eggs?", "names?", "bad?", "after?", "many?", "why?", "not?"]},
    ]});
    let text = "inputs: {plan: any}\nnodes:\n  parts: {graph: plan}\noutput: parts";
    let inputs = Map::from_iter([("plan".to_owned(), plan)]);
    let outcome = run(&workflow(text), inputs.clone(), &kinds(), RunOptions::default()).await.unwrap();
    let strict = workflow(&text.replace("graph: plan", "graph: plan, on_step_error: fail"));
    let failed = run(&strict, inputs, &kinds(), RunOptions::default()).await.unwrap();
    assert_eq!(failed.failed_step.as_deref(), Some("parts/bad"));
    let answer = "How many?\n\nQ: 6 * 8\nA: 48\nQ: List {{ 7 }}.\nA: List {{ 7 }}.\nQ: {eggs} > 40\nA: yes\nQ: Why 48?\nA: Why 48?";
    let expected = json!({
        "answer": answer,
        "steps": {"eggs": 48, "names": "List {{ 7 }}.", "many": true, "why": "Why 48?"},
        "errors": {"bad": "it fails"},
    });
    assert_eq!(outcome.output, Some(expected), "{:?}", outcome.error);
}

/// A library of one workflow.
struct One(&'static str);

impl crate::check::Library for One {
    fn load(
        &self,
        reference: &str,
        _: &str,
        kinds: &std::collections::BTreeMap<String, Arc<KindSpec>>,
    ) -> Result<(crate::definition::WorkflowDef, crate::source::Source), String> {
        let parsed = crate::definition::read(reference, self.0, kinds).map_err(|problems| format!("{problems:?}"))?;
        Ok((parsed.definition, parsed.source))
    }
}

/// Says which model it was given.
struct Which;

#[async_trait]
impl Node for Which {
    fn spec(&self) -> KindSpec {
        KindSpec::leaf("which").field("model", FieldFormat::Text, "alias")
    }

    async fn run(&self, _: &NodeContext, input: Input) -> Result<Output, NodeError> {
        let model = input.model.declared.map(|declared| declared.model.clone());
        Ok(Output { value: json!(model), ..Output::default() })
    }
}

#[tokio::test]
async fn calls_are_closed_take_defaults_and_bring_their_models() {
    let called = "flowrun: 1\ninputs: {a: integer, b: 'integer = 10'}\nmodels: {inner: {provider: openai, model: theirs}}\n\
        nodes: {sum: {value: a + b}, i: {kind: which, model: inner}, o: {kind: which, model: outer}}\noutput: [sum, i, o]";
    let calling = "flowrun: 1\nmodels: {outer: {provider: openai, model: ours}, inner: {provider: openai, model: ours}}\n\
        nodes:\n  each: {for_each: [1, 2], workflow: '@one', with: {a: item}}\n  i: {kind: which, model: inner}\noutput: [each, i]";
    let mut kinds = kinds();
    kinds.register(Which);
    let checked = check_text("t.yaml", calling, kinds.specs(), &One(called)).unwrap();
    let outcome = run(&checked.0.workflow, Map::new(), &kinds, RunOptions::default()).await.unwrap();
    let expected = json!([[[11, "theirs", "ours"], [12, "theirs", "ours"]], "ours"]);
    assert_eq!(outcome.output, Some(expected), "{:?}", outcome.error);
}

#[tokio::test]
async fn a_forged_plan_is_a_typed_error() {
    let run_plan = async |plan: Value| {
        let inputs = Map::from_iter([("plan".to_owned(), plan)]);
        let workflow =
            workflow("inputs: {plan: any}\nnodes:\n  parts: {graph: plan, limits: {nodes: 3}}\noutput: parts");
        run(&workflow, inputs, &kinds(), RunOptions::default()).await.unwrap().error.unwrap()
    };
    let step = |id: &str, ask: &str| json!({"id": id, "ask": ask, "type": "text"});
    for (plan, words) in [
        (json!("rm -rf"), "the plan does not check: this is no plan: `"),
        (json!({"steps": [{"id": "../x", "ask": "y", "type": "text"}]}), "no id"),
        (json!({"steps": [step("a", "{b}"), step("b", "{a}")]}), "circle"),
        (json!({"steps": [step("a", "x"), step("b", "x"), step("c", "x"), step("d", "x")]}), "limits.nodes"),
        (json!({"steps": [{"id": "a", "ask": "y", "type": "tool", "tool": "sh"}]}), "type"),
    ] {
        let error = run_plan(plan).await;
        assert!(error.code == "bad_plan" && error.message.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_thousand_nodes_share_the_slots() {
    let act = Arc::new(Act::default());
    struct Shared(Arc<Act>);
    #[async_trait]
    impl Node for Shared {
        fn spec(&self) -> KindSpec {
            self.0.spec()
        }
        async fn run(&self, context: &NodeContext, input: Input) -> Result<Output, NodeError> {
            self.0.run(context, input).await
        }
    }
    let mut kinds = Kinds::new();
    kinds.register(Shared(act.clone()));
    let nodes: String = (0..1_000).map(|i| format!("  n{i}: {{act: sleep 1}}\n")).collect();
    let options = RunOptions { max_parallel: 8, ..RunOptions::default() };
    let outcome = run(&workflow(&format!("nodes:\n{nodes}")), Map::new(), &kinds, options).await.unwrap();
    assert_eq!((outcome.status, outcome.steps, outcome.usage.calls), (Status::Success, 1_000, 1_000));
    assert_eq!(act.attempts.load(Ordering::SeqCst), 1_000);
    assert_eq!(act.most.load(Ordering::SeqCst), 8);
}

#[derive(Default)]
struct Seen {
    values: Mutex<BTreeSet<ValueHash>>,
    records: Mutex<Vec<Record>>,
}

impl Observer for Seen {
    fn value(&self, hash: ValueHash, _: &Arc<Datum>) {
        self.values.lock().unwrap().insert(hash);
    }

    fn records(&self, records: &Records<'_>) {
        let values = self.values.lock().unwrap();
        for record in records.iter() {
            if let Event::Settled { result: Ok(value), .. } = &record.event {
                assert!(values.contains(value), "a value is announced before it is mentioned");
            }
        }
        self.records.lock().unwrap().extend(records.iter());
    }
}

#[tokio::test]
async fn records_are_numbered_and_values_come_first() {
    let seen = Arc::new(Seen::default());
    let mut options = RunOptions::default();
    options.observers.add(seen.clone());
    run_with("nodes: {a: {act: echo 1}, b: {value: a}}\noutput: b", options).await;
    let records = seen.records.lock().unwrap();
    assert!(records.iter().enumerate().all(|(at, record)| record.sequence == at as u64));
    assert!(matches!(records.first().unwrap().event, Event::RunStarted(_)));
    assert!(matches!(records.last().unwrap().event, Event::RunEnded(_)));
}

#[tokio::test]
async fn inputs_are_checked_before_anything_runs() {
    let workflow =
        workflow("inputs: {n: integer, t: string = x}\nnodes: {a: {value: n}, b: {value: t}}\noutput: [a, b]");
    let start = async |inputs: Value| {
        let Value::Object(inputs) = inputs else { panic!("inputs are a map") };
        run(&workflow, inputs, &kinds(), RunOptions::default()).await
    };
    assert_eq!(start(json!({"n": 1})).await.unwrap().output, Some(json!([1, "x"])));
    assert!(matches!(start(json!({})).await, Err(StartError::MissingInput { name, .. }) if name == "n"));
    assert!(matches!(start(json!({"n": "one"})).await, Err(StartError::BadInput { .. })));
    assert!(matches!(start(json!({"n": 1, "m": 2})).await, Err(StartError::UnknownInput { .. })));
}

/// The kind `repeat`: its `word`, `times` over; asks no model.
struct Repeat;

#[async_trait]
impl Node for Repeat {
    fn spec(&self) -> KindSpec {
        let spec = KindSpec::leaf("repeat").field("word", FieldFormat::Expression, "what is said");
        spec.field("times", FieldFormat::Count, "how often")
    }

    async fn run(&self, _: &NodeContext, input: Input) -> Result<Output, NodeError> {
        let times = input.fields["times"].as_u64().unwrap_or(1) as usize;
        let word = input.fields["word"].to_string();
        Ok(Output { value: json!(vec![word; times].join(" ")), ..Output::default() })
    }
}

#[tokio::test]
async fn constants_reach_their_kind_without_an_evaluation() {
    let text = "flowrun: 1\nnodes:\n  a: {kind: repeat, word: [1, {x: true}], times: 2}\n  b: {kind: repeat, word: [a]}\noutput: [a, b]";
    let mut kinds = kinds();
    kinds.register(Repeat);
    let checked = check_text("t.yaml", text, kinds.specs(), &NoLibrary);
    let workflow = checked.unwrap_or_else(|refused| panic!("{:#?}", refused.diagnostics)).0.workflow;
    let seen = Arc::new(Seen::default());
    let mut options = RunOptions::default();
    options.observers.add(seen.clone());
    let outcome = run(&workflow, Map::new(), &kinds, options).await.unwrap();
    let said = r#"[1,{"x":true}] [1,{"x":true}]"#;
    assert_eq!(outcome.output, Some(json!([said, json!([said]).to_string()])));
    let records = seen.records.lock().unwrap();
    let decided = |path: &str| {
        let of = |record: &&Record| &*record.path == path && matches!(record.event, Event::Decided { .. });
        records.iter().filter(of).count()
    };
    assert_eq!((decided("a"), decided("b")), (0, 1));
}
