//! Dependencies, captures and requiredness as the checker infers them.

use std::sync::Arc;

use super::*;
use crate::graph::{DependencyMode, Work};

fn kinds() -> BTreeMap<String, Arc<KindSpec>> {
    let llm = KindSpec {
        work_keys: vec!["prompt".into(), "ask".into()],
        calls_model: true,
        takes_schema: true,
        samples: true,
        ..KindSpec::leaf("llm")
    }
    .field("prompt", FieldFormat::Template, "the question")
    .field("ask", FieldFormat::Slotted, "the question, literal")
    .field("params", FieldFormat::Expression, "sampling")
    .field("system", FieldFormat::Template, "the role");
    builtin_kinds().into_iter().chain([llm]).map(|spec| (spec.name.clone(), Arc::new(spec))).collect()
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
    assert_eq!(w.graph.node(w.graph.find("e").unwrap()).code.appended, [w.graph.find("d").unwrap()]);
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
    assert_eq!(node.any_of.as_ref().unwrap().len(), 2);
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
    assert_eq!(codes_of("  a: {value: last.x}\n"), ["FR010"]);
    assert_eq!(codes_of("  a: {value: '1', retry: {max: 1}}\n"), ["FR009"]);
    assert_eq!(codes_of("  g: {nodes: {x: {value: '1'}}}\n  a: {value: x}\n"), ["FR012"]);
}

#[test]
fn a_chain_of_300_000_nodes_is_checked_without_recursion() {
    let mut definition = WorkflowDef::default();
    let node = |value: String| definition::NodeDef {
        kind: "set".into(),
        fields: [("value".to_owned(), serde_json::Value::String(value))].into_iter().collect(),
        ..Default::default()
    };
    for i in 0..300_000 {
        let value = if i == 0 { "1".to_owned() } else { format!("n{}", i - 1) };
        definition.nodes.insert(format!("n{i}"), node(value));
    }
    let checked = check(definition, None, &kinds(), &NoLibrary).unwrap();
    assert_eq!(checked.workflow.graph.nodes()[0].rank, 300_000);
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
