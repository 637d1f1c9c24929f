//! What the nodes of a frame cost together when only one case of each `next` is taken.
//!
//! A node runs only if certain cases were: that of its only edge, and those of everything that it requires. Nodes are put
//! together by the first `next` that they hang on, within it by case; of the cases the dearest counts, and inside a case the next
//! `next` is looked at. `a → b | c`, `b → d`: the larger of `b + d` and `c`, and `a`. Guards are taken to hold. Whatever is not
//! found to exclude each other adds up, so the bound is never too small.
//!
//! Cost: O(nodes) amounts for each of at most [`CONDITIONS_MAX`] conditions of a node.

use std::collections::BTreeMap;

use flowrun_engine::graph::{DependencyMode, Graph, Node, Target, Work};
use flowrun_engine::id::NodeIndex;

use super::amount::Amount;

/// Most conditions that are kept of a node, those of its first decisions.
const CONDITIONS_MAX: usize = 8;
/// The edge of `on_error`, as a case.
const ERROR: usize = usize::MAX;

/// A decision, as its place in the order, and the case that must have been taken.
type Condition = (usize, usize);
/// A node with the conditions that are still to be looked at.
type Conditional<'c> = (&'c [Condition], usize);

/// The sum over all nodes, of which those in different cases are never paid together. `order` has each node after what it waits for.
pub(super) fn together(graph: &Graph, order: &[NodeIndex], costs: &[Amount]) -> Amount {
    let mut place = vec![0; order.len()];
    order.iter().enumerate().for_each(|(at, index)| place[index.index()] = at);
    let mut conditions: Vec<Vec<Condition>> = vec![Vec::new(); order.len()];
    for index in order {
        let node = graph.node(*index);
        let mut mine: Vec<Condition> = Vec::new();
        if let [from] = node.edges_in.as_slice() {
            mine.extend(&conditions[from.index()]);
            mine.extend(case(graph.node(*from), *index).map(|case| (place[from.index()], case)));
        }
        for source in node.dependencies.iter().filter(|source| source.mode == DependencyMode::Required) {
            mine.extend(&conditions[source.source.index()]);
        }
        mine.sort_unstable();
        mine.dedup();
        mine.truncate(CONDITIONS_MAX);
        conditions[index.index()] = mine;
    }
    let paid = order.iter().map(|index| index.index()).filter(|index| costs[*index].most > 0);
    let nodes = paid.map(|index| (&*conditions[index], index)).collect();
    dearest(nodes, costs)
}

/// The only case of a node that leads to another one.
fn case(from: &Node, to: NodeIndex) -> Option<usize> {
    // The exits of a loop do not exclude each other.
    if matches!(from.work, Work::Loop(_)) {
        return None;
    }
    let leads = |target: &Target| *target == Target::Node(to);
    let by_case = from.next.iter().enumerate().filter(|(_, case)| case.to.iter().any(leads)).map(|(number, _)| number);
    let mut cases = by_case.chain(from.error_to.filter(leads).map(|_| ERROR));
    cases.next().filter(|_| cases.next().is_none())
}

fn dearest(nodes: Vec<Conditional<'_>>, costs: &[Amount]) -> Amount {
    let mut sum = Amount::ZERO;
    let mut decisions: BTreeMap<usize, BTreeMap<usize, Vec<Conditional<'_>>>> = BTreeMap::new();
    for (conditions, index) in nodes {
        match conditions.split_first() {
            None => sum = sum.plus(&costs[index]),
            Some(((decision, case), rest)) => {
                decisions.entry(*decision).or_default().entry(*case).or_default().push((rest, index));
            }
        }
    }
    for cases in decisions.into_values() {
        let dearest = cases.into_values().fold(Amount::ZERO, |most, nodes| most.or(&dearest(nodes, costs)));
        sum = sum.plus(&dearest);
    }
    sum
}
