//! A model of your own: one that asks a second model when the first one fails.
//!
//!     cargo run --example custom_model
#![expect(clippy::print_stdout, reason = "an example prints its answer")]

use async_trait::async_trait;
use flowrun::{CallContext, ChatReply, ChatRequest, Flowrun, Model, RunOptions, Scripted, StepError};
use serde_json::json;

/// Asks the first model, and the second one if that fails.
struct Fallback<A, B>(A, B);

#[async_trait]
impl<A: Model, B: Model> Model for Fallback<A, B> {
    async fn chat(&self, request: &ChatRequest, context: &CallContext) -> Result<ChatReply, StepError> {
        match self.0.chat(request, context).await {
            Err(error) if !context.cancelled.is_cancelled() => {
                println!("{}: {error}; asking {}", self.0.name(), self.1.name());
                self.1.chat(request, context).await
            }
            reply => reply,
        }
    }

    fn name(&self) -> String {
        format!("{} or {}", self.0.name(), self.1.name())
    }
}

const WORKFLOW: &str = "
flowrun: 1
inputs: {country: string}
nodes:
  capital: {prompt: 'What is the capital of {{ country }}?'}
output: capital
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broken = Scripted::parse("broken", "- {status: 503, reply: closed for repairs}")?;
    let working = Scripted::parse("working", "- {match: Portugal, reply: Lisbon}")?;
    let flowrun = Flowrun::builder().model("default", Fallback(broken, working)).build();
    let workflow = flowrun.parse("capital", WORKFLOW)?;
    let outcome = flowrun.run(&workflow, json!({"country": "Portugal"}), RunOptions::default()).await?;
    println!("{}", outcome.into_output()?.as_str().unwrap_or_default());
    Ok(())
}
