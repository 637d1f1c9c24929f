//! From a level with loops to graphs without any: each loop becomes one node, whose passes open the graph of its body.
//!
//! ```text
//! draft → review → send, review → draft        loop(draft) → send
//!                                                │
//!                                                └ draft → review: review → Again | Exit(0)
//! ```
//!
//! The node of the loop carries the edges that lead to the header and the header's `join`. What the body reads from around it is
//! waited for by the loop, and required by the node that reads it. Who reads a node of the body from outside depends on the loop,
//! and finds the node in the last pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::flow::Flow;
use crate::graph::{Dependency, DependencyMode, Graph, Inside, Join, Node, Target, Work};
use crate::id::{NodeIndex, ValueHash};

/// Where an edge ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// At a node.
    Node(usize),
    /// At the header of a loop, which begins another pass.
    Again(usize),
}

/// One level being lowered. `None` is the level itself, a number one of its loops.
struct Lowering<'a> {
    flow: &'a Flow,
    names: Vec<Arc<str>>,
    /// Their nodes and loops in the order of the file.
    members: BTreeMap<Option<usize>, Vec<Member>>,
    /// By loop: the edges out of it, numbered.
    exits: Vec<Vec<End>>,
    /// By loop: the node that stands for it, still without body and exits, and the nodes outside that its body reads.
    shells: Vec<Option<(Node, BTreeSet<usize>)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Node(usize),
    Loop(usize),
}

/// The graph of a level, or the headers and nodes of every circle that its loops close with what is outside of them.
pub(super) fn lower(nodes: Vec<Node>, flow: &Flow) -> Result<Graph, Vec<Vec<usize>>> {
    let names = nodes.iter().map(|node| node.name.clone()).collect();
    let shells = flow.loops.iter().map(|found| Some(shell(&nodes, &found.body, found.header))).collect();
    let exits = vec![Vec::new(); flow.loops.len()];
    let mut lowering = Lowering { flow, names, members: BTreeMap::new(), exits, shells };
    lowering.place_members(nodes.len());
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    for index in (0..flow.loops.len()).rev() {
        let mut graph = lowering.level(Some(index), &mut nodes)?;
        graph.hash = ValueHash::of_bytes(lowering.names[flow.loops[index].header].as_bytes());
        graph.bind_names();
        let (node, _) = lowering.shells[index].as_mut().expect("BUG: a loop before its body");
        node.has_effect = graph.nodes().iter().any(|node| node.has_effect);
        node.is_kept = graph.nodes().iter().any(|node| node.is_kept);
        node.work = Work::Loop(Arc::new(graph));
    }
    lowering.level(None, &mut nodes)
}

/// The node that stands for a loop, and what its body reads from outside.
fn shell(nodes: &[Node], body: &BTreeSet<usize>, header: usize) -> (Node, BTreeSet<usize>) {
    let mut node = Node::new(&format!("loop({})", nodes[header].name), Work::Value);
    node.join = nodes[header].join;
    node.edges_in = nodes[header].edges_in.clone();
    let sources = body.iter().flat_map(|index| &nodes[*index].dependencies).map(|source| source.source.index());
    (node, sources.filter(|source| !body.contains(source)).collect())
}

