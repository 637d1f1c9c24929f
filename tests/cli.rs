//! The built command from outside: what goes where, and how it ends.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

const REPLIES: &str = r#"
- {match: "first", reply: one, delay_ms: 5}
- {match: "second", reply: two}
- {match: "slow", reply: late, delay_ms: 60000}
- {match: "broken", status: 400, reply: "no such thing"}
"#;

const TWO: &str = r#"
flowrun: 1
name: two
inputs: {word: string, n: integer = 1}
nodes:
  a: {prompt: "first {{ word }} {{ n }}"}
  b: {prompt: "second {{ a }}"}
output: b
"#;

/// A plan that the model draws when it is asked `Q?`.
const PLAN: &str = r#"
- {match: "Q: ", reply: "43 are left"}
- {match: "How many eggs", reply: "48"}
- {match: "How many are broken", reply: "5 eggs"}
- match: "What is left"
  reply:
    steps:
      - {id: eggs, ask: "How many eggs are there?", type: number}
      - {id: broken, ask: "How many are broken?", type: number}
      - {id: left, ask: "{eggs} - {broken}", type: calc}
"#;

pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("replies.yaml", REPLIES);
        place.write("two.yaml", TWO);
        place.write("plan.replies.yaml", PLAN);
        place
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowrun"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        for name in ["OPENAI_BASE_URL", "OPENAI_API_KEY", "FLOWRUN_MODEL", "FLOWRUN_DB", "RUST_LOG"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn flowrun(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs with the scripted model.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.flowrun(&[&["run"], arguments, &["--model", "scripted:replies.yaml"]].concat())
    }
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// A one-node workflow.
pub(crate) fn asks(prompt: &str) -> String {
    format!("flowrun: 1\nnodes:\n  a: {{prompt: \"{prompt}\"}}\noutput: a\n")
}

#[test]
fn the_answer_and_nothing_else_is_on_stdout() {
    let place = Place::new();
    let output = place.run(&["two.yaml", "--input", "word=x"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "two\n"), "{}", stderr(&output));
    let shown = stderr(&output);
    assert!(shown.contains("✓ a") && shown.lines().last().unwrap().starts_with("run "), "{shown}");
    assert!(shown.lines().last().unwrap().contains(": success, 2 calls, "), "{shown}");
    let quiet = place.run(&["two.yaml", "--input", "word=x", "--quiet"]);
    assert_eq!((stdout(&quiet).as_str(), stderr(&quiet).as_str()), ("two\n", ""));
}

