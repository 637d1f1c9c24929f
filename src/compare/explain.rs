//! One step asked for its reasons: why it ran or did not, in which frame, in which attempts, who paid, and what comes of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use flowrun_engine::diagnostic::did_you_mean;
use flowrun_engine::event::Logged;
use flowrun_engine::graph::Graph;
use flowrun_engine::store::Store;

use super::answer::{self, Compared};
use super::history::{Found, History, node_name};
use super::place::Place;
use super::reasons::{Reasons, Said};
use crate::runs::RunLog;
use crate::trace::{Trace, duration};

/// Most paths that a refusal names.
const NEAR_MAX: usize = 3;

/// What is known beside the log. Everything may be missing; less is said then.
#[derive(Clone, Copy, Default)]
pub struct Context<'a> {
    /// The graph of the workflow, as it was when the run began.
    pub graph: Option<&'a Arc<Graph>>,
    /// Where entries of the cache are looked up.
    pub store: Option<&'a dyn Store>,
    /// Reads the run of the same workflow before this one; asked only for a step that asked for itself.
    pub previous: Option<&'a dyn Fn() -> Option<RunLog>>,
}

/// What there is to say about a step.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The run's id.
    pub run: String,
    /// The step's path.
    pub step: String,
    /// Its node's kind, where it is known.
    pub kind: Option<String>,
    /// Its state word.
    pub state: String,
    /// In which frames, items and passes it stands.
    pub place: Vec<Said>,
    /// What let it run.
    pub ran_because: Vec<Said>,
    /// Why it is as it is, down to the first cause.
    pub why: Vec<Said>,
    /// Its attempts.
    pub attempts: Vec<Said>,
    /// Whether its answer was found, and why not.
    pub answer: Vec<Said>,
    /// Who paid, if it was found.
    pub found: Option<Found>,
    /// Hash of what its key was made of.
    pub key: Option<String>,
    /// If it was not: what was asked most like it, and what is different.
    pub nearest: Vec<Compared>,
    /// What depends on it; `None` if that is not known.
    pub readers: Option<Vec<String>>,
    /// What depends on it, in a sentence.
    pub next: String,
}

/// There is no such step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the run `{run}` has no step `{step}`{}", meant(near))]
pub struct UnknownStep {
    /// The run's id.
    pub run: String,
    /// What was asked for.
    pub step: String,
    /// The paths that are meant most likely, at most three: those of the same node, else the most similar one.
    pub near: Vec<String>,
}

/// `; did you mean …?`, if anything may be meant.
fn meant(near: &[String]) -> String {
    let named: Vec<String> = near.iter().map(|near| format!("`{near}`")).collect();
    match named.split_last() {
        None => String::new(),
        Some((one, [])) => format!("; did you mean {one}?"),
        Some((last, rest)) => format!("; did you mean {} or {last}?", rest.join(", ")),
    }
}

/// The path of a step of one of some runs, which is named by it or as [`Trace::find`] says.
///
/// # Errors
/// [`UnknownStep`], about the last of the runs.
pub fn find_step(logs: &[&RunLog], step: &str) -> Result<String, UnknownStep> {
    let paths = || logs.iter().flat_map(|log| log.events.iter()).map(|event| event.step.as_str());
    if !step.is_empty() && paths().any(|path| path == step) {
        return Ok(step.to_owned());
    }
    let drawn = |log: &&RunLog| {
        let trace = Trace::new(&log.events);
        trace.find(step).map(|at| trace.steps[at].path.clone())
    };
    let run = logs.last().map_or("", |log| &log.info.id);
    logs.iter().find_map(drawn).ok_or_else(|| unknown(run, step, paths()))
}

/// There is no such step, and what may have been meant: steps of the same node, else what is written most alike.
fn unknown<'a>(run: &str, step: &str, paths: impl Iterator<Item = &'a str>) -> UnknownStep {
    let mut told = BTreeSet::from([""]);
    let known: Vec<&str> = paths.filter(|path| told.insert(path)).collect();
    let of_node = known.iter().filter(|path| node_name(path) == node_name(step));
    let mut near: Vec<String> = of_node.take(NEAR_MAX).map(|path| (*path).to_owned()).collect();
    if near.is_empty() {
        near.extend(did_you_mean(step, known.iter().copied()).map(str::to_owned));
    }
    UnknownStep { run: run.to_owned(), step: step.to_owned(), near }
}

