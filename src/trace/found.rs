//! Values that were found and not made: who paid for them, and what that saved.
//!
//! A step whose answer was found did not run. Its log has the settled value with attempt 0, or ends an attempt that was about to
//! call; the report says where the value came from: `{"from": {"how": "cache", "run": …, "step": …, "usage": {…}}}`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use flowrun_engine::event::Usage;
use flowrun_engine::id::ValueHash;

use super::{Trace, counted};

/// Largest count that is read of one report: it may say anything, and its numbers are added up.
const COUNT_MAX: u64 = 1 << 40;

/// Where a value came from that its step did not make itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The word of the log: `cache`, `flight`, `replay` or `correction`; empty where only the log was read.
    pub how: String,
    /// The run that paid; empty if nobody is named.
    pub run: String,
    /// The path of the step that paid; empty if nobody is named.
    pub step: String,
    /// What was paid for it, there.
    pub usage: Usage,
}

impl Found {
    /// Reads a report of a settled step; `None` if the step made its value itself.
    pub fn of(report: &Value) -> Option<Self> {
        let from = report.get("from")?.as_object()?;
        let text = |key: &str| from.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let usage = from.get("usage");
        let count = |key: &str| usage.and_then(|usage| usage.get(key)?.as_u64()).unwrap_or(0).min(COUNT_MAX);
        let (calls, prompt_tokens) = (count("calls"), count("prompt_tokens"));
        let usage = Usage { calls, prompt_tokens, completion_tokens: count("completion_tokens") };
        Some(Self { how: text("how"), run: text("run"), step: text("step"), usage })
    }

    /// In one word for people.
    pub fn word(&self) -> &'static str {
        match self.how.as_str() {
            "cache" => "cached",
            "flight" => "shared",
            "replay" => "reused",
            "correction" => "corrected",
            _ => "found",
        }
    }

    /// Who paid, as the end of a sentence.
    pub fn payer(&self) -> String {
        let run = if self.run.is_empty() { String::new() } else { format!("run {}", self.run) };
        let step = if self.step.is_empty() { String::new() } else { format!("step `{}`", self.step) };
        let who = [run, step].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
        let tokens = self.usage.prompt_tokens + self.usage.completion_tokens;
        let cost = format!("{}, {}", counted(self.usage.calls, "call"), counted(tokens, "token"));
        if who.is_empty() { cost } else { format!("{who}: {cost}") }
    }
}

/// How many values were found, by their word, and what was paid for them elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Savings {
    words: BTreeMap<&'static str, u64>,
    /// What the steps would have cost.
    pub usage: Usage,
}

impl Savings {
    /// Counts one.
    pub fn add(&mut self, found: &Found) {
        *self.words.entry(found.word()).or_default() += 1;
        self.usage += found.usage;
    }

    /// Steps whose values were found.
    pub fn hits(&self) -> u64 {
        self.words.values().sum()
    }
}

/// `3 cached, 1 shared (4 calls saved)`; nothing if nothing was found.
impl std::fmt::Display for Savings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<String> =
            self.words.iter().map(|(word, count)| format!("{} {word}", super::thousands(*count))).collect();
        f.write_str(&words.join(", "))?;
        if self.usage.calls > 0 {
            write!(f, " ({} saved)", counted(self.usage.calls, "call"))?;
        }
        Ok(())
    }
}

impl Trace {
    /// Looks up where values came from that their steps did not make: the reports stand beside the log, by hash.
    pub fn look_up(&mut self, value: impl Fn(&str) -> Option<Value>) {
        for step in &mut self.steps {
            // Whoever paid made the value itself.
            if step.usage.calls > 0 {
                continue;
            }
            let found = step.report.as_deref().and_then(&value).and_then(|report| Found::of(&report));
            step.found = found.or(step.found.take());
        }
    }

    /// Marks the steps that took what was set for them by path. The log tells so of steps that ask, and not of what is computed.
    pub fn mark_corrections(&mut self, corrections: &Map<String, Value>) {
        let hash = |value: &Value| ValueHash::of(value).to_string();
        let unmarked = self.steps.iter_mut().filter(|step| step.found.is_none() && !step.is_leaf());
        for step in unmarked.filter(|step| step.state == "succeeded") {
            if corrections.get(&step.path).map(hash).is_some_and(|set| step.value == Some(set)) {
                step.found = Some(Found { how: "correction".to_owned(), ..Found::default() });
            }
        }
    }

    /// What the run found and did not make.
    pub fn savings(&self) -> Savings {
        let mut savings = Savings::default();
        self.steps.iter().filter_map(|step| step.found.as_ref()).for_each(|found| savings.add(found));
        savings
    }
}
