//! The run loop.
//!
//! Attempts are futures of the run's own task: a run is one task of the runtime, many runs share its threads. Starting an
//! attempt wakes nobody, one that ends at its first poll never waits, and dropping the run drops every request in flight. A
//! node that computes for long must do so on another thread (`tokio::task::spawn_blocking`), as in any asynchronous code, or
//! the rest of its run waits for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use indexmap::IndexMap;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::attempts::{Attempt, AttemptId, Attempted};
use super::journal::Journal;
use super::people::Door;
use super::recall::{Key, Recall};
use super::values::Values;
use super::{Answers, Reused, RunOptions, RunOutcome, spans};
use crate::check::PlanChecker;
use crate::event::{Command, DecideField, Event, Outcome, PassEnd, RunEnded, RunStarted, SEMANTICS, Status, TimerKind};
use crate::expr::Datum;
use crate::graph::Workflow;
use crate::id::{ById, StepId};
use crate::node::{Input, Kinds, NodeContext, RunContext};
use crate::observer::Records;
use crate::scheduler::{Effects, Scheduler};
use crate::store::Summary;

/// How many transactions of attempts that end at once come before a run looks at everything else that may have happened.
const TRANSACTIONS_AT_A_STRETCH: u64 = 32;

/// After how long such a run gives way to other tasks.
const STRETCH: Duration = Duration::from_millis(2);

/// How many answers that need not be made are part of one transaction.
const FOUND_AT_A_STRETCH: u32 = 256;

/// Everything that one run needs while it is driven.
pub(super) struct Driver {
    pub(super) workflow: Arc<Workflow>,
    pub(super) scheduler: Scheduler,
    pub(super) values: Values,
    pub(super) context: Arc<RunContext>,
    /// Inputs of closed frames by the step that opened them, converted once.
    pub(super) inputs: BTreeMap<StepId, BTreeMap<String, Arc<Datum>>>,
    /// Rendered inputs of leaves that have not ended.
    pub(super) rendered: IndexMap<StepId, Input, ById>,
    /// Steps that wait for a person, by path.
    pub(super) asked: BTreeMap<Arc<str>, StepId>,
    pub(super) kinds: Kinds,
    pub(super) options: RunOptions,
    pub(super) journal: Journal,
    pub(super) recall: Recall,
    pub(super) found: Reused,
    pub(super) attempts: FuturesUnordered<Attempt>,
    /// Attempts that ended at their first poll and have not been looked at.
    pub(super) finished: VecDeque<(AttemptId, Option<Key>, Attempted)>,
    /// The context of each attempt that has not ended: what stops it.
    pub(super) flights: IndexMap<AttemptId, Arc<NodeContext>, ById>,
    pub(super) timers: BTreeSet<(Instant, StepId, u32, TimerKind)>,
    pub(super) started: Instant,
    /// How long the run had been going on when this driver began, in microseconds.
    pub(super) before_us: u64,
    /// For how much of that nobody drove it, in microseconds.
    pub(super) idle_us: u64,
    pub(super) sequence: u64,
    transactions: u64,
    gave_way: Instant,
    effects: Effects,
    /// Decisions that have not been answered.
    open: VecDeque<(StepId, DecideField)>,
    outward: Vec<Command>,
    steps: u64,
    limits_reached: Vec<String>,
    pub(super) ended: Option<RunEnded>,
}

impl Driver {
    pub(super) fn new(workflow: Arc<Workflow>, kinds: Kinds, options: RunOptions) -> Self {
        Self {
            scheduler: Scheduler::new(workflow.graph.clone()),
            values: Values::new(workflow.limits.output_bytes, options.observers.clone()),
            workflow,
            journal: Journal::default(),
            recall: Recall::new(&options),
            found: Reused::default(),
            context: Arc::new(RunContext {
                id: options.record.as_ref().map(|record| record.run.id.as_str().into()).unwrap_or_default(),
                plans: PlanChecker::new(kinds.specs().clone()),
                observers: options.observers.clone(),
            }),
            inputs: BTreeMap::new(),
            rendered: IndexMap::default(),
            asked: BTreeMap::new(),
            limits_reached: Vec::new(),
            kinds,
            options,
            attempts: FuturesUnordered::new(),
            finished: VecDeque::new(),
            flights: IndexMap::default(),
            timers: BTreeSet::new(),
            started: Instant::now(),
            before_us: 0,
            idle_us: 0,
            sequence: 0,
            transactions: 0,
            gave_way: Instant::now(),
            effects: Effects::default(),
            open: VecDeque::new(),
            outward: Vec::new(),
            steps: 0,
            ended: None,
        }
    }

    /// Begins the run and drives it to its end.
    pub(super) async fn begin(mut self, inputs: Map<String, Value>) -> RunOutcome {
        let as_data = inputs.iter().map(|(name, value)| (name.clone(), Datum::new(value.clone()))).collect();
        self.inputs.insert(StepId::ROOT, as_data);
        let started = RunStarted {
            semantics: SEMANTICS,
            workflow: self.workflow.hash,
            inputs: self.values.store(Value::Object(inputs)),
            max_parallel: self.options.max_parallel,
            calls_max: self.options.calls_max.or(self.workflow.calls_max),
            limits: self.workflow.limits,
        };
        self.drive(Event::RunStarted(Box::new(started))).await
    }

