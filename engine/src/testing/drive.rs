//! Drives a scheduler through a world: random completion order, virtual time, late and silent attempts, people who take long,
//! answers that are found, and drivers that die: what one has in flight is lost, another takes the run over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use super::Random;
use super::answer::Answers;
use super::oracle::Account;
use super::spec::Checked;
use super::world::{Person, World};
use crate::event::{
    AttemptReport, Command, DecideField, Decision, Event, RunEnded, RunStarted, SEMANTICS, Status, TimerKind, Usage,
};
use crate::failure::{ErrorClass, StepError};
use crate::graph::{Limits, Work};
use crate::id::{StepId, ValueHash};
use crate::scheduler::{Effects, Scheduler};
use crate::state::State;

/// So many steps that no run here gets there.
pub const FREE_STEPS: u64 = 1_000_000;

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
    /// One in so many steps with an input is held at first, its answer found or missed later; 0: none.
    pub held_one_in: u64,
    /// A driver dies before one in so many events; 0: it never does.
    pub dies_one_in: u64,
    /// How many states on the way are kept, beside the log and all transitions; 0: nothing of it.
    pub keep: usize,
}

/// What driving came to.
pub struct Driven {
    /// Output and needed steps, as the oracle notes them.
    pub account: Account,
    /// How the run ended.
    pub ended: RunEnded,
    /// Input events in order, with the events derived from each.
    pub log: Vec<(Event, Vec<Event>)>,
    /// The scheduler after so many input events, at some of them.
    pub snapshots: Vec<(usize, Scheduler)>,
    /// The same at every death of a driver.
    pub deaths: Vec<(usize, Scheduler)>,
    /// How many answers were found.
    pub found: usize,
    /// Legal transitions that were seen, where the log was kept.
    pub transitions: Vec<(State, State)>,
    /// Steps that there were.
    pub steps: usize,
}

struct Simulation<'w> {
    world: &'w World,
    scheduler: Scheduler,
    effects: Effects,
    answers: Answers<'w>,
    saw: BTreeMap<StepId, Value>,
    /// By map: the first item that is not part of its value.
    unused: BTreeMap<StepId, u32>,
    driven: Driven,
    states: Vec<State>,
    keep: usize,
    sampling: Random,
    holding: Random,
    held: Vec<StepId>,
    found: BTreeSet<StepId>,
    /// How many attempts of a step were lost with their drivers.
    lost: BTreeMap<StepId, u32>,
    /// Most that may be in flight now.
    room: usize,
    /// Calls that were paid for.
    paid: u64,
    flights: Vec<(StepId, u32)>,
    cancelled: Vec<(StepId, u32)>,
    timers: Vec<(StepId, u32, TimerKind)>,
    asked: Vec<StepId>,
    ended: BTreeMap<StepId, u32>,
}

/// Runs a workflow to its end, or until only people could go on who never answer.
///
/// # Panics
/// When a promise of the scheduler is broken.
pub fn run(checked: &Checked, world: &World, plan: &Plan) -> Driven {
    let account = Account::default();
    let ended = RunEnded {
        status: Status::Suspended,
        output: None,
        error: None,
        failed_step: None,
        bound: None,
        usage: Usage::default(),
    };
    let (log, snapshots, deaths, transitions) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut simulation = Simulation {
        world,
        scheduler: Scheduler::new(checked.workflow.graph.clone()),
        effects: Effects::default(),
        answers: Answers::new(world, &checked.drawn),
        saw: BTreeMap::new(),
        unused: BTreeMap::new(),
        driven: Driven { account, ended, log, snapshots, deaths, found: 0, transitions, steps: 0 },
        states: Vec::new(),
        keep: plan.keep,
        sampling: Random(!plan.order),
        holding: Random(plan.order ^ 0x4E1D),
        held: Vec::new(),
        found: BTreeSet::new(),
        lost: BTreeMap::new(),
        room: plan.max_parallel as usize,
        paid: 0,
        flights: Vec::new(),
        cancelled: Vec::new(),
        timers: Vec::new(),
        asked: Vec::new(),
        ended: BTreeMap::new(),
    };
    simulation.drive(plan, checked.workflow.limits);
    simulation.conclude()
}

