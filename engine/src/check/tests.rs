//! Dependencies, captures and requiredness as the checker infers them.

use std::sync::Arc;

use super::*;
use crate::definition::CacheScope;
use crate::dialect::Dialect;
use crate::graph::{DependencyMode, Work};

mod answers;

fn kinds() -> BTreeMap<String, Arc<KindSpec>> {
    let llm = KindSpec {
        work_keys: vec!["prompt".into(), "ask".into()],
        calls_model: true,
        cache: CacheScope::Shared,
        samples: true,
        ..KindSpec::leaf("llm")
    }
    .field("prompt", FieldFormat::Template, "the question")
    .field("ask", FieldFormat::Slotted, "the question, literal")
    .field("params", FieldFormat::Map, "sampling")
    .field("system", FieldFormat::Template, "the role");
    let plan = KindSpec { calls_model: true, cache: CacheScope::Shared, ..KindSpec::leaf("plan") }
        .required("prompt", FieldFormat::Template, "the question")
        .field("with", FieldFormat::ExpressionOrNames, "names that texts may mention")
        .field("combine", FieldFormat::Flag, "whether `answer` is appended")
        .field("max_steps", FieldFormat::Count, "most steps")
        .field("fallback", FieldFormat::Literal, "a plan");
    builtin_kinds().into_iter().chain([llm, plan]).map(|spec| (spec.name.clone(), Arc::new(spec))).collect()
}

fn workflow(nodes: &str) -> Arc<Workflow> {
    let text = format!("flowrun: 1\ninputs: {{q: any = 1}}\nnodes:\n{nodes}");
    let checked = check_text("t.yaml", &text, &kinds(), &NoLibrary);
    checked.unwrap_or_else(|refused| panic!("{:#?}", refused.diagnostics)).0.workflow
}

fn codes_of(nodes: &str) -> Vec<&'static str> {
    let text = format!("flowrun: 1\nnodes:\n{nodes}");
    match check_text("t.yaml", &text, &kinds(), &NoLibrary) {
        Ok((checked, _)) => checked.warnings.iter().map(|warning| warning.code.0).collect(),
        Err(refused) => refused.diagnostics.iter().map(|problem| problem.code.0).collect(),
    }
}

fn sources(graph: &Graph, name: &str) -> Vec<(String, DependencyMode)> {
    let node = graph.node(graph.find(name).unwrap());
    node.dependencies.iter().map(|d| (graph.node(d.source).name.to_string(), d.mode)).collect()
}

#[test]
fn references_become_dependencies() {
    use DependencyMode::*;
    let w = workflow(
        "  a: {value: q}\n  b: {value: a}\n  c: {needs: ['b?'], value: 'b | default(a)'}\n  d: {value: 'b | default(1)'}\n  e: {ask: 'Is {a} {x} here?', needs: [d]}\n  x: {calc: '{a} + 1'}\n",
    );
    assert_eq!(sources(&w.graph, "b"), [("a".into(), Required)]);
    assert_eq!(sources(&w.graph, "c"), [("a".into(), Required), ("b".into(), Optional)]);
    assert_eq!(sources(&w.graph, "d"), [("b".into(), Optional)]);
    assert_eq!(sources(&w.graph, "e"), [("a".into(), Required), ("d".into(), Required), ("x".into(), Required)]);
    assert_eq!(w.graph.node(w.graph.find("e").unwrap()).code.appended, ["d".into()]);
}

#[test]
fn bodies_capture() {
    use DependencyMode::*;
    let w = workflow(
        "  a: {value: q}\n  g:\n    for_each: q\n    nodes:\n      h: {nodes: {i: {value: [a, item, j]}, j: {value: '1'}}}\n",
    );
    assert_eq!(sources(&w.graph, "g"), [("a".into(), Waits)]);
    let Work::Group(outer) = &w.graph.node(w.graph.find("g").unwrap()).work else { panic!() };
    assert_eq!(sources(outer, "h"), []);
    let Work::Group(inner) = &outer.node(outer.find("h").unwrap()).work else { panic!() };
    assert_eq!(sources(inner, "i"), [("j".into(), Required)]);
}

