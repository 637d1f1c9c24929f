//! `flowrun bench`: what the engine costs a step, on graphs whose shape is known and whose nodes do next to nothing.
//!
//! Nothing is special about these runs: the workflow is built and checked as any other, its nodes are of a registered kind
//! with a field that is an expression, each step is scheduled, evaluated, stored, logged and watched by an observer that
//! keeps every record. Building and checking is timed apart from running. The first run warms up and does not count.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use clap::{Args, ValueEnum};
use flowrun_engine::definition::{CaseDef, FieldFormat, KindSpec, NodeDef, WorkflowDef};
use flowrun_engine::event::{Event, Status};
use flowrun_engine::failure::StepError;
use flowrun_engine::graph::Workflow;
use flowrun_engine::node::{Input, Node, NodeContext, NodeError, Output};
use flowrun_engine::observer::{Observer, Records};
use flowrun_engine::run::RunOptions;
use flowrun_engine::store::Durability;
use futures_util::future::join_all;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::drive::durability_named;
use super::{print, refuse};
use crate::Flowrun;
use crate::store::SqliteStore;

/// Every workload that has a name; those that the engine has no means for yet say so.
pub(super) const WORKLOADS: [&str; 9] = ["W0", "W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8"];

/// Values are sums modulo this prime.
const MODULUS: u64 = 1_000_003;
/// How long a sleeping node stands in for a model call, in milliseconds.
const CALL_MS: u64 = 50;
/// Most timed executions, and the time after which no further one is begun.
const EXECUTIONS: usize = 5;
const ENOUGH: Duration = Duration::from_secs(2);

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Body {
    /// Adds one.
    Noop,
    /// Sleeps, then adds one.
    Sleep,
}

/// The kind `add`: one more than the sum of its inputs, after a sleep.
struct Add;

#[async_trait]
impl Node for Add {
    fn spec(&self) -> KindSpec {
        KindSpec::leaf("add").field("of", FieldFormat::Expression, "the numbers that are added up").field(
            "sleep_ms",
            FieldFormat::Count,
            "how long it takes, in milliseconds",
        )
    }

    async fn run(&self, _: &NodeContext, input: Input) -> Result<Output, NodeError> {
        if let Some(milliseconds) = input.fields.get("sleep_ms").and_then(Value::as_u64).filter(|ms| *ms > 0) {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
        let mut sum = 1;
        for number in input.fields.get("of").and_then(Value::as_array).into_iter().flatten() {
            let number = number.as_u64();
            sum += number.ok_or_else(|| StepError::terminal("no_number", "what is added is no whole number"))?;
        }
        Ok(Output { value: (sum % MODULUS).into(), ..Output::default() })
    }
}

/// The kind `now`: seconds since 1970, with a fraction.
struct Now;

#[async_trait]
impl Node for Now {
    fn spec(&self) -> KindSpec {
        KindSpec::leaf("now")
    }

    async fn run(&self, _: &NodeContext, _: Input) -> Result<Output, NodeError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Output { value: now.as_secs_f64().into(), ..Output::default() })
    }
}

/// Keeps every event of a run in memory.
#[derive(Default)]
struct Log(Mutex<Vec<Arc<[Event]>>>);

impl Observer for Log {
    /// The events name values by hash; the run itself keeps those.
    fn wants_values(&self) -> bool {
        false
    }

    fn records(&self, records: &Records<'_>) {
        self.0.lock().expect("BUG: a panic while an event was kept").push(records.events().clone());
    }
}

/// A graph of `add` nodes: what each adds up and how long it sleeps.
struct Shape {
    sources: Vec<Vec<usize>>,
    sleep_ms: Vec<u64>,
    output: Value,
}

impl Shape {
    fn chain(n: usize, sleep_ms: u64) -> Self {
        let sources = (0..n).map(|node| node.checked_sub(1).into_iter().collect()).collect();
        Self { sources, sleep_ms: vec![sleep_ms; n], output: name(n - 1).into() }
    }

