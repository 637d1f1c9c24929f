//! `flowrun resume` and `flowrun answer`: runs that were interrupted, or wait for somebody, go on.

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use flowrun_engine::cache::Memo;
use flowrun_engine::definition::{ModelDef, WorkflowDef};
use flowrun_engine::diagnostic::did_you_mean;
use flowrun_engine::event::Status;
use flowrun_engine::graph::Workflow;
use flowrun_engine::id::ValueHash;
use flowrun_engine::run::{RunOptions, RunOutcome, StartError};
use flowrun_engine::schema::Schema;
use flowrun_engine::store::{RunInfo, Store};
use serde_json::{Map, Value};

use super::corrections::compared;
use super::drive::{DriveArgs, Driven, Place, What, try_drive};
use super::kept::Kept;
use super::run::input_value;
use super::{check, print, refuse, say};
use crate::compare::{Line, changed_lines};
use crate::inbox::was_taken;
use crate::origin::text_of;
use crate::render::{clean, visible};
use crate::runs::{RunLog, Runs};
use crate::store::SqliteStore;
use crate::{Flowrun, Origin, RunError, configuration, library};

/// How often a letter's verdict is asked for.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a letter may lie unread while somebody drives the run.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn resume(wanted: &str, mut args: DriveArgs) -> ExitCode {
    match args.open_with_runs().and_then(|store| Ok((run_to_resume(wanted, &store)?, store))) {
        Ok((run, store)) => go_on(&run, store, &mut args).await.unwrap_or_else(|why| refuse(&why.to_string())),
        Err(problem) => refuse(&problem),
    }
}

/// The run that somebody wants to resume: `last` is the last one that can go on, if there is any.
fn run_to_resume(wanted: &str, store: &Arc<SqliteStore>) -> Result<RunInfo, String> {
    let runs = Runs::new(store.clone());
    let named = runs.find(wanted)?;
    let waits = |run: &RunInfo| may_go_on(run).is_ok() && !store.is_driven(&run.id).unwrap_or_default();
    if wanted != "last" || waits(&named) {
        return Ok(named);
    }
    let all = runs.all().map_err(|error| error.to_string())?;
    Ok(all.into_iter().rev().find(waits).unwrap_or(named))
}

/// Why a run does not go on here.
#[derive(Debug, thiserror::Error)]
enum NotHere {
    #[error("the run {0} goes on in another process at this moment")]
    Driven(String),
    #[error("the run {id} {}", .status.ending())]
    Over { id: String, status: Status },
}

/// Drives a run from where it stands.
async fn go_on(run: &RunInfo, store: Arc<SqliteStore>, args: &mut DriveArgs) -> Result<ExitCode, NotHere> {
    if store.is_driven(&run.id).unwrap_or_default() {
        return Err(NotHere::Driven(run.id.clone()));
    }
    if let Err(problem) = may_go_on(run) {
        return Ok(refuse(&problem));
    }
    let origin = Origin::of(run);
    let workflow = match workflow_of(run, &origin, &*store, args.quiet) {
        Ok(workflow) => workflow,
        Err(code) => return Ok(code),
    };
    if args.model.is_empty() {
        args.model.extend(origin.model.clone());
    }
    let prepared = replaying(&origin, &store).and_then(|replaying| Ok((replaying, node_models(&origin)?)));
    let ((options, replayed), models) = match prepared {
        Ok(prepared) => prepared,
        Err(problem) => return Ok(refuse(&problem)),
    };
    let (what, usage) = (What::Again(run.id.clone()), String::new());
    let driven = Driven { workflow, what, place: Place::Open(store), options, models, usage };
    let corrected = !origin.corrections.is_empty();
    let said = |outcome: &RunOutcome, more: &mut Map<String, Value>| {
        replayed.map(|log| compared(outcome, &log, corrected, None, more))
    };
    match try_drive(driven, args, said).await {
        // Somebody else was quicker.
        Err(RunError::Start(StartError::Driven(id))) => Err(NotHere::Driven(id)),
        Err(RunError::Start(StartError::Over { id, status })) => Err(NotHere::Over { id, status }),
        Err(problem @ RunError::Start(StartError::Unfoldable { .. })) => {
            let id = &run.id;
            Ok(refuse(&format!(
                "{problem}\nhelp: it may have begun under another version of this program; `flowrun replay {id}` makes a new run with \
                 every answer that still fits"
            )))
        }
        result => Ok(result.unwrap_or_else(|problem| refuse(&problem.to_string()))),
    }
}

/// A replay goes on as one: with the same memo, which is the run that it replays, and the same corrections.
fn replaying(origin: &Origin, store: &Arc<SqliteStore>) -> Result<(RunOptions, Option<RunLog>), String> {
    let corrections = origin.corrections.clone().into_iter().collect();
    let mut options = RunOptions { corrections, fresh: origin.fresh, ..RunOptions::default() };
    let Some(replayed) = &origin.replay_of else { return Ok((options, None)) };
    let Some(run) = store.run(replayed).map_err(|error| error.to_string())? else {
        say(&format!("note: the run {} is not kept any more: nothing is taken over from it", clean(replayed)));
        return Ok((options, None));
    };
    let log = Runs::new(store.clone()).load(&run).map_err(|error| error.to_string())?;
    let memo = Memo::new(replayed, &log.events, |hash| log.value(&hash.to_string()));
    options.memo = Some(Arc::new(memo));
    Ok((options, Some(log)))
}

