//! The one expression language: minijinja (Jinja2 syntax) in templates and, undelimited, in expression fields.
//!
//! Names are looked up lazily through a [`Scope`], so that an evaluation costs what it reads, not what exists. Three forms
//! exist: [`Template`] (text with `{{ }}`), [`Expression`], and [`Tree`] (a YAML tree whose strings are expressions).
//! Comparisons are checked, undefined results are errors, and every evaluation has a fuel limit.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

/// A JSON value and, built on first use and then shared, its form inside templates.
#[derive(Debug)]
pub struct Datum {
    json: Value,
    template_form: OnceLock<minijinja::Value>,
}

impl Datum {
    /// Wraps a JSON value.
    pub fn new(json: Value) -> Arc<Self> {
        Arc::new(Self { json, template_form: OnceLock::new() })
    }

    /// The JSON value.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// The template form.
    pub(crate) fn template_form(&self) -> minijinja::Value {
        self.template_form.get_or_init(|| minijinja::Value::from(minijinja::value::Serde(&self.json))).clone()
    }
}

/// Where an evaluation finds its names.
pub trait Scope: Send + Sync + 'static {
    /// The value of a name; `None` if there is no such name here. A skipped node is `Some` of null.
    fn get(&self, name: &str) -> Option<Arc<Datum>>;
}

/// One mention of an outer name in an expression or template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameUse {
    /// The name.
    pub name: String,
    /// Attributes read off it directly: `["winner"]` for `poll.winner`.
    pub attributes: Vec<String>,
    /// Whether this mention is written `x | default(…)` with `x` bare, so that null is welcome.
    pub defaulted: bool,
    /// Byte range of the mention in the text.
    pub range: Range<usize>,
}

/// Why a text does not parse, or why an evaluation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// Which diagnostic code a checker reports: `BAD_EXPRESSION`, `UNKNOWN_FUNCTION` or `TYPE_MISMATCH`.
    pub code: crate::diagnostic::Code,
    /// What is wrong, in one line.
    pub message: String,
    /// Byte range in the text, where known.
    pub range: Option<Range<usize>>,
    /// What to do, one line each.
    pub help: Vec<String>,
}

/// Text with `{{ expression }}` and `{% statements %}`.
#[derive(Debug)]
pub struct Template(());

impl Template {
    /// Compiles a template and finds the names that it mentions.
    pub fn parse(_text: &str) -> Result<Self, ExprError> {
        todo!()
    }
    /// The text as written.
    pub fn text(&self) -> &str {
        todo!()
    }
    /// Outer names that it mentions, in order of appearance, loop variables and `set` names excluded.
    pub fn names(&self) -> &[NameUse] {
        todo!()
    }
    /// Renders it.
    pub fn render(&self, _scope: &Arc<dyn Scope>) -> Result<String, ExprError> {
        todo!()
    }
}

/// One expression, undelimited.
#[derive(Debug)]
pub struct Expression(());

impl Expression {
    /// Compiles an expression.
    pub fn parse(_text: &str) -> Result<Self, ExprError> {
        todo!()
    }
    /// The text as written.
    pub fn text(&self) -> &str {
        todo!()
    }
    /// Outer names that it mentions.
    pub fn names(&self) -> &[NameUse] {
        todo!()
    }
    /// Evaluates it. An undefined result, nested too, is an error.
    pub fn eval(&self, _scope: &Arc<dyn Scope>) -> Result<Value, ExprError> {
        todo!()
    }
}

/// A YAML tree whose strings are expressions; numbers, booleans and null are themselves.
#[derive(Debug)]
pub struct Tree(());

impl Tree {
    /// Compiles every leaf. Errors come with the path of the leaf inside the tree (`["answer"]`, `["list", "0"]`), all of them.
    pub fn parse(_value: &Value) -> Result<Self, Vec<(Vec<String>, ExprError)>> {
        todo!()
    }
    /// Every leaf expression with its path inside the tree.
    pub fn leaves(&self) -> Vec<(Vec<String>, &Expression)> {
        todo!()
    }
    /// The value, if no leaf is an expression.
    pub fn constant(&self) -> Option<&Value> {
        todo!()
    }
    /// Evaluates every leaf and builds the tree.
    pub fn eval(&self, _scope: &Arc<dyn Scope>) -> Result<Value, ExprError> {
        todo!()
    }
}

/// Literal text with `{id}` slots: the form of `ask`.
#[derive(Debug)]
pub struct Slotted(());

impl Slotted {
    /// Finds the slots; never fails: whatever is no slot is text.
    pub fn parse(_text: &str) -> Self {
        todo!()
    }
    /// The text as written.
    pub fn text(&self) -> &str {
        todo!()
    }
    /// The slots in order with their byte ranges (braces included).
    pub fn slots(&self) -> &[(String, Range<usize>)] {
        todo!()
    }
    /// Replaces each slot in one pass by what `print` gives for its name.
    pub fn render(&self, _print: impl FnMut(&str) -> Result<String, ExprError>) -> Result<String, ExprError> {
        todo!()
    }
}

/// How a value prints in an `ask`: text as it is, numbers in digits, yes/no, lists joined by `, `, null as `unknown`, else JSON.
pub fn print_value(_value: &Value) -> String {
    todo!()
}

/// How the value of a `for_each` node prints in an `ask`: `item: answer` lines without the null ones.
pub fn print_items(_items: &Value, _values: &Value) -> String {
    todo!()
}
