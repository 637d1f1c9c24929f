//! Driving a run from the command line, new or taken up: models, the live view, questions, Ctrl-C, the last words.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueHint};
use flowrun_engine::definition::ModelDef;
use flowrun_engine::event::{Bound, Status};
use flowrun_engine::graph::Workflow;
use flowrun_engine::run::{RunOptions, RunOutcome};
use flowrun_engine::store::Durability;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::db::DbArgs;
use super::people::{self, NAMED_MAX, Questions};
use super::progress::Progress;
use super::seen::Seen;
use super::{print, refuse, say};
use crate::configuration::{self, Configured};
use crate::render::{clean, readable};
use crate::store::SqliteStore;
use crate::trace::{Trace, counted, duration};
use crate::{Flowrun, Origin, RunError};

/// How long the terminal may take to be left in order when a run is stopped at once.
const LEAVE: Duration = Duration::from_millis(500);

/// Options of every command that drives a run.
#[derive(Args, Debug)]
pub(super) struct DriveArgs {
    /// The default model: an alias of flowrun.yaml, `openai:NAME`, `scripted:FILE` or `recorded:FILE`
    #[arg(long, value_name = "ALIAS|PROVIDER:NAME")]
    pub(super) model: Vec<String>,
    /// Most steps that run at once [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_parallel: Option<u32>,
    /// Nothing but errors on standard error
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// Print one JSON object about the run instead of the answer
    #[arg(long)]
    pub(super) json: bool,
    /// Write the plan that a model drew as a workflow file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    save_plan: Option<PathBuf>,
    /// Ask nobody: a run that needs a person's answer ends as `suspended`
    #[arg(long)]
    no_input: bool,
    /// Record what is asked of models and what they answer, to play it again with `--model recorded:FILE`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    record: Option<PathBuf>,
    /// When a step counts as done: on disk, in the hands of the system, or at once
    #[arg(long, value_name = "LEVEL", default_value = "normal", value_parser = ["full", "normal", "off"])]
    durability: String,
    #[command(flatten)]
    pub(super) place: DbArgs,
}

impl DriveArgs {
    fn durability(&self) -> Durability {
        durability_named(&self.durability)
    }

    /// The database, to be written, where there must be one.
    pub(super) fn open_with_runs(&self) -> Result<Arc<SqliteStore>, String> {
        let path = self.place.path(configuration::file()?.db.as_deref());
        if path.exists() {
            self.open()
        } else {
            Err(format!("there are no runs in `{}`: there is no such file", path.display()))
        }
    }

    /// The database, to be written.
    pub(super) fn open(&self) -> Result<Arc<SqliteStore>, String> {
        let path = self.place.path(configuration::file()?.db.as_deref());
        SqliteStore::open(&path, self.durability()).map(Arc::new).map_err(|error| error.to_string())
    }
}

/// The level that a word of the command line means.
pub(super) fn durability_named(word: &str) -> Durability {
    let known = Durability::WORDS.iter().find(|(known, _)| *known == word);
    known.map(|(_, level)| *level).unwrap_or_default()
}

/// What is driven.
pub(super) struct Driven {
    pub(super) workflow: Arc<Workflow>,
    pub(super) what: What,
    /// Where it is recorded.
    pub(super) place: Place,
    pub(super) options: RunOptions,
    /// Models of single nodes, by the alias that stands there.
    pub(super) models: Vec<(String, ModelDef)>,
    /// What to say when the run cannot begin.
    pub(super) usage: String,
}

/// Where a run is recorded.
pub(super) enum Place {
    Nowhere,
    /// In the database that is configured, which is opened, or made, when everything else is known to be well.
    Database,
    Open(Arc<SqliteStore>),
}

/// A new run, or one that goes on.
pub(super) enum What {
    New(Map<String, Value>, Box<Origin>),
    Again(String),
}

/// Drives a run to its end and says how it went; `said` has more to say about it before the last line.
pub(super) async fn drive(
    driven: Driven,
    args: &DriveArgs,
    said: impl FnOnce(&RunOutcome, &mut Map<String, Value>) -> Option<String>,
) -> ExitCode {
    let usage = driven.usage.clone();
    try_drive(driven, args, said).await.unwrap_or_else(|problem| refuse(&cannot_begin(&problem, &usage)))
}

