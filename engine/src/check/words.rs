//! Fields that name what the program registered (`tool: search`), and those that pick from a list of such names (`choose`).
//!
//! The names are data of the kind ([`FieldSpec::words`]), so nothing here knows what they stand for.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Checker;
use crate::definition::{FieldFormat, FieldSpec, KindSpec, NodeDef, Word, listed};
use crate::diagnostic::codes;
use crate::graph::Field;
use crate::source::Part;

/// Most names that a help line lists.
const LISTED_MAX: usize = 12;

impl Checker<'_> {
    /// A field of the format [`FieldFormat::Names`]: one known name, or a list of different ones.
    pub(super) fn names_field(&mut self, field: &FieldSpec, value: &Value, at: &[&str]) -> Option<Field> {
        let before = self.errors.found;
        if listed(value).is_empty() {
            let message = format!("`{}` is an empty list", field.name);
            self.error(codes::WRONG_TYPE, at, Part::Value, message).help.push("name at least one".to_owned());
        }
        self.known_names(field, value, at);
        (self.errors.found == before).then(|| Field::Literal(value.clone()))
    }

    /// Reports every entry that is no word of the field, and every one that stands twice.
    fn known_names(&mut self, field: &FieldSpec, value: &Value, at: &[&str]) {
        let mut seen = BTreeSet::new();
        for (index, entry) in listed(value).iter().enumerate() {
            let index = index.to_string();
            let at: Vec<&str> = at.iter().copied().chain(value.is_array().then_some(index.as_str())).collect();
            let Some(name) = entry.as_str() else {
                let message = format!("`{}` wants a name, or a list of names", field.name);
                self.error(codes::WRONG_TYPE, &at, Part::Value, message);
                continue;
            };
            if !seen.insert(name) {
                let problem = self.error(codes::CONFLICT, &at, Part::Value, format!("`{name}` is named twice"));
                problem.help.push("name it once".to_owned());
            } else if field.words.iter().all(|word| word.name != name) {
                let shown: String = name.chars().take(40).collect();
                let near = self.near(name, field.words.iter().map(|word| word.name.as_str()));
                let near = near.map(|near| format!("did you mean `{near}`?"));
                let problem =
                    self.error(codes::UNKNOWN_NAME, &at, Part::Value, format!("no {} is called `{shown}`", field.name));
                problem.help.extend(near);
                problem.help.push(known(field));
            }
        }
    }

    /// A list of names and the expression that picks one of them go together.
    pub(super) fn choices(&mut self, spec: &KindSpec, node: &NodeDef, path: &[&str]) {
        let of = |format| spec.fields.iter().find(|field| field.format == format);
        let (Some(names), Some(choice)) = (of(FieldFormat::Names), of(FieldFormat::Choice)) else { return };
        let Some(written) = node.fields.get(&names.name) else { return };
        let (names, choice) = (names.name.as_str(), choice.name.as_str());
        if written.is_array() && !node.fields.contains_key(choice) {
            let at: Vec<&str> = path.iter().copied().chain([names]).collect();
            let message = format!("`{names}` is a list, and nothing picks from it");
            let problem = self.error(codes::MISSING_KEY, &at, Part::Key, message);
            problem.help.push(format!("write `{choice}:` with an expression that gives one of the names"));
        } else if !written.is_array() && node.fields.contains_key(choice) {
            let at: Vec<&str> = path.iter().copied().chain([choice]).collect();
            let message = format!("`{choice}` picks from a list, and `{names}` is none");
            let problem = self.error(codes::CONFLICT, &at, Part::Key, message);
            problem.help.push(format!("write `{names}: [one, another]` with all that may be picked"));
        }
    }

    /// `allow: {tools: …}`: the names must be those that the kinds know.
    pub(super) fn allowed_tools(&mut self, node: &NodeDef, path: &[&str]) {
        let Some(tools) = node.allow.as_ref().and_then(|allow| allow.tools.clone()) else { return };
        let at: Vec<&str> = path.iter().copied().chain(["allow", "tools"]).collect();
        let kinds = self.kinds;
        let tool = kinds.get("tool").and_then(|spec| spec.names());
        let none = FieldSpec::new("tool", FieldFormat::Names, "a tool that the program registers");
        self.known_names(tool.unwrap_or(&none), &Value::from(tools), &at);
    }
}

/// Which names there are, for help.
fn known(field: &FieldSpec) -> String {
    let FieldSpec { name, doc, words, .. } = field;
    if words.is_empty() {
        return format!("none is registered here: `{name}` is {doc}");
    }
    let mut shown: Vec<&str> = words.iter().take(LISTED_MAX).map(|Word { name, .. }| name.as_str()).collect();
    shown.extend((words.len() > LISTED_MAX).then_some("…"));
    format!("`{name}` may be {}", shown.join(", "))
}
