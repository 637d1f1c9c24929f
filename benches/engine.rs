//! What the parts of the engine cost: the scheduler alone, the checker, the evaluation of expressions, and the store in a file.
//!
//!     cargo bench --bench engine
//!
//! Whole runs are measured by `flowrun bench`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a measurement that cannot go on should stop with the place")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, mpsc};

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use flowrun::{Datum, Event, Flowrun, SqliteStore, ValueHash};
use flowrun_engine::event::{Command, DecideField, Decision, RunStarted, SEMANTICS};
use flowrun_engine::expr::{Expression, Scope, Template};
use flowrun_engine::graph::{Case, Count, Dependency, DependencyMode, EdgeBound, Graph, Limits, Node, Target, Work};
use flowrun_engine::id::NodeIndex;
use flowrun_engine::scheduler::{Effects, Scheduler};
use flowrun_engine::store::{Durability, RunInfo, Store, Transaction};
use serde_json::json;

fn main() {
    divan::main();
}

/// A graph of leaves without fields: node after node, or one, `n` beside each other, and one.
fn graph(n: u32, sources: impl Fn(u32) -> Vec<u32>) -> Arc<Graph> {
    let required =
        |source| Dependency { source: NodeIndex(source), inside: Vec::new(), mode: DependencyMode::Required };
    let node = |index: u32| {
        let dependencies = sources(index).into_iter().map(required).collect();
        Node { dependencies, ..Node::new(&format!("n{index}"), Work::Leaf) }
    };
    Arc::new(Graph::build((0..n).map(node).collect()).unwrap())
}

/// Every event of a run whose attempts end in the order in which they start.
fn schedule(graph: &Arc<Graph>) -> usize {
    let value = ValueHash::of_bytes(b"1");
    let (mut scheduler, mut effects, mut events) = (Scheduler::new(graph.clone()), Effects::default(), 0);
    let limits = Limits { steps: 10_000_000, depth: u32::MAX, iterations: u32::MAX, ..Limits::default() };
    let started =
        RunStarted { semantics: SEMANTICS, workflow: value, inputs: value, max_parallel: 16, calls_max: None, limits };
    let mut queue = std::collections::VecDeque::from([Event::RunStarted(Box::new(started))]);
    while let Some(event) = queue.pop_front() {
        scheduler.apply(&event, &mut effects);
        events += 1 + effects.events.drain(..).count();
        for command in effects.commands.drain(..) {
            queue.extend(match command {
                Command::Start { step, attempt } => {
                    Some(Event::Settled { step, attempt, result: Ok(value), report: None })
                }
                Command::Decide { step, field: field @ DecideField::Value } => {
                    Some(Event::Decided { step, field, decision: Decision::Value(value) })
                }
                _ => None,
            });
        }
    }
    assert!(scheduler.is_over());
    events
}

#[divan::bench(args = [1_000, 10_000, 100_000, 1_000_000], sample_count = 10)]
fn scheduler_chain(bencher: Bencher, n: u32) {
    let graph = graph(n, |node| node.checked_sub(1).into_iter().collect());
    bencher.counter(ItemsCount::new(n)).bench(|| schedule(black_box(&graph)));
}

#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 20)]
fn scheduler_fan(bencher: Bencher, n: u32) {
    let last = n - 1;
    let graph = graph(n, |node| if node == last { (1..last).collect() } else { (0..node.min(1)).collect() });
    bencher.counter(ItemsCount::new(n)).bench(|| schedule(black_box(&graph)));
}

/// A loop whose body is one leaf with an edge back to itself.
#[divan::bench(args = [1_000, 10_000, 100_000], sample_count = 10)]
fn scheduler_loop(bencher: Bencher, passes: u32) {
    let bound = EdgeBound { loops_out: 0, number: 0, max: Count::Fixed(passes - 1), fails: false };
    let again = Case { guarded: false, to: vec![Target::Again], bound: Some(bound) };
    let body = Graph::build(vec![Node { next: vec![again], ..Node::new("n", Work::Leaf) }]).unwrap();
    let graph = Arc::new(Graph::build(vec![Node::new("loop(n)", Work::Loop(Arc::new(body)))]).unwrap());
    bencher.counter(ItemsCount::new(passes)).bench(|| schedule(black_box(&graph)));
}

/// A group in a group in a group …, and a leaf.
#[divan::bench(args = [100, 1_000, 10_000], sample_count = 10)]
fn scheduler_nested_frames(bencher: Bencher, depth: u32) {
    let leaf = Graph::build(vec![Node::new("leaf", Work::Leaf)]).unwrap();
    let around = |inner, _| Graph::build(vec![Node::new("g", Work::Group(Arc::new(inner)))]).unwrap();
    let graph = Arc::new((0..depth).fold(leaf, around));
    bencher.counter(ItemsCount::new(depth)).bench(|| schedule(black_box(&graph)));
}

