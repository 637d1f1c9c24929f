//! What can never be: nodes that need both of two branches of which only one is taken, joins that cannot fire.
//!
//! For every node it is known which cases of which `next` must have been taken for it to run: those of its only edge, and those
//! of everything that it requires. Two that exclude each other mean: never. Guards are free, only cases of one `next` exclude
//! each other (and an error edge all of them, and the value of the node that failed).

use std::collections::BTreeMap;

use super::Checker;
use super::flow::Flow;
use super::scope::Names;
use crate::diagnostic::codes;
use crate::graph::{DependencyMode, Join, Node};
use crate::source::Part;

/// Most `next`s that are kept in mind for one node.
const CONDITIONS_MAX: usize = 64;
/// Cases beyond this one are not told apart.
const CASES_MAX: usize = 62;
/// The error edge, as a case.
pub(super) const ERROR: u64 = 1 << 63;

/// By node with a `next`: the cases of which one must have been taken.
pub(super) type Conditions = BTreeMap<usize, u64>;

impl Checker<'_> {
    /// Reports nodes that can never run. `order` has every node after what it waits for. The answer has by node those with a
    /// `next` that must have led this way.
    pub(super) fn exclusive(
        &mut self,
        names: &Names,
        flow: &Flow,
        nodes: &[Node],
        order: &[usize],
        path: &[&str],
    ) -> Vec<Conditions> {
        let name = |index: usize| names.nodes.get_index(index).map_or("?", |(name, _)| name.as_str());
        let mut edges: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for (from, case, to) in flow.forward() {
            let bit = case.map_or(ERROR, |case| 1 << case.min(CASES_MAX));
            *edges.entry((from, to)).or_default() |= bit;
        }
        let mut all: Vec<Conditions> = vec![Conditions::new(); nodes.len()];
        for &index in order {
            let node = &nodes[index];
            let by_edge = |from: usize| {
                let mut conditions = all[from].clone();
                conditions.insert(from, edges.get(&(from, index)).copied().unwrap_or(u64::MAX));
                conditions
            };
            let mut mine = Conditions::new();
            let mut conflict = None;
            let sources: Vec<usize> = node.edges_in.iter().map(|source| source.index()).collect();
            if sources.len() == 1 || node.join == Join::All {
                for from in &sources {
                    conflict = conflict.or(merge(&mut mine, &by_edge(*from)));
                }
            }
            let joins = conflict;
            for dependency in node.dependencies.iter().filter(|source| source.mode == DependencyMode::Required) {
                let source = dependency.source.index();
                let mut conditions = all[source].clone();
                *conditions.entry(source).or_insert(u64::MAX) &= !ERROR;
                conflict = conflict.or(merge(&mut mine, &conditions));
            }
            let pairs = matches!(node.join, Join::Quorum(2..)) && sources.len() > 1 && {
                let each: Vec<Conditions> = sources.iter().take(CONDITIONS_MAX).map(|from| by_edge(*from)).collect();
                let fits = |a: &Conditions, b: &Conditions| merge(&mut a.clone(), b).is_none();
                !each.iter().enumerate().any(|(at, a)| each[at + 1..].iter().any(|b| fits(a, b)))
            };
            let at: Vec<&str> = path.iter().copied().chain([name(index)]).collect();
            if let Some(branch) = conflict.or(pairs.then(|| sources[0])) {
                if joins.is_some() || pairs {
                    let at: Vec<&str> = at.iter().copied().chain(["join"]).collect();
                    let message =
                        format!("this join never fires: its edges are behind different cases of `{}`", name(branch));
                    let problem = self.error(codes::BAD_JOIN, &at, Part::Value, message);
                    problem.help.push("of the cases of one `next` one is taken: write `join: any`".to_owned());
                } else {
                    let message = format!(
                        "`{}` needs nodes behind different cases of `{}`: never both",
                        name(index),
                        name(branch)
                    );
                    let problem = self.error(codes::NEVER, &at, Part::Key, message);
                    problem.help.push(
                        "make one of them optional: `a?` in `needs`, `a | default(…)`, or `join: any`".to_owned(),
                    );
                }
                mine.clear();
            }
            all[index] = mine;
        }
        all
    }

    /// Joins that count nothing, or more than there is.
    pub(super) fn joins(&mut self, names: &Names, flow: &Flow, nodes: &[Node], path: &[&str]) {
        for (index, (name, node)) in names.nodes.iter().enumerate() {
            let Some(join) = node.join else { continue };
            let at: Vec<&str> = path.iter().copied().chain([name.as_str(), "join"]).collect();
            let edges = nodes[index].edges_in.len();
            let is_header = flow.loops.iter().any(|found| found.header == index);
            let counted = match (edges, join) {
                (0, crate::definition::Join::All) => node.needs.iter().filter(|need| !need.optional).count(),
                (0, _) => node.needs.len(),
                (edges, _) => edges,
            };
            let wanted = if let crate::definition::Join::Quorum(count) = join { count as usize } else { 1 };
            if is_header && edges == 0 {
                let message = format!(
                    "`join` on `{name}` counts nothing: only edges from below lead to it, and those begin another pass"
                );
                self.error(codes::BAD_JOIN, &at, Part::Key, message).help.push("remove `join`".to_owned());
            } else if is_header && join == crate::definition::Join::First {
                let message = format!("`join: first` on `{name}`, where a loop begins");
                let problem = self.error(codes::BAD_JOIN, &at, Part::Value, message);
                problem.help.push("put a node before it that races, and let it lead here".to_owned());
            } else if counted == 0 {
                let message = "`join` counts incoming `next` edges, else the entries of `needs`, and there are none";
                self.error(codes::BAD_JOIN, &at, Part::Key, message).help.push("write `needs: [a, b]`".to_owned());
            } else if wanted > counted {
                let what = if edges > 0 { "edges" } else { "entries of `needs`" };
                let message = format!("this join never fires: it wants {wanted} of {counted} {what}");
                self.error(codes::BAD_JOIN, &at, Part::Value, message).help.push(format!("{counted} is the most"));
            }
        }
    }
}

/// Adds conditions. The answer is a `next` of which they want different cases, if there is one.
fn merge(into: &mut Conditions, other: &Conditions) -> Option<usize> {
    let mut conflict = None;
    for (node, cases) in other {
        if into.len() >= CONDITIONS_MAX && !into.contains_key(node) {
            continue;
        }
        let both = into.entry(*node).or_insert(u64::MAX);
        *both &= cases;
        if *both == 0 {
            conflict = conflict.or(Some(*node));
        }
    }
    conflict
}
