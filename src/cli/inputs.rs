//! Inputs from the command line: text as it is, everything else as JSON, by what the workflow declares.

use std::path::Path;

use flowrun::Workflow;
use serde_json::{Map, Value};

use super::Refusal;

/// Largest file of inputs in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads `name=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// All inputs of a run: those of the file, then those written out, which win.
pub(super) fn collect(
    workflow: &Workflow,
    written: Vec<(String, String)>,
    file: Option<&Path>,
) -> Result<Map<String, Value>, Refusal> {
    let mut inputs = match file {
        Some(path) => read(path)?,
        None => Map::new(),
    };
    for (name, text) in written {
        let declared = workflow.definition.inputs.get(&name);
        let value = match declared.map(|input| &input.schema) {
            Some(schema) if schema.only_type() == Some("string") => Value::String(text),
            Some(schema) => value(&text, |value| schema.validate(value).is_ok()).ok_or_else(|| {
                let shown = super::output::one_line(&text, 60);
                Refusal::Line(
                    format!("input `{name}`: `{shown}` does not fit its type ({})", schema.describe()),
                    vec![format!("write it as JSON: `--input '{name}=…'`")],
                )
            })?,
            None => Value::String(text),
        };
        inputs.insert(name, value);
    }
    Ok(inputs)
}

/// The text as JSON if that fits, else as a text if that fits.
fn value(text: &str, fits: impl Fn(&Value) -> bool) -> Option<Value> {
    let json = serde_json::from_str::<Value>(text).ok();
    json.into_iter().chain([Value::String(text.to_owned())]).find(fits)
}

fn read(path: &Path) -> Result<Map<String, Value>, Refusal> {
    let bad = |why: String| Refusal::from(format!("`{}` cannot be read: {why}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(bad(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let value: Value = if path.extension().is_some_and(|ending| ending == "json") {
        serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?
    } else {
        serde_yaml::from_str(&text).map_err(|error| bad(error.to_string()))?
    };
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(bad("it is no mapping from names to values".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pair_is_cut_at_the_first_equals_sign() {
        assert_eq!(pair("q=a=b"), Ok(("q".into(), "a=b".into())));
        assert_eq!(pair("q="), Ok(("q".into(), String::new())));
        assert!(pair("q").is_err() && pair("=x").is_err());
    }

    #[test]
    fn json_where_it_fits_else_text() {
        assert_eq!(value("5", Value::is_number), Some(json!(5)));
        assert_eq!(value("5", Value::is_string), Some(json!("5")));
        assert_eq!(value("x", |_| true), Some(json!("x")));
        assert_eq!(value("[1", Value::is_array), None);
    }
}
