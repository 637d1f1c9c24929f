//! Recorded models from outside: a run against a real server on this machine, and the same run when the server is gone.

use std::fs;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Json, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use super::cli::{Place, code, stderr, stdout};
use super::crash::server::{Served, streamed};

const KEY: &str = "sk-very-secret-0123456789";

const WORKFLOW: &str = "\
flowrun: 1
nodes:
  votes: {prompt: Which colour?, samples: 3, params: {temperature: 1}}
  list: {prompt: \"List {{ votes | length }} towns.\", schema: [string]}
  shaky: {prompt: Be shaky., retry: {max: 2, backoff: 1ms}}
output: {votes: votes, list: list, shaky: shaky}
";

/// What the server was asked so far.
#[derive(Default)]
struct Asked {
    colours: AtomicUsize,
    shaky: AtomicUsize,
    lists: Mutex<Vec<Value>>,
}

fn server() -> Served {
    Served::new(Router::new().route("/v1/chat/completions", post(chat)).with_state(Arc::new(Asked::default())))
}

/// Colours in turn; a list that is none until its turn is mended; an error, with the key in it, before the first shaky answer.
async fn chat(State(asked): State<Arc<Asked>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let messages = body["messages"].as_array().unwrap();
    let first = messages[0]["content"].as_str().unwrap();
    let reply = if first.contains("colour") {
        ["red", "green", "blue"][asked.colours.fetch_add(1, Ordering::Relaxed) % 3].to_owned()
    } else if first.contains("List") {
        asked.lists.lock().unwrap().push(body.clone());
        if messages.len() == 1 { "Bergen, I think".to_owned() } else { r#"["Bergen","Oslo"]"#.to_owned() }
    } else if asked.shaky.fetch_add(1, Ordering::Relaxed) == 0 {
        let sent = headers[header::AUTHORIZATION].to_str().unwrap();
        let error = json!({"error": {"message": format!("out of order for {sent}")}});
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(error)).into_response();
    } else {
        "steady now".to_owned()
    };
    streamed(&reply, 10 + messages.len())
}

/// The part of `--json` that a run and its repetition have in common.
fn report(output: &Output) -> Value {
    let report: Value = serde_json::from_str(&stdout(output)).unwrap_or_else(|_| panic!("{}", stderr(output)));
    json!({"status": report["status"], "output": report["output"], "usage": report["usage"], "steps": report["steps"]})
}

#[test]
fn a_recorded_run_is_repeated_without_its_server() {
    let place = Place::new();
    place.write("w.yaml", WORKFLOW);
    let server = server();
    let recorded = place
        .command(&["run", "w.yaml", "--json", "--record", "calls.jsonl"])
        .env("OPENAI_BASE_URL", &server.url)
        .env("OPENAI_API_KEY", KEY)
        .env("FLOWRUN_MODEL", "m")
        .output()
        .unwrap();
    let first = report(&recorded);
    assert_eq!((&first["status"], &first["usage"]["calls"]), (&json!("success"), &json!(7)), "{}", stderr(&recorded));
    drop(server);

    let text = place.read("calls.jsonl");
    assert!(
        !text.contains(KEY) && !text.contains("Bearer sk") && text.contains("out of order for Bearer (secret)"),
        "{text}"
    );
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 7);
    for line in &lines {
        assert_eq!(
            (&line["recording"], &line["model"], &line["alias"]),
            (&json!(1), &json!("openai:m at 127.0.0.1"), &json!("default"))
        );
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        let order =
            ["recording", "model", "alias", "sample", "request", "reply", "error", "usage", "latency_ms", "chunks"];
        assert!(keys.is_sorted_by_key(|key| order.iter().position(|known| known == *key).unwrap()), "{keys:?}");
    }
    let mut samples: Vec<u64> = lines.iter().filter_map(|line| line["sample"].as_u64()).collect();
    samples.sort_unstable();
    assert_eq!(samples, [0, 1, 2]);

    // Each process begins at the beginning.
    for _ in 0..2 {
        let again = place.flowrun(&["run", "w.yaml", "--json", "--model", "recorded:calls.jsonl"]);
        assert_eq!(report(&again), first, "{}", stderr(&again));
    }
    assert_eq!(place.read("calls.jsonl"), text);
}

