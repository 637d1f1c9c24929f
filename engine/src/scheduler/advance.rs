//! The life of a step: verdict, guard, counts, items, samples, passes, work, value, route.
//!
//! Every function moves one step one stage on. A stage that needs an expression ends with a `Decide`, and the next one
//! begins in [`Scheduler::decided`]. Settled steps queue up and are told to their consumers in one loop, never by
//! recursion: a chain of 300,000 skips costs no stack.

use std::sync::Arc;

use super::arena::{Body, Frame, Layer, SharedGraph, Step};
use super::{Effects, News, Scheduler};
use crate::event::{Bound, Command, DecideField, Decision, Event, Outcome, SkipReason, TimerKind};
use crate::failure::StepError;
use crate::fault::{self, Fault};
use crate::graph::{Count, Dependency, DependencyMode, Graph, Join, Work};
use crate::id::{FrameId, NodeIndex, StepId, ValueHash};
use crate::state::State;

impl Scheduler {
    /// Looks at entries and tells consumers and frames of settled steps, until nothing moves; races are run when nothing else is
    /// left.
    pub(super) fn propagate(&mut self, effects: &mut Effects) {
        loop {
            let step = match self.news.pop_front() {
                Some(News::Settled(step)) => {
                    self.tell(step, effects);
                    continue;
                }
                Some(News::Entry(step)) => step,
                None => match self.races.pop_first() {
                    Some(step) => step,
                    None => return,
                },
            };
            match self.node(step) {
                _ if self.state(step) != State::Waiting => {}
                Some(node) if node.join == Join::First => self.race(step, effects),
                _ => self.verdict(step, effects),
            }
        }
    }

    /// Tells a settled step's consumers and frame.
    fn tell(&mut self, step: StepId, effects: &mut Effects) {
        let (frame_id, node) = (self.steps[step.index()].frame, self.steps[step.index()].node);
        let frame = &mut self.frames[frame_id.index()];
        if frame.closed {
            return;
        }
        frame.unsettled -= 1;
        let done = frame.unsettled == 0;
        let Body::Nodes { first } = frame.body else { return self.child_settled(frame_id, step, effects) };
        let mut next = 0;
        while let Some(&consumer) = self.frames[frame_id.index()].graph.0.consumers(node).get(next) {
            self.source_settled(child(first, consumer), effects);
            next += 1;
        }
        if done {
            self.frame_done(frame_id, effects);
        }
    }

    fn source_settled(&mut self, consumer: StepId, effects: &mut Effects) {
        let step = self.step_mut(consumer);
        step.pending -= 1;
        if step.state != State::Waiting {
            return;
        }
        let done = step.pending == 0;
        if self.node(consumer).is_some_and(|node| node.join == Join::First) {
            self.races.insert(consumer);
        } else if done {
            self.verdict(consumer, effects);
        }
    }

    /// Everything that the step waits for is settled: is it needed? A function of settled states alone.
    pub(super) fn verdict(&mut self, step: StepId, effects: &mut Effects) {
        let unasked = fault::is(Fault::GuardInPlaceOfRequired) && self.node(step).is_some_and(|node| node.has_guard);
        match self.objection(step).filter(|_| !unasked) {
            Some(reason) => self.settle(step, Outcome::Skipped(reason), effects),
            None if self.node(step).is_some_and(|node| node.has_guard) => {
                self.decide(step, DecideField::Guard, effects);
            }
            None => self.admit(step, effects),
        }
    }

