//! From YAML data to a node: its kind, its attributes, and the fields that the checker judges.

use serde_json::{Map, Value};

use super::keys::{ALLOW, RETRY, is_attribute, later};
use super::reader::Reader;
use super::{AllowDef, CacheScope, LimitsDef, Need, NodeDef, RetryDef};
use crate::diagnostic::{codes, did_you_mean};
use crate::dialect::Dialect;
use crate::schema::Schema;
use crate::source::Part;

impl Reader<'_> {
    pub(super) fn nodes(&mut self, value: Value, depth: usize) -> indexmap::IndexMap<String, NodeDef> {
        let mut nodes = indexmap::IndexMap::new();
        if depth > 64 {
            self.problem(Part::Key, codes::LIMIT, "groups nest deeper than 64");
            return nodes;
        }
        for (name, value) in self.map(value) {
            self.path.push(name.clone());
            self.name(&name, "node", Part::Key);
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
                let problem = self.wrong("a mapping of keys such as `prompt: …`", &other);
                if let Some(text) = other.as_str() {
                    let text: String = text.chars().take(40).collect();
                    problem.help.push(format!("to ask a model write `prompt: \"{text}\"` below it"));
                }
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
            if ["retrieve"].contains(&kind.as_str()) {
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
                    r.problem(Part::Key, codes::CONFLICT, message).help.push("remove one of the two".to_owned());
                });
                return None;
            }
            return Some(kind);
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
                let message = "this node does not say what it does";
                match near {
                    Some((key, _)) => {
                        self.at(&key, |r| r.problem(Part::Key, codes::MISSING_KEY, message).help.push(help));
                    }
                    None => self.problem(Part::Key, codes::MISSING_KEY, message).help.push(help),
                }
                None
            }
            _ => {
                let keys: Vec<String> = implied.iter().map(|(key, _)| format!("`{key}`")).collect();
                let message = format!("{} exclude each other: a node does one thing", keys.join(" and "));
                let first = self.at(implied[0].0, |r| r.place(Part::Key));
                self.at(implied[1].0, |r| {
                    let problem = r.problem(Part::Key, codes::CONFLICT, message);
                    problem.related.push(("the other one".to_owned(), first));
                    problem.help.push("split it into two nodes".to_owned());
                });
                None
            }
        }
    }

    fn takes(&self, kind: &str, key: &str) -> bool {
        self.kinds.get(kind).is_some_and(|spec| spec.fields.iter().any(|field| field.name == key))
    }

    fn attribute(&mut self, key: &str, value: Value, node: &mut NodeDef, depth: usize) {
        if self.takes(&node.kind, key) && !is_attribute(key) {
            if key == "dialect" {
                self.dialect(&value);
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
                    self.name(&name, "item", Part::Value);
                }
            }
            "index" => {
                node.index_name = self.text(&value);
                if let Some(name) = node.index_name.clone().filter(|name| name != "index") {
                    self.name(&name, "index", Part::Value);
                }
            }
            "sequential" => node.sequential = self.flag(&value),
            "stop_when" => node.stop_when = Some(value),
            "quorum" => node.quorum = Some(value),
            "repeat" => node.repeat = Some(self.repeat(value)),
            "next" => node.next = self.next(value),
            "max_depth" => node.max_depth = self.small_count(&value),
            "on_step_error" => node.steps_fail = self.on_step_error(&value),
            "max_parallel" => node.max_parallel = Some(value),
            "samples" => node.samples = Some(value),
            "join" => node.join = self.join(&value),
            "retry" => node.retry = Some(self.retry(value)),
            "timeout" => node.timeout_ms = self.duration(&value),
            "cache" | "key" | "salt" | "ttl" => self.answers(key, value, node),
            "on_error" => node.on_error = self.policy(value, false),
            "on_item_error" => node.on_item_error = self.policy(value, true),
            "schema" | "json_schema" => {
                if node.schema.is_some() {
                    let problem =
                        self.problem(Part::Key, codes::CONFLICT, "`schema` and `json_schema` exclude each other");
                    problem.help.push("keep one of the two".to_owned());
                }
                let is_json_schema =
                    value.get("type").is_some() && value.get("properties").or(value.get("items")).is_some();
                let schema =
                    if key == "schema" { Schema::parse_short(&value) } else { Schema::from_json_schema(value) };
                node.schema = Some(schema.unwrap_or_else(|mut error| {
                    if is_json_schema && key == "schema" {
                        error.help = vec!["this looks like a JSON Schema: write `json_schema:`".to_owned()];
                    }
                    self.bad_schema(error)
                }));
            }
            "output" => node.output = Some(value),
            "nodes" => node.nodes = self.nodes(value, depth + 1),
            "limits" => node.limits = Some(self.limits(value)).filter(|limits| *limits != LimitsDef::default()),
            "allow" => node.allow = Some(self.allow(value)),
            key => match later(key) {
                Some(what) => self.not_yet(what),
                None if is_attribute(key) => unreachable!("BUG: nothing reads `{key}`"),
                None => {
                    node.fields.insert(key.to_owned(), value);
                }
            },
        }
    }

    /// The word of a dialect. The full language, drawn by a model, is not run yet.
    fn dialect(&mut self, value: &Value) {
        let word = value.as_str().unwrap_or_default();
        if word == "full" {
            self.not_yet("the dialect `full`");
        } else if Dialect::named(word).is_none() {
            let words = Dialect::WORDS.map(|(word, _)| word);
            let near = did_you_mean(word, words);
            let problem = self.wrong(&words.map(|word| format!("`{word}`")).join(" or "), value);
            problem.help.extend(near.map(|near| format!("did you mean `{near}`?")));
        }
    }

    /// What is said of kept answers.
    fn answers(&mut self, key: &str, value: Value, node: &mut NodeDef) {
        match key {
            "cache" => node.cache = self.cache(&value),
            "key" => node.cache_key = Some(value),
            "salt" => node.salt = Some(value),
            _ => node.ttl_ms = self.duration(&value),
        }
    }

    /// The word of `cache`.
    fn cache(&mut self, value: &Value) -> Option<CacheScope> {
        let words = CacheScope::WORDS.map(|(word, _)| word);
        let near = match value {
            Value::Bool(true) => Some("shared"),
            Value::Bool(false) => Some("off"),
            Value::String(word) => match CacheScope::named(word) {
                None => did_you_mean(word, words),
                scope => return scope,
            },
            _ => None,
        };
        let problem = self.wrong(&words.map(|word| format!("`{word}`")).join(" or "), value);
        problem.help.extend(near.map(|near| format!("did you mean `{near}`?")));
        None
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

    fn retry(&mut self, value: Value) -> RetryDef {
        let mut retry = RetryDef::default();
        if let Some(max) = value.as_u64() {
            retry.max = Some(u32::try_from(max).unwrap_or(u32::MAX));
            return retry;
        }
        self.keys(value, RETRY, |r, key, value| match key {
            "max" => retry.max = r.small_count(&value),
            "on" => retry.on = Some(r.error_classes(&value)),
            "backoff" => retry.backoff_ms = r.duration(&value),
            key => unreachable!("BUG: nothing reads `{key}`"),
        });
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
                word => self.at(&index.to_string(), |r| {
                    let near = word.and_then(|word| did_you_mean(word, words.iter().copied()));
                    let problem = r.wrong(&format!("one of {}", words.join(", ")), entry);
                    problem.help.extend(near.map(|near| format!("did you mean `{near}`?")));
                }),
            }
        }
        classes
    }

    fn allow(&mut self, value: Value) -> AllowDef {
        let mut allow = AllowDef::default();
        self.keys(value, ALLOW, |r, key, value| match key {
            "kinds" => allow.kinds = r.names(&value),
            "models" => allow.models = r.names(&value),
            "tools" => allow.tools = r.names(&value),
            key => unreachable!("BUG: nothing reads `{key}`"),
        });
        allow
    }

    fn names(&mut self, value: &Value) -> Option<Vec<String>> {
        let names =
            value.as_array().and_then(|names| names.iter().map(|name| Some(name.as_str()?.to_owned())).collect());
        if names.is_none() {
            self.wrong("a list of names", value);
        }
        names
    }
}
