//! Plans of models: what is read, mended, lowered and refused.

use super::*;

fn steps(value: Value) -> Vec<PlanStep> {
    parse_reply(&value).expect("a readable plan")
}

fn repaired(value: Value) -> (Vec<PlanStep>, Vec<String>) {
    let (steps, repairs) = repair(steps(value), "What is it all about?", &["known".to_owned()]);
    (steps, repairs.iter().map(ToString::to_string).collect())
}

#[test]
fn the_schema_is_what_was_measured() {
    let schema = plan_schema(12);
    let step = &schema["properties"]["steps"]["items"];
    assert_eq!(schema["additionalProperties"], json!(false));
    assert_eq!(
        (&schema["properties"]["steps"]["minItems"], &schema["properties"]["steps"]["maxItems"]),
        (&json!(1), &json!(12))
    );
    assert_eq!(step["additionalProperties"], json!(false));
    assert_eq!(step["required"], json!(["id", "ask", "type"]));
    let keys: Vec<&String> = step["properties"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "ask", "type", "each", "if", "unless"]);
    assert_eq!(step["properties"]["id"], json!({"type": "string", "pattern": "^[a-z][a-z0-9_]{0,23}$"}));
    assert_eq!(step["properties"]["type"]["enum"], json!(["text", "number", "yesno", "list", "calc"]));
}

#[test]
fn the_worked_examples_need_no_repair_and_lower() {
    for (question, plan) in worked_examples() {
        let (steps, repairs) = repair(steps(plan), question, &[]);
        assert_eq!(repairs, [], "{question}");
        let mut plan = Plan { question: question.to_owned(), steps };
        plan.append_answer();
        assert!(plan.lower(&[]).is_ok());
        assert_eq!(Plan::from_value(&plan.to_value()).unwrap(), plan);
    }
}

#[test]
fn repairs_are_made_and_recorded() {
    let check = |plan: Value, expected: &[&str]| {
        let (steps, repairs) = repaired(json!({"steps": plan}));
        let shown: Vec<String> = steps.iter().map(|step| format!("{} {}", step.id, step.ask)).collect();
        assert_eq!(shown, expected, "{repairs:?}");
        assert!(!repairs.is_empty());
        assert_eq!(
            repair(steps.clone(), "What is it all about?", &["known".to_owned()]),
            (steps, vec![]),
            "repairing is idempotent"
        );
    };
    let text = |id: &str, ask: &str| json!({"id": id, "ask": ask, "type": "text"});
    check(json!([text("a", "Who?"), text("b", "what is it ALL about")]), &["a Who?"]);
    check(json!([text("answer", "Who?"), text("b", "And {answer}?")]), &["answer_step Who?", "b And {answer_step}?"]);
    check(json!([text("known", "Who?"), text("b", "And {known}?")]), &["known_step Who?", "b And {known}?"]);
    check(json!([text("a", "Who?"), text("a", "When?")]), &["a Who?", "a_2 When?"]);
    check(json!([text("a", "Who?"), text("b", "who"), text("c", "Is {b} here?")]), &["a Who?", "c Is {a} here?"]);
    check(json!([text("capital", "Who?"), text("b", "Is {captial} big?")]), &["capital Who?", "b Is {capital} big?"]);
    check(json!([{"id": "pay", "ask": "18 euros per hour", "type": "number"}]), &["pay 18"]);
    check(json!([{"id": "pay", "ask": "$1,200", "type": "number"}]), &["pay 1200"]);
    check(json!([{"id": "a", "ask": "5 apples * 3 euros", "type": "calc"}]), &["a 5 * 3"]);
    check(
        json!([{"id": "a", "ask": "3", "type": "calc"}, {"id": "b", "ask": "a × 2 if a > 1 else 0", "type": "calc"}]),
        &["a 3", "b if {a} > 1 then {a} * 2 else 0"],
    );
    check(json!([{"id": "a", "ask": "20% * 50", "type": "calc"}]), &["a (20/100) * 50"]);
    check(json!([{"id": "a", "ask": "the sum of all of them", "type": "calc"}]), &["a the sum of all of them"]);
    check(
        json!([{"id": "l", "ask": "List.", "type": "list"}, {"id": "e", "ask": "How big?", "type": "number", "each": "l"}]),
        &["l List.", "e How big? {item}"],
    );
    check(
        json!([text("l", "Who?"), {"id": "e", "ask": "How big is {item}?", "type": "number", "each": "l"}]),
        &["l Who?", "e How big is {l}?"],
    );
}

