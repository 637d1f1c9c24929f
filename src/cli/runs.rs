//! `flowrun runs`: which runs there are, all about one of them, and how they go.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use flowrun_engine::event::Status;
use flowrun_engine::store::{RunInfo, StoreError};
use serde_json::{Value, json};

use super::db::DbArgs;
use super::units::{age, bytes, parse_age, rfc_3339, table, utc};
use super::{print, refuse, say, show};
use crate::render::clean;
use crate::runs::{RunSummary, Runs, now_ms};
use crate::trace::{counted, duration, thousands};
use crate::{Origin, SqliteStore};

/// The status words of runs.
const STATUSES: [&str; 7] = ["success", "failed", "exhausted", "cancelled", "suspended", "running", "interrupted"];
/// Those of runs that go on or wait for people: they go only by name.
const LIVE: [&str; 2] = ["suspended", "running"];

/// `flowrun runs`, which lists them if it is not said what else.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct RunsArgs {
    #[command(subcommand)]
    command: Option<RunsCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum RunsCommand {
    /// List the runs, the last one at the end
    List(ListArgs),
    /// Show all about a run: where it came from, how it stands, how it goes on
    Show {
        /// `last`, or a run's id or its unique beginning
        #[arg(default_value = "last")]
        run: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: DbArgs,
    },
    /// Remove runs, and what nothing names any more
    ///
    /// Runs that go on or wait for people are removed only by name, interrupted ones also by `--status interrupted`.
    Prune(PruneArgs),
    /// Look for damage in everything that is kept
    Check {
        #[command(flatten)]
        place: DbArgs,
    },
}

#[derive(Args, Debug)]
struct ListArgs {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Only runs that stand so
    #[arg(long, value_name = "WORD", value_parser = STATUSES)]
    status: Option<String>,
    /// Only the newest ones
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    place: DbArgs,
}

#[derive(Args, Debug)]
struct PruneArgs {
    /// Runs to remove whatever the options say: `last`, ids or their unique beginnings
    #[arg(value_name = "RUN")]
    runs: Vec<String>,
    /// Keep the newest N of those that the other options mean
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Only runs that began longer ago: `30d`, `12h`
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<u64>,
    /// Only runs that stand so
    #[arg(long, value_name = "WORD", value_parser = STATUSES)]
    status: Option<String>,
    /// Say what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: DbArgs,
}

pub(super) fn runs(args: RunsArgs) -> ExitCode {
    let done = match args.command.unwrap_or(RunsCommand::List(args.list)) {
        RunsCommand::List(args) => list(&args),
        RunsCommand::Show { run, json, place } => show::show(&run, json, &place),
        RunsCommand::Prune(args) => prune(&args),
        RunsCommand::Check { place } => check(&place),
    };
    done.unwrap_or_else(|problem| refuse(&problem))
}

/// A run in a list: in short, or why nothing is known of it.
type Listed = (RunInfo, Result<RunSummary, String>);

fn listed(runs: &Runs, run: RunInfo) -> Listed {
    let summary = runs.summary(&run).map_err(|error| error.to_string());
    (run, summary)
}

fn stands(run: &Listed, status: Option<&str>) -> bool {
    status.is_none_or(|status| run.1.as_ref().is_ok_and(|summary| summary.status == status))
}

fn list(args: &ListArgs) -> Result<ExitCode, String> {
    let runs = args.place.read()?;
    let all = runs.all().map_err(|error| error.to_string())?;
    let last = all.last().map(|run| run.id.clone());
    // From the newest on, so that the logs of older ones are not read in vain.
    let wanted = all.into_iter().rev().map(|run| listed(&runs, run)).filter(|run| stands(run, args.status.as_deref()));
    let mut wanted: Vec<Listed> = wanted.take(args.limit.unwrap_or(usize::MAX)).collect();
    wanted.reverse();
    if args.json {
        return Ok(print(&wanted.iter().map(|run| format!("{}\n", object(run))).collect::<String>()));
    }
    let words = ["run", "started (UTC)", "status", "time", "calls, tokens, workflow"].map(str::to_owned).to_vec();
    let mut rows: Vec<Vec<String>> = wanted.iter().map(row).collect();
    if let Some((row, _)) = rows.last_mut().zip(wanted.last()).filter(|(_, run)| Some(&run.0.id) == last.as_ref())
        && let Some(cell) = row.last_mut()
    {
        cell.push_str("  ← last");
    }
    if !rows.is_empty() {
        rows.insert(0, words);
    }
    Ok(print(&table(&rows, usize::MAX)))
}

