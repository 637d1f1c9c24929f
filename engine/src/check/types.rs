//! What can never fit, as far as schemas tell: mapping over a text, an attribute that a closed object lacks, a guard that is a
//! list. Everything that is not certain passes: values are checked again when they exist.

use serde_json::Value;

use super::fields::Use;
use super::scope::{Meaning, Names};
use super::{Checker, Part};
use crate::definition::NodeDef;
use crate::diagnostic::{codes, did_you_mean};
use crate::schema::Schema;

/// What is known of a value.
pub(super) enum Known<'a> {
    Text,
    List,
    Schema(&'a Schema),
    Nothing,
}

impl Checker<'_> {
    /// Reports attributes that a value cannot have.
    pub(super) fn attributes(&mut self, names: &Names, used: &Use) {
        let Some(attribute) = used.name.attributes.first() else { return };
        let path: Vec<&str> = used.path.iter().map(String::as_str).collect();
        let problem = match known(names.find(&used.name.name)) {
            Known::Text => Some(format!("`{}` is a text and has no attribute `{attribute}`", used.name.name)),
            Known::List => Some(format!("`{}` is a list and has no attribute `{attribute}`", used.name.name)),
            Known::Schema(schema) => lacks(schema, &used.name.name, attribute),
            Known::Nothing => None,
        };
        if let Some(message) = problem {
            let place = self.source.map(|source| source.place_within(&path, used.name.range.clone()));
            let properties = match known(names.find(&used.name.name)) {
                Known::Schema(schema) => properties(schema),
                _ => Vec::new(),
            };
            let problem = self.error(codes::TYPE_MISMATCH, &path, Part::Value, message);
            problem.place = place;
            let near = did_you_mean(attribute, properties.iter().map(String::as_str));
            problem.help.extend(near.map(|near| format!("did you mean `{near}`?")));
            if near.is_none() && !properties.is_empty() {
                problem.help.push(format!("it has {}", properties.join(", ")));
            }
        }
    }

    /// Reports a `for_each` that can be no list and a `when` that can be neither true nor false.
    pub(super) fn shapes(&mut self, names: &Names, node: &NodeDef, path: &[&str]) {
        for (key, value, wanted) in [("for_each", &node.for_each, "array"), ("when", &node.when, "boolean")] {
            let Some(value) = value else { continue };
            let at: Vec<&str> = path.iter().copied().chain([key]).collect();
            let is = match value {
                Value::String(name) => match known(names.find(name.trim())) {
                    Known::Text => Some("a text"),
                    Known::List => Some("a list"),
                    Known::Schema(schema) => schema.only_type().and_then(word),
                    Known::Nothing => None,
                },
                Value::Number(_) => Some("a number"),
                Value::Bool(_) => Some("true or false"),
                Value::Array(_) => Some("a list"),
                _ => None,
            };
            let fits = if wanted == "array" { "a list" } else { "true or false" };
            if let Some(is) = is.filter(|is| *is != fits) {
                let message = format!("`{key}` wants {fits}, and this is {is}");
                let problem = self.error(codes::TYPE_MISMATCH, &at, Part::Value, message);
                if wanted == "array" && is == "a text" {
                    problem
                        .help
                        .push("give the node it comes from `schema: [string]`, or write `x | lines`".to_owned());
                }
            }
        }
    }
}

fn word(json_type: &str) -> Option<&'static str> {
    match json_type {
        "string" => Some("a text"),
        "number" | "integer" => Some("a number"),
        "boolean" => Some("true or false"),
        "array" => Some("a list"),
        "object" => Some("a map"),
        _ => None,
    }
}

fn known<'a>(meaning: Meaning<'a>) -> Known<'a> {
    match meaning {
        Meaning::Node(_, node) => of_node(node),
        Meaning::Input(input) => Known::Schema(&input.schema),
        _ => Known::Nothing,
    }
}

fn of_node(node: &NodeDef) -> Known<'_> {
    let asks = node.kind == "llm";
    if node.for_each.is_some() || node.samples.is_some() {
        Known::List
    } else if node.output.is_some() {
        Known::Nothing
    } else if let Some(schema) = &node.schema {
        Known::Schema(schema)
    } else if asks {
        Known::Text
    } else {
        Known::Nothing
    }
}

fn lacks(schema: &Schema, name: &str, attribute: &str) -> Option<String> {
    match schema.only_type()? {
        "object" => {
            let closed = schema.json_schema().get("additionalProperties") == Some(&Value::Bool(false));
            let has = properties(schema).iter().any(|property| property == attribute);
            (closed && !has).then(|| format!("`{name}` has no attribute `{attribute}`"))
        }
        other => word(other).map(|is| format!("`{name}` is {is} and has no attribute `{attribute}`")),
    }
}

fn properties(schema: &Schema) -> Vec<String> {
    let properties = schema.json_schema().get("properties").and_then(Value::as_object);
    properties.into_iter().flatten().map(|(name, _)| name.clone()).collect()
}
