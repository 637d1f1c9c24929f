//! The loops of a level, by their definition and by search: no graph library, no cleverness.
//!
//! *Upwards* is to itself or to a node written above. The body of a header: what is reachable from it by forward edges and leads
//! back to one of its tails, by forward edges or by back edges to other headers, without leaving what is reachable from it.

use std::collections::BTreeSet;

use super::spec::{Kind, Level, NodeSpec, Policy, Read};
use crate::definition::Join;

/// Indices of nodes in file order.
pub type Set = BTreeSet<usize>;

/// A natural loop.
#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    /// Its header.
    pub header: usize,
    /// Its nodes, those of loops in it included.
    pub body: Set,
    /// The loop around it.
    pub parent: Option<usize>,
}

/// What a level's edges come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow {
    /// Its loops.
    pub loops: Vec<Loop>,
    /// By node: whom it waits for, `next` edges and names inside it included, back edges not.
    pub sources: Vec<Set>,
    /// By node: forward `next` edges to it.
    pub edges_in: Vec<Set>,
}

impl Flow {
    /// The innermost loop around a node.
    pub fn innermost(&self, node: usize) -> Option<usize> {
        let around = (0..self.loops.len()).filter(|index| self.loops[*index].body.contains(&node));
        around.min_by_key(|index| self.loops[*index].body.len())
    }

    /// The loop of which a node is the header.
    pub fn headed(&self, node: usize) -> Option<usize> {
        self.loops.iter().position(|a_loop| a_loop.header == node)
    }

    /// How many loops are around a loop.
    pub fn depth(&self, index: usize) -> usize {
        self.loops[index].parent.map_or(0, |parent| 1 + self.depth(parent))
    }
}

/// Where every `next` edge of a node leads, `on_error: {to}` included.
pub fn targets(node: &NodeSpec) -> impl Iterator<Item = &String> {
    let to = if let Policy::To(name) = &node.on_error { Some(name) } else { None };
    node.next.iter().flat_map(|case| &case.to).chain(to)
}

/// The names of nodes that a mention waits for.
fn waited(read: &Read) -> Option<&String> {
    match read {
        Read::Plain(name) | Read::Default(name) | Read::Error(name) => Some(name),
        Read::Last(_) | Read::Past(_) | Read::Given(_) => None,
    }
}

/// Every name that a node waits for: its own mentions, its `needs`, and what is mentioned inside it.
pub fn names(node: &NodeSpec) -> Vec<&String> {
    let mut names: Vec<&String> = node.mentions().filter_map(waited).collect();
    names.extend(node.needs.iter().map(|need| &need.name));
    if let Kind::Group(level) = &node.kind {
        names.extend(level.nodes.iter().flat_map(names_of));
        names.extend(level.output.iter().flatten().filter_map(waited));
    }
    names
}

fn names_of(node: &NodeSpec) -> Vec<&String> {
    names(node)
}

/// The loops of a level, or which rule it breaks.
pub fn analyse(level: &Level) -> Result<Flow, String> {
    let index = |name: &String| level.nodes.iter().position(|node| node.name == *name);
    let count = level.nodes.len();
    let mut flow = Flow { loops: Vec::new(), sources: vec![Set::new(); count], edges_in: vec![Set::new(); count] };
    let mut backs: Vec<(usize, usize)> = Vec::new();
    for (at, node) in level.nodes.iter().enumerate() {
        flow.sources[at].extend(names(node).into_iter().filter_map(index));
        for target in targets(node) {
            let target = index(target).ok_or("an edge to nowhere")?;
            if target > at {
                flow.sources[target].insert(at);
                flow.edges_in[target].insert(at);
            } else {
                backs.push((at, target));
            }
        }
        cases(level, at, node)?;
    }
    let all: Set = (0..count).collect();
    let everything = |from: usize| &flow.sources[from];
    if (0..count).any(|node| reach(&Set::from([node]), &all, everything, false).contains(&node)) {
        return Err("forward edges make a circle".into());
    }
    let headers: Set = backs.iter().map(|(_, header)| *header).collect();
    for &header in &headers {
        let body = body(&flow, &backs, header, count)?;
        flow.loops.push(Loop { header, body, parent: None });
    }
    nest(&mut flow)?;
    entries(level, &flow)?;
    borders(level, &flow)?;
    contracted(&flow, count)?;
    Ok(flow)
}

fn cases(level: &Level, at: usize, node: &NodeSpec) -> Result<(), String> {
    let index = |name: &String| level.nodes.iter().position(|node| node.name == *name);
    for case in &node.next {
        let up = case.to.iter().any(|target| index(target).is_some_and(|target| target <= at));
        if up != case.max.is_some() || (up && case.to.len() > 1) {
            return Err("a bound on the wrong edge".into());
        }
    }
    if let Policy::To(name) = &node.on_error
        && index(name).is_some_and(|target| target <= at)
    {
        return Err("a failure leads upwards".into());
    }
    Ok(())
}

/// What is reached from `from` inside `within`, along `step`; with the start itself where asked for.
fn reach<'a>(from: &Set, within: &Set, step: impl Fn(usize) -> &'a Set, with_start: bool) -> Set {
    let mut reached = if with_start { from.clone() } else { Set::new() };
    let mut open: Vec<usize> = from.iter().copied().collect();
    while let Some(node) = open.pop() {
        open.extend(step(node).iter().copied().filter(|next| within.contains(next) && reached.insert(*next)));
    }
    reached
}

