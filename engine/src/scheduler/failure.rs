//! What a failure means, in one order: retry, then `on_item_error`, then `on_error`, else the frame fails and its parent step
//! with it, and so on up. Closing a frame cancels everything in it; attempts in flight keep their slots until they end.

use super::arena::{Body, Children, Flight, Layer, Route};
use super::{Effects, Ending, GRACE_MS, Scheduler};
use crate::event::{Command, DecideField, Event, Outcome, TimerKind, Usage};
use crate::failure::{ErrorClass, StepError};
use crate::fault::{self, Fault};
use crate::graph::{OnError, OnItemError, Work};
use crate::id::{FrameId, StepId, ValueHash};
use crate::state::State;

/// What the policies of a node say about one failed step.
enum Verdict {
    Tolerate,
    Recover,
    FailFrame,
}

impl Scheduler {
    /// An attempt ended.
    pub(super) fn settle_attempt(
        &mut self,
        step: StepId,
        attempt: u32,
        result: &Result<ValueHash, StepError>,
        usage: Usage,
        effects: &mut Effects,
    ) {
        if attempt == 0 {
            self.let_go(step);
            if fault::is(Fault::FoundIsMissed) {
                return self.begin_work(step, effects);
            }
            let value = result.as_ref().expect("BUG: an answer that was found is none");
            return self.worked(step, *value, effects);
        }
        let flight = self.land(step, attempt);
        let allowance = if fault::is(Fault::AllowanceLeaks) { 0 } else { self.steps[step.index()].calls };
        self.budget.settle(allowance, usage.calls);
        self.usage += usage;
        if flight == Flight::Cancelled {
            return;
        }
        match result {
            Ok(value) => self.worked(step, *value, effects),
            Err(error) => self.attempt_failed(step, attempt, error.clone(), effects),
        }
    }

    fn attempt_failed(&mut self, step: StepId, attempt: u32, error: StepError, effects: &mut Effects) {
        let cut_off = if fault::is(Fault::CutOffIsRetry) { None } else { self.cut_off.get(&step) };
        let retries = attempt - 1 - cut_off.copied().unwrap_or(0);
        let made = retries + u32::from(fault::is(Fault::RetryOneLess));
        let delay_ms = self.node(step).and_then(|node| {
            let stubborn = fault::is(Fault::TerminalIsRetried) && made < node.retry.max;
            node.retry.delay_ms(&error, made).or(stubborn.then_some(1))
        });
        match delay_ms {
            Some(_) if self.ending.is_some() => self.finish(step, Outcome::Cancelled, effects),
            Some(delay_ms) => {
                self.set(step, State::Backoff);
                effects.events.push(Event::Backoff { step, attempt, delay_ms, error });
                effects.commands.push(Command::Timer { step, attempt, timer: TimerKind::Backoff, delay_ms });
            }
            None => self.fail(step, error, effects),
        }
    }

    /// A timer that is still awaited ran out.
    pub(super) fn timer(&mut self, step: StepId, attempt: u32, timer: TimerKind, effects: &mut Effects) {
        match timer {
            TimerKind::Backoff => {
                self.set(step, State::Ready);
                effects.events.push(Event::Ready { step, winner: None });
                self.enqueue(step);
            }
            TimerKind::Grace => self.give_up(step, attempt),
            TimerKind::Timeout => {
                let limit = self.node(step).and_then(|node| node.timeout_ms).unwrap_or_default();
                let message = format!("not done within its `timeout` of {limit} ms");
                let error = StepError::new("timeout", ErrorClass::Timeout, message);
                if attempt == 0 {
                    self.fail(step, error, effects);
                } else if self.state(step) == State::Suspended {
                    match self.node(step).map(|node| &node.work) {
                        Some(Work::Human { has_default: true }) => self.decide(step, DecideField::Default, effects),
                        _ => self.fail(step, error, effects),
                    }
                } else {
                    self.abandon(step, attempt, effects);
                    self.attempt_failed(step, attempt, error, effects);
                }
            }
        }
    }