#[test]
fn only_digits_of_formulas_are_numbers() {
    let long = "7".repeat(5_000);
    for ask in ["𑛀", "٣ euros", "3٣%", &long] {
        let (mended, repairs) = repaired(json!([{"id": "a", "ask": ask, "type": "calc"}]));
        assert_eq!((mended[0].kind, mended[0].ask.as_str(), repairs.len()), (StepType::Number, ask, 1), "{repairs:?}");
    }
}

#[test]
fn a_stated_result_is_dropped_unless_it_is_a_question() {
    let (steps, repairs) = repaired(json!([
        {"id": "eggs", "ask": "6 * 8 = 48", "type": "calc"},
        {"id": "half", "ask": "{eggs} / 2 = 24 pieces", "type": "calc"},
        {"id": "many", "ask": "{eggs} + 0 = 48", "type": "calc"},
        {"id": "why", "ask": "Why?", "type": "text", "if": "many"},
    ]));
    assert_eq!(
        steps.iter().map(|step| step.ask.as_str()).collect::<Vec<_>>(),
        ["6 * 8", "{eggs} / 2", "{eggs} + 0 = 48", "Why?"]
    );
    assert_eq!(repairs.len(), 3);
}

#[test]
fn guards_and_words() {
    let (steps, _) = repaired(json!([
        {"id": "a", "ask": "Who?", "type": "text"},
        {"id": "b", "ask": "When?", "type": "text", "if": "a"},
        {"id": "c", "ask": "2 > 1", "type": "calc"},
        {"id": "d", "ask": "Where is a now?", "type": "text", "unless": "c"},
    ]));
    assert_eq!(steps[1].only_if, None);
    assert_eq!(steps[3].unless.as_deref(), Some("c"));
    assert_eq!(steps[3].needs, ["a?"]);
}

#[test]
fn forged_plans_are_refused_with_every_problem() {
    let check = |value: Value, paths: &[&str]| {
        let problems = parse_reply(&value).expect_err("forged");
        assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), paths);
    };
    check(json!("plan"), &["steps"]);
    check(
        json!({"steps": [{"id": "../x", "ask": "?", "type": "shell", "run": "rm"}]}),
        &["steps[0].run", "steps[0].id", "steps[0].type"],
    );
    check(json!({"steps": [{"id": "а", "ask": "look-alike", "type": "text"}, 7]}), &["steps[0].id", "steps[1]"]);
    check(json!({"steps": [{"ask": ["x"]}], "exec": 1}), &["exec", "steps[0].id", "steps[0].ask"]);
    check(json!({"steps": vec![json!({"id": "a", "ask": "x"}); 1_001]}), &["steps"]);
    check(json!({"steps": [{"id": "a", "ask": "x".repeat(1 << 20)}]}), &["steps[0].ask"]);
}

#[test]
fn lowering_keeps_texts_literal() {
    let mut plan = Plan {
        question: "q".into(),
        steps: steps(json!([
            {"id": "ok", "ask": "Is {{ 7 * 7 }} here?", "type": "yesno"},
            {"id": "l", "ask": "List {known}.", "type": "list", "if": "ok"},
            {"id": "e", "ask": "How big is {item} of {l}?", "type": "number", "each": "l"},
            {"id": "s", "ask": "sum({e})", "type": "calc"},
        ])),
    };
    plan.append_answer();
    let definition = plan.lower(&["known".to_owned()]).unwrap();
    assert_eq!(definition.nodes["ok"].fields["ask"], json!("Is {{ 7 * 7 }} here?"));
    assert_eq!(definition.nodes["l"].when, Some(json!("ok")));
    assert_eq!(definition.nodes["e"].needs[0].name, "l");
    assert!(definition.nodes["e"].needs[0].optional);
    assert_eq!(definition.nodes["s"].kind, "calc");
    assert_eq!(definition.nodes["answer"].needs.len(), 4);
    assert_eq!(definition.output, Some(json!("answer")));
    let unknown =
        Plan { question: "q".into(), steps: steps(json!([{"id": "a", "ask": "Is {nothing} there?", "type": "text"}])) };
    assert_eq!(unknown.lower(&[]).unwrap_err()[0].path, "steps[0].ask");
}

