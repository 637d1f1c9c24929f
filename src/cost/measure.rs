//! The walk over a checked graph, from the inside out: what a node's work costs, then its passes, its samples, its items.
//!
//! Steps are counted as the scheduler counts them for `limits.steps`: a map of three items is four steps. Nodes of a frame add
//! up, except for calls in cases that exclude each other: steps that are skipped are steps. Guards are taken to hold.
//!
//! Cost: O(nodes + edges) amounts; a workflow once for each call of it, and if it calls itself once for each level.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowrun_engine::definition::{KindSpec, KindWork};
use flowrun_engine::graph::{Count, Graph, Limits, Node, Work};
use flowrun_engine::id::NodeIndex;
use flowrun_engine::node::REPAIR_TURNS;
use indexmap::IndexMap;
use serde_json::Value;

use super::amount::Amount;
use super::branches::together;
use super::known::Known;
use super::size::{Size, attempts, leaf};
use super::width::width;

/// Most nodes that are walked over, those of a called workflow once for each call; beyond them a cost is endless.
const NODES_MAX: u32 = 1_000_000;
/// Longest text of an expression that stands in a formula.
const TEXT_MAX: usize = 40;

/// What a name in a formula is at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) most: u128,
    /// The limit that says so; `None`: the inputs do, and exactly.
    pub(super) limit: Option<&'static str>,
}

/// Where a graph stands.
struct Place {
    /// Names of the nodes around it, each followed by `/`.
    path: String,
    known: Arc<Known>,
    /// Whether its inputs are those of the run.
    outermost: bool,
    /// Frames around its own.
    depth: u32,
}

impl Place {
    /// Where the graph stands that a node opens, after its items, samples and passes. The names in a loop's body are those
    /// around it.
    fn inside(&self, node: &Node) -> Self {
        let own_names = if matches!(node.work, Work::Loop(_)) { String::new() } else { format!("{}/", node.name) };
        let unfolds = [node.for_each, node.samples.is_some(), node.loops()].into_iter().filter(|unfolds| *unfolds);
        let depth = self.depth.saturating_add(1 + unfolds.count() as u32);
        Self { path: format!("{}{own_names}", self.path), known: self.known.clone(), outermost: self.outermost, depth }
    }
}

/// The walk and what it meets.
pub(super) struct Measure<'a> {
    limits: Limits,
    kinds: &'a BTreeMap<String, Arc<KindSpec>>,
    /// Names of formulas.
    pub(super) names: IndexMap<Arc<str>, Meaning>,
    /// Workflows that are being measured, outermost first.
    open: Vec<Open>,
    nodes_left: u32,
}

/// A workflow that is being measured: a call of it is recursive.
struct Open {
    graph: Arc<Graph>,
    depth: u32,
    /// Number of this frame of it among those inside each other, from 1.
    level: u32,
    /// What the next level costs; `None`: it is not opened any more.
    below: Option<Size>,
    /// What was learnt of its calls of itself.
    recursion: Option<Recursion>,
}

/// How a workflow calls itself.
#[derive(Clone, Copy)]
struct Recursion {
    /// Fewest frames from one level to the next.
    frames: u32,
    /// Most levels; `None`: `limits.depth` says.
    levels_max: Option<u32>,
}

impl<'a> Measure<'a> {
    pub(super) fn new(limits: Limits, kinds: &'a BTreeMap<String, Arc<KindSpec>>) -> Self {
        Self { limits, kinds, names: IndexMap::new(), open: Vec::new(), nodes_left: NODES_MAX }
    }

    /// What a whole run of the graph costs.
    pub(super) fn run(&mut self, graph: &Arc<Graph>, known: Arc<Known>) -> Size {
        self.closed(graph, &Place { path: String::new(), known, outermost: true, depth: 0 })
    }

    /// What a workflow costs. One that calls itself is measured level by level, the deepest first, each with the numbers of the
    /// one below it, and the first by its formulas.
    fn closed(&mut self, graph: &Arc<Graph>, place: &Place) -> Size {
        let (graph, depth) = (graph.clone(), place.depth);
        self.open.push(Open { graph: graph.clone(), depth, level: 1, below: None, recursion: None });
        let mut size = self.graph(&graph, place);
        if let Some(recursion) = self.innermost().recursion {
            let by_depth = (self.limits.depth.saturating_sub(depth) / recursion.frames).saturating_add(1);
            let levels = recursion.levels_max.map_or(by_depth, |most| most.min(by_depth));
            let deeper = Place { path: place.path.clone(), known: Arc::default(), outermost: false, depth };
            for level in (2..=levels).rev() {
                self.innermost().level = level;
                let size = self.graph(&graph, &deeper);
                self.innermost().below = Some(size);
                if self.nodes_left == 0 {
                    break;
                }
            }
            self.innermost().level = 1;
            size = self.graph(&graph, place);
        }
        self.open.pop();
        size
    }

