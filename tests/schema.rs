//! The JSON Schema of the workflow file against the checker: it refuses nothing that the checker accepts, and the slips of the
//! hand that a schema can see.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use flowrun::{Flowrun, KindSpec, LoadError, WORKFLOWS, file_schema, tool_fn};
use flowrun_engine::definition::keys::{self, Form, Key};
use flowrun_engine::diagnostic::codes;
use flowrun_engine::schema::Schema;
use flowrun_engine::source::Source;
use serde_json::{Value, json};

use super::docs;

fn kinds() -> BTreeMap<String, Arc<KindSpec>> {
    (**Flowrun::builder().build().kinds().specs()).clone()
}

fn schema() -> Schema {
    Schema::from_json_schema(file_schema(&kinds())).unwrap()
}

/// Codes of what the checker says; none if it accepts the text.
fn said(flowrun: &Flowrun, name: &str, text: &str) -> Vec<&'static str> {
    match flowrun.check_text(name, text) {
        Err(LoadError::Refused { diagnostics, .. }) => diagnostics.iter().map(|problem| problem.code.0).collect(),
        other => other.map(|_| Vec::new()).unwrap(),
    }
}

fn folder(name: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    paths.sort();
    paths.iter().map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap())).collect()
}

/// Every workflow that the project shows: its library, its examples, its docs.
fn shown() -> Vec<(String, String)> {
    let library = WORKFLOWS.iter().map(|(name, text)| (format!("@{name}"), (*text).to_owned()));
    let blocks = docs::blocks().into_iter().filter(|block| block.language == "yaml");
    let all = library
        .chain(folder("examples"))
        .chain(folder("examples/flowcharts"))
        .chain(blocks.map(|block| (block.place, block.text)));
    all.filter(|(_, text)| text.contains("flowrun: 1\n")).collect()
}

fn data(name: &str, text: &str) -> Option<Value> {
    Source::parse(name, text).ok().map(|(_, data)| data)
}

#[test]
fn the_schema_accepts_every_workflow_that_is_shown() {
    let (schema, flowrun) = (schema(), Flowrun::builder().build());
    let shown = shown();
    assert!(shown.len() > 10);
    for (name, text) in shown.iter().filter(|(name, text)| said(&flowrun, name, text).is_empty()) {
        assert_eq!(schema.validate(&data(name, text).unwrap()), Ok(()), "{name}");
    }
}

/// Every table of keys, with where a key of it stands in a file and in the schema.
const TABLES: &[(&[Key], &str, &str)] = &[
    (keys::TOP, "", ""),
    (keys::MODEL, "/models/m", "/properties/models/additionalProperties"),
    (keys::BUDGET, "/budget", "/properties/budget"),
    (keys::LIMITS, "/limits", "/properties/limits"),
    (keys::RETRY, "/nodes/n/retry", "/$defs/node/properties/retry/anyOf/1"),
    (keys::ALLOW, "/nodes/n/allow", "/$defs/node/properties/allow"),
    (keys::ATTRIBUTES, "/nodes/n", "/$defs/node"),
];

/// A file with one key, holding a value, where a table's keys stand.
fn with_key(at: &str, key: &str, value: Value) -> Value {
    let mut file = json!({"flowrun": 1, "models": {"m": {"provider": "openai"}}, "budget": {}, "limits": {},
        "nodes": {"n": {"kind": "plan", "prompt": "?", "retry": {}, "allow": {}}}});
    file.pointer_mut(at).unwrap()[key] = value;
    file
}

