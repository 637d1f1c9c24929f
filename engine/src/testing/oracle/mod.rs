//! The naive reference: the rules of the specification, read out recursively over the [`Program`], not over the checked graph.
//!
//! No events, no queue, no frames, no lowering: a level is walked as soon as sources are settled, a loop is a `loop`, every step
//! is run at once, and what it saw is noted. It is slow, obvious, and independent of the scheduler and the checker.

mod names;
mod unfold;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::Value;

use super::flow::{self, Flow};
use super::spec::{Level, NodeSpec, Policy, Program};
use super::world::World;
use crate::definition::Join;
use names::{Env, Here};

/// What running a program comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// The output, if the run succeeded.
    pub output: Option<Value>,
    /// Every leaf step that was needed, with what it saw.
    pub needed: BTreeMap<String, Value>,
    /// Nodes that a join and what they require let run, wherever.
    pub ran: BTreeSet<String>,
}

/// Most steps of a program that is worth its time.
const STEPS_MAX: usize = 400;

/// Why a frame ends without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// A failure that nothing tolerated.
    Failed,
    /// The program is too large for a simulation.
    TooLarge,
}

/// How a node ended.
#[derive(Clone, Debug, Default, PartialEq)]
struct Settled {
    value: Value,
    succeeded: bool,
    /// Whether it failed, tolerated or recovered from.
    failed: bool,
    /// The case of `next` that was taken, and where it leads.
    case: Option<usize>,
    live: BTreeSet<String>,
}

/// Nodes by name, as far as they are settled.
type Table = BTreeMap<String, Settled>;

/// What a frame or a node's work came to; no value: skipped.
struct Out {
    value: Option<Value>,
    table: Table,
}

/// A level at work: which, where, and in which passes of its flowchart loops.
#[derive(Clone, Copy)]
struct At<'p, 'a> {
    level: &'p Level,
    flow: &'a Flow,
    frame: &'a str,
    passes: &'a [u32],
}

struct Oracle<'p> {
    program: &'p Program,
    world: &'p World,
    needed: Vec<(String, Value)>,
    ran: BTreeSet<String>,
    steps: usize,
    /// How often each edge upwards was taken: frame, passes around its loop, source, case.
    taken: BTreeMap<(String, Vec<u32>, usize, usize), u32>,
    flows: BTreeMap<*const Level, Rc<Flow>>,
    /// Called workflows around the present place.
    calling: Vec<usize>,
}

/// Runs a program naively; nothing if it is too large.
pub fn run(program: &Program, world: &World) -> Option<Account> {
    let mut oracle = Oracle {
        program,
        world,
        needed: Vec::new(),
        ran: BTreeSet::new(),
        steps: 0,
        taken: BTreeMap::new(),
        flows: BTreeMap::new(),
        calling: Vec::new(),
    };
    let closed = Env { parent: None, here: Here::Closed { inputs: &[], value: &Value::Null } };
    let out = oracle.frame(&program.root, "", &closed);
    if out.as_ref().is_err_and(|stop| *stop == Stop::TooLarge) {
        return None;
    }
    let output = out.ok().and_then(|out| out.value);
    Some(Account { output, needed: oracle.needed.into_iter().collect(), ran: oracle.ran })
}

impl<'p> Oracle<'p> {
    /// Runs a level; no value if its output requires what is not there.
    fn frame(&mut self, level: &'p Level, path: &str, env: &Env) -> Result<Out, Stop> {
        let flow = self.flow(level);
        let at = At { level, flow: &flow, frame: path, passes: &[] };
        let table = self.part(at, None, env)?;
        let here = Env { parent: Some(env), here: Here::Nodes(&table) };
        let all: BTreeMap<&String, &Value> = table.iter().map(|(name, settled)| (name, &settled.value)).collect();
        let saw = match &level.output {
            Some(reads) if !here.has_required(reads, |_| false) => return Ok(Out { value: None, table }),
            Some(reads) => here.see(reads),
            None => serde_json::json!(all),
        };
        self.world.value("value", path).map_err(|_| Stop::Failed)?;
        let value = serde_json::json!(World::made("frame", path, &saw));
        Ok(Out { value: Some(value), table })
    }

