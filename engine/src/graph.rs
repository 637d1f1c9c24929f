//! The checked, immutable graph of a frame: what may be trusted.
//!
//! A [`Graph`] is acyclic by construction ([`Graph::build`] refuses cycles), knows for each node who consumes it and how
//! long the longest path to the end is. The scheduler reads only the structure (dependencies, guards, joins, policies);
//! the compiled expressions in [`NodeCode`] are for the driver alone.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::DiGraph;
use serde_json::Value;

use crate::calc::Formula;
use crate::definition::{KindSpec, ModelDef, WorkflowDef};
use crate::dialect::Dialect;
use crate::expr::{NameUse, Slotted, Template, Tree};
use crate::id::{NodeIndex, ValueHash};
use crate::retry::RetryPolicy;
use crate::schema::Schema;

/// A checked workflow: everything a run needs, immutable and shared.
#[derive(Debug)]
pub struct Workflow {
    /// Its name.
    pub name: String,
    /// The nodes of the root frame; its `inputs` are the workflow's.
    pub graph: Arc<Graph>,
    /// `budget.calls`.
    pub calls_max: Option<u64>,
    /// Limits with the defaults filled in.
    pub limits: Limits,
    /// Identity of the definition: the hash of its canonical text.
    pub hash: ValueHash,
    /// What was written, for `flowrun graph` and the record.
    pub definition: WorkflowDef,
}

/// Sizes that nothing may exceed. Each error names the limit that it hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps of a run; reaching it ends the run as `exhausted`.
    pub steps: u64,
    /// Items of one `for_each`, samples of one node.
    pub items: u64,
    /// Nesting of frames.
    pub depth: u32,
    /// Nodes of one expansion, the appended `answer` apart.
    pub nodes: u32,
    /// Bytes of one value as JSON text.
    pub output_bytes: u64,
    /// Passes of one loop.
    pub iterations: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 1_000_000, items: 100_000, depth: 16, nodes: 50, output_bytes: 1 << 20, iterations: 10_000 }
    }
}

/// An acyclic graph of nodes: the body of a frame.
#[derive(Debug)]
pub struct Graph {
    nodes: Vec<Node>,
    consumers: Vec<NodeIndex>,
    consumers_start: Vec<u32>,
    by_name: IndexMap<Arc<str>, NodeIndex>,
    /// Declared inputs of a closed graph (a workflow or a plan); `None` for a group, which sees the names around it.
    pub inputs: Option<IndexMap<String, Input>>,
    /// Model aliases that a workflow declares; nodes further in see those further out.
    pub models: IndexMap<String, Arc<ModelDef>>,
    /// The frame's value; `None`: the map of all values.
    pub output: Option<Tree>,
    /// Nodes that `output` requires: if one did not succeed, the frame's parent is skipped.
    pub output_requires: Vec<NodeIndex>,
    /// A plan's graph: the value of its frame is `{answer, steps, errors}`.
    pub expansion: bool,
    /// Identity of the definition that this graph was built from.
    pub hash: ValueHash,
}

/// A checked input.
#[derive(Clone, Debug)]
pub struct Input {
    /// What the value must satisfy.
    pub schema: Schema,
    /// The value when none is given; `None`: required.
    pub default: Option<Value>,
}

/// A checked node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name, unique in its graph.
    pub name: Arc<str>,
    /// What its innermost child step does.
    pub work: Work,
    /// What must be settled before it is decided, each source once, by index.
    pub dependencies: Vec<Dependency>,
    /// `join: any`: these sources are counted, and at least one must have succeeded. (`all` is the dependencies' own rule.)
    pub any_of: Option<Vec<NodeIndex>>,
    /// Whether it has a `when`.
    pub has_guard: bool,
    /// Whether it maps over items.
    pub for_each: bool,
    /// `as`, when `for_each`.
    pub item_name: Arc<str>,
    /// How many samples, when it has `samples`.
    pub samples: Option<Count>,
    /// Most open items at once; `None`: twice the run's limit.
    pub max_parallel: Option<Count>,
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
    /// Longest path to the end of the graph in nodes, from 1. Set by [`Graph::build`].
    pub rank: u32,
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
    /// Opens a closed frame over another workflow's graph, filled by the input.
    Call(Arc<Graph>),
    /// Opens a closed frame over a graph that the driver makes out of a plan.
    Expand,
}

