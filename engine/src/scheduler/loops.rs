//! Where the flow goes on after a step, and what follows a pass.
//!
//! A loop's step has one frame of passes; each pass is a step whose frame is fresh, so nothing is ever reset. A pass of a flowchart
//! loop ends when all of it is settled: then a live edge out of the body ends the loop, else a live edge back to the
//! header opens the next pass, else the loop ends. `a → b → a (max 2), b → c`: passes `b#0`, `b#1`, `b#2`; the edge back is
//! spent in the third, so that the next case is tried.

use std::collections::BTreeSet;

use super::arena::{Body, Children, Items, Layer, Route};
use super::{Effects, Scheduler, advance};
use crate::event::{DecideField, Event, Outcome, PassEnd};
use crate::failure::StepError;
use crate::fault::{self, Fault};
use crate::graph::{EdgeBound, Node, Target, Work};
use crate::id::{FrameId, NodeIndex, StepId, ValueHash};
use crate::state::State;

impl Scheduler {
    /// A step has its value; it succeeds once it is known where the flow goes on.
    pub(super) fn succeed(&mut self, step: StepId, value: ValueHash, effects: &mut Effects) {
        let routes = self
            .node(step)
            .is_some_and(|node| !node.next.is_empty() && self.steps[step.index()].layer == Layer::first(node));
        let dead_end = fault::is(Fault::RecoveredLeadsNowhere) && self.error(step).is_some();
        if !routes || dead_end {
            return self.succeeded(step, value, effects);
        }
        self.hashes[step.index()].value = Some(value);
        if self.node(step).is_some_and(|node| !node.code.counts.is_empty()) && !self.counts.contains_key(&step) {
            return self.decide(step, DecideField::Counts, effects);
        }
        self.route(step, effects);
    }

    /// The value is there, and so are the bounds of the edges.
    pub(super) fn route(&mut self, step: StepId, effects: &mut Effects) {
        let node = self.node(step).expect("BUG: the root routes nowhere");
        if node.next.iter().any(|case| case.guarded) {
            return self.decide(step, DecideField::Route, effects);
        }
        let spent = self.spent(step);
        let fails = |case: usize| node.next[case].bound.is_some_and(|bound| bound.fails);
        let case = (0..spent.len()).find(|case| !spent[*case] || fails(*case));
        let (case, failing) = (case.filter(|case| !spent[*case]), case.filter(|case| spent[*case]));
        let passed_over = failing.or((spent.first() == Some(&true)).then_some(0));
        self.routed(step, case.map(|case| case as u32), passed_over.map(|case| case as u32), effects);
    }

    fn succeeded(&mut self, step: StepId, value: ValueHash, effects: &mut Effects) {
        let recovered = self.error(step).cloned();
        self.settle(step, Outcome::Succeeded { value, recovered }, effects);
    }

    /// Which cases of a step's `next` have used up their `max`.
    pub fn spent(&self, step: StepId) -> Vec<bool> {
        let node = self.node(step).expect("BUG: the root has no cases");
        let is_spent = |bound: &EdgeBound| {
            let items = self.frames[self.loop_around(step, bound.loops_out).index()].items();
            let spare = u32::from(fault::is(Fault::SpentEdgeIsTaken));
            items.taken.get(bound.number as usize).copied().unwrap_or(0) >= self.count(step, bound.max) + spare
        };
        node.next.iter().map(|case| case.bound.as_ref().is_some_and(is_spent)).collect()
    }

    /// The frame of passes of a flowchart loop around a node's own step: 0 is the innermost.
    fn loop_around(&self, step: StepId, loops_out: u32) -> FrameId {
        let mut at = step;
        for _ in 0..loops_out {
            let pass = self.frame_of(at).parent;
            at = self.frame_of(pass).parent;
        }
        let pass = self.frame_of(at).parent;
        self.steps[pass.index()].frame
    }

    /// The case that holds is known.
    pub(super) fn routed(&mut self, step: StepId, case: Option<u32>, passed_over: Option<u32>, effects: &mut Effects) {
        let node = self.node(step).expect("BUG: the root routes nowhere");
        let bound_of = |case: Option<u32>| node.next[case? as usize].bound;
        let (taken, passed) = (bound_of(case), bound_of(passed_over));
        if let Some(bound) = passed {
            if bound.fails {
                let message = format!("an edge of `{}` is spent: `max` was reached", node.name);
                return self.fail_routing(step, StepError::terminal("limit_reached", message), effects);
            }
            let frame = self.loop_around(step, bound.loops_out);
            self.frames[frame.index()].items_mut().spent = true;
        }
        if let Some(bound) = taken.filter(|bound| bound.loops_out == 0 || !fault::is(Fault::OuterEdgeIsFree)) {
            let frame = self.loop_around(step, bound.loops_out);
            let counts = &mut self.frames[frame.index()].items_mut().taken;
            counts.resize(counts.len().max(bound.number as usize + 1), 0);
            counts[bound.number as usize] += 1;
        }
        self.step_mut(step).route = case.map_or(Route::None, Route::Case);
        let value = self.value(step).expect("BUG: a step routes before it has a value");
        self.succeeded(step, value, effects);
    }

