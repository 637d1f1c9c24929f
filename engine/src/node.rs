//! The door to the work: what a node kind implements and what it is given.
//!
//! A kind sees its rendered input and its context, never the graph. It returns a value or a typed error; the engine does
//! retries, timeouts and cancellation around it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::check::PlanChecker;
use crate::definition::{KindSpec, ModelDef};
use crate::event::Usage;
use crate::failure::StepError;
use crate::graph::ExpansionRules;
use crate::observer::Observers;
use crate::schema::Schema;

/// Repair turns of a model call that must give structured output, when the node does not say how many.
pub const REPAIR_TURNS: u32 = 2;

/// A node kind.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// What the kind looks like: its name, fields and defaults. Asked once, when it is registered.
    fn spec(&self) -> KindSpec;

    /// What an answer depends on beside the rendered input: which model with which parameters, which version of a tool. Part of the key
    /// of its answers; without secrets.
    fn identity(&self, _input: &Input) -> Value {
        Value::Null
    }

    /// Runs one attempt.
    ///
    /// # Errors
    /// A [`NodeError`] whose class says whether another attempt is worth it.
    async fn run(&self, context: &NodeContext, input: Input) -> Result<Output, NodeError>;
}

/// What a kind is given to work on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// The kind's fields after rendering: templates and slotted texts are strings, the rest JSON values.
    pub fields: Fields,
    /// What the value must satisfy (`schema:` or `json_schema:`).
    pub schema: Option<Schema>,
    /// `model:` resolved against the workflow's own `models:`; `None` alias: the default model.
    pub model: ModelChoice,
    /// What a plan may contain (`allow:` and `limits:`), for kinds that draw graphs.
    pub rules: Option<Arc<ExpansionRules>>,
}

/// The rendered fields of a node by name, in file order. They are few: a search is quicker than a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<(Arc<str>, Value)>);

impl Fields {
    /// The value of a field; `None` if it is not written.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }

    /// Every field with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

impl FromIterator<(Arc<str>, Value)> for Fields {
    /// From fields whose names differ.
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Value)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

impl std::ops::Index<&str> for Fields {
    type Output = Value;

    /// The value of a field; null if it is not written.
    fn index(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&Value::Null)
    }
}

/// Which model a node asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelChoice {
    /// The alias written on the node.
    pub alias: Option<String>,
    /// What the workflow's file declares under that alias (`default` where none is written).
    pub declared: Option<Arc<ModelDef>>,
}

/// What a kind gives back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// The value, before `output:`.
    pub value: Value,
    /// What it cost.
    pub usage: Usage,
    /// What people want to see of how it came about (messages, raw reply, repairs); recorded, never read by other nodes.
    pub provenance: Option<Value>,
}

/// Why an attempt failed, and what it cost all the same.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct NodeError {
    /// The error.
    pub error: StepError,
    /// What it cost.
    pub usage: Usage,
    /// What people want to see of it.
    pub provenance: Option<Value>,
}

impl From<StepError> for NodeError {
    fn from(error: StepError) -> Self {
        Self { error, usage: Usage::default(), provenance: None }
    }
}

/// What surrounds an attempt.
pub struct NodeContext {
    /// Path of the step, such as `solve[3]/sub`.
    pub path: Arc<str>,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Number of the sample, from 0, for a node with `samples`.
    pub sample: Option<u32>,
    pub(crate) run: Arc<RunContext>,
    pub(crate) cancelled: OnceLock<CancellationToken>,
}

/// What all attempts of a run share.
pub(crate) struct RunContext {
    pub(crate) id: Arc<str>,
    pub(crate) plans: PlanChecker,
    pub(crate) observers: Observers,
}

impl NodeContext {
    /// Id of the run; empty if it is not recorded. With the path it names what is done here once and for all: an attempt that was cut
    /// off is made again under the same two, by which a service may know a request that it has had.
    pub fn run_id(&self) -> &str {
        &self.run.id
    }

    /// Lowers and checks a plan by the rules of the engine.
    pub fn plans(&self) -> &PlanChecker {
        &self.run.plans
    }

    /// Fires when the attempt is to stop. Requests in flight must be dropped then; who goes on is given up after a while.
    pub fn cancelled(&self) -> &CancellationToken {
        self.cancelled.get_or_init(CancellationToken::new)
    }

    /// Takes text as it is produced, for progress displays. Never part of the log.
    pub fn tokens(&self) -> TokenSink {
        TokenSink::new(self.run.observers.clone(), self.path.clone())
    }
}

/// Takes the text of one step as it is produced, and passes it on to the observers.
#[derive(Clone, Default)]
pub struct TokenSink {
    observers: Observers,
    path: Arc<str>,
}

impl TokenSink {
    /// Passes text on as that of the step with this path.
    pub fn new(observers: Observers, path: Arc<str>) -> Self {
        Self { observers, path }
    }

    /// Passes a piece of text on.
    pub fn send(&self, text: &str) {
        self.observers.iter().for_each(|observer| observer.tokens(&self.path, text));
    }
}

/// The node kinds that a program knows: the engine's own and those registered with [`Kinds::register`].
/// Cheap to clone.
#[derive(Clone)]
pub struct Kinds {
    nodes: Arc<BTreeMap<String, Arc<dyn Node>>>,
    specs: Arc<BTreeMap<String, Arc<KindSpec>>>,
}

impl Default for Kinds {
    fn default() -> Self {
        Self::new()
    }
}

impl Kinds {
    /// The kinds that the engine does itself: `set`, `calc`, `group`, `call`, `expand`.
    pub fn new() -> Self {
        let builtin = crate::check::builtin_kinds().into_iter();
        let specs = builtin.map(|spec| (spec.name.clone(), Arc::new(spec))).collect();
        Self { nodes: Arc::default(), specs: Arc::new(specs) }
    }

    /// Adds a kind; one of the same name is replaced.
    pub fn register(&mut self, node: impl Node) -> &mut Self {
        let spec = node.spec();
        Arc::make_mut(&mut self.nodes).insert(spec.name.clone(), Arc::new(node));
        Arc::make_mut(&mut self.specs).insert(spec.name.clone(), Arc::new(spec));
        self
    }

    /// The implementation of a leaf kind.
    pub fn node(&self, kind: &str) -> Option<&Arc<dyn Node>> {
        self.nodes.get(kind)
    }

    /// All descriptions by name: what the checker needs.
    pub fn specs(&self) -> &Arc<BTreeMap<String, Arc<KindSpec>>> {
        &self.specs
    }
}
