//! Where `next` leads: edges, the loops that they close, and what makes a flowchart no flowchart.
//!
//! ```text
//! draft → review ─ok→ send        review → draft is an edge upwards: it closes the loop {draft, review} with the header draft.
//!   ▲       │                     review → send leaves it.
//!   └─bad───┘
//! ```
//!
//! The body of a header is its natural loop: what it reaches that leads on to a node with an edge back to it. Loops nest or
//! are disjoint; `next` enters one at its header alone. Everything is found by searches over lists, without recursion.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Checker;
use super::scope::Names;
use crate::definition::{ErrorPolicyDef, NodeDef};
use crate::diagnostic::{Place, codes};
use crate::graph::Node;
use crate::source::Part;

/// Deepest nesting of the loops of one level.
const NESTING_MAX: u32 = 64;
/// Most steps of the search for all loops of one level.
const WORK_MAX: usize = 20_000_000;

/// The edges of one level by the numbers of its nodes, and the loops that they close.
#[derive(Default)]
pub(super) struct Flow {
    /// Targets by node and case.
    pub(super) cases: Vec<Vec<Vec<usize>>>,
    /// Target of `on_error: {to}` by node.
    pub(super) error_to: Vec<Option<usize>>,
    /// Loops, those around before those inside.
    pub(super) loops: Vec<FlowLoop>,
    /// The innermost loop by node; empty if there are no loops.
    pub(super) innermost: Vec<Option<usize>>,
}

/// A loop of one level.
pub(super) struct FlowLoop {
    pub(super) header: usize,
    pub(super) body: BTreeSet<usize>,
    /// The loop around it.
    pub(super) around: Option<usize>,
    /// Its edges back to the header: node and case.
    pub(super) back: Vec<(usize, usize)>,
}

impl Flow {
    /// Edges downwards: source, case (`None`: of an error), target.
    pub(super) fn forward(&self) -> impl Iterator<Item = (usize, Option<usize>, usize)> + '_ {
        let cases = self.cases.iter().enumerate().flat_map(|(from, cases)| {
            let targets = cases.iter().enumerate().flat_map(|(case, to)| to.iter().map(move |to| (Some(case), *to)));
            targets.filter(move |(_, to)| *to > from).map(move |(case, to)| (from, case, to))
        });
        let errors = self.error_to.iter().enumerate();
        cases.chain(errors.filter_map(|(from, to)| to.map(|to| (from, None, to))))
    }

    /// Edges upwards: source, case, header.
    fn backward(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        self.cases.iter().enumerate().flat_map(|(from, cases)| {
            let targets = cases.iter().enumerate().flat_map(|(case, to)| to.iter().map(move |to| (case, *to)));
            targets.filter(move |(_, to)| *to <= from).map(move |(case, to)| (from, case, to))
        })
    }

    /// The loops around a node, innermost first.
    pub(super) fn around(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let innermost = self.innermost.get(node).copied().flatten();
        std::iter::successors(innermost, |inner| self.loops[*inner].around)
    }

    /// Whether a node that has a value leads to another one for certain, once its edges back are spent or not taken: every case
    /// downwards does, and the last has no condition.
    pub(super) fn leads_always(&self, nodes: &[Node], from: usize, to: usize) -> bool {
        let cases = self.cases[from].iter().zip(&nodes[from].next);
        let mut downwards = cases.filter(|(targets, _)| targets.iter().any(|target| *target > from));
        let mut certain = false;
        let all = downwards.all(|(targets, case)| {
            certain = !case.guarded;
            targets.contains(&to)
        });
        all && certain
    }

    /// Whether a loop contains both nodes.
    pub(super) fn share_a_loop(&self, a: usize, b: usize) -> bool {
        self.around(a).any(|found| self.loops[found].body.contains(&b))
    }
}

/// Path of a case of `next` in the file, however it is written.
pub(super) fn case_path<'p>(path: &[&'p str], index: &'p str, key: &'p str) -> Vec<&'p str> {
    path.iter().copied().chain(["next", index, key]).collect()
}

