//! `flowrun trace` and `flowrun runs`: what happened.

use std::fmt::Write;
use std::process::ExitCode;

use crate::render::clean;
use crate::runs::{RunLog, Runs};
use crate::trace::{Trace, TraceStep, counted, duration, thousands};
use clap::ValueEnum;
use serde_json::Value;

use super::{RunsDir, print, print_painted, refuse, width};
use crate::configuration;

/// How a trace is shown.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// An indented list of steps with their time, tokens and reasons.
    Tree,
    /// Bars on a time axis: what ran at once, what waited, the critical path.
    Timeline,
    /// The log as it is, one event a line.
    Jsonl,
    /// Trace Event JSON, for Perfetto or about:tracing.
    Chrome,
}

fn open(place: &RunsDir) -> Result<Runs, String> {
    let configured = configuration::file()?;
    Ok(Runs::open(&place.path(configured.runs_dir.as_deref())))
}

pub(super) fn trace(wanted: &str, step: Option<&str>, format: Format, prompts: bool, place: &RunsDir) -> ExitCode {
    let loaded = open(place).and_then(|runs| {
        let id = runs.find(wanted)?;
        runs.load(&id, true).map_err(|error| format!("the run `{id}` cannot be read: {error}"))
    });
    let log = match loaded {
        Ok(log) => log,
        Err(problem) => return refuse(&problem),
    };
    let within = |path: &str| {
        step.is_none_or(|step| path == step || path.starts_with(step) && path[step.len()..].starts_with(['/', '[']))
    };
    if let Format::Jsonl = format {
        let lines = log.events.iter().filter(|event| step.is_none() || within(&event.step));
        return print(&lines.map(|event| format!("{}\n", event.line)).collect::<String>());
    }
    let mut tree = Trace::new(&log.events);
    if let Some(step) = step {
        let Some(at) = tree.steps.iter().position(|known| known.path == step) else {
            let near = flowrun_engine::diagnostic::did_you_mean(step, tree.steps.iter().map(|step| step.path.as_str()));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return refuse(&format!("the run has no step `{step}`{near}"));
        };
        tree.only(at);
    }
    let mut text = match format {
        Format::Chrome => return print(&format!("{}\n", tree.chrome(&format!("{} ({})", log.workflow, log.id)))),
        Format::Timeline => tree.timeline(width()),
        _ => tree.tree(width()),
    };
    if prompts {
        for shown in tree.steps.iter().filter(|shown| within(&shown.path)) {
            conversation(&log, shown, &mut text);
        }
    }
    let _ = write!(text, "\n{}\n", summary_line(&log));
    if let Format::Tree = format {
        let path = duration(tree.critical_path_us);
        let _ = writeln!(text, "critical path (*): {path}; most steps at once: {}", tree.overlap);
    }
    if let Some(damage) = &log.damage {
        let _ = writeln!(text, "the log ends early: {damage}");
    }
    print_painted(&text)
}

/// The run in one line.
fn summary_line(log: &RunLog) -> String {
    let summary = log.summary();
    let usage = summary.usage;
    let (calls, tokens) =
        (counted(usage.calls, "call"), counted(usage.prompt_tokens + usage.completion_tokens, "token"));
    format!("run {}: {}, {calls}, {tokens}, {}", summary.id, summary.status, duration(1_000 * summary.wall_ms))
}

/// Prompt, replies and value of a step.
fn conversation(log: &RunLog, step: &TraceStep, text: &mut String) {
    let value = |hash: &Option<String>| hash.as_deref().and_then(|hash| log.value(hash));
    let Some(report) = value(&step.provenance) else { return };
    let _ = writeln!(text, "\n── {} ({})", step.path, report["model"].as_str().unwrap_or("?"));
    for message in report["messages"].as_array().into_iter().flatten() {
        block(text, message["role"].as_str().unwrap_or("?"), &message["content"]);
    }
    for reply in report["replies"].as_array().into_iter().flatten() {
        block(text, "reply", &reply["text"]);
    }
    for repair in report["repairs"].as_array().into_iter().flatten() {
        block(text, "repair", repair);
    }
    if let Some(value) = value(&step.value) {
        block(text, "value", value);
    }
}

fn block(text: &mut String, title: &str, value: &Value) {
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (index, line) in shown.lines().enumerate() {
        let title = if index == 0 { title } else { "" };
        let _ = writeln!(
            text,
            "{title:>10} │ {}",
            line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>()
        );
    }
}

pub(super) fn runs(json: bool, place: &RunsDir) -> ExitCode {
    let runs = match open(place) {
        Ok(runs) => runs,
        Err(problem) => return refuse(&problem),
    };
    let ids = match runs.ids() {
        Ok(ids) => ids,
        Err(error) => return refuse(&format!("the runs cannot be read: {error}")),
    };
    let mut text = String::new();
    for id in ids {
        let Ok(summary) = runs.summary(&id) else {
            let _ = writeln!(
                text,
                "{}",
                if json {
                    format!("{{\"id\":\"{id}\",\"status\":\"unreadable\"}}")
                } else {
                    format!("{id}  unreadable")
                }
            );
            continue;
        };
        if json {
            let _ = writeln!(text, "{}", serde_json::to_string(&summary).unwrap_or_default());
        } else {
            let usage = summary.usage;
            let tokens = thousands(usage.prompt_tokens + usage.completion_tokens);
            let name = clean(&summary.workflow);
            let _ = writeln!(
                text,
                "{id}  {:<11} {name:<20} {:>4} calls {tokens:>8} tokens {:>9}",
                summary.status,
                usage.calls,
                duration(1_000 * summary.wall_ms)
            );
        }
    }
    print(&text)
}