#[test]
fn joins_make_their_sources_optional() {
    let w = workflow("  a: {value: q}\n  b: {value: q}\n  c: {needs: [a, b], join: any, value: 'a | default(b)'}\n");
    let node = w.graph.node(w.graph.find("c").unwrap());
    assert_eq!(node.counted.len(), 2);
    assert!(node.dependencies.iter().all(|d| d.mode == DependencyMode::Optional));
}

#[test]
fn problems_are_found_all_at_once() {
    assert_eq!(codes_of("  a: {value: nothing}\n  b: {value: 'a |'}\n  c: {vlue: 1}\n"), ["FR012", "FR014", "FR005"]);
    assert_eq!(codes_of("  a: {value: b}\n  b: {value: c}\n  c: {value: a}\n"), ["FR013"]);
    assert_eq!(codes_of("  a: {value: a}\n"), ["FR013"]);
    assert_eq!(codes_of("  a: {prompt: x}\n  b: {value: a.x}\n  c: {for_each: a, value: item}\n"), ["FR016", "FR016"]);
    assert_eq!(codes_of("  a: {value: item}\n"), ["FR012"]);
    assert_eq!(codes_of("  a: {ask: 'Who is {b}?'}\n"), ["FR019"]);
    assert_eq!(codes_of("  a: {value: last.x}\n"), ["FR012"]);
    assert_eq!(codes_of("  a: {value: '1', retry: {max: 1}}\n"), ["FR009"]);
    assert_eq!(codes_of("  g: {nodes: {x: {value: '1'}}}\n  a: {value: x}\n"), ["FR012"]);
}

#[test]
fn a_chain_of_300_000_nodes_is_checked_without_recursion() {
    let mut definition = WorkflowDef::default();
    for i in 0..300_000 {
        let need = |source: u32| definition::Need { name: format!("n{source}"), optional: false };
        let node = definition::NodeDef {
            kind: "set".into(),
            needs: u32::checked_sub(i, 1).map(need).into_iter().collect(),
            fields: [("value".to_owned(), serde_json::json!(1))].into_iter().collect(),
            ..Default::default()
        };
        definition.nodes.insert(format!("n{i}"), node);
    }
    let checked = check(definition.clone(), None, &kinds(), &NoLibrary).unwrap();
    assert_eq!(checked.workflow.graph.nodes()[0].rank, 300_000);
    definition.nodes.truncate(30_000);
    definition.nodes[0].needs.push(definition::Need { name: "n29999".into(), optional: false });
    let problems = check(definition, None, &kinds(), &NoLibrary).unwrap_err();
    assert_eq!((problems.len(), problems[0].code), (1, codes::CYCLE));
    assert!(problems[0].message.ends_with("n5 → … (29992 more) → n29998 → n29999 → n0"), "{}", problems[0].message);
}

#[test]
fn plans_are_held_to_the_rules() {
    let plans = PlanChecker::new(Arc::new(kinds()));
    let rules = crate::graph::ExpansionRules::new(2);
    let plan = |steps: serde_json::Value| serde_json::json!({"question": "q", "steps": steps});
    let text = |id: &str, ask: &str| serde_json::json!({"id": id, "ask": ask, "type": "text"});
    assert!(
        plans.check(&plan(serde_json::json!([text("a", "x"), text("b", "{a} {k}")])), &["k".into()], &rules).is_ok()
    );
    let three = plan(serde_json::json!([text("a", "x"), text("b", "y"), text("c", "z")]));
    assert_eq!(plans.check(&three, &[], &rules).unwrap_err()[0].code, codes::LIMIT);
    let circle = plan(serde_json::json!([text("a", "{b}"), text("b", "{a}")]));
    assert_eq!(plans.check(&circle, &[], &rules).unwrap_err()[0].code, codes::CYCLE);
    let only_calc = crate::graph::ExpansionRules { kinds: vec!["calc".into()], ..rules.clone() };
    assert_eq!(
        plans.check(&plan(serde_json::json!([text("a", "x")])), &[], &only_calc).unwrap_err()[0].code,
        codes::BAD_PLAN
    );
}

