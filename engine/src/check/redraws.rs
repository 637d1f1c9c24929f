//! Models that are asked the same in every pass of a loop, and so give the same kept answer each time.
//!
//! ```text
//! draft:  {prompt: "A joke about {{ topic }}", next: judge}              asks the same in every pass: warned of
//! judge:  {prompt: "Is this good? {{ draft }}", next: [{when: …, to: draft, max: 3}, …]}
//! ```
//!
//! One loop is looked at after the other, on the graphs that the checker made. A walk over its body, each node after what it
//! reads, marks the names whose values may differ from pass to pass: because they mention the passes (`last`, `iteration`, the item
//! of a sequential map, …), because they are made anew (a tool, a person, an answer that is not kept or has a `salt`), or because
//! they mention a name that is marked. A model that mentions none of all this is warned of; what reads it is not, being the same
//! for its sake alone. In doubt a name is marked. `last.x` of a loop further in looks backwards, so the walk is done again until
//! no more names are marked.
//!
//! Cost: O(mentions) for each loop around them and each walk.

use std::collections::{BTreeMap, BTreeSet};

use super::Checker;
use crate::definition::CacheScope;
use crate::diagnostic::codes;
use crate::expr::{NameUse, Tree};
use crate::graph::{Field, Graph, Join, Node, NodeCode, Work, forward_order};

/// Most walks over one body; what is still moving then is not warned of.
const WALKS_MAX: usize = 8;

/// A model that asks the same in every pass of a loop.
struct Redraw {
    /// Path of the node in the file.
    path: Vec<String>,
    /// How many loops are around the work of the node.
    loops: usize,
    /// What makes the passes.
    by: String,
    /// Whether the node itself does.
    own: bool,
    /// Whether its answers are found by a `key`.
    keyed: bool,
}

impl Checker<'_> {
    /// Warns of models that ask the same in every pass of a loop.
    pub(super) fn warn_redraws(&mut self, graph: &Graph) {
        let mut found: BTreeMap<Vec<String>, Redraw> = BTreeMap::new();
        // Loops further in come later, and are the ones to speak of.
        search(graph, &mut vec!["nodes".to_owned()], 0, &mut |redraw| {
            found.insert(redraw.path.clone(), redraw);
        });
        for redraw in found.into_values() {
            let at: Vec<&str> = redraw.path.iter().map(String::as_str).collect();
            let name = at.last().copied().unwrap_or_default();
            let same = if redraw.keyed { "has the same `key`" } else { "asks the same" };
            let message = format!("`{name}` {same} in every pass of {}: its kept answer comes back", redraw.by);
            let salt = if redraw.loops > 1 { "pass" } else { "iteration" };
            let problem = self.warning(codes::KEPT_ANSWER, &at, message);
            problem.help.push(format!("write `salt: {salt}`: every pass gets an answer of its own"));
            if !redraw.own {
                problem.help.push("if one answer is enough, put it before the loop".to_owned());
            }
        }
    }
}

/// Whether a value differs from pass to pass.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Differs {
    /// It is the same.
    #[default]
    No,
    /// It is the same for the sake of a model that is warned of.
    Once,
    /// It may.
    Yes,
}

impl Differs {
    fn any(all: impl Iterator<Item = Differs>) -> Self {
        all.max().unwrap_or_default()
    }

    fn when(it_does: bool) -> Self {
        if it_does { Self::Yes } else { Self::No }
    }
}

/// Looks at every loop of a graph; `loops` are around it.
fn search(graph: &Graph, path: &mut Vec<String>, loops: usize, found: &mut impl FnMut(Redraw)) {
    for node in graph.nodes() {
        let in_file = !matches!(node.work, Work::Loop(_));
        if in_file {
            path.push(node.name.to_string());
        }
        let mut around = loops;
        if node.sequential {
            look(node, Passes::Items, path, around, found);
            around += 1;
        }
        if node.loops() {
            look(node, Passes::Repeat, path, around, found);
            around += 1;
        }
        match &node.work {
            Work::Loop(body) => search(body, path, around, found),
            Work::Group(body) => {
                path.push("nodes".to_owned());
                search(body, path, around, found);
                path.pop();
            }
            _ => {}
        }
        if in_file {
            path.pop();
        }
    }
}

/// What the passes of a loop are.
#[derive(Clone, Copy, PartialEq)]
enum Passes {
    /// Items of a sequential map.
    Items,
    /// Passes of `repeat` or of a flowchart.
    Repeat,
}

