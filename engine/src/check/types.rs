//! What can never fit, as far as schemas tell: mapping over a text, an attribute that a closed object lacks, a comparison with
//! a word that an enum does not have. Everything that is not certain passes: values are checked again when they exist.

use serde_json::Value;

use super::Checker;
use super::fields::Use;
use super::scope::{Meaning, Names};
use crate::definition::{KindWork, NodeDef};
use crate::diagnostic::codes;
use crate::expr::{Tree, filter_for};
use crate::graph::{Field, NodeCode};
use crate::source::Part;

/// What is known of a value.
#[derive(Clone, Copy)]
pub(super) enum Shape<'a> {
    Text,
    List,
    /// A JSON Schema.
    Schema(&'a Value),
    /// The map of a group's values.
    Body(&'a NodeDef),
    /// The three parts of an expansion.
    Expansion,
    Unknown,
}

/// Keys of the value of an expansion.
const EXPANSION_KEYS: [&str; 3] = ["answer", "steps", "errors"];

impl Checker<'_> {
    /// What is known of the value of a name.
    pub(super) fn shape<'n>(&self, meaning: Meaning<'n>) -> Shape<'n> {
        match meaning {
            Meaning::Node(_, node) => self.shape_of_node(node),
            Meaning::Input(input) => Shape::Schema(input.schema.json_schema()),
            _ => Shape::Unknown,
        }
    }

    fn shape_of_node<'n>(&self, node: &'n NodeDef) -> Shape<'n> {
        if node.for_each.is_some() || node.samples.is_some() {
            return Shape::List;
        }
        if node.output.is_some() {
            return Shape::Unknown;
        }
        if let Some(schema) = &node.schema {
            return Shape::Schema(schema.json_schema());
        }
        match self.kinds.get(&node.kind).map(|spec| spec.work) {
            Some(KindWork::Group) => Shape::Body(node),
            Some(KindWork::Expand) => Shape::Expansion,
            Some(KindWork::Leaf) if node.kind == "llm" => Shape::Text,
            _ => Shape::Unknown,
        }
    }

    /// What is known of the items of a node, when `for_each` is just a name.
    pub(super) fn shape_of_item<'n>(&self, names: &Names<'n>, node: &NodeDef) -> Shape<'n> {
        let list = node.for_each.as_ref().and_then(Value::as_str).map(|name| self.shape(names.find(name.trim())));
        match list {
            Some(Shape::Schema(schema)) => schema.get("items").map_or(Shape::Unknown, Shape::Schema),
            _ => Shape::Unknown,
        }
    }

    /// The shape of an attribute of a value; `Err` when it has none: the attributes that it has.
    fn attribute<'n>(&self, shape: Shape<'n>, attribute: &str) -> Result<Shape<'n>, Vec<&'n str>> {
        match shape {
            Shape::Unknown => Ok(Shape::Unknown),
            Shape::Text | Shape::List => Err(Vec::new()),
            Shape::Expansion if EXPANSION_KEYS.contains(&attribute) => Ok(Shape::Unknown),
            Shape::Expansion => Err(EXPANSION_KEYS.to_vec()),
            Shape::Body(group) => match group.nodes.get(attribute) {
                Some(node) => Ok(self.shape_of_node(node)),
                None if self.broken.contains(attribute) => Ok(Shape::Unknown),
                None => Err(group.nodes.keys().map(String::as_str).collect()),
            },
            Shape::Schema(schema) => match only_type(schema) {
                Some("object") => {
                    let properties = schema.get("properties").and_then(Value::as_object);
                    match properties.and_then(|properties| properties.get(attribute)) {
                        Some(property) => Ok(Shape::Schema(property)),
                        None if schema.get("additionalProperties") != Some(&Value::Bool(false)) => Ok(Shape::Unknown),
                        None => Err(properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect()),
                    }
                }
                Some(_) => Err(Vec::new()),
                None => Ok(Shape::Unknown),
            },
        }
    }

    /// Reports the first attribute that a value cannot have.
    pub(super) fn attributes(&mut self, used: &Use, shape: Shape) {
        let mut shape = shape;
        let mut shown = used.name.name.to_string();
        for attribute in &used.name.attributes {
            match self.attribute(shape, attribute) {
                Ok(inner) => shape = inner,
                Err(has) => {
                    let is = word(shape).filter(|_| has.is_empty()).map(|is| format!(" is {is} and"));
                    let message = format!("`{shown}`{} has no attribute `{attribute}`", is.unwrap_or_default());
                    let near = self.near(attribute, has.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                    let path: Vec<&str> = used.path.iter().map(String::as_str).collect();
                    let range = used.name.range.clone();
                    let filter = filter_for(attribute).filter(|_| has.is_empty());
                    let filter = filter.map(|filter| format!("filters stand behind a bar: `{shown} | {filter}`"));
                    let source = self.source;
                    let problem = self.error_within(codes::TYPE_MISMATCH, &path, range, message);
                    let has = (!has.is_empty() && has.len() <= 12).then(|| format!("it has {}", has.join(", ")));
                    problem.help.extend(near.or(has).or(filter));
                    if let (Some(place), Some(source)) = (&mut problem.place, source) {
                        let whole = format!("{shown}.{attribute}");
                        let written = source.text()[place.start..].starts_with(&whole);
                        place.end = if written { place.start + whole.len() } else { place.end };
                    }
                    return;
                }
            }
            shown = format!("{shown}.{attribute}");
        }
    }

    /// The shape of `a` or `a.b.c`; nothing of anything else.
    fn shape_of_path<'n>(&self, names: &Names<'n>, text: &str) -> Shape<'n> {
        let mut parts = text.trim().split('.');
        let first = self.shape(names.find(parts.next().unwrap_or_default()));
        parts.try_fold(first, |shape, part| self.attribute(shape, part)).unwrap_or(Shape::Unknown)
    }

    /// Reports a `for_each` that can be no list and a `when` that can be neither true nor false.
    pub(super) fn shapes(&mut self, names: &Names, node: &NodeDef, path: &[&str]) {
        let fields = [("for_each", &node.for_each, "a list"), ("when", &node.when, "true or false")];
        for (key, value, wanted) in fields {
            let is = match value {
                Some(Value::String(text)) => word(self.shape_of_path(names, text)),
                Some(Value::Number(_)) => Some("a number"),
                Some(Value::Bool(_)) => Some("true or false"),
                Some(Value::Array(_)) => Some("a list"),
                Some(Value::Object(_)) => Some("a map"),
                _ => None,
            };
            let Some(is) = is.filter(|is| *is != wanted) else { continue };
            let at: Vec<&str> = path.iter().copied().chain([key]).collect();
            let message = format!("`{key}` wants {wanted}, and this is {is}");
            let problem = self.error(codes::TYPE_MISMATCH, &at, Part::Value, message);
            if wanted == "a list" && is == "a text" {
                problem.help.push("give the node it comes from `schema: [string]`, or write `x | lines`".to_owned());
            }
        }
    }

    /// Looks at the comparisons in everything that a node evaluates.
    pub(super) fn all_comparisons(&mut self, names: &Names, code: &NodeCode, path: &[&str]) {
        let kept = [("key", &code.cache.key), ("salt", &code.cache.salt)];
        let attributes = [("when", &code.guard), ("for_each", &code.items), ("output", &code.output)];
        let fields = code.fields.iter().filter_map(|(key, field)| match field {
            Field::Tree(tree) => Some((&**key, tree)),
            _ => None,
        });
        let attributes = attributes.into_iter().chain(kept).filter_map(|(key, tree)| Some((key, tree.as_deref()?)));
        for (key, tree) in attributes.chain(fields) {
            let at: Vec<&str> = path.iter().copied().chain([key]).collect();
            self.comparisons(names, tree, &at);
        }
    }

    /// Reports comparisons of a value with a literal that it can never equal: `year == '1979'` where `year` is a number.
    pub(super) fn comparisons(&mut self, names: &Names, tree: &Tree, path: &[&str]) {
        for (inside, leaf) in tree.leaves() {
            for part in leaf.text().split(" and ").flat_map(|part| part.split(" or ")) {
                let Some((name, literal)) = compared(part) else { continue };
                let Some((is, words)) = mismatch(self.shape_of_path(names, name), &literal) else { continue };
                let at: Vec<&str> = path.iter().copied().chain(inside.iter().map(String::as_str)).collect();
                let start = part.as_ptr() as usize - leaf.text().as_ptr() as usize;
                let near = literal.as_str().and_then(|word| self.near(word, words.iter().copied()));
                let number = (is == "a text" && literal.is_number())
                    .then(|| format!("`{name} | number` is the number in a text; or give its node `schema: number`"));
                let help = near.map(|near| format!("did you mean `'{near}'`?")).or(number);
                let equality = part.contains("==") || part.contains("!=");
                let never = if equality { "never equals" } else { "does not compare with" };
                let message = format!("`{name}` is {is} and {never} {literal}");
                let range = start..start + part.len();
                self.error_within(codes::TYPE_MISMATCH, &at, range, message).help.extend(help);
            }
        }
    }
}

