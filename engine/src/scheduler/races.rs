//! `join: first`: the first source wins, and who runs for nobody any more is cancelled.
//!
//! Races are looked at when nothing else of an event is left, so that of sources which settle in the same event the one with the
//! smallest id wins.

use super::arena::Body;
use super::{Effects, News, Scheduler, advance};
use crate::event::{Outcome, SkipReason};
use crate::fault::{self, Fault};
use crate::graph::{Graph, Node};
use crate::id::{NodeIndex, StepId};

impl Scheduler {
    /// Runs a step whose first source is there, or skips it when none will come.
    pub(super) fn race(&mut self, step: StepId, effects: &mut Effects) {
        if self.winners.contains_key(&step) {
            return;
        }
        let frame = self.frame_of(step);
        let Body::Nodes { first } = frame.body else { panic!("BUG: a race of items") };
        let graph = frame.graph.0.clone();
        let index = self.steps[step.index()].node;
        let node = graph.node(index);
        let counted = counted(node);
        let settled = |source: NodeIndex| self.state(advance::child(first, source)).is_terminal();
        let others = node.dependencies.iter().filter(|dependency| !counted.contains(&dependency.source));
        let ready = others.map(|dependency| dependency.source).all(settled);
        let won = |source: &NodeIndex| {
            let source_step = advance::child(first, *source);
            let by_need = || node.counted.iter().any(|need| need.source == *source && self.has_value(first, need));
            settled(*source) && if node.edges_in.is_empty() { by_need() } else { self.edge_is_live(source_step, index) }
        };
        let winner = counted.iter().copied().find(won);
        match winner {
            Some(winner) if ready => {
                self.winners.insert(step, winner);
                self.cancel_losers(step, &graph, first, winner, effects);
                self.verdict(step, effects);
            }
            None if self.steps[step.index()].pending == 0 => {
                let reason = if node.edges_in.is_empty() { SkipReason::NoneOf } else { SkipReason::NotRouted };
                self.settle(step, Outcome::Skipped(reason), effects);
            }
            _ => {}
        }
    }

    /// Cancels the sources that lost, and upwards what ran for them alone and does nothing in the world.
    fn cancel_losers(&mut self, step: StepId, graph: &Graph, first: StepId, winner: NodeIndex, effects: &mut Effects) {
        if fault::is(Fault::LoserRunsOn) {
            return;
        }
        let mut losers = counted(graph.node(self.steps[step.index()].node));
        losers.retain(|source| *source != winner);
        while let Some(loser) = losers.pop() {
            let (node, loser_step) = (graph.node(loser), advance::child(first, loser));
            let served = |consumer: &NodeIndex| {
                let consumer = advance::child(first, *consumer);
                consumer == step || self.state(consumer).is_terminal()
            };
            if self.state(loser_step).is_terminal() || node.is_kept || !graph.consumers(loser).iter().all(served) {
                continue;
            }
            self.cancel_with_frames(loser_step, effects);
            self.news.push_back(News::Settled(loser_step));
            losers.extend(node.waits_for().into_iter().filter(|source| !graph.node(*source).has_effect));
        }
    }

    /// Whether a node is a source that lost the race of a step, so that it reads as null there.
    pub(super) fn lost(&self, step: StepId, source: NodeIndex) -> bool {
        let Some(winner) = self.winners.get(&step) else { return false };
        *winner != source && self.node(step).is_some_and(|node| counted(node).contains(&source))
    }

    /// The source that won the race of a step.
    pub fn winner(&self, step: StepId) -> Option<StepId> {
        let Body::Nodes { first } = self.frame_of(step).body else { return None };
        self.winners.get(&step).map(|source| advance::child(first, *source))
    }
}

/// The sources that a join counts.
fn counted(node: &Node) -> Vec<NodeIndex> {
    if !node.edges_in.is_empty() {
        return node.edges_in.clone();
    }
    let mut sources: Vec<NodeIndex> = node.counted.iter().map(|need| need.source).collect();
    sources.dedup();
    sources
}
