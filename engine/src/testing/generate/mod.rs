//! Random programs: small levels with loops, branches, maps, groups, calls and drawn graphs, legal by the rules of `flow.rs`.
//!
//! A level begins as a chain of nodes and loops; then edges, mentions and attributes are proposed one by one, and those that
//! break a rule are taken back. What the checker refuses all the same is drawn anew, and counted by the simulation.

mod edges;
mod mentions;

use super::Random;
use super::flow;
use super::spec::{Counted, Each, Kind, Level, NodeSpec, Policy, Program, Read, Repeat};
use crate::definition::Join;

/// What a program may contain beside the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flavour {
    /// `join: first`: which steps are needed depends on the schedule.
    pub races: bool,
    /// Nodes that ask a person.
    pub people: bool,
}

/// A random program that keeps the rules of `flow.rs`.
pub fn program(seed: u64, flavour: Flavour) -> Program {
    let mut random = Random(seed);
    loop {
        let program = draft(random.next(), flavour);
        if is_legal(&program) {
            return program;
        }
    }
}

/// Whether every level keeps the rules of `flow.rs`.
pub fn is_legal(program: &Program) -> bool {
    fn all(level: &Level) -> bool {
        flow::analyse(level).is_ok() && level.nodes.iter().filter_map(NodeSpec::inside).all(all)
    }
    all(&program.root) && program.called.iter().chain(&program.drawn).all(all)
}

fn draft(seed: u64, flavour: Flavour) -> Program {
    let mut random = Random(seed);
    let inputs = (0..random.below(3)).map(|_| random.below(3) as usize).collect();
    let drawn = random.below(3) as usize;
    let mut draw = Draw { random, flavour, inputs, drawn, closed: Closed::Root };
    let root = draw.level(&Around::default());
    let letter = |index: usize| char::from(b'a' + index as u8);
    draw.closed = Closed::Called;
    let called = (0..draw.inputs.len()).map(|index| {
        let given: Vec<String> = ["u", "v"].into_iter().take(draw.inputs[index]).map(str::to_owned).collect();
        let prefix = format!("w{}", letter(index));
        let level = draw.level(&Around { depth: 1, prefix, given: given.clone(), ..Around::default() });
        Level { inputs: given, ..level }
    });
    let called = called.collect();
    draw.closed = Closed::Drawn;
    let around = |index| Around { depth: 2, prefix: format!("x{}", letter(index)), ..Around::default() };
    let drawn = (0..draw.drawn).map(|index| draw.level(&around(index))).collect();
    Program { root, called, drawn }
}

#[derive(Clone, Copy, PartialEq)]
enum Closed {
    Root,
    Called,
    Drawn,
}

struct Draw {
    random: Random,
    flavour: Flavour,
    /// How many inputs each called workflow has.
    inputs: Vec<usize>,
    drawn: usize,
    closed: Closed,
}

/// What is around a level.
#[derive(Clone, Default)]
struct Around {
    depth: u32,
    prefix: String,
    /// Nodes around it that may be captured.
    nodes: Vec<String>,
    /// Items, inputs, `iteration`, `pass`.
    given: Vec<String>,
    /// Nodes around it that share a loop with it.
    lasts: Vec<String>,
    /// Whether the level is the body of a `repeat` or a fold, so that `last` speaks of its own nodes.
    repeats: bool,
}

