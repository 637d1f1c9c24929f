//! `flowrun runs show`: all about one run, and the commands with which it goes on.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::db::DbArgs;
use super::runs::summary_object;
use super::units::utc;
use super::{people, print, run, width};
use crate::Origin;
use crate::render::{clean, wrapped};
use crate::runs::{RunLog, RunSummary};
use crate::trace::{Savings, Trace, counted, duration};
use flowrun_engine::event::Logged;

/// Columns of the words at the left.
const MARGIN: usize = 12;
/// Most lines that a value takes.
const LINES_MAX: usize = 12;

/// What a person is asked, out of the log.
struct Asked {
    step: String,
    prompt: String,
    schema: Option<Value>,
}

/// A run as it is shown.
struct Shown<'a> {
    log: &'a RunLog,
    summary: RunSummary,
    origin: Origin,
    savings: Savings,
    inputs: Option<Value>,
    output: Option<Value>,
    asked: Vec<Asked>,
}

pub(super) fn show(wanted: &str, json: bool, place: &DbArgs) -> Result<ExitCode, String> {
    let runs = place.read()?;
    let info = runs.find(wanted)?;
    let log = runs.load(&info).map_err(|error| error.to_string())?;
    let shown = Shown::of(&log);
    Ok(print(&if json { format!("{}\n", shown.object()) } else { shown.text() }))
}

impl<'a> Shown<'a> {
    fn of(log: &'a RunLog) -> Self {
        let summary = log.summary();
        let mut trace = Trace::new(&log.events);
        trace.look_up(|hash| log.value(hash));
        let named = |kind: &str, field: &str| {
            let event = log.events.iter().rev().find(|event| event.kind == kind);
            event.and_then(|event| log.value(event.text(field)?))
        };
        let (inputs, output) = (named("run_started", "inputs"), named("run_ended", "output"));
        // Whoever has ended waits for nobody.
        let is_open = ["suspended", "running", "interrupted"].contains(&summary.status.as_str());
        let asked = if is_open { asked(log) } else { Vec::new() };
        Self { log, summary, origin: Origin::of(&log.info), savings: trace.savings(), inputs, output, asked }
    }

    fn ended(&self) -> Option<&Logged> {
        self.log.events.iter().rev().find(|event| event.kind == "run_ended")
    }

    fn object(&self) -> Value {
        let mut object = match summary_object(&self.summary) {
            Value::Object(object) => object,
            _ => Map::new(),
        };
        let error = self.ended().map(|event| &event.line["error"]);
        let asked = self.asked.iter();
        let asked: Vec<Value> =
            asked.map(|asked| json!({"step": asked.step, "prompt": asked.prompt, "schema": asked.schema})).collect();
        let more = json!({
            "origin": self.log.info.origin, "inputs": self.inputs, "output": self.output, "error": error,
            "failed_step": self.ended().and_then(|event| event.text("failed_step")), "hits": self.savings.hits(),
            "saved": self.savings.usage, "asked": asked, "damage": self.log.damage,
        });
        object.extend(more.as_object().cloned().unwrap_or_default());
        Value::Object(object)
    }

    fn text(&self) -> String {
        let RunSummary { id, workflow, status, started_ms, wall_ms, steps, usage } = &self.summary;
        let mut text = format!("run {id}: {status}\n");
        let from = match self.origin.reference.as_str() {
            "" => String::new(),
            "-" => " (standard input)".to_owned(),
            from => format!(" ({})", clean(from)),
        };
        line(&mut text, "workflow", &format!("{}{from}", clean(workflow)));
        let took = duration(wall_ms.saturating_mul(1_000));
        line(&mut text, "started", &format!("{} UTC, took {took}", utc(*started_ms)));
        let tokens = counted(usage.prompt_tokens.saturating_add(usage.completion_tokens), "token");
        let cost = format!("{}, {tokens} in {}", counted(usage.calls, "call"), counted(*steps, "step"));
        line(&mut text, "cost", &cost);
        if self.savings.hits() > 0 {
            line(&mut text, "found", &self.savings.to_string());
        }
        for (word, said) in [("model", &self.origin.model), ("replays", &self.origin.replay_of)] {
            said.iter().for_each(|said| line(&mut text, word, &clean(said)));
        }
        self.origin.changes.iter().for_each(|change| line(&mut text, "changed", &clean(change)));
        for (word, value) in [("inputs", &self.inputs), ("output", &self.output)] {
            let said = value.as_ref().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            said.iter().for_each(|said| block(&mut text, word, said));
        }
        if let Some(message) = self.ended().and_then(|event| event.line["error"]["message"].as_str()) {
            let step = self.ended().and_then(|event| event.text("failed_step")).filter(|step| !step.is_empty());
            let step = step.map(|step| format!("step `{step}` failed: ")).unwrap_or_default();
            block(&mut text, "error", &format!("{step}{message}"));
        }
        for asked in &self.asked {
            let form = people::form(asked.schema.as_ref());
            block(&mut text, "asked", &format!("step `{}` asks for {form}:\n{}", asked.step, asked.prompt));
        }
        self.log.damage.iter().for_each(|damage| block(&mut text, "damage", damage));
        for (number, command) in self.ways_on().iter().enumerate() {
            line(&mut text, if number == 0 { "go on" } else { "" }, command);
        }
        text
    }

    /// The commands that go on from here.
    fn ways_on(&self) -> Vec<String> {
        let id = &self.summary.id;
        let mut ways = Vec::new();
        for asked in &self.asked {
            let value = run::example(asked.schema.as_ref().unwrap_or(&Value::Null), "a");
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            ways.push(("answer", format!("flowrun answer {id} {} {}", quoted(&asked.step), quoted(&value))));
        }
        match self.summary.status.as_str() {
            "interrupted" | "suspended" => ways.push(("resume", format!("flowrun resume {id}"))),
            "running" => {}
            _ => ways.push(("replay", format!("flowrun replay {id}"))),
        }
        ways.push(("trace", format!("flowrun trace {id}")));
        let commands = super::definition();
        let is_there = |(name, way): (&str, String)| commands.find_subcommand(name).map(|_| way);
        ways.into_iter().filter_map(is_there).collect()
    }
}

/// What people are asked.
fn asked(log: &RunLog) -> Vec<Asked> {
    let asked = log.asked().into_iter().map(|(step, input)| {
        let input = input.and_then(|input| log.value(input)).unwrap_or_default();
        let prompt = input["fields"]["prompt"].as_str().unwrap_or_default().to_owned();
        Asked { step: step.to_owned(), prompt, schema: input.get("schema").cloned() }
    });
    asked.collect()
}

fn line(text: &mut String, word: &str, said: &str) {
    let _ = writeln!(text, "  {word:<MARGIN$}{said}");
}

/// A text of any length, in lines that fit; of very many the first ones.
fn block(text: &mut String, word: &str, said: &str) {
    let lines = wrapped(said, width().saturating_sub(MARGIN + 2));
    for (number, said) in lines.iter().take(LINES_MAX).enumerate() {
        line(text, if number == 0 { word } else { "" }, said);
    }
    if lines.len() > LINES_MAX {
        line(text, "", &format!("… and {} more lines (`--json` has all)", lines.len() - LINES_MAX));
    }
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    if is_plain { word.to_owned() } else { format!("'{}'", clean(word).replace('\'', "'\\''")) }
}
