//! `flowrun diff` and `flowrun explain`: where two runs part, and why a step is as it is.

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;

use flowrun_engine::event::Usage;
use flowrun_engine::graph::Graph;
use flowrun_engine::store::Store;
use serde_json::Value;

use super::db::DbArgs;
use super::kept::Kept;
use super::{print, print_painted, refuse, width};
use crate::compare::{
    Compared, Context, Difference, Explanation, Kind, Line, Part, RunSide, Said, StepDifference, StepSide,
    explain as reasons, find_step, step_changes,
};
use crate::render::{clean, columns, fit, visible, wrapped};
use crate::runs::{RunLog, Runs};
use crate::trace::{counted, duration};
use crate::{Flowrun, Origin};

/// Most columns of a name in a table.
const NAME_MAX: usize = 40;
/// Most lines that one text or value takes, unless all are wanted.
const LINES_MAX: usize = 24;
/// Most places of one pair of values that are shown, unless all are wanted.
const PARTS_MAX: usize = 12;
/// Most steps in the table, unless all are wanted.
const STEPS_MAX: usize = 40;

/// Most runs that are tried for the one before, where some cannot be read.
const PREVIOUS_MAX: usize = 10;

/// What is shown of a difference.
#[derive(Clone, Copy)]
struct Shown {
    /// Everything, at any length.
    all: bool,
    width: usize,
}

pub(super) fn diff(a: &str, b: &str, step: Option<&str>, json: bool, all: bool, place: &DbArgs) -> ExitCode {
    let loaded = place.read().and_then(|runs| Ok((runs.load_named(a)?, runs.load_named(b)?)));
    let (a, b) = match loaded {
        Ok(loaded) => loaded,
        Err(problem) => return refuse(&problem),
    };
    let step = match step.map(|step| find_step(&[&a, &b], step)).transpose() {
        Ok(step) => step,
        Err(problem) => return refuse(&clean(&problem.to_string())),
    };
    let difference = Difference::of(&a, &b);
    let shown = Shown { all, width: width() };
    let (text, differs) = match step.and_then(|step| difference.step(&step)) {
        Some(step) if json => (json_step(&a, &b, step), step.kind != Kind::Same),
        Some(step) => (one_step(&a, &b, step, shown), step.kind != Kind::Same),
        None if json => (json_line(&difference), !difference.same_outcome),
        None => (both(&difference, shown), !difference.same_outcome),
    };
    // Text of a model's goes through: only signs of our own are painted, and in JSON there are none.
    let printed = if json { print(&text) } else { print_painted(&text) };
    if printed == ExitCode::SUCCESS && differs { ExitCode::FAILURE } else { printed }
}

fn json_line(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("BUG: texts, numbers and JSON values") + "\n"
}

fn json_step(a: &RunLog, b: &RunLog, step: &StepDifference) -> String {
    let mut value = serde_json::to_value(step).expect("BUG: texts, numbers and JSON values");
    value["changes"] = serde_json::to_value(step_changes(a, b, &step.step)).expect("BUG: texts and JSON values");
    json_line(&value)
}

/// Two runs, for people.
fn both(difference: &Difference, shown: Shown) -> String {
    let mut text = String::new();
    let sides = [("a", &difference.a), ("b", &difference.b)];
    for (name, side) in sides {
        let _ = writeln!(text, "{name}  {}  {}: {}", side.run, clean(&side.workflow), side.status);
    }
    if difference.a.definition != difference.b.definition {
        text.push_str("   the workflows are not the same\n");
    }
    if !difference.inputs.is_empty() {
        text.push_str("\ninputs\n");
        parts(&mut text, &difference.inputs, "  ", shown);
    }
    first(&mut text, difference, shown);
    table(&mut text, &difference.steps, shown);
    outputs(&mut text, difference, shown);
    costs(&mut text, sides);
    text
}