impl Draw {
    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    fn pick<'x, T>(&mut self, all: &'x [T]) -> Option<&'x T> {
        if all.is_empty() { None } else { all.get(self.random.below(all.len() as u64) as usize) }
    }

    fn level(&mut self, around: &Around) -> Level {
        let count = match around.depth {
            0 => 2 + self.random.below(7),
            1 => 1 + self.random.below(4),
            _ => 1 + self.random.below(3),
        };
        let name = |index: u64| match around.prefix.as_str() {
            "" => char::from(b'a' + index as u8).to_string(),
            prefix => format!("{prefix}{}", index + 1),
        };
        let nodes = (0..count).map(|index| NodeSpec::new(&name(index), Kind::Leaf)).collect();
        let mut level = Level { nodes, ..Level::default() };
        if self.chance(75) {
            self.chain(&mut level, 0, count as usize, None);
        }
        if flow::analyse(&level).is_err() {
            level.nodes.iter_mut().for_each(|node| node.next.clear());
        }
        for _ in 0..self.random.below(4) {
            self.try_change(&mut level, Self::edge);
        }
        if self.chance(35) {
            self.try_change(&mut level, Self::hang);
        }
        for index in 0..level.nodes.len() {
            self.attributes(&mut level, index);
        }
        for _ in 0..count + self.random.below(count + 1) {
            self.try_change(&mut level, |draw, level| draw.mention(level, around));
        }
        for index in 0..level.nodes.len() {
            self.try_change(&mut level, |draw, level| draw.kind(level, index, around));
        }
        for index in 0..level.nodes.len() {
            self.try_change(&mut level, |draw, level| draw.join(level, index));
            self.given(&mut level, index, around);
            self.history(&mut level, index, around);
        }
        if self.chance(40) {
            let names: Vec<String> = level.nodes.iter().map(|node| node.name.clone()).collect();
            let mut output: Vec<Read> = Vec::new();
            for name in names.into_iter().rev() {
                if self.chance(50) {
                    output.extend(self.pick(&around.nodes).cloned().filter(|_| self.random.one_in(6)).map(Read::Plain));
                    output.push(if self.chance(60) { Read::Default(name) } else { Read::Plain(name) });
                }
            }
            level.output = (!output.is_empty()).then_some(output);
        }
        level
    }

    /// Proposes a change and takes it back if it breaks a rule.
    fn try_change(&mut self, level: &mut Level, change: impl FnOnce(&mut Self, &mut Level)) {
        let before = level.clone();
        change(self, level);
        if flow::analyse(level).is_err() {
            *level = before;
        }
    }

    fn condition(&mut self, percent: u64) -> Option<Vec<Read>> {
        self.chance(percent).then(Vec::new)
    }

    fn counted(&mut self, most: u64) -> Counted {
        Counted { count: 1 + self.random.below(most) as u32, asked: self.chance(30) }
    }

    fn attributes(&mut self, level: &mut Level, index: usize) {
        let is_header = flow::analyse(level).is_ok_and(|flow| flow.headed(index).is_some());
        let mut node = level.nodes[index].clone();
        if !is_header {
            node.when = self.condition(18);
        }
        if self.chance(16) {
            let item = if self.chance(60) { "item".to_owned() } else { format!("x_{}", node.name) };
            let index = if self.chance(60) { "index".to_owned() } else { format!("i_{}", node.name) };
            node.each = Some(Each { reads: Vec::new(), item, index, sequential: self.chance(35) });
        }
        node.samples = self.chance(8).then(|| self.counted(3));
        if node.each.is_some() || node.samples.is_some() {
            match self.random.below(4) {
                0 => node.stop = Some(Vec::new()),
                1 => node.quorum = Some(self.counted(3)),
                _ => {}
            }
            let sequential = node.each.as_ref().is_some_and(|each| each.sequential);
            let bounded = if node.stop.is_some() { 70 } else { 25 };
            node.max_parallel = (!sequential && self.chance(bounded)).then(|| self.counted(3));
            node.on_item_error = match self.random.below(7) {
                _ if node.quorum.is_some() || (node.stop.is_some() && self.chance(40)) => Policy::Fail,
                0 | 1 => Policy::Drop,
                2 | 3 => Policy::Skip,
                4 => Policy::Value,
                _ => Policy::Fail,
            };
        }
        if self.chance(12) {
            node.repeat = Some(Repeat { until: self.condition(70), max: self.counted(3), fails: false });
        }
        if node.on_error == Policy::Fail {
            node.on_error = match self.random.below(10) {
                0..3 => Policy::Skip,
                3..5 => Policy::Value,
                _ => Policy::Fail,
            };
        }
        if node.on_error == Policy::Value {
            node.next.iter_mut().for_each(|case| case.fails = false);
        } else if let Some(repeat) = &mut node.repeat {
            repeat.fails = repeat.until.is_some() && self.random.one_in(6);
        }
        if self.chance(40) {
            node.retry = Some((self.random.below(3) as u32, 1 + self.random.below(50)));
        }
        node.shaped = self.chance(20);
        node.timeout = self.chance(25);
        level.nodes[index] = node;
    }

    fn kind(&mut self, level: &mut Level, index: usize, around: &Around) {
        let deep = around.depth >= 2;
        let folds = level.nodes[index].each.as_ref().is_some_and(|each| each.sequential);
        let mut kind = match self.random.below(if folds { 85 } else { 100 }) {
            0..50 if !folds => Kind::Leaf,
            50..65 => Kind::Set,
            65..85 | 0..50 if !deep && level.nodes[index].samples.is_none() => self.group(level, index, around),
            85..90 if !self.inputs.is_empty() && self.closed != Closed::Drawn => {
                let inner = self.closed == Closed::Called;
                let workflow = self.random.below(self.inputs.len() as u64) as usize;
                Kind::Call { workflow, max_depth: inner.then(|| 1 + self.random.below(3) as u32) }
            }
            90..94 if self.drawn > 0 && self.closed != Closed::Drawn => Kind::Expand,
            94.. if self.flavour.people => Kind::Human { default: self.chance(40) },
            _ => Kind::Leaf,
        };
        let node = &mut level.nodes[index];
        if node.samples.is_some() && !matches!(kind, Kind::Leaf) {
            kind = Kind::Leaf;
        }
        if !matches!(kind, Kind::Leaf) {
            node.retry = None;
        }
        if !matches!(kind, Kind::Leaf | Kind::Human { .. }) {
            (node.shaped, node.timeout) = (false, false);
        }
        if let Kind::Human { default } = &mut kind {
            *default &= node.timeout;
        }
        node.kind = kind;
        if !self.reads_itself(node) {
            node.reads.clear();
        }
        if matches!(node.kind, Kind::Call { max_depth: Some(_), .. }) && node.on_error == Policy::Fail {
            node.on_error = Policy::Skip;
        }
    }

    /// Whether the work of a node mentions names.
    fn reads_itself(&self, node: &NodeSpec) -> bool {
        match node.kind {
            Kind::Group(_) => false,
            Kind::Call { workflow, .. } => self.inputs[workflow] > 0,
            _ => true,
        }
    }

    fn group(&mut self, level: &mut Level, index: usize, around: &Around) -> Kind {
        let node = level.nodes[index].clone();
        let before = level.nodes[..index].iter().map(|node| node.name.clone());
        let mut inner = Around {
            depth: around.depth + 1,
            prefix: node.name.clone(),
            nodes: around.nodes.iter().cloned().chain(before).collect(),
            given: around.given.clone(),
            lasts: around.lasts.clone(),
            repeats: node.repeat.is_some() || node.each.as_ref().is_some_and(|each| each.sequential),
        };
        inner.given.extend(node.each.iter().flat_map(|each| [each.item.clone(), each.index.clone()]));
        let mut in_loop = false;
        if let Ok(flow) = flow::analyse(level) {
            in_loop = flow.innermost(index).is_some();
            inner.lasts.extend(mentions::readable(level, &flow, index, around.repeats));
            inner.lasts.retain(|name| *name != node.name);
        }
        if inner.repeats || in_loop {
            inner.given.push("iteration".into());
            if self.closed == Closed::Root {
                inner.given.push("pass".into());
            }
        }
        inner.given.dedup();
        let body = self.level(&inner);
        let names: Vec<String> = body.nodes.iter().map(|node| node.name.clone()).collect();
        if self.chance(50)
            && let Some(reads) = level.nodes[index].repeat.as_mut().and_then(|repeat| repeat.until.as_mut())
            && let Some(name) = self.pick(&names).cloned()
        {
            reads.push(Read::Default(name));
        }
        Kind::Group(body)
    }

    fn join(&mut self, level: &mut Level, index: usize) {
        let Ok(flow) = flow::analyse(level) else { return };
        let counted = if flow.edges_in[index].is_empty() {
            level.nodes[index].needs.iter().filter(|need| !need.optional).count()
        } else {
            flow.edges_in[index].len()
        };
        let likely = if self.flavour.races { 90 } else { 50 };
        if counted == 0 || !self.chance(if counted > 1 { likely } else { 8 }) {
            return;
        }
        level.nodes[index].join = Some(match self.random.below(4) {
            _ if self.flavour.races => Join::First,
            0 => Join::All,
            1 | 2 => Join::Any,
            _ => Join::Quorum(1 + self.random.below(counted as u64) as u32),
        });
    }
}
