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
}

impl ToolSpec {
    /// A tool that may do something to the world and takes any arguments.
    pub fn new(description: impl Into<String>) -> Self {
        Self { description: description.into(), input: None, effect: true }
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
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use flowrun_engine::check::{NoLibrary, check_text};
    use flowrun_engine::diagnostic::Diagnostic;
    use flowrun_engine::event::Status;
    use flowrun_engine::failure::ErrorClass;
    use flowrun_engine::node::Kinds;
    use flowrun_engine::run::{RunOptions, RunOutcome, run};

    use super::*;

    fn kinds() -> Kinds {
        let mut tools = Tools::default();
        let input = "{a: number, b?: number}".parse().unwrap();
        let sum = |with: Map<String, Value>| async move {
            let number = |name: &str| with.get(name).and_then(Value::as_f64).unwrap_or_default();
            Ok(json!(number("a") + number("b")))
        };
        tools.register("sum", tool_fn(ToolSpec::new("adds").input(input).without_effect(), sum));
        tools.register("echo", tool_fn("gives back", |with| async move { Ok(Value::Object(with)) }));
        let calls = AtomicU32::new(0);
        let flaky = move |_| {
            let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { Err(StepError::new("down", ErrorClass::Server, "not yet")) } else { Ok(json!("up")) } }
        };
        tools.register("flaky", tool_fn("fails at its first call", flaky));
        tools.register("slip", tool_fn("panics", |_| async { panic!("slipped") }));
        let mut kinds = Kinds::new();
        kinds.register(tools);
        kinds
    }

    fn said(node: &str) -> Vec<Diagnostic> {
        let text = format!("flowrun: 1\nnodes:\n  word: {{value: \"'sum'\"}}\n  a: {node}\noutput: [a, word]\n");
        match check_text("t.yaml", &text, kinds().specs(), &NoLibrary) {
            Ok((checked, _)) => checked.warnings,
            Err(refused) => refused.diagnostics,
        }
    }

    async fn outcome(node: &str) -> RunOutcome {
        let text =
            format!("flowrun: 1\nnodes:\n  word: {{value: \"'sum'\"}}\n  a: {node}\noutput: {{a: a, word: word}}\n");
        let checked = check_text("t.yaml", &text, kinds().specs(), &NoLibrary);
        let workflow = checked.unwrap_or_else(|refused| panic!("{:#?}", refused.diagnostics)).0.workflow;
        run(&workflow, Map::new(), &kinds(), RunOptions::default()).await.unwrap()
    }

    async fn value(node: &str) -> Value {
        let outcome = outcome(node).await;
        assert_eq!(outcome.status, Status::Success, "{outcome:?}");
        outcome.output.unwrap()["a"].clone()
    }

    async fn error(node: &str) -> (String, String) {
        let error = outcome(node).await.error.unwrap();
        (error.code.clone(), error.message.clone())
    }

    #[tokio::test]
    async fn tools_are_called_with_values() {
        assert_eq!(value("{tool: sum, with: {a: 2, b: 3}}").await, json!(5.0));
        assert_eq!(value("{tool: echo}").await, json!({}));
        assert_eq!(value("{tool: echo, with: {x: word, y: [1, word]}}").await, json!({"x": "sum", "y": [1, "sum"]}));
        assert_eq!(value("{tool: sum, for_each: [1, 2], with: {a: item}, output: this + 1}").await, json!([2.0, 3.0]));
        assert_eq!(value("{tool: [echo, sum], choose: word, with: {a: 4}}").await, json!(4.0));
    }

    #[tokio::test]
    async fn only_a_listed_tool_is_called() {
        let (code, message) = error("{tool: [echo, slip], choose: word}").await;
        assert_eq!(code, "unknown_tool");
        assert_eq!(message, "there is no tool `sum` in this step; it may call echo, slip");
        assert_eq!(error("{tool: [echo], choose: none}").await.0, "unknown_tool");
        assert_eq!(value("{tool: [echo], choose: word, on_error: {value: 7}}").await, json!(7));
    }

    #[tokio::test]
    async fn arguments_must_fit() {
        let (code, message) = error("{tool: sum, with: {a: word}}").await;
        assert_eq!(code, "arguments");
        assert!(message.starts_with("`sum` takes {a: number, b?: number};") && message.contains("/a"), "{message}");
        assert_eq!(error("{tool: sum}").await.0, "arguments");
        assert_eq!(error("{tool: echo, with: word}").await.0, "arguments");
    }

    #[tokio::test]
    async fn a_failing_tool_is_tried_again_only_when_asked() {
        assert_eq!(error("{tool: flaky}").await, ("down".to_owned(), "not yet".to_owned()));
        assert_eq!(value("{tool: flaky, retry: {max: 1, backoff: 1ms}}").await, json!("up"));
        assert_eq!(error("{tool: slip, retry: 3}").await.0, "panic");
    }

    #[test]
    fn names_are_checked_before_a_run() {
        let codes = |node: &str| said(node).iter().map(|problem| problem.code.0).collect::<Vec<_>>();
        assert_eq!(codes("{tool: echo}"), [""; 0]);
        let unknown = &said("{tool: ehco}")[0];
        assert_eq!(unknown.message, "no tool is called `ehco`");
        assert_eq!(unknown.help, ["did you mean `echo`?", "`tool` may be echo, flaky, slip, sum"]);
        assert_eq!(unknown.place.as_ref().map(|place| (place.line, place.column)), Some((4, 13)));
        assert_eq!(codes("{tool: [echo, sum]}"), ["FR005"]);
        assert_eq!(codes("{tool: echo, choose: word}"), ["FR009"]);
        assert_eq!(codes("{tool: [], choose: word}"), ["FR006"]);
        assert_eq!(codes("{tool: [echo, echo], choose: word}"), ["FR009"]);
        assert_eq!(codes("{tool: 3}"), ["FR006"]);
    }

    #[test]
    fn a_node_with_an_effect_need_not_be_read() {
        let warned = |nodes: &str| {
            let text = format!("flowrun: 1\nnodes:\n  a: {{value: 1}}\n  b: {nodes}\noutput: a\n");
            let (checked, _) = check_text("t.yaml", &text, kinds().specs(), &NoLibrary).unwrap();
            !checked.warnings.is_empty()
        };
        assert!(!warned("{tool: echo}") && !warned("{nodes: {c: {tool: echo}}}"));
        assert!(!warned("{tool: [sum, echo], choose: \"'sum'\"}"));
        assert!(warned("{tool: sum, with: {a: 1}}") && warned("{nodes: {c: {tool: sum, with: {a: 1}}}}"));
    }
}
