//! JSON that somebody else wrote, read so that no number silently becomes another one.
//!
//! A number of a JSON value is a whole one of 64 bits or a float, and the usual reader rounds what has more digits. Here such a
//! number is refused, and so is one beyond every float (`1e400`). Numbers with a fraction or an exponent are floats.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::{Number, Value};

static TEXT_OR_NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?s)"(?:[^"\\]|\\.)*"?|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"#)
        .expect("BUG: the pattern for numbers of JSON")
});

/// Reads JSON; `None` if the text is none.
///
/// # Errors
/// The first number that does not fit, if the text is JSON apart from such.
pub fn read_json(text: &str) -> Result<Option<Value>, String> {
    let mut large = None;
    let rest = TEXT_OR_NUMBER.replace_all(text, |found: &Captures| match read_number(&found[0]) {
        // As in YAML: nothing can be told from it.
        Ok(_) if &found[0] == "-0" => "0".to_owned(),
        Ok(_) => found[0].to_owned(),
        Err(message) => {
            large.get_or_insert(message);
            "0".to_owned()
        }
    });
    let value = serde_json::from_str(&rest).ok();
    large.filter(|_| value.is_some()).map_or(Ok(value), Err)
}

/// Reads one number; `None` if the text is none.
///
/// # Errors
/// The number, if it would be rounded to another whole number or to infinity.
pub fn read_number(text: &str) -> Result<Option<Number>, String> {
    let has_digits = text.contains(|c: char| c.is_ascii_digit());
    let Some(float) = text.parse::<f64>().ok().filter(|_| has_digits) else { return Ok(None) };
    let whole = || text.parse().ok().and_then(Number::from_i128);
    let number = if text.contains(['.', 'e', 'E']) { Number::from_f64(float) } else { whole() };
    let shown = if text.len() > 40 { format!("{}…", &text[..40]) } else { text.to_owned() };
    let way_out = "as a text it keeps its digits, and `calc` counts exactly with it";
    number.map(Some).ok_or_else(|| format!("the number `{shown}` does not fit into 64 bits; {way_out}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let check = |text: &str, expected: Value| assert_eq!(read_json(text), Ok(Some(expected)), "{text}");
        check("18446744073709551615", json!(u64::MAX));
        check(" [-9223372036854775808, 1.5e3, 0.1]", json!([i64::MIN, 1500.0, 0.1]));
        check("[-0, -0.0]", json!([0, -0.0]));
        check("10000000000000000000000.0", json!(1e22));
        check(r#"{"12345678901234567890123": "é\"99999999999999999999 1e400"}"#, {
            json!({"12345678901234567890123": "é\"99999999999999999999 1e400"})
        });
        assert_eq!(read_number("007"), Ok(Some(7.into())));
        assert_eq!([read_number("inf"), read_number("-"), read_number("e"), read_number("")], [const { Ok(None) }; 4]);
    }

    #[test]
    fn what_would_be_rounded_is_refused_by_name() {
        let check = |text: &str, number: &str| {
            let error = read_json(text).expect_err(text);
            assert!(error.starts_with(&format!("the number `{number}` does not fit")), "{text}: {error}");
        };
        check("12345678901234567890123", "12345678901234567890123");
        check("18446744073709551616", "18446744073709551616");
        check(r#"{"a": "\\", "b": [1, -9223372036854775809, 1e400]}"#, "-9223372036854775809");
        check("[1e400]", "1e400");
        check(&"9".repeat(100_000), &format!("{}…", "9".repeat(40)));
    }

    #[test]
    fn what_is_no_json_is_no_number_of_json() {
        for text in [
            "99999999999999999999 apples",
            "[1e400",
            "0099999999999999999999x",
            "0099999999999999999999",
            "+99999999999999999999",
            "\"99999999999999999999",
            "é1e400",
        ] {
            assert_eq!(read_json(text), Ok(None), "{text}");
        }
    }
}
