//! The one expression language: minijinja (Jinja2 syntax) in templates and, undelimited, in expression fields.
//!
//! Names are looked up lazily through a [`Scope`], so that an evaluation costs what it reads, not what exists. Three forms
//! exist: [`Template`] (text with `{{ }}`), [`Expression`], and [`Tree`] (a YAML tree whose strings are expressions).
//! Comparisons are checked, undefined results are errors, and every evaluation has a fuel limit.
//!
//! A text is parsed once (`walk.rs`): the walk finds the names that it mentions, refuses what does not exist and writes the
//! text anew with every comparison as a call of a checking function. What is evaluated later is that second text.

mod convert;
mod filters;
mod help;
mod list_filters;
mod rewrite;
mod slotted;
mod walk;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};

use minijinja::value::Object;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::Value;

pub use slotted::{Slotted, print_items, print_value};

use crate::diagnostic::codes;
use crate::id::NodeIndex;
use walk::Walked;

/// A JSON value and, each built on first use and then shared, its other forms.
#[derive(Debug)]
pub struct Datum {
    json: OnceLock<Value>,
    /// What it was made of, where that was a text.
    text: Option<Box<str>>,
    template_form: OnceLock<minijinja::Value>,
}

impl Datum {
    /// Wraps a JSON value.
    pub fn new(json: Value) -> Arc<Self> {
        Arc::new(Self { json: json.into(), text: None, template_form: OnceLock::new() })
    }

    /// Wraps the text of a JSON value, which is parsed if somebody asks for the value.
    pub(crate) fn from_text(text: &str) -> Arc<Self> {
        Arc::new(Self { json: OnceLock::new(), text: Some(text.into()), template_form: OnceLock::new() })
    }

    /// Wraps the text of a JSON value that somebody else wrote; `None` if it is none.
    pub fn parse(text: &str) -> Option<Arc<Self>> {
        serde_json::from_str(text).ok().map(Self::new)
    }

    /// The JSON value.
    pub fn json(&self) -> &Value {
        let parse = || self.text.as_deref().and_then(|text| serde_json::from_str(text).ok());
        self.json.get_or_init(|| parse().expect("BUG: a value that is neither JSON nor its text"))
    }

    /// The template form.
    fn template_form(&self) -> minijinja::Value {
        self.template_form.get_or_init(|| minijinja::Value::from(minijinja::value::Serde(self.json()))).clone()
    }
}

/// How a literal text is written where an expression is read: in two pairs of quotes.
pub fn literal_help(text: &str) -> String {
    help::literal(text)
}

/// The filter of that name, or the one that other languages give that name.
pub fn filter_for(name: &str) -> Option<&'static str> {
    help::filter_for(name)
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
    pub name: Arc<str>,
    /// Attributes read off it directly: `["winner"]` for `poll.winner`.
    pub attributes: Vec<String>,
    /// Whether this mention is written `x | default(…)` with `x` bare, so that null is welcome.
    pub defaulted: bool,
    /// Byte range of the mention in the text.
    pub range: Range<usize>,
    /// The node that it means, if that is one of the graph in which the text is evaluated. Found by the checker, so that no
    /// evaluation searches.
    pub node: Option<NodeIndex>,
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

impl ExprError {
    fn new(message: impl Into<String>, range: Range<usize>) -> Self {
        Self { code: codes::BAD_EXPRESSION, message: message.into(), range: Some(range), help: Vec::new() }
    }

    fn help(mut self, line: impl Into<String>) -> Self {
        self.help.push(line.into());
        self
    }

    fn at_run_time(error: &minijinja::Error) -> Self {
        let message = match error.kind() {
            ErrorKind::OutOfFuel => "it takes more work than one evaluation may take".to_owned(),
            ErrorKind::UndefinedError => match error.detail() {
                Some(detail) => detail.to_owned(),
                None => "something in it is undefined".to_owned(),
            },
            _ => error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
        };
        Self { code: codes::BAD_EXPRESSION, message, range: None, help: Vec::new() }
    }
}

/// Work that one evaluation may do, in minijinja's units (about an instruction, or 64 bytes).
const FUEL: u64 = 2_000_000;

/// Everything that expressions may use: the kept filters and tests of minijinja, and ours.
static LANGUAGE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(convert::print);
    let syntax = minijinja::syntax::SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("BUG: the default syntax"));
    for name in filters::REMOVED {
        environment.remove_filter(name);
    }
    for name in ["debug", "dict", "namespace"] {
        environment.remove_global(name);
    }
    filters::add(&mut environment);
    list_filters::add(&mut environment);
    environment.add_function(rewrite::COMPARE, convert::compare);
    environment
});

/// Names for one evaluation, looked up when they are read.
struct Names(Arc<dyn Scope>);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names")
    }
}

impl Object for Names {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        self.0.get(key.as_str()?).map(|datum| datum.template_form())
    }
}

fn context(scope: &Arc<dyn Scope>) -> minijinja::Value {
    minijinja::Value::from_object(Names(scope.clone()))
}

