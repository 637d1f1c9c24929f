//! `tool`: calls code of the program that embeds the library.
//!
//! ```yaml
//! found: {tool: search, with: {query: question, limit: 3}}
//! act: {tool: [search, lookup], choose: step.action, with: {query: step.input}}
//! ```
//!
//! Tools are registered by name ([`Tools`]); a file can call no other, and what a model says picks at most one of a closed list.
//! Its value is what the tool gives. Nothing is retried unless `retry` says so: most tools do something.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use flowrun_engine::definition::{FieldFormat, FieldSpec, KindSpec, Word, listed};
use flowrun_engine::event::Usage;
use flowrun_engine::failure::StepError;
use flowrun_engine::node::{Input, Node, NodeContext, NodeError, Output};
use flowrun_engine::schema::Schema;
use serde_json::{Map, Value, json};

/// Code that workflows may call by name.
#[async_trait]
pub trait Tool: Send + Sync + 'static {
    /// What it looks like. Asked once, when the program is put together.
    fn spec(&self) -> ToolSpec;

    /// Does the work of one attempt. The arguments are what `with` gives, and fit the schema of [`ToolSpec::input`].
    ///
    /// # Errors
    /// A [`StepError`] whose class says whether another attempt could help, should the node have a `retry`.
    async fn call(&self, context: &NodeContext, arguments: Map<String, Value>) -> Result<Value, StepError>;
}

/// What a tool looks like from outside.
#[derive(Clone, Debug)]
pub struct ToolSpec {
    /// What it does, in one line, for people and for models.
    pub description: String,
    /// What its arguments must be; everything if it is not said.
    pub input: Option<Schema>,
    /// Whether it does something to the world. A node without effect whose value nobody reads is warned of.
    pub effect: bool,
    /// Part of the key of its answers: another version answers anew where answers are kept.
    pub version: Option<String>,
}

impl ToolSpec {
    /// A tool that may do something to the world and takes any arguments.
    pub fn new(description: impl Into<String>) -> Self {
        Self { description: description.into(), input: None, effect: true, version: None }
    }

    /// The same with a version.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// The same with what its arguments must be: `"{query: string, limit?: integer}".parse()?`.
    pub fn input(mut self, schema: Schema) -> Self {
        self.input = Some(schema);
        self
    }

    /// The same for a tool that only looks something up or computes.
    pub fn without_effect(mut self) -> Self {
        self.effect = false;
        self
    }

    /// Description and arguments in one line.
    fn line(&self) -> String {
        match &self.input {
            Some(input) => format!("{}, with {}", self.description, input.describe()),
            None => self.description.clone(),
        }
    }
}

impl From<&str> for ToolSpec {
    /// A tool that is only described.
    fn from(description: &str) -> Self {
        Self::new(description)
    }
}

/// Makes a tool of an asynchronous function of the arguments.
pub fn tool_fn<F, R>(spec: impl Into<ToolSpec>, call: F) -> impl Tool
where
    F: Fn(Map<String, Value>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Value, StepError>> + Send + 'static,
{
    Function { spec: spec.into(), call }
}

struct Function<F> {
    spec: ToolSpec,
    call: F,
}

#[async_trait]
impl<F, R> Tool for Function<F>
where
    F: Fn(Map<String, Value>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Value, StepError>> + Send + 'static,
{
    fn spec(&self) -> ToolSpec {
        self.spec.clone()
    }

    async fn call(&self, _: &NodeContext, arguments: Map<String, Value>) -> Result<Value, StepError> {
        (self.call)(arguments).await
    }
}

/// The tools that a program has, by name: the kind `tool`. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tools {
    tools: BTreeMap<String, (ToolSpec, Arc<dyn Tool>)>,
}

impl Tools {
    /// Adds a tool; one of the same name is replaced.
    pub fn register(&mut self, name: impl Into<String>, tool: impl Tool) -> &mut Self {
        self.tools.insert(name.into(), (tool.spec(), Arc::new(tool)));
        self
    }
}

#[async_trait]
impl Node for Tools {
    fn spec(&self) -> KindSpec {
        let word = |(name, (spec, _)): (&String, &(ToolSpec, _))| Word {
            name: name.clone(),
            doc: spec.line(),
            effect: spec.effect,
        };
        let doc = "a tool that a Rust program registers with `Builder::tool` (the command line has none), or a list to `choose` from";
        let tool = FieldSpec {
            required: true,
            words: self.tools.iter().map(word).collect(),
            ..FieldSpec::new("tool", FieldFormat::Names, doc)
        };
        let mut spec = KindSpec { work_keys: vec!["tool".to_owned()], effect: true, ..KindSpec::leaf("tool") };
        spec.fields.push(tool);
        spec.field("choose", FieldFormat::Choice, "which of the list is called: an expression that gives its name")
            .field("with", FieldFormat::Expression, "its arguments by name")
    }

    fn identity(&self, input: &Input) -> Value {
        let version =
            called(input).ok().and_then(|name| self.tools.get(name)).and_then(|(spec, _)| spec.version.as_ref());
        version.map_or(Value::Null, |version| json!({"version": version}))
    }

    async fn run(&self, context: &NodeContext, input: Input) -> Result<Output, NodeError> {
        let name = called(&input)?;
        let (spec, tool) = self.tools.get(name).ok_or_else(|| unknown(&input.fields["tool"], &input.fields["tool"]))?;
        let arguments = input.fields.get("with").cloned().unwrap_or_else(|| json!({}));
        let report = Some(json!({"tool": name, "arguments": arguments}));
        let given = match fitting(name, spec, arguments) {
            Ok(arguments) => tool.call(context, arguments).await,
            Err(error) => Err(error),
        };
        match given {
            Ok(value) => Ok(Output { value, provenance: report, ..Output::default() }),
            Err(error) => Err(NodeError { error, usage: Usage::default(), provenance: report }),
        }
    }
}

/// The arguments, if the tool takes them.
fn fitting(name: &str, spec: &ToolSpec, arguments: Value) -> Result<Map<String, Value>, StepError> {
    if let Some(schema) = &spec.input {
        schema.validate(&arguments).map_err(|why| {
            let wanted = schema.describe();
            StepError::terminal("arguments", format!("`{name}` takes {wanted}; what `with` gives does not fit: {why}"))
        })?;
    }
    match arguments {
        Value::Object(arguments) => Ok(arguments),
        other => {
            let message = format!("`with` is a map of arguments by name, not {}", excerpt(&other));
            Err(StepError::terminal("arguments", message))
        }
    }
}

/// The name of the tool that a step calls: the one that is written, or the one of a closed list that `choose` gives.
fn called(input: &Input) -> Result<&str, StepError> {
    let (tool, chosen) = (&input.fields["tool"], &input.fields["choose"]);
    let called = if tool.is_array() { chosen } else { tool };
    match called.as_str() {
        Some(name) if listed(tool).contains(called) => Ok(name),
        _ => Err(unknown(called, tool)),
    }
}

fn unknown(called: &Value, tool: &Value) -> StepError {
    let names: Vec<&str> = listed(tool).iter().filter_map(Value::as_str).collect();
    let message = format!("there is no tool {} in this step; it may call {}", excerpt(called), names.join(", "));
    StepError::terminal("unknown_tool", message)
}

/// What is shown of a value that may be long.
fn excerpt(value: &Value) -> String {
    let short = |text: &str| text.chars().take(60).collect::<String>();
    value.as_str().map_or_else(|| short(&value.to_string()), |text| format!("`{}`", short(text)))
}

#[cfg(test)]
mod tests;