    /// Why a step is not needed, if it is not: no live edge, or a source that gave nothing.
    pub(super) fn objection(&self, step: StepId) -> Option<SkipReason> {
        let frame = self.frame_of(step);
        let index = self.steps[step.index()].node;
        let node = frame.graph.0.node(index);
        let Body::Nodes { first } = frame.body else { panic!("BUG: a verdict on an item") };
        let enough = |found: usize, all: usize| match node.join {
            Join::Default | Join::Any => found > 0,
            Join::All => found == all || (fault::is(Fault::AllTakesAny) && found > 0),
            Join::First => true,
            Join::Quorum(count) => found as u64 + u64::from(fault::is(Fault::QuorumOneLess)) >= u64::from(count),
        };
        if !node.edges_in.is_empty() {
            let (live, all) = self.live_edges(first, index, node);
            if !enough(live, all) {
                return Some(SkipReason::NotRouted);
            }
        } else if !node.counted.is_empty() || !node.counted_outside.is_empty() {
            let found = node.counted.iter().filter(|source| self.has_value(first, source)).count();
            let outside = node.counted_outside.iter().filter(|name| self.missing_outside(step, name).is_none()).count();
            if !enough(found + outside, node.counted.len() + node.counted_outside.len()) {
                return Some(SkipReason::NoneOf);
            }
        }
        let required = node.dependencies.iter().filter(|source| source.mode == DependencyMode::Required);
        let mut required = required.filter(|_| !fault::is(Fault::RequiredIsOptional));
        if let Some(missing) = required.find(|source| !self.has_value(first, source)) {
            let missing = self.inside(child(first, missing.source), &missing.inside);
            return Some(SkipReason::Requires(missing.unwrap_or_else(|missing| missing)));
        }
        let mut outside = node.requires_outside.iter().filter(|_| !fault::is(Fault::CaptureIsOptional));
        outside.find_map(|name| self.missing_outside(step, name)).map(SkipReason::Requires)
    }

    /// Whether a source of a step in the frame that begins with `first` succeeded.
    pub(super) fn has_value(&self, first: StepId, source: &Dependency) -> bool {
        let step = child(first, source.source);
        if source.inside.is_empty() {
            return self.state(step) == State::Succeeded;
        }
        self.inside(step, &source.inside).is_ok_and(|step| self.state(step) == State::Succeeded)
    }

    /// The step is needed.
    fn admit(&mut self, step: StepId, effects: &mut Effects) {
        self.set(step, State::Ready);
        let winner = if self.winners.is_empty() { None } else { self.winner(step) };
        effects.events.push(Event::Ready { step, winner });
        if self.node(step).is_some_and(|node| !node.code.counts.is_empty()) {
            self.decide(step, DecideField::Counts, effects);
        } else {
            self.unfold(step, effects);
        }
    }

    /// A count of a node, for its step or one of its items.
    pub(super) fn count(&self, step: StepId, count: Count) -> u32 {
        let slot = match count {
            Count::Fixed(count) => return count,
            Count::Decided(slot) => slot,
        };
        let own = self.own_step(step);
        self.counts.get(&own).expect("BUG: a count that was not decided")[slot as usize]
    }

    /// Opens the items, samples or passes of a step, or begins its work.
    pub(super) fn unfold(&mut self, step: StepId, effects: &mut Effects) {
        let node = self.node(step).expect("BUG: the root does not unfold");
        match (self.steps[step.index()].layer, &node.work) {
            (Layer::Items, _) => self.decide(step, DecideField::Items, effects),
            (Layer::Samples, _) => {
                let samples = node.samples.map_or(0, |samples| self.count(step, samples));
                self.open_items(step, None, samples, effects);
            }
            (Layer::Passes, _) => self.open_passes(step, effects),
            (Layer::Work, Work::Value) => self.decide(step, DecideField::Value, effects),
            (Layer::Work, _) if node.has_input => self.decide(step, DecideField::Input, effects),
            (Layer::Work, _) => self.begin_work(step, effects),
        }
    }

    /// The input is known: queue up for a slot, open the frame, or ask.
    pub(super) fn begin_work(&mut self, step: StepId, effects: &mut Effects) {
        let node = self.node(step).expect("BUG: the root began twice");
        match &node.work {
            Work::Leaf => self.enqueue(step),
            Work::Group(graph) | Work::Loop(graph) => {
                let graph = graph.clone();
                self.open_graph(step, &graph, effects);
            }
            Work::Call(called) => {
                let (graph, max_depth) = (called.graph(), node.max_depth);
                let spare = u32::from(fault::is(Fault::CallGoesDeeper));
                match max_depth.filter(|max| self.calls_around(step, &graph) >= *max + spare) {
                    Some(max) => {
                        let message = format!("calls of this workflow nest deeper than `max_depth` allows ({max})");
                        self.fail(step, StepError::terminal("limit_depth", message), effects);
                    }
                    None => self.open_graph(step, &graph, effects),
                }
            }
            Work::Expand => self.decide(step, DecideField::Graph, effects),
            Work::Human { .. } => self.suspend(step, effects),
            Work::Value => panic!("BUG: a value step has no input"),
        }
    }

