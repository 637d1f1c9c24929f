//! `flowrun replay`: a new run whose memo is an old one, with whatever was changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueHint};
use flowrun_engine::cache::Memo;
use flowrun_engine::check::Library;
use flowrun_engine::definition::ModelDef;
use flowrun_engine::diagnostic::did_you_mean;
use flowrun_engine::event::Logged;
use flowrun_engine::graph::Workflow;
use flowrun_engine::json::read_json;
use flowrun_engine::run::RunOptions;
use flowrun_engine::source::Source;
use serde_json::{Map, Value, json};

use super::corrections::{Watched, compared};
use super::drive::{DriveArgs, Driven, Place, What, drive};
use super::kept::Kept;
use super::run::{inputs_over, read_yaml, usage};
use super::{InputArgs, check, refuse};
use crate::compare::{find_step, node_name};
use crate::library::Files;
use crate::render::clean;
use crate::runs::{RunLog, Runs};
use crate::store::SqliteStore;
use crate::{Flowrun, Origin, configuration};

/// Options of `replay`.
#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    inputs: InputArgs,
    /// Change a field of a node: `answer.prompt=…`, `group/inner.params.temperature=0.5`
    #[arg(long, value_name = "NODE.FIELD=VALUE")]
    set: Vec<String>,
    /// Take this workflow in place of the one that was run
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Say what a step should have given, whatever it gave: its path, and text or JSON
    #[arg(long, value_name = "STEP=VALUE")]
    correct: Vec<String>,
    /// Most model calls of the run
    #[arg(long, value_name = "N")]
    max_calls: Option<u64>,
    /// Beside the run that is replayed, take no answer that an earlier run has paid for
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    drive: DriveArgs,
}

pub(super) async fn replay(wanted: &str, mut args: ReplayArgs) -> ExitCode {
    let opened = args.drive.open_with_runs().and_then(|store| {
        let runs = Runs::new(store.clone());
        let log = runs.load(&runs.find(wanted)?).map_err(|error| error.to_string())?;
        Ok((log, store))
    });
    let (log, store) = match opened {
        Ok(opened) => opened,
        Err(problem) => return refuse(&problem),
    };
    let origin = Origin::of(&log.info);
    let (node_models, default): (Vec<String>, Vec<String>) =
        std::mem::take(&mut args.drive.model).into_iter().partition(|model| model.contains('='));
    args.drive.model = if default.is_empty() { origin.model.iter().cloned().collect() } else { default };
    let (workflow, models) = match changed_workflow(&args, &node_models, &origin, &store) {
        Ok(changed) => changed,
        Err(code) => return code,
    };
    let prepared = inputs_over(&workflow, &args.inputs, origin.inputs.clone())
        .and_then(|inputs| Ok((known_inputs(&workflow, inputs, &args), corrections(&args.correct, &log)?)));
    let (inputs, corrections) = match prepared {
        Ok(prepared) => prepared,
        Err(problem) => return refuse(&problem),
    };
    let corrected = !corrections.is_empty();
    // What was set for the run that is replayed is set for this one too.
    let mut all: BTreeMap<String, Value> = origin.corrections.clone().into_iter().collect();
    all.extend(corrections);
    let corrections = all;
    let file = args.file.as_ref().map(|file| file.display().to_string());
    let origin = Origin {
        reference: file.unwrap_or_else(|| origin.reference.clone()),
        inputs: inputs.clone(),
        model: args.drive.model.first().cloned(),
        max_calls: args.max_calls.or(origin.max_calls),
        fresh: args.fresh,
        replay_of: Some(log.info.id.clone()),
        corrections: corrections.clone().into_iter().collect(),
        node_models: models.iter().map(|(alias, _)| alias.clone()).collect(),
        changes: changes(&args, &node_models),
        ..origin
    };
    let memo = Some(Arc::new(Memo::new(&log.info.id, &log.events, |hash| log.value(&hash.to_string()))));
    let watched = Arc::new(Watched::new(&corrections));
    let mut options =
        RunOptions { calls_max: origin.max_calls, fresh: args.fresh, memo, corrections, ..RunOptions::default() };
    options.observers.add(watched.clone());
    let usage = usage(&workflow);
    let driven = Driven {
        workflow,
        what: What::New(inputs, Box::new(origin)),
        place: Place::Open(store),
        options,
        models,
        usage,
    };
    drive(driven, &args.drive, |outcome, more| Some(compared(outcome, &log, corrected, Some(&watched), more))).await
}

