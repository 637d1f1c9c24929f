//! Has a model draw a question as a graph of sub-questions, runs it, and shows the sub-answers.
//!
//!     cargo run --example decompose                                                                   # replies from a file
//!     OPENAI_BASE_URL=http://127.0.0.1:8080/v1 cargo run --example decompose -- MODEL "QUESTION"      # a real model
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::path::Path;

use flowrun::{Decision, Event, Flowrun, OpenAi, RunOptions, Scripted, Update};
use serde_json::json;

const QUESTION: &str = "How much older is the Eiffel Tower than the Empire State Building?";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let builder = match (std::env::var("OPENAI_BASE_URL"), arguments.next()) {
        (Ok(server), Some(model)) => Flowrun::builder().model("default", OpenAi::new(&server, &model, None, None)?),
        _ => Flowrun::builder().model("default", Scripted::open(Path::new("examples/decompose.replies.yaml"))?),
    };
    let question = arguments.next().unwrap_or_else(|| QUESTION.to_owned());
    let flowrun = builder.build();
    let workflow = flowrun.load("@question-graph")?;
    let options = RunOptions { calls_max: Some(30), ..RunOptions::default() };
    let mut run = flowrun.start(&workflow, json!({"question": question}), options)?;
    while let Some(update) = run.next().await {
        let Update::Record(record) = update else { continue };
        match &record.event {
            Event::Decided { decision: Decision::Graph { graph, .. }, .. } => {
                let steps: Vec<&str> = graph.nodes().iter().map(|node| &*node.name).collect();
                println!("the model drew: {}", steps.join(", "));
            }
            Event::Settled { result: Ok(value), .. } => {
                println!("{}: {}", record.path, run.value(*value).unwrap_or_default());
            }
            _ => {}
        }
    }
    println!("{}", run.outcome().await.into_output()?.as_str().unwrap_or_default());
    Ok(())
}
