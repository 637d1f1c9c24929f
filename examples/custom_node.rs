//! Registers a node kind of your own, watches the run's events, and cancels the run if it takes too long.
//!
//!     cargo run --example custom_node

use std::time::Duration;

use async_trait::async_trait;
use flowrun::{FieldFormat, Flowrun, Input, KindSpec, Node, NodeContext, NodeError, Output, RunOptions};
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
        Ok(Output { value: words.into(), ..Output::default() })
    }
}

const WORKFLOW: &str = r#"
flowrun: 1
inputs: {texts: [string]}
nodes:
  counts: {kind: count_words, for_each: texts, text: "{{ item }}"}
output: counts | sum
"#;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what happens")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flowrun = Flowrun::builder().kind(CountWords).build();
    let workflow = flowrun.parse("word-count", WORKFLOW)?.0.workflow;
    let mut options = RunOptions::default();

    let (observer, mut records) = flowrun::records();
    options.observers.add(observer);
    tokio::spawn(async move {
        while let Some(record) = records.recv().await {
            println!("{:>3} {:<10} {:?}", record.sequence, record.path, record.event);
        }
    });
    let cancel = options.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(10)).await;
        cancel.cancel();
    });

    let outcome = flowrun.run(&workflow, json!({"texts": ["to be", "or not to be"]}), options).await?;
    println!("{}: {}", outcome.status.word(), outcome.output.unwrap_or_default());
    Ok(())
}
