//! The house rules as tests: layers, lengths, opening words, and what must not stand anywhere.

use std::fs;
use std::path::{Path, PathBuf};

/// The engine's modules by layer, lowest first. A module imports from its own layer and those before it.
const LAYERS: &[&[&str]] = &[
    &["id", "json", "failure", "diagnostic", "source", "fault"],
    &["retry", "calc", "expr", "schema", "definition", "dialect"],
    &["graph", "check"],
    &["state", "event", "budget", "scheduler"],
    &["cache", "observer", "node", "store"],
    &["run"],
    &["testing"],
];

/// Imports that the table forbids and that stand all the same, with the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", ".git", "node_modules", ".flowrun"].contains(&name.as_str()) {
            files(&path, ending, found);
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

fn rust_files(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root().join(folder), ".rs", &mut found);
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        (name, fs::read_to_string(&path).unwrap())
    };
    found.into_iter().map(named).collect()
}

/// Files that hold nothing but unit tests.
fn is_test_file(name: &str) -> bool {
    let is_for_tests = name.starts_with("engine/src/testing")
        || ["/conformance.rs", "/hooked.rs"].iter().any(|file| name.ends_with(file));
    is_for_tests || name.ends_with("/tests.rs") || name.contains("/tests/")
}

fn product_code() -> Vec<(String, String)> {
    ["engine/src", "nodes/src", "src"]
        .into_iter()
        .flat_map(rust_files)
        .filter(|(name, _)| !is_test_file(name))
        .collect()
}

/// The text before the unit tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn assert_none(problems: Vec<String>, rule: &str) {
    assert!(problems.is_empty(), "{rule}:\n  {}", problems.join("\n  "));
}

#[test]
fn engine_modules_import_downwards_only() {
    let mut problems = Vec::new();
    for (name, text) in rust_files("engine/src") {
        let inside = name.trim_start_matches("engine/src/").trim_end_matches(".rs");
        let module = inside.split('/').next().unwrap();
        if module == "lib" {
            continue;
        }
        let Some(own) = layer(module) else {
            problems.push(format!("{name}: the module `{module}` stands in no layer"));
            continue;
        };
        for line in without_tests(&text).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for rest in line.split("crate::").skip(1) {
                let imported: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let allowed = EXCEPTIONS.iter().any(|(from, to, _)| *from == module && *to == imported);
                if layer(&imported).is_some_and(|other| other > own) && !allowed {
                    problems.push(format!("{name}: imports `{imported}` of a higher layer"));
                }
            }
        }
    }
    problems.dedup();
    assert_none(problems, "imports go downwards");
}

#[test]
fn crates_use_each_other_through_their_front_doors() {
    let mut problems = Vec::new();
    for (name, text) in rust_files("engine/src") {
        for forbidden in ["reqwest", "flowrun_nodes", "clap::", "std::net"] {
            if without_tests(&text).contains(forbidden) {
                problems.push(format!("{name}: the engine knows no `{forbidden}`"));
            }
        }
    }
    for (name, text) in rust_files("nodes/src").into_iter().filter(|(name, _)| !is_test_file(name)) {
        if text.contains("scheduler::") || text.contains("flowrun_engine::run") {
            problems.push(format!("{name}: a node never sees the scheduler or the driver"));
        }
    }
    assert_none(problems, "layers of crates");
}

#[test]
fn files_and_functions_stay_short() {
    let mut problems = Vec::new();
    for (name, text) in product_code() {
        let lines = without_tests(&text).lines().count();
        if lines > 500 {
            problems.push(format!("{name}: {lines} lines before its tests (500 at most)"));
        }
    }
    let main = fs::read_to_string(root().join("src/main.rs")).unwrap();
    if main.lines().count() > 15 {
        problems.push("src/main.rs: more than 15 lines".to_owned());
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("too_many_lines = \"warn\""), "clippy checks the length of functions");
    for clippy in ["clippy.toml", "engine/clippy.toml", "nodes/clippy.toml"] {
        assert!(fs::read_to_string(root().join(clippy)).unwrap().contains("too-many-lines-threshold = 70"), "{clippy}");
    }
    assert_none(problems, "lengths");
}

#[test]
fn the_engine_fits_in_a_head() {
    let lines: usize = rust_files("engine/src")
        .iter()
        .filter(|(name, _)| !is_test_file(name))
        .map(|(_, text)| without_tests(text).lines().count())
        .sum();
    assert!(lines <= 20_500, "the engine has {lines} lines without tests");
}

#[test]
fn every_module_opens_with_its_idea() {
    let all = ["engine", "nodes", "src", "tests", "examples", "fuzz"].into_iter().flat_map(rust_files);
    let silent = all.filter(|(_, text)| !text.starts_with("//!")).map(|(name, _)| name);
    assert_none(silent.collect(), "these files do not begin with `//!`");
}

#[test]
fn nothing_is_left_unfinished_or_swallowed() {
    let mut problems = Vec::new();
    for (name, text) in product_code() {
        for (number, line) in without_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for forbidden in ["todo!(", "unimplemented!(", "dbg!(", ".unwrap()", "unsafe "] {
                if code.contains(forbidden) {
                    problems.push(format!("{name}:{}: `{forbidden}`", number + 1));
                }
            }
        }
    }
    assert_none(problems, "unfinished or careless code");
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let specification = fs::read_to_string(root().join("docs/specification.md")).unwrap();
    let code: String =
        ["engine", "nodes", "src", "tests"].into_iter().flat_map(rust_files).map(|(_, text)| text).collect();
    let mut problems = Vec::new();
    let mut promises = 0;
    for line in specification.lines().filter(|line| line.contains("Test:") || line.contains("Tests:")) {
        promises += 1;
        let names: Vec<&str> = line.split("Test").last().unwrap().split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            problems.push(format!("no test is named: {line}"));
        }
        for name in names {
            let function = name.rsplit("::").next().unwrap();
            let is_case = root().join("tests/diagnostics").join(format!("{function}.yaml")).exists();
            if !code.contains(&format!("fn {function}(")) && !is_case {
                problems.push(format!("no such test: {name}"));
            }
        }
    }
    assert!(promises >= 10, "the specification has only {promises} promises with tests");
    assert_none(problems, "promises and their tests");
}

#[test]
fn promises_are_numbered_once_and_in_order() {
    let specification = fs::read_to_string(root().join("docs/specification.md")).unwrap();
    let number = |line: &str| {
        let (section, promise) = line.split_once(' ')?.0.split_once('.')?;
        Some((section.parse::<u32>().ok()?, promise.parse::<u32>().ok()?))
    };
    let numbers: Vec<(u32, u32)> = specification.lines().filter_map(number).collect();
    assert!(numbers.len() > 60, "only {} numbered promises", numbers.len());
    for pair in numbers.windows(2) {
        let ((section, promise), next) = (pair[0], pair[1]);
        assert!(next == (section, promise + 1) || next == (section + 1, 1), "{next:?} follows {:?}", pair[0]);
    }
}
