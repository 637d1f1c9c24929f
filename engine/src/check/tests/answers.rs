//! What the checker makes and warns of where answers are kept: keys, salts, loops that ask the same again.

use super::*;

#[test]
fn what_is_said_of_answers_is_compiled_and_its_names_are_waited_for() {
    use DependencyMode::*;
    let w = workflow(
        "  a: {value: q}\n  plain: {prompt: hi}\n  never: {prompt: hi, cache: off}\n  said: {prompt: hi, cache: run, key: a, salt: '[pass, last.said]', ttl: 2h, repeat: {max: 2}}\n",
    );
    let kept = |name: &str| {
        let code = &w.graph.node(w.graph.find(name).unwrap()).code;
        (code.cache.scope, code.cache.key.is_some(), code.cache.salt.is_some(), code.cache.ttl_ms)
    };
    assert_eq!(kept("plain"), (CacheScope::Shared, false, false, None));
    assert_eq!(kept("never"), (CacheScope::Off, false, false, None));
    assert_eq!(kept("a"), (CacheScope::Off, false, false, None));
    assert_eq!(kept("said"), (CacheScope::Run, true, true, Some(7_200_000)));
    assert_eq!(sources(&w.graph, "said"), [("a".into(), Required)]);
    let said = w.graph.node(w.graph.find("said").unwrap());
    assert!(said.is_kept, "`last.said` in a salt keeps the values of earlier passes");
    let again = check_text("t.yaml", &w.definition.to_yaml(), &kinds(), &NoLibrary).unwrap().0.workflow;
    assert_eq!(again.definition, w.definition, "written out and read again");
    let key = said.code.cache.key.as_ref().unwrap();
    let bound = key.leaves().into_iter().flat_map(|(_, leaf)| leaf.names()).map(|name| name.node).collect::<Vec<_>>();
    assert_eq!(bound, [w.graph.find("a")], "no evaluation searches");
}

/// The nodes that are warned of, with the loop and the salt that are spoken of.
fn same(text: &str) -> Vec<String> {
    let found = nodes(text);
    let of_answers = found.iter().filter(|line| line.starts_with("FR104"));
    let part = |line: &str, from: &str, to: &str| -> String {
        line.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map_or("?", |(part, _)| part).to_owned()
    };
    let short = |line: &String| {
        format!("{} in {}: {}", part(line, "`", "`"), part(line, "pass of ", ":"), part(line, "`salt: ", "`"))
    };
    assert!(!found.iter().any(|line| line.starts_with("FR0")), "{found:#?}");
    of_answers.map(short).collect()
}

#[test]
fn models_that_ask_the_same_in_every_pass_are_warned_of() {
    let by_repeat =
        |attributes: &str| same(&format!("  a: {{prompt: 'hi {{{{ n }}}}', repeat: {{max: 3}}{attributes}}}\n"));
    assert_eq!(by_repeat(""), ["a in its `repeat`: iteration"]);
    assert_eq!(by_repeat(", key: n"), ["a in its `repeat`: iteration"]);
    for fresh in [", salt: iteration", ", cache: off", ", key: iteration", ", system: '{{ last.a }}'"] {
        assert_eq!(by_repeat(fresh), [""; 0], "{fresh}");
    }
    let by_items = |text: &str| same(&format!("  a: {{for_each: '[1, 2]', sequential: true, prompt: '{text}'}}\n"));
    assert_eq!(by_items("hi"), ["a in its sequential `for_each`: iteration"]);
    for fresh in ["{{ item }}", "{{ index }}", "{{ last.a }}", "{{ past.a }}", "{{ iteration }}", "{{ pass }}"] {
        assert_eq!(by_items(fresh), [""; 0], "{fresh}");
    }
    assert_eq!(same("  a: {for_each: '[1, 2]', prompt: hi}\n"), [""; 0], "no loop");
    assert_eq!(
        same("  a: {for_each: '[1, 2]', sequential: true, repeat: {max: 3}, prompt: '{{ item }}'}\n"),
        ["a in its `repeat`: pass"]
    );
}