impl Checker<'_> {
    /// Resolves the targets of `next` and of `on_error: {to}`. What leads nowhere is reported and left out.
    pub(super) fn edges(&mut self, names: &Names, path: &[&str]) -> Flow {
        let mut flow = Flow::default();
        for (from, (name, node)) in names.nodes.iter().enumerate() {
            let at: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            let mut cases = Vec::with_capacity(node.next.len());
            for (number, case) in node.next.iter().enumerate() {
                let index = number.to_string();
                let to_path = case_path(&at, &index, "to");
                let targets: Vec<usize> =
                    case.to.iter().filter_map(|to| self.target(names, name, to, &to_path)).collect();
                self.case_is_sound(names, node, (from, number), &targets, &at);
                cases.push(targets);
            }
            let error_to = match &node.on_error {
                ErrorPolicyDef::To(to) => {
                    let at: Vec<&str> = at.iter().copied().chain(["on_error", "to"]).collect();
                    let target = self.target(names, name, to, &at);
                    if target.is_some_and(|to| to <= from) {
                        let message = format!("`{to}` is written above: an error edge leads downwards only");
                        let problem = self.error(codes::BAD_EDGE, &at, Part::Value, message);
                        problem.help.push("lead it to a node below, whose `next` goes back".to_owned());
                    }
                    target.filter(|to| *to > from)
                }
                _ => None,
            };
            flow.cases.push(cases);
            flow.error_to.push(error_to);
        }
        flow
    }

    fn target(&mut self, names: &Names, from: &str, to: &str, at: &[&str]) -> Option<usize> {
        let found = names.nodes.get_index_of(to);
        if found.is_none() && !self.broken.contains(to) {
            let message = format!("`{from}` leads to `{to}`, and there is no such node on this level");
            let near =
                self.near(to, names.nodes.keys().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
            let holder = names.holder(to).map(|holder| format!("`{to}` is inside `{holder}`: lead to `{holder}`"));
            self.error(codes::BAD_EDGE, at, Part::Value, message).help.extend(holder.or(near));
        }
        found
    }

    /// A case upwards stands alone and is bounded; one downwards has no bound.
    fn case_is_sound(
        &mut self,
        names: &Names,
        node: &NodeDef,
        (from, number): (usize, usize),
        targets: &[usize],
        path: &[&str],
    ) {
        let case = &node.next[number];
        let index = number.to_string();
        let upwards = targets.iter().copied().find(|to| *to <= from);
        let name = |index: usize| names.nodes.get_index(index).map_or("?", |(name, _)| name.as_str());
        match upwards {
            Some(to) if targets.len() > 1 => {
                let message = format!("the edge back to `{}` stands beside others in one case", name(to));
                let problem = self.error(codes::BAD_EDGE, &case_path(path, &index, "to"), Part::Value, message);
                problem.help.push("give the edge upwards a case of its own".to_owned());
            }
            Some(to) if case.max.is_none() => {
                let message = format!("`{}` is written above: the edge back to it needs `max`", name(to));
                let problem = self.error(codes::BAD_EDGE, &case_path(path, &index, "to"), Part::Value, message);
                problem.help.push(format!("write `{{to: {}, max: 5}}`: it is taken at most five times", name(to)));
            }
            None if !targets.is_empty() => {
                for (key, _) in
                    [("max", case.max.is_some()), ("on_limit", case.limit_fails)].iter().filter(|(_, is)| *is)
                {
                    let message = format!("`{key}` is for edges upwards, and `{}` is written below", name(targets[0]));
                    let problem = self.error(codes::BAD_EDGE, &case_path(path, &index, key), Part::Key, message);
                    problem.help.push("bound the edge that leads back".to_owned());
                }
            }
            _ => {}
        }
        let last = number + 1 == node.next.len();
        if !last && case.when.is_none() && upwards.is_none() && !targets.is_empty() {
            let message = "no case after this one is ever tried: it has no `when`";
            let problem = self.warning(codes::SUSPICIOUS, &case_path(path, &index, "to"), message);
            problem.help.push("put the case without `when` last; `to: [a, b]` leads to both".to_owned());
        }
    }

    /// Finds the loops of a level whose edges downwards and references close no circle. `order` has every node after what it waits
    /// for.
    ///
    /// What leads to a tail is searched backwards, no further than the header; of that what the header reaches; and of that again
    /// what leads to a tail. So a loop costs what it spans, and a long chain of small ones is no more than its nodes.
    pub(super) fn loops(&mut self, names: &Names, flow: &mut Flow, nodes: &[Node], order: &[usize], path: &[&str]) {
        let mut back: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for (from, case, header) in flow.backward() {
            back.entry(header).or_default().push((from, case));
        }
        if back.is_empty() {
            return;
        }
        let mut after: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
        let mut before = after.clone();
        for (to, node) in nodes.iter().enumerate() {
            for source in node.waits_for() {
                after[source.index()].push(to);
                before[to].push(source.index());
            }
        }
        let mut place = vec![0; nodes.len()];
        order.iter().enumerate().for_each(|(at, node)| place[*node] = at);
        let (mut found, mut work) = (Vec::new(), 0);
        for (header, edges) in &back {
            let into = |node: usize| {
                let tails = back.get(&node).filter(|_| node != *header).into_iter().flatten().map(|(tail, _)| *tail);
                before[node].iter().copied().chain(tails).filter(|source| place[*source] >= place[*header])
            };
            let tails = || edges.iter().map(|(tail, _)| *tail);
            let leading = search(tails(), into, &mut work);
            let on = |node: usize| after[node].iter().copied().filter(|next| leading.contains(next));
            let reached = search([*header], on, &mut work);
            if let Some((tail, case)) = edges.iter().find(|(tail, _)| !reached.contains(tail)) {
                self.leads_nowhere(names, *tail, *case, *header, path);
                continue;
            }
            let body = search(tails(), |node| into(node).filter(|source| reached.contains(source)), &mut work);
            found.push(FlowLoop { header: *header, body, around: None, back: edges.clone() });
            if work > WORK_MAX {
                let message = "these loops are too many and too large to be checked";
                self.error(codes::LIMIT, path, Part::Key, message)
                    .help
                    .push("put parts of them into groups".to_owned());
                return;
            }
        }
        self.nest(names, flow, found, nodes.len(), path);
        self.entries(names, flow, path);
        self.forks(names, flow, path);
    }

    /// Orders loops from the outside in; overlapping ones are refused.
    fn nest(&mut self, names: &Names, flow: &mut Flow, mut found: Vec<FlowLoop>, nodes: usize, path: &[&str]) {
        found.sort_by_key(|found| (std::cmp::Reverse(found.body.len()), found.header));
        let mut innermost: Vec<Option<usize>> = vec![None; nodes];
        let mut loops: Vec<FlowLoop> = Vec::new();
        for mut found in found {
            let around = innermost[found.header];
            if let Some(odd) = found.body.iter().find(|node| innermost[**node] != around) {
                let other = innermost[*odd].or(around).expect("BUG: no loop overlaps with none");
                self.overlap(names, &loops[other], &found, *odd, path);
                continue;
            }
            found.around = around;
            found.body.iter().for_each(|node| innermost[*node] = Some(loops.len()));
            loops.push(found);
        }
        let mut depths: Vec<u32> = Vec::with_capacity(loops.len());
        for found in &loops {
            depths.push(found.around.map_or(0, |around| depths[around]) + 1);
        }
        if depths.iter().any(|depth| *depth > NESTING_MAX) {
            let message = format!("loops nest deeper than {NESTING_MAX}");
            self.error(codes::LIMIT, path, Part::Key, message);
            return;
        }
        flow.loops = loops;
        flow.innermost = innermost;
    }

    /// `next` enters a loop at its header alone.
    fn entries(&mut self, names: &Names, flow: &Flow, path: &[&str]) {
        let name = |index: usize| names.nodes.get_index(index).map_or("?", |(name, _)| name.as_str());
        for (from, case, to) in flow.forward() {
            let entered = flow.around(to).filter(|found| !flow.loops[*found].body.contains(&from));
            let Some(found) = entered.map(|found| &flow.loops[found]).find(|found| found.header != to) else {
                continue;
            };
            let (header, tail) = (name(found.header), name(found.back[0].0));
            let message = format!(
                "`{}` leads into the middle of the loop {header} → … → {tail} → {header}, to `{}`",
                name(from),
                name(to)
            );
            let place = self.edge_place(names, (found.back[0].0, Some(found.back[0].1)), path);
            let at = edge_path(names, from, case, path);
            let at: Vec<&str> = at.iter().map(String::as_str).collect();
            let problem = self.error(codes::BAD_LOOP, &at, Part::Value, message);
            problem.related.extend(place.map(|place| ("this edge closes the loop".to_owned(), place)));
            problem.help.push(format!(
                "a loop is entered at its first node: lead to `{header}`, or put the part from `{}` on into a group that both can lead to",
                name(to)
            ));
        }
    }

    /// The targets of one case are all inside of a loop, or all outside of it.
    fn forks(&mut self, names: &Names, flow: &Flow, path: &[&str]) {
        let name = |index: usize| names.nodes.get_index(index).map_or("?", |(name, _)| name.as_str());
        for (from, cases) in flow.cases.iter().enumerate() {
            for (case, targets) in cases.iter().enumerate().filter(|(_, targets)| targets.len() > 1) {
                let split = flow.around(from).find_map(|found| {
                    let body = &flow.loops[found].body;
                    let inside = targets.iter().find(|to| body.contains(to))?;
                    let outside = targets.iter().find(|to| !body.contains(to))?;
                    Some((flow.loops[found].header, *inside, *outside))
                });
                let Some((header, inside, outside)) = split else { continue };
                let at = edge_path(names, from, Some(case), path);
                let at: Vec<&str> = at.iter().map(String::as_str).collect();
                let message = format!(
                    "this fork stays in the loop of `{}` with `{}` and leaves it with `{}`",
                    name(header),
                    name(inside),
                    name(outside)
                );
                let help = format!(
                    "let `{}` hang on by a reference or `needs`: then it runs once, with the last pass",
                    name(outside)
                );
                self.error(codes::BAD_LOOP, &at, Part::Value, message).help.push(help);
            }
        }
    }

    fn leads_nowhere(&mut self, names: &Names, tail: usize, case: usize, header: usize, path: &[&str]) {
        let name = |index: usize| names.nodes.get_index(index).map_or("?", |(name, _)| name.as_str());
        let at = edge_path(names, tail, Some(case), path);
        let at: Vec<&str> = at.iter().map(String::as_str).collect();
        let message = format!("`{}` is written above and does not lead here: this is no loop", name(header));
        let help = format!("move `{}` below `{}`", name(header), name(tail));
        self.error(codes::BAD_LOOP, &at, Part::Value, message).help.push(help);
    }

    fn overlap(&mut self, names: &Names, outer: &FlowLoop, inner: &FlowLoop, odd: usize, path: &[&str]) {
        let name = |index: usize| names.nodes.get_index(index).map_or("?", |(name, _)| name.as_str());
        let shown = |found: &FlowLoop| {
            let all: Vec<&str> = found.body.iter().map(|node| name(*node)).chain([name(found.header)]).collect();
            if all.len() > 8 {
                format!("{} → … → {}", all[..4].join(" → "), name(found.header))
            } else {
                all.join(" → ")
            }
        };
        let places = [outer, inner].map(|found| {
            let (tail, case) = found.back[0];
            let place = self.edge_place(names, (tail, Some(case)), path)?;
            Some((format!("this edge closes {}", shown(found)), place))
        });
        let at: Vec<&str> = path.iter().copied().chain([name(inner.header)]).collect();
        let message = format!(
            "the loops of `{}` and `{}` overlap at `{}` and neither contains the other",
            name(outer.header),
            name(inner.header),
            name(odd)
        );
        let problem = self.error(codes::BAD_LOOP, &at, Part::Key, message);
        problem.related.extend(places.into_iter().flatten());
        problem.help.push("put the part that both share, or one of the loops, into a `group`".to_owned());
    }

    fn edge_place(&self, names: &Names, (from, case): (usize, Option<usize>), path: &[&str]) -> Option<Place> {
        let at = edge_path(names, from, case, path);
        let at: Vec<&str> = at.iter().map(String::as_str).collect();
        self.place(&at, Part::Value)
    }
}

/// Where an edge is written.
fn edge_path(names: &Names, from: usize, case: Option<usize>, path: &[&str]) -> Vec<String> {
    let name = names.nodes.get_index(from).map_or("?", |(name, _)| name.as_str());
    let at = path.iter().copied().chain([name]);
    match case {
        Some(case) => {
            let case = case.to_string();
            at.chain(["next", &case, "to"]).map(str::to_owned).collect()
        }
        None => at.chain(["on_error", "to"]).map(str::to_owned).collect(),
    }
}

/// Everything that is reached from some nodes, these included.
fn search<I: Iterator<Item = usize>>(
    from: impl IntoIterator<Item = usize>,
    next: impl Fn(usize) -> I,
    work: &mut usize,
) -> BTreeSet<usize> {
    let mut found: BTreeSet<usize> = from.into_iter().collect();
    let mut queue: VecDeque<usize> = found.iter().copied().collect();
    while let Some(node) = queue.pop_front() {
        for other in next(node) {
            *work += 1;
            if found.insert(other) {
                queue.push_back(other);
            }
        }
    }
    found
}
