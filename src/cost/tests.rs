//! Formulas of small files, and that no run goes beyond them.

use async_trait::async_trait;
use flowrun_engine::failure::{ErrorClass, StepError};
use flowrun_engine::graph::{Graph, Limits};
use flowrun_engine::id::StepId;
use flowrun_engine::run::RunOptions;
use flowrun_engine::scheduler::Scheduler;
use flowrun_engine::state::State;
use flowrun_engine::testing::drive::{self, Plan};
use flowrun_engine::testing::generate;
use flowrun_engine::testing::world::World;
use serde_json::json;

use super::*;
use crate::{CallContext, ChatReply, ChatRequest, Flowrun, Model, Usage};

fn cost(text: &str, inputs: Value) -> Cost {
    let flowrun = Flowrun::builder().build();
    let workflow = flowrun.parse("w.yaml", text).unwrap_or_else(|why| panic!("{text}\n{}", why.report()));
    Cost::of(&workflow, flowrun.kinds().specs(), inputs.as_object().unwrap()).unwrap()
}

/// Formulas and numbers of calls, calls with retries, steps, depth, width and critical path.
#[track_caller]
fn check(nodes: &str, expected: [&str; 6]) {
    let inputs = "inputs: {question: string = why, rounds: integer, k: integer = 4, list: '[string]', three: '[integer] = [1, 2, 3]'}";
    let cost = cost(&format!("flowrun: 1\n{inputs}\nlimits: {{items: 50}}\nnodes:\n{nodes}"), json!({}));
    let shown = cost.parts().map(|(_, bounded)| match &bounded.formula {
        Some(formula) if *formula == readable(bounded.most) => formula.clone(),
        formula => format!("{} <= {}", formula.as_deref().unwrap_or("?"), readable(bounded.most)),
    });
    assert_eq!(shown, expected, "{nodes}");
}

#[test]
fn nodes_add_up_and_chains_share_their_width() {
    check("  a: {prompt: x}", ["1", "3", "1", "0", "1", "1"]);
    check("  a: {prompt: x}\n  b: {prompt: '{{ a }}'}\n  c: {calc: 1}", ["2", "6", "3", "0", "1", "2"]);
    let diamond =
        "  a: {prompt: x}\n  b: {prompt: '{{ a }}'}\n  c: {prompt: '{{ a }}'}\n  d: {prompt: '{{ b }} {{ c }}'}";
    check(diamond, ["4", "12", "4", "0", "2", "3"]);
    // Chains go through nodes that hold no slot.
    let hourglass = "  a: {prompt: x}\n  b: {prompt: y}\n  v: {value: '[a, b]'}\n  c: {prompt: '{{ v }} 1'}\n  d: {prompt: '{{ v }} 2'}";
    check(hourglass, ["4", "12", "5", "0", "2", "3"]);
}

#[test]
fn retries_and_repair_turns_multiply() {
    check("  a: {prompt: x, retry: 0}", ["1", "1", "1", "0", "1", "1"]);
    check(
        "  a: {prompt: x, retry: {max: 4, on: [server]}, schema: boolean, repair: 1}",
        ["1", "10", "1", "0", "1", "1"],
    );
    check("  a: {prompt: x, schema: boolean}", ["1", "9", "1", "0", "1", "1"]);
    check("  a: {kind: plan, prompt: x, repair: 5, retry: 1}", ["1", "12", "1", "0", "1", "1"]);
}

#[test]
fn items_and_samples_are_names_or_numbers() {
    check("  a: {for_each: '[1, 2]', prompt: x}", ["n(a) <= 2", "3·n(a) <= 6", "1 + n(a) <= 3", "1", "n(a) <= 2", "1"]);
    check("  a: {for_each: [1, 2], prompt: x}", ["2", "6", "3", "1", "2", "1"]);
    check("  a: {for_each: three, prompt: x}", ["n(a) <= 3", "3·n(a) <= 9", "1 + n(a) <= 4", "1", "n(a) <= 3", "1"]);
    check(
        "  a: {for_each: list, samples: k, prompt: x, max_parallel: 3}",
        ["k·n(a) <= 200", "3·k·n(a) <= 600", "1 + k·n(a) + n(a) <= 251", "2", "3·k <= 12", "1"],
    );
    check(
        "  a: {samples: rounds + 1, prompt: x, max_parallel: 1}",
        ["(rounds + 1) <= 50", "3·(rounds + 1) <= 150", "1 + (rounds + 1) <= 51", "1", "1", "(rounds + 1) <= 50"],
    );
}

