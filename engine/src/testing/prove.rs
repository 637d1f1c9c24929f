//! One seed: a program, its account by the oracle, and runs of the scheduler that must agree with it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use serde_json::{Value, json};

use super::drive::{self, Driven, Plan};
use super::generate::{self, Flavour};
use super::oracle::{self, Account};
use super::shrink::shrink;
use super::spec::{Checked, Level, Program};
use super::world::World;
use super::{Random, flow};
use crate::diagnostic::{Diagnostic, codes};
use crate::event::{Bound, Event, Logged, Status, Writer, input_event};
use crate::graph::Graph;
use crate::id::ValueHash;
use crate::observer::Records;
use crate::scheduler::{Effects, Scheduler};
use crate::state::State;

/// The usual plan: nothing ends the run from outside.
pub const FREE: Plan = Plan {
    max_parallel: 16,
    order: 0,
    cancel_after: None,
    calls_max: None,
    steps_max: drive::FREE_STEPS,
    silent: false,
    held_one_in: 0,
    dies_one_in: 0,
    keep: 0,
};

/// What a simulation came to.
#[derive(Default)]
pub struct Totals {
    /// Workflows that were run.
    pub workflows: u64,
    /// Those with a loop.
    pub looped: u64,
    /// Those that the oracle carried to an output.
    pub succeeded: u64,
    /// Runs of the scheduler.
    pub runs: u64,
    /// Their steps.
    pub steps: usize,
    /// Prefixes of logs that were folded.
    pub folds: u64,
    /// Logs that were written, read back and folded.
    pub read: u64,
    /// Drivers that died.
    pub deaths: usize,
    /// Answers that were found.
    pub found: usize,
    /// What the logs that were written tell of, as `decided guard`.
    pub told: BTreeSet<String>,
    /// Runs that waited for people at the end.
    pub suspended: u64,
    /// Programs that the checker refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Programs that were too large.
    pub large: u64,
    /// Transitions that were seen.
    pub transitions: BTreeSet<(State, State)>,
}

impl Totals {
    fn add(&mut self, driven: &Driven) {
        self.runs += 1;
        self.steps += driven.steps;
        self.suspended += u64::from(driven.ended.status == Status::Suspended);
        self.deaths += driven.deaths.len();
        self.found += driven.found;
        self.transitions.extend(&driven.transitions);
    }

    /// Legal transitions that no run made.
    pub fn missing_transitions(&self) -> Vec<(State, State)> {
        let all = State::ALL.into_iter().flat_map(|from| State::ALL.into_iter().map(move |to| (from, to)));
        all.filter(|(from, to)| from.may_become(*to) && !self.transitions.contains(&(*from, *to))).collect()
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: u64 = self.refused.values().sum();
        write!(
            f,
            "simulated {} workflows ({} with loops, {} that succeed; the checker refused {refused}: {:?}; too large {}), \
             {} runs ({} suspended, {} deaths of drivers, {} answers found), {} steps, {} folds, {} of them of written logs",
            self.workflows,
            self.looped,
            self.succeeded,
            self.refused,
            self.large,
            self.runs,
            self.suspended,
            self.deaths,
            self.found,
            self.steps,
            self.folds,
            self.read
        )
    }
}

/// The program of a seed that the checker takes and that is not too large.
///
/// # Errors
/// The message of a panic on the way.
pub fn program(seed: u64, totals: &mut Totals) -> Result<(Program, Flavour), String> {
    let flavour = Flavour { races: seed % 10 == 9, people: seed % 4 == 1 };
    let mut random = Random(seed);
    loop {
        let program = generate::program(random.next(), flavour);
        match quietly(|| prepare(&program, seed))? {
            Ok(_) => return Ok((program, flavour)),
            Err(Some(code)) => *totals.refused.entry(code).or_default() += 1,
            Err(None) => totals.large += 1,
        }
    }
}

/// What goes wrong with a program, if something does.
pub fn failure(program: &Program, seed: u64, flavour: Flavour) -> Option<String> {
    quietly(|| examine(program, seed, flavour, &mut Totals::default())).err()
}

/// Simulates one seed. The text of a failure has the seed and a small workflow that shows it.
pub fn seed(seed: u64, totals: &mut Totals) -> Option<String> {
    let (program, flavour) = match program(seed, totals) {
        Ok(found) => found,
        Err(message) => return Some(format!("FLOWRUN_SIM_SEED={seed} shows it again: {message}")),
    };
    totals.workflows += 1;
    totals.looped += u64::from(has_loop(&program.root));
    let message = quietly(|| examine(&program, seed, flavour, totals)).err()?;
    let fails = |program: &Program| generate::is_legal(program) && failure(program, seed, flavour).is_some();
    let small = shrink(&program, fails);
    let small_message = failure(&small, seed, flavour).unwrap_or_default();
    Some(format!(
        "FLOWRUN_SIM_SEED={seed} shows it again: {message}\n\nthe smallest workflow found that fails ({small_message}):\n{}",
        small.to_yaml()
    ))
}

