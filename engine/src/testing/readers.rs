//! What the four readers promise of a text of any origin, as assertions.
//!
//! A reader ends, does not panic, names places that exist, and refuses with a reason; what it accepts reads the same when it is
//! written out and read again. One function a reader: the property tests (`engine/tests/properties.rs`) and the fuzz targets
//! (`fuzz/`) call the same ones.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::calc::Formula;
use crate::check::{NoLibrary, PlanChecker, builtin_kinds, check, check_text};
use crate::definition::{CacheScope, FieldFormat, InputDef, KindSpec, WorkflowDef};
use crate::diagnostic::{Diagnostic, Place};
use crate::dialect::{self, Dialect, Plan, StepType};
use crate::event::Logged;
use crate::expr::{Datum, ExprError, Expression, Scope, Slotted, Template, print_value};
use crate::graph::ExpansionRules;

/// At about so many places a line of a log is cut.
const CUTS: usize = 40;

/// The kinds of the engine, and two with the fields of `llm` and `plan`, which the engine does not know.
pub fn kinds() -> BTreeMap<String, Arc<KindSpec>> {
    let llm = KindSpec {
        work_keys: vec!["prompt".into(), "ask".into()],
        calls_model: true,
        cache: CacheScope::Shared,
        samples: true,
        ..KindSpec::leaf("llm")
    };
    let llm = llm
        .field("prompt", FieldFormat::Template, "the question")
        .field("ask", FieldFormat::Slotted, "the question, literal")
        .field("system", FieldFormat::Template, "the role")
        .field("model", FieldFormat::Text, "an alias")
        .field("params", FieldFormat::Map, "sampling");
    let plan = KindSpec { calls_model: true, cache: CacheScope::Shared, ..KindSpec::leaf("plan") }
        .required("prompt", FieldFormat::Template, "the question")
        .field("with", FieldFormat::ExpressionOrNames, "names that texts may mention")
        .field("combine", FieldFormat::Flag, "whether `answer` is appended")
        .field("max_steps", FieldFormat::Count, "most steps")
        .field("fallback", FieldFormat::Literal, "a plan");
    builtin_kinds().into_iter().chain([llm, plan]).map(|spec| (spec.name.clone(), Arc::new(spec))).collect()
}

/// The workflow parser and the checker: every problem has a place in the text, and what checks reads the same again.
/// Whether it checks.
pub fn workflow(text: &str) -> bool {
    match check_text("w.yaml", text, &kinds(), &NoLibrary) {
        Ok((checked, source)) => {
            assert!(!checked.warnings.iter().any(Diagnostic::is_error), "an error among the warnings");
            checked.warnings.iter().for_each(|warning| reported(warning, source.text()));
            definition(&checked.workflow.definition);
            true
        }
        Err(refused) => {
            let source = refused.source.expect("a text that is refused is there to be shown");
            assert!(refused.diagnostics.iter().any(Diagnostic::is_error), "refused without an error");
            refused.diagnostics.iter().for_each(|problem| reported(problem, source.text()));
            false
        }
    }
}

fn reported(problem: &Diagnostic, text: &str) {
    assert!(!problem.message.is_empty(), "{problem:?} says nothing");
    let place = problem.place.as_ref();
    inside(place.unwrap_or_else(|| panic!("{problem:?} has no place")), text);
    problem.related.iter().for_each(|(_, place)| inside(place, text));
}

fn inside(place: &Place, text: &str) {
    within(&(place.start..place.end), text);
    let before = &text[..place.start];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    assert_eq!((place.line as usize, place.column as usize), (line, column), "line and column of {place:?}");
}

fn within(range: &Range<usize>, text: &str) {
    assert!(text.get(range.clone()).is_some(), "{range:?} is no range of {text:?}");
}

/// A definition that may come from anywhere: if it checks, its file reads as the same definition. Whether it checks.
pub fn definition(definition: &WorkflowDef) -> bool {
    let Ok(checked) = check(definition.clone(), None, &kinds(), &NoLibrary) else { return false };
    if is_lost_in_writing(definition) {
        return true;
    }
    let file = definition.to_yaml();
    let (again, _) = check_text("w.yaml", &file, &kinds(), &NoLibrary)
        .unwrap_or_else(|refused| panic!("its own file is refused: {:#?}\n{file}", refused.diagnostics));
    assert_eq!(again.workflow.definition, *definition, "read out of its own file:\n{file}");
    assert_eq!(again.workflow.hash, checked.workflow.hash, "the identity of\n{file}");
    true
}

