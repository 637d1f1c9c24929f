//! Registers a node kind of your own and uses it in a workflow that is built in code.
//!
//!     cargo run --example custom_node
#![expect(clippy::print_stdout, reason = "an example prints its answer")]

use async_trait::async_trait;
use flowrun::{
    FieldFormat, Flowrun, Input, KindSpec, Node, NodeContext, NodeDef, NodeError, Output, RunOptions, StepError,
    WorkflowDef,
};
use serde_json::json;

/// The kind `count_words`: how many words its `text` has.
struct CountWords;

#[async_trait]
impl Node for CountWords {
    fn spec(&self) -> KindSpec {
        KindSpec::leaf("count_words").required("text", FieldFormat::Template, "the text whose words are counted")
    }

    async fn run(&self, _: &NodeContext, input: Input) -> Result<Output, NodeError> {
        let words = input.fields["text"].as_str().unwrap_or_default().split_whitespace().count();
        if words == 0 {
            return Err(StepError::terminal("no_words", "there is nothing to count").into());
        }
        Ok(Output { value: words.into(), ..Output::default() })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flowrun = Flowrun::builder().kind(CountWords).build();
    let counts = NodeDef::new("count_words").for_each("texts").field("text", "{{ item }}");
    let definition = WorkflowDef::new("word-count")
        .input("texts", "[string]".parse()?, None)
        .node("counts", counts)
        .output("counts | sum");
    let workflow = flowrun.check(definition)?.workflow;

    let inputs = json!({"texts": ["to be", "or not to be"]});
    let outcome = flowrun.run(&workflow, inputs, RunOptions::default()).await?;
    println!("{} words", outcome.into_output()?);

    // What went wrong is a value to match on.
    let outcome = flowrun.run(&workflow, json!({"texts": ["to be", ""]}), RunOptions::default()).await?;
    match outcome.into_output() {
        Err(failure) if failure.error.as_ref().is_some_and(|error| error.code == "no_words") => {
            println!("{} failed as it should", failure.failed_step.unwrap_or_default());
        }
        other => return Err(format!("unexpected: {other:?}").into()),
    }
    Ok(())
}
