//! Literal text with `{id}` slots: the form of `ask`, and how values print in it.
//!
//! A slot is `{name}`, name = `[a-z][a-z0-9_]*`, with no brace directly before or after it. All other braces are text, so
//! `{{ x }}` stays what it is. Slots are replaced in one pass: what a value says is never read again.

use std::ops::Range;

use serde_json::Value;

use super::ExprError;

/// A text with slots.
#[derive(Clone, Debug)]
pub struct Slotted {
    text: String,
    slots: Vec<(String, Range<usize>)>,
}

impl Slotted {
    /// Finds the slots; never fails: whatever is no slot is text.
    pub fn parse(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut slots = Vec::new();
        let mut at = 0;
        while let Some(open) = bytes[at..].iter().position(|byte| *byte == b'{').map(|offset| at + offset) {
            let is_name = |byte: &&u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || **byte == b'_';
            let close = open + 1 + bytes[open + 1..].iter().take_while(is_name).count();
            let name = &text[open + 1..close];
            let stands_alone = (open == 0 || !b"{}".contains(&bytes[open - 1])) && bytes.get(close) == Some(&b'}');
            let ends_alone = bytes.get(close + 1).is_none_or(|byte| !b"{}".contains(byte));
            if stands_alone && ends_alone && name.starts_with(|first: char| first.is_ascii_lowercase()) {
                slots.push((name.to_owned(), open..close + 1));
            }
            at = close.max(open + 1);
        }
        Self { text: text.to_owned(), slots }
    }

    /// The text as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The slots in order with their byte ranges (braces included).
    pub fn slots(&self) -> &[(String, Range<usize>)] {
        &self.slots
    }

    /// Replaces each slot in one pass by what `print` gives for its name.
    ///
    /// # Errors
    /// The first error of `print`.
    pub fn render(&self, mut print: impl FnMut(&str) -> Result<String, ExprError>) -> Result<String, ExprError> {
        let mut rendered = String::with_capacity(self.text.len());
        let mut from = 0;
        for (name, range) in &self.slots {
            rendered.push_str(&self.text[from..range.start]);
            rendered.push_str(&print(name)?);
            from = range.end;
        }
        rendered.push_str(&self.text[from..]);
        Ok(rendered)
    }
}

/// How a value prints in an `ask`: text as it is, numbers in digits, yes or no, lists joined by `, `, null as `unknown`,
/// everything else as JSON.
pub fn print_value(value: &Value) -> String {
    match value {
        Value::Null => "unknown".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => print_number(number),
        Value::Array(items) => {
            let flat = |item: &Value| if item.is_array() { item.to_string() } else { print_value(item) };
            items.iter().map(flat).collect::<Vec<_>>().join(", ")
        }
        Value::Object(_) => value.to_string(),
    }
}

/// How the value of a `for_each` node prints in an `ask`: `item: answer` lines without the null ones. Both lists run in step.
pub fn print_items(items: &Value, values: &Value) -> String {
    let (items, values) = (items.as_array(), values.as_array());
    let pairs = items.into_iter().flatten().zip(values.into_iter().flatten());
    let lines = pairs.filter(|(_, value)| !value.is_null());
    lines.map(|(item, value)| format!("{}: {}", print_value(item), print_value(value))).collect::<Vec<_>>().join("\n")
}

/// Digits, without the `.0` of a whole float and without an exponent.
fn print_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if !number.is_i64() && !number.is_u64() && float.abs() < 1e300 => format!("{float}"),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_slot_has_no_brace_beside_it() {
        let slots = |text| Slotted::parse(text).slots().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(slots("Who is {director}, born {year_2}?"), ["director", "year_2"]);
        assert_eq!(slots("{{ x }} {{x}} {X} {} { a } {1a} {a-b} {a}}"), Vec::<String>::new());
        assert_eq!(slots("{a}{b} {ü} {c}"), ["c"]);
    }

    #[test]
    fn values_are_never_read_again() {
        let text = Slotted::parse("{a} and {b}");
        let rendered = text.render(|name| Ok(if name == "a" { "{b} {{ b }}".to_owned() } else { "B".to_owned() }));
        assert_eq!(rendered.unwrap(), "{b} {{ b }} and B");
    }

    #[test]
    fn values_print_for_people() {
        let check = |value, expected: &str| assert_eq!(print_value(&value), expected);
        check(json!("as it is"), "as it is");
        check(json!(37.0), "37");
        check(json!(1e21), "1000000000000000000000");
        check(json!(0.1), "0.1");
        check(json!(true), "yes");
        check(json!(null), "unknown");
        check(json!(["a", 2, null]), "a, 2, unknown");
        check(json!({"a": 1}), r#"{"a":1}"#);
        assert_eq!(print_items(&json!(["x", "y", "z"]), &json!([1, null, false])), "x: 1\nz: no");
    }
}
