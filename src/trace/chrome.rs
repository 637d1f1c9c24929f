//! A trace as Trace Event JSON, for viewers such as Perfetto and `about:tracing`.
//!
//! Such viewers draw slices of one lane inside each other and refuse those that merely overlap. So each slice goes on the lane
//! of the frame around it if nothing else is open there, else on the first lane that is free: what runs at the same time
//! stands side by side, what follows each other shares a lane. O(slices log slices).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use serde_json::{Value, json};

use super::Trace;

/// A stretch of time with a name, inside of another one or of none.
struct Slice {
    step: usize,
    start: u64,
    end: u64,
    /// Position of the slice around it.
    around: Option<usize>,
    /// Which attempt, if it is one of several.
    attempt: Option<usize>,
    /// Filled in by `pack`.
    lane: usize,
}

impl Trace {
    /// The trace as one JSON object; `title` names the run.
    pub fn chrome(&self, title: &str) -> Value {
        let mut slices = self.slices();
        let lanes = pack(&mut slices);
        let named = |name: &str, lane: usize, value: Value| json!({"name": name, "ph": "M", "pid": 1, "tid": lane, "args": value});
        let mut events = vec![named("process_name", 0, json!({"name": format!("flowrun {title}")}))];
        for lane in 1..=lanes {
            events.push(named("thread_name", lane, json!({"name": format!("lane {lane}")})));
            events.push(named("thread_sort_index", lane, json!({"sort_index": lane})));
        }
        events.extend(slices.iter().map(|slice| self.slice_json(slice)));
        let own: BTreeMap<usize, &Slice> =
            slices.iter().filter(|slice| slice.attempt.is_none()).map(|slice| (slice.step, slice)).collect();
        for (id, pair) in self.critical_path().windows(2).enumerate() {
            let (Some(from), Some(to)) = (own.get(&pair[0]), own.get(&pair[1])) else { continue };
            let arrow = |ph: &str, slice: &Slice, us: u64| json!({"name": "critical path", "cat": "critical", "ph": ph, "bp": "e", "id": id + 1, "ts": us, "pid": 1, "tid": slice.lane});
            // At a boundary it would be the neighbour's.
            events.push(arrow("s", from, from.end.saturating_sub(1).max(from.start)));
            events.push(arrow("f", to, (to.start + 1).min(to.end)));
        }
        json!({"displayTimeUnit": "ms", "traceEvents": events})
    }

    /// Every step that took time, outer ones first, and the attempts of those that had several.
    fn slices(&self) -> Vec<Slice> {
        let mut slices = Vec::new();
        let mut stack: Vec<(usize, Option<usize>)> = self.roots.iter().rev().map(|root| (*root, None)).collect();
        while let Some((at, around)) = stack.pop() {
            let step = &self.steps[at];
            let Some(start) = step.started_us else { continue };
            let own = slices.len();
            let end = step.ended_us.unwrap_or(self.until_us);
            slices.push(Slice { step: at, start, end, around, attempt: None, lane: 0 });
            for (number, attempt) in step.attempts.iter().enumerate().filter(|_| step.attempts.len() > 1) {
                let (start, end) = (attempt.started_us, attempt.ended_us.unwrap_or(end));
                slices.push(Slice { step: at, start, end, around: Some(own), attempt: Some(number), lane: 0 });
            }
            stack.extend(step.children.iter().rev().map(|child| (*child, Some(own))));
        }
        slices
    }

    fn slice_json(&self, slice: &Slice) -> Value {
        let step = &self.steps[slice.step];
        let waited = |number: usize| {
            step.attempts.get(number).map(|attempt| attempt.started_us.saturating_sub(attempt.ready_us))
        };
        let category = if step.is_leaf() { "step" } else { "frame" };
        let mut event = json!({
            "name": step.path, "cat": category, "ph": "X", "ts": slice.start, "dur": slice.end.saturating_sub(slice.start), "pid": 1, "tid": slice.lane,
        });
        if let Some(number) = slice.attempt {
            event["name"] = json!(format!("attempt {}", number + 1));
            event["cat"] = json!("attempt");
            event["args"] = json!({"waited_us": waited(number)});
            return event;
        }
        if step.critical {
            event["cat"] = json!("step,critical");
        }
        if step.state == "failed" {
            event["cname"] = json!("terrible");
        }
        event["args"] = json!({
            "state": step.state, "critical": step.critical, "attempts": step.attempts.len(), "waited_us": waited(0), "calls": step.usage.calls,
            "prompt_tokens": step.usage.prompt_tokens, "completion_tokens": step.usage.completion_tokens, "why": step.why, "notes": step.notes,
            "found": step.found.as_ref().map(|found| found.word()),
        });
        event
    }
}

/// Gives every slice a lane, from 1, and says how many there are.
fn pack(slices: &mut [Slice]) -> usize {
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_by_key(|at| (slices[*at].start, Reverse(slices[*at].end), *at));
    // What is open on each lane, outermost first; when the outermost one ends the lane is free.
    let mut open: Vec<Vec<usize>> = Vec::new();
    let mut ends: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut free: BTreeSet<usize> = BTreeSet::new();
    for at in order {
        let (start, end) = (slices[at].start, slices[at].end);
        while let Some(Reverse((_, lane))) = ends.peek().copied().filter(|Reverse((ended, _))| *ended <= start) {
            ends.pop();
            open[lane].clear();
            free.insert(lane);
        }
        let beside = slices[at].around.map(|around| (around, slices[around].lane)).filter(|(_, lane)| *lane > 0);
        let inside = beside.filter(|(around, lane)| {
            let open = &mut open[lane - 1];
            while open.last().is_some_and(|top| slices[*top].end <= start && top != around) {
                open.pop();
            }
            open.last() == Some(around) && end <= slices[*around].end
        });
        let lane = match inside {
            Some((_, lane)) => lane - 1,
            None => {
                let lane = free.pop_first().unwrap_or_else(|| {
                    open.push(Vec::new());
                    open.len() - 1
                });
                ends.push(Reverse((end, lane)));
                lane
            }
        };
        open[lane].push(at);
        slices[at].lane = lane + 1;
    }
    open.len()
}
