//! What is said of a node beside its name: conditions, maps, loops, joins, and where the flow goes on.

use flowrun_engine::definition::listed;
use flowrun_engine::expr::Tree;
use flowrun_engine::graph::{Called, Count, DependencyMode, Graph, Join, Node, Target, Work};
use flowrun_engine::id::NodeIndex;
use serde_json::Value;

use super::clean;
use super::picture::header;

/// A node's name and kind; a loop is called after the node that it begins with.
pub(super) fn title(node: &Node) -> String {
    match &node.work {
        Work::Loop(_) => format!("loop {}", clean(header(node))),
        _ => format!("{} ({})", clean(&node.name), clean(&node.code.kind)),
    }
}

/// What decides whether and how often its work is done.
pub(super) fn notes(node: &Node) -> Vec<String> {
    let mut notes = Vec::new();
    let names = node.code.spec.as_ref().and_then(|spec| node.code.fields.get(spec.names()?.name.as_str())?.constant());
    let names = names.map(|names| listed(names).iter().filter_map(Value::as_str).map(clean).collect::<Vec<_>>());
    notes.extend(names.map(|names| names.join(" or ")));
    notes.extend(node.code.guard.as_deref().map(|when| format!("when {}", source(when))));
    if let Some(items) = &node.code.items {
        let how = if node.sequential { ", one after the other" } else { "" };
        notes.push(format!("for each of {}{how}", source(items)));
    }
    notes.extend(node.samples.map(|samples| format!("{} samples", count(node, samples))));
    notes.extend(node.code.stop.as_deref().map(|stop| format!("stops when {}", source(stop))));
    notes.extend(node.quorum.map(|quorum| format!("at least {} must succeed", count(node, quorum))));
    if let Some(repeat) = &node.repeat {
        let until = node.code.until.as_deref().map(|until| format!("until {}, ", source(until))).unwrap_or_default();
        notes.push(format!("repeated {until}at most {} times", count(node, repeat.max)));
    }
    if let Work::Call(Called::Around(_)) = &node.work {
        let name = node.code.fields.get("workflow").and_then(|field| field.constant()?.as_str());
        notes.push(format!("calls {} again", name.map_or("the workflow around it".to_owned(), clean)));
    }
    notes.extend(node.max_depth.map(|depth| format!("at most {depth} inside each other")));
    notes.extend(join_word(node.join).map(|word| format!("join: {word}")));
    notes
}

/// How sources come together, in the word of the file; `None`: as they do by themselves.
pub(super) fn join_word(join: Join) -> Option<String> {
    match join {
        Join::Default => None,
        Join::All => Some("all".to_owned()),
        Join::Any => Some("any".to_owned()),
        Join::First => Some("first".to_owned()),
        Join::Quorum(count) => Some(format!("quorum {count}")),
    }
}

/// What stands at the edges of a case of `next`.
pub(super) fn case_label(node: &Node, number: usize) -> Option<String> {
    let when = node.code.cases.get(number).and_then(Option::as_ref).map(source);
    let when = match (when, number) {
        (Some(when), 0) => Some(when),
        (Some(when), _) => Some(format!("else if {when}")),
        (None, 0) => None,
        (None, _) => Some("else".to_owned()),
    };
    let max = node.next[number].bound.map(|bound| format!("max {}", count(node, bound.max)));
    let parts: Vec<String> = when.into_iter().chain(max).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Where the flow goes on, case by case; `ways` has the names of the exits of the loop around.
pub(super) fn flow_notes(graph: &Graph, node: &Node, ways: &Ways) -> Vec<String> {
    let cases = node.next.iter().enumerate().map(|(number, case)| {
        let to: Vec<String> = case.to.iter().map(|target| ways.name(graph, *target)).collect();
        let label = case_label(node, number).map(|label| format!(" ({label})")).unwrap_or_default();
        format!("→ {}{label}", to.join(" and "))
    });
    let error = node.error_to.map(|to| format!("→ {} (on error)", ways.name(graph, to)));
    cases.chain(error).collect()
}

/// Whether more must be said of a node's edges than a drawing without labels shows.
pub(super) fn flow_has_conditions(node: &Node) -> bool {
    node.error_to.is_some() || (0..node.next.len()).any(|number| case_label(node, number).is_some())
}

/// What a node waits for beside edges that lead to it.
pub(super) fn source_notes(graph: &Graph, node: &Node) -> Vec<String> {
    let names = |wanted: &[DependencyMode]| -> Vec<String> {
        let of = node.dependencies.iter().filter(|dependency| wanted.contains(&dependency.mode));
        let of = of.filter(|dependency| !dependency.inside.is_empty() || !node.edges_in.contains(&dependency.source));
        of.map(|dependency| clean(inside(graph, dependency.source, &dependency.inside))).collect()
    };
    // What its body reads is said there.
    if let Work::Loop(_) = &node.work {
        return Vec::new();
    }
    let outside = node.requires_outside.iter().map(|name| clean(name));
    let (mut required, optional) =
        (names(&[DependencyMode::Required]), names(&[DependencyMode::Optional, DependencyMode::Waits]));
    if matches!(node.work, Work::Leaf | Work::Value | Work::Expand | Work::Human { .. }) {
        required.extend(outside);
    }
    let sign = if node.edges_in.is_empty() { "←" } else { "reads" };
    let required = (!required.is_empty()).then(|| format!("{sign} {}", required.join(", ")));
    let optional = (!optional.is_empty()).then(|| format!("{sign} {} (if there)", optional.join(", ")));
    required.into_iter().chain(optional).collect()
}

/// The name of a node, in a loop or not.
fn inside<'a>(graph: &'a Graph, index: NodeIndex, way: &[NodeIndex]) -> &'a str {
    let node = graph.node(index);
    match (&node.work, way) {
        (Work::Loop(body), [next, rest @ ..]) => inside(body, *next, rest),
        _ => header(node),
    }
}

/// What the targets mean that lead out of a graph.
#[derive(Clone, Default)]
pub(super) struct Ways {
    again: String,
    exits: Vec<String>,
}

impl Ways {
    /// Those of a node's body.
    pub(super) fn out_of(graph: &Graph, node: &Node, around: &Ways) -> Self {
        let exits = node.exits.iter().map(|exit| around.name(graph, *exit)).collect();
        Self { again: format!("{} again", clean(header(node))), exits }
    }

    fn name(&self, graph: &Graph, target: Target) -> String {
        match target {
            Target::Node(index) => clean(header(graph.node(index))),
            Target::Again => self.again.clone(),
            Target::Exit(number) => self.exits.get(number as usize).cloned().unwrap_or_default(),
        }
    }
}

fn source(tree: &Tree) -> String {
    tree.leaves().iter().map(|(_, leaf)| clean(leaf.text())).collect::<Vec<_>>().join(", ")
}

/// A number, or the expression that gives it.
fn count(node: &Node, count: Count) -> String {
    match count {
        Count::Fixed(number) => number.to_string(),
        Count::Decided(number) => {
            node.code.counts.get(number as usize).map_or("?".to_owned(), |(_, tree)| source(tree))
        }
    }
}
