//! The simulation: random workflows, run under several completion orders and limits, against the naive reference.
//!
//! `FLOWRUN_SIM` is the number of workflows (500 if not set), `FLOWRUN_SIM_SEED` runs a single one. Every run checks: the
//! same status, output, needed steps and inputs as the reference, whatever the order and the limit; every step ends exactly
//! once; no run hangs; never more at once than allowed; and that folding a prefix of the log rebuilds the scheduler exactly.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the figures and the seed of a failure are for people")]
#![allow(clippy::disallowed_methods, reason = "the time it took is for people, no test depends on it")]

use std::collections::BTreeSet;
use std::sync::Arc;

use flowrun_engine::event::{Bound, Status};
use flowrun_engine::graph::{Dependency, DependencyMode, Graph, Node, Work};
use flowrun_engine::id::NodeIndex;
use flowrun_engine::scheduler::{Effects, Scheduler};
use flowrun_engine::state::State;
use flowrun_engine::testing::drive::{self, Driven, Plan};
use flowrun_engine::testing::world::World;
use flowrun_engine::testing::{Random, generate, oracle};

const FREE: Plan =
    Plan { max_parallel: 16, order: 0, cancel_after: None, calls_max: None, steps_max: 1_000_000, silent: false };

#[derive(Default)]
struct Totals {
    workflows: u64,
    runs: u64,
    steps: usize,
    folds: u64,
    transitions: BTreeSet<(State, State)>,
}

impl Totals {
    fn add(&mut self, driven: &Driven) {
        self.runs += 1;
        self.steps += driven.steps;
        self.transitions.extend(&driven.transitions);
    }
}

/// Folds a prefix of the log and compares with the scheduler as it was.
fn fold(graph: &Arc<Graph>, driven: &Driven, prefix: usize) {
    let mut scheduler = Scheduler::new(graph.clone());
    let mut effects = Effects::default();
    for (event, derived) in &driven.log[..prefix] {
        scheduler.apply(event, &mut effects);
        let again: Vec<String> = effects.events.drain(..).map(|event| format!("{event:?}")).collect();
        assert_eq!(&again, derived, "the fold derives other events");
        effects.commands.clear();
    }
    if prefix > 0 {
        assert!(scheduler == driven.snapshots[prefix - 1], "the fold differs after {prefix} events");
    }
}

fn one(seed: u64, totals: &mut Totals) {
    let graph = generate::workflow(seed);
    let world = World { seed };
    let expected = oracle::run(&graph, &world);
    let mut random = Random(seed ^ 0xF10F);
    for (max_parallel, silent) in [(1, false), (2, true), (3, false), (16, true)] {
        let plan = Plan { max_parallel, order: random.next(), silent, ..FREE };
        let keep = max_parallel == 3;
        let driven = drive::run(&graph, &world, &plan, keep);
        totals.add(&driven);
        let status = if expected.output.is_some() { Status::Success } else { Status::Failed };
        assert_eq!(driven.ended.status, status, "status with {max_parallel} at once; {:?}", driven.ended);
        if status == Status::Success {
            assert_eq!(driven.account.output, expected.output, "output with {max_parallel} at once");
            assert_eq!(driven.account.needed, expected.needed, "needed steps with {max_parallel} at once");
        }
        if keep {
            let all = seed.is_multiple_of(20);
            let prefixes: Vec<usize> = if all {
                (0..=driven.log.len()).collect()
            } else {
                (0..3).map(|_| random.below(driven.log.len() as u64 + 1) as usize).collect()
            };
            totals.folds += prefixes.len() as u64;
            prefixes.into_iter().for_each(|prefix| fold(&graph, &driven, prefix));
        }
    }
    interrupted(&graph, &world, &mut random, totals);
}

/// Runs that end early: cancelled, out of calls, out of steps.
fn interrupted(graph: &Arc<Graph>, world: &World, random: &mut Random, totals: &mut Totals) {
    let plan = Plan { max_parallel: 3, order: random.next(), cancel_after: Some(random.below(6) as usize), ..FREE };
    let driven = drive::run(graph, world, &plan, false);
    totals.add(&driven);
    let calls_max = random.below(5);
    let plan =
        Plan { max_parallel: 3, order: random.next(), calls_max: Some(calls_max), silent: random.one_in(2), ..FREE };
    let driven = drive::run(graph, world, &plan, false);
    totals.add(&driven);
    assert!(driven.ended.usage.calls <= calls_max, "{} calls of {calls_max}", driven.ended.usage.calls);
    assert!(driven.ended.bound.is_none_or(|bound| bound == Bound::Calls) && driven.ended.status != Status::Cancelled);
    let plan = Plan { max_parallel: 2, order: random.next(), steps_max: 1 + random.below(20), ..FREE };
    let driven = drive::run(graph, world, &plan, false);
    totals.add(&driven);
    assert!(driven.steps as u64 <= plan.steps_max + 1, "{} steps of {}", driven.steps, plan.steps_max);
    assert_eq!(driven.ended.status == Status::Exhausted, driven.ended.bound == Some(Bound::Steps));
}

