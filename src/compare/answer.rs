//! Whether a step's answer was found, who paid for it, and if it was not: what was asked most like it.
//!
//! What a key was made of is kept as a value under the key itself. An explanation compares such values and never makes a key anew, so
//! that it cannot tell of other parts than those that the key was hashed from. Where the rendered inputs differ their fields are compared
//! too. The nearest entry is the one with the fewest differing parts, of those the newest. O(entries of the node × size of a key), at
//! most 100 entries.

use serde::Serialize;
use serde_json::{Value, json};

use flowrun_engine::definition::CacheScope;
use flowrun_engine::event::Logged;
use flowrun_engine::graph::Work;
use flowrun_engine::id::ValueHash;
use flowrun_engine::store::{CacheEntry, EntryFilter, Store};

use super::explain::Context;
use super::history::{Found, History, StepHistory, node_name};
use super::parts::{Part, differing};
use super::place::Place;
use super::reasons::Said;
use crate::Origin;
use crate::runs::RunLog;
use crate::trace::counted;

/// Most entries that are looked at for the nearest one.
const ENTRIES_MAX: u64 = 100;

/// What was asked before, and what is different now.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// What it is: `entry` of the cache, or `previous` run.
    pub with: String,
    /// The run that asked it.
    pub run: String,
    /// The path of the step that asked it.
    pub step: String,
    /// Hash of what its key was made of, where answers are kept.
    pub key: Option<String>,
    /// Whether it came to an answer.
    pub answered: bool,
    /// What is different: before (`a`) and now (`b`). Empty: nothing.
    pub parts: Vec<Part>,
}

/// What is known of a step's answer.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) said: Vec<Said>,
    pub(super) nearest: Vec<Compared>,
}

/// Says of a step whether its answer was found.
pub(super) fn of(history: &History<'_>, path: &str, place: Option<&Place>, context: &Context<'_>) -> Answer {
    let Some(step) = history.step(path) else { return Answer::default() };
    let events = || step.events.iter().map(|at| &history.log.events[*at]);
    let decided = events().rfind(|event| event.text("key").is_some());
    let settled = events().rfind(|event| event.kind == "settled");
    let said = |text: String, log: &[Option<&Logged>]| Said {
        text,
        log: log.iter().flatten().map(|event| event.sequence).collect(),
    };
    let mut answer = Answer::default();
    if let Some(found) = &step.found {
        let text =
            if found.is_corrected() { who_set(history.log, path) } else { who_paid(found, &history.log.info.id) };
        answer.said.push(said(text, &[decided, settled]));
        return answer;
    }
    let own = Own { log: history.log, path, step };
    if let Some(key) = step.key.as_ref().filter(|_| own.is_kept(place)) {
        let short: String = key.chars().take(12).collect();
        let missed = events().find(|event| event.kind == "missed");
        if step.attempts == 0 && step.state != "running" {
            answer.said.push(said(format!("its key is {short}; it has not asked for itself"), &[decided]));
        } else if missed.is_some() {
            let text =
                format!("the answer that it waited for under its key {short} did not come, so it asked for itself");
            answer.said.push(said(text, &[decided, missed]));
        } else {
            let text = format!("no answer was found under its key {short}, so it asked for itself");
            answer.said.push(said(text, &[decided]));
        }
        answer.said.extend(context.store.and_then(|store| kept_now(store, key, &own)));
        answer.nearest.extend(context.store.and_then(|store| nearest_entry(store, &own)));
    } else if let Some(text) = without_key(step, place) {
        answer.said.push(said(text, &[]));
    }
    let previous = context.previous.filter(|_| own.parts().is_some()).and_then(|previous| previous());
    answer.nearest.extend(previous.and_then(|previous| own.beside(&previous)));
    // The entry may be that of the previous run, or of the run that paid for it too.
    answer.nearest.dedup_by(|later, earlier| later.key.is_some() && later.key == earlier.key);
    answer
}