fn first(text: &mut String, difference: &Difference, shown: Shown) {
    let Some(first) = &difference.first else {
        text.push_str("\nno step differs\n");
        return;
    };
    let step = difference.step(first);
    let what = match step.map(|step| step.kind) {
        Some(Kind::OnlyA) => "is in a alone".to_owned(),
        Some(Kind::OnlyB) => "is in b alone".to_owned(),
        _ => format!("differs in its {}", step.map(|step| step.changed.join(", ")).unwrap_or_default()),
    };
    let _ = writeln!(text, "\nfirst difference: step `{}` {what}", clean(first));
    text.push_str(&step.map(why_otherwise).unwrap_or_default());
    for change in &difference.first_changes {
        let _ = writeln!(text, "  {}", change.what);
        parts(text, &change.parts, "    ", shown);
    }
}

/// Why a value is another one where nothing that was asked tells: it was set, or it is luck.
fn why_otherwise(step: &StepDifference) -> String {
    let is_set = |side: &Option<StepSide>| {
        side.as_ref().and_then(|side| side.found.as_ref()).is_some_and(|found| found.is_corrected())
    };
    let where_set = match (is_set(&step.a), is_set(&step.b)) {
        (true, true) => "both runs",
        (true, false) => "the first run",
        (false, true) => "the second run",
        (false, false) if is_luck(step) => return "  it asked the same and was answered otherwise\n".to_owned(),
        (false, false) => return String::new(),
    };
    format!("  its value in {where_set} was set by hand (a correction)\n")
}

/// Whether a step that asked the same came to something else.
fn is_luck(step: &StepDifference) -> bool {
    let input = |side: &Option<StepSide>| side.as_ref().and_then(|side| side.input.clone());
    let is_asked = step.changed.iter().any(|what| !matches!(what.as_str(), "value" | "state" | "error"));
    step.kind == Kind::Changed && !is_asked && input(&step.a).is_some() && input(&step.a) == input(&step.b)
}

fn table(text: &mut String, steps: &[StepDifference], shown: Shown) {
    let differing = steps.iter().filter(|step| step.kind != Kind::Same).count();
    let listed: Vec<&StepDifference> = steps.iter().filter(|step| shown.all || step.kind != Kind::Same).collect();
    if listed.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nsteps: {differing} of {} differ (~ changed, - in a alone, + in b alone)", steps.len());
    let most = if shown.all { listed.len() } else { STEPS_MAX };
    let rows: Vec<[String; 4]> = listed.iter().take(most).map(|step| row(step)).collect();
    let wide = |at: usize| rows.iter().map(|row| columns(&row[at])).max().unwrap_or(0);
    let (name, state, changed) = (wide(0).min(NAME_MAX), wide(1), wide(2));
    for [path, states, what, paid] in &rows {
        let path = if columns(path) > name { format!("{}…", fit(path, name - 1)) } else { path.clone() };
        let pad = |text: &str, to: usize| format!("{text}{}", " ".repeat(to.saturating_sub(columns(text))));
        let line = format!("{}  {}  {}  {paid}", pad(&path, name), pad(states, state), pad(what, changed));
        let _ = writeln!(text, "{}", fit(line.trim_end(), shown.width));
    }
    if listed.len() > most {
        let _ = writeln!(text, "  … {} more (`--all` shows them)", listed.len() - most);
    }
}

/// One step in the table: sign and path, states, what changed, who paid.
fn row(step: &StepDifference) -> [String; 4] {
    let sign = match step.kind {
        Kind::Same => '=',
        Kind::Changed => '~',
        Kind::OnlyA => '-',
        Kind::OnlyB => '+',
    };
    let pair = |of: fn(&StepSide) -> String| match (&step.a, &step.b) {
        (Some(a), Some(b)) if of(a) != of(b) => format!("{} → {}", of(a), of(b)),
        (Some(side), _) | (None, Some(side)) => of(side),
        (None, None) => String::new(),
    };
    [format!("{sign} {}", clean(&step.step)), pair(|side| side.state.clone()), step.changed.join(", "), pair(paid)]
}

/// What a step cost, or that its answer was found.
fn paid(side: &StepSide) -> String {
    match (&side.found, side.usage.calls) {
        (Some(found), _) => found.word.clone(),
        (None, 0) => "-".to_owned(),
        (None, calls) => format!("{}, {}", counted(calls, "call"), counted(tokens(side.usage), "token")),
    }
}

