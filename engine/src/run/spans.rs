//! The run as `tracing` spans and events, all with the target `flowrun`, for whatever subscriber the program has.
//!
//! The run is a span `run` (INFO) and each attempt a span `step` (DEBUG), so that what a node's own code reports stands in the
//! step that it belongs to. Beginning and end of the run are INFO, retries and failures WARN, everything else about steps
//! DEBUG. Prompts, replies and values are never in them. While nobody listens it costs one look at a flag per event.

use std::future::Future;

use tokio::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing::{Span, debug, debug_span, info, info_span, warn};

use crate::event::{Event, Outcome};
use crate::graph::Workflow;
use crate::id::StepId;
use crate::node::{NodeContext, NodeError, Output};
use crate::scheduler::Scheduler;

/// The span of a run.
pub(super) fn run(workflow: &Workflow) -> Span {
    info_span!(target: "flowrun", "run", workflow = %workflow.name)
}

/// The span of an attempt.
pub(super) fn step(context: &NodeContext, kind: &str) -> Span {
    debug_span!(target: "flowrun", "step", path = %context.path, kind, attempt = context.attempt)
}

/// The attempt inside its span.
pub(super) async fn attempt(work: impl Future<Output = Result<Output, NodeError>>) -> Result<Output, NodeError> {
    debug!(target: "flowrun", "attempt started");
    let result = work.await;
    match &result {
        Ok(output) => debug!(target: "flowrun", calls = output.usage.calls, "attempt ended"),
        Err(failed) => debug!(target: "flowrun", calls = failed.usage.calls, error = %failed.error, "attempt ended"),
    }
    result
}

/// Whether anybody may listen.
pub(super) fn wanted() -> bool {
    LevelFilter::current() >= LevelFilter::WARN
}

/// Reports an entry of the log.
pub(super) fn report(event: &Event, scheduler: &Scheduler, started: Instant) {
    let path = |step: &StepId| scheduler.path(*step);
    match event {
        Event::RunStarted(run) => info!(target: "flowrun", max_parallel = run.max_parallel, "run started"),
        Event::Backoff { step, attempt, delay_ms, error } => {
            warn!(target: "flowrun", step = %path(step), attempt, delay_ms, %error, "attempt failed, another follows");
        }
        Event::FrameOpened { step, children, .. } => {
            debug!(target: "flowrun", step = %path(step), children, "frame opened");
        }
        Event::Ended { step: StepId::ROOT, .. } => {}
        Event::Ended { step, outcome } => match outcome {
            Outcome::Succeeded { recovered: None, .. } => {
                debug!(target: "flowrun", step = %path(step), "step succeeded");
            }
            Outcome::Succeeded { recovered: Some(error), .. } => {
                warn!(target: "flowrun", step = %path(step), %error, "step recovered from an error");
            }
            Outcome::Failed { error, tolerated } => {
                warn!(target: "flowrun", step = %path(step), %error, tolerated, "step failed");
            }
            Outcome::Skipped(reason) => debug!(target: "flowrun", step = %path(step), ?reason, "step skipped"),
            Outcome::Cancelled => debug!(target: "flowrun", step = %path(step), "step cancelled"),
        },
        Event::RunEnded(ended) => {
            let (status, calls, wall_ms) =
                (ended.status.word(), ended.usage.calls, started.elapsed().as_millis() as u64);
            info!(target: "flowrun", status, calls, wall_ms, "run ended");
        }
        _ => {}
    }
}
