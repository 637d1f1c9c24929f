//! The driver: runs a workflow on tokio around the pure scheduler.
//!
//! [`run`] turns the scheduler's commands into evaluations (`evaluate.rs`), tasks and timers (`drive.rs`), and what comes
//! of them into events. Nothing is decided here: whoever wants to know why a step ran reads the scheduler.

mod ask;
mod attempts;
mod drive;
mod evaluate;
mod fold;
mod input;
mod journal;
mod lookup;
mod people;
mod recall;
mod spans;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use crate::observer::{Observer, Observers, Question};
use drive::Driver;
pub use journal::Recording;
pub use people::{AnswerError, Answers};

use crate::cache::{Flights, Memo};
use crate::diagnostic::did_you_mean;
use crate::event::{Bound, Status, Usage};
use crate::failure::StepError;
use crate::graph::Workflow;
use crate::node::Kinds;
use crate::store::StoreError;

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
    /// How people answer; `None`: nobody is there.
    pub answers: Option<Answers>,
    /// Where it is recorded, and where answers of earlier runs are; `None`: nowhere.
    pub record: Option<Recording>,
    /// Attempts in flight that it shares with other runs.
    pub flights: Flights,
    /// Whether answers of earlier runs are not looked at.
    pub fresh: bool,
    /// The run that it replays.
    pub memo: Option<Arc<Memo>>,
    /// Values that take the place of what steps would give, by path.
    pub corrections: BTreeMap<String, Value>,
}

impl Default for RunOptions {
    fn default() -> Self {
        let (cancel, observers) = (CancellationToken::new(), Observers::default());
        Self {
            max_parallel: 16,
            calls_max: None,
            cancel,
            observers,
            answers: None,
            record: None,
            flights: Flights::default(),
            fresh: false,
            memo: None,
            corrections: BTreeMap::new(),
        }
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
    /// Loops that ended at a bound that the workflow declares: the paths of their steps, in the order of their ends.
    pub limits_reached: Vec<String>,
    /// Steps that wait for an answer, when the run is `suspended`.
    pub asked: Vec<String>,
    /// Leaf steps that started.
    pub steps: u64,
    /// Answers that it did not have to make.
    pub reused: Reused,
    /// For how long it was driven, in milliseconds; of a run that was cut off, what its log tells.
    pub wall_ms: u64,
}

/// Answers that a run did not have to make, and what somebody else paid for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reused {
    /// Steps that took one.
    pub steps: u64,
    /// What that would have cost.
    pub usage: Usage,
}

impl RunOutcome {
    /// A run that cannot go on because it cannot be recorded.
    fn unrecorded(why: &StoreError, usage: Usage) -> Self {
        let message = format!("the run stopped here, because it could not be recorded: {why}");
        Self {
            status: Status::Failed,
            output: None,
            error: Some(StepError::terminal("store", message)),
            failed_step: None,
            bound: None,
            usage,
            limits_reached: Vec::new(),
            asked: Vec::new(),
            steps: 0,
            reused: Reused::default(),
            wall_ms: 0,
        }
    }

    /// The output of a run that succeeded.
    ///
    /// # Errors
    /// The outcome itself, if it is another one: it says what went wrong, and has the best answer so far.
    pub fn into_output(mut self) -> Result<Value, Box<Self>> {
        let output = if self.status == Status::Success { self.output.take() } else { None };
        output.ok_or_else(|| Box::new(self))
    }
}

impl fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the run {}", self.status.ending())?;
        if let Some(step) = self.failed_step.as_ref().filter(|step| !step.is_empty()) {
            write!(f, " in `{step}`")?;
        }
        self.error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

impl std::error::Error for RunOutcome {}

