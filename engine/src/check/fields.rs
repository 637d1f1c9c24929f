//! The fields of a node: known, complete, of the right form, and compiled.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use super::Checker;
use crate::calc::Formula;
use crate::definition::{FieldFormat, FieldSpec, KindSpec, NodeDef, is_attribute, keys};
use crate::diagnostic::codes;
use crate::expr::{NameUse, Slotted, Template, Tree};
use crate::graph::Field;
use crate::source::Part;

/// What other systems call our attributes.
const SYNONYMS: [(&str, &str); 6] = [
    ("depends_on", "needs"),
    ("after", "needs"),
    ("if", "when"),
    ("condition", "when"),
    ("foreach", "for_each"),
    ("map", "for_each"),
];

/// One mention of a name, with where it stands.
pub(super) struct Use {
    pub(super) name: NameUse,
    /// The document path of the text.
    pub(super) path: Vec<String>,
    /// Whether it is a `{slot}` of literal text.
    pub(super) is_slot: bool,
    pub(super) known: Known,
}

/// Which names a field may mention beside nodes and inputs.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    /// The node's own item.
    pub(super) item: bool,
    /// `this`.
    pub(super) this: bool,
    /// A count: inputs alone.
    pub(super) count: bool,
    /// The node's own value, by its name.
    pub(super) own: bool,
}

impl Known {
    /// What is evaluated for each item.
    pub(super) const ITEM: Self = Self { item: true, this: false, count: false, own: false };
}

