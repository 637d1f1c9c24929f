//! The run loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Map, Value};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::values::Values;
use super::{RunOptions, RunOutcome};
use crate::check::PlanChecker;
use crate::event::{Command, Event, Record, RunEnded, RunStarted, SEMANTICS, TimerKind, Usage};
use crate::expr::Datum;
use crate::failure::StepError;
use crate::graph::Workflow;
use crate::id::StepId;
use crate::node::{Input, Kinds, NodeContext, NodeError, Output, TokenSink};
use crate::scheduler::{Effects, Scheduler};

type Attempt = (StepId, u32);

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
    tasks: JoinSet<Result<Output, NodeError>>,
    attempts: IndexMap<Id, Attempt>,
    handles: BTreeMap<Attempt, (CancellationToken, AbortHandle)>,
    timers: BTreeSet<(Instant, StepId, u32, TimerKind)>,
    started: Instant,
    sequence: u64,
    batch: Vec<Record>,
    effects: Effects,
    steps: u64,
    ended: Option<RunEnded>,
}

impl<'a> Driver<'a> {
    pub(super) fn new(workflow: &'a Arc<Workflow>, kinds: &'a Kinds, options: RunOptions) -> Self {
        Self {
            workflow,
            scheduler: Scheduler::new(workflow.graph.clone()),
            values: Values::new(workflow.limits.output_bytes, options.observers.clone()),
            plans: PlanChecker::new(Arc::new(kinds.specs().clone())),
            inputs: BTreeMap::new(),
            rendered: BTreeMap::new(),
            kinds,
            options,
            tasks: JoinSet::new(),
            attempts: IndexMap::new(),
            handles: BTreeMap::new(),
            timers: BTreeSet::new(),
            started: Instant::now(),
            sequence: 0,
            batch: Vec::new(),
            effects: Effects::default(),
            steps: 0,
            ended: None,
        }
    }