fn has_loop(level: &Level) -> bool {
    let flowchart = flow::analyse(level).is_ok_and(|flow| !flow.loops.is_empty());
    flowchart || level.nodes.iter().any(|node| node.repeat.is_some() || node.inside().is_some_and(has_loop))
}

/// The checked program and its account; `Err`: the code of the refusal, or nothing if it is too large.
fn prepare(program: &Program, seed: u64) -> Result<(Checked, Account), Option<String>> {
    let account = oracle::run(program, &World::new(seed)).ok_or(None)?;
    let checked = program.check().map_err(|problems| {
        let first = problems.iter().find(|problem| problem.is_error()).expect("a refusal without an error");
        certain(program, first);
        Some(format!("{}: {}", first.code.0, general(&first.message)))
    })?;
    Ok((checked, account))
}

/// A node that is refused because it certainly never runs must not run in any world.
fn certain(program: &Program, problem: &Diagnostic) {
    let name =
        problem.path.split('.').rev().find(|part| !["join", "needs"].contains(part) && part.parse::<u32>().is_err());
    let (true, Some(name)) = ([codes::BAD_JOIN, codes::NEVER].contains(&problem.code), name) else { return };
    for seed in 0..40 {
        let account = oracle::run(program, &World::new(seed));
        let ran = account.is_some_and(|account| account.ran.contains(name));
        assert!(!ran, "`{name}` is refused and runs in world {seed}: {problem:?}");
    }
}

/// A message without its names.
fn general(message: &str) -> String {
    message.split('`').enumerate().map(|(index, part)| if index % 2 == 0 { part } else { "…" }).collect()
}

/// Runs a program in many ways.
///
/// # Panics
/// When a promise is broken. A program that cannot be prepared breaks none.
pub fn examine(program: &Program, seed: u64, flavour: Flavour, totals: &mut Totals) {
    let Ok((checked, expected)) = prepare(program, seed) else { return };
    let checked = &checked;
    let world = World::new(seed);
    totals.succeeded += u64::from(expected.output.is_some());
    let mut random = Random(seed ^ 0xF10F);
    let snapshots = if seed.is_multiple_of(100) { usize::MAX } else { 2 };
    for (max_parallel, silent, held_one_in, dies_one_in) in
        [(1, false, 0, 0), (2, true, 2, 0), (3, false, 3, 5), (16, true, 0, 4)]
    {
        let plan = Plan {
            max_parallel,
            order: random.next(),
            silent,
            held_one_in,
            dies_one_in,
            keep: if max_parallel == 3 { snapshots } else { 0 },
            ..FREE
        };
        let driven = run(checked, &world, &plan);
        totals.add(&driven);
        let status = if expected.output.is_some() { Status::Success } else { Status::Failed };
        if flavour.races {
            assert!(
                [Status::Success, Status::Failed].contains(&driven.ended.status),
                "a race ended as {:?}",
                driven.ended
            );
        } else {
            assert_eq!(driven.ended.status, status, "status with {max_parallel} at once; {:?}", driven.ended);
        }
        if status == Status::Success && !flavour.races {
            assert_eq!(driven.account.needed, expected.needed, "needed steps with {max_parallel} at once");
            assert_eq!(driven.account.output, expected.output, "output with {max_parallel} at once");
        }
        if plan.keep > 0 {
            folds(checked, &driven, &mut random, totals);
        }
    }
    interrupted(checked, &world, &mut random, totals);
    if flavour.people {
        let plan = Plan { max_parallel: 2, order: random.next(), keep: 2, ..disturbed(&mut random) };
        let driven = run(checked, &World { silence: true, ..world }, &plan);
        totals.add(&driven);
        folds(checked, &driven, &mut random, totals);
    }
}

/// A plan in which answers may be found and drivers may die.
fn disturbed(random: &mut Random) -> Plan {
    let mut one_in = |usual| if random.one_in(2) { usual } else { 0 };
    Plan { held_one_in: one_in(3), dies_one_in: one_in(6), ..FREE }
}

/// Folds prefixes of the log and compares with the scheduler as it was; some logs are written and read back.
fn folds(checked: &Checked, driven: &Driven, random: &mut Random, totals: &mut Totals) {
    totals.folds += (driven.snapshots.len() + driven.deaths.len()) as u64;
    for (prefix, snapshot) in driven.snapshots.iter().chain(&driven.deaths) {
        let mut scheduler = Scheduler::new(checked.workflow.graph.clone());
        let mut effects = Effects::default();
        for (event, derived) in &driven.log[..*prefix] {
            scheduler.apply(event, &mut effects);
            let (again, derived) = (format!("{:?}", effects.events), format!("{derived:?}"));
            assert_eq!(again, derived, "the fold derives other events");
            effects.events.clear();
            effects.commands.clear();
        }
        assert!(scheduler == *snapshot, "the fold differs after {prefix} events");
    }
    if random.one_in(4) {
        totals.read += 1;
        let (scheduler, lines) = written(checked, driven, &mut totals.told);
        let (again, read) = read_back(checked, &lines);
        assert_eq!(read, lines, "the log that was read back says something else");
        assert!(again == scheduler, "the fold of the log that was read back differs");
    }
}

