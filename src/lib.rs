//! flowrun: reasoning as execution of a graph.
//!
//! A complex question becomes a graph of sub-questions, drawn by a language model, written in YAML or built in code; the engine
//! schedules it, asks a model for each sub-answer as soon as what it needs is known, and gives the answer.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let flowrun = flowrun::Flowrun::builder().build();
//! let workflow = flowrun.load("hello.yaml")?;
//! let outcome = flowrun.run(&workflow, serde_json::json!({"name": "Ada"}), Default::default()).await?;
//! println!("{}", outcome.output.unwrap_or_default());
//! # Ok(())
//! # }
//! ```
//!
//! [`Flowrun`] is the entry. [`Node`] is what a kind of node implements, [`Model`] what a language model does, [`Observer`] what
//! watches a run.

#[doc(hidden)]
pub mod cli;
mod configuration;
mod file_schema;
mod handle;
mod library;
mod program;
pub mod render;
pub mod trace;

pub use file_schema::file_schema;
pub use flowrun_engine::check::Checked;
pub use flowrun_engine::definition::{FieldFormat, FieldSpec, InputDef, KindSpec, NodeDef, WorkflowDef};
pub use flowrun_engine::diagnostic::{Diagnostic, Place, Severity};
pub use flowrun_engine::event::{
    AttemptReport, Bound, DecideField, Decision, Event, Outcome, Record, RunEnded, RunStarted, SkipReason, Status,
    TimerKind, Usage, Writer as LogWriter,
};
pub use flowrun_engine::expr::Datum;
pub use flowrun_engine::failure::{ErrorClass, ErrorDetails, StepError};
pub use flowrun_engine::graph::{Limits, Workflow};
pub use flowrun_engine::id::{StepId, ValueHash};
pub use flowrun_engine::node::{Fields, Input, Kinds, Node, NodeContext, NodeError, Output, TokenSink};
pub use flowrun_engine::observer::{Observer, Observers};
pub use flowrun_engine::retry::RetryPolicy;
pub use flowrun_engine::run::{RunOptions, RunOutcome, StartError};
pub use flowrun_engine::schema::{Schema, SchemaError};
pub use flowrun_engine::source::Source;
pub use flowrun_nodes::model::{CallContext, OpenAi, Scripted, Secret};
pub use flowrun_nodes::{ChatReply, ChatRequest, Message, Model, Models, Role};
pub use handle::{Run, Update};
pub use library::WORKFLOWS;
pub use program::{Builder, Flowrun, LoadError, RunError};
pub use tokio_util::sync::CancellationToken;

/// The Rust of the README and of the book, run as tests of the documentation.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/embedding.md")]
    mod embedding {}
}
