//! A graph as boxes and lines: what every drawing has in common.
//!
//! The checker makes a node of each loop, whose exits are numbered. People think of a loop as a box around its nodes, with an
//! edge back inside and edges out of it: so edges are followed through those nodes to where they lead. A line is solid where
//! it makes a node run; what a node merely reads, after edges of `next` have led to it, is dotted.
//!
//! ```text
//! start → loop(draft) → send          start → ┌ loop draft ────────┐
//!           └ draft → review                  │ draft → review     │ → send
//!             review → Again | Exit(0)        │   ↑───────┘        │
//! ```

use std::collections::{BTreeMap, BTreeSet};

use flowrun_engine::graph::{Called, Dependency, DependencyMode, Graph, Node, Target, Work};
use flowrun_engine::id::NodeIndex;

use super::notes::{case_label, join_word};

/// What is drawn, in reading order. A number is the id of a node or box.
pub(super) enum Part<'a> {
    Node { id: usize, depth: usize, node: &'a Node },
    Open { id: usize, depth: usize, node: &'a Node },
    Close { depth: usize },
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    /// It makes the node run.
    Solid,
    /// It may: what is optional, counted by a join, or taken after an error.
    Dashed,
    /// It is read, and waited for.
    Dotted,
}

pub(super) struct Edge {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) line: Line,
    pub(super) label: Option<String>,
}

/// A graph whose nodes have ids.
struct Level<'a> {
    graph: &'a Graph,
    /// Of those nodes that are drawn.
    ids: Vec<usize>,
    /// Levels of the nodes that are boxes.
    inner: BTreeMap<NodeIndex, usize>,
    around: Option<(usize, NodeIndex)>,
}

pub(super) struct Picture<'a> {
    pub(super) parts: Vec<Part<'a>>,
    /// Edges of `next` and of `on_error`.
    flows: Vec<Edge>,
    /// Edges along which values go, where no edge of the flow does.
    reads: Vec<Edge>,
    pub(super) drawn: usize,
    pub(super) left_out: usize,
    levels: Vec<Level<'a>>,
    most: usize,
    only_loops: bool,
}

/// The graph inside a node, where it can be drawn; a workflow that calls itself is not drawn again.
pub(super) fn body(node: &Node) -> Option<&Graph> {
    match &node.work {
        Work::Group(body) | Work::Loop(body) | Work::Call(Called::Other(body)) => Some(body),
        _ => None,
    }
}

/// The node that a loop begins with, by name; of other nodes their own.
pub(super) fn header(node: &Node) -> &str {
    let inside = node.name.strip_prefix("loop(").and_then(|rest| rest.strip_suffix(')'));
    inside.filter(|_| matches!(node.work, Work::Loop(_))).unwrap_or(&node.name)
}

impl<'a> Picture<'a> {
    /// At most so many nodes and boxes. Groups and calls are boxes too, unless `only_loops` are.
    pub(super) fn of(graph: &'a Graph, most: usize, only_loops: bool) -> Self {
        let (parts, flows, reads, levels) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut picture = Self { parts, flows, reads, drawn: 0, left_out: 0, levels, most, only_loops };
        picture.add(graph, None, 0);
        let nodes = |level: usize, picture: &Self| (0..picture.levels[level].ids.len() as u32).map(NodeIndex);
        for level in 0..picture.levels.len() {
            nodes(level, &picture).for_each(|index| picture.flow_edges(level, index));
        }
        let flows: BTreeSet<(usize, usize)> = picture.flows.iter().map(|edge| (edge.from, edge.to)).collect();
        for level in 0..picture.levels.len() {
            for index in nodes(level, &picture) {
                for dependency in &picture.levels[level].graph.node(index).dependencies {
                    picture.data_edges(level, index, dependency, &flows);
                }
            }
        }
        picture
    }

    /// Those of the flow first.
    pub(super) fn edges(&self) -> impl Iterator<Item = &Edge> {
        self.flows.iter().chain(&self.reads)
    }

