//! The walk over a checked graph, from the inside out: what a node's work costs, then its samples, then its items.
//!
//! Steps are counted as the scheduler counts them for `limits.steps`: a map of three items is four steps. Nodes of a frame add
//! up, whether or not they can all run: guards are taken to hold. What runs at once is bounded by chains: nodes that wait for
//! each other never run together, so a frame is as wide as its chains are, each as wide as its widest node. `a → b`, `a → c`
//! has two. Finding few of them is greedy; more than needed make the bound larger, never wrong.
//!
//! Cost: O(nodes + edges) amounts, and at most [`SEARCH_MAX`] nodes looked at for the chain of each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use flowrun_engine::definition::{KindSpec, KindWork};
use flowrun_engine::expr::{Datum, Scope, Tree};
use flowrun_engine::graph::{Count, Field, Graph, Input, Join, Limits, Node, Work};
use flowrun_engine::id::NodeIndex;
use flowrun_engine::node::REPAIR_TURNS;
use flowrun_engine::retry::RetryPolicy;
use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::amount::Amount;

/// Most nodes that are walked over, those of a called workflow once for each call; beyond them a cost is endless.
const NODES_MAX: u32 = 1_000_000;
/// Most nodes that are looked at in search of a chain.
const SEARCH_MAX: usize = 1_000;
/// Longest text of an expression that stands in a formula.
const TEXT_MAX: usize = 40;

/// What something costs at most.
#[derive(Clone, Debug)]
pub(super) struct Size {
    /// Model calls, if every attempt succeeds and no reply must be mended.
    pub(super) calls: Amount,
    /// Model calls with every retry and repair turn.
    pub(super) retried: Amount,
    /// Steps.
    pub(super) steps: Amount,
    /// Frames inside each other.
    pub(super) depth: u128,
    /// Leaf steps at once.
    pub(super) width: Amount,
    /// Steps that wait for each other.
    pub(super) path: Amount,
}

impl Size {
    const ENDLESS: Self = Self {
        calls: Amount::ENDLESS,
        retried: Amount::ENDLESS,
        steps: Amount::ENDLESS,
        depth: u128::MAX,
        width: Amount::ENDLESS,
        path: Amount::ENDLESS,
    };

    /// One step that calls no model.
    fn step(width: u128) -> Self {
        let one = Amount::number(1);
        Self {
            calls: Amount::ZERO,
            retried: Amount::ZERO,
            steps: one.clone(),
            depth: 0,
            width: Amount::number(width),
            path: one,
        }
    }

    /// A step that opens a frame.
    fn framed(mut self) -> Self {
        self.steps = self.steps.plus(&Amount::number(1));
        self.depth = self.depth.saturating_add(1);
        self
    }

    /// A step that unfolds into so many, of which at most `window` are open at once.
    fn unfolded(self, count: &Amount, window: Option<&Amount>) -> Self {
        let open = window.filter(|window| window.most < count.most).unwrap_or(count);
        let one_by_one = open.most <= 1;
        let unfolded = Self {
            calls: self.calls.times(count),
            retried: self.retried.times(count),
            steps: self.steps.times(count),
            depth: self.depth,
            width: self.width.times(open),
            path: if one_by_one { self.path.times(count) } else { self.path },
        };
        unfolded.framed()
    }
}

/// What a name in a formula is at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) most: u128,
    /// The limit that says so; `None`: the inputs do, and exactly.
    pub(super) limit: Option<&'static str>,
}

/// Inputs whose values are known.
#[derive(Debug, Default)]
pub(super) struct Known(IndexMap<String, Arc<Datum>>);

impl Scope for Known {
    fn get(&self, name: &str) -> Option<Arc<Datum>> {
        self.0.get(name).cloned()
    }
}

impl Known {
    /// What is given, else the defaults; `unknown` are given, but nobody knows what.
    pub(super) fn new(inputs: &IndexMap<String, Input>, given: &Map<String, Value>, unknown: &[String]) -> Arc<Self> {
        let known = inputs.iter().filter(|(name, _)| !unknown.contains(name)).filter_map(|(name, input)| {
            let value = given.get(name).or(input.default.as_ref())?;
            Some((name.clone(), Datum::new(value.clone())))
        });
        Arc::new(Self(known.collect()))
    }
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