fn tokens(usage: Usage) -> u64 {
    usage.prompt_tokens + usage.completion_tokens
}

fn outputs(text: &mut String, difference: &Difference, shown: Shown) {
    let sides = [("a", &difference.a), ("b", &difference.b)];
    if difference.same_outcome {
        text.push_str("\noutput: the same\n");
        if let Some(output) = &difference.a.output {
            block(text, "    ", output, shown);
        }
        return;
    }
    text.push_str("\noutput\n");
    for (name, side) in sides {
        let _ = writeln!(text, "  {name}: {}", side.status);
        match (&side.output, &side.error) {
            (Some(output), _) => block(text, "    ", output, shown),
            (None, Some(error)) => {
                lines(text, "    ", wrapped(&format!("error: {error}"), shown.width.saturating_sub(4)), shown)
            }
            (None, None) => {}
        }
    }
    let is_inside = difference.outputs.iter().any(|part| !part.path.is_empty() || !part.lines.is_empty());
    if is_inside {
        text.push_str("  what differs in it\n");
        parts(text, &difference.outputs, "    ", shown);
    }
}

fn costs(text: &mut String, sides: [(&str, &RunSide); 2]) {
    text.push_str("\ncost\n");
    for (name, side) in sides {
        let (calls, tokens_paid) = (counted(side.usage.calls, "call"), counted(tokens(side.usage), "token"));
        let _ = write!(text, "  {name}  {calls}, {tokens_paid}, {}", duration(1_000 * side.wall_ms));
        if side.found > 0 {
            let (calls, tokens) = (counted(side.saved.calls, "call"), counted(tokens(side.saved), "token"));
            let _ = write!(text, "; {} found, which saved {calls}, {tokens}", counted(side.found, "answer"));
        }
        text.push('\n');
    }
}

/// One step of two runs, for people.
fn one_step(a: &RunLog, b: &RunLog, step: &StepDifference, shown: Shown) -> String {
    let mut text = format!("step `{}`: ", clean(&step.step));
    text.push_str(match step.kind {
        Kind::Same => "the same in both runs\n",
        Kind::Changed => "differs\n",
        Kind::OnlyA => "only the first run has it\n",
        Kind::OnlyB => "only the second run has it\n",
    });
    for (log, side) in [(a, &step.a), (b, &step.b)] {
        let Some(side) = side else { continue };
        let took = side.took_ms.map(|ms| format!(", {}", duration(1_000 * ms))).unwrap_or_default();
        let _ = writeln!(text, "  {}  {}, {}{took}", log.info.id, side.state, paid(side));
    }
    text.push_str(&why_otherwise(step));
    for change in step_changes(a, b, &step.step) {
        let _ = writeln!(text, "\n{}", change.what);
        parts(&mut text, &change.parts, "  ", shown);
    }
    let value = |log: &RunLog, side: &Option<StepSide>, of: fn(&StepSide) -> &Option<String>| {
        side.as_ref().and_then(|side| log.value(of(side).as_deref()?))
    };
    let one = if step.b.is_some() { (b, &step.b) } else { (a, &step.a) };
    for (name, of) in
        [("input", (|side| &side.input) as fn(&StepSide) -> &Option<String>), ("value", |side| &side.value)]
    {
        let is_told = step.changed.iter().any(|changed| changed == name);
        if let Some(value) = value(one.0, one.1, of).filter(|_| !is_told) {
            let _ = writeln!(text, "\n{name}{}", if step.a.is_some() && step.b.is_some() { " (both)" } else { "" });
            block(&mut text, "  ", &value, shown);
        }
    }
    text
}

