//! A model server whose answers depend on the prompt alone, which counts what it is asked and holds answers back for as long as a test
//! wants.
//!
//! What is special about a prompt stands in it: `[say X]` is answered with X, `[status 400]` with that error, `[fail 2]` with an error
//! the first two times, `[slow 20]` after 20 ms. Every other answer is a word that is made of the prompt.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Json, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use flowrun::ValueHash;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// Calls by prompt.
pub(crate) type Calls = BTreeMap<String, u64>;

/// A server on this machine that is gone when it is dropped.
pub(crate) struct Served {
    pub(crate) url: String,
    runtime: Option<Runtime>,
}

impl Served {
    pub(crate) fn new(router: Router) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await });
        Self { url, runtime: Some(runtime) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may be dropped where nothing may be waited for.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// A reply as a server streams it, in two pieces.
pub(crate) fn streamed(reply: &str, prompt_tokens: usize) -> Response {
    let middle = reply.char_indices().nth(reply.chars().count() / 2).map_or(0, |(at, _)| at);
    let (half, rest) = reply.split_at(middle);
    let events = [
        json!({"choices": [{"delta": {"content": half}}]}),
        json!({"choices": [{"delta": {"content": rest}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": reply.len()}}),
    ];
    let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    ([(header::CONTENT_TYPE, "text/event-stream")], stream + "data: [DONE]\n\n").into_response()
}

/// The server of the proofs.
pub(crate) struct Server {
    served: Served,
    desk: Arc<Desk>,
}

struct Desk {
    calls: Mutex<Calls>,
    /// As many answers may go out.
    gate: Semaphore,
    held: AtomicUsize,
    /// Answers of prompts that contain a text; the first one counts.
    script: Vec<(&'static str, String)>,
}

impl Server {
    /// One that holds every answer back until it is [allowed](Self::allow).
    pub(crate) fn holding(script: &[(&'static str, String)]) -> Self {
        let desk = Arc::new(Desk {
            calls: Mutex::default(),
            gate: Semaphore::new(0),
            held: AtomicUsize::new(0),
            script: script.to_vec(),
        });
        let router = Router::new().route("/v1/chat/completions", post(chat)).with_state(desk.clone());
        Self { served: Served::new(router), desk }
    }

    /// One that answers at once.
    pub(crate) fn open(script: &[(&'static str, String)]) -> Self {
        let server = Self::holding(script);
        server.allow(1 << 20);
        server
    }

    pub(crate) fn url(&self) -> &str {
        &self.served.url
    }

    /// As many more answers go out.
    pub(crate) fn allow(&self, answers: usize) {
        self.desk.gate.add_permits(answers);
    }

    /// Calls that wait for their answers.
    pub(crate) fn held(&self) -> usize {
        self.desk.held.load(Ordering::SeqCst)
    }

    /// Answers that are allowed and that nobody has asked for.
    pub(crate) fn unused(&self) -> usize {
        self.desk.gate.available_permits()
    }

    pub(crate) fn calls(&self) -> Calls {
        self.desk.calls.lock().unwrap().clone()
    }
}

/// What a call is counted under: all that is said.
pub(crate) fn prompt_of(messages: &Value) -> String {
    let said = messages.as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap());
    said.collect::<Vec<_>>().join("\n")
}

/// The text after `[word ` in a prompt, up to the bracket; the last one counts, as answers of other steps may stand before it.
fn said(prompt: &str, word: &str) -> Option<String> {
    let rest = prompt.rsplit_once(&format!("[{word} "))?.1;
    Some(rest.split(']').next().unwrap().to_owned())
}

/// A call that is held; it is none any more when whoever called is gone.
struct Held<'d>(&'d AtomicUsize);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn chat(State(desk): State<Arc<Desk>>, Json(body): Json<Value>) -> Response {
    let prompt = prompt_of(&body["messages"]);
    let calls = {
        let mut calls = desk.calls.lock().unwrap();
        let calls = calls.entry(prompt.clone()).or_default();
        *calls += 1;
        *calls
    };
    {
        desk.held.fetch_add(1, Ordering::SeqCst);
        let _held = Held(&desk.held);
        desk.gate.acquire().await.unwrap().forget();
    }
    let number = |word: &str| said(&prompt, word).map(|text| text.parse::<u64>().unwrap());
    if let Some(slow) = number("slow") {
        tokio::time::sleep(Duration::from_millis(slow)).await;
    }
    let failed = number("fail").filter(|times| calls <= *times).map(|_| 500);
    if let Some(status) = failed.or(number("status")) {
        let error = Json(json!({"error": {"message": "as it was told"}}));
        return (StatusCode::from_u16(status as u16).unwrap(), error).into_response();
    }
    let scripted = desk.script.iter().find(|(part, _)| prompt.contains(part)).map(|(_, reply)| reply.clone());
    let made = || format!("word-{}", ValueHash::of_bytes(prompt.as_bytes()).short());
    streamed(&scripted.or_else(|| said(&prompt, "say")).unwrap_or_else(made), prompt.len())
}
