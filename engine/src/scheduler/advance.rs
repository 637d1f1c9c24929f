//! The life of a step: verdict, guard, counts, items, samples, work, value.
//!
//! Every function moves one step one stage on. A stage that needs an expression ends with a `Decide`, and the next one
//! begins in [`Scheduler::decided`]. Settled steps queue up and are told to their consumers in one loop, never by
//! recursion: a chain of 300,000 skips costs no stack.

use std::sync::Arc;

use super::arena::{Body, Frame, Items, Layer, SharedGraph, Step};
use super::{Effects, News, Scheduler};
use crate::event::{Bound, Command, DecideField, Decision, Event, Outcome, SkipReason, TimerKind};
use crate::failure::StepError;
use crate::graph::{Count, DependencyMode, Graph, Work};
use crate::id::{FrameId, NodeIndex, StepId, ValueHash};
use crate::state::State;

impl Scheduler {
    /// Looks at entries and tells consumers and frames of settled steps, until nothing moves.
    pub(super) fn propagate(&mut self, effects: &mut Effects) {
        while let Some(news) = self.news.pop_front() {
            match news {
                News::Entry(step) if self.state(step) == State::Waiting => self.verdict(step, effects),
                News::Entry(_) => {}
                News::Settled(step) => self.tell(step, effects),
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
        match &mut frame.body {
            Body::Nodes { first } => {
                let first = *first;
                let mut next = 0;
                while let Some(&consumer) = self.frames[frame_id.index()].graph.0.consumers(node).get(next) {
                    self.source_settled(child(first, consumer), effects);
                    next += 1;
                }
            }
            Body::Items(items) => {
                items.open -= 1;
                let parent = frame.parent;
                self.enqueue_items(parent);
            }
        }
        if done {
            self.frame_done(frame_id, effects);
        }
    }

    fn source_settled(&mut self, consumer: StepId, effects: &mut Effects) {
        let step = self.step_mut(consumer);
        step.pending -= 1;
        if step.pending == 0 && step.state == State::Waiting {
            self.verdict(consumer, effects);
        }
    }

    /// Everything that the step waits for is settled: is it needed? A function of settled states alone.
    fn verdict(&mut self, step: StepId, effects: &mut Effects) {
        let frame = self.frame_of(step);
        let node = frame.graph.0.node(self.steps[step.index()].node);
        let Body::Nodes { first } = frame.body else { panic!("BUG: a verdict on an item") };
        let succeeded = |source: NodeIndex| self.state(child(first, source)) == State::Succeeded;
        let missing = node.dependencies.iter().find(|d| d.mode == DependencyMode::Required && !succeeded(d.source));
        let reason = match (&node.any_of, missing) {
            (Some(sources), _) if !sources.iter().any(|source| succeeded(*source)) => Some(SkipReason::NoneOf),
            (_, Some(dependency)) => Some(SkipReason::Requires(child(first, dependency.source))),
            _ => None,
        };
        match reason {
            Some(reason) => self.settle(step, Outcome::Skipped(reason), effects),
            None if node.has_guard => self.decide(step, DecideField::Guard, effects),
            None => self.admit(step, effects),
        }
    }

    /// The step is needed.
    fn admit(&mut self, step: StepId, effects: &mut Effects) {
        self.set(step, State::Ready);
        effects.events.push(Event::Ready { step });
        let node = self.node(step).expect("BUG: the root was admitted");
        let (samples, max_parallel) = (node.samples, node.max_parallel);
        let fixed = |count: Option<Count>| if let Some(Count::Fixed(count)) = count { count } else { 0 };
        let data = self.step_mut(step);
        data.samples = fixed(samples);
        data.window = fixed(max_parallel);
        if [samples, max_parallel].contains(&Some(Count::Decided)) {
            self.decide(step, DecideField::Counts, effects);
        } else {
            self.unfold(step, effects);
        }
    }

    /// Opens the items or samples of a step, or begins its work.
    fn unfold(&mut self, step: StepId, effects: &mut Effects) {
        let node = self.node(step).expect("BUG: the root does not unfold");
        match (self.steps[step.index()].layer, &node.work) {
            (Layer::Items, _) => self.decide(step, DecideField::Items, effects),
            (Layer::Samples, _) => self.open_items(step, None, self.steps[step.index()].samples, effects),
            (Layer::Work, Work::Value) => self.decide(step, DecideField::Value, effects),
            (Layer::Work, _) if node.has_input => self.decide(step, DecideField::Input, effects),
            (Layer::Work, _) => self.begin_work(step, effects),
        }
    }

    /// The input is known: queue up for a slot, or open the frame.
    fn begin_work(&mut self, step: StepId, effects: &mut Effects) {
        match &self.node(step).expect("BUG: the root began twice").work {
            Work::Leaf => self.enqueue(step),
            Work::Group(graph) | Work::Call(graph) => {
                let graph = graph.clone();
                self.open_graph(step, &graph, effects);
            }
            Work::Expand => self.decide(step, DecideField::Graph, effects),
            Work::Value => panic!("BUG: a value step has no input"),
        }
    }

    /// Takes the answer to a `Decide`.
    pub(super) fn decided(&mut self, step: StepId, field: DecideField, decision: &Decision, effects: &mut Effects) {
        match (field, decision) {
            (DecideField::BestOutput, decision) => self.end_exhausted(decision, effects),
            (DecideField::ErrorValue, Decision::Value(value)) => self.recover(step, *value, effects),
            (DecideField::ErrorValue, Decision::Failed(error)) => self.fail_again(step, error.clone(), effects),
            (_, Decision::Failed(error)) => self.fail(step, error.clone(), effects),
            (DecideField::Value, Decision::Value(value)) => {
                self.settle(step, Outcome::Succeeded { value: *value, recovered: None }, effects);
            }
            (DecideField::Guard, Decision::Guard(true)) => self.admit(step, effects),
            (DecideField::Guard, Decision::Guard(false)) => {
                self.settle(step, Outcome::Skipped(SkipReason::Guard), effects);
            }
            (DecideField::Counts, Decision::Counts { samples, max_parallel }) => {
                let data = self.step_mut(step);
                data.samples = samples.unwrap_or(data.samples);
                data.window = max_parallel.unwrap_or(data.window);
                self.unfold(step, effects);
            }
            (DecideField::Items, Decision::Items { list, count }) => {
                self.open_items(step, Some(*list), *count, effects);
            }
            (DecideField::Input, Decision::Input { hash, calls }) => {
                self.hashes[step.index()].input = Some(*hash);
                self.step_mut(step).calls = *calls;
                self.begin_work(step, effects);
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
            new.pending = node.dependencies.len() as u32;
            self.add_step(new);
        }
        for (index, node) in graph.nodes().iter().enumerate() {
            if node.dependencies.is_empty() {
                self.news.push_back(News::Entry(child(first, NodeIndex(index as u32))));
            }
        }
        if children == 0 {
            self.frame_done(frame, effects);
        }
    }

    /// Opens a frame of items or samples, whose steps are made one by one.
    fn open_items(&mut self, step: StepId, list: Option<ValueHash>, count: u32, effects: &mut Effects) {
        if u64::from(count) > self.limits.items {
            let message = format!("{count} items are more than `limits.items` allows ({})", self.limits.items);
            return self.fail(step, StepError::terminal("limit_items", message), effects);
        }
        let data = &self.steps[step.index()];
        let window = if data.window == 0 { 2 * self.max_parallel } else { data.window };
        let layer = data.layer.below(self.node(step).expect("BUG: the root has no items"));
        let items = Items { list, count, steps: Vec::new(), open: 0, window, layer };
        let graph = self.graph_of(step);
        let Some(frame) = self.open_frame(step, graph, Body::Items(items), count, effects) else { return };
        if count == 0 {
            self.frame_done(frame, effects);
        } else {
            self.enqueue_items(step);
        }
    }

    fn open_frame(
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

    /// Opens the next item of a frame of items.
    pub(super) fn open_next_item(&mut self, parent: StepId, effects: &mut Effects) {
        let frame_id = self.steps[parent.index()].child.expect("BUG: a map without a frame");
        if self.steps.len() as u64 > self.limits.steps {
            return self.exhaust(Bound::Steps, effects);
        }
        let step = StepId(self.steps.len() as u32);
        let (node_index, samples) = (self.steps[parent.index()].node, self.steps[parent.index()].samples);
        let Body::Items(items) = &mut self.frames[frame_id.index()].body else { panic!("BUG: items expected") };
        let mut new = Step::new(frame_id, node_index, items.layer);
        new.index = items.steps.len() as u32;
        new.samples = samples;
        items.steps.push(step);
        items.open += 1;
        self.add_step(new);
        self.enqueue_items(parent);
        self.set(step, State::Ready);
        effects.events.push(Event::Ready { step });
        self.unfold(step, effects);
    }

    /// Every step of a frame is settled: the parent gets its value, or is skipped with what its `output` requires.
    fn frame_done(&mut self, frame: FrameId, effects: &mut Effects) {
        let Frame { parent, graph, body, .. } = &self.frames[frame.index()];
        let parent = *parent;
        let required = match body {
            Body::Nodes { first } => graph.0.output_requires.iter().map(|node| child(*first, *node)).collect(),
            Body::Items(_) => Vec::new(),
        };
        match required.into_iter().find(|step| self.state(*step) != State::Succeeded) {
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
