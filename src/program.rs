//! The library's entry: load workflows, register kinds and models, run.

use std::path::Path;
use std::sync::Arc;

use flowrun_engine::cache::{Flights, Memo};
use flowrun_engine::check::{Checked, Library, check, check_text};
use flowrun_engine::definition::WorkflowDef;
use flowrun_engine::diagnostic::Diagnostic;
use flowrun_engine::event::Logged;
use flowrun_engine::graph::Workflow;
use flowrun_engine::node::{Kinds, Node};
use flowrun_engine::run::{self, Answers, Recording, RunOptions, RunOutcome, StartError};
use flowrun_engine::source::Source;
use flowrun_engine::store::{Durability, Store, StoreError};
use flowrun_nodes::{Model, Models, Tool, Tools};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::handle::{self, Run, Task};
use crate::inbox::Inbox;
use crate::library::{self, Files};
use crate::origin::Origin;
use crate::report;

/// Everything that runs share: node kinds and models. Cheap to keep, safe to use from many tasks at once.
pub struct Flowrun {
    kinds: Kinds,
    store: Option<(Arc<dyn Store>, Durability)>,
    flights: Flights,
}

/// Puts a [`Flowrun`] together.
#[derive(Default)]
pub struct Builder {
    kinds: Kinds,
    models: Models,
    tools: Tools,
    store: Option<(Arc<dyn Store>, Durability)>,
}

impl Builder {
    /// Where runs are recorded and answers are kept, with the level of durability that the store was opened with. Without one nothing
    /// is kept beyond a run; equal questions that are asked at the same time are asked once all the same.
    pub fn store(mut self, store: Arc<dyn Store>, durability: Durability) -> Self {
        self.store = Some((store, durability));
        self
    }

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

    /// Lets workflow files declare models of their own: a server to ask, or a file with replies, scripted or recorded. Only for
    /// files that you trust; without it such a declaration is checked and not used.
    pub fn models_from_files(mut self) -> Self {
        self.models.allow_from_files();
        self
    }

    /// Adds a node kind.
    pub fn kind(mut self, node: impl Node) -> Self {
        self.kinds.register(node);
        self
    }

    /// Adds a tool: code that workflows call by this name (`tool: NAME`). One of the same name is replaced.
    pub fn tool(mut self, name: &str, tool: impl Tool) -> Self {
        self.tools.register(name, tool);
        self
    }

    /// The finished program.
    pub fn build(mut self) -> Flowrun {
        flowrun_nodes::register(&mut self.kinds, self.models, self.tools);
        Flowrun { kinds: self.kinds, store: self.store, flights: Flights::default() }
    }
}

/// Why a workflow could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no such file or library workflow, or it cannot be read.
    #[error("{reason}")]
    Unreadable {
        /// What was asked for.
        reference: String,
        /// Why it cannot be had, with a way out.
        reason: String,
    },
    /// The workflow does not check.
    #[error("{}{}", .diagnostics.first().map(ToString::to_string).unwrap_or_default(), match .diagnostics.len() { 0 | 1 => String::new(), n => format!(" (and {} more)", n - 1) })]
    Refused {
        /// Everything that is wrong, in the order of the file.
        diagnostics: Vec<Diagnostic>,
        /// The text with its places; `None` if it is no YAML or was built in code.
        file: Option<Box<Source>>,
    },
}

impl LoadError {
    /// Everything that is wrong as people read it: places, the lines of the file, what to do; what `flowrun check` prints.
    pub fn report(&self) -> String {
        match self {
            LoadError::Unreadable { reason, .. } => format!("error: {reason}\n"),
            LoadError::Refused { diagnostics, file } => {
                let sources: Vec<&Source> = file.as_deref().into_iter().collect();
                report::render(diagnostics, &sources, false)
            }
        }
    }
}

