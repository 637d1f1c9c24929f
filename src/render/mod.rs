//! A graph as people see it: boxes and lines in a terminal where they fit, an indented list where they do not; [`mermaid`] and
//! [`dot`] write it for programs that draw.

mod markup;

use std::fmt::Write;

use ascii_dag::RenderOptions;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

pub use markup::{dot, mermaid};

use flowrun_engine::definition::listed;
use flowrun_engine::graph::{Called, DependencyMode, Graph, Node, Work};
use serde_json::Value;

/// Most nodes that are drawn as boxes.
const BOXES_MAX: usize = 40;
/// Most edges that an eye follows through boxes; where there are more the nodes are listed too.
const EDGES_MAX: usize = 6;
/// Most nodes that are listed.
const LINES_MAX: usize = 500;

/// Draws a graph, at most `width` characters wide.
pub fn graph(graph: &Graph, width: usize) -> String {
    let boxes = if graph.nodes().len() <= BOXES_MAX { draw(graph) } else { String::new() };
    let fits = !boxes.is_empty() && boxes.lines().all(|line| line.trim_end().chars().count() <= width);
    let edges: usize = graph.nodes().iter().map(|node| node.dependencies.len()).sum();
    let clear = edges <= EDGES_MAX && !boxes.contains('┼');
    let mut text = if fits { boxes } else { String::new() };
    list(graph, if fits && clear { Detail::Conditions } else { Detail::Everything }, 0, &mut text);
    text
}

#[derive(Clone, Copy, PartialEq)]
enum Detail {
    /// Only what boxes do not show.
    Conditions,
    /// Sources too.
    Everything,
}

fn draw(graph: &Graph) -> String {
    let labels: Vec<String> = graph.nodes().iter().map(|node| clean(&node.name)).collect();
    let ids: Vec<(usize, &str)> = labels.iter().enumerate().map(|(index, label)| (index, label.as_str())).collect();
    let edges: Vec<(usize, usize)> = graph
        .nodes()
        .iter()
        .enumerate()
        .flat_map(|(to, node)| node.dependencies.iter().map(move |dependency| (dependency.source.index(), to)))
        .collect();
    let drawn = ascii_dag::Graph::from_edges(&ids, &edges);
    let text = drawn.compute_layout().render_string(&RenderOptions::plain());
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

fn list(graph: &Graph, detail: Detail, depth: usize, text: &mut String) {
    for (shown, node) in graph.nodes().iter().enumerate() {
        if shown == LINES_MAX {
            let _ = writeln!(text, "{}… and {} more", "  ".repeat(depth), graph.nodes().len() - shown);
            return;
        }
        let notes = notes(graph, node, detail);
        let inner = match &node.work {
            Work::Group(body) | Work::Loop(body) | Work::Call(Called::Other(body)) => Some(body),
            _ => None,
        };
        if detail == Detail::Everything || !notes.is_empty() || inner.is_some() {
            let kind = &node.code.kind;
            let line = format!("{}{} ({kind}) {}", "  ".repeat(depth + 1), clean(&node.name), notes.join("; "));
            let _ = writeln!(text, "{}", line.trim_end());
        }
        if let Some(body) = inner.filter(|_| depth < 8) {
            list(body, Detail::Everything, depth + 1, text);
        }
    }
}

fn notes(graph: &Graph, node: &Node, detail: Detail) -> Vec<String> {
    let source = |tree: &Option<Box<flowrun_engine::expr::Tree>>| {
        tree.as_ref()
            .map(|tree| tree.leaves().iter().map(|(_, leaf)| clean(leaf.text())).collect::<Vec<_>>().join(", "))
    };
    let mut notes = Vec::new();
    let names = node.code.spec.as_ref().and_then(|spec| node.code.fields.get(spec.names()?.name.as_str())?.constant());
    let names = names.map(|names| listed(names).iter().filter_map(Value::as_str).map(clean).collect::<Vec<_>>());
    notes.extend(names.map(|names| names.join(" or ")));
    notes.extend(source(&node.code.guard).map(|when| format!("when {when}")));
    notes.extend(source(&node.code.items).map(|list| format!("for each of {list}")));
    notes.extend(node.samples.map(|_| "several samples".to_owned()));
    notes.extend((!node.counted.is_empty()).then(|| "joins any".to_owned()));
    if detail == Detail::Everything {
        let names = |wanted: &[DependencyMode]| -> Vec<String> {
            let of = node.dependencies.iter().filter(|dependency| wanted.contains(&dependency.mode));
            of.map(|dependency| clean(&graph.node(dependency.source).name)).collect()
        };
        let (required, optional) =
            (names(&[DependencyMode::Required]), names(&[DependencyMode::Optional, DependencyMode::Waits]));
        notes.extend((!required.is_empty()).then(|| format!("← {}", required.join(", "))));
        notes.extend((!optional.is_empty()).then(|| format!("← {} (if there)", optional.join(", "))));
    }
    notes
}

/// Names and texts may come from a model: nothing of them reaches the terminal but visible characters, in their order.
pub(crate) fn clean(text: &str) -> String {
    visible(text).chars().take(200).collect()
}

/// The same of a text of any length.
pub(crate) fn visible(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect()
}

/// The longest beginning of a text that is at most `width` columns wide; some characters take two.
pub(crate) fn fit(text: &str, width: usize) -> &str {
    let mut used = 0;
    let too_much = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > width
    });
    too_much.map_or(text, |(at, _)| &text[..at])
}

