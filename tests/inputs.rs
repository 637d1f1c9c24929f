//! What the command takes: inputs and input files, answers and corrections, numbers that fit and those that do not.

use serde_json::Value;

use super::cli::{Place, asks, code, stderr, stdout};

#[test]
fn text_inputs_are_verbatim_and_others_json() {
    let place = Place::new();
    let echo = "flowrun: 1\ninputs: {t: string, n: integer, l: [string], e: \"small | large\"}\nnodes:\n  v: {value: {t: t, n: n, l: l, e: e}}\noutput: v\n";
    place.write("echo.yaml", echo);
    place.write("in.yaml", "t: from the file\nn: 7\ne: small\n");
    let arguments =
        ["echo.yaml", "--input-file", "in.yaml", "--input", "t=5", "--input", "l=[\"x\"]", "--input", "e=large", "-q"];
    let output = place.run(&arguments);
    assert_eq!(stdout(&output), "{\"t\":\"5\",\"n\":7,\"l\":[\"x\"],\"e\":\"large\"}\n", "{}", stderr(&output));
}

#[test]
fn numbers_that_would_be_rounded_are_refused() {
    let place = Place::new();
    let large = "12345678901234567890123";
    place.write(
        "n.yaml",
        "flowrun: 1\ninputs: {i: integer = 1, x: any = 1, s: string = a, t: string? = a}\nnodes:\n  v: {value: {i: i, x: x, s: s, t: t}}\n  sum: {calc: \"{s} + 1\", when: \"s != 'a'\"}\noutput: {v: v, sum: sum}\n",
    );
    let refused = |arguments: &[&str], number: &str| {
        let output = place.flowrun(&[&["run", "n.yaml"], arguments].concat());
        let expected = format!("the number `{number}` does not fit into 64 bits; as a text");
        assert_eq!((code(&output), stdout(&output).as_str()), (2, ""), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(&expected), "{arguments:?}: {}", stderr(&output));
    };
    for name in ["i", "x"] {
        refused(&["--input", &format!("{name}={large}")], large);
        refused(&["--input", &format!("{name}=1e400")], "1e400");
    }
    refused(&["--input", "x=[1, -9223372036854775809]"], "-9223372036854775809");
    place.write("in.json", &format!("{{\"x\": {large}}}"));
    place.write("in.yaml", &format!("x: {large}\n"));
    place.write("wide.yaml", &format!("x: {}\n", "9".repeat(40)));
    refused(&["--input-file", "in.json"], large);
    refused(&["--input-file", "in.yaml"], large);
    refused(&["--input-file", "wide.yaml"], &"9".repeat(40));
    let texts = [format!("s={large}"), format!("t={large}"), format!("x=\"{large}\""), format!("i={}", u64::MAX)];
    let output = place
        .flowrun(&[&["run", "n.yaml", "-q"][..], &texts.each_ref().map(|text| ["--input", text]).concat()].concat());
    let expected = format!(
        r#"{{"v":{{"i":{},"x":"{large}","s":"{large}","t":"{large}"}},"sum":"12345678901234567890124"}}"#,
        u64::MAX
    );
    assert_eq!(stdout(&output).trim_end(), expected, "{}", stderr(&output));
    for change in [["--set", "v.value=12345678901234567890123"], ["--correct", "v=12345678901234567890123"]] {
        let replay = place.flowrun(&[&["replay", "last"][..], &change].concat());
        assert!(code(&replay) == 2 && stderr(&replay).contains("does not fit into 64 bits"), "{}", stderr(&replay));
    }
}

#[test]
fn replies_and_answers_with_numbers_that_would_be_rounded_do_not_fit() {
    let place = Place::new();
    place.write("big.replies.yaml", "- {match: 64 bits, reply: \"7\"}\n- {reply: \"12345678901234567890123\"}\n");
    place.write("big.yaml", "flowrun: 1\nnodes:\n  a: {prompt: big, schema: integer, repair: 0}\noutput: a\n");
    place.write("mended.yaml", "flowrun: 1\nnodes:\n  a: {prompt: big, schema: integer}\noutput: a\n");
    let run = |file: &str| place.flowrun(&["run", file, "--model", "scripted:big.replies.yaml", "-q"]);
    let failed = run("big.yaml");
    let expected = "the number `12345678901234567890123` does not fit into 64 bits";
    assert!(code(&failed) == 1 && stderr(&failed).contains(expected), "{}", stderr(&failed));
    let mended = run("mended.yaml");
    assert_eq!(stdout(&mended), "7\n", "the model is told: {}", stderr(&mended));
    place.write("asks.yaml", "flowrun: 1\nnodes: {a: {kind: human, prompt: How many?, schema: integer}}\noutput: a\n");
    assert_eq!(code(&place.flowrun(&["run", "asks.yaml", "--no-input"])), 5);
    let answer = place.flowrun(&["answer", "last", "a", "99999999999999999999"]);
    assert!(stderr(&answer).contains("the number `99999999999999999999` does not fit"), "{}", stderr(&answer));
    assert_eq!(code(&answer), 2);
}