#[test]
fn frames_nest_and_calls_know_what_they_are_given() {
    check(
        "  g:\n    for_each: list\n    nodes:\n      a: {prompt: '{{ item }}'}\n      b: {for_each: three, prompt: '{{ a }}'}\n    output: b",
        [
            "n(g) + n(g)·n(g/b) <= 200",
            "3·n(g) + 3·n(g)·n(g/b) <= 600",
            "1 + 3·n(g) + n(g)·n(g/b) <= 301",
            "3",
            "n(g)·max(1, n(g/b)) <= 150",
            "2",
        ],
    );
    let call = |with: &str| format!("  a: {{workflow: '@self-consistency', with: {with}}}");
    let known = ["samples(a/paths) <= 4", "3·samples(a/paths) <= 12", "3 + samples(a/paths) <= 7", "2"];
    check(&call("{question: question, n: k}"), [known[0], known[1], known[2], known[3], "samples(a/paths) <= 4", "2"]);
    let unknown = ["samples(a/paths) <= 50", "3·samples(a/paths) <= 150", "3 + samples(a/paths) <= 53", "2"];
    check(
        &call("{question: question, n: rounds}"),
        [unknown[0], unknown[1], unknown[2], unknown[3], "samples(a/paths) <= 50", "2"],
    );
}

#[test]
fn a_plan_is_as_large_as_it_may_be() {
    check(
        "  p: {kind: plan, prompt: x, limits: {nodes: 4}}\n  g: {graph: p, limits: {nodes: 4}}",
        [
            "1 + drawn(g)·n(g) <= 251",
            "9 + 9·drawn(g)·n(g) <= 2,259",
            "2 + drawn(g) + drawn(g)·n(g) <= 257",
            "2",
            "max(1, drawn(g)·n(g)) <= 250",
            "1 + drawn(g) <= 6",
        ],
    );
    check(
        "  p: {kind: plan, prompt: x, allow: {kinds: [calc]}, repair: 0}\n  g: {graph: p, allow: {kinds: [calc]}, limits: {nodes: 2}}",
        ["1", "3", "2 + drawn(g) + drawn(g)·n(g) <= 155", "2", "1", "1 + drawn(g) <= 4"],
    );
}

#[test]
fn budgets_and_limits_hold_a_run() {
    let text = "flowrun: 1\nbudget: {calls: 7}\nlimits: {steps: 9, items: 20}\nnodes: {a: {for_each: '[1] | list', prompt: x}}";
    let cost = cost(text, json!({}));
    assert_eq!(cost.calls.held_to, None);
    assert_eq!((cost.calls.most, cost.steps.held_to), (1, None));
    let text = text.replace("'[1] | list'", "range(12)");
    let cost = self::cost(&text, json!({}));
    assert_eq!((cost.calls.most, cost.calls.held_to), (12, Some((7, "budget.calls"))));
    assert_eq!((cost.steps.most, cost.steps.held_to), (13, Some((9, "limits.steps"))));
}

#[test]
fn inputs_are_numbers_once_they_are_given() {
    let text = "flowrun: 1\ninputs: {n: integer, m: integer = 2}\nnodes:\n  a: {samples: n, prompt: x}\n  b: {samples: m, prompt: y}";
    let named = |name: &str, most, limit| Named { name: name.to_owned(), most, limit };
    let (open, given) = (cost(text, json!({})), cost(text, json!({"n": 5, "m": 3})));
    assert_eq!(open.names, [named("n", 100_000, Some("limits.items")), named("m", 2, None)]);
    assert_eq!(given.names, [named("n", 5, None), named("m", 3, None)]);
    assert_eq!((open.calls.most, given.calls.most), (100_002, 8));
    let flowrun = Flowrun::builder().build();
    let workflow = flowrun.parse("w.yaml", text).unwrap();
    let problem = |inputs: Value| {
        Cost::of(&workflow, flowrun.kinds().specs(), inputs.as_object().unwrap()).unwrap_err().to_string()
    };
    assert!(problem(json!({"nn": 1})).contains("did you mean"), "{}", problem(json!({"nn": 1})));
    assert!(problem(json!({"n": "x"})).starts_with("input `n`: "));
}

#[test]
fn calls_by_the_billion_are_counted_and_not_walked() {
    struct Tower;
    impl flowrun_engine::check::Library for Tower {
        fn load(
            &self,
            reference: &str,
            _: &str,
            kinds: &BTreeMap<String, Arc<KindSpec>>,
        ) -> Result<(crate::WorkflowDef, crate::Source), String> {
            let level: u32 = reference.trim_start_matches('@').parse().map_err(|_| "no level".to_owned())?;
            let below = |i: u32| match level {
                0 => format!("  c{i}: {{prompt: x, retry: 0}}\n"),
                _ => format!("  c{i}: {{workflow: '@{}'}}\n", level - 1),
            };
            let text = format!("flowrun: 1\nnodes:\n{}", (0..10).map(below).collect::<String>());
            let parsed = flowrun_engine::definition::read(reference, &text, kinds);
            parsed.map(|parsed| (parsed.definition, parsed.source)).map_err(|_| "unread".to_owned())
        }
    }
    let flowrun = Flowrun::builder().build();
    let cost = |level: u32| {
        let text = format!("flowrun: 1\nnodes: {{top: {{workflow: '@{level}'}}}}");
        let checked = flowrun_engine::check::check_text("w.yaml", &text, flowrun.kinds().specs(), &Tower);
        let (checked, _) = checked.unwrap_or_else(|refused| panic!("{:?}", refused.diagnostics));
        Cost::of(&checked.workflow, flowrun.kinds().specs(), &Map::new()).unwrap()
    };
    assert_eq!((cost(3).calls.most, cost(3).depth.most), (10_000, 4));
    let huge = cost(12);
    assert_eq!((huge.calls.formula, readable(huge.calls.most).as_str()), (None, "more than 10^18"));
    assert_eq!(huge.steps.held_to, Some((1_000_000, "limits.steps")));
}

