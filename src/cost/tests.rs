//! Formulas of small files, and that no run goes beyond them.

use flowrun_engine::graph::{Graph, Limits, Work};
use flowrun_engine::id::StepId;
use flowrun_engine::scheduler::Scheduler;
use flowrun_engine::state::State;
use flowrun_engine::testing::drive::{self, Plan};
use flowrun_engine::testing::generate::{self, Flavour};
use flowrun_engine::testing::prove::FREE;
use flowrun_engine::testing::spec::{Checked, Program};
use flowrun_engine::testing::world::World;
use serde_json::json;

use super::*;
use crate::Flowrun;

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
fn loops_multiply_by_their_bounds() {
    check("  a: {prompt: x, repeat: {max: 5}}", ["5", "15", "6", "1", "1", "5"]);
    check(
        "  a: {prompt: x, repeat: {max: rounds, until: this == question}, for_each: list}",
        [
            "n(a)·rounds <= 500,000",
            "3·n(a)·rounds <= 1,500,000",
            "1 + n(a) + n(a)·rounds <= 500,051",
            "2",
            "n(a) <= 50",
            "rounds <= 10,000",
        ],
    );
    check(
        "  a: {for_each: list, sequential: true, prompt: '{{ item }} {{ last.a }}'}",
        ["n(a) <= 50", "3·n(a) <= 150", "1 + n(a) <= 51", "1", "1", "n(a) <= 50"],
    );
    check(
        "  a: {for_each: list, stop_when: this | length > 2, prompt: '{{ item }}'}",
        ["n(a) <= 50", "3·n(a) <= 150", "1 + n(a) <= 51", "1", "1", "n(a) <= 50"],
    );
    // Two edges back to one header: n + m + 1 passes.
    check(
        "  a: {prompt: x}\n  b: {prompt: '{{ a }}', next: [{when: a == question, to: a, max: 3}, {to: c}]}\n  \
        c: {prompt: '{{ a }}', next: {to: a, max: k}}",
        ["12 + 3·k <= 24", "36 + 9·k <= 72", "17 + 4·k <= 33", "2", "1", "12 + 3·k <= 24"],
    );
    // Inside each other they multiply; an edge past the inner loop counts for the outer one.
    check(
        "  a: {prompt: x}\n  b: {prompt: '{{ a }}'}\n  \
        c: {prompt: '{{ b }}', next: [{when: b == question, to: b, max: 2}, {when: a == question, to: a, max: 3}, {to: d}]}\n  d: {prompt: done}",
        ["29", "87", "50", "4", "1", "29"],
    );
}

#[test]
fn of_cases_the_dearest_is_called() {
    let routes = "next: [{when: a == question, to: b}, {when: a == 'y', to: [c, c2]}, {to: e}]";
    let nodes = |last: &str| {
        format!(
            "  a: {{prompt: x, {routes}}}\n  b: {{for_each: list, prompt: '{{{{ item }}}}', retry: 0}}\n  c: {{prompt: x}}\n  c2: {{prompt: x}}\n  \
            d: {{prompt: 'more {{{{ c }}}}'}}\n  e: {{prompt: x}}\n  {last}"
        )
    };
    // `b`, or `c`, `c2` and `d`; a skipped node is a step all the same.
    check(
        &nodes("v: {value: 1}"),
        ["1 + max(3, n(b)) <= 51", "3 + max(9, n(b)) <= 53", "7 + n(b) <= 57", "1", "3 + n(b) <= 53", "3"],
    );
    // What two cases lead to, and what reads it if it is there, comes on top.
    let merged = nodes("f: {prompt: '{{ d | default(1) }}', next: {to: g}}\n  g: {prompt: z}");
    check(&merged, ["3 + max(3, n(b)) <= 53", "9 + max(9, n(b)) <= 59", "8 + n(b) <= 58", "1", "3 + n(b) <= 53", "5"]);
    // Decisions inside a case.
    check(
        "  a: {prompt: x, on_error: {to: h}, next: [{when: a == 'x', to: b}, {to: c}]}\n  b: {prompt: x, next: [{when: b == 'y', to: d}, {to: e}]}\n  \
        c: {prompt: x}\n  d: {prompt: x}\n  e: {prompt: x}\n  h: {prompt: x}",
        ["3", "9", "6", "0", "4", "3"],
    );
    // The exits of a loop may be live together.
    check(
        "  a: {prompt: x, next: {to: b}}\n  b: {prompt: y, next: [{when: a == 'x', to: a, max: 1}, {to: [c, d]}]}\n  c: {prompt: x}\n  d: {prompt: x}",
        ["6", "18", "9", "2", "2", "5"],
    );
}