    /// One node, `n` that wait for it, and one that adds those up.
    fn fan(n: usize, sleep_ms: u64) -> WorkflowDef {
        let mut workflow = WorkflowDef::new("bench").node(name(0), NodeDef::new("add"));
        for node in 1..=n {
            workflow = workflow.node(name(node), add(&[], sleep_ms).needs(name(0)));
        }
        let middle: Vec<usize> = (1..=n).collect();
        workflow.node(name(n + 1), add(&middle, 0)).output(format!("{} + {}", name(0), name(n + 1)))
    }

    /// 20 layers; a node has up to two sources in the layer before it and one in any before that.
    fn layers(n: usize, sleeps: bool) -> Self {
        let width = (n / 20).max(1);
        let mut state: u64 = 42;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        let (mut sources, mut sleep_ms) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for node in 0..n {
            let first = node / width * width;
            let mut of = Vec::new();
            if first > 0 {
                of = vec![first - width + draw() % width, first - width + draw() % width, draw() % first];
                of.sort_unstable();
                of.dedup();
            }
            sources.push(of);
            let milliseconds = 5 + draw() as u64 % 46;
            sleep_ms.push(if sleeps { milliseconds } else { 0 });
        }
        Self { sources, sleep_ms, output: (0..n).map(name).collect() }
    }

    /// Branches of 100 ms each and of different depth between a first and a last node.
    fn ragged() -> Self {
        let branches: [&[u64]; 7] = [&[10; 10], &[100], &[30, 70], &[70, 30], &[50, 50], &[20, 80], &[80, 20]];
        let (mut sources, mut sleep_ms, mut ends) = (vec![Vec::new()], vec![0], Vec::new());
        for branch in branches {
            let mut before = 0;
            for milliseconds in branch {
                sources.push(vec![before]);
                sleep_ms.push(*milliseconds);
                before = sources.len() - 1;
            }
            ends.push(before);
        }
        sources.push(ends);
        sleep_ms.push(0);
        Self { output: name(sources.len() - 1).into(), sources, sleep_ms }
    }

    /// One node, run `n` times by an edge that leads back to it.
    fn circle(n: usize, sleep_ms: u64) -> WorkflowDef {
        let again = CaseDef {
            when: Some(format!("{} < {n}", name(0)).into()),
            to: vec![name(0)],
            max: Some(n.into()),
            limit_fails: false,
        };
        let node = add(&[], sleep_ms).field("of", vec![format!("last.{} | default(0)", name(0))]);
        WorkflowDef::new("bench").node(name(0), NodeDef { next: vec![again], ..node }).output(name(0))
    }

    fn workflow(self) -> WorkflowDef {
        let nodes = self.sources.iter().zip(self.sleep_ms).enumerate();
        let workflow = nodes.fold(WorkflowDef::new("bench"), |workflow, (node, (sources, sleep_ms))| {
            workflow.node(name(node), add(sources, sleep_ms))
        });
        workflow.output(self.output)
    }
}

fn name(node: usize) -> String {
    format!("n{node}")
}

fn add(sources: &[usize], sleep_ms: u64) -> NodeDef {
    let of: Vec<String> = sources.iter().map(|source| name(*source)).collect();
    let node = NodeDef::new("add").field("of", of);
    if sleep_ms > 0 { node.field("sleep_ms", sleep_ms) } else { node }
}

/// What was measured.
#[derive(Default)]
struct Measured {
    seconds: Vec<f64>,
    cpu_seconds: Vec<f64>,
    output: Value,
}

/// A workload that can be run again and again.
struct Bench {
    flowrun: Flowrun,
    workflow: Arc<Workflow>,
    max_parallel: u32,
}

impl Bench {
    /// One run for each log, all at once: the sum of their outputs; of one run its output.
    async fn execute(&self, logs: &[Arc<Log>]) -> Result<Value, String> {
        if let [log] = logs {
            return self.run(log.clone()).await;
        }
        let mut sum = 0;
        for output in join_all(logs.iter().map(|log| self.run(log.clone()))).await {
            sum += output?.as_u64().ok_or("no number")?;
        }
        Ok(sum.into())
    }

