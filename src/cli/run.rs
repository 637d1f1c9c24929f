//! `flowrun run` and `flowrun ask`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::render::clean;
use crate::runs::{Recording, now_ms};
use crate::store::SqliteStore;
use crate::trace::{Trace, counted, duration};
use flowrun_engine::definition::WorkflowDef;
use flowrun_engine::dialect::Plan;
use flowrun_engine::event::{Bound, Decision, Event, Logged, Status, Writer};
use flowrun_engine::expr::Datum;
use flowrun_engine::graph::Workflow;
use flowrun_engine::id::ValueHash;
use flowrun_engine::observer::{Observer, Records};
use flowrun_engine::run::{RunOptions, RunOutcome};
use flowrun_engine::schema::Schema;
use flowrun_engine::store::Durability;
use flowrun_engine::store::RunInfo;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::people::{self, Questions};
use super::progress::Progress;
use super::{InputArgs, RunArgs, check, print, refuse, say};
use crate::{Flowrun, configuration};

/// Most steps that are named at the end of a run.
pub(super) const NAMED_MAX: usize = 5;
/// How long the terminal may take to be left in order when a run is stopped at once.
const LEAVE: Duration = Duration::from_millis(500);

pub(super) async fn run(reference: &str, args: RunArgs) -> ExitCode {
    let bare = Flowrun::builder().build();
    let workflow = match check::load(&bare, reference) {
        Ok(workflow) => workflow,
        Err(code) => return code,
    };
    let inputs = match inputs(&workflow, &args.inputs) {
        Ok(inputs) => inputs,
        Err(problem) => return refuse(&problem),
    };
    let asks = configuration::asks_default(&workflow.graph);
    let configured = match configuration::models(args.model.as_deref(), asks).await {
        Ok(configured) => configured,
        Err(problem) => return refuse(&problem),
    };
    let models = configured.models;
    if let Err(problem) = configuration::models_work(&workflow, &models) {
        return refuse(&problem);
    }
    let flowrun = Flowrun::builder().models(models).build();
    if let Some(notice) = configured.notice.filter(|_| !args.quiet) {
        say(&notice);
    }
    let id = run_id();
    let db = args.place.path(configured.file.db.as_deref());
    let progress = (!args.quiet).then(|| Arc::new(Progress::new()));
    let cancel = on_interrupt(progress.clone());
    let mut options = RunOptions { calls_max: args.max_calls, cancel, ..RunOptions::default() };
    options.max_parallel = args.max_parallel.or(configured.file.max_parallel).unwrap_or(options.max_parallel);
    let recording = match begin_recording(&args, &db, &id, &workflow) {
        Ok(recording) => recording,
        Err(problem) => return refuse(&problem),
    };
    if let Some(recording) = &recording {
        options.observers.add(recording.clone());
    }
    if let Some(progress) = &progress {
        options.observers.add(progress.clone());
    }
    let questions = people::watch(&mut options, !args.no_input, progress.clone());
    let seen = Arc::new(Seen::default());
    if args.save_plan.is_some() || args.json {
        options.observers.add(seen.clone());
    }
    let outcome = flowrun.run(&workflow, Value::Object(inputs), options).await;
    if let Some(progress) = progress {
        // Not here: a terminal that takes nothing would block the thread that listens for Ctrl-C.
        let _panicked = tokio::task::spawn_blocking(move || progress.finish()).await;
    }
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(problem) => {
            // A run that did not begin leaves no record.
            recording.iter().for_each(|recording| recording.discard());
            return refuse(&format!("{problem}\nhelp: {}", usage(&workflow)));
        }
    };
    if let Some(path) = &args.save_plan {
        save_plan(path, &seen);
    }
    let recorded = recording.map(|recording| recording.finish().map_err(|error| error.to_string()));
    if let Some(Err(problem)) = &recorded {
        say(&format!("warning: the run could not be recorded: {problem}"));
    }
    conclude(&id, &outcome, &args, &seen, &questions)
}

