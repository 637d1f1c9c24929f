//! The rules of loops that need the whole level: what may stand on a header, which passes `last` and `past` mean, counts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Checker;
use super::dependencies::{Captures, Gathered, History};
use super::fields::{Known, Use};
use super::flow::{Flow, FlowLoop};
use super::scope::Names;
use crate::definition::{KindSpec, KindWork, NodeDef};
use crate::diagnostic::codes;
use crate::expr::Tree;
use crate::graph::{Case, Count, DependencyMode, EdgeBound, Join, Node, NodeCode, Repeat};
use crate::source::Part;

/// What mentions of earlier passes come to on one level.
pub(super) struct Pasts {
    /// By node: whose earlier values it reads.
    pub(super) read: BTreeMap<usize, Vec<usize>>,
    /// Those that are about loops further out.
    pub(super) outwards: Vec<History>,
}

/// Sorts the sources of a node's edges, which `join` counts in place of `needs`; where several come together and not all are
/// needed, what it reads of them is optional.
pub(super) fn merge_edges(names: &Names, definition: &NodeDef, node: &mut Node) {
    if node.edges_in.is_empty() {
        return;
    }
    node.edges_in.sort_unstable();
    node.edges_in.dedup();
    if !node.counted.is_empty() {
        node.counted.clear();
        for need in definition.needs.iter().filter(|need| !need.optional) {
            let index = names.nodes.get_index_of(&need.name).map(|index| index as u32);
            let dependency = node.dependencies.iter_mut().find(|source| Some(source.source.0) == index);
            dependency.into_iter().for_each(|dependency| dependency.mode = DependencyMode::Required);
        }
    }
    let tolerant = match node.join {
        Join::Default => node.edges_in.len() > 1,
        Join::All => false,
        Join::Any | Join::First | Join::Quorum(_) => true,
    };
    if tolerant {
        let edges = &node.edges_in;
        for dependency in node.dependencies.iter_mut().filter(|source| edges.contains(&source.source)) {
            dependency.mode = dependency.mode.min(DependencyMode::Optional);
        }
    }
}

/// By node what it needs without waiting: headers the nodes that lead back to them, readers of earlier passes what they read.
pub(super) fn backwards(flow: &Flow, pasts: &BTreeMap<usize, Vec<usize>>) -> BTreeMap<usize, Vec<usize>> {
    let mut all = pasts.clone();
    for found in &flow.loops {
        all.entry(found.header).or_default().extend(found.back.iter().map(|(tail, _)| *tail));
    }
    all
}