    fn flow(&mut self, level: &'p Level) -> Rc<Flow> {
        let analyse = || Rc::new(flow::analyse(level).expect("BUG: a level that breaks the rules"));
        self.flows.entry(std::ptr::from_ref(level)).or_insert_with(analyse).clone()
    }

    /// Runs what stands directly in a loop, or in the level outside of all loops, once.
    fn part(&mut self, at: At<'p, '_>, part: Option<usize>, env: &Env) -> Result<Table, Stop> {
        let mut open = flow::units(at.flow, part, at.level.nodes.len());
        let mut table = Table::new();
        let inside: flow::Set = open.iter().flat_map(|unit| unit.nodes.iter().copied()).collect();
        while !open.is_empty() {
            let ready = |unit: &flow::Unit| {
                let settled = |node: &usize| table.contains_key(&at.level.nodes[*node].name);
                unit.waits.iter().all(|node| !inside.contains(node) || settled(node))
            };
            let next = open.iter().position(ready).expect("BUG: units that wait for each other");
            let unit = open.remove(next);
            let here = Env { parent: Some(env), here: Here::Nodes(&table) };
            let settled = match unit.a_loop {
                Some(index) => self.looped(at, index, &here)?,
                None => {
                    let node = &at.level.nodes[unit.node];
                    let header = part.is_some_and(|part| at.flow.loops[part].header == unit.node);
                    Table::from([(node.name.clone(), self.node(at, unit.node, header, &here)?)])
                }
            };
            table.extend(settled);
        }
        Ok(table)
    }

    /// Runs a loop to its end; its nodes as of the last pass.
    fn looped(&mut self, at: At<'p, '_>, index: usize, env: &Env) -> Result<Table, Stop> {
        let a_loop = &at.flow.loops[index];
        let names: BTreeSet<String> = a_loop.body.iter().map(|node| at.level.nodes[*node].name.clone()).collect();
        if !enough_edges(at, a_loop.header, env) {
            return Ok(names.into_iter().map(|name| (name, Settled::default())).collect());
        }
        let header = &at.level.nodes[a_loop.header].name;
        let mut history: Vec<Table> = Vec::new();
        loop {
            let number = history.len() as u32;
            let passes: Vec<u32> = at.passes.iter().copied().chain([number]).collect();
            let around = Env { parent: Some(env), here: Here::Loop { names: &names, history: &history, number } };
            let table = self.part(At { passes: &passes, ..at }, Some(index), &around)?;
            let leaves = table.values().any(|settled| settled.live.iter().any(|target| !names.contains(target)));
            let mut back = false;
            for (node, case) in a_loop.body.iter().filter_map(|node| {
                let settled = &table[&at.level.nodes[*node].name];
                settled.case.filter(|_| settled.live.contains(header)).map(|case| (*node, case))
            }) {
                back = true;
                *self.taken.entry((at.frame.to_owned(), at.passes.to_vec(), node, case)).or_default() += 1;
            }
            if leaves || !back {
                return Ok(table);
            }
            history.push(table);
        }
    }