fn node_models(origin: &Origin) -> Result<Vec<(String, ModelDef)>, String> {
    origin.node_models.iter().map(|wanted| Ok((wanted.clone(), configuration::model_named(wanted)?))).collect()
}

/// Whether a run is one that goes on.
fn may_go_on(run: &RunInfo) -> Result<(), String> {
    let id = &run.id;
    match run.summary.as_ref().map(|summary| summary.status) {
        Some(Status::Success) => Err(format!("the run {id} succeeded: nothing is left to do\nhelp: {}", again(id))),
        Some(status @ (Status::Failed | Status::Cancelled | Status::Exhausted)) => {
            Err(format!("the run {id} {}: it is over\nhelp: {}", status.ending(), again(id)))
        }
        Some(Status::Suspended) | None => Ok(()),
    }
}

fn again(id: &str) -> String {
    format!("`flowrun replay {id}` runs it again with every answer that it has")
}

/// The workflow that a run began with: its file if that still says the same, what the store has of it if there is no file any more.
fn workflow_of(run: &RunInfo, origin: &Origin, store: &dyn Store, quiet: bool) -> Result<Arc<Workflow>, ExitCode> {
    let bare = Flowrun::builder().build();
    let kept = origin.text(store);
    let is_replay = origin.replay_of.is_some();
    let loaded = match origin.reference.strip_prefix('@') {
        Some(name) if !is_replay => library::embedded(name).map(str::to_owned).ok(),
        _ if is_replay => None,
        None if ["", "-"].contains(&origin.reference.as_str()) => None,
        _ => library::read_file(origin.reference.as_ref()).ok(),
    };
    let is_there = loaded.is_some();
    let text = match (loaded, &kept) {
        (Some(text), _) => text,
        (None, Some(kept)) => {
            if !quiet && !is_replay && !["", "-"].contains(&origin.reference.as_str()) {
                say(&format!(
                    "note: there is no `{}` in this folder any more; the run goes on as it was recorded",
                    clean(&origin.reference)
                ));
            }
            kept.clone()
        }
        (None, None) => return Err(refuse(&format!("the workflow of the run {} is not kept and not there", run.id))),
    };
    let id = &run.id;
    let changed = || {
        say(&format!(
            "help: the run {id} began with a workflow that checked; put its file back and resume, or mend it and `flowrun replay {id} \
             --file FILE`"
        ));
    };
    let library = if is_replay { Kept::then(origin, store) } else { Kept::now(origin, store) };
    let workflow = check::load_text(&bare, &origin.name(), &text, &library, quiet).inspect_err(|_| changed())?;
    let began = began_with(run, store);
    if began.is_none_or(|began| began == workflow.hash) {
        return Ok(workflow);
    }
    let file = &origin.reference;
    Err(refuse(&format!(
        "{}help: `flowrun replay {id}{}` runs {} with every answer that still fits; or put the file back and resume",
        changes(id, origin, store, &workflow),
        if is_there { format!(" --file {file}") } else { String::new() },
        if is_there { "what is there now" } else { "what was there then" },
    )))
}

/// What became of the texts that a run began with, file by file.
fn changes(id: &str, origin: &Origin, store: &dyn Store, workflow: &Workflow) -> String {
    let own = difference(&origin.text(store).unwrap_or_default(), &workflow.definition.to_yaml());
    let called = origin.calls.iter().map(|(name, hash)| {
        let now = workflow.calls.get(name).map(WorkflowDef::to_yaml).unwrap_or_default();
        (name, difference(&text_of(*hash, store).unwrap_or_default(), &now))
    });
    let changed: Vec<_> =
        [(&origin.reference, own)].into_iter().chain(called).filter(|(_, how)| !how.is_empty()).collect();
    if changed.is_empty() {
        return format!("`{}` is not the workflow that the run {id} began with\n", clean(&origin.reference));
    }
    let said = changed.iter().map(|(name, how)| {
        format!("`{}` has changed since the run {id} began, which cannot go on as another workflow\n{how}", clean(name))
    });
    said.collect()
}

/// Identity of the workflow that the log begins with; `None` if the log is empty.
fn began_with(run: &RunInfo, store: &dyn Store) -> Option<ValueHash> {
    let log = store.log(&run.id, 0).ok()?;
    let first: Value = serde_json::from_str(log.first()?.lines.lines().next()?).ok()?;
    first["workflow"].as_str().and_then(ValueHash::from_hex)
}

