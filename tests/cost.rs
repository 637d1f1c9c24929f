//! What `flowrun::cost` says against what runs really do.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use flowrun::cost::Cost;
use flowrun::{
    CallContext, ChatReply, ChatRequest, ErrorClass, Event, Flowrun, Model, Observer, Records, RunOptions, Scripted,
    StepError, StepId, Usage, Workflow,
};
use flowrun_engine::testing::Random;
use serde_json::{Map, json};

/// Fails in the dearest way: each reply but the last that an attempt may ask for is none, the last is a broken server.
struct Dearest {
    turns: u64,
    asked: AtomicU64,
}

#[async_trait]
impl Model for Dearest {
    async fn chat(&self, _: &ChatRequest, _: &CallContext) -> Result<ChatReply, StepError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        if number % (self.turns + 1) == self.turns {
            return Err(StepError::new("http_503", ErrorClass::Server, "busy"));
        }
        let usage = Usage { calls: 1, ..Usage::default() };
        Ok(ChatReply { text: "no such thing".to_owned(), usage, finish_reason: None })
    }

    fn name(&self) -> String {
        "dearest".to_owned()
    }
}

#[tokio::test]
async fn the_dearest_run_costs_exactly_what_was_said() {
    let text = "flowrun: 1\nnodes:\n  a: {prompt: x, schema: boolean, repair: 2, retry: {max: 3, on: [server], backoff: 1ms}, on_error: skip}\n\
        \x20 b: {kind: plan, prompt: x, repair: 2, retry: {max: 1, on: [server], backoff: 1ms}, on_error: skip}\noutput: {done: 1}";
    let flowrun = Flowrun::builder().model("default", Dearest { turns: 2, asked: 0.into() }).build();
    let workflow = flowrun.parse("w.yaml", text).unwrap();
    let cost = Cost::of(&workflow, flowrun.kinds().specs(), &Map::new()).unwrap();
    let options = RunOptions { max_parallel: 1, ..RunOptions::default() };
    let outcome = flowrun.run(&workflow, json!({}), options).await.unwrap();
    assert_eq!((u128::from(outcome.usage.calls), cost.calls_with_retries.most), (18, 18), "{outcome:?}");
}

/// Says yes or no, and unless it is reliable nothing that fits or that it is broken, as chance has it.
struct Whimsical {
    random: Mutex<Random>,
    reliable: bool,
}

#[async_trait]
impl Model for Whimsical {
    async fn chat(&self, _: &ChatRequest, _: &CallContext) -> Result<ChatReply, StepError> {
        let chance = self.random.lock().unwrap().below(20);
        for _ in 0..chance % 3 {
            tokio::task::yield_now().await;
        }
        let text = match chance {
            0..2 if !self.reliable => return Err(StepError::new("http_503", ErrorClass::Server, "busy")),
            2..4 if !self.reliable => "perhaps",
            0..12 => "true",
            _ => "false",
        };
        let usage = Usage { calls: 1, ..Usage::default() };
        Ok(ChatReply { text: text.to_owned(), usage, finish_reason: None })
    }

    fn name(&self) -> String {
        "whimsical".to_owned()
    }
}

/// What a run uses.
#[derive(Default)]
struct Used {
    steps: BTreeSet<StepId>,
    running: BTreeSet<(StepId, u32)>,
    width: usize,
}

#[derive(Default)]
struct Watch(Mutex<Used>);

impl Observer for Watch {
    fn records(&self, records: &Records<'_>) {
        let mut used = self.0.lock().unwrap();
        for record in records.iter() {
            match record.event {
                Event::Ended { step, .. } => {
                    used.steps.insert(step);
                    used.running.retain(|(running, _)| *running != step);
                }
                Event::Started { step, attempt, .. } => {
                    used.running.insert((step, attempt));
                    used.width = used.width.max(used.running.len());
                }
                Event::Settled { step, attempt, .. } => {
                    used.running.remove(&(step, attempt));
                }
                _ => {}
            }
        }
    }
}

