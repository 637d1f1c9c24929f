//! The naive reference against accounts that were worked out by hand, and the scheduler against both.
//!
//! An account has a line for every leaf that was needed: its path, and for what it read the step that the value came from.

use std::collections::BTreeMap;

use flowrun_engine::definition::{Join, Need};
use flowrun_engine::testing::drive::{self, Plan};
use flowrun_engine::testing::oracle::{self, Account};
use flowrun_engine::testing::prove::FREE;
use flowrun_engine::testing::spec::{Case, Counted, Each, Kind, Level, NodeSpec, Policy, Program, Read, Repeat};
use flowrun_engine::testing::world::{Script, World};
use serde_json::{Value, json};

/// `a b? last.c error.d =item`: required, optional, history, error, always there.
fn reads(text: &str) -> Vec<Read> {
    let read = |word: &str| match word.split_once('.') {
        Some(("last", name)) => Read::Last(name.into()),
        Some(("past", name)) => Read::Past(name.into()),
        Some(("error", name)) => Read::Error(name.into()),
        _ if word.starts_with('=') => Read::Given(word[1..].into()),
        _ => word.strip_suffix('?').map_or(Read::Plain(word.into()), |name| Read::Default(name.into())),
    };
    text.split_whitespace().map(read).collect()
}

/// `?x,y max 2 fail`: under a condition, to both, at most twice, a spent edge fails.
fn case(text: &str) -> Case {
    let words: Vec<&str> = text.split_whitespace().collect();
    let after = |word: &str| words.iter().position(|known| *known == word).map(|at| words.get(at + 1));
    Case {
        when: words[0].starts_with('?').then(Vec::new),
        to: words[0].trim_start_matches('?').split(',').map(str::to_owned).collect(),
        max: after("max").flatten().map(|max| Counted { count: max.parse().expect("a number"), asked: false }),
        fails: after("fail").is_some(),
    }
}

fn leaf(name: &str, mentions: &str, next: &[&str]) -> NodeSpec {
    let next = next.iter().map(|text| case(text)).collect();
    NodeSpec { reads: reads(mentions), next, ..NodeSpec::new(name, Kind::Leaf) }
}

fn group(name: &str, nodes: Vec<NodeSpec>) -> NodeSpec {
    NodeSpec::new(name, Kind::Group(Level { nodes, ..Level::default() }))
}

fn for_each(node: NodeSpec) -> NodeSpec {
    let each = Each { reads: Vec::new(), item: "item".into(), index: "index".into(), sequential: false };
    NodeSpec { each: Some(each), ..node }
}

fn in_turn(node: NodeSpec) -> NodeSpec {
    let node = for_each(node);
    NodeSpec { each: node.each.map(|each| Each { sequential: true, ..each }), ..node }
}

fn joined(node: NodeSpec, join: Join) -> NodeSpec {
    NodeSpec { join: Some(join), ..node }
}

fn tolerant(node: NodeSpec) -> NodeSpec {
    NodeSpec { on_error: Policy::Skip, ..node }
}

fn program(nodes: Vec<NodeSpec>) -> Program {
    Program { root: Level { nodes, ..Level::default() }, called: Vec::new(), drawn: Vec::new() }
}

/// The account as text.
fn text(account: &Account) -> Vec<String> {
    let made = account.needed.iter().map(|(path, saw)| (json!(World::made("leaf", path, saw)), path.clone()));
    let names: BTreeMap<String, String> = made.map(|(value, path)| (value.to_string(), path)).collect();
    let shown = |value: &Value| match value {
        Value::Array(values) => values.iter().map(|value| name(&names, value)).collect::<Vec<_>>().join("+"),
        other => name(&names, other),
    };
    let line = |(path, saw): (&String, &Value)| {
        let saw =
            saw.as_object().expect("a map of names").iter().map(|(key, value)| format!(" {key}={}", shown(value)));
        format!("{path}:{}", saw.collect::<String>())
    };
    account.needed.iter().map(line).collect()
}

