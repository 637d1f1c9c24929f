//! Starts, budgets and the end: what happens once every decision of a transaction is in.
//!
//! Ready leaves and maps with room in their window stand in one queue. While slots are free the first is taken: a leaf starts
//! if its allowance fits the budget, a map opens its next item (which asks for its input first, so dispatching goes on
//! after the answer). The run ends when the root is settled and nothing is in flight.

use super::arena::{Body, Flight};
use super::queue::Entry;
use super::{Effects, Ending, Scheduler};
use crate::event::{Bound, Command, DecideField, Decision, Event, Outcome, RunEnded, SkipReason, Status, TimerKind};
use crate::failure::StepError;
use crate::fault::{self, Fault};
use crate::id::{StepId, ValueHash};
use crate::state::State;

impl Scheduler {
    /// Starts what may start, and ends the run when nothing is left.
    pub(super) fn dispatch(&mut self, effects: &mut Effects) {
        if self.over {
            return;
        }
        while self.decisions_open == 0
            && self.ending.is_none()
            && self.in_flight < self.max_parallel
            && let Some(step) = self.next_ready()
        {
            if self.steps[step.index()].child.is_some() {
                self.unqueue(step);
                self.open_next_item(step, effects);
                self.propagate(effects);
            } else if self.budget.fits(self.steps[step.index()].calls) {
                self.unqueue(step);
                self.start(step, effects);
            } else {
                if !self.budget.may_fit(self.steps[step.index()].calls) {
                    self.exhaust(Bound::Calls, effects);
                    self.propagate(effects);
                }
                break;
            }
        }
        if self.decisions_open == 0 && self.in_flight == 0 {
            self.end_if_done(effects);
        }
    }

    fn start(&mut self, step: StepId, effects: &mut Effects) {
        self.set(step, State::Running);
        self.in_flight += 1;
        let data = self.step_mut(step);
        let before = (data.attempt, std::mem::replace(&mut data.flight, Flight::Open));
        data.attempt += 1;
        let calls = data.calls;
        if let (attempt, Flight::Cancelled) = before {
            self.abandoned.insert((step, attempt));
        }
        self.budget.reserve(calls);
        self.issue(step, effects);
    }

    /// Has the world run the latest attempt of a step.
    fn issue(&mut self, step: StepId, effects: &mut Effects) {
        let (input, attempt) = (self.input(step), self.attempt(step));
        effects.events.push(Event::Started { step, attempt, input });
        effects.commands.push(Command::Start { step, attempt });
        if let Some(delay_ms) = self.node(step).and_then(|node| node.timeout_ms) {
            effects.commands.push(Command::Timer { step, attempt, timer: TimerKind::Timeout, delay_ms });
        }
    }

    /// Another driver goes on: attempts that were in flight begin anew under their next number, those that had been told to stop
    /// are charged in full and forgotten, people are asked again. O(steps), once per driver. Timers keep their times: that is the
    /// driver's part.
    pub(super) fn attach(&mut self, max_parallel: u32, effects: &mut Effects) {
        self.max_parallel =
            if fault::is(Fault::LimitOfTheFirstDriver) { self.max_parallel } else { max_parallel.max(1) };
        let forgotten: Vec<(StepId, u32)> = self.abandoned.iter().copied().collect();
        let forgotten = forgotten.into_iter().filter(|_| !fault::is(Fault::LostAbandonedIsAwaited));
        forgotten.for_each(|(step, attempt)| self.give_up(step, attempt));
        for step in (0..self.steps.len() as u32).map(StepId) {
            let attempt = self.attempt(step);
            match self.steps[step.index()].flight {
                Flight::Cancelled if fault::is(Fault::LostCancelledIsAwaited) => {}
                Flight::Cancelled => self.give_up(step, attempt),
                Flight::Open if fault::is(Fault::LostIsAwaited) => {}
                Flight::Open => {
                    *self.cut_off.entry(step).or_default() += 1;
                    self.step_mut(step).attempt += 1;
                    self.issue(step, effects);
                }
                Flight::None if self.is_asked(step) && !fault::is(Fault::AskedOnce) => {
                    effects.commands.push(Command::Ask { step })
                }
                Flight::None => {}
            }
        }
    }

    /// Puts a leaf into the ready queue.
    pub(super) fn enqueue(&mut self, step: StepId) {
        self.step_mut(step).queued = true;
        self.ready.push(self.entry(step));
    }

    /// Puts a map into the ready queue if it has items left and room for one.
    pub(super) fn enqueue_items(&mut self, parent: StepId) {
        let frame = self.steps[parent.index()].child.expect("BUG: a map without a frame");
        let frame = &self.frames[frame.index()];
        if !frame.closed && frame.items().may_open() && !self.steps[parent.index()].queued {
            self.enqueue(parent);
        }
    }

    pub(super) fn unqueue(&mut self, step: StepId) {
        self.step_mut(step).queued = false;
    }

    fn next_ready(&mut self) -> Option<StepId> {
        let steps = &self.steps;
        self.ready.first(|step| steps[step.index()].queued)
    }