    /// Drives the run to its end.
    ///
    /// Approach: one outside event at a time (the end of an attempt, a timer, the caller's cancel). Each is applied together
    /// with the closure of the decisions that it provokes: one transaction. Its records go to the observers before any
    /// attempt is started for it, and an attempt is started only after the store has kept them, so that a log never lacks what
    /// the world has seen. Meanwhile other events are taken in, whose commands wait in line. Events that nothing waits for any more
    /// (the timer of an attempt that ended, the reply of one that was given up) are dropped unlogged. A run whose attempts
    /// end at once gives way to other runs now and then.
    pub(super) async fn drive(mut self, first: Event) -> RunOutcome {
        self.transact(first);
        let cancel = self.options.cancel.clone();
        let mut cancelled = pin!(cancel.cancelled());
        let answers = self.options.answers.clone();
        let door = Door(answers.clone());
        while !self.scheduler.is_over() && self.journal.failure().is_none() {
            while let Some(commands) = self.journal.next_kept() {
                commands.into_iter().for_each(|command| self.act(command));
            }
            self.recall.own_landed += self.journal.confirm();
            self.give_way().await;
            let cancellable = self.scheduler.accepts(&Event::Cancel);
            let event = if cancellable && cancel.is_cancelled() {
                Event::Cancel
            } else if let Some(event) = self.overdue() {
                event
            } else if let Some((attempt, key, result)) = self.finished.pop_front() {
                self.settled(attempt, key, result)
            } else if let Some(recalled) = self.recalled() {
                recalled
            } else if let Some(answer) = self.next_answer() {
                answer
            } else {
                let next_timer = self.next_timer_at();
                let busy = self.journal.waits() || !self.recall.awaited.is_empty();
                let waits = self.flights.is_empty() && next_timer.is_none() && !busy;
                assert!(!waits || self.scheduler.is_suspended(), "BUG: nothing moves and the run is not over");
                if waits && !answers.as_ref().is_some_and(Answers::may_come) {
                    break;
                }
                tokio::select! {
                    biased;
                    Some((attempt, key, result)) = self.attempts.next() => self.settled(attempt, key, result),
                    () = self.journal.news(), if self.journal.waits() => continue,
                    Some((step, key, found)) = self.recall.awaited.next() => {
                        self.landed(step, key, found);
                        continue;
                    }
                    () = &mut cancelled, if cancellable => Event::Cancel,
                    () = sleep_until(next_timer), if next_timer.is_some() => self.next_timer(),
                    () = news(answers.as_ref()), if answers.is_some() => continue,
                }
            };
            if self.scheduler.accepts(&event) {
                self.transact(event);
            }
        }
        self.journal.settle().await;
        self.journal.confirm();
        // Answers that are not kept were not refused either: whoever finds the door closed may give them to the next driver.
        drop(door);
        self.journal.release();
        self.outcome()
    }

    /// When the next timer that is still awaited runs out.
    fn next_timer_at(&mut self) -> Option<Instant> {
        while let Some((at, step, attempt, timer)) = self.timers.first().copied() {
            if self.scheduler.accepts(&Event::Timer { step, attempt, timer }) {
                return Some(at);
            }
            self.timers.pop_first();
        }
        None
    }

    /// Lets other tasks of this thread go on now and then.
    async fn give_way(&mut self) {
        self.transactions += 1;
        if self.transactions.is_multiple_of(TRANSACTIONS_AT_A_STRETCH) && self.gave_way.elapsed() >= STRETCH {
            tokio::task::yield_now().await;
            self.gave_way = Instant::now();
        }
    }

    /// The event of whatever else has happened, now and then: attempts that end at once may come one after the other for long.
    fn overdue(&mut self) -> Option<Event> {
        if self.finished.is_empty() || !self.transactions.is_multiple_of(TRANSACTIONS_AT_A_STRETCH) {
            return None;
        }
        if let Some(Some((attempt, key, result))) = self.attempts.next().now_or_never() {
            return Some(self.settled(attempt, key, result));
        }
        if self.next_timer_at().is_some_and(|at| at <= Instant::now()) {
            return Some(self.next_timer());
        }
        self.next_answer()
    }

    /// Applies an outside event and answers every decision that follows from it; then tells the observers, then acts.
    fn transact(&mut self, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        let mut next = Some(event);
        let mut found = 0;
        loop {
            if let Some(event) = next.take() {
                let at = effects.events.len();
                effects.events.push(Event::Cancel);
                self.scheduler.apply(&event, &mut effects);
                effects.events[at] = event;
                for command in effects.commands.drain(..) {
                    match command {
                        Command::Decide { step, field } => self.open.push_back((step, field)),
                        outward => self.outward.push(outward),
                    }
                }
            }
            match self.open.pop_front() {
                Some((step, field)) if self.scheduler.wants(step, field) => {
                    let decision = self.evaluate(step, field);
                    next = Some(Event::Decided { step, field, decision });
                }
                Some(_) => {}
                None if found < FOUND_AT_A_STRETCH && !self.scheduler.is_over() => match self.recalled() {
                    Some(event) if self.scheduler.accepts(&event) => {
                        found += 1;
                        next = Some(event);
                    }
                    Some(_) => {}
                    None => break,
                },
                None => break,
            }
        }
        self.commit(&mut effects.events);
        self.effects = effects;
        let outward = std::mem::take(&mut self.outward);
        let mut outward = self.journal.line_up(outward);
        outward.drain(..).for_each(|command| self.act(command));
        self.outward = outward;
    }

