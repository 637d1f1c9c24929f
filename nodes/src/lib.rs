//! The node kinds that call language models and tools, and the models below them.
//!
//! One kind per file: [`Llm`] asks a model, [`Plan`] has a model draw a graph, [`Tools`] calls code of the program. What a model is
//! stands in [`model`]: a trait, a client for OpenAI-compatible servers, scripted replies for tests, and the table that turns
//! aliases into models.

mod llm;
pub mod model;
mod plan;
mod structured;
mod tool;

use std::sync::Arc;

use flowrun_engine::node::Kinds;

pub use llm::Llm;
pub use model::{ChatReply, ChatRequest, Message, Model, Models, Role};
pub use plan::Plan;
pub use structured::read_structured;
pub use tool::{Tool, ToolSpec, Tools, tool_fn};

/// Registers `llm` and `plan` over the given models, and `tool` over the given tools.
pub fn register(kinds: &mut Kinds, models: Models, tools: Tools) {
    let models = Arc::new(models);
    kinds.register(Llm::new(models.clone()));
    kinds.register(Plan::new(models));
    kinds.register(tools);
}

#[cfg(test)]
mod tests;
