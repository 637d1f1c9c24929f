//! Why a text is no YAML, in words that help: what people write who mean something else than YAML reads.
//!
//! The parser says what it met where it gave up. The mistake stands elsewhere, mostly: where the quote, the bracket or the
//! value begins. Each known mistake is looked for in turn, the certain ones first.

use std::ops::Range;

use saphyr::{LoadableYamlNode, MarkedYaml};

use super::{Offsets, Source};
use crate::diagnostic::{Code, Diagnostic, codes};
use crate::json::read_number;

/// Doubled keys that are reported at once.
const DUPLICATES_MAX: usize = 20;

const COMMA: &str = "a comma ends a value inside `{…}` and `[…]`, this one too";
const COMMA_HELP: &str = "put quotes around an expression with commas: `\"f(a, b)\"`";

/// What was meant, found out.
struct Found {
    at: Range<usize>,
    message: String,
    related: Option<(&'static str, Range<usize>)>,
    help: String,
}

impl Found {
    fn new(at: Range<usize>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { at, message: message.into(), related: None, help: help.into() }
    }
}

/// Where the parser gave up, and what the line says there.
struct Scene<'s> {
    text: &'s str,
    /// What the parser says.
    error: &'s str,
    at: usize,
    /// Where the thing begins that it was reading.
    began: Option<usize>,
    line: Range<usize>,
    /// The value on that line: behind `key: `.
    value: Range<usize>,
}

/// Everything that keeps a text from being YAML: all doubled keys, or the first mistake of form.
pub(super) fn explain(source: &Source, error: &serde_yaml::Error) -> Vec<Diagnostic> {
    let said = error.to_string();
    if said.contains("duplicate entry") {
        let found = duplicates(source);
        if !found.is_empty() {
            return found;
        }
    }
    let offsets = Offsets::new(&source.text);
    let at = error.location().map_or(0, |location| offsets.byte(location.index()));
    let number = said.split('`').nth(1).filter(|_| said.contains("invalid type: integer"));
    if let Some(message) = number.and_then(|number| read_number(number).err()) {
        let length = source.text[at..].find(|c: char| c.is_whitespace() || ",]}".contains(c));
        let end = length.map_or(source.text.len(), |length| at + length);
        return vec![place(source, codes::WRONG_TYPE, at..end, message)];
    }
    let line = source.lines.partition_point(|start| *start <= at) - 1;
    let line = source.lines[line]..source.lines[line] + source.line(line).len();
    let before = source.lines.partition_point(|start| *start < line.start).checked_sub(1);
    let before = before.map_or(0..0, |line| source.lines[line]..source.lines[line] + source.line(line).len());
    let before = value(source, &before);
    let scene =
        Scene { text: &source.text, error: &said, at, began: began(source, &said), value: value(source, &line), line };
    let found = whole_file(&scene)
        .or_else(|| characters(&scene))
        .or_else(|| value_begins(&scene))
        .or_else(|| quote_goes_on(&scene, before))
        .or_else(|| brackets(&scene))
        .or_else(|| indentation(&scene));
    let found = found.unwrap_or_else(|| {
        let message = said.split(" at line ").next().unwrap_or(&said);
        Found::new(at..at, format!("this is not YAML: {message}"), "")
    });
    let mut problem = place(source, codes::NOT_YAML, found.at, found.message);
    problem.related.extend(found.related.map(|(label, at)| (label.to_owned(), source.place_of(at))));
    problem.help.extend(Some(found.help).filter(|help| !help.is_empty()));
    vec![problem]
}

/// A refusal of the parser that finds the places, of a text that the other one takes.
pub(super) fn unplaced(source: &Source, error: &saphyr::ScanError) -> Diagnostic {
    let at = Offsets::new(&source.text).byte(error.marker().index());
    place(source, codes::NOT_YAML, at..at, format!("this is not YAML: {}", error.info()))
}

fn place(source: &Source, code: Code, at: Range<usize>, message: String) -> Diagnostic {
    Diagnostic { place: Some(source.place_of(at)), ..Diagnostic::error(code, "", message) }
}

/// The position behind `while parsing a … at line N column M`.
fn began(source: &Source, said: &str) -> Option<usize> {
    let (_, context) = said.split_once(", while ")?;
    let (_, position) = context.rsplit_once(" at line ")?;
    let (line, column) = position.split_once(" column ")?;
    let (line, column): (usize, usize) = (line.parse().ok()?, column.trim().parse().ok()?);
    let start = line_starts(&source.text).nth(line.checked_sub(1)?)?;
    let offset = source.text[start..].char_indices().nth(column.checked_sub(1)?).map_or(0, |(offset, _)| offset);
    Some(start + offset)
}