/// Text with `{{ expression }}` and `{% statements %}`.
pub struct Template {
    text: String,
    names: Vec<NameUse>,
    compiled: Environment<'static>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({:?})", self.text)
    }
}

impl Template {
    /// Compiles a template and finds the names that it mentions.
    ///
    /// # Errors
    /// The first problem, with its range in the text.
    pub fn parse(text: &str) -> Result<Self, ExprError> {
        let Walked { rewritten, names } = walk::template(text)?;
        let mut compiled = LANGUAGE.clone();
        let added = compiled.add_template_owned("text", rewritten);
        added.map_err(|error| help::syntax_error(&error, text))?;
        Ok(Self { text: text.to_owned(), names, compiled })
    }

    /// The text as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Outer names that it mentions, in order of appearance; loop variables and `set` names are not among them.
    pub fn names(&self) -> &[NameUse] {
        &self.names
    }

    /// Every mention, to be told what it means.
    pub(crate) fn each_name(&mut self, tell: &mut impl FnMut(&mut NameUse)) {
        self.names.iter_mut().for_each(tell);
    }

    /// What the template language itself makes of the text, without our checks: what the rewritten text is compared with.
    #[cfg(feature = "testing")]
    pub(crate) fn render_as_written(&self, scope: &Arc<dyn Scope>) -> Result<String, ExprError> {
        let mut environment = LANGUAGE.clone();
        environment.set_syntax(walk::syntax());
        let rendered = environment.render_str(&self.text, context(scope));
        rendered.map_err(|error| ExprError::at_run_time(&error))
    }

    /// Renders it.
    ///
    /// # Errors
    /// What went wrong: something undefined or null was printed, types that do not compare, too much work.
    pub fn render(&self, scope: &Arc<dyn Scope>) -> Result<String, ExprError> {
        let template = self.compiled.get_template("text").expect("BUG: the template was compiled");
        template.render(context(scope)).map_err(|error| ExprError::at_run_time(&error))
    }
}

/// One expression, undelimited.
pub struct Expression {
    text: Box<str>,
    names: Vec<NameUse>,
    form: Form,
}

enum Form {
    /// A bare name, which is most of what people write and needs no instructions: those are large.
    Name(Option<NodeIndex>),
    Compiled(Box<minijinja::Expression<'static, 'static>>),
}

/// The name that is all of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareName<'a> {
    /// It means a node of the graph in which the text is evaluated.
    Node(NodeIndex),
    /// It means something else, to be looked up.
    Other(&'a str),
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.text)
    }
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// The first problem, with its range in the text.
    pub fn parse(text: &str) -> Result<Self, ExprError> {
        let Walked { rewritten, names } = walk::expression(text)?;
        let compile = || LANGUAGE.compile_expression_owned(rewritten).map_err(|error| help::syntax_error(&error, text));
        let is_bare_name = matches!(names.as_slice(), [only] if *only.name == *text.trim());
        let form = if is_bare_name { Form::Name(None) } else { Form::Compiled(Box::new(compile()?)) };
        Ok(Self { text: text.into(), names, form })
    }

    /// The text as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Outer names that it mentions, in order of appearance.
    pub fn names(&self) -> &[NameUse] {
        &self.names
    }

    /// The name that is all of it: `facts`, but not `facts | length`.
    pub fn bare_name(&self) -> Option<BareName<'_>> {
        match self.form {
            Form::Name(Some(node)) => Some(BareName::Node(node)),
            Form::Name(None) => Some(BareName::Other(self.text.trim())),
            Form::Compiled(_) => None,
        }
    }

    fn each_name(&mut self, tell: &mut impl FnMut(&mut NameUse)) {
        self.names.iter_mut().for_each(tell);
        if let (Form::Name(node), [only]) = (&mut self.form, self.names.as_slice()) {
            *node = only.node;
        }
    }

    /// What the template language itself makes of the text, without our checks: what the rewritten text is compared with.
    #[cfg(feature = "testing")]
    pub(crate) fn eval_as_written(&self, scope: &Arc<dyn Scope>) -> Result<Value, ExprError> {
        let compiled = LANGUAGE.compile_expression(&self.text);
        let value = compiled.and_then(|compiled| compiled.eval(context(scope)));
        value.and_then(|value| convert::to_json(&value)).map_err(|error| ExprError::at_run_time(&error))
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// What went wrong; an undefined result, nested too, is an error.
    pub fn eval(&self, scope: &Arc<dyn Scope>) -> Result<Value, ExprError> {
        let Form::Compiled(compiled) = &self.form else {
            let name = self.text.trim();
            let undefined = || ExprError::new(format!("`{name}` is undefined"), 0..self.text.len());
            return scope.get(name).map(|value| value.json().clone()).ok_or_else(undefined);
        };
        let value = compiled.eval(context(scope)).map_err(|error| ExprError::at_run_time(&error))?;
        convert::to_json(&value).map_err(|error| ExprError::at_run_time(&error))
    }
}

/// A YAML tree whose strings are expressions; numbers, booleans and null are themselves.
#[derive(Debug)]
pub struct Tree {
    root: Branch,
}