    fn node(&mut self, at: At<'p, '_>, index: usize, is_header: bool, env: &Env) -> Result<Settled, Stop> {
        let node = &at.level.nodes[index];
        if !(is_header || enough_edges(at, index, env)) || !may_run(at, index, env) {
            return Ok(Settled::default());
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Stop::TooLarge);
        }
        self.ran.insert(node.name.clone());
        let own = path(at, node);
        let before = self.needed.len();
        let result = match self.guarded(node, &own, env) {
            Ok(None) => return Ok(Settled::default()),
            Ok(Some(value)) => self.route(at, index, &own, env).map(|(case, live)| Settled {
                value,
                succeeded: true,
                failed: false,
                case,
                live,
            }),
            Err(stop) => Err(stop),
        };
        if result != Err(Stop::Failed) {
            return result;
        }
        self.needed.truncate(before);
        let failed = Settled { failed: true, ..Settled::default() };
        match &node.on_error {
            Policy::Skip => Ok(failed),
            Policy::To(target) => Ok(Settled { live: BTreeSet::from([target.clone()]), ..failed }),
            Policy::Value if self.world.value("error", &own).is_ok() => {
                let (case, live) = self.route(at, index, &own, env)?;
                let value = serde_json::json!(World::made("error", &own, &Value::Null));
                Ok(Settled { value, succeeded: true, case, live, ..failed })
            }
            _ => Err(Stop::Failed),
        }
    }

    /// The first case that holds and is not spent.
    fn route(
        &self,
        at: At<'_, '_>,
        index: usize,
        own: &str,
        env: &Env,
    ) -> Result<(Option<usize>, BTreeSet<String>), Stop> {
        for (number, case) in at.level.nodes[index].next.iter().enumerate() {
            let holds = |reads| self.world.route(own, number, &env.see(reads));
            if !case.when.as_ref().is_none_or(|reads| holds(reads)) {
                continue;
            }
            if let Some(max) = case.max {
                let header = at.level.nodes.iter().position(|node| node.name == case.to[0]);
                let a_loop = header.and_then(|header| at.flow.headed(header)).expect("BUG: a back edge without a loop");
                let around = at.passes[..at.flow.depth(a_loop)].to_vec();
                let taken = self.taken.get(&(at.frame.to_owned(), around, index, number)).copied().unwrap_or(0);
                if taken >= max.count {
                    if case.fails {
                        return Err(Stop::Failed);
                    }
                    continue;
                }
            }
            return Ok((Some(number), case.to.iter().cloned().collect()));
        }
        Ok((None, BTreeSet::new()))
    }
}

/// What a step of a node is called.
fn path(at: At<'_, '_>, node: &NodeSpec) -> String {
    let mut path = if at.frame.is_empty() { String::new() } else { format!("{}/", at.frame) };
    path.push_str(&node.name);
    for (index, pass) in at.passes.iter().enumerate() {
        path.push_str(&format!("{}{pass}", if index == 0 { '#' } else { '.' }));
    }
    path
}

/// Whether the forward edges to a node let it run.
fn enough_edges(at: At<'_, '_>, index: usize, env: &Env) -> bool {
    let (edges, node) = (&at.flow.edges_in[index], &at.level.nodes[index]);
    let live = |source: &&usize| {
        let settled = env.node(&at.level.nodes[**source].name).expect("BUG: an edge from an unsettled node");
        settled.live.contains(&node.name)
    };
    edges.is_empty() || edges.iter().filter(live).count() >= least(node.join, edges.len())
}

fn least(join: Option<Join>, all: usize) -> usize {
    match join {
        None | Some(Join::Any | Join::First) => 1,
        Some(Join::All) => all,
        Some(Join::Quorum(least)) => least as usize,
    }
}

/// Whether enough of the counted `needs` succeeded, and everything that is required.
fn may_run(at: At<'_, '_>, index: usize, env: &Env) -> bool {
    let (edges, node) = (&at.flow.edges_in[index], &at.level.nodes[index]);
    let succeeded = |name: &String| env.node(name).is_none_or(|settled| settled.succeeded);
    let tolerant = !matches!(node.join, None | Some(Join::All));
    let counts_needs = tolerant && edges.is_empty();
    let enough = node.needs.iter().filter(|need| succeeded(&need.name)).count() >= least(node.join, node.needs.len());
    if counts_needs && !enough {
        return false;
    }
    let counts_edges = !edges.is_empty() && (tolerant || (node.join.is_none() && edges.len() > 1));
    let by_edge = |name: &str| counts_edges && edges.iter().any(|edge| at.level.nodes[*edge].name == name);
    let need = |name: &str| node.needs.iter().find(|need| need.name == name);
    let needed =
        |need: &crate::definition::Need| counts_needs || need.optional || by_edge(&need.name) || succeeded(&need.name);
    let mentions: Vec<_> = node.mentions().cloned().collect();
    node.needs.iter().all(needed) && env.has_required(&mentions, |name| by_edge(name) || need(name).is_some())
}