    /// How many frames of a graph a step stands in.
    fn calls_around(&self, step: StepId, graph: &Arc<Graph>) -> u32 {
        let around = std::iter::successors(self.parent(step), |step| self.parent(*step));
        around.filter(|step| self.body(*step).is_some_and(|body| Arc::ptr_eq(body, graph))).count() as u32
    }

    /// A person is asked; nobody holds a slot meanwhile.
    fn suspend(&mut self, step: StepId, effects: &mut Effects) {
        self.set(step, State::Suspended);
        self.step_mut(step).attempt = 1;
        effects.events.push(Event::Suspended { step, input: self.input(step) });
        effects.commands.push(Command::Ask { step });
        if let Some(delay_ms) = self.node(step).and_then(|node| node.timeout_ms) {
            effects.commands.push(Command::Timer { step, attempt: 1, timer: TimerKind::Timeout, delay_ms });
        }
    }

    /// A step's work is done: an attempt gave a value, one was found, or a person answered.
    pub(super) fn worked(&mut self, step: StepId, value: ValueHash, effects: &mut Effects) {
        if self.node(step).is_some_and(|node| node.has_value) {
            self.hashes[step.index()].value = Some(value);
            self.decide(step, DecideField::Value, effects);
        } else {
            self.succeed(step, value, effects);
        }
    }

    /// Takes the answer to a `Decide`.
    pub(super) fn decided(&mut self, step: StepId, field: DecideField, decision: &Decision, effects: &mut Effects) {
        match (field, decision) {
            (DecideField::BestOutput, decision) => self.end_exhausted(decision, effects),
            (DecideField::ErrorValue, Decision::Value(value)) => self.recover(step, *value, effects),
            (DecideField::ErrorValue, Decision::Failed(error)) => self.fail_again(step, error.clone(), effects),
            (DecideField::Route | DecideField::Counts, Decision::Failed(error)) => {
                self.fail_routing(step, error.clone(), effects)
            }
            (_, Decision::Failed(error)) => self.fail(step, error.clone(), effects),
            (DecideField::Value, Decision::Value(value)) => self.succeed(step, *value, effects),
            (DecideField::Default, Decision::Value(value)) => self.worked(step, *value, effects),
            (DecideField::Stop, Decision::Stop(stops)) => self.stop_decided(step, *stops, effects),
            (DecideField::Again, Decision::Again(again)) => self.again_decided(step, *again, effects),
            (DecideField::Route, Decision::Route { case, passed_over }) => {
                self.routed(step, *case, *passed_over, effects);
            }
            (DecideField::Guard, Decision::Guard(true)) => self.admit(step, effects),
            (DecideField::Guard, Decision::Guard(false)) => {
                self.settle(step, Outcome::Skipped(SkipReason::Guard), effects);
            }
            (DecideField::Counts, Decision::Counts(counts)) => {
                self.counts.insert(step, counts.clone());
                // A value that took an error's place before the node opened has only to find its way.
                match self.value(step) {
                    Some(_) => self.route(step, effects),
                    None => self.unfold(step, effects),
                }
            }
            (DecideField::Items, Decision::Items { list, count }) => {
                self.open_items(step, Some(*list), *count, effects);
            }
            (DecideField::Input, Decision::Input { hash, calls, held, .. }) => {
                self.hashes[step.index()].input = Some(*hash);
                self.step_mut(step).calls = *calls;
                if *held {
                    self.step_mut(step).held = true;
                    self.held += 1;
                    self.in_flight += u32::from(fault::is(Fault::HeldTakesASlot));
                } else {
                    self.begin_work(step, effects);
                }
            }
            (DecideField::Graph, Decision::Graph { graph, .. }) => self.open_graph(step, graph, effects),
            (field, decision) => panic!("BUG: {decision:?} is no answer to {field:?}"),
        }
    }