/// Inputs that the changed workflow does not take any more are left out, unless they were given for it.
fn known_inputs(workflow: &Workflow, mut inputs: Map<String, Value>, args: &ReplayArgs) -> Map<String, Value> {
    let given = |name: &str| args.inputs.input.iter().any(|pair| pair.split('=').next() == Some(name));
    inputs.retain(|name, _| given(name) || workflow.graph.inputs.iter().any(|inputs| inputs.contains_key(name)));
    inputs
}

/// Models of single nodes, by the alias that stands there.
type Models = Vec<(String, ModelDef)>;

/// The workflow that was run, or the one of `--file`, with what is to be changed.
fn changed_workflow(
    args: &ReplayArgs,
    node_models: &[String],
    origin: &Origin,
    store: &SqliteStore,
) -> Result<(Arc<Workflow>, Models), ExitCode> {
    let bare = Flowrun::builder().build();
    let name = args.file.as_ref().map_or_else(|| origin.name(), |file| file.display().to_string());
    if args.set.is_empty() && node_models.is_empty() && args.file.is_some() {
        return Ok((check::load(&bare, &name, args.drive.quiet)?, Vec::new()));
    }
    let text = match &args.file {
        Some(file) => crate::library::read_file(file),
        None => origin
            .text(store)
            .ok_or_else(|| "the workflow of the run is not kept\nhelp: `--file FILE` names it".to_owned()),
    };
    let mut models = Vec::new();
    let changed = text.and_then(|text| {
        let mut file: Value = read_yaml(&text).map_err(|problem| format!("`{name}`: {problem}"))?;
        for change in &args.set {
            set(&mut file, change)?;
        }
        for choice in node_models {
            models.push(choose_model(&mut file, choice)?);
        }
        if args.set.is_empty() && node_models.is_empty() {
            return Ok(text);
        }
        serde_yaml::to_string(&file).map_err(|error| format!("`{name}`: {error}"))
    });
    let text = changed.map_err(|problem| refuse(&problem))?;
    let then = Kept::then(origin, store);
    let library: &dyn Library = if args.file.is_some() { &Files } else { &then };
    Ok((check::load_text(&bare, &name, &text, library, args.drive.quiet)?, models))
}

/// The node at `a/b` of a file.
fn node<'f>(file: &'f mut Value, path: &str, flag: &str) -> Result<&'f mut Map<String, Value>, String> {
    let mut nodes = file.get_mut("nodes");
    let mut found = None;
    for name in path.split('/') {
        let Some(Value::Object(here)) =
            nodes.take().or(found.take().and_then(|node: &mut Value| node.get_mut("nodes")))
        else {
            return Err(format!("`{flag}`: `{path}`: there is no group of that name in the workflow"));
        };
        if !here.contains_key(name) {
            let near = did_you_mean(name, here.keys().map(String::as_str)).map(str::to_owned);
            let known = || here.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let help = near.map_or_else(|| format!("there are {}", known()), |near| format!("did you mean `{near}`?"));
            return Err(format!("`{flag}`: the workflow has no node `{name}`; {help}"));
        }
        found = here.get_mut(name);
    }
    found.and_then(Value::as_object_mut).ok_or_else(|| format!("`{flag}`: `{path}` is no node"))
}