/// Where lines begin for the parser, which ends them at more characters than a file does for us.
fn line_starts(text: &str) -> impl Iterator<Item = usize> {
    let ends = |(at, c): &(usize, char)| match c {
        '\r' => !text[at + 1..].starts_with('\n'),
        c => "\n\u{2028}\u{2029}".contains(*c),
    };
    std::iter::once(0).chain(text.char_indices().filter(ends).map(|(at, c)| at + c.len_utf8()))
}

/// The value on a line: behind its first `: ` and dashes.
fn value(source: &Source, line: &Range<usize>) -> Range<usize> {
    let text = &source.text[line.clone()];
    let start = text.find(": ").map_or_else(|| text.len() - text.trim_start_matches([' ', '-']).len(), |at| at + 2);
    let start = text.len() - text[start..].trim_start().len();
    line.start + start..line.start + text.trim_end().len().max(start)
}

/// All doubled keys, each with the place where it stands first. After each find the second key is masked, character for
/// character, and the text read again.
fn duplicates(source: &Source) -> Vec<Diagnostic> {
    let offsets = Offsets::new(&source.text);
    let mut masked: Vec<char> = source.text.chars().collect();
    let mut found = Vec::new();
    while found.len() < DUPLICATES_MAX {
        let Err(error) = MarkedYaml::load_from_str(&masked.iter().collect::<String>()) else { break };
        if !error.info().contains("duplicate") {
            break;
        }
        let index = error.marker().index();
        let at = offsets.byte(index);
        let key: String = source.text[at..].chars().take_while(|c| !":\n".contains(*c)).collect();
        let key = key.trim_end();
        let message = format!("the key `{key}` is written twice");
        let mut problem = place(source, codes::DUPLICATE_KEY, at..at + key.len(), message);
        let first = first_written(source, at, key);
        problem.related.extend(first.map(|at| ("first written here".to_owned(), source.place_of(at..at + key.len()))));
        problem.help.push("keep one of the two, or rename one".to_owned());
        found.push(problem);
        let mask = |offset: usize| char::from_u32(0xE000 + if offset == 0 { found.len() } else { 0x100 } as u32);
        for (offset, c) in masked.iter_mut().skip(index).take(key.chars().count()).enumerate() {
            *c = mask(offset).unwrap_or('?');
        }
    }
    found
}

/// Where a block mapping has the same key above: the nearest line of the same indentation that begins with it.
fn first_written(source: &Source, at: usize, key: &str) -> Option<usize> {
    let own = source.lines.partition_point(|start| *start <= at) - 1;
    let indent = at - source.lines[own];
    for line in (0..own).rev() {
        let text = source.line(line);
        let content = text.trim_start_matches([' ', '-']);
        let begins = text.len() - content.len();
        if begins == indent && content.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':')) {
            return Some(source.lines[line] + begins);
        }
        if begins < indent && !content.trim().is_empty() && !content.starts_with('#') {
            return None;
        }
    }
    None
}

/// What concerns the file as a whole.
fn whole_file(scene: &Scene) -> Option<Found> {
    if scene.error.contains("more than one document") {
        let second =
            scene.text.match_indices("\n---").map(|(at, _)| at + 1).find(|at| !scene.text[..*at].trim().is_empty());
        let at = second.unwrap_or_default();
        return Some(Found::new(
            at..at + 3,
            "the file holds a second document",
            "keep one workflow in a file and remove `---`",
        ));
    }
    if scene.error.contains("repetition limit") {
        let at = scene.text.find('*').unwrap_or_default();
        return Some(Found::new(
            at..at + 1,
            "the aliases (`*name`) unfold to too much",
            "write the values out, or use fewer aliases",
        ));
    }
    if scene.error.contains("recursion limit") {
        return Some(Found::new(scene.at..scene.at, "lists and mappings nest deeper than 128 levels", ""));
    }
    if scene.error.contains("unknown anchor") {
        let end = scene.text[scene.at..].find(|c: char| c.is_whitespace() || ",]}".contains(c));
        let end = scene.at + end.unwrap_or(scene.text.len() - scene.at);
        let message =
            format!("the alias `{}` means nothing: no anchor of that name stands above", &scene.text[scene.at..end]);
        return Some(Found::new(scene.at..end, message, "a text that begins with `*` wants quotes"));
    }
    None
}

