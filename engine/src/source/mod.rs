//! A workflow file's text, and where everything in it stands.
//!
//! Two parsers read the same text: serde_yaml gives the data, saphyr gives places and finds doubled keys. Every later problem
//! names a path in the data, which the index here turns into a place.

mod refusal;
mod scalar;

use std::ops::Range;
use std::sync::Arc;

use indexmap::IndexMap;
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::Value;

use crate::diagnostic::{Code, Diagnostic, Place, codes};
use crate::json::read_number;

/// A file's text with an index from document paths to places.
#[derive(Debug)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
    /// Byte offset of each line's start.
    lines: Vec<usize>,
    root: Spot,
}

/// Which part of an entry is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key of a mapping entry.
    Key,
    /// The value.
    Value,
}

/// Where an entry stands, in bytes.
#[derive(Debug, Default)]
struct Spot {
    key: Range<usize>,
    value: Range<usize>,
    map: IndexMap<String, Spot>,
    list: Vec<Spot>,
    /// A key that is no scalar.
    odd_key: Option<Range<usize>>,
}

impl Source {
    /// Largest file in bytes.
    pub const BYTES_MAX: usize = 8 << 20;

    /// Reads YAML text: its data and the places of everything in it.
    ///
    /// # Errors
    /// Why it is no YAML that a workflow can be read from.
    pub fn parse(name: &str, text: &str) -> Result<(Self, Value), Vec<Diagnostic>> {
        let (source, value, problems) = Self::parse_all(name, text)?;
        if problems.is_empty() { Ok((source, value)) } else { Err(problems) }
    }

    /// What a text on a line means: YAML, or the text as it stands.
    ///
    /// # Errors
    /// A number in it that no value holds.
    pub fn yaml_or_text(text: &str) -> Result<Value, String> {
        Self::parse("", text).map(|(_, value)| value).or_else(|problems| {
            let wrong = problems.into_iter().find(|problem| problem.code == codes::WRONG_TYPE);
            wrong.map_or(Ok(Value::String(text.to_owned())), |problem| Err(problem.message))
        })
    }

    /// The same as `parse`, going on behind single values that a workflow cannot hold: they read as null and are reported.
    pub(crate) fn parse_all(name: &str, text: &str) -> Result<(Self, Value, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mut source = Self::unparsed(name, text);
        if text.len() > Self::BYTES_MAX {
            let message = format!("the file has {} bytes; {} (8 MiB) is the most", text.len(), Self::BYTES_MAX);
            return Err(vec![source.problem(codes::UNREADABLE, 0..0, message)]);
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let control = text.char_indices().find(|(_, c)| c.is_control() && !"\n\r\t".contains(*c));
        if let Some((at, c)) = control {
            let message = format!("the file is not plain text: it contains the control character U+{:04X}", c as u32);
            return Err(vec![source.problem(codes::UNREADABLE, at..at + c.len_utf8(), message)]);
        }
        let data = serde_yaml::from_str::<serde_yaml::Value>(text).and_then(|mut value| {
            value.apply_merge()?;
            Ok(value)
        });
        let data = data.map_err(|error| refusal::explain(&source, &error))?;
        let marked = MarkedYaml::load_from_str(text).map_err(|error| vec![refusal::unplaced(&source, &error)])?;
        let offsets = Offsets::new(text);
        source.root = marked.first().map(|root| spot(root, 0..0, &offsets)).unwrap_or_default();
        let mut problems = Vec::new();
        let value = source.to_json(data, &mut Vec::new(), &mut problems);
        Ok((source, value, problems))
    }

    /// A text that could not be parsed, or was not: for showing its lines. Of a text that is too large nothing is kept.
    pub fn unparsed(name: &str, text: &str) -> Self {
        let text = if text.len() > Self::BYTES_MAX { "" } else { text.strip_prefix('\u{feff}').unwrap_or(text) };
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text: text.into(), lines, root: Spot::default() }
    }

