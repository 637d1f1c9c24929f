//! Between JSON and the template language: printing, comparing, and taking results back.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Output, State, Value};
use serde_json::Value as Json;

/// Depth of a result's nesting.
const DEPTH_MAX: usize = 100;

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Prints a value in a template: text as it is, everything else as JSON. Null and undefined are errors.
pub(super) fn print(out: &mut Output, _state: &mut State, value: &Value) -> Result<(), Error> {
    if value.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "something that is printed is undefined"));
    }
    if value.is_none() {
        return Err(invalid("null is printed; write `| default('…')` for what is to stand there instead"));
    }
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None => out.write_str(&to_json(value)?.to_string()),
    };
    written.map_err(|_| invalid("the output could not be written"))
}

/// The JSON value of a result. Undefined, nested too, is an error, and so is a number that JSON does not have.
pub(super) fn to_json(value: &Value) -> Result<Json, Error> {
    nested_to_json(value, DEPTH_MAX)
}

fn nested_to_json(value: &Value, depth: usize) -> Result<Json, Error> {
    if depth == 0 {
        return Err(invalid("the result nests too deeply"));
    }
    match value.kind() {
        ValueKind::Undefined => {
            Err(Error::new(ErrorKind::UndefinedError, "the result, or something in it, is undefined"))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.map(|item| nested_to_json(&item, depth - 1)).collect::<Result<_, _>>().map(Json::Array)
        }
        ValueKind::Map => {
            let mut map = serde_json::Map::new();
            for key in value.try_iter()? {
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                map.insert(name, nested_to_json(&value.get_item(&key)?, depth - 1)?);
            }
            Ok(Json::Object(map))
        }
        ValueKind::Number => number_to_json(value),
        _ => serde_json::to_value(value).map_err(|error| invalid(error.to_string())),
    }
}

fn number_to_json(value: &Value) -> Result<Json, Error> {
    if let Ok(integer) = i64::try_from(value.clone()) {
        if value.is_integer() {
            return Ok(Json::from(integer));
        }
    } else if value.is_integer() {
        return u64::try_from(value.clone())
            .map(Json::from)
            .map_err(|_| invalid("a whole number beyond 64 bits; use `calc` for numbers of any size"));
    }
    let float = f64::try_from(value.clone())?;
    serde_json::Number::from_f64(float).map(Json::Number).ok_or_else(|| invalid("the result is not a finite number"))
}

/// A JSON value in the template language.
pub(super) fn from_json(value: &Json) -> Value {
    Value::from(minijinja::value::Serde(value))
}

fn word(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::None => "null",
        ValueKind::Bool => "true or false",
        ValueKind::Number => "a number",
        ValueKind::String => "a text",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        ValueKind::Map => "a map",
        _ => "something undefined",
    }
}

/// The comparison operators, checked: unequal kinds do not compare, except that null may be asked for with `==` and `!=`.
pub(super) fn compare(operator: &str, left: Value, right: Value) -> Result<bool, Error> {
    let equality = matches!(operator, "==" | "!=");
    if left.is_undefined() || right.is_undefined() {
        return Err(Error::new(ErrorKind::UndefinedError, "one side of a comparison is undefined"));
    }
    let comparable = left.kind() == right.kind() || [&left, &right].iter().all(|side| word(side) == "a list");
    let ordered = matches!(left.kind(), ValueKind::Number | ValueKind::String);
    if !(comparable && (equality || ordered) || equality && (left.is_none() || right.is_none())) {
        let (a, b) = (word(&left), word(&right));
        let way_out =
            if [a, b].contains(&"a text") && [a, b].contains(&"a number") { " (`| number` reads a text)" } else { "" };
        return Err(invalid(format!("`{operator}` between {a} and {b}{way_out}")));
    }
    Ok(match operator {
        "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        _ => left >= right,
    })
}