impl Lowering<'_> {
    fn place_members(&mut self, nodes: usize) {
        for node in 0..nodes {
            let level = self.flow.innermost.get(node).copied().flatten();
            self.members.entry(level).or_default().push(Member::Node(node));
        }
        for (index, found) in self.flow.loops.iter().enumerate() {
            self.members.entry(found.around).or_default().push(Member::Loop(index));
        }
        let flow = self.flow;
        let place = |member: &Member| match member {
            Member::Node(node) => (*node, 1),
            Member::Loop(index) => (flow.loops[*index].header, 0),
        };
        self.members.values_mut().for_each(|members| members.sort_by_key(place));
    }

    fn contains(&self, level: Option<usize>, node: usize) -> bool {
        level.is_none_or(|level| self.flow.loops[level].body.contains(&node))
    }

    /// What stands for a node on a level around it.
    fn member(&self, level: Option<usize>, node: usize) -> Member {
        let mut member = Member::Node(node);
        for inner in self.flow.around(node) {
            if Some(inner) == level {
                break;
            }
            member = Member::Loop(inner);
        }
        member
    }

    fn local(&self, level: Option<usize>, node: usize) -> NodeIndex {
        let member = self.member(level, node);
        self.place(level, member)
    }

    fn place(&self, level: Option<usize>, member: Member) -> NodeIndex {
        let flow = self.flow;
        let key = |member: &Member| match member {
            Member::Node(node) => (*node, 1),
            Member::Loop(index) => (flow.loops[*index].header, 0),
        };
        let members = &self.members[&level];
        NodeIndex(members.binary_search_by_key(&key(&member), key).expect("BUG: a node on another level") as u32)
    }

    /// The way from what stands for a node on a level to the node itself.
    fn way(&self, level: Option<usize>, node: usize) -> Inside {
        let mut levels: Vec<usize> = self.flow.around(node).take_while(|inner| Some(*inner) != level).collect();
        levels.reverse();
        levels.into_iter().map(|inner| self.local(Some(inner), node)).collect()
    }

    /// What an edge means that begins on a level.
    fn target(&mut self, level: Option<usize>, end: End) -> Target {
        match (level, end) {
            (Some(level), End::Again(other)) if level == other => Target::Again,
            (level, End::Node(to)) if self.contains(level, to) => Target::Node(self.local(level, to)),
            (Some(level), end) => {
                let exits = &mut self.exits[level];
                let number = exits.iter().position(|exit| *exit == end).unwrap_or_else(|| {
                    exits.push(end);
                    exits.len() - 1
                });
                Target::Exit(number as u32)
            }
            (None, _) => panic!("BUG: an edge out of its level"),
        }
    }

    fn end(&self, from: usize, to: usize) -> End {
        match to <= from {
            false => End::Node(to),
            true => {
                let found = self.flow.around(from).find(|found| self.flow.loops[*found].header == to);
                End::Again(found.expect("BUG: an edge upwards without its loop"))
            }
        }
    }

    /// The graph of one level, whose loops are lowered already.
    fn level(&mut self, level: Option<usize>, nodes: &mut [Option<Node>]) -> Result<Graph, Vec<Vec<usize>>> {
        let members = self.members.get(&level).cloned().unwrap_or_default();
        let mut lowered = Vec::with_capacity(members.len());
        for member in &members {
            lowered.push(match member {
                Member::Node(index) => {
                    let node = nodes[*index].take().expect("BUG: a node on two levels");
                    self.node(level, *index, node)
                }
                Member::Loop(index) => self.loop_node(level, *index),
            });
        }
        let named = |member: &NodeIndex| match members[member.index()] {
            Member::Node(node) => node,
            Member::Loop(index) => self.flow.loops[index].header,
        };
        Graph::build(lowered)
            .map_err(|circles| circles.iter().map(|circle| circle.iter().map(named).collect()).collect())
    }

    /// The node of a loop on the level around it.
    fn loop_node(&mut self, level: Option<usize>, index: usize) -> Node {
        let (mut node, reads) = self.shells[index].take().expect("BUG: a loop on two levels");
        let around: BTreeSet<NodeIndex> = reads
            .into_iter()
            .filter(|source| self.contains(level, *source))
            .map(|source| self.local(level, source))
            .collect();
        let waits = |source| Dependency { source, inside: Inside::new(), mode: DependencyMode::Waits };
        node.dependencies = around.into_iter().map(waits).collect();
        self.edges_in(level, &mut node);
        let exits = self.exits[index].clone();
        node.exits = exits.into_iter().map(|end| self.target(level, end)).collect();
        node
    }

    /// The sources of a node's edges as members of a level, each once; an edge out of a loop still is the edge that was written.
    fn edges_in(&self, level: Option<usize>, node: &mut Node) {
        let written = std::mem::take(&mut node.edges_in);
        let sources = written.iter().map(|source| (self.local(level, source.index()), self.way(level, source.index())));
        let sources: BTreeSet<(NodeIndex, Inside)> = sources.collect();
        node.edges_in = sources.iter().map(|(source, _)| *source).collect();
        node.edges_in.dedup();
        node.edges_from_loops = sources.into_iter().filter(|(_, way)| !way.is_empty()).collect();
    }

    /// A node of a level: its sources become those of its level, its edges lead to members of it.
    fn node(&mut self, level: Option<usize>, index: usize, mut node: Node) -> Node {
        let is_header = level.is_some_and(|level| self.flow.loops[level].header == index);
        let (inner, outer): (Vec<Dependency>, Vec<Dependency>) = std::mem::take(&mut node.dependencies)
            .into_iter()
            .partition(|dependency| self.contains(level, dependency.source.index()));
        node.dependencies = inner.iter().map(|dependency| self.dependency(level, dependency)).collect();
        node.dependencies.sort_by(|a, b| (a.source, &a.inside).cmp(&(b.source, &b.inside)));
        let required = outer.iter().filter(|dependency| dependency.mode == DependencyMode::Required);
        node.requires_outside.extend(required.map(|dependency| self.names[dependency.source.index()].clone()));
        if is_header {
            node.edges_in.clear();
            node.join = Join::Default;
        } else {
            self.edges_in(level, &mut node);
        }
        let (inner, outer): (Vec<Dependency>, Vec<Dependency>) = std::mem::take(&mut node.counted)
            .into_iter()
            .partition(|dependency| self.contains(level, dependency.source.index()));
        node.counted = inner.iter().map(|dependency| self.dependency(level, dependency)).collect();
        node.counted_outside = outer.iter().map(|need| self.names[need.source.index()].clone()).collect();
        for (number, case) in node.next.iter_mut().enumerate() {
            let ends: Vec<End> = self.flow.cases[index][number].iter().map(|to| self.end(index, *to)).collect();
            if let ([End::Again(found)], Some(bound)) = (ends.as_slice(), &mut case.bound) {
                let out = self.flow.around(index).position(|level| level == *found);
                let edge = self.flow.loops[*found].back.iter().position(|edge| *edge == (index, number));
                bound.loops_out = out.expect("BUG: an edge back into a loop that is not around") as u32;
                bound.number = edge.expect("BUG: an edge back that its loop does not know") as u32;
            }
            case.to = ends.into_iter().map(|end| self.target(level, end)).collect();
        }
        node.error_to = self.flow.error_to[index].map(|to| self.target(level, End::Node(to)));
        node
    }

    fn dependency(&self, level: Option<usize>, dependency: &Dependency) -> Dependency {
        let source = dependency.source.index();
        Dependency { source: self.local(level, source), inside: self.way(level, source), mode: dependency.mode }
    }
}
