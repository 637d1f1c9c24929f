//! The run loop.
//!
//! Attempts are futures of the run's own task: a run is one task of the runtime, many runs share its threads. Starting an
//! attempt wakes nobody, and dropping the run drops every request in flight. A node that computes for long must do so on
//! another thread (`tokio::task::spawn_blocking`), as in any asynchronous code, or the rest of its run waits for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::values::Values;
use super::{RunOptions, RunOutcome};
use crate::check::PlanChecker;
use crate::event::{Command, Event, Record, RunEnded, RunStarted, SEMANTICS, TimerKind};
use crate::expr::Datum;
use crate::failure::StepError;
use crate::graph::Workflow;
use crate::id::StepId;
use crate::node::{Input, Kinds, NodeContext, NodeError, Output};
use crate::scheduler::{Effects, Scheduler};

/// How often a run whose attempts end at once gives way to others: about once in a few milliseconds.
const TRANSACTIONS_AT_A_STRETCH: u64 = 1_000;

type AttemptId = (StepId, u32);
type Attempted = Result<Output, NodeError>;

/// One attempt in flight.
struct Attempt {
    id: AttemptId,
    /// `None` once it was given up: whatever it held is dropped, and nothing will come of it.
    work: Option<Pin<Box<dyn Future<Output = Attempted> + Send>>>,
}

impl Future for Attempt {
    type Output = (AttemptId, Attempted);

    /// A panic of the node's code is an error of its step, never of the run loop.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let id = self.id;
        let Some(work) = &mut self.work else { return Poll::Pending };
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(polled) => polled.map(|result| (id, result)),
            Err(panic) => Poll::Ready((id, Err(panicked(&*panic).into()))),
        }
    }
}

/// Everything that one run needs while it is driven.
pub(super) struct Driver<'a> {
    pub(super) workflow: &'a Arc<Workflow>,
    pub(super) scheduler: Scheduler,
    pub(super) values: Values,
    pub(super) plans: PlanChecker,
    /// Inputs of closed frames by the step that opened them, converted once.
    pub(super) inputs: BTreeMap<StepId, BTreeMap<String, Arc<Datum>>>,
    /// Rendered inputs of leaves that have not ended.
    pub(super) rendered: BTreeMap<StepId, Input>,
    kinds: &'a Kinds,
    options: RunOptions,
    attempts: FuturesUnordered<Attempt>,
    /// The context of each attempt that has not ended: what stops it.
    flights: BTreeMap<AttemptId, Arc<NodeContext>>,
    timers: BTreeSet<(Instant, StepId, u32, TimerKind)>,
    started: Instant,
    sequence: u64,
    transactions: u64,
    paths: Vec<Option<Arc<str>>>,
    effects: Effects,
    commands: VecDeque<Command>,
    outward: Vec<Command>,
    steps: u64,
    ended: Option<RunEnded>,
}

impl<'a> Driver<'a> {
    pub(super) fn new(workflow: &'a Arc<Workflow>, kinds: &'a Kinds, options: RunOptions) -> Self {
        Self {
            workflow,
            scheduler: Scheduler::new(workflow.graph.clone()),
            values: Values::new(workflow.limits.output_bytes, options.observers.clone()),
            plans: PlanChecker::new(kinds.specs().clone()),
            inputs: BTreeMap::new(),
            rendered: BTreeMap::new(),
            kinds,
            options,
            attempts: FuturesUnordered::new(),
            flights: BTreeMap::new(),
            timers: BTreeSet::new(),
            started: Instant::now(),
            sequence: 0,
            transactions: 0,
            paths: Vec::new(),
            effects: Effects::default(),
            commands: VecDeque::new(),
            outward: Vec::new(),
            steps: 0,
            ended: None,
        }
    }

    /// Drives the run to its end.
    ///
    /// Approach: one outside event at a time (the end of an attempt, a timer, the caller's cancel). Each is applied together
    /// with the closure of the decisions that it provokes: one transaction. Its records go to the observers before any
    /// attempt is started for it, so that a log never lacks what the world has seen. Events that nothing waits for any more
    /// (the timer of an attempt that ended, the reply of one that was given up) are dropped unlogged. A run whose attempts
    /// end at once gives way to other runs now and then.
    pub(super) async fn drive(mut self, inputs: Map<String, Value>) -> RunOutcome {
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
        self.transact(Event::RunStarted(Box::new(started)));
        let cancel = self.options.cancel.clone();
        let mut cancelled = pin!(cancel.cancelled());
        while !self.scheduler.is_over() {
            self.give_way().await;
            let next_timer = self.timers.first().map(|(at, ..)| *at);
            assert!(!self.flights.is_empty() || next_timer.is_some(), "BUG: nothing moves and the run is not over");
            let cancellable = self.scheduler.accepts(&Event::Cancel);
            let event = if cancellable && cancel.is_cancelled() {
                Event::Cancel
            } else {
                tokio::select! {
                    biased;
                    Some((attempt, result)) = self.attempts.next() => self.settled(attempt, result),
                    () = &mut cancelled, if cancellable => Event::Cancel,
                    () = sleep_until(next_timer), if next_timer.is_some() => self.next_timer(),
                }
            };
            if self.scheduler.accepts(&event) {
                self.transact(event);
            }
        }
        self.outcome()
    }

    /// Lets other tasks of this thread go on now and then.
    async fn give_way(&mut self) {
        self.transactions += 1;
        if self.transactions.is_multiple_of(TRANSACTIONS_AT_A_STRETCH) {
            tokio::task::yield_now().await;
        }
    }

