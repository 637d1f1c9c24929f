//! Items, samples and passes: a step that unfolds opens children one by one, in a rolling window.
//!
//! With `stop_when` the prefixes of the list are asked about in order, 1, 2, 3 …, as soon as their items are settled; what runs
//! beyond the one that stops is cancelled. A failed item takes effect when its turn comes. Passes are opened by the pass
//! before them (`loops.rs`).

use super::arena::{Body, Children, Items, Layer};
use super::{Effects, Scheduler};
use crate::event::{Bound, DecideField, Event};
use crate::failure::StepError;
use crate::fault::{self, Fault};
use crate::id::{FrameId, StepId, ValueHash};
use crate::state::State;

impl Scheduler {
    /// Opens a frame of items or samples, whose steps are made one by one.
    pub(super) fn open_items(&mut self, step: StepId, list: Option<ValueHash>, count: u32, effects: &mut Effects) {
        if u64::from(count) > self.limits.items {
            let message = format!("{count} items are more than `limits.items` allows ({})", self.limits.items);
            return self.fail(step, StepError::terminal("limit_items", message), effects);
        }
        let node = self.node(step).expect("BUG: the root has no items");
        let layer = self.steps[step.index()].layer.below(node);
        let of = match list {
            Some(list) => Children::Items { list, sequential: node.sequential },
            None => Children::Samples,
        };
        let outermost = self.unfolds_first(step);
        let window = match node.max_parallel.filter(|_| outermost) {
            Some(count) => self.count(step, count),
            None if node.sequential && list.is_some() && !fault::is(Fault::FoldRunsTogether) => 1,
            None => 2 * self.max_parallel,
        };
        let items = Items::new(of, count, window, layer);
        let graph = self.graph_of(step);
        let Some(frame) = self.open_frame(step, graph, Body::Items(Box::new(items)), count, effects) else { return };
        if count == 0 {
            self.items_done(frame, effects);
        } else {
            self.enqueue_items(step);
        }
    }

    /// Whether a step is its node's own and unfolds: `max_parallel`, `stop_when`, `quorum` and `on_item_error` are about its children.
    fn unfolds_first(&self, step: StepId) -> bool {
        let node = self.node(step).expect("BUG: the root does not unfold");
        self.steps[step.index()].layer == Layer::first(node)
    }

    /// Opens the next item, sample or pass of a step.
    pub(super) fn open_next_item(&mut self, parent: StepId, effects: &mut Effects) {
        let frame_id = self.steps[parent.index()].child.expect("BUG: a map without a frame");
        if self.steps.len() as u64 > self.limits.steps {
            return self.exhaust(Bound::Steps, effects);
        }
        let step = StepId(self.steps.len() as u32);
        let node_index = self.steps[parent.index()].node;
        let items = self.frames[frame_id.index()].items_mut();
        let mut new = super::arena::Step::new(frame_id, node_index, items.layer);
        new.index = items.steps.len() as u32;
        items.steps.push(step);
        items.open += 1;
        self.add_step(new);
        self.enqueue_items(parent);
        self.set(step, State::Ready);
        effects.events.push(Event::Ready { step, winner: None });
        self.unfold(step, effects);
    }

    /// A child of a step that unfolds is settled.
    pub(super) fn child_settled(&mut self, frame: FrameId, step: StepId, effects: &mut Effects) {
        let parent = self.frames[frame.index()].parent;
        let done = self.frames[frame.index()].unsettled == 0;
        let items = self.frames[frame.index()].items_mut();
        items.open -= 1;
        if items.of == Children::Passes {
            return self.pass_settled(parent, step, effects);
        }
        self.enqueue_items(parent);
        if self.stops(parent) {
            self.ask_prefix(parent, effects);
        } else if done {
            self.items_done(frame, effects);
        }
    }

    /// Whether prefixes of a step's children may be its value.
    pub(super) fn stops(&self, parent: StepId) -> bool {
        self.node(parent).is_some_and(|node| node.has_stop) && self.unfolds_first(parent)
    }