    /// The file's name as given.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The place of an entry; of the nearest parent that exists, if it does not.
    pub fn place(&self, path: &[&str], part: Part) -> Place {
        let (spot, complete) = self.spot(path);
        let range = if part == Part::Key && complete && !path.is_empty() { &spot.key } else { &spot.value };
        let is_block = range.len() > 200 || self.text[range.clone()].contains('\n');
        if is_block && !spot.key.is_empty() {
            return self.place_of(spot.key.clone());
        }
        let first_line = self.text[range.clone()].lines().next().unwrap_or_default();
        self.place_of(range.start..range.start + first_line.len())
    }

    /// The place of a byte range inside the text value at `path`: exact where the scalar's style shows the text as it is.
    pub fn place_within(&self, path: &[&str], range: Range<usize>) -> Place {
        let (spot, _) = self.spot(path);
        if let Some(at) = scalar::raw_range(&self.text, &spot.value, &range) {
            return self.place_of(at);
        }
        self.place(path, Part::Value)
    }

    /// What follows a value on its line: a comment, mostly.
    pub fn rest_of_line(&self, path: &[&str]) -> &str {
        let rest = &self.text[self.spot(path).0.value.end..];
        rest.lines().next().unwrap_or_default()
    }

    /// The value at `path` as it is written, quotes included.
    pub fn shown(&self, path: &[&str]) -> &str {
        &self.text[self.spot(path).0.value.clone()]
    }

    /// Whether the value at `path` is written without quotes and on one line.
    pub fn is_plain(&self, path: &[&str]) -> bool {
        let raw = self.shown(path);
        let header = scalar::header(&self.text, self.spot(path).0.value.start);
        !raw.starts_with(['"', '\'']) && !raw.contains('\n') && header.is_none()
    }

    fn line(&self, line: usize) -> &str {
        self.lines.get(line).map_or("", |start| self.text[*start..].split('\n').next().unwrap_or_default())
    }

    /// The entry at `path`, or its nearest parent; whether it is the entry itself.
    fn spot(&self, path: &[&str]) -> (&Spot, bool) {
        let mut spot = &self.root;
        for part in path {
            let index = part.parse::<usize>().ok();
            let next = spot.map.get(*part).or_else(|| spot.list.get(index?));
            match next {
                Some(next) => spot = next,
                // What may be a list and is written as one entry.
                None if index.is_some() && spot.list.is_empty() => {}
                None => return (spot, false),
            }
        }
        (spot, true)
    }

    fn place_of(&self, range: Range<usize>) -> Place {
        let start = self.text.floor_char_boundary(range.start);
        let end = self.text.ceil_char_boundary(range.end.max(start));
        let line = self.lines.partition_point(|line| *line <= start) - 1;
        let column = self.text[self.lines[line]..start].chars().count() as u32 + 1;
        Place { file: self.name.clone(), line: line as u32 + 1, column, start, end }
    }

    fn problem(&self, code: Code, range: Range<usize>, message: String) -> Diagnostic {
        Diagnostic { place: Some(self.place_of(range)), ..Diagnostic::error(code, "", message) }
    }