#[test]
fn in_a_race_the_losers_run_on() {
    check(
        "  a: {prompt: x}\n  b: {prompt: y}\n  c: {needs: [a, b], join: first, prompt: z}",
        ["3", "9", "3", "0", "3", "2"],
    );
    check(
        "  a: {prompt: x}\n  b: {prompt: y}\n  c: {needs: [a, b], join: any, prompt: z}",
        ["3", "9", "3", "0", "2", "2"],
    );
}

/// A library whose workflows are all in memory.
struct Shelf(BTreeMap<&'static str, String>);

impl flowrun_engine::check::Library for Shelf {
    fn load(
        &self,
        reference: &str,
        _: &str,
        kinds: &BTreeMap<String, Arc<KindSpec>>,
    ) -> Result<(crate::WorkflowDef, crate::Source), String> {
        let text = self.0.get(reference).ok_or("there is none")?;
        let parsed = flowrun_engine::definition::read(reference, text, kinds);
        parsed.map(|parsed| (parsed.definition, parsed.source)).map_err(|_| "unread".to_owned())
    }
}

fn shelf_cost(shelf: &Shelf, name: &str) -> Cost {
    let flowrun = Flowrun::builder().build();
    let checked = flowrun_engine::check::check_text(name, &shelf.0[name], flowrun.kinds().specs(), shelf);
    let (checked, _) = checked.unwrap_or_else(|refused| panic!("{:?}", refused.diagnostics));
    Cost::of(&checked.workflow, flowrun.kinds().specs(), &Map::new()).unwrap()
}

#[test]
fn recursion_ends_at_its_depth() {
    let text = |limits: &str, calls: &str| {
        format!("flowrun: 1\nlimits: {limits}\nnodes:\n  a: {{prompt: x, retry: 0}}\n{calls}")
    };
    let once = "  again: {workflow: '@me', when: a == 'x'}\n";
    let both = "  left: {workflow: '@me', max_depth: 4}\n  right: {workflow: '@me', max_depth: 4}\n";
    let mapped = "  each: {for_each: [1, 2], workflow: '@me'}\n";
    let check = |text: String, calls: &str, most: u128, depth: u128, path: u128| {
        let cost = shelf_cost(&Shelf(BTreeMap::from([("@me", text)])), "@me");
        assert_eq!((cost.calls.formula.as_deref(), cost.calls.most), (Some(calls), most));
        assert_eq!((cost.depth.most, cost.critical_path.most), (depth, path), "{cost:?}");
    };
    // The frames of depth 0, 1, 2, 3; in the last one the call fails.
    check(text("{depth: 3}", once), "1 + calls(again)", 4, 3, 5);
    check(text("{}", both), "1 + calls(left) + calls(right)", 15, 3, 1);
    check(text("{depth: 5}", mapped), "1 + 2·calls(each)", 7, 5, 1);
    check(text("{depth: 100000}", once), "1 + calls(again)", 100_001, 100_000, 100_002);
    let doubling = "  left: {workflow: '@me'}\n  right: {workflow: '@me'}\n";
    check(text("{depth: 500}", doubling), "1 + calls(left) + calls(right)", u128::MAX, 500, 1);

    let odd = "flowrun: 1\nlimits: {depth: 6}\nnodes: {o: {prompt: x, retry: 0}, call: {workflow: '@even'}}".to_owned();
    let even = "flowrun: 1\nnodes: {e: {samples: 3, prompt: x, retry: 0}, call: {workflow: '@odd'}}".to_owned();
    let cost = shelf_cost(&Shelf(BTreeMap::from([("@odd", odd), ("@even", even)])), "@odd");
    assert_eq!((cost.calls.formula.as_deref(), cost.calls.most), (Some("4 + calls(call/call)"), 13 + 3));
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
    const NAMES: [&str; 13] = ["@0", "@1", "@2", "@3", "@4", "@5", "@6", "@7", "@8", "@9", "@10", "@11", "@12"];
    let ten = |work: String| (0..10).map(|i| format!("  c{i}: {{{work}}}\n")).collect::<String>();
    let text = |level: usize| match level {
        0 => format!("flowrun: 1\nnodes:\n{}", ten("prompt: x, retry: 0".to_owned())),
        _ => format!("flowrun: 1\nnodes:\n{}", ten(format!("workflow: '{}'", NAMES[level - 1]))),
    };
    let tower = Shelf(NAMES.iter().enumerate().map(|(level, name)| (*name, text(level))).collect());
    let cost = |level: usize| shelf_cost(&tower, NAMES[level]);
    assert_eq!((cost(3).calls.most, cost(3).depth.most), (10_000, 3));
    let huge = cost(12);
    assert_eq!((huge.calls.formula, readable(huge.calls.most).as_str()), (None, "more than 10^18"));
    assert_eq!(huge.steps.held_to, Some((1_000_000, "limits.steps")));
}

/// Steps, depth and width of a simulated run.
fn used(snapshots: &[(usize, Scheduler)]) -> (u128, u128, u128) {
    let (_, last) = snapshots.last().expect("a run has events");
    let all = |scheduler: &Scheduler| (0..scheduler.step_count() as u32).map(StepId);
    let nesting = |step: StepId| std::iter::successors(last.parent(step), |step| last.parent(*step)).count() as u128;
    let running = |scheduler: &Scheduler| {
        let runs = |step: &StepId| scheduler.attempt(*step) > 0 && scheduler.state(*step) == State::Running;
        all(scheduler).filter(runs).count() as u128
    };
    let depth = all(last).map(nesting).max().unwrap_or(0);
    (
        last.step_count() as u128 - 1,
        depth.saturating_sub(1),
        snapshots.iter().map(|(_, scheduler)| running(scheduler)).max().unwrap_or(0),
    )
}

/// The workflow of a program, if the simulated world plays by its text: it draws what is no plan, and gives as many items as it likes.
fn whole(program: &Program) -> Option<Checked> {
    let mut checked = program.check().ok()?;
    let mut seen: Vec<Arc<Graph>> = vec![checked.workflow.graph.clone()];
    let mut next = 0;
    while let Some(graph) = seen.get(next).cloned() {
        next += 1;
        for node in graph.nodes() {
            let items = node.code.items.iter().flat_map(|tree| tree.leaves());
            let lists_are_known =
                node.for_each && items.flat_map(|(_, leaf)| leaf.names()).all(|name| name.node.is_none());
            let inner = match &node.work {
                Work::Expand => return None,
                _ if lists_are_known => return None,
                Work::Group(inner) | Work::Loop(inner) => inner.clone(),
                Work::Call(called) => called.graph(),
                _ => continue,
            };
            if !seen.iter().any(|known| Arc::ptr_eq(known, &inner)) {
                seen.push(inner);
            }
        }
    }
    let Workflow { graph, limits, definition, calls, .. } = &*checked.workflow;
    // As many items as the world gives at most.
    let limits = Limits { items: 4, ..*limits };
    checked.workflow = Arc::new(Workflow::new(definition.clone(), calls.clone(), graph.clone(), limits));
    Some(checked)
}

#[test]
fn no_simulated_run_goes_beyond_its_cost() {
    let (mut ran, mut loops, mut exact) = (0, 0, [0; 3]);
    for seed in 0..1_000 {
        let program = generate::program(seed, Flavour { races: seed % 2 == 0, people: seed % 4 == 1 });
        let Some(checked) = whole(&program) else { continue };
        let cost = Cost::of(&checked.workflow, &BTreeMap::new(), &Map::new()).unwrap();
        let plan = Plan { max_parallel: 64, order: seed, steps_max: 3_000, keep: usize::MAX, ..FREE };
        let world = World { calm: seed % 3 == 0, ..World::new(seed) };
        let (steps, depth, width) = used(&drive::run(&checked, &world, &plan).snapshots);
        let pairs = [(steps, cost.steps.most), (depth, cost.depth.most), (width, cost.width.most)];
        for (index, (used, most)) in pairs.into_iter().enumerate() {
            assert!(used <= most, "seed {seed}: {pairs:?}\n{}", program.to_yaml());
            exact[index] += u32::from(used == most);
        }
        ran += 1;
        loops += u32::from(checked.workflow.graph.nodes().iter().any(|node| node.loops()));
    }
    assert!(ran > 200 && loops > 50 && exact.iter().all(|reached| *reached > 20), "{ran} {loops} {exact:?}");
}