    /// Whether an edge joins two nodes, and no boxes.
    pub(super) fn is_node(&self, edge: &Edge) -> bool {
        let is_box = |id| self.parts.iter().any(|part| matches!(part, Part::Open { id: other, .. } if *other == id));
        !is_box(edge.from) && !is_box(edge.to)
    }

    /// Adds the nodes of a graph. Checked graphs nest a few levels only.
    fn add(&mut self, graph: &'a Graph, around: Option<(usize, NodeIndex)>, depth: usize) -> usize {
        let level = self.levels.len();
        self.levels.push(Level { graph, ids: Vec::new(), inner: BTreeMap::new(), around });
        for (index, node) in graph.nodes().iter().enumerate() {
            if self.drawn == self.most {
                break;
            }
            let id = self.drawn;
            self.drawn += 1;
            self.levels[level].ids.push(id);
            let opens = !self.only_loops || matches!(node.work, Work::Loop(_));
            match body(node).filter(|_| opens && self.drawn < self.most) {
                Some(body) => {
                    self.parts.push(Part::Open { id, depth, node });
                    let index = NodeIndex(index as u32);
                    let inner = self.add(body, Some((level, index)), depth + 1);
                    self.levels[level].inner.insert(index, inner);
                    self.parts.push(Part::Close { depth });
                }
                None => self.parts.push(Part::Node { id, depth, node }),
            }
        }
        self.left_out += graph.nodes().len() - self.levels[level].ids.len();
        level
    }

    /// The node at which an edge arrives that leads to a node of a level: of a loop its header.
    fn arrival(&self, level: usize, index: NodeIndex) -> Option<usize> {
        let node = self.levels[level].graph.node(index);
        match (&node.work, self.levels[level].inner.get(&index)) {
            (Work::Loop(body), Some(inner)) => self.arrival(*inner, body.find(header(node))?),
            _ => self.levels[level].ids.get(index.index()).copied(),
        }
    }

    fn end(&self, level: usize, target: Target) -> Option<usize> {
        match target {
            Target::Node(index) => self.arrival(level, index),
            Target::Again => {
                let (outer, index) = self.levels[level].around?;
                self.arrival(outer, index)
            }
            Target::Exit(number) => {
                let (outer, index) = self.levels[level].around?;
                self.end(outer, *self.levels[outer].graph.node(index).exits.get(number as usize)?)
            }
        }
    }

    fn flow_edges(&mut self, level: usize, index: NodeIndex) {
        let node = self.levels[level].graph.node(index);
        let from = self.levels[level].ids[index.index()];
        let mut edges = Vec::new();
        for (number, case) in node.next.iter().enumerate() {
            let to = case.to.iter().filter_map(|target| self.end(level, *target));
            let label = case_label(node, number);
            edges.extend(to.map(|to| Edge { from, to, line: Line::Solid, label: label.clone() }));
        }
        if let Some(to) = node.error_to.and_then(|target| self.end(level, target)) {
            edges.push(Edge { from, to, line: Line::Dashed, label: Some("on error".to_owned()) });
        }
        self.flows.extend(edges);
    }

    fn data_edges(&mut self, level: usize, index: NodeIndex, source: &Dependency, flows: &BTreeSet<(usize, usize)>) {
        let node = self.levels[level].graph.node(index);
        let Some(from) = self.source(level, source) else { return };
        let mut readers = Vec::new();
        if let (Work::Loop(_), Some(inner)) = (&node.work, self.levels[level].inner.get(&index)) {
            let names = self.levels[level].graph;
            let name =
                source.inside.iter().fold((names, source.source), |(graph, at), next| match &graph.node(at).work {
                    Work::Loop(body) => (body, *next),
                    _ => (graph, at),
                });
            self.readers(*inner, &name.0.node(name.1).name, &mut readers);
        }
        let optional = readers.is_empty() && source.mode == DependencyMode::Optional;
        if readers.is_empty() {
            readers.push((level, index));
        }
        for (level, index) in readers {
            let Some(to) = self.levels[level].ids.get(index.index()).copied() else { continue };
            if flows.contains(&(from, to)) {
                continue;
            }
            let counted = node.counted.iter().any(|counted| counted.source == source.source);
            let (line, label) = match (self.is_entered(level, index), counted, optional) {
                (true, ..) => (Line::Dotted, Some("reads".to_owned())),
                (_, true, _) => (Line::Dashed, join_word(node.join)),
                (.., true) => (Line::Dashed, Some("if there".to_owned())),
                _ => (Line::Solid, None),
            };
            self.reads.push(Edge { from, to, line, label });
        }
    }