/// Explains a step of a run.
///
/// # Errors
/// [`UnknownStep`].
pub fn explain(log: &RunLog, path: &str, context: &Context<'_>) -> Result<Explanation, UnknownStep> {
    let history = History::new(log);
    let found = find_step(&[log], path);
    let path = found.as_deref().unwrap_or(path);
    let place = context.graph.and_then(|graph| Place::find(graph, path));
    if let Err(unknown) = &found {
        // A node whose turn has not come is in no log.
        let is_over = log.events.iter().any(|event| event.kind == "run_ended");
        let waiting = place.as_ref().filter(|_| !is_over && !path.is_empty());
        if !waiting.is_some_and(|place| place.can_come(&history)) {
            // In a loop that has not begun a node has no step; it will have one in each pass.
            let is_guessed = unknown.near.iter().all(|near| node_name(near) != node_name(path));
            let first = waiting.and_then(Place::in_first_pass).filter(|_| is_guessed);
            let near = first.map_or_else(|| unknown.near.clone(), |first| vec![first]);
            return Err(UnknownStep { near, ..unknown.clone() });
        }
    }
    let mut ran = Reasons::new(&history, context.graph);
    ran.what_let_it_run(path);
    let ran_because = ran.said;
    let mut reasons = Reasons::new(&history, context.graph);
    reasons.why(path);
    let answer = answer::of(&history, path, place.as_ref(), context);
    let readers = readers(&history, path, place.as_ref());
    let step = history.step(path);
    let rendered = step.and_then(|step| step.input.as_deref()).and_then(|hash| log.value(hash));
    let kind = rendered.and_then(|input| input["kind"].as_str().map(str::to_owned));
    Ok(Explanation {
        run: log.info.id.clone(),
        step: path.to_owned(),
        kind: kind.or_else(|| place.as_ref().map(|place| place.node().code.kind.clone())),
        state: step.map_or("waiting", |step| &step.state).to_owned(),
        place: stands_in(&history, path),
        ran_because,
        attempts: attempts(&reasons, path),
        why: reasons.said,
        answer: answer.said,
        nearest: answer.nearest,
        found: step.and_then(|step| step.found.clone()),
        key: step.and_then(|step| step.key.clone()),
        next: next_sentence(&history, path, readers.as_deref(), place.as_ref()),
        readers,
    })
}

/// In which frames, items and passes a step stands, innermost first.
fn stands_in(history: &History<'_>, path: &str) -> Vec<Said> {
    let mut said = Vec::new();
    let mut inner = path;
    for outer in history.parents(path) {
        let opened = history.step(outer).into_iter().flat_map(|step| &step.events).map(|at| &history.log.events[*at]);
        let log = opened.filter(|event| event.kind == "frame_opened").map(|event| event.sequence).collect();
        let is_map = history.step(outer).is_some_and(|step| step.facts.iter().any(|fact| fact.what == "for_each"));
        let text = match inner.strip_prefix(outer) {
            Some(rest) if rest.starts_with('[') => {
                let word = if is_map { "item" } else { "sample" };
                format!("it is {word} {} of `{outer}`, counted from 0", rest.trim_matches(['[', ']']))
            }
            Some(rest) if rest.starts_with('#') => format!("it is pass {} of `{outer}`, counted from 0", &rest[1..]),
            _ if said.is_empty() => format!("it stands in `{outer}`"),
            _ => format!("`{inner}` stands in `{outer}`"),
        };
        let text = if said.is_empty() { text } else { text.replacen("it is", &format!("`{inner}` is"), 1) };
        said.push(Said { text, log });
        inner = outer;
    }
    said
}

