//! From YAML data to a definition: the form of the file.
//!
//! Written by hand, because every problem is reported, each with its place, and a deriving reader stops at the first. What it
//! cannot use it reports and leaves out, so that the checker can go on with the rest. Whether a kind takes a field is the
//! checker's question.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::keys::{
    self, BUDGET, CONFIGURATION, Form, Key, LATENCY_MAX, LIMITS, MODEL, PROVIDERS, RESERVED, TOP, UNITS, later,
};
use super::{BudgetDef, InputDef, KindSpec, LimitsDef, ModelDef, WorkflowDef};
use crate::diagnostic::{Code, Diagnostic, Place, codes, did_you_mean};
use crate::schema::{Schema, SchemaError};
use crate::source::{Part, Source};

/// What reading gives: a definition as far as it could be read, and everything that was wrong.
#[derive(Debug)]
pub struct Parsed {
    /// The definition; nodes that could not be read are missing.
    pub definition: WorkflowDef,
    /// The text with its places.
    pub source: Source,
    /// All problems found.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a workflow file. `name` is what people call it; `kinds` are the node kinds that exist.
///
/// # Errors
/// Only when the text is no YAML mapping at all.
pub fn read(name: &str, text: &str, kinds: &BTreeMap<String, Arc<KindSpec>>) -> Result<Parsed, Vec<Diagnostic>> {
    let (source, data, problems) = Source::parse_all(name, text)?;
    let mut reader = Reader { source, kinds, path: Vec::new(), problems };
    let Value::Object(top) = data else {
        let message = if data.is_null() { "the file is empty" } else { "a workflow file is a mapping of keys" };
        reader
            .problem(Part::Value, codes::WRONG_TYPE, message)
            .help
            .push("it begins with `flowrun: 1` and has `nodes:`".into());
        return Err(reader.problems);
    };
    let stem = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let stem = stem.strip_suffix(".yaml").or_else(|| stem.strip_suffix(".yml")).unwrap_or(stem);
    let mut definition = WorkflowDef { name: stem.to_owned(), ..WorkflowDef::default() };
    reader.top(top, &mut definition);
    Ok(Parsed { definition, source: reader.source, diagnostics: reader.problems })
}

pub(super) struct Reader<'k> {
    pub(super) source: Source,
    pub(super) kinds: &'k BTreeMap<String, Arc<KindSpec>>,
    pub(super) path: Vec<String>,
    problems: Vec<Diagnostic>,
}

