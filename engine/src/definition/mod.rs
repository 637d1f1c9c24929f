//! What was written: a workflow before anything about it has been checked beyond its form.
//!
//! A [`WorkflowDef`] comes out of a YAML file (`WorkflowDef::parse` in `reader.rs`), out of a plan that a model drew
//! ([`dialect`](crate::dialect)), or out of Rust code. All three go through the same [`check`](crate::check). Expression
//! fields are still YAML trees and texts here; the types after checking are in [`graph`](crate::graph).

mod build;
mod flow_reader;
pub mod keys;
mod kind;
mod node_reader;
mod reader;
mod writer;

use indexmap::IndexMap;
use serde_json::Value;

pub use keys::{RESERVED, is_attribute, later};
pub use kind::{CacheScope, FieldFormat, FieldSpec, KindSpec, KindWork, Word, listed};

pub use reader::{Configuration, Parsed, read, read_configuration};

use crate::schema::Schema;

/// A whole workflow file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkflowDef {
    /// `name:`; the file's stem when it is not written.
    pub name: String,
    /// `description:`, for people.
    pub description: Option<String>,
    /// `inputs:` in file order.
    pub inputs: IndexMap<String, InputDef>,
    /// `models:` by alias.
    pub models: IndexMap<String, ModelDef>,
    /// `budget:`.
    pub budget: BudgetDef,
    /// `limits:`.
    pub limits: LimitsDef,
    /// `nodes:` in file order, which is part of the definition.
    pub nodes: IndexMap<String, NodeDef>,
    /// `output:`, an expression tree; `None`: the map of all nodes' values.
    pub output: Option<Value>,
}

/// One declared input.
#[derive(Clone, Debug, PartialEq)]
pub struct InputDef {
    /// What the value must satisfy.
    pub schema: Schema,
    /// Value used when the caller gives none; `None`: the input is required.
    pub default: Option<Value>,
}

/// One model alias: where a model is and how it is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelDef {
    /// Which client speaks to it: `openai` (any OpenAI-compatible server), `scripted` or `recorded`.
    pub provider: String,
    /// The model's name on the server; for `scripted` and `recorded` the file.
    pub model: String,
    /// Root of the API, such as `http://127.0.0.1:8080/v1`.
    pub base_url: Option<String>,
    /// Name of the environment variable that holds the key.
    pub api_key_env: Option<String>,
    /// Parameters sent with every request unless a node says otherwise.
    pub params: IndexMap<String, Value>,
    /// Most requests in flight to this model.
    pub max_parallel: Option<u32>,
    /// Longest wait for one reply, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// File to which every call is written. Counts where the user configured the model, never in a workflow's file.
    pub record: Option<String>,
    /// Of `recorded`: the recorded times are multiplied by it, so 0 is at once and 1 as it was; `None` is 0.
    pub latency: Option<f64>,
}

/// Run-wide quantities; reaching one ends the run as `exhausted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetDef {
    /// Most model calls, repair turns and retries included.
    pub calls: Option<u64>,
}

/// Sizes that nothing may exceed; `None` is the default of [`Limits`](crate::graph::Limits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitsDef {
    /// Steps of a run.
    pub steps: Option<u64>,
    /// Items of one `for_each` and samples of one node.
    pub items: Option<u64>,
    /// Nesting of frames.
    pub depth: Option<u32>,
    /// Nodes of one expansion, the appended `answer` apart.
    pub nodes: Option<u32>,
    /// Bytes of one value as JSON text.
    pub output_bytes: Option<u64>,
    /// Passes of one loop.
    pub iterations: Option<u32>,
}