    /// Opens a frame with one step per node.
    pub(super) fn open_graph(&mut self, step: StepId, graph: &Arc<Graph>, effects: &mut Effects) {
        let children = graph.nodes().len() as u32;
        let first = StepId(self.steps.len() as u32);
        let Some(frame) = self.open_frame(step, graph.clone(), Body::Nodes { first }, children, effects) else {
            return;
        };
        self.steps.reserve(graph.nodes().len());
        self.hashes.reserve(graph.nodes().len());
        for (index, node) in graph.nodes().iter().enumerate() {
            let mut new = Step::new(frame, NodeIndex(index as u32), Layer::first(node));
            new.pending = node.sources;
            self.add_step(new);
        }
        for (index, node) in graph.nodes().iter().enumerate() {
            if node.sources == 0 {
                self.news.push_back(News::Entry(child(first, NodeIndex(index as u32))));
            }
        }
        if children == 0 {
            self.frame_done(frame, effects);
        }
    }

    pub(super) fn open_frame(
        &mut self,
        parent: StepId,
        graph: Arc<Graph>,
        body: Body,
        children: u32,
        effects: &mut Effects,
    ) -> Option<FrameId> {
        let (rank, order, depth) = self.place_of_frame(parent);
        if depth > self.limits.depth {
            let message = format!("frames nest deeper than `limits.depth` allows ({})", self.limits.depth);
            self.fail(parent, StepError::terminal("limit_depth", message), effects);
            return None;
        }
        let unfolding = matches!(body, Body::Items(_));
        if !unfolding && self.steps.len() as u64 + u64::from(children) > self.limits.steps.saturating_add(1) {
            self.exhaust(Bound::Steps, effects);
            return None;
        }
        let timeout_ms = if unfolding { None } else { self.node(parent).and_then(|node| node.timeout_ms) };
        let shape = (!unfolding).then_some(graph.hash);
        let frame = FrameId(self.frames.len() as u32);
        let graph = SharedGraph(graph);
        self.frames.push(Frame { parent, graph, body, unsettled: children, closed: false, rank, order, depth });
        self.step_mut(parent).child = Some(frame);
        self.set(parent, State::Running);
        effects.events.push(Event::FrameOpened { step: parent, graph: shape, children });
        if let Some(delay_ms) = timeout_ms {
            effects.commands.push(Command::Timer { step: parent, attempt: 0, timer: TimerKind::Timeout, delay_ms });
        }
        Some(frame)
    }

    /// Rank, numeric path and depth of the frame that a step opens.
    fn place_of_frame(&self, parent: StepId) -> (u32, Arc<[u32]>, u32) {
        if parent == StepId::ROOT {
            return (0, Arc::from([]), 0);
        }
        let frame = self.frame_of(parent);
        let order: Vec<u32> = frame.order.iter().copied().chain([self.number(parent)]).collect();
        (self.rank(parent), order.into(), frame.depth + 1)
    }

    /// Every step of a frame of nodes is settled: the parent gets its value, or is skipped with what its `output` requires.
    fn frame_done(&mut self, frame: FrameId, effects: &mut Effects) {
        let Frame { parent, graph, body: Body::Nodes { first }, .. } = &self.frames[frame.index()] else {
            panic!("BUG: a frame of items is done elsewhere")
        };
        let (parent, first) = (*parent, *first);
        let missing =
            graph.0.output_requires.iter().find_map(|(node, inside)| match self.inside(child(first, *node), inside) {
                Ok(step) if self.state(step) == State::Succeeded => None,
                Ok(missing) | Err(missing) => Some(missing),
            });
        let outside = || {
            let mut names = graph.0.output_requires_outside.iter();
            names.find_map(|name| self.missing_outside_of_body(parent, name))
        };
        match missing.or_else(outside).filter(|_| !fault::is(Fault::OutputLacksNothing)) {
            Some(step) => {
                if parent == StepId::ROOT {
                    self.cause = Some((step, self.output_skipped(step)));
                }
                self.settle(parent, Outcome::Skipped(SkipReason::OutputRequires(step)), effects);
            }
            None => self.decide(parent, DecideField::Value, effects),
        }
    }
}

/// The step of a node in a frame whose first node's step is `first`.
pub(super) fn child(first: StepId, node: NodeIndex) -> StepId {
    StepId(first.0 + node.0)
}
