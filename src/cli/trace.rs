//! `flowrun trace`: what happened.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::Value;

use super::db::DbArgs;
use super::{print, print_painted, refuse, width};
use crate::Origin;
use crate::compare::find_step;
use crate::render::{clean, visible, wrapped};
use crate::runs::RunLog;
use crate::trace::{Savings, Trace, TraceStep, counted, duration};

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

pub(super) fn trace(wanted: &str, step: Option<&str>, format: Format, prompts: bool, place: &DbArgs) -> ExitCode {
    let log = match place.read().and_then(|runs| runs.load_named(wanted)) {
        Ok(log) => log,
        Err(problem) => return refuse(&problem),
    };
    let mut tree = Trace::new(&log.events);
    tree.look_up(|hash| log.value(hash));
    tree.mark_corrections(&Origin::of(&log.info).corrections);
    let savings = tree.savings();
    log.running_us.into_iter().for_each(|running_us| tree.go_on_until(running_us));
    if let Some(step) = step {
        match find_step(&[&log], step).map(|path| tree.find(&path)) {
            Ok(at) => at.into_iter().for_each(|at| tree.only(at)),
            Err(unknown) => return refuse(&clean(&unknown.to_string())),
        }
    }
    let shown = tree.shown();
    if let Format::Jsonl = format {
        let paths: BTreeSet<&str> = shown.iter().map(|step| step.path.as_str()).collect();
        let lines = log.events.iter().filter(|event| step.is_none() || paths.contains(event.step.as_str()));
        return print(&lines.map(|event| format!("{}\n", event.line)).collect::<String>());
    }
    let mut text = match format {
        Format::Chrome => {
            return print(&format!("{}\n", tree.chrome(&format!("{} ({})", log.info.workflow, log.info.id))));
        }
        Format::Timeline => tree.timeline(width()),
        _ => tree.tree(width()),
    };
    if prompts {
        shown.iter().for_each(|step| conversation(&log, step, &mut text));
    }
    let _ = write!(text, "\n{}\n", summary_line(&log, &savings));
    if let Format::Tree = format {
        let path = duration(tree.critical_path_us);
        let _ = writeln!(text, "critical path (*): {path}; most steps at once: {}", tree.overlap);
    }
    if let Some((step, error)) = &tree.failure {
        let step = if step.is_empty() { String::new() } else { format!("step `{step}` failed: ") };
        for (number, line) in wrapped(&format!("{step}{error}"), width().saturating_sub(7)).iter().enumerate() {
            let _ = writeln!(text, "{}{line}", if number == 0 { "error: " } else { "       " });
        }
    }
    if let Some(damage) = &log.damage {
        let _ = writeln!(text, "the log is damaged: {damage}");
    }
    print_painted(&text)
}

/// The run in one line.
fn summary_line(log: &RunLog, savings: &Savings) -> String {
    let summary = log.summary();
    let usage = summary.usage;
    let (calls, tokens) =
        (counted(usage.calls, "call"), counted(usage.prompt_tokens + usage.completion_tokens, "token"));
    let found = if savings.hits() > 0 { format!(", {savings}") } else { String::new() };
    let took = duration(summary.wall_ms.saturating_mul(1_000));
    format!("run {}: {}, {calls}, {tokens}{found}, {took}", summary.id, summary.status)
}

/// What was asked, replied and refused in each attempt of a step, in the order in which it was said, and its value.
fn conversation(log: &RunLog, step: &TraceStep, text: &mut String) {
    let value = |hash: &Option<String>| hash.as_deref().and_then(|hash| log.value(hash)).unwrap_or_default();
    let input = value(&step.input);
    if let Some(found) = &step.found {
        let _ = writeln!(text, "\n── {} ({})", clean(&step.path), found.word());
        let said = if found.how == "correction" { "given in" } else { "paid by" };
        block(text, said, &found.payer().into());
        let prompt = ["prompt", "ask"].into_iter().find_map(|field| input["fields"].get(field));
        prompt.into_iter().for_each(|prompt| block(text, "asked", prompt));
    } else if input["kind"] == "human" {
        let _ = writeln!(text, "\n── {} (a person)", clean(&step.path));
        block(text, "asked", &input["fields"]["prompt"]);
    } else if step.attempts.iter().any(|attempt| attempt.provenance.is_some() || attempt.error.is_some()) {
        attempts(step, &step.attempts.iter().map(|attempt| value(&attempt.provenance)).collect::<Vec<_>>(), text);
    } else {
        return;
    }
    if step.value.is_some() {
        block(text, "value", &value(&step.value));
    }
}

/// What was said in each attempt, out of its report.
fn attempts(step: &TraceStep, reports: &[Value], text: &mut String) {
    let model = reports.iter().rev().find_map(|report| report["model"].as_str());
    let model = model.map(|model| format!(" ({})", clean(model))).unwrap_or_default();
    let _ = writeln!(text, "\n── {}{model}", clean(&step.path));
    let mut before: &[Value] = &[];
    for (attempt, report) in step.attempts.iter().zip(reports) {
        before = turns(report, before, text);
        if let Some(error) = &attempt.error {
            lines(text, "error", wrapped(error, width().saturating_sub(13)));
        }
        if attempt.is_cut_off {
            lines(text, "cut off", ["the run was cut off here; nobody knows whether it had replied".to_owned()]);
        }
    }
}

/// The turns of one attempt, without those with which the attempt before began too; gives its messages.
fn turns<'a>(report: &'a Value, before: &[Value], text: &mut String) -> &'a [Value] {
    let list = |key: &str| report[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let messages = list("messages");
    let mut replies = list("replies").iter().map(|reply| &reply["text"]).peekable();
    let known = messages.iter().zip(before).take_while(|(one, other)| one == other).count();
    for (at, message) in messages.iter().enumerate() {
        let said = replies.next_if(|reply| message["role"] == "assistant" && message["content"] == **reply);
        if at + 1 == messages.len() {
            // Only the last reply comes after the last message.
            while replies.len() > 1 {
                replies.next().into_iter().for_each(|reply| block(text, "reply", reply));
            }
        }
        if at >= known {
            let role = if said.is_some() { "reply" } else { message["role"].as_str().unwrap_or("?") };
            block(text, role, &message["content"]);
        }
    }
    replies.for_each(|reply| block(text, "reply", reply));
    list("repairs").iter().for_each(|repair| block(text, "repair", repair));
    report.get("tool").into_iter().for_each(|tool| block(text, "tool", tool));
    report.get("arguments").into_iter().for_each(|given| block(text, "arguments", given));
    messages
}

fn block(text: &mut String, title: &str, value: &Value) {
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    lines(text, title, shown.lines().map(visible));
}

fn lines(text: &mut String, title: &str, lines: impl IntoIterator<Item = String>) {
    for (index, line) in lines.into_iter().enumerate() {
        let title = if index == 0 { title } else { "" };
        let _ = writeln!(text, "{title:>10} │ {line}");
    }
}
