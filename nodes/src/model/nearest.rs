//! What was recorded that is most like a request, and what is different: for people who look for a word that they changed.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_json::Value;

use super::recording::Call;
use super::{ChatRequest, Message, Role};

/// Most characters of a line or a value that are shown.
const SHOWN_MAX: usize = 60;
/// Characters before the first difference that are shown.
const BEFORE: usize = 20;

/// The line of the nearest call, and the first thing in which it differs. Of calls that are as near the first one counts. It
/// takes time in proportion to all texts.
pub(super) fn nearest<'a>(
    calls: impl Iterator<Item = &'a Call>,
    request: &ChatRequest,
    sample: Option<u32>,
) -> Option<(usize, String)> {
    let asked = words(last_question(&request.messages));
    let nearness = |call: &Call| {
        let same = [
            call.request.messages == request.messages,
            call.request.params == request.params,
            call.request.json_schema == request.json_schema,
            call.sample == sample,
        ];
        // Equal texts first, then like ones; what else is the same decides among these.
        let alike = if same[0] { 1.0 } else { likeness(&asked, &words(last_question(&call.request.messages))) };
        (same[0], alike, same[1..].iter().filter(|same| **same).count())
    };
    let mut best: Option<((bool, f64, usize), &Call)> = None;
    for call in calls {
        let near = nearness(call);
        if best.as_ref().is_none_or(|(nearest, _)| near.partial_cmp(nearest) == Some(std::cmp::Ordering::Greater)) {
            best = Some((near, call));
        }
    }
    best.map(|(_, call)| (call.line, difference(call, request, sample)))
}

fn last_question(messages: &[Message]) -> &str {
    messages.iter().rev().find(|message| message.role == Role::User).map_or("", |message| &message.content)
}

/// How often each word occurs.
fn words(text: &str) -> BTreeMap<&str, usize> {
    let mut words = BTreeMap::new();
    for word in text.split_whitespace() {
        *words.entry(word).or_default() += 1;
    }
    words
}

/// The part of all words that both texts have, from 0 to 1.
fn likeness(a: &BTreeMap<&str, usize>, b: &BTreeMap<&str, usize>) -> f64 {
    let all: usize = a.values().chain(b.values()).sum();
    let both: usize = a.iter().map(|(word, times)| *times.min(b.get(word).unwrap_or(&0))).sum();
    if all == 0 { 1.0 } else { 2.0 * both as f64 / all as f64 }
}

/// The first difference in reading order: messages, parameters, schema, sample.
fn difference(call: &Call, request: &ChatRequest, sample: Option<u32>) -> String {
    let recorded = &call.request;
    for (number, (old, new)) in recorded.messages.iter().zip(&request.messages).enumerate() {
        if old.role != new.role {
            return differ(format!("the role of message {}", number + 1), role(old.role), role(new.role));
        }
        if old.content != new.content {
            let (line, old, new) = first_line(&old.content, &new.content);
            return differ(
                format!("line {line} of message {} ({})", number + 1, role(request.messages[number].role)),
                old,
                new,
            );
        }
    }
    if recorded.messages.len() != request.messages.len() {
        return differ("the number of messages", recorded.messages.len(), request.messages.len());
    }
    let names = recorded.params.keys().chain(request.params.keys());
    if let Some(name) = names.into_iter().find(|name| recorded.params.get(*name) != request.params.get(*name)) {
        let (old, new) = (recorded.params.get(name), request.params.get(name));
        return differ(format!("the parameter `{name}`"), shown(old), shown(new));
    }
    if recorded.json_schema != request.json_schema {
        let (place, old, new) = first_value(recorded.json_schema.as_ref(), request.json_schema.as_ref());
        let place = if place.is_empty() { "the schema".to_owned() } else { format!("the schema at {place}") };
        return differ(place, shown(old), shown(new));
    }
    let number = |sample: Option<u32>| sample.map_or("none".to_owned(), |number| number.to_string());
    differ("the number of the sample", number(call.sample), number(sample))
}

fn differ(what: impl Display, recorded: impl Display, asked: impl Display) -> String {
    format!("{what}: it was `{recorded}` and is `{asked}`")
}

fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

/// The first line in which two texts differ: its number, and both sides around the difference.
fn first_line(old: &str, new: &str) -> (usize, String, String) {
    let (mut olds, mut news) = (old.split('\n'), new.split('\n'));
    for line in 1.. {
        let (old, new) = match (olds.next(), news.next()) {
            (Some(old), Some(new)) if old == new => continue,
            (None, None) => break,
            (old, new) => (old.unwrap_or("(no such line)"), new.unwrap_or("(no such line)")),
        };
        let same = old.chars().zip(new.chars()).take_while(|(a, b)| a == b).count();
        return (line, excerpt(old, same), excerpt(new, same));
    }
    (1, String::new(), String::new())
}

/// A part of a line that begins a little before its character number `from`.
fn excerpt(line: &str, from: usize) -> String {
    let skipped = from.saturating_sub(BEFORE);
    let mut characters = line.chars().skip(skipped);
    let text: String = characters.by_ref().take(SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let (before, after) = (if skipped > 0 { "…" } else { "" }, if characters.next().is_some() { "…" } else { "" });
    format!("{before}{text}{after}")
}

fn shown(value: Option<&Value>) -> String {
    value.map_or("none".to_owned(), |value| excerpt(&value.to_string(), 0))
}

/// The first place, as a JSON Pointer, in which two values differ, and both sides there.
fn first_value<'v>(old: Option<&'v Value>, new: Option<&'v Value>) -> (String, Option<&'v Value>, Option<&'v Value>) {
    let (mut old, mut new, mut place) = (old, new, String::new());
    loop {
        let step = match (old, new) {
            (Some(Value::Object(olds)), Some(Value::Object(news))) => {
                let names = olds.keys().chain(news.keys());
                let name = names.into_iter().find(|name| olds.get(*name) != news.get(*name));
                name.map(|name| (name.clone(), olds.get(name), news.get(name)))
            }
            (Some(Value::Array(olds)), Some(Value::Array(news))) => {
                let index = (0..olds.len().max(news.len())).find(|index| olds.get(*index) != news.get(*index));
                index.map(|index| (index.to_string(), olds.get(index), news.get(index)))
            }
            _ => None,
        };
        let Some((name, next_old, next_new)) = step else { return (place, old, new) };
        place = format!("{place}/{name}");
        (old, new) = (next_old, next_new);
    }
}