fn difference(before: &str, now: &str) -> String {
    let mut text = String::new();
    for line in changed_lines(before, now) {
        let _ = match line {
            Line::Same(line) => writeln!(text, "    {}", visible(&line)),
            Line::Removed(line) => writeln!(text, "  - {}", visible(&line)),
            Line::Added(line) => writeln!(text, "  + {}", visible(&line)),
            Line::Folded(count) => writeln!(text, "    … {count} equal lines"),
        };
    }
    text
}

/// Answers a step of a run: through the process that drives it, else by driving it on.
pub(super) async fn answer(wanted: &str, step: &str, text: &str, mut args: DriveArgs) -> ExitCode {
    let opened = args.open_with_runs().and_then(|store| Ok((Runs::new(store.clone()).find(wanted)?, store)));
    let (run, store) = match opened {
        Ok(opened) => opened,
        Err(problem) => return refuse(&problem),
    };
    let posted = Runs::new(store.clone())
        .load(&run)
        .map_err(|error| error.to_string())
        .and_then(|log| answer_to(&log, step, text))
        .and_then(|value| {
            let letter = store.post(&run.id, step, &value).map_err(|error| error.to_string())?;
            Ok((letter, ValueHash::of(&value)))
        });
    let (letter, value) = match posted {
        Ok(letter) => letter,
        Err(problem) => return refuse(&problem),
    };
    let mut waited = Duration::ZERO;
    loop {
        match store.verdict(letter) {
            Ok(Some(Ok(()))) => return has_its_answer(step, &run.id),
            Ok(Some(Err(problem))) => return refuse(&clean(&problem)),
            Ok(None) => {}
            Err(error) => return refuse(&error.to_string()),
        }
        if !store.is_driven(&run.id).unwrap_or_default() {
            // The last driver may have taken it with its last breath.
            if let Ok(Some(_)) = store.verdict(letter) {
                continue;
            }
            let ended = go_on(&run, store.clone(), &mut args).await;
            let verdict = store.verdict(letter).ok().flatten();
            match (ended, verdict) {
                // The driver before has taken it and did not come to say so.
                (Err(NotHere::Over { .. }), None) if was_taken(&*store, &run.id, step, value) => {
                    return has_its_answer(step, &run.id);
                }
                // An answer that came before this one was taken in its place.
                (Ok(_), Some(Err(problem))) => {
                    return refuse(&format!("the answer was not taken: {}", clean(&problem)));
                }
                (Ok(code), Some(Ok(()))) => return code,
                (Ok(code), None) => return over(&store, &run.id).map_or(code, |over| too_late(step, &over)),
                (Err(over @ NotHere::Over { .. }), None) => return too_late(step, &over),
                // Whoever drives the run, or did, has it.
                (Err(_), _) => {}
            }
        }
        if waited > PATIENCE {
            say(
                "the process that drives the run has not taken the answer yet; it is kept until it does, or until `flowrun resume`",
            );
            return ExitCode::SUCCESS;
        }
        tokio::time::sleep(PAUSE).await;
        waited += PAUSE;
    }
}

fn has_its_answer(step: &str, run: &str) -> ExitCode {
    print(&format!("`{}` of the run {run} has its answer\n", clean(step)))
}

/// How the run ended, if it did.
fn over(store: &SqliteStore, id: &str) -> Option<NotHere> {
    let status = store.run(id).ok()??.summary?.status;
    (status != Status::Suspended).then(|| NotHere::Over { id: id.to_owned(), status })
}

fn too_late(step: &str, over: &NotHere) -> ExitCode {
    refuse(&format!("`{}` does not wait for an answer any more: {over}", clean(step)))
}

/// The answer that a text is to what a step asks.
fn answer_to(log: &RunLog, step: &str, text: &str) -> Result<Value, String> {
    let asked = log.asked();
    let Some((_, input)) = asked.iter().find(|(path, _)| *path == step) else {
        let waiting: Vec<String> = asked.iter().map(|(path, _)| format!("`{}`", clean(path))).collect();
        let near = did_you_mean(step, asked.iter().map(|(path, _)| *path));
        let help = match (near, waiting.is_empty()) {
            (Some(near), _) => format!("did you mean `{}`?", clean(near)),
            (None, false) => format!("these do: {}", waiting.join(", ")),
            (None, true) => "no step of this run does".to_owned(),
        };
        return Err(format!("`{}` does not wait for an answer\nhelp: {help}", clean(step)));
    };
    let input = input.and_then(|hash| log.value(hash)).unwrap_or_default();
    // What a person may type at the terminal.
    let text = match (input["schema"]["type"].as_str(), text.to_lowercase().as_str()) {
        (Some("boolean"), "y" | "yes") => "true",
        (Some("boolean"), "n" | "no") => "false",
        _ => text,
    };
    let schema = Schema::from_json_schema(input.get("schema").cloned().unwrap_or(Value::Bool(true)));
    let schema = schema.map_err(|error| format!("what `{}` asks for cannot be read: {error}", clean(step)))?;
    let value = input_value(&schema, text)?;
    let refused =
        |why| format!("the answer does not fit: {why}\nhelp: `{}` asks for {}", clean(step), schema.describe());
    schema.validate(&value).map_err(refused)?;
    Ok(value)
}
