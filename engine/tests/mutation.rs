//! Faults planted in the scheduler, one by one: the simulation must find each of them.

#![allow(clippy::print_stderr, reason = "which workflow found a fault is for people")]

use flowrun_engine::fault::{self, Fault};
use flowrun_engine::testing::prove::{self, Totals};

/// Most workflows that a fault may survive.
const WORKFLOWS_MAX: u64 = 3_000;

/// The seed that finds the fault, if one does.
fn caught(planted: Fault) -> Option<u64> {
    (0..WORKFLOWS_MAX).find(|seed| {
        let (program, flavour) = prove::program(*seed, &mut Totals::default()).expect("a program");
        fault::plant(Some(planted));
        let found = prove::failure(&program, *seed, flavour);
        fault::plant(None);
        found.is_some()
    })
}

#[test]
#[cfg_attr(debug_assertions, ignore = "minutes without optimisation")]
fn every_planted_fault_is_caught() {
    let mut survivors = Vec::new();
    for planted in Fault::ALL {
        match caught(*planted) {
            Some(seed) => eprintln!("{planted:?}: seed {seed}"),
            None => survivors.push(planted),
        }
    }
    assert!(survivors.is_empty(), "nothing found {survivors:?}");
}

#[test]
fn what_shows_a_fault_is_made_small() {
    let planted = Fault::DroppedIsNull;
    let seed = caught(planted).expect("a fault that is found");
    fault::plant(Some(planted));
    let failure = prove::seed(seed, &mut Totals::default());
    fault::plant(None);
    let text = failure.expect("a failure that is shown again");
    let nodes = text.matches("kind: ").count();
    assert!(text.contains(&format!("FLOWRUN_SIM_SEED={seed}")) && text.contains("on_item_error: drop"), "{text}");
    assert!(nodes <= 2, "{nodes} nodes:\n{text}");
}
