//! Runs a workflow over HTTP and streams the progress, as server-sent events, to a browser or to curl.
//!
//!     cargo run --example serve       # then open http://127.0.0.1:8090/ or
//!     curl -N 'http://127.0.0.1:8090/ask?city=Lisbon'
#![expect(clippy::print_stdout, reason = "an example says where it listens")]

use std::sync::Arc;

use axum::response::{Html, IntoResponse, Response, Sse, sse::Event};
use axum::{BoxError, Router, extract::Query, extract::State, http::StatusCode, routing::get};
use flowrun::{Flowrun, LogWriter, Run, RunOptions, Scripted, Update, Workflow};
use futures_util::{Stream, stream};
use serde_json::{Map, Value, json};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Where to?</title>
<form onsubmit="go(event)"><input name="city" value="Lisbon"> <button>Go</button></form><pre id="log"></pre>
<script>let source; function go(event) { event.preventDefault(); source?.close(); log.replaceChildren();
  const lines = {}, on = (kind, act) => source.addEventListener(kind, message => act(JSON.parse(message.data)));
  source = new EventSource("/ask?" + new URLSearchParams(new FormData(event.target)));
  const say = (step, text) => (lines[step] ??= log.appendChild(new Text(`\n${step}: `))).appendData(text);
  on("tokens", data => say(data.step, data.text)); on("outcome", data => { say(data.status, data.output); source.close(); });
  on("record", data => data.step && data.type == "ended" && say(data.step, ` (${data.state})`)); }</script>"#;

type App = Arc<(Flowrun, Arc<Workflow>)>;

/// Starts a run; when the client goes away the stream is dropped, and the run with it.
async fn ask(State(app): State<App>, Query(inputs): Query<Map<String, Value>>) -> Response {
    match app.0.start(&app.1, Value::Object(inputs), RunOptions::default()) {
        Ok(run) => Sse::new(progress(run)).into_response(),
        Err(problem) => (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response(),
    }
}

fn progress(run: Run) -> impl Stream<Item = Result<Event, BoxError>> {
    stream::unfold((Some(run), LogWriter::default()), async |(mut run, mut log)| {
        let (kind, data) = match run.as_mut()?.next().await {
            Some(Update::Tokens { path, text }) => ("tokens", json!({"step": *path, "text": text})),
            Some(Update::Record(record)) => ("record", log.json(&record)),
            Some(Update::Asked(question)) => ("asked", json!({"step": *question.path, "prompt": question.prompt})),
            None => {
                let outcome = run.take()?.outcome().await;
                ("outcome", json!({"status": outcome.status.word(), "output": outcome.output}))
            }
        };
        Some((Ok(Event::default().event(kind).data(data.to_string())), (run, log)))
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Scripted::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello.replies.yaml").as_ref())?;
    let flowrun = Flowrun::builder().model("default", model).build();
    let workflow = flowrun.load(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/hello.yaml"))?;
    let app = Router::new().route("/", get(async || Html(PAGE))).route("/ask", get(ask));
    let address = std::env::args().nth(1);
    let listener = tokio::net::TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8090")).await?;
    println!("http://{}/", listener.local_addr()?);
    Ok(axum::serve(listener, app.with_state(Arc::new((flowrun, workflow)))).await?)
}
