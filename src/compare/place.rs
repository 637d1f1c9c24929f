//! Where a step's path leads in the graph of its workflow: the node, what it waits for, and who waits for it.

use std::sync::Arc;

use flowrun_engine::expr::Tree;
use flowrun_engine::graph::{DependencyMode, Graph, Node, Target, Work};
use flowrun_engine::id::NodeIndex;

use super::history::{History, node_name};

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
    /// How many loops of `next` are around the node in its own graph.
    loops: usize,
    /// Whether every loop around has its pass in the path: no step is called otherwise.
    is_whole: bool,
    /// The paths of the frames around.
    frames: Vec<String>,
    /// Those that are items or passes of a node, of which there may be fewer.
    opened: Vec<String>,
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
        let (mut before, mut is_whole, mut frames, mut opened) = (String::new(), true, Vec::new(), Vec::new());
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            let (found, index, loops) = node_in(&graph, node_name(segment))?;
            let rest = &segment[node_name(segment).len()..];
            let is_number = |c: char| c == '.' || c.is_ascii_digit();
            let end = rest.strip_prefix('#').map_or(0, |rest| 1 + rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
            let (passes, after) = rest.split_at(if loops.is_empty() { 0 } else { end });
            let numbers: Vec<&str> =
                passes.trim_start_matches('#').split('.').filter(|text| !text.is_empty()).collect();
            is_whole &= numbers.len() == loops.len();
            for (depth, (name, number)) in loops.iter().zip(&numbers).enumerate() {
                let mark = if depth > 0 { "#" } else { "" };
                let around = format!("{before}{name}{mark}{}", numbers[..depth].join("."));
                frames.extend([format!("{around}#{number}"), around]);
            }
            if segments.peek().is_none() {
                let (passes, after, loops) = (passes.to_owned(), after.to_owned(), loops.len());
                return Some(Self { graph: found, index, before, passes, after, loops, is_whole, frames, opened });
            }
            // No path leads through a loop: its steps are called by their passes.
            graph = body(found.node(index)).filter(|_| !matches!(found.node(index).work, Work::Loop(_)))?;
            before.push_str(segment);
            if after.is_empty() { &mut frames } else { &mut opened }.push(before.clone());
            before.push('/');
        }
        None
    }

    /// Whether a step of which the log says nothing can still come.
    pub(super) fn can_come(&self, history: &History<'_>) -> bool {
        let has_ended = |path: &str| history.step(path).map(|step| step.ended_us.is_some());
        let is_open = |path: &String| has_ended(path) != Some(true);
        let is_opened =
            |path: &String| match (has_ended(path), path.strip_suffix(']').and_then(|path| path.rsplit_once('['))) {
                (Some(has_ended), _) => !has_ended,
                (None, Some((map, number))) => {
                    has_ended(map) != Some(true)
                        && number.parse().is_ok_and(|number: u64| history.items(map).is_none_or(|items| number < items))
                }
                (None, None) => false,
            };
        self.is_own_step() && self.is_whole && self.frames.iter().all(is_open) && self.opened.iter().all(is_opened)
    }

    /// The path of its step in the first pass of every loop around; `None` where the path is one of a step.
    pub(super) fn in_first_pass(&self) -> Option<String> {
        let first = vec!["0"; self.loops].join(".");
        (self.loops > 0 && !self.is_whole).then(|| format!("{}{}#{first}", self.before, self.node().name))
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

/// The node of that name in a graph or in the bodies of its loops, and the names of those loops, outermost first.
fn node_in(graph: &Arc<Graph>, name: &str) -> Option<(Arc<Graph>, NodeIndex, Vec<Arc<str>>)> {
    let (first, way) = graph.find_anywhere(name)?;
    let (mut graph, mut index, mut loops) = (graph.clone(), first, Vec::new());
    for next in way {
        let around = graph.node(index);
        loops.push(around.name.clone());
        let inner = body(around)?;
        (graph, index) = (inner, *next);
    }
    Some((graph, index, loops))
}

/// The graph of the frame that a node opens.
fn body(node: &Node) -> Option<Arc<Graph>> {
    match &node.work {
        Work::Group(graph) | Work::Loop(graph) => Some(graph.clone()),
        Work::Call(called) => Some(called.graph()),
        Work::Leaf | Work::Value | Work::Expand | Work::Human { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::compare::tests::{World, log};
    use crate::compare::{Context, explain};

    const FLOW: &str = r#"
flowrun: 1
nodes:
  draft: {prompt: "draft {{ last.judge | default('') }}"}
  judge: {prompt: "judge {{ draft }}", next: [{when: "this == 'bad'", to: draft, max: 1}, {to: group}]}
  group: {nodes: {x: {prompt: "x {{ draft }}"}}}
  each: {for_each: "[1, 2]", nodes: {y: {prompt: "y {{ item }}"}}}
output: [group, each]
"#;

    #[tokio::test]
    async fn what_can_still_come_waits_and_all_else_is_refused() {
        let (_, graph) = World::default().execute("1", FLOW, "- {match: '', reply: two}\n", json!({})).await;
        let context = Context { graph: Some(&graph), ..Context::default() };
        let opened = json!({"type": "frame_opened"});
        let over = |end: &str| json!({"type": "ended", "state": end});
        let begun = [
            (0, "loop(draft)", opened.clone()),
            (0, "loop(draft)#0", opened.clone()),
            (0, "draft#0", json!({"in": "loop(draft)#0", "type": "ready"})),
            (0, "each", json!({"type": "decided", "field": "items", "count": 2})),
            (0, "each", opened.clone()),
            (0, "each[0]", opened.clone()),
        ];
        let check = |events: &[_], step: &str, expected: Result<&str, &[&str]>| {
            let log = log(events, &[]);
            let explained = explain(&log, step, &context);
            let got = explained.as_ref().map(|explained| explained.state.as_str());
            let near = got.map_err(|unknown| unknown.near.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(near, expected.map_err(<[_]>::to_vec), "{step}");
        };
        for step in ["judge#0", "draft#1", "group", "group/x", "each[0]/y", "each[1]/y"] {
            check(&begun, step, Ok("waiting"));
        }
        check(&begun, "draft", Err(&["draft#0"]));
        check(&begun, "judge", Err(&["judge#0"]));
        check(&begun, "each[2]/y", Err(&["each[0]"]));
        check(&begun, "loop(draft)#0/draft", Ok("ready"));
        check(&begun, "loop(draft)#0/judge", Err(&["loop(draft)#0"]));
        check(&[], "draft", Err(&["draft#0"]));
        check(&[], "loop(draft)", Ok("waiting"));
        // What is around it has ended, or the whole run has.
        let left = [&begun[..], &[(1, "loop(draft)", over("succeeded")), (1, "group", over("skipped"))]].concat();
        check(&left, "draft#1", Err(&["draft#0"]));
        check(&left, "group/x", Err(&["group"]));
        let ended = [&begun[..], &[(1, "-", json!({"type": "run_ended", "status": "failed", "usage": {}}))]].concat();
        check(&ended, "group", Err(&[]));
        check(&ended, "judge", Err(&[]));
    }
}
