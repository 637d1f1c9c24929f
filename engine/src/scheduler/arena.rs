//! What the scheduler knows: steps and frames in two flat arenas.
//!
//! Items, samples, passes, groups, calls and expansions are all frames under a parent step. A step refers to its node by index in
//! the graph of its frame; a frame of items shares the graph of the node that unfolds.

use std::sync::Arc;

use crate::event::DecideField;
use crate::failure::StepError;
use crate::graph::{Graph, Node};
use crate::id::{FrameId, NodeIndex, StepId, ValueHash};
use crate::state::State;

/// Which part of its node a step stands for: a node unfolds into items, an item into samples, a sample into passes, and the
/// last does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// `for_each`: opens a frame of items.
    Items,
    /// `samples`: opens a frame of samples.
    Samples,
    /// `repeat`, or a flowchart loop: opens a frame of passes.
    Passes,
    /// Does what the node's [`Work`](crate::graph::Work) says.
    Work,
}

impl Layer {
    /// The layer of a node's own step.
    pub(super) fn first(node: &Node) -> Self {
        if node.for_each { Layer::Items } else { Layer::Items.below(node) }
    }

    /// The layer of the child steps of this layer.
    pub(super) fn below(self, node: &Node) -> Self {
        match self {
            Layer::Items if node.samples.is_some() => Layer::Samples,
            Layer::Items | Layer::Samples if node.loops() => Layer::Passes,
            _ => Layer::Work,
        }
    }
}

/// Where the flow went on after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Nowhere, or not yet.
    None,
    /// As this case of `next` says.
    Case(u32),
    /// As `on_error: {to}` says.
    Error,
}

/// Whether an attempt's end is awaited. While it is, it holds a slot and its allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flight {
    None,
    Open,
    /// It was told to stop.
    Cancelled,
}

/// One execution of a node, or of one item or sample of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) frame: FrameId,
    pub(super) node: NodeIndex,
    pub(super) layer: Layer,
    pub(super) state: State,
    /// The decision that is awaited, if any.
    pub(super) deciding: Option<DecideField>,
    /// Whether it, or its map, stands in the ready queue.
    pub(super) queued: bool,
    /// Whether its answer is there or on its way, so that it does not start.
    pub(super) held: bool,
    /// Number among the items, samples or passes; 0 for a node's own step.
    pub(super) index: u32,
    /// Sources that are not settled.
    pub(super) pending: u32,
    /// Which of its edges are live.
    pub(super) route: Route,
    /// Attempts started.
    pub(super) attempt: u32,
    /// Whether the latest of them is in flight.
    pub(super) flight: Flight,
    /// Most model calls of one attempt.
    pub(super) calls: u32,
    /// The frame that it opened.
    pub(super) child: Option<FrameId>,
    /// Why it failed, or what its value takes the place of.
    pub(super) error: Option<Box<StepError>>,
}

impl Step {
    pub(super) fn new(frame: FrameId, node: NodeIndex, layer: Layer) -> Self {
        Self {
            frame,
            node,
            layer,
            state: State::Waiting,
            deciding: None,
            queued: false,
            held: false,
            index: 0,
            pending: 0,
            route: Route::None,
            attempt: 0,
            flight: Flight::None,
            calls: 0,
            child: None,
            error: None,
        }
    }
}

/// What a step was given and what it gave. Kept apart from the rest, which is looked at far more often: the smaller that is,
/// the more of it is at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Hashes {
    pub(super) input: Option<ValueHash>,
    /// The value; before `schema` and `output` have been decided, the raw one.
    pub(super) value: Option<ValueHash>,
}

/// A graph that compares by identity: two frames are equal when they run the same checked graph.
#[derive(Clone, Debug)]
pub(super) struct SharedGraph(pub(super) Arc<Graph>);

impl PartialEq for SharedGraph {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Steps under a parent step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) parent: StepId,
    pub(super) graph: SharedGraph,
    pub(super) body: Body,
    /// Child steps that are not settled, unopened items included.
    pub(super) unsettled: u32,
    /// It failed or was cancelled: nothing in it moves any more.
    pub(super) closed: bool,
    /// Rank of the parent step.
    pub(super) rank: u32,
    /// Path of the parent step as numbers.
    pub(super) order: Arc<[u32]>,
    /// Nesting, from 0 for the root's frame.
    pub(super) depth: u32,
}

impl Frame {
    pub(super) fn is_items(&self) -> bool {
        matches!(self.body, Body::Items(_))
    }

    pub(super) fn items(&self) -> &Items {
        match &self.body {
            Body::Items(items) => items,
            Body::Nodes { .. } => panic!("BUG: items expected"),
        }
    }

    pub(super) fn items_mut(&mut self) -> &mut Items {
        match &mut self.body {
            Body::Items(items) => items,
            Body::Nodes { .. } => panic!("BUG: items expected"),
        }
    }
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    /// One step per node, contiguous in the arena.
    Nodes {
        /// Step of the first node.
        first: StepId,
    },
    /// Items, samples or passes, opened one by one.
    Items(Box<Items>),
}

/// What the children of a frame of [`Items`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Children {
    /// Elements of a list.
    Items { list: ValueHash, sequential: bool },
    /// Answers to the same input.
    Samples,
    /// Passes of a loop.
    Passes,
}

/// A rolling window over items, samples or passes: `open` of them have steps that are not settled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Items {
    pub(super) of: Children,
    /// How many there are; of passes: how many there may be.
    pub(super) count: u32,
    /// Steps of those opened so far, in order.
    pub(super) steps: Vec<StepId>,
    pub(super) open: u32,
    pub(super) window: u32,
    pub(super) layer: Layer,
    /// Length of the longest prefix that `stop_when` was asked about in vain.
    pub(super) asked: u32,
    /// The first item with a failure that takes effect once the items before it are settled; and what failed.
    pub(super) failed: Option<(u32, StepId, StepError)>,
    /// How often each edge back to the header was taken.
    pub(super) taken: Vec<u32>,
    /// Whether an edge back would have been taken in this pass, and was spent.
    pub(super) spent: bool,
    /// The edges out of the loop that are live.
    pub(super) exits: Vec<u32>,
}

impl Items {
    pub(super) fn new(of: Children, count: u32, window: u32, layer: Layer) -> Self {
        Self {
            of,
            count,
            steps: Vec::new(),
            open: 0,
            window,
            layer,
            asked: 0,
            failed: None,
            taken: Vec::new(),
            spent: false,
            exits: Vec::new(),
        }
    }

    /// Whether each child sees what those before it gave.
    pub(super) fn loops(&self) -> bool {
        matches!(self.of, Children::Passes | Children::Items { sequential: true, .. })
    }

    /// Whether there is one to open, and room for it.
    pub(super) fn may_open(&self) -> bool {
        let end = self.failed.as_ref().map_or(self.count, |(index, ..)| index + 1);
        self.of != Children::Passes && (self.steps.len() as u32) < end && self.open < self.window
    }
}
