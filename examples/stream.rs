//! Watches a run: every step as it starts and ends, and every word as it is said.
//!
//!     cargo run --example stream
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use flowrun::{Event, Flowrun, Outcome, RunOptions, Scripted, Update};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Scripted::open(Path::new("examples/stream.replies.yaml"))?;
    let flowrun = Flowrun::builder().model("default", model).build();
    let workflow = flowrun.load("examples/hello.yaml")?;
    let mut run = flowrun.start(&workflow, json!({"city": "Porto"}), RunOptions::default())?;

    let deadline = tokio::time::sleep(Duration::from_secs(10));
    tokio::pin!(deadline);
    loop {
        let update = tokio::select! {
            update = run.next() => update,
            () = &mut deadline => {
                run.cancel();
                continue;
            }
        };
        match update {
            Some(Update::Tokens { path, text }) => {
                print!("[{path}] {text}");
                std::io::stdout().flush()?;
            }
            Some(Update::Record(record)) => match &record.event {
                Event::Started { attempt, .. } => println!("{} starts (attempt {attempt})", record.path),
                Event::Ended { outcome: Outcome::Succeeded { value, .. }, .. } => {
                    println!("\n{} = {}", record.path, run.value(*value).unwrap_or_default());
                }
                Event::Ended { outcome, .. } => println!("\n{}: {outcome:?}", record.path),
                _ => {}
            },
            Some(Update::Asked(question)) => println!("{} asks: {}", question.path, question.prompt),
            None => break,
        }
    }
    let outcome = run.outcome().await;
    println!("{} calls, {} ms", outcome.usage.calls, outcome.wall_ms);
    Ok(())
}
