//! A graph in the languages of Mermaid and Graphviz.
//!
//! Groups and calls are boxes around their nodes, other kinds have a shape each; what is optional is dashed. Names and texts
//! may come from a model, so they stand in quoted labels only, with every sign that could mean something written by number;
//! ids are numbers of our own.

use std::fmt::Write;

use super::notes::{notes, title};
use super::picture::{Edge, Line, Part, Picture};
use crate::trace::counted;
use flowrun_engine::graph::{Graph, Node, Work};

/// Most nodes that are drawn, boxes included.
const NODES_MAX: usize = 2_000;

#[derive(Clone, Copy)]
enum Shape {
    Asks,
    Plans,
    Expands,
    Computes,
    Person,
    Other,
}

impl Shape {
    fn of(node: &Node) -> Self {
        match (&node.work, node.code.kind.as_str()) {
            (Work::Expand, _) => Shape::Expands,
            (Work::Value, _) => Shape::Computes,
            (Work::Human { .. }, _) => Shape::Person,
            (_, "llm") => Shape::Asks,
            (_, "plan") => Shape::Plans,
            _ => Shape::Other,
        }
    }

    /// What stands around a label in Mermaid.
    fn brackets(self) -> (&'static str, &'static str) {
        match self {
            Shape::Asks => ("[", "]"),
            Shape::Plans => ("{{", "}}"),
            Shape::Expands => ("[[", "]]"),
            Shape::Computes => ("([", "])"),
            Shape::Person => (">", "]"),
            Shape::Other => ("[/", "/]"),
        }
    }

    /// Its attributes in Graphviz.
    fn attributes(self) -> &'static str {
        match self {
            Shape::Asks => "shape=box",
            Shape::Plans => "shape=hexagon",
            Shape::Expands => "shape=component",
            Shape::Computes => "shape=box, style=rounded",
            Shape::Person => "shape=house",
            Shape::Other => "shape=parallelogram",
        }
    }
}

/// The lines of a node's label.
fn label(node: &Node) -> Vec<String> {
    std::iter::once(title(node)).chain(notes(node)).collect()
}

/// The first and the last node inside of each box; other nodes are their own.
fn insides(picture: &Picture<'_>) -> Vec<(usize, usize)> {
    let mut inside: Vec<(usize, usize)> = (0..picture.drawn).map(|id| (id, id)).collect();
    let (mut open, mut last) = (Vec::new(), 0);
    for part in &picture.parts {
        match part {
            Part::Node { id, .. } => last = *id,
            Part::Open { id, .. } => open.push(*id),
            Part::Close { .. } => {
                // An empty box has nothing inside, and ids are given in this order.
                let id = open.pop().expect("BUG: a box was closed twice");
                inside[id] = if last > id { (inside.get(id + 1).map_or(id, |first| first.0), last) } else { (id, id) };
            }
        }
    }
    inside
}

/// Between which nodes an edge goes: one from a box to itself leads from its last node to its first.
fn ends(edge: &Edge, inside: &[(usize, usize)]) -> (usize, usize) {
    if edge.from == edge.to { (inside[edge.from].1, inside[edge.to].0) } else { (edge.from, edge.to) }
}

/// What says that something is missing.
fn rest(picture: &Picture<'_>) -> Option<String> {
    (picture.left_out > 0).then(|| format!("… and {}", counted(picture.left_out as u64, "more node")))
}

/// The graph as a flowchart of Mermaid.
pub fn mermaid(graph: &Graph) -> String {
    let picture = Picture::of(graph, NODES_MAX, false);
    let quoted = |node: &Node| label(node).iter().map(|line| by_number(line)).collect::<Vec<_>>().join("<br/>");
    let mut text = "flowchart TD\n".to_owned();
    for part in &picture.parts {
        let _ = match part {
            Part::Node { id, depth, node } => {
                let (open, close) = Shape::of(node).brackets();
                writeln!(text, "{}n{id}{open}\"{}\"{close}", indent(*depth), quoted(node))
            }
            Part::Open { id, depth, node } => {
                writeln!(text, "{}subgraph n{id}[\"{}\"]", indent(*depth), quoted(node))
            }
            Part::Close { depth } => writeln!(text, "{}end", indent(*depth)),
        };
    }
    let inside = insides(&picture);
    for edge in &picture.edges {
        let (from, to) = ends(edge, &inside);
        let label = edge.label.as_ref().map(|label| by_number(label));
        let _ = match (edge.line, label) {
            (Line::Solid, None) => writeln!(text, "  n{from} --> n{to}"),
            (Line::Solid, Some(label)) => writeln!(text, "  n{from} -- \"{label}\" --> n{to}"),
            (_, label) => writeln!(text, "  n{from} -. \"{}\" .-> n{to}", label.unwrap_or_default()),
        };
    }
    if let Some(rest) = rest(&picture) {
        let _ = writeln!(text, "  rest[\"{}\"]", by_number(&rest));
    }
    text
}

