//! Every kind of problem as people see it: `diagnostics/NAME.yaml` is checked and what is said stands in `NAME.txt`.
//!
//! `FLOWRUN_UPDATE=1 cargo test --test main diagnostics` writes the texts anew. Read them before committing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowrun_engine::check::{Library, check_text};
use flowrun_engine::definition::{self, KindSpec, WorkflowDef};
use flowrun_engine::diagnostic::codes;
use flowrun_engine::node::Kinds;
use flowrun_engine::source::Source;
use flowrun_nodes::{Models, Tools};

#[path = "../src/report.rs"]
mod report;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics")
}

fn kinds() -> BTreeMap<String, Arc<KindSpec>> {
    let mut kinds = Kinds::new();
    flowrun_nodes::register(&mut kinds, Models::default(), Tools::default());
    (**kinds.specs()).clone()
}

/// Files beside the one that calls them.
struct Beside;

impl Library for Beside {
    fn load(
        &self,
        reference: &str,
        _from: &str,
        kinds: &BTreeMap<String, Arc<KindSpec>>,
    ) -> Result<(WorkflowDef, Source), String> {
        let text =
            fs::read_to_string(folder().join(reference)).map_err(|_| format!("there is no file `{reference}`"))?;
        let parsed = definition::read(reference, &text, kinds).map_err(|problems| problems[0].message.clone())?;
        if let Some(problem) = parsed.diagnostics.first() {
            return Err(format!("`{reference}` cannot be read: {problem}"));
        }
        Ok((parsed.definition, parsed.source))
    }
}

/// What is said about a text.
fn said(name: &str, text: &str) -> (String, Vec<&'static str>) {
    match check_text(name, text, &kinds(), &Beside) {
        Ok((checked, source)) => (report::render(&checked.warnings, &[&source], false), codes_of(&checked.warnings)),
        Err(refused) => {
            let sources: Vec<&Source> = refused.source.iter().collect();
            (report::render(&refused.diagnostics, &sources, false), codes_of(&refused.diagnostics))
        }
    }
}

fn codes_of(problems: &[flowrun_engine::diagnostic::Diagnostic]) -> Vec<&'static str> {
    problems.iter().map(|problem| problem.code.0).collect()
}

fn cases() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    paths.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_problem_is_said_as_written_down() {
    let update = std::env::var_os("FLOWRUN_UPDATE").is_some();
    let mut differing = Vec::new();
    for (name, text) in cases() {
        let (found, codes) = said(&name, &text);
        assert!(!codes.is_empty(), "{name}: nothing is wrong with it");
        let expected = folder().join(&name).with_extension("txt");
        if update {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            differing.push(format!("--- {name}\n{found}"));
        }
    }
    assert!(differing.is_empty(), "FLOWRUN_UPDATE=1 writes these anew:\n{}", differing.join("\n"));
}

#[test]
fn every_code_has_a_case() {
    let seen: Vec<&str> = cases().iter().flat_map(|(name, text)| said(name, text).1).collect();
    let drawn_by_models = [codes::BAD_PLAN];
    for (code, what) in codes::ALL.iter().filter(|(code, _)| !drawn_by_models.contains(code)) {
        assert!(seen.contains(&code.0), "no file in tests/diagnostics shows {}: {what}", code.0);
    }
}

#[test]
fn places_are_inside_the_file_and_every_problem_has_one() {
    for (name, text) in cases() {
        let Err(refused) = check_text(&name, &text, &kinds(), &Beside) else { continue };
        for problem in refused.diagnostics {
            let place = problem.place.unwrap_or_else(|| panic!("{name}: no place for {}", problem.message));
            assert!(place.end <= text.len() && text.is_char_boundary(place.start), "{name}: {place:?}");
        }
    }
}

/// Every case, cut short and with single characters exchanged: read or refused, never a panic, and each place is a place.
#[test]
fn mutilated_files_are_refused_in_good_order() {
    let odd: Vec<char> = "{}[]:,#&*!|>'\"%@`\t\n -?.é\u{202e}0x".chars().collect();
    let mut random = 7_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below.max(1)
    };
    let kinds = kinds();
    for (name, text) in cases() {
        let whole: Vec<char> = text.chars().collect();
        for round in 0..40 {
            let mut text = whole.clone();
            match round % 4 {
                0 => text.truncate(next(whole.len())),
                1 => text.insert(next(whole.len()), odd[next(odd.len())]),
                2 => drop(text.remove(next(whole.len()))),
                _ => text[next(whole.len())] = odd[next(odd.len())],
            }
            let text: String = text.into_iter().collect();
            let Err(refused) = check_text(&name, &text, &kinds, &Beside) else { continue };
            for place in refused.diagnostics.iter().filter_map(|problem| problem.place.as_ref()) {
                assert!(text.get(place.start..place.end).is_some(), "{place:?} in {text}");
            }
            let sources: Vec<&Source> = refused.source.iter().collect();
            assert!(!report::render(&refused.diagnostics, &sources, true).is_empty(), "{text}");
        }
    }
}
