//! What a value must satisfy: short schemas (`[string]`, `{a: number, b?: string}`, `yes | no`) and the JSON Schema behind them.
//!
//! The short form is for people; it becomes a JSON Schema at once, and that is what models are sent and values are checked
//! against. Objects are closed. `T?` is nullable.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

/// A JSON Schema, compiled on first use.
#[derive(Clone)]
pub struct Schema {
    json: Arc<Value>,
    compiled: Arc<OnceLock<Option<jsonschema::Validator>>>,
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.json)
    }
}

/// Why a schema is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SchemaError {
    /// Where inside the tree.
    pub path: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What to do, one line each.
    pub help: Vec<String>,
}

const TYPES: [&str; 5] = ["string", "number", "integer", "boolean", "any"];

/// Nesting of a schema.
const DEPTH_MAX: usize = 32;

impl Schema {
    fn new(json: Value) -> Self {
        Self { json: Arc::new(json), compiled: Arc::default() }
    }

    /// Accepts every value.
    pub fn any() -> Self {
        Self::new(Value::Bool(true))
    }

    /// Reads the short form: a text, a list of one type, or a map of types.
    ///
    /// # Errors
    /// Where and why it cannot be read.
    pub fn parse_short(value: &Value) -> Result<Self, SchemaError> {
        short(value, &mut Vec::new()).map(Self::new)
    }

    /// Takes a JSON Schema as it stands.
    ///
    /// # Errors
    /// If it is no valid schema, or refers to something outside of itself.
    pub fn from_json_schema(json: Value) -> Result<Self, SchemaError> {
        let error = |message: String| SchemaError { path: Vec::new(), message, help: Vec::new() };
        if let Some(reference) = outside_reference(&json, DEPTH_MAX) {
            return Err(error(format!("the schema refers to `{reference}` outside of itself")));
        }
        let schema = Self::new(json);
        match jsonschema::validator_for(&schema.json) {
            Ok(validator) => {
                let _ = schema.compiled.set(Some(validator));
                Ok(schema)
            }
            Err(problem) => Err(error(format!("this is no valid JSON Schema: {problem}"))),
        }
    }

    /// The JSON Schema.
    pub fn json_schema(&self) -> &Value {
        &self.json
    }

    /// Checks a value.
    ///
    /// # Errors
    /// One line for people and models: where (a JSON pointer) and what.
    pub fn validate(&self, value: &Value) -> Result<(), String> {
        if *self.json == Value::Bool(true) {
            return Ok(());
        }
        let compiled = self.compiled.get_or_init(|| jsonschema::validator_for(&self.json).ok());
        let Some(validator) = compiled else { return Err("the schema is no valid JSON Schema".to_owned()) };
        validator.validate(value).map_err(|problem| {
            let at = problem.instance_path().to_string();
            let what: String = problem.to_string().chars().take(300).collect();
            if at.is_empty() { what } else { format!("at {at}: {what}") }
        })
    }

    /// The short form, for people; what the short form cannot say prints as JSON.
    pub fn describe(&self) -> String {
        describe(&self.json)
    }

    /// The JSON type that every value of it has, if there is just one: `string`, `array`, `object`, …
    pub fn only_type(&self) -> Option<&str> {
        self.json.get("type")?.as_str()
    }
}

/// The short form as a text: `"[string]".parse()`.
impl std::str::FromStr for Schema {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        Self::parse_short(&Value::String(text.to_owned()))
    }
}

fn outside_reference(value: &Value, depth: usize) -> Option<String> {
    match value {
        _ if depth == 0 => Some("… (too deep)".to_owned()),
        Value::Object(map) => map.iter().find_map(|(key, value)| match value.as_str() {
            Some(target) if key == "$ref" && !target.starts_with('#') => Some(target.to_owned()),
            _ => outside_reference(value, depth - 1),
        }),
        Value::Array(items) => items.iter().find_map(|item| outside_reference(item, depth - 1)),
        _ => None,
    }
}