/// A random file: nodes that read each other, loops of all kinds, forks, failures.
fn random_file(random: &mut Random, reliable: bool) -> String {
    let count = 2 + random.below(5);
    let mut text = "flowrun: 1\nnodes:\n".to_owned();
    for index in 0..count {
        let read = random.below(index + 1);
        let mentions = match random.below(3) {
            _ if read == index => "x".to_owned(),
            0 => format!("{{{{ n{read} }}}}"),
            _ => format!("{{{{ n{read} | default(0) }}}}"),
        };
        let mut parts = vec![format!("cache: off, prompt: \"{mentions}\", schema: boolean, on_error: skip")];
        let mut again = || if reliable { 0 } else { random.below(2) };
        parts.push(format!("repair: {}, retry: {{max: {}, on: [server], backoff: 1ms}}", again(), again()));
        let max = 1 + random.below(3);
        match random.below(8) {
            0 => parts.push(format!("repeat: {{max: {max}}}")),
            1 => parts.push(format!("repeat: {{until: this, max: {max}}}")),
            2 => parts.push("for_each: range(3), on_item_error: skip, output: this".to_owned()),
            3 => parts.push("for_each: range(3), on_item_error: drop, sequential: true".to_owned()),
            4 => parts.push("samples: 3, on_item_error: skip, stop_when: this | length > 1".to_owned()),
            _ => {}
        }
        let mut cases = Vec::new();
        if random.one_in(2) {
            cases.push(format!("{{to: n{}, max: {max}}}", random.below(index + 1)));
        }
        if index + 1 < count && random.one_in(2) {
            let below = |random: &mut Random| index + 1 + random.below(count - index - 1);
            cases.insert(0, format!("{{when: n{index} == true, to: n{}}}", below(random)));
            if random.one_in(2) {
                cases.push(format!("{{to: n{}}}", below(random)));
            }
        }
        if !cases.is_empty() {
            parts.push(format!("next: [{}]", cases.join(", ")));
        }
        text.push_str(&format!("  n{index}: {{{}}}\n", parts.join(", ")));
    }
    text + "output: {done: 1}\n"
}

async fn used(flowrun: &Flowrun, workflow: &Arc<Workflow>) -> (u128, u128, u128) {
    let watch = Arc::new(Watch::default());
    let mut options = RunOptions::default();
    options.observers.add(watch.clone());
    let outcome = flowrun.run(workflow, json!({}), options).await.unwrap();
    let used = watch.0.lock().unwrap();
    // The root is no step that `limits.steps` counts.
    (outcome.usage.calls.into(), used.steps.len() as u128 - 1, used.width as u128)
}

#[tokio::test]
async fn no_run_goes_beyond_its_cost() {
    let (mut ran, mut loops, mut exact) = (0, 0, [0; 3]);
    for seed in 0..600 {
        let mut random = Random(seed);
        // Where nothing is asked twice, the bound on calls can be reached.
        let reliable = random.one_in(2);
        let text = random_file(&mut random, reliable);
        let model = Whimsical { random: Mutex::new(random), reliable };
        let flowrun = Flowrun::builder().model("default", model).build();
        // Circles without a way in, and what else no flowchart can mean.
        let Ok(workflow) = flowrun.parse("w.yaml", &text) else { continue };
        let cost = Cost::of(&workflow, flowrun.kinds().specs(), &Map::new()).unwrap();
        let (calls, steps, width) = used(&flowrun, &workflow).await;
        let pairs = [(calls, cost.calls_with_retries.most), (steps, cost.steps.most), (width, cost.width.most)];
        for (index, (used, most)) in pairs.into_iter().enumerate() {
            assert!(used <= most, "seed {seed}: {pairs:?}\n{text}");
            exact[index] += u32::from(used == most);
        }
        ran += 1;
        loops += u32::from(workflow.graph.nodes().iter().any(|node| node.loops()));
    }
    let [calls, steps, width] = exact;
    assert!(ran > 200 && loops > 100 && calls > 20 && steps > 20 && width > 20, "{ran} {loops} {exact:?}");
}

#[tokio::test]
async fn recursion_costs_exactly_what_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let check = async |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let model = Scripted::parse("replies", "- {reply: yes}").unwrap();
        let flowrun = Flowrun::builder().model("default", model).build();
        let workflow = flowrun.load(&path).unwrap_or_else(|why| panic!("{}", why.report()));
        let cost = Cost::of(&workflow, flowrun.kinds().specs(), &Map::new()).unwrap();
        let (calls, steps, _) = used(&flowrun, &workflow).await;
        assert_eq!((calls, steps), (cost.calls.most, cost.steps.most), "{text}");
        calls
    };
    let called = |calls: &str| {
        format!(
            "flowrun: 1\nlimits: {{depth: 7}}\nnodes:\n  a: {{prompt: x, cache: off, retry: 0}}\n{calls}output: a\n"
        )
    };
    let twice = called(
        "  left: {workflow: twice.yaml, max_depth: 4, on_error: skip}\n  right: {workflow: twice.yaml, max_depth: 3, on_error: skip}\n",
    );
    assert_eq!(check("twice.yaml", &twice).await, 7 + 4);
    let mapped = called("  each: {for_each: [1, 2], workflow: mapped.yaml, on_item_error: skip}\n");
    assert_eq!(check("mapped.yaml", &mapped).await, 1 + 2 + 4 + 8);
    let once = called("  again: {workflow: once.yaml, on_error: skip}\n");
    assert_eq!(check("once.yaml", &once).await, 8);
}
