//! flowrun: reasoning as execution of a graph.
//!
//! A complex question becomes a graph of sub-questions, drawn by a language model, written in YAML or built in code; the engine
//! schedules it, asks a model for each sub-answer as soon as what it needs is known, and gives the answer.
//!
//! ```
//! use flowrun::{Flowrun, RunOptions, Scripted};
//! use serde_json::json;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let text = "
//! flowrun: 1
//! inputs: {country: string}
//! nodes:
//!   capital: {prompt: 'What is the capital of {{ country }}?'}
//! output: capital
//! ";
//! // In place of a real model, such as `OpenAi::new("http://127.0.0.1:8080/v1", "qwen2.5", None, None)?`:
//! let model = Scripted::parse("replies", "- {match: Portugal, reply: Lisbon}")?;
//! let flowrun = Flowrun::builder().model("default", model).build();
//! let workflow = flowrun.parse("capital.yaml", text)?;
//! let outcome = flowrun.run(&workflow, json!({"country": "Portugal"}), RunOptions::default()).await?;
//! assert_eq!(outcome.into_output()?, "Lisbon");
//! # Ok(())
//! # }
//! ```
//!
//! # Where to begin
//!
//! * **Run**: [`Flowrun`] loads, checks and runs; [`RunOptions`] limit a run, [`Run`] is one that goes on, [`Update`] what it
//!   reports meanwhile, [`RunOutcome`] how it ended.
//! * **Define**: [`WorkflowDef`] and [`NodeDef`] are a workflow in code, [`Schema`] is a type; [`Workflow`] is one that checks.
//! * **Extend**: [`Node`] is what a node kind implements and [`KindSpec`] how it looks to the checker; [`Model`] is a language model;
//!   [`Tool`] is code that workflows call by name.
//! * **Watch**: [`Observer`] is called with every [`Event`] of a run, [`Record`] is one with its number, time and path;
//!   [`trace`] and [`render`] show runs and graphs. Runs and steps are `tracing` spans and events with the target `flowrun`.
//! * **What goes wrong**: [`LoadError`] has every [`Diagnostic`] of a file, [`RunError`] why a run cannot begin, [`StepError`] why a
//!   step failed.
//!
//! What is not listed here is in [`engine`] and [`nodes`].
//!
//! # Features
//!
//! `cli` (default): the command line and what only that needs. A program that embeds the library turns it off with
//! `default-features = false`.

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "some of it is for the command line alone"))]
pub mod compare;
#[cfg(feature = "cli")]
mod configuration;
pub mod cost;
mod file_schema;
mod handle;
mod inbox;
mod library;
mod origin;
mod program;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "some of it is for the command line alone"))]
pub mod render;
mod report;
pub mod runs;
#[cfg(feature = "sqlite")]
pub mod store;
#[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "some of it is for the command line alone"))]
pub mod trace;

pub use flowrun_engine as engine;
pub use flowrun_nodes as nodes;

pub use file_schema::file_schema;
pub use flowrun_engine::cache::{Flights, Memo};
pub use flowrun_engine::check::Checked;
pub use flowrun_engine::definition::{
    ErrorPolicyDef, FieldFormat, FieldSpec, InputDef, Join, KindSpec, ModelDef, NodeDef, RetryDef, Word, WorkflowDef,
};
pub use flowrun_engine::diagnostic::{Diagnostic, Place, Severity};
pub use flowrun_engine::event::{
    AttemptReport, Bound, DecideField, Decision, Event, Outcome, PassEnd, Record, RunEnded, RunStarted, SkipReason,
    Status, TimerKind, Usage, Writer as LogWriter,
};
pub use flowrun_engine::expr::Datum;
pub use flowrun_engine::failure::{ErrorClass, ErrorDetails, StepError};
pub use flowrun_engine::graph::{Limits, Workflow};
pub use flowrun_engine::id::{StepId, ValueHash};
pub use flowrun_engine::node::{Fields, Input, Kinds, Node, NodeContext, NodeError, Output, TokenSink};
pub use flowrun_engine::observer::{Observer, Observers, Question, Records};
pub use flowrun_engine::retry::RetryPolicy;
pub use flowrun_engine::run::{AnswerError, Answers, Recording, Reused, RunOptions, RunOutcome, StartError};
pub use flowrun_engine::schema::{Schema, SchemaError};
pub use flowrun_engine::source::Source;
pub use flowrun_nodes::model::{CallContext, OpenAi, Recorded, Recorder, Scripted, Secret};
pub use flowrun_nodes::{ChatReply, ChatRequest, Message, Model, Models, Role, Tool, ToolSpec, Tools, tool_fn};
pub use handle::{Run, Update};
pub use library::WORKFLOWS;
pub use origin::Origin;
pub use program::{Builder, Flowrun, LoadError, RunError};
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
pub use tokio_util::sync::CancellationToken;

/// The Rust of the README and of the book, run as tests of the documentation.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/embedding.md")]
    mod embedding {}
    #[doc = include_str!("../docs/recording.md")]
    mod recording {}
}