    /// Routing failed. If the value already takes an error's place, no policy is left.
    pub(super) fn fail_routing(&mut self, step: StepId, error: StepError, effects: &mut Effects) {
        if self.error(step).is_some() {
            self.fail_again(step, error, effects);
        } else {
            self.fail(step, error, effects);
        }
    }

    /// The live edges of a settled step.
    fn live_targets<'a>(&'a self, node: &'a Node, step: StepId) -> impl Iterator<Item = Target> + 'a {
        let cases: &[Target] = match self.steps[step.index()].route {
            Route::Case(case) if fault::is(Fault::ForkTakesFirst) => &node.next[case as usize].to[..1],
            Route::Case(case) => &node.next[case as usize].to,
            Route::None | Route::Error => &[],
        };
        let is_error = self.steps[step.index()].route == Route::Error;
        let left = matches!(node.work, Work::Loop(_)) && self.state(step) == State::Succeeded;
        let exits = self.child_items(step).filter(|_| left).map_or(&[][..], |items| &items.exits);
        let error = node.error_to.filter(|_| is_error && !fault::is(Fault::ErrorEdgeIsDead));
        cases.iter().copied().chain(error).chain(exits.iter().map(|exit| node.exits[*exit as usize]))
    }

    /// How many of the edges that lead to a node are live, and how many there are.
    pub(super) fn live_edges(&self, first: StepId, to: NodeIndex, node: &Node) -> (usize, usize) {
        if fault::is(Fault::SettledEdgeIsLive) {
            return (1, 1);
        }
        let graph = &self.frame_of(first).graph.0;
        let is_loop = |source: &NodeIndex| matches!(graph.node(*source).work, Work::Loop(_));
        let direct = node.edges_in.iter().filter(|source| !is_loop(source));
        let from_loops = node.edges_from_loops.iter();
        let live = direct.clone().filter(|source| self.edge_is_live(advance::child(first, **source), to)).count();
        let left = from_loops.clone().filter(|(source, way)| self.leaves_to(advance::child(first, *source), way, to));
        (live + left.count(), direct.count() + from_loops.len())
    }

    /// Whether a node of a loop's body, in its last pass, has a live edge out of the loop to a node beside it.
    fn leaves_to(&self, step: StepId, way: &[NodeIndex], to: NodeIndex) -> bool {
        // From the loop inwards: which steps the edge passes on its way out.
        let mut around = vec![step];
        for node in way {
            let last = self.last_pass(around[around.len() - 1]).and_then(|pass| self.child(pass, *node));
            let Some(inner) = last else { return false };
            around.push(inner);
        }
        let source = around.pop().expect("BUG: a way without an end");
        let node = self.node(source).expect("BUG: an edge from the root");
        self.live_targets(node, source).any(|target| {
            let outwards = around.iter().rev().try_fold(target, |target, around| match target {
                Target::Exit(exit) => Some(self.node(*around)?.exits[exit as usize]),
                Target::Node(_) | Target::Again => None,
            });
            outwards == Some(Target::Node(to))
        })
    }

    /// Whether a settled source has a live edge to a node of its graph.
    pub(super) fn edge_is_live(&self, source: StepId, to: NodeIndex) -> bool {
        let node = self.node(source).expect("BUG: an edge from the root");
        if fault::is(Fault::SkippedSourceIsLive) && self.state(source) == State::Skipped {
            return true;
        }
        self.live_targets(node, source).any(|target| target == Target::Node(to))
    }

    /// Opens the passes of a step.
    pub(super) fn open_passes(&mut self, step: StepId, effects: &mut Effects) {
        let node = self.node(step).expect("BUG: the root has no passes");
        let most = self.limits.iterations;
        let count = node.repeat.map_or(most, |repeat| self.count(step, repeat.max));
        if count > most {
            return self.fail(step, too_many_passes(u64::from(count), most), effects);
        }
        let items = Items::new(Children::Passes, count, 1, Layer::Work);
        let graph = self.graph_of(step);
        if self.open_frame(step, graph, Body::Items(Box::new(items)), 1, effects).is_some() {
            self.open_next_item(step, effects);
        }
    }

