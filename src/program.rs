//! The library's entry: load workflows, register kinds and models, run.

use std::path::Path;
use std::sync::Arc;

use flowrun_engine::check::{Checked, check, check_text};
use flowrun_engine::definition::WorkflowDef;
use flowrun_engine::diagnostic::Diagnostic;
use flowrun_engine::event::Record;
use flowrun_engine::graph::Workflow;
use flowrun_engine::node::{Kinds, Node};
use flowrun_engine::observer::Observer;
use flowrun_engine::run::{self, RunOptions, RunOutcome, StartError};
use flowrun_engine::source::Source;
use flowrun_nodes::{Model, Models};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::library::{self, Files};

/// Everything that runs share: node kinds and models. Cheap to keep, safe to use from many tasks at once.
pub struct Flowrun {
    kinds: Kinds,
}

/// Puts a [`Flowrun`] together.
#[derive(Default)]
pub struct Builder {
    kinds: Kinds,
    models: Models,
}

impl Builder {
    /// Adds a model under an alias; `default` is what nodes without `model:` ask.
    pub fn model(mut self, alias: &str, model: impl Model) -> Self {
        self.models.register(alias, model);
        self
    }

    /// Takes a whole table of models in place of what was added so far.
    pub fn models(mut self, models: Models) -> Self {
        self.models = models;
        self
    }

    /// Adds a node kind.
    pub fn kind(mut self, node: impl Node) -> Self {
        self.kinds.register(node);
        self
    }

    /// The finished program.
    pub fn build(mut self) -> Flowrun {
        flowrun_nodes::register(&mut self.kinds, self.models);
        Flowrun { kinds: self.kinds }
    }
}

/// Why a workflow could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be had.
    #[error("{0}")]
    Unreadable(String),
    /// The workflow does not check.
    #[error("{} problems: {}", .diagnostics.len(), .diagnostics.first().map(ToString::to_string).unwrap_or_default())]
    Refused {
        /// Everything that is wrong, in the order of the file.
        diagnostics: Vec<Diagnostic>,
        /// The text with its places; `None` if it is no YAML or was built in code.
        file: Option<Box<Source>>,
    },
}

/// Why a run did not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The inputs are no JSON object.
    #[error("inputs are an object of names to values, not `{0}`")]
    NoObject(Value),
    /// The inputs do not fit the workflow.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Flowrun {
    /// Begins to put a program together.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The node kinds that it knows.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Loads and checks a workflow: `@name` of the library, or a file.
    ///
    /// # Errors
    /// [`LoadError`]: the file cannot be read, or everything that is wrong with it.
    pub fn load(&self, reference: impl AsRef<Path>) -> Result<Arc<Workflow>, LoadError> {
        let path = reference.as_ref();
        let name = path.to_string_lossy();
        let text = match name.strip_prefix('@') {
            Some(name) => library::embedded(name).map(str::to_owned),
            None => library::read_file(path),
        };
        Ok(self.parse(&name, &text.map_err(LoadError::Unreadable)?)?.0.workflow)
    }

    /// Checks the text of a workflow file. `name` is what diagnostics call it, and where its calls are looked for.
    ///
    /// # Errors
    /// [`LoadError::Refused`] with every problem.
    pub fn parse(&self, name: &str, text: &str) -> Result<(Checked, Source), LoadError> {
        check_text(name, text, self.kinds.specs(), &Files).map_err(|refused| LoadError::Refused {
            diagnostics: refused.diagnostics,
            file: refused.source.map(Box::new),
        })
    }

    /// Checks a definition that was built in code.
    ///
    /// # Errors
    /// [`LoadError::Refused`] with every problem.
    pub fn check(&self, definition: WorkflowDef) -> Result<Checked, LoadError> {
        check(definition, None, self.kinds.specs(), &Files)
            .map_err(|diagnostics| LoadError::Refused { diagnostics, file: None })
    }

    /// Runs a workflow to its end. Inputs are a JSON object; missing ones take their defaults.
    ///
    /// # Errors
    /// [`RunError`] if the inputs do not fit; every later failure is an outcome with another status than `success`.
    pub async fn run(
        &self,
        workflow: &Arc<Workflow>,
        inputs: Value,
        options: RunOptions,
    ) -> Result<RunOutcome, RunError> {
        match inputs {
            Value::Object(inputs) => Ok(run::run(workflow, inputs, &self.kinds, options).await?),
            Value::Null => Ok(run::run(workflow, serde_json::Map::new(), &self.kinds, options).await?),
            other => Err(RunError::NoObject(other)),
        }
    }
}

/// An observer that passes every record on, and the stream of them: add the first to
/// [`RunOptions::observers`](flowrun_engine::run::RunOptions) and read the second while the run goes on.
pub fn records() -> (Arc<dyn Observer>, UnboundedReceiver<Record>) {
    struct Channel(UnboundedSender<Record>);
    impl Observer for Channel {
        fn records(&self, records: &Arc<[Record]>) {
            for record in records.iter() {
                // Nobody listens any more: the run goes on all the same.
                let _closed = self.0.send(record.clone());
            }
        }
    }
    let (sender, receiver) = unbounded_channel();
    (Arc::new(Channel(sender)), receiver)
}
