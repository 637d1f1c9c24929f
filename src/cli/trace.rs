//! `flowrun trace`: a run as a tree, as its log, or one step with what was said.

use std::fmt::Write;
use std::path::Path;

use flowrun::Runs;
use flowrun_engine::store::RunLog;
use flowrun_engine::trace::{Trace, TraceStep, seconds, summary_line};
use serde_json::Value;

use super::{Refusal, TraceFormat, output};

pub(super) fn trace(
    folder: &Path,
    run: &str,
    step: Option<&str>,
    format: TraceFormat,
    prompts: bool,
) -> Result<u8, Refusal> {
    let runs = Runs::open(folder);
    let id = runs.find(run)?;
    let log = runs.load(&id, true).map_err(|error| format!("the run `{id}` cannot be read: {error}"))?;
    if format == TraceFormat::Jsonl {
        let wanted = log.events.iter().filter(|event| step.is_none_or(|step| event.step == step));
        output::data(&wanted.map(|event| format!("{}\n", event.line)).collect::<String>());
        return Ok(0);
    }
    let trace = Trace::new(&log.events);
    let text = match step {
        Some(path) => {
            let found = trace.steps.iter().find(|step| step.path == path).ok_or_else(|| {
                let near = flowrun_engine::diagnostic::did_you_mean(path, trace.steps.iter().map(|s| s.path.as_str()));
                let help = near.map(|near| format!("did you mean `{near}`?"));
                Refusal::Line(format!("the run `{id}` has no step `{path}`"), help.into_iter().collect())
            })?;
            said(&log, found)
        }
        None => overview(&log, &trace, prompts),
    };
    output::data(&text);
    Ok(0)
}

fn overview(log: &RunLog, trace: &Trace, prompts: bool) -> String {
    let mut text = trace.tree(output::width());
    let _ = writeln!(text, "\n{}", summary_line(log));
    if trace.critical_path_ms > 0 {
        let path = seconds(trace.critical_path_ms);
        let _ = writeln!(text, "critical path (*): {path}; at most {} steps at once", trace.overlap);
    }
    if let Some(damage) = &log.damage {
        let _ = writeln!(text, "the log ends early: {damage}");
    }
    if prompts {
        for step in trace.steps.iter().filter(|step| step.provenance.is_some()) {
            let _ = write!(text, "\n{}", said(log, step));
        }
    }
    text
}

/// One step with its prompt, its reply and its value.
fn said(log: &RunLog, step: &TraceStep) -> String {
    let mut text = format!("── {} ({})\n", step.path, step.state);
    if let Some(why) = &step.why {
        let _ = writeln!(text, "why: {}", visible(why));
    }
    let value = |hash: &Option<String>| hash.as_ref().and_then(|hash| log.value(hash));
    match value(&step.provenance) {
        Some(report) => {
            for message in report["messages"].as_array().into_iter().flatten() {
                let role = message["role"].as_str().unwrap_or("?");
                section(&mut text, role, &output::plain(&message["content"]));
            }
            for reply in report["replies"].as_array().into_iter().flatten() {
                section(&mut text, "reply", &output::plain(&reply["text"]));
            }
            for key in ["outcome", "repairs"] {
                if let Some(found) = report.get(key).filter(|found| **found != Value::Array(Vec::new())) {
                    section(&mut text, key, &output::plain(found));
                }
            }
        }
        None => {
            if let Some(input) = value(&step.input) {
                section(&mut text, "input", &output::plain(input));
            }
        }
    }
    if let Some(found) = value(&step.value) {
        section(&mut text, "value", &output::plain(found));
    }
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    let _ = writeln!(text, "[{title}]");
    for line in visible(body).trim_end().lines() {
        let _ = writeln!(text, "  {line}");
    }
}

/// Without control characters: what a model says reaches the terminal as text.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !"\n\t".contains(c) { ' ' } else { c }).collect()
}