fn object((run, summary): &Listed) -> Value {
    match summary {
        Ok(summary) => summary_object(summary),
        Err(problem) => json!({
            "id": run.id, "workflow": run.workflow, "status": "unreadable", "started": rfc_3339(run.started_ms), "error": problem,
        }),
    }
}

/// A run in short, for programs.
pub(super) fn summary_object(summary: &RunSummary) -> Value {
    json!({
        "id": summary.id, "workflow": summary.workflow, "status": summary.status, "started": rfc_3339(summary.started_ms),
        "wall_ms": summary.wall_ms, "steps": summary.steps, "usage": summary.usage,
    })
}

fn row((run, summary): &Listed) -> Vec<String> {
    let (id, started, workflow) = (run.id.clone(), utc(run.started_ms), clean(&run.workflow));
    match summary {
        Ok(summary) => {
            let usage = summary.usage;
            let calls = counted(usage.calls, "call");
            let tokens = counted(usage.prompt_tokens.saturating_add(usage.completion_tokens), "token");
            let took = duration(summary.wall_ms.saturating_mul(1_000));
            vec![id, started, summary.status.clone(), took, format!("{calls}, {tokens}, {workflow}")]
        }
        Err(problem) => {
            vec![id, started, "unreadable".to_owned(), String::new(), format!("{workflow}: {}", clean(problem))]
        }
    }
}

fn prune(args: &PruneArgs) -> Result<ExitCode, String> {
    if args.runs.is_empty() && args.keep.is_none() && args.older_than.is_none() && args.status.is_none() {
        return Err("which runs? Name them, or say `--keep N`, `--older-than AGE` or `--status WORD`".to_owned());
    }
    if let Some(status) = args.status.as_deref().filter(|status| LIVE.contains(status)) {
        return Err(format!("a run that is {status} goes only by name: `flowrun runs prune RUN`"));
    }
    let runs = args.place.read()?;
    let mut going = named(&runs, &args.runs)?;
    let by_name: Vec<String> = going.keys().cloned().collect();
    if args.keep.is_some() || args.older_than.is_some() || args.status.is_some() {
        for run in meant(&runs, args)? {
            going.entry(run.0.id.clone()).or_insert(run);
        }
    }
    for (replayed, by) in open_replays(&runs)? {
        if going.contains_key(&by) || !going.contains_key(&replayed) {
            continue;
        }
        if by_name.contains(&replayed) {
            return Err(format!(
                "the run {by} replays {replayed} and is not over; `flowrun resume {by}` goes on with it, or name both"
            ));
        }
        going.remove(&replayed);
    }
    let rows: Vec<Vec<String>> = going.values().map(row).collect();
    print(&table(&rows, usize::MAX));
    let count = counted(going.len() as u64, "run");
    if args.dry_run {
        say(&format!("{count} would go; nothing is removed"));
        return Ok(ExitCode::SUCCESS);
    }
    if going.is_empty() {
        say("no run is meant; nothing is removed");
        return Ok(ExitCode::SUCCESS);
    }
    let runs = args.place.write()?;
    let said = remove(&runs, &going.into_keys().collect::<Vec<_>>())?;
    say(&format!("{count} removed{said}"));
    Ok(ExitCode::SUCCESS)
}