#[test]
fn the_reader_and_the_schema_know_the_same_keys() {
    let (schema, flowrun) = (file_schema(&kinds()), Flowrun::builder().build());
    let fields: BTreeSet<String> =
        kinds().values().flat_map(|spec| spec.fields.iter().map(|field| field.name.clone())).collect();
    for (table, at, in_schema) in TABLES {
        let part = schema.pointer(in_schema).unwrap();
        assert_eq!(part["additionalProperties"], false, "{in_schema}");
        let properties = part["properties"].as_object().unwrap();
        let mut expected = if *in_schema == "/$defs/node" { fields.clone() } else { BTreeSet::new() };
        for key in *table {
            let codes = said(&flowrun, "k", &with_key(at, key.name, Value::Null).to_string());
            let is_later = key.form == Form::Later;
            assert!(!codes.contains(&codes::UNKNOWN_KEY.0), "the reader does not know {at}/{}", key.name);
            assert_eq!(codes.contains(&codes::NOT_YET.0), is_later, "{at}/{}", key.name);
            expected.extend((!is_later).then(|| key.name.to_owned()));
        }
        assert_eq!(properties.keys().cloned().collect::<BTreeSet<_>>(), expected, "{in_schema}");
        for (key, property) in properties {
            assert!(property["description"].as_str().is_some_and(|text| text.len() > 3), "{in_schema}: {key}");
        }
        let strange = said(&flowrun, "k", &with_key(at, "nope", json!(1)).to_string());
        assert!(strange.contains(&codes::UNKNOWN_KEY.0), "{at}");
    }
}

#[test]
fn slips_of_the_hand_are_refused_by_the_schema_too() {
    let (schema, flowrun) = (schema(), Flowrun::builder().build());
    let visible = [codes::UNKNOWN_KEY.0, codes::MISSING_KEY.0, codes::WRONG_TYPE.0, codes::NOT_YET.0];
    let (mut refused, mut missed) = (0, Vec::new());
    for (path, text) in folder("tests/diagnostics") {
        let Some(data) = data(&path, &text) else { continue };
        let case = Path::new(&path).file_stem().unwrap().to_string_lossy().into_owned();
        let slips = said(&flowrun, &case, &text).iter().any(|code| visible.contains(code));
        if slips {
            refused += 1;
            missed.extend(schema.validate(&data).is_ok().then_some(case));
        }
    }
    assert!(missed.is_empty() && refused > 15, "{refused} are refused, and these are not: {missed:?}");
}

#[test]
fn the_schema_tells_kinds_apart() {
    let schema = schema();
    let check = |node: &str, accepted: bool| {
        let text = format!("flowrun: 1\ninputs: {{n: integer}}\nnodes:\n  a: {node}\n");
        let found = schema.validate(&data("k", &text).unwrap());
        assert_eq!(found.is_ok(), accepted, "{node}: {found:?}");
    };
    check("{prompt: hi, schema: [string], retry: 2, samples: n}", true);
    check("{promt: hi}", false);
    check("{prompt: hi, ask: hi}", false);
    check("{prompt: hi, calc: '1'}", false);
    check("{prompt: hi, schema: strng}", false);
    check("{prompt: hi, schema: string, json_schema: {}}", false);
    check("{calc: 1}", true);
    check("{calc: '1', timeout: 3s}", false);
    check("{calc: '1', prompt: hi}", false);
    check("{kind: plan, prompt: hi, limits: {nodes: 3}}", true);
    check("{kind: plan, graph: x}", false);
    check("{kind: plan}", false);
    check("{graph: a, with: {x: n}, allow: {kinds: [llm]}}", true);
    check("{nodes: {b: {value: n, on_error: {value: 1}}}, timeout: 1.5m}", true);
    check("{nodes: {b: {value: n, on_error: drop}}}", false);
    check("{nodes: {b: {value: n, timout: 3s}}}", false);
    check("{workflow: '@x', with: {n: n}, timeout: 30}", false);
    check("{kind: lllm, prompt: hi}", false);
    check("{needs: [a]}", false);
    check("{tool: search, with: {query: n}, retry: 1}", true);
    check("{tool: [search, lookup], choose: n}", true);
    check("{tool: [search, lookup]}", false);
    check("{tool: search, choose: n}", false);
    check("{tool: [], choose: n}", false);
    check("{kind: tool, choose: n}", false);
    check("{tool: search, query: n}", false);
    check("{graph: a, allow: {tools: [search]}}", true);
}

