//! From YAML data to a definition: the form of the file.
//!
//! Written by hand, because every problem is reported, each with its place, and a deriving reader stops at the first. What it
//! cannot use it reports and leaves out, so that the checker can go on with the rest. Whether a kind takes a field is the
//! checker's question.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::attributes::{ATTRIBUTES, RESERVED, later};
use super::{
    AllowDef, BudgetDef, ErrorPolicyDef, InputDef, Join, KindSpec, LimitsDef, ModelDef, Need, NodeDef, RetryDef,
    WorkflowDef,
};
use crate::diagnostic::{Code, Diagnostic, codes, did_you_mean};
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
    let (source, data) = Source::parse(name, text)?;
    let mut reader = Reader { source, kinds, path: Vec::new(), problems: Vec::new() };
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

const TOP: &[&str] = &["flowrun", "name", "description", "inputs", "models", "budget", "limits", "nodes", "output"];

struct Reader<'k> {
    source: Source,
    kinds: &'k BTreeMap<String, Arc<KindSpec>>,
    path: Vec<String>,
    problems: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn problem(&mut self, part: Part, code: Code, message: impl Into<String>) -> &mut Diagnostic {
        let parts: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let place = Some(self.source.place(&parts, part));
        self.problems.push(Diagnostic { place, ..Diagnostic::error(code, self.path.join("."), message) });
        self.problems.last_mut().expect("BUG: a problem was pushed")
    }

    /// Reads an entry with its key on the path.
    fn at<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let result = read(self);
        self.path.pop();
        result
    }

    fn unknown_key(&mut self, key: &str, known: &[&str]) {
        let near = did_you_mean(key, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        let help = near.unwrap_or_else(|| format!("known here: {}", known.join(", ")));
        self.at(key, |r| {
            r.problem(Part::Key, codes::UNKNOWN_KEY, format!("the key `{key}` means nothing here")).help.push(help);
        });
    }

    fn not_yet(&mut self, what: &str) {
        self.problem(Part::Key, codes::NOT_YET, format!("this version does not run {what} yet"));
    }

    fn wrong(&mut self, wanted: &str, value: &Value) {
        let shown: String = value.to_string().chars().take(40).collect();
        self.problem(Part::Value, codes::WRONG_TYPE, format!("this is {wanted}, not `{shown}`"));
    }

    fn map(&mut self, value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => {
                self.wrong("a mapping of keys", &other);
                Map::new()
            }
        }
    }

    fn text(&mut self, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) if self.path.last().is_some_and(|key| key == "model") => {
                Some(value.to_string())
            }
            other => {
                self.wrong("a text", other);
                None
            }
        }
    }

    fn count(&mut self, value: &Value) -> Option<u64> {
        let count = value.as_u64();
        if count.is_none() {
            self.wrong("a whole number from 0", value);
        }
        count
    }

    fn top(&mut self, mut top: Map<String, Value>, definition: &mut WorkflowDef) {
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
        for (key, value) in std::mem::take(&mut top) {
            self.path.push(key.clone());
            match key.as_str() {
                "flowrun" => {}
                "name" => definition.name = self.text(&value).unwrap_or_default(),
                "description" => definition.description = self.text(&value),
                "inputs" => self.inputs(value, definition),
                "models" => {
                    for (alias, value) in self.map(value) {
                        let model = self.at(&alias, |r| r.model(value));
                        definition.models.insert(alias, model);
                    }
                }
                "budget" => definition.budget = self.budget(value),
                "limits" => definition.limits = self.limits(value),
                "nodes" => definition.nodes = self.nodes(value, 0),
                "output" => definition.output = Some(value),
                other => {
                    self.path.pop();
                    match later(other) {
                        Some(what) => self.at(other, |r| r.not_yet(what)),
                        None => self.unknown_key(other, TOP),
                    }
                    self.path.push(key);
                }
            }
            self.path.pop();
        }
        let clashes: Vec<String> =
            definition.nodes.keys().filter(|name| definition.inputs.contains_key(*name)).cloned().collect();
        for name in clashes {
            let related = ("the input".to_owned(), self.source.place(&["inputs", &name], Part::Key));
            self.path = vec!["nodes".to_owned(), name.clone()];
            let problem =
                self.problem(Part::Key, codes::BAD_NAME, format!("`{name}` is an input and a node; names are shared"));
            problem.related.push(related);
            self.path.clear();
        }
        if definition.nodes.is_empty() {
            let problem = self.problem(Part::Value, codes::MISSING_KEY, "the workflow has no nodes");
            problem.help.push("write `nodes:` with one entry per question".to_owned());
        }
    }

    fn name(&mut self, name: &str, what: &str) {
        let odd = name
            .chars()
            .enumerate()
            .find(|(at, c)| !(c.is_ascii_alphabetic() || *c == '_' || *at > 0 && c.is_ascii_digit()));
        if RESERVED.contains(&name) {
            let problem = self.problem(Part::Key, codes::BAD_NAME, format!("`{name}` is a word of the language"));
            problem.help.push(format!("give the {what} another name"));
        } else if name.is_empty() || name.len() > 64 || odd.is_some() {
            let why = odd.map_or("its length".to_owned(), |(_, c)| format!("the character `{c}` (U+{:04X})", c as u32));
            let shown: String = name.chars().take(40).collect();
            let problem = self.problem(Part::Key, codes::BAD_NAME, format!("`{shown}` is no name: {why}"));
            problem
                .help
                .push("names are letters a-z, digits and `_`, 64 at most, not beginning with a digit".to_owned());
        }
    }

    fn inputs(&mut self, value: Value, definition: &mut WorkflowDef) {
        for (name, value) in self.map(value) {
            self.path.push(name.clone());
            self.name(&name, "input");
            let (schema, default) = match value {
                Value::String(text) => match text.split_once('=') {
                    Some((schema, default)) => {
                        let default = default.trim();
                        let default =
                            serde_yaml::from_str(default).unwrap_or_else(|_| Value::String(default.to_owned()));
                        (Value::String(schema.trim().to_owned()), Some(default))
                    }
                    None => (Value::String(text), None),
                },
                other => (other, None),
            };
            let schema = Schema::parse_short(&schema).unwrap_or_else(|error| self.bad_schema(error));
            definition.inputs.insert(name, InputDef { schema, default });
            self.path.pop();
        }
    }

    fn bad_schema(&mut self, error: SchemaError) -> Schema {
        let depth = self.path.len();
        self.path.extend(error.path);
        self.problem(Part::Value, codes::BAD_SCHEMA, error.message).help.extend(error.help);
        self.path.truncate(depth);
        Schema::any()
    }

    fn model(&mut self, value: Value) -> ModelDef {
        let mut model = ModelDef::default();
        for (key, value) in self.map(value) {
            self.path.push(key.clone());
            match key.as_str() {
                "provider" => model.provider = self.text(&value).unwrap_or_default(),
                "model" => model.model = self.text(&value).unwrap_or_default(),
                "base_url" => model.base_url = self.text(&value),
                "api_key_env" => model.api_key_env = self.text(&value),
                "params" => model.params = self.map(value).into_iter().collect(),
                "max_parallel" => model.max_parallel = self.count(&value).map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
                "timeout" => model.timeout_ms = self.duration(&value),
                "price" => self.not_yet("prices"),
                _ => {
                    self.path.pop();
                    self.unknown_key(
                        &key,
                        &["provider", "model", "base_url", "api_key_env", "params", "max_parallel", "timeout"],
                    );
                    self.path.push(key);
                }
            }
            self.path.pop();
        }
        if model.provider.is_empty() {
            self.problem(Part::Key, codes::MISSING_KEY, "a model needs `provider`")
                .help
                .push("`provider: openai`".into());
        }
        model
    }

    fn budget(&mut self, value: Value) -> BudgetDef {
        let mut budget = BudgetDef::default();
        for (key, value) in self.map(value) {
            match key.as_str() {
                "calls" => budget.calls = self.at("calls", |r| r.count(&value)),
                "tokens" | "usd" | "wall" => self.at(&key, |r| r.not_yet(&format!("`budget.{key}`"))),
                _ => self.unknown_key(&key, &["calls"]),
            }
        }
        budget
    }

    fn limits(&mut self, value: Value) -> LimitsDef {
        let mut limits = LimitsDef::default();
        for (key, value) in self.map(value) {
            let number = |r: &mut Self| r.at(&key, |r| r.count(&value));
            match key.as_str() {
                "steps" => limits.steps = number(self),
                "items" => limits.items = number(self),
                "depth" => limits.depth = number(self).map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
                "nodes" => limits.nodes = number(self).map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
                "output" => limits.output_bytes = number(self),
                "iterations" => self.at(&key, |r| r.not_yet("loops")),
                _ => self.unknown_key(&key, &["steps", "items", "depth", "nodes", "output"]),
            }
        }
        limits
    }

    fn nodes(&mut self, value: Value, depth: usize) -> indexmap::IndexMap<String, NodeDef> {
        let mut nodes = indexmap::IndexMap::new();
        if depth > 64 {
            self.problem(Part::Key, codes::LIMIT, "groups nest deeper than 64");
            return nodes;
        }
        for (name, value) in self.map(value) {
            self.path.push(name.clone());
            self.name(&name, "node");
            if let Some(node) = self.node(value, depth) {
                nodes.insert(name, node);
            }
            self.path.pop();
        }
        nodes
    }

    fn node(&mut self, value: Value, depth: usize) -> Option<NodeDef> {
        let map = match value {
            Value::Object(map) => map,
            other => {
                self.wrong("a mapping of keys such as `prompt: …`", &other);
                return None;
            }
        };
        let mut node = NodeDef { kind: self.kind(&map)?, ..NodeDef::default() };
        for (key, value) in map {
            self.path.push(key.clone());
            self.attribute(&key, value, &mut node, depth);
            self.path.pop();
        }
        Some(node)
    }

    /// The kind that `kind:` or the work key names.
    fn kind(&mut self, map: &Map<String, Value>) -> Option<String> {
        let kinds = self.kinds;
        let implied: Vec<(&str, &str)> = kinds
            .values()
            .flat_map(|spec| spec.work_keys.iter().map(move |key| (key.as_str(), spec.name.as_str())))
            .filter(|(key, _)| map.contains_key(*key))
            .collect();
        if let Some(kind) = map.get("kind") {
            let kind = self.at("kind", |r| r.text(kind))?;
            if ["retrieve", "human", "tool"].contains(&kind.as_str()) {
                self.at("kind", |r| r.not_yet(&format!("the kind `{kind}`")));
                return None;
            }
            if !self.kinds.contains_key(&kind) {
                let near = did_you_mean(&kind, self.kinds.keys().map(String::as_str))
                    .map(|near| format!("did you mean `{near}`?"));
                let known: Vec<&str> = self.kinds.keys().map(String::as_str).collect();
                let help = near.unwrap_or_else(|| format!("kinds are {}", known.join(", ")));
                self.at("kind", |r| {
                    r.problem(Part::Value, codes::UNKNOWN_KIND, format!("no kind is called `{kind}`")).help.push(help)
                });
                return None;
            }
            if let Some((key, other)) = implied.iter().find(|(key, other)| *other != kind && !self.takes(&kind, key)) {
                let message = format!("`{key}` makes this a node of kind `{other}`, and `kind` says `{kind}`");
                self.at(key, |r| {
                    r.problem(Part::Key, codes::CONFLICT, message);
                });
            }
            return Some(kind);
        }
        if map.keys().any(|key| ["tool", "choose"].contains(&key.as_str())) {
            self.at("tool", |r| r.not_yet("tools"));
            return None;
        }
        let mut names: Vec<&str> = implied.iter().map(|(_, kind)| *kind).collect();
        names.dedup();
        match names.as_slice() {
            [kind] => Some((*kind).to_owned()),
            [] => {
                let keys: Vec<&str> =
                    self.kinds.values().flat_map(|spec| spec.work_keys.iter().map(String::as_str)).collect();
                let near =
                    map.keys().find_map(|key| did_you_mean(key, keys.iter().copied()).map(|near| (key.clone(), near)));
                let help = match &near {
                    Some((key, near)) => format!("`{key}`: did you mean `{near}`?"),
                    None => format!("write one of {}, or `kind:`", keys.join(", ")),
                };
                self.problem(Part::Key, codes::MISSING_KEY, "this node does not say what it does").help.push(help);
                None
            }
            _ => {
                let keys: Vec<String> = implied.iter().map(|(key, _)| format!("`{key}`")).collect();
                let message = format!("{} exclude each other: a node does one thing", keys.join(" and "));
                self.problem(Part::Key, codes::CONFLICT, message);
                None
            }
        }
    }

    fn takes(&self, kind: &str, key: &str) -> bool {
        self.kinds.get(kind).is_some_and(|spec| spec.fields.iter().any(|field| field.name == key))
    }

    fn attribute(&mut self, key: &str, value: Value, node: &mut NodeDef, depth: usize) {
        if self.takes(&node.kind, key) && !ATTRIBUTES.contains(&key) {
            if key == "dialect" && value != "graph" {
                return self.not_yet(&format!("the dialect `{}`", value.as_str().unwrap_or("?")));
            }
            node.fields.insert(key.to_owned(), value);
            return;
        }
        match key {
            "kind" => {}
            "needs" => node.needs = self.needs(value),
            "when" => node.when = Some(value),
            "for_each" => node.for_each = Some(value),
            "as" => {
                node.item_name = self.text(&value);
                if let Some(name) = node.item_name.clone().filter(|name| name != "item") {
                    self.name(&name, "item");
                }
            }
            "max_parallel" => node.max_parallel = Some(value),
            "samples" => node.samples = Some(value),
            "join" => node.join = self.join(&value),
            "retry" => node.retry = Some(self.retry(value)),
            "timeout" => node.timeout_ms = self.duration(&value),
            "on_error" => node.on_error = self.policy(value, false),
            "on_item_error" => node.on_item_error = self.policy(value, true),
            "schema" => {
                let schema = Schema::parse_short(&value).unwrap_or_else(|error| self.bad_schema(error));
                node.schema = Some(schema);
            }
            "json_schema" => {
                if node.schema.is_some() {
                    self.problem(Part::Key, codes::CONFLICT, "`schema` and `json_schema` exclude each other");
                }
                node.schema = Some(Schema::from_json_schema(value).unwrap_or_else(|error| self.bad_schema(error)));
            }
            "output" => node.output = Some(value),
            "nodes" => node.nodes = self.nodes(value, depth + 1),
            "limits" => node.limits = self.limits(value),
            "allow" => node.allow = Some(self.allow(value)),
            other => match later(other) {
                Some(what) => self.not_yet(what),
                None => {
                    node.fields.insert(key.to_owned(), value);
                }
            },
        }
    }

    fn needs(&mut self, value: Value) -> Vec<Need> {
        let entries = match value {
            Value::Array(entries) => entries,
            one @ Value::String(_) => vec![one],
            other => {
                self.wrong("a list of names", &other);
                return Vec::new();
            }
        };
        let mut needs: Vec<Need> = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            self.path.push(index.to_string());
            if let Some(text) = self.text(entry) {
                let name = text.strip_suffix('?').unwrap_or(&text).to_owned();
                if needs.iter().any(|need| need.name == name) {
                    self.problem(Part::Value, codes::CONFLICT, format!("`{name}` is needed twice"));
                }
                needs.push(Need { optional: text.ends_with('?'), name });
            }
            self.path.pop();
        }
        needs
    }

    fn join(&mut self, value: &Value) -> Option<Join> {
        match value.as_str() {
            Some("all") => return Some(Join::All),
            Some("any") => return Some(Join::Any),
            Some("first") => self.not_yet("races (`join: first`)"),
            _ if value.get("quorum").is_some() => self.not_yet("quorums"),
            _ => self.wrong("`all` or `any`", value),
        }
        None
    }

    fn retry(&mut self, value: Value) -> RetryDef {
        let mut retry = RetryDef::default();
        if let Some(max) = value.as_u64() {
            retry.max = Some(u32::try_from(max).unwrap_or(u32::MAX));
            return retry;
        }
        for (key, value) in self.map(value) {
            self.path.push(key.clone());
            match key.as_str() {
                "max" => retry.max = self.count(&value).map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
                "backoff" => retry.backoff_ms = self.duration(&value),
                "on" => retry.on = Some(self.error_classes(&value)),
                _ => {
                    self.path.pop();
                    self.unknown_key(&key, &["max", "on", "backoff"]);
                    self.path.push(key);
                }
            }
            self.path.pop();
        }
        retry
    }

    fn error_classes(&mut self, value: &Value) -> Vec<String> {
        let words: Vec<&str> = crate::failure::ErrorClass::WORDS.iter().map(|(word, _)| *word).collect();
        let mut classes = Vec::new();
        for (index, entry) in
            value.as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(value)).iter().enumerate()
        {
            match entry.as_str() {
                Some(word) if words.contains(&word) => classes.push(word.to_owned()),
                _ => self.at(&index.to_string(), |r| r.wrong(&format!("one of {}", words.join(", ")), entry)),
            }
        }
        classes
    }

    fn policy(&mut self, value: Value, is_item: bool) -> ErrorPolicyDef {
        match &value {
            Value::String(word) => match word.as_str() {
                "fail" => return ErrorPolicyDef::Fail,
                "skip" => return ErrorPolicyDef::Skip,
                "drop" if is_item => return ErrorPolicyDef::Drop,
                _ => {}
            },
            Value::Object(map) if map.len() == 1 && map.contains_key("value") => {
                return ErrorPolicyDef::Value(map["value"].clone());
            }
            Value::Object(map) if map.contains_key("to") => {
                self.not_yet("error edges");
                return ErrorPolicyDef::Default;
            }
            _ => {}
        }
        let wanted =
            if is_item { "`fail`, `drop`, `skip` or `{value: …}`" } else { "`fail`, `skip` or `{value: …}`" };
        self.wrong(wanted, &value);
        ErrorPolicyDef::Default
    }

    fn allow(&mut self, value: Value) -> AllowDef {
        let mut allow = AllowDef::default();
        for (key, value) in self.map(value) {
            self.path.push(key.clone());
            let names = value
                .as_array()
                .map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>());
            match key.as_str() {
                "kinds" | "models" if names.is_none() => self.wrong("a list of names", &value),
                "kinds" => allow.kinds = names,
                "models" => allow.models = names,
                "tools" => self.not_yet("tools"),
                _ => {
                    self.path.pop();
                    self.unknown_key(&key, &["kinds", "models"]);
                    self.path.push(key);
                }
            }
            self.path.pop();
        }
        allow
    }

    /// A duration such as `500ms`, `30s`, `3m`, `2h`, `1d`, in milliseconds.
    fn duration(&mut self, value: &Value) -> Option<u64> {
        const UNITS: [(&str, f64); 5] = [("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 3.6e6), ("d", 8.64e7)];
        let text = value.as_str().unwrap_or_default();
        let parsed = UNITS.iter().find_map(|(unit, factor)| {
            let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
            (number > 0.0 && number * factor < 1e13).then_some((number * factor) as u64)
        });
        if parsed.is_none() {
            self.wrong("a duration such as `500ms`, `30s`, `3m`, `2h`", value);
        }
        parsed
    }
}

/// What a user's `flowrun.yaml` configures.
#[derive(Debug, Default)]
pub struct Configuration {
    /// Models by alias.
    pub models: indexmap::IndexMap<String, ModelDef>,
    /// Most leaf steps at once.
    pub max_parallel: Option<u32>,
    /// Where runs are recorded.
    pub runs_dir: Option<String>,
}

/// Reads a `flowrun.yaml`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_configuration(name: &str, text: &str) -> Result<Configuration, (Vec<Diagnostic>, Option<Source>)> {
    let (source, data) = Source::parse(name, text).map_err(|problems| (problems, None))?;
    let kinds = BTreeMap::new();
    let mut reader = Reader { source, kinds: &kinds, path: Vec::new(), problems: Vec::new() };
    let mut configuration = Configuration::default();
    let top = if data.is_null() { Map::new() } else { reader.map(data) };
    for (key, value) in top {
        reader.path.push(key.clone());
        match key.as_str() {
            "models" => {
                for (alias, value) in reader.map(value) {
                    let model = reader.at(&alias, |r| r.model(value));
                    configuration.models.insert(alias, model);
                }
            }
            "max_parallel" => configuration.max_parallel = reader.count(&value).map(|n| n.clamp(1, 10_000) as u32),
            "runs_dir" => configuration.runs_dir = reader.text(&value),
            _ => {
                reader.path.pop();
                reader.unknown_key(&key, &["models", "max_parallel", "runs_dir"]);
                reader.path.push(key);
            }
        }
        reader.path.pop();
    }
    if reader.problems.is_empty() { Ok(configuration) } else { Err((reader.problems, Some(reader.source))) }
}