#[test]
fn loops_are_bounded_and_of_the_flowchart() {
    let plans = PlanChecker::new(Arc::new(kinds()));
    let rules = crate::graph::ExpansionRules::new(3);
    let rules = crate::graph::ExpansionRules { dialect: Dialect::Flowchart, iterations_max: 20, ..rules };
    let plan = |kind: &str, max: u64| {
        let repeat = serde_json::json!({"again": "{n} * 2", "until": "{n} > 100", "max": max});
        serde_json::json!({"question": "q", "steps": [{"id": "n", "ask": "1", "type": kind, "repeat": repeat}]})
    };
    let refused = |plan: &serde_json::Value, rules: &crate::graph::ExpansionRules| {
        let problems = plans.check(plan, &[], rules).unwrap_err();
        problems.iter().map(|problem| (problem.code, problem.path.clone())).collect::<Vec<_>>()
    };
    plans.check(&plan("calc", 20), &[], &rules).unwrap();
    let max = || "steps[0].repeat.max".to_owned();
    assert_eq!(refused(&plan("calc", 21), &rules), [(codes::LIMIT, max())]);
    assert_eq!(refused(&plan("calc", 0), &rules), [(codes::BAD_PLAN, max())]);
    let graph = crate::graph::ExpansionRules::new(3);
    assert_eq!(refused(&plan("calc", 20), &graph), [(codes::BAD_PLAN, "steps[0].repeat".to_owned())]);
    let only_calc = crate::graph::ExpansionRules { kinds: vec!["calc".into()], ..rules.clone() };
    plans.check(&plan("calc", 20), &[], &only_calc).unwrap();
    assert_eq!(refused(&plan("text", 20), &only_calc)[0], (codes::BAD_PLAN, "steps[0].type".to_owned()));
    let step = |n: u32| serde_json::json!({"id": format!("s{n}"), "ask": "x", "type": "text"});
    let block = serde_json::json!({"max": 3, "steps": [step(1), step(2), step(3)]});
    let block = serde_json::json!({"question": "q", "steps": [{"id": "b", "repeat": block}]});
    assert_eq!(refused(&block, &rules), [(codes::LIMIT, "steps".to_owned())]);
}

/// Every problem as `path: message | help`, the errors and the warnings.
fn problems(text: &str) -> Vec<String> {
    let found = match check_text("t.yaml", text, &kinds(), &Shelf) {
        Ok((checked, _)) => checked.warnings,
        Err(refused) => refused.diagnostics,
    };
    let shown = |problem: &Diagnostic| {
        let help: Vec<String> = problem.help.iter().map(|help| format!(" | {help}")).collect();
        let related: Vec<String> = problem.related.iter().map(|(label, _)| format!(" | {label}")).collect();
        format!("{} {}: {}{}{}", problem.code.0, problem.path, problem.message, help.concat(), related.concat())
    };
    found.iter().map(shown).collect()
}

fn nodes(nodes: &str) -> Vec<String> {
    problems(&format!("flowrun: 1\ninputs: {{q: 'string = x', n: 'integer = 2'}}\nnodes:\n{nodes}"))
}

fn assert_only(found: &[String], expected: &[&str]) {
    let fits = found.len() == expected.len() && found.iter().zip(expected).all(|(found, part)| found.contains(part));
    assert!(fits, "expected {expected:#?}, found {found:#?}");
}

/// Workflows by name; each line of `bomb` calls the next one twice.
struct Shelf;