/// What the writer is known to lose: inputs whose type or default the short form cannot say.
fn is_lost_in_writing(definition: &WorkflowDef) -> bool {
    let input = |input: &InputDef| {
        let written = input.schema.describe();
        let default = input.default.as_ref().map(ToString::to_string).unwrap_or_default();
        written.contains('=') || written.parse().as_ref() != Ok(&input.schema) || default.contains(char::is_control)
    };
    definition.inputs.values().any(input)
}

/// Values by name.
struct Values(BTreeMap<String, Arc<Datum>>);

impl Scope for Values {
    fn get(&self, name: &str) -> Option<Arc<Datum>> {
        self.0.get(name).cloned()
    }
}

/// Names with values of every type, for what has no scope of its own.
fn names() -> Map<String, Value> {
    let names = json!({
        "a": 7, "b": -2.5, "c": "one two\nthree 3.", "d": [3, 1, 2], "e": {"x": 1, "y": [true, null]}, "f": null, "g": true,
        "h": [{"k": "p", "n": 2}, {"k": "q", "n": 1}], "i": [], "j": "ünï{b}", "item": "x", "this": 9_007_199_254_740_993_i64,
    });
    if let Value::Object(names) = names { names } else { Map::new() }
}

/// A text for the expression language with a line of JSON above it: the names that it finds. Without one it has some.
pub fn expression_in_scope(text: &str) {
    if let Some((first, rest)) = text.split_once('\n')
        && let Ok(Value::Object(names)) = serde_json::from_str(first)
    {
        return expression(rest, &names);
    }
    expression(text, &names());
}

/// The expression language: a text as an expression, as a template, as a text with slots and as a formula. Whatever parses ends,
/// and gives what the template language gives for the text as written.
pub fn expression(text: &str, names: &Map<String, Value>) {
    // The template language has no word `null`; ours means it everywhere.
    let null = Value::Null;
    let values = names.iter().map(|(name, value)| (name.as_str(), value)).chain([("null", &null)]);
    let values = values.map(|(name, value)| (name.to_owned(), Datum::new(value.clone()))).collect();
    let scope: Arc<dyn Scope> = Arc::new(Values(values));
    let mentions = |names: &[crate::expr::NameUse]| {
        for name in names {
            within(&name.range, text);
        }
    };
    match Expression::parse(text) {
        Err(error) => refused(&error, text),
        Ok(expression) => {
            mentions(expression.names());
            if let Ok(value) = expression.eval(&scope) {
                let plain = expression.eval_as_written(&scope);
                assert_eq!(Ok(&value), plain.as_ref(), "`{text}` checked, and as it is written");
            }
        }
    }
    match Template::parse(text) {
        Err(error) => refused(&error, text),
        Ok(template) => {
            mentions(template.names());
            if let Ok(rendered) = template.render(&scope) {
                let plain = template.render_as_written(&scope);
                assert_eq!(Ok(&rendered), plain.as_ref(), "`{text}` checked, and as it is written");
            }
        }
    }
    slots(text);
    formula(text, names);
}

fn refused(error: &ExprError, text: &str) {
    assert!(!error.message.is_empty(), "`{text}` is refused without a word");
    error.range.iter().for_each(|range| within(range, text));
}

/// Slots are found in their places, and what is put in is not read again.
fn slots(text: &str) {
    let slotted = Slotted::parse(text);
    for (name, range) in slotted.slots() {
        assert_eq!(text[range.clone()], format!("{{{name}}}"));
    }
    let same = slotted.render(|name| Ok(format!("{{{name}}}")));
    assert_eq!(same.as_deref(), Ok(text), "slots filled with themselves");
    let one = slotted.render(|_| Ok("{{ a }}{b}".to_owned())).expect("printing does not fail");
    let taken: usize = slotted.slots().iter().map(|(_, range)| range.len()).sum();
    assert_eq!(one.len(), text.len() - taken + 10 * slotted.slots().len(), "each slot is replaced once");
}

