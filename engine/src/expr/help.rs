//! Ways out of the mistakes that people make in expressions and templates.

use std::ops::Range;

use super::ExprError;
use super::filters::FILTERS;

/// What other languages call our filters.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("len", "length"),
    ("size", "length"),
    ("count", "length"),
    ("str", "string"),
    ("sorted", "sort"),
    ("strip", "trim"),
    ("to_json", "tojson"),
    ("dumps", "tojson"),
    ("toUpperCase", "upper"),
    ("toLowerCase", "lower"),
    ("filter", "select"),
    ("concat", "join"),
];

/// The filter of that name, or the one that other languages give that name.
pub(super) fn filter_for(name: &str) -> Option<&'static str> {
    let own = FILTERS.iter().find(|filter| **filter == name).copied();
    own.or_else(|| OTHER_NAMES.iter().find(|(other, _)| *other == name).map(|(_, filter)| *filter))
}

/// A parse error with its range and, for the mistakes that people make, a way out.
pub(super) fn syntax_error(error: &minijinja::Error, text: &str) -> ExprError {
    let range = error.range().filter(|range| range.end <= text.len()).unwrap_or(0..text.len());
    // The parser counts one byte where a character begins that it does not know.
    let range = text.floor_char_boundary(range.start)..text.ceil_char_boundary(range.end);
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let found = ExprError::new(format!("cannot be read: {detail}"), range.clone());
    if error.name() == Some("text") {
        let help = template(&detail, text);
        return if help.is_empty() { found } else { found.help(help) };
    }
    if text.contains("{{") {
        let found = ExprError::new("this field is an expression already, and takes no `{{ }}`", 0..text.len());
        return found.help(undelimited(text));
    }
    let odd = text.get(range.start..).and_then(|rest| rest.chars().next()).filter(|c| !c.is_ascii());
    let found = match odd {
        Some(c) if c.is_alphabetic() => {
            ExprError { message: format!("`{c}` (U+{:04X}) is not one of the letters a-z", c as u32), ..found }
        }
        Some(c) => ExprError { message: format!("`{c}` (U+{:04X}) means nothing here", c as u32), ..found },
        None => found,
    };
    match expression(text, &range) {
        Some(help) => found.help(help),
        None => found,
    }
}

fn template(detail: &str, text: &str) -> &'static str {
    if detail.starts_with("unknown statement") {
        "templates have `if`, `for`, `set`, `with` and `filter`; files cannot be included"
    } else if detail.starts_with("unexpected end of variable block") {
        "an expression is missing before `}}`"
    } else if detail.contains("end of variable block") {
        "`}}` ends what `{{` begins"
    } else if detail.starts_with("unexpected end of input") && text.contains("{%") {
        "`{% for … %}` ends with `{% endfor %}`, `{% if … %}` with `{% endif %}`"
    } else {
        ""
    }
}

/// The expression that was meant by a template.
fn undelimited(text: &str) -> String {
    let text = text.trim();
    let inner = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    if let Some(inner) = inner.filter(|inner| !inner.contains("{{")) {
        return format!("write `{}`", inner.trim());
    }
    let mut parts = Vec::new();
    for piece in text.split("{{") {
        let (code, literal) = piece.split_once("}}").map_or((None, piece), |(code, rest)| (Some(code), rest));
        parts.extend(code.map(|code| code.trim().to_owned()));
        if !literal.is_empty() {
            parts.push(format!("'{}'", literal.replace('\'', "\\'")));
        }
    }
    format!("`~` joins texts: `{}`", parts.join(" ~ "))
}

fn expression(text: &str, range: &Range<usize>) -> Option<String> {
    let prose = |c: char| c.is_alphanumeric() || c.is_whitespace() || ".,;:!?\'’-".contains(c);
    let words = text.split_whitespace().count();
    if text.contains("{%") {
        return Some("statements stand in templates; a choice is written `a if condition else b`".to_owned());
    }
    if text.contains("&&") || text.contains("||") {
        return Some("write `and`, `or`, `not`".to_owned());
    }
    if text.contains("===") || (text.contains('=') && !["==", "!=", "<=", ">="].iter().any(|op| text.contains(op))) {
        return Some("equality is `==`".to_owned());
    }
    if text.contains("?.") {
        return Some("write `x.y | default(…)`".to_owned());
    }
    if text.get(range.start..).is_some_and(|rest| rest.starts_with('?')) && text.contains(" : ") {
        return Some("a choice is written `a if condition else b`".to_owned());
    }
    if text.starts_with('!') || (text.contains(" !") && !text.contains("!=")) {
        return Some("negation is `not x`".to_owned());
    }
    if text.chars().all(prose) && (words > 1 || !text.is_ascii()) {
        return Some(literal(text));
    }
    None
}

/// How a literal text is written in an expression field.
pub(super) fn literal(text: &str) -> String {
    let text = text.trim();
    let quoted =
        if text.contains('\'') { format!("'\"{}\"'", text.replace('\'', "''")) } else { format!("\"'{text}'\"") };
    format!("a literal text wants two pairs of quotes: `{quoted}`")
}

#[cfg(test)]
mod tests {
    use super::super::Expression;

    #[test]
    fn mistakes_are_told_a_way_out() {
        let check = |text: &str, expected: &str| {
            let help = Expression::parse(text).unwrap_err().help.join("; ");
            assert_eq!(help, expected, "{text}");
        };
        check("{{ x }}", "write `x`");
        check("a {{ x }} b", "`~` joins texts: `'a ' ~ x ~ ' b'`");
        check("x && y", "write `and`, `or`, `not`");
        check("x = 1", "equality is `==`");
        check("x ? 1 : 2", "a choice is written `a if condition else b`");
        check("!x", "negation is `not x`");
        check("so what", "a literal text wants two pairs of quotes: `\"'so what'\"`");
        check("it isn't", "a literal text wants two pairs of quotes: `'\"it isn''t\"'`");
        check("len(x)", "write `x | length`; `range` is the one function");
        check("x.strip()", "filters do their work: `x | trim`");
        check("x +", "");
        check("x | regex('a", "");
    }
}
