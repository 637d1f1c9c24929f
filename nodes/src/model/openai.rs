//! Any server that speaks the OpenAI chat-completions protocol: llama.cpp, vLLM, Ollama, most hosted services.
//!
//! Replies are streamed (server-sent events), so that progress shows and a cancelled call ends at once: dropping the future
//! closes the connection. Redirects are not followed, so a key never reaches another host. Loopback is never proxied.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use flowrun_engine::event::Usage;
use flowrun_engine::failure::{ErrorClass, StepError};
use futures_util::{StreamExt, TryStreamExt};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::{Map, Value, json};
use sse_stream::SseByteStream;

use super::{CallContext, ChatReply, ChatRequest, Model};

/// Largest reply in bytes, protocol included.
const REPLY_BYTES_MAX: usize = 16 << 20;
/// Longest wait for one reply, when nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Fewest bytes of a key that is looked for in texts: servers without keys are given words such as `none`.
const SECRET_MIN: usize = 8;

/// A key that never prints.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps a key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// A text with `(secret)` wherever the key occurs in it, also as a part of JSON. A word of a few letters is no secret.
    pub(super) fn hidden_in(&self, text: String) -> String {
        let escaped = Value::from(self.0.as_str()).to_string();
        let escaped = escaped.trim_matches('"');
        if self.0.len() < SECRET_MIN || !(text.contains(&self.0) || text.contains(escaped)) {
            return text;
        }
        text.replace(escaped, "(secret)").replace(&self.0, "(secret)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A model behind an OpenAI-compatible server.
#[derive(Debug)]
pub struct OpenAi {
    client: Client,
    base_url: Url,
    model: String,
    key: Option<Secret>,
    timeout: Duration,
    /// The server said that it takes no `response_format`.
    no_schema: AtomicBool,
}

impl OpenAi {
    /// A client for the model of that name at `base_url` (such as `http://127.0.0.1:8080/v1`).
    ///
    /// # Errors
    /// If the address is none.
    pub fn new(base_url: &str, model: &str, key: Option<Secret>, timeout: Option<Duration>) -> Result<Self, StepError> {
        let bad = |why: String| {
            StepError::terminal("bad_base_url", format!("`{base_url}` is no address of a model server: {why}"))
        };
        let url = Url::parse(base_url).map_err(|error| bad(error.to_string()))?;
        if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
            return Err(bad("it begins with `http://` or `https://`".to_owned()));
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(20))
            .user_agent(concat!("flowrun/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        if url.scheme() == "http" {
            // Small servers close idle connections without a word, and a request that meets the closing is lost.
            builder = builder.tls_certs_only(std::iter::empty()).pool_max_idle_per_host(0);
        }
        let client = builder.build().map_err(|error| bad(explain(&error)))?;
        let timeout = timeout.unwrap_or(TIMEOUT);
        Ok(Self { client, base_url: url, model: model.to_owned(), key, timeout, no_schema: AtomicBool::new(false) })
    }

    /// Names of the models that the server has (`GET /models`).
    ///
    /// # Errors
    /// As for a chat.
    pub async fn list(&self) -> Result<Vec<String>, StepError> {
        let request = self.authorized(self.client.get(self.endpoint("models"))).timeout(Duration::from_secs(10));
        let response = request.send().await.map_err(|error| self.network(&error))?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let body: Value = response.json().await.map_err(|error| self.network(&error))?;
        let models = body["data"].as_array().into_iter().flatten();
        Ok(models.filter_map(|model| model["id"].as_str()).map(str::to_owned).collect())
    }

    fn endpoint(&self, path: &str) -> String {
        format!("{}/{path}", self.base_url.as_str().trim_end_matches('/'))
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(&key.0),
            None => request,
        }
    }

    fn body(&self, request: &ChatRequest, with_schema: bool) -> Value {
        let mut body = Map::new();
        body.insert("model".into(), json!(self.model));
        body.insert("messages".into(), json!(request.messages));
        body.insert("stream".into(), json!(true));
        body.insert("stream_options".into(), json!({"include_usage": true}));
        body.extend(
            request
                .params
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        if let Some(schema) = request.json_schema.as_ref().filter(|_| with_schema) {
            let format =
                json!({"type": "json_schema", "json_schema": {"name": "reply", "strict": true, "schema": schema}});
            body.insert("response_format".into(), format);
        }
        Value::Object(body)
    }

    async fn ask(&self, request: &ChatRequest, context: &CallContext) -> Result<ChatReply, StepError> {
        let with_schema = request.json_schema.is_some() && !self.no_schema.load(Ordering::Relaxed);
        let mut response = self.send(&self.body(request, with_schema)).await?;
        if with_schema && matches!(response.status(), StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY) {
            let refusal = self.refusal(response).await;
            let about_schema = ["response_format", "json_schema", "schema", "grammar"];
            if !about_schema.iter().any(|word| refusal.message.contains(word)) {
                return Err(refusal);
            }
            self.no_schema.store(true, Ordering::Relaxed);
            response = self.send(&self.body(request, false)).await?;
        }
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let is_stream = response
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if is_stream { self.read_stream(response, context).await } else { self.read_whole(response, context).await }
    }

    async fn send(&self, body: &Value) -> Result<Response, StepError> {
        let request = self.authorized(self.client.post(self.endpoint("chat/completions")).json(body));
        request.send().await.map_err(|error| self.network(&error))
    }

    async fn read_stream(&self, response: Response, context: &CallContext) -> Result<ChatReply, StepError> {
        let mut received = 0;
        let bytes = response.bytes_stream().map_err(|error| self.network(&error)).and_then(move |chunk| {
            received += chunk.len();
            let within = received <= REPLY_BYTES_MAX;
            async move { if within { Ok(chunk) } else { Err(too_large()) } }
        });
        let mut events = SseByteStream::new(Box::pin(bytes));
        let mut reply = ChatReply { usage: Usage { calls: 1, ..Usage::default() }, ..ChatReply::default() };
        let mut finished = false;
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| broken(&error))?;
            let Some(data) = event.data else { continue };
            if data.trim() == "[DONE]" {
                finished = true;
                break;
            }
            let Ok(chunk) = serde_json::from_str::<Value>(&data) else {
                return Err(StepError::new(
                    "bad_stream",
                    ErrorClass::Server,
                    "the server sent an event that is no JSON",
                ));
            };
            if let Some(message) = chunk["error"]["message"].as_str() {
                return Err(StepError::new(
                    "server_error",
                    ErrorClass::Server,
                    format!("the server gave up: {}", short(message)),
                ));
            }
            finished |= take_chunk(&chunk, &mut reply, context);
        }
        if finished { Ok(reply) } else { Err(self.closed_early()) }
    }

    async fn read_whole(&self, response: Response, context: &CallContext) -> Result<ChatReply, StepError> {
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| self.network(&error))?);
            if bytes.len() > REPLY_BYTES_MAX {
                return Err(too_large());
            }
        }
        let body: Value = serde_json::from_slice(&bytes).map_err(|_| {
            let shown = short(&String::from_utf8_lossy(&bytes));
            StepError::terminal("bad_protocol", format!("the server does not answer like a model server: {shown}"))
        })?;
        let mut reply = ChatReply { usage: usage(&body["usage"]), ..ChatReply::default() };
        reply.text = body["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
        reply.finish_reason = body["choices"][0]["finish_reason"].as_str().map(str::to_owned);
        context.tokens.send(&reply.text);
        Ok(reply)
    }

    /// The error for a reply with an HTTP error status, with the body's own message.
    async fn refusal(&self, response: Response) -> StepError {
        let status = response.status();
        let retry_after_ms = retry_after_ms(&response);
        let body = response.bytes().await.unwrap_or_default();
        let text = String::from_utf8_lossy(&body[..body.len().min(4_000)]).into_owned();
        let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
        let error = &parsed["error"];
        let message = error["message"].as_str().or(error.as_str()).or(parsed["message"].as_str()).unwrap_or(&text);
        let class = match status.as_u64() {
            408 => ErrorClass::Timeout,
            429 => ErrorClass::RateLimit,
            500.. => ErrorClass::Server,
            _ => ErrorClass::Terminal,
        };
        let help = match status.as_u64() {
            401 | 403 if self.key.is_none() => {
                "; no key was sent: keys go only to servers that you configured (`flowrun models`)"
            }
            401 | 403 => "; the key was refused (`flowrun models` shows what is configured)",
            404 => "; is the model's name right, and does the address end in `/v1`? (`flowrun models`)",
            300..=399 => "; redirects are not followed: write the final address",
            _ => "",
        };
        let host = self.base_url.host_str().unwrap_or_default();
        // Some servers repeat the key that they refuse.
        let message = self.key.iter().fold(short(message), |message, key| key.hidden_in(message));
        let message = format!("{host} answered HTTP {status}: {message}{help}");
        StepError::new(format!("http_{}", status.as_u16()), class, message).retry_after(retry_after_ms)
    }

    fn network(&self, error: &reqwest::Error) -> StepError {
        let host = self.base_url.host_str().unwrap_or_default();
        let port = self.base_url.port_or_known_default().unwrap_or_default();
        if error.is_timeout() {
            return StepError::new("timeout", ErrorClass::Timeout, format!("{host}:{port} did not answer in time"));
        }
        if error.is_connect() {
            let message = format!("{host}:{port} cannot be reached: {}; is the model server running?", explain(error));
            return StepError::new("unreachable", ErrorClass::Network, message);
        }
        StepError::new(
            "connection",
            ErrorClass::Network,
            format!("the connection to {host}:{port} failed: {}", explain(error)),
        )
    }

    fn closed_early(&self) -> StepError {
        let host = self.base_url.host_str().unwrap_or_default();
        StepError::new(
            "connection",
            ErrorClass::Network,
            format!("{host} closed the connection in the middle of a reply"),
        )
    }
}

