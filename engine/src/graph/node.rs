//! A checked node: what it waits for, what it does, where the flow goes on, and what a failure means.

use std::sync::{Arc, OnceLock, Weak};

use indexmap::IndexMap;
use serde_json::Value;

use super::Graph;
use crate::calc::Formula;
use crate::definition::{CacheScope, KindSpec};
use crate::dialect::Dialect;
use crate::expr::{Slotted, Template, Tree};
use crate::id::NodeIndex;
use crate::retry::RetryPolicy;
use crate::schema::Schema;

/// A checked node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name, unique in its graph.
    pub name: Arc<str>,
    /// What its innermost child step does.
    pub work: Work,
    /// What must be settled before it is decided, each source once, by index.
    pub dependencies: Vec<Dependency>,
    /// Names around the graph that it requires: the frame's parent waits for them, this node is skipped without them.
    pub requires_outside: Vec<Arc<str>>,
    /// Nodes with a `next` edge to this one, each once, by index.
    pub edges_in: Vec<NodeIndex>,
    /// Of those that are loops: the nodes of their bodies whose edges they are, each once, with the way to them.
    pub edges_from_loops: Vec<(NodeIndex, Inside)>,
    /// How its edges, else the entries of `needs` in `counted`, come together.
    pub join: Join,
    /// Entries of `needs` that `join` counts, when there are no edges and it is not `all`.
    pub counted: Vec<Dependency>,
    /// Such entries outside of the loop whose body the graph is, by name.
    pub counted_outside: Vec<Arc<str>>,
    /// Where the flow goes on: the first case that holds.
    pub next: Vec<Case>,
    /// `on_error: {to}`: of all edges only this one is live after a failure.
    pub error_to: Option<Target>,
    /// Of a loop: what its numbered exits mean in this graph.
    pub exits: Vec<Target>,
    /// Whether it has a `when`.
    pub has_guard: bool,
    /// Whether it maps over items.
    pub for_each: bool,
    /// `as`, when `for_each`.
    pub item_name: Arc<str>,
    /// `index`, when `for_each`.
    pub index_name: Arc<str>,
    /// Whether an item starts when those before it are settled.
    pub sequential: bool,
    /// Whether a prefix of its items or samples may be the value.
    pub has_stop: bool,
    /// How many items or samples must succeed for the others to be allowed to fail.
    pub quorum: Option<Count>,
    /// How many samples, when it has `samples`.
    pub samples: Option<Count>,
    /// Most open items at once; `None`: twice the run's limit.
    pub max_parallel: Option<Count>,
    /// Its own loop.
    pub repeat: Option<Repeat>,
    /// Of a call: most frames of the called workflow inside each other.
    pub max_depth: Option<u32>,
    /// Whether something is evaluated before it starts (a leaf's fields, unless all are constants, a closed frame's `with`).
    pub has_input: bool,
    /// Whether something is evaluated after its work (`schema`, `output`).
    pub has_value: bool,
    /// Retries of a leaf.
    pub retry: RetryPolicy,
    /// Longest time in milliseconds: of one attempt for a leaf, of the whole frame for a group, call or expansion.
    pub timeout_ms: Option<u64>,
    /// What a failure means to the frame.
    pub on_error: OnError,
    /// What an item's failure means to the map.
    pub on_item_error: OnItemError,
    /// Whether it, or something in it, acts on the world: a tool, a person.
    pub has_effect: bool,
    /// Whether something beside its consumers reads it: `output`, `last`, `past`.
    pub is_kept: bool,
    /// Longest path to the end of the graph in nodes, from 1. Set by [`Graph::build`].
    pub rank: u32,
    /// How many nodes it waits for. Set by [`Graph::build`].
    pub sources: u32,
    /// The compiled fields: for the driver.
    pub code: Arc<NodeCode>,
}

/// What a child step does once its guard, items and samples are settled.
#[derive(Clone, Debug)]
pub enum Work {
    /// Runs a [`Node`](crate::node::Node) of the kind; holds a slot.
    Leaf,
    /// The driver evaluates it: `set`, `calc`. Decided, never started, holds no slot.
    Value,
    /// Opens a frame over the graph, which sees the names around it.
    Group(Arc<Graph>),
    /// A flowchart loop: each pass opens a frame over the body, which sees the names around it. The node is made by the checker.
    Loop(Arc<Graph>),
    /// Opens a closed frame over another workflow's graph, filled by the input.
    Call(Called),
    /// Opens a closed frame over a graph that the driver makes out of a plan.
    Expand,
    /// Asks a person: suspended until there is an answer; holds no slot.
    Human {
        /// Whether a value takes the answer's place when its time is over.
        has_default: bool,
    },
}

