//! Structured output: a JSON value cut out of what a model really says, mended, and checked.
//!
//! Models wrap JSON in prose and fences, forget to close it and leave tails. The reader tries, in this order: the whole reply,
//! what stands in code fences, every bracketed region from left to right, each as it is and then mended. The first candidate
//! that satisfies the schema is the value; if none does, the error of the first that is JSON at all is for the model's next
//! turn.

use flowrun_engine::json::{read_json, read_number};
use flowrun_engine::schema::Schema;
use serde_json::{Value, json};

/// Longest reply that is looked into, in bytes.
const REPLY_BYTES_MAX: usize = 1 << 20;
/// Most bracketed regions that are tried.
const REGIONS_MAX: usize = 50;

/// Reads the value that a reply holds.
///
/// # Errors
/// One line that tells a model what is wrong with its reply.
pub fn read_structured(reply: &str, schema: &Schema) -> Result<Value, String> {
    if reply.len() > REPLY_BYTES_MAX {
        return Err(format!("the reply is longer than {REPLY_BYTES_MAX} bytes"));
    }
    let wrapped = is_wrapped(schema);
    let mut first_problem = None;
    for candidate in candidates(reply) {
        let read = reading(candidate).unwrap_or_else(|large| {
            first_problem.get_or_insert(large);
            None
        });
        if let Some(value) = read {
            let unwrapped = match value.get("value") {
                Some(inner) if wrapped && value.as_object().is_some_and(|map| map.len() == 1) => inner.clone(),
                _ => value,
            };
            match schema.validate(&unwrapped) {
                Ok(()) => return Ok(unwrapped),
                Err(problem) => {
                    first_problem.get_or_insert(problem);
                }
            }
        }
    }
    match plain(reply, schema) {
        Ok(Some(value)) => return Ok(value),
        Ok(None) => {}
        Err(large) => _ = first_problem.get_or_insert(large),
    }
    Err(first_problem
        .map_or_else(|| "the reply holds no JSON".to_owned(), |problem| format!("the JSON does not fit: {problem}")))
}

/// The schema that a server is held to: its root is an object, so other values travel as `{"value": …}`.
pub(crate) fn sent_schema(schema: &Schema) -> Value {
    if !is_wrapped(schema) {
        return schema.json_schema().clone();
    }
    let inner = if schema.json_schema() == &Value::Bool(true) { json!({}) } else { schema.json_schema().clone() };
    json!({"type": "object", "properties": {"value": inner}, "required": ["value"], "additionalProperties": false})
}

fn is_wrapped(schema: &Schema) -> bool {
    schema.only_type() != Some("object")
}

/// A bare word where a word is wanted: yes and no, numbers, the words of an enum, a plain text.
fn plain(reply: &str, schema: &Schema) -> Result<Option<Value>, String> {
    let text = reply.trim().trim_end_matches("</s>").trim().trim_matches(['"', '`', '*']).trim_end_matches('.');
    let truth = match text.to_lowercase().as_str() {
        "yes" | "true" => Some(Value::Bool(true)),
        "no" | "false" => Some(Value::Bool(false)),
        _ => None,
    };
    let number = match read_number(&text.replace(',', "")) {
        Err(large) if schema.validate(&json!(0)).is_ok() => return Err(large),
        read => read.ok().flatten().map(Value::Number),
    };
    let candidates = [truth, number, Some(Value::String(text.to_owned()))];
    Ok(candidates.into_iter().flatten().find(|value| !text.contains(['{', '[']) && schema.validate(value).is_ok()))
}

/// Regions of the reply that may be the JSON, most likely first.
fn candidates(reply: &str) -> Vec<&str> {
    let mut found = vec![reply.trim()];
    let mut fences = reply.split("```").skip(1).step_by(2);
    found.extend(fences.by_ref().map(|fence| {
        let body = fence.trim_start();
        let word = body.find(|c: char| !c.is_alphanumeric()).unwrap_or(body.len());
        if ["json", "JSON", "jsonc"].contains(&&body[..word]) { body[word..].trim() } else { body.trim() }
    }));
    let mut from = 0;
    while found.len() < REGIONS_MAX
        && let Some(start) = reply[from..].find(['{', '[']).map(|at| from + at)
    {
        let end = region_end(&reply[start..]);
        found.push(reply[start..start + end].trim());
        from = start + end.max(1);
    }
    found
}

