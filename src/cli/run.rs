//! `flowrun run` and `flowrun ask`: a new run of a workflow.

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;

use flowrun_engine::diagnostic::Diagnostic;
use flowrun_engine::graph::Workflow;
use flowrun_engine::json::read_json;
use flowrun_engine::run::RunOptions;
use flowrun_engine::schema::Schema;
use flowrun_engine::source::Source;
use serde_json::{Map, Value, json};

use super::drive::{Driven, Place, What, drive};
use super::{InputArgs, RunArgs, check, refuse};
use crate::{Flowrun, Origin};

pub(super) async fn run(reference: &str, args: RunArgs) -> ExitCode {
    let bare = Flowrun::builder().build();
    let workflow = match check::load(&bare, reference, args.drive.quiet) {
        Ok(workflow) => workflow,
        Err(code) => return code,
    };
    let inputs = match inputs(&workflow, &args.inputs) {
        Ok(inputs) => inputs,
        Err(problem) => return refuse(&problem),
    };
    let place = if args.no_record { Place::Nowhere } else { Place::Database };
    let origin = Origin {
        reference: reference.to_owned(),
        inputs: inputs.clone(),
        model: args.drive.model.first().cloned(),
        max_calls: args.max_calls,
        fresh: args.fresh,
        ..Origin::default()
    };
    let options = RunOptions { calls_max: args.max_calls, fresh: args.fresh, ..RunOptions::default() };
    let usage = usage(&workflow);
    let driven =
        Driven { workflow, what: What::New(inputs, Box::new(origin)), place, options, models: Vec::new(), usage };
    drive(driven, &args.drive, |_, _| None).await
}

/// Inputs from the file and the flags; flags win.
pub(super) fn inputs(workflow: &Workflow, args: &InputArgs) -> Result<Map<String, Value>, String> {
    inputs_over(workflow, args, Map::new())
}

/// The same over those of an earlier run.
pub(super) fn inputs_over(
    workflow: &Workflow,
    args: &InputArgs,
    mut inputs: Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    if let Some(path) = &args.input_file {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
        match read_data(&shown.to_string(), &text)? {
            Value::Object(map) => inputs.extend(map),
            _ => return Err(format!("`{shown}` is not a mapping of inputs")),
        }
    }
    let mut flags = BTreeSet::new();
    for pair in &args.input {
        let Some((name, text)) = pair.split_once('=') else {
            return Err(format!("`--input {pair}`: an input is written NAME=VALUE"));
        };
        if !flags.insert(name) {
            let list = "a list is written as JSON: `--input 'NAME=[\"a\",\"b\"]'`";
            return Err(format!("the input `{name}` is given twice\nhelp: {list}"));
        }
        let declared = workflow.graph.inputs.as_ref().and_then(|inputs| inputs.get(name));
        let value = match declared {
            Some(input) => input_value(&input.schema, text)
                .map_err(|problem| format!("input `{name}`: {problem}\nhelp: {}", usage(workflow)))?,
            None => Value::String(text.to_owned()),
        };
        inputs.insert(name.to_owned(), value);
    }
    Ok(inputs)
}

/// The value of a file: JSON, or else YAML.
pub(super) fn read_data(name: &str, text: &str) -> Result<Value, String> {
    match read_json(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => read_yaml(text).map_err(|problem| format!("`{name}`: {problem}")),
        Err(problem) => Err(format!("`{name}`: {problem}")),
    }
}

/// The value of a YAML text.
pub(super) fn read_yaml(text: &str) -> Result<Value, String> {
    let said = |problem: &Diagnostic| match &problem.place {
        Some(place) => format!("{} at line {} column {}", problem.message, place.line, place.column),
        None => problem.message.clone(),
    };
    let read = Source::parse("", text).map(|(_, value)| value);
    read.map_err(|problems| problems.first().map(said).unwrap_or_default())
}

/// Whether a text was meant as the JSON that it would be if its numbers were rounded.
fn fits_rounded(schema: &Schema, text: &str) -> bool {
    serde_json::from_str(text).is_ok_and(|rounded| schema.validate(&rounded).is_ok())
}

/// What a text of the command line means to a type: itself where texts fit, else JSON. JSON that does not fit stays as it was
/// meant, so that what the run says of it points inside.
pub(super) fn input_value(schema: &Schema, text: &str) -> Result<Value, String> {
    let verbatim = Value::String(text.to_owned());
    let takes_text = schema.validate(&verbatim).is_ok();
    if schema.only_type() == Some("string") {
        return Ok(verbatim);
    }
    match read_json(text) {
        Err(large) if !takes_text || schema.validate(&json!(0)).is_ok() || fits_rounded(schema, text) => Err(large),
        Ok(Some(value)) if !takes_text || schema.validate(&value).is_ok() => Ok(value),
        Ok(None) if !takes_text && matches!(schema.only_type(), Some("array" | "object")) => {
            let error = serde_json::from_str::<Value>(text).err().map(|error| error.to_string()).unwrap_or_default();
            let what = error.split(" at line ").next().unwrap_or(&error);
            let at = error.rsplit(' ').next().unwrap_or_default();
            Err(format!("not JSON: {what} at column {at}"))
        }
        _ => Ok(verbatim),
    }
}

/// How the inputs of a workflow are written, to be pasted.
pub(super) fn usage(workflow: &Workflow) -> String {
    let mut inputs = workflow.graph.inputs.iter().flatten().peekable();
    if inputs.peek().is_none() {
        return format!("`{}` takes no inputs", workflow.name);
    }
    let inputs = inputs.map(|(name, input)| {
        let optional = if input.default.is_some() { " (optional)" } else { "" };
        let value = input.default.clone().unwrap_or_else(|| example(input.schema.json_schema(), "a"));
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned).replace('\'', "'\\''");
        format!("--input '{name}={value}'{optional}")
    });
    format!("`{}` takes {}", workflow.name, inputs.collect::<Vec<_>>().join(" "))
}

/// A value of a type, with `word` for its texts.
pub(super) fn example(schema: &Value, word: &str) -> Value {
    let first = |key: &str| schema.get(key).and_then(Value::as_array).and_then(|all| all.first());
    if let Some(value) = first("enum") {
        return value.clone();
    }
    if let Some(inner) = first("anyOf") {
        return example(inner, word);
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => {
            ["a", "b"].iter().map(|word| example(schema.get("items").unwrap_or(&Value::Null), word)).collect()
        }
        Some("object") => {
            let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
            fields.map(|(name, schema)| (name.clone(), example(schema, word))).collect::<Map<_, _>>().into()
        }
        Some("integer") => json!(if word == "a" { 1 } else { 2 }),
        Some("number") => json!(if word == "a" { 0.5 } else { 1.5 }),
        Some("boolean") => json!(true),
        _ => json!(word),
    }
}