#[async_trait]
impl Model for OpenAi {
    async fn chat(&self, request: &ChatRequest, context: &CallContext) -> Result<ChatReply, StepError> {
        let slow = || {
            let seconds = self.timeout.as_secs_f64();
            let message = format!("no complete reply within the model's `timeout` of {seconds} s");
            StepError::new("timeout", ErrorClass::Timeout, message)
        };
        tokio::select! {
            reply = tokio::time::timeout(self.timeout, self.ask(request, context)) => reply.unwrap_or_else(|_| Err(slow())),
            () = context.cancelled.cancelled() => Err(StepError::terminal("cancelled", "the call was cancelled")),
        }
    }

    fn name(&self) -> String {
        format!("openai:{} at {}", self.model, self.base_url.host_str().unwrap_or_default())
    }

    fn identity(&self) -> Value {
        // The origin and the path alone: what else an address can carry may be a secret.
        let (origin, path) = (self.base_url.origin().ascii_serialization(), self.base_url.path().trim_end_matches('/'));
        json!({"provider": "openai", "model": self.model, "base_url": format!("{origin}{path}")})
    }
}

/// A number as the classes of HTTP are usually compared.
trait Code {
    fn as_u64(&self) -> u64;
}

impl Code for StatusCode {
    fn as_u64(&self) -> u64 {
        u64::from(self.as_u16())
    }
}

