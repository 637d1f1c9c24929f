//! The driver: runs a workflow on tokio around the pure scheduler.

mod observer;

use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use observer::{Observer, Observers};

use crate::event::{Bound, Status, Usage};
use crate::failure::StepError;
use crate::graph::Workflow;
use crate::node::Kinds;

/// How a run is driven.
#[derive(Clone)]
pub struct RunOptions {
    /// Most leaf steps that run at once.
    pub max_parallel: u32,
    /// Most model calls; `None`: what the workflow says.
    pub calls_max: Option<u64>,
    /// Ends the run when it fires.
    pub cancel: CancellationToken,
    /// Who watches.
    pub observers: Observers,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { max_parallel: 16, calls_max: None, cancel: CancellationToken::new(), observers: Observers::default() }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOutcome {
    /// In one word.
    pub status: Status,
    /// The output; with `exhausted` the best answer so far.
    pub output: Option<Value>,
    /// Why there is no output.
    pub error: Option<StepError>,
    /// Path of the step that failed.
    pub failed_step: Option<String>,
    /// The run-wide quantity that was used up.
    pub bound: Option<Bound>,
    /// What all attempts cost.
    pub usage: Usage,
    /// Leaf steps that started.
    pub steps: u64,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
}

/// Why a run did not begin.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StartError {
    /// An input that the workflow does not declare.
    #[error("`{name}` is no input of `{workflow}`{}", .suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownInput {
        /// The input.
        name: String,
        /// The workflow.
        workflow: String,
        /// The closest declared input.
        suggestion: Option<String>,
    },
    /// A required input without a value.
    #[error("input `{name}` is required ({schema})")]
    MissingInput {
        /// The input.
        name: String,
        /// Its type, for people.
        schema: String,
    },
    /// A value that the input's schema refuses.
    #[error("input `{name}`: {reason}")]
    BadInput {
        /// The input.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Runs a workflow to its end.
///
/// Inputs are one JSON value per declared input; missing ones take their defaults.
///
/// # Errors
/// A [`StartError`] if the inputs do not fit; every later failure is a [`RunOutcome`] with another status than `success`.
pub async fn run(
    _workflow: &Arc<Workflow>,
    _inputs: serde_json::Map<String, Value>,
    _kinds: &Kinds,
    _options: RunOptions,
) -> Result<RunOutcome, StartError> {
    todo!()
}
