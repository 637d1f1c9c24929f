//! The examples, built and run as their opening words say.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use super::http;

fn example(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("OPENAI_BASE_URL");
    command.args(["run", "--quiet", "--locked", "--example", name, "--"]).args(arguments);
    command
}

fn printed(name: &str) -> String {
    let output = example(name, &[]).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn examples_are_short() {
    let files = |folder: &str| std::fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for file in files("examples").chain(files("examples/flowcharts")) {
        let path = file.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < 60, "{}: {lines} lines", path.display());
    }
}

#[test]
fn hello_answers() {
    assert!(printed("hello").starts_with("Come to Lisbon in Portugal"));
}

#[test]
fn a_node_of_your_own_counts_and_fails() {
    assert_eq!(printed("custom_node"), "6 words\ncounts[1] failed as it should\n");
}

#[test]
fn a_model_of_your_own_falls_back() {
    let text = printed("custom_model");
    assert!(text.contains("asking scripted:working") && text.ends_with("Lisbon\n"), "{text}");
}

#[test]
fn a_run_is_streamed() {
    let text = printed("stream");
    let at = |wanted: &str| text.find(wanted).unwrap_or_else(|| panic!("no `{wanted}` in:\n{text}"));
    assert!(at("country starts") < at("country = \"Portugal\""));
    assert!(at("country = ") < at("invitation starts"));
    assert!(at("[invitation] Come ") < at("[invitation] me!"));
    assert!(at("invitation = ") < at("3 calls"));
}

#[test]
fn a_question_is_decomposed() {
    let text = printed("decompose");
    assert!(text.contains("the model drew: tower, building, difference, answer"), "{text}");
    assert!(text.contains("parts/tower: \"It was opened in 1889\""), "{text}");
    assert!(text.ends_with("The Eiffel Tower is 42 years older.\n"), "{text}");
}

#[test]
fn a_person_is_asked_until_they_are_content() {
    let says = |lines: &str| {
        let mut child = example("human", &[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let (first, second) = ("Dear Ada, come and see us.", "Dear Ada, come and see us in May.");
    let whole = format!("check#0: Send this? {first}\ncheck#1: Send this? {second}\n\"{second}\"\n");
    assert_eq!(says("in May\nyes\n"), whole);
    assert_eq!(says(""), format!("check#0: Send this? {first}\nunanswered: check#0\n"));
}

/// The ten flowcharts that others get wrong, with what they give.
const FLOWCHARTS: [(&str, &str); 10] = [
    ("01-skipped-join", "36"),
    ("02-uneven-branches", "2003"),
    ("03-fast-branch", r#"{"tail":"Leaves in water.","slow":"It began long ago."}"#),
    ("04-loop-fork-join", "Leaves fall in October."),
    ("05-nested-loops", r#"{"row":2,"cell":3}"#),
    ("06-race", "Lisbon"),
    ("07-map-loop-map", "[[8,16,24],[10,20,30],[40,80,120]]"),
    ("08-quorum", r#"{"winner":"red","votes":["red","red",null,"blue"]}"#),
    ("09-expansion-in-a-loop", "The town hall is 61 m tall and the church 48 m."),
    ("10-recursion", r#"{"sum":5,"left":[[3],[8]]}"#),
];

#[test]
fn flowcharts_give_what_they_should() {
    for (name, expected) in FLOWCHARTS {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowrun"));
        command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["run", "--no-record"]);
        command.arg(format!("examples/flowcharts/{name}.yaml"));
        let replies = format!("examples/flowcharts/{name}.replies.yaml");
        if std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&replies).exists() {
            command.args(["--model", &format!("scripted:{replies}")]);
        } else {
            command.env_remove("OPENAI_BASE_URL").env_remove("OPENAI_API_KEY").env_remove("FLOWRUN_MODEL");
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), expected, "{name}: {said}");
    }
}

/// Ends with the test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn a_server_streams_progress() {
    // The example itself and not cargo is started here, so that ending it leaves nothing behind.
    assert!(example("serve", &["no-address"]).stderr(Stdio::null()).status().unwrap().code() == Some(1));
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples");
    let mut command = Command::new(folder.join("serve"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("127.0.0.1:0").stdout(Stdio::piped());
    let mut served = Served(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(served.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();

    assert!(http::get(&address, "/").1.contains("EventSource"));
    let (head, stream) = http::get(&address, "/ask?city=Lisbon");
    assert!(head.contains("text/event-stream"), "{head}");
    let at = |wanted: &str| stream.find(wanted).unwrap_or_else(|| panic!("no `{wanted}` in:\n{stream}"));
    assert!(at("event: record") < at("event: tokens"));
    assert!(at("event: tokens") < at("event: outcome\ndata: {\"status\":\"success\",\"output\":\"Come to Lisbon"));
    let (head, refusal) = http::get(&address, "/ask?town=Lisbon");
    assert!(head.contains("400") && refusal.contains("it takes `city`"), "{head}\n{refusal}");
}