    /// An attempt that was told to stop will never tell what it cost: it is charged in full.
    pub(super) fn give_up(&mut self, step: StepId, attempt: u32) {
        self.land(step, attempt);
        let calls = self.steps[step.index()].calls;
        let all = if fault::is(Fault::GivenUpIsFree) { 0 } else { u64::from(calls) };
        let charged = Usage { calls: all, ..Usage::default() };
        self.budget.settle(calls, charged.calls);
        self.usage += charged;
    }

    /// Tells the world to stop an attempt; it stays in flight until it ends or its grace is over.
    fn abandon(&mut self, step: StepId, attempt: u32, effects: &mut Effects) {
        let data = self.step_mut(step);
        if data.attempt == attempt && data.flight == Flight::Open {
            data.flight = Flight::Cancelled;
            if fault::is(Fault::CancelledFreesItsSlot) {
                self.max_parallel += 1;
            }
            effects.commands.push(Command::Cancel { step, attempt });
            effects.commands.push(Command::Timer { step, attempt, timer: TimerKind::Grace, delay_ms: GRACE_MS });
        }
    }

    /// A step failed for good: its node's policies decide what that means.
    pub(super) fn fail(&mut self, step: StepId, error: StepError, effects: &mut Effects) {
        let verdict = self.policy(step);
        self.fail_as(step, error, verdict, effects);
    }

    /// The value that was to take an error's place could not be computed: no policy is left.
    pub(super) fn fail_again(&mut self, step: StepId, error: StepError, effects: &mut Effects) {
        self.fail_as(step, error, Verdict::FailFrame, effects);
    }

    fn fail_as(&mut self, step: StepId, error: StepError, verdict: Verdict, effects: &mut Effects) {
        let cause = (step, error.clone());
        self.walk_out(step, error, verdict, cause, effects);
    }

    /// A frame fails because of a step in it that had its turn.
    pub(super) fn fail_frame(&mut self, frame: FrameId, cause: (StepId, StepError), effects: &mut Effects) {
        let parent = self.frames[frame.index()].parent;
        let error = StepError::terminal("step_failed", "a step inside it failed");
        self.walk_out(parent, error, self.policy(parent), cause, effects);
    }

    /// Walks outwards from a failed step until a policy tolerates the failure or the run has failed.
    fn walk_out(
        &mut self,
        mut step: StepId,
        mut error: StepError,
        mut verdict: Verdict,
        cause: (StepId, StepError),
        effects: &mut Effects,
    ) {
        loop {
            if let Some(frame) = self.steps[step.index()].child {
                self.close_frame(frame, effects);
            }
            match verdict {
                Verdict::Tolerate => {
                    let route = if self.node(step).is_some_and(|node| node.error_to.is_some()) {
                        Route::Error
                    } else {
                        Route::None
                    };
                    self.step_mut(step).route = route;
                    return self.settle(step, Outcome::Failed { error, tolerated: true }, effects);
                }
                Verdict::Recover => {
                    self.step_mut(step).error = Some(Box::new(error));
                    return self.decide(step, DecideField::ErrorValue, effects);
                }
                Verdict::FailFrame => self.finish(step, Outcome::Failed { error, tolerated: false }, effects),
            }
            if step == StepId::ROOT {
                self.cause.get_or_insert(cause);
                return;
            }
            if self.ending.is_some() {
                return;
            }
            let item = step;
            let frame = self.steps[step.index()].frame;
            step = self.frames[frame.index()].parent;
            if self.frames[frame.index()].is_items() && self.stops(step) && !fault::is(Fault::FailureBeforeItsTurn) {
                return self.defer_failure(frame, cause, item, effects);
            }
            error = StepError::terminal("step_failed", "a step inside it failed");
            verdict = self.policy(step);
        }
    }

