//! The entry for programs: which kinds and models there are, where workflows come from, and how one is run.

use std::sync::Arc;

use flowrun_engine::check::{self, Checked, Refused};
use flowrun_engine::definition::WorkflowDef;
use flowrun_engine::diagnostic::Diagnostic;
use flowrun_engine::graph::Workflow;
use flowrun_engine::node::{Kinds, Node};
use flowrun_engine::run::{RunOptions, RunOutcome, StartError};
use flowrun_engine::source::Source;
use flowrun_nodes::{Model, Models};
use serde_json::{Map, Value};

use crate::library::Workflows;

/// Loads workflows and runs them. Cheap to clone; runs may go on at the same time.
#[derive(Clone)]
pub struct Flowrun {
    kinds: Kinds,
}

/// Collects what a [`Flowrun`] knows.
#[derive(Default)]
pub struct Builder {
    models: Models,
    kinds: Kinds,
}

impl Builder {
    /// A model under an alias; nodes without `model:` ask `default`. It wins over what files declare.
    pub fn model(mut self, alias: &str, model: impl Model) -> Self {
        self.models.register(alias, model);
        self
    }

    /// A whole table of models, such as [`Config::models`](crate::Config::models) gives; replaces what was set before.
    pub fn models(mut self, models: Models) -> Self {
        self.models = models;
        self
    }

    /// A node kind beside the built-in ones.
    pub fn kind(mut self, node: impl Node) -> Self {
        self.kinds.register(node);
        self
    }

    /// Ready to load and run.
    pub fn build(self) -> Flowrun {
        let mut kinds = self.kinds;
        flowrun_nodes::register(&mut kinds, self.models);
        Flowrun { kinds }
    }
}

impl Flowrun {
    /// Begins with the built-in kinds and no model.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Reads and checks the workflow in a file, or one of the library by its name (`@question-graph`). Warnings are dropped.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self, reference: &str) -> Result<Arc<Workflow>, LoadError> {
        let text = Workflows::read(reference)?;
        self.parse(reference, &text)
    }

    /// Checks a workflow given as text. `name` stands in messages, and workflows that it calls lie beside it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(&self, name: &str, text: &str) -> Result<Arc<Workflow>, LoadError> {
        self.check_text(name, text).map(|(checked, _)| checked.workflow)
    }

    /// As [`Flowrun::parse`], with the warnings and the source that they point into.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check_text(&self, name: &str, text: &str) -> Result<(Checked, Source), LoadError> {
        check::check_text(name, text, self.kinds.specs(), &Workflows).map_err(LoadError::from)
    }

    /// Checks a workflow that was built in Rust.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(&self, definition: WorkflowDef) -> Result<Checked, LoadError> {
        check::check(definition, None, self.kinds.specs(), &Workflows)
            .map_err(|diagnostics| LoadError { diagnostics, source: None })
    }

    /// Runs a workflow to its end with the default options. Needs a tokio runtime.
    ///
    /// # Errors
    /// Inputs that do not fit. Every later failure is an outcome with another status than `success`.
    pub async fn run(&self, workflow: &Arc<Workflow>, inputs: Map<String, Value>) -> Result<RunOutcome, StartError> {
        self.run_with(workflow, inputs, RunOptions::default()).await
    }

    /// Runs a workflow to its end: with limits, a token that cancels, and observers that see every event.
    ///
    /// # Errors
    /// Inputs that do not fit. Every later failure is an outcome with another status than `success`.
    pub async fn run_with(
        &self,
        workflow: &Arc<Workflow>,
        inputs: Map<String, Value>,
        options: RunOptions,
    ) -> Result<RunOutcome, StartError> {
        flowrun_engine::run::run(workflow, inputs, &self.kinds, options).await
    }
}

/// Why a workflow cannot be used: all problems, with the text for showing them.
#[derive(Debug)]
pub struct LoadError {
    /// Errors and warnings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The text, if it was read.
    pub source: Option<Source>,
}

impl From<Refused> for LoadError {
    fn from(refused: Refused) -> Self {
        Self { diagnostics: refused.diagnostics, source: refused.source }
    }
}

impl From<Diagnostic> for LoadError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic], source: None }
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<String> = self.diagnostics.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for LoadError {}
