//! Drives a scheduler through a world: random completion order, virtual time, late and silent attempts.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Random;
use super::generate::{expansion, reads};
use super::oracle::Account;
use super::world::World;
use crate::event::{
    AttemptReport, Command, DecideField, Decision, Event, RunEnded, RunStarted, SEMANTICS, TimerKind, Usage,
};
use crate::graph::{DependencyMode, Graph, Limits, Node, Work};
use crate::id::{StepId, ValueHash};
use crate::scheduler::{ChildResult, Children, Effects, Resolved, Scheduler, Scope};
use crate::state::State;

/// How a run is driven.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Most leaf steps at once.
    pub max_parallel: u32,
    /// Order of completions.
    pub order: u64,
    /// Cancel after so many events.
    pub cancel_after: Option<usize>,
    /// Most model calls.
    pub calls_max: Option<u64>,
    /// Most steps.
    pub steps_max: u64,
    /// Whether cancelled attempts may stay silent until their grace is over.
    pub silent: bool,
}

/// What driving came to.
pub struct Driven {
    /// Output and needed steps, as the oracle notes them.
    pub account: Account,
    /// How the run ended.
    pub ended: RunEnded,
    /// Input events in order, with the events derived from each.
    pub log: Vec<(Event, Vec<String>)>,
    /// The scheduler after each input event, where that was asked for.
    pub snapshots: Vec<Scheduler>,
    /// Legal transitions that were seen.
    pub transitions: Vec<(State, State)>,
    /// Steps that there were.
    pub steps: usize,
    /// Model calls: what was used, and the largest allowance of one attempt.
    pub calls: (u64, u64),
}

struct Simulation<'w> {
    world: &'w World,
    scheduler: Scheduler,
    effects: Effects,
    graphs: BTreeMap<StepId, Arc<Graph>>,
    saw: BTreeMap<StepId, Value>,
    driven: Driven,
    states: Vec<State>,
    keep_snapshots: bool,
    flights: Vec<(StepId, u32)>,
    cancelled: Vec<(StepId, u32)>,
    timers: Vec<(StepId, u32, TimerKind)>,
    ended: BTreeMap<StepId, u32>,
}

/// Runs a workflow to its end.
///
/// # Panics
/// When a promise of the scheduler is broken.
pub fn run(graph: &Arc<Graph>, world: &World, plan: &Plan, keep_snapshots: bool) -> Driven {
    let account = Account::default();
    let ended = RunEnded {
        status: crate::event::Status::Failed,
        output: None,
        error: None,
        failed_step: None,
        bound: None,
        usage: Usage::default(),
    };
    let (log, snapshots, transitions) = (Vec::new(), Vec::new(), Vec::new());
    let mut simulation = Simulation {
        world,
        scheduler: Scheduler::new(graph.clone()),
        effects: Effects::default(),
        graphs: BTreeMap::new(),
        saw: BTreeMap::new(),
        driven: Driven { account, ended, log, snapshots, transitions, steps: 0, calls: (0, 0) },
        states: Vec::new(),
        keep_snapshots,
        flights: Vec::new(),
        cancelled: Vec::new(),
        timers: Vec::new(),
        ended: BTreeMap::new(),
    };
    simulation.drive(plan);
    simulation.conclude()
}