/// The graph of a called workflow.
#[derive(Clone, Debug)]
pub enum Called {
    /// Another workflow's.
    Other(Arc<Graph>),
    /// That of a workflow which this call is part of; known once that is checked, and alive as long as it is.
    Around(Arc<OnceLock<Weak<Graph>>>),
}

impl Called {
    /// The graph.
    pub fn graph(&self) -> Arc<Graph> {
        match self {
            Called::Other(graph) => graph.clone(),
            Called::Around(graph) => graph.get().and_then(Weak::upgrade).expect("BUG: a called graph is gone"),
        }
    }
}

/// One source of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The node that is waited for.
    pub source: NodeIndex,
    /// If that is a loop: the node of its body that is meant, through the loops in it; as of the last pass.
    pub inside: Inside,
    /// What its end means.
    pub mode: DependencyMode,
}

/// The way from a loop to a node of its body; empty for a node that stands in no loop.
pub type Inside = Vec<NodeIndex>;

/// How sources come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Of edges: at least one is live. Of `needs`: every entry has succeeded, by its own requiredness.
    Default,
    /// Every edge is live.
    All,
    /// At least one, once all are settled.
    Any,
    /// The first one; the others are not waited for.
    First,
    /// At least so many, once all are settled.
    Quorum(u32),
}

/// One case of `next`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Whether it has a condition, in [`NodeCode::cases`].
    pub guarded: bool,
    /// Where to; several: at once.
    pub to: Vec<Target>,
    /// Of an edge upwards: its bound.
    pub bound: Option<EdgeBound>,
}

/// Where an edge leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a node of the same graph.
    Node(NodeIndex),
    /// Back to the header of the loop whose body the graph is.
    Again,
    /// Out of the loop whose body the graph is; what that means stands in [`Node::exits`] of the loop.
    Exit(u32),
}

/// How often an edge upwards may be taken each time its loop is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeBound {
    /// Which loop around: 0 is the innermost.
    pub loops_out: u32,
    /// Number of the edge among those of the loop.
    pub number: u32,
    /// How often.
    pub max: Count,
    /// Whether a spent bound fails the node.
    pub fails: bool,
}

/// A node's own loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Most passes.
    pub max: Count,
    /// Whether it is asked after each pass whether to go on.
    pub has_until: bool,
    /// Whether passes that end without `until` fail the node.
    pub fails: bool,
}

/// What the end of a source means to its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DependencyMode {
    /// Waited for, nothing more: a name that only the body mentions (a capture).
    Waits,
    /// Reads as null unless it succeeded.
    Optional,
    /// The consumer is skipped unless it succeeded.
    Required,
}

/// A number that is known when the file is read, or an expression over inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Written as a number.
    Fixed(u32),
    /// Evaluated when the node opens; its number in [`NodeCode::counts`].
    Decided(u32),
}

/// What a failure of a node means, after retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The frame fails.
    Fail,
    /// Dependents treat it as skipped.
    Skip,
    /// A declared value takes its place.
    Value,
    /// As `Skip`, and the flow goes on at [`Node::error_to`].
    To,
}

/// What a failure of an item means to its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnItemError {
    /// The map fails.
    Fail,
    /// The item leaves the list.
    Drop,
    /// The item reads as null.
    Skip,
    /// A declared value takes its place.
    Value,
}

/// The compiled side of a node: everything that the driver evaluates or hands to a kind.
#[derive(Debug, Default)]
pub struct NodeCode {
    /// Name of the kind.
    pub kind: String,
    /// Description of the kind; `None` only in structural tests.
    pub spec: Option<Arc<KindSpec>>,
    /// `when`.
    pub guard: Option<Box<Tree>>,
    /// `for_each`.
    pub items: Option<Box<Tree>>,
    /// Counts that are expressions, with the keys that they stand at.
    pub counts: Vec<(&'static str, Tree)>,
    /// `stop_when`.
    pub stop: Option<Box<Tree>>,
    /// `repeat.until`.
    pub until: Option<Box<Tree>>,
    /// Conditions of the cases of `next`.
    pub cases: Vec<Option<Tree>>,
    /// The kind's fields by name, in file order.
    pub fields: IndexMap<Arc<str>, Field>,
    /// What the value must satisfy.
    pub schema: Option<Schema>,
    /// `output`.
    pub output: Option<Box<Tree>>,
    /// `on_error: {value}`.
    pub error_value: Option<Box<Tree>>,
    /// `on_item_error: {value}`.
    pub item_error_value: Option<Box<Tree>>,
    /// Beside `ask`: what `needs` names and the text does not mention; appended as questions and answers, in this order.
    pub appended: Vec<Arc<str>>,
    /// Beside `graph`: limits and allow-list of the expansion.
    pub expansion: Option<Arc<ExpansionRules>>,
    /// Whether and how its answers are kept.
    pub cache: CachePolicy,
}

/// Whether and how the answers of a node are kept (`cache`, `key`, `salt`, `ttl`).
#[derive(Debug, Default)]
pub struct CachePolicy {
    /// How far they go.
    pub scope: CacheScope,
    /// What stands in the key in place of the rendered input.
    pub key: Option<Box<Tree>>,
    /// What the key has beside it.
    pub salt: Option<Box<Tree>>,
    /// How old an answer may be, in milliseconds.
    pub ttl_ms: Option<u64>,
}

impl Field {
    /// Whether it is the same for every step, so that nothing need be evaluated.
    pub fn is_constant(&self) -> bool {
        self.constant().is_some()
    }