/// One node: its kind, the attributes that every node may carry, and the fields of its kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeDef {
    /// Name of the kind: `llm`, `calc`, `set`, `group`, `call`, `expand`, `plan`, or one registered by the program.
    pub kind: String,
    /// `needs:` entries in order.
    pub needs: Vec<Need>,
    /// `when:`, an expression tree.
    pub when: Option<Value>,
    /// `for_each:`, an expression tree that gives a list.
    pub for_each: Option<Value>,
    /// `as:`; `None`: `item`.
    pub item_name: Option<String>,
    /// `max_parallel:`, an expression tree over inputs.
    pub max_parallel: Option<Value>,
    /// `sequential:`: one item after the other, each of which sees those before it.
    pub sequential: bool,
    /// `index:`; `None`: `index`.
    pub index_name: Option<String>,
    /// `stop_when:`, an expression tree over `this`, a prefix of the items' values.
    pub stop_when: Option<Value>,
    /// `quorum:` of items, an expression tree over inputs.
    pub quorum: Option<Value>,
    /// `samples:`, an expression tree over inputs.
    pub samples: Option<Value>,
    /// `repeat:`.
    pub repeat: Option<RepeatDef>,
    /// `next:` cases in order.
    pub next: Vec<CaseDef>,
    /// `max_depth:` of a call: most frames of the called workflow inside each other.
    pub max_depth: Option<u32>,
    /// `on_step_error: fail` of an expansion: its steps fail it unless they say otherwise.
    pub steps_fail: bool,
    /// `join:`.
    pub join: Option<Join>,
    /// `retry:`.
    pub retry: Option<RetryDef>,
    /// `timeout:` in milliseconds.
    pub timeout_ms: Option<u64>,
    /// `cache:`; `None`: as its kind says.
    pub cache: Option<CacheScope>,
    /// `key:`, an expression tree that stands for the input.
    pub cache_key: Option<Value>,
    /// `salt:`, an expression tree beside the key.
    pub salt: Option<Value>,
    /// `ttl:` in milliseconds.
    pub ttl_ms: Option<u64>,
    /// `on_error:`.
    pub on_error: ErrorPolicyDef,
    /// `on_item_error:`.
    pub on_item_error: ErrorPolicyDef,
    /// `schema:` or `json_schema:`.
    pub schema: Option<Schema>,
    /// `output:`, an expression tree.
    pub output: Option<Value>,
    /// The kind's own fields in file order, as written (`prompt`, `with`, `graph`, …).
    pub fields: IndexMap<String, Value>,
    /// The body of a group, in file order.
    pub nodes: IndexMap<String, NodeDef>,
    /// `limits:` beside `graph` and on `plan`.
    pub limits: Option<LimitsDef>,
    /// `allow:` beside `graph` and on `plan`.
    pub allow: Option<AllowDef>,
}

/// What a model-drawn graph may contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowDef {
    /// Kinds; `None`: `llm` and `calc`.
    pub kinds: Option<Vec<String>>,
    /// Model aliases; `None`: the default model only.
    pub models: Option<Vec<String>>,
    /// Tools; `None`: none.
    pub tools: Option<Vec<String>>,
}

/// One entry of `needs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// A node of the same frame.
    pub name: String,
    /// Written with a trailing `?`.
    pub optional: bool,
}

/// How incoming `next` edges are counted, else entries of `needs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Every entry without `?` must have succeeded.
    All,
    /// At least one entry must have succeeded once all are settled.
    Any,
    /// The first entry that succeeds wins, the others are not waited for.
    First,
    /// At least so many must have succeeded once all are settled.
    Quorum(u32),
}

/// One case of `next:`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaseDef {
    /// `when:`, an expression tree; `None`: always.
    pub when: Option<Value>,
    /// `to:`, names of nodes of the same level.
    pub to: Vec<String>,
    /// `max:` of an edge upwards: how often it is taken at most per entry of its loop; an expression tree over inputs.
    pub max: Option<Value>,
    /// `on_limit: fail`: a spent `max` fails the node.
    pub limit_fails: bool,
}

/// `repeat:` as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RepeatDef {
    /// `until:`, an expression tree over `this` and, for a group, its nodes.
    pub until: Option<Value>,
    /// `max:` passes, an expression tree over inputs.
    pub max: Option<Value>,
    /// `on_limit: fail`: passes that end without `until` fail the node.
    pub limit_fails: bool,
}

/// `retry:` as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetryDef {
    /// Retries after the first attempt.
    pub max: Option<u32>,
    /// Error classes that are retried, by name.
    pub on: Option<Vec<String>>,
    /// First delay in milliseconds; it doubles with each retry.
    pub backoff_ms: Option<u64>,
}

/// `on_error:` and `on_item_error:` as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ErrorPolicyDef {
    /// Nothing written: the default, which fails.
    #[default]
    Default,
    /// `fail`, written out.
    Fail,
    /// `drop` (items only): the item leaves the list.
    Drop,
    /// `skip`: dependents treat it as skipped; an item reads as null.
    Skip,
    /// `{value: …}`: an expression tree takes the place of the value.
    Value(Value),
    /// `{to: …}` (nodes only): of all edges only the one to this node is live.
    To(String),
}

impl NodeDef {
    /// What its items and their numbers are called, under `for_each`.
    pub fn item_names(&self) -> (&str, &str) {
        (self.item_name.as_deref().unwrap_or("item"), self.index_name.as_deref().unwrap_or("index"))
    }

    /// Whether its work sees what it gave before: under `repeat`, or in a sequential map.
    pub fn loops(&self) -> bool {
        self.repeat.is_some() || self.sequential
    }
}