impl Simulation<'_> {
    fn drive(&mut self, plan: &Plan) {
        let mut random = Random(plan.order);
        let limits = Limits { steps: plan.steps_max, ..Limits::default() };
        let nothing = ValueHash::of(&Value::Null);
        self.transact(Event::RunStarted(Box::new(RunStarted {
            semantics: SEMANTICS,
            workflow: nothing,
            inputs: nothing,
            max_parallel: plan.max_parallel,
            calls_max: plan.calls_max,
            limits,
        })));
        let mut outside = 0;
        while !self.scheduler.is_over() {
            assert!(self.flights.len() + self.cancelled.len() <= plan.max_parallel as usize, "more run than may");
            outside += 1;
            let event =
                if plan.cancel_after.is_some_and(|after| outside > after) && self.scheduler.accepts(&Event::Cancel) {
                    Event::Cancel
                } else {
                    self.next(&mut random, plan.silent)
                };
            if self.scheduler.accepts(&event) {
                self.transact(event);
            }
        }
    }

    /// One of the things that may happen next.
    fn next(&mut self, random: &mut Random, silent: bool) -> Event {
        let speaking = if silent { 0 } else { self.cancelled.len() };
        let choices = self.flights.len() + speaking + self.timers.len();
        assert!(choices > 0, "nothing can happen and the run is not over: {:#?}", self.scheduler);
        let pick = random.below(choices as u64) as usize;
        if pick < self.flights.len() {
            let (step, attempt) = self.flights.swap_remove(pick);
            return self.settle(step, attempt);
        }
        if pick < self.flights.len() + speaking {
            let (step, attempt) = self.cancelled.swap_remove(pick - self.flights.len());
            return self.settle(step, attempt);
        }
        let (step, attempt, timer) = self.timers.swap_remove(pick - self.flights.len() - speaking);
        if timer == TimerKind::Grace {
            self.cancelled.retain(|flight| *flight != (step, attempt));
        }
        Event::Timer { step, attempt, timer }
    }

    fn settle(&mut self, step: StepId, attempt: u32) -> Event {
        let path = self.scheduler.path(step);
        let node = self.scheduler.node(step).expect("BUG: the root is no attempt");
        let saw = self.saw.get(&step).cloned().unwrap_or_default();
        let result = self.world.attempt(&path, attempt, node).map(|()| World::made("leaf", &path, &saw));
        let calls = self.world.input(&path).map_or(0, u64::from);
        let usage = Usage { calls: if node.has_input { calls } else { 0 }, ..Usage::default() };
        self.driven.calls.0 += usage.calls;
        Event::Settled { step, attempt, result, report: AttemptReport { usage, provenance: None }.boxed() }
    }

    fn transact(&mut self, event: Event) {
        let mut queue = std::collections::VecDeque::new();
        let mut next = Some(event);
        loop {
            if let Some(event) = next.take() {
                self.apply(event, &mut queue);
            }
            match queue.pop_front() {
                Some(Command::Decide { step, field }) if self.scheduler.wants(step, field) => {
                    next = Some(Event::Decided { step, field, decision: self.decide(step, field) });
                }
                Some(Command::Decide { .. } | Command::End | Command::Ask { .. }) => {}
                Some(Command::Start { step, attempt }) => self.flights.push((step, attempt)),
                Some(Command::Cancel { step, attempt }) => {
                    self.flights.retain(|flight| *flight != (step, attempt));
                    self.cancelled.push((step, attempt));
                }
                Some(Command::Timer { step, attempt, timer, .. }) => self.timers.push((step, attempt, timer)),
                None => return,
            }
        }
    }

    fn apply(&mut self, event: Event, queue: &mut std::collections::VecDeque<Command>) {
        self.scheduler.apply(&event, &mut self.effects);
        let derived: Vec<String> = self.effects.events.iter().map(|event| format!("{event:?}")).collect();
        for derived in std::mem::take(&mut self.effects.events) {
            match derived {
                Event::Started { step, .. } => {
                    let saw = self.sees(step);
                    self.saw.insert(step, saw);
                }
                Event::Ended { step, .. } => *self.ended.entry(step).or_default() += 1,
                Event::RunEnded(ended) => self.driven.ended = *ended,
                _ => {}
            }
        }
        queue.extend(self.effects.commands.drain(..));
        self.watch();
        self.driven.log.push((event, derived));
        if self.keep_snapshots {
            self.driven.snapshots.push(self.scheduler.clone());
        }
    }

    fn watch(&mut self) {
        for index in 0..self.scheduler.step_count() {
            let now = self.scheduler.state(StepId(index as u32));
            match self.states.get_mut(index) {
                Some(before) => {
                    if *before != now {
                        self.driven.transitions.push((*before, now));
                        *before = now;
                    }
                }
                None => self.states.push(now),
            }
        }
    }

    /// What a step reads: its sources and the names around its frame.
    fn sees(&self, step: StepId) -> Value {
        let node = self.scheduler.node(step).expect("BUG: the root reads nothing").clone();
        let mut own = step;
        while !self.scheduler.is_own_step(own) {
            own = self.scheduler.parent(own).expect("BUG: an item outside of a graph");
        }
        let frame_step = self.scheduler.parent(own).expect("BUG: a node outside of a graph");
        let graph = self.scheduler.body(frame_step).expect("BUG: a frame without a graph").clone();
        let sources = node.dependencies.iter().filter(|dependency| dependency.mode != DependencyMode::Waits);
        let names = sources.map(|dependency| graph.node(dependency.source).name.to_string());
        let seen = names.chain(reads(&node)).map(|name| {
            let value = match self.scheduler.resolve(Scope::Step(step), &name) {
                Resolved::Value(value) => json!(value),
                Resolved::Null => Value::Null,
                Resolved::Unknown => json!("unknown"),
                other => panic!("`{name}` of `{}` is read too early: {other:?}", self.scheduler.path(step)),
            };
            (name, value)
        });
        json!(seen.collect::<BTreeMap<String, Value>>())
    }

    fn decide(&mut self, step: StepId, field: DecideField) -> Decision {
        let path = self.scheduler.path(step);
        let node = self.scheduler.node(step).cloned();
        let answer = match field {
            DecideField::Guard => self.world.guard(&path).map(Decision::Guard),
            DecideField::Counts
            | DecideField::Stop
            | DecideField::Again
            | DecideField::Route
            | DecideField::Default => {
                panic!("BUG: not generated")
            }
            DecideField::Items => {
                self.world.items(&path).map(|count| Decision::Items { list: ValueHash::of(&json!(path)), count })
            }
            DecideField::Input => self.world.input(&path).map(|calls| {
                let leaf = node.is_some_and(|node| matches!(node.work, Work::Leaf));
                let calls = if leaf { calls } else { 0 };
                self.driven.calls.1 = self.driven.calls.1.max(u64::from(calls));
                Decision::Input { hash: ValueHash::of(&json!(["input", path])), calls }
            }),
            DecideField::Graph => self.world.drawn(&path).map(|seed| {
                let graph = self.graphs.entry(step).or_insert_with(|| expansion(seed)).clone();
                Decision::Graph { plan: ValueHash::of(&json!(seed)), graph }
            }),
            DecideField::Value => self.value(step, &path, node.as_ref()),
            DecideField::ErrorValue => {
                self.world.value("error", &path).map(|()| Decision::Value(World::made("error", &path, &Value::Null)))
            }
            DecideField::BestOutput => Ok(Decision::Value(World::made("best", &path, &Value::Null))),
        };
        answer.unwrap_or_else(Decision::Failed)
    }

    fn value(&mut self, step: StepId, path: &str, node: Option<&Node>) -> Result<Decision, crate::failure::StepError> {
        self.world.value("value", path)?;
        let hash = |result: ChildResult| if let ChildResult::Value(hash) = result { json!(hash) } else { Value::Null };
        let made = match self.scheduler.children(step) {
            Some(Children::Items(items)) => {
                let kept = items.into_iter().filter(|result| *result != ChildResult::Dropped);
                World::made("list", path, &kept.map(hash).collect())
            }
            Some(Children::Nodes(nodes)) => {
                let graph = self.scheduler.body(step).expect("BUG: children without a graph");
                let values =
                    nodes.into_iter().map(|(index, _, result)| (graph.node(index).name.to_string(), hash(result)));
                World::made("frame", path, &json!(values.collect::<BTreeMap<_, _>>()))
            }
            None => match node.map(|node| &node.work) {
                Some(Work::Value) => World::made("value", path, &self.sees(step)),
                _ => self.scheduler.value(step).expect("BUG: a leaf without its raw value"),
            },
        };
        Ok(Decision::Value(made))
    }

    fn conclude(mut self) -> Driven {
        let steps = self.scheduler.step_count();
        for index in 0..steps {
            let step = StepId(index as u32);
            assert!(
                self.scheduler.state(step).is_terminal(),
                "`{}` is not settled at the end",
                self.scheduler.path(step)
            );
            assert_eq!(
                self.ended.get(&step),
                Some(&1),
                "`{}` ended more than once or never",
                self.scheduler.path(step)
            );
        }
        let inside_failure = |mut step: StepId| loop {
            if [State::Failed, State::Cancelled].contains(&self.scheduler.state(step))
                && self.scheduler.attempt(step) == 0
            {
                return true;
            }
            if self.replaced(step) {
                return true;
            }
            match self.scheduler.parent(step) {
                Some(parent) => step = parent,
                None => return false,
            }
        };
        let needed = self
            .saw
            .iter()
            .filter(|(step, _)| self.scheduler.state(**step) == State::Succeeded && !inside_failure(**step));
        self.driven.account.needed =
            needed.map(|(step, saw)| (self.scheduler.path(*step).to_string(), saw.clone())).collect();
        self.driven.account.output = self.driven.ended.output;
        self.driven.steps = steps;
        self.driven
    }

    /// Whether a step's value takes the place of an error: what ran inside it was for nothing.
    fn replaced(&self, step: StepId) -> bool {
        self.scheduler.state(step) == State::Succeeded && self.scheduler.error(step).is_some()
    }
}
