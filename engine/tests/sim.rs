//! The simulation: random workflows, run under several completion orders and limits, against the naive reference.
//!
//! `FLOWRUN_SIM` is the number of workflows (500 if not set), `FLOWRUN_SIM_FROM` the first seed, `FLOWRUN_SIM_SEED` runs a single one,
//! `FLOWRUN_SIM_FAILURES` is how many failures are gathered before it ends (1). Every run checks: the same status, output, needed
//! steps and inputs as the reference, whatever the order and the limit, also where answers are found and drivers die; every step ends
//! exactly once; no run hangs; never more at once than allowed, and never less; a lost race is over; what was paid adds up; and that
//! folding a prefix of the log rebuilds the scheduler exactly, also from the form in which it is written.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the figures and the seed of a failure are for people")]
#![allow(clippy::disallowed_methods, reason = "the time it took is for people, no test depends on it")]

use flowrun_engine::testing::prove::{self, Totals};

/// What the logs that are written and read back tell of: every kind of event, with what was decided, how it ended, what ran out.
const TOLD: [&str; 40] = [
    "run_started ", "decided guard", "decided counts", "decided items", "decided input", "decided graph",
    "decided value", "decided stop", "decided again", "decided route", "decided default", "decided error_value",
    "decided best_output", "settled ", "timer backoff", "timer timeout", "timer grace", "answered ", "missed ",
    "attached ", "cancel ", "ready ", "suspended ", "pass_ended again", "pass_ended done", "pass_ended exit",
    "pass_ended no_edge", "pass_ended limit", "unused ", "started ", "backoff ", "frame_opened ", "ended succeeded",
    "ended failed", "ended skipped", "ended cancelled", "run_ended success", "run_ended failed", "run_ended exhausted",
    "run_ended cancelled",
];

#[test]
fn random_workflows_agree_with_the_reference() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let started = std::time::Instant::now();
    let mut totals = Totals::default();
    let seeds = match number("FLOWRUN_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let from = number("FLOWRUN_SIM_FROM").unwrap_or(0);
            from..from + number("FLOWRUN_SIM").unwrap_or(500)
        }
    };
    let mut failures = Vec::new();
    let most = number("FLOWRUN_SIM_FAILURES").unwrap_or(1);
    for seed in seeds {
        failures.extend(prove::seed(seed, &mut totals));
        if failures.len() as u64 >= most {
            break;
        }
    }
    println!("{totals} in {:.1} s", started.elapsed().as_secs_f64());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    if totals.workflows >= 500 {
        let missing = totals.missing_transitions();
        assert!(missing.is_empty(), "legal transitions that no run made: {missing:?}");
        let untold: Vec<&str> = TOLD.into_iter().filter(|what| !totals.told.contains(*what)).collect();
        assert!(untold.is_empty(), "nothing that a written log told of: {untold:?}");
    }
}
