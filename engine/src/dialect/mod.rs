//! The plan dialect: what a model draws. Untrusted data: a flat list of literal texts, references by id and formulas.
//!
//! A reply is parsed ([`parse_reply`]), repaired deterministically ([`repair`]), completed with the step `answer`
//! ([`Plan::append_answer`]) and lowered to an ordinary definition ([`Plan::lower`]), which the one checker then judges.
//! Nothing in a plan is ever a template or an expression of ours.
//!
//! The dialect `flowchart` is the same and loops: a step may [`Repeat`].

mod formula;
mod lower;
mod lower_loop;
mod parse;
mod prompt;
mod repair;
mod repair_loop;
mod tools;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::calc::Formula;

pub use parse::parse_reply;
pub use prompt::{planning_rules, worked_examples};
pub use repair::{Repair, repair};
pub use tools::{tool_rules, with_tools};

/// The id of the step that the engine appends.
pub const ANSWER: &str = "answer";

/// Which words a plan may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Steps and guards.
    #[default]
    Graph,
    /// The same and loops.
    Flowchart,
}

impl Dialect {
    /// The words of the file.
    pub const WORDS: [(&'static str, Dialect); 2] = [("graph", Dialect::Graph), ("flowchart", Dialect::Flowchart)];

    /// The dialect of that name.
    pub fn named(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, dialect)| *dialect)
    }
}

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
    /// How it repeats. Offered by the dialect `flowchart` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub repeat: Option<Box<Repeat>>,
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

/// How a step repeats: `ask` gave its first value, `again` makes the next one. Or a block of steps that repeats as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// Makes the next value; `{own id}` is the current one. Empty for a block.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub again: String,
    /// What must hold of the current value for the loop to end; of a block the id of one of its steps. Without it the loop ends
    /// at `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub until: Option<String>,
    /// How often `again` is done at most, or how often a block runs at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub max: Option<u32>,
    /// The steps of a block. Not offered to models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(skip)]
    pub steps: Vec<PlanStep>,
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
    /// The steps of the block that it is, if it is one.
    fn block(&self) -> &[PlanStep] {
        self.repeat.as_ref().map_or(&[], |repeat| &repeat.steps)
    }

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

    /// How many steps it has, those of blocks included and `answer` apart.
    pub fn size(&self) -> usize {
        self.steps.iter().filter(|step| step.id != ANSWER).map(|step| 1 + step.block().len()).sum()
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

/// Whether a step gives yes or no.
fn is_truth(step: &PlanStep) -> bool {
    match step.kind {
        StepType::YesNo => step.each.is_none(),
        StepType::Calc => Formula::parse(&step.ask).is_ok_and(|formula| formula.is_comparison()),
        _ => false,
    }
}

/// The JSON Schema of a reply with at most `steps_max` steps that repeat at most `iterations_max` times, generated from the types
/// above.
pub fn plan_schema(dialect: Dialect, steps_max: u32, iterations_max: u32) -> Value {
    let mut schema = bare_schema::<Reply>();
    schema["properties"]["steps"]["maxItems"] = json!(steps_max);
    if dialect == Dialect::Flowchart {
        let mut repeat = bare_schema::<Repeat>();
        repeat["required"] = json!(["again", "until", "max"]);
        repeat["properties"]["max"] = json!({"type": "integer", "minimum": 1, "maximum": iterations_max});
        schema["properties"]["steps"]["items"]["properties"]["repeat"] = repeat;
    }
    schema
}

fn bare_schema<T: JsonSchema>() -> Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    strip(&mut schema);
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