impl Library for Shelf {
    fn load(
        &self,
        reference: &str,
        _: &str,
        kinds: &BTreeMap<String, Arc<KindSpec>>,
    ) -> Result<(WorkflowDef, Source), String> {
        let text = match reference.split_once('-') {
            Some(("bomb", level)) => {
                let next = level.parse::<u32>().map_err(|error| error.to_string())? + 1;
                let call = |name: &str| format!("  {name}: {{workflow: bomb-{next}}}\n");
                if next > 14 {
                    "flowrun: 1\nnodes: {a: {value: 1}}".to_owned()
                } else {
                    format!("flowrun: 1\nnodes:\n{}", ('a'..'k').map(|c| call(&c.to_string())).collect::<String>())
                }
            }
            Some(("deep", level)) => {
                let next = level.parse::<u32>().map_err(|error| error.to_string())? + 1;
                format!(
                    "flowrun: 1\nlimits: {{depth: 99}}\nnodes:\n{}",
                    nested(10, &format!("{{workflow: deep-{next}}}"))
                )
            }
            _ => match reference {
                "@half" => "flowrun: 1\ninputs: {n: integer, by: integer = 2}\nnodes: {h: {value: n // by}}\noutput: h",
                "@bad" => "flowrun: 1\nnodes: {h: {value: m}}",
                "@self" => "flowrun: 1\nnodes: {h: {workflow: '@self'}}",
                "@ping" => "flowrun: 1\nnodes: {h: {workflow: '@pong'}}",
                "@pong" => "flowrun: 1\nnodes: {h: {workflow: '@ping'}}",
                _ => return Err(format!("no workflow is called `{reference}`")),
            }
            .to_owned(),
        };
        let parsed = definition::read(reference, &text, kinds).map_err(|problems| format!("{problems:?}"))?;
        Ok((parsed.definition, parsed.source))
    }
}

/// Groups in groups, so many, with one node in the innermost.
fn nested(levels: usize, inner: &str) -> String {
    let line = |level: usize| format!("{}g{level}: {{nodes: {{\n", "  ".repeat(level + 1));
    let open: String = (0..levels).map(line).collect();
    format!("{open}{}x: {inner}{}\n", "  ".repeat(levels + 1), "}}".repeat(levels))
}

#[test]
fn attributes_are_known_as_far_as_values_are() {
    let check = |text: &str, expected: &[&str]| assert_only(&nodes(text), expected);
    let a = "  a: {prompt: '{{ q }} {{ n }}', schema: {year: integer, who: {name: string}, kind: good | bad}}\n";
    check(&format!("{a}  b: {{value: a.who.name}}\n  c: {{value: a.year}}\n"), &[]);
    check(
        &format!("{a}  b: {{value: a.who.nme}}\n"),
        &["FR016 nodes.b.value: `a.who` has no attribute `nme` | did you mean `name`?"],
    );
    check(&format!("{a}  b: {{value: a.year.x}}\n"), &["`a.year` is a number and has no attribute `x`"]);
    check(&format!("{a}  b: {{value: \"a.year == '1979'\"}}\n"), &["`a.year` is a number and never equals \"1979\""]);
    check(
        &format!("{a}  b: {{value: 1, when: \"q == 'x' and a.kind == 'god'\"}}\n"),
        &["one of good, bad and never equals \"god\" | did you mean `'good'`?"],
    );
    check(&format!("{a}  b: {{value: 1, when: \"a.kind == 'good' or a.year > 3\"}}\n"), &[]);
    check(&format!("{a}  b: {{value: 1, when: a.year}}\n"), &["`when` wants true or false, and this is a number"]);
    check(
        "  g: {nodes: {x: {value: q}, y: {value: n}}}\n  b: {value: g.x}\n  c: {value: g.z}\n",
        &["nodes.c.value: `g` has no attribute `z` | it has x, y"],
    );
    check(
        "  l: {prompt: '{{ q }}{{ n }}', schema: [{name: string}]}\n  b: {for_each: l, value: item.nam}\n",
        &["`item` has no attribute `nam` | did you mean `name`?"],
    );
    check("  p: {value: [q, n]}\n  e: {graph: p}\n  b: {value: e.anwser}\n", &["did you mean `answer`?"]);
}