/// Why a run did not begin.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StartError {
    /// An input that the workflow does not declare.
    #[error("`{name}` is no input of `{workflow}`; {}", way_out(.suggestion.as_deref(), .known))]
    UnknownInput {
        /// The input.
        name: String,
        /// The workflow.
        workflow: String,
        /// The closest declared input.
        suggestion: Option<String>,
        /// Every declared input.
        known: Vec<String>,
    },
    /// A required input without a value.
    #[error("input `{name}` is required ({schema})")]
    MissingInput {
        /// The input.
        name: String,
        /// Its type, for people.
        schema: String,
    },
    /// The store cannot take it.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Somebody else drives the run at this moment.
    #[error("the run `{0}` is driven by another process at this moment")]
    Driven(String),
    /// The run is over.
    #[error("the run `{id}` {}", .status.ending())]
    Over {
        /// Its id.
        id: String,
        /// How it ended.
        status: Status,
    },
    /// The workflow is not the one that the run began with.
    #[error("the workflow has changed since the run `{0}` began")]
    Changed(String),
    /// What the log says does not follow from the workflow.
    #[error("the log of `{id}` cannot be followed: {reason}")]
    Unfoldable {
        /// The run's id.
        id: String,
        /// Where and why.
        reason: String,
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
/// Inputs are one JSON value per declared input; missing ones take their defaults. Dropping the future stops the run
/// where it is, attempts in flight included.
///
/// # Errors
/// A [`StartError`] if the inputs do not fit; every later failure is a [`RunOutcome`] with another status than `success`.
pub async fn run(
    workflow: &Arc<Workflow>,
    inputs: Map<String, Value>,
    kinds: &Kinds,
    options: RunOptions,
) -> Result<RunOutcome, StartError> {
    Ok(begin(workflow, inputs, kinds, options)?.await)
}

/// Checks the inputs; the future that this gives is the run. It is best driven by a task of its own: on the main thread of a
/// runtime every wake-up crosses threads.
///
/// # Errors
/// As [`run`].
pub fn begin(
    workflow: &Arc<Workflow>,
    inputs: Map<String, Value>,
    kinds: &Kinds,
    options: RunOptions,
) -> Result<impl Future<Output = RunOutcome> + Send + use<>, StartError> {
    let inputs = check_inputs(workflow, inputs)?;
    let span = spans::run(workflow);
    let mut driver = Driver::new(workflow.clone(), kinds.clone(), options);
    driver.open_journal(true)?;
    Ok(driver.begin(inputs).instrument(span))
}

/// Takes up a run that was interrupted or is suspended: folds its log, then goes on where it was. Steps that finished do not run
/// again; attempts that were in flight do. `options.record` says which run; the inputs and limits are those of the log.
///
/// # Errors
/// [`StartError`]: the run is over or driven by somebody else, the workflow is another one, the log cannot be followed.
pub fn resume(
    workflow: &Arc<Workflow>,
    kinds: &Kinds,
    options: RunOptions,
) -> Result<impl Future<Output = RunOutcome> + Send + use<>, StartError> {
    let span = spans::run(workflow);
    let driver = Driver::new(workflow.clone(), kinds.clone(), options);
    let going_on = driver.take_up()?;
    Ok(going_on.drive().instrument(span))
}

fn way_out(suggestion: Option<&str>, known: &[String]) -> String {
    match (suggestion, known) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, []) => "it takes none".to_owned(),
        (None, known) => format!("it takes `{}`", known.join("`, `")),
    }
}

/// Completes the inputs with their defaults and checks every one.
fn check_inputs(workflow: &Workflow, mut given: Map<String, Value>) -> Result<Map<String, Value>, StartError> {
    let mut complete = Map::new();
    for (name, input) in workflow.graph.inputs.iter().flatten() {
        let value = match given.remove(name).or_else(|| input.default.clone()) {
            Some(value) => value,
            None => return Err(StartError::MissingInput { name: name.clone(), schema: input.schema.describe() }),
        };
        input.schema.validate(&value).map_err(|reason| StartError::BadInput { name: name.clone(), reason })?;
        complete.insert(name.clone(), value);
    }
    if let Some(name) = given.keys().next() {
        let suggestion = did_you_mean(name, complete.keys().map(String::as_str)).map(str::to_owned);
        let known = complete.keys().cloned().collect();
        return Err(StartError::UnknownInput {
            name: name.clone(),
            workflow: workflow.name.clone(),
            suggestion,
            known,
        });
    }
    Ok(complete)
}

#[cfg(test)]
mod tests;