#[test]
fn json_is_one_object_with_the_documented_keys() {
    let place = Place::new();
    let output = place.run(&["two.yaml", "--input", "word=x", "--json", "--no-record"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(report["critical_path_ms"].as_u64() >= Some(5), "{report}");
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    let expected = [
        "run", "status", "output", "error", "usage", "steps", "reused", "wall_ms", "critical_path_ms",
        "limits_reached", "asked",
    ];
    assert_eq!(keys, expected);
    assert_eq!(
        report["usage"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["calls", "prompt_tokens", "completion_tokens"]
    );
    assert_eq!((&report["status"], &report["output"], &report["steps"]), (&"success".into(), &"two".into(), &2.into()));
}

#[test]
fn each_end_has_its_exit_code() {
    let place = Place::new();
    let check = |file: &str, more: &[&str], status: &str, expected: i32| {
        let output = place.run(&[&[file, "--json"], more].concat());
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap_or_default();
        assert_eq!((code(&output), report["status"].as_str()), (expected, Some(status)), "{file}: {}", stderr(&output));
    };
    place.write("broken.yaml", &asks("broken"));
    check("two.yaml", &["--input", "word=x"], "success", 0);
    check("broken.yaml", &[], "failed", 1);
    check("two.yaml", &["--input", "word=x", "--max-calls", "1", "--no-record"], "exhausted", 3);
    place.write("ask.yaml", "flowrun: 1\nnodes:\n  a: {kind: human, prompt: Well?}\noutput: a\n");
    check("ask.yaml", &["--no-input"], "suspended", 5);
    let output = place.run(&["broken.yaml", "-q"]);
    assert!(stderr(&output).contains("error: step `a`") && stderr(&output).contains("no such thing"), "{output:?}");
}

#[test]
fn bad_usage_ends_with_2_and_a_way_out() {
    let place = Place::new();
    place.write("typo.yaml", "flowrun: 1\nnodes:\n  a: {promt: hi}\n");
    place.write("list.json", "[1]");
    let check = |arguments: &[&str], expected: &[&str]| {
        let output = place.run(arguments);
        assert_eq!((code(&output), stdout(&output).as_str()), (2, ""), "{arguments:?}: {}", stderr(&output));
        for text in expected {
            assert!(stderr(&output).contains(text), "{arguments:?}: `{text}` is not in: {}", stderr(&output));
        }
    };
    check(&["two.yaml"], &["input `word` is required", "--input 'word=a'"]);
    check(&["two.yaml", "--input", "word=x", "--input", "n=many"], &["input `n`"]);
    check(&["two.yaml", "--input", "wrd=x", "--input", "word=x"], &["did you mean `word`"]);
    check(&["two.yaml", "--input", "word"], &["NAME=VALUE"]);
    check(&["two.yaml", "--input-file", "list.json"], &["not a mapping"]);
    check(&["two.yaml", "--input-file", "none.json"], &["none.json"]);
    check(&["none.yaml"], &["none.yaml", "cannot be read"]);
    check(&["@question-grap"], &["did you mean `@question-graph`?"]);
    check(&["typo.yaml"], &["typo.yaml:3:", "did you mean `prompt`?"]);
    assert_eq!(stdout(&place.flowrun(&["runs"])), "", "no run is recorded");
    let unknown = place.flowrun(&["run", "two.yaml", "--input", "word=x", "--model", "defult"]);
    assert!(code(&unknown) == 2 && stderr(&unknown).contains("no model `defult`"), "{unknown:?}");
}

#[test]
fn quiet_leaves_out_warnings_too() {
    let place = Place::new();
    place.write("w.yaml", "flowrun: 1\ninputs: {unread: string = x}\nnodes: {v: {value: 1}}\noutput: v\n");
    assert!(stderr(&place.run(&["w.yaml"])).contains("FR101"));
    assert!(stderr(&place.flowrun(&["check", "w.yaml"])).contains("FR101"));
    let loud = place.flowrun(&["replay", "last"]);
    assert!(stderr(&loud).contains("FR101"), "{}", stderr(&loud));
    for arguments in
        [["run", "w.yaml", "-q"].as_slice(), &["replay", "last", "-q"], &["replay", "last", "--set", "v.value=2", "-q"]]
    {
        let quiet = place.flowrun(arguments);
        assert_eq!((code(&quiet), stderr(&quiet).as_str()), (0, ""), "{arguments:?}");
    }
    place.write(
        "ask.yaml",
        "flowrun: 1\ninputs: {unread: string = x}\nnodes: {v: {kind: human, prompt: Go?}}\noutput: v\n",
    );
    assert_eq!(code(&place.run(&["ask.yaml", "--no-input", "-q"])), 5);
    let resumed = place.flowrun(&["resume", "last", "--no-input", "-q"]);
    assert!(code(&resumed) == 5 && !stderr(&resumed).contains("FR101"), "{}", stderr(&resumed));
}

#[test]
fn a_model_that_cannot_be_made_is_told_before_anything_runs() {
    let place = Place::new();
    place.write("bad.yaml", "- {reply: x\n- b\n");
    for (model, expected) in [
        ("scripted:nope.yaml", "`nope.yaml`: "),
        ("scripted:bad.yaml", "at line 3 column 1"),
        ("m", "`nonsense` is no address of a model server"),
    ] {
        let arguments = ["run", "two.yaml", "--input", "word=x", "--model", model];
        let output = place.command(&arguments).env("OPENAI_BASE_URL", "nonsense").output().unwrap();
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    assert_eq!(stdout(&place.flowrun(&["runs"])), "", "no run is recorded");
}

#[test]
fn a_file_in_the_place_of_a_command_gets_the_command() {
    let output = Place::new().flowrun(&["two.yaml"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("write `flowrun run two.yaml`"), "{}", stderr(&output));
}

#[test]
fn a_workflow_can_come_from_stdin() {
    let place = Place::new();
    let mut child = place.command(&["run", "-", "-q", "--model", "scripted:replies.yaml"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(asks("first").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "one\n"));
}

#[test]
fn a_drawn_graph_is_shown_and_a_saved_plan_runs_as_a_file() {
    let place = Place::new();
    let model = ["--model", "scripted:plan.replies.yaml"];
    let output = place.flowrun(&[&["ask", "What is left?", "--save-plan", "plan.yaml"], &model[..]].concat());
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "43 are left\n"), "{}", stderr(&output));
    assert!(stderr(&output).contains("[eggs]"), "{}", stderr(&output));
    assert!(place.read("plan.yaml").contains("on_error: skip"));
    let checked = place.flowrun(&["check", "plan.yaml"]);
    assert!(code(&checked) == 0 && !stderr(&checked).contains("error"), "{}", stderr(&checked));
    let again = place.flowrun(&[&["run", "plan.yaml", "-q"], &model[..]].concat());
    assert_eq!((code(&again), stdout(&again).as_str()), (0, "43 are left\n"), "{}", stderr(&again));
    let trace = place.flowrun(&["trace", "last", "answer", "--prompts"]);
    assert!(stdout(&trace).contains("A: 43") && stdout(&trace).contains("43 are left"), "{}", stdout(&trace));
    let none = place.run(&["two.yaml", "--input", "word=x", "--save-plan", "no.yaml"]);
    assert!(stderr(&none).contains("no plan was drawn") && !place.path().join("no.yaml").exists(), "{}", stderr(&none));
}

/// A flowchart that the model draws when it is asked `How many weeks?`: a loop that is computed, one that is asked, and a branch.
const FLOWCHART: &str = r#"
- {match: "Q: ", reply: "8 weeks"}
- {match: "Passau", reply: "Linz"}
- {match: "Linz", reply: "Vienna"}
- {match: "a town", reply: "Passau"}
- match: "How many weeks"
  reply:
    steps:
      - {id: lilies, ask: "3", type: calc, repeat: {again: "lilies * 2", until: "{lilies} > 500", max: 99}}
      - {id: many, ask: "{lilies} > 1000", type: calc}
      - {id: why, ask: "Why so many?", type: text, if: many}
      - {id: town, ask: "Name a town.", type: text, repeat: {again: "What comes after {town}?", max: 2}}
"#;

#[test]
fn a_flowchart_loops_and_a_saved_one_runs_as_a_file() {
    let place = Place::new();
    place.write("flow.replies.yaml", FLOWCHART);
    let model = ["--model", "scripted:flow.replies.yaml"];
    let asked = ["run", "@question-flowchart", "--input", "question=How many weeks?", "--save-plan", "plan.yaml"];
    let output = place.flowrun(&[&asked[..], &model[..]].concat());
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "8 weeks\n"), "{}", stderr(&output));
    let shown = "lilies: 3; again: {lilies} * 2; until: {lilies} > 500; at most 50 times";
    assert!(stderr(&output).contains(shown), "{}", stderr(&output));
    let trace = place.flowrun(&["trace", "last", "parts/answer", "--prompts"]);
    let lilies = "768 (repeated 8 times: 3, 6, 12, 24, 48, 96, 192, 384, 768)";
    let town = "Vienna (repeated 2 times: Passau, Linz, Vienna)";
    assert!(stdout(&trace).contains(lilies) && stdout(&trace).contains(town), "{}", stdout(&trace));
    let again = place.flowrun(&[&["run", "plan.yaml", "-q"], &model[..]].concat());
    assert_eq!((code(&again), stdout(&again).as_str()), (0, "8 weeks\n"), "{}", stderr(&again));
    let graph = place.flowrun(&[&["ask", "How many weeks?", "-q"], &model[..]].concat());
    assert!(stdout(&graph).starts_with("{\"steps\""), "without loops only the question is left: {}", stderr(&graph));
}

#[test]
fn no_record_writes_nothing() {
    let place = Place::new();
    let before = fs::read_dir(place.path()).unwrap().count();
    assert_eq!(code(&place.run(&["two.yaml", "--input", "word=x", "--no-record"])), 0);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), before);
    assert_eq!(code(&place.run(&["two.yaml", "--input", "word=x", "--db", "elsewhere/mine.db"])), 0);
    assert!(stdout(&place.flowrun(&["runs", "--db", "elsewhere/mine.db"])).contains("  success  "));
    let named = place.command(&["runs"]).env("FLOWRUN_DB", "elsewhere/mine.db").output().unwrap();
    assert!(stdout(&named).contains("  success  "));
    assert!(!place.path().join(".flowrun").exists());
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let place = Place::new();
    for arguments in
        [&["show", "@few-shot-cot"][..], &["run", "two.yaml", "--input", "word=x", "--model", "scripted:replies.yaml"]]
    {
        let mut command = place.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(code(&output) == 0 && !stderr(&output).contains("panic"), "{arguments:?}: {}", stderr(&output));
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_cancels_and_keeps_what_finished() {
    let place = Place::new();
    place.write("slow.yaml", "flowrun: 1\nnodes:\n  a: {prompt: first}\n  b: {prompt: \"slow {{ a }}\"}\noutput: b\n");
    let mut command = place.command(&["run", "slow.yaml", "--model", "scripted:replies.yaml"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let events = || stdout(&place.flowrun(&["trace", "--format", "jsonl"]));
    for _ in 0..400 {
        if events().matches("\"started\"").count() == 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).contains(": cancelled, "), "{}", stderr(&output));
    let tree = stdout(&place.flowrun(&["trace"]));
    assert!(tree.contains("✓ a") && tree.contains("■ b"), "{tree}");
}

#[test]
fn methods_of_the_library_give_their_answers() {
    let place = Place::new();
    place.write(
        "sc.yaml",
        "- {match: Q, reply: 'So it is 1,000.', times: 2}\n- {match: Q, reply: 'The answer is 7.', times: 1}\n",
    );
    let output = place.flowrun(&[
        "run", "@self-consistency", "--input", "question=x", "--input", "n=3", "-q", "--model", "scripted:sc.yaml",
    ]);
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!((&value["answer"], value["samples"].as_u64()), (&1000.into(), Some(3)));
    let check = |name: &str, replies: &str, expected: &str| {
        place.write("replies.yaml", replies);
        let output = place.run(&[name, "--input", "question=x", "-q"]);
        assert_eq!((stdout(&output).trim(), code(&output)), (expected, 0), "{name}: {}", stderr(&output));
    };
    check("@few-shot-cot", "- {match: 'Q: x', reply: \"2 and 2.\\nThe answer is 4.5 m.\"}\n", "4.5 m");
    check("@few-shot-cot", "- {reply: no idea}\n", "no idea");
    check("@zero-shot-cot", "- {match: Therefore, reply: '4'}\n- {match: 'step by step', reply: 2 and 2}\n", "4");
}

#[test]
fn a_workflow_calls_others_of_its_folder_and_no_more() {
    let place = Place::new();
    let call = |reference: &str| {
        format!("flowrun: 1\nnodes:\n  c: {{workflow: \"{reference}\", with: {{word: \"'x'\"}}}}\noutput: c\n")
    };
    fs::create_dir(place.path().join("sub")).unwrap();
    place.write("sub/inner.yaml", TWO);
    place.write("outer.yaml", &call("sub/inner.yaml"));
    place.write("sub/up.yaml", &call("../two.yaml"));
    let output = place.run(&["outer.yaml", "-q"]);
    assert_eq!((stdout(&output).as_str(), code(&output)), ("two\n", 0), "{}", stderr(&output));
    let output = place.run(&["sub/up.yaml"]);
    assert!(code(&output) == 2 && stderr(&output).contains("leads out of the folder"), "{}", stderr(&output));
}

#[test]
fn the_run_is_traced_for_subscribers() {
    let place = Place::new();
    let run = |filter: &str| {
        let mut command =
            place.command(&["run", "two.yaml", "--input", "word=secretword", "-q", "--model", "scripted:replies.yaml"]);
        let output = command.env("RUST_LOG", filter).env("NO_COLOR", "1").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let debug = run("flowrun=debug");
    for wanted in [
        "run{workflow=two}: flowrun: run started",
        "step succeeded step=a",
        "step{path=b kind=\"llm\" attempt=1}: flowrun: attempt ended calls=1",
        "run ended status=\"success\" calls=2",
    ] {
        assert!(debug.contains(wanted), "no `{wanted}` in:\n{debug}");
    }
    assert!(!debug.contains("secretword"), "prompts are not in it:\n{debug}");
    assert!(run("flowrun=info").lines().count() == 2);
    assert_eq!(run("error"), "");
}