/// Which tools there are is known to the program alone: its schema names them, that of the command line takes any.
#[test]
fn the_schema_of_a_program_names_its_tools() {
    let search = tool_fn("finds pages", |_| async { Ok(Value::Null) });
    let flowrun = Flowrun::builder().tool("search", search).build();
    let schema = Schema::from_json_schema(file_schema(flowrun.kinds().specs())).unwrap();
    for (node, accepted) in [("{tool: search}", true), ("{tool: serch}", false), ("{tool: [serch], choose: a}", false)]
    {
        let text = format!("flowrun: 1\nnodes:\n  a: {{value: 1}}\n  b: {node}\noutput: [a, b]\n");
        assert_eq!(schema.validate(&data("k", &text).unwrap()).is_ok(), accepted, "{node}");
        assert_eq!(said(&flowrun, "k", &text).is_empty(), accepted, "{node}");
    }
    let shown = schema.json_schema().to_string();
    assert!(shown.contains("finds pages"), "editors show what a tool does");
}

/// Workflows with one thing changed at random: what the checker accepts the schema accepts, and an unknown key neither does.
#[test]
fn the_schema_refuses_nothing_that_the_checker_accepts() {
    let tool = || tool_fn("gives nothing", |_| async { Ok(Value::Null) });
    let flowrun = Flowrun::builder().tool("search", tool()).tool("lookup", tool()).build();
    let schema = Schema::from_json_schema(file_schema(flowrun.kinds().specs())).unwrap();
    let mut random = 11_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below.max(1)
    };
    let mut keys: Vec<String> = TABLES.iter().flat_map(|(table, ..)| *table).map(|key| key.name.to_owned()).collect();
    keys.extend(kinds().values().flat_map(|spec| spec.fields.iter().map(|field| field.name.clone())));
    let values = json!([null, true, 0, 3, -1, 2.5, "3", "1.5 s", "n", "fail", "drop", "any", "llm", "string?", "[string] = []", "server",
        "{a: {b: number}}", "x | y", "@zero-shot-cot", "a?", ["server"], ["a", "b?"], ["string"], [], [1, 2], {}, {"value": 1}, {"max": 2},
        {"nodes": 3}, {"a": {"value": 1}}, {"kinds": ["calc"]}, {"type": "string"}, {"calls": 3}, {"b": "string"}, "search", ["search", "lookup"],
        {"tools": ["search"]}]);
    let values = values.as_array().unwrap();
    let corpus: Vec<Value> = shown().iter().filter_map(|(name, text)| data(name, text)).collect();
    let (mut accepted, mut unknown) = (0, 0);
    for round in 0..6_000 {
        let mut file = corpus[round % corpus.len()].clone();
        let mut pointers = Vec::new();
        mappings(&file, String::new(), &mut pointers);
        let at = pointers[next(pointers.len())].clone();
        let map = file.pointer_mut(&at).and_then(Value::as_object_mut).unwrap();
        let own: Vec<String> = map.keys().cloned().collect();
        let key = if next(2) == 0 { own.get(next(own.len())) } else { None }.cloned();
        let key = key.unwrap_or_else(|| keys[next(keys.len())].clone());
        match next(8) {
            0 => drop(map.shift_remove(&key)),
            1 => drop(map.shift_remove(&key).and_then(|value| map.insert(keys[next(keys.len())].clone(), value))),
            _ => drop(map.insert(key, values[next(values.len())].clone())),
        }
        let text = file.to_string();
        let said = said(&flowrun, "mutant", &text);
        let found = schema.validate(&file);
        if said.is_empty() {
            accepted += 1;
            assert_eq!(found, Ok(()), "the checker accepts {text}");
        }
        if said.contains(&codes::UNKNOWN_KEY.0) {
            unknown += 1;
            assert!(found.is_err(), "a key is unknown in {text}");
        }
    }
    assert!(accepted > 500 && unknown > 500, "{accepted} accepted, {unknown} with unknown keys");
}

/// Pointers of every mapping in a file.
fn mappings(value: &Value, at: String, found: &mut Vec<String>) {
    if let Value::Object(map) = value {
        for (key, value) in map {
            mappings(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
        }
        found.push(at);
    }
}

#[test]
fn the_command_prints_the_schema() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_flowrun")).arg("schema").output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap(), file_schema(&kinds()));
}