/// The step that a value comes from; `*` for one of a list, a frame or a place in an error's stead.
fn name(names: &BTreeMap<String, String>, value: &Value) -> String {
    match (names.get(&value.to_string()), value) {
        (Some(step), _) => step.clone(),
        (None, Value::String(text)) if text.len() == 64 => "*".into(),
        (None, Value::String(text)) => text.clone(),
        (None, other) => other.to_string(),
    }
}

fn check(program: &Program, script: Script, expected: &[&str]) {
    let world = World::scripted(script);
    let account = oracle::run(program, &world).expect("a small program");
    assert_eq!(text(&account), expected, "the reference:\n{}", program.to_yaml());
    assert!(account.output.is_some(), "the run succeeds");
    let checked = program.check().unwrap_or_else(|problems| panic!("{problems:?}\n{}", program.to_yaml()));
    for (max_parallel, order) in [(1, 0), (2, 1), (16, 2)] {
        let driven = drive::run(&checked, &world, &Plan { max_parallel, order, ..FREE });
        assert_eq!(text(&driven.account), expected, "the scheduler with {max_parallel} at once");
        assert_eq!(driven.account.output, account.output);
    }
}

fn fails(program: &Program, script: Script) {
    let world = World::scripted(script);
    assert_eq!(oracle::run(program, &world).expect("a small program").output, None, "{}", program.to_yaml());
    let driven = drive::run(&program.check().expect("a program that checks"), &world, &FREE);
    assert_eq!(driven.ended.output, None);
}

#[test]
fn two_branches_meet_although_one_is_skipped() {
    let nodes =
        vec![leaf("a", "", &["?b", "c"]), leaf("b", "", &["d"]), leaf("c", "", &["d"]), leaf("d", "a b c", &[])];
    let script: Script = |what, path, case| (what == "route" && path == "a" && case == 0).then_some(0);
    check(&program(nodes), script, &["a:", "c:", "d: a=a b=null c=c"]);
}

#[test]
fn what_requires_a_skipped_branch_is_skipped_with_all_that_follows() {
    let nodes = vec![
        leaf("a", "", &["?b", "c"]),
        leaf("b", "", &[]),
        leaf("c", "", &[]),
        leaf("d", "b", &["e"]),
        leaf("e", "", &[]),
        leaf("f", "d? c", &[]),
    ];
    let script: Script = |what, _, case| (what == "route" && case == 0).then_some(0);
    check(&program(nodes), script, &["a:", "c:", "f: c=c d=null"]);
}

#[test]
fn a_fork_and_a_join_inside_of_a_loop() {
    let nodes = vec![
        leaf("h", "last.t", &["x,y"]),
        leaf("x", "h", &["t"]),
        leaf("y", "h", &["t"]),
        joined(leaf("t", "x y", &["?h max 5", "z"]), Join::All),
        leaf("z", "t", &[]),
    ];
    let script: Script = |what, path, case| (what == "route" && path == "t#1" && case == 0).then_some(0);
    let expected = [
        "h#0: last.t=null", "h#1: last.t=t#0", "t#0: x=x#0 y=y#0", "t#1: x=x#1 y=y#1", "x#0: h=h#0", "x#1: h=h#1",
        "y#0: h=h#0", "y#1: h=h#1", "z: t=t#1",
    ];
    check(&program(nodes), script, &expected);
}

#[test]
fn a_loop_in_a_loop_starts_afresh_and_is_left_past_both() {
    let nodes = vec![
        leaf("o", "=pass", &["i"]),
        leaf("i", "=pass past.i", &["?z", "t"]),
        leaf("t", "", &["?i max 1", "o max 3"]),
        leaf("z", "i", &[]),
    ];
    // Leaves in the second inner pass of the second outer one.
    let script: Script = |what, path, case| {
        (what == "route" && case == 0).then_some(u64::from(path == "i#1.1" || path.starts_with('t')))
    };
    let expected = [
        "i#0.0: pass=0+0 past.i=",
        "i#0.1: pass=0+1 past.i=i#0.0",
        "i#1.0: pass=1+0 past.i=",
        "i#1.1: pass=1+1 past.i=i#1.0",
        "o#0: pass=0",
        "o#1: pass=1",
        "t#0.0:",
        "t#0.1:",
        "t#1.0:",
        "z: i=i#1.1",
    ];
    check(&program(nodes), script, &expected);
}