/// That a value was set by hand, and in place of what.
fn who_set(log: &RunLog, path: &str) -> String {
    let origin = Origin::of(&log.info);
    let how = if origin.corrections.contains_key(path) { " (`--correct`)" } else { "" };
    let instead = match &origin.replay_of {
        Some(run) => format!("in place of what `{path}` came to in the run {run}, which this run replays"),
        None => "in place of what it would have come to".to_owned(),
    };
    format!("its value was set by hand{how}, {instead}")
}

fn who_paid(found: &Found, own_run: &str) -> String {
    let step = found.step.as_ref().map_or("another step".to_owned(), |step| format!("`{step}`"));
    let run = match found.run.as_deref() {
        Some(run) if run == own_run => " of this run".to_owned(),
        Some(run) => format!(" of the run {run}"),
        None => String::new(),
    };
    let usage = found.usage;
    let saved = match usage.calls {
        0 => String::new(),
        calls => {
            let tokens = counted(usage.prompt_tokens + usage.completion_tokens, "token");
            format!("; that saved {} and {tokens}", counted(calls, "call"))
        }
    };
    match found.word.as_str() {
        "shared" => format!("{step}{run} was asking for the same: both share one answer{saved}"),
        "reused" => format!("its answer was taken from {step}{run}, which this run replays{saved}"),
        "cached" => format!("its answer was in the cache: {step}{run} paid for it{saved}"),
        _ => "its answer was found; the log does not say where".to_owned(),
    }
}

/// What is kept under the key of a step that found nothing.
fn kept_now(store: &dyn Store, key: &str, own: &Own<'_>) -> Option<Said> {
    let entry = store.entry(ValueHash::from_hex(key)?).ok()??;
    let (run, step) = (&entry.run, &entry.step);
    let text = if *run != own.log.info.id {
        format!(
            "now there is one, which `{step}` of the run {run} paid for: it is newer, or this run was told to read none (`--fresh`), or it \
             was too old for the node's `ttl`"
        )
    } else if step == own.path {
        "its own answer is kept under that key since".to_owned()
    } else {
        format!("`{step}` of this run asked for the same and kept its answer since")
    };
    Some(Said { text, log: Vec::new() })
}

/// Why a step has no key; `None` where nobody would expect one.
fn without_key(step: &StepHistory, place: Option<&Place>) -> Option<String> {
    let Some(place) = place else {
        let is_leaf = step.attempts > 0 || step.input.is_some();
        return is_leaf.then(|| {
            "the log names no key for it: its answers are not kept (`cache: off`, or the run kept none)".to_owned()
        });
    };
    let node = place.node();
    match (&node.work, node.code.cache.scope) {
        (Work::Value, _) => Some("it has no key: it is computed from what is there and costs nothing".to_owned()),
        (Work::Human { .. }, _) => Some("it has no key: what people answer is never kept for other steps".to_owned()),
        (Work::Leaf, _) if step.attempts == 0 => None,
        (Work::Leaf, CacheScope::Off) => {
            // A kind whose answers are kept when the file says nothing leaves the node alone to say otherwise.
            let is_kept_else = node.code.spec.as_ref().is_some_and(|spec| spec.cache != CacheScope::Off);
            let kind = &node.code.kind;
            Some(match is_kept_else {
                true => "no answer was looked for: the node says `cache: off`".to_owned(),
                false => format!(
                    "no answer was looked for: those of the kind `{kind}` are kept only if `cache` says so, and here it does not"
                ),
            })
        }
        (Work::Leaf, _) => Some("the log names no key for it: the run was told to keep no answers".to_owned()),
        _ => None,
    }
}

/// The step that is explained.
struct Own<'a> {
    log: &'a RunLog,
    path: &'a str,
    step: &'a StepHistory,
}

