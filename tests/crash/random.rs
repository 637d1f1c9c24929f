//! Random moments of random workflows: each is run without accidents, then again with its processes killed whenever it happens to be,
//! and gone on with until it is over.
//!
//! `FLOWRUN_SOAK` is the number of workflows (30 if not set), `FLOWRUN_SOAK_SEED` runs a single one. A failure prints its seed and its
//! workflow.
#![allow(clippy::print_stderr, reason = "the figures and the seed of a failure are for people")]

use std::fmt::Write;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use flowrun::engine::testing::Random;

use super::bench::{Bench, Case, Open, kill, undisturbed};
use super::server::Server;

const WORKFLOWS: u64 = 30;
/// Workflows that are tried at a time.
const AT_ONCE: usize = 2;

/// What was done, for people.
#[derive(Default)]
struct Totals {
    workflows: u64,
    kills: u64,
    /// Processes that went on with a run that was killed.
    resumed: u64,
    calls: u64,
    /// Attempts that were in flight at a kill.
    open: u64,
}

/// A question that mentions what earlier nodes gave, with something special about one in three.
fn prompt(random: &mut Random, node: u64, more: &str) -> String {
    let mut text = format!("q{node} {more}");
    for _ in 0..random.below(3).min(node) {
        write!(text, " {{{{ n{} | default('-') }}}}", random.below(node)).unwrap();
    }
    let special = match random.below(9) {
        0 => " [fail 1]".to_owned(),
        1 => format!(" [slow {}]", random.below(40)),
        2 => " [say same]".to_owned(),
        3 if node > 0 => " [status 400]".to_owned(),
        _ => String::new(),
    };
    text + &special
}

fn fields(random: &mut Random, prompt: &str) -> String {
    let backoff = 1 + random.below(40);
    let cache = ["", "", "", "cache: run, ", "cache: off, "][random.below(5) as usize];
    format!("prompt: \"{prompt}\", {cache}retry: {{max: 2, backoff: {backoff}ms}}, on_error: skip")
}

fn node(random: &mut Random, number: u64) -> String {
    let kind = random.below(9);
    let more = match kind {
        1 | 2 => "{{ item }}".to_owned(),
        3 => format!("{{{{ last.n{number} | default('-') }}}}"),
        _ => String::new(),
    };
    let mut text = prompt(random, number, &more);
    if matches!(kind, 1 | 4) {
        // The first item that fails stops the others; whether an equal question had been sent by then is a matter of luck.
        text = text.replace(" [status 400]", "");
    }
    let fields = fields(random, &text);
    match kind {
        // Of three items two are the same question.
        1 => format!("{{for_each: '[\"a\", \"a\", \"b\", \"c\"]', {fields}}}"),
        2 => format!("{{for_each: '[1, 2, 3]', sequential: true, {fields}}}"),
        3 => format!("{{repeat: {{max: {}}}, {fields}}}", 2 + random.below(2)),
        4 => format!("{{samples: {}, params: {{temperature: 1}}, {fields}}}", 2 + random.below(2)),
        5 => format!(
            "{{nodes: {{x: {{{fields}}}, y: {{prompt: \"inner {{{{ x | default('-') }}}}\", on_error: skip}}}}, on_error: skip}}"
        ),
        6 if number > 0 => {
            let guard = format!("(n{} | default('-') | length) > {}", random.below(number), 1 + random.below(12));
            format!("{{when: \"{guard}\", {fields}}}")
        }
        7 if number > 0 => format!("{{value: \"n{} | default('-')\"}}", random.below(number)),
        8 if random.one_in(3) => "{kind: human, prompt: \"Well?\", schema: integer}".to_owned(),
        _ => format!("{{{fields}}}"),
    }
}

fn case(seed: u64) -> Case {
    let mut random = Random(seed);
    let count = 3 + random.below(6);
    let mut text = "flowrun: 1\nnodes:\n".to_owned();
    for number in 0..count {
        writeln!(text, "  n{number}: {}", node(&mut random, number)).unwrap();
    }
    let all: Vec<String> = (0..count).map(|number| format!("\"n{number} | default('-')\"")).collect();
    writeln!(text, "output: [{}]", all.join(", ")).unwrap();
    let names = ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"];
    Case { answers: names.map(|name| (name, "7")).to_vec(), ..Case::new(&text) }
}

/// One workflow, killed up to three times.
fn survives(seed: u64, case: &Case, totals: &Mutex<Totals>) {
    let began = Instant::now();
    let (expected, calls) = undisturbed(case);
    let wall_us = began.elapsed().as_micros() as u64;
    let mut random = Random(seed ^ 0xDEAD);
    let bench = Bench::new(case, Server::open(&case.script));
    let what = format!("seed {seed}");
    let (mut open, mut kills, mut begun) = (Open::new(), 0, 0);
    for _ in 0..3 {
        let Some(mut command) = bench.go_on() else { break };
        begun += 1;
        let mut child = command.spawn().unwrap();
        thread::sleep(Duration::from_micros(random.below(wall_us)));
        if child.try_wait().unwrap().is_none() {
            kill(child);
            kills += 1;
            bench.add_open(&mut open, &what);
        }
    }
    assert_eq!(bench.conclude(), expected, "{what}");
    let lost = bench.prompts_of(&open);
    bench.assert_paid_once(&calls, &lost, &what);
    let mut totals = totals.lock().unwrap();
    totals.workflows += 1;
    totals.kills += kills;
    totals.resumed += begun - 1;
    totals.calls += bench.server.calls().values().sum::<u64>();
    totals.open += open.len() as u64;
}

#[test]
fn random_workflows_survive_random_moments() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("FLOWRUN_SOAK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FLOWRUN_SOAK").unwrap_or(WORKFLOWS),
    };
    let (totals, next, began) = (Mutex::<Totals>::default(), Mutex::new(seeds.clone()), Instant::now());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(seed) = { next.lock().unwrap().next() } {
                    let case = case(seed);
                    let tried = std::panic::catch_unwind(|| survives(seed, &case, &totals));
                    assert!(tried.is_ok(), "FLOWRUN_SOAK_SEED={seed} fails:\n{}", case.workflow);
                }
            });
        }
    });
    let Totals { workflows, kills, resumed, calls, open } = totals.into_inner().unwrap();
    eprintln!(
        "{workflows} workflows, {kills} kills, {resumed} times gone on, {calls} calls, {open} attempts cut off, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let all = seeds.end - seeds.start;
    assert!(workflows == all && (all < 10 || kills > all / 2), "{kills} kills in {workflows} of {all} workflows");
}
