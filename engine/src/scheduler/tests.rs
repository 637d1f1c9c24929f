//! The scheduler by hand: what the simulation is too small or too random to show.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::event::{Decision, SEMANTICS};
use crate::graph::{Dependency, DependencyMode};

fn leaf(name: String, sources: &[u32]) -> Node {
    let required =
        |source: &u32| Dependency { source: NodeIndex(*source), inside: Vec::new(), mode: DependencyMode::Required };
    Node { dependencies: sources.iter().map(required).collect(), ..Node::new(&name, crate::graph::Work::Leaf) }
}

fn value() -> ValueHash {
    ValueHash::of_bytes(b"1")
}

/// A scheduler that has started, with the commands that this gave.
fn started(nodes: Vec<Node>, max_parallel: u32) -> (Scheduler, Vec<Command>) {
    let mut scheduler = Scheduler::new(Arc::new(Graph::build(nodes).unwrap()));
    let run = RunStarted {
        semantics: SEMANTICS,
        workflow: value(),
        inputs: value(),
        max_parallel,
        calls_max: None,
        limits: Limits::default(),
    };
    let commands = apply(&mut scheduler, Event::RunStarted(Box::new(run)));
    (scheduler, commands)
}

fn apply(scheduler: &mut Scheduler, event: Event) -> Vec<Command> {
    let mut effects = Effects::default();
    scheduler.apply(&event, &mut effects);
    effects.commands
}

#[test]
fn the_longest_remaining_path_starts_first() {
    let nodes =
        vec![leaf("short".into(), &[]), leaf("long".into(), &[]), leaf("b".into(), &[1]), leaf("c".into(), &[2])];
    let (mut scheduler, mut commands) = started(nodes, 1);
    let mut order = Vec::new();
    while let [Command::Start { step, attempt }] = commands[..] {
        order.push(scheduler.name(step).to_owned());
        commands = apply(&mut scheduler, Event::Settled { step, attempt, result: Ok(value()), report: None });
    }
    assert_eq!(order, ["long", "b", "short", "c"], "`short` and `c` are equally far from the end, and ids decide");
}

#[test]
fn a_long_chain_of_skips_needs_no_stack() {
    let before = |node: u32| if node == 0 { vec![] } else { vec![node - 1] };
    let mut nodes: Vec<Node> = (0..100_000).map(|node| leaf(format!("n{node}"), &before(node))).collect();
    nodes[0].has_guard = true;
    let (mut scheduler, _) = started(nodes, 1);
    let decision = Decision::Guard(false);
    apply(&mut scheduler, Event::Decided { step: StepId(1), field: DecideField::Guard, decision });
    assert_eq!(scheduler.state(StepId(100_000)), State::Skipped);
}

#[test]
fn every_illegal_transition_panics() {
    let (mut scheduler, _) = started(vec![leaf("a".into(), &[])], 1);
    let mut wrong = Vec::new();
    for (from, to) in State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to))) {
        scheduler.steps[1].state = from;
        (scheduler.suspended, scheduler.backing_off) = (1, 1);
        let panicked = catch_unwind(AssertUnwindSafe(|| scheduler.set(StepId(1), to))).is_err();
        if panicked == from.may_become(to) {
            wrong.push((from, to));
        }
    }
    assert_eq!(wrong, [], "transitions that the table does not say");
}

#[test]
fn a_step_takes_less_than_200_bytes() {
    let bytes = size_of::<Step>() + size_of::<Hashes>();
    assert!(bytes < 200, "{bytes} bytes");
}
