//! A graph in the languages of Mermaid and Graphviz.
//!
//! Groups and calls are boxes around their nodes, other kinds have a shape each; what is optional is dashed. Names and texts
//! may come from a model, so they stand in quoted labels only, with every sign that could mean something written by number;
//! ids are numbers of our own.

use std::fmt::Write;

use super::{Detail, clean, notes};
use crate::trace::counted;
use flowrun_engine::graph::{Called, DependencyMode, Graph, Node, Work};

/// Most nodes that are drawn, boxes included.
const NODES_MAX: usize = 2_000;

/// What is drawn, in reading order. A number is the id of a node or box.
enum Part {
    Node { id: usize, depth: usize, shape: Shape, label: Vec<String> },
    Open { id: usize, depth: usize, label: Vec<String> },
    Close { depth: usize },
}

struct Edge {
    from: usize,
    to: usize,
    label: Option<&'static str>,
}

#[derive(Default)]
struct Drawing {
    parts: Vec<Part>,
    edges: Vec<Edge>,
    drawn: usize,
    left_out: usize,
}

#[derive(Clone, Copy)]
enum Shape {
    Asks,
    Plans,
    Expands,
    Computes,
    Other,
}

impl Shape {
    fn of(node: &Node) -> Self {
        match (&node.work, node.code.kind.as_str()) {
            (Work::Expand, _) => Shape::Expands,
            (Work::Value, _) => Shape::Computes,
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
            Shape::Other => "shape=parallelogram",
        }
    }
}

impl Drawing {
    fn of(graph: &Graph) -> Self {
        let mut drawing = Self::default();
        drawing.add(graph, 0);
        drawing
    }

    /// Adds the nodes of a graph, then its edges. Checked graphs nest a few levels only.
    fn add(&mut self, graph: &Graph, depth: usize) {
        let mut ids = Vec::new();
        for node in graph.nodes() {
            if self.drawn == NODES_MAX {
                break;
            }
            let id = self.drawn;
            self.drawn += 1;
            ids.push(id);
            let mut label = vec![format!("{} ({})", clean(&node.name), clean(&node.code.kind))];
            label.extend(notes(graph, node, Detail::Conditions));
            match &node.work {
                Work::Group(body) | Work::Loop(body) | Work::Call(Called::Other(body)) if self.drawn < NODES_MAX => {
                    self.parts.push(Part::Open { id, depth, label });
                    self.add(body, depth + 1);
                    self.parts.push(Part::Close { depth });
                }
                _ => self.parts.push(Part::Node { id, depth, shape: Shape::of(node), label }),
            }
        }
        self.left_out += graph.nodes().len() - ids.len();
        for (node, to) in graph.nodes().iter().zip(&ids) {
            for dependency in &node.dependencies {
                let any = node.counted.iter().any(|counted| counted.source == dependency.source);
                let optional = dependency.mode == DependencyMode::Optional;
                let label = if any { Some("any") } else { optional.then_some("if there") };
                if let Some(from) = ids.get(dependency.source.index()) {
                    self.edges.push(Edge { from: *from, to: *to, label });
                }
            }
        }
    }

    /// What says that something is missing.
    fn rest(&self) -> Option<String> {
        (self.left_out > 0).then(|| format!("… and {}", counted(self.left_out as u64, "more node")))
    }
}

/// The graph as a flowchart of Mermaid.
pub fn mermaid(graph: &Graph) -> String {
    let drawing = Drawing::of(graph);
    let quoted = |label: &[String]| label.iter().map(|line| by_number(line)).collect::<Vec<_>>().join("<br/>");
    let mut text = "flowchart TD\n".to_owned();
    for part in &drawing.parts {
        let _ = match part {
            Part::Node { id, depth, shape, label } => {
                let (open, close) = shape.brackets();
                writeln!(text, "{}n{id}{open}\"{}\"{close}", indent(*depth), quoted(label))
            }
            Part::Open { id, depth, label } => {
                writeln!(text, "{}subgraph n{id}[\"{}\"]", indent(*depth), quoted(label))
            }
            Part::Close { depth } => writeln!(text, "{}end", indent(*depth)),
        };
    }
    for Edge { from, to, label } in &drawing.edges {
        let _ = match label {
            None => writeln!(text, "  n{from} --> n{to}"),
            Some(label) => writeln!(text, "  n{from} -. \"{label}\" .-> n{to}"),
        };
    }
    if let Some(rest) = drawing.rest() {
        let _ = writeln!(text, "  rest[\"{}\"]", by_number(&rest));
    }
    text
}

/// The graph in the language of Graphviz.
pub fn dot(graph: &Graph) -> String {
    let drawing = Drawing::of(graph);
    let quoted = |label: &[String]| label.iter().map(|line| escaped(line)).collect::<Vec<_>>().join("\\n");
    let mut text = "digraph workflow {\n  compound=true;\n".to_owned();
    // Edges join nodes, so one to or from a box goes to the first node inside and is cut off at the rim.
    let mut inside: Vec<usize> = (0..drawing.drawn).collect();
    for part in drawing.parts.iter().rev() {
        if let Part::Open { id, .. } = part {
            inside[*id] = inside[*id + 1];
        }
    }
    for part in &drawing.parts {
        let _ = match part {
            Part::Node { id, depth, shape, label } => {
                writeln!(text, "{}n{id} [{}, label=\"{}\"];", indent(*depth), shape.attributes(), quoted(label))
            }
            Part::Open { id, depth, label } => {
                writeln!(text, "{}subgraph cluster_n{id} {{ label=\"{}\";", indent(*depth), quoted(label))
            }
            Part::Close { depth } => writeln!(text, "{}}}", indent(*depth)),
        };
    }
    for Edge { from, to, label } in &drawing.edges {
        let mut attributes = Vec::new();
        attributes.extend(label.map(|label| format!("style=dashed, label=\"{label}\"")));
        attributes.extend((inside[*from] != *from).then(|| format!("ltail=cluster_n{from}")));
        attributes.extend((inside[*to] != *to).then(|| format!("lhead=cluster_n{to}")));
        let attributes = if attributes.is_empty() { String::new() } else { format!(" [{}]", attributes.join(", ")) };
        let _ = writeln!(text, "  n{} -> n{}{attributes};", inside[*from], inside[*to]);
    }
    if let Some(rest) = drawing.rest() {
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
    use flowrun_engine::graph::Dependency;
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
