//! The simulation: random workflows, run under several completion orders and limits, against the naive reference.
//!
//! `FLOWRUN_SIM` is the number of workflows (500 if not set), `FLOWRUN_SIM_FROM` the first seed, `FLOWRUN_SIM_SEED` runs a single one,
//! `FLOWRUN_SIM_FAILURES` is how many failures are gathered before it ends (1). Every run checks: the same status, output, needed
//! steps and inputs as the reference, whatever the order and the limit; every step ends exactly once; no run hangs; never more at
//! once than allowed; a lost race is over; and that folding a prefix of the log rebuilds the scheduler exactly.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the figures and the seed of a failure are for people")]
#![allow(clippy::disallowed_methods, reason = "the time it took is for people, no test depends on it")]

use flowrun_engine::testing::prove::{self, Totals};

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
    }
}
