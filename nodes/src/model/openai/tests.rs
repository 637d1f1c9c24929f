//! Real HTTP over loopback against a small server that says what a test wants it to say.

use std::sync::{Arc, Mutex};

use flowrun_engine::observer::{Observer, Observers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::{Message, Role};
use super::*;

/// Keeps the pieces of text that a step sends.
#[derive(Default)]
struct Pieces(Mutex<Vec<String>>);

impl Observer for Pieces {
    fn tokens(&self, _: &str, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// A server that answers each connection with the next reply and notes what it was asked. After the last it stays silent.
async fn server(replies: Vec<String>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = seen.clone();
    tokio::spawn(async move {
        let mut replies = replies.into_iter();
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let read = socket.read(&mut buffer).await.unwrap_or(0);
                request.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let length = text
                    .to_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|rest| rest.split('\r').next()?.parse().ok());
                let body = text.split("\r\n\r\n").nth(1).map_or(0, str::len);
                if read == 0 || text.contains("\r\n\r\n") && body >= length.unwrap_or(0) {
                    break;
                }
            }
            requests.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
            match replies.next() {
                Some(reply) => drop(socket.write_all(reply.as_bytes()).await),
                None => {
                    let closed = socket.read(&mut buffer).await.unwrap_or(0) == 0;
                    requests.lock().unwrap().push(format!("closed: {closed}"));
                }
            }
        }
    });
    (url, seen)
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn sse(events: &[&str]) -> String {
    let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    http("200 OK", "Content-Type: text/event-stream\r\n", &body)
}

/// Waits until the server has seen what it should, for ten seconds at most.
async fn until(seen: &Mutex<Vec<String>>, holds: impl Fn(&[String]) -> bool) {
    for _ in 0..1_000 {
        if holds(&seen.lock().unwrap()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the server saw {:?}", seen.lock().unwrap());
}

fn request() -> ChatRequest {
    ChatRequest { messages: vec![Message::new(Role::User, "Hi")], ..ChatRequest::default() }
}

async fn chat(url: &str, key: Option<&str>) -> Result<ChatReply, StepError> {
    chat_within(url, key, Duration::from_secs(30)).await
}

async fn chat_within(url: &str, key: Option<&str>, timeout: Duration) -> Result<ChatReply, StepError> {
    let model = OpenAi::new(url, "m", key.map(Secret::new), Some(timeout)).unwrap();
    model.chat(&request(), &CallContext::default()).await
}

#[tokio::test]
async fn a_stream_is_read_with_its_usage_and_tokens() {
    let reply = sse(&[
        r#"{"choices":[{"delta":{"role":"assistant","content":"Hel"}}]}"#,
        r#"{"choices":[{"delta":{"content":"lo"},"finish_reason":"stop"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#,
        "[DONE]",
    ]);
    let (url, seen) = server(vec![reply]).await;
    let pieces = Arc::new(Pieces::default());
    let mut observers = Observers::default();
    observers.add(pieces.clone());
    let tokens = flowrun_engine::node::TokenSink::new(observers, "a".into());
    let model = OpenAi::new(&url, "m", Some(Secret::new("sk-1")), None).unwrap();
    let context = CallContext { tokens, ..CallContext::default() };
    let reply = model.chat(&request(), &context).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.finish_reason.as_deref()), ("Hello", Some("stop")));
    assert_eq!(reply.usage, Usage { calls: 1, prompt_tokens: 7, completion_tokens: 2 });
    assert_eq!(*pieces.0.lock().unwrap(), ["Hel", "lo"]);
    let sent = seen.lock().unwrap()[0].clone();
    assert!(sent.contains("authorization: Bearer sk-1") && sent.contains(r#""include_usage":true"#), "{sent}");
    assert!(!format!("{model:?}").contains("sk-1"));
}

#[tokio::test]
async fn a_whole_reply_does_as_well() {
    let body = r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let (url, _) = server(vec![http("200 OK", "Content-Type: application/json\r\n", body)]).await;
    let reply = chat(&url, None).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.finish_reason.as_deref()), ("Hi", Some("length")));
}

#[tokio::test]
async fn errors_keep_their_class_and_the_servers_words() {
    let check = async |reply: String, code: &str, class: ErrorClass, words: &str| {
        let (url, _) = server(vec![reply]).await;
        let error = chat(&url, Some("sk-secret")).await.expect_err(code);
        assert_eq!((error.code.as_str(), error.class), (code, class), "{error}");
        assert!(error.message.contains(words), "{error}");
        assert!(!error.message.contains("sk-secret"));
        error
    };
    let json = "Content-Type: application/json\r\n";
    check(
        http("401 Unauthorized", json, r#"{"error":{"message":"bad key"}}"#),
        "http_401",
        ErrorClass::Terminal,
        "bad key",
    )
    .await;
    let repeats = r#"{"error":{"message":"sk-secret is no key"}}"#;
    check(http("403 Forbidden", json, repeats), "http_403", ErrorClass::Terminal, "(secret) is no key").await;
    check(http("404 Not Found", json, r#"{"error":"no model"}"#), "http_404", ErrorClass::Terminal, "no model").await;
    check(http("500 Oops", "", "on fire"), "http_500", ErrorClass::Server, "on fire").await;
    let limited = http("429 Slow", "Retry-After: 7\r\n", "{}");
    assert_eq!(check(limited, "http_429", ErrorClass::RateLimit, "429").await.retry_after_ms, Some(7_000));
    let moved = http("302 Found", "Location: http://127.0.0.1:9/elsewhere\r\n", "");
    check(moved, "http_302", ErrorClass::Terminal, "redirects are not followed").await;
    let half = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"Hal\"}}]}\n\n";
    check(half.to_owned(), "connection", ErrorClass::Network, "in the middle").await;
    check(http("200 OK", "Content-Type: text/html\r\n", "<html>"), "bad_protocol", ErrorClass::Terminal, "<html>")
        .await;
    let error_event = sse(&[r#"{"error":{"message":"out of memory"}}"#]);
    check(error_event, "server_error", ErrorClass::Server, "out of memory").await;
}

#[tokio::test]
async fn a_hang_times_out_and_nobody_listening_is_said() {
    let (url, _) = server(vec![]).await;
    let hung = chat_within(&url, None, Duration::from_millis(300)).await;
    assert_eq!(hung.unwrap_err().class, ErrorClass::Timeout);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = chat(&format!("http://{closed}/v1"), None).await.unwrap_err();
    assert_eq!((error.code.as_str(), error.class), ("unreachable", ErrorClass::Network));
    assert!(OpenAi::new("ftp://x", "m", None, None).is_err() && OpenAi::new("nonsense", "m", None, None).is_err());
}

#[tokio::test]
async fn cancelling_closes_the_connection_at_once() {
    let (url, seen) = server(vec![]).await;
    let model = OpenAi::new(&url, "m", None, None).unwrap();
    let context = CallContext::default();
    let cancel = context.cancelled.clone();
    let request = request();
    let (reply, ()) = tokio::join!(model.chat(&request, &context), async {
        until(&seen, |seen| !seen.is_empty()).await;
        cancel.cancel();
    });
    assert_eq!(reply.unwrap_err().code, "cancelled");
    until(&seen, |seen| seen.last().is_some_and(|last| last == "closed: true")).await;
}

#[tokio::test]
async fn a_server_without_schemas_is_asked_again_without_one() {
    let refuses = http("400 Bad", "", r#"{"error":{"message":"response_format is not supported"}}"#);
    let answers = sse(&[r#"{"choices":[{"delta":{"content":"{}"},"finish_reason":"stop"}]}"#, "[DONE]"]);
    let (url, seen) = server(vec![refuses, answers.clone(), answers]).await;
    let model = OpenAi::new(&url, "m", None, None).unwrap();
    let request = ChatRequest { json_schema: Some(json!({"type": "object"})), ..request() };
    for _ in 0..2 {
        assert_eq!(model.chat(&request, &CallContext::default()).await.unwrap().text, "{}");
    }
    let with_schema: Vec<bool> = seen.lock().unwrap().iter().map(|sent| sent.contains("json_schema")).collect();
    assert_eq!(with_schema, [true, false, false]);
}

#[test]
fn an_identity_is_the_model_and_the_address_without_secrets() {
    let identity =
        |url: &str, model: &str| OpenAi::new(url, model, Some(Secret::new("sk-1")), None).unwrap().identity();
    let expected = json!({"provider": "openai", "model": "m", "base_url": "http://h.example:8080/v1"});
    assert_eq!(identity("http://user:word@h.example:8080/v1/?key=sk-2#sk-3", "m"), expected);
    assert_ne!(identity("http://h.example:8080/v1", "n"), expected);
    assert_ne!(identity("http://h.example:8081/v1", "m"), expected);
}

#[test]
fn http_dates_are_read() {
    assert_eq!(httpdate("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    assert_eq!(httpdate("Tue, 24 Nov 2026 10:00:00 GMT"), Some(1_795_514_400));
    assert_eq!(httpdate("soon"), None);
}
