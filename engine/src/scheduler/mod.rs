//! The pure core: events in, commands out; no clock, no randomness, no I/O, no values.
//!
//! [`Scheduler::apply`] takes one input event and appends to [`Effects`] what follows: derived events for the log and
//! commands for the driver. It knows states, counts and hashes; whatever needs a value is asked for with
//! [`Command::Decide`] and answered with [`Event::Decided`] before anything starts. The same input events give the same
//! scheduler, the same derived events and the same commands: this is what resuming, replaying and simulating rest on.
//!
//! A worked example, `a → b` with room for one: `RunStarted` opens the root frame, `a` has nothing to wait for, becomes
//! Ready and asks `Decide(a, Input)`. `Decided` puts it into the ready queue, no decision is open, so `Start(a, 1)`.
//! `Settled(a)` makes it Succeeded, which takes the last pending source from `b`, and so on, until the last step of the
//! root frame settles and the root asks `Decide(root, Value)`: the output.
//!
//! Cost: O(degree) per settled step amortised, O(log n) in the ready queue, O(depth) per name. `advance.rs` has the life
//! of a step, `failure.rs` what happens when one fails, `dispatch.rs` starts, budgets and ends, `names.rs` look-ups.

mod advance;
mod arena;
mod dispatch;
mod failure;
mod history;
mod loops;
mod names;
mod queue;
mod races;
mod unfold;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use indexmap::IndexSet;

use crate::budget::Budget;
use crate::event::{Bound, Command, DecideField, Event, Outcome, RunStarted, TimerKind, Usage};
use crate::failure::StepError;
use crate::fault::{self, Fault};
use crate::graph::{Graph, Limits, Node};
use crate::id::{ById, FrameId, NodeIndex, StepId, ValueHash};
use crate::state::State;
use arena::{Flight, Frame, Hashes, Layer, SharedGraph, Step};
use queue::ReadyQueue;

pub use names::{ChildResult, Children, Resolved, Scope};

/// How long a cancelled attempt may take to end by itself, in milliseconds.
pub const GRACE_MS: u64 = 5_000;

/// What follows from an event: derived events in order, and commands to the world in order.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Commands.
    pub commands: Vec<Command>,
    /// Derived events.
    pub events: Vec<Event>,
}

/// One run: a state machine over the steps of all its frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheduler {
    root: SharedGraph,
    steps: Vec<Step>,
    /// By step.
    hashes: Vec<Hashes>,
    frames: Vec<Frame>,
    ready: ReadyQueue,
    /// How many attempts are in flight, cancelled ones too.
    in_flight: u32,
    /// Cancelled attempts in flight of steps that have started another one since.
    abandoned: IndexSet<(StepId, u32), ById>,
    decisions_open: u32,
    budget: Budget,
    usage: Usage,
    limits: Limits,
    max_parallel: u32,
    ending: Option<Ending>,
    /// The step whose failure ended the run, and why.
    cause: Option<(StepId, StepError)>,
    over: bool,
    /// What has happened and has not been looked at; empty between events.
    news: VecDeque<News>,
    /// Counts that are expressions, by the node's own step.
    counts: BTreeMap<StepId, Vec<u32>>,
    /// Racing steps with news of a source; empty between events.
    races: BTreeSet<StepId>,
    /// Which source won, by racing step.
    winners: BTreeMap<StepId, NodeIndex>,
    /// How many steps wait for a person, and for another attempt.
    suspended: u32,
    backing_off: u32,
    /// How many wait for an answer that is on its way.
    held: u32,
    /// How many attempts of a step were cut off by the end of a driver: those count as no retries.
    cut_off: BTreeMap<StepId, u32>,
}

/// Something that others have to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// A new step that waits for nothing.
    Entry(StepId),
    /// A step that reached its end.
    Settled(StepId),
}

/// Why nothing new starts any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Cancelled,
    Exhausted(Bound),
}

impl Scheduler {
    /// A scheduler for one run of a graph, before its first event.
    pub fn new(graph: Arc<Graph>) -> Self {
        Self {
            root: SharedGraph(graph),
            steps: vec![Step::new(FrameId(u32::MAX), NodeIndex(u32::MAX), Layer::Work)],
            hashes: vec![Hashes::default()],
            frames: Vec::new(),
            ready: ReadyQueue::default(),
            in_flight: 0,
            abandoned: IndexSet::default(),
            decisions_open: 0,
            budget: Budget::default(),
            usage: Usage::default(),
            limits: Limits::default(),
            max_parallel: 1,
            ending: None,
            cause: None,
            over: false,
            news: VecDeque::new(),
            counts: BTreeMap::new(),
            races: BTreeSet::new(),
            winners: BTreeMap::new(),
            suspended: 0,
            backing_off: 0,
            held: 0,
            cut_off: BTreeMap::new(),
        }
    }

