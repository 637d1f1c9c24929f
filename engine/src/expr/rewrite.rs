//! The second text of an expression or template: comparisons as calls, constants and raw text that read as themselves.

use minijinja::machinery::ast::{BinOpKind, CompareOpKind};

/// The function behind every comparison.
pub(super) const COMPARE: &str = "__compare";

pub(super) fn binary(op: BinOpKind, left: &str, right: &str) -> String {
    let operator = match op {
        BinOpKind::Eq => return comparison(CompareOpKind::Eq, left, right),
        BinOpKind::Ne => return comparison(CompareOpKind::Ne, left, right),
        BinOpKind::Lt => return comparison(CompareOpKind::Lt, left, right),
        BinOpKind::Lte => return comparison(CompareOpKind::Lte, left, right),
        BinOpKind::Gt => return comparison(CompareOpKind::Gt, left, right),
        BinOpKind::Gte => return comparison(CompareOpKind::Gte, left, right),
        BinOpKind::ScAnd => "and",
        BinOpKind::ScOr => "or",
        BinOpKind::Add => "+",
        BinOpKind::Sub => "-",
        BinOpKind::Mul => "*",
        BinOpKind::Div => "/",
        BinOpKind::FloorDiv => "//",
        BinOpKind::Rem => "%",
        BinOpKind::Pow => "**",
        BinOpKind::Concat => "~",
        BinOpKind::In => "in",
    };
    format!("({left} {operator} {right})")
}

pub(super) fn comparison(op: CompareOpKind, left: &str, right: &str) -> String {
    let operator = match op {
        CompareOpKind::Eq => "==",
        CompareOpKind::Ne => "!=",
        CompareOpKind::Lt => "<",
        CompareOpKind::Lte => "<=",
        CompareOpKind::Gt => ">",
        CompareOpKind::Gte => ">=",
        CompareOpKind::In => return format!("({left} in {right})"),
        CompareOpKind::NotIn => return format!("({left} not in {right})"),
    };
    format!("{COMPARE}('{operator}', {left}, {right})")
}

pub(super) fn constant(value: &minijinja::Value) -> String {
    if value.is_none() {
        return "none".to_owned();
    }
    match value.as_str() {
        Some(text) => {
            let escaped: String = text.chars().flat_map(escape_char).collect();
            format!("\"{escaped}\"")
        }
        None => serde_json::to_string(value).unwrap_or_default(),
    }
}

fn escape_char(c: char) -> Vec<char> {
    match c {
        '"' | '\\' => vec!['\\', c],
        '\n' => vec!['\\', 'n'],
        '\r' => vec!['\\', 'r'],
        '\t' => vec!['\\', 't'],
        c => vec![c],
    }
}

/// Raw text that reads as itself when it is parsed again.
pub(super) fn raw(raw: &str) -> String {
    if raw.contains(['{', '}', '%', '#']) || raw.starts_with('\n') {
        let literal: String = raw.chars().flat_map(escape_char).collect();
        format!("{{{{ \"{literal}\" }}}}")
    } else {
        raw.to_owned()
    }
}
