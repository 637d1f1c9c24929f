//! Language models: what one is asked and what it gives back.

mod nearest;
mod openai;
mod recorded;
mod recorder;
mod recording;
mod scripted;
mod table;

use async_trait::async_trait;
use flowrun_engine::event::Usage;
use flowrun_engine::failure::StepError;
use flowrun_engine::node::TokenSink;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub use openai::{OpenAi, Secret};
pub use recorded::Recorded;
pub use recorder::Recorder;
pub use scripted::Scripted;
pub use table::{Models, Resolved};

/// Most tokens of a reply when nobody says otherwise.
pub const MAX_TOKENS: u64 = 1024;

/// A language model.
#[async_trait]
pub trait Model: Send + Sync + 'static {
    /// Asks for one reply.
    ///
    /// # Errors
    /// A [`StepError`] whose class says whether asking again is worth it.
    async fn chat(&self, request: &ChatRequest, context: &CallContext) -> Result<ChatReply, StepError>;

    /// What people call it, for traces: provider and name, never a key.
    fn name(&self) -> String;

    /// What makes its answers different from those of another model, for keys of caches: provider, model, address, never a key.
    /// Models of the same identity may stand in for each other.
    fn identity(&self) -> Value {
        json!({"name": self.name()})
    }
}

/// What surrounds a call.
#[derive(Clone, Default)]
pub struct CallContext {
    /// Fires when the call is to stop: the request is dropped at once.
    pub cancelled: CancellationToken,
    /// Takes text as it arrives.
    pub tokens: TokenSink,
    /// Which of several answers to the same question this one is, from 0; `None` if only one is wanted.
    pub sample: Option<u32>,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Rules and background.
    System,
    /// The question.
    User,
    /// What the model said before.
    Assistant,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who.
    pub role: Role,
    /// What.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// What a model is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    /// The conversation.
    pub messages: Vec<Message>,
    /// `max_tokens`, `temperature`, `stop`, `seed` and whatever else the server takes; sent as they are.
    pub params: IndexMap<String, Value>,
    /// JSON Schema that the reply must satisfy, where the server can hold it to one. The root is an object.
    pub json_schema: Option<Value>,
}

/// What a model gives back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatReply {
    /// The text.
    pub text: String,
    /// What it cost: one call, and the tokens as the server counts them.
    pub usage: Usage,
    /// Why it stopped: `stop`, `length`, …
    pub finish_reason: Option<String>,
}