    fn to_json(&self, value: serde_yaml::Value, path: &mut Vec<String>, problems: &mut Vec<Diagnostic>) -> Value {
        use serde_yaml::Value as Yaml;
        match value {
            Yaml::Null => Value::Null,
            Yaml::Bool(flag) => Value::Bool(flag),
            Yaml::String(text) => Value::String(text),
            Yaml::Number(number) => {
                // An anchor may stand before it; what is merged in stands elsewhere, and was read there.
                let (spot, is_own) = self.spot(&parts(path));
                let shown = if is_own { &self.text[spot.value.clone()] } else { "" };
                let raw = shown.split_whitespace().next_back().unwrap_or_default();
                let no_such = || "values are JSON, which has no such number".to_owned();
                let json = serde_json::to_value(&number).ok().filter(|number| !number.is_null()).ok_or_else(no_such);
                let json = read_number(raw).and(json);
                json.unwrap_or_else(|message| self.refuse_value(path, codes::WRONG_TYPE, &message, problems))
            }
            Yaml::Sequence(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    path.push(index.to_string());
                    list.push(self.to_json(item, path, problems));
                    path.pop();
                }
                Value::Array(list)
            }
            Yaml::Mapping(entries) => {
                let mut map = serde_json::Map::with_capacity(entries.len());
                for (key, value) in entries {
                    let name = match key {
                        Yaml::String(name) => name,
                        Yaml::Bool(flag) => flag.to_string(),
                        Yaml::Number(number) => number.to_string(),
                        Yaml::Null => "null".to_owned(),
                        _ => {
                            self.refuse_key(path, problems);
                            continue;
                        }
                    };
                    path.push(name.clone());
                    map.insert(name, self.to_json(value, path, problems));
                    path.pop();
                }
                Value::Object(map)
            }
            Yaml::Tagged(tagged) => {
                let message = format!("`{}` is a tag of YAML, and means nothing here", tagged.tag);
                self.refuse_value(path, codes::BAD_VALUE, &message, problems);
                let help = "negation is `not x`; a text that begins with `!` wants quotes".to_owned();
                problems.last_mut().into_iter().for_each(|problem| problem.help.push(help.clone()));
                Value::Null
            }
        }
    }

    /// A key that is a list or a mapping: `{{ x }}` without quotes, mostly.
    fn refuse_key(&self, path: &[String], problems: &mut Vec<Diagnostic>) {
        let spot = self.spot(&parts(path)).0;
        let raw = &self.text[spot.value.clone()];
        if raw.starts_with("{{") {
            let message = "a value that begins with `{` is a mapping of YAML";
            self.refuse_value(path, codes::NOT_YAML, message, problems);
            let quoted = format!("quotes make it a text: `\"{raw}\"`");
            problems.last_mut().into_iter().for_each(|problem| problem.help.push(quoted.clone()));
            return;
        }
        self.refuse_value(path, codes::WRONG_TYPE, "a key is a list or a mapping; keys are texts", problems);
        if let (Some(problem), Some(key)) = (problems.last_mut(), &spot.odd_key) {
            problem.place = Some(self.place_of(key.clone()));
        }
    }

    fn refuse_value(&self, path: &[String], code: Code, message: &str, problems: &mut Vec<Diagnostic>) -> Value {
        let place = Some(self.place(&parts(path), Part::Value));
        problems.push(Diagnostic { place, ..Diagnostic::error(code, path.join("."), message) });
        Value::Null
    }
}

fn parts(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// Byte offsets of characters; in ASCII they are the same numbers.
struct Offsets<'t> {
    text: &'t str,
    table: Option<Vec<usize>>,
}

impl<'t> Offsets<'t> {
    fn new(text: &'t str) -> Self {
        let table = || text.char_indices().map(|(at, _)| at).collect();
        Self { text, table: (!text.is_ascii()).then(table) }
    }

    fn byte(&self, character: usize) -> usize {
        match &self.table {
            None => character.min(self.text.len()),
            Some(table) => table.get(character).copied().unwrap_or(self.text.len()),
        }
    }

    /// The range of a node. The parser leaves out the bracket that closes a mapping or a list.
    fn of(&self, node: &MarkedYaml) -> Range<usize> {
        let range = self.byte(node.span.start.index())..self.byte(node.span.end.index());
        let opens = self.text[range.start..].starts_with(['{', '[']);
        let is_collection = matches!(node.data, YamlData::Mapping(_) | YamlData::Sequence(_));
        let closes = opens && is_collection && self.text[range.end..].starts_with(['}', ']']);
        range.start..range.end + usize::from(closes)
    }
}

