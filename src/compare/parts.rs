//! Where two JSON values differ.

use serde::Serialize;
use serde_json::Value;

use super::lines::{Line, changed_lines};

/// Most places that are told of one pair of values.
const PARTS_MAX: usize = 200;

/// One place at which two values differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Where: `fields.prompt`, `list[2]`; empty for the whole value.
    pub path: String,
    /// What the first has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Value>,
    /// What the second has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Value>,
    /// Where both are texts of which one has several lines: what changed, line by line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
}

/// Every place at which two values differ, in the order of the first, at most 200. The order of keys makes no difference.
pub fn differing(a: &Value, b: &Value) -> Vec<Part> {
    let mut parts = Vec::new();
    walk(&mut String::new(), Some(a), Some(b), &mut parts);
    parts
}

fn walk(path: &mut String, a: Option<&Value>, b: Option<&Value>, parts: &mut Vec<Part>) {
    if a == b || parts.len() == PARTS_MAX {
        return;
    }
    let before = path.len();
    match (a, b) {
        (Some(Value::Object(first)), Some(Value::Object(second))) => {
            let added = second.keys().filter(|key| !first.contains_key(*key));
            for key in first.keys().chain(added) {
                path.push_str(if before > 0 { "." } else { "" });
                path.push_str(key);
                walk(path, first.get(key), second.get(key), parts);
                path.truncate(before);
            }
        }
        (Some(Value::Array(first)), Some(Value::Array(second))) => {
            for at in 0..first.len().max(second.len()) {
                path.push_str(&format!("[{at}]"));
                walk(path, first.get(at), second.get(at), parts);
                path.truncate(before);
            }
        }
        (Some(Value::String(first)), Some(Value::String(second))) if first.contains('\n') || second.contains('\n') => {
            parts.push(Part { lines: changed_lines(first, second), ..part(path, a, b) });
        }
        _ => parts.push(part(path, a, b)),
    }
}

fn part(path: &str, a: Option<&Value>, b: Option<&Value>) -> Part {
    Part { path: path.to_owned(), a: a.cloned(), b: b.cloned(), lines: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_places_are_named_and_nothing_else() {
        let a = json!({"kind": "llm", "fields": {"prompt": "a\nb", "n": [1, 2]}, "gone": null});
        let b = json!({"kind": "llm", "fields": {"n": [1, 3, 4], "prompt": "a\nc"}, "new": true});
        let parts = differing(&a, &b);
        let paths: Vec<&str> = parts.iter().map(|part| part.path.as_str()).collect();
        assert_eq!(paths, ["fields.prompt", "fields.n[1]", "fields.n[2]", "gone", "new"]);
        assert_eq!(parts[0].lines.len(), 3);
        assert_eq!((&parts[2].a, &parts[2].b), (&None, &Some(json!(4))));
        assert_eq!((&parts[3].a, &parts[3].b), (&Some(Value::Null), &None));
        assert_eq!(differing(&json!({"a": 1, "b": 2}), &json!({"b": 2, "a": 1})), []);
        assert_eq!(differing(&json!("x"), &json!(1))[0].path, "");
    }

    #[test]
    fn values_that_share_nothing_are_told_in_part() {
        let list = |from: usize| Value::from((from..from + 1_000).collect::<Vec<_>>());
        assert_eq!(differing(&list(0), &list(1)).len(), PARTS_MAX);
    }
}