#[derive(Debug)]
enum Branch {
    Constant(Value),
    Leaf(Expression),
    List(Vec<Branch>),
    Map(Vec<(String, Branch)>),
}

impl Tree {
    /// Compiles every leaf.
    ///
    /// # Errors
    /// All problems, each with the path of its leaf inside the tree (`["list", "0"]`).
    pub fn parse(value: &Value) -> Result<Self, Vec<(Vec<String>, ExprError)>> {
        let mut problems = Vec::new();
        let root = Branch::parse(value, &mut Vec::new(), &mut problems);
        if problems.is_empty() { Ok(Self { root }) } else { Err(problems) }
    }

    /// Whether a leaf mentions the name.
    pub fn mentions(&self, name: &str) -> bool {
        self.root.mentions(name)
    }

    /// Every leaf expression with its path inside the tree.
    pub fn leaves(&self) -> Vec<(Vec<String>, &Expression)> {
        let mut leaves = Vec::new();
        self.root.leaves(&mut Vec::new(), &mut leaves);
        leaves
    }

    /// Every mention, to be told what it means.
    pub(crate) fn each_name(&mut self, tell: &mut impl FnMut(&mut NameUse)) {
        self.root.each_name(tell);
    }

    /// The value, if no leaf is an expression.
    pub fn constant(&self) -> Option<&Value> {
        if let Branch::Constant(value) = &self.root { Some(value) } else { None }
    }

    /// Builds the tree out of what its leaves are evaluated to.
    ///
    /// # Errors
    /// The first leaf that fails.
    pub fn eval<E>(&self, mut leaf: impl FnMut(&Expression) -> Result<Value, E>) -> Result<Value, E> {
        self.root.eval(&mut leaf)
    }
}

impl Branch {
    fn parse(value: &Value, path: &mut Vec<String>, problems: &mut Vec<(Vec<String>, ExprError)>) -> Self {
        let mut child = |key: String, value: &Value, problems: &mut _| {
            path.push(key);
            let branch = Branch::parse(value, path, problems);
            path.pop();
            branch
        };
        let branch = match value {
            Value::String(text) => match Expression::parse(text) {
                Ok(expression) => Branch::Leaf(expression),
                Err(error) => {
                    problems.push((path.clone(), error));
                    Branch::Constant(Value::Null)
                }
            },
            Value::Array(items) => {
                Branch::List(items.iter().enumerate().map(|(i, item)| child(i.to_string(), item, problems)).collect())
            }
            Value::Object(map) => {
                Branch::Map(map.iter().map(|(key, value)| (key.clone(), child(key.clone(), value, problems))).collect())
            }
            constant => Branch::Constant(constant.clone()),
        };
        let is_constant = match &branch {
            Branch::List(items) => items.iter().all(|item| matches!(item, Branch::Constant(_))),
            Branch::Map(map) => map.iter().all(|(_, value)| matches!(value, Branch::Constant(_))),
            _ => false,
        };
        if is_constant && problems.is_empty() { Branch::Constant(value.clone()) } else { branch }
    }

    fn leaves<'a>(&'a self, path: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, &'a Expression)>) {
        match self {
            Branch::Constant(_) => {}
            Branch::Leaf(expression) => leaves.push((path.clone(), expression)),
            Branch::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string());
                    item.leaves(path, leaves);
                    path.pop();
                }
            }
            Branch::Map(map) => {
                for (key, value) in map {
                    path.push(key.clone());
                    value.leaves(path, leaves);
                    path.pop();
                }
            }
        }
    }

    fn mentions(&self, name: &str) -> bool {
        match self {
            Branch::Constant(_) => false,
            Branch::Leaf(leaf) => leaf.names().iter().any(|mention| *mention.name == *name),
            Branch::List(items) => items.iter().any(|item| item.mentions(name)),
            Branch::Map(map) => map.iter().any(|(_, value)| value.mentions(name)),
        }
    }

    fn each_name(&mut self, tell: &mut impl FnMut(&mut NameUse)) {
        match self {
            Branch::Constant(_) => {}
            Branch::Leaf(expression) => expression.each_name(tell),
            Branch::List(items) => items.iter_mut().for_each(|item| item.each_name(tell)),
            Branch::Map(map) => map.iter_mut().for_each(|(_, value)| value.each_name(tell)),
        }
    }

    fn eval<E>(&self, leaf: &mut impl FnMut(&Expression) -> Result<Value, E>) -> Result<Value, E> {
        Ok(match self {
            Branch::Constant(value) => value.clone(),
            Branch::Leaf(expression) => leaf(expression)?,
            Branch::List(items) => items.iter().map(|item| item.eval(leaf)).collect::<Result<_, _>>()?,
            Branch::Map(map) => {
                let entry = |(key, value): &(String, Branch)| Ok((key.clone(), value.eval(leaf)?));
                Value::Object(map.iter().map(entry).collect::<Result<_, E>>()?)
            }
        })
    }
}

#[cfg(test)]
mod tests;