#[divan::bench(args = [100, 1_000, 20_000], sample_count = 10)]
fn check(bencher: Bencher, n: usize) {
    let mut text = String::from("flowrun: 1\nnodes:\n  n0: {value: 1}\n");
    for node in 1..n {
        let before = node - 1;
        writeln!(text, "  n{node}: {{value: n{before} + 1, when: n{before} > 0}}").unwrap();
    }
    writeln!(text, "output: n{}", n - 1).unwrap();
    let flowrun = Flowrun::builder().build();
    bencher.counter(ItemsCount::new(n)).bench(|| flowrun.parse("bench.yaml", black_box(&text)).unwrap());
}

struct Outputs(BTreeMap<String, Arc<Datum>>);

impl Scope for Outputs {
    fn get(&self, name: &str) -> Option<Arc<Datum>> {
        self.0.get(name).cloned()
    }
}

fn outputs(n: usize) -> Arc<dyn Scope> {
    let output =
        |node| (format!("n{node}"), Datum::new(json!({"answer": format!("the answer {node}"), "score": node})));
    Arc::new(Outputs((0..n).map(output).collect()))
}

#[divan::bench(args = ["n1", "n1.score > 3", "[n1, n2] | map(attribute='score') | sum", "n1.answer | upper | length"])]
fn expression(bencher: Bencher, text: &str) {
    let (expression, outputs) = (Expression::parse(text).unwrap(), outputs(10));
    bencher.bench(|| expression.eval(black_box(&outputs)).unwrap());
}

/// A template that reads one of many outputs costs what it reads, not what exists.
#[divan::bench(args = [1, 1_000])]
fn template_that_reads_one_output(bencher: Bencher, of: usize) {
    let (template, outputs) = (Template::parse("Sum up: {{ n0.answer }}").unwrap(), outputs(of));
    bencher.bench(|| template.render(black_box(&outputs)).unwrap());
}

/// Transactions of 600 bytes of log and a value of 100 bytes of its own.
mod store {
    use super::*;

    fn open(runs: usize, durability: Durability) -> (tempfile::TempDir, SqliteStore, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("flowrun.db"), durability).unwrap();
        let ids: Vec<String> = (0..runs).map(|n| format!("20260101-000000-000-{n:04}")).collect();
        for id in &ids {
            let (id, workflow) = (id.clone(), String::new());
            store.begin(&RunInfo { id, workflow, started_ms: 0, origin: json!(null), summary: None }).unwrap();
        }
        (folder, store, ids)
    }

    fn transaction(run: &str, first: u64) -> Transaction {
        let text: Arc<str> = format!("\"{run} {first:073}\"").into();
        let hash = ValueHash::of_bytes(text.as_bytes());
        let lines = format!("{{\"seq\":{first:038},\"step\":\"capital\",\"value\":\"{hash}\"}}\n").repeat(4);
        Transaction { run: run.into(), first, lines, values: vec![(hash, text)], entries: Vec::new(), summary: None }
    }

    fn append(store: &SqliteStore, transaction: Transaction, done: &mpsc::Sender<()>) {
        let done = done.clone();
        let kept = move |result: Result<(), _>| {
            result.unwrap();
            done.send(()).unwrap();
        };
        store.append(transaction, Box::new(kept));
    }

    /// Eight threads append to 1,000 runs.
    #[divan::bench(args = [50_000], sample_count = 5)]
    fn append_from_many_threads(bencher: Bencher, n: usize) {
        let begun = || open(1_000, Durability::Normal);
        bencher.counter(ItemsCount::new(n)).with_inputs(begun).bench_refs(|(_folder, store, ids)| {
            std::thread::scope(|scope| {
                for ids in ids.chunks(125) {
                    let store = &*store;
                    scope.spawn(move || {
                        let (sender, done) = mpsc::channel();
                        let all =
                            (0..n as u64 / 1_000).flat_map(|first| ids.iter().map(move |id| transaction(id, first)));
                        all.for_each(|transaction| append(store, transaction, &sender));
                        drop(sender);
                        assert_eq!(done.iter().count(), n / 8);
                    });
                }
            });
        });
    }

    /// One transaction, and the wait until it is kept.
    #[divan::bench(args = [Durability::Normal, Durability::Full], sample_count = 500)]
    fn append_and_wait(bencher: Bencher, durability: Durability) {
        let (_folder, store, ids) = open(1, durability);
        let (sender, done) = mpsc::channel();
        let mut first = 0;
        bencher.bench_local(|| {
            first += 1;
            append(&store, transaction(&ids[0], first), &sender);
            done.recv().unwrap();
        });
    }

    /// A value among 50,000.
    #[divan::bench]
    fn look_up_a_value(bencher: Bencher) {
        let (_folder, store, ids) = open(1, Durability::Normal);
        let (sender, done) = mpsc::channel();
        (0..50_000).for_each(|first| append(&store, transaction(&ids[0], first), &sender));
        drop(sender);
        assert_eq!(done.iter().count(), 50_000);
        let mut n = 0;
        bencher
            .with_inputs(|| {
                n = (n + 7_919) % 50_000;
                transaction(&ids[0], n).values[0].0
            })
            .bench_local_values(|hash| store.value(hash).unwrap().unwrap());
    }
}