    /// The id of the node that a dependency means.
    fn source(&self, level: usize, source: &Dependency) -> Option<usize> {
        let (mut level, mut index) = (level, source.source);
        for next in &source.inside {
            let Some(inner) = self.levels[level].inner.get(&index) else { break };
            (level, index) = (*inner, *next);
        }
        self.levels[level].ids.get(index.index()).copied()
    }

    /// The nodes in the body of a loop that require a name from around it.
    fn readers(&self, level: usize, name: &str, readers: &mut Vec<(usize, NodeIndex)>) {
        for (index, node) in self.levels[level].graph.nodes().iter().enumerate() {
            let index = NodeIndex(index as u32);
            if node.requires_outside.iter().any(|wanted| **wanted == *name) {
                readers.push((level, index));
            }
            if let (Work::Loop(_), Some(inner)) = (&node.work, self.levels[level].inner.get(&index)) {
                self.readers(*inner, name, readers);
            }
        }
    }

    /// Whether edges of `next` lead to a node from before it.
    fn is_entered(&self, level: usize, index: NodeIndex) -> bool {
        let node = self.levels[level].graph.node(index);
        let around = self.levels[level].around.filter(|(outer, around)| {
            let around = self.levels[*outer].graph.node(*around);
            matches!(around.work, Work::Loop(_)) && header(around) == header(node)
        });
        !node.edges_in.is_empty() || around.is_some_and(|(outer, around)| self.is_entered(outer, around))
    }
}

#[cfg(test)]
mod tests {
    use flowrun_engine::testing::generate::{self, Flavour};

    use super::*;

    /// How many edges of the flow begin in a graph and in what is drawn inside of it.
    fn flows(graph: &Graph) -> usize {
        let own = |node: &Node| {
            node.next.iter().map(|case| case.to.len()).sum::<usize>() + usize::from(node.error_to.is_some())
        };
        graph.nodes().iter().map(|node| own(node) + body(node).map_or(0, flows)).sum()
    }

    #[test]
    fn every_edge_of_any_flow_arrives_at_a_node() {
        let (mut drawn, mut loops) = (0, 0);
        for seed in 0..150 {
            let program = generate::program(seed, Flavour { races: true, people: true });
            let Ok(checked) = program.check() else { continue };
            let graph = &checked.workflow.graph;
            let picture = Picture::of(graph, usize::MAX, false);
            assert_eq!(picture.flows.len(), flows(graph), "seed {seed}:\n{}", program.to_yaml());
            assert!(picture.edges().all(|edge| edge.from < picture.drawn && edge.to < picture.drawn), "seed {seed}");
            let is_loop = |part: &Part<'_>| match part {
                Part::Open { id, node, .. } if matches!(node.work, Work::Loop(_)) => Some(*id),
                _ => None,
            };
            let boxes: Vec<usize> = picture.parts.iter().filter_map(is_loop).collect();
            let at_a_loop = |edge: &Edge| boxes.contains(&edge.from) || boxes.contains(&edge.to);
            assert!(!picture.flows.iter().any(at_a_loop), "seed {seed}:\n{}", program.to_yaml());
            let (mermaid, dot) = (crate::render::mermaid(graph), crate::render::dot(graph));
            assert_eq!(
                mermaid.matches("subgraph n").count(),
                mermaid.lines().filter(|line| line.trim() == "end").count()
            );
            assert_eq!(dot.matches('{').count(), dot.matches('}').count(), "{dot}");
            assert!(!crate::render::graph(graph, 80).is_empty());
            drawn += 1;
            loops += usize::from(graph.nodes().iter().any(|node| matches!(node.work, Work::Loop(_))));
        }
        assert!(drawn > 60 && loops > 10, "{drawn} {loops}");
    }
}