    fn innermost(&mut self) -> &mut Open {
        self.open.last_mut().expect("BUG: nothing is being measured")
    }

    /// What a call costs without its own step.
    fn call(&mut self, node: &Node, graph: &Arc<Graph>, place: &Place) -> Option<Size> {
        let inside = place.inside(node);
        if inside.depth > self.limits.depth {
            return None;
        }
        let Some(open) = self.open.iter_mut().rev().find(|open| Arc::ptr_eq(&open.graph, graph)) else {
            let known = place.known.passed_on(node, graph);
            return Some(self.closed(graph, &Place { known, outermost: false, ..inside }));
        };
        let known = open.recursion.unwrap_or(Recursion { frames: u32::MAX, levels_max: Some(0) });
        let levels_max = known.levels_max.zip(node.max_depth).map(|(known, own)| known.max(own));
        open.recursion = Some(Recursion { frames: known.frames.min(inside.depth - open.depth), levels_max });
        if node.max_depth.is_some_and(|most| open.level >= most) {
            return None;
        }
        let (first, below) = (open.level == 1, open.below.clone()?);
        let limit = if node.max_depth.is_some() { "max_depth" } else { "limits.depth" };
        let mut named = |word: &str, amount: Amount| match first {
            true => self.named(format!("{word}({}{})", place.path, node.name), Err(amount.most), limit),
            false => Amount::number(amount.most),
        };
        Some(Size {
            calls: named("calls", below.calls),
            retried: named("retried", below.retried),
            steps: named("steps", below.steps),
            depth: below.depth,
            width: named("width", below.width),
            path: named("path", below.path),
        })
    }

    /// What the nodes of a frame cost together.
    fn graph(&mut self, graph: &Graph, place: &Place) -> Size {
        let nodes = graph.nodes();
        let mut order: Vec<NodeIndex> = (0..nodes.len() as u32).map(NodeIndex).collect();
        order.sort_by_key(|index| std::cmp::Reverse(graph.node(*index).rank));
        let mut total = Size { steps: Amount::ZERO, path: Amount::ZERO, ..Size::step(0) };
        let none = vec![Amount::ZERO; nodes.len()];
        let (mut calls, mut retried, mut widths, mut paths) = (none.clone(), none.clone(), none.clone(), none);
        for index in &order {
            let node = graph.node(*index);
            self.nodes_left = self.nodes_left.saturating_sub(1);
            if self.nodes_left == 0 {
                return Size::ENDLESS;
            }
            let size = self.node(node, place);
            total.steps = total.steps.plus(&size.steps);
            total.depth = total.depth.max(size.depth);
            let before = node.waits_for().into_iter().map(|source| &paths[source.index()]);
            let path = before.fold(Amount::ZERO, |longest, path| longest.or(path)).plus(&size.path);
            total.path = total.path.or(&path);
            paths[index.index()] = path;
            widths[index.index()] = size.width;
            calls[index.index()] = size.calls;
            retried[index.index()] = size.retried;
        }
        total.calls = together(graph, &order, &calls);
        total.retried = together(graph, &order, &retried);
        total.width = width(graph, &order, &widths);
        total
    }

    /// What a node costs with all its items, samples and passes.
    fn node(&mut self, node: &Node, place: &Place) -> Size {
        let mut size = self.work(node, place);
        let items = ("limits.items", self.limits.items);
        let window = node.max_parallel.map(|window| self.count(node, ("max_parallel", window), items, place));
        let one = Amount::number(1);
        if let Some(passes) = self.passes(node, place) {
            size = size.unfolded(&passes, Some(&one));
        }
        if let Some(samples) = node.samples {
            let count = self.count(node, ("samples", samples), items, place);
            size = size.unfolded(&count, window.as_ref().filter(|_| !node.for_each));
        }
        if node.for_each {
            let window = if node.sequential { Some(&one) } else { window.as_ref() };
            size = size.unfolded(&self.items(node, place), window);
        }
        size
    }

    /// What the innermost step of a node costs.
    fn work(&mut self, node: &Node, place: &Place) -> Size {
        match &node.work {
            Work::Leaf => leaf(node),
            Work::Value | Work::Human { .. } => Size::step(0),
            Work::Group(graph) | Work::Loop(graph) => self.graph(graph, &place.inside(node)).framed(),
            Work::Call(called) => match self.call(node, &called.graph(), place) {
                Some(size) => size.framed(),
                None => Size::step(0),
            },
            Work::Expand => self.expansion(node, place),
        }
    }