#[test]
fn an_exit_beats_another_pass() {
    let nodes =
        vec![leaf("h", "", &["t"]), leaf("m", "h", &["?z"]), leaf("t", "m?", &["h max 5"]), leaf("z", "t", &[])];
    let script: Script = |what, path, _| (what == "route").then_some(u64::from(path == "m#2"));
    let expected = [
        "h#0:", "h#1:", "h#2:", "m#0: h=h#0", "m#1: h=h#1", "m#2: h=h#2", "t#0: m=m#0", "t#1: m=m#1", "t#2: m=m#2",
        "z: t=t#2",
    ];
    check(&program(nodes), script, &expected);
}

#[test]
fn a_spent_edge_gives_way_to_the_next_case_or_fails() {
    let nodes = |next: &[&str]| vec![leaf("h", "=iteration", next), leaf("z", "h", &[])];
    check(&program(nodes(&["h max 1", "z"])), |_, _, _| None, &["h#0: iteration=0", "h#1: iteration=1", "z: h=h#1"]);
    fails(&program(nodes(&["h max 1 fail", "z"])), |_, _, _| None);
    let tolerated = vec![tolerant(leaf("h", "", &["h max 1 fail"])), leaf("z", "h? error.h", &[])];
    check(&program(tolerated), |_, _, _| None, &["h#0:", "z: error.h=error h=null"]);
}

#[test]
fn a_map_inside_of_a_loop_inside_of_a_map() {
    let inner = vec![for_each(leaf("x", "=item", &[])), leaf("t", "x last.x", &[])];
    let looped = NodeSpec {
        repeat: Some(Repeat { until: None, max: Counted { count: 2, asked: false }, fails: false }),
        ..group("g", inner)
    };
    let script: Script = |what, path, _| (what == "items" && path.len() > 3).then_some(1);
    let expected = [
        "m[0]/g#0/t: last.x=null x=*",
        "m[0]/g#0/x[0]: item=*+0",
        "m[0]/g#1/t: last.x=* x=*",
        "m[0]/g#1/x[0]: item=*+0",
        "m[1]/g#0/t: last.x=null x=*",
        "m[1]/g#0/x[0]: item=*+0",
        "m[1]/g#1/t: last.x=* x=*",
        "m[1]/g#1/x[0]: item=*+0",
    ];
    check(&program(vec![for_each(group("m", vec![looped]))]), script, &expected);
}

#[test]
fn a_failed_item_counts_against_the_quorum() {
    let node = |count| NodeSpec { quorum: Some(Counted { count, asked: false }), ..for_each(leaf("m", "", &[])) };
    let script: Script = |what, path, _| match what {
        "items" => Some(3),
        "attempt" if path == "m[1]" => Some(0),
        _ => None,
    };
    check(&program(vec![node(2), leaf("z", "m", &[])]), script, &["m[0]:", "m[2]:", "z: m=*"]);
    fails(&program(vec![node(3), leaf("z", "m", &[])]), script);
}

#[test]
fn a_fold_sees_what_was_before_and_stops_at_the_shortest_prefix() {
    let node = NodeSpec { stop: Some(Vec::new()), ..in_turn(leaf("f", "last.f past.f", &[])) };
    let script: Script = |what, path, number| match what {
        "items" => Some(5),
        "attempt" if path == "f[1]" => Some(0),
        "stop" => Some(u64::from(number == 3)),
        _ => None,
    };
    let dropped = NodeSpec { on_item_error: Policy::Drop, ..node };
    let expected = ["f[0]: last.f=null past.f=", "f[2]: last.f=null past.f=f[0]+null"];
    check(&program(vec![dropped]), script, &expected);
}