    /// The declared value takes the place of the error.
    pub(super) fn recover(&mut self, step: StepId, value: ValueHash, effects: &mut Effects) {
        self.succeed(step, value, effects);
    }

    /// `on_item_error` for the items of a map (or the samples of a node without one), `on_error` for a node's own step.
    fn policy(&self, step: StepId) -> Verdict {
        let Some(node) = self.node(step) else { return Verdict::FailFrame };
        let frame = self.frame_of(step);
        if !frame.is_items() {
            return match node.on_error {
                OnError::Fail => Verdict::FailFrame,
                OnError::Skip | OnError::To => Verdict::Tolerate,
                OnError::Value => Verdict::Recover,
            };
        }
        let outermost = self.steps[frame.parent.index()].layer == Layer::first(node);
        match node.on_item_error {
            _ if !outermost || frame.items().of == Children::Passes => Verdict::FailFrame,
            OnItemError::Fail if node.quorum.is_some() => Verdict::Tolerate,
            OnItemError::Fail => Verdict::FailFrame,
            OnItemError::Drop | OnItemError::Skip => Verdict::Tolerate,
            OnItemError::Value => Verdict::Recover,
        }
    }

    /// Cancels every unsettled step of a frame and of the frames inside it. O(steps of these frames), once per frame.
    pub(super) fn close_frame(&mut self, frame: FrameId, effects: &mut Effects) {
        let mut frames = vec![frame];
        while let Some(frame) = frames.pop() {
            if std::mem::replace(&mut self.frames[frame.index()].closed, true) {
                continue;
            }
            let steps: Vec<StepId> = match &self.frames[frame.index()].body {
                Body::Nodes { first } => {
                    let count = self.frames[frame.index()].graph.0.nodes().len() as u32;
                    (first.0..first.0 + count).map(StepId).collect()
                }
                Body::Items(items) => items.steps.clone(),
            };
            for step in steps.into_iter().filter(|step| !self.state(*step).is_terminal()).collect::<Vec<_>>() {
                frames.extend(self.steps[step.index()].child);
                self.cancel_step(step, effects);
            }
        }
    }

    /// Cancels a step and everything in the frames that it opened.
    pub(super) fn cancel_with_frames(&mut self, step: StepId, effects: &mut Effects) {
        if let Some(frame) = self.steps[step.index()].child {
            self.close_frame(frame, effects);
        }
        self.cancel_step(step, effects);
    }

    fn cancel_step(&mut self, step: StepId, effects: &mut Effects) {
        if self.step_mut(step).deciding.take().is_some() {
            self.decisions_open -= 1;
        }
        let attempt = self.attempt(step);
        if self.state(step) == State::Running && self.steps[step.index()].layer == Layer::Work {
            self.abandon(step, attempt, effects);
        }
        self.finish(step, Outcome::Cancelled, effects);
    }

    /// The caller ends the run.
    pub(super) fn cancel_run(&mut self, effects: &mut Effects) {
        self.ending = Some(Ending::Cancelled);
        self.cancel_everything(effects);
    }

    /// Cancels the root's frame and the root.
    pub(super) fn cancel_everything(&mut self, effects: &mut Effects) {
        self.close_frame(Self::ROOT_FRAME, effects);
        if !self.state(StepId::ROOT).is_terminal() {
            self.cancel_step(StepId::ROOT, effects);
        }
    }

    /// Cancels what waits for another attempt or for a person: with a run-wide quantity used up nothing starts any more.
    pub(super) fn cancel_waiting(&mut self, effects: &mut Effects) {
        let waiting = (0..self.steps.len() as u32).map(StepId);
        let waits = |step: &StepId| matches!(self.state(*step), State::Backoff | State::Suspended);
        for step in waiting.filter(waits).collect::<Vec<_>>() {
            self.cancel_step(step, effects);
        }
    }
}