/// Length of the bracketed region at the start of the text; the whole text if it is never closed.
fn region_end(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// The candidate as it is, or mended.
fn reading(text: &str) -> Result<Option<Value>, String> {
    let mended = || jsonrepair_rs::jsonrepair(text).ok().filter(|_| text.starts_with(['{', '[']));
    match read_json(text)? {
        None => mended().map_or(Ok(None), |mended| read_json(&mended)),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_in_what_models_say() {
        let check = |schema: &str, reply: &str, expected: Value| {
            let schema = Schema::parse_short(&json!(schema)).unwrap();
            assert_eq!(read_structured(reply, &schema), Ok(expected), "{reply}");
        };
        check("{a: number}", "{\"a\": 1}", json!({"a": 1}));
        check("{a: number}", "Sure! Here it is:\n```json\n{\"a\": 1}\n```\nHope it helps.", json!({"a": 1}));
        check("{a: number}", "``` json\n{\"a\": 1}```", json!({"a": 1}));
        check("{a: number}", "{\"a\": 1}</s>", json!({"a": 1}));
        check("{a: number}", "{'a': 1,}", json!({"a": 1}));
        check("{a: number}", "First {\"b\": 2} then {\"a\": 3}", json!({"a": 3}));
        check("{a: [string]}", "{\"a\": [\"x\", \"y", json!({"a": ["x", "y"]}));
        check("[string]", "{\"value\": [\"x\"]}", json!(["x"]));
        check("[string]", "The list is [\"x\", \"{y}\"].", json!(["x", "{y}"]));
        check("boolean", "Yes.", json!(true));
        check("boolean", "{\"value\": false}", json!(false));
        check("integer", "1,234", json!(1234));
        check("red | blue", "**blue**", json!("blue"));
        check("string", "just a text", json!("just a text"));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let check = |schema: &str, reply: &str, words: &str| {
            let schema = Schema::parse_short(&json!(schema)).unwrap();
            let problem = read_structured(reply, &schema).expect_err(reply);
            assert!(problem.contains(words), "{reply}: {problem}");
        };
        check("{a: number}", "I cannot do that.", "no JSON");
        check("{a: number}", "{\"a\": \"x\"}", "at /a");
        check("{a: number}", "", "no JSON");
        check("boolean", "maybe", "no JSON");
        check("[number]", &"[".repeat(100_000), "");
    }

    #[test]
    fn a_number_that_does_not_fit_is_named() {
        let large = "12345678901234567890123";
        let read = |schema: &str, reply: &str| read_structured(reply, &Schema::parse_short(&json!(schema)).unwrap());
        let check = |schema: &str, reply: &str| {
            let problem = read(schema, reply).expect_err(reply);
            assert!(problem.contains(&format!("the number `{large}` does not fit into 64 bits")), "{reply}: {problem}");
        };
        check("integer", large);
        check("any", large);
        check("integer", "12,345,678,901,234,567,890,123.");
        check("integer", "{\"value\": 12345678901234567890123}");
        check("{a: number}", "So: {'a': 12345678901234567890123,}");
        check("[number]", "```json\n[1, 12345678901234567890123]\n```");
        assert!(read("number", "1e400").is_err_and(|problem| problem.contains("`1e400`")));
        assert!(read("any", "1e400").is_err_and(|problem| problem.contains("`1e400`")));
        assert_eq!(read("string", large), Ok(json!(large)));
        assert_eq!(read("{a: number}", "{\"b\": 12345678901234567890123} {\"a\": 3}"), Ok(json!({"a": 3})));
        assert_eq!(read("integer", "18446744073709551615"), Ok(json!(u64::MAX)));
    }
}