    /// Most passes of a node that loops: `repeat.max`, or one more than the edges back to the header may be taken together.
    fn passes(&mut self, node: &Node, place: &Place) -> Option<Amount> {
        let limit = ("limits.iterations", u64::from(self.limits.iterations));
        if let Some(repeat) = node.repeat {
            return Some(self.count(node, ("passes", repeat.max), limit, place));
        }
        let Work::Loop(body) = &node.work else { return None };
        let mut passes = Amount::number(1);
        // An edge out of loops further in stands in their bodies.
        let mut bodies = vec![(body, 0)];
        while let Some((body, loops_in)) = bodies.pop() {
            for node in body.nodes() {
                let bounds = node.next.iter().filter_map(|case| case.bound).filter(|bound| bound.loops_out == loops_in);
                for bound in bounds {
                    passes = passes.plus(&self.count(node, ("taken", bound.max), limit, place));
                }
                if let Work::Loop(inner) = &node.work {
                    bodies.push((inner, loops_in + 1));
                }
            }
        }
        Some(passes.at_most(limit.1.into()))
    }

    /// What a drawn plan may cost: each step may be of the dearest kind, and each may map over a list.
    fn expansion(&mut self, node: &Node, place: &Place) -> Size {
        let Some(rules) = &node.code.expansion else { return Size::ENDLESS };
        let answer = 1;
        let drawn = u128::from(rules.nodes_max) + answer;
        let drawn = self.named(format!("drawn({}{})", place.path, node.name), Err(drawn), "limits.nodes");
        let items =
            self.named(format!("n({}{})", place.path, node.name), Err(self.limits.items.into()), "limits.items");
        let allowed = || rules.kinds.iter().filter_map(|kind| self.kinds.get(kind));
        let calling = allowed().filter(|spec| spec.calls_model);
        let dearest = calling.map(|spec| attempts(&spec.retry) * u128::from(1 + REPAIR_TURNS)).max();
        let holds_slots = allowed().any(|spec| spec.work == KindWork::Leaf);
        let leaves = drawn.times(&items);
        let calls = if dearest.is_some() { leaves.clone() } else { Amount::ZERO };
        let plan = Size {
            retried: calls.times(&Amount::number(dearest.unwrap_or(0))),
            calls,
            steps: drawn.clone().plus(&leaves),
            depth: 1,
            width: if holds_slots { leaves } else { Amount::ZERO },
            path: drawn,
        };
        plan.framed()
    }

    fn items(&mut self, node: &Node, place: &Place) -> Amount {
        let limit = u128::from(self.limits.items);
        let length = |value: &Value| value.as_array().map(|list| list.len() as u128);
        let Some(tree) = &node.code.items else { return Amount::number(limit) };
        if let Some(count) = tree.constant().and_then(length) {
            return Amount::number(count.min(limit));
        }
        let count = place.known.value(tree).as_ref().and_then(length);
        self.named(
            format!("n({}{})", place.path, node.name),
            count.filter(|n| *n <= limit).ok_or(limit),
            "limits.items",
        )
    }

    /// A number of the file: itself, or the text of the expression over inputs.
    fn count(
        &mut self,
        node: &Node,
        (word, count): (&str, Count),
        limit: (&'static str, u64),
        place: &Place,
    ) -> Amount {
        let most = u128::from(limit.1);
        let tree = match count {
            Count::Fixed(count) => return Amount::number(u128::from(count).min(most)),
            Count::Decided(number) => node.code.counts.get(number as usize).map(|(_, tree)| tree),
        };
        let value = tree.and_then(|tree| place.known.value(tree)).and_then(|value| value.as_u64()).map(u128::from);
        let text = tree.and_then(|tree| Some(tree.leaves().first()?.1.text().split_whitespace().collect::<Vec<_>>()));
        let text = text.map(|words| words.join(" ")).filter(|text| place.outermost && text.len() <= TEXT_MAX);
        let name = match text {
            Some(text) if text.chars().all(|c| c.is_alphanumeric() || c == '_') => text,
            Some(text) => format!("({text})"),
            None => format!("{word}({}{})", place.path, node.name),
        };
        self.named(name, value.filter(|value| *value <= most).ok_or(most), limit.0)
    }

    /// A name that is exactly, or at most so much.
    fn named(&mut self, name: String, value: Result<u128, u128>, limit: &'static str) -> Amount {
        let name: Arc<str> = name.into();
        let (most, limit) = match value {
            Ok(exactly) => (exactly, None),
            Err(most) => (most, Some(limit)),
        };
        let known = self.names.entry(name.clone()).or_insert(Meaning { most, limit });
        if most > known.most {
            *known = Meaning { most, limit };
        }
        Amount::name(name, most)
    }
}
