//! `flowrun diff` and `flowrun explain` from outside: what they say of runs that were really made, and how they end.

use std::process::Output;

use serde_json::Value;

use super::cli::{Place, code, stderr, stdout};

const WORKFLOW: &str = r#"
flowrun: 1
name: w
inputs: {word: string}
nodes:
  a: {prompt: "Look at {{ word }}.\nBe brief.\n"}
  b: {when: "word == 'x'", prompt: "second {{ a }}"}
  c: {prompt: "third {{ b }}"}
  d: {prompt: "fixed"}
  o: {prompt: "never kept", cache: "off"}
output: {a: a, d: d, c: c | default('none')}
"#;

/// A place with the workflow and a model that answers everything in one way.
fn place() -> Place {
    let place = Place::new();
    place.write("w.yaml", WORKFLOW);
    place.write("replies.yaml", "- {match: '', reply: same}\n");
    place
}

/// Runs the workflow; gives the run's id.
fn run(place: &Place, word: &str) -> String {
    let output = place.run(&["w.yaml", "--input", &format!("word={word}"), "--json"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    report["run"].as_str().unwrap().to_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|_| panic!("{}{}", stdout(output), stderr(output)))
}

#[test]
fn equal_runs_are_equal_whoever_paid() {
    let place = place();
    let (first, second) = (run(&place, "y"), run(&place, "y"));
    let output = place.flowrun(&["diff", &first, &second]);
    let text = stdout(&output);
    assert_eq!(code(&output), 0, "{text}{}", stderr(&output));
    assert!(text.contains("no step differs") && text.contains("output: the same"), "{text}");
    assert!(text.contains("2 answers found, which saved 2 calls"), "{text}");
    let difference = json(&place.flowrun(&["diff", &first, &second, "--json"]));
    assert_eq!((&difference["same_outcome"], &difference["b"]["saved"]["calls"]), (&true.into(), &2.into()));
    let all = stdout(&place.flowrun(&["diff", &first, &second, "--all"]));
    assert!(all.contains("= d") && all.contains("cached"), "{all}");
}

#[test]
fn the_first_difference_is_shown_with_what_changed_in_its_prompt() {
    let place = place();
    let (first, second) = (run(&place, "y"), run(&place, "x"));
    let output = place.flowrun(&["diff", &first, &second]);
    let text = stdout(&output);
    assert_eq!(code(&output), 1, "{text}");
    for line in ["word: \"y\" → \"x\"", "- Look at y.", "+ Look at x.", "  Be brief.", "~ b  skipped → succeeded"] {
        assert!(text.contains(line), "`{line}` is not in:\n{text}");
    }
    assert!(text.contains("first difference: step `a` differs in its input\n"), "{text}");
    assert!(!text.contains("~ d"), "{text}");
    let step = place.flowrun(&["diff", &first, &second, "d"]);
    assert!(code(&step) == 0 && stdout(&step).contains("step `d`: the same in both runs"), "{}", stdout(&step));
    let step = place.flowrun(&["diff", &first, &second, "b", "--json"]);
    assert_eq!((code(&step), &json(&step)["kind"]), (1, &"changed".into()));
    let wrong = place.flowrun(&["diff", &first, &second, "bb"]);
    assert!(code(&wrong) == 2 && stderr(&wrong).contains("did you mean `b`?"), "{}", stderr(&wrong));
    let wrong = place.flowrun(&["diff", &first, "nothing"]);
    assert!(code(&wrong) == 2 && stderr(&wrong).contains("no run begins with `nothing`"), "{}", stderr(&wrong));
}

#[test]
fn a_step_says_why_it_was_skipped_what_it_asked_and_who_paid() {
    let place = place();
    let first = run(&place, "y");
    let why = stdout(&place.flowrun(&["explain", "last", "c"]));
    assert!(why.contains("`c` was skipped: it requires `b`, which was skipped [log "), "{why}");
    assert!(why.contains("`b` was skipped: its `when` is false: word == 'x' [log "), "{why}");
    run(&place, "z");
    let miss = stdout(&place.flowrun(&["explain", "last", "a"]));
    assert!(miss.contains(&format!("that of `a` of the run {first}; since then 1 part changed:")), "{miss}");
    assert!(miss.contains("- Look at y.") && miss.contains("+ Look at z."), "{miss}");
    assert!(miss.contains("no answer was found under its key") && miss.contains("attempt 1 began at"), "{miss}");
    assert!(miss.contains("`b` (was skipped) and the output depend on it"), "{miss}");
    let hit = json(&place.flowrun(&["explain", "last", "d", "--json"]));
    assert_eq!((&hit["found"]["run"], &hit["found"]["word"]), (&first.as_str().into(), &"cached".into()));
    assert_eq!(hit["attempts"], serde_json::json!([]));
    let off = stdout(&place.flowrun(&["explain", "last", "o"]));
    assert!(off.contains("it asked the same\n"), "{off}");
    assert!(off.contains("no answer was looked for: the node says `cache: off`\n"), "{off}");
    place.run(&["w.yaml", "--input", "word=z", "--fresh"]);
    let fresh = stdout(&place.flowrun(&["explain", "last", "d"])).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(fresh.contains("it asked the same: this run was told to read none (`--fresh`)"), "{fresh}");
    let wrong = place.flowrun(&["explain", "last", "bb"]);
    assert!(code(&wrong) == 2 && stderr(&wrong).contains("did you mean `b`?"), "{}", stderr(&wrong));
}

/// A run with a computed step and a replay in which that step and one that asks were set by hand; gives both ids.
fn corrected(place: &Place) -> [String; 2] {
    place.write(
        "c.yaml",
        "flowrun: 1\nnodes:\n  a: {prompt: \"first\"}\n  b: {prompt: \"again\"}\n  t: {calc: \"{a} * 3\"}\noutput: [b, t]\n",
    );
    place.write("replies.yaml", "- {match: '', reply: '5'}\n");
    let id = |output: &Output| json(output)["run"].as_str().unwrap().to_owned();
    let first = id(&place.run(&["c.yaml", "--json"]));
    let second = id(&place.flowrun(&["replay", &first, "--correct", "t=9", "--correct", "b=seven", "--json"]));
    [first, second]
}

#[test]
fn who_was_corrected_says_so_and_names_what_it_takes_the_place_of() {
    let place = place();
    let [first, _] = corrected(&place);
    for step in ["t", "b"] {
        let text = stdout(&place.flowrun(&["explain", "last", step]));
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let set =
            format!("its value was set by hand (`--correct`), in place of what `{step}` came to in the run {first}");
        assert!(words.contains(&set), "{text}");
        assert!(!text.contains("computed from what is there"), "{text}");
        let found = &json(&place.flowrun(&["explain", "last", step, "--json"]))["found"];
        assert_eq!((&found["word"], &found["step"]), (&"corrected".into(), &step.into()));
    }
    let trace = stdout(&place.flowrun(&["trace"]));
    assert!(trace.contains("✓ t  ") && trace.contains("2 corrected"), "{trace}");
    assert_eq!(trace.lines().filter(|line| line.ends_with("corrected")).count(), 2, "{trace}");
    let computed = stdout(&place.flowrun(&["explain", &first, "t"]));
    assert!(computed.contains("it is computed from what is there and costs nothing"), "{computed}");
}

#[test]
fn a_correction_is_no_luck_and_no_answer_that_was_found() {
    let place = place();
    let [first, second] = corrected(&place);
    let text = stdout(&place.flowrun(&["diff", &first, &second]));
    assert!(text.contains("its value in the second run was set by hand (a correction)\n"), "{text}");
    assert!(!text.contains("was answered otherwise"), "{text}");
    let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
    assert!(row("~ t ").ends_with("- → corrected") && row("~ b ").ends_with("→ corrected"), "{text}");
    assert!(text.contains("1 answer found, which saved 1 call"), "{text}");
    let step = stdout(&place.flowrun(&["diff", &second, &first, "t"]));
    assert!(step.contains("its value in the first run was set by hand"), "{step}");
}

/// A loop of `next`, a step after it, and one that is skipped.
const LOOP: &str = r#"
flowrun: 1
nodes:
  bk: {prompt: "go {{ last.j | default('') }}"}
  j: {prompt: "judge {{ bk }}", next: [{when: "this == 'bad'", to: bk, max: 1}, {to: fin}]}
  fin: {prompt: "end {{ bk }}"}
  sk: {when: "fin == 'never'", prompt: "skipped"}
output: [fin, sk | default('none')]
"#;

/// A place with a run of that.
fn looped() -> Place {
    let place = Place::new();
    place.write("l.yaml", LOOP);
    place.write("replies.yaml", "- {match: judge, reply: bad}\n- {match: '', reply: two}\n");
    assert_eq!(code(&place.run(&["l.yaml", "-q"])), 0);
    place
}

#[test]
fn a_correction_that_no_step_takes_is_told_or_refused() {
    let place = looped();
    for of in ["loop(bk)", "loop(bk)#0"] {
        let refused = place.flowrun(&["replay", "last", "--correct", &format!("{of}=x")]);
        let said = stderr(&refused);
        assert!(code(&refused) == 2 && said.contains(&format!("`{of}` stands for a loop")), "{said}");
        assert!(said.contains("help: correct one of the steps inside it, such as `bk#0`"), "{said}");
    }
    let refused = place.flowrun(&["replay", "last", "--correct", "bk=x"]);
    assert!(code(&refused) == 2 && stderr(&refused).contains("has no step `bk`; did you mean `bk#0` or `bk#1`?"));
    let replayed = place.flowrun(&["replay", "last", "--correct", "sk=hey", "--correct", "loop(bk)#0/bk=three"]);
    let said = stderr(&replayed);
    assert!(said.contains("note: the correction of `sk` had no effect: the step was skipped\n"), "{said}");
    assert!(code(&replayed) == 0 && said.matches("had no effect").count() == 1, "{said}");
    // What was set for that run is set for this one too.
    let report = json(&place.flowrun(&["replay", "last", "--json"]));
    let expected = serde_json::json!([{"step": "sk", "why": "the step was skipped"}]);
    assert_eq!(report["replay"]["without_effect"], expected);
}

#[test]
fn a_node_of_a_loop_is_found_by_its_pass_and_as_it_is_drawn() {
    let place = looped();
    for command in ["explain", "trace"] {
        let refused = place.flowrun(&[command, "last", "bk"]);
        let said = stderr(&refused);
        assert!(code(&refused) == 2 && said.contains("has no step `bk`; did you mean `bk#0` or `bk#1`?"), "{said}");
        let refused = place.flowrun(&[command, "last", "loop(bk)#7/bk"]);
        assert!(code(&refused) == 2 && stderr(&refused).contains("did you mean `bk#0` or `bk#1`?"));
        for drawn in ["bk#1", "loop(bk)#1/bk", "loop(bk)/#1/bk"] {
            let shown = place.flowrun(&[command, "last", drawn]);
            assert!(code(&shown) == 0 && stdout(&shown).contains("bk"), "{drawn}: {}", stderr(&shown));
        }
    }
    let drawn = stdout(&place.flowrun(&["explain", "last", "loop(bk)#1/bk"]));
    assert!(drawn.starts_with("step `bk#1` (llm) of the run"), "{drawn}");
    let both = stdout(&place.flowrun(&["diff", "last", "last", "loop(bk)#1/bk"]));
    assert!(both.starts_with("step `bk#1`: the same in both runs"), "{both}");
}

#[test]
fn another_model_is_a_part_of_the_key_that_changed() {
    let place = place();
    run(&place, "y");
    place.write("others.yaml", "- {match: '', reply: \"other \\e[2J\"}\n");
    place.flowrun(&["run", "w.yaml", "--input", "word=y", "-q", "--model", "scripted:others.yaml"]);
    let miss = stdout(&place.flowrun(&["explain", "last", "d"]));
    assert!(miss.contains("identity.model.model: \"replies.yaml\" → \"others.yaml\""), "{miss}");
    let runs = stdout(&place.flowrun(&["runs", "--json"]));
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    let ids: Vec<String> = runs.lines().map(id).collect();
    let text = stdout(&place.flowrun(&["diff", &ids[0], &ids[1], "--all"]));
    assert!(text.contains("differs in its key"), "{text}");
    assert!(text.contains("other") && !text.contains('\u{1b}'), "what a model says cannot steer the terminal: {text}");
}

#[test]
fn who_was_stopped_before_has_no_answer_that_could_be_gone() {
    let place = Place::new();
    place.write("r.yaml", "- {match: sw 1, reply: a, delay_ms: 50}\n- {match: sw 2, reply: b, delay_ms: 300}\n");
    let text = "flowrun: 1\nnodes:\n  sw: {for_each: '[1, 2]', prompt: \"sw {{ item }}\", max_parallel: 2, stop_when: 'this | length >= 1'}\noutput: sw\n";
    place.write("early.yaml", text);
    let model = ["--model", "scripted:r.yaml"];
    assert_eq!(code(&place.flowrun(&[&["run", "early.yaml"][..], &model].concat())), 0);
    let change = ["replay", "last", "--set", "sw.stop_when=this | length >= 2"];
    assert_eq!(code(&place.flowrun(&[&change[..], &model].concat())), 0);
    let said = stdout(&place.flowrun(&["explain", "last", "sw[1]"]));
    assert!(said.contains("it asked the same and came to no answer"), "{said}");
}