#[test]
fn names_mean_what_stands_around_them() {
    let check = |text: &str, expected: &[&str]| assert_only(&nodes(text), expected);
    check("  a: {value: {samples: b, max_parallel: b}}\n  b: {value: [q, n]}\n", &[]);
    check("  b: {value: [q, n]}\n  a: {prompt: x, samples: b}\n", &["FR007 nodes.a.samples: `b` is no input"]);
    check("  a: {prompt: '{{ q }}', samples: n}\n", &[]);
    check("  a: {for_each: [q, n], as: a, value: a}\n", &["FR011 nodes.a.as: `a` is a name already"]);
    check("  a: {for_each: [q, n], as: q, value: q}\n", &["FR011 nodes.a.as"]);
    check(
        "  g: {for_each: [q, n], as: w, nodes: {w: {value: 1}}}\n",
        &["FR011 nodes.g.nodes.w: `w` is a name outside"],
    );
    check("  a: {for_each: [q, n], as: w, value: w, when: w}\n", &["the item is not known here"]);
    check(
        "  g: {nodes: {x: {value: g}}}\n  u: {value: [q, n]}\n",
        &["FR013 nodes.g.nodes.x.value: `g` is not finished here"],
    );
    check("  g: {nodes: {x: {prompt: '{{ y }}'}, y: {vlue: 1}}}\n  u: {value: [q, n]}\n", &["FR005 nodes.g.nodes.y"]);
}

#[test]
fn a_circle_is_shown_beside_other_errors_with_the_places_that_close_it() {
    let text = "flowrun: 1\nnodes:\n  a: {value: c + 1}\n  b: {value: 1, needs: [a]}\n  c: {value: b}\n  d: {value: nothing}\n";
    let refused = check_text("t.yaml", text, &kinds(), &NoLibrary).unwrap_err();
    assert_only(&problems(text), &["a → b → c → a", "FR012 nodes.d.value"]);
    let related: Vec<_> = refused.diagnostics[0].related.iter().map(|(l, p)| (l.as_str(), p.line, p.column)).collect();
    assert_eq!(related, [("`b` needs `a`", 4, 25), ("`c` needs `b`", 5, 14), ("`a` needs `c`", 3, 14)]);
    assert_only(&nodes("  a: {value: a}\n  u: {value: [q, n]}\n"), &["FR013 nodes.a.value: `a` needs itself"]);
}

#[test]
fn calls_are_checked_against_what_they_call() {
    let check =
        |text: &str, expected: &[&str]| assert_only(&nodes(&format!("  u: {{value: [q, n]}}\n{text}")), expected);
    check("  a: {workflow: '@half', with: {n: u}}\n", &[]);
    check(
        "  a: {workflow: '@half', with: {n: 1, bye: 2}}\n",
        &["FR012 nodes.a.with.bye: `@half` has no input `bye` | did you mean `by`?"],
    );
    check("  a: {workflow: '@half', with: {n: true}}\n", &["FR016 nodes.a.with.n: input `n`"]);
    check("  a: {workflow: '@half'}\n", &["FR005 nodes.a: `@half` needs the input `n` (integer)"]);
    check("  a: {workflow: '@none'}\n", &["FR022 nodes.a.workflow: no workflow is called `@none`"]);
    check("  a: {workflow: '@bad'}\n  b: {workflow: '@bad'}\n", &["`@bad` does not check"]);
    check("  a: {workflow: '@self'}\n", &[]);
    check("  a: {workflow: '@ping'}\n", &[]);
}