    fn entry(&self, step: StepId) -> Entry {
        Entry { rank: self.rank(step), frame_order: self.frame_of(step).order.clone(), last: self.number(step), step }
    }

    /// Longest path from a step to the end of the run: its node's rank plus the parent's. Items rank as their node.
    pub(super) fn rank(&self, step: StepId) -> u32 {
        let frame = self.frame_of(step);
        match frame.body {
            Body::Nodes { .. } => frame.rank + frame.graph.0.node(self.steps[step.index()].node).rank,
            Body::Items(_) => frame.rank,
        }
    }

    /// The last number of a step's numeric path: its node's, or its item's.
    pub(super) fn number(&self, step: StepId) -> u32 {
        let data = &self.steps[step.index()];
        match self.frame_of(step).body {
            Body::Nodes { .. } => data.node.0,
            Body::Items(_) => data.index,
        }
    }

    /// A run-wide quantity is used up: nothing new starts, what is in flight finishes.
    pub(super) fn exhaust(&mut self, bound: Bound, effects: &mut Effects) {
        if self.ending.is_none() {
            self.ending = Some(Ending::Exhausted(bound));
            self.cancel_waiting(effects);
        }
    }

    fn end_if_done(&mut self, effects: &mut Effects) {
        let root = self.state(StepId::ROOT);
        match self.ending {
            Some(Ending::Cancelled) => self.end(Status::Cancelled, None, None, effects),
            Some(Ending::Exhausted(_)) if !root.is_terminal() => {
                if self.frames.is_empty() {
                    return self.end_exhausted(&Decision::Guard(false), effects);
                }
                self.close_frame(Self::ROOT_FRAME, effects);
                self.decide(StepId::ROOT, DecideField::BestOutput, effects);
            }
            None if !root.is_terminal() => {
                let waits = self.suspended > 0 || self.backing_off > 0 || self.held > 0;
                debug_assert!(waits, "BUG: nothing runs, nothing waits, and the run is not over");
            }
            // Also when means ran out for what nobody needs any more.
            _ => match (root, self.value(StepId::ROOT)) {
                (State::Succeeded, value) => self.end(Status::Success, value, None, effects),
                (State::Cancelled, _) => self.end(Status::Cancelled, None, None, effects),
                _ => self.end(Status::Failed, None, None, effects),
            },
        }
    }

    /// The best output of an exhausted run is known, or cannot be had.
    pub(super) fn end_exhausted(&mut self, decision: &Decision, effects: &mut Effects) {
        let Some(Ending::Exhausted(bound)) = self.ending else { panic!("BUG: a best output of a run that goes on") };
        let output = if let Decision::Value(value) = decision { Some(*value) } else { None };
        self.finish(StepId::ROOT, Outcome::Cancelled, effects);
        self.end(Status::Exhausted, output, Some(bound), effects);
    }

    fn end(&mut self, status: Status, output: Option<ValueHash>, bound: Option<Bound>, effects: &mut Effects) {
        self.over = true;
        let cause = if status == Status::Failed { self.cause.clone() } else { None };
        let (failed_step, error) = cause.unzip();
        let ended = RunEnded { status, output, error, failed_step, bound, usage: self.usage };
        effects.events.push(Event::RunEnded(Box::new(ended)));
        effects.commands.push(Command::End);
    }

    /// The error of a run whose output needs a step that did not succeed: the chain of reasons down to the first.
    pub(super) fn output_skipped(&self, step: StepId) -> StepError {
        let why = self.why_missing(step);
        StepError::terminal("output_skipped", format!("the output needs `{}`: {why}", self.path(step)))
    }

    fn why_missing(&self, step: StepId) -> String {
        let mut chain = Vec::new();
        let mut at = Some(step);
        while let Some(step) = at.take().filter(|_| chain.len() < 20) {
            let path = self.path(step);
            chain.push(match (self.state(step), self.missing_source(step)) {
                (State::Skipped, Some(source)) => {
                    at = Some(source);
                    format!("`{path}` requires `{}`", self.path(source))
                }
                (State::Skipped, None) if self.is_unreached(step) => format!("no edge led to `{path}`"),
                (State::Skipped, None) => format!("`{path}` was skipped by its own conditions"),
                (state, _) => format!("`{path}` {}", state.word()),
            });
        }
        chain.join(", ")
    }

    /// Whether a skipped step was skipped because too few edges led to it.
    fn is_unreached(&self, step: StepId) -> bool {
        !self.frame_of(step).is_items() && self.objection(step) == Some(SkipReason::NotRouted)
    }

    /// The required source that kept a step from running, if one did.
    fn missing_source(&self, step: StepId) -> Option<StepId> {
        let node = self.node(step)?;
        let Body::Nodes { first } = self.frame_of(step).body else { return None };
        let required = node.dependencies.iter().filter(|d| d.mode == crate::graph::DependencyMode::Required);
        let mut missing = required.filter(|dependency| !self.has_value(first, dependency));
        missing.next().map(|dependency| {
            let (Ok(step) | Err(step)) =
                self.inside(super::advance::child(first, dependency.source), &dependency.inside);
            step
        })
    }
}
