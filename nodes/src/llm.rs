//! `llm`: asks a language model.
//!
//! ```yaml
//! split:
//!   prompt: "List the parts of: {{ question }}"
//!   schema: [string]
//!   params: {temperature: 0}
//! ```
//!
//! Without `schema` the value is the reply's text, trimmed. With one, the schema goes along, the value is read out of the reply,
//! and a reply that does not fit goes back to the model with the reason, at most `repair` times.

#![allow(clippy::result_large_err, reason = "a failed attempt carries its cost and its report, once per attempt")]

use std::sync::Arc;

use async_trait::async_trait;
use flowrun_engine::definition::{CacheScope, FieldFormat, KindSpec};
use flowrun_engine::event::Usage;
use flowrun_engine::failure::{ErrorClass, StepError};
use flowrun_engine::node::{Input, Node, NodeContext, NodeError, Output, REPAIR_TURNS};
use flowrun_engine::retry::RetryPolicy;
use indexmap::IndexMap;
use serde_json::{Value, json};

use crate::model::{CallContext, ChatRequest, MAX_TOKENS, Message, Models, Resolved, Role};
use crate::structured::{read_structured, sent_schema};

/// The kind `llm`.
pub struct Llm {
    models: Arc<Models>,
}

impl Llm {
    /// The kind over a table of models.
    pub fn new(models: Arc<Models>) -> Self {
        Self { models }
    }
}

#[async_trait]
impl Node for Llm {
    fn spec(&self) -> KindSpec {
        KindSpec {
            work_keys: vec!["prompt".to_owned(), "ask".to_owned()],
            retry: RetryPolicy::model(),
            calls_model: true,
            cache: CacheScope::Shared,
            samples: true,
            ..KindSpec::leaf("llm")
        }
        .field("prompt", FieldFormat::Template, "the question, with `{{ }}`")
        .field("ask", FieldFormat::Slotted, "the question as literal text, with `{id}` slots")
        .field("system", FieldFormat::Template, "rules and background")
        .field("model", FieldFormat::Text, "alias of a model; `default` if not written")
        .field("params", FieldFormat::Map, "temperature, max_tokens, stop, seed, …")
        .field(
            "repair",
            FieldFormat::Count,
            "most turns to mend a reply that does not fit `schema`; 2 if not written",
        )
    }

    fn identity(&self, input: &Input) -> Value {
        identity(&self.models, input)
    }

    async fn run(&self, context: &NodeContext, input: Input) -> Result<Output, NodeError> {
        let mut conversation = Conversation::begin(&self.models, context, &input)?;
        let text = |name: &str| input.fields.get(name).and_then(Value::as_str).map(str::to_owned);
        if let Some(system) = text("system") {
            conversation.say(Role::System, system);
        }
        conversation.say(Role::User, text("prompt").or_else(|| text("ask")).unwrap_or_default());
        let Some(schema) = &input.schema else {
            let reply = conversation.ask().await?;
            return Ok(conversation.done(Value::String(reply), IndexMap::new()));
        };
        conversation.schema = Some(sent_schema(schema));
        let turns = input.fields.get("repair").and_then(Value::as_u64).unwrap_or(u64::from(REPAIR_TURNS));
        for turn in 0..=turns {
            let reply = conversation.ask().await?;
            match read_structured(&reply, schema) {
                Ok(value) => return Ok(conversation.done(value, IndexMap::new())),
                Err(problem) if turn == turns => {
                    let message = format!("the reply does not fit the schema after {turns} repair turns: {problem}");
                    return Err(conversation.failed(StepError::new("bad_reply", ErrorClass::BadReply, message)));
                }
                Err(problem) => {
                    let wanted = schema.describe();
                    conversation.say(Role::Assistant, reply);
                    conversation.say(
                        Role::User,
                        format!("{problem}. Answer again with nothing but JSON of the form {wanted}."),
                    );
                }
            }
        }
        unreachable!("BUG: the last turn returns")
    }
}

/// What answers of a model depend on beside what it is told: which model, with which parameters.
pub(crate) fn identity(models: &Models, input: &Input) -> Value {
    let resolved = models.resolve(&input.model).ok();
    resolved.map_or(Value::Null, |model| json!({"model": model.model.identity(), "params": params_of(&model, input)}))
}

/// The parameters of a request: those of the node, else of the model, else the defaults.
fn params_of(model: &Resolved, input: &Input) -> IndexMap<String, Value> {
    let mut params = IndexMap::from([("max_tokens".to_owned(), json!(MAX_TOKENS))]);
    params.extend(model.params.clone());
    if let Some(Value::Object(written)) = input.fields.get("params") {
        params.extend(written.clone());
    }
    params
}

/// A conversation with a model: what was said, what it cost, what people will want to see.
pub(crate) struct Conversation {
    model: Resolved,
    call: CallContext,
    pub(crate) params: IndexMap<String, Value>,
    pub(crate) messages: Vec<Message>,
    pub(crate) schema: Option<Value>,
    replies: Vec<Value>,
    usage: Usage,
}

impl Conversation {
    pub(crate) fn begin(models: &Models, context: &NodeContext, input: &Input) -> Result<Self, NodeError> {
        let model = models.resolve(&input.model)?;
        if let Some(other) = input.fields.get("params").filter(|params| !params.is_object() && !params.is_null()) {
            let shown: String = other.to_string().chars().take(40).collect();
            let message = format!("`params` wants a map, and its expression gives {shown}");
            return Err(StepError::terminal("bad_params", message).into());
        }
        let mut params = params_of(&model, input);
        if let (Some(seed), Some(sample)) = (params.get("seed").and_then(Value::as_u64), context.sample) {
            params.insert("seed".to_owned(), json!(seed + u64::from(sample)));
        }
        let call =
            CallContext { cancelled: context.cancelled().clone(), tokens: context.tokens(), sample: context.sample };
        let (messages, replies) = (Vec::new(), Vec::new());
        Ok(Self { model, call, params, messages, schema: None, replies, usage: Usage::default() })
    }

    pub(crate) fn say(&mut self, role: Role, content: impl Into<String>) {
        self.messages.push(Message::new(role, content));
    }

    /// One call: the reply's text, trimmed; an empty one is an error.
    pub(crate) async fn ask(&mut self) -> Result<String, NodeError> {
        let request = ChatRequest {
            messages: self.messages.clone(),
            params: self.params.clone(),
            json_schema: self.schema.clone(),
        };
        let reply = match self.model.model.chat(&request, &self.call).await {
            Ok(reply) => reply,
            Err(error) => {
                self.usage.calls += 1;
                return Err(self.failed(error));
            }
        };
        self.usage += reply.usage;
        let text = reply.text.trim().to_owned();
        self.replies.push(json!({"text": text, "finish_reason": reply.finish_reason}));
        if text.is_empty() {
            return Err(self.failed(StepError::new("empty_reply", ErrorClass::BadReply, "the model's reply is empty")));
        }
        Ok(text)
    }

    fn report(&self, more: IndexMap<String, Value>) -> Value {
        let mut report = json!({
            "model": self.model.model.name(), "messages": self.messages, "params": self.params, "replies": self.replies,
        });
        if let Value::Object(map) = &mut report {
            map.extend(more);
        }
        report
    }

    pub(crate) fn done(&self, value: Value, more: IndexMap<String, Value>) -> Output {
        Output { value, usage: self.usage, provenance: Some(self.report(more)) }
    }

    pub(crate) fn failed(&self, error: StepError) -> NodeError {
        NodeError { error, usage: self.usage, provenance: Some(self.report(IndexMap::new())) }
    }
}