#[test]
fn an_input_file_that_is_json_is_read_as_json() {
    let place = Place::new();
    place.write("s.yaml", "flowrun: 1\ninputs: {s: string}\nnodes: {v: {value: s}}\noutput: v\n");
    place.write("fox.json", r#"{"s":"fox \ud83e\udd8a"}"#);
    let output = place.run(&["s.yaml", "--input-file", "fox.json", "-q"]);
    assert_eq!(stdout(&output), "fox 🦊\n", "{}", stderr(&output));
    place.write("bad.yaml", "s: x\n y: z\n");
    let bad = place.run(&["s.yaml", "--input-file", "bad.yaml"]);
    assert!(
        code(&bad) == 2 && stderr(&bad).contains("`bad.yaml`: ") && stderr(&bad).contains("line 2"),
        "{}",
        stderr(&bad)
    );
}

#[test]
fn the_json_text_of_a_key_counts() {
    let place = Place::new();
    let text = "flowrun: 1\ninputs: {k: any}\nnodes: {a: {prompt: first, key: k}}\noutput: a\n";
    place.write("k.yaml", text);
    let calls = |key: &str| {
        let report: Value =
            serde_json::from_str(&stdout(&place.run(&["k.yaml", "--input", &format!("k={key}"), "--json", "-q"])))
                .unwrap();
        report["usage"]["calls"].as_u64().unwrap()
    };
    let keys = [r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, "1", "1.0"];
    assert_eq!((keys.map(calls), keys.map(calls)), ([1; 4], [0; 4]));
}

#[test]
fn params_are_a_map() {
    let place = Place::new();
    place.write("p.yaml", &asks("first"));
    assert_eq!(code(&place.run(&["p.yaml"])), 0);
    let set = place.flowrun(&["replay", "last", "--set", "a.params=5"]);
    assert!(code(&set) == 2 && stderr(&set).contains("`params` wants a mapping such as"), "{}", stderr(&set));
    let computed = place.flowrun(&["replay", "last", "--set", "a.params='5'"]);
    assert!(code(&computed) == 1 && stderr(&computed).contains("`params` wants a map"), "{}", stderr(&computed));
}

#[test]
fn an_input_that_does_not_fit_is_told_where_and_how_it_is_written() {
    let place = Place::new();
    let inputs = "{names: '[string]', d: '{s: string, n: integer} = {s: x, n: 1}'}";
    let text = format!("flowrun: 1\ninputs: {inputs}\nnodes: {{a: {{value: [names, d]}}}}\noutput: a\n");
    place.write("typed.yaml", &text);
    let refused = |arguments: &[&str], expected: &str| {
        let output = place.run(&[&["typed.yaml"], arguments].concat());
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    };
    refused(&["--input", "names=[1,2]"], "input `names`: at /0: 1 is not of type \"string\"");
    refused(&["--input", "names=[\"Ada\""], "input `names`: not JSON: EOF while parsing a list at column 6");
    let wrong_field = ["--input", "names=[]", "--input", "d={\"s\": \"x\", \"n\": \"3\"}"];
    refused(&wrong_field, "input `d`: at /n: \"3\" is not of type \"integer\"");
    refused(&[], "takes --input 'names=[\"a\",\"b\"]' --input 'd={\"s\":\"x\",\"n\":1}' (optional)\n");
    refused(&["--input", "names=[]", "--input", "names=[]"], "the input `names` is given twice");
    refused(&["--max-parallel", "0"], "0 is not in 1..");
    let pasted = place.run(&["typed.yaml", "--input", "names=[\"a\",\"b\"]"]);
    assert_eq!(stdout(&pasted), "[[\"a\",\"b\"],{\"s\":\"x\",\"n\":1}]\n");
}
