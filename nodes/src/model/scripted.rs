//! Replies from a file, for tests and examples: the same question gets the same answer.
//!
//! ```yaml
//! - {match: "capital of France", reply: Paris}
//! - {match: "slow", reply: "word by word", delay_ms: 200}
//! - {match: "broken", status: 500, reply: "on fire", times: 1}
//! - {reply: "I do not know"}
//! ```
//!
//! The first entry whose `match` occurs in the last user message answers; one without `match` answers everything. `times`
//! bounds how often an entry is used.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use flowrun_engine::event::Usage;
use flowrun_engine::failure::{ErrorClass, StepError};
use flowrun_engine::id::ValueHash;
use flowrun_engine::node::TokenSink;
use serde_json::{Value, json};

use super::{CallContext, ChatReply, ChatRequest, Model, Role};

/// A model that reads its replies from a file.
#[derive(Debug)]
pub struct Scripted {
    name: String,
    /// Hash of the text that the entries were read from.
    text: ValueHash,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    matches: Option<String>,
    reply: String,
    status: u16,
    delay: Duration,
    times: u32,
    used: AtomicU32,
}

impl Scripted {
    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read or is no list of entries.
    pub fn open(path: &Path) -> Result<Self, StepError> {
        let bad = |why: String| StepError::terminal("bad_script", format!("`{}`: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        Self::parse(&path.display().to_string(), &text).map_err(bad)
    }

    /// Reads entries out of a YAML text.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let list: Vec<serde_json::Map<String, Value>> =
            serde_yaml::from_str(text).map_err(|error| format!("a script is a list of `{{match, reply}}`: {error}"))?;
        let entries = list.into_iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Self { name: name.to_owned(), text: ValueHash::of(&json!(text)), entries })
    }
}

impl Entry {
    /// Takes its time, and says the reply word by word meanwhile.
    async fn say(&self, tokens: &TokenSink) {
        if self.status >= 400 {
            return tokio::time::sleep(self.delay).await;
        }
        let words = self.reply.split_inclusive(char::is_whitespace);
        let each = self.delay / words.clone().count().max(1) as u32;
        for word in words {
            if !each.is_zero() {
                tokio::time::sleep(each).await;
            }
            tokens.send(word);
        }
    }
}

fn entry(map: serde_json::Map<String, Value>) -> Result<Entry, String> {
    const KEYS: [&str; 5] = ["match", "reply", "status", "delay_ms", "times"];
    if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("an entry has {}, not `{key}`", KEYS.join(", ")));
    }
    let number =
        |key: &str| map.get(key).map(|value| value.as_u64().ok_or(format!("`{key}` is a whole number"))).transpose();
    let reply = match map.get("reply") {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    Ok(Entry {
        matches: map.get("match").map(|text| text.as_str().map_or_else(|| text.to_string(), str::to_owned)),
        reply,
        status: number("status")?.unwrap_or(200) as u16,
        delay: Duration::from_millis(number("delay_ms")?.unwrap_or(0)),
        times: number("times")?.unwrap_or(u64::from(u32::MAX)) as u32,
        used: AtomicU32::new(0),
    })
}

#[async_trait]
impl Model for Scripted {
    async fn chat(&self, request: &ChatRequest, context: &CallContext) -> Result<ChatReply, StepError> {
        let user = |message: &&super::Message| message.role == Role::User;
        let asked = request.messages.iter().rev().find(user).map_or("", |message| &message.content);
        let answers = |entry: &&Entry| {
            entry.matches.as_ref().is_none_or(|text| asked.contains(text.as_str()))
                && entry
                    .used
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < entry.times).then_some(n + 1))
                    .is_ok()
        };
        let Some(entry) = self.entries.iter().find(answers) else {
            let shown: String = asked.chars().take(120).collect();
            let message = format!("no entry of the script `{}` matches the question «{shown}»", self.name);
            return Err(StepError::terminal("no_reply", message));
        };
        tokio::select! {
            () = entry.say(&context.tokens) => {}
            () = context.cancelled.cancelled() => return Err(StepError::terminal("cancelled", "the call was cancelled")),
        }
        if entry.status >= 400 {
            let class = match entry.status {
                408 => ErrorClass::Timeout,
                429 => ErrorClass::RateLimit,
                500.. => ErrorClass::Server,
                _ => ErrorClass::Terminal,
            };
            let message = format!("the script answered HTTP {}: {}", entry.status, entry.reply);
            return Err(StepError::new(format!("http_{}", entry.status), class, message));
        }
        let words = |text: &str| text.split_whitespace().count() as u64;
        let prompt_tokens = request.messages.iter().map(|message| words(&message.content)).sum();
        let usage = Usage { calls: 1, prompt_tokens, completion_tokens: words(&entry.reply) };
        Ok(ChatReply { text: entry.reply.clone(), usage, finish_reason: Some("stop".to_owned()) })
    }

    fn name(&self) -> String {
        format!("scripted:{}", self.name)
    }

    fn identity(&self) -> Value {
        json!({"provider": "scripted", "model": self.name, "text": self.text})
    }
}

#[cfg(test)]
mod tests {
    use super::super::Message;
    use super::*;

    async fn ask(model: &Scripted, text: &str) -> Result<String, String> {
        let request = ChatRequest { messages: vec![Message::new(Role::User, text)], ..ChatRequest::default() };
        model.chat(&request, &CallContext::default()).await.map(|reply| reply.text).map_err(|error| error.code.clone())
    }

    #[tokio::test]
    async fn the_first_match_answers() {
        let script =
            "- {match: once, reply: first, times: 1}\n- {match: once, status: 429}\n- {match: list, reply: [1, 2]}\n";
        let model = Scripted::parse("s", script).unwrap();
        assert_eq!(ask(&model, "once more").await, Ok("first".to_owned()));
        assert_eq!(ask(&model, "once more").await, Err("http_429".to_owned()));
        assert_eq!(ask(&model, "a list").await, Ok("[1,2]".to_owned()));
        assert_eq!(ask(&model, "nothing").await, Err("no_reply".to_owned()));
        assert_eq!(model.identity(), Scripted::parse("s", script).unwrap().identity());
        assert_ne!(model.identity(), Scripted::parse("s", &format!("{script}\n")).unwrap().identity());
        assert!(Scripted::parse("s", "- {replly: x}").unwrap_err().contains("`replly`"));
        assert!(Scripted::parse("s", "a: 1").is_err());
    }
}