impl Checker<'_> {
    /// Compiles the fields of a kind; the names in them are added to `uses`.
    pub(super) fn fields(
        &mut self,
        spec: &KindSpec,
        node: &NodeDef,
        path: &[&str],
        uses: &mut Vec<Use>,
    ) -> IndexMap<Arc<str>, Field> {
        let mut fields = IndexMap::new();
        for (key, value) in &node.fields {
            let at: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
            match spec.fields.iter().find(|field| field.name == *key) {
                Some(field) => {
                    if let Some(compiled) = self.field(field, value, &at, uses) {
                        fields.insert(key.as_str().into(), compiled);
                    }
                }
                None => self.unknown_field(spec, key, value, &at),
            }
        }
        for field in spec.fields.iter().filter(|field| field.required && !node.fields.contains_key(&field.name)) {
            let message = format!("a node of kind `{}` needs `{}`: {}", spec.name, field.name, field.doc);
            self.error(codes::MISSING_KEY, path, Part::Key, message);
        }
        self.choices(spec, node, path);
        let work: Vec<&str> = spec
            .work_keys
            .iter()
            .map(String::as_str)
            .filter(|key| spec.fields.iter().any(|f| f.name == *key))
            .collect();
        let written: Vec<&&str> = work.iter().filter(|key| node.fields.contains_key(**key)).collect();
        if work.len() > 1 && written.len() != 1 {
            let message = match written.len() {
                0 => format!("a node of kind `{}` needs one of `{}`", spec.name, work.join("`, `")),
                _ => format!("`{}` exclude each other", work.join("` and `")),
            };
            let Some([first, second]) = written.get(..2) else {
                self.error(codes::MISSING_KEY, path, Part::Key, message);
                return fields;
            };
            let first: Vec<&str> = path.iter().copied().chain([**first]).collect();
            let second: Vec<&str> = path.iter().copied().chain([**second]).collect();
            let other = self.source.map(|source| source.place(&first, Part::Key));
            let problem = self.error(codes::CONFLICT, &second, Part::Key, message);
            problem.related.extend(other.map(|place| ("the other one".to_owned(), place)));
            problem.help.push("keep one of the two".to_owned());
        }
        fields
    }

    fn unknown_field(&mut self, spec: &KindSpec, key: &str, value: &Value, at: &[&str]) {
        let shown: String = key.chars().take(40).collect();
        let known = spec.fields.iter().map(|field| field.name.as_str());
        let synonym = SYNONYMS.iter().find(|(other, _)| *other == key).map(|(_, own)| *own);
        let near = || self.near(key, known.clone().chain(keys::known(keys::ATTRIBUTES).map(|key| key.name)));
        let near = synonym.or_else(near);
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if value.is_null() => {
                "a comma ends a value inside `{…}`: put quotes around a text or an expression with commas".to_owned()
            }
            None if ["temperature", "max_tokens", "top_p", "seed", "stop"].contains(&key)
                && spec.fields.iter().any(|field| field.name == "params") =>
            {
                format!("it stands in `params`: `params: {{{key}: {value}}}`")
            }
            None if is_attribute(key) => "this attribute does not apply here".to_owned(),
            None => {
                let fields = known.collect::<Vec<_>>().join(", ");
                let own = format!("a node of kind `{}` takes {fields}; ", spec.name);
                let own = if fields.is_empty() { "" } else { &own };
                format!("{own}every node takes needs, when, for_each, retry, on_error, output and others")
            }
        };
        let message = format!("a node of kind `{}` has no `{shown}`", spec.name);
        self.error(codes::UNKNOWN_KEY, at, Part::Key, message).help.push(help);
    }

    fn field(&mut self, field: &FieldSpec, value: &Value, at: &[&str], uses: &mut Vec<Use>) -> Option<Field> {
        let known = Known::ITEM;
        match field.format {
            FieldFormat::Template => {
                let text = self.text(value, at)?;
                let template = Template::parse(text).map_err(|error| self.expression_problem(at, error)).ok()?;
                add_uses(uses, template.names(), at, known);
                Some(Field::Template(Box::new(template)))
            }
            FieldFormat::Slotted => {
                let slotted = Slotted::parse(self.text(value, at)?);
                let names = slotted.slots().iter().map(|(name, range)| name_use(name, range.clone()));
                uses.extend(names.map(|name| Use { name, path: owned(at), is_slot: true, known }));
                Some(Field::Slotted(slotted))
            }
            FieldFormat::Formula => {
                let text = match value {
                    Value::Number(number) => number.to_string(),
                    other => self.text(other, at)?.to_owned(),
                };
                let formula = Formula::parse(&text).map_err(|error| self.expression_problem(at, error)).ok()?;
                let names = formula.names().iter().map(|(name, range)| name_use(name, range.clone()));
                uses.extend(names.map(|name| Use { name, path: owned(at), is_slot: true, known }));
                Some(Field::Formula(formula))
            }
            FieldFormat::ExpressionOrNames if value.is_array() => {
                let names = value.as_array().into_iter().flatten().map(Value::as_str).collect::<Option<Vec<_>>>();
                let Some(names) = names else { return self.typed(value, false, "a list of names", at) };
                let map = names.into_iter().map(|name| (name.to_owned(), Value::String(name.to_owned()))).collect();
                self.compiled(&Value::Object(map), at, known, uses).map(Field::Tree)
            }
            FieldFormat::Names => self.names_field(field, value, at),
            FieldFormat::Map if value.is_number() || value.is_boolean() || value.is_array() => {
                let example = field.doc.split(',').next().unwrap_or_default();
                self.typed(value, false, &format!("a mapping such as `{{{example}: …}}`, or an expression"), at)
            }
            FieldFormat::Expression | FieldFormat::ExpressionOrNames | FieldFormat::Choice | FieldFormat::Map => {
                self.compiled(value, at, known, uses).map(Field::Tree)
            }
            FieldFormat::Text => self.text(value, at).map(|text| Field::Literal(Value::String(text.to_owned()))),
            FieldFormat::Count => self.typed(value, value.is_u64(), "a whole number from 0", at),
            FieldFormat::Flag => self.typed(value, value.is_boolean(), "`true` or `false`", at),
            FieldFormat::Literal => Some(Field::Literal(value.clone())),
        }
    }

    /// Compiles an expression tree and notes the names in it.
    pub(super) fn compiled(&mut self, value: &Value, at: &[&str], known: Known, uses: &mut Vec<Use>) -> Option<Tree> {
        let tree = self.tree(value, at)?;
        for (inside, leaf) in tree.leaves() {
            let path: Vec<&str> = at.iter().copied().chain(inside.iter().map(String::as_str)).collect();
            add_uses(uses, leaf.names(), &path, known);
        }
        Some(tree)
    }

    fn typed(&mut self, value: &Value, fits: bool, wanted: &str, at: &[&str]) -> Option<Field> {
        if fits {
            return Some(Field::Literal(value.clone()));
        }
        let key = at.last().copied().unwrap_or_default();
        self.error(codes::WRONG_TYPE, at, Part::Value, format!("`{key}` wants {wanted}"));
        None
    }

    fn text<'v>(&mut self, value: &'v Value, at: &[&str]) -> Option<&'v str> {
        let text = value.as_str();
        if text.is_none() {
            let key = at.last().copied().unwrap_or_default();
            let problem = self.error(codes::WRONG_TYPE, at, Part::Value, format!("`{key}` wants a text"));
            problem.help.push(match value {
                Value::Array(_) | Value::Object(_) => {
                    "put quotes around a text that begins with `{` or `[`, or write it on the lines below `|`"
                        .to_owned()
                }
                Value::Null => "nothing is written here".to_owned(),
                other => format!("quotes make it one: `\"{other}\"`"),
            });
        }
        text
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|part| (*part).to_owned()).collect()
}

fn name_use(name: &str, range: std::ops::Range<usize>) -> NameUse {
    NameUse { name: name.into(), attributes: Vec::new(), defaulted: false, range, node: None }
}

fn add_uses(uses: &mut Vec<Use>, names: &[NameUse], at: &[&str], known: Known) {
    uses.extend(names.iter().cloned().map(|name| Use { name, path: owned(at), is_slot: false, known }));
}