/// Inputs from the file and the flags; flags win.
pub(super) fn inputs(workflow: &Workflow, args: &InputArgs) -> Result<Map<String, Value>, String> {
    let mut inputs = Map::new();
    if let Some(path) = &args.input_file {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
        let value: Value = serde_yaml::from_str(&text).map_err(|error| format!("`{shown}`: {error}"))?;
        match value {
            Value::Object(map) => inputs = map,
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

/// What a text of the command line means to a type: itself where texts fit, else JSON. JSON that does not fit stays as it was
/// meant, so that what the run says of it points inside.
pub(super) fn input_value(schema: &Schema, text: &str) -> Result<Value, String> {
    let verbatim = Value::String(text.to_owned());
    let takes_text = schema.validate(&verbatim).is_ok();
    if schema.only_type() == Some("string") {
        return Ok(verbatim);
    }
    match serde_json::from_str(text) {
        Ok(value) if !takes_text || schema.validate(&value).is_ok() => Ok(value),
        Err(error) if !takes_text && matches!(schema.only_type(), Some("array" | "object")) => {
            let error = error.to_string();
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

fn begin_recording(args: &RunArgs, db: &Path, id: &str, workflow: &Workflow) -> Result<Option<Arc<Recording>>, String> {
    if args.no_record {
        return Ok(None);
    }
    let run = RunInfo {
        id: id.to_owned(),
        workflow: workflow.name.clone(),
        started_ms: now_ms(),
        origin: json!({"model": args.model, "max_calls": args.max_calls}),
        summary: None,
    };
    let begun = SqliteStore::open(db, Durability::Normal).and_then(|store| Recording::begin(Arc::new(store), &run));
    begun.map(|recording| Some(Arc::new(recording))).map_err(|error| format!("{error}; `--no-record` records nothing"))
}

/// Sortable by time, to the millisecond (`last` is the last one), and unique on this machine.
fn run_id() -> String {
    let now = jiff::Timestamp::now();
    let stamp = now.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%d-%H%M%S-%3f");
    let mix = now.as_nanosecond() as u64 ^ u64::from(std::process::id()) << 32;
    format!("{stamp}-{:04x}", (mix.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48))
}

/// Ctrl-C: the first cancels the run, the second ends the process at once.
fn on_interrupt(progress: Option<Arc<Progress>>) -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            let notice = "cancelling; press Ctrl-C again to stop at once";
            progress.as_ref().map_or_else(|| say(notice), |progress| progress.say(notice));
            cancel.cancel();
            if tokio::signal::ctrl_c().await.is_ok() {
                // A terminal that takes nothing any more must not keep the process alive.
                let leave = tokio::task::spawn_blocking(move || progress.iter().for_each(|progress| progress.finish()));
                let _late = tokio::time::timeout(LEAVE, leave).await;
                std::process::exit(130);
            }
        }
    });
    token
}

fn conclude(id: &str, outcome: &RunOutcome, args: &RunArgs, seen: &Seen, questions: &Questions) -> ExitCode {
    let asked = questions.open(outcome);
    if args.json {
        let critical_path_ms =
            Trace::new(&seen.log.lock().expect("BUG: a panic while an event was kept").1).critical_path_us / 1_000;
        let object = json!({
            "run": id, "status": outcome.status.word(), "output": outcome.output, "error": outcome.error, "usage": outcome.usage,
            "steps": outcome.steps, "wall_ms": outcome.wall_ms, "critical_path_ms": critical_path_ms,
            "limits_reached": outcome.limits_reached,
            "asked": asked.iter().map(|asked| json!({"step": *asked.path, "prompt": asked.prompt, "schema": asked.schema})).collect::<Vec<_>>(),
        });
        print(&format!("{object}\n"));
    } else if let Some(output) = &outcome.output {
        let text = output.as_str().map_or_else(|| output.to_string(), str::to_owned);
        print(&format!("{text}\n"));
    }
    if let Some(error) = &outcome.error {
        // What the output lacks did not fail, and is named in the message.
        let failed = |step: &&str| !step.is_empty() && error.code != "output_skipped";
        let place = outcome.failed_step.as_deref().filter(failed);
        let place = place.map(|step| format!("step `{step}` failed: ")).unwrap_or_default();
        say(&format!("error: {place}{error}"));
    }
    if let Some(bound) = outcome.bound {
        say(match bound {
            Bound::Calls => {
                "error: what is left of the budget of model calls has no room for the next step (a structured reply reserves its \
                 repair turns); the output is what there was so far"
            }
            Bound::Steps => "error: the run reached `limits.steps`; the output is what there was so far",
        });
    }
    if !asked.is_empty() {
        say(&people::waiting(&asked));
    }
    if !args.quiet {
        if !outcome.limits_reached.is_empty() {
            say(&format!("ended at a bound: {}", named(&outcome.limits_reached)));
        }
        let usage = outcome.usage;
        let tokens = counted(usage.prompt_tokens + usage.completion_tokens, "token");
        let (calls, time) = (counted(usage.calls, "call"), duration(1_000 * outcome.wall_ms));
        say(&format!("run {id}: {}, {calls}, {tokens}, {time}", outcome.status.word()));
    }
    if outcome.status == Status::Success { ExitCode::SUCCESS } else { ExitCode::from(outcome.status.exit_code()) }
}

/// Paths, the first few by name.
fn named(paths: &[String]) -> String {
    let names: Vec<String> = paths.iter().take(NAMED_MAX).map(|path| format!("`{}`", clean(path))).collect();
    let more = paths.len().saturating_sub(NAMED_MAX);
    names.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}

/// Remembers the events for `--json`, and the last plan that was expanded, with the keys that its texts may mention.
#[derive(Default)]
struct Seen {
    values: Mutex<BTreeMap<ValueHash, Arc<Datum>>>,
    plan: Mutex<Option<(ValueHash, Vec<String>)>>,
    log: Mutex<(Writer, Vec<Logged>)>,
}

impl Observer for Seen {
    fn value(&self, hash: ValueHash, value: &Arc<Datum>) {
        self.values.lock().expect("BUG: a panic while a value was kept").insert(hash, value.clone());
    }

    fn records(&self, records: &Records<'_>) {
        let mut log = self.log.lock().expect("BUG: a panic while an event was kept");
        for record in records.iter() {
            let line = log.0.json(&record).to_string();
            log.1.extend(Logged::parse(&line).ok());
            if let Event::Decided { decision: Decision::Graph { plan, graph }, .. } = &record.event {
                let names = graph.inputs.iter().flatten().map(|(name, _)| name.clone());
                let keys = names.filter(|name| name != "question").collect();
                *self.plan.lock().expect("BUG: a panic while a plan was kept") = Some((*plan, keys));
            }
        }
    }
}

/// Writes the last plan that was expanded as a workflow file.
fn save_plan(path: &Path, seen: &Seen) {
    let last = seen.plan.lock().expect("BUG: a panic while a plan was kept").clone();
    let Some((hash, keys)) = last else { return say("warning: no plan was drawn, so none was saved") };
    let values = seen.values.lock().expect("BUG: a panic while a value was kept");
    let Some(value) = values.get(&hash) else { return };
    let text = match Plan::from_value(value.json()).and_then(|plan| plan.lower(&keys)) {
        Ok(definition) => WorkflowDef::to_yaml(&definition),
        Err(problems) => {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            return say(&format!("warning: the plan cannot be written as a workflow: {first}"));
        }
    };
    match fs::write(path, text) {
        Ok(()) => say(&format!("plan written to `{}`", path.display())),
        Err(error) => say(&format!("warning: the plan could not be written to `{}`: {error}", path.display())),
    }
}