    /// A pass is settled: what follows?
    pub(super) fn pass_settled(&mut self, parent: StepId, pass: StepId, effects: &mut Effects) {
        let node = self.node(parent).expect("BUG: the root has no passes");
        let number = self.steps[pass.index()].index;
        match (&node.work, node.repeat) {
            (_, Some(repeat)) if repeat.has_until => self.decide(parent, DecideField::Again, effects),
            (_, Some(repeat))
                if number + 1 < self.count(parent, repeat.max) + u32::from(fault::is(Fault::RepeatOnceMore)) =>
            {
                self.end_pass(parent, number, PassEnd::Again, effects)
            }
            (_, Some(_)) => self.end_pass(parent, number, PassEnd::Done, effects),
            (Work::Loop(_), None) => self.flow_pass_settled(parent, pass, number, effects),
            _ => panic!("BUG: a pass of what does not loop"),
        }
    }

    /// Whether another pass is wanted.
    pub(super) fn again_decided(&mut self, parent: StepId, again: bool, effects: &mut Effects) {
        let repeat = self.node(parent).and_then(|node| node.repeat).expect("BUG: only `repeat` has `until`");
        let passes = self.child_items(parent).map_or(0, |items| items.steps.len() as u32);
        let max = self.count(parent, repeat.max);
        let end = match again || fault::is(Fault::UntilIsIgnored) {
            false => PassEnd::Done,
            true if passes < max => PassEnd::Again,
            true if repeat.fails => {
                let message = format!("`until` does not hold after {max} passes, as many as `max` allows");
                return self.fail(parent, StepError::terminal("limit_reached", message), effects);
            }
            true => PassEnd::Limit,
        };
        self.end_pass(parent, passes - 1, end, effects);
    }

    /// All of a flowchart loop's body is settled: an exit beats another pass.
    fn flow_pass_settled(&mut self, parent: StepId, pass: StepId, number: u32, effects: &mut Effects) {
        let body = self.steps[pass.index()].child.expect("BUG: a pass without a frame");
        let Body::Nodes { first } = self.frames[body.index()].body else { panic!("BUG: a pass of items") };
        let graph = self.frames[body.index()].graph.0.clone();
        let (mut exits, mut again) = (BTreeSet::new(), false);
        for (index, node) in graph.nodes().iter().enumerate() {
            for target in self.live_targets(node, advance::child(first, NodeIndex(index as u32))) {
                match target {
                    Target::Exit(exit) => drop(exits.insert(exit)),
                    Target::Again => again = true,
                    Target::Node(_) => {}
                }
            }
        }
        let frame = self.steps[pass.index()].frame;
        let items = self.frames[frame.index()].items_mut();
        let spent = std::mem::take(&mut items.spent);
        let stays = again && fault::is(Fault::RepeatBeatsExit);
        let leaves = !stays && !exits.is_empty();
        items.exits = exits.into_iter().collect();
        let end = match (leaves, again) {
            (true, _) if spent => PassEnd::Limit,
            (true, _) => PassEnd::Exit,
            (false, true) if number + 1 < items.count => PassEnd::Again,
            (false, true) => {
                let most = self.limits.iterations;
                return self.fail(parent, too_many_passes(u64::from(most) + 1, most), effects);
            }
            (false, false) if spent => PassEnd::Limit,
            (false, false) => PassEnd::NoEdge,
        };
        self.end_pass(parent, number, end, effects);
    }

    fn end_pass(&mut self, parent: StepId, pass: u32, end: PassEnd, effects: &mut Effects) {
        effects.events.push(Event::PassEnded { step: parent, pass, end });
        if end != PassEnd::Again {
            return self.decide(parent, DecideField::Value, effects);
        }
        let frame = self.steps[parent.index()].child.expect("BUG: a loop without passes");
        self.frames[frame.index()].unsettled = 1;
        self.open_next_item(parent, effects);
    }

    /// The last complete pass of a step that loops.
    pub fn last_pass(&self, step: StepId) -> Option<StepId> {
        let items = self.child_items(step).filter(|items| items.of == Children::Passes)?;
        let complete = |pass: &&StepId| matches!(self.state(**pass), State::Succeeded | State::Skipped);
        if fault::is(Fault::FirstPassIsLast) {
            return items.steps.iter().find(complete).copied();
        }
        items.steps.iter().rev().find(complete).copied()
    }

    /// Whether a step unfolds into passes.
    pub fn has_passes(&self, step: StepId) -> bool {
        self.child_items(step).is_some_and(|items| items.of == Children::Passes)
    }
}

fn too_many_passes(passes: u64, most: u32) -> StepError {
    StepError::terminal(
        "limit_iterations",
        format!("{passes} passes are more than `limits.iterations` allows ({most})"),
    )
}
