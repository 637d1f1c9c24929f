//! A graph as people see it: boxes and lines in a terminal where they fit, an indented list where they do not; [`mermaid`] and
//! [`dot`] write it for programs that draw.

mod markup;
mod notes;
mod picture;

use std::fmt::Write;

use ascii_dag::RenderOptions;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

pub use markup::{dot, mermaid};

use flowrun_engine::graph::{Graph, Work};

use notes::{Ways, flow_has_conditions, flow_notes, notes, source_notes, title};
use picture::{Line, Part, Picture, body, header};

/// Most nodes that are drawn as boxes.
const BOXES_MAX: usize = 40;
/// Most edges that an eye follows through boxes; where there are more the nodes are listed too.
const EDGES_MAX: usize = 6;
/// Most nodes that are listed.
const LINES_MAX: usize = 500;

/// Draws a graph, at most `width` characters wide.
pub fn graph(graph: &Graph, width: usize) -> String {
    let picture = Picture::of(graph, BOXES_MAX + 1, true);
    let boxes = if picture.drawn <= BOXES_MAX { draw(&picture) } else { String::new() };
    let fits = !boxes.is_empty() && boxes.lines().all(|line| line.trim_end().chars().count() <= width);
    let clear = picture.edges().count() <= EDGES_MAX && !boxes.contains(['┼', '╪', '╫']);
    let mut text = if fits { boxes } else { String::new() };
    let detail = if fits && clear { Detail::Conditions } else { Detail::Everything };
    list(graph, detail, &Ways::default(), 0, &mut text);
    text
}

#[derive(Clone, Copy, PartialEq)]
enum Detail {
    /// Only what boxes do not show.
    Conditions,
    /// Sources too.
    Everything,
}

/// The picture in boxes: nodes by name, loops around their nodes. What is merely read has no line.
fn draw(picture: &Picture<'_>) -> String {
    let labels: Vec<String> = (picture.parts.iter())
        .map(|part| match part {
            Part::Node { node, .. } => clean(header(node)),
            Part::Open { node, .. } => title(node),
            Part::Close { .. } => String::new(),
        })
        .collect();
    let mut drawn = ascii_dag::Graph::new();
    let mut open: Vec<usize> = Vec::new();
    for (part, label) in picture.parts.iter().zip(&labels) {
        // It refuses what is inside of itself, which parts are not.
        let _placed = match part {
            Part::Node { id, .. } => {
                drawn.add_node(*id, label.as_str());
                open.last().map(|around| drawn.put_nodes(&[*id]).inside(*around))
            }
            Part::Open { .. } => {
                let inner = drawn.add_subgraph(label);
                let around = open.last().copied();
                open.push(inner);
                around.map(|around| drawn.put_subgraphs(&[inner]).inside(around))
            }
            Part::Close { .. } => {
                open.pop();
                None
            }
        };
    }
    for edge in picture.edges().filter(|edge| edge.line != Line::Dotted && picture.is_node(edge)) {
        drawn.add_edge(edge.from, edge.to, None);
    }
    let text = drawn.compute_layout().render_string(&RenderOptions::plain());
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

fn list(graph: &Graph, detail: Detail, ways: &Ways, depth: usize, text: &mut String) {
    for (shown, node) in graph.nodes().iter().enumerate() {
        if shown == LINES_MAX {
            let _ = writeln!(text, "{}… and {} more", "  ".repeat(depth), graph.nodes().len() - shown);
            return;
        }
        let mut said = notes(node);
        if detail == Detail::Everything {
            said.extend(source_notes(graph, node));
        }
        if detail == Detail::Everything || flow_has_conditions(node) {
            said.extend(flow_notes(graph, node, ways));
        }
        let inner = body(node);
        if detail == Detail::Everything || !said.is_empty() || inner.is_some() {
            let line = format!("{}{} {}", "  ".repeat(depth + 1), title(node), said.join("; "));
            let _ = writeln!(text, "{}", line.trim_end());
        }
        if let Some(body) = inner.filter(|_| depth < 8) {
            let is_drawn = matches!(node.work, Work::Loop(_));
            let detail = if is_drawn { detail } else { Detail::Everything };
            list(body, detail, &Ways::out_of(graph, node, ways), depth + 1, text);
        }
    }
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

/// The same of a text that stays as it is laid out: lines and tabs are kept.
pub(crate) fn readable(text: &str) -> String {
    let lines = text.split('\n').map(|line| line.split('\t').map(visible).collect::<Vec<_>>().join("\t"));
    lines.collect::<Vec<_>>().join("\n")
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
        loop {
            let head = fit(rest, width.max(2));
            if head.len() == rest.len() {
                break;
            }
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
    use flowrun_engine::graph::{Dependency, DependencyMode, Node};
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
