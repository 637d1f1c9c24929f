//! From JSON of any origin to steps; every problem is reported, with a path such as `steps[3].id`.

use serde_json::{Map, Value};

use super::{Plan, PlanStep, Repeat, StepType, tools};
use crate::diagnostic::{Diagnostic, codes, did_you_mean};

/// Most steps that are looked at, whatever the limits say.
const STEPS_MAX: usize = 1_000;
/// Longest `ask` in bytes.
const ASK_BYTES_MAX: usize = 20_000;

const KEYS: [&str; 10] = ["id", "ask", "type", "each", "if", "unless", "repeat", "needs", "tool", "with"];
const REPEAT_KEYS: [&str; 4] = ["again", "until", "max", "steps"];

/// Reads what a model returned: an object with `steps`, or the bare list.
///
/// # Errors
/// Every problem found.
pub fn parse_reply(value: &Value) -> Result<Vec<PlanStep>, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let steps = match value {
        Value::Array(_) => Some(value),
        Value::Object(map) => {
            let unknown = map.keys().filter(|key| !["steps", "question"].contains(&key.as_str()));
            problems.extend(
                unknown.map(|key| bad(excerpt(key), format!("the key `{}` means nothing in a plan", excerpt(key)))),
            );
            map.get("steps")
        }
        _ => None,
    };
    let Some(Value::Array(steps)) = steps else {
        problems.push(bad("steps", "a plan is an object with a list `steps`"));
        return Err(problems);
    };
    if steps.len() > STEPS_MAX {
        return Err(vec![bad("steps", format!("{} steps; {STEPS_MAX} is the most that is read", steps.len()))]);
    }
    let parsed = parse_steps("steps", steps, &mut problems);
    if problems.is_empty() { Ok(parsed) } else { Err(problems) }
}

impl Plan {
    /// Reads the value of a `plan` node; it may have come from anywhere.
    ///
    /// # Errors
    /// Every problem found.
    pub fn from_value(value: &Value) -> Result<Self, Vec<Diagnostic>> {
        let question = match value.get("question") {
            Some(Value::String(question)) => question.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        };
        if !value.is_object() {
            let shown = excerpt(&value.to_string());
            return Err(vec![
                bad("", format!("this is no plan: `{shown}`")).help("a plan is `{question, steps: […]}`"),
            ]);
        }
        Ok(Self { question, steps: parse_reply(value)? })
    }
}

pub(super) fn bad(path: impl Into<String>, message: impl Into<String>) -> Diagnostic {
    Diagnostic::error(codes::BAD_PLAN, path, message)
}

