//! Which words mean something: every key of the file as data, reserved names, and what this version does not run.
//!
//! The reader takes no key that is not in these tables, its help names those that are, and the JSON Schema of the file is made
//! of them, so the three cannot differ. Fields of kinds stand in their [`KindSpec`](super::KindSpec) in the same way.

/// Names that no input and no node may have.
pub const RESERVED: &[&str] = &[
    "this", "last", "past", "item", "index", "iteration", "pass", "error", "loop", "range", "null", "none", "true",
    "false",
];

/// One key of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What stands there.
    pub form: Form,
    /// What it is for, in one line.
    pub doc: &'static str,
}

/// What stands at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The version of the format.
    Version,
    /// A text.
    Text,
    /// A text, or a number or truth value that is taken as its text.
    Word,
    /// A whole number from 0.
    Count,
    /// A whole number from 1, or an expression over inputs.
    CountExpression,
    /// A number with a unit of [`UNITS`].
    Duration,
    /// An expression, or a tree of them.
    Expression,
    /// Any mapping.
    Mapping,
    /// The name of a kind.
    Kind,
    /// Names of nodes, each perhaps with a `?`.
    Needs,
    /// The name of an item.
    ItemName,
    /// A list of names.
    Names,
    /// `all`, `any`, `first`, or `{quorum: n}`.
    Join,
    /// A name, or cases with the keys of [`CASE`].
    Next,
    /// The keys of [`REPEAT`].
    Repeat,
    /// `succeed` or `fail`.
    OnLimit,
    /// `skip` or `fail`.
    OnStepError,
    /// A name or a list of names.
    NameOrNames,
    /// `true` or `false`.
    Flag,
    /// A number of retries, or the keys of [`RETRY`].
    Retry,
    /// Classes of errors.
    Classes,
    /// `none`, `original`, or a number from 0 to [`LATENCY_MAX`].
    Latency,
    /// What becomes of a node that fails.
    OnError,
    /// What becomes of an item that fails.
    OnItemError,
    /// A type in the short form.
    Type,
    /// A JSON Schema.
    JsonSchema,
    /// Types of inputs by name, perhaps with a default.
    Inputs,
    /// Models by alias, each with the keys of [`MODEL`].
    Models,
    /// The keys of [`BUDGET`].
    Budget,
    /// The keys of [`LIMITS`].
    Limits,
    /// The keys of [`ALLOW`].
    Allow,
    /// A word of [`CacheScope::WORDS`](super::CacheScope::WORDS).
    Cache,
    /// Nodes by name.
    Nodes,
    /// Part of the language and not run by this version; the doc says what it belongs to.
    Later,
}

const fn key(name: &'static str, form: Form, doc: &'static str) -> Key {
    Key { name, form, doc }
}