#[test]
fn plans_that_are_written_out_are_checked_as_plans() {
    let plan = "kind: plan, prompt: '{{ q }}{{ n }}', with: [q], fallback";
    let check = |text: &str, expected: &[&str]| assert_only(&nodes(text), expected);
    check(&format!("  p: {{{plan}: {{steps: []}}}}\n"), &[]);
    check(&format!("  p: {{{plan}: {{steps: [{{id: a, ask: 'Who is {{q}}?'}}]}}}}\n"), &[]);
    check(&format!("  p: {{{plan}: {{steps: [{{id: a, ask: 'Who is {{x}}?'}}]}}}}\n"), &["FR021 nodes.p.fallback"]);
    check(&format!("  p: {{{plan}: {{steps: []}}, combine: false}}\n"), &["the plan has no steps"]);
    check(
        "  p: {kind: plan, prompt: '{{ q }}{{ n }}', with: [q, 1]}\n",
        &["FR006 nodes.p.with: `with` wants a list of names"],
    );
}

#[test]
fn hostile_files_cost_bounded_work() {
    let ten_to_the_fourteen = nodes("  u: {value: [q, n]}\n  a: {workflow: bomb-0}\n");
    assert_only(&ten_to_the_fourteen, &[]);
    assert_only(&nodes("  u: {value: [q, n]}\n  a: {workflow: deep-0}\n"), &["`deep-0` does not check"]);
    let deep = format!("flowrun: 1\nlimits: {{depth: 99}}\nnodes:\n{}", nested(60, "{value: 1}"));
    assert_only(&problems(&deep), &[]);
    let too_deep = format!("flowrun: 1\nnodes:\n{}", nested(17, "{value: 1}"));
    assert_only(&problems(&too_deep), &["groups nest deeper than `limits.depth` (16)"]);
    for mistake in ["{value: qestion}", "{vlue: 1, value: 1}", "{value: 'a b'}", "{ask: '{qestion}'}"] {
        let one_line: String = (0..5_000).map(|n| format!("a_rather_long_name_{n}: {mistake}, ")).collect();
        let found = problems(&format!("flowrun: 1\nnodes: {{{one_line}}}"));
        assert_eq!(found.len(), PROBLEMS_MAX + 1, "{mistake}");
        assert!(found.iter().any(|line| line.contains("4800 more errors are not shown")));
    }
    let unused: String = (0..5_000).map(|n| format!("  unused_{n}: {{value: 1}}\n")).collect();
    let found = problems(&format!("flowrun: 1\nnodes:\n{unused}  last_one: {{value: 1}}\noutput: last_one\n"));
    assert!(found.iter().any(|line| line.contains("4800 more warnings are not shown")));
}

/// Run with `cargo test --release -p flowrun-engine checks_20_000 -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement: needs the release profile"]
#[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "a measurement takes the time and shows it")]
fn checks_20_000_nodes_in_a_second() {
    let node = |n: usize| match n % 4 {
        0 => format!("  n{n}:\n    prompt: |\n      Given {{{{ n{} }}}}, what is {{{{ q }}}}?\n", n.saturating_sub(1)),
        1 => format!("  n{n}: {{ask: 'Is {{n{}}} right?', needs: ['n{}?']}}\n", n - 1, n.saturating_sub(1000)),
        2 => format!("  n{n}: {{value: 'n{} | default(0)', when: \"q != 'x'\"}}\n", n - 1),
        _ => format!("  n{n}: {{calc: '{{n{}}} * 2 + 1'}}\n", n - 1),
    };
    let nodes: String = (1..=20_000).map(node).collect();
    let text = format!("flowrun: 1\ninputs: {{q: string}}\nnodes:\n  n0: {{value: 1}}\n{nodes}output: n20000\n");
    let before = std::time::Instant::now();
    let found = definition::read("t.yaml", &text, &kinds()).unwrap();
    let read = before.elapsed();
    assert!(found.diagnostics.is_empty(), "{:?}", found.diagnostics.first());
    let checked = check(found.definition, Some(&found.source), &kinds(), &NoLibrary).unwrap();
    let all = before.elapsed();
    eprintln!("{} bytes, {} nodes: read {read:?}, all {all:?}", text.len(), checked.workflow.graph.nodes().len());
    assert!(all.as_secs_f64() < 1.0, "{all:?}");
}