fn spot(node: &MarkedYaml, key: Range<usize>, offsets: &Offsets) -> Spot {
    let mut found = Spot { key, value: offsets.of(node), ..Spot::default() };
    match &node.data {
        YamlData::Mapping(entries) => {
            for (key, value) in entries {
                let name = match &key.data {
                    YamlData::Value(Scalar::String(name)) => name.to_string(),
                    YamlData::Value(Scalar::Boolean(flag)) => flag.to_string(),
                    YamlData::Value(Scalar::Integer(number)) => number.to_string(),
                    YamlData::Value(Scalar::Null) => "null".to_owned(),
                    YamlData::Representation(text, ..) => text.to_string(),
                    _ => {
                        found.odd_key = Some(offsets.of(key));
                        continue;
                    }
                };
                found.map.insert(name, spot(value, offsets.of(key), offsets));
            }
        }
        YamlData::Sequence(items) => found.list = items.iter().map(|item| spot(item, 0..0, offsets)).collect(),
        YamlData::Tagged(_, inner) => return Spot { value: found.value, ..spot(inner, found.key, offsets) },
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(text: &str, range: Range<usize>) -> (u32, u32) {
        let (source, _) = Source::parse("f.yaml", text).unwrap();
        let place = source.place_within(&["a", "b"], range);
        (place.line, place.column)
    }

    #[test]
    fn offsets_inside_texts_are_exact() {
        assert_eq!(within("a:\n  b: one two\n", 4..7), (2, 10));
        assert_eq!(within("a:\n  b: 'one two'\n", 4..7), (2, 11));
        assert_eq!(within("a:\n  b: |\n    one\n    two x\n", 8..9), (4, 9));
        assert_eq!(within("a:\n  b: >\n    one\n    two\n\n    six x\n", 12..13), (6, 9));
        assert_eq!(within("a:\n  b: >\n    one\n      two\n    six x\n", 14..15), (5, 9));
        assert_eq!(within("a:\n  b: |\n\n    one\n    two x\n", 9..10), (5, 9));
        assert_eq!(within("a:\n  b: |2-\n      one\n    two x\n", 10..11), (4, 9));
        assert_eq!(within("a:\n  b: \"one\n    two x\"\n", 8..9), (3, 9));
        assert_eq!(within("a:\n  b: one\n    two x\n", 8..9), (3, 9));
        assert_eq!(within("a:\r\n  b: |\r\n    one\r\n    two x\r\n", 8..9), (4, 9));
        assert_eq!(within("a:\n  b: 'it''s x'\n", 5..6), (2, 6));
        assert_eq!(within("ü: é\na:\n  b: öne two\n", 5..8), (3, 10));
    }

    #[test]
    fn places_of_keys_and_values() {
        let (source, data) = Source::parse("f.yaml", "a:\n  b: [1, {c: x}]\n").unwrap();
        assert_eq!(data, serde_json::json!({"a": {"b": [1, {"c": "x"}]}}));
        let place = source.place(&["a", "b", "1", "c"], Part::Value);
        assert_eq!((place.line, place.column), (2, 14));
        let key = source.place(&["a", "b"], Part::Key);
        assert_eq!((key.line, key.column, key.end - key.start), (2, 3, 1));
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused_where_they_stand() {
        let check = |number: &str| {
            for text in [format!("a: {number}"), format!("a: [b, &x {number}]"), format!("a: {{b: {number}, c: 1}}\n")]
            {
                let problems = Source::parse("f.yaml", &text).expect_err(&text);
                let place = problems[0].place.as_ref().unwrap();
                assert!(
                    problems.len() == 1 && problems[0].message.contains("does not fit into 64 bits"),
                    "{problems:?}"
                );
                assert_eq!(problems[0].code, codes::WRONG_TYPE, "{text}");
                assert!(text[place.start..].starts_with(number) || text.contains('&'), "{text}: {place:?}");
            }
        };
        check("12345678901234567890123");
        check("-9223372036854775809");
        check("0xFFFFFFFFFFFFFFFFFF");
        check(&"9".repeat(48));
        // YAML takes `1e400` for a text, which nothing rounds.
        for text in [
            "a: 1e400",
            "a: '99999999999999999999'",
            "a: |\n  1e400",
            "a: 012345678901234567890123",
            "a: 12e2",
            "a: 18446744073709551615",
        ] {
            assert!(Source::parse("f.yaml", text).is_ok(), "{text}");
        }
    }

    #[test]
    fn hostile_texts_are_refused_quickly() {
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
            .to_owned()
            + "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
            + "g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\ni: [*h,*h,*h,*h,*h,*h,*h,*h,*h]\n";
        for text in
            [bomb, "[".repeat(10_000), "a: \u{0}".to_owned(), "x".repeat(Source::BYTES_MAX + 1), "a: .inf".to_owned()]
        {
            assert!(Source::parse("f.yaml", &text).is_err());
        }
    }
}