/// The JSON type that every value of a schema has, if there is just one.
fn only_type(schema: &Value) -> Option<&str> {
    schema.get("type")?.as_str()
}

/// What a value of a shape is called.
fn word(shape: Shape) -> Option<&'static str> {
    match shape {
        Shape::Text => Some("a text"),
        Shape::List => Some("a list"),
        Shape::Body(_) | Shape::Expansion => Some("a map"),
        Shape::Unknown => None,
        Shape::Schema(schema) => match only_type(schema)? {
            "string" => Some("a text"),
            "number" | "integer" => Some("a number"),
            "boolean" => Some("true or false"),
            "array" => Some("a list"),
            "object" => Some("a map"),
            _ => None,
        },
    }
}

/// The two sides of a comparison of a name with a text or number, the name first.
fn compared(text: &str) -> Option<(&str, Value)> {
    let text = text.trim().trim_matches(['(', ')']);
    let operator = ["==", "!=", "<=", ">=", "<", ">"].into_iter().find(|operator| text.contains(operator))?;
    let (left, right) = text.split_once(operator)?;
    let (left, right) = (left.trim(), right.trim());
    let is_name = |side: &&str| side.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
    let named = [(left, right), (right, left)].into_iter().find_map(|(name, other)| Some((name, literal(other)?)))?;
    is_name(&named.0).then_some(named)
}

/// A text in quotes or a number.
fn literal(text: &str) -> Option<Value> {
    for quote in ['\'', '"'] {
        let inner = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner {
            return (!inner.contains([quote, '\\'])).then(|| Value::String(inner.to_owned()));
        }
    }
    text.parse().ok().map(Value::Number)
}

/// Why a value can never equal a literal: what it is, and the words that it may be.
fn mismatch<'n>(shape: Shape<'n>, literal: &Value) -> Option<(String, Vec<&'n str>)> {
    if let Shape::Schema(schema) = shape
        && let (Some(words), Some(word)) = (schema.get("enum").and_then(Value::as_array), literal.as_str())
    {
        let words = words.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
        return (!words.contains(&word)).then(|| (format!("one of {}", words.join(", ")), words));
    }
    let wanted = if literal.is_string() { "a text" } else { "a number" };
    let is = word(shape).filter(|is| *is != wanted)?;
    Some((is.to_owned(), Vec::new()))
}
