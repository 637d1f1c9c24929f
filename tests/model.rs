//! Against a real model behind a real server: `scripts/test` starts one and sets FLOWRUN_TEST_MODEL_URL.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn flowrun(folder: &Path, arguments: &[&str]) -> Output {
    let url = std::env::var("FLOWRUN_TEST_MODEL_URL").expect("FLOWRUN_TEST_MODEL_URL is not set: run scripts/test");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowrun"));
    command.current_dir(folder).args(arguments).env("OPENAI_BASE_URL", url);
    command.env_remove("OPENAI_API_KEY").env_remove("FLOWRUN_MODEL").env("NO_COLOR", "1");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
#[ignore = "needs a real model: scripts/test starts one"]
fn a_question_is_decomposed_answered_and_traced() {
    let folder = tempfile::tempdir().unwrap();
    let question = "Name the capital of France and the capital of Japan, and say which of the two lies further north.";
    let asked = flowrun(folder.path(), &["ask", question]);
    let (answer, progress) = (text(&asked.stdout), text(&asked.stderr));
    assert!(asked.status.success(), "{progress}");
    assert!(!answer.trim().is_empty(), "{progress}");
    assert!(progress.contains("opens a graph of"), "{progress}");
    let log = text(&flowrun(folder.path(), &["trace", "last", "--format", "jsonl"]).stdout);
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["status"]), (&Value::from("run_ended"), &Value::from("success")));
    assert!(last["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    let tree = text(&flowrun(folder.path(), &["trace"]).stdout);
    assert!(tree.contains("✓ draft") && tree.contains("✓ answer") && tree.contains("critical path"), "{tree}");
}

#[test]
#[ignore = "needs a real model: scripts/test starts one"]
fn structured_output_fits_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    let workflow = "flowrun: 1\nnodes:\n  colours:\n    prompt: Name three colours.\n    schema: {colours: [string]}\n    params: {temperature: 0, max_tokens: 200}\n  each:\n    for_each: colours.colours\n    prompt: 'Write one word that rhymes with {{ item }}.'\n    params: {max_tokens: 20}\noutput: {n: each | length, c: colours.colours | length}\n";
    std::fs::write(folder.path().join("w.yaml"), workflow).unwrap();
    let ran = flowrun(folder.path(), &["run", "w.yaml", "--json"]);
    let object: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{}", text(&ran.stderr)));
    assert_eq!(object["status"], "success", "{object}");
    assert_eq!(object["output"]["n"], object["output"]["c"]);
}

#[test]
#[ignore = "needs a real model: scripts/test starts one"]
fn the_models_command_makes_a_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let tried = flowrun(folder.path(), &["models"]);
    assert!(tried.status.success() && text(&tried.stdout).contains("answers in"), "{}", text(&tried.stderr));
}
