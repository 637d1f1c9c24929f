//! Where the flow of a random level goes: rows of nodes and loops, forks, exits, edges after a failure.

use super::{Draw, flow};
use crate::testing::spec::{Case, Level, NodeSpec, Policy, Read};

impl Draw {
    fn back(&mut self, header: String) -> Case {
        let (when, fails, max) = (self.condition(60), self.chance(8), self.counted(3));
        Case { when, to: vec![header], max: Some(max), fails }
    }

    /// Nodes and loops in a row, from node to node; loops contain rows again.
    pub(super) fn chain(&mut self, level: &mut Level, from: usize, to: usize, header: Option<usize>) {
        let mut tails: Vec<usize> = header.into_iter().collect();
        let mut at = if header.is_some() { from + 1 } else { from };
        while at < to {
            if self.chance(15) {
                // Stands in the row without being part of it.
                at += 1;
                continue;
            }
            let name = level.nodes[at].name.clone();
            let before = std::mem::take(&mut tails);
            for tail in &before {
                self.connect(&mut level.nodes[*tail], &name);
            }
            let room = to - at;
            if self.chance(26) {
                let length = 1 + self.random.below(room.min(4) as u64) as usize;
                self.chain(level, at, at + length, Some(at));
                let tail = self.tail(level, at, at + length);
                let back = self.back(name);
                let place = self.random.below(level.nodes[tail].next.len() as u64 + 1) as usize;
                level.nodes[tail].next.insert(place, back);
                tails.push(tail);
                at += length;
            } else {
                tails.push(at);
                at += 1;
                if at < to && self.chance(40) {
                    // A second way: this node is passed by, or runs beside the next one.
                    tails.extend(before);
                }
            }
        }
    }

    /// One more edge onwards: a case of its own, or beside another target of the last one.
    fn connect(&mut self, node: &mut NodeSpec, name: &str) {
        let when = self.condition(25);
        let forks = self.chance(50);
        match node.next.last_mut().filter(|case| case.max.is_none()) {
            Some(case) if forks => return case.to.push(name.to_owned()),
            Some(case) if case.when.is_none() => case.when = Some(Vec::new()),
            _ => {}
        }
        node.next.push(Case { when, to: vec![name.to_owned()], max: None, fails: false });
    }

    /// A node that hangs on a loop by mentions, and may leave it.
    pub(super) fn hang(&mut self, level: &mut Level) {
        let Ok(flow) = flow::analyse(level) else { return };
        let Some(a_loop) = self.pick(&flow.loops).cloned() else { return };
        let header = level.nodes[a_loop.header].name.clone();
        let free = |index: &usize| flow.edges_in[*index].is_empty() && level.nodes[*index].next.is_empty();
        let free: Vec<usize> = (a_loop.header + 1..level.nodes.len()).filter(free).collect();
        let leads_back = |node: &usize| flow::targets(&level.nodes[*node]).any(|target| *target == header);
        let Some(tail) = a_loop.body.iter().copied().find(leads_back) else { return };
        let Some(index) = self.pick(&free).copied().filter(|index| *index != tail) else { return };
        let name = level.nodes[index].name.clone();
        level.nodes[index].reads.push(Read::Plain(header));
        level.nodes[tail].reads.push(Read::Default(name));
        let onwards: Vec<String> = level.nodes[index + 1..].iter().map(|node| node.name.clone()).collect();
        if let Some(target) = self.pick(&onwards).cloned().filter(|_| self.random.below(3) > 0) {
            level.nodes[index].next.push(Case { when: Some(Vec::new()), to: vec![target], max: None, fails: false });
        }
    }

    /// The last node of a row.
    fn tail(&self, level: &Level, from: usize, to: usize) -> usize {
        let routed = |index: &usize| {
            level.nodes[from..to].iter().any(|node| flow::targets(node).any(|name| *name == level.nodes[*index].name))
        };
        (from..to).rev().find(routed).unwrap_or(from)
    }

    /// One more edge: onwards, out of a loop, back, or after a failure.
    pub(super) fn edge(&mut self, level: &mut Level) {
        let count = level.nodes.len() as u64;
        let (from, to) = (self.random.below(count) as usize, self.random.below(count) as usize);
        let target = level.nodes[to].name.clone();
        if flow::targets(&level.nodes[from]).any(|name| *name == target) {
            return;
        }
        if to > from && self.chance(25) {
            level.nodes[from].on_error = Policy::To(target);
            return;
        }
        let case = if to <= from {
            self.back(target)
        } else {
            Case { when: self.condition(80), to: vec![target], max: None, fails: false }
        };
        let place = self.random.below(level.nodes[from].next.len() as u64 + 1) as usize;
        level.nodes[from].next.insert(place, case);
    }
}