impl Own<'_> {
    /// Whether answers under its key are kept at all.
    fn is_kept(&self, place: Option<&Place>) -> bool {
        match place {
            Some(place) => place.node().code.cache.scope != CacheScope::Off,
            None => self.step.key.as_deref().is_some_and(|key| self.log.value(key).is_some()),
        }
    }

    /// What its key was made of, with the rendered input in the place of its hash; without a key the rendered input alone.
    fn parts(&self) -> Option<Value> {
        asked(self.step, &|hash| self.log.value(hash))
    }

    /// The same step in another run.
    fn beside(&self, other: &RunLog) -> Option<Compared> {
        let history = History::new(other);
        let step = history.step(self.path)?;
        let before = asked(step, &|hash| other.value(hash))?;
        Some(Compared {
            with: "previous".to_owned(),
            run: other.info.id.clone(),
            step: self.path.to_owned(),
            key: step.key.clone().filter(|key| other.value(key).is_some()),
            answered: step.state == "succeeded",
            parts: differing(&before, &self.parts()?),
        })
    }
}

/// What a step asked. Where answers are not kept, what the key was made of is not either.
fn asked(step: &StepHistory, value: &dyn Fn(&str) -> Option<Value>) -> Option<Value> {
    match step.key.as_deref().and_then(value) {
        Some(key) => Some(with_input(key, value)),
        None => Some(json!({"input": value(step.input.as_deref()?)?})),
    }
}

/// What a key was made of, with the rendered input in the place of its hash, and without the run that it is bound to.
fn with_input(mut key: Value, value: &dyn Fn(&str) -> Option<Value>) -> Value {
    if let Value::Object(parts) = &mut key {
        parts.shift_remove("run");
        if let Some(input) = parts.get_mut("input")
            && let Some(rendered) = input.as_str().and_then(value)
        {
            *input = rendered;
        }
    }
    key
}

/// The entry whose key has the fewest parts that are different.
fn nearest_entry(store: &dyn Store, own: &Own<'_>) -> Option<Compared> {
    let parts = own.parts()?;
    let kind = own.log.value(own.step.key.as_deref()?)?["kind"].as_str().map(str::to_owned);
    let filter = EntryFilter {
        kind,
        node: Some(node_name(own.path).to_owned()),
        limit: Some(ENTRIES_MAX),
        ..EntryFilter::default()
    };
    let value = |hash: &str| {
        let text = store.value(ValueHash::from_hex(hash)?).ok()??;
        serde_json::from_str(&text).ok()
    };
    // Ids of runs sort by time: what came later explains nothing.
    let is_earlier =
        |entry: &CacheEntry| entry.run <= own.log.info.id && own.step.key.as_deref() != Some(&entry.key.to_string());
    let entries = store.entries(&filter).ok()?.into_iter().filter(is_earlier);
    let compared = entries.filter_map(|entry| {
        let key = entry.key.to_string();
        let before = with_input(value(&key)?, &value);
        let parts = differing(&before, &parts);
        let (with, key) = ("entry".to_owned(), Some(key));
        Some(Compared { with, run: entry.run, step: entry.step, key, answered: true, parts })
    });
    compared.min_by_key(|compared| compared.parts.len())
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::compare::explain;
    use crate::compare::tests::World;
    use crate::{Flowrun, tool_fn};

    #[tokio::test]
    async fn who_says_that_no_answer_is_kept_is_named() {
        let text = r#"
flowrun: 1
nodes:
  a: {prompt: first, cache: "off"}
  b: {tool: look, with: {what: a}}
output: b
"#;
        let look = tool_fn("looks", |_| ready(Ok(json!("seen"))));
        let builder = Flowrun::builder().tool("look", look);
        let world = World::default();
        let (log, graph) = world.execute_with(builder, "1", text, "- {match: '', reply: one}\n", json!({})).await;
        let context = Context { graph: Some(&graph), ..Context::default() };
        let answer = |step: &str| explain(&log, step, &context).unwrap().answer[0].text.clone();
        assert_eq!(answer("a"), "no answer was looked for: the node says `cache: off`");
        let kind = "those of the kind `tool` are kept only if `cache` says so, and here it does not";
        assert_eq!(answer("b"), format!("no answer was looked for: {kind}"));
    }
}