/// Units of a duration, with their milliseconds.
pub const UNITS: [(&str, f64); 5] = [("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 3.6e6), ("d", 8.64e7)];

/// Providers of models.
pub const PROVIDERS: [&str; 3] = ["openai", "scripted", "recorded"];

/// Largest factor of `latency`.
pub const LATENCY_MAX: f64 = 100.0;

/// Keys of a file.
pub const TOP: &[Key] = &[
    key("flowrun", Form::Version, "version of the format: 1"),
    key("name", Form::Text, "name for people; the file's stem if not written"),
    key("description", Form::Text, "what the workflow does, for people"),
    key("inputs", Form::Inputs, "name: type; `= default` after the type makes an input optional"),
    key("models", Form::Models, "models by alias; the user's own configuration of the same alias wins"),
    key("budget", Form::Budget, "what the whole run may use; reaching it ends the run as `exhausted`"),
    key("limits", Form::Limits, "sizes that nothing may exceed"),
    key("nodes", Form::Nodes, "the nodes by name; a node runs when everything that it depends on is settled"),
    key("output", Form::Expression, "what the workflow gives: an expression or a tree of them; else all nodes' values"),
];

/// Keys of a model.
pub const MODEL: &[Key] = &[
    key(
        "provider",
        Form::Text,
        "`openai` (every server that speaks its chat protocol), `scripted` (replies of a file) or `recorded` (a recording)",
    ),
    key("model", Form::Word, "the model's name on the server; for `scripted` and `recorded` the file"),
    key("base_url", Form::Text, "root of the API, such as `http://127.0.0.1:8080/v1`"),
    key("api_key_env", Form::Text, "environment variable with the key; counts in the user's `flowrun.yaml` only"),
    key("params", Form::Mapping, "parameters of every request, unless a node says otherwise"),
    key("max_parallel", Form::Count, "most requests in flight to this model"),
    key("timeout", Form::Duration, "longest wait for one reply; 300 s if not written"),
    key("record", Form::Text, "file to which every call is written; counts in the user's `flowrun.yaml` only"),
    key(
        "latency",
        Form::Latency,
        "of `recorded`: how long replies take: `none`, as `original`, or that times a number; `none` if not written",
    ),
    key("price", Form::Later, "prices"),
];

/// Keys of `budget`.
pub const BUDGET: &[Key] = &[
    key("calls", Form::Count, "most model calls of the run, retries and repair turns included"),
    key("tokens", Form::Later, "`budget.tokens`"),
    key("usd", Form::Later, "`budget.usd`"),
    key("wall", Form::Later, "`budget.wall`"),
];

/// Keys of `limits`.
pub const LIMITS: &[Key] = &[
    key("steps", Form::Count, "most steps of a run; 1,000,000 if not written"),
    key("items", Form::Count, "most items of one `for_each` and samples of one node; 100,000 if not written"),
    key("depth", Form::Count, "deepest nesting of frames; 16 if not written"),
    key("nodes", Form::Count, "most steps of a plan, `answer` apart; 50 if not written"),
    key("output", Form::Count, "most bytes of one value as JSON; 1 MiB if not written"),
    key("iterations", Form::Count, "most passes of one loop; 10,000 if not written"),
];

/// Keys of a case of `next`.
pub const CASE: &[Key] = &[
    key("when", Form::Expression, "the condition of the case; without one it always holds"),
    key("to", Form::NameOrNames, "where to: a node, or a list of nodes that all run"),
    key(
        "max",
        Form::CountExpression,
        "of an edge upwards: how often it is taken at most each time the loop is entered",
    ),
    key("on_limit", Form::OnLimit, "`fail`: a spent `max` fails the node; else the next case is tried"),
];

/// Keys of `repeat`.
pub const REPEAT: &[Key] = &[
    key(
        "until",
        Form::Expression,
        "asked after each pass; sees `this`, the value of the pass, and the nodes of a group",
    ),
    key("max", Form::CountExpression, "most passes"),
    key("on_limit", Form::OnLimit, "`fail`: passes that end without `until` fail the node; else the last value counts"),
];

/// Keys of `retry`.
pub const RETRY: &[Key] = &[
    key("max", Form::Count, "retries after the first attempt"),
    key("on", Form::Classes, "which failures are tried again"),
    key("backoff", Form::Duration, "first delay; it doubles with each retry, up to 60 s"),
];

/// Keys of `allow`.
pub const ALLOW: &[Key] = &[
    key("kinds", Form::Names, "kinds that a plan may use; `[llm, calc]` if not written"),
    key("models", Form::Names, "aliases of models that a plan may ask; the default model alone if not written"),
    key("tools", Form::Names, "tools that a plan may call; none if not written"),
];

/// Keys of a user's `flowrun.yaml`.
pub const CONFIGURATION: &[Key] = &[
    key("models", Form::Models, "models by alias; `default` is what nodes without `model` ask"),
    key("max_parallel", Form::Count, "most nodes at work at once; 16 if not written"),
    key("db", Form::Text, "the database of runs and answers; `.flowrun/flowrun.db` if not written"),
];

/// Keys that any node may carry, as far as its kind [carries](super::KindSpec::carries) them.
pub const ATTRIBUTES: &[Key] = &[
    key("kind", Form::Kind, "what does the work; another key such as `prompt` or `calc` says it as well"),
    key("needs", Form::Needs, "nodes to wait for beside those that are mentioned; `?` marks an optional one"),
    key("when", Form::Expression, "a condition, asked when the dependencies are settled; if false the node is skipped"),
    key("for_each", Form::Expression, "a list: the work is done once per item, called `item`; the value is a list"),
    key("as", Form::ItemName, "another name for the item of `for_each`"),
    key("max_parallel", Form::CountExpression, "most items or samples at once; twice the run's limit if not written"),
    key("samples", Form::CountExpression, "how many answers to the same input; the value is their list"),
    key("sequential", Form::Flag, "one item after the other; `last` and `past` have the values of those before it"),
    key("index", Form::ItemName, "another name for the number of the item of `for_each`, from 0"),
    key(
        "stop_when",
        Form::Expression,
        "asked for the first value, the first two, …; where it holds, these are the value",
    ),
    key("quorum", Form::CountExpression, "how many items must succeed; the others may fail and read as null"),
    key("repeat", Form::Repeat, "does it again until a condition holds, at most `max` times; the value is the last"),
    key("next", Form::Next, "where the flow goes on: a node, or cases `{when, to, max}` of which the first counts"),
    key(
        "join",
        Form::Join,
        "how incoming `next` edges, else entries of `needs` count: `all`, `any`, `first`, `{quorum: n}`",
    ),
    key("retry", Form::Retry, "tries again after a failure: a number of retries, or `{max, on, backoff}`"),
    key("timeout", Form::Duration, "longest time of one attempt; of the whole on a group, call or expand"),
    key("on_error", Form::OnError, "if the node fails: `fail`, `skip`, `{to: NODE}`, or a value in its place"),
    key("on_item_error", Form::OnItemError, "if an item fails: `fail`, `drop`, `skip`, or a value in its place"),
    key("schema", Form::Type, "what the value must be, in the short form: `[string]`, `{a: number}`, `yes | no`"),
    key("json_schema", Form::JsonSchema, "what the value must be, as a JSON Schema"),
    key("output", Form::Expression, "maps the value, which is called `this`; of a group: its value"),
    key("nodes", Form::Nodes, "the nodes of a group; they see the names around it"),
    key("limits", Form::Limits, "`nodes` bounds what a model may draw"),
    key("allow", Form::Allow, "what a model may draw"),
    key(
        "cache",
        Form::Cache,
        "who finds the answer again: `shared`, every run of the same store; `run`; `off`, nobody",
    ),
    key("key", Form::Expression, "what an answer is found by, in place of the whole input"),
    key("salt", Form::Expression, "what must be equal as well: in a loop `salt: iteration` draws anew in every pass"),
    key("ttl", Form::Duration, "how old an answer may be; any age if not written"),
    key("budget", Form::Later, "budgets of single nodes; `budget.calls` at the top counts for the whole run"),
    key("finalize", Form::Later, "a declared best answer"),
    key("priority", Form::Later, "priorities"),
    key("tools", Form::Later, "tools"),
    key("max_depth", Form::Count, "most calls of the same workflow inside each other"),
    key("on_step_error", Form::OnStepError, "`fail`: a step of the plan that fails ends it; `skip` if not written"),
];

/// What an attribute of a later version is for, if it is one.
pub fn later(word: &str) -> Option<&'static str> {
    ATTRIBUTES.iter().find(|key| key.form == Form::Later && key.name == word).map(|key| key.doc)
}

/// The keys of a table that this version reads.
pub fn known(table: &'static [Key]) -> impl Iterator<Item = &'static Key> + Clone {
    table.iter().filter(|key| key.form != Form::Later)
}

/// Whether any node may carry the key.
pub fn is_attribute(key: &str) -> bool {
    known(ATTRIBUTES).any(|known| known.name == key)
}