/// The places at which two values differ.
fn parts(text: &mut String, parts: &[Part], indent: &str, shown: Shown) {
    let most = if shown.all { parts.len() } else { PARTS_MAX };
    for part in parts.iter().take(most) {
        let name = part_name(&part.path);
        if !part.lines.is_empty() {
            let _ = writeln!(text, "{indent}{name}:");
            changed(text, &part.lines, &format!("{indent}  "), shown);
            continue;
        }
        let value = |value: &Option<Value>| value.as_ref().map_or("(not there)".to_owned(), |value| cut(value, shown));
        let (a, b) = (value(&part.a), value(&part.b));
        let line = format!("{indent}{name}{}{a} → {b}", if name.is_empty() { "" } else { ": " });
        if columns(&line) <= shown.width {
            let _ = writeln!(text, "{line}");
        } else {
            let _ = writeln!(text, "{indent}{name}:");
            for (sign, value) in [('-', &a), ('+', &b)] {
                signed(text, &format!("{indent}  "), sign, value, shown);
            }
        }
    }
    if parts.len() > most {
        let _ = writeln!(text, "{indent}… and {} more places (`--all` shows them)", parts.len() - most);
    }
    if parts.is_empty() {
        let _ = writeln!(text, "{indent}only in the order of keys, or in a value that is lost");
    }
}

/// A place as people know it: the fields of a node by their names.
fn part_name(path: &str) -> String {
    let inner = path.strip_prefix("input.").unwrap_or(path);
    clean(inner.strip_prefix("fields.").unwrap_or(inner))
}

/// A value on one line; of a long one the beginning.
fn cut(value: &Value, shown: Shown) -> String {
    let text = visible(&value.to_string());
    let most = if shown.all { usize::MAX } else { LINES_MAX * shown.width / 2 };
    let head: String = text.chars().take(most).collect();
    if head.len() < text.len() { format!("{head}… ({} characters)", text.chars().count()) } else { head }
}

fn changed(text: &mut String, lines: &[Line], indent: &str, shown: Shown) {
    let most = if shown.all { lines.len() } else { LINES_MAX };
    for line in lines.iter().take(most) {
        match line {
            Line::Same(line) => signed(text, indent, ' ', line, shown),
            Line::Removed(line) => signed(text, indent, '-', line, shown),
            Line::Added(line) => signed(text, indent, '+', line, shown),
            Line::Folded(count) => {
                let _ = writeln!(text, "{indent}  … {}", counted(*count as u64, "equal line"));
            }
        }
    }
    if lines.len() > most {
        let _ = writeln!(text, "{indent}… {} (`--all` shows them)", counted((lines.len() - most) as u64, "more line"));
    }
}

/// A line with its sign, in as many rows as it needs.
fn signed(text: &mut String, indent: &str, sign: char, line: &str, shown: Shown) {
    let rows = wrapped(&visible(line), shown.width.saturating_sub(columns(indent) + 2));
    for (at, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "{}", format!("{indent}{} {row}", if at == 0 { sign } else { ' ' }).trim_end());
    }
    if rows.is_empty() {
        let _ = writeln!(text, "{indent}{sign}");
    }
}

/// A whole value, its texts as they read.
fn block(text: &mut String, indent: &str, value: &Value, shown: Shown) {
    let whole = match value {
        Value::String(text) => text.clone(),
        other => {
            let line = other.to_string();
            let fits = columns(&line) + columns(indent) <= shown.width;
            if fits { line } else { serde_json::to_string_pretty(other).unwrap_or(line) }
        }
    };
    lines(text, indent, wrapped(&whole, shown.width.saturating_sub(columns(indent))), shown);
}

fn lines(text: &mut String, indent: &str, lines: Vec<String>, shown: Shown) {
    let most = if shown.all { lines.len() } else { LINES_MAX };
    for line in lines.iter().take(most) {
        let _ = writeln!(text, "{}", format!("{indent}{line}").trim_end());
    }
    if lines.len() > most {
        let _ = writeln!(text, "{indent}… {} (`--all` shows them)", counted((lines.len() - most) as u64, "more line"));
    }
}

pub(super) fn explain(wanted: &str, step: &str, json: bool, place: &DbArgs) -> ExitCode {
    let runs = match place.read() {
        Ok(runs) => runs,
        Err(problem) => return refuse(&problem),
    };
    let log = match runs.load_named(wanted) {
        Ok(log) => log,
        Err(problem) => return refuse(&problem),
    };
    let graph = graph_of(&log, &**runs.store());
    let previous = || previous(&runs, &log);
    let context = Context { graph: graph.as_ref(), store: Some(&**runs.store()), previous: Some(&previous) };
    match reasons(&log, step, &context) {
        Ok(explanation) if json => print(&json_line(&explanation)),
        Ok(explanation) => print_painted(&explained(&explanation, Shown { all: false, width: width() })),
        Err(unknown) => {
            refuse(&format!("{}\nhelp: `flowrun trace {}` shows its steps", clean(&unknown.to_string()), log.info.id))
        }
    }
}