impl Simulation<'_> {
    fn drive(&mut self, plan: &Plan, limits: Limits) {
        let mut random = Random(plan.order);
        let nothing = ValueHash::of(&Value::Null);
        let started = Event::RunStarted(Box::new(RunStarted {
            semantics: SEMANTICS,
            workflow: nothing,
            inputs: nothing,
            max_parallel: plan.max_parallel,
            calls_max: plan.calls_max,
            limits: Limits { steps: plan.steps_max, ..limits },
        }));
        self.transact(plan, started);
        let (mut outside, mut max_parallel) = (0, plan.max_parallel);
        while !self.scheduler.is_over() {
            self.check(plan, max_parallel);
            outside += 1;
            let cancels = plan.cancel_after.is_some_and(|after| outside > after);
            let event = if plan.dies_one_in > 0 && random.one_in(plan.dies_one_in) {
                max_parallel = 1 + random.below(u64::from(plan.max_parallel) + 1) as u32;
                self.room = self.die().max(max_parallel as usize);
                Event::Attached { max_parallel }
            } else if cancels && self.scheduler.accepts(&Event::Cancel) {
                Event::Cancel
            } else if let Some(event) = self.next(&mut random, plan.silent) {
                event
            } else {
                assert!(
                    self.scheduler.is_suspended(),
                    "nothing can happen and the run is not over: {:#?}",
                    self.scheduler
                );
                return;
            };
            if self.scheduler.accepts(&event) {
                self.paid += self.price(&event);
                self.transact(plan, event);
            }
        }
    }

    /// What must hold between two transactions.
    fn check(&mut self, plan: &Plan, max_parallel: u32) {
        // What was in flight when a driver died begins anew all at once, and nothing else until there is room.
        let in_flight = self.flights.len() + self.cancelled.len();
        assert!(in_flight <= self.room, "more run than may");
        self.room = in_flight.max(max_parallel as usize);
        self.held.retain(|step| self.scheduler.is_held(*step));
        let moves = in_flight + self.held.len() > 0;
        assert!(!moves || !self.scheduler.is_suspended(), "a run that goes on is suspended");
        let endless = plan.cancel_after.is_none() && plan.calls_max.is_none() && plan.steps_max == FREE_STEPS;
        if self.keep > 0 && endless && in_flight < max_parallel as usize {
            let waits = |step: &StepId| self.scheduler.state(*step) == State::Ready && !self.held.contains(step);
            let waiting = (0..self.scheduler.step_count() as u32).map(StepId).find(waits);
            assert!(waiting.is_none(), "{waiting:?} does not start although there is room");
        }
    }

    /// The driver is gone: what was in flight comes to nothing, timers go on. The next one looks what is held. Gives how many attempts
    /// have to begin anew.
    fn die(&mut self) -> usize {
        if self.keep > 0 {
            self.driven.deaths.push((self.driven.log.len(), self.scheduler.clone()));
        }
        for (step, _) in std::mem::take(&mut self.cancelled) {
            self.paid += self.calls(step);
        }
        self.asked.clear();
        // Timers of attempts that earlier deaths have cut off would be all that ever runs out, where drivers die often.
        let scheduler = &self.scheduler;
        self.timers.retain(|(step, attempt, timer)| {
            scheduler.accepts(&Event::Timer { step: *step, attempt: *attempt, timer: *timer })
        });
        let in_flight = self.flights.len();
        for (step, attempt) in self.flights.drain(..) {
            *self.lost.entry(step).or_default() += 1;
            self.timers.push((step, attempt, TimerKind::Timeout));
        }
        let all = (0..self.scheduler.step_count() as u32).map(StepId);
        self.held = all.filter(|step| self.scheduler.is_held(*step)).collect();
        in_flight
    }

    /// One of the things that may happen next; nothing when only silent people could go on.
    fn next(&mut self, random: &mut Random, silent: bool) -> Option<Event> {
        let scheduler = &self.scheduler;
        self.asked.retain(|step| scheduler.is_asked(*step));
        let speaking = if silent { 0 } else { self.cancelled.len() };
        let choices = self.flights.len() + speaking + self.timers.len() + self.asked.len() + self.held.len();
        if choices == 0 {
            return None;
        }
        let mut pick = random.below(choices as u64) as usize;
        if pick < self.flights.len() {
            let (step, attempt) = self.flights[pick];
            if self.hangs(step, attempt) {
                return Some(Event::Timer { step, attempt, timer: TimerKind::Timeout });
            }
            self.flights.swap_remove(pick);
            return Some(self.settle(step, attempt));
        }
        pick -= self.flights.len();
        if pick < speaking {
            let (step, attempt) = self.cancelled.swap_remove(pick);
            return Some(self.settle(step, attempt));
        }
        pick -= speaking;
        if pick < self.asked.len() {
            let step = self.asked.swap_remove(pick);
            return Some(Event::Answered { step, value: self.made("answer", step) });
        }
        pick -= self.asked.len();
        if pick < self.held.len() {
            let step = self.held.swap_remove(pick);
            return Some(self.found(step).unwrap_or(Event::Missed { step }));
        }
        let (step, attempt, timer) = self.timers.swap_remove(pick - self.held.len());
        if timer == TimerKind::Grace {
            self.cancelled.retain(|flight| *flight != (step, attempt));
        }
        Some(Event::Timer { step, attempt, timer })
    }

    /// What a held step would come to, if that is a value; sometimes nobody has it.
    fn found(&mut self, step: StepId) -> Option<Event> {
        if self.holding.one_in(3) {
            return None;
        }
        let saw = self.answers.sees(&self.scheduler, step);
        let before = self.saw.insert(step, saw);
        assert!(before.is_none(), "what is held has begun");
        let node = self.scheduler.node(step).expect("BUG: the root is held");
        let path = self.scheduler.path(step);
        let what = match node.work {
            Work::Human { has_default } => match self.world.person(&path) {
                Person::Late | Person::Silent if node.timeout_ms.is_some() => {
                    (has_default && self.world.value("default", &path).is_ok()).then_some("default")
                }
                _ => Some("answer"),
            },
            _ => {
                let stands = |error: &StepError, attempt| node.retry.delay_ms(error, attempt - 1).is_none();
                let ends = |attempt| self.outcome(step, attempt).err().is_none_or(|error| stands(&error, attempt));
                let last = (1..).find(|attempt| ends(*attempt)).expect("BUG: retries without an end");
                self.outcome(step, last).is_ok().then_some("leaf")
            }
        };
        let Some(what) = what else {
            self.saw.remove(&step);
            return None;
        };
        self.found.insert(step);
        Some(Event::Settled { step, attempt: 0, result: Ok(self.made(what, step)), report: None })
    }

    /// What is paid with an event: what an attempt cost that ends, all that it might have cost if it is given up.
    fn price(&self, event: &Event) -> u64 {
        match event {
            Event::Settled { report, .. } => report.as_ref().map_or(0, |report| report.usage.calls),
            Event::Timer { step, timer: TimerKind::Grace, .. } => self.calls(*step),
            _ => 0,
        }
    }

    fn made(&self, what: &str, step: StepId) -> ValueHash {
        World::made(what, &self.scheduler.path(step), self.saw.get(&step).unwrap_or(&Value::Null))
    }

    fn outcome(&self, step: StepId, attempt: u32) -> Result<(), StepError> {
        let times_out = self.scheduler.node(step).is_some_and(|node| node.timeout_ms.is_some());
        let saw = self.saw.get(&step).unwrap_or(&Value::Null);
        let begun_anew = self.lost.get(&step).copied().unwrap_or(0);
        self.world.attempt(&self.scheduler.path(step), attempt - begun_anew, saw, times_out)
    }

    /// Whether an attempt ends by its timeout alone.
    fn hangs(&self, step: StepId, attempt: u32) -> bool {
        self.outcome(step, attempt).is_err_and(|error| error.class == ErrorClass::Timeout)
    }

    fn settle(&mut self, step: StepId, attempt: u32) -> Event {
        let result = self.outcome(step, attempt).map(|()| self.made("leaf", step));
        let usage = Usage { calls: self.calls(step), ..Usage::default() };
        Event::Settled { step, attempt, result, report: AttemptReport { usage, ..AttemptReport::default() }.boxed() }
    }

    /// What an attempt of a step costs: all that it may.
    fn calls(&self, step: StepId) -> u64 {
        let saw = self.saw.get(&step).unwrap_or(&Value::Null);
        let asks = self.scheduler.node(step).is_some_and(|node| node.has_input);
        if asks { self.world.input(&self.scheduler.path(step), saw).map_or(0, u64::from) } else { 0 }
    }

    /// The answer to a question; some steps are held with it.
    fn decide(&mut self, plan: &Plan, step: StepId, field: DecideField) -> Decision {
        let decision = self.answers.decide(&self.scheduler, step, field);
        match decision {
            Decision::Input { hash, calls, key, .. }
                if plan.held_one_in > 0 && self.scheduler.is_leaf(step) && self.holding.one_in(plan.held_one_in) =>
            {
                self.held.push(step);
                Decision::Input { hash, calls, key, held: true }
            }
            decision => decision,
        }
    }

    fn transact(&mut self, plan: &Plan, event: Event) {
        let mut queue = VecDeque::new();
        self.apply(event, &mut queue);
        while let Some(command) = queue.pop_front() {
            match command {
                Command::Decide { step, field } if self.scheduler.wants(step, field) => {
                    let decision = self.decide(plan, step, field);
                    self.apply(Event::Decided { step, field, decision }, &mut queue);
                }
                Command::Decide { .. } | Command::End => {}
                Command::Start { step, attempt } => self.flights.push((step, attempt)),
                Command::Ask { step } => {
                    let waits = self.scheduler.node(step).is_some_and(|node| node.timeout_ms.is_none());
                    match self.world.person(&self.scheduler.path(step)) {
                        Person::Answers => self.asked.push(step),
                        // Who has all the time in the world is never late.
                        Person::Late if waits => self.asked.push(step),
                        Person::Late | Person::Silent => {}
                    }
                }
                Command::Cancel { step, attempt } => {
                    self.flights.retain(|flight| *flight != (step, attempt));
                    self.cancelled.push((step, attempt));
                }
                // Attempts that hang and people who are late run into their timeouts; others are in time.
                Command::Timer { step, attempt, timer, .. } => {
                    let asks = self.scheduler.state(step) == State::Suspended;
                    let late = asks && self.world.person(&self.scheduler.path(step)) != Person::Answers;
                    if timer != TimerKind::Timeout || late {
                        self.timers.push((step, attempt, timer));
                    }
                }
            }
        }
    }

    fn apply(&mut self, event: Event, queue: &mut VecDeque<Command>) {
        self.scheduler.apply(&event, &mut self.effects);
        let derived = std::mem::take(&mut self.effects.events);
        for derived in &derived {
            match *derived {
                Event::Started { step, .. } | Event::Suspended { step, .. } => {
                    assert!(!self.found.contains(&step), "a step whose answer was found begins");
                    let saw = self.answers.sees(&self.scheduler, step);
                    self.saw.insert(step, saw);
                }
                Event::Unused { step, from } => {
                    self.unused.insert(step, from);
                }
                Event::Ready { step, winner: Some(winner) } => self.race_is_over(step, winner),
                Event::Ended { step, .. } => *self.ended.entry(step).or_default() += 1,
                Event::RunEnded(ref ended) => self.driven.ended = (**ended).clone(),
                _ => {}
            }
        }
        queue.extend(self.effects.commands.drain(..));
        if self.keep > 0 {
            self.watch();
            self.driven.log.push((event, derived));
            self.sample();
        }
    }

    /// Keeps this state, perhaps in place of another: each is as likely to be kept in the end.
    fn sample(&mut self) {
        let events = self.driven.log.len();
        let place = if events <= self.keep { events - 1 } else { self.sampling.below(events as u64) as usize };
        if place < self.keep {
            let snapshot = (events, self.scheduler.clone());
            match self.driven.snapshots.get_mut(place) {
                Some(kept) => *kept = snapshot,
                None => self.driven.snapshots.push(snapshot),
            }
        }
    }

    /// Who lost a race and serves nobody else has ended.
    fn race_is_over(&self, step: StepId, winner: StepId) {
        let (graph, node) = self.scheduler.place(step).expect("BUG: the root races");
        let (first, frame) = (step.0 - node.0, graph.node(node));
        let counted = frame.counted.iter().map(|need| need.source).filter(|_| frame.edges_in.is_empty());
        for source in counted.chain(frame.edges_in.iter().copied()) {
            let loser = StepId(first + source.0);
            let alone = graph.consumers(source) == [node] && !graph.node(source).is_kept && loser != winner;
            let path = self.scheduler.path(loser);
            assert!(!alone || self.scheduler.state(loser).is_terminal(), "`{path}` lost its race and runs on");
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

    fn conclude(mut self) -> Driven {
        self.driven.steps = self.scheduler.step_count();
        self.driven.found = self.found.len();
        if !self.scheduler.is_over() {
            return self.driven;
        }
        for index in 0..self.driven.steps {
            let step = StepId(index as u32);
            let path = self.scheduler.path(step);
            assert!(self.scheduler.state(step).is_terminal(), "`{path}` is not settled at the end");
            assert_eq!(self.ended.get(&step), Some(&1), "`{path}` ended more than once or never");
        }
        assert_eq!(self.driven.ended.usage.calls, self.paid, "the run says that it cost something else");
        let needed = self.saw.iter().filter(|(step, _)| self.is_needed(**step));
        self.driven.account.needed =
            needed.map(|(step, saw)| (self.scheduler.path(*step).to_string(), saw.clone())).collect();
        self.driven.account.output = self.driven.ended.output.map(|output| serde_json::json!(output));
        self.driven
    }

    /// Whether a step and everything around it succeeded, or was skipped by its output, and is part of its list.
    fn is_needed(&self, mut step: StepId) -> bool {
        if self.scheduler.state(step) != State::Succeeded {
            return false;
        }
        loop {
            let lost = [State::Failed, State::Cancelled].contains(&self.scheduler.state(step));
            // What stands in place of an error makes the work inside it one that was for nothing.
            if lost || self.scheduler.error(step).is_some() {
                return false;
            }
            let Some(parent) = self.scheduler.parent(step) else { return true };
            if self.unused.get(&parent).is_some_and(|from| self.number(step) >= *from) {
                return false;
            }
            step = parent;
        }
    }

    /// Number of an item among its siblings.
    fn number(&self, item: StepId) -> u32 {
        let path = self.scheduler.path(item);
        let number = path.rsplit('[').next().and_then(|rest| rest.strip_suffix(']')).map(str::parse);
        number.and_then(Result::ok).expect("BUG: an item without a number")
    }
}
