//! Where a step's path leads in the graph of its workflow: the node, what it waits for, and who waits for it.

use std::sync::Arc;

use flowrun_engine::expr::Tree;
use flowrun_engine::graph::{DependencyMode, Graph, Node, Target, Work};
use flowrun_engine::id::NodeIndex;

use super::history::node_name;

/// The node of a step.
#[derive(Clone, Debug)]
pub(super) struct Place {
    graph: Arc<Graph>,
    index: NodeIndex,
    /// The path up to the node's name.
    before: String,
    /// The numbers of the passes of the flowchart loops around: `#1.0`, or nothing.
    passes: String,
    /// What comes after: items, samples, own passes.
    after: String,
}

/// A step that another one waits for.
pub(super) struct Source {
    /// Its path.
    pub(super) path: String,
    /// Whether the other cannot run unless it succeeds.
    pub(super) is_required: bool,
    /// Whether the flow leads from it to the other.
    pub(super) is_edge: bool,
}

impl Place {
    /// Finds a path; `None` inside of what was only drawn at run time, and where the graph has no such node.
    pub(super) fn find(graph: &Arc<Graph>, path: &str) -> Option<Self> {
        let mut graph = graph.clone();
        let mut before = String::new();
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            let (found, index, is_in_loop) = node_in(&graph, node_name(segment))?;
            if segments.peek().is_some() {
                graph = body(found.node(index))?;
                before.push_str(segment);
                before.push('/');
                continue;
            }
            let rest = &segment[node_name(segment).len()..];
            let is_number = |c: char| c == '.' || c.is_ascii_digit();
            let end = rest.strip_prefix('#').map_or(0, |rest| 1 + rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
            let (passes, after) = rest.split_at(if is_in_loop { end } else { 0 });
            return Some(Self { graph: found, index, before, passes: passes.to_owned(), after: after.to_owned() });
        }
        None
    }

    /// The node.
    pub(super) fn node(&self) -> &Node {
        self.graph.node(self.index)
    }

    /// Whether the step is the node's own, not an item, a sample or a pass of it.
    pub(super) fn is_own_step(&self) -> bool {
        self.after.is_empty()
    }

    /// The path of the node's own step.
    pub(super) fn own_path(&self) -> String {
        self.path_of(self.index)
    }

    fn path_of(&self, index: NodeIndex) -> String {
        format!("{}{}{}", self.before, self.graph.node(index).name, self.passes)
    }

    /// What it waits for in its own graph, in file order.
    pub(super) fn sources(&self) -> Vec<Source> {
        let node = self.node();
        let required = |index: NodeIndex| {
            let of = node.dependencies.iter().filter(|dependency| dependency.source == index);
            of.into_iter().any(|dependency| dependency.mode == DependencyMode::Required)
        };
        let source = |index: NodeIndex| Source {
            path: self.path_of(index),
            is_required: required(index),
            is_edge: node.edges_in.contains(&index),
        };
        node.waits_for().into_iter().map(source).collect()
    }

    /// Who waits for it, in file order.
    pub(super) fn readers(&self) -> Vec<String> {
        self.graph.consumers(self.index).iter().map(|index| self.path_of(*index)).collect()
    }

    /// Whether the value of the frame that the node stands in is made of it.
    pub(super) fn is_output(&self) -> bool {
        let required = self.graph.output_requires.iter().any(|(index, _)| *index == self.index);
        required || self.graph.output.as_ref().is_none_or(|output| output.mentions(&self.node().name))
    }

    /// Where a case of its `next` leads: names of nodes; a loop's own targets are said.
    pub(super) fn case(&self, number: usize) -> Option<(Vec<String>, Option<String>)> {
        let node = self.node();
        let name = |target: &Target| match target {
            Target::Node(index) => format!("`{}`", self.graph.node(*index).name),
            Target::Again => "the next pass".to_owned(),
            Target::Exit(_) => "the end of the loop".to_owned(),
        };
        let to = node.next.get(number)?.to.iter().map(name).collect();
        Some((to, node.code.cases.get(number)?.as_ref().map(source)))
    }
}

/// An expression as it was written.
pub(super) fn source(tree: &Tree) -> String {
    tree.leaves().iter().map(|(_, leaf)| leaf.text()).collect::<Vec<_>>().join(", ")
}

/// The node of that name in a graph or in the bodies of its loops, and whether it was in one of those.
fn node_in(graph: &Arc<Graph>, name: &str) -> Option<(Arc<Graph>, NodeIndex, bool)> {
    let (first, way) = graph.find_anywhere(name)?;
    let mut found = (graph.clone(), first, false);
    for next in way {
        let inner = body(found.0.node(found.1))?;
        found = (inner, *next, true);
    }
    Some(found)
}

/// The graph of the frame that a node opens.
fn body(node: &Node) -> Option<Arc<Graph>> {
    match &node.work {
        Work::Group(graph) | Work::Loop(graph) => Some(graph.clone()),
        Work::Call(called) => Some(called.graph()),
        Work::Leaf | Work::Value | Work::Expand | Work::Human { .. } => None,
    }
}