    /// Numbers the events of a transaction and hands them to the observers.
    fn commit(&mut self, events: &mut Vec<Event>) {
        if spans::wanted() {
            events.iter().for_each(|event| spans::report(event, &self.scheduler, self.started));
        }
        self.take_note(events);
        let recorded = self.journal.store().is_some();
        if self.options.observers.is_empty() && !recorded {
            return events.clear();
        }
        let time_us = self.elapsed_us();
        let first = self.sequence;
        self.sequence += events.len() as u64;
        let events: Arc<[Event]> = events.drain(..).collect();
        let records = Records { first, time_us, events: &events, scheduler: &self.scheduler };
        self.options.observers.iter().for_each(|observer| observer.records(&records));
        if recorded {
            let values = self.values.take_unsaved();
            let summary = self.summary(&events);
            self.journal.append(records.iter(), first, values, summary);
        }
    }

    /// How the run stands after some events, if they change that.
    fn summary(&self, events: &[Event]) -> Option<Option<Summary>> {
        let wall_ms = (self.elapsed_us() - self.idle_us) / 1_000;
        match (events.first(), &self.ended) {
            (_, Some(ended)) => {
                Some(Some(Summary { status: ended.status, wall_ms, steps: self.steps, usage: ended.usage }))
            }
            (Some(Event::Attached { .. }), None) => Some(None),
            _ => None,
        }
    }

    /// How long the run has been going on, in microseconds.
    pub(super) fn elapsed_us(&self) -> u64 {
        self.before_us + self.started.elapsed().as_micros() as u64
    }

    /// What the driver itself has to know of events.
    pub(super) fn take_note(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::RunEnded(ended) => self.ended = Some((**ended).clone()),
                Event::Started { attempt: 1, .. } => self.steps += 1,
                Event::PassEnded { step, end: PassEnd::Limit, .. } => {
                    self.limits_reached.push(self.scheduler.path(*step).to_string());
                }
                Event::Backoff { step, .. } => self.disown(*step, false),
                // An answer may be there before the question goes out, which waits until the transaction is kept.
                Event::Suspended { step, .. } => _ = self.asked.insert(self.scheduler.path(*step), *step),
                Event::Ended { step, outcome } => {
                    if !self.rendered.is_empty() {
                        self.rendered.swap_remove(step);
                    }
                    self.disown(*step, true);
                    if let Outcome::Succeeded { value, .. } = outcome {
                        self.values.note(*step, *value, self.scheduler.step_count());
                    }
                }
                _ => {}
            }
        }
    }

    fn act(&mut self, command: Command) {
        match command {
            Command::Start { step, attempt } => self.start(step, attempt),
            Command::Cancel { step, attempt } => {
                if let Some(context) = self.flights.get(&(step, attempt)) {
                    context.cancelled().cancel();
                }
            }
            Command::Timer { step, attempt, timer, delay_ms } => {
                self.timers.insert((Instant::now() + Duration::from_millis(delay_ms), step, attempt, timer));
            }
            Command::Ask { step } => self.ask(step),
            Command::End => {}
            Command::Decide { .. } => panic!("BUG: a decision was left open"),
        }
    }

    fn outcome(self) -> RunOutcome {
        let wall_ms = (self.elapsed_us() - self.idle_us) / 1_000;
        if let Some(failure) = self.journal.failure() {
            return RunOutcome { wall_ms, ..RunOutcome::unrecorded(failure, self.scheduler.usage()) };
        }
        let (limits_reached, steps, reused) = (self.limits_reached, self.steps, self.found);
        let Some(ended) = self.ended else {
            let asked = self.asked.into_iter().filter(|(_, step)| self.scheduler.is_asked(*step));
            return RunOutcome {
                status: Status::Suspended,
                output: None,
                error: None,
                failed_step: None,
                bound: None,
                usage: self.scheduler.usage(),
                limits_reached,
                asked: asked.map(|(path, _)| path.to_string()).collect(),
                steps,
                reused,
                wall_ms,
            };
        };
        RunOutcome {
            status: ended.status,
            output: ended.output.map(|hash| self.values.get(hash).json().clone()),
            error: ended.error,
            failed_step: ended.failed_step.map(|step| self.scheduler.path(step).to_string()),
            bound: ended.bound,
            usage: ended.usage,
            limits_reached,
            asked: Vec::new(),
            steps,
            reused,
            wall_ms,
        }
    }
}

async fn news(answers: Option<&Answers>) {
    if let Some(answers) = answers {
        answers.news().await;
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}
