//! Plays a recording in place of the models that were recorded.
//!
//! What a call is found by is what was asked: messages, parameters, schema, and the number of the sample. What was asked n
//! times has n answers, which come in the order of the file and each once: a loop that asks the same again gets the next one, a
//! retry gets what the retry got. After the n-th there is no further one; to start over would pass off one answer for several.
//! Answers come before calls that were given up when they were recorded. Such a call gets no answer here either: it waits to be
//! given up again, and fails after a while if it is not.
//!
//! A request that was not recorded is an error that shows the nearest one that was. Nothing is made up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use flowrun_engine::failure::StepError;
use flowrun_engine::id::ValueHash;
use flowrun_engine::node::TokenSink;
use flowrun_engine::retry::RetryPolicy;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::nearest;
use super::recording::{self, Answer, Call};
use super::{CallContext, ChatReply, ChatRequest, Model};

/// How long a call that was given up while it was recorded waits to be given up again.
const PATIENCE: Duration = Duration::from_secs(10);

/// A model that answers from a recording.
#[derive(Clone, Debug)]
pub struct Recorded {
    tape: Arc<Tape>,
    alias: Option<String>,
    latency: f64,
}

/// What was recorded, and what of it was played.
#[derive(Debug)]
struct Tape {
    name: String,
    text: ValueHash,
    calls: Vec<Call>,
    /// Indices of calls by their key, in the order of the file, those without an answer last.
    by_key: BTreeMap<ValueHash, Vec<usize>>,
    played: Mutex<BTreeSet<usize>>,
}

impl Recorded {
    /// Reads a recording that a [`Recorder`](super::Recorder) wrote. Replies come at once.
    ///
    /// # Errors
    /// If it cannot be read; the numbers of damaged lines.
    pub fn open(path: &Path) -> Result<Self, StepError> {
        let (calls, text) = recording::read(path)?;
        let mut by_key: BTreeMap<ValueHash, Vec<usize>> = BTreeMap::new();
        for (index, call) in calls.iter().enumerate() {
            by_key.entry(recording::key(&call.request, call.sample)).or_default().push(index);
        }
        for indices in by_key.values_mut() {
            indices.sort_by_key(|index| calls[*index].answer == Answer::None);
        }
        let tape = Tape { name: path.display().to_string(), text, calls, by_key, played: Mutex::default() };
        Ok(Self { tape: Arc::new(tape), alias: None, latency: 0.0 })
    }

    /// How long replies take, and their pieces with them: the recorded time times this factor; 0 is at once, 1 as it was.
    pub fn latency(mut self, factor: f64) -> Self {
        self.latency = factor;
        self
    }

    /// The same for the calls that were recorded under an alias, which matters where several models were asked the same. A
    /// recording that does not have the alias counts as a whole.
    pub fn under(&self, alias: &str) -> Self {
        let has = self.tape.calls.iter().any(|call| call.alias.as_deref() == Some(alias));
        Self { alias: has.then(|| alias.to_owned()), ..self.clone() }
    }

    /// Plays from the beginning again, for the next run of the same program.
    pub fn rewind(&self) {
        self.played().clear();
    }

    /// How many calls were recorded.
    pub fn calls(&self) -> usize {
        self.tape.calls.len()
    }