    async fn run(&self, log: Arc<Log>) -> Result<Value, String> {
        let mut options = RunOptions { max_parallel: self.max_parallel, ..RunOptions::default() };
        options.observers.add(log);
        let outcome = self.flowrun.run(&self.workflow, Value::Null, options).await;
        let outcome = outcome.map_err(|error| error.to_string())?;
        match (outcome.status, outcome.output) {
            (Status::Success, Some(output)) => Ok(output),
            (status, _) => Err(format!("the run ended as {}: {:?}", status.word(), outcome.error)),
        }
    }

    async fn measure(&self, runs: usize, executions: Option<usize>, warm_up: bool) -> Result<Measured, String> {
        let began = Instant::now();
        let mut measured = Measured::default();
        let logs = || (0..runs).map(|_| Arc::default()).collect::<Vec<_>>();
        if warm_up {
            self.execute(&logs()).await?;
        }
        let enough = |done: usize| match executions {
            Some(wanted) => done >= wanted,
            None => done >= EXECUTIONS || done > 0 && began.elapsed() >= ENOUGH,
        };
        while !enough(measured.seconds.len()) {
            let logs = logs();
            let (cpu, start) = (cpu_seconds(), Instant::now());
            measured.output = self.execute(&logs).await?;
            measured.seconds.push(start.elapsed().as_secs_f64());
            measured.cpu_seconds.push(cpu_seconds() - cpu);
        }
        Ok(measured)
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// How long the longest chain of sleeping nodes is; `None` where nodes do not sleep, or each sleeps a time of its own.
fn ideal_seconds(workload: &str, sleep_ms: u64) -> Option<f64> {
    match workload {
        "W5" => Some(0.1),
        "W6" => Some(5.0 * CALL_MS as f64 / 1e3),
        "W2" if sleep_ms > 0 => Some(CALL_MS as f64 / 1e3),
        _ => None,
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The workflow of a workload, how many runs of it are one execution, and how many nodes those have.
fn workload(name: &str, n: usize, runs: usize, sleep_ms: u64) -> Result<(WorkflowDef, usize, usize), &'static str> {
    Ok(match name {
        "W1" => (Shape::chain(n, sleep_ms).workflow(), 1, n),
        "W2" => (Shape::fan(n, sleep_ms), 1, n + 2),
        "W3" => (Shape::layers(n, sleep_ms > 0).workflow(), 1, n),
        "W4" => (Shape::circle(n, sleep_ms), 1, n),
        "W5" => (Shape::ragged().workflow(), 1, 23),
        "W6" => (Shape::chain(5, CALL_MS).workflow(), n, 5 * n),
        "W7" => (Shape::chain(n, sleep_ms).workflow(), runs, n * runs),
        "W8" => (WorkflowDef::new("bench").node("now", NodeDef::new("now")).output("now"), 1, 1),
        _ => return Err("a baseline without a graph"),
    })
}

/// Where durable runs are recorded.
struct Database {
    store: Arc<SqliteStore>,
    durability: Durability,
    /// Removed at the end, if nobody named a place.
    _folder: Option<Scratch>,
}

/// A folder that is removed with what is in it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}

impl Database {
    fn open(args: &BenchArgs) -> Result<Self, String> {
        let durability = durability_named(&args.durability);
        let scratch = || Scratch(std::env::temp_dir().join(format!("flowrun-bench-{}", std::process::id())));
        let folder = args.db.is_none().then(scratch);
        let path = args.db.clone().or(folder.as_ref().map(|folder| folder.0.join("bench.db"))).unwrap_or_default();
        let store = SqliteStore::open(&path, durability).map_err(|error| error.to_string())?;
        Ok(Self { store: Arc::new(store), durability, _folder: folder })
    }
}

/// Options of `bench`.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    /// Its shape: a chain, a fan, a layered graph, a ragged graph, many runs at once, durable runs, a cold start
    #[arg(long, value_parser = WORKLOADS, ignore_case = true)]
    workload: String,
    /// Its size
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    n: u32,
    /// What a node does: add one, or sleep as a model call would and then add one
    #[arg(long, value_enum, default_value = "noop")]
    body: Body,
    /// Timed executions, of which the median counts [default: 5, fewer if those take longer than 2 s]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    executions: Option<u32>,
    /// The database file of W7 [default: one in the folder for temporary files]
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
    /// When a step of W7 counts as done: on disk, in the hands of the system, or at once
    #[arg(long, value_name = "LEVEL", default_value = "full", value_parser = ["full", "normal", "off"])]
    durability: String,
    /// How many runs of W7 go on at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// Print one JSON object instead of a line for people
    #[arg(long)]
    json: bool,
}

pub(super) async fn bench(args: BenchArgs) -> ExitCode {
    let (wanted, n, json) = (args.workload.to_uppercase(), args.n, args.json);
    let (wanted, body) = (wanted.as_str(), args.body);
    let sleep_ms = if body == Body::Sleep { CALL_MS } else { 0 };
    let (definition, runs, nodes) = match workload(wanted, n as usize, args.runs as usize, sleep_ms) {
        Ok(found) => found,
        Err(why) => {
            let line = json!({"workload": wanted, "n": n, "unsupported": why}).to_string();
            return print(&(if json { line } else { format!("{wanted}: {why}") } + "\n"));
        }
    };
    let database = match (wanted == "W7").then(|| Database::open(&args)).transpose() {
        Ok(database) => database,
        Err(problem) => return refuse(&problem),
    };
    let began = Instant::now();
    let mut builder = Flowrun::builder().kind(Add).kind(Now);
    if let Some(database) = &database {
        builder = builder.store(database.store.clone(), database.durability);
    }
    let flowrun = builder.build();
    let mut definition = definition;
    // A pass is a step beside those of its nodes.
    definition.limits.steps = Some(2 * nodes as u64 + 2);
    definition.limits.iterations = Some(n.saturating_add(1));
    definition.limits.output_bytes = Some(1 << 30);
    let workflow = match flowrun.check(definition) {
        Ok(checked) => checked.workflow,
        Err(error) => return refuse(&error.to_string()),
    };
    let build_seconds = began.elapsed().as_secs_f64();
    let sleeps = body == Body::Sleep || matches!(wanted, "W5" | "W6");
    let bench = Bench { flowrun, workflow, max_parallel: if sleeps { nodes as u32 } else { 16 } };
    let executions = if wanted == "W8" { Some(1) } else { args.executions.map(|n| n as usize) };
    let measured = match bench.measure(runs, executions, !sleeps && wanted != "W8").await {
        Ok(measured) => measured,
        Err(problem) => return refuse(&problem),
    };
    let seconds = median(&measured.seconds);
    let output = measured.output;
    if !json {
        let per_node = seconds / nodes as f64 * 1e6;
        let (cpu, runs) = (median(&measured.cpu_seconds) / nodes as f64 * 1e6, measured.seconds.len());
        if let Some(ideal) = ideal_seconds(wanted, sleep_ms) {
            let ratio = seconds / ideal;
            return print(&format!(
                "{wanted} n={n}: {seconds:.6} s for {nodes} nodes, {ratio:.2} of the critical path of {ideal} s, median of {runs}\n"
            ));
        }
        return print(&format!(
            "{wanted} n={n}: {seconds:.6} s for {nodes} nodes, {per_node:.3} µs a node ({cpu:.3} µs of processor time), median of {runs}\n"
        ));
    }
    let mut line = json!({
        "workload": wanted, "n": n, "seconds": seconds, "nodes": nodes, "samples": measured.seconds,
        "cpu_samples": measured.cpu_seconds, "build_seconds": build_seconds, "version": env!("CARGO_PKG_VERSION"),
    });
    if let Some(database) = &database {
        line["note"] = format!("SQLite, WAL, durability {}", database.durability).into();
    }
    if wanted == "W8" {
        line["first_node_unix"] = output;
        line["result"] = 1.into();
    } else {
        line["result"] = total(&output).into();
    }
    print(&format!("{line}\n"))
}

/// The number that an execution is checked by: its output, of a list its sum.
fn total(output: &Value) -> u64 {
    match output {
        Value::Array(values) => values.iter().filter_map(Value::as_u64).sum::<u64>() % MODULUS,
        number => number.as_u64().unwrap_or_default(),
    }
}