/// `NODE.FIELD=VALUE`: text where a text stood, else YAML.
fn set(file: &mut Value, change: &str) -> Result<(), String> {
    let flag = format!("--set {}", change.split('=').next().unwrap_or_default());
    let form = || format!("`{flag}`: a change is written NODE.FIELD=VALUE, such as `answer.prompt=…`");
    let (place, text) = change.split_once('=').ok_or_else(form)?;
    let (path, field) = place.split_once('.').ok_or_else(form)?;
    let mut keys: Vec<&str> = field.split('.').collect();
    let last = keys.pop().filter(|key| !key.is_empty()).ok_or_else(form)?;
    let mut at = node(file, path, &flag)?;
    for key in keys {
        let inner = at.entry(key).or_insert_with(|| json!({}));
        at = inner.as_object_mut().ok_or_else(|| format!("`{flag}`: `{key}` has no fields"))?;
    }
    let verbatim = Value::String(text.to_owned());
    let was_text = at.get(last).is_some_and(Value::is_string);
    let read = || Source::yaml_or_text(text).map_err(|problem| format!("`{flag}`: {problem}"));
    let value = if was_text { verbatim } else { read()? };
    at.insert(last.to_owned(), value);
    Ok(())
}

/// `NODE=MODEL`: the node asks that model from now on, under the name that was written.
fn choose_model(file: &mut Value, choice: &str) -> Result<(String, ModelDef), String> {
    let (path, wanted) = choice.split_once('=').expect("BUG: a model of a node without a node");
    let definition = configuration::model_named(wanted)?;
    node(file, path, "--model")?.insert("model".to_owned(), Value::String(wanted.to_owned()));
    Ok((wanted.to_owned(), definition))
}

/// `STEP=VALUE`: text where the step gave a text, else JSON.
fn corrections(given: &[String], log: &RunLog) -> Result<BTreeMap<String, Value>, String> {
    let mut corrections = BTreeMap::new();
    for pair in given {
        let (step, text) = pair.split_once('=').ok_or_else(|| {
            format!("`--correct {pair}`: a correction is written STEP=VALUE, such as `facts[2]=Lisbon`")
        })?;
        let step = &*find_step(&[log], step).map_err(|unknown| {
            let help = if unknown.near.is_empty() {
                format!("\nhelp: `flowrun trace {}` shows them", log.info.id)
            } else {
                String::new()
            };
            format!("`--correct`: {}{help}", clean(&unknown.to_string()))
        })?;
        if node_name(step).starts_with("loop(") {
            let within = |event: &&Logged| event.text("in").is_some_and(|pass| pass.starts_with(step));
            let inner = log.events.iter().find(within).map(|event| format!(", such as `{}`", clean(&event.step)));
            return Err(format!(
                "`--correct`: `{}` stands for a loop, whose value nothing reads\nhelp: correct one of the steps inside it{}",
                clean(step),
                inner.unwrap_or_default()
            ));
        }
        let ended = log.events.iter().rev().find(|event| event.step == step && event.kind == "ended");
        let was = ended.and_then(|event| event.text("value")).and_then(|hash| log.value(hash));
        let verbatim = Value::String(text.to_owned());
        let is_text = was.as_ref().is_some_and(Value::is_string);
        let value = match read_json(text) {
            _ if is_text => verbatim,
            Err(large) => return Err(format!("`--correct {step}`: {large}")),
            Ok(value) => value.unwrap_or(verbatim),
        };
        corrections.insert(step.to_owned(), value);
    }
    Ok(corrections)
}

/// What was changed, in the words of the command line.
fn changes(args: &ReplayArgs, node_models: &[String]) -> Vec<String> {
    let file = args.file.iter().map(|file| format!("--file {}", file.display()));
    let sets = args.set.iter().map(|set| format!("--set {set}"));
    let inputs = args.inputs.input.iter().map(|input| format!("--input {input}"));
    let models = node_models.iter().map(|model| format!("--model {model}"));
    file.chain(sets)
        .chain(inputs)
        .chain(models)
        .chain(args.correct.iter().map(|step| format!("--correct {step}")))
        .collect()
}