/// The longest end of a text that is at most `width` columns wide.
pub(crate) fn fit_end(text: &str, width: usize) -> &str {
    let mut used = 0;
    let too_much = text.char_indices().rev().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > width
    });
    too_much.map_or(text, |(at, c)| &text[at + c.len_utf8()..])
}

/// Lines of at most `width` columns with the whole of a text, broken between words where there are any.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = visible(line);
        let mut rest = line.trim_end();
        while columns(rest) > width.max(2) {
            let head = fit(rest, width.max(2));
            let at = head.rfind(' ').filter(|at| *at > 0).unwrap_or(head.len());
            lines.push(rest[..at].trim_end().to_owned());
            rest = rest[at..].trim_start();
        }
        lines.push(rest.to_owned());
    }
    lines
}

/// How many columns a text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowrun_engine::graph::Dependency;
    use flowrun_engine::id::NodeIndex;

    fn fan(n: u32) -> Graph {
        let required =
            |source| Dependency { source: NodeIndex(source), inside: Vec::new(), mode: DependencyMode::Required };
        let mut nodes = vec![Node::new("start", Work::Leaf)];
        nodes.extend(
            (1..n).map(|i| Node { dependencies: vec![required(0)], ..Node::new(&format!("n{i}"), Work::Leaf) }),
        );
        Graph::build(nodes).expect("acyclic")
    }

    #[test]
    fn small_graphs_are_boxes_and_large_ones_lists() {
        let small = graph(&fan(3), 80);
        assert!(small.contains("[start]") && small.contains("[n2]"), "{small}");
        assert!(graph(&fan(3), 10).contains("← start"));
        let large = graph(&fan(20_000), 80);
        assert!(large.contains("and 19500 more") && large.lines().count() < 600);
        let required =
            |source| Dependency { source: NodeIndex(source), inside: Vec::new(), mode: DependencyMode::Required };
        let mut nodes: Vec<Node> = (0..3).map(|i| Node::new(&format!("s{i}"), Work::Leaf)).collect();
        let all = || (0..3).map(required).collect();
        nodes.extend((0..3).map(|i| Node { dependencies: all(), ..Node::new(&format!("t{i}"), Work::Leaf) }));
        let crossing = graph(&Graph::build(nodes).expect("acyclic"), 80);
        assert!(
            crossing.contains("[t2]") && crossing.contains("← s0, s1, s2"),
            "edges that cross are said: {crossing}"
        );
        assert!(!small.contains('←'), "{small}");
        assert_eq!(wrapped("one two\nthree\u{1b}[2J abcdefghij", 8), ["one two", "three", "[2J", "abcdefgh", "ij"]);
        assert_eq!(clean("a\u{1b}[31m\u{202e}b"), "a [31m b");
        assert_eq!((fit("東京です", 5), fit("abc", 5), fit("é", 0)), ("東京", "abc", ""));
        assert_eq!((fit_end("東京です", 5), fit_end("abc", 2), columns("東a")), ("です", "bc", 3));
    }
}