    /// The models that were recorded, in the order in which they first occur.
    pub fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = Vec::new();
        for call in &self.tape.calls {
            if !models.contains(&call.model.as_str()) {
                models.push(&call.model);
            }
        }
        models
    }

    fn played(&self) -> std::sync::MutexGuard<'_, BTreeSet<usize>> {
        self.tape.played.lock().expect("BUG: a panic while a call was looked up")
    }

    /// The next call that was recorded for a request.
    fn next(&self, request: &ChatRequest, sample: Option<u32>) -> Result<&Call, StepError> {
        let calls = &self.tape.calls;
        let counts = |call: &Call| self.alias.is_none() || call.alias == self.alias;
        let found = self.tape.by_key.get(&recording::key(request, sample)).into_iter().flatten().copied();
        let found: Vec<usize> = found.filter(|index| counts(&calls[*index])).collect();
        let mut played = self.played();
        if let Some(index) = found.iter().find(|index| !played.contains(index)) {
            played.insert(*index);
            return Ok(&calls[*index]);
        }
        let problem = match found.len() {
            0 => {
                let candidates = calls.iter().filter(|call| counts(call));
                match nearest::nearest(candidates, request, sample) {
                    Some((line, difference)) => {
                        format!(
                            "has no answer to this request; the nearest one is on its line {line} and differs in {difference}"
                        )
                    }
                    None => "has no answer to this request: no calls were recorded".to_owned(),
                }
            }
            1 => "has one answer to this request, which was given already".to_owned(),
            several => format!("has {several} answers to this request, which were all given already"),
        };
        let message =
            format!("the recording `{}` {problem}; record the run again with `--record FILE`", self.tape.name);
        Err(StepError::terminal("no_recording", message))
    }

    fn scaled(&self, milliseconds: u64) -> Duration {
        Duration::from_millis((milliseconds as f64 * self.latency) as u64)
    }

    /// A wait that the server asked for. One that was too long for a retry stays so, and no other becomes it.
    fn scaled_wait_ms(&self, wait_ms: u64) -> u64 {
        match wait_ms {
            0..=RetryPolicy::DELAY_MAX_MS => (self.scaled(wait_ms).as_millis() as u64).min(RetryPolicy::DELAY_MAX_MS),
            too_long => too_long,
        }
    }

    /// Takes the time that the call took and sends its text in the pieces in which it came.
    async fn play(&self, call: &Call, tokens: &TokenSink) {
        let text = match &call.answer {
            Answer::Reply(reply) => reply.text.as_str(),
            _ => "",
        };
        let (mut sent, mut waited) = (0_usize, Duration::ZERO);
        for (at_ms, bytes) in call.chunks.iter().filter(|_| self.latency > 0.0) {
            let at = self.scaled(*at_ms);
            sleep(at.saturating_sub(waited)).await;
            waited = at.max(waited);
            let Some(piece) = text.get(sent..sent.saturating_add(*bytes)) else { break };
            tokens.send(piece);
            sent += bytes;
        }
        let rest = self.scaled(call.latency_ms).saturating_sub(waited);
        if !rest.is_zero() {
            sleep(rest).await;
        }
        if let Some(piece) = text.get(sent..).filter(|piece| !piece.is_empty()) {
            tokens.send(piece);
        }
    }

    async fn answer(&self, request: &ChatRequest, context: &CallContext) -> Result<ChatReply, StepError> {
        let call = self.next(request, context.sample)?;
        self.play(call, &context.tokens).await;
        match &call.answer {
            Answer::Reply(reply) => Ok(reply.clone()),
            Answer::Error(error) => {
                Err(error.clone().retry_after(error.retry_after_ms.map(|wait_ms| self.scaled_wait_ms(wait_ms))))
            }
            Answer::None => {
                sleep(PATIENCE).await;
                let message = format!(
                    "the recording `{}` has no answer to this request: the call of line {} was given up before one came; record \
                     the run again with `--record FILE`",
                    self.tape.name, call.line
                );
                Err(StepError::terminal("no_recording", message))
            }
        }
    }
}

#[async_trait]
impl Model for Recorded {
    async fn chat(&self, request: &ChatRequest, context: &CallContext) -> Result<ChatReply, StepError> {
        tokio::select! {
            // A call that is not wanted any more uses up no answer.
            biased;
            () = context.cancelled.cancelled() => Err(StepError::terminal("cancelled", "the call was cancelled")),
            reply = self.answer(request, context) => reply,
        }
    }

    fn name(&self) -> String {
        format!("recorded:{}", self.tape.name)
    }

    fn identity(&self) -> Value {
        json!({"provider": "recorded", "model": self.tape.name, "text": self.tape.text, "alias": self.alias})
    }
}

#[cfg(test)]
mod tests;
