//! The ready queue: who starts next when there is room.
//!
//! Longest remaining path first, ties by id. A step leaves the queue by losing its `queued` mark; what it leaves in the heap
//! is passed over when it comes to the top. O(log n) to enter and to be taken.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use crate::id::StepId;

/// A place in the ready queue: longest remaining path first, ties by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) rank: u32,
    pub(super) frame_order: Arc<[u32]>,
    pub(super) last: u32,
    /// The leaf to start, or the map whose next item is to be opened.
    pub(super) step: StepId,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_id = || match Arc::ptr_eq(&self.frame_order, &other.frame_order) {
            true => self.last.cmp(&other.last),
            false => self.frame_order.iter().chain([&self.last]).cmp(other.frame_order.iter().chain([&other.last])),
        };
        // A heap has its largest on top, so what comes first is the largest.
        self.rank.cmp(&other.rank).then_with(|| by_id().reverse()).then(other.step.cmp(&self.step))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Entries by their order. Most come in it: those wait in a line, the others in a heap, and the first is that of either.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadyQueue {
    line: VecDeque<Entry>,
    heap: BinaryHeap<Entry>,
}

impl ReadyQueue {
    pub(super) fn push(&mut self, entry: Entry) {
        if self.line.back().is_none_or(|last| entry < *last) {
            self.line.push_back(entry);
        } else {
            self.heap.push(entry);
        }
    }

    /// The first entry whose step is still queued.
    pub(super) fn first(&mut self, is_queued: impl Fn(StepId) -> bool) -> Option<StepId> {
        loop {
            let from_line = self.line.front() >= self.heap.peek();
            let first = if from_line { self.line.front() } else { self.heap.peek() }?.step;
            if is_queued(first) {
                return Some(first);
            }
            if from_line {
                self.line.pop_front()
            } else {
                self.heap.pop()
            };
        }
    }
}

/// Two queues are equal if the same entries come out in the same order.
impl PartialEq for ReadyQueue {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |queue: &Self| {
            let mut all: Vec<Entry> = queue.line.iter().chain(&queue.heap).cloned().collect();
            all.sort();
            all
        };
        sorted(self) == sorted(other)
    }
}