    /// Drives the run to its end.
    ///
    /// Approach: one outside event at a time (the end of a task, a timer, the caller's cancel). Each is applied together with
    /// the closure of the decisions that it provokes: one transaction. Its records go to the observers before any task is
    /// started for it, so that a log never lacks what the world has seen. Events that nothing waits for any more (the
    /// timer of an attempt that ended, the reply of one that was given up) are dropped unlogged.
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
        while !self.scheduler.is_over() {
            let next_timer = self.timers.first().map(|(at, ..)| *at);
            assert!(!self.tasks.is_empty() || next_timer.is_some(), "BUG: nothing moves and the run is not over");
            let event = tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => self.settled(ended),
                () = cancel.cancelled(), if self.scheduler.accepts(&Event::Cancel) => Some(Event::Cancel),
                () = sleep_until(next_timer), if next_timer.is_some() => self.next_timer(),
                else => None,
            };
            if let Some(event) = event
                && self.scheduler.accepts(&event)
            {
                self.transact(event);
            }
        }
        self.outcome()
    }

    /// Applies an outside event and answers every decision that follows from it; then tells the observers, then acts.
    fn transact(&mut self, event: Event) {
        let mut effects = std::mem::take(&mut self.effects);
        let mut commands = VecDeque::new();
        let mut outward = Vec::new();
        let mut next = Some(event);
        loop {
            if let Some(event) = next.take() {
                self.scheduler.apply(&event, &mut effects);
                self.record(event);
                effects.events.drain(..).for_each(|event| self.record(event));
                commands.extend(effects.commands.drain(..));
            }
            match commands.pop_front() {
                Some(Command::Decide { step, field }) if self.scheduler.wants(step, field) => {
                    let decision = self.evaluate(step, field);
                    next = Some(Event::Decided { step, field, decision });
                }
                Some(Command::Decide { .. }) => {}
                Some(command) => outward.push(command),
                None => break,
            }
        }
        self.effects = effects;
        self.commit();
        outward.into_iter().for_each(|command| self.act(command));
    }

    fn record(&mut self, event: Event) {
        match &event {
            Event::RunEnded(ended) => self.ended = Some((**ended).clone()),
            Event::Started { attempt: 1, .. } => self.steps += 1,
            Event::Ended { step, .. } => {
                self.rendered.remove(step);
            }
            _ => {}
        }
        if self.options.observers.is_empty() {
            return;
        }
        let step = event.step();
        let path = step.map(|step| self.scheduler.path(step)).unwrap_or_default().into();
        let time_ms = self.started.elapsed().as_millis() as u64;
        self.batch.push(Record { sequence: self.sequence, time_ms, path, event });
        self.sequence += 1;
    }

    fn commit(&mut self) {
        if !self.batch.is_empty() {
            self.options.observers.iter().for_each(|observer| observer.records(&self.batch));
            self.batch.clear();
        }
    }

    fn act(&mut self, command: Command) {
        match command {
            Command::Start { step, attempt } => self.start(step, attempt),
            Command::Cancel { step, attempt } => {
                if let Some((cancelled, _)) = self.handles.get(&(step, attempt)) {
                    cancelled.cancel();
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
        let node = self.scheduler.node(step).expect("BUG: the root was started");
        let kind = self.kinds.node(&node.code.kind).cloned();
        let path: Arc<str> = self.scheduler.path(step).into();
        let cancelled = CancellationToken::new();
        let context = NodeContext {
            path: path.clone(),
            attempt,
            sample: self.scheduler.sample(step),
            cancelled: cancelled.clone(),
            tokens: self.token_sink(path),
            plans: self.plans.clone(),
        };
        let input = self.rendered.get(&step).cloned().unwrap_or_default();
        let kind_name = node.code.kind.clone();
        let handle = self.tasks.spawn(async move {
            match kind {
                Some(kind) => kind.run(&context, input).await,
                None => {
                    Err(StepError::terminal("no_kind", format!("no implementation of the kind `{kind_name}`")).into())
                }
            }
        });
        self.attempts.insert(handle.id(), (step, attempt));
        self.handles.insert((step, attempt), (cancelled, handle));
    }

    fn token_sink(&self, path: Arc<str>) -> TokenSink {
        if self.options.observers.is_empty() {
            return TokenSink::default();
        }
        let observers = self.options.observers.clone();
        TokenSink::new(move |text| observers.iter().for_each(|observer| observer.tokens(&path, text)))
    }

    /// The event for a task that ended; a panic is an error of its step, never of the run loop.
    fn settled(&mut self, ended: Result<(Id, Result<Output, NodeError>), JoinError>) -> Option<Event> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(panicked(error).into())),
        };
        let (step, attempt) = self.attempts.swap_remove(&id)?;
        self.handles.remove(&(step, attempt));
        let (result, usage, provenance) = match result {
            Ok(output) => (Ok(output.value), output.usage, output.provenance),
            Err(failed) => (Err(failed.error), failed.usage, failed.provenance),
        };
        let result = result.and_then(|value| self.values.store_output(value));
        let provenance = provenance.map(|report| self.values.store(report));
        Some(Event::Settled { step, attempt, result, usage, provenance })
    }

    /// The event of the first timer; one whose grace is over takes its task down.
    fn next_timer(&mut self) -> Option<Event> {
        let (_, step, attempt, timer) = self.timers.pop_first()?;
        let event = Event::Timer { step, attempt, timer };
        if timer == TimerKind::Grace
            && self.scheduler.accepts(&event)
            && let Some((_, handle)) = self.handles.remove(&(step, attempt))
        {
            handle.abort();
        }
        Some(event)
    }

    fn outcome(self) -> RunOutcome {
        let ended = self.ended.expect("BUG: a run that is over has ended");
        let usage: Usage = ended.usage;
        RunOutcome {
            status: ended.status,
            output: ended.output.map(|hash| self.values.get(hash).json().clone()),
            error: ended.error,
            failed_step: ended.failed_step.map(|step| self.scheduler.path(step)),
            bound: ended.bound,
            usage,
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

fn panicked(error: JoinError) -> StepError {
    if error.is_cancelled() {
        return StepError::terminal("cancelled", "the attempt was stopped");
    }
    let payload = error.into_panic();
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned());
    StepError::terminal("panic", format!("the node's code panicked: {text}"))
}