    /// Applies one input event that [`accepts`](Self::accepts) holds for, and appends what follows from it.
    ///
    /// # Panics
    /// With "BUG:" on a derived event and on an event that is not accepted: the driver asks first.
    pub fn apply(&mut self, event: &Event, effects: &mut Effects) {
        let awaited = match event {
            Event::Decided { .. } | Event::Settled { .. } => true, // these make sure below, while they look anyway
            event => self.accepts(event),
        };
        assert!(awaited, "BUG: an event that nothing waits for: {event:?}");
        match event {
            Event::RunStarted(started) => self.start_run(started, effects),
            Event::Decided { step, field, decision } => {
                let open = self.step_mut(*step).deciding.take();
                assert!(open == Some(*field), "BUG: an answer that nothing waits for: {event:?}");
                self.decisions_open -= 1;
                self.decided(*step, *field, decision, effects);
            }
            Event::Settled { step, attempt, result, report } => {
                let usage = report.as_ref().map(|report| report.usage).unwrap_or_default();
                self.settle_attempt(*step, *attempt, result, usage, effects)
            }
            Event::Timer { step, attempt, timer } => self.timer(*step, *attempt, *timer, effects),
            Event::Answered { step, value } => self.worked(*step, *value, effects),
            Event::Missed { step } => {
                self.let_go(*step);
                self.begin_work(*step, effects);
            }
            Event::Attached { max_parallel } => self.attach(*max_parallel, effects),
            Event::Cancel => self.cancel_run(effects),
            _ => panic!("BUG: a derived event was applied: {event:?}"),
        }
        self.propagate(effects);
        self.dispatch(effects);
    }

    /// Whether an input event is addressed to something that waits for it. What is not accepted is neither applied nor logged:
    /// a timer of an attempt that has ended, the reply of one that was given up.
    pub fn accepts(&self, event: &Event) -> bool {
        match event {
            Event::RunStarted(_) => self.frames.is_empty() && !self.over,
            Event::Decided { step, field, .. } => self.wants(*step, *field),
            Event::Settled { step, attempt: 0, result, .. } => result.is_ok() && self.is_held(*step),
            Event::Settled { step, attempt, .. } => self.flight(*step, *attempt) != Flight::None,
            Event::Missed { step } => self.is_held(*step),
            Event::Attached { .. } => !self.over && !self.frames.is_empty(),
            Event::Timer { step, attempt, timer } => self.awaits_timer(*step, *attempt, *timer),
            Event::Answered { step, .. } => self.is_asked(*step),
            Event::Cancel => {
                !self.over
                    && self.ending.is_none()
                    && !self.frames.is_empty()
                    && !self.state(StepId::ROOT).is_terminal()
            }
            _ => false,
        }
    }

    /// Whether a decision is still awaited. A `Decide` becomes void when its step ends before the answer.
    pub fn wants(&self, step: StepId, field: DecideField) -> bool {
        self.steps.get(step.index()).is_some_and(|step| step.deciding == Some(field))
    }

    /// Whether a person is asked and has not answered.
    pub fn is_asked(&self, step: StepId) -> bool {
        self.steps.get(step.index()).is_some_and(|step| step.state == State::Suspended && step.deciding.is_none())
    }

    /// Whether a step waits for an answer that is there or on its way.
    pub fn is_held(&self, step: StepId) -> bool {
        self.steps.get(step.index()).is_some_and(|step| step.held)
    }

    /// Whether nothing will happen until a person answers.
    pub fn is_suspended(&self) -> bool {
        let moves = self.in_flight > 0 || self.backing_off > 0 || self.decisions_open > 0;
        let moves = moves || (self.held > 0 && !fault::is(Fault::HeldIsSuspended));
        !self.over && self.suspended > 0 && !moves
    }

    /// Whether the run has ended.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// What all attempts that ended have cost.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// How many steps the run has made.
    pub fn step_count(&self) -> usize {
        self.steps.len()
    }

    /// State of a step.
    pub fn state(&self, step: StepId) -> State {
        self.steps[step.index()].state
    }

    /// The node of a step; `None` for the root.
    pub fn node(&self, step: StepId) -> Option<&Node> {
        self.place(step).map(|(graph, node)| graph.node(node))
    }

    /// The graph of a step's frame, and its node in there; `None` for the root.
    pub fn place(&self, step: StepId) -> Option<(&Arc<Graph>, NodeIndex)> {
        let frame = self.frames.get(self.steps[step.index()].frame.index())?;
        Some((&frame.graph.0, self.steps[step.index()].node))
    }

    /// Attempts of a step started so far.
    pub fn attempt(&self, step: StepId) -> u32 {
        self.steps[step.index()].attempt
    }

    /// The value of a step; of a leaf that awaits its `Value` decision, the raw one.
    pub fn value(&self, step: StepId) -> Option<ValueHash> {
        self.hashes[step.index()].value
    }

    /// Hash of a step's rendered input, once it has been decided.
    pub fn input(&self, step: StepId) -> Option<ValueHash> {
        self.hashes[step.index()].input
    }

    /// Why a step failed, or what its value takes the place of.
    pub fn error(&self, step: StepId) -> Option<&StepError> {
        self.steps[step.index()].error.as_deref()
    }