/// Tabs, escapes and quotes.
fn characters(scene: &Scene) -> Option<Found> {
    let line = &scene.text[scene.line.clone()];
    let indent = &line[..line.len() - line.trim_start().len()];
    if let Some(tab) = indent.find('\t') {
        let at = scene.line.start + tab;
        return Some(Found::new(
            at..at + 1,
            "a tab in the indentation",
            "indent with spaces: YAML takes no tabs there",
        ));
    }
    if scene.error.contains("unknown escape") {
        let escape: String = scene.text[scene.at..].chars().take(2).collect();
        let message = format!("`{escape}` is no escape of double quotes");
        let help = format!("write `\\{escape}`, or put the text in single quotes");
        return Some(Found::new(scene.at..scene.at + escape.len(), message, help));
    }
    if scene.error.contains("scanning a quoted scalar") {
        let at = scene.began?;
        let line = scene.text[..at].rfind('\n').map_or(0, |at| at + 1);
        if let Some(comma) = comma_of_call(&scene.text[line..at]).filter(|_| scene.text[line..at].contains('{')) {
            return Some(Found::new(line + comma..line + comma + 1, COMMA, COMMA_HELP));
        }
        let help = "close it; a text over several lines goes under `key: |`";
        return Some(Found::new(at..at + 1, "the quote that begins here is never closed", help));
    }
    None
}

/// Values whose first character means something to YAML.
fn value_begins(scene: &Scene) -> Option<Found> {
    let value = &scene.text[scene.value.clone()];
    let start = scene.value.start;
    let first = value.chars().next()?;
    let quoted = format!("quotes around the whole make it a text: `{}`", requote(value));
    let at = start..start + first.len_utf8();
    match first {
        '\'' | '"' if scene.at > start => quote_goes_on(scene, scene.value.clone()),
        '*' => Some(Found::new(at, "a value that begins with `*` is an alias of YAML", quoted)),
        '&' => Some(Found::new(at, "a value that begins with `&` is an anchor of YAML", quoted)),
        '!' => Some(Found::new(at, "a value that begins with `!` is a tag of YAML", quoted)),
        '|' | '>' if value.len() > 1 => {
            let message =
                format!("`{first}` begins a block of text on the lines below; nothing else may follow it here");
            Some(Found::new(at, message, quoted))
        }
        '@' | '`' | '%' => Some(Found::new(at, format!("no value begins with `{first}` in YAML"), quoted)),
        '{' if value.starts_with("{{") || value.starts_with("{%") => {
            Some(Found::new(scene.value.clone(), "a value that begins with `{` is a mapping of YAML", quoted))
        }
        '[' if goes_on_after_bracket(value) && scene.at > start => {
            Some(Found::new(scene.value.clone(), "the value goes on behind the list that it begins with", quoted))
        }
        _ => None,
    }
}

/// A value that begins with a quote, as expressions do, and goes on: the parser gives up there or on the next line.
fn quote_goes_on(scene: &Scene, value: Range<usize>) -> Option<Found> {
    let text = &scene.text[value.clone()];
    let quote = text.chars().next().filter(|first| "'\"".contains(*first))?;
    let help = format!("quotes around the whole make it a text: `{}`", requote(text));
    goes_on(text, quote).then(|| Found::new(value, "the value goes on behind its closing quote", help))
}

/// Whether something but a comment follows the closing quote.
fn goes_on(value: &str, quote: char) -> bool {
    let escape = if quote == '\'' { "''" } else { "\\\"" };
    let inside = value[1..].replace(escape, "");
    let rest = inside.split_once(quote).map(|(_, rest)| rest.trim_start());
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('#'))
}

fn goes_on_after_bracket(value: &str) -> bool {
    let rest = value.rfind(']').map(|close| value[close + 1..].trim_start());
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['#', ',', '}']))
}

/// The text in quotes that leave it as it is.
fn requote(value: &str) -> String {
    if value.contains(['"', '\\']) { format!("'{}'", value.replace('\'', "''")) } else { format!("\"{value}\"") }
}