#[test]
fn an_expansion_inside_of_a_loop_draws_another_graph_each_time() {
    let level = |name: &str| Level { nodes: vec![leaf(name, "", &[])], ..Level::default() };
    let expand = NodeSpec { next: vec![case("e max 1")], ..NodeSpec::new("e", Kind::Expand) };
    let program = Program { drawn: vec![level("p"), level("q")], ..program(vec![expand]) };
    let script: Script = |what, path, _| (what == "graph").then_some(u64::from(path == "e#1"));
    check(&program, script, &["e#0/p:", "e#1/q:"]);
}

#[test]
fn a_recursion_ends_at_its_bound_with_a_partial_answer() {
    let call = |name: &str, max_depth| NodeSpec::new(name, Kind::Call { workflow: 0, max_depth });
    let level = Level {
        nodes: vec![leaf("p", "", &[]), tolerant(call("r", Some(3))), leaf("q", "p r?", &[])],
        output: Some(reads("q")),
        ..Level::default()
    };
    let program = Program { called: vec![level], ..program(vec![call("c", None)]) };
    let expected = ["c/p:", "c/q: p=c/p r=*", "c/r/p:", "c/r/q: p=c/r/p r=*", "c/r/r/p:", "c/r/r/q: p=c/r/r/p r=null"];
    check(&program, |_, _, _| None, &expected);
}

#[test]
fn what_took_the_place_of_an_error_is_read_and_is_no_history() {
    let nodes =
        vec![NodeSpec { on_error: Policy::Value, ..leaf("h", "last.h", &["t"]) }, leaf("t", "h error.h", &["h max 2"])];
    let script: Script = |what, path, _| (what == "attempt" && path == "h#0").then_some(0);
    let expected = [
        "h#1: last.h=null",
        "h#2: last.h=h#1",
        "t#0: error.h=error h=*",
        "t#1: error.h=null h=h#1",
        "t#2: error.h=null h=h#2",
    ];
    check(&program(nodes), script, &expected);
}

#[test]
fn a_failure_leads_elsewhere() {
    let nodes = vec![
        NodeSpec { on_error: Policy::To("c".into()), ..leaf("a", "", &["b"]) },
        leaf("b", "a", &[]),
        leaf("c", "error.a", &[]),
    ];
    check(&program(nodes.clone()), |_, _, _| None, &["a:", "b: a=a"]);
    check(&program(nodes), |what, path, _| (what == "attempt" && path == "a").then_some(0), &["c: error.a=error"]);
}

#[test]
fn joins_count_needs_where_there_are_no_edges() {
    let need = |name: &str| Need { name: name.into(), optional: false };
    let three = ["a", "b", "c"].map(|name| tolerant(leaf(name, "", &[])));
    let of = |join| NodeSpec { needs: ["a", "b", "c"].map(need).into(), join: Some(join), ..leaf("z", "a b c", &[]) };
    let program = |join| program(three.iter().cloned().chain([of(join)]).collect());
    let script: Script = |what, path, _| (what == "attempt" && path != "b" && path != "z").then_some(0);
    check(&program(Join::Any), script, &["b:", "z: a=null b=b c=null"]);
    check(&program(Join::Quorum(2)), script, &["b:"]);
    check(&program(Join::All), script, &["b:"]);
}

#[test]
fn a_group_without_what_its_output_requires_is_skipped() {
    let inner = vec![leaf("x", "", &[]), NodeSpec { when: Some(Vec::new()), ..leaf("y", "x", &[]) }];
    let level = Level { nodes: inner, output: Some(reads("y x?")), ..Level::default() };
    let nodes = vec![for_each(NodeSpec::new("g", Kind::Group(level.clone()))), leaf("z", "g", &[])];
    let script: Script = |what, _, _| (what == "guard").then_some(0);
    check(&program(nodes), script, &["g[0]/x:", "g[1]/x:", "z: g=*"]);
    let nodes = vec![NodeSpec::new("g", Kind::Group(level)), leaf("z", "g", &[]), leaf("w", "g?", &[])];
    check(&program(nodes), script, &["g/x:", "w: g=null"]);
}
