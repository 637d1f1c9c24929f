//! The checked, immutable graph of a frame: what may be trusted.
//!
//! A loop is one node whose passes open the graph of its body. A [`Graph`] is acyclic by construction ([`Graph::build`] refuses cycles), knows for each node who consumes it and how
//! long the longest path to the end is. The scheduler reads only the structure (dependencies, guards, joins, policies);
//! the compiled expressions in [`NodeCode`] are for the driver alone.

mod node;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use petgraph::Direction;
use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::DiGraph;
use serde_json::{Value, json};

use crate::definition::{ModelDef, WorkflowDef};
use crate::expr::{NameUse, Tree};
use crate::id::{NodeIndex, ValueHash};
use crate::schema::Schema;

pub use node::*;

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
    /// Identity: the hash of the canonical text, together with those of the workflows that it calls.
    pub hash: ValueHash,
    /// What was written, for `flowrun graph` and the record.
    pub definition: WorkflowDef,
    /// The workflows that it calls, directly or not, by the names of their sources below its own folder.
    pub calls: BTreeMap<String, WorkflowDef>,
    text: OnceLock<(ValueHash, Arc<str>)>,
}

impl Workflow {
    /// A definition, those that it calls, and the graph that the checker has made of them.
    pub fn new(
        definition: WorkflowDef,
        calls: BTreeMap<String, WorkflowDef>,
        graph: Arc<Graph>,
        limits: Limits,
    ) -> Self {
        let own = definition.hash();
        let hash = if calls.is_empty() {
            own
        } else {
            let called: BTreeMap<&str, ValueHash> =
                calls.iter().map(|(name, called)| (&**name, called.hash())).collect();
            ValueHash::of(&json!([own, called]))
        };
        Self {
            name: definition.name.clone(),
            calls_max: definition.budget.calls,
            limits,
            hash,
            graph,
            definition,
            calls,
            text: OnceLock::new(),
        }
    }

    /// The text of the definition, see [`WorkflowDef::text`]. Made when it is first asked for: every run of the workflow keeps it.
    pub fn text(&self) -> &(ValueHash, Arc<str>) {
        self.text.get_or_init(|| self.definition.text())
    }
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
    /// Nodes in the bodies of its loops: the loop, and the way from there.
    in_loops: IndexMap<Arc<str>, (NodeIndex, Inside)>,
    /// Every name in the order of the file, where some of them are inside of loops.
    pub file_order: Option<Vec<Arc<str>>>,
    /// Declared inputs of a closed graph (a workflow or a plan); `None` for a group, which sees the names around it.
    pub inputs: Option<IndexMap<String, Input>>,
    /// Model aliases that a workflow declares; nodes further in see those further out.
    pub models: IndexMap<String, Arc<ModelDef>>,
    /// The frame's value; `None`: the map of all values.
    pub output: Option<Tree>,
    /// Nodes that `output` requires: if one did not succeed, the frame's parent is skipped.
    pub output_requires: Vec<(NodeIndex, Inside)>,
    /// Names around the graph that `output` requires.
    pub output_requires_outside: Vec<Arc<str>>,
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

impl Graph {
    /// Builds the graph out of nodes whose dependencies point at indices of the same list.
    ///
    /// Computes consumers and ranks in O(nodes + edges) without recursion. The error is a shortest cycle, as its nodes in
    /// order, of every set of nodes that need each other.
    pub fn build(mut nodes: Vec<Node>) -> Result<Self, Vec<Vec<NodeIndex>>> {
        let graph = structure(&nodes);
        for (index, node) in nodes.iter_mut().enumerate() {
            node.sources = graph.neighbors_directed((index as u32).into(), Direction::Incoming).count() as u32;
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
        let indexed = || nodes.iter().enumerate().map(|(index, node)| (NodeIndex(index as u32), node));
        let by_name = indexed().map(|(index, node)| (node.name.clone(), index)).collect();
        let mut in_loops = IndexMap::new();
        for (index, node) in indexed() {
            if let Work::Loop(body) = &node.work {
                in_loops.extend(body.by_name.iter().map(|(name, inner)| (name.clone(), (index, vec![*inner]))));
                in_loops.extend(body.in_loops.iter().map(|(name, (inner, way))| {
                    (name.clone(), (index, std::iter::once(*inner).chain(way.iter().copied()).collect()))
                }));
            }
        }
        Ok(Self {
            nodes,
            consumers,
            consumers_start,
            by_name,
            in_loops,
            file_order: None,
            inputs: None,
            models: IndexMap::new(),
            output: None,
            output_requires: Vec::new(),
            output_requires_outside: Vec::new(),
            expansion: false,
            hash: ValueHash::of_bytes(b""),
        })
    }

    /// Tells every compiled text which node of this graph each of its names means.
    pub(crate) fn bind_names(&mut self) {
        let by_name = &self.by_name;
        let mut tell = |mention: &mut NameUse| mention.node = by_name.get(&mention.name).copied();
        for node in &mut self.nodes {
            // In a race the other sources read as null, which a look-up by name knows.
            if node.join == Join::First {
                continue;
            }
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

    /// The node of that name in the body of one of its loops: the loop, and the way from there.
    pub fn find_in_loop(&self, name: &str) -> Option<(NodeIndex, &[NodeIndex])> {
        self.in_loops.get(name).map(|(index, way)| (*index, way.as_slice()))
    }

    /// The node of that name, in a loop or not, with the way to it.
    pub fn find_anywhere(&self, name: &str) -> Option<(NodeIndex, &[NodeIndex])> {
        self.find(name).map(|node| (node, &[][..])).or_else(|| self.find_in_loop(name))
    }

    /// Every name of its nodes, those of the bodies of its loops included.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys().chain(self.in_loops.keys())
    }

    /// Who depends on a node, in file order.
    pub fn consumers(&self, index: NodeIndex) -> &[NodeIndex] {
        let (from, to) = (self.consumers_start[index.index()], self.consumers_start[index.index() + 1]);
        &self.consumers[from as usize..to as usize]
    }
}

/// The nodes of a level, each after what it waits for; the error is as that of [`Graph::build`].
pub fn forward_order(nodes: &[Node]) -> Result<Vec<usize>, Vec<Vec<NodeIndex>>> {
    let graph = structure(nodes);
    let order = toposort(&graph, None).map_err(|_| cycles(&graph))?;
    Ok(order.into_iter().map(|index| index.index()).collect())
}

/// Edges from each node to those that wait for it.
fn structure(nodes: &[Node]) -> DiGraph<(), (), u32> {
    let mut graph = DiGraph::<(), (), u32>::with_capacity(nodes.len(), nodes.len());
    nodes.iter().for_each(|_| {
        graph.add_node(());
    });
    for (index, node) in nodes.iter().enumerate() {
        for source in node.waits_for() {
            graph.add_edge(source.0.into(), (index as u32).into(), ());
        }
    }
    graph
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
        let required =
            |&source| Dependency { source: NodeIndex(source), inside: Inside::new(), mode: DependencyMode::Required };
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