/// The same for a caller that has something else to do about a run that cannot begin.
pub(super) async fn try_drive(
    driven: Driven,
    args: &DriveArgs,
    said: impl FnOnce(&RunOutcome, &mut Map<String, Value>) -> Option<String>,
) -> Result<ExitCode, RunError> {
    let Driven { workflow, what, place, mut options, models, .. } = driven;
    let configured = match configured(&workflow, models, args).await {
        Ok(configured) => configured,
        Err(problem) => return Ok(refuse(&problem)),
    };
    options.fresh |= configuration::every_call_counts(&workflow, &configured.models);
    let store = match place {
        Place::Nowhere => None,
        Place::Open(store) => Some(store),
        Place::Database => match args.open() {
            Ok(store) => Some(store),
            Err(problem) => {
                return Ok(refuse(&format!("{problem}\nhelp: `--no-record` runs without a database")));
            }
        },
    };
    let mut builder = Flowrun::builder().models(configured.models);
    if let Some(store) = &store {
        builder = builder.store(store.clone(), args.durability());
    }
    let flowrun = builder.build();
    if let Some(notice) = configured.notice.filter(|_| !args.quiet) {
        say(&notice);
    }
    let progress = (!args.quiet).then(|| Arc::new(Progress::new()));
    options.cancel = on_interrupt(progress.clone());
    options.max_parallel = args.max_parallel.or(configured.file.max_parallel).unwrap_or(options.max_parallel);
    if let Some(progress) = &progress {
        options.observers.add(progress.clone());
    }
    let questions = people::watch(&mut options, !args.no_input, progress.clone());
    let seen = Arc::new(Seen::default());
    if args.save_plan.is_some() || args.json {
        options.observers.add(seen.clone());
    }
    let (id, outcome) = match what {
        What::New(inputs, origin) => {
            let mut id = String::new();
            if let Some(store) = &store {
                let record = origin.recording(&workflow, store.clone(), args.durability());
                id.clone_from(&record.run.id);
                options.record = Some(record);
            }
            (id, flowrun.run(&workflow, Value::Object(inputs), options).await)
        }
        What::Again(id) => {
            let outcome = flowrun.resume(&workflow, &id, options).await;
            (id, outcome)
        }
    };
    if let Some(progress) = progress {
        // Not here: a terminal that takes nothing would block the thread that listens for Ctrl-C.
        let _panicked = tokio::task::spawn_blocking(move || progress.finish()).await;
    }
    let outcome = outcome?;
    if let Some(path) = &args.save_plan {
        seen.save_plan(path);
    }
    if let Some(problem) = store.as_ref().and_then(|store| store.problem()) {
        say(&format!("warning: the run could not be recorded whole: {problem}"));
    } else if let Some(gone) = store.as_ref().map(|store| store.path()).filter(|path| !path.exists()) {
        say(&format!("warning: the run is not recorded: `{}` was removed while it went on", gone.display()));
    }
    Ok(conclude(&id, &outcome, args, &seen, &questions, said))
}

/// The models that a workflow asks, every one of them there and able to be made.
async fn configured(
    workflow: &Workflow,
    of_nodes: Vec<(String, ModelDef)>,
    args: &DriveArgs,
) -> Result<Configured, String> {
    let default = match args.model.as_slice() {
        [] => None,
        [model] => Some(model.as_str()),
        _ => return Err("`--model` is given twice; models of nodes stand in the workflow file".to_owned()),
    };
    let asks = configuration::asks_default(&workflow.graph);
    let mut configured = configuration::models(default, asks).await?;
    for (alias, model) in of_nodes {
        configured.models.configure(&alias, model);
    }
    if let Some(path) = &args.record {
        configured.models.record(path).map_err(|problem| problem.message.clone())?;
    }
    configuration::models_work(workflow, &configured.models)?;
    Ok(configured)
}

