//! A step that asks a person: the run goes on meanwhile, and the answer comes through its handle.
//!
//!     cargo run --example human           # answers at the keyboard; the end of the input leaves the step unanswered
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::io::BufRead;

use flowrun::{Answers, Flowrun, RunOptions, Status, Update};
use serde_json::{Value, json};

const LETTER: &str = "
flowrun: 1
inputs: {to: string}
nodes:
  draft: {value: \"'Dear ' ~ to ~ ', come and see us' ~ (last.check.more if last.check else '') ~ '.'\"}
  check:
    kind: human
    prompt: \"Send this? {{ draft }}\"
    schema: {ok: boolean, more: string}
    next:
      - {when: check.ok, to: sent}
      - {to: draft, max: 3}
  sent: {value: draft}
output: sent
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flowrun = Flowrun::builder().build();
    let workflow = flowrun.parse("letter.yaml", LETTER)?;
    // Without this nobody is waited for: the run would end as suspended.
    let options = RunOptions { answers: Some(Answers::default()), ..RunOptions::default() };
    let mut run = flowrun.start(&workflow, json!({"to": "Ada"}), options)?;
    while let Some(update) = run.next().await {
        let Update::Asked(question) = update else { continue };
        println!("{}: {}", question.path, question.prompt);
        let Some(line) = std::io::stdin().lock().lines().next() else { break };
        let answer = match line?.as_str() {
            "yes" => json!({"ok": true, "more": ""}),
            more => json!({"ok": false, "more": Value::from(format!(" {more}"))}),
        };
        run.answer(&question.path, answer).await?;
    }
    run.leave();
    let outcome = run.outcome().await;
    match outcome.status {
        Status::Suspended => println!("unanswered: {}", outcome.asked.join(", ")),
        _ => println!("{}", outcome.into_output()?),
    }
    Ok(())
}