fn short(value: &Value, path: &mut Vec<String>) -> Result<Value, SchemaError> {
    let refuse = |path: &[String], message: String| SchemaError { path: path.to_vec(), message, help: Vec::new() };
    if path.len() > DEPTH_MAX {
        return Err(refuse(path, "the schema nests too deeply".to_owned()));
    }
    match value {
        Value::String(text) => {
            let mut parser = Parser { text, at: 0, depth: 0 };
            let schema = parser.whole().map_err(|message| refuse(path, message));
            schema.map_err(with_suggestion)
        }
        Value::Array(items) if items.len() == 1 => {
            path.push("0".to_owned());
            let item = short(&items[0], path)?;
            path.pop();
            Ok(json!({"type": "array", "items": item}))
        }
        Value::Array(_) => {
            Err(refuse(path, "a list type has one element, the type of its items: `[string]`".to_owned()))
        }
        Value::Object(map) => {
            let mut fields = Vec::new();
            for (key, value) in map {
                path.push(key.clone());
                fields.push((key.clone(), short(value, path)?));
                path.pop();
            }
            Ok(object(fields))
        }
        other => Err(refuse(path, format!("`{other}` is no type; types are {}", TYPES.join(", ")))),
    }
}

/// What other languages call our types.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("text", "string"),
    ("str", "string"),
    ("int", "integer"),
    ("float", "number"),
    ("bool", "boolean"),
    ("list", "[string]"),
    ("array", "[string]"),
    ("object", "{name: string}"),
    ("dict", "{name: string}"),
    ("map", "{name: string}"),
    ("null", "string?"),
];

/// Suggests a type for a word that is none.
fn with_suggestion(mut error: SchemaError) -> SchemaError {
    let word = error.message.split('`').nth(1).filter(|_| error.message.contains("` is no type")).unwrap_or_default();
    let other = OTHER_NAMES.iter().find(|(other, _)| *other == word).map(|(_, own)| *own);
    let near = other.or_else(|| crate::diagnostic::did_you_mean(word, TYPES));
    error.help.extend(near.map(|near| format!("did you mean `{near}`?")));
    error
}

/// A closed object; a name that ends in `?` is not required.
fn object(fields: Vec<(String, Value)>) -> Value {
    let required: Vec<&str> =
        fields.iter().map(|(name, _)| name.as_str()).filter(|name| !name.ends_with('?')).collect();
    let required = json!(required);
    let named = |(name, schema): (String, Value)| (name.trim_end_matches('?').to_owned(), schema);
    let properties: Map<String, Value> = fields.into_iter().map(named).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn nullable(schema: Value) -> Value {
    if schema == Value::Bool(true) { schema } else { json!({"anyOf": [schema, {"type": "null"}]}) }
}

/// Reads `[string]`, `{a: number?, b?: [string]}`, `yes | no`, `string?`.
struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn whole(&mut self) -> Result<Value, String> {
        let schema = self.union()?;
        self.space();
        if self.at < self.text.len() {
            return Err(format!("`{}` is not understood in a type", &self.text[self.at..]));
        }
        Ok(schema)
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.text[self.at..].trim_start().len();
    }

    fn eat(&mut self, token: char) -> bool {
        self.space();
        let eaten = self.text[self.at..].starts_with(token);
        self.at += if eaten { token.len_utf8() } else { 0 };
        eaten
    }

    fn word(&mut self) -> String {
        self.space();
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| "[]{}|,:?".contains(c)).unwrap_or(rest.len());
        self.at += end;
        rest[..end].trim().to_owned()
    }

    /// One type, or words of an enum.
    fn union(&mut self) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("the type nests too deeply".to_owned());
        }
        self.space();
        let start = self.at;
        let first = self.one();
        self.space();
        let schema = if self.text[self.at..].starts_with('|') {
            self.at = start;
            let mut words = vec![self.word()];
            while self.eat('|') {
                words.push(self.word());
            }
            if words.iter().any(String::is_empty) {
                return Err("an enum is words between bars: `yes | no`".to_owned());
            }
            json!({"type": "string", "enum": words})
        } else {
            first?
        };
        let schema = if self.eat('?') { nullable(schema) } else { schema };
        self.depth -= 1;
        Ok(schema)
    }

    fn one(&mut self) -> Result<Value, String> {
        if self.eat('[') {
            let items = self.union()?;
            return if self.eat(']') {
                Ok(json!({"type": "array", "items": items}))
            } else {
                Err("a `]` is missing".to_owned())
            };
        }
        if self.eat('{') {
            return self.fields();
        }
        match self.word().as_str() {
            "any" => Ok(Value::Bool(true)),
            name if TYPES.contains(&name) => Ok(json!({"type": name})),
            "" => Err("a type is missing".to_owned()),
            other => {
                Err(format!("`{other}` is no type; types are {}, `[T]`, `{{a: T}}`, `yes | no`", TYPES.join(", ")))
            }
        }
    }

    fn fields(&mut self) -> Result<Value, String> {
        let mut fields = Vec::new();
        while !self.eat('}') {
            let mut name = self.word();
            if self.eat('?') {
                name.push('?');
            }
            if name.is_empty() || !self.eat(':') {
                return Err("a field is written `name: type`".to_owned());
            }
            fields.push((name, self.union()?));
            if !self.eat(',') && !self.text[self.at..].trim_start().starts_with('}') {
                return Err("a `}` is missing".to_owned());
            }
        }
        Ok(object(fields))
    }
}

