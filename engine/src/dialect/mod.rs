//! The plan dialect: what a model draws. Untrusted data: a flat list of literal texts, references by id and formulas.
//!
//! A reply is parsed ([`parse_reply`]), repaired deterministically ([`repair`]), completed with the step `answer`
//! ([`Plan::append_answer`]) and lowered to an ordinary definition ([`Plan::lower`]), which the one checker then judges.
//! Nothing in a plan is ever a template or an expression of ours.

mod formula;
mod lower;
mod parse;
mod prompt;
mod repair;
mod tools;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use parse::parse_reply;
pub use prompt::{planning_rules, worked_examples};
pub use repair::{Repair, repair};
pub use tools::{tool_rules, with_tools};

/// The id of the step that the engine appends.
pub const ANSWER: &str = "answer";

/// A plan as a value: `{question, steps: […]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The question that the plan answers.
    pub question: String,
    /// Its steps in order.
    pub steps: Vec<PlanStep>,
}

/// What a model is asked for.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Reply {
    #[schemars(length(min = 1))]
    #[expect(dead_code, reason = "only the schema of this type is used")]
    steps: Vec<PlanStep>,
}

/// One step of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanStep {
    /// Its id.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]{0,23}$"))]
    pub id: String,
    /// Literal text with slots, or a formula.
    pub ask: String,
    /// What kind of answer is wanted.
    #[serde(rename = "type")]
    pub kind: StepType,
    /// The list step that it is asked for each element of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]{0,23}$"))]
    pub each: Option<String>,
    /// The yes-or-no step that must be yes.
    #[serde(rename = "if", default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]{0,23}$"))]
    pub only_if: Option<String>,
    /// The yes-or-no step that must be no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9_]{0,23}$"))]
    pub unless: Option<String>,
    /// What it needs without mentioning it; a trailing `?` marks the optional. Not offered to models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(skip)]
    pub needs: Vec<String>,
    /// The tool that it calls in place of asking: then it has neither `ask` nor `type`. Offered where tools are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub tool: Option<String>,
    /// What the tool is given.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(skip)]
    pub with: Map<String, Value>,
}

/// What kind of answer a step gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StepType {
    /// A text.
    #[default]
    Text,
    /// A number, asked for as text and read out of it.
    Number,
    /// Yes or no.
    YesNo,
    /// A list of texts or numbers.
    List,
    /// A number or yes or no that the engine computes.
    Calc,
}

impl StepType {
    /// The words of the dialect.
    pub const WORDS: [(&'static str, StepType); 5] = [
        ("text", StepType::Text),
        ("number", StepType::Number),
        ("yesno", StepType::YesNo),
        ("list", StepType::List),
        ("calc", StepType::Calc),
    ];
}

impl PlanStep {
    /// The guard: the step and whether its answer must be yes.
    fn guard(&self) -> Option<(&str, bool)> {
        let yes = self.only_if.as_deref().map(|id| (id, true));
        yes.or(self.unless.as_deref().map(|id| (id, false)))
    }
}

impl Plan {
    /// Adds the step `answer`: the question itself, with whatever the other steps gave.
    pub fn append_answer(&mut self) {
        let needs = self.steps.iter().map(|step| format!("{}?", step.id)).collect();
        self.steps.push(PlanStep { id: ANSWER.into(), ask: "{question}".into(), needs, ..PlanStep::default() });
    }

    /// The plan as a value.
    pub fn to_value(&self) -> Value {
        let mut value = serde_json::to_value(self).expect("BUG: a plan is always JSON");
        let steps = value["steps"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut);
        steps
            .filter(|step| step.contains_key("tool"))
            .for_each(|step| step.retain(|key, _| key != "ask" && key != "type"));
        value
    }
}

/// The JSON Schema of a reply with at most `steps_max` steps, generated from the types above.
pub fn plan_schema(steps_max: u32) -> Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Reply>().to_value();
    strip(&mut schema);
    schema["properties"]["steps"]["maxItems"] = json!(steps_max);
    schema
}

/// Removes what models need not read: titles, descriptions, defaults.
fn strip(schema: &mut Value) {
    if let Value::Object(map) = schema {
        if let Some(Value::Array(kinds)) = map.get("oneOf").cloned() {
            let words: Vec<Value> = kinds.iter().filter_map(|kind| kind.get("const").cloned()).collect();
            map.shift_remove("oneOf");
            map.insert("type".into(), json!("string"));
            map.insert("enum".into(), Value::Array(words));
        }
        for noise in ["$schema", "title", "description", "default"] {
            if map.get(noise).is_some_and(|value| !value.is_object()) {
                map.shift_remove(noise);
            }
        }
        map.values_mut().for_each(strip);
    } else if let Value::Array(items) = schema {
        items.iter_mut().for_each(strip);
    }
}

#[cfg(test)]
mod tests;
