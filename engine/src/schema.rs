//! Short schemas (`[string]`, `{a: number, b?: a | b}`) and the JSON Schema behind them.

use serde_json::Value;

/// What a value must satisfy.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema(Value);

impl Schema {
    /// Reads the short form. The error is (path inside the tree, message, help lines).
    pub fn parse_short(_value: &Value) -> Result<Self, SchemaError> {
        todo!()
    }
    /// Takes a JSON Schema as it stands; refuses one that is no valid schema.
    pub fn from_json_schema(_value: Value) -> Result<Self, SchemaError> {
        todo!()
    }
    /// Accepts every value.
    pub fn any() -> Self {
        Self(Value::Bool(true))
    }
    /// The JSON Schema.
    pub fn json_schema(&self) -> &Value {
        &self.0
    }
    /// The short form, for people.
    pub fn describe(&self) -> String {
        self.0.to_string()
    }
    /// Checks a value; the error is one line for people and models: where and what (`at /steps/0/id: …`).
    pub fn validate(&self, _value: &Value) -> Result<(), String> {
        todo!()
    }
}

/// Why a schema is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SchemaError {
    /// Where inside the tree.
    pub path: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Vec<String>,
}