    /// The value of a tree, where the known inputs say it.
    fn value(&self, tree: &Tree) -> Option<Value> {
        let scope: Arc<dyn Scope> = self.known.clone();
        let known = |name: &str| self.known.0.contains_key(name);
        let leaf = |leaf: &flowrun_engine::expr::Expression| {
            let all_known = leaf.names().iter().all(|mention| known(&mention.name));
            if all_known { leaf.eval(&scope).map_err(drop) } else { Err(()) }
        };
        tree.eval(leaf).ok()
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
            let known = with(node, graph, place);
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
        let mut widths = vec![Amount::ZERO; nodes.len()];
        let mut paths = vec![Amount::ZERO; nodes.len()];
        for index in &order {
            let node = graph.node(*index);
            self.nodes_left = self.nodes_left.saturating_sub(1);
            if self.nodes_left == 0 {
                return Size::ENDLESS;
            }
            let size = self.node(node, place);
            total.calls = total.calls.plus(&size.calls);
            total.retried = total.retried.plus(&size.retried);
            total.steps = total.steps.plus(&size.steps);
            total.depth = total.depth.max(size.depth);
            let before = node.waits_for().into_iter().map(|source| &paths[source.index()]);
            let path = before.fold(Amount::ZERO, |longest, path| longest.or(path)).plus(&size.path);
            total.path = total.path.or(&path);
            paths[index.index()] = path;
            widths[index.index()] = size.width;
        }
        total.width = width(graph, &order, widths);
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
        let count = place.value(tree).as_ref().and_then(length);
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
        let value = tree.and_then(|tree| place.value(tree)).and_then(|value| value.as_u64()).map(u128::from);
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

/// Attempts of one step.
fn attempts(retry: &RetryPolicy) -> u128 {
    1 + if retry.on.is_empty() { 0 } else { u128::from(retry.max) }
}

fn leaf(node: &Node) -> Size {
    let one = Size::step(1);
    if !node.code.spec.as_ref().is_some_and(|spec| spec.calls_model) {
        return one;
    }
    let structured = node.code.schema.is_some() || node.code.expansion.is_some();
    let written = node.code.fields.get("repair").and_then(Field::constant).and_then(Value::as_u64);
    let turns = if structured { written.unwrap_or(u64::from(REPAIR_TURNS)) } else { 0 };
    let retried = attempts(&node.retry).saturating_mul(1 + u128::from(turns));
    Size { calls: Amount::number(1), retried: Amount::number(retried), ..one }
}

/// What is known of the inputs of a called workflow.
fn with(node: &Node, graph: &Graph, place: &Place) -> Arc<Known> {
    let Some(inputs) = &graph.inputs else { return Arc::default() };
    let tree = match node.code.fields.get("with") {
        None => return Known::new(inputs, &Map::new(), &[]),
        Some(Field::Literal(Value::Object(given))) => return Known::new(inputs, given, &[]),
        Some(Field::Tree(tree)) => tree,
        Some(_) => return Arc::default(),
    };
    let paths: Vec<Vec<String>> = tree.leaves().into_iter().map(|(path, _)| path).collect();
    let mut unknown = Vec::new();
    let mut at = paths.iter();
    let scope: Arc<dyn Scope> = place.known.clone();
    // Leaves are evaluated in the order in which they are listed.
    let given = tree.eval::<()>(|leaf| {
        let key = at.next().and_then(|path| path.first());
        let all_known = leaf.names().iter().all(|mention| place.known.0.contains_key(&*mention.name));
        match leaf.eval(&scope) {
            Ok(value) if all_known => Ok(value),
            _ => {
                unknown.push(key.ok_or(())?.clone());
                Ok(Value::Null)
            }
        }
    });
    match given {
        Ok(Value::Object(given)) => Known::new(inputs, &given, &unknown),
        _ => Arc::default(),
    }
}

/// The nodes that have ended when a node begins: none is sure in a race, whose losers may go on.
fn sources(node: &Node) -> Vec<NodeIndex> {
    if node.join == Join::First { Vec::new() } else { node.waits_for() }
}

/// Most leaf steps of a frame that run at once: the sum over its chains of the widest node of each.
fn width(graph: &Graph, order: &[NodeIndex], widths: Vec<Amount>) -> Amount {
    let mut chains: Vec<Amount> = Vec::new();
    // The chain whose last node this is.
    let mut ends: Vec<Option<usize>> = vec![None; order.len()];
    let mut seen: Vec<u32> = vec![u32::MAX; order.len()];
    for index in order {
        let width = &widths[index.index()];
        if width.most == 0 {
            continue;
        }
        let mut queue: VecDeque<NodeIndex> = VecDeque::from([*index]);
        let mut looked_at = 0;
        let mut before = None;
        while let Some(node) = queue.pop_front() {
            if ends[node.index()].is_some() {
                before = ends[node.index()].take();
                break;
            }
            for source in sources(graph.node(node)) {
                looked_at += 1;
                if looked_at <= SEARCH_MAX && seen[source.index()] != index.0 {
                    seen[source.index()] = index.0;
                    queue.push_back(source);
                }
            }
        }
        let chain = before.unwrap_or(chains.len());
        match chains.get_mut(chain) {
            Some(known) => *known = std::mem::replace(known, Amount::ZERO).or(width),
            None => chains.push(width.clone()),
        }
        ends[index.index()] = Some(chain);
    }
    chains.iter().fold(Amount::ZERO, |sum, chain| sum.plus(chain))
}