#[test]
fn kept_answers_of_what_acts_on_the_world_are_warned_of() {
    let mut kinds = kinds();
    for effect in [true, false] {
        let name = if effect { "send" } else { "look" };
        kinds.insert(name.to_owned(), Arc::new(KindSpec { effect, ..KindSpec::leaf(name) }));
    }
    let found = |node: &str| {
        let text = format!("flowrun: 1\nnodes:\n  a: {node}\n");
        let (checked, _) = check_text("t.yaml", &text, &kinds, &NoLibrary).unwrap();
        checked.warnings.iter().map(|warning| (warning.code, warning.path.clone())).collect::<Vec<_>>()
    };
    for scope in ["shared", "run"] {
        assert_eq!(
            found(&format!("{{kind: send, cache: {scope}}}")),
            [(codes::KEPT_ANSWER, "nodes.a.cache".to_owned())]
        );
        assert_eq!(found(&format!("{{kind: look, cache: {scope}}}")), []);
    }
    assert_eq!(found("{kind: send, cache: off}"), []);
    assert_eq!(found("{kind: send}"), []);
}

#[test]
fn what_a_pass_changes_is_followed_through_the_body() {
    let group = |inside: &str| same(&format!("  o: {{value: n}}\n  g:\n    repeat: {{max: 3}}\n    nodes:\n{inside}"));
    assert_eq!(group("      a: {prompt: '{{ o }}'}\n"), ["a in the `repeat` of `g`: iteration"]);
    // What reads a node that is warned of is not warned of.
    assert_eq!(group("      a: {prompt: hi}\n      b: {prompt: '{{ a }}'}\n"), ["a in the `repeat` of `g`: iteration"]);
    assert_eq!(group("      a: {prompt: hi, salt: pass}\n      b: {ask: '{a}'}\n"), [""; 0]);
    assert_eq!(group("      a: {prompt: hi, cache: off}\n      b: {ask: 'so', needs: [a]}\n"), [""; 0]);
    assert_eq!(group("      a: {kind: human, prompt: hi}\n      b: {prompt: '{{ a }}'}\n"), [""; 0]);
    assert_eq!(group("      a: {value: iteration}\n      b: {calc: '{a} + 1'}\n      c: {ask: '{b}'}\n"), [""; 0]);
    assert_eq!(group("      a: {value: o}\n      b: {ask: '{a}'}\n"), ["b in the `repeat` of `g`: iteration"]);
    assert_eq!(group("      a: {value: o, when: iteration > 1}\n      b: {prompt: '{{ a | default(1) }}'}\n"), [""; 0]);
    assert_eq!(group("      a: {for_each: past.b, value: item}\n      b: {prompt: '{{ a }}'}\n"), [""; 0]);
    let in_map = "      m: {for_each: '[1, 2]', nodes: {a: {prompt: '{{ item }}'}}}\n";
    assert_eq!(group(in_map), ["a in the `repeat` of `g`: iteration"]);
    assert_eq!(group(&in_map.replace("[1, 2]", "[1, iteration]")), [""; 0]);
    let inner =
        |prompt: &str| group(&format!("      r: {{repeat: {{max: 2}}, nodes: {{a: {{prompt: '{prompt}'}}}}}}\n"));
    assert_eq!(inner("hi"), ["a in the `repeat` of `r`: pass"]);
    assert_eq!(inner("{{ iteration }}"), ["a in the `repeat` of `g`: pass"]);
    assert_eq!(inner("{{ last.a }}"), ["a in the `repeat` of `g`: pass"]);
    assert_eq!(inner("{{ last.r }}"), ["a in the `repeat` of `g`: pass"], "`last.r` is of the loop further in");
    assert_eq!(inner("{{ pass }}"), [""; 0]);
}

#[test]
fn models_in_flowcharts_are_warned_of() {
    let chart = |draft: &str, judge: &str| {
        same(&format!(
            "  topic: {{value: n, next: draft}}\n  draft: {{prompt: '{draft}', next: judge}}\n  judge: {{prompt: '{judge}', next: [{{when: judge == 'no', to: draft, max: 3}}, {{to: end}}]}}\n  end: {{value: draft}}\n"
        ))
    };
    assert_eq!(chart("{{ topic }}", "{{ draft }}"), ["draft in the loop of `draft`: iteration"]);
    assert_eq!(chart("{{ topic }} {{ last.judge }}", "{{ draft }}"), [""; 0]);
    assert_eq!(chart("{{ iteration }}", "{{ topic }}"), ["judge in the loop of `draft`: iteration"]);
}