/// Replays that are not over: the run whose answers each takes over, and its own id.
fn open_replays(runs: &Runs) -> Result<Vec<(String, String)>, String> {
    let all = runs.all().map_err(|error| error.to_string())?;
    let is_over = |run: &RunInfo| run.summary.as_ref().is_some_and(|summary| summary.status != Status::Suspended);
    let open = all.into_iter().filter(|run| !is_over(run));
    Ok(open.filter_map(|run| Some((Origin::of(&run).replay_of?, run.id))).collect())
}

/// Removes runs and what nothing names any more; says what that came to.
pub(super) fn remove(runs: &Runs, ids: &[String]) -> Result<String, String> {
    let said = |error: flowrun_engine::store::StoreError| error.to_string();
    let before = runs.store().size().map_err(said)?;
    let values = runs.store().prune(ids).map_err(said)?;
    let after = runs.store().size().map_err(said)?;
    let (content, file) =
        (before.value_bytes.saturating_sub(after.value_bytes), before.bytes.saturating_sub(after.bytes));
    Ok(format!(", with {} of {}; the database is {} smaller", counted(values, "value"), bytes(content), bytes(file)))
}

fn named(runs: &Runs, names: &[String]) -> Result<BTreeMap<String, Listed>, String> {
    let mut going = BTreeMap::new();
    for name in names {
        let run = runs.find(name)?;
        if runs.store().is_driven(&run.id).map_err(|error| error.to_string())? {
            return Err(format!("the run {} is running; it can go when it has ended", run.id));
        }
        going.insert(run.id.clone(), listed(runs, run));
    }
    Ok(going)
}

/// The runs that the options mean.
fn meant(runs: &Runs, args: &PruneArgs) -> Result<Vec<Listed>, String> {
    let before_ms = args.older_than.map_or(u64::MAX, |age| now_ms().saturating_sub(age));
    let all = runs.all().map_err(|error| error.to_string())?;
    let old = all.into_iter().rev().filter(|run| run.started_ms < before_ms);
    let wanted = old.map(|run| listed(runs, run)).filter(|run| stands(run, args.status.as_deref()));
    // Of a run that cannot be read nobody knows whether it waits; whoever wants it gone names it. One that was interrupted can go on,
    // and is meant only where that is said.
    let is_over = |status: &str| !LIVE.contains(&status) && (status != "interrupted" || args.status.is_some());
    let known = wanted.filter(|(_, summary)| summary.as_ref().is_ok_and(|run| is_over(&run.status)));
    Ok(known.skip(args.keep.unwrap_or(0)).collect())
}

fn check(place: &DbArgs) -> Result<ExitCode, String> {
    let path = place.path(crate::configuration::file()?.db.as_deref());
    if let Err(StoreError::Damaged { place, detail }) = SqliteStore::open_to_read(&path) {
        print(&format!("{}: {}\n", clean(&place), clean(&detail)));
        say(
            "nothing can be read of it: move it away, and the next run makes a new one, or take another with `--db FILE`",
        );
        return Ok(ExitCode::FAILURE);
    }
    let runs = place.read()?;
    let damage = runs.store().damage().map_err(|error| error.to_string())?;
    if damage.is_empty() {
        let size = runs.store().size().map_err(|error| error.to_string())?;
        let (of_runs, values) = (counted(size.runs, "run"), counted(size.values, "value"));
        let entries = thousands(size.entries);
        let word = if size.entries == 1 { "entry" } else { "entries" };
        return Ok(print(&format!("nothing is damaged: {of_runs}, {values}, {entries} cache {word}\n")));
    }
    let mut text = String::new();
    for line in &damage {
        let _ = writeln!(text, "{}", clean(line));
    }
    print(&text);
    say("what is intact can still be seen (`flowrun trace RUN`) and written out (`flowrun export RUN --values`)");
    Ok(ExitCode::FAILURE)
}

/// How long ago, for people.
pub(super) fn ago(then_ms: u64) -> String {
    age(now_ms().saturating_sub(then_ms))
}
