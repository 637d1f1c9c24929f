//! Plans of models: what is read, mended, lowered and refused.

use proptest::prelude::*;

use super::*;

fn steps(value: Value) -> Vec<PlanStep> {
    parse_reply(&value).expect("a readable plan")
}

fn repaired(value: Value) -> (Vec<PlanStep>, Vec<String>) {
    let (steps, repairs) = repair(steps(value), "What is it all about?", &["known".to_owned()], 50);
    (steps, repairs.iter().map(ToString::to_string).collect())
}

#[test]
fn the_schema_is_what_was_measured() {
    let schema = plan_schema(Dialect::Graph, 12, 50);
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
    let both = [Dialect::Graph, Dialect::Flowchart].into_iter();
    for (question, plan) in both.flat_map(|dialect| worked_examples(dialect, 50)) {
        let (steps, repairs) = repair(steps(plan), question, &[], 50);
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
            repair(steps.clone(), "What is it all about?", &["known".to_owned()], 50),
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
fn a_flowchart_offers_one_word_more() {
    let mut schema = plan_schema(Dialect::Flowchart, 12, 30);
    let properties = schema["properties"]["steps"]["items"]["properties"].as_object_mut().unwrap();
    let repeat = properties.shift_remove("repeat").unwrap();
    assert_eq!(schema, plan_schema(Dialect::Graph, 12, 30));
    let text = json!({"type": "string"});
    let max = json!({"type": "integer", "minimum": 1, "maximum": 30});
    let properties = json!({"again": text, "until": text, "max": max});
    let expected = json!({
        "type": "object", "properties": properties, "required": ["again", "until", "max"], "additionalProperties": false
    });
    assert_eq!(repeat, expected);
    assert!(planning_rules(Dialect::Flowchart, 30).contains("\"repeat\""));
    assert!(!planning_rules(Dialect::Graph, 30).contains("\"repeat\""));
}

/// A plan of one loop: its type, first value, what is done again and until when.
fn looping(kind: &str, ask: &str, repeat: Value) -> Value {
    json!([{"id": "n", "ask": ask, "type": kind, "repeat": repeat}])
}

#[test]
fn loops_are_mended() {
    let check = |plan: Value, expected: Value| {
        let (steps, repairs) = repaired(plan);
        assert!(!repairs.is_empty());
        let step = &steps[0];
        let repeat = step.repeat.as_ref();
        let shown = json!([step.kind, step.ask, repeat]);
        assert_eq!(shown, expected, "{repairs:?}");
        let again = repair(steps.clone(), "What is it all about?", &["known".to_owned()], 50);
        assert_eq!(again, (steps, vec![]), "repairing is idempotent");
    };
    let good = json!({"again": "{n} * 2", "until": "{n} > 100", "max": 20});
    for (again, until) in [
        ("n * 2", "{n} > 100"),
        ("* 2", "> 100"),
        ("{n} = {n} * 2", "n > 100"),
        ("n = {n} × 2", "{n} > 100 euros"),
        ("1 * 2", "{n} > 100"),
    ] {
        let repeat = json!({"again": again, "until": until, "max": 20});
        check(looping("calc", "1", repeat), json!(["calc", "1", good]));
    }
    let endless = json!({"again": "{n} * 2", "max": 20});
    for until in ["done", "100", "it is large enough"] {
        let repeat = json!({"again": "{n} * 2", "until": until, "max": 20});
        check(looping("calc", "1", repeat), json!(["calc", "1", endless]));
    }
    for max in [json!(null), json!(0), json!(51), json!(1_u64 << 40)] {
        let repeat = |max: Value| json!({"again": "{n} * 2", "until": "{n} > 100", "max": max});
        check(looping("calc", "1", repeat(max)), json!(["calc", "1", repeat(json!(50))]));
    }
    for until in ["4 times", "Done 4 times.", "after 4 times"] {
        let repeat = json!({"again": "{n} * 2", "until": until, "max": 20});
        check(looping("calc", "1", repeat), json!(["calc", "1", {"again": "{n} * 2", "max": 4}]));
    }
    check(looping("calc", "1", json!({"again": "{n} * 2"})), json!(["calc", "1", null]));
    check(looping("calc", "1", json!({"again": "", "max": 3})), json!(["calc", "1", null]));
    check(
        looping("text", "Name a town.", json!({"again": "A larger one?", "until": "Is it a capital?", "max": 3})),
        json!(["text", "Name a town.", {"again": "A larger one? {n}", "until": "Is it a capital? {n}", "max": 3}]),
    );
    check(
        looping("number", "7 of them", json!({"again": "Halve {m}.", "until": "{n} = 1", "max": 3})),
        json!(["number", "7", {"again": "Halve {n}.", "until": "{n} = 1", "max": 3}]),
    );
    check(
        looping("calc", "1", json!({"again": "Take the next prime after it", "until": "{n} > 5", "max": 3})),
        json!(["number", "1", {"again": "Take the next prime after it {n}", "until": "{n} > 5", "max": 3}]),
    );
    check(
        json!([{"id": "answer", "ask": "1", "type": "calc",
            "repeat": {"again": "{answer} + 1", "until": "{answer} >= 3", "max": 9}}]),
        json!(["calc", "1", {"again": "{answer_step} + 1", "until": "{answer_step} >= 3", "max": 9}]),
    );
}

/// The nodes of a lowered plan, as a saved plan has them.
fn lowered(plan: Value) -> Value {
    let plan = Plan { question: "q".into(), steps: steps(plan) };
    assert_eq!(Plan::from_value(&plan.to_value()).unwrap(), plan);
    let definition = plan.lower(&["known".to_owned()]).unwrap();
    let file: Value = serde_yaml::from_str(&definition.to_yaml()).unwrap();
    file["nodes"].clone()
}

#[test]
fn a_loop_becomes_a_group_that_repeats() {
    let nodes = lowered(json!([
        {"id": "rate", "ask": "1/20", "type": "calc"},
        {"id": "sum", "ask": "100", "type": "calc",
            "repeat": {"again": "{sum} * (1 + {rate})", "until": "{sum} > 200", "max": 30}},
        {"id": "more", "ask": "{sum} + 1", "type": "calc"},
        {"id": "why", "ask": "Why {sum}?", "type": "text"},
    ]));
    assert_eq!(
        nodes["sum"],
        json!({
            "kind": "group",
            "needs": ["rate"],
            "repeat": {"until": "sum_done", "max": 31},
            "nodes": {
                "sum_first": {"kind": "calc", "when": "iteration == 0", "calc": "100"},
                "sum_now": {"kind": "set", "needs": ["sum_first?"], "value": "last.sum_next | default(sum_first)"},
                "sum_done": {"kind": "calc", "calc": "{sum_now} > 200"},
                "sum_next": {
                    "kind": "calc", "when": "iteration < 30 and not sum_done", "calc": "{sum_now} * (1 + {rate})"
                }
            },
            "output": {"value": "sum_now", "repeated": "iteration", "values": "past.sum_now + [sum_now]"},
            "on_error": "skip"
        })
    );
    assert_eq!(nodes["more"]["calc"], json!("{sum_value} + 1"));
    assert_eq!(nodes["sum_value"], json!({"kind": "set", "value": "sum.value", "on_error": "skip"}));
    assert_eq!(nodes["why"]["ask"], json!("Why {sum_in_words}?"));
}

#[test]
fn a_loop_that_is_asked_has_no_background() {
    let nodes = lowered(json!([
        {"id": "big", "ask": "Is {question} big?", "type": "yesno"},
        {"id": "n", "ask": "27", "type": "number", "if": "big",
            "repeat": {"again": "Halve {n} if it is even, else triple it and add 1.", "until": "{n} = 1", "max": 9}},
        {"id": "town", "ask": "Name a town of {known}.", "type": "text",
            "repeat": {"again": "Name a town larger than {town}, {n} times.", "until": "Is {town} a capital?", "max": 9}},
    ]));
    let inner = &nodes["n"]["nodes"];
    assert_eq!(nodes["n"]["when"], json!("big"));
    assert_eq!(inner["n_first"]["calc"], json!("27"));
    assert_eq!(inner["n_now"]["json_schema"], json!({"type": "number"}));
    assert_eq!(inner["n_done"]["calc"], json!("{n_now} = 1"));
    assert_eq!(inner["n_next"]["output"], json!("this | number(words=true)"));
    let inner = &nodes["town"]["nodes"];
    assert_eq!(nodes["town"]["needs"], json!(["n_in_words"]));
    assert_eq!(inner["town_next"]["ask"], json!("Name a town larger than {town_now}, {n_in_words} times."));
    assert_eq!(inner["town_done"]["json_schema"], json!({"type": "boolean"}));
    for part in ["town_first", "town_done", "town_next"] {
        assert!(!inner[part]["system"].as_str().unwrap().contains("question"), "{part}");
    }
}

#[test]
fn a_block_of_steps_reads_the_pass_before() {
    let nodes = lowered(json!([
        {"id": "write", "repeat": {"until": "good", "max": 4, "steps": [
            {"id": "draft", "ask": "Improve {draft} by {advice}.", "type": "text"},
            {"id": "good", "ask": "Is {draft} good?", "type": "yesno"},
            {"id": "advice", "ask": "What is wrong with {draft}?", "type": "text", "unless": "good"},
        ]}},
        {"id": "title", "ask": "A title for {draft}?", "type": "text", "if": "good"},
    ]));
    let inner = &nodes["write"]["nodes"];
    assert_eq!(inner["draft"]["ask"], json!("Improve {draft_before} by {advice_before}."));
    assert_eq!(inner["draft_before"]["value"], json!("last.draft"));
    assert_eq!(inner["good"]["ask"], json!("Is {draft} good?"));
    assert_eq!(inner["advice"]["when"], json!("not good"));
    assert_eq!(nodes["write"]["repeat"], json!({"until": "good", "max": 4}));
    assert_eq!(nodes["write"]["output"]["values"], json!("past.write_pass + [write_pass]"));
    assert_eq!(nodes["title"]["ask"], json!("A title for {draft_value}?"));
    assert_eq!(nodes["title"]["when"], json!("write.value.good"));
    assert_eq!(nodes["draft_value"]["value"], json!("write.value.draft"));
}

#[test]
fn bad_loops_are_refused() {
    let check = |repeat: Value, path: &str| {
        let step = json!([{"id": "n", "ask": "1", "type": "calc", "repeat": repeat}]);
        let problems = parse_reply(&step).expect_err("a bad loop");
        assert_eq!(problems.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), [path]);
    };
    check(json!(3), "steps[0].repeat");
    check(json!({"max": 3}), "steps[0].repeat");
    check(json!({"again": "{n}", "goto": "n"}), "steps[0].repeat.goto");
    check(json!({"again": "{n}", "max": -1}), "steps[0].repeat.max");
    check(json!({"again": ["{n}"]}), "steps[0].repeat.again");
    check(json!({"steps": [{"id": "m", "ask": "x", "type": "text"}]}), "steps[0].ask");
    let lower = |step: Value| {
        let plan = Plan { question: "q".into(), steps: steps(json!([step])) };
        plan.lower(&[]).unwrap_err()[0].path.clone()
    };
    let calc = |again: &str, until: &str| json!({"id": "n", "ask": "1", "type": "calc", "repeat": {"again": again, "until": until, "max": 3}});
    assert_eq!(lower(calc("twice", "{n} > 1")), "steps[0].repeat.again");
    assert_eq!(lower(calc("{n} * 2", "{n} + 1")), "steps[0].repeat.until");
    assert_eq!(lower(calc("{n} * {m}", "{n} > 1")), "steps[0].repeat.again");
    let block = json!([{"id": "m", "ask": "x", "type": "text"}]);
    assert_eq!(lower(json!({"id": "n", "repeat": {"steps": block, "until": "m", "max": 3}})), "steps[0].repeat.until");
    let block = json!([{"id": "n", "ask": "x", "type": "text"}]);
    assert_eq!(lower(json!({"id": "n", "repeat": {"steps": block, "max": 3}})), "steps[0].repeat.steps[0].id");
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
    assert_eq!(with_tools(plan_schema(Dialect::Graph, 3, 50), &[]), plan_schema(Dialect::Graph, 3, 50));
    let schema = with_tools(plan_schema(Dialect::Graph, 3, 50), &[&word("search"), &word("list")]);
    let schema = crate::schema::Schema::from_json_schema(schema).unwrap();
    let fits = |step: Value| schema.validate(&json!({"steps": [step]})).is_ok();
    assert!(fits(json!({"id": "a", "tool": "search", "with": {"query": "x"}})));
    assert!(fits(json!({"id": "a", "ask": "Who?", "type": "text"})));
    assert!(!fits(json!({"id": "a", "tool": "rm", "with": {}})));
    assert!(tool_rules(&[&word("search")]).ends_with("\n  - search: finds"));
}

fn any_step() -> impl Strategy<Value = Value> {
    let id = prop_oneof!["[abc]", Just("answer".to_owned()), Just("item".to_owned())];
    let ask = || "[abc{}? 0-9+*%,.>=-]{0,20}|\\{[abcd]\\}|if [ab] > 1 then 2 else 3";
    let kind = prop::sample::select(vec!["text", "number", "yesno", "list", "calc"]);
    let max = prop::option::of(0..100);
    let repeat = prop::option::of(
        (ask(), ask(), max).prop_map(|(again, until, max)| json!({"again": again, "until": until, "max": max})),
    );
    let reference = || prop::option::of("[abcd]");
    (id, ask(), kind, reference(), reference(), reference(), repeat).prop_map(
        |(id, ask, kind, each, only_if, unless, repeat)| json!({"id": id, "ask": ask, "type": kind, "each": each, "if": only_if, "unless": unless, "repeat": repeat}),
    )
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

    #[test]
    fn repair_ends_is_idempotent_and_lowering_never_panics(plan in prop::collection::vec(any_step(), 1..8)) {
        if let Ok(steps) = parse_reply(&Value::Array(plan)) {
            let (steps, _) = repair(steps, "a b", &[], 50);
            let (again, more) = repair(steps.clone(), "a b", &[], 50);
            prop_assert_eq!(&again, &steps);
            prop_assert_eq!(more, vec![]);
            let mut plan = Plan { question: "a b".into(), steps };
            plan.append_answer();
            let _ = plan.lower(&[]);
        }
    }
}