/// One source of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The node that is waited for.
    pub source: NodeIndex,
    /// What its end means.
    pub mode: DependencyMode,
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
    /// Evaluated when the node opens.
    Decided,
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
    /// `samples`, when it is an expression.
    pub samples: Option<Box<Tree>>,
    /// `max_parallel`, when it is an expression.
    pub max_parallel: Option<Box<Tree>>,
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
    pub appended: Vec<NodeIndex>,
    /// Beside `graph`: limits and allow-list of the expansion.
    pub expansion: Option<Arc<ExpansionRules>>,
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

    fn trees_mut(&mut self) -> impl Iterator<Item = &mut Tree> {
        let before = [&mut self.guard, &mut self.items, &mut self.samples, &mut self.max_parallel];
        let after = [&mut self.output, &mut self.error_value, &mut self.item_error_value];
        before.into_iter().chain(after).flatten().map(|tree| &mut **tree)
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
            any_of: None,
            has_guard: false,
            for_each: false,
            item_name: "item".into(),
            samples: None,
            max_parallel: None,
            has_input: false,
            has_value: false,
            retry: RetryPolicy::NONE,
            timeout_ms: None,
            on_error: OnError::Fail,
            on_item_error: OnItemError::Fail,
            rank: 0,
            code: Arc::default(),
        }
    }

    /// Whether a step of this node unfolds into items or samples before its work.
    pub fn unfolds(&self) -> bool {
        self.for_each || self.samples.is_some()
    }
}

impl Graph {
    /// Builds the graph out of nodes whose dependencies point at indices of the same list.
    ///
    /// Computes consumers and ranks in O(nodes + edges) without recursion. The error is a shortest cycle, as its nodes in
    /// order, of every set of nodes that need each other.
    pub fn build(mut nodes: Vec<Node>) -> Result<Self, Vec<Vec<NodeIndex>>> {
        let mut graph = DiGraph::<(), (), u32>::with_capacity(nodes.len(), nodes.len());
        nodes.iter().for_each(|_| {
            graph.add_node(());
        });
        for (index, node) in nodes.iter().enumerate() {
            for dependency in &node.dependencies {
                graph.add_edge(dependency.source.0.into(), (index as u32).into(), ());
            }
        }
        let order = toposort(&graph, None).map_err(|_| cycles(&graph))?;
        for &index in order.iter().rev() {
            let longest = graph.neighbors(index).map(|consumer| nodes[consumer.index()].rank).max();
            nodes[index.index()].rank = longest.unwrap_or(0) + 1;
        }
        let mut consumers = Vec::with_capacity(graph.edge_count());
        let mut consumers_start = Vec::with_capacity(nodes.len() + 1);
        for index in graph.node_indices() {
            consumers_start.push(consumers.len() as u32);
            let from = consumers.len();
            consumers.extend(graph.neighbors(index).map(|consumer| NodeIndex(consumer.index() as u32)));
            consumers[from..].sort_unstable();
        }
        consumers_start.push(consumers.len() as u32);
        let by_name =
            nodes.iter().enumerate().map(|(index, node)| (node.name.clone(), NodeIndex(index as u32))).collect();
        Ok(Self {
            nodes,
            consumers,
            consumers_start,
            by_name,
            inputs: None,
            models: IndexMap::new(),
            output: None,
            output_requires: Vec::new(),
            expansion: false,
            hash: ValueHash::of_bytes(b""),
        })
    }

    /// Tells every compiled text which node of this graph each of its names means.
    pub(crate) fn bind_names(&mut self) {
        let by_name = &self.by_name;
        let mut tell = |mention: &mut NameUse| mention.node = by_name.get(&mention.name).copied();
        for node in &mut self.nodes {
            let code = Arc::get_mut(&mut node.code).expect("BUG: a graph under construction is shared");
            code.trees_mut().for_each(|tree| tree.each_name(&mut tell));
            for field in code.fields.values_mut() {
                match field {
                    Field::Template(template) => template.each_name(&mut tell),
                    Field::Tree(tree) => tree.each_name(&mut tell),
                    Field::Slotted(_) | Field::Formula(_) | Field::Literal(_) => {}
                }
            }
        }
        self.output.iter_mut().for_each(|tree| tree.each_name(&mut tell));
    }

