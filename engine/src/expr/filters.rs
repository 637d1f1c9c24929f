//! Which filters and tests exist, and our filters on texts and single values.

use std::sync::LazyLock;

use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, Value};
use regex::Regex;
use serde_json::{Number, Value as Json};

use super::convert::{from_json, invalid, to_json};
use super::list_filters::same;
use crate::json::{read_json, read_number};

/// Every filter of the language.
pub(super) const FILTERS: &[&str] = &[
    "vote", "decided", "top_k", "best", "unique", "flatten", "merge", "default", "number", "number_eq", "regex",
    "lines", "last_line", "first_sentence", "json", "zip", "product", "sort", "length", "first", "last", "sum", "min",
    "max", "reverse", "join", "split", "trim", "upper", "lower", "replace", "round", "abs", "int", "float", "string",
    "list", "map", "select", "reject", "selectattr", "rejectattr", "groupby", "batch", "items", "dictsort", "indent",
    "format", "tojson",
];

/// Every test of the language.
pub(super) const TESTS: &[&str] = &[
    "defined", "undefined", "none", "true", "false", "boolean", "number", "integer", "float", "string", "sequence",
    "iterable", "mapping", "odd", "even", "divisibleby", "startingwith", "endingwith", "lower", "upper", "eq", "ne",
    "lt", "le", "gt", "ge", "in",
];

/// Filters of minijinja that the language leaves out.
pub(super) const REMOVED: &[&str] =
    &["safe", "escape", "e", "pprint", "urlencode", "attr", "d", "count", "bool", "title"];

type Outcome = Result<Value, Error>;

/// What a filter is called with: the value first, by position; the rest by position or by name.
pub(super) struct Given(pub(super) Rest<Value>, pub(super) Kwargs);

/// The arguments of one of our filters: the value, then the parameters, by position or by name.
pub(super) struct Args {
    pub(super) value: Value,
    pub(super) given: Vec<Option<Value>>,
}

impl Args {
    pub(super) fn bind(filter: &str, Given(args, named): Given, parameters: &[&str]) -> Result<Self, Error> {
        let mut args = args.0.into_iter();
        let value = args.next().ok_or_else(|| invalid(format!("`{filter}` wants a value before `|`")))?;
        let mut given = vec![None; parameters.len()];
        for (position, arg) in args.enumerate() {
            let slot = given.get_mut(position).ok_or_else(|| invalid(format!("too many arguments for `{filter}`")))?;
            *slot = Some(arg);
        }
        for name in named.args() {
            let slot = parameters.iter().position(|parameter| *parameter == name);
            let slot = slot.ok_or_else(|| invalid(format!("`{filter}` has no parameter `{name}`")))?;
            given[slot] = Some(named.get(name)?);
        }
        Ok(Self { value, given })
    }

    pub(super) fn json(&self, position: usize) -> Result<Option<Json>, Error> {
        self.given[position].as_ref().map(to_json).transpose()
    }

    pub(super) fn flag(&self, position: usize) -> bool {
        self.given[position].as_ref().is_some_and(Value::is_true)
    }
}

pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("default", |args: Rest<Value>, named: Kwargs| default(Given(args, named)));
    environment.add_filter("number", |args: Rest<Value>, named: Kwargs| number(Given(args, named)));
    environment.add_filter("number_eq", |args: Rest<Value>, named: Kwargs| number_eq(Given(args, named)));
    environment.add_filter("regex", |args: Rest<Value>, named: Kwargs| regex(Given(args, named)));
    environment.add_filter("lines", |args: Rest<Value>, named: Kwargs| {
        on_text("lines", Given(args, named), |text| Ok(lines(text).into_iter().collect()))
    });
    environment.add_filter("last_line", |args: Rest<Value>, named: Kwargs| {
        on_text("last_line", Given(args, named), |text| Ok(lines(text).pop().map_or(Json::Null, Json::from)))
    });
    environment.add_filter("first_sentence", |args: Rest<Value>, named: Kwargs| {
        on_text("first_sentence", Given(args, named), |text| Ok(Json::from(first_sentence(text))))
    });
    environment.add_filter("json", |args: Rest<Value>, named: Kwargs| {
        on_text("json", Given(args, named), |text| Ok(read_json(text.trim()).map_err(invalid)?.unwrap_or(Json::Null)))
    });
    environment.add_filter("tojson", |value: Value| Ok::<_, Error>(to_json(&value)?.to_string()));
}