/// Why a run did not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The inputs are no JSON object.
    #[error("inputs are an object of names to values, not `{0}`")]
    NoObject(Value),
    /// There is no tokio runtime to run on.
    #[error("a run needs a tokio runtime: call this from inside one")]
    NoRuntime,
    /// The inputs do not fit the workflow, or the run cannot be recorded or taken up.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no store: see [`Builder::store`].
    #[error("there is no store: a run that was not recorded cannot be resumed or replayed")]
    NoStore,
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        Self::Start(error.into())
    }
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
        let unreadable = |reason| LoadError::Unreadable { reference: name.to_string(), reason };
        self.parse(&name, &text.map_err(unreadable)?)
    }

    /// Checks the text of a workflow file and gives the workflow. `name` is what diagnostics call it, and where its calls are
    /// looked for.
    ///
    /// # Errors
    /// [`LoadError::Refused`] with every problem.
    pub fn parse(&self, name: &str, text: &str) -> Result<Arc<Workflow>, LoadError> {
        Ok(self.check_text(name, text)?.0.workflow)
    }

    /// The same with the warnings, and the text with its places.
    ///
    /// # Errors
    /// [`LoadError::Refused`] with every problem.
    pub fn check_text(&self, name: &str, text: &str) -> Result<(Checked, Source), LoadError> {
        self.check_text_with(name, text, &Files)
    }

    /// The same with another place where calls are looked for.
    pub(crate) fn check_text_with(
        &self,
        name: &str,
        text: &str,
        library: &dyn Library,
    ) -> Result<(Checked, Source), LoadError> {
        check_text(name, text, self.kinds.specs(), library).map_err(|refused| LoadError::Refused {
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

    /// Runs a workflow to its end, in a task of its own. Inputs are a JSON object; missing ones take their defaults.
    ///
    /// Dropping the future stops the run, requests in flight included.
    ///
    /// # Errors
    /// [`RunError`] if the run cannot begin; every later failure is an outcome with another status than `success`.
    pub async fn run(
        &self,
        workflow: &Arc<Workflow>,
        inputs: Value,
        options: RunOptions,
    ) -> Result<RunOutcome, RunError> {
        Ok(self.spawn(workflow, Some(inputs), options)?.outcome().await)
    }

    /// Takes up a recorded run that was interrupted or is suspended, in a task of its own, and drives it to its end. Steps that
    /// finished do not run again. The workflow must be the one that it began with.
    ///
    /// # Errors
    /// [`RunError`] if it cannot go on: it is over, somebody else drives it, the workflow is another one.
    pub async fn resume(
        &self,
        workflow: &Arc<Workflow>,
        run: &str,
        mut options: RunOptions,
    ) -> Result<RunOutcome, RunError> {
        let (store, durability) = self.store.clone().ok_or(RunError::NoStore)?;
        let run = store.run(run)?.ok_or_else(|| StoreError::NoRun(run.to_owned()))?;
        options.record = Some(Recording { store, run, durability, values: Vec::new() });
        Ok(self.spawn(workflow, None, options)?.outcome().await)
    }

    /// What a recorded run gave, for [`RunOptions::memo`]: a run with it takes every answer whose key is the same.
    ///
    /// # Errors
    /// What the store says.
    pub fn memo(&self, run: &str) -> Result<Arc<Memo>, RunError> {
        let (store, _) = self.store.as_ref().ok_or(RunError::NoStore)?;
        let log = store.log(run, 0)?;
        let lines = log.iter().flat_map(|stored| stored.lines.lines());
        let events: Vec<Logged> = lines.filter_map(|line| Logged::parse(line).ok()).collect();
        let value = |hash| serde_json::from_str(&store.value(hash).ok()??).ok();
        Ok(Arc::new(Memo::new(run, &events, value)))
    }

    /// Begins a run and gives the handle by which it is watched, cancelled and awaited. Any number go on at the same time.
    ///
    /// # Errors
    /// [`RunError`] if the run cannot begin.
    pub fn start(&self, workflow: &Arc<Workflow>, inputs: Value, mut options: RunOptions) -> Result<Run, RunError> {
        let (observer, reports) = handle::reports();
        options.observers.add(observer);
        let (cancel, answers) = (options.cancel.clone(), options.answers.clone());
        Ok(Run::new(self.spawn(workflow, Some(inputs), options)?, cancel, answers, reports))
    }

    /// Begins a run with inputs, or goes on with the one that is recorded.
    fn spawn(
        &self,
        workflow: &Arc<Workflow>,
        inputs: Option<Value>,
        mut options: RunOptions,
    ) -> Result<Task, RunError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| RunError::NoRuntime)?;
        let inputs = match inputs {
            Some(Value::Object(inputs)) => Some(inputs),
            Some(Value::Null) => Some(serde_json::Map::new()),
            Some(other) => return Err(RunError::NoObject(other)),
            None => None,
        };
        options.flights = self.flights.clone();
        if let (None, Some((store, durability)), Some(inputs)) = (&options.record, &self.store, &inputs) {
            let origin = Origin { inputs: inputs.clone(), max_calls: options.calls_max, ..Origin::default() };
            options.record = Some(origin.recording(workflow, store.clone(), *durability));
        }
        let inbox = options.record.as_ref().map(|record| {
            let nobody = || {
                let answers = Answers::default();
                answers.leave();
                answers
            };
            let answers = options.answers.get_or_insert_with(nobody).clone();
            Inbox::new(record.store.clone(), &record.run.id, answers)
        });
        let task = match inputs {
            Some(inputs) => runtime.spawn(run::begin(workflow, inputs, &self.kinds, options)?),
            None => runtime.spawn(run::resume(workflow, &self.kinds, options)?),
        };
        let served = inbox.map(|inbox| {
            let over = CancellationToken::new();
            (runtime.spawn(inbox.serve(over.clone())), over)
        });
        Ok(Task::new(task, served))
    }
}