/// Fails in the dearest way: each reply but the last that an attempt may ask for is none, the last is a broken server.
struct Dearest {
    turns: u64,
    asked: std::sync::atomic::AtomicU64,
}

#[async_trait]
impl Model for Dearest {
    async fn chat(&self, _: &ChatRequest, _: &CallContext) -> Result<ChatReply, StepError> {
        let number = self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if number % (self.turns + 1) == self.turns {
            return Err(StepError::new("http_503", ErrorClass::Server, "busy"));
        }
        let usage = Usage { calls: 1, ..Usage::default() };
        Ok(ChatReply { text: "no such thing".to_owned(), usage, finish_reason: None })
    }

    fn name(&self) -> String {
        "dearest".to_owned()
    }
}

#[tokio::test]
async fn the_dearest_run_costs_exactly_what_was_said() {
    let text = "flowrun: 1\nnodes:\n  a: {prompt: x, schema: boolean, repair: 2, retry: {max: 3, on: [server], backoff: 1ms}, on_error: skip}\n\
        \x20 b: {kind: plan, prompt: x, repair: 2, retry: {max: 1, on: [server], backoff: 1ms}, on_error: skip}\noutput: {done: 1}";
    let model = Dearest { turns: 2, asked: 0.into() };
    let flowrun = Flowrun::builder().model("default", model).build();
    let workflow = flowrun.parse("w.yaml", text).unwrap();
    let cost = Cost::of(&workflow, flowrun.kinds().specs(), &Map::new()).unwrap();
    let options = RunOptions { max_parallel: 1, ..RunOptions::default() };
    let outcome = flowrun.run(&workflow, json!({}), options).await.unwrap();
    assert_eq!((u128::from(outcome.usage.calls), cost.calls_with_retries.most), (18, 18), "{outcome:?}");
}

/// Steps, depth and width of a simulated run.
fn used(snapshots: &[Scheduler]) -> (u128, u128, u128) {
    let last = snapshots.last().expect("a run has events");
    let all = |scheduler: &Scheduler| (0..scheduler.step_count() as u32).map(StepId);
    let nesting = |step: StepId| std::iter::successors(last.parent(step), |step| last.parent(*step)).count() as u128;
    let running = |scheduler: &Scheduler| {
        let runs = |step: &StepId| scheduler.attempt(*step) > 0 && scheduler.state(*step) == State::Running;
        all(scheduler).filter(runs).count() as u128
    };
    let depth = all(last).map(nesting).max().unwrap_or(0);
    (last.step_count() as u128 - 1, depth.saturating_sub(1), snapshots.iter().map(running).max().unwrap_or(0))
}

fn whole(graph: &Arc<Graph>) -> Workflow {
    // As many items, samples and passes as the world of the simulation gives at most.
    let limits = Limits { items: 4, ..Limits::default() };
    let (name, hash) = (String::new(), graph.hash);
    Workflow { name, graph: graph.clone(), calls_max: None, limits, hash, definition: crate::WorkflowDef::default() }
}

#[test]
fn no_simulated_run_goes_beyond_its_cost() {
    let kinds = BTreeMap::new();
    let (mut bounded, mut exact) = (0, [0; 3]);
    for seed in 0..400 {
        let graph = generate::workflow(seed);
        let cost = Cost::of(&whole(&graph), &kinds, &Map::new()).unwrap();
        if cost.steps.most == u128::MAX {
            // What an expansion of the simulation opens is no plan.
            continue;
        }
        bounded += 1;
        let plan = Plan {
            max_parallel: 64,
            order: seed,
            cancel_after: None,
            calls_max: None,
            steps_max: 1_000_000,
            silent: false,
        };
        let (steps, depth, width) = used(&drive::run(&graph, &World { seed }, &plan, true).snapshots);
        let pairs = [(steps, cost.steps.most), (depth, cost.depth.most), (width, cost.width.most)];
        for (index, (used, most)) in pairs.into_iter().enumerate() {
            assert!(used <= most, "seed {seed}: {pairs:?}");
            exact[index] += u32::from(used == most);
        }
    }
    assert!(
        bounded > 150 && exact.iter().all(|reached| *reached > 20),
        "{bounded} workflows, {exact:?} at their bounds"
    );
}