#[test]
fn a_changed_prompt_is_an_error_that_shows_the_change() {
    let place = Place::new();
    assert_eq!(code(&place.run(&["two.yaml", "--input", "word=x", "--record", "calls.jsonl"])), 0);
    let play =
        |word: &str| place.flowrun(&["run", "two.yaml", "-q", "--input", word, "--model", "recorded:calls.jsonl"]);
    assert_eq!(stdout(&play("word=x")), "two\n");
    let missed = play("word=y");
    assert_eq!((code(&missed), stdout(&missed).as_str()), (1, ""));
    let said = stderr(&missed);
    let expected = "the nearest one is on its line 1 and differs in line 1 of message 1 (user): it was `first x 1` and is `first y 1`";
    assert!(said.contains(expected) && said.contains("(no_recording)"), "{said}");

    let text = place.read("calls.jsonl");
    place.write("calls.jsonl", &format!("{text}{}\n", &text[..60]));
    let damaged = play("word=x");
    assert!(code(&damaged) == 2 && stderr(&damaged).contains("line 3 is no JSON"), "{}", stderr(&damaged));
}

#[test]
fn the_configuration_records_and_a_trial_does_not() {
    let place = Place::new();
    let configure = |model: &str| place.write("flowrun.yaml", &format!("models:\n  default: {model}\n"));
    configure("{provider: scripted, model: replies.yaml, record: calls.jsonl}");
    place.write("replies.yaml", "- {match: first, reply: one}\n- {reply: two}\n");
    assert_eq!(code(&place.flowrun(&["models"])), 0);
    assert!(!place.path().join("calls.jsonl").exists());
    let run = ["run", "two.yaml", "-q", "--input", "word=x"];
    assert_eq!(stdout(&place.flowrun(&run)), "two\n");
    // The command line wins over what is configured.
    assert_eq!(stdout(&place.flowrun(&[&run[..], &["--record", "other.jsonl"]].concat())), "two\n");
    assert_eq!((place.read("calls.jsonl").lines().count(), place.read("other.jsonl").lines().count()), (2, 2));

    configure("{provider: recorded, model: calls.jsonl, latency: 0.5}");
    fs::remove_file(place.path().join("replies.yaml")).unwrap();
    assert_eq!(stdout(&place.flowrun(&run)), "two\n");
    let models = place.flowrun(&["models"]);
    let shown = stdout(&models);
    assert_eq!(code(&models), 0, "{shown}");
    assert!(shown.contains("recorded:calls.jsonl: 2 recorded calls of scripted:replies.yaml"), "{shown}");
    let onto_itself = place.flowrun(&[&run[..], &["--record", "./calls.jsonl"]].concat());
    assert!(code(&onto_itself) == 2 && stderr(&onto_itself).contains("onto its own end"), "{}", stderr(&onto_itself));
    let overwrites = place.flowrun(&[&run[..], &["--record", "two.yaml"]].concat());
    assert!(code(&overwrites) == 2 && stderr(&overwrites).contains("is no recording"), "{}", stderr(&overwrites));
}

/// The loser of a race is given up while it is recorded, and again when it is played.
#[test]
fn a_race_is_repeated() {
    let place = Place::new();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/flowcharts/06-race");
    let (race, replies) = (format!("{examples}.yaml"), format!("scripted:{examples}.replies.yaml"));
    let recorded = place.flowrun(&["run", &race, "--json", "--record", "calls.jsonl", "--model", &replies]);
    let given_up = |line: &&str| !line.contains("\"reply\":") && !line.contains("\"error\":");
    assert!(place.read("calls.jsonl").lines().filter(given_up).count() > 0, "{}", place.read("calls.jsonl"));
    let again = place.flowrun(&["run", &race, "--json", "--model", "recorded:calls.jsonl"]);
    assert_eq!(report(&again), report(&recorded), "{}", stderr(&again));
}
