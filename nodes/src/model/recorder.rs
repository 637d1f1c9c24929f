//! Writes down what a model is asked and what it gives; nothing else about the model changes.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_trait::async_trait;
use flowrun_engine::failure::StepError;
use flowrun_engine::node::TokenSink;
use flowrun_engine::observer::{Observer, Observers};
use serde_json::Value;

use super::recording::{Answer, Call, RecordingFile};
use super::{CallContext, ChatReply, ChatRequest, Model, Secret};

/// A model whose calls are recorded, to be played again by [`Recorded`](super::Recorded).
pub struct Recorder {
    model: Arc<dyn Model>,
    alias: Option<String>,
    file: Arc<RecordingFile>,
    secrets: Vec<Secret>,
}

impl Recorder {
    /// Records the calls of a model to the end of a file, which is made if it is not there. Several recorders and several
    /// processes may share one. Requests and replies are written as they are: keep from it what you would keep from a log.
    ///
    /// # Errors
    /// If the file cannot be written, or is there and no recording.
    pub fn new(model: impl Model, path: &Path) -> Result<Self, StepError> {
        let file = Arc::new(RecordingFile::open(path)?);
        Ok(Self { model: Arc::new(model), alias: None, file, secrets: Vec::new() })
    }

    /// The same for a model that is asked under an alias, by a program whose keys must not get into the file.
    pub(super) fn of(model: Arc<dyn Model>, alias: &str, file: Arc<RecordingFile>, secrets: Vec<Secret>) -> Self {
        Self { model, alias: Some(alias.to_owned()), file, secrets }
    }
}

#[async_trait]
impl Model for Recorder {
    async fn chat(&self, request: &ChatRequest, context: &CallContext) -> Result<ChatReply, StepError> {
        let pieces = Arc::new(Pieces { begun: Instant::now(), to: context.tokens.clone(), came: Mutex::default() });
        let mut observers = Observers::default();
        observers.add(pieces.clone());
        let context = CallContext { tokens: TokenSink::new(observers, Arc::default()), ..context.clone() };
        let mut pending =
            Pending { recorder: self, request, sample: context.sample, pieces: &pieces, answer: Answer::None };
        let result = self.model.chat(request, &context).await;
        pending.answer = match &result {
            Ok(reply) => Answer::Reply(reply.clone()),
            Err(error) if error.code == "cancelled" => Answer::None,
            Err(error) => Answer::Error(error.clone()),
        };
        result
    }

    fn name(&self) -> String {
        self.model.name()
    }

    fn identity(&self) -> Value {
        self.model.identity()
    }
}

/// A call under way. It is written when it is dropped, because a call that runs out of time is dropped in the middle.
struct Pending<'a> {
    recorder: &'a Recorder,
    request: &'a ChatRequest,
    sample: Option<u32>,
    pieces: &'a Pieces,
    answer: Answer,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let answer = std::mem::replace(&mut self.answer, Answer::None);
        let chunks = match &answer {
            Answer::Reply(reply) => self.pieces.of(&reply.text),
            _ => Vec::new(),
        };
        let call = Call {
            line: 0,
            model: self.recorder.model.name(),
            alias: self.recorder.alias.clone(),
            sample: self.sample,
            request: self.request.clone(),
            answer,
            latency_ms: self.pieces.elapsed_ms(),
            chunks,
        };
        self.recorder.file.append(&call, &self.recorder.secrets);
    }
}

/// Passes pieces of text on and notes when each came.
struct Pieces {
    begun: Instant,
    to: TokenSink,
    came: Mutex<Came>,
}

/// The pieces of a text: milliseconds since the beginning and bytes, those of one millisecond together.
#[derive(Default)]
struct Came {
    text: String,
    chunks: Vec<(u64, usize)>,
}

impl Pieces {
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The pieces, if they make the text; what else a model sends is no part of its reply.
    fn of(&self, text: &str) -> Vec<(u64, usize)> {
        let mut came = self.came.lock().expect("BUG: a panic while a piece was noted");
        if came.text == text { std::mem::take(&mut came.chunks) } else { Vec::new() }
    }
}

impl Observer for Pieces {
    fn wants_values(&self) -> bool {
        false
    }

    fn tokens(&self, _: &str, text: &str) {
        let now = self.elapsed_ms();
        let mut came = self.came.lock().expect("BUG: a panic while a piece was noted");
        came.text.push_str(text);
        match came.chunks.last_mut() {
            Some((at, bytes)) if *at == now => *bytes += text.len(),
            _ => came.chunks.push((now, text.len())),
        }
        drop(came);
        self.to.send(text);
    }
}