/// The attempts of a step, and why each was followed by another.
fn attempts(reasons: &Reasons<'_>, path: &str) -> Vec<Said> {
    let mut said: Vec<Said> = Vec::new();
    let mut open: Option<(u64, u64, &Logged)> = None;
    let history = reasons.history;
    let error = |event: &Logged| {
        let error = event.line.get("error")?;
        Some((
            error["message"].as_str()?.to_owned(),
            error["code"].as_str()?.to_owned(),
            error["class"].as_str()?.to_owned(),
        ))
    };
    for at in history.step(path).into_iter().flat_map(|step| &step.events) {
        let (event, now_us) = (&history.log.events[*at], history.times_us[*at]);
        match event.kind.as_str() {
            "started" => {
                if let Some((number, _, started)) = open {
                    let text = format!("attempt {number} was cut off: whoever drove the run was gone");
                    said.push(Said { text, log: vec![started.sequence] });
                }
                open = event.line["attempt"].as_u64().map(|number| (number, now_us, event));
            }
            "settled" | "timer" | "ended" => {
                let Some((number, began_us, started)) =
                    open.filter(|_| event.kind != "timer" || event.text("timer") == Some("timeout"))
                else {
                    continue;
                };
                open = None;
                let took = duration(now_us.saturating_sub(began_us));
                let how = match (event.kind.as_str(), error(event)) {
                    ("timer", _) => "ran out of time".to_owned(),
                    (_, Some((message, code, _))) => format!("failed: {message} ({code})"),
                    ("ended", None) if event.text("state") == Some("cancelled") => "was cancelled".to_owned(),
                    _ => "gave an answer".to_owned(),
                };
                let text = format!("attempt {number} began at {} and after {took} it {how}", duration(began_us));
                said.push(Said { text, log: vec![started.sequence, event.sequence] });
            }
            "backoff" => {
                let class = error(event).map(|(.., class)| class).unwrap_or_default();
                let delay = duration(1_000 * event.line["delay_ms"].as_u64().unwrap_or(0));
                let text = format!("its `retry` covers errors of the class `{class}`: another attempt after {delay}");
                said.push(Said { text, log: vec![event.sequence] });
            }
            "suspended" => {
                let text = format!("a person was asked at {}", duration(now_us));
                said.push(Said { text, log: vec![event.sequence] });
            }
            "answered" => {
                let text = format!("the answer came at {}", duration(now_us));
                said.push(Said { text, log: vec![event.sequence] });
            }
            _ => {}
        }
    }
    if let Some((number, began_us, started)) = open {
        let how = if history.log.running_us.is_some() { "is running" } else { "was cut off" };
        let text = format!("attempt {number} began at {} and {how}", duration(began_us));
        said.push(Said { text, log: vec![started.sequence] });
    }
    said
}

/// What depends on a step: by its node, where that is known; else what the log names it for.
fn readers(history: &History<'_>, path: &str, place: Option<&Place>) -> Option<Vec<String>> {
    if let Some(place) = place {
        return Some(place.readers());
    }
    let names = |event: &&Logged| event.text("source") == Some(path) || event.text("winner") == Some(path);
    let mut named: Vec<String> = history
        .log
        .events
        .iter()
        .filter(names)
        .map(|event| event.step.clone())
        .filter(|step| !step.is_empty())
        .collect();
    named.dedup();
    (!named.is_empty()).then_some(named)
}

fn next_sentence(history: &History<'_>, path: &str, readers: Option<&[String]>, place: Option<&Place>) -> String {
    let Some(readers) = readers else {
        return "the log alone does not tell what depends on it".to_owned();
    };
    let whose = match place {
        Some(place) if !place.is_own_step() => format!("on `{}`, which it is part of", place.own_path()),
        _ => "on it".to_owned(),
    };
    let reasons = Reasons::new(history, None);
    let mut named: Vec<String> =
        readers.iter().take(5).map(|reader| format!("`{reader}` ({})", reasons.came_to(reader))).collect();
    if readers.len() > 5 {
        named.push(format!("{} more", readers.len() - 5));
    }
    if place.is_some_and(Place::is_output) {
        let frame = history.parents(path).find(|outer| !outer.contains(['#', '[']));
        named.push(
            frame
                .filter(|_| path.contains('/'))
                .map_or("the output".to_owned(), |frame| format!("the value of `{frame}`")),
        );
    }
    match named.split_last() {
        None => format!("nothing depends {whose}"),
        Some((one, [])) => format!("{one} depends {whose}"),
        Some((last, rest)) => format!("{} and {last} depend {whose}", rest.join(", ")),
    }
}
