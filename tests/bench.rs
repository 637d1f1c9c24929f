//! The bench door: every workload gives the number that its definition demands, and says so in the agreed form.

use std::process::Command;

use serde_json::{Value, json};

fn bench(workload: &str, n: u32, more: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowrun"));
    command.args(["bench", "--workload", workload, "--n", &n.to_string(), "--executions", "1", "--json"]).args(more);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{workload}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// The sum of the layered graph's values, by the plainest way from its definition.
fn layered(n: u64) -> u64 {
    let (width, mut state) = ((n / 20).max(1), 42u64);
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut values: Vec<u64> = Vec::new();
    for node in 0..n {
        let layer = node / width;
        let mut sources = std::collections::BTreeSet::new();
        if layer > 0 {
            let before = (layer - 1) * width;
            sources.extend([before + draw() % width, before + draw() % width]);
            sources.insert(draw() % (layer * width));
        }
        draw();
        let sum: u64 = sources.iter().map(|source| values[*source as usize]).sum();
        values.push((1 + sum) % 1_000_003);
    }
    values.iter().sum::<u64>() % 1_000_003
}

#[test]
fn every_workload_gives_its_number() {
    assert_eq!((layered(100), layered(1_000)), (269_483, 254_429));
    for (workload, n, nodes, result) in [
        ("W1", 1, 1, 1),
        ("W1", 300, 300, 300),
        ("W2", 50, 52, 52),
        ("W3", 100, 100, layered(100)),
        ("W3", 200, 200, layered(200)),
        ("W4", 200, 200, 200),
        ("W5", 1, 23, 29),
        ("W6", 20, 100, 100),
        ("W8", 1, 1, 1),
    ] {
        let line = bench(workload, n, &[]);
        assert_eq!((&line["nodes"], &line["result"]), (&json!(nodes), &json!(result)), "{workload} n={n}");
        assert!(line["seconds"].as_f64().unwrap() > 0.0 && line["samples"].as_array().unwrap().len() == 1);
    }
    assert_eq!(bench("W2", 10, &["--body", "sleep"])["result"], 12);
    assert!(bench("W8", 1, &[])["first_node_unix"].as_f64().unwrap() > 1.7e9);
}

#[test]
fn durable_runs_are_there_when_they_have_ended() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bench.db");
    let line = bench("W7", 20, &["--db", db.to_str().unwrap(), "--runs", "3", "--durability", "normal"]);
    assert_eq!((line["result"].as_u64(), line["nodes"].as_u64()), (Some(60), Some(60)), "{line}");
    assert!(line["note"].as_str().unwrap().contains("durability normal"), "{line}");
    let store = flowrun::SqliteStore::open_to_read(&db).unwrap();
    let runs = flowrun::engine::store::Store::runs(&store).unwrap();
    // One execution warms up and does not count.
    assert!(runs.len() == 6 && runs.iter().all(|run| run.summary.as_ref().is_some_and(|summary| summary.steps == 20)));
}

#[test]
fn what_the_engine_has_no_means_for_is_said() {
    let line = bench("W0", 10, &[]);
    assert!(line["unsupported"].as_str().is_some_and(|why| !why.is_empty()), "{line}");
}