fn describe(schema: &Value) -> String {
    if schema == &Value::Bool(true) {
        return "any".to_owned();
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().map(|word| word.as_str().unwrap_or("?")).collect::<Vec<_>>().join(" | ");
    }
    if let Some([inner, _null]) = schema.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) {
        return format!("{}?", describe(inner));
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => format!("[{}]", schema.get("items").map_or("any".to_owned(), describe)),
        Some("object") if schema.get("properties").is_some() => {
            let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|r| r == name));
            let field = |(name, schema): (&String, &Value)| {
                format!("{name}{}: {}", if required(name) { "" } else { "?" }, describe(schema))
            };
            let fields = schema["properties"].as_object().into_iter().flatten().map(field);
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Some(name) if TYPES.contains(&name) => name.to_owned(),
        _ => schema.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Schema, String> {
        Schema::parse_short(&json!(text)).map_err(|error| error.message)
    }

    #[test]
    fn the_short_form_round_trips() {
        for text in ["string", "[string]", "{a: number, b?: [integer]}", "yes | no", "string?", "any", "[{a: string?}]"]
        {
            assert_eq!(parsed(text).unwrap().describe(), text);
        }
        let tree = Schema::parse_short(&json!({"thought": "string", "next": ["search | finish"]})).unwrap();
        assert_eq!(tree.describe(), "{thought: string, next: [search | finish]}");
    }

    #[test]
    fn bad_schemas_are_refused() {
        for text in ["strng", "[string", "{a string}", "", "string, number", "a | ", "[[[[", "{a: }"] {
            assert!(parsed(text).is_err(), "{text}");
        }
        let error = Schema::parse_short(&json!({"a": {"b": "strin"}})).unwrap_err();
        assert_eq!((error.path.join("."), error.help), ("a.b".to_owned(), vec!["did you mean `string`?".to_owned()]));
        assert!(Schema::parse_short(&json!("[".repeat(10_000))).is_err());
        assert!(Schema::from_json_schema(json!({"type": "strong"})).is_err());
        assert!(Schema::from_json_schema(json!({"$ref": "http://127.0.0.1/x"})).is_err());
    }

    #[test]
    fn values_are_checked_with_a_place() {
        let schema = parsed("{a: [number]}").unwrap();
        assert_eq!(schema.validate(&json!({"a": [1, 2.5]})), Ok(()));
        let problem = schema.validate(&json!({"a": [1, "x"]})).unwrap_err();
        assert!(problem.starts_with("at /a/1: "), "{problem}");
        assert!(schema.validate(&json!({"a": [], "b": 1})).is_err());
        assert_eq!(parsed("string?").unwrap().validate(&json!(null)), Ok(()));
    }
}
