//! The commands around a run: `check`, `models`, `list`, `show`, and what configures them.

use serde_json::Value;

use super::cli::{Place, code, stderr, stdout};

#[test]
fn check_reports_to_people_and_to_editors() {
    let place = Place::new();
    place.write("bad.yaml", "flowrun: 1\nnodes:\n  a: {prompt: \"{{ b }}\"}\n  c: {kind: nope}\noutput: a\n");
    place.write("warn.yaml", "flowrun: 1\ninputs: {x: string}\nnodes:\n  a: {prompt: hi}\noutput: a\n");
    let warned = place.flowrun(&["check", "warn.yaml", "two.yaml"]);
    assert!(code(&warned) == 0 && stderr(&warned).contains("FR101"), "{}", stderr(&warned));
    let refused = place.flowrun(&["check", "two.yaml", "bad.yaml"]);
    assert!(code(&refused) == 2 && stdout(&refused).is_empty(), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("bad.yaml:3:") && stderr(&refused).contains("bad.yaml:4:"),
        "{}",
        stderr(&refused)
    );
    let json = place.flowrun(&["check", "--format", "json", "bad.yaml"]);
    let lines: Vec<Value> = stdout(&json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(code(&json) == 2 && lines.len() == 2 && lines[0]["place"]["line"] == 3, "{lines:?}");
    assert!(stderr(&json).is_empty());
}

#[test]
fn the_cost_of_a_workflow_is_a_formula_and_a_number() {
    let place = Place::new();
    let text = "flowrun: 1\ninputs: {n: integer}\nbudget: {calls: 60}\nnodes:\n  split: {prompt: x, schema: '[string]', repair: 0, retry: 0}\n  \
        facts: {for_each: split, prompt: '{{ item }}'}\n  answer: {samples: n, prompt: '{{ facts }}', retry: 0}\noutput: answer\n";
    place.write("facts.yaml", text);
    let output = place.flowrun(&["check", "--cost", "facts.yaml", "--input", "n=2"]);
    let shown = "\
model calls    1 + n + n(facts)     ≤ 100,003, held to 60 by `budget.calls`
with retries   1 + n + 3·n(facts)   ≤ 300,003, held to 60 by `budget.calls`
steps          3 + n + n(facts)     ≤ 100,005
depth          1
width          max(1, n, n(facts))  ≤ 100,000
critical path  3
  n(facts) ≤ 100,000 by `limits.items`
  n = 2 with these inputs
";
    assert_eq!(stdout(&output), shown);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), "facts.yaml: ok\n"));

    let output = place.flowrun(&["check", "--cost", "facts.yaml", "--format", "json"]);
    let object: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(object["file"], "facts.yaml");
    assert_eq!(
        object["cost"]["model_calls"],
        serde_json::json!({"formula": "1 + n + n(facts)", "most": 200_001, "held_to": {"most": 60, "by": "budget.calls"}})
    );
    let parts = ["model_calls", "with_retries", "steps", "depth", "width", "critical_path", "names"];
    assert_eq!(object["cost"].as_object().unwrap().keys().collect::<Vec<_>>(), parts);

    let refused = |arguments: &[&str], words: &str| {
        let output = place.flowrun(&[&["check"], arguments].concat());
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{arguments:?}");
        assert!(stderr(&output).contains(words) && stderr(&output).contains("help: "), "{}", stderr(&output));
    };
    refused(&["facts.yaml", "--input", "n=2"], "`--cost` says");
    refused(&["facts.yaml", "--cost", "--input", "m=2"], "did you mean `n`?");
    refused(&["facts.yaml", "--cost", "--input", "n=two"], "input `n`");
}

#[test]
fn without_a_model_the_ways_to_one_are_shown() {
    let place = Place::new();
    let output = place.flowrun(&["ask", "Why?"]);
    if stderr(&output).contains("Ollama on 127.0.0.1") {
        return;
    }
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("OPENAI_BASE_URL") && stderr(&output).lines().count() <= 24,
        "{}",
        stderr(&output)
    );
    place.write("sum.yaml", "flowrun: 1\nnodes:\n  a: {calc: \"2^64 + 1\"}\noutput: a\n");
    assert_eq!(stdout(&place.flowrun(&["run", "sum.yaml", "-q"])), "18446744073709551617\n");
}

#[test]
fn the_configuration_is_read_and_its_mistakes_told() {
    let place = Place::new();
    place.write("flowrun.yaml", "models: {default: {provider: scripted, model: replies.yaml}}\ndb: logs/mine.db\n");
    let output = place.flowrun(&["run", "two.yaml", "--input", "word=x", "-q"]);
    assert_eq!((stdout(&output).as_str(), code(&output)), ("two\n", 0), "{}", stderr(&output));
    assert!(place.path().join("logs/mine.db").exists() && !place.path().join(".flowrun").exists());
    place.write("flowrun.yaml", "model: {}\n");
    let output = place.flowrun(&["run", "two.yaml", "--input", "word=x"]);
    assert!(code(&output) == 2 && stderr(&output).contains("flowrun.yaml"), "{}", stderr(&output));
}

#[test]
fn models_are_asked_for_a_word_and_keys_stay_secret() {
    let place = Place::new();
    place.write("any.yaml", "- {reply: ok}\n");
    let models = "models:\n  good: {provider: scripted, model: any.yaml}\n  gone: {provider: openai, model: m, base_url: \"http://127.0.0.1:9/v1\", api_key_env: MY_KEY}\n";
    place.write("flowrun.yaml", models);
    let output =
        place.command(&["models"]).env("MY_KEY", "sk-very-secret").env("FLOWRUN_MODEL", "good").output().unwrap();
    let all = stdout(&output) + &stderr(&output);
    assert!(
        code(&output) == 1 && all.contains("good") && all.contains("answers") && all.contains("cannot be reached"),
        "{all}"
    );
    assert!(!all.contains("sk-very-secret"));
}

#[test]
fn the_library_is_listed_shown_and_drawn() {
    let place = Place::new();
    let list = stdout(&place.flowrun(&["list"]));
    for name in flowrun::WORKFLOWS.iter().map(|(name, _)| format!("@{name}")) {
        assert!(list.contains(&name), "{list}");
        assert!(stdout(&place.flowrun(&["show", &name])).contains("flowrun: 1\n"));
    }
    assert!(stdout(&place.flowrun(&["graph", "@zero-shot-cot"])).contains("[reasoning]"));
    assert!(stdout(&place.flowrun(&["--version"])).starts_with("flowrun "));
    assert!(stdout(&place.flowrun(&["completions", "bash"])).contains("_flowrun"));
    assert!(stdout(&place.flowrun(&["--help"])).contains("Examples:"));
}