/// The graph in the language of Graphviz.
pub fn dot(graph: &Graph) -> String {
    let picture = Picture::of(graph, NODES_MAX, false);
    let quoted = |node: &Node| label(node).iter().map(|line| escaped(line)).collect::<Vec<_>>().join("\\n");
    let mut text = "digraph workflow {\n  compound=true;\n".to_owned();
    // Edges join nodes, so one to or from a box goes to the first node inside and is cut off at the rim.
    let inside = insides(&picture);
    for part in &picture.parts {
        let _ = match part {
            Part::Node { id, depth, node } => {
                let attributes = Shape::of(node).attributes();
                writeln!(text, "{}n{id} [{attributes}, label=\"{}\"];", indent(*depth), quoted(node))
            }
            Part::Open { id, depth, node } => {
                writeln!(text, "{}subgraph cluster_n{id} {{ label=\"{}\";", indent(*depth), quoted(node))
            }
            Part::Close { depth } => writeln!(text, "{}}}", indent(*depth)),
        };
    }
    for edge in &picture.edges {
        let (from, to) = ends(edge, &inside);
        let mut attributes = Vec::new();
        attributes.extend(match edge.line {
            Line::Solid => None,
            Line::Dashed => Some("style=dashed".to_owned()),
            Line::Dotted => Some("style=dotted".to_owned()),
        });
        attributes.extend(edge.label.as_ref().map(|label| format!("label=\"{}\"", escaped(label))));
        attributes.extend((inside[from].0 != from).then(|| format!("ltail=cluster_n{from}")));
        attributes.extend((inside[to].0 != to).then(|| format!("lhead=cluster_n{to}")));
        let attributes = if attributes.is_empty() { String::new() } else { format!(" [{}]", attributes.join(", ")) };
        let _ = writeln!(text, "  n{} -> n{}{attributes};", inside[from].0, inside[to].0);
    }
    if let Some(rest) = rest(&picture) {
        let _ = writeln!(text, "  rest [shape=plaintext, label=\"{}\"];", escaped(&rest));
    }
    text + "}\n"
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth + 1)
}

/// Inside the quotes of Mermaid: only letters, digits and signs without any meaning stand for themselves.
fn by_number(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || " _.,-+*/=()[]'!?…←".contains(c);
    text.chars().map(|c| if plain(c) { c.to_string() } else { format!("#{};", c as u32) }).collect()
}

/// Inside the quotes of Graphviz, which reads backslashes and entities.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('&', "&amp;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowrun_engine::graph::{Dependency, DependencyMode};
    use flowrun_engine::id::NodeIndex;

    const HOSTILE: &str = "a\"]; n9 --> x\n%%{init: {}}%% `b` <script>&lt;\\ \u{1b}[2J\u{202e}; end";

    fn fan(n: u32, name: &str) -> Graph {
        let source =
            |source| Dependency { source: NodeIndex(source), inside: Vec::new(), mode: DependencyMode::Required };
        let mut nodes = vec![Node::new(name, Work::Leaf)];
        let leaf = |i: u32| Node { dependencies: vec![source(i / 2)], ..Node::new(&format!("n{i}"), Work::Leaf) };
        nodes.extend((1..n).map(leaf));
        Graph::build(nodes).expect("acyclic")
    }

    #[test]
    fn a_name_never_becomes_markup() {
        let graph = fan(2, HOSTILE);
        let (mermaid, dot) = (mermaid(&graph), dot(&graph));
        let label = mermaid.lines().nth(1).unwrap();
        let inner = label.strip_prefix("  n0[/\"").and_then(|rest| rest.strip_suffix("\"/]")).expect(label);
        assert!(!inner.contains(['"', '`', '%', '<', '>', '{', '&', '\\', ':']), "{inner}");
        assert!(inner.starts_with("a#34;]#59; n9 --#62; x #37;#37;#123;init#58; "), "{inner}");
        assert_eq!(mermaid.lines().count(), 4, "{mermaid}");
        let label = dot.lines().nth(2).unwrap();
        let inner =
            label.strip_prefix("  n0 [shape=parallelogram, label=\"").and_then(|rest| rest.strip_suffix("\"];"));
        let unescaped = inner.expect(label).replace("\\\\", "").replace("\\\"", "");
        assert!(!unescaped.contains(['"', '\\']) && unescaped.contains("&amp;lt;"), "{label}");
        for text in [mermaid, dot] {
            assert!(!text.contains(|c: char| c != '\n' && c.is_control() || c == '\u{202e}'), "{text:?}");
        }
    }

    #[test]
    fn a_condition_never_becomes_markup() {
        let text = r#"{flowrun: 1, inputs: {q: string}, nodes: {a: {value: q, next: [{when: "q == '\"]; n9 --> x <b>'", to: b}, {to: a, max: 2}]}, b: {value: a}}, output: b}"#;
        let workflow = crate::Flowrun::builder().build().parse("hostile.yaml", text).expect("it checks");
        let (mermaid, dot) = (mermaid(&workflow.graph), dot(&workflow.graph));
        assert!(
            mermaid.contains(r##"  n1 -- "q == '#34;]#59; n9 --#62; x #60;b#62;'" --> n2"##)
                && mermaid.contains(r#"  n1 -- "else, max 2" --> n1"#),
            "{mermaid}"
        );
        assert!(dot.contains(r#"  n1 -> n2 [label="q == '\"]; n9 --> x <b>'"];"#), "{dot}");
    }

    #[test]
    fn a_huge_graph_is_cut_and_says_so() {
        let graph = fan(20_000, "start");
        for text in [mermaid(&graph), dot(&graph)] {
            assert!(text.lines().count() < 2 * NODES_MAX + 10 && text.contains("… and 18,000 more nodes"), "{text}");
        }
        let nested = Graph::build(vec![Node::new("group", Work::Group(graph.into()))]).expect("acyclic");
        let text = dot(&nested);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert!(text.contains("… and 18,001 more nodes"));
    }
}