/// Looks at one loop.
fn look(node: &Node, passes: Passes, path: &[String], around: usize, found: &mut impl FnMut(Redraw)) {
    if !asks_something(&node.work, &node.code) {
        return;
    }
    let mut walk = Walk::default();
    for _ in 0..WALKS_MAX {
        walk.body(node, passes, &mut path.to_vec());
        if !walk.again {
            for (at, loops, keyed) in walk.same {
                let own = at == path && !matches!(node.work, Work::Loop(_));
                found(Redraw { path: at, loops: around + loops, by: called(node, passes, own), own, keyed });
            }
            return;
        }
    }
}

/// What a loop is called where a node of it is spoken of.
fn called(node: &Node, passes: Passes, own: bool) -> String {
    let name = node.name.trim_start_matches("loop(").trim_end_matches(')');
    let word = match (passes, &node.work) {
        (_, Work::Loop(_)) => return format!("the loop of `{name}`"),
        (Passes::Items, _) => "sequential `for_each`",
        (Passes::Repeat, _) => "`repeat`",
    };
    if own { format!("its {word}") } else { format!("the {word} of `{name}`") }
}

/// Whether there is a model in it whose answers are kept, so that a loop is worth a walk.
fn asks_something(work: &Work, code: &NodeCode) -> bool {
    match work {
        Work::Group(graph) | Work::Loop(graph) => {
            graph.nodes().iter().any(|node| asks_something(&node.work, &node.code))
        }
        _ => is_candidate(code),
    }
}

fn is_candidate(code: &NodeCode) -> bool {
    let is_model = code.spec.as_ref().is_some_and(|spec| spec.calls_model);
    is_model && code.cache.scope != CacheScope::Off && code.cache.salt.is_none()
}

/// A walk over the body of one loop.
#[derive(Default)]
struct Walk<'g> {
    /// Names of the body whose values may differ, those of earlier walks included.
    marked: BTreeMap<&'g str, Differs>,
    /// The items that are known here, those further in last: their names, and whether they differ.
    items: Vec<(&'g str, &'g str, Differs)>,
    /// The loops around the place of the walk, this one first: the node that makes the passes, and the graph of its body.
    loops: Vec<(&'g str, Option<&'g Graph>)>,
    /// Models that ask the same in every pass, how many loops are around their work, and whether that is their `key`.
    same: Vec<(Vec<String>, usize, bool)>,
    /// Names of which earlier values were looked at, and that were not marked.
    looked_back: BTreeSet<&'g str>,
    /// Whether one of these was marked after that.
    again: bool,
}

impl<'g> Walk<'g> {
    /// The body of the loop itself.
    fn body(&mut self, node: &'g Node, passes: Passes, path: &mut Vec<String>) {
        (self.same, self.items, self.loops, self.again) = (Vec::new(), Vec::new(), Vec::new(), false);
        self.looked_back.clear();
        self.loops.push((&node.name, inside(&node.work)));
        if passes == Passes::Items {
            self.items.push((&node.item_name, &node.index_name, Differs::Yes));
            self.loops.extend(node.repeat.is_some().then_some((&*node.name, inside(&node.work))));
        }
        let differs = self.work(node, path);
        self.mark(&node.name, differs);
    }

    fn mark(&mut self, name: &'g str, differs: Differs) {
        let mark = self.marked.entry(name).or_default();
        self.again |= *mark < differs && differs == Differs::Yes && self.looked_back.contains(name);
        *mark = differs.max(*mark);
    }

    /// The nodes of a graph, each after what it reads: whether any of them differs.
    fn graph(&mut self, graph: &'g Graph, path: &mut Vec<String>) -> Differs {
        let mut any = Differs::No;
        for index in forward_order(graph.nodes()).unwrap_or_default() {
            let node = &graph.nodes()[index];
            let in_file = !matches!(node.work, Work::Loop(_));
            path.extend(in_file.then(|| node.name.to_string()));
            let differs = self.node(node, path);
            self.mark(&node.name, differs);
            any = any.max(differs);
            path.truncate(path.len() - usize::from(in_file));
        }
        any
    }

