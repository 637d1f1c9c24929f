//! Steps that call a tool: `{"id": "pages", "tool": "search", "with": {"query": "films of {director}", "limit": 3}}`.
//!
//! Arguments are literal values. In their texts `{id}` is replaced: alone it is the value of that step, inside a text the text
//! of it. The definition has expressions in `with`, so a literal text becomes a quoted one; each is evaluated here and must
//! give the text back, so that nothing in it can ever be more than a text.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::PlanStep;
use super::parse::bad;
use crate::definition::Word;
use crate::diagnostic::Diagnostic;
use crate::expr::{Datum, Expression, Scope, Slotted};

/// Most bytes of the arguments of one step, as JSON.
const WITH_BYTES_MAX: usize = 20_000;

/// The tool that a step calls and its arguments, if it calls one.
pub(super) fn read(
    map: &Map<String, Value>,
    at: &impl Fn(&str) -> String,
    problems: &mut Vec<Diagnostic>,
) -> Option<(String, Map<String, Value>)> {
    let tool = map.get("tool").filter(|tool| !tool.is_null());
    let Some(tool) = tool else {
        if map.get("with").is_some_and(|with| !with.is_null()) {
            problems.push(bad(at("with"), "`with` is what a tool is given, and the step has no `tool`"));
        }
        return None;
    };
    for key in ["ask", "type"].into_iter().filter(|key| map.contains_key(*key)) {
        problems.push(bad(at(key), format!("a step asks or calls a tool: `{key}` and `tool` exclude each other")));
    }
    let name = tool.as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        problems.push(bad(at("tool"), "`tool` is the name of a tool"));
    }
    let with = match map.get("with") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(with)) => with.clone(),
        Some(_) => {
            problems.push(bad(at("with"), "`with` is an object of arguments by name"));
            Map::new()
        }
    };
    let bytes = Value::Object(with.clone()).to_string().len();
    if bytes > WITH_BYTES_MAX {
        problems.push(bad(at("with"), format!("arguments of {bytes} bytes; {WITH_BYTES_MAX} are allowed")));
    }
    Some((name, with))
}

impl PlanStep {
    /// Every text of the step in which `{id}` is replaced.
    pub(super) fn texts(&self) -> Vec<&str> {
        let mut texts = vec![self.ask.as_str()];
        let looped = self.repeat.iter().flat_map(|repeat| [Some(&repeat.again), repeat.until.as_ref()]);
        texts.extend(looped.flatten().map(String::as_str));
        let mut open: Vec<&Value> = self.with.values().rev().collect();
        while let Some(value) = open.pop() {
            match value {
                Value::String(text) => texts.push(text),
                Value::Array(items) => open.extend(items.iter().rev()),
                Value::Object(map) => open.extend(map.values().rev()),
                _ => {}
            }
        }
        texts
    }

    /// Changes every text of the step in which `{id}` is replaced.
    pub(super) fn change_texts(&mut self, change: impl Fn(&str) -> String) {
        self.ask = change(&self.ask);
        let looped = self.repeat.iter_mut().flat_map(|repeat| {
            let repeat = &mut **repeat;
            [Some(&mut repeat.again), repeat.until.as_mut()]
        });
        looped.flatten().for_each(|text| *text = change(text));
        let mut open: Vec<&mut Value> = self.with.values_mut().collect();
        while let Some(value) = open.pop() {
            match value {
                Value::String(text) => *text = change(text),
                Value::Array(items) => open.extend(items),
                Value::Object(map) => open.extend(map.values_mut()),
                _ => {}
            }
        }
    }
}

/// Arguments as a tree of expressions; `None` if some text cannot be quoted.
pub(super) fn arguments(value: &Value) -> Option<Value> {
    Some(match value {
        Value::String(text) => Value::String(expression(text)?),
        Value::Array(items) => items.iter().map(arguments).collect::<Option<Vec<_>>>()?.into(),
        Value::Object(map) => {
            let entries = map.iter().map(|(name, value)| Some((name.clone(), arguments(value)?)));
            Value::Object(entries.collect::<Option<_>>()?)
        }
        other => other.clone(),
    })
}

/// `{a}` → `a`, `of {a}` → `"of " ~ a`, `say "x"` → `"say \"x\""`.
fn expression(text: &str) -> Option<String> {
    let slotted = Slotted::parse(text);
    let mut parts = Vec::new();
    let mut from = 0;
    for (name, range) in slotted.slots() {
        if from < range.start {
            parts.push(quoted(&text[from..range.start])?);
        }
        parts.push(name.clone());
        from = range.end;
    }
    if from < text.len() || parts.is_empty() {
        parts.push(quoted(&text[from..])?);
    }
    Some(parts.join(" ~ "))
}

/// A literal of the expression language that is read as exactly this text.
fn quoted(text: &str) -> Option<String> {
    let literal = json!(text).to_string();
    let same = Expression::parse(&literal).ok()?.eval(&no_names()).ok()? == *text;
    same.then_some(literal)
}

/// Nothing to refer to.
struct NoNames;

impl Scope for NoNames {
    fn get(&self, _: &str) -> Option<Arc<Datum>> {
        None
    }
}

pub(super) fn no_names() -> Arc<dyn Scope> {
    Arc::new(NoNames)
}

/// The same schema of a reply with steps that call one of these tools.
pub fn with_tools(mut schema: Value, tools: &[&Word]) -> Value {
    if tools.is_empty() {
        return schema;
    }
    let steps = &mut schema["properties"]["steps"];
    let asking = steps["items"].take();
    let mut properties = json!({
        "id": asking["properties"]["id"],
        "tool": {"type": "string", "enum": tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>()},
        "with": {"type": "object"},
    });
    for key in ["each", "if", "unless"] {
        properties[key] = asking["properties"][key].clone();
    }
    let calling = json!({
        "type": "object",
        "properties": properties,
        "required": ["id", "tool", "with"],
        "additionalProperties": false,
    });
    steps["items"] = json!({"anyOf": [asking, calling]});
    schema
}

/// What a model is told about tools, behind the [rules](super::planning_rules).
pub fn tool_rules(tools: &[&Word]) -> String {
    let mut rules = "\n- A step may call a tool in place of asking: {\"id\": …, \"tool\": NAME, \"with\": {…}}, without \"ask\" and \
\"type\". \"with\" has its arguments; the id of an earlier step in braces stands for its answer. The tools:"
        .to_owned();
    tools.iter().for_each(|tool| rules.push_str(&format!("\n  - {}: {}", tool.name, tool.doc)));
    rules
}
