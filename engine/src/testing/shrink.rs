//! Makes a failing program small: one part after the other is left out, as long as it still fails.

use super::flow;
use super::spec::{Case, Counted, Kind, Level, NodeSpec, Policy, Program, Read};

/// Most programs that are tried.
const TRIES_MAX: usize = 3_000;

/// A smaller program that fails as well; the program itself if there is none.
pub fn shrink(program: &Program, fails: impl Fn(&Program) -> bool) -> Program {
    let mut best = program.clone();
    let mut tries = 0;
    'smaller: loop {
        for candidate in smaller(&best) {
            tries += 1;
            if tries > TRIES_MAX {
                return best;
            }
            if fails(&candidate) {
                best = candidate;
                continue 'smaller;
            }
        }
        return best;
    }
}

/// Every program with one part less, the largest parts first.
fn smaller(program: &Program) -> Vec<Program> {
    let mut found = Vec::new();
    let with = |change: &dyn Fn(&mut Program)| {
        let mut program = program.clone();
        change(&mut program);
        program
    };
    if !program.drawn.is_empty() {
        found.push(with(&|program| program.drawn.clear()));
    }
    if !program.called.is_empty() && !calls(&program.root) {
        found.push(with(&|program| program.called.clear()));
    }
    let less = |level: &Level| nodes_less(level).into_iter().chain(parts_less(level)).collect::<Vec<_>>();
    found.extend(less(&program.root).into_iter().map(|root| Program { root, ..program.clone() }));
    for index in 0..program.called.len() {
        let levels = less(&program.called[index]);
        found.extend(levels.into_iter().map(|level| with(&|program| program.called[index] = level.clone())));
    }
    for index in 0..program.drawn.len() {
        let levels = less(&program.drawn[index]);
        found.extend(levels.into_iter().map(|level| with(&|program| program.drawn[index] = level.clone())));
    }
    found
}

fn calls(level: &Level) -> bool {
    level.nodes.iter().any(|node| matches!(node.kind, Kind::Call { .. }) || node.inside().is_some_and(calls))
}

fn nodes_less(level: &Level) -> Vec<Level> {
    let mut found = Vec::new();
    for index in 0..level.nodes.len() {
        if level.nodes.len() > 1 {
            found.push(without(level, index));
        }
        if let Kind::Group(inner) = &level.nodes[index].kind {
            found.extend(nodes_less(inner).into_iter().map(|inner| with_kind(level, index, Kind::Group(inner))));
        }
    }
    found
}

fn with_kind(level: &Level, index: usize, kind: Kind) -> Level {
    let mut level = level.clone();
    level.nodes[index].kind = kind;
    level
}

/// The level without a node and whatever mentions it.
fn without(level: &Level, index: usize) -> Level {
    let mut level = level.clone();
    let name = level.nodes.remove(index).name;
    forget(&mut level, &name);
    level
}

fn forget(level: &mut Level, name: &str) {
    let keep = |reads: &mut Vec<Read>| {
        reads.retain(|read| {
            let (Read::Plain(of)
            | Read::Default(of)
            | Read::Given(of)
            | Read::Last(of)
            | Read::Past(of)
            | Read::Error(of)) = read;
            of != name
        });
    };
    for node in &mut level.nodes {
        all_reads(node).into_iter().for_each(keep);
        node.needs.retain(|need| need.name != name);
        node.next.iter_mut().for_each(|case| case.to.retain(|target| target != name));
        node.next.retain(|case| !case.to.is_empty());
        if node.on_error == Policy::To(name.to_owned()) {
            node.on_error = Policy::Skip;
        }
        if let Kind::Group(inner) = &mut node.kind {
            forget(inner, name);
        }
    }
    level.output.iter_mut().for_each(keep);
    if level.output.as_ref().is_some_and(Vec::is_empty) {
        level.output = None;
    }
}

fn all_reads(node: &mut NodeSpec) -> Vec<&mut Vec<Read>> {
    let mut all = vec![&mut node.reads];
    all.extend(node.when.as_mut());
    all.extend(node.stop.as_mut());
    all.extend(node.each.as_mut().map(|each| &mut each.reads));
    all.extend(node.repeat.as_mut().and_then(|repeat| repeat.until.as_mut()));
    all.extend(node.next.iter_mut().filter_map(|case| case.when.as_mut()));
    all
}

/// Every level with one attribute, mention or edge less.
fn parts_less(level: &Level) -> Vec<Level> {
    let mut found = Vec::new();
    for (index, node) in level.nodes.iter().enumerate() {
        found.extend(simpler(node).into_iter().map(|node| {
            let mut level = level.clone();
            level.nodes[index] = node;
            level
        }));
        if let Kind::Group(inner) = &node.kind {
            found.extend(parts_less(inner).into_iter().map(|inner| with_kind(level, index, Kind::Group(inner))));
        }
    }
    if let Some(output) = &level.output {
        found.push(Level { output: None, ..level.clone() });
        for index in 0..output.len() {
            let mut less = output.clone();
            less.remove(index);
            if !less.is_empty() {
                found.push(Level { output: Some(less), ..level.clone() });
            }
        }
    }
    found.retain(|level| flow::analyse(level).is_ok());
    found
}

fn simpler(node: &NodeSpec) -> Vec<NodeSpec> {
    let mut found = Vec::new();
    let mut change = |edit: &dyn Fn(&mut NodeSpec)| {
        let mut other = node.clone();
        edit(&mut other);
        if other != *node {
            found.push(other);
        }
    };
    if !matches!(node.kind, Kind::Leaf) {
        change(&|node| node.kind = Kind::Leaf);
    }
    if let Kind::Human { default: true } = node.kind {
        change(&|node| node.kind = Kind::Human { default: false });
    }
    change(&|node| {
        (node.each, node.stop, node.quorum, node.max_parallel) = (None, None, None, None);
        (node.samples, node.on_item_error) = (None, Policy::Fail);
    });
    change(&|node| node.samples = node.samples.filter(|_| node.each.is_none()));
    change(&|node| node.repeat = None);
    change(&|node| node.next.clear());
    change(&|node| node.when = None);
    change(&|node| node.stop = None);
    change(&|node| node.quorum = None);
    change(&|node| node.max_parallel = None);
    change(&|node| node.join = None);
    change(&|node| node.on_error = Policy::Fail);
    change(&|node| node.on_item_error = Policy::Fail);
    change(&|node| node.retry = None);
    change(&|node| node.shaped = false);
    change(&|node| node.timeout = false);
    change(&|node| node.needs.clear());
    change(&|node| node.reads.clear());
    change(&|node| node.each.iter_mut().for_each(|each| each.sequential = false));
    change(&|node| {
        for count in [&mut node.samples, &mut node.quorum, &mut node.max_parallel].into_iter().flatten() {
            *count = Counted { count: 1, asked: false };
        }
    });
    change(&|node| {
        node.repeat.iter_mut().for_each(|repeat| {
            (repeat.max, repeat.fails) = (repeat.max.less(), false);
        })
    });
    for index in 0..node.next.len() {
        change(&|node| {
            node.next.remove(index);
        });
        change(&|node| node.next[index].when = None);
        change(&|node| node.next[index].fails = false);
        change(&|node| {
            node.next[index] = Case { max: node.next[index].max.map(Counted::less), ..node.next[index].clone() }
        });
        change(&|node| node.next[index].to.truncate(1));
    }
    let fields = all_reads(&mut node.clone()).len();
    for field in 0..fields {
        let count = all_reads(&mut node.clone())[field].len();
        for index in 0..count {
            change(&|node| {
                all_reads(node)[field].remove(index);
            });
        }
    }
    found
}
