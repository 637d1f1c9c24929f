//! What a node kind looks like from outside: data only, so that the checker knows kinds whose code lives elsewhere.

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
    /// Whether it acts on the world, so that it is not cancelled for losing a race, and counts without being read.
    pub effect: bool,
    /// Whether `samples` makes sense: the same input may give different values.
    pub samples: bool,
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
            effect: false,
            samples: false,
        }
    }

    /// The same with one more optional field.
    pub fn field(mut self, name: &str, format: FieldFormat, doc: &str) -> Self {
        self.fields.push(FieldSpec { name: name.to_owned(), format, required: false, doc: doc.to_owned() });
        self
    }

    /// The same with one more required field.
    pub fn required(mut self, name: &str, format: FieldFormat, doc: &str) -> Self {
        self.fields.push(FieldSpec { name: name.to_owned(), format, required: true, doc: doc.to_owned() });
        self
    }

    /// Whether the kind draws or opens plans, so that `limits` and `allow` bound them.
    pub fn has_plans(&self) -> bool {
        self.work == KindWork::Expand || self.fields.iter().any(|field| field.name == "max_steps")
    }

    /// Whether an attribute means something on nodes of this kind.
    pub fn carries(&self, attribute: &str) -> bool {
        match attribute {
            "retry" => self.work == KindWork::Leaf,
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