impl Checker<'_> {
    /// Compiles the counts of a node, its `repeat` and the bounds of its edges.
    pub(super) fn counts(
        &mut self,
        node: &NodeDef,
        checked: &mut Node,
        code: &mut NodeCode,
        path: &[&str],
        uses: &mut Vec<Use>,
    ) {
        checked.samples = self.count(node.samples.as_ref(), "samples", path, &["samples"], code, uses);
        checked.max_parallel =
            self.count(node.max_parallel.as_ref(), "max_parallel", path, &["max_parallel"], code, uses);
        if checked.max_parallel.is_none() && node.stop_when.is_some() {
            checked.max_parallel = Some(Count::Fixed(1));
        }
        checked.quorum = self.count(node.quorum.as_ref(), "quorum", path, &["quorum"], code, uses);
        if let Some(repeat) = &node.repeat {
            let max = self.count(repeat.max.as_ref(), "repeat.max", path, &["repeat", "max"], code, uses);
            if let Some(Count::Fixed(max)) =
                max.filter(|max| matches!(max, Count::Fixed(n) if *n > self.limits.iterations))
            {
                let at: Vec<&str> = path.iter().copied().chain(["repeat", "max"]).collect();
                let message =
                    format!("{max} passes are more than `limits.iterations` allows ({})", self.limits.iterations);
                self.error(codes::LIMIT, &at, Part::Value, message)
                    .help
                    .push("raise the limit at the top of the file".into());
            }
            let max = max.unwrap_or(Count::Fixed(1));
            checked.repeat = Some(Repeat { max, has_until: repeat.until.is_some(), fails: repeat.limit_fails });
        }
        for (number, case) in node.next.iter().enumerate() {
            let index = number.to_string();
            let max = self.count(case.max.as_ref(), "max", path, &["next", index.as_str(), "max"], code, uses);
            if let Some(Count::Fixed(times)) =
                max.filter(|max| matches!(max, Count::Fixed(n) if *n >= self.limits.iterations))
            {
                let at: Vec<&str> = path.iter().copied().chain(["next", index.as_str(), "max"]).collect();
                let most = self.limits.iterations;
                let message = format!(
                    "{times} times are {} passes, more than `limits.iterations` allows ({most})",
                    u64::from(times) + 1
                );
                self.error(codes::LIMIT, &at, Part::Value, message)
                    .help
                    .push("raise the limit at the top of the file".into());
            }
            let bound = max.map(|max| EdgeBound { loops_out: 0, number: 0, max, fails: case.limit_fails });
            checked.next.push(Case { guarded: case.when.is_some(), to: Vec::new(), bound });
        }
    }

    fn count(
        &mut self,
        written: Option<&Value>,
        key: &'static str,
        path: &[&str],
        inside: &[&str],
        code: &mut NodeCode,
        uses: &mut Vec<Use>,
    ) -> Option<Count> {
        let written = written?;
        let at: Vec<&str> = path.iter().chain(inside).copied().collect();
        let tree = self.compiled(written, &at, Known { count: true, ..Known::default() }, uses)?;
        let fits =
            |value: &Value| value.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0);
        let is_tree = written.is_array() || written.is_object();
        match tree.constant().map(fits) {
            Some(Some(count)) if !is_tree => Some(Count::Fixed(count)),
            None if !is_tree => {
                code.counts.push((key, tree));
                Some(Count::Decided(code.counts.len() as u32 - 1))
            }
            _ => {
                let key = key.rsplit('.').next().unwrap_or(key);
                self.error(codes::WRONG_TYPE, &at, Part::Value, format!("`{key}` wants a whole number from 1"));
                None
            }
        }
    }

    /// Compiles `repeat.until`, which sees the pass that ended: `this`, and the nodes of a group.
    #[expect(clippy::too_many_arguments, reason = "the parts of one node, passed on once")]
    pub(super) fn until(
        &mut self,
        names: &Names,
        name: &str,
        spec: &KindSpec,
        node: &NodeDef,
        path: &[&str],
        gathered: &mut Gathered,
        captures: &mut Captures,
    ) -> Option<Box<Tree>> {
        let until = node.repeat.as_ref()?.until.as_ref()?;
        let at: Vec<&str> = path.iter().copied().chain(["repeat", "until"]).collect();
        let mut uses = Vec::new();
        let known = Known { this: true, ..Known::ITEM };
        let tree = self.compiled(until, &at, known, &mut uses)?;
        if spec.work != KindWork::Group {
            self.gather(names, Some((name, node)), &uses, gathered, captures);
            return Some(Box::new(tree));
        }
        let inner = names.inside(name, node);
        let (mut read, mut taken) = (Gathered::default(), Captures::new());
        self.gather(&inner, None, &uses, &mut read, &mut taken);
        self.comparisons(&inner, &tree, &at);
        for (levels, captured) in taken {
            let optional = read.outside.get(&captured).copied().unwrap_or(true);
            if levels == 1 {
                *gathered.optional.entry(captured).or_insert(true) &= optional;
            } else {
                *gathered.outside.entry(captured.clone()).or_insert(true) &= optional;
                captures.insert((levels - 1, captured));
            }
        }
        let outwards = read
            .histories
            .into_iter()
            .filter(|history| history.of.as_ref().is_some_and(|of| !node.nodes.contains_key(of)));
        gathered.histories.extend(outwards);
        Some(Box::new(tree))
    }

    /// What may not stand on the first node of a loop.
    pub(super) fn headers(&mut self, names: &Names, flow: &Flow, path: &[&str]) {
        for found in &flow.loops {
            let Some((name, node)) = names.nodes.get_index(found.header) else { continue };
            if node.when.is_some() {
                let at: Vec<&str> = path.iter().copied().chain([name.as_str(), "when"]).collect();
                let message = format!("`when` on `{name}`, where a loop begins, would leave the last pass empty");
                let problem = self.error(codes::BAD_LOOP, &at, Part::Key, message);
                problem
                    .help
                    .push("put the condition on the edge that leads back, or on a node before the loop".to_owned());
            }
        }
    }

    /// Finds for each mention of earlier passes the loop that it is about.
    pub(super) fn histories(
        &mut self,
        names: &Names,
        flow: &Flow,
        histories: Vec<(Option<usize>, History)>,
        nodes: &mut [Node],
    ) -> Pasts {
        let mut pasts = Pasts { read: BTreeMap::new(), outwards: Vec::new() };
        for (reader, mut history) in histories {
            let reader_name = reader.and_then(|reader| names.nodes.get_index(reader));
            let of = history.of.as_deref().and_then(|of| names.nodes.get_index_of(of));
            let in_flow = reader.is_some_and(|reader| flow.around(reader).next().is_some());
            let own = history.inside && reader_name.is_some_and(|(_, node)| node.loops());
            let found = match (&history.of, of) {
                (Some(_), Some(of)) => {
                    let shared = reader.is_some_and(|reader| flow.share_a_loop(reader, of));
                    (own && reader == Some(of)) || shared || names.loops
                }
                (Some(_), None) => false,
                (None, _) => own || in_flow || names.loops,
            };
            if found {
                if let Some(of) = of {
                    nodes[of].is_kept = true;
                    pasts.read.entry(reader.unwrap_or(of)).or_default().push(of);
                }
            } else if of.is_none() && names.held_by().is_some() {
                history.inside = true;
                pasts.outwards.push(history);
            } else {
                let holder = history.of.as_deref().filter(|_| of.is_none()).and_then(|of| names.holder(of));
                self.no_loop(names, &history, reader_name.map(|(name, _)| name.as_str()), in_flow, holder);
            }
        }
        pasts
    }

    /// A loop and what is outside of it need a result of each other.
    pub(super) fn loop_circle(&mut self, names: &Names, circle: &[usize], path: &[&str]) {
        let name = |index: &usize| names.nodes.get_index(*index).map_or("?", |(name, _)| name.as_str());
        let shown: Vec<&str> = circle.iter().chain(circle.first()).map(name).collect();
        let at: Vec<&str> = path.iter().copied().chain([shown[0]]).collect();
        let message = format!("these loops and nodes each need a result of the other: {}", shown.join(" → "));
        let problem = self.error(codes::BAD_LOOP, &at, Part::Key, message);
        problem.help.push(
            "nodes outside see a loop when it has ended: put what both need before the first, or all into one loop"
                .into(),
        );
    }

    /// Warns of readers outside of a loop that require a node which the last pass may have skipped.
    pub(super) fn warn_spent_values(
        &mut self,
        names: &Names,
        flow: &Flow,
        nodes: &[Node],
        output: &BTreeMap<String, bool>,
        order: &[usize],
        path: &[&str],
    ) {
        let name = |index: usize| names.nodes.get_index(index).map_or("?", |(name, _)| name.as_str());
        let mut place = vec![0; nodes.len()];
        order.iter().enumerate().for_each(|(at, node)| place[*node] = at);
        let mut readers: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (reader, node) in nodes.iter().enumerate() {
            for source in node.dependencies.iter().filter(|source| source.mode == DependencyMode::Required) {
                readers.entry(source.source.index()).or_default().push(reader);
            }
        }
        for found in &flow.loops {
            let sure = sure(flow, nodes, &place, found);
            for index in found.body.iter().filter(|index| !sure.contains(index)) {
                let outside = readers.get(index).into_iter().flatten().find(|reader| !found.body.contains(reader));
                let by_output = (output.get(name(*index)) == Some(&false)).then_some("output");
                let Some(reader) = outside.map(|reader| name(*reader)).or(by_output) else { continue };
                let at: Vec<&str> = path.iter().copied().chain([name(*index)]).collect();
                let message = format!("`{reader}` needs `{}`, which the last pass of its loop may skip", name(*index));
                let problem = self.warning(codes::SUSPICIOUS, &at, message);
                let carry = format!("best: {{value: '{0} | default(last.best)', needs: ['{0}?']}}", name(*index));
                problem.help.push(format!("carry it in a node of every pass that leads to the end, such as `{carry}`"));
            }
        }
    }
}

/// The nodes of a loop's body that every pass runs, as far as that can be told: those without conditions that need only such.
/// By their `place` every node comes after what it waits for.
fn sure(flow: &Flow, nodes: &[Node], place: &[usize], found: &FlowLoop) -> BTreeSet<usize> {
    let mut sure = BTreeSet::from([found.header]);
    let mut body: Vec<usize> = found.body.iter().copied().collect();
    body.sort_unstable_by_key(|index| place[*index]);
    for index in body {
        let node = &nodes[index];
        let always = |from: usize| sure.contains(&from) && flow.leads_always(nodes, from, index);
        let routed = node.edges_in.is_empty() || node.edges_in.iter().any(|source| always(source.index()));
        let fed = node.dependencies.iter().all(|source| {
            let from = source.source.index();
            source.mode != DependencyMode::Required || !found.body.contains(&from) || sure.contains(&from)
        });
        if routed && fed && !node.has_guard && node.join == Join::Default {
            sure.insert(index);
        }
    }
    sure
}