impl Reader<'_> {
    pub(super) fn problem(&mut self, part: Part, code: Code, message: impl Into<String>) -> &mut Diagnostic {
        let place = Some(self.place(part));
        self.problems.push(Diagnostic { place, ..Diagnostic::error(code, self.path.join("."), message) });
        self.problems.last_mut().expect("BUG: a problem was pushed")
    }

    pub(super) fn place(&self, part: Part) -> Place {
        let parts: Vec<&str> = self.path.iter().map(String::as_str).collect();
        self.source.place(&parts, part)
    }

    /// Reads an entry with its key on the path.
    pub(super) fn at<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let result = read(self);
        self.path.pop();
        result
    }

    /// Reads a mapping whose keys stand in a table; the others are refused.
    pub(super) fn keys(
        &mut self,
        value: Value,
        table: &'static [Key],
        mut read: impl FnMut(&mut Self, &'static str, Value),
    ) {
        for (key, value) in self.map(value) {
            match table.iter().find(|known| known.name == key) {
                Some(Key { form: Form::Later, doc, .. }) => self.at(&key, |r| r.not_yet(doc)),
                Some(known) => self.at(&key, |r| read(r, known.name, value)),
                None => self.unknown_key(&key, table),
            }
        }
    }

    fn unknown_key(&mut self, key: &str, table: &'static [Key]) {
        let known: Vec<&str> = keys::known(table).map(|known| known.name).collect();
        let near = did_you_mean(key, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        let help = near.unwrap_or_else(|| format!("known here: {}", known.join(", ")));
        self.at(key, |r| {
            r.problem(Part::Key, codes::UNKNOWN_KEY, format!("the key `{key}` means nothing here")).help.push(help);
        });
    }

    /// Refuses a feature of the language; what follows a `;` is help.
    pub(super) fn not_yet(&mut self, what: &str) {
        let (what, help) = what.split_once("; ").map_or((what, None), |(what, help)| (what, Some(help.to_owned())));
        let problem = self.problem(Part::Key, codes::NOT_YET, format!("this version does not run {what} yet"));
        problem.help.extend(help);
    }

    /// Refuses a value: `key` wants something else.
    pub(super) fn wrong(&mut self, wanted: &str, value: &Value) -> &mut Diagnostic {
        let shown = match value {
            Value::Null => "an empty value".to_owned(),
            Value::String(text) => format!("`{}`", text.chars().take(40).collect::<String>()),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "a mapping".to_owned(),
            other => format!("`{other}`"),
        };
        let is_index = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let key = match self.path.last().map(String::as_str) {
            Some(index) if is_index(index) && self.path.len() > 1 => {
                format!("an entry of `{}`", self.path[self.path.len() - 2])
            }
            Some(key) => format!("`{key}`"),
            None => "the file".to_owned(),
        };
        self.problem(Part::Value, codes::WRONG_TYPE, format!("{key} wants {wanted}, not {shown}"))
    }

    pub(super) fn map(&mut self, value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => {
                let problem = self.wrong("a mapping of keys", &other);
                if let Value::Array(items) = &other
                    && let Some(Value::String(first)) = items.first()
                {
                    problem.help.push(format!("write `{first}: …`, one key to a line"));
                }
                Map::new()
            }
        }
    }

    pub(super) fn text(&mut self, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) if self.path.last().is_some_and(|key| key == "model") => {
                Some(value.to_string())
            }
            other => {
                let problem = self.wrong("a text", other);
                if other.is_number() || other.is_boolean() {
                    problem.help.push(format!("quotes make it one: `\"{other}\"`"));
                }
                None
            }
        }
    }

    pub(super) fn count(&mut self, value: &Value) -> Option<u64> {
        let count = value.as_u64();
        if count.is_none() {
            self.wrong("a whole number from 0", value);
        }
        count
    }

    /// A count of things that are never more than four billion.
    pub(super) fn small_count(&mut self, value: &Value) -> Option<u32> {
        self.count(value).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
    }

    fn top(&mut self, top: Map<String, Value>, definition: &mut WorkflowDef) {
        match top.get("flowrun") {
            None => {
                let problem = self.problem(Part::Value, codes::MISSING_KEY, "the key `flowrun` is missing");
                problem.help.push("begin the file with `flowrun: 1`, the version of the format".to_owned());
            }
            Some(Value::Number(version)) if version.as_u64() == Some(1) => {}
            Some(other) => {
                let message = format!("format version {other} is not known; this program reads version 1");
                self.at("flowrun", |r| {
                    r.problem(Part::Value, codes::BAD_VALUE, message).help.push("write `flowrun: 1`".into())
                });
            }
        }
        let is_top = |key: &str| TOP.iter().any(|known| known.name == key);
        let meant =
            |key: &String| !is_top(key) && did_you_mean(key, TOP.iter().map(|known| known.name)) == Some("nodes");
        let has_nodes = match top.get("nodes") {
            Some(nodes) => nodes != &serde_json::json!({}),
            None => top.keys().any(meant),
        };
        let (top, later_or_strange): (Map<_, _>, Map<_, _>) = top.into_iter().partition(|(key, _)| is_top(key));
        for key in later_or_strange.keys() {
            match later(key) {
                Some(what) => self.at(key, |r| r.not_yet(what)),
                None => self.unknown_key(key, TOP),
            }
        }
        self.keys(Value::Object(top), TOP, |r, key, value| match key {
            "flowrun" => {}
            "name" => definition.name = r.text(&value).unwrap_or_default(),
            "description" => definition.description = r.text(&value),
            "inputs" => r.inputs(value, definition),
            "models" => {
                definition.models = r.models(value);
                r.no_recording(&definition.models);
            }
            "budget" => definition.budget = r.budget(value),
            "limits" => definition.limits = r.limits(value),
            "nodes" => definition.nodes = r.nodes(value, 0),
            "output" => definition.output = Some(value),
            key => unreachable!("BUG: nothing reads `{key}`"),
        });
        let clashes: Vec<String> =
            definition.nodes.keys().filter(|name| definition.inputs.contains_key(*name)).cloned().collect();
        for name in clashes {
            let related = ("the input".to_owned(), self.source.place(&["inputs", &name], Part::Key));
            self.path = vec!["nodes".to_owned(), name.clone()];
            let problem = self.problem(Part::Key, codes::BAD_NAME, format!("`{name}` names an input and a node"));
            problem.related.push(related);
            problem.help.push("rename one: inputs and nodes share their names".to_owned());
            self.path.clear();
        }
        if !has_nodes {
            let problem = self.problem(Part::Value, codes::MISSING_KEY, "the workflow has no nodes");
            problem.help.push("write `nodes:` with one entry per question".to_owned());
        }
    }

    /// Checks the name of an input, a node or an item, which is the last part of the path or its value.
    pub(super) fn name(&mut self, name: &str, what: &str, part: Part) {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let why = match name.chars().find(|c| !fits(*c)) {
            _ if RESERVED.contains(&name) => {
                let problem = self.problem(part, codes::BAD_NAME, format!("`{name}` is a word of the language"));
                problem.help.push(format!("give the {what} another name"));
                return;
            }
            Some(' ') => "there is a space in it".to_owned(),
            Some(c) if c.is_ascii() => format!("there is a `{c}` in it"),
            Some(c) => format!("`{c}` (U+{:04X}) is not one of the letters a-z", c as u32),
            None if name.is_empty() => "it is empty".to_owned(),
            None if name.len() > 64 => format!("it has {} characters", name.len()),
            None if name.starts_with(|c: char| c.is_ascii_digit()) => "it begins with a digit".to_owned(),
            None => return,
        };
        let shown: String = name.chars().take(40).collect();
        let problem = self.problem(part, codes::BAD_NAME, format!("`{shown}` is no name: {why}"));
        problem.help.push("names are ASCII letters, digits and `_`, 64 at most, not beginning with a digit".to_owned());
    }

    fn inputs(&mut self, value: Value, definition: &mut WorkflowDef) {
        for (name, value) in self.map(value) {
            self.path.push(name.clone());
            self.name(&name, "input", Part::Key);
            let (schema, default) = match value {
                Value::String(text) => match text.split_once('=') {
                    Some((schema, default)) => {
                        (Value::String(schema.trim().to_owned()), Some(default.trim().to_owned()))
                    }
                    None => (Value::String(text), None),
                },
                other => (other, None),
            };
            let schema = Schema::parse_short(&schema).unwrap_or_else(|error| self.bad_schema(error));
            let default = default.and_then(|text| match Source::yaml_or_text(&text) {
                Err(_) if schema.only_type() == Some("string") => Some(Value::String(text)),
                Err(message) => {
                    self.problem(Part::Value, codes::WRONG_TYPE, message);
                    None
                }
                Ok(value) => Some(value),
            });
            definition.inputs.insert(name, InputDef { schema, default });
            self.path.pop();
        }
    }

    pub(super) fn bad_schema(&mut self, error: SchemaError) -> Schema {
        let depth = self.path.len();
        self.path.extend(error.path);
        self.problem(Part::Value, codes::BAD_SCHEMA, error.message).help.extend(error.help);
        self.path.truncate(depth);
        Schema::any()
    }

    fn models(&mut self, value: Value) -> IndexMap<String, ModelDef> {
        let map = self.map(value);
        map.into_iter().map(|(alias, value)| (alias.clone(), self.at(&alias, |r| r.model(value)))).collect()
    }

    fn model(&mut self, value: Value) -> ModelDef {
        let mut model = ModelDef::default();
        if !value.is_object() {
            self.wrong("a mapping such as `{provider: openai, model: NAME}`", &value);
            return model;
        }
        self.keys(value, MODEL, |r, key, value| match key {
            "provider" => model.provider = r.text(&value).unwrap_or_default(),
            "model" => model.model = r.text(&value).unwrap_or_default(),
            "base_url" => model.base_url = r.text(&value),
            "api_key_env" => model.api_key_env = r.text(&value),
            "params" => model.params = r.map(value).into_iter().collect(),
            "max_parallel" => model.max_parallel = r.small_count(&value),
            "timeout" => model.timeout_ms = r.duration(&value),
            "record" => model.record = r.text(&value),
            "latency" => model.latency = r.latency(&value),
            key => unreachable!("BUG: nothing reads `{key}`"),
        });
        if !model.provider.is_empty() && !PROVIDERS.contains(&model.provider.as_str()) {
            let message = format!("no provider is called `{}`", model.provider);
            let help = "`openai` speaks to every server with the OpenAI chat protocol; `scripted` replies from a file, \
                        `recorded` from a recording";
            self.at("provider", |r| r.problem(Part::Value, codes::BAD_VALUE, message).help.push(help.to_owned()));
        } else if model.latency.is_some() && model.provider != "recorded" {
            let message = "only a model of the provider `recorded` has a `latency`";
            let help = "take it out: other models take the time that they take";
            self.at("latency", |r| r.problem(Part::Key, codes::CONFLICT, message).help.push(help.to_owned()));
        }
        if model.provider.is_empty() {
            self.problem(Part::Key, codes::MISSING_KEY, "a model needs `provider`")
                .help
                .push("write `provider: openai` for every server that speaks its protocol".into());
        }
        model
    }

    fn latency(&mut self, value: &Value) -> Option<f64> {
        let factor = match value.as_str() {
            Some("none") => Some(0.0),
            Some("original") => Some(1.0),
            _ => value.as_f64().filter(|factor| (0.0..=LATENCY_MAX).contains(factor)),
        };
        if factor.is_none() {
            self.wrong(&format!("`none`, `original` or a number from 0 to {LATENCY_MAX}"), value);
        }
        factor
    }

    /// Refuses recordings in a workflow's file: a stranger's file writes no files.
    fn no_recording(&mut self, models: &IndexMap<String, ModelDef>) {
        for (alias, _) in models.iter().filter(|(_, model)| model.record.is_some()) {
            self.path.extend([alias.clone(), "record".to_owned()]);
            let message = "`record` counts in the user's `flowrun.yaml` only: a workflow file writes no files";
            let help = "take it out, and write `flowrun run … --record FILE` or the same model in `flowrun.yaml`";
            self.problem(Part::Key, codes::BAD_VALUE, message).help.push(help.to_owned());
            self.path.truncate(self.path.len() - 2);
        }
    }

    fn budget(&mut self, value: Value) -> BudgetDef {
        let mut budget = BudgetDef::default();
        self.keys(value, BUDGET, |r, key, value| match key {
            "calls" => budget.calls = r.count(&value),
            key => unreachable!("BUG: nothing reads `{key}`"),
        });
        budget
    }

    pub(super) fn limits(&mut self, value: Value) -> LimitsDef {
        let mut limits = LimitsDef::default();
        self.keys(value, LIMITS, |r, key, value| match key {
            "steps" => limits.steps = r.count(&value),
            "items" => limits.items = r.count(&value),
            "depth" => limits.depth = r.small_count(&value),
            "nodes" => limits.nodes = r.small_count(&value),
            "output" => limits.output_bytes = r.count(&value),
            "iterations" => limits.iterations = r.small_count(&value),
            key => unreachable!("BUG: nothing reads `{key}`"),
        });
        limits
    }

    /// A duration such as `500ms`, `30s`, `3m`, `2h`, `1d`, in milliseconds.
    pub(super) fn duration(&mut self, value: &Value) -> Option<u64> {
        let text = value.as_str().unwrap_or_default();
        let parsed = UNITS.iter().find_map(|(unit, factor)| {
            let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
            (number * factor >= 1.0 && number * factor < 1e13).then_some((number * factor) as u64)
        });
        if parsed.is_none() {
            let problem = self.wrong("a duration such as `500ms`, `30s`, `3m`, `2h`", value);
            if value.as_f64().is_some_and(|number| number > 0.0) {
                problem.help.push(format!("did you mean `{value}s`?"));
            }
        }
        parsed
    }
}

/// What a user's `flowrun.yaml` configures.
#[derive(Debug, Default)]
pub struct Configuration {
    /// Models by alias.
    pub models: IndexMap<String, ModelDef>,
    /// Most leaf steps at once.
    pub max_parallel: Option<u32>,
    /// The database of runs and answers.
    pub db: Option<String>,
}

/// Reads a `flowrun.yaml`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_configuration(name: &str, text: &str) -> Result<Configuration, Vec<Diagnostic>> {
    let (source, data) = Source::parse(name, text)?;
    let kinds = BTreeMap::new();
    let mut reader = Reader { source, kinds: &kinds, path: Vec::new(), problems: Vec::new() };
    let mut configuration = Configuration::default();
    let data = if data.is_null() { Value::Object(Map::new()) } else { data };
    reader.keys(data, CONFIGURATION, |r, key, value| match key {
        "models" => configuration.models = r.models(value),
        "max_parallel" => configuration.max_parallel = r.count(&value).map(|n| n.clamp(1, 10_000) as u32),
        "db" => configuration.db = r.text(&value),
        key => unreachable!("BUG: nothing reads `{key}`"),
    });
    if reader.problems.is_empty() { Ok(configuration) } else { Err(reader.problems) }
}
