//! The reasoning methods that come along, on scripted replies: the answer, what it cost, and how each loop ends.

use flowrun::{Flowrun, RunOptions, Scripted, Status, WORKFLOWS};
use serde_json::{Value, json};

/// Runs a method of the library on a script: its output, the number of calls, and the loops that ended at their bound.
async fn gives(name: &str, inputs: Value, script: &str) -> (Value, u64, Vec<String>) {
    let model = Scripted::parse("script", script).unwrap();
    let flowrun = Flowrun::builder().model("default", model).build();
    let workflow = flowrun.load(name).unwrap();
    let outcome = flowrun.run(&workflow, inputs, RunOptions::default()).await.unwrap();
    assert_eq!(outcome.status, Status::Success, "{name}: {outcome:?}");
    (outcome.output.unwrap(), outcome.usage.calls, outcome.limits_reached)
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn every_method_takes_a_question_and_checks_without_a_warning() {
    let flowrun = Flowrun::builder().build();
    for (name, text) in WORKFLOWS {
        let (checked, _) = flowrun.check_text(&format!("@{name}"), text).unwrap();
        assert!(checked.warnings.is_empty(), "{name}: {:?}", checked.warnings);
        let definition = &checked.workflow.definition;
        assert_eq!(definition.name, *name);
        assert!(definition.description.is_some(), "{name}");
        let required = definition.inputs.iter().filter(|(_, input)| input.default.is_none());
        assert_eq!(required.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["question"], "{name}");
    }
}

#[tokio::test]
async fn least_to_most_shows_each_question_the_answers_before_it() {
    let script = r#"
- {match: Do not answer yet, reply: [How many in a row?, How many rows?, A third one?]}
- {match: "x\n\nQ: How many in a row?\nA: 6\n\nQ: How many rows?\nA: 7\n\nQ: x\nA:", reply: 42}
- {match: "x\n\nQ: How many in a row?\nA: 6\n\nQ: How many rows?\nA:", reply: 7}
- {match: "x\n\nQ: How many in a row?\nA:", reply: 6}
"#;
    let inputs = json!({"question": "x", "parts": 2});
    assert_eq!(gives("@least-to-most", inputs, script).await, (json!("42"), 4, none()));
    let script = "- {match: Do not answer yet, reply: []}\n- {match: \"x\\n\\nQ: x\\nA:\", reply: at once}\n";
    assert_eq!(gives("@least-to-most", json!({"question": "x"}), script).await, (json!("at once"), 2, none()));
}

#[tokio::test]
async fn a_scratchpad_ends_with_the_answer_or_with_its_last_line() {
    let script = r#"
- {match: "1 + 2 = 3\n3 + 4 = 7\n\nWrite the next", reply: "**Answer: 7**\n(done)"}
- {match: "1 + 2 = 3\n\nWrite the next", reply: "3 + 4 = 7\nAnswer: 8"}
- {match: "Scratchpad:\n\nWrite the first", reply: 1 + 2 = 3}
"#;
    assert_eq!(gives("@scratchpad", json!({"question": "x"}), script).await, (json!("7"), 3, none()));
    let script = r#"
- {match: "Work:\nand so on\nand so on\nand so on\n\nTherefore", reply: unknown}
- {match: Scratchpad, reply: and so on}
"#;
    let inputs = json!({"question": "x", "lines": 2});
    assert_eq!(gives("@scratchpad", inputs, script).await, (json!("unknown"), 4, vec!["loop(line)".to_owned()]));
}

#[tokio::test]
async fn self_refine_ends_with_a_good_mark_or_gives_the_best_text() {
    let script = r#"
- {match: "Text:\nfirst", reply: {criticism: too short, mark: 3}}
- {match: "Text:\nsecond", reply: {criticism: nothing, mark: 9}}
- {match: "Draft:\nfirst\n\nWhat is wrong with it: too short", reply: second}
- {match: x, reply: first}
"#;
    assert_eq!(gives("@self-refine", json!({"question": "x"}), script).await, (json!("second"), 4, none()));
    let script = r#"
- {match: "Text:\nfirst", reply: {criticism: too short, mark: 3}}
- {match: "Text:\nsecond", reply: {criticism: too long, mark: 5}}
- {match: "Text:\nthird", reply: {criticism: too dull, mark: 5}}
- {match: "Text:\nfourth", reply: {criticism: too late, mark: 4}}
- {match: "Draft:\nfirst", reply: second}
- {match: "Draft:\nsecond", reply: third}
- {match: "Draft:\nthird", reply: fourth}
- {match: x, reply: first}
"#;
    let bound = vec!["loop(text)".to_owned()];
    assert_eq!(gives("@self-refine", json!({"question": "x"}), script).await, (json!("third"), 8, bound));
}

#[tokio::test]
async fn a_tree_of_thoughts_grows_its_best_paths_until_one_has_the_answer() {
    let script = r#"
- {match: "Steps so far:\na\n\nGive", reply: [c, "Answer: 5"]}
- {match: "Steps so far:\nb\n\nGive", reply: [d]}
- {match: Give 3, reply: [a, b, bad, never seen]}
- {match: "Steps:\na\nAnswer: 5\n\nDo", reply: sure}
- {match: "Steps:\nbad\n\nDo", reply: impossible}
- {match: "Do these", reply: likely}
- {match: "Steps:\na\nAnswer: 5\n\nTherefore", reply: 5}
"#;
    assert_eq!(gives("@tree-of-thoughts", json!({"question": "x"}), script).await, (json!("5"), 10, none()));
    let script = r#"
- {match: "Give 1", reply: [on]}
- {match: "Do these", reply: likely}
- {match: "Steps:\non\non\n\nTherefore", reply: no answer}
"#;
    let inputs = json!({"question": "x", "levels": 2, "branches": 1, "width": 1});
    let bound = vec!["level".to_owned()];
    assert_eq!(gives("@tree-of-thoughts", inputs, script).await, (json!("no answer"), 5, bound));
}

/// A script of `@adapt`: by question how it is tried and whether that is right, then what else is asked.
fn tried(attempts: &[(&str, &str, bool)], others: &str) -> String {
    let attempt = |(question, result, right): &(&str, &str, bool)| {
        let found = json!({"result": result, "right": right});
        format!(
            "- {{match: \"{question}\\n\\nThink\", reply: tried {result}}}\n- {{match: \"Question: {question}\\nAnswer: tried {result}\", reply: {found}}}\n"
        )
    };
    attempts.iter().map(attempt).collect::<String>() + others
}

#[tokio::test]
async fn adapt_splits_what_it_cannot_do() {
    let inputs = json!({"question": "x?"});
    let (output, calls, _) = gives("@adapt", inputs.clone(), &tried(&[("x?", "4", true)], "")).await;
    assert_eq!((output, calls), (json!({"answer": "4", "success": true}), 2));
    let attempts = [
        ("left?", "l", true),
        ("right?", "no", false),
        ("hard?", "no", false),
        ("easy?", "e", true),
        ("x?", "perhaps", false),
    ];
    // All of the parts of x, any one of the parts of its second: the third of those is not tried.
    let others = r#"
- {match: "hard?\n\nSplit", reply: {needed: any, parts: []}}
- {match: "left? l\nQuestion: right?\n\nSplit", reply: {needed: any, parts: [hard?, easy?, never?]}}
- {match: "Question: x?\n\nSplit", reply: {needed: all, parts: [left?, right?]}}
- {match: "left? l\neasy? e\nQuestion: right?\n\nAnswer", reply: r}
- {match: "left? l\nright? r\nQuestion: x?\n\nAnswer", reply: both}
- {match: "left? l\nQuestion: x?\n\nAnswer", reply: half}
"#;
    let (output, calls, _) = gives("@adapt", inputs.clone(), &tried(&attempts, others)).await;
    assert_eq!((output, calls), (json!({"answer": "both", "success": true}), 15));
    // Without the easy part the second fails; what the first gave is still used.
    let (output, calls, _) = gives("@adapt", inputs, &tried(&attempts, &others.replace(", easy?, never?", ""))).await;
    assert_eq!((output, calls), (json!({"answer": "half", "success": false}), 12));
}

#[tokio::test]
async fn adapt_gives_what_it_has_where_its_depth_ends() {
    let script = r#"
- {match: Split, reply: {needed: all, parts: [first?, second?]}}
- {match: Think, reply: I do not know}
- {match: certainly right, reply: {result: no idea, right: false}}
"#;
    let (output, calls, _) = gives("@adapt", json!({"question": "x"}), script).await;
    // Three levels of an attempt, a check and a plan: the fourth is not entered, and no second part is tried. The third level
    // asks what the second has asked, and pays nothing.
    assert_eq!((output, calls), (json!({"answer": "no idea", "success": false}), 6));
}

#[tokio::test]
async fn diverse_weighs_each_path_with_its_mark() {
    let script = r#"
- {match: "A: right way: 8\n\nGo", reply: 9}
- {match: "A: wrong way: 5\n\nGo", reply: 2}
- {match: "wise End", reply: "right way: 8"}
- {match: "hasty End", reply: "wrong way: 5"}
"#;
    let inputs = json!({"question": "x", "prompts": ["Be hasty", "Be hasty", "Be wise"], "n": 2});
    let (output, calls, _) = gives("@diverse", inputs, script).await;
    // Equal instructions give their paths once, and equal paths are marked once: two and two paths, and a mark for each of two texts.
    assert_eq!((&output["answer"], &output["paths"], calls), (&json!(8), &json!(6), 6));
    assert!((output["share"].as_f64().unwrap() - 18.0 / 26.0).abs() < 1e-9, "{output}");
}
