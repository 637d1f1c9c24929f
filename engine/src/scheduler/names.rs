//! Look-ups: what a name means to a step, what a frame's children came to, what a step is called.
//!
//! A name is searched from the frame that contains the step outwards, through groups and items, up to the first closed
//! frame (a workflow or a plan), whose inputs are the last to be asked. O(depth) per name.

use std::sync::Arc;

use super::arena::{Body, Children as Of, Layer};
use super::{Scheduler, advance};
use crate::event::DecideField;
use crate::fault::{self, Fault};
use crate::graph::{OnItemError, Work};
use crate::id::{FrameId, NodeIndex, StepId, ValueHash};
use crate::state::State;

/// Whose names are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The names around a step.
    Step(StepId),
    /// The names inside the frame that a step opened, for its `output`.
    Body(StepId),
}

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// A value.
    Value(ValueHash),
    /// A node that was skipped, failed or cancelled, that lost a race, or that stands in a loop which never ran.
    Null,
    /// The number of an item, from 0.
    Number(u32),
    /// An element of a list.
    Item {
        /// The list.
        list: ValueHash,
        /// Which element, from 0.
        index: u32,
    },
    /// An input of the closed frame that a step opened; of the run, if that is the root.
    Input {
        /// The step.
        frame_step: StepId,
    },
    /// A node that is not settled: only seen while looking for the best output of a run that ended early.
    Unsettled(StepId),
    /// No such name here.
    Unknown,
}

enum Found {
    Node(StepId),
    /// A node without a step to read; the step that stands for the reason.
    Absent(StepId),
    Item {
        list: ValueHash,
        index: u32,
    },
    Number(u32),
    Input {
        frame_step: StepId,
    },
    Nothing,
}

/// What a child step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildResult {
    /// It has a value.
    Value(ValueHash),
    /// It has none, and reads as null.
    Null,
    /// It is no longer an element of its list.
    Dropped,
    /// It is not settled, or was never opened.
    Unsettled(Option<StepId>),
}

/// The children of a frame step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Children {
    /// Items or samples, in order.
    Items(Vec<ChildResult>),
    /// Nodes in file order, each with its step.
    Nodes(Vec<(NodeIndex, StepId, ChildResult)>),
}

impl Scheduler {
    /// What a name means.
    pub fn resolve(&self, scope: Scope, name: &str) -> Resolved {
        match self.find(scope, name) {
            Found::Node(step) => self.resolved(step),
            Found::Absent(_) => Resolved::Null,
            Found::Item { list, index } => Resolved::Item { list, index },
            Found::Number(number) => Resolved::Number(number),
            Found::Input { frame_step } => Resolved::Input { frame_step },
            Found::Nothing => Resolved::Unknown,
        }
    }

    /// The step of a node of the graph in which a text is evaluated.
    pub fn step_of(&self, scope: Scope, node: NodeIndex) -> StepId {
        let mut frame = match scope {
            Scope::Step(step) => self.frame_of(step),
            Scope::Body(step) => {
                &self.frames[self.steps[step.index()].child.expect("BUG: a body without a frame").index()]
            }
        };
        loop {
            match frame.body {
                Body::Nodes { first } => return advance::child(first, node),
                Body::Items(_) => frame = self.frame_of(frame.parent),
            }
        }
    }

    /// The step of the node that a name means, if it means one.
    pub fn resolve_step(&self, scope: Scope, name: &str) -> Option<StepId> {
        if let Found::Node(step) = self.find(scope, name) { Some(step) } else { None }
    }

    /// The step of a name around a step's frame that did not succeed, if it names a node and that gave nothing.
    pub(super) fn missing_outside(&self, step: StepId, name: &str) -> Option<StepId> {
        self.missing(Scope::Step(step), name)
    }

    /// The same for the `output` of the frame that a step opened.
    pub(super) fn missing_outside_of_body(&self, step: StepId, name: &str) -> Option<StepId> {
        self.missing(Scope::Body(step), name)
    }

    fn missing(&self, scope: Scope, name: &str) -> Option<StepId> {
        match self.find(scope, name) {
            Found::Node(source) => (self.state(source) != State::Succeeded).then_some(source),
            Found::Absent(reason) => Some(reason),
            _ => None,
        }
    }