fn cannot_begin(problem: &RunError, usage: &str) -> String {
    if usage.is_empty() { problem.to_string() } else { format!("{problem}\nhelp: {usage}") }
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

fn conclude(
    id: &str,
    outcome: &RunOutcome,
    args: &DriveArgs,
    seen: &Seen,
    questions: &Questions,
    said: impl FnOnce(&RunOutcome, &mut Map<String, Value>) -> Option<String>,
) -> ExitCode {
    let asked = questions.open(outcome);
    let mut more = Map::new();
    let said = said(outcome, &mut more);
    let mut printed = ExitCode::SUCCESS;
    if args.json {
        let critical_path_ms =
            Trace::new(&seen.log.lock().expect("BUG: a panic while an event was kept").1).critical_path_us / 1_000;
        let mut object = json!({
            "run": Some(id).filter(|id| !id.is_empty()), "status": outcome.status.word(), "output": outcome.output, "error": outcome.error,
            "usage": outcome.usage, "steps": outcome.steps,
            "reused": {"steps": outcome.reused.steps, "usage": outcome.reused.usage}, "wall_ms": outcome.wall_ms,
            "critical_path_ms": critical_path_ms, "limits_reached": outcome.limits_reached,
            "asked": asked.iter().map(|asked| json!({"step": *asked.path, "prompt": asked.prompt, "schema": asked.schema})).collect::<Vec<_>>(),
        });
        if let Value::Object(object) = &mut object {
            object.extend(more);
        }
        printed = print(&format!("{object}\n"));
    } else if let Some(output) = &outcome.output {
        let text = output.as_str().map_or_else(|| output.to_string(), str::to_owned);
        // A file gets what the models said; a terminal would obey it.
        let text = if std::io::stdout().is_terminal() { readable(&text) } else { text };
        printed = print(&format!("{text}\n"));
    }
    let id_here = format!("{id}{}", args.place.flag());
    tell_problems(&id_here, outcome);
    if !asked.is_empty() {
        say(&people::waiting(&asked, if id.is_empty() { "" } else { &id_here }));
    }
    if !args.quiet {
        if !outcome.limits_reached.is_empty() {
            say(&format!("ended at a bound: {}", named(&outcome.limits_reached)));
        }
        said.iter().for_each(|said| say(said));
        say(&last_line(id, outcome));
    }
    // An answer that nobody could read is none.
    if outcome.status == Status::Success { printed } else { ExitCode::from(outcome.status.exit_code()) }
}

fn tell_problems(id: &str, outcome: &RunOutcome) {
    if let Some(error) = &outcome.error {
        // What the output lacks did not fail, and is named in the message.
        let failed = |step: &&str| !step.is_empty() && error.code != "output_skipped";
        let place = outcome.failed_step.as_deref().filter(failed);
        let place = place.map(|step| format!("step `{step}` failed: ")).unwrap_or_default();
        say(&format!("error: {place}{error}"));
        if error.code == "store" {
            say(&format!(
                "help: what had finished is kept; when the database can be written again, `flowrun resume {id}` goes on from there"
            ));
        }
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
}

/// The run in one line: how it ended, what it cost, what it did not have to pay.
fn last_line(id: &str, outcome: &RunOutcome) -> String {
    let usage = outcome.usage;
    let tokens = counted(usage.prompt_tokens + usage.completion_tokens, "token");
    let (calls, time) = (counted(usage.calls, "call"), duration(1_000 * outcome.wall_ms));
    let reused = match outcome.reused {
        crate::Reused { steps: 0, .. } => String::new(),
        crate::Reused { steps, usage } => {
            format!(" ({} taken over: {} saved)", counted(steps, "answer"), counted(usage.calls, "call"))
        }
    };
    let run = if id.is_empty() { "run".to_owned() } else { format!("run {id}") };
    format!("{run}: {}, {calls}{reused}, {tokens}, {time}", outcome.status.word())
}

/// Paths, the first few by name.
fn named(paths: &[String]) -> String {
    let names: Vec<String> = paths.iter().take(NAMED_MAX).map(|path| format!("`{}`", clean(path))).collect();
    let more = paths.len().saturating_sub(NAMED_MAX);
    names.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}