#[test]
fn random_workflows_agree_with_the_reference() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let started = std::time::Instant::now();
    let mut totals = Totals::default();
    let seeds = match number("FLOWRUN_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FLOWRUN_SIM").unwrap_or(500),
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one(seed, &mut totals)));
        if let Err(panic) = result {
            eprintln!("FLOWRUN_SIM_SEED={seed} shows it again");
            describe(&generate::workflow(seed), 0);
            std::panic::resume_unwind(panic);
        }
        totals.workflows += 1;
    }
    println!(
        "simulated {} workflows, {} runs, {} steps, {} folds in {:.1} s",
        totals.workflows,
        totals.runs,
        totals.steps,
        totals.folds,
        started.elapsed().as_secs_f64()
    );
    if totals.workflows >= 500 {
        let legal = State::ALL.into_iter().flat_map(|from| State::ALL.into_iter().map(move |to| (from, to)));
        let later = |state: State| state == State::Suspended;
        let expected: BTreeSet<_> =
            legal.filter(|(from, to)| from.may_become(*to) && !later(*from) && !later(*to)).collect();
        let missing: Vec<_> = expected.difference(&totals.transitions).collect();
        assert!(missing.is_empty(), "legal transitions that no run made: {missing:?}");
    }
}

fn describe(graph: &Graph, depth: usize) {
    for node in graph.nodes() {
        let sources: Vec<String> =
            node.dependencies.iter().map(|d| format!("{}:{:?}", graph.node(d.source).name, d.mode)).collect();
        let work = match &node.work {
            Work::Leaf => "leaf",
            Work::Value => "value",
            Work::Group(_) => "group",
            Work::Call(_) => "call",
            Work::Expand => "expand",
            Work::Loop(_) => "loop",
            Work::Human { .. } => "human",
        };
        eprintln!(
            "{}{} {work} <- {sources:?} any_of {:?} guard {} each {} samples {:?} value {} {:?} {:?} reads {:?}",
            "  ".repeat(depth),
            node.name,
            node.counted,
            node.has_guard,
            node.for_each,
            node.samples,
            node.has_value,
            node.on_error,
            node.on_item_error,
            generate::reads(node),
        );
        if let Work::Group(body) = &node.work {
            describe(body, depth + 1);
        }
    }
}

fn leaf(name: String, sources: &[u32]) -> Node {
    let required =
        |source: &u32| Dependency { source: NodeIndex(*source), inside: Vec::new(), mode: DependencyMode::Required };
    Node { dependencies: sources.iter().map(required).collect(), ..Node::new(&name, Work::Leaf) }
}

/// A world in which nothing fails.
fn calm(graph: Graph, plan: &Plan) -> Driven {
    let graph = Arc::new(graph);
    let world = (0..).map(|seed| World { seed }).find(|world| {
        let path_ok = |node: &Node| world.attempt(&node.name, 1, node).is_ok();
        graph.nodes().iter().all(path_ok) && world.value("value", "").is_ok()
    });
    drive::run(&graph, &world.expect("BUG: no calm world"), plan, false)
}

#[test]
fn the_longest_remaining_path_starts_first() {
    let nodes =
        vec![leaf("short".into(), &[]), leaf("long".into(), &[]), leaf("b".into(), &[1]), leaf("c".into(), &[2])];
    let driven = calm(Graph::build(nodes).unwrap(), &Plan { max_parallel: 1, ..FREE });
    let started: Vec<&String> =
        driven.log.iter().flat_map(|(_, derived)| derived).filter(|e| e.starts_with("Started")).collect();
    let order: Vec<u32> = started
        .iter()
        .map(|e| e.split("StepId(").nth(1).unwrap().split(')').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(order[0], 2, "`long` is step 2 and has the longest way to go: {order:?}");
}

#[test]
fn a_long_chain_of_skips_needs_no_stack() {
    let mut nodes: Vec<Node> =
        (0..100_000u32).map(|i| leaf(format!("n{i}"), &if i == 0 { vec![] } else { vec![i - 1] })).collect();
    nodes[0].has_guard = true;
    let graph = Arc::new(Graph::build(nodes).unwrap());
    let world = (0..)
        .map(|seed| World { seed })
        .find(|world| world.guard("n0") == Ok(false) && world.value("value", "").is_ok());
    let mut scheduler = Scheduler::new(graph);
    let mut effects = Effects::default();
    let _ = world;
    let nothing = flowrun_engine::id::ValueHash::of_bytes(b"");
    let started = flowrun_engine::event::RunStarted {
        semantics: 1,
        workflow: nothing,
        inputs: nothing,
        max_parallel: 1,
        calls_max: None,
        limits: Default::default(),
    };
    scheduler.apply(&flowrun_engine::event::Event::RunStarted(Box::new(started)), &mut effects);
    let decided = flowrun_engine::event::Event::Decided {
        step: flowrun_engine::id::StepId(1),
        field: flowrun_engine::event::DecideField::Guard,
        decision: flowrun_engine::event::Decision::Guard(false),
    };
    scheduler.apply(&decided, &mut effects);
    assert_eq!(scheduler.state(flowrun_engine::id::StepId(100_000)), State::Skipped);
}
