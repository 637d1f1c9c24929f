//! Random workflows: nested groups, calls and expansions, items and samples, guards, joins, retries, tolerated failures.

use std::sync::Arc;

use indexmap::IndexMap;

use super::Random;
use crate::failure::ErrorClass;
use crate::graph::{
    Called, Count, Dependency, DependencyMode, Graph, Join, Node, NodeCode, OnError, OnItemError, Work,
};
use crate::id::{NodeIndex, ValueHash};
use crate::retry::RetryPolicy;

/// A random graph. `outer` are names around it that its nodes may read; a closed graph has none.
pub fn graph(random: &mut Random, depth: u32, prefix: &str, outer: &[String]) -> Graph {
    let count = 1 + random.below(if depth == 0 { 8 } else { 4 });
    let mut nodes: Vec<Node> = Vec::new();
    for index in 0..count as u32 {
        let name = format!("{prefix}{index}");
        let mut node = Node::new(&name, Work::Leaf);
        node.dependencies = dependencies(random, index);
        let sees: Vec<String> = nodes.iter().map(|node| node.name.to_string()).chain(outer.iter().cloned()).collect();
        node.work = work(random, depth, &name, &sees);
        if let Work::Group(body) = &node.work {
            capture(&mut node.dependencies, body, &nodes);
        }
        let free_reads = outer.iter().filter(|_| random.one_in(4)).cloned().collect();
        node.code = Arc::new(NodeCode { kind: encode(free_reads), ..NodeCode::default() });
        attributes(random, &mut node);
        join(random, &mut node);
        nodes.push(node);
    }
    let mut graph = Graph::build(nodes).expect("BUG: edges point backwards only");
    let all = (0..count as u32).map(NodeIndex);
    graph.output_requires = all.filter(|_| random.one_in(4)).map(|node| (node, Vec::new())).collect();
    graph.hash = ValueHash::of_bytes(prefix.as_bytes());
    graph
}

/// A whole workflow.
pub fn workflow(seed: u64) -> Arc<Graph> {
    let mut random = Random(seed);
    Arc::new(closed(graph(&mut random, 0, "n", &[])))
}

/// A graph that sees nothing around it.
fn closed(mut graph: Graph) -> Graph {
    graph.inputs = Some(IndexMap::new());
    graph
}

/// The graph that an expansion opens.
pub fn expansion(seed: u64) -> Arc<Graph> {
    let mut graph = closed(graph(&mut Random(seed), 2, "e", &[]));
    graph.expansion = true;
    graph.output_requires.clear();
    Arc::new(graph)
}

/// Names around its frame that a node reads, beside its dependencies. They travel in the only text that a node has here.
pub fn reads(node: &Node) -> Vec<String> {
    node.code.kind.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn encode(names: Vec<String>) -> String {
    names.join(",")
}

fn dependencies(random: &mut Random, index: u32) -> Vec<Dependency> {
    let mut found = Vec::new();
    for source in 0..index {
        if random.below(u64::from(index) + 2) < 2 {
            let mode = if random.one_in(3) { DependencyMode::Optional } else { DependencyMode::Required };
            found.push(Dependency { source: NodeIndex(source), inside: Vec::new(), mode });
        }
    }
    found
}

/// A node with a body waits for every name around it that the body reads.
fn capture(dependencies: &mut Vec<Dependency>, body: &Graph, nodes: &[Node]) {
    let mut read = Vec::new();
    let mut bodies = vec![body];
    while let Some(body) = bodies.pop() {
        for node in body.nodes() {
            read.extend(reads(node));
            if let Work::Group(inner) = &node.work {
                bodies.push(inner);
            }
        }
    }
    for (index, node) in nodes.iter().enumerate().filter(|(_, node)| read.contains(&node.name.to_string())) {
        let source = NodeIndex(index as u32);
        if !dependencies.iter().any(|known| known.source == source) {
            dependencies.push(Dependency { source, inside: Vec::new(), mode: DependencyMode::Waits });
        }
        let _ = node;
    }
    dependencies.sort_by_key(|dependency| dependency.source);
}

fn work(random: &mut Random, depth: u32, name: &str, sees: &[String]) -> Work {
    let prefix = format!("{name}_");
    match random.below(if depth < 3 { 10 } else { 7 }) {
        0..5 => Work::Leaf,
        5 | 6 => Work::Value,
        7 => Work::Call(Called::Other(Arc::new(closed(graph(random, depth + 1, &prefix, &[]))))),
        8 if depth < 2 => Work::Expand,
        _ => Work::Group(Arc::new(graph(random, depth + 1, &prefix, sees))),
    }
}

fn attributes(random: &mut Random, node: &mut Node) {
    let leaf = matches!(node.work, Work::Leaf);
    node.has_guard = random.one_in(4);
    node.for_each = random.one_in(5);
    node.samples = if leaf && random.one_in(6) { Some(Count::Fixed(1 + random.below(3) as u32)) } else { None };
    node.max_parallel =
        if node.for_each && random.one_in(2) { Some(Count::Fixed(1 + random.below(3) as u32)) } else { None };
    node.has_input = match node.work {
        Work::Leaf => random.one_in(2),
        Work::Call(_) | Work::Expand => true,
        Work::Value | Work::Group(_) | Work::Loop(_) | Work::Human { .. } => false,
    };
    node.has_value = leaf && random.one_in(3);
    if leaf && random.one_in(2) {
        node.retry =
            RetryPolicy { max: random.below(3) as u32, on: vec![ErrorClass::Server], backoff_ms: 1 + random.below(50) };
    }
    node.on_error = match random.below(5) {
        0 | 1 => OnError::Skip,
        2 => OnError::Value,
        _ => OnError::Fail,
    };
    node.on_item_error = match random.below(5) {
        0 => OnItemError::Drop,
        1 => OnItemError::Skip,
        2 => OnItemError::Value,
        _ => OnItemError::Fail,
    };
}

/// Some nodes join any of their sources, which are optional then.
fn join(random: &mut Random, node: &mut Node) {
    let counted: Vec<NodeIndex> = node
        .dependencies
        .iter()
        .filter(|d| d.mode != DependencyMode::Waits)
        .map(|dependency| dependency.source)
        .collect();
    if !counted.is_empty() && random.one_in(5) {
        node.dependencies
            .iter_mut()
            .filter(|d| d.mode != DependencyMode::Waits)
            .for_each(|d| d.mode = DependencyMode::Optional);
        node.join = Join::Any;
        node.counted = node.dependencies.iter().filter(|d| counted.contains(&d.source)).cloned().collect();
    }
}