/// The log as it is written, and the scheduler at its end.
fn written(checked: &Checked, driven: &Driven, told: &mut BTreeSet<String>) -> (Scheduler, String) {
    let mut scheduler = Scheduler::new(checked.workflow.graph.clone());
    let mut log = Log::default();
    for (event, _) in &driven.log {
        log.apply(&mut scheduler, event);
    }
    for line in log.lines.lines() {
        let line: Value = serde_json::from_str(line).expect("a line that is JSON");
        let more = ["field", "state", "timer", "end", "status"].iter().find_map(|key| line[key].as_str());
        told.insert(format!("{} {}", line["type"].as_str().unwrap_or_default(), more.unwrap_or_default()));
    }
    (scheduler, log.lines)
}

/// Folds a log that was written, and writes it anew.
fn read_back(checked: &Checked, lines: &str) -> (Scheduler, String) {
    let mut scheduler = Scheduler::new(checked.workflow.graph.clone());
    let mut log = Log::default();
    let drawn = checked.drawn.iter().zip(0_usize..);
    let drawn: BTreeMap<ValueHash, &Arc<Graph>> =
        drawn.map(|(graph, number)| (ValueHash::of(&json!(number)), graph)).collect();
    let mut regraph = |_, plan| drawn.get(&plan).map(|graph| (*graph).clone()).ok_or_else(|| format!("no plan {plan}"));
    for line in lines.lines() {
        let line = Logged::parse(line).expect("a line that can be read");
        let event = input_event(&line.line, &mut regraph).expect("an event that can be read");
        event.iter().for_each(|event| log.apply(&mut scheduler, event));
    }
    (scheduler, log.lines)
}

/// A log that is being written.
#[derive(Default)]
struct Log {
    writer: Writer,
    sequence: u64,
    lines: String,
}

impl Log {
    /// Applies an event and writes down what follows.
    fn apply(&mut self, scheduler: &mut Scheduler, event: &Event) {
        let mut effects = Effects { events: vec![event.clone()], ..Effects::default() };
        scheduler.apply(event, &mut effects);
        let (first, time_us) = (self.sequence, 7 * self.sequence);
        self.sequence += effects.events.len() as u64;
        let events: Arc<[Event]> = effects.events.into();
        let records = Records { first, time_us, events: &events, scheduler };
        records.iter().for_each(|record| self.writer.write(&record, &mut self.lines));
    }
}

/// Runs that end early: cancelled, out of calls, out of steps.
fn interrupted(checked: &Checked, world: &World, random: &mut Random, totals: &mut Totals) {
    let cancel_after = Some(random.below(12) as usize);
    let plan = Plan { max_parallel: 3, order: random.next(), cancel_after, keep: 2, ..disturbed(random) };
    let driven = run(checked, world, &plan);
    totals.add(&driven);
    folds(checked, &driven, random, totals);
    let (calls_max, silent) = (random.below(5), random.one_in(2));
    let plan = Plan {
        max_parallel: 3,
        order: random.next(),
        calls_max: Some(calls_max),
        silent,
        keep: 1,
        ..disturbed(random)
    };
    let driven = run(checked, world, &plan);
    totals.add(&driven);
    folds(checked, &driven, random, totals);
    assert!(driven.ended.usage.calls <= calls_max, "{} calls of {calls_max}", driven.ended.usage.calls);
    let ended = &driven.ended;
    assert!(ended.bound.is_none_or(|bound| bound == Bound::Calls) && ended.status != Status::Cancelled, "{ended:?}");
    let plan = Plan { max_parallel: 2, order: random.next(), steps_max: 1 + random.below(30), ..disturbed(random) };
    let driven = run(checked, world, &plan);
    totals.add(&driven);
    assert!(driven.steps as u64 <= plan.steps_max + 1, "{} steps of {}", driven.steps, plan.steps_max);
    assert_eq!(
        driven.ended.status == Status::Exhausted,
        driven.ended.bound == Some(Bound::Steps),
        "{:?}",
        driven.ended
    );
}

/// Drives a program; a panic tells by which plan.
fn run(checked: &Checked, world: &World, plan: &Plan) -> Driven {
    PLAN.with(|last| last.set(Some(*plan)));
    drive::run(checked, world, plan)
}

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
    static QUIET: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs something whose panic is a finding and not a noise; `Err` has its message and place.
pub fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let heard = QUIET.with(|quiet| quiet.borrow_mut().as_mut().map(|text| *text = info.to_string()));
            if heard.is_none() {
                usual(info);
            }
        }));
    });
    QUIET.with(|quiet| *quiet.borrow_mut() = Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(run));
    let heard = QUIET.with(|quiet| quiet.borrow_mut().take()).unwrap_or_default();
    let plan = PLAN.with(Cell::take).map(|plan| format!("\nlast run: {plan:?}")).unwrap_or_default();
    result.map_err(|_| heard.chars().take(4_000).collect::<String>() + &plan)
}