    /// The value that it has for every step.
    pub fn constant(&self) -> Option<&Value> {
        match self {
            Field::Literal(value) => Some(value),
            Field::Tree(tree) => tree.constant(),
            Field::Template(_) | Field::Slotted(_) | Field::Formula(_) => None,
        }
    }
}

impl NodeCode {
    /// Whether it may ask a model, so that its input has an allowance and an identity.
    pub fn asks(&self) -> bool {
        self.fields.contains_key("model") || self.spec.as_ref().is_some_and(|spec| spec.calls_model)
    }

    pub(super) fn trees_mut(&mut self) -> impl Iterator<Item = &mut Tree> {
        let before = [&mut self.guard, &mut self.items, &mut self.stop];
        let after = [&mut self.output, &mut self.error_value, &mut self.item_error_value];
        let kept = [&mut self.cache.key, &mut self.cache.salt];
        let single = before.into_iter().chain(after).chain(kept).flatten().map(|tree| &mut **tree);
        let counts = self.counts.iter_mut().map(|(_, tree)| tree);
        single.chain(counts).chain(self.cases.iter_mut().flatten())
    }
}

/// What an expansion may contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpansionRules {
    /// Which words a plan may use.
    pub dialect: Dialect,
    /// Most nodes, the appended `answer` apart.
    pub nodes_max: u32,
    /// Most times that a loop repeats.
    pub iterations_max: u32,
    /// Kinds that may occur.
    pub kinds: Vec<String>,
    /// Model aliases that may occur beside the default.
    pub models: Vec<String>,
    /// Tools that may occur.
    pub tools: Vec<String>,
    /// Whether a step that fails ends the expansion, in place of being an entry of `errors`.
    pub steps_fail: bool,
}

impl ExpansionRules {
    /// Most times that a loop of a plan repeats, when `limits.iterations` beside `graph` does not say.
    pub const ITERATIONS_MAX: u32 = 50;

    /// The default allow-list: `llm` and `calc`, the default model, and the given number of nodes.
    pub fn new(nodes_max: u32) -> Self {
        Self {
            dialect: Dialect::Graph,
            nodes_max,
            iterations_max: Self::ITERATIONS_MAX,
            kinds: vec!["llm".into(), "calc".into()],
            models: Vec::new(),
            tools: Vec::new(),
            steps_fail: false,
        }
    }
}

/// A compiled field of a kind.
#[derive(Debug)]
pub enum Field {
    /// Text with `{{ }}`.
    Template(Box<Template>),
    /// Literal text with `{id}` slots.
    Slotted(Slotted),
    /// A formula.
    Formula(Formula),
    /// A tree of expressions.
    Tree(Tree),
    /// A value as it stands.
    Literal(Value),
}

impl Node {
    /// A node with defaults everywhere: no dependencies, fails its frame on error.
    pub fn new(name: &str, work: Work) -> Self {
        Self {
            name: name.into(),
            work,
            dependencies: Vec::new(),
            requires_outside: Vec::new(),
            edges_in: Vec::new(),
            edges_from_loops: Vec::new(),
            join: Join::Default,
            counted: Vec::new(),
            counted_outside: Vec::new(),
            next: Vec::new(),
            error_to: None,
            exits: Vec::new(),
            has_guard: false,
            for_each: false,
            item_name: "item".into(),
            index_name: "index".into(),
            sequential: false,
            has_stop: false,
            quorum: None,
            samples: None,
            max_parallel: None,
            repeat: None,
            max_depth: None,
            has_input: false,
            has_value: false,
            retry: RetryPolicy::NONE,
            timeout_ms: None,
            on_error: OnError::Fail,
            on_item_error: OnItemError::Fail,
            has_effect: false,
            is_kept: false,
            rank: 0,
            sources: 0,
            code: Arc::default(),
        }
    }

    /// Whether its work is done in passes.
    pub fn loops(&self) -> bool {
        self.repeat.is_some() || matches!(self.work, Work::Loop(_))
    }

    /// The nodes that it waits for, each once, by index.
    pub fn waits_for(&self) -> Vec<NodeIndex> {
        let dependencies = self.dependencies.iter().map(|dependency| dependency.source);
        let mut sources: Vec<NodeIndex> = dependencies.chain(self.edges_in.iter().copied()).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }
}