    /// Applies an outside event and answers every decision that follows from it; then tells the observers, then acts.
    fn transact(&mut self, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        let mut next = Some(event);
        loop {
            if let Some(event) = next.take() {
                let at = effects.events.len();
                effects.events.push(Event::Cancel);
                self.scheduler.apply(&event, &mut effects);
                effects.events[at] = event;
                self.commands.extend(effects.commands.drain(..));
            }
            match self.commands.pop_front() {
                Some(Command::Decide { step, field }) if self.scheduler.wants(step, field) => {
                    let decision = self.evaluate(step, field);
                    next = Some(Event::Decided { step, field, decision });
                }
                Some(Command::Decide { .. }) => {}
                Some(command) => self.outward.push(command),
                None => break,
            }
        }
        self.commit(&mut effects.events);
        self.effects = effects;
        let mut outward = std::mem::take(&mut self.outward);
        outward.drain(..).for_each(|command| self.act(command));
        self.outward = outward;
    }

    /// Numbers the events of a transaction and hands them to the observers.
    fn commit(&mut self, events: &mut Vec<Event>) {
        for event in &*events {
            match event {
                Event::RunEnded(ended) => self.ended = Some((**ended).clone()),
                Event::Started { attempt: 1, .. } => self.steps += 1,
                Event::Ended { step, .. } => {
                    self.rendered.remove(step);
                }
                _ => {}
            }
        }
        if self.options.observers.is_empty() {
            return events.clear();
        }
        let time_us = self.started.elapsed().as_micros() as u64;
        let first = self.sequence;
        self.sequence += events.len() as u64;
        let numbered = events.drain(..).zip(first..).map(|(event, sequence)| {
            let path = event.step().map(|step| self.path(step)).unwrap_or_default();
            Record { sequence, time_us, path, event }
        });
        let records: Arc<[Record]> = numbered.collect();
        self.options.observers.iter().for_each(|observer| observer.records(&records));
    }

    /// What people call a step, rendered once.
    fn path(&mut self, step: StepId) -> Arc<str> {
        if self.paths.len() <= step.index() {
            self.paths.resize(self.scheduler.step_count(), None);
        }
        self.paths[step.index()].get_or_insert_with(|| self.scheduler.path(step)).clone()
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
            Command::End => {}
            Command::Decide { .. } => panic!("BUG: a decision was left open"),
        }
    }

    fn start(&mut self, step: StepId, attempt: u32) {
        let path = self.path(step);
        let node = self.scheduler.node(step).expect("BUG: the root was started");
        let kind = self.kinds.node(&node.code.kind).cloned();
        let kind_name = || node.code.kind.clone();
        let missing = kind.is_none().then(kind_name);
        let again = node.retry.max > 0;
        let context = Arc::new(NodeContext {
            path,
            attempt,
            sample: self.scheduler.sample(step),
            plans: self.plans.clone(),
            observers: self.options.observers.clone(),
            cancelled: OnceLock::new(),
        });
        self.flights.insert((step, attempt), context.clone());
        let input = if again { self.rendered.get(&step).cloned() } else { self.rendered.remove(&step) };
        let input = input.unwrap_or_default();
        let work = async move {
            match kind {
                Some(kind) => kind.run(&context, input).await,
                None => {
                    let name = missing.unwrap_or_default();
                    Err(StepError::terminal("no_kind", format!("no implementation of the kind `{name}`")).into())
                }
            }
        };
        self.attempts.push(Attempt { id: (step, attempt), work: Some(Box::pin(work)) });
    }

    /// The event for an attempt that ended.
    fn settled(&mut self, (step, attempt): AttemptId, result: Attempted) -> Event {
        self.flights.remove(&(step, attempt));
        let (result, usage, provenance) = match result {
            Ok(output) => (Ok(output.value), output.usage, output.provenance),
            Err(failed) => (Err(failed.error), failed.usage, failed.provenance),
        };
        let result = result.and_then(|value| self.values.store_output(value));
        let provenance = provenance.map(|report| self.values.store(report));
        Event::Settled { step, attempt, result, usage, provenance }
    }

    /// The event of the first timer; an attempt whose grace is over is given up.
    fn next_timer(&mut self) -> Event {
        let (_, step, attempt, timer) = self.timers.pop_first().expect("BUG: a timer ran out and is not there");
        let event = Event::Timer { step, attempt, timer };
        if timer == TimerKind::Grace && self.scheduler.accepts(&event) {
            self.flights.remove(&(step, attempt));
            let given_up = self.attempts.iter_mut().find(|given_up| given_up.id == (step, attempt));
            given_up.expect("BUG: a flight without its attempt").work = None;
        }
        event
    }

    fn outcome(self) -> RunOutcome {
        let ended = self.ended.expect("BUG: a run that is over has ended");
        RunOutcome {
            status: ended.status,
            output: ended.output.map(|hash| self.values.get(hash).json().clone()),
            error: ended.error,
            failed_step: ended.failed_step.map(|step| self.scheduler.path(step).to_string()),
            bound: ended.bound,
            usage: ended.usage,
            steps: self.steps,
            wall_ms: self.started.elapsed().as_millis() as u64,
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at).await;
    }
}

fn panicked(payload: &(dyn std::any::Any + Send)) -> StepError {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned());
    StepError::terminal("panic", format!("the node's code panicked: {text}"))
}