    /// All nodes in file order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// One node.
    pub fn node(&self, index: NodeIndex) -> &Node {
        &self.nodes[index.index()]
    }

    /// The node of that name.
    pub fn find(&self, name: &str) -> Option<NodeIndex> {
        self.by_name.get(name).copied()
    }

    /// Who depends on a node, in file order.
    pub fn consumers(&self, index: NodeIndex) -> &[NodeIndex] {
        let (from, to) = (self.consumers_start[index.index()], self.consumers_start[index.index() + 1]);
        &self.consumers[from as usize..to as usize]
    }
}

/// For every set of nodes that need each other one shortest cycle through its smallest node, smallest node first.
fn cycles(graph: &DiGraph<(), (), u32>) -> Vec<Vec<NodeIndex>> {
    let on_cycle = |component: &Vec<_>| component.len() > 1 || component.iter().any(|&n| graph.contains_edge(n, n));
    let mut cycles: Vec<_> = kosaraju_scc(graph)
        .iter()
        .filter(|component| on_cycle(component))
        .map(|component| cycle(graph, component))
        .collect();
    cycles.sort_unstable();
    cycles
}

/// A shortest cycle through the smallest node of a component, found breadth-first.
fn cycle(graph: &DiGraph<(), (), u32>, component: &[petgraph::graph::NodeIndex]) -> Vec<NodeIndex> {
    let start = *component.iter().min().expect("BUG: empty component");
    let member: BTreeSet<_> = component.iter().copied().collect();
    let mut came_from = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for next in graph.neighbors(node).filter(|next| member.contains(next)) {
            if next == start {
                let mut path = vec![NodeIndex(node.index() as u32)];
                let mut at = node;
                while at != start {
                    at = came_from[&at];
                    path.push(NodeIndex(at.index() as u32));
                }
                path.reverse();
                return path;
            }
            if let Entry::Vacant(entry) = came_from.entry(next) {
                entry.insert(node);
                queue.push_back(next);
            }
        }
    }
    panic!("BUG: a strongly connected component without a cycle")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, sources: &[u32]) -> Node {
        let required = |&source| Dependency { source: NodeIndex(source), mode: DependencyMode::Required };
        Node { dependencies: sources.iter().map(required).collect(), ..Node::new(name, Work::Leaf) }
    }

    #[test]
    fn ranks_are_longest_paths() {
        let graph =
            Graph::build(vec![node("a", &[]), node("b", &[0]), node("c", &[0, 1]), node("d", &[])]).expect("acyclic");
        assert_eq!(graph.nodes().iter().map(|n| n.rank).collect::<Vec<_>>(), [3, 2, 1, 1]);
        assert_eq!(graph.consumers(NodeIndex(0)), [NodeIndex(1), NodeIndex(2)]);
    }

    #[test]
    fn a_cycle_is_shown_as_a_path() {
        let cycle = Graph::build(vec![node("a", &[]), node("b", &[0, 3]), node("c", &[1]), node("d", &[2])])
            .expect_err("cyclic");
        assert_eq!(cycle, [[NodeIndex(1), NodeIndex(2), NodeIndex(3)]]);
        assert_eq!(Graph::build(vec![node("a", &[0])]).expect_err("cyclic"), [[NodeIndex(0)]]);
    }

    #[test]
    fn a_chain_of_300_000_nodes_neither_recurses_nor_is_quadratic() {
        let chain = (0..300_000u32)
            .map(|i| node(&format!("n{i}"), if i == 0 { &[] } else { std::slice::from_ref(&PREVIOUS[0]) }));
        let mut nodes: Vec<Node> = chain.collect();
        for (i, node) in nodes.iter_mut().enumerate().skip(1) {
            node.dependencies[0].source = NodeIndex(i as u32 - 1);
        }
        assert_eq!(Graph::build(nodes).expect("acyclic").nodes()[0].rank, 300_000);
    }

    const PREVIOUS: [u32; 1] = [0];
}
