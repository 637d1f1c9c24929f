//! Why a step failed: a code that programs match on, a class that retries look at, a message for people.

use serde::{Deserialize, Serialize};

/// What kind of failure it was: decides whether it is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The server asked to slow down (HTTP 429).
    RateLimit,
    /// The server failed (HTTP 5xx).
    Server,
    /// The connection failed or broke off.
    Network,
    /// It took longer than allowed.
    Timeout,
    /// The reply cannot be used: empty, or against its schema after all repair turns.
    BadReply,
    /// Everything else; never retried.
    Terminal,
}

impl ErrorClass {
    /// Words that `retry: {on: …}` takes, in the order of the docs.
    pub const WORDS: [(&'static str, ErrorClass); 5] = [
        ("rate_limit", ErrorClass::RateLimit),
        ("server", ErrorClass::Server),
        ("network", ErrorClass::Network),
        ("timeout", ErrorClass::Timeout),
        ("bad_reply", ErrorClass::BadReply),
    ];

    /// The class that a word of `retry: {on: …}` names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(w, _)| *w == word).map(|(_, class)| *class)
    }
}

/// The error of a step: printable, free of secrets, as small as a pointer. Its parts are read through [`ErrorDetails`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(transparent)]
#[error("{} ({})", .0.message, .0.code)]
pub struct StepError(Box<ErrorDetails>);

/// What a [`StepError`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetails {
    /// Stable word such as `http_429`, `timeout`, `limit_items`, `expression`.
    pub code: String,
    /// Whether and when it is worth another attempt.
    pub class: ErrorClass,
    /// One line for people, with a way out where there is one.
    pub message: String,
    /// How long the server asked to wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl std::ops::Deref for StepError {
    type Target = ErrorDetails;

    fn deref(&self) -> &ErrorDetails {
        &self.0
    }
}

impl StepError {
    /// An error of the given class.
    pub fn new(code: impl Into<String>, class: ErrorClass, message: impl Into<String>) -> Self {
        Self(Box::new(ErrorDetails { code: code.into(), class, message: message.into(), retry_after_ms: None }))
    }

    /// An error that no retry can mend.
    pub fn terminal(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(code, ErrorClass::Terminal, message)
    }

    /// The same with the time that the server asked to wait, in milliseconds.
    pub fn retry_after(mut self, milliseconds: Option<u64>) -> Self {
        self.0.retry_after_ms = milliseconds;
        self
    }
}