    /// The step of a node in the body of a loop, as of its last pass; of no loop if the way is empty. `Err`: the loop in
    /// question has no pass.
    pub(super) fn inside(&self, step: StepId, way: &[NodeIndex]) -> Result<StepId, StepId> {
        way.iter().try_fold(step, |at, node| {
            let pass = self.last_pass(at).ok_or(at)?;
            self.child(pass, *node).ok_or(at)
        })
    }

    /// The frame in which a text of a step is evaluated, and the step through which it is reached.
    pub(super) fn scope_frame(&self, scope: Scope) -> (FrameId, Option<StepId>) {
        match scope {
            Scope::Step(step) => (self.steps[step.index()].frame, Some(step)),
            Scope::Body(step) => (self.steps[step.index()].child.expect("BUG: a body without a frame"), None),
        }
    }

    fn find(&self, scope: Scope, name: &str) -> Found {
        let (mut frame_id, mut through) = self.scope_frame(scope);
        while let Some(frame) = self.frames.get(frame_id.index()) {
            match &frame.body {
                Body::Items(items) => {
                    let node = frame.graph.0.node(self.steps[frame.parent.index()].node);
                    if let (Of::Items { list, .. }, Some(item)) = (items.of, through) {
                        let index = self.steps[item.index()].index;
                        if *node.item_name == *name {
                            return Found::Item { list, index };
                        }
                        if *node.index_name == *name {
                            return Found::Number(index);
                        }
                    }
                }
                Body::Nodes { first } => {
                    let graph = &frame.graph.0;
                    let way = graph.find_anywhere(name);
                    if let Some((node, way)) = way {
                        let source = advance::child(*first, node);
                        if through.is_some_and(|step| self.lost(step, node)) {
                            return Found::Absent(source);
                        }
                        return self.inside(source, way).map_or_else(Found::Absent, Found::Node);
                    }
                    if let Some(inputs) = &graph.inputs {
                        let known = inputs.contains_key(name);
                        return if known { Found::Input { frame_step: frame.parent } } else { Found::Nothing };
                    }
                }
            }
            through = Some(frame.parent);
            frame_id = self.steps[frame.parent.index()].frame;
        }
        Found::Nothing
    }

    /// The list that the items of a step come from; `None` if it has no frame of items.
    pub fn items(&self, step: StepId) -> Option<ValueHash> {
        match self.child_items(step)?.of {
            Of::Items { list, .. } => Some(list),
            Of::Samples | Of::Passes => None,
        }
    }

    /// What a step came to.
    pub fn resolved(&self, step: StepId) -> Resolved {
        let data = &self.steps[step.index()];
        match (data.state, self.value(step)) {
            (State::Succeeded, Some(value)) => Resolved::Value(value),
            // Its `next` is being decided: it knows its own value.
            (_, Some(value)) if data.deciding == Some(DecideField::Route) => Resolved::Value(value),
            (state, _) if state.is_terminal() && !self.was_cut_off(step) => Resolved::Null,
            _ => Resolved::Unsettled(step),
        }
    }

    /// Whether a step was cancelled because the run's means ran out: its finished part still counts for the best output.
    fn was_cut_off(&self, step: StepId) -> bool {
        self.wants(StepId::ROOT, DecideField::BestOutput)
            && self.state(step) == State::Cancelled
            && self.steps[step.index()].child.is_some()
    }

    /// What the children of a frame step came to; `None` if it opened no frame.
    pub fn children(&self, step: StepId) -> Option<Children> {
        let frame = &self.frames[self.steps[step.index()].child?.index()];
        Some(match &frame.body {
            Body::Items(items) => {
                let opened = items.steps.iter().map(|step| self.child_result(*step)).take(items.count as usize);
                let unopened = (items.count as usize).saturating_sub(items.steps.len());
                let unopened = if items.of == Of::Passes { 0 } else { unopened };
                Children::Items(opened.chain(std::iter::repeat_n(ChildResult::Unsettled(None), unopened)).collect())
            }
            Body::Nodes { first } => {
                let indices = (0..frame.graph.0.nodes().len() as u32).map(NodeIndex);
                let steps = indices.map(|index| (index, advance::child(*first, index)));
                Children::Nodes(steps.map(|(index, step)| (index, step, self.child_result(step))).collect())
            }
        })
    }

    /// What the children of the first so many items of a step came to, for `stop_when`.
    pub fn prefix_children(&self, step: StepId) -> Vec<ChildResult> {
        let items = self.child_items(step).expect("BUG: a prefix without items");
        items.steps.iter().take(self.prefix(step) as usize).map(|step| self.child_result(*step)).collect()
    }