#[test]
fn steps_may_call_tools() {
    let written = json!([
        {"id": "who", "ask": "Who?", "type": "text"},
        {"id": "pages", "tool": "search", "with": {"query": "all of {who}", "names": ["{who}", 3], "say": "\"{{ who }}\" ' \\n"}},
        {"id": "more", "tool": "search", "with": {"query": "{item}"}, "each": "pages"},
        {"id": "all", "tool": "list"},
    ]);
    let (steps, repairs) = repaired(written.clone());
    assert_eq!(repairs, [""; 0]);
    let plan = Plan { question: "q".into(), steps };
    let mut value = plan.to_value();
    assert_eq!(value["steps"].take(), written, "a plan is read as it is written");
    let nodes = plan.lower(&[]).unwrap().nodes;
    assert_eq!(nodes["pages"].fields["tool"], json!("search"));
    let with = json!({"query": "\"all of \" ~ who", "names": ["who", 3], "say": "\"\\\"{{ who }}\\\" ' \\\\n\""});
    assert_eq!(nodes["pages"].fields["with"], with);
    assert_eq!(nodes["more"].for_each, Some(json!("pages")));

    let check = |step: Value, paths: &[&str]| {
        let problems = parse_reply(&json!([step])).expect_err("refused");
        assert_eq!(problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), paths);
    };
    check(json!({"id": "a", "tool": "x", "ask": "Who?", "type": "text"}), &["steps[0].ask", "steps[0].type"]);
    check(json!({"id": "a", "tool": ["x"], "with": "y"}), &["steps[0].tool", "steps[0].with"]);
    check(json!({"id": "a", "ask": "Who?", "with": {}}), &["steps[0].with"]);
    check(json!({"id": "a", "tool": "x", "with": {"a": "y".repeat(1 << 20)}}), &["steps[0].with"]);
    let long = json!([{"id": "a", "tool": "x", "with": {"a": "y".repeat(3_000)}}]);
    let long = Plan { question: "q".into(), steps: self::steps(long) };
    assert_eq!(long.lower(&[]).unwrap_err()[0].path, "steps[0].with");
    let unknown =
        Plan { question: "q".into(), steps: self::steps(json!([{"id": "a", "tool": "x", "with": {"b": "{c}"}}])) };
    assert_eq!(unknown.lower(&[]).unwrap_err()[0].path, "steps[0].with");
}

#[test]
fn repairs_reach_the_arguments_of_tools() {
    let (steps, _) = repaired(json!([
        {"id": "answer", "ask": "Who?", "type": "text"},
        {"id": "a", "tool": "x", "with": {"b": "{answer}", "c": ["of {captial}"]}},
        {"id": "twice", "tool": "x", "with": {"b": "{answer}", "c": ["of {capital}"]}},
        {"id": "capital", "ask": "Where?", "type": "text"},
    ]));
    let with = json!({"b": "{answer_step}", "c": ["of {capital}"]});
    assert_eq!(
        (json!(steps[1].with), json!(steps[2].with), steps.len()),
        (with.clone(), with, 4),
        "a tool is called as often as it stands there"
    );
}

#[test]
fn models_are_offered_tools_only_where_there_are_some() {
    let word = |name: &str| crate::definition::Word { name: name.into(), doc: "finds".into(), effect: false };
    assert_eq!(with_tools(plan_schema(3), &[]), plan_schema(3));
    let schema = with_tools(plan_schema(3), &[&word("search"), &word("list")]);
    let schema = crate::schema::Schema::from_json_schema(schema).unwrap();
    let fits = |step: Value| schema.validate(&json!({"steps": [step]})).is_ok();
    assert!(fits(json!({"id": "a", "tool": "search", "with": {"query": "x"}})));
    assert!(fits(json!({"id": "a", "ask": "Who?", "type": "text"})));
    assert!(!fits(json!({"id": "a", "tool": "rm", "with": {}})));
    assert!(tool_rules(&[&word("search")]).ends_with("\n  - search: finds"));
}

proptest! {
    /// Whatever a text holds, it is a text and nothing else in the definition.
    #[test]
    fn arguments_are_never_expressions(text in "[a-z{}\"'\\\\~|%#\\n\\t\\u{0}\u{7f}é😀 ()\\[\\]+-]{0,40}") {
        let step = PlanStep { id: "a".into(), tool: Some("x".into()), with: Map::from_iter([("t".into(), json!(text))]), ..PlanStep::default() };
        let has_slots = !crate::expr::Slotted::parse(&text).slots().is_empty();
        let plan = Plan { question: "q".into(), steps: vec![step] };
        if let (Ok(definition), false) = (plan.lower(&[]), has_slots) {
            let tree = crate::expr::Tree::parse(&definition.nodes["a"].fields["with"]).unwrap();
            let value = tree.eval(|leaf| {
                assert!(leaf.names().is_empty());
                leaf.eval(&tools::no_names())
            });
            prop_assert_eq!(value.unwrap(), json!({"t": text}));
        } else {
            prop_assert!(has_slots);
        }
    }
}
