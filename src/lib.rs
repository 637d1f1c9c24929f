//! flowrun: runs reasoning as a graph of sub-questions.
//!
//! A workflow is written in YAML, built in Rust, or drawn by a language model while it runs. It is checked, then each step
//! starts as soon as what it needs is known. This crate is the library behind the command `flowrun`.
//!
//! ```
//! use flowrun::{Flowrun, Scripted};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let flowrun = Flowrun::builder().model("default", Scripted::parse("replies", "[{reply: Paris}]")?).build();
//! let workflow = flowrun.parse("capital", r#"
//! flowrun: 1
//! inputs: {country: string}
//! nodes:
//!   answer: {prompt: "What is the capital of {{ country }}?"}
//! output: answer
//! "#)?;
//! let inputs = [("country".to_owned(), "France".into())].into_iter().collect();
//! let runtime = tokio::runtime::Runtime::new()?;
//! let outcome = runtime.block_on(flowrun.run(&workflow, inputs))?;
//! assert_eq!(outcome.output, Some("Paris".into()));
//! # Ok(()) }
//! ```
//!
//! [`Flowrun`] is the entry: it loads workflows and runs them. [`RunOptions`] carries limits, a token that cancels, and
//! [`Observer`]s that see every event. A node kind of your own implements [`Node`], a model of your own [`Model`].

mod config;
mod facade;
mod library;

pub use config::{Config, ConfigError, Defaults};
pub use facade::{Builder, Flowrun, LoadError};
pub use library::{Embedded, Workflows};

pub use flowrun_engine::check::Checked;
pub use flowrun_engine::definition::{FieldFormat, KindSpec, ModelDef, WorkflowDef};
pub use flowrun_engine::diagnostic::{Diagnostic, Place, Severity};
pub use flowrun_engine::event::{Event, Record, Status, Usage};
pub use flowrun_engine::failure::{ErrorClass, StepError};
pub use flowrun_engine::graph::{Graph, Workflow};
pub use flowrun_engine::node::{Input, Node, NodeContext, NodeError, Output};
pub use flowrun_engine::observer::{Observer, Observers};
pub use flowrun_engine::run::{RunOptions, RunOutcome, StartError};
pub use flowrun_engine::source::Source;
pub use flowrun_engine::store::{Recording, RunIdentity, Runs};
pub use flowrun_nodes::model::{CallContext, OpenAi, Scripted, Secret};
pub use flowrun_nodes::{ChatReply, ChatRequest, Message, Model, Models, Role};