    /// What a step came to, as an entry of the list or map that it is part of.
    pub fn child_result(&self, step: StepId) -> ChildResult {
        let is_item = matches!(self.frame_of(step).body, Body::Items(_));
        let drops = is_item && self.node(step).is_some_and(|node| node.on_item_error == OnItemError::Drop);
        match self.resolved(step) {
            Resolved::Value(value) => ChildResult::Value(value),
            Resolved::Unsettled(step) => ChildResult::Unsettled(Some(step)),
            _ if drops && self.state(step) == State::Failed && !fault::is(Fault::DroppedIsNull) => ChildResult::Dropped,
            _ => ChildResult::Null,
        }
    }

    /// The step of a node inside the frame that a step opened.
    pub fn child(&self, step: StepId, node: NodeIndex) -> Option<StepId> {
        match self.frames[self.steps[step.index()].child?.index()].body {
            Body::Nodes { first } => Some(advance::child(first, node)),
            Body::Items(_) => None,
        }
    }

    /// The graph of the frame that a step opened.
    pub fn body(&self, step: StepId) -> Option<&Arc<crate::graph::Graph>> {
        let frame = &self.frames[self.steps[step.index()].child?.index()];
        matches!(frame.body, Body::Nodes { .. }).then_some(&frame.graph.0)
    }

    /// The step that opened the frame in which a step stands; `None` for the root.
    pub fn parent(&self, step: StepId) -> Option<StepId> {
        self.frames.get(self.steps[step.index()].frame.index()).map(|frame| frame.parent)
    }

    /// Whether a step stands for its whole node (and not for one item, sample or pass of it).
    pub fn is_own_step(&self, step: StepId) -> bool {
        step == StepId::ROOT || !self.frame_of(step).is_items()
    }

    /// The step that stands for the whole node of a step.
    pub fn own_step(&self, mut step: StepId) -> StepId {
        while !self.is_own_step(step) {
            step = self.frame_of(step).parent;
        }
        step
    }

    /// Whether a step does its node's work (and does not unfold into items or samples).
    pub fn does_work(&self, step: StepId) -> bool {
        self.steps[step.index()].layer == Layer::Work
    }

    /// Whether a step works on a rendered input of its own: a leaf, or a person.
    pub fn is_leaf(&self, step: StepId) -> bool {
        let leaf = |node: &crate::graph::Node| matches!(node.work, Work::Leaf | Work::Human { .. });
        self.does_work(step) && self.node(step).is_some_and(leaf)
    }

    /// What people call a step: `solve[3]/sub`; empty for the root. A node of the workflow itself is called by its own name.
    pub fn path(&self, step: StepId) -> Arc<str> {
        if let Some((graph, node)) = self.place(step)
            && self.frame_of(step).parent == StepId::ROOT
        {
            return graph.node(node).name.clone();
        }
        let mut parts = Vec::new();
        let mut at = step;
        while at != StepId::ROOT {
            let frame = self.frame_of(at);
            let index = self.steps[at.index()].index;
            match &frame.body {
                Body::Items(items) if items.of == Of::Passes => parts.push(format!("#{index}")),
                Body::Items(_) => parts.push(format!("[{index}]")),
                Body::Nodes { .. } => {
                    let (around, passes) = self.flow_passes(frame.parent);
                    let slash = if around == StepId::ROOT { "" } else { "/" };
                    let mark = if passes.is_empty() { "" } else { "#" };
                    parts.push(format!("{slash}{}{mark}{}", self.name(at), passes.join(".")));
                    at = around;
                    continue;
                }
            }
            at = frame.parent;
        }
        parts.reverse();
        parts.concat().into()
    }

    /// The step whose frame holds the flowchart loops around a frame's parent, and their passes, outermost first.
    fn flow_passes(&self, mut parent: StepId) -> (StepId, Vec<String>) {
        let mut passes = Vec::new();
        while self.does_work(parent) && self.node(parent).is_some_and(|node| matches!(node.work, Work::Loop(_))) {
            passes.push(self.steps[parent.index()].index.to_string());
            let own = self.frame_of(parent).parent;
            parent = self.frame_of(own).parent;
        }
        passes.reverse();
        (parent, passes)
    }

    /// Name of a step's node; empty for the root.
    pub fn name(&self, step: StepId) -> &str {
        self.node(step).map_or("", |node| &node.name)
    }

    /// The frame of the run.
    pub(super) const ROOT_FRAME: FrameId = FrameId(0);
}