/// Flow mappings and lists that end too early or never.
fn brackets(scene: &Scene) -> Option<Found> {
    let began = scene.began.filter(|at| *at < scene.at && scene.error.contains("while parsing a flow "))?;
    let open = &scene.text[began..began + 1];
    let read = &scene.text[began..scene.at];
    let opening = read.lines().next().unwrap_or_default();
    if let Some(comma) = comma_of_call(opening) {
        let at = began + comma;
        let related = Some(("inside this", began..began + 1));
        return Some(Found { related, ..Found::new(at..at + 1, COMMA, COMMA_HELP) });
    }
    if read.contains('\n') {
        let close = if open == "{" { "}" } else { "]" };
        let message = format!("the `{open}` that begins here is never closed");
        return Some(Found::new(began..began + 1, message, format!("a `{close}` is missing")));
    }
    let last = read.rfind([',', '{', '[']).map_or(began, |at| began + at + 1);
    let entry = scene.text[last..scene.at].split_once(": ").map_or(&scene.text[last..scene.at], |(_, value)| value);
    let (message, help) = if entry.trim_start().starts_with(['\'', '"']) && !read.contains('(') {
        ("the value goes on behind its closing quote", "put quotes around the whole of it: `\"'a' if x else 'b'\"`")
    } else {
        (
            "neither a comma nor the end of the bracket stands here",
            "a text with `,`, `{`, `[`, `: ` or quotes in it wants quotes around the whole",
        )
    };
    let mut found = Found::new(scene.at..scene.at + 1, message, help);
    found.related = Some(("inside this", began..began + 1));
    Some(found)
}

/// The first comma between round brackets.
fn comma_of_call(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, c)| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        (c == ',' && depth > 0).then_some(at)
    })
}

/// Lines that do not fit the ones above.
fn indentation(scene: &Scene) -> Option<Found> {
    let line = &scene.text[scene.line.clone()];
    if scene.error.contains("mapping values are not allowed") {
        let value = &scene.text[scene.value.clone()];
        if scene.at >= scene.value.start && value.contains(": ") {
            let help = format!("put quotes around the whole of it: `{}`", requote(value));
            return Some(Found::new(scene.at..scene.at + 2, "`: ` inside a text without quotes", help));
        }
        let help = "entries of one mapping begin in the same column; a text over several lines goes under `key: |`";
        return Some(Found::new(content(scene), "this line is indented under a line that holds a value already", help));
    }
    if scene.error.contains("did not find expected key") || scene.error.contains("did not find expected '-'") {
        let message = "this line does not fit the indentation of those above";
        let mut found = Found::new(content(scene), message, "entries of one mapping begin in the same column");
        found.related = scene
            .began
            .filter(|at| !line.is_empty() && *at < scene.line.start)
            .map(|at| ("the mapping began here", at..at + 1));
        return Some(found);
    }
    if scene.error.contains("could not find expected ':'") {
        let help = "write `key: value`; a text over several lines goes under `key: |`";
        return Some(Found::new(scene.began.map_or(content(scene), |at| at..at + 1), "a key without `:`", help));
    }
    None
}

/// The line without its indentation.
fn content(scene: &Scene) -> Range<usize> {
    let line = &scene.text[scene.line.clone()];
    let start = scene.line.start + line.len() - line.trim_start().len();
    start..(scene.line.start + line.trim_end().len()).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_a_file_is_refused_or_read_without_a_panic() {
        let text = "ü: {a: 'é' if x else \"b\\d\", c: [1, {{ x }}]}\nb: !t *x & | # é\n\tc: 'é\n- d: @é: f\n% }] ` é\n";
        for (start, _) in text.char_indices() {
            for (end, _) in text.char_indices().filter(|(end, _)| *end > start) {
                if let Err(problems) = Source::parse("f.yaml", &text[start..end]) {
                    assert!(
                        problems
                            .iter()
                            .all(|problem| problem.place.as_ref().is_some_and(|place| place.end <= end - start))
                    );
                }
            }
        }
    }

    #[test]
    fn lines_of_the_parser_end_at_more_characters() {
        for end in ["\n", "\r", "\r\n", "\u{2028}", "\u{2029}"] {
            let text = format!("é: 1{end}a: {{b: 'x' if y}}\n");
            let problems = Source::parse("f.yaml", &text).unwrap_err();
            let (_, brace) = &problems[0].related[0];
            assert_eq!(&text[brace.start..brace.end], "{", "{end:?}");
        }
    }

    #[test]
    fn all_doubled_keys_are_found_with_both_places() {
        let text = "é: 1\na:\n  b: 1\n  c: 2\n  b: 3\n\"é\": 4\na: {x: 1, x: 2}\n";
        let problems = Source::parse("f.yaml", text).unwrap_err();
        let lines: Vec<_> =
            problems.iter().map(|p| (p.place.as_ref().unwrap().line, p.related.first().map(|r| r.1.line))).collect();
        assert_eq!(lines, [(5, Some(3)), (6, None), (7, None), (7, Some(2))]);
    }
}