/// The graph of the workflow that a run was of, as it was then; `None` if it was not kept, or reads another way today.
fn graph_of(log: &RunLog, store: &dyn Store) -> Option<Arc<Graph>> {
    let origin = Origin::of(&log.info);
    let (bare, library) = (Flowrun::builder().build(), Kept::then(&origin, store));
    let (checked, _) = bare.check_text_with(&origin.name(), &origin.text(store)?, &library).ok()?;
    let started = log.events.iter().find(|event| event.kind == "run_started");
    let is_same = started.and_then(|event| event.text("workflow")) == Some(checked.workflow.hash.to_string().as_str());
    is_same.then(|| checked.workflow.graph.clone())
}

/// The run of the same workflow before a run.
fn previous(runs: &Runs, log: &RunLog) -> Option<RunLog> {
    let all = runs.all().ok()?;
    let before = all.iter().rev().filter(|run| run.id < log.info.id && run.workflow == log.info.workflow);
    before.take(PREVIOUS_MAX).find_map(|run| runs.load(run).ok())
}

/// An explanation, for people.
fn explained(explanation: &Explanation, shown: Shown) -> String {
    let Explanation { run, step, kind, state, .. } = explanation;
    let kind = kind.as_ref().map(|kind| format!(" ({})", clean(kind))).unwrap_or_default();
    let mut text = format!("step `{}`{kind} of the run {run}: {state}\n", clean(step));
    let next = [Said { text: explanation.next.clone(), log: Vec::new() }];
    let sections: [(&str, &[Said]); 6] = [
        ("where", &explanation.place),
        ("it ran because", &explanation.ran_because),
        (if state == "succeeded" { "outcome" } else { "why" }, &explanation.why),
        ("attempts", &explanation.attempts),
        ("answer", &explanation.answer),
        ("next", &next),
    ];
    for (title, said) in sections {
        if !said.is_empty() {
            let _ = writeln!(text, "\n{title}");
            said.iter().for_each(|said| sentence(&mut text, said, shown));
        }
        if title == "answer" {
            explanation.nearest.iter().for_each(|nearest| compared(&mut text, nearest, shown));
        }
    }
    text
}

/// A sentence with the numbers of its events.
fn sentence(text: &mut String, said: &Said, shown: Shown) {
    let numbers: Vec<String> = said.log.iter().map(u64::to_string).collect();
    let log = if numbers.is_empty() { String::new() } else { format!(" [log {}]", numbers.join(", ")) };
    let rows = wrapped(&format!("{}{log}", said.text), shown.width.saturating_sub(2));
    for row in rows {
        let _ = writeln!(text, "  {row}");
    }
}

fn compared(text: &mut String, nearest: &Compared, shown: Shown) {
    let (step, run) = (clean(&nearest.step), clean(&nearest.run));
    let what = match nearest.with.as_str() {
        "entry" => format!("the nearest answer in the cache is that of `{step}` of the run {run}"),
        _ => format!("the run before this one was {run}"),
    };
    if nearest.parts.is_empty() {
        let why = "this run was told to read none (`--fresh`), or that answer was too old, or is gone";
        let kept = match &nearest.key {
            _ if !nearest.answered => " and came to no answer".to_owned(),
            Some(_) => format!(": {why}"),
            None => String::new(),
        };
        let rows = wrapped(&format!("{what}; it asked the same{kept}"), shown.width.saturating_sub(2));
        rows.iter().for_each(|row| text.push_str(&format!("  {row}\n")));
        return;
    }
    let places = counted(nearest.parts.len() as u64, "part");
    let _ = writeln!(text, "  {what}; since then {places} changed:");
    parts(text, &nearest.parts, "    ", shown);
}
