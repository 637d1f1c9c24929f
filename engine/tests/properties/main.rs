//! Property tests of the four readers: workflow files, expressions, plans of models, logs.
//!
//! What must hold is said in `engine/src/testing/readers.rs`, which the fuzz targets share. Here are the texts: seeds (the corpus of
//! the fuzz targets, the library, the examples and the refused files of `tests/diagnostics`) with random edits, and values that
//! are built. Each test goes on for `FLOWRUN_PROPERTY_SECONDS` (2 if not set), in batches whose seeds count up from
//! `FLOWRUN_PROPERTY_SEED` (0), so that the same code sees the same texts. A failure prints its smallest text and its seed.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the figures and the seed of a failure are for people")]
#![allow(clippy::disallowed_methods, reason = "how long to go on; no verdict depends on it")]

mod arithmetic;
mod texts;
mod values;

use std::cell::Cell;
use std::sync::Once;
use std::time::{Duration, Instant};

use flowrun_engine::dialect::{Dialect, worked_examples};
use flowrun_engine::event::{Record, Writer};
use flowrun_engine::id::StepId;
use flowrun_engine::testing::prove::{self, FREE, Totals};
use flowrun_engine::testing::{drive, readers, world::World};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use arithmetic::arithmetic;
use texts::{EXPRESSION_WORDS, FILE_WORDS, LOG_WORDS, PLAN_WORDS, seeds, texts};
use values::{definitions, plans, scopes, values};

/// Cases of a batch.
const BATCH: u32 = 32;

thread_local! {
    /// Whether panics of this thread are expected to be caught, and need not be told.
    static SHRINKING: Cell<bool> = const { Cell::new(false) };
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs batches of cases until the time is over. How many cases there were.
fn hold<S: Strategy>(name: &str, cases: &S, property: impl Fn(S::Value)) -> u32 {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !SHRINKING.get() {
                tell(panic);
            }
        }));
    });
    let limit = Duration::from_secs(number("FLOWRUN_PROPERTY_SECONDS").unwrap_or(2));
    let first = number("FLOWRUN_PROPERTY_SEED").unwrap_or(0);
    let started = Instant::now();
    let mut run = 0;
    for seed in first.. {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config { cases: BATCH, failure_persistence: None, max_shrink_iters: 5_000, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        SHRINKING.set(true);
        let result = runner.run(cases, |case| {
            property(case);
            Ok(())
        });
        SHRINKING.set(false);
        if let Err(failure) = result {
            panic!("{name}: {failure}\nFLOWRUN_PROPERTY_SEED={seed} shows it again");
        }
        run += BATCH;
        if started.elapsed() >= limit {
            break;
        }
    }
    println!("{name}: {run} cases in {:.1} s", started.elapsed().as_secs_f64());
    run
}

#[test]
fn any_text_is_a_workflow_or_is_refused_with_places() {
    let folders = ["workflows", "examples", "tests/diagnostics", "tests/graphs"];
    let mut seeds = seeds(&folders, ".yaml");
    seeds.extend(texts::seeds(&["fuzz/corpus/parse"], ""));
    let (accepted, built) = (Cell::new(0), Cell::new(0));
    let cases = prop_oneof![3 => texts(seeds, FILE_WORDS).prop_map(Ok), 1 => definitions().prop_map(Err)];
    hold("workflow files", &cases, |case| match case {
        Ok(text) => drop(readers::workflow(&text)),
        Err(definition) => {
            built.set(built.get() + 1);
            accepted.set(accepted.get() + u32::from(readers::definition(&definition)));
        }
    });
    println!("of {} definitions that were built {} check", built.get(), accepted.get());
    assert!(accepted.get() * 3 >= built.get(), "too few of what is built checks: {accepted:?} of {built:?}");
}

#[test]
fn any_text_is_an_expression_or_is_refused_with_its_range() {
    let seeds = seeds(&["fuzz/corpus/expression"], "");
    let cases = prop_oneof![
        3 => (texts(seeds, EXPRESSION_WORDS), scopes()).prop_map(Ok),
        1 => arithmetic().prop_map(Err),
    ];
    hold("expressions", &cases, |case| match case {
        Ok((text, Some(names))) => readers::expression(&text, &names),
        Ok((text, None)) => readers::expression_in_scope(&text),
        Err(formula) => formula.check(),
    });
}

#[test]
fn any_plan_checks_or_is_refused() {
    let mut seeds = seeds(&["fuzz/corpus/plan"], "");
    let examples = [Dialect::Graph, Dialect::Flowchart].into_iter().flat_map(|dialect| worked_examples(dialect, 5));
    seeds.extend(examples.map(|(_, plan)| plan.to_string()));
    let accepted = Cell::new(0);
    let cases = prop_oneof![2 => texts(seeds, PLAN_WORDS).prop_map(Ok), 1 => plans().prop_map(Err), 1 => values().prop_map(Err)];
    let run = hold("plans", &cases, |case| {
        let checks = match case {
            Ok(text) => readers::plan(&text),
            Err(value) => readers::plan_value(&value),
        };
        accepted.set(accepted.get() + u32::from(checks));
    });
    println!("{} of them check", accepted.get());
    assert!(accepted.get() > 0 || run < 500, "no plan was accepted");
}

#[test]
fn any_log_is_read_as_far_as_it_stands() {
    let mut seeds = seeds(&["fuzz/corpus/log"], "");
    seeds.extend((0..5).map(written_log));
    let written = (any::<u64>(),).prop_map(|(seed,)| Err(seed));
    let cases = prop_oneof![20 => texts(seeds, LOG_WORDS).prop_map(Ok), 1 => written];
    hold("logs", &cases, |case| match case {
        Ok(text) => drop(readers::log(&text)),
        Err(seed) => {
            let text = written_log(seed);
            let read = readers::log(&text);
            assert_eq!(read.len(), text.lines().count(), "what was written is read");
            assert!(read.iter().zip(0..).all(|(line, at)| line.sequence == at && line.time_us == 7 * at), "{text}");
        }
    });
}

/// The log of a simulated run: what came from outside.
fn written_log(seed: u64) -> String {
    let plan = drive::Plan { max_parallel: 3, order: seed, steps_max: 200, keep: 1, ..FREE };
    let (program, _) = prove::program(seed, &mut Totals::default()).expect("a program");
    let driven = drive::run(&program.check().expect("a program that checks"), &World::new(seed), &plan);
    let mut writer = Writer::default();
    let mut text = String::new();
    for (sequence, (event, _)) in (0..).zip(driven.log.into_iter().take(30)) {
        let path = event.step().map_or(String::new(), |step| format!("n{}/x[0]", step.0));
        let record = Record { sequence, time_us: 7 * sequence, path: path.into(), around: StepId::ROOT, event };
        text += &format!("{}\n", writer.json(&record));
    }
    text
}
