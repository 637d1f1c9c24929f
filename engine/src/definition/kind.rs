//! What a node kind looks like from outside: data only, so that the checker knows kinds whose code lives elsewhere.

use serde_json::Value;

use crate::retry::RetryPolicy;

/// Description of a node kind.
#[derive(Clone, Debug)]
pub struct KindSpec {
    /// Its name, as in `kind: llm`.
    pub name: String,
    /// Changes when the same input would give another value; part of every identity of a step.
    pub version: u32,
    /// Who does the work.
    pub work: KindWork,
    /// Keys that imply this kind: `prompt` and `ask` imply `llm`.
    pub work_keys: Vec<String>,
    /// The fields that it takes beside the attributes of every node.
    pub fields: Vec<FieldSpec>,
    /// Retries when the file says nothing.
    pub retry: RetryPolicy,
    /// Whether each attempt calls a model and is charged to `budget.calls`.
    pub calls_model: bool,
    /// How far answers go when the file says nothing.
    pub cache: CacheScope,
    /// Whether `samples` makes sense: the same input may give different values.
    pub samples: bool,
    /// Whether a step of it may do something to the world, so that it is more than its value; see [`Self::acts`].
    pub effect: bool,
}

/// How far the answers of a node go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheScope {
    /// To every run of the same store.
    Shared,
    /// To the steps of the same run.
    Run,
    /// Nowhere: every step does its own work.
    #[default]
    Off,
}

impl CacheScope {
    /// The words of `cache:`.
    pub const WORDS: [(&'static str, CacheScope); 3] =
        [("shared", CacheScope::Shared), ("run", CacheScope::Run), ("off", CacheScope::Off)];

    /// The scope of a word of `cache:`.
    pub fn named(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, scope)| *scope)
    }

    /// How it is written.
    pub fn word(self) -> &'static str {
        match self {
            CacheScope::Shared => "shared",
            CacheScope::Run => "run",
            CacheScope::Off => "off",
        }
    }
}

/// Who does the work of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindWork {
    /// A [`Node`](crate::node::Node) implementation; holds a slot while it runs.
    Leaf,
    /// The driver evaluates a value: `set` and `calc`.
    Value,
    /// A frame over the node's own `nodes:`.
    Group,
    /// A frame over another workflow.
    Call,
    /// A frame over a plan.
    Expand,
    /// A person is asked.
    Human,
}

/// One field of a kind.
#[derive(Clone, Debug)]
pub struct FieldSpec {
    /// Its key.
    pub name: String,
    /// How its text is read.
    pub format: FieldFormat,
    /// Whether the node is refused without it.
    pub required: bool,
    /// What it is, in one line, for `help` and the docs.
    pub doc: String,
    /// The names that a field of the format [`FieldFormat::Names`] may have.
    pub words: Vec<Word>,
}

/// A name that a field may have: what the program registered under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// As it is written.
    pub name: String,
    /// What it means, in one line.
    pub doc: String,
    /// Whether a step that has it may do something to the world.
    pub effect: bool,
}

/// How a field's text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldFormat {
    /// A template: text with `{{ expression }}`.
    Template,
    /// Literal text with `{id}` slots (`ask`).
    Slotted,
    /// A formula of the calculator.
    Formula,
    /// An expression, or a YAML tree of expressions.
    Expression,
    /// A YAML mapping of expressions, or an expression that gives a map.
    Map,
    /// An expression tree, or a YAML list of literal names that stands for `{name: name}` (`with` of a plan).
    ExpressionOrNames,
    /// A literal text.
    Text,
    /// A literal whole number ≥ 0.
    Count,
    /// A literal true or false.
    Flag,
    /// A YAML tree taken as it stands.
    Literal,
    /// One of the field's `words`, or a list of some that the field of the format [`Choice`](Self::Choice) picks from.
    Names,
    /// An expression that gives one name of the list in the kind's field of the format [`Names`](Self::Names).
    Choice,
}

impl KindSpec {
    /// A leaf kind with no fields; add to it with [`field`](Self::field).
    pub fn leaf(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: 1,
            work: KindWork::Leaf,
            work_keys: Vec::new(),
            fields: Vec::new(),
            retry: RetryPolicy::NONE,
            calls_model: false,
            cache: CacheScope::Off,
            samples: false,
            effect: false,
        }
    }

    /// The same with one more optional field.
    pub fn field(mut self, name: &str, format: FieldFormat, doc: &str) -> Self {
        self.fields.push(FieldSpec::new(name, format, doc));
        self
    }

    /// The same with one more required field.
    pub fn required(mut self, name: &str, format: FieldFormat, doc: &str) -> Self {
        self.fields.push(FieldSpec { required: true, ..FieldSpec::new(name, format, doc) });
        self
    }

    /// Whether the kind draws or opens plans, so that `limits` and `allow` bound them.
    pub fn has_plans(&self) -> bool {
        self.work == KindWork::Expand || self.fields.iter().any(|field| field.name == "max_steps")
    }

    /// The field that names what the program registered, if the kind has one.
    pub fn names(&self) -> Option<&FieldSpec> {
        self.fields.iter().find(|field| field.format == FieldFormat::Names)
    }

    /// Whether a step with these fields, as they are written, may do something to the world: its kind does, and so does one of
    /// the words that it names, if it names words.
    pub fn acts<'v>(&self, written: impl Fn(&str) -> Option<&'v Value>) -> bool {
        let Some((field, value)) = self.names().and_then(|field| Some((field, written(&field.name)?))) else {
            return self.effect;
        };
        let is_named = |word: &Word| listed(value).iter().any(|name| *name == word.name);
        self.effect && field.words.iter().any(|word| word.effect && is_named(word))
    }

    /// Whether an attribute means something on nodes of this kind.
    pub fn carries(&self, attribute: &str) -> bool {
        match attribute {
            "retry" | "cache" | "key" | "salt" | "ttl" => self.work == KindWork::Leaf,
            "samples" => self.samples,
            "timeout" => self.work != KindWork::Value,
            "nodes" => self.work == KindWork::Group,
            "limits" | "allow" => self.has_plans(),
            "max_depth" => self.work == KindWork::Call,
            "on_step_error" => self.work == KindWork::Expand,
            _ => true,
        }
    }
}

impl FieldSpec {
    /// An optional field without words.
    pub fn new(name: &str, format: FieldFormat, doc: &str) -> Self {
        Self { name: name.to_owned(), format, required: false, doc: doc.to_owned(), words: Vec::new() }
    }
}

/// One entry or a list of them.
pub fn listed(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}
