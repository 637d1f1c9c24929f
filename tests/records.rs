//! Recorded runs from outside: how they are listed and traced, while they go on and afterwards.

use std::sync::Arc;
use std::time::Duration;

use flowrun::engine::store::Durability;
use flowrun::store::SqliteStore;
use flowrun::{Flowrun, RunOptions, StepError, tool_fn};
use serde_json::{Value, json};

use super::cli::{Place, code, stderr, stdout};

#[test]
fn runs_and_traces_show_what_was_recorded() {
    let place = Place::new();
    assert!(stderr(&place.flowrun(&["trace"])).contains("there are no runs"));
    place.run(&["two.yaml", "--input", "word=secret words"]);
    let listed = place.flowrun(&["runs", "--json"]);
    let run: Value = serde_json::from_str(stdout(&listed).trim()).unwrap();
    assert_eq!((&run["workflow"], &run["status"]), (&"two".into(), &"success".into()));
    assert!(stdout(&place.flowrun(&["runs"])).contains("success"));
    let tree = stdout(&place.flowrun(&["trace"]));
    assert!(tree.contains("✓ a") && tree.contains("✓ b") && tree.contains(": success, 2 calls"), "{tree}");
    assert!(!tree.contains("secret words"));
    let prompts = stdout(&place.flowrun(&["trace", "last", "--prompts"]));
    assert!(prompts.contains("first secret words") && prompts.contains("reply │ one"), "{prompts}");
    let log = stdout(&place.flowrun(&["trace", run["id"].as_str().unwrap(), "--format", "jsonl"]));
    assert!(log.lines().count() > 5 && log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    let wrong = place.flowrun(&["trace", "last", "c"]);
    assert!(code(&wrong) == 2 && stderr(&wrong).contains("no step `c`"), "{}", stderr(&wrong));
    assert_eq!(place.read(".flowrun/.gitignore"), "*\n");
}

#[test]
fn a_trace_is_a_tree_a_timeline_or_a_file_for_viewers() {
    let place = Place::new();
    place.write(
        "slow.yaml",
        "flowrun: 1\nnodes:\n  a: {for_each: \"[1, 2]\", prompt: \"first {{ item }}\"}\n  b: {prompt: \"second {{ a }}\"}\n",
    );
    place.run(&["slow.yaml"]);
    let timeline = stdout(&place.flowrun(&["trace", "--format", "timeline"]));
    for text in ["✓ a ", "├", "█", "▒", "critical path: a[", " → b\n", "at once ", ": success, 3 calls"] {
        assert!(timeline.contains(text), "`{text}` is not in:\n{timeline}");
    }
    assert!(!timeline.contains('\u{1b}') && timeline.lines().all(|line| line.chars().count() <= 100), "{timeline}");
    let part = stdout(&place.flowrun(&["trace", "last", "a", "--format", "timeline"]));
    assert!(part.contains("✓ [1]") && !part.contains("✓ b"), "{part}");
    let chrome: Value = serde_json::from_str(&stdout(&place.flowrun(&["trace", "--format", "chrome"]))).unwrap();
    let events = chrome["traceEvents"].as_array().unwrap();
    let names: Vec<&str> = events.iter().filter(|e| e["ph"] == "X").filter_map(|e| e["name"].as_str()).collect();
    assert_eq!(names, ["a", "a[0]", "a[1]", "b"]);
    let first = events.iter().find(|event| event["name"] == "a[0]").unwrap();
    assert!(first["dur"].as_u64() >= Some(5_000) && first["args"]["state"] == "succeeded", "{first}");
}

#[test]
fn errors_are_told_whole_and_conversations_in_order() {
    let place = Place::new();
    let long = "the server is tired of this question ".repeat(8) + "and of its end";
    let replies = format!(
        "- {{match: \"JSON of the form\", reply: \"[1]\"}}\n- {{match: \"Numbers\", reply: none}}\n- {{match: \"Try\", status: 503, reply: \"{long}\"}}\n"
    );
    place.write("replies.yaml", &replies);
    let workflow = "flowrun: 1\nnodes:\n  numbers: {prompt: Numbers, schema: [integer]}\n  tries:\n    prompt: \"Try {{ numbers }}\"\n    retry: {max: 1, on: [server], backoff: 1ms}\noutput: tries\n";
    place.write("w.yaml", workflow);
    assert_eq!(code(&place.run(&["w.yaml", "-q"])), 1);
    let words = |text: &str| text.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let tree = stdout(&place.flowrun(&["trace"]));
    assert!(words(&tree).contains(&words(&long)), "the whole error stands at the foot:\n{tree}");
    assert!(tree.contains("\nerror: step `tries` failed: "), "{tree}");
    assert!(tree.lines().all(|line| line.chars().count() <= 100), "{tree}");
    let prompts = stdout(&place.flowrun(&["trace", "last", "tries", "--prompts"]));
    assert_eq!(prompts.matches("error │ ").count(), 2, "an error for each attempt:\n{prompts}");
    assert_eq!(prompts.matches(" user │ ").count(), 1, "{prompts}");
    let prompts = stdout(&place.flowrun(&["trace", "last", "numbers", "--prompts"]));
    let titles = prompts.lines().filter_map(|line| line.split_once(" │ ")).map(|(title, _)| title.trim());
    assert_eq!(titles.collect::<Vec<_>>(), ["user", "reply", "user", "reply", "value"], "{prompts}");
}

#[test]
fn a_pipe_is_as_wide_as_columns_says() {
    let place = Place::new();
    place.run(&["two.yaml", "--input", "word=x"]);
    let timeline = |columns: &str| {
        let mut command = place.command(&["trace", "--format", "timeline"]);
        let text = stdout(&command.env("COLUMNS", columns).output().unwrap());
        text.lines().find(|line| line.contains('┼')).unwrap().chars().count()
    };
    assert!(timeline("50") <= 50 && timeline("150") > 120 && timeline("wide") == timeline("100"));
}

#[cfg(unix)]
#[test]
fn a_run_that_goes_on_is_told_from_one_that_was_killed() {
    let place = Place::new();
    place.write("slow.yaml", "flowrun: 1\nnodes:\n  a: {prompt: first}\n  b: {prompt: \"slow {{ a }}\"}\noutput: b\n");
    let mut command = place.command(&["run", "slow.yaml", "-q", "--model", "scripted:replies.yaml"]);
    let mut child = command.spawn().unwrap();
    let until = |text: &str| {
        let shown = || stdout(&place.command(&["trace", "--format", "timeline"]).output().unwrap());
        (0..2_400).map(|_| shown()).find(|shown| {
            std::thread::sleep(Duration::from_millis(25));
            shown.contains(text)
        })
    };
    let timeline = until("… b").expect("the step starts");
    assert!(timeline.contains(": running, "), "{timeline}");
    let bar = timeline.lines().find(|line| line.starts_with("… b")).unwrap();
    assert!(bar.contains('▒') && bar.ends_with('s'), "a bar until now, and the time so far:\n{timeline}");
    let listed = stdout(&place.flowrun(&["runs"]));
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("run ") && lines[0].contains("started (UTC)"), "{listed}");
    assert!(
        lines[1].contains("  running  ") && lines[1].ends_with("← last") && lines[1].contains("1 call,"),
        "{listed}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(stdout(&place.flowrun(&["runs"])).contains("  interrupted  "));
    assert!(stdout(&place.flowrun(&["trace"])).contains(": interrupted, "));
}

#[tokio::test]
async fn a_trace_shows_which_tools_were_called_and_with_what() {
    let place = Place::new();
    let store = SqliteStore::open(&place.path().join(".flowrun/flowrun.db"), Durability::Normal).unwrap();
    let search = tool_fn("finds pages", |_| async { Ok(json!("a page")) });
    let fail = tool_fn("fails", |_| async { Err(StepError::terminal("closed", "the shop is closed")) });
    let flowrun =
        Flowrun::builder().tool("search", search).tool("buy", fail).store(Arc::new(store), Durability::Normal).build();
    let text = "{flowrun: 1, nodes: {a: {tool: search, with: {query: \"'rain'\"}}, b: {tool: [buy, search], choose: \"'buy'\", with: {n: 2}, on_error: skip}}, output: a}";
    let workflow = flowrun.parse("tools.yaml", text).unwrap();
    let drawn = flowrun::render::graph(&workflow.graph, 80);
    assert!(drawn.contains("a (tool) search") && drawn.contains("b (tool) buy or search"), "{drawn}");
    flowrun.run(&workflow, json!({}), RunOptions::default()).await.unwrap();
    let shown = stdout(&place.flowrun(&["trace", "--prompts"]));
    for text in [
        "tool │ search",
        "arguments │ {\"query\":\"rain\"}",
        "value │ a page",
        "tool │ buy",
        "error │ the shop is closed",
    ] {
        assert!(shown.contains(text), "`{text}` is not in:\n{shown}");
    }
}

#[test]
fn a_run_that_waits_for_a_person_says_whom_and_how_it_goes_on() {
    let place = Place::new();
    place.write(
        "ask.yaml",
        "flowrun: 1\nnodes:\n  draft: {prompt: first}\n  ask: {kind: human, prompt: \"Send {{ draft }}?\\u001b[2J\", schema: boolean}\n  \
         sent: {value: ask}\noutput: sent\n",
    );
    let run = place.run(&["ask.yaml"]);
    assert_eq!((code(&run), stdout(&run).as_str()), (5, ""));
    let said = stderr(&run);
    assert!(said.contains("step `ask` asks for yes or no:\n  Send one? [2J\nhelp: `flowrun answer 20"), "{said}");
    assert!(said.trim_end().lines().last().unwrap().contains(": suspended, 1 call, "), "{said}");
    assert!(stdout(&place.flowrun(&["runs"])).contains("  suspended  "));
    let tree = stdout(&place.flowrun(&["trace"]));
    assert!(tree.contains("✓ draft") && tree.contains("\n? ask ") && tree.contains(": suspended, 1 call"), "{tree}");
    assert!(stdout(&place.flowrun(&["trace", "--format", "timeline"])).contains("? ask"));
    let prompts = stdout(&place.flowrun(&["trace", "last", "--prompts"]));
    assert!(prompts.contains("── ask (a person)\n     asked │ Send one? [2J\n\n"), "{prompts}");
    let json: Value = serde_json::from_str(&stdout(&place.run(&["ask.yaml", "--json", "--quiet"]))).unwrap();
    assert_eq!((&json["status"], &json["asked"][0]["step"]), (&json!("suspended"), &json!("ask")));
    assert_eq!((&json["asked"][0]["prompt"], &json["output"]), (&json!("Send one?\u{1b}[2J"), &Value::Null));
    // A step that may answer by itself does.
    place.write(
        "default.yaml",
        "flowrun: 1\nnodes:\n  ask: {kind: human, prompt: Well?, timeout: 20ms, default: \"'yes'\"}\noutput: ask\n",
    );
    let answered = place.run(&["default.yaml"]);
    assert_eq!((code(&answered), stdout(&answered).as_str()), (0, "yes\n"), "{}", stderr(&answered));
}

#[test]
fn a_loop_that_ends_at_its_bound_is_named() {
    let place = Place::new();
    place.write(
        "bound.yaml",
        "flowrun: 1\nnodes:\n  a: {value: \"last.a | default(0) + 1\", next: [{when: a < 9, to: a, max: 2}, {to: b}]}\n  b: {value: a}\n  \
         c: {repeat: {until: \"this > 9\", max: 2}, value: \"1\"}\noutput: [b, c]\n",
    );
    let run = place.run(&["bound.yaml"]);
    assert_eq!((code(&run), stdout(&run).as_str()), (0, "[3,1]\n"));
    assert!(stderr(&run).contains("ended at a bound: `c`, `loop(a)`\n"), "{}", stderr(&run));
    let json: Value = serde_json::from_str(&stdout(&place.run(&["bound.yaml", "--json"]))).unwrap();
    assert_eq!(json["limits_reached"], json!(["c", "loop(a)"]));
    let tree = stdout(&place.flowrun(&["trace"]));
    let lines: Vec<&str> = tree.lines().map(str::trim_end).collect();
    assert!(lines[0].starts_with("✓ loop(a)") && lines[0].ends_with("ended at its bound after 3 passes"), "{tree}");
    assert_eq!(lines[1..7], ["  ✓ #0", "    ✓ a", "  ✓ #1", "    ✓ a", "  ✓ #2", "    ✓ a"], "{tree}");
    let pass = stdout(&place.flowrun(&["trace", "last", "loop(a)#1"]));
    assert!(pass.starts_with("✓ loop(a)#1\n  ✓ a\n\n"), "{pass}");
    let events = stdout(&place.flowrun(&["trace", "last", "loop(a)#1", "--format", "jsonl"]));
    let of: Vec<&str> = events.lines().filter_map(|line| line.split(r#""step":""#).nth(1)?.split('"').next()).collect();
    assert!(of.contains(&"a#1") && of.iter().all(|path| ["a#1", "loop(a)#1"].contains(path)), "{events}");
    assert!(lines[7].starts_with("✓ c ") && lines[8..10] == ["  ✓ #0", "  ✓ #1"], "{tree}");
}