    /// Number of the sample that a step is, if its node has `samples`.
    pub fn sample(&self, step: StepId) -> Option<u32> {
        let (node, data) = (self.node(step)?, &self.steps[step.index()]);
        if node.samples.is_none() || data.layer != Layer::Work {
            return None;
        }
        // A pass of a sample is that sample's.
        let parent = self.frame_of(step).parent;
        Some(if node.loops() { self.steps[parent.index()].index } else { data.index })
    }

    fn start_run(&mut self, started: &RunStarted, effects: &mut Effects) {
        self.limits = started.limits;
        self.max_parallel = started.max_parallel.max(1);
        self.budget = Budget::new(started.calls_max);
        self.set(StepId::ROOT, State::Ready);
        let graph = self.root.0.clone();
        self.open_graph(StepId::ROOT, &graph, effects);
    }

    fn awaits_timer(&self, step: StepId, attempt: u32, timer: TimerKind) -> bool {
        let Some(data) = self.steps.get(step.index()) else { return false };
        match (timer, self.flight(step, attempt)) {
            (TimerKind::Grace, flight) => flight == Flight::Cancelled,
            (TimerKind::Timeout, Flight::Open) => true,
            (TimerKind::Timeout, Flight::Cancelled) => false,
            (TimerKind::Timeout, Flight::None) if attempt == 0 => data.child.is_some() && data.state == State::Running,
            (TimerKind::Timeout, Flight::None) => attempt == data.attempt && self.is_asked(step),
            (TimerKind::Backoff, _) => data.state == State::Backoff && data.attempt == attempt,
        }
    }

    /// Whether an attempt is in flight.
    fn flight(&self, step: StepId, attempt: u32) -> Flight {
        match self.steps.get(step.index()) {
            Some(data) if data.attempt == attempt => data.flight,
            Some(_) if self.abandoned.contains(&(step, attempt)) => Flight::Cancelled,
            _ => Flight::None,
        }
    }

    /// An attempt has ended or was given up: its slot is free.
    fn land(&mut self, step: StepId, attempt: u32) -> Flight {
        let flight = self.flight(step, attempt);
        assert!(flight != Flight::None, "BUG: an end of an attempt that nothing waits for");
        self.in_flight -= 1;
        let data = self.step_mut(step);
        if data.attempt == attempt {
            data.flight = Flight::None;
        } else {
            self.abandoned.swap_remove(&(step, attempt));
        }
        flight
    }

    /// A held step waits no longer.
    fn let_go(&mut self, step: StepId) {
        if std::mem::take(&mut self.step_mut(step).held) {
            self.held -= u32::from(!fault::is(Fault::HeldIsCountedOn));
            self.in_flight -= u32::from(fault::is(Fault::HeldTakesASlot));
        }
    }

    /// Makes every transition; a terminal state is never left.
    fn set(&mut self, step: StepId, to: State) {
        let from = std::mem::replace(&mut self.step_mut(step).state, to);
        assert!(from.may_become(to), "BUG: {from:?} -> {to:?} for `{}`", self.path(step));
        self.suspended = self.suspended + u32::from(to == State::Suspended) - u32::from(from == State::Suspended);
        self.backing_off = self.backing_off + u32::from(to == State::Backoff) - u32::from(from == State::Backoff);
    }

    /// Ends a step and writes it down. The caller tells the frame, unless the frame is closed.
    fn finish(&mut self, step: StepId, outcome: Outcome, effects: &mut Effects) {
        let state = match &outcome {
            Outcome::Succeeded { value, .. } => {
                self.hashes[step.index()].value = Some(*value);
                State::Succeeded
            }
            Outcome::Failed { error, .. } => {
                self.step_mut(step).error = Some(Box::new(error.clone()));
                State::Failed
            }
            Outcome::Skipped(_) => State::Skipped,
            Outcome::Cancelled => State::Cancelled,
        };
        self.unqueue(step);
        if !fault::is(Fault::HeldIsNotLetGo) {
            self.let_go(step);
        }
        self.set(step, state);
        effects.events.push(Event::Ended { step, outcome });
    }

    /// Ends a step and lets the rest of its frame know.
    fn settle(&mut self, step: StepId, outcome: Outcome, effects: &mut Effects) {
        self.finish(step, outcome, effects);
        if step != StepId::ROOT {
            self.news.push_back(News::Settled(step));
        }
    }

    fn decide(&mut self, step: StepId, field: DecideField, effects: &mut Effects) {
        let data = self.step_mut(step);
        assert!(data.deciding.is_none(), "BUG: two decisions at once");
        data.deciding = Some(field);
        self.decisions_open += 1;
        effects.commands.push(Command::Decide { step, field });
    }

    fn add_step(&mut self, step: Step) {
        self.steps.push(step);
        self.hashes.push(Hashes::default());
    }

    fn step_mut(&mut self, step: StepId) -> &mut Step {
        &mut self.steps[step.index()]
    }

    fn frame_of(&self, step: StepId) -> &Frame {
        &self.frames[self.steps[step.index()].frame.index()]
    }

    fn graph_of(&self, step: StepId) -> Arc<Graph> {
        self.frame_of(step).graph.0.clone()
    }
}

#[cfg(test)]
mod tests;
