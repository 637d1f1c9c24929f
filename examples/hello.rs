//! Runs a workflow from a file and prints its answer.
//!
//!     cargo run --example hello                                                          # replies from a file
//!     OPENAI_BASE_URL=http://127.0.0.1:8080/v1 cargo run --example hello -- MODEL        # a real model
#![expect(clippy::print_stdout, reason = "an example prints its answer")]

use std::path::Path;

use flowrun::{Flowrun, OpenAi, RunOptions, Scripted};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let builder = match (std::env::var("OPENAI_BASE_URL"), std::env::args().nth(1)) {
        (Ok(server), Some(model)) => Flowrun::builder().model("default", OpenAi::new(&server, &model, None, None)?),
        _ => Flowrun::builder().model("default", Scripted::open(Path::new("examples/hello.replies.yaml"))?),
    };
    let flowrun = builder.build();
    let workflow = flowrun.load("examples/hello.yaml")?;
    let outcome = flowrun.run(&workflow, json!({"city": "Lisbon"}), RunOptions::default()).await?;
    println!("{}", outcome.into_output()?.as_str().unwrap_or_default());
    Ok(())
}
