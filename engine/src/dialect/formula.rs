//! What small models write where a formula belongs, made into one: units, signs of money, bare ids, `a if c else b`.

use std::sync::LazyLock;

use regex::Regex;

use crate::calc::Formula;

static PERCENT: LazyLock<Regex> = LazyLock::new(|| regex(r"([0-9]+(?:\.[0-9]+)?|\{\w+\})\s*(?:%|percent\b)"));
static INLINE_IF: LazyLock<Regex> = LazyLock::new(|| regex(r"(?i)^(.+?)\s+if\s+(.+?)\s+(?:else|otherwise)\s+(.+)$"));
static TERNARY: LazyLock<Regex> = LazyLock::new(|| regex(r"^(.+?)\?(.+?):(.+)$"));
static IF_COMMA: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)^if\s+(.+?)\s*,\s*(?:then\s+)?(.+?)\s*,?\s*(?:else|otherwise)\s+(.+)$"));
static ASSIGNED: LazyLock<Regex> = LazyLock::new(|| regex(r"^([A-Za-z_]\w*)\s*=\s*([^=].*)$"));
static WORD: LazyLock<Regex> = LazyLock::new(|| regex(r"\{[a-z]\w*\}|[\p{L}_][\p{L}\w_]*"));
static LITERAL: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^[^\w{}-]*(-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|-?[0-9]+(?:\.[0-9]+)?)\s*(%?)\s*(?:[\p{L}/€$£°²³]+\s*){0,4}\.?$",
    )
});

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("BUG: a fixed pattern")
}

const KEYWORDS: [&str; 8] = ["sum", "max", "min", "avg", "count", "if", "then", "else"];

/// The formula that the text most likely means; `None` if it means none. `ids` are the steps that may be mentioned.
pub(super) fn read(text: &str, ids: &[&str]) -> Option<String> {
    let mut formula = text.trim().trim_end_matches(['.', ';']).to_owned();
    for (from, to) in [
        ("**", "^"),
        ("==", "="),
        ("×", "*"),
        ("·", "*"),
        ("÷", "/"),
        ("−", "-"),
        ("–", "-"),
        ("$", ""),
        ("€", ""),
        ("£", ""),
    ] {
        formula = formula.replace(from, to);
    }
    if let Some(parts) = ASSIGNED.captures(&formula)
        && !ids.contains(&&parts[1])
    {
        formula = parts[2].to_owned();
    }
    formula = PERCENT.replace_all(&formula, "($1/100)").into_owned();
    if !formula.trim_start().to_lowercase().starts_with("if ") {
        let condition_first = TERNARY.replace(&formula, "if $1 then $2 else $3").into_owned();
        formula = INLINE_IF.replace(&condition_first, "if $2 then $1 else $3").into_owned();
    } else {
        formula = IF_COMMA.replace(&formula, "if $1 then $2 else $3").into_owned();
    }
    let known = WORD.replace_all(&formula, |word: &regex::Captures| {
        let word = &word[0];
        let lower = word.to_lowercase();
        if word.starts_with('{') {
            word.to_owned()
        } else if KEYWORDS.contains(&lower.as_str()) {
            lower
        } else if ids.contains(&word) {
            format!("{{{word}}}")
        } else if lower == "average" || lower == "mean" {
            "avg".to_owned()
        } else {
            String::new()
        }
    });
    let formula = known.split_whitespace().collect::<Vec<_>>().join(" ");
    let says_something = formula.contains(|c: char| c.is_ascii_digit() || c == '{');
    (says_something && Formula::parse(&formula).is_ok()).then_some(formula)
}

/// The number that a text is nothing but (`18 euros per hour`), as a formula.
pub(super) fn literal(text: &str) -> Option<String> {
    let parts = LITERAL.captures(text.trim())?;
    let digits = parts[1].replace(',', "");
    let formula = if &parts[2] == "%" { format!("{digits}/100") } else { digits };
    Some(formula).filter(|formula| Formula::parse(formula).is_ok())
}