    /// Asks whether the next prefix is the value, once it is settled.
    pub(super) fn ask_prefix(&mut self, parent: StepId, effects: &mut Effects) {
        if self.steps[parent.index()].deciding.is_some() {
            return;
        }
        let frame = self.steps[parent.index()].child.expect("BUG: a map without a frame");
        let items = self.frames[frame.index()].items();
        if items.asked == items.count {
            return self.items_done(frame, effects);
        }
        let Some(step) = items.steps.get(items.asked as usize) else { return };
        if !self.state(*step).is_terminal() {
            return;
        }
        match &items.failed {
            Some((index, step, error)) if *index == items.asked => {
                let cause = (*step, error.clone());
                self.fail_frame(frame, cause, effects);
            }
            _ => self.decide(parent, DecideField::Stop, effects),
        }
    }

    /// Whether the prefix that was asked about is the value.
    pub(super) fn stop_decided(&mut self, parent: StepId, stops: bool, effects: &mut Effects) {
        let frame = self.steps[parent.index()].child.expect("BUG: a map without a frame");
        let items = self.frames[frame.index()].items_mut();
        items.asked += 1;
        if !stops {
            return self.ask_prefix(parent, effects);
        }
        let length = items.asked;
        let (opened, all) = (items.steps.len() as u32, items.count);
        items.count = if fault::is(Fault::StopKeepsTheRest) { all } else { length };
        if opened > length {
            effects.events.push(Event::Unused { step: parent, from: length });
        }
        if all > length {
            self.unqueue(parent);
        }
        self.close_items(frame, length, effects);
        self.frames[frame.index()].closed = true;
        self.decide(parent, DecideField::Value, effects);
    }

    /// Cancels the items of a frame from a number on.
    fn close_items(&mut self, frame: FrameId, from: u32, effects: &mut Effects) {
        let items = self.frames[frame.index()].items();
        let behind: Vec<StepId> = items.steps.iter().skip(from as usize).copied().collect();
        for step in behind {
            if !self.state(step).is_terminal() {
                self.cancel_with_frames(step, effects);
                let items = self.frames[frame.index()].items_mut();
                items.open -= 1;
            }
        }
    }

    /// An item failed of which a shorter prefix may still be the value: nothing behind it goes on.
    pub(super) fn defer_failure(
        &mut self,
        frame: FrameId,
        cause: (StepId, StepError),
        item: StepId,
        effects: &mut Effects,
    ) {
        let index = self.steps[item.index()].index;
        let parent = self.frames[frame.index()].parent;
        let items = self.frames[frame.index()].items_mut();
        items.open -= 1;
        items.failed = Some((index, cause.0, cause.1));
        self.close_items(frame, index + 1, effects);
        if !self.frames[frame.index()].items().may_open() {
            self.unqueue(parent);
        }
        self.ask_prefix(parent, effects);
    }

    /// Every item is settled: the parent gets its list, unless too few of them succeeded.
    pub(super) fn items_done(&mut self, frame: FrameId, effects: &mut Effects) {
        let parent = self.frames[frame.index()].parent;
        let quorum = self.node(parent).and_then(|node| node.quorum).filter(|_| self.unfolds_first(parent));
        if let Some(quorum) = quorum {
            let wanted = self.count(parent, quorum);
            let items = self.frames[frame.index()].items();
            let counts =
                |step: &&StepId| self.state(**step) == State::Succeeded || fault::is(Fault::QuorumCountsFailed);
            let succeeded = items.steps.iter().filter(counts).count();
            if (succeeded as u64) < u64::from(wanted) {
                let message = format!("{succeeded} of {} items succeeded, and `quorum` wants {wanted}", items.count);
                return self.fail(parent, StepError::terminal("quorum", message), effects);
            }
        }
        self.decide(parent, DecideField::Value, effects);
    }

    /// How many items the prefix has that a [`DecideField::Stop`] asks about.
    pub fn prefix(&self, step: StepId) -> u32 {
        self.child_items(step).map_or(0, |items| items.asked + 1 + u32::from(fault::is(Fault::StopLooksAhead)))
    }

    /// The frame of items, samples or passes that a step opened.
    pub(super) fn child_items(&self, step: StepId) -> Option<&Items> {
        match &self.frames[self.steps[step.index()].child?.index()].body {
            Body::Items(items) => Some(items),
            Body::Nodes { .. } => None,
        }
    }
}