/// What is shown of a text that may be long and hostile.
pub(super) fn excerpt(text: &str) -> String {
    let short: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

fn parse_steps(at: &str, steps: &[Value], problems: &mut Vec<Diagnostic>) -> Vec<PlanStep> {
    let parsed = steps.iter().enumerate();
    parsed.filter_map(|(index, step)| parse_step(&format!("{at}[{index}]"), step, problems)).collect()
}

fn parse_step(path: &str, value: &Value, problems: &mut Vec<Diagnostic>) -> Option<PlanStep> {
    let at = |key: &str| format!("{path}.{key}");
    let Value::Object(map) = value else {
        problems.push(bad(path, "a step is an object with `id`, `ask` and `type`"));
        return None;
    };
    unknown_keys(map, &KEYS, "a step", &at, problems);
    let found = problems.len();
    let id = text(map, "id", &at, problems).unwrap_or_default();
    if !is_id(&id) && problems.len() == found {
        let problem = bad(at("id"), format!("`{}` is no id", excerpt(&id)));
        problems.push(problem.help("an id is a letter a-z and then letters, digits or `_`, 24 at most"));
    }
    let repeat = match map.get("repeat") {
        None | Some(Value::Null) => None,
        Some(value) => parse_repeat(path, value, problems).map(Box::new),
    };
    let is_block = repeat.as_ref().is_some_and(|repeat| !repeat.steps.is_empty());
    let call = tools::read(map, &at, problems);
    if call.is_some() && repeat.is_some() {
        let problem = bad(at("repeat"), "a step that calls a tool does not repeat");
        problems.push(problem.help("put it into a block: `repeat: {steps: […], until: ID, max: N}`"));
    }
    let ask = match (&call, is_block && !map.contains_key("ask")) {
        (Some(_), _) => None,
        (None, true) => Some(String::new()),
        (None, false) => text(map, "ask", &at, problems),
    };
    if let Some(ask) = &ask
        && (ask.trim().is_empty() != is_block || ask.len() > ASK_BYTES_MAX)
    {
        problems.push(match is_block {
            true => bad(at("ask"), "a block of steps asks nothing itself"),
            false => bad(at("ask"), format!("a question of {} bytes; from 1 to {ASK_BYTES_MAX} is allowed", ask.len())),
        });
    }
    let ask = ask.unwrap_or_default();
    let kind = match map.get("type") {
        None => Some(StepType::Text),
        Some(word) => StepType::WORDS.iter().find(|(name, _)| word == name).map(|(_, kind)| *kind),
    };
    if kind.is_none() {
        let words = StepType::WORDS.map(|(word, _)| word).join(", ");
        let problem = bad(at("type"), format!("the type `{}` does not exist", excerpt(&map["type"].to_string())));
        problems.push(problem.help(format!("types are {words}")));
    }
    let mut reference = |key: &str| match map.get(key) {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) if id.is_empty() => None,
        Some(_) => text(map, key, &at, problems),
    };
    let (each, only_if, unless) = (reference("each"), reference("if"), reference("unless"));
    let needs = match map.get("needs") {
        None => Vec::new(),
        Some(Value::Array(names)) if names.iter().all(Value::is_string) => {
            names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Some(_) => {
            problems.push(bad(at("needs"), "`needs` is a list of ids"));
            Vec::new()
        }
    };
    let (tool, with) = call.map_or((None, Map::new()), |(tool, with)| (Some(tool), with));
    Some(PlanStep { id, ask, kind: kind.unwrap_or_default(), each, only_if, unless, repeat, needs, tool, with })
}

fn unknown_keys<const N: usize>(
    map: &Map<String, Value>,
    known: &[&'static str; N],
    what: &str,
    at: &impl Fn(&str) -> String,
    problems: &mut Vec<Diagnostic>,
) {
    for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
        let problem = bad(at(&excerpt(key)), format!("the key `{}` means nothing in {what}", excerpt(key)));
        problems.push(match did_you_mean(key, *known) {
            Some(near) => problem.help(format!("did you mean `{near}`?")),
            None => problem.help(format!("{what} has {}", known.join(", "))),
        });
    }
}

/// `repeat: {again, until, max}`, or `{steps, until, max}`.
fn parse_repeat(path: &str, value: &Value, problems: &mut Vec<Diagnostic>) -> Option<Repeat> {
    let at = |key: &str| format!("{path}.repeat.{key}");
    let Value::Object(map) = value else {
        problems.push(bad(format!("{path}.repeat"), "`repeat` is an object with `again`, `until` and `max`"));
        return None;
    };
    unknown_keys(map, &REPEAT_KEYS, "`repeat`", &at, problems);
    let steps = match map.get("steps") {
        None => Vec::new(),
        Some(Value::Array(steps)) if steps.len() <= STEPS_MAX => parse_steps(&at("steps"), steps, problems),
        Some(_) => {
            problems.push(bad(at("steps"), format!("`steps` is a list of at most {STEPS_MAX} steps")));
            Vec::new()
        }
    };
    if let Some(nested) = steps.iter().position(|step| step.repeat.is_some()) {
        problems.push(bad(at(&format!("steps[{nested}].repeat")), "loops in a block of steps do not nest"));
    }
    if map.contains_key("steps") == map.contains_key("again") {
        problems.push(bad(format!("{path}.repeat"), "`repeat` has `again`, or else the `steps` of a block"));
    }
    let mut said = |key: &str| match map.get(key) {
        None | Some(Value::Null) => None,
        Some(_) => text(map, key, &at, problems).filter(|text| !text.trim().is_empty()),
    };
    let (again, until) = (said("again").unwrap_or_default(), said("until"));
    for (key, text) in [("again", Some(&again)), ("until", until.as_ref())] {
        if text.is_some_and(|text| text.len() > ASK_BYTES_MAX) {
            problems.push(bad(at(key), format!("a text of more than {ASK_BYTES_MAX} bytes")));
        }
    }
    let max = match map.get("max") {
        None | Some(Value::Null) => None,
        Some(max) => {
            let count = max.as_u64().map(|count| u32::try_from(count).unwrap_or(u32::MAX));
            if count.is_none() {
                problems.push(bad(at("max"), format!("`max` is a whole number, not `{}`", excerpt(&max.to_string()))));
            }
            count
        }
    };
    Some(Repeat { again, until, max, steps })
}

fn text(
    map: &Map<String, Value>,
    key: &str,
    at: &impl Fn(&str) -> String,
    problems: &mut Vec<Diagnostic>,
) -> Option<String> {
    match map.get(key) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(number @ Value::Number(_)) if ["ask", "again"].contains(&key) => Some(number.to_string()),
        Some(other) => {
            problems.push(bad(at(key), format!("`{key}` is a text, not `{}`", excerpt(&other.to_string()))));
            None
        }
        None => {
            problems.push(bad(at(key), format!("`{key}` is missing")));
            None
        }
    }
}

fn is_id(id: &str) -> bool {
    let tail = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    id.len() <= 32 && id.starts_with(|c: char| c.is_ascii_lowercase()) && id.chars().all(tail)
}