    /// The value of a node.
    fn node(&mut self, node: &'g Node, path: &mut Vec<String>) -> Differs {
        let code = &node.code;
        // Which way the flow goes may differ without anything that could be seen here: a bound is spent, a node fails.
        let routed = !node.edges_in.is_empty() || node.join != Join::Default;
        let list = self.optional(&code.items);
        let mut differs = Differs::when(routed).max(list).max(self.optional(&code.guard));
        for when in code.cases.iter().flatten() {
            differs = differs.max(self.tree(when));
        }
        let (items, loops) = (self.items.len(), self.loops.len());
        if node.for_each {
            self.items.push((&node.item_name, &node.index_name, list));
        }
        for _ in 0..usize::from(node.sequential) + usize::from(node.loops()) {
            self.loops.push((&node.name, inside(&node.work)));
        }
        let work = self.work(node, path);
        differs = differs.max(work).max(self.optional(&code.until)).max(self.optional(&code.output));
        self.items.truncate(items);
        self.loops.truncate(loops);
        if let (Differs::Yes, Work::Loop(graph)) = (differs, &node.work) {
            // How many passes there are may differ, and whether there is one, and so what the last one gives.
            graph.names().for_each(|name| self.mark(name, Differs::Yes));
        }
        differs.max(self.optional(&code.stop))
    }

    /// What a node does for one item in one pass.
    fn work(&mut self, node: &'g Node, path: &mut Vec<String>) -> Differs {
        let code = &node.code;
        match &node.work {
            Work::Value => self.fields(code),
            Work::Leaf => {
                let asked = if code.cache.key.is_some() { self.optional(&code.cache.key) } else { self.fields(code) };
                let anew = code.cache.scope == CacheScope::Off || code.cache.salt.is_some();
                let same = asked == Differs::No && is_candidate(code);
                self.same.extend(same.then(|| (path.clone(), self.loops.len(), code.cache.key.is_some())));
                if same { Differs::Once } else { asked.max(Differs::when(anew)) }
            }
            Work::Loop(graph) => self.graph(graph, path),
            Work::Group(graph) => {
                path.push("nodes".to_owned());
                let any = self.graph(graph, path);
                path.pop();
                graph.output.as_ref().map_or(any, |output| self.tree(output))
            }
            Work::Call(_) | Work::Expand | Work::Human { .. } => Differs::Yes,
        }
    }

    fn fields(&mut self, code: &'g NodeCode) -> Differs {
        let mut differs = Differs::any(code.appended.iter().map(|name| self.name(name)));
        for field in code.fields.values() {
            differs = differs.max(match field {
                Field::Template(template) => self.mentions(template.names()),
                Field::Slotted(slotted) => Differs::any(slotted.slots().iter().map(|(name, _)| self.name(name))),
                Field::Formula(formula) => Differs::any(formula.names().iter().map(|(name, _)| self.name(name))),
                Field::Tree(tree) => self.tree(tree),
                Field::Literal(_) => Differs::No,
            });
        }
        differs
    }

    fn optional(&mut self, tree: &'g Option<Box<Tree>>) -> Differs {
        tree.as_ref().map_or(Differs::No, |tree| self.tree(tree))
    }

    fn tree(&mut self, tree: &'g Tree) -> Differs {
        Differs::any(tree.leaves().into_iter().map(|(_, leaf)| self.mentions(leaf.names())))
    }

    fn mentions(&mut self, mentions: &'g [NameUse]) -> Differs {
        let one = |mention: &'g NameUse| match &*mention.name {
            "pass" | "error" => Differs::Yes,
            "iteration" => Differs::when(self.loops.len() == 1),
            "last" | "past" => mention.attributes.first().map_or(Differs::Yes, |of| self.earlier(of)),
            name => self.name(name),
        };
        Differs::any(mentions.iter().map(one))
    }

    /// Earlier values of a node: in the passes of this loop they differ, in those of a loop further in if its values do, and in
    /// those of one further out they stay.
    fn earlier(&mut self, of: &'g str) -> Differs {
        let has = |(name, graph): &(&str, Option<&Graph>)| {
            *name == of || graph.is_some_and(|graph| graph.find_anywhere(of).is_some())
        };
        match self.loops.iter().rposition(has) {
            Some(0) => Differs::Yes,
            Some(_) if self.marked.get(of) == Some(&Differs::Yes) => Differs::Yes,
            Some(_) => {
                self.looked_back.insert(of);
                Differs::No
            }
            None => Differs::No,
        }
    }

    fn name(&self, name: &str) -> Differs {
        let item = self.items.iter().rev().find(|(item, index, _)| *item == name || *index == name);
        item.map_or_else(|| self.marked.get(name).copied().unwrap_or_default(), |(_, _, differs)| *differs)
    }
}

/// The graph of a node's body.
fn inside(work: &Work) -> Option<&Graph> {
    match work {
        Work::Group(graph) | Work::Loop(graph) => Some(graph),
        _ => None,
    }
}
