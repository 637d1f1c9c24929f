//! Workflows written in Rust: the same definition that a file gives, put together with chained calls.
//!
//! Only what most workflows need has a method; every other attribute is a public field.

use serde_json::Value;

use super::{CacheScope, ErrorPolicyDef, InputDef, Need, NodeDef, RetryDef, WorkflowDef};
use crate::schema::Schema;

impl WorkflowDef {
    /// An empty workflow.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The same with an input; without a default it is required.
    pub fn input(mut self, name: impl Into<String>, schema: Schema, default: Option<Value>) -> Self {
        self.inputs.insert(name.into(), InputDef { schema, default });
        self
    }

    /// The same with a node.
    pub fn node(mut self, name: impl Into<String>, node: NodeDef) -> Self {
        self.nodes.insert(name.into(), node);
        self
    }

    /// The same with an output: an expression, or a tree of them. Without one the output is the map of all nodes' values.
    pub fn output(mut self, output: impl Into<Value>) -> Self {
        self.output = Some(output.into());
        self
    }
}

impl NodeDef {
    /// A node of a kind, such as `llm`, `calc`, `set`, or one that the program registers.
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), ..Self::default() }
    }

    /// The same with a field of its kind, as a file would write it: `prompt`, `calc`, `value`, …
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    /// The same after another node whose value it does not read.
    pub fn needs(mut self, name: impl Into<String>) -> Self {
        self.needs.push(Need { name: name.into(), optional: false });
        self
    }

    /// The same under a condition: an expression.
    pub fn when(mut self, condition: impl Into<Value>) -> Self {
        self.when = Some(condition.into());
        self
    }

    /// The same once per item of a list: an expression. The item's name is `item`.
    pub fn for_each(mut self, list: impl Into<Value>) -> Self {
        self.for_each = Some(list.into());
        self
    }

    /// The same with retries after the first attempt: how many, and the first delay in milliseconds, which doubles.
    pub fn retry(mut self, max: u32, backoff_ms: u64) -> Self {
        self.retry = Some(RetryDef { max: Some(max), on: None, backoff_ms: Some(backoff_ms) });
        self
    }

    /// The same with how far its answers go, whatever its kind says.
    pub fn cache(mut self, scope: CacheScope) -> Self {
        self.cache = Some(scope);
        self
    }

    /// The same with an expression that must be equal for an answer to be found again, such as `iteration`.
    pub fn salt(mut self, salt: impl Into<Value>) -> Self {
        self.salt = Some(salt.into());
        self
    }

    /// The same with what becomes of a failure.
    pub fn on_error(mut self, policy: ErrorPolicyDef) -> Self {
        self.on_error = policy;
        self
    }

    /// The same with a value that must satisfy a schema.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }

    /// The same with its value, `this`, mapped by an expression.
    pub fn output(mut self, output: impl Into<Value>) -> Self {
        self.output = Some(output.into());
        self
    }
}