/// Null and undefined alike give way to the default.
fn default(args: Given) -> Outcome {
    let args = Args::bind("default", args, &["value"])?;
    if args.value.is_undefined() || args.value.is_none() {
        return args.given[0].clone().ok_or_else(|| invalid("`default` wants a value: `x | default('…')`"));
    }
    Ok(args.value)
}

fn on_text(filter: &str, args: Given, make: impl Fn(&str) -> Result<Json, Error>) -> Outcome {
    let args = Args::bind(filter, args, &[])?;
    if args.value.is_none() {
        return Ok(from_json(&Json::Null));
    }
    match args.value.as_str() {
        Some(text) => Ok(from_json(&make(text)?)),
        None => Err(invalid(format!("`{filter}` wants a text"))),
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The text up to its first `.`, `!` or `?` that is followed by white space or the end.
fn first_sentence(text: &str) -> String {
    let text = text.trim();
    let ends = text.char_indices().filter(|(_, c)| ".!?".contains(*c)).map(|(at, c)| at + c.len_utf8());
    let end = ends.into_iter().find(|end| text[*end..].chars().next().is_none_or(char::is_whitespace));
    text[..end.unwrap_or(text.len())].to_owned()
}

static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"(?i)[-−]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+\b)?";
    Regex::new(pattern).expect("BUG: the pattern for numbers")
});

static MAGNITUDE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^\s*(thousand|million|billion|trillion)\b").expect("BUG: the pattern for magnitudes")
});

/// The last number in a text; with `words` also its magnitude (`37.4 million`). Null if there is none, or one that would be rounded:
/// of several samples one may run wild, and is outvoted.
fn last_number(text: &str, words: bool) -> Json {
    let Some(found) = NUMBER.find_iter(text).last() else { return Json::Null };
    let mut digits = found.as_str().replace(',', "").replace('−', "-");
    let joined_before = text[..found.start()].chars().next_back().is_some_and(char::is_alphanumeric);
    if joined_before && digits.starts_with('-') {
        digits.remove(0);
    }
    let magnitude = MAGNITUDE.captures(&text[found.end()..]).filter(|_| words);
    let zeros = magnitude.map_or(0, |word| match word[1].to_ascii_lowercase().as_str() {
        "thousand" => 3,
        "million" => 6,
        "billion" => 9,
        _ => 12,
    });
    if !digits.contains(['.', 'e', 'E']) {
        digits.push_str(&"0".repeat(zeros));
        return read_number(&digits).ok().flatten().map_or(Json::Null, Json::Number);
    }
    let value = digits.parse::<f64>().unwrap_or(f64::NAN) * 10f64.powi(zeros as i32);
    whole_or_float(value)
}

fn whole_or_float(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        Json::from(value as i64)
    } else {
        Number::from_f64(value).map_or(Json::Null, Json::Number)
    }
}

fn number(args: Given) -> Outcome {
    let args = Args::bind("number", args, &["words"])?;
    if args.value.is_none() || args.value.is_number() {
        return Ok(args.value);
    }
    match args.value.as_str() {
        Some(text) => Ok(from_json(&last_number(text, args.flag(0)))),
        None => Err(invalid("`number` wants a text")),
    }
}

fn number_eq(args: Given) -> Outcome {
    let args = Args::bind("number_eq", args, &["other"])?;
    let other = args.json(0)?.ok_or_else(|| invalid("`number_eq` wants a number to compare with"))?;
    let read = |value: Json| match value {
        Json::String(text) => last_number(&text, false),
        other => other,
    };
    let (left, right) = (read(to_json(&args.value)?), read(other));
    Ok(Value::from(left.is_number() && same(&left, &right)))
}

/// The first match of a pattern, or of its group; null if there is none.
fn regex(args: Given) -> Outcome {
    let args = Args::bind("regex", args, &["pattern", "group"])?;
    if args.value.is_none() {
        return Ok(args.value);
    }
    let (Some(text), Some(Json::String(pattern))) = (args.value.as_str(), args.json(0)?) else {
        return Err(invalid("`regex` wants a text and a pattern"));
    };
    let built = regex::RegexBuilder::new(&pattern).size_limit(1 << 20).build();
    let built = built.map_err(|error| invalid(format!("the pattern cannot be read: {error}")))?;
    let wanted = args.json(1)?.and_then(|group| group.as_u64()).map(|group| group as usize);
    let group = wanted.unwrap_or(usize::from(built.captures_len() > 1));
    let found = built.captures(text).and_then(|captures| captures.get(group).map(|found| found.as_str().to_owned()));
    Ok(from_json(&found.map_or(Json::Null, Json::String)))
}