/// A formula that gives a number gives it again when that number is read as a formula.
fn formula(text: &str, names: &Map<String, Value>) {
    let formula = match Formula::parse(text) {
        Err(error) => return refused(&error, text),
        Ok(formula) => formula,
    };
    for (name, range) in formula.names() {
        assert!(text[range.clone()].contains(name.as_str()), "`{name}` stands at {range:?} of `{text}`");
    }
    let Ok(value) = formula.eval(|name| names.get(name).cloned()) else { return };
    let printed = print_value(&value);
    if !value.is_boolean() && printed.len() < 1_000 {
        // Digits that were cut off may end in zeros, so numbers are compared, not texts.
        let same = Formula::parse(&format!("{{printed}} = {printed}"));
        let same = same.unwrap_or_else(|error| panic!("`{text}` gives `{printed}`: {error}"));
        assert_eq!(same.eval(|_| Some(value.clone())), Ok(Value::Bool(true)), "`{text}` gives `{printed}`");
    }
}

/// The plan reader: JSON of any origin, or no JSON at all. Whether a plan came of it that checks.
pub fn plan(text: &str) -> bool {
    serde_json::from_str(text).is_ok_and(|value| plan_value(&value))
}

/// The same for a value.
pub fn plan_value(value: &Value) -> bool {
    let question = value.get("question").map_or("What is it?".to_owned(), print_value);
    let keys = ["known".to_owned()];
    let (from_value, steps) = (Plan::from_value(value), dialect::parse_reply(value));
    let steps = match (from_value, steps) {
        (_, Err(problems)) => {
            assert!(!problems.is_empty() && problems.iter().all(Diagnostic::is_error), "refused without an error");
            return false;
        }
        (Ok(plan), Ok(steps)) => {
            assert_eq!(plan.steps, steps, "a value and a reply are read alike");
            assert_eq!(Plan::from_value(&plan.to_value()).as_ref(), Ok(&plan), "a plan reads as it was written");
            steps
        }
        (Err(_), Ok(steps)) => steps,
    };
    let bound = 20 * steps.len() + 100;
    let (steps, repairs) = dialect::repair(steps, &question, &keys, 50);
    assert!(repairs.len() < bound, "repairs did not end by themselves: {:?}", repairs.last());
    let (again, more) = dialect::repair(steps.clone(), &question, &keys, 50);
    assert_eq!((&again, more.as_slice()), (&steps, [].as_slice()), "repairing is idempotent");
    let mut plan = Plan { question, steps };
    plan.append_answer();
    checked(&plan, &keys)
}

/// A plan is lowered with its texts as they are, and judged like a file; the file that it is saved as reads the same.
fn checked(plan: &Plan, keys: &[String]) -> bool {
    let checker = PlanChecker::new(Arc::new(kinds()));
    let loops = plan.steps.iter().any(|step| step.repeat.is_some());
    let dialect = if loops { Dialect::Flowchart } else { Dialect::Graph };
    let rules = ExpansionRules { dialect, ..ExpansionRules::new(1_000) };
    let graph = checker.check(&plan.to_value(), keys, &rules);
    let as_graph = checker.check(&plan.to_value(), keys, &ExpansionRules::new(1_000));
    assert!(!loops || as_graph.is_err(), "a loop in a plan that may have none");
    let lowered = match plan.lower(keys) {
        Ok(lowered) => lowered,
        Err(problems) => {
            assert!(!problems.is_empty() && graph.is_err(), "what cannot be lowered is refused");
            return false;
        }
    };
    // A loop is a group of its own, and texts that mention it name what tells of it.
    for step in plan.steps.iter().filter(|step| !loops && step.tool.is_none()) {
        let field = if step.kind == StepType::Calc { "calc" } else { "ask" };
        assert_eq!(lowered.nodes[&step.id].fields[field], json!(step.ask), "texts of a plan stay as they are");
    }
    match graph {
        Ok(_) => assert!(definition(&lowered), "an accepted plan is an accepted definition"),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a problem");
            return false;
        }
    }
    true
}

/// The reader of logs: every line is read or refused, reads the same again, and a line that was cut off is refused. The lines
/// that were read.
pub fn log(text: &str) -> Vec<Logged> {
    text.lines().filter_map(log_line).collect()
}

fn log_line(line: &str) -> Option<Logged> {
    let logged = match Logged::parse(line) {
        Ok(logged) => logged,
        Err(problem) => {
            assert!(!problem.is_empty(), "`{line}` is refused without a word");
            return None;
        }
    };
    let again = Logged::parse(&logged.line.to_string());
    assert_eq!(again.as_ref(), Ok(&logged), "`{line}` written out");
    let whole = line.trim_end();
    let cuts = whole.char_indices().map(|(at, _)| at);
    for at in cuts.step_by(whole.len() / CUTS + 1) {
        assert!(Logged::parse(&whole[..at]).is_err(), "`{whole}` was cut at {at}");
    }
    Some(logged)
}