/// Whether the address is this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    }
}

/// Takes what one event of the stream says; whether it says that the reply is complete.
fn take_chunk(chunk: &Value, reply: &mut ChatReply, context: &CallContext) -> bool {
    if chunk["usage"].is_object() {
        reply.usage = usage(&chunk["usage"]);
    }
    let choice = &chunk["choices"][0];
    if let Some(text) = choice["delta"]["content"].as_str() {
        reply.text.push_str(text);
        context.tokens.send(text);
    }
    if let Some(reason) = choice["finish_reason"].as_str() {
        reply.finish_reason = Some(reason.to_owned());
    }
    reply.finish_reason.is_some()
}

fn usage(reported: &Value) -> Usage {
    let count = |key: &str| reported[key].as_u64().unwrap_or_default();
    Usage { calls: 1, prompt_tokens: count("prompt_tokens"), completion_tokens: count("completion_tokens") }
}

/// `Retry-After` in milliseconds: seconds, or an HTTP date.
fn retry_after_ms(response: &Response) -> Option<u64> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return (0.0..1e9).contains(&seconds).then_some((seconds * 1e3) as u64);
    }
    let at = httpdate(text)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    Some(at.saturating_sub(now) * 1_000)
}

/// Seconds since 1970 of a date such as `Tue, 24 Nov 2026 10:00:00 GMT`.
fn httpdate(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.split([' ', ':']).filter(|part| !part.is_empty()).collect();
    let [_, day, month, year, hour, minute, second, ..] = parts.as_slice() else { return None };
    let number = |text: &str| text.parse::<i64>().ok();
    let month = MONTHS.iter().position(|name| name == month)? as i64 + 1;
    let (year, day) = (number(year)?, number(day)?);
    let shifted = if month <= 2 { year - 1 } else { year };
    let era_year = shifted - shifted.div_euclid(400) * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        shifted.div_euclid(400) * 146_097 + era_year * 365 + era_year / 4 - era_year / 100 + day_of_year - 719_468;
    u64::try_from(days * 86_400 + number(hour)? * 3_600 + number(minute)? * 60 + number(second)?).ok()
}

fn short(text: &str) -> String {
    let clean: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    if clean.is_empty() { "(no message)".to_owned() } else { clean }
}

fn too_large() -> StepError {
    StepError::terminal("reply_too_large", format!("the server's reply is larger than {REPLY_BYTES_MAX} bytes"))
}

fn broken(error: &impl fmt::Display) -> StepError {
    let text = error.to_string();
    if text.contains("larger than") {
        too_large()
    } else {
        StepError::new("connection", ErrorClass::Network, short(&text))
    }
}

/// The innermost cause, without the address (which may hold more than its host).
fn explain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    short(&cause.to_string())
}

#[cfg(test)]
mod tests;
