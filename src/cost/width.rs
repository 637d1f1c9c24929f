//! How much of a frame can be at work at once: chains of nodes that wait for each other never run together.
//!
//! `a → b`, `a → c` has two chains, `a → b` and `c`; a frame is as wide as its chains are, each as wide as its widest node.
//! Finding few of them is greedy; more than needed make the bound larger, never wrong.
//!
//! Cost: at most [`SEARCH_MAX`] nodes are looked at for the chain of each.

use std::collections::VecDeque;

use flowrun_engine::graph::Node;
use flowrun_engine::graph::{Graph, Join};
use flowrun_engine::id::NodeIndex;

use super::amount::Amount;

/// Most nodes that are looked at in search of a chain.
const SEARCH_MAX: usize = 1_000;

/// The nodes that have ended when a node begins: none is sure in a race, whose losers may go on.
fn sources(node: &Node) -> Vec<NodeIndex> {
    if node.join == Join::First { Vec::new() } else { node.waits_for() }
}

/// Most leaf steps of a frame that run at once: the sum over its chains of the widest node of each.
pub(super) fn width(graph: &Graph, order: &[NodeIndex], widths: &[Amount]) -> Amount {
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