/// Files that are nearly right, cut and changed at random: whatever they say, nothing panics and every place is in the file.
#[test]
fn broken_files_never_panic() {
    let texts = [
        "flowrun: 1\ninputs:\n  q: string = ä\nnodes:\n  a:\n    prompt: |\n      Ünï {{ q }} — {% for x in b %}{{ x.y }}{% endfor %}\n  b: {for_each: [q, 'a | lines'], ask: \"Ist {item} „{a}“? \\u00e4\", schema: [string]}\noutput: {x: b, y: 'a ~ \"é\"'}\n",
        "flowrun: 1\nnodes:\n  g: &g\n    for_each: >\n      [1,\n      2, üü]\n    as: w\n    nodes:\n      i: {calc: '{w} * 2 ^ 3', on_item_error: skip}\n      j: {value: w + i, needs: [\"i?\"], join: any}\n    output: i\n  h:\n    <<: *g\n    when: g | length > 'é'\noutput: g.x\n",
    ];
    let alphabet: Vec<char> = "aüq{}[]()|>&*!:#'\" \n\t-?%,.0x—\u{2028}\u{feff}😀".chars().collect();
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..3_000 {
        let mut text: Vec<char> = texts[round % 2].chars().collect();
        for _ in 0..=random(4) {
            let at = random(text.len());
            match random(3) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, alphabet[random(alphabet.len())]),
                _ => text[at] = alphabet[random(alphabet.len())],
            }
        }
        let text: String = text.into_iter().collect();
        let found = std::panic::catch_unwind(|| match check_text("t.yaml", &text, &kinds(), &Shelf) {
            Ok((checked, _)) => checked.warnings,
            Err(refused) => refused.diagnostics,
        });
        let Ok(found) = found else { panic!("panicked on {text:?}") };
        for place in found.iter().filter_map(|problem| problem.place.as_ref()) {
            assert!(text.get(place.start..place.end).is_some(), "{place:?} in {text:?}");
        }
    }
}

#[test]
fn many_loops_are_found_in_the_time_of_what_they_span() {
    let circle = |n: u32| format!("  s{n}: {{value: 1, next: [{{to: s{n}, max: 3}}, {{to: s{}}}]}}\n", n + 1);
    let chain: String = (0..3_000).map(circle).collect();
    let text = format!("flowrun: 1\nnodes:\n{chain}  s3000: {{value: 1}}\noutput: s3000\n");
    let (checked, _) = check_text("t.yaml", &text, &kinds(), &NoLibrary).unwrap();
    let loops = checked.workflow.graph.nodes().iter().filter(|node| node.loops()).count();
    assert_eq!((loops, checked.workflow.graph.nodes().len()), (3_000, 3_001));

    let inside = |n: u32| format!("  s{n}: {{value: 1, next: s{}}}\n", n + 1);
    let nest = |depth: u32| {
        let down: String = (0..depth).map(inside).collect();
        let back = |n: u32| {
            format!(
                "  t{n}: {{value: 1, needs: [{}], next: [{{to: s{n}, max: 1}}]}}\n",
                match n {
                    0 => "t1".to_owned(),
                    n if n + 1 == depth => format!("s{depth}"),
                    n => format!("t{}", n + 1),
                }
            )
        };
        let up: String = (0..depth).rev().map(back).collect();
        problems(&format!("flowrun: 1\nnodes:\n{down}  s{depth}: {{value: 1}}\n{up}"))
    };
    assert_only(&nest(30), &[]);
    assert_only(&nest(70), &["loops nest deeper than 64"]);
}