fn body(flow: &Flow, backs: &[(usize, usize)], header: usize, count: usize) -> Result<Set, String> {
    let all: Set = (0..count).collect();
    let mut readers = vec![Set::new(); count];
    for (reader, sources) in flow.sources.iter().enumerate() {
        sources.iter().for_each(|source| {
            readers[*source].insert(reader);
        });
    }
    let from_header = reach(&Set::from([header]), &all, |node| &readers[node], true);
    let tails: Set = backs.iter().filter(|(_, to)| *to == header).map(|(tail, _)| *tail).collect();
    if !tails.is_subset(&from_header) {
        return Err("written above but does not lead here".into());
    }
    let mut before = flow.sources.clone();
    for (tail, other) in backs.iter().filter(|(_, to)| *to != header) {
        before[*other].insert(*tail);
    }
    Ok(reach(&tails, &from_header, |node| &before[node], true))
}

fn nest(flow: &mut Flow) -> Result<(), String> {
    for index in 0..flow.loops.len() {
        let own = &flow.loops[index].body;
        let mut parent: Option<usize> = None;
        for other in (0..flow.loops.len()).filter(|other| *other != index) {
            let body = &flow.loops[other].body;
            if own.is_disjoint(body) || (body.is_subset(own) && body.len() < own.len()) {
                continue;
            }
            if !own.is_subset(body) || body.len() == own.len() {
                return Err("loops overlap".into());
            }
            if parent.is_none_or(|parent| body.len() < flow.loops[parent].body.len()) {
                parent = Some(other);
            }
        }
        flow.loops[index].parent = parent;
    }
    Ok(())
}

/// Loops are entered by `next` at their headers only; a header has no guard, and a `join` only with edges to count.
fn entries(level: &Level, flow: &Flow) -> Result<(), String> {
    for a_loop in &flow.loops {
        let enters = |node: &usize| flow.edges_in[*node].iter().any(|source| !a_loop.body.contains(source));
        if a_loop.body.iter().any(|node| *node != a_loop.header && enters(node)) {
            return Err("a loop is entered in the middle".into());
        }
        let header = &level.nodes[a_loop.header];
        let edges = !flow.edges_in[a_loop.header].is_empty();
        if header.when.is_some() || (header.join.is_some() && !edges) || header.join == Some(Join::First) {
            return Err("a guard or a join on a header".into());
        }
    }
    for (at, node) in level.nodes.iter().enumerate() {
        let edges = flow.edges_in[at].len();
        let counted = if edges == 0 { node.needs.len() } else { edges };
        let least = if let Some(Join::Quorum(least)) = node.join { least as usize } else { 1 };
        if node.join.is_some() && counted < least {
            return Err("a join that cannot fire".into());
        }
    }
    Ok(())
}

/// A fork stays on one side of every loop around it.
fn borders(level: &Level, flow: &Flow) -> Result<(), String> {
    let index = |name: &String| level.nodes.iter().position(|node| node.name == *name);
    for (at, node) in level.nodes.iter().enumerate() {
        for a_loop in flow.loops.iter().filter(|a_loop| a_loop.body.contains(&at)) {
            let split = node.next.iter().any(|case| {
                let inside = case.to.iter().filter_map(index).filter(|to| a_loop.body.contains(to)).count();
                inside > 0 && inside < case.to.len()
            });
            if split {
                return Err("a fork across a loop's border".into());
            }
        }
    }
    Ok(())
}

/// With every loop as one node, what remains of each part is acyclic.
fn contracted(flow: &Flow, count: usize) -> Result<(), String> {
    let parts = std::iter::once(None).chain((0..flow.loops.len()).map(Some));
    for part in parts {
        let units = units(flow, part, count);
        let mut settled = Set::new();
        let inside: Set = units.iter().flat_map(|unit| unit.nodes.iter().copied()).collect();
        let mut open: Vec<&Unit> = units.iter().collect();
        while !open.is_empty() {
            let before = open.len();
            open.retain(|unit| {
                let ready = unit.waits.iter().all(|node| !inside.contains(node) || settled.contains(node));
                if ready {
                    settled.extend(&unit.nodes);
                }
                !ready
            });
            if open.len() == before {
                return Err("loops that each need a result of the other".into());
            }
        }
    }
    Ok(())
}

/// A node, or a loop as a whole, in the part of a level that it stands in directly.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The loop, if it is one.
    pub a_loop: Option<usize>,
    /// The node, or the loop's header.
    pub node: usize,
    /// All its nodes.
    pub nodes: Set,
    /// Nodes outside of it that must be settled first.
    pub waits: Set,
}

/// The units of the body of a loop, or of the level outside of all loops.
pub fn units(flow: &Flow, part: Option<usize>, count: usize) -> Vec<Unit> {
    let mut units = Vec::new();
    for node in 0..count {
        let innermost = flow.innermost(node);
        if innermost == part {
            // Edges to a header belong to its loop as a whole.
            let header = part.is_some_and(|part| flow.loops[part].header == node);
            let waits = flow.sources[node].iter().copied().filter(|_| !header).collect();
            units.push(Unit { a_loop: None, node, nodes: Set::from([node]), waits });
        } else if let Some(index) = flow.headed(node).filter(|index| flow.loops[*index].parent == part) {
            let nodes = flow.loops[index].body.clone();
            let waits = nodes.iter().flat_map(|node| &flow.sources[*node]).copied();
            let waits = waits.filter(|source| !nodes.contains(source)).collect();
            units.push(Unit { a_loop: Some(index), node, nodes, waits });
        }
    }
    units
}
