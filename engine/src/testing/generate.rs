//! Random programs: small levels with loops, branches, maps, groups, calls and drawn graphs, legal by the rules of `flow.rs`.
//!
//! A level begins as a chain of nodes and loops; then edges, mentions and attributes are proposed one by one, and those that
//! break a rule are taken back. What the checker refuses all the same is drawn anew, and counted by the simulation.

use super::Random;
use super::flow::{self, Flow};
use super::spec::{Case, Counted, Each, Kind, Level, NodeSpec, Policy, Program, Read, Repeat};
use crate::definition::{Join, Need};

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

    fn back(&mut self, header: String) -> Case {
        let (when, fails) = (self.condition(60), self.chance(8));
        Case { when, to: vec![header], max: Some(1 + self.random.below(3) as u32), fails }
    }

    /// Nodes and loops in a row, from node to node; loops contain rows again.
    fn chain(&mut self, level: &mut Level, from: usize, to: usize, header: Option<usize>) {
        let mut tails: Vec<usize> = header.into_iter().collect();
        let mut at = if header.is_some() { from + 1 } else { from };
        while at < to {
            if self.chance(15) {
                // Stands in the row without being part of it.
                at += 1;
                continue;
            }
            let name = level.nodes[at].name.clone();
            let before = std::mem::take(&mut tails);
            for tail in &before {
                self.connect(&mut level.nodes[*tail], &name);
            }
            let room = to - at;
            if self.chance(26) {
                let length = 1 + self.random.below(room.min(4) as u64) as usize;
                self.chain(level, at, at + length, Some(at));
                let tail = self.tail(level, at, at + length);
                let back = self.back(name);
                let place = self.random.below(level.nodes[tail].next.len() as u64 + 1) as usize;
                level.nodes[tail].next.insert(place, back);
                tails.push(tail);
                at += length;
            } else {
                tails.push(at);
                at += 1;
                if at < to && self.chance(40) {
                    // A second way: this node is passed by, or runs beside the next one.
                    tails.extend(before);
                }
            }
        }
    }

    /// One more edge onwards: a case of its own, or beside another target of the last one.
    fn connect(&mut self, node: &mut NodeSpec, name: &str) {
        let when = self.condition(25);
        let forks = self.chance(50);
        match node.next.last_mut().filter(|case| case.max.is_none()) {
            Some(case) if forks => return case.to.push(name.to_owned()),
            Some(case) if case.when.is_none() => case.when = Some(Vec::new()),
            _ => {}
        }
        node.next.push(Case { when, to: vec![name.to_owned()], max: None, fails: false });
    }

    /// A node that hangs on a loop by mentions, and may leave it.
    fn hang(&mut self, level: &mut Level) {
        let Ok(flow) = flow::analyse(level) else { return };
        let Some(a_loop) = self.pick(&flow.loops).cloned() else { return };
        let header = level.nodes[a_loop.header].name.clone();
        let free = |index: &usize| flow.edges_in[*index].is_empty() && level.nodes[*index].next.is_empty();
        let free: Vec<usize> = (a_loop.header + 1..level.nodes.len()).filter(free).collect();
        let leads_back = |node: &usize| flow::targets(&level.nodes[*node]).any(|target| *target == header);
        let Some(tail) = a_loop.body.iter().copied().find(leads_back) else { return };
        let Some(index) = self.pick(&free).copied().filter(|index| *index != tail) else { return };
        let name = level.nodes[index].name.clone();
        level.nodes[index].reads.push(Read::Plain(header));
        level.nodes[tail].reads.push(Read::Default(name));
        let onwards: Vec<String> = level.nodes[index + 1..].iter().map(|node| node.name.clone()).collect();
        if let Some(target) = self.pick(&onwards).cloned().filter(|_| self.random.below(3) > 0) {
            level.nodes[index].next.push(Case { when: Some(Vec::new()), to: vec![target], max: None, fails: false });
        }
    }

    /// The last node of a row.
    fn tail(&self, level: &Level, from: usize, to: usize) -> usize {
        let routed = |index: &usize| {
            level.nodes[from..to].iter().any(|node| flow::targets(node).any(|name| *name == level.nodes[*index].name))
        };
        (from..to).rev().find(routed).unwrap_or(from)
    }

    /// One more edge: onwards, out of a loop, back, or after a failure.
    fn edge(&mut self, level: &mut Level) {
        let count = level.nodes.len() as u64;
        let (from, to) = (self.random.below(count) as usize, self.random.below(count) as usize);
        let target = level.nodes[to].name.clone();
        if flow::targets(&level.nodes[from]).any(|name| *name == target) {
            return;
        }
        if to > from && self.chance(25) {
            level.nodes[from].on_error = Policy::To(target);
            return;
        }
        let case = if to <= from {
            self.back(target)
        } else {
            Case { when: self.condition(80), to: vec![target], max: None, fails: false }
        };
        let place = self.random.below(level.nodes[from].next.len() as u64 + 1) as usize;
        level.nodes[from].next.insert(place, case);
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

    /// One mention of another node, or of a name around the level.
    fn mention(&mut self, level: &mut Level, around: &Around) {
        let count = level.nodes.len() as u64;
        let (reader, source) = (self.random.below(count) as usize, self.random.below(count) as usize);
        let swap = source > reader && !self.chance(15);
        let (reader, source) = if swap { (source, reader) } else { (reader, source) };
        let mut name = level.nodes[source].name.clone();
        let outer = self.chance(20).then(|| self.pick(&around.nodes).cloned()).flatten();
        if outer.is_none() && reader == source {
            return;
        }
        let is_outer = outer.is_some();
        name = outer.unwrap_or(name);
        let routed = level.nodes.iter().any(|node| flow::targets(node).any(|target| *target == name));
        if !is_outer && self.chance(if self.flavour.races { 40 } else { 14 }) {
            let optional = self.chance(if routed { 65 } else { 30 });
            let node = &mut level.nodes[reader];
            if node.needs.iter().all(|need| need.name != name) {
                node.needs.push(Need { name, optional });
            }
            return;
        }
        if !is_outer && self.chance(6) {
            let node = &mut level.nodes[reader];
            if !node.mentions().any(|read| [Read::Plain(name.clone()), Read::Default(name.clone())].contains(read)) {
                node.reads.push(Read::Error(name));
            }
            return;
        }
        let read = if self.chance(if routed { 65 } else { 30 }) { Read::Default(name) } else { Read::Plain(name) };
        self.place(&mut level.nodes[reader], read);
    }

    /// Puts a mention into one of the fields that can carry it.
    fn place(&mut self, node: &mut NodeSpec, read: Read) {
        let error =
            Read::Error(if let Read::Plain(name) | Read::Default(name) = &read { name.clone() } else { return });
        if node.mentions().any(|known| *known == error) {
            return;
        }
        let mut fields: Vec<&mut Vec<Read>> = Vec::new();
        fields.extend(node.when.as_mut());
        fields.extend(node.each.as_mut().map(|each| &mut each.reads));
        fields.extend(node.stop.as_mut());
        fields.extend(node.repeat.as_mut().and_then(|repeat| repeat.until.as_mut()));
        fields.extend(node.next.iter_mut().filter_map(|case| case.when.as_mut()));
        let pick = self.random.below(3 + 2 * fields.len() as u64) as usize;
        let field = if pick.is_multiple_of(2) { fields.into_iter().nth(pick / 2) } else { None };
        let field = field.unwrap_or(&mut node.reads);
        if !field.contains(&read) {
            field.push(read);
        }
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
            repeats: node.repeat.is_some() || node.each.as_ref().is_some_and(|each| each.sequential),
        };
        inner.given.extend(node.each.iter().flat_map(|each| [each.item.clone(), each.index.clone()]));
        let in_loop = flow::analyse(level).is_ok_and(|flow| flow.innermost(index).is_some());
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

    /// Items, inputs and the numbers of passes.
    fn given(&mut self, level: &mut Level, index: usize, around: &Around) {
        let in_loop = flow::analyse(level).is_ok_and(|flow| flow.innermost(index).is_some());
        if !self.reads_itself(&level.nodes[index]) {
            return;
        }
        let node = &mut level.nodes[index];
        if self.chance(15)
            && let Some(name) = self.pick(&around.given).cloned()
        {
            let fields =
                node.when.as_mut().into_iter().chain(node.next.iter_mut().filter_map(|case| case.when.as_mut()));
            fields.for_each(|field| field.push(Read::Given(name.clone())));
        }
        let mut names = around.given.clone();
        let sequential = node.each.as_ref().is_some_and(|each| each.sequential);
        if in_loop || sequential || node.repeat.is_some() {
            names.push("iteration".into());
            if self.closed == Closed::Root {
                names.push("pass".into());
            }
        }
        names.extend(node.each.iter().flat_map(|each| [each.item.clone(), each.index.clone()]));
        if self.chance(40)
            && let Some(name) = self.pick(&names).cloned()
            && !node.reads.contains(&Read::Given(name.clone()))
        {
            node.reads.push(Read::Given(name));
        }
    }

    /// `last` and `past`.
    fn history(&mut self, level: &mut Level, index: usize, around: &Around) {
        let Ok(flow) = flow::analyse(level) else { return };
        let own = level.nodes[index].clone();
        if !self.reads_itself(&own) {
            return;
        }
        let sequential = own.each.as_ref().is_some_and(|each| each.sequential);
        let loops_itself = own.repeat.is_some() || (sequential && own.samples.is_none());
        let mut names = readable(level, &flow, index, around.repeats);
        names.retain(|name| *name != own.name || !(sequential && own.samples.is_some()));
        if loops_itself {
            names.push(own.name.clone());
        }
        if names.is_empty() || !self.chance(45) {
            return;
        }
        let name = self.pick(&names).cloned().unwrap_or_default();
        let itself = name == own.name;
        let read = if self.chance(65) { Read::Last(name) } else { Read::Past(name) };
        let node = &mut level.nodes[index];
        let guard = node.when.as_mut().filter(|_| !itself && self.random.one_in(4));
        let case =
            node.next.iter_mut().find_map(|case| case.when.as_mut()).filter(|_| !itself && self.random.one_in(3));
        let field = guard.or(case).unwrap_or(&mut node.reads);
        if !field.contains(&read) {
            field.push(read);
        }
    }
}

/// Nodes of the level that share a loop with a node.
fn readable(level: &Level, flow: &Flow, index: usize, all: bool) -> Vec<String> {
    let shares = |other: &usize| {
        all || flow.loops.iter().any(|a_loop| a_loop.body.contains(&index) && a_loop.body.contains(other))
    };
    (0..level.nodes.len()).filter(shares).map(|other| level.nodes[other].name.clone()).collect()
}
