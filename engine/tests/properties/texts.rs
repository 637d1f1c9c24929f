//! Texts for readers: files that are at hand, and what becomes of them by random edits.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, select};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The texts in some folders, in the order of their names.
pub(super) fn seeds(folders: &[&str], ending: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.to_string_lossy().ends_with(ending));
        paths.sort();
        let before = texts.len();
        texts.extend(paths.iter().map(|path| fs::read_to_string(path).expect("a seed is a text")));
        assert!(texts.len() > before, "no seeds in {folder}");
    }
    texts
}

/// A change of a text.
#[derive(Clone, Debug)]
enum Edit {
    Cut(Index, usize),
    Insert(Index, String),
    Repeat(Index, usize, usize),
    Replace(Index, usize, String),
    /// Lines of another seed.
    Splice(Index, Index, Index, usize),
    Indent(Index, usize),
}

fn edit(words: &'static [&'static str]) -> impl Strategy<Value = Edit> {
    let at = || any::<Index>();
    let piece = || prop_oneof![4 => select(words).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from), 1 => "\\PC{0,6}"];
    prop_oneof![
        (at(), 1..30usize).prop_map(|(at, length)| Edit::Cut(at, length)),
        (at(), piece()).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        (at(), 1..60usize, 1..4usize).prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
        (at(), 1..8usize, piece()).prop_map(|(at, length, piece)| Edit::Replace(at, length, piece)),
        (at(), at(), at(), 1..4usize).prop_map(|(at, seed, from, lines)| Edit::Splice(at, seed, from, lines)),
        (at(), 1..5usize).prop_map(|(at, columns)| Edit::Indent(at, columns)),
    ]
}

impl Edit {
    fn apply(&self, text: &mut String, seeds: &[String]) {
        let place = |at: &Index, text: &str| text.floor_char_boundary(at.index(text.len() + 1));
        let piece =
            |from: usize, length: usize, text: &str| from..text.floor_char_boundary((from + length).min(text.len()));
        match self {
            Edit::Cut(at, length) => {
                let from = place(at, text);
                text.replace_range(piece(from, *length, text), "");
            }
            Edit::Insert(at, piece) => text.insert_str(place(at, text), piece),
            Edit::Repeat(at, length, times) => {
                let from = place(at, text);
                let again = text[piece(from, *length, text)].repeat(*times);
                text.insert_str(from, &again);
            }
            Edit::Replace(at, length, by) => {
                let from = place(at, text);
                text.replace_range(piece(from, *length, text), by);
            }
            Edit::Splice(at, seed, from, lines) => {
                let other: Vec<&str> = seeds[seed.index(seeds.len())].split_inclusive('\n').collect();
                let from = from.index(other.len().max(1));
                let taken: String = other.iter().skip(from).take(*lines).copied().collect();
                let line_start = text[..place(at, text)].rfind('\n').map_or(0, |at| at + 1);
                text.insert_str(line_start, &taken);
            }
            Edit::Indent(at, columns) => {
                let line_start = text[..place(at, text)].rfind('\n').map_or(0, |at| at + 1);
                text.insert_str(line_start, &" ".repeat(*columns));
            }
        }
    }
}

/// A seed with up to six edits, or now and then any text at all.
pub(super) fn texts(seeds: Vec<String>, words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let edited = (any::<Index>(), prop::collection::vec(edit(words), 0..6)).prop_map(move |(seed, edits)| {
        let mut text = seeds[seed.index(seeds.len())].clone();
        edits.iter().for_each(|edit| edit.apply(&mut text, &seeds));
        text
    });
    let soup = prop::collection::vec(select(words), 0..20).prop_map(|words| words.concat());
    prop_oneof![8 => edited, 1 => soup, 1 => any::<String>()]
}

pub(super) const FILE_WORDS: &[&str] = &[
    "flowrun: 1\n", "nodes:\n", "  a:\n", "inputs: ", "output: ", "{", "}", "[", "]", ": ", "- ", "? ", "\n", "\t",
    "  ", "# ", "'", "\"", "|\n", ">-\n", "&x ", "*x", "<<: ", "!!str ", "!t ", "---\n", "...\n", "%YAML 1.2\n",
    "\r\n", "\u{feff}", "\u{85}", "\u{2028}", "é", "日本", "\\", "{{ ", " }}", "{% if a %}", "{a}", "~", "null",
    "true", "0x1f", "1e999", "-0", ".inf", "1_000", "2024-01-01", "for_each: ", "kind: ", "prompt: ", "calc: ",
    "value: ", "workflow: ", "graph: ", "needs: [a, 'b?']\n", "when: ", "schema: ", "json_schema: ", "retry: ",
    "on_error: ", "samples: ", "limits: ", "models: ", "= ", "99999999999999999999", "repeat: ", "next: ",
    "stop_when: ", "sequential: true\n", "index: ", "quorum: ", "join: first\n", "{to: a}", "last.a", "past.a",
    "limits: {}\n", "0.5ms", "on_limit: ", "max: 3",
];

pub(super) const EXPRESSION_WORDS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "h",
    "i",
    "j",
    "item",
    "this",
    ".",
    "x",
    "y",
    "k",
    "[0]",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{%- ",
    "-%}",
    "{# ",
    " #}",
    "for q in d",
    "endfor",
    "if ",
    "endif",
    "else",
    "elif ",
    "set q = ",
    "endset",
    "with q = d",
    "endwith",
    "filter upper",
    "endfilter",
    "raw",
    "endraw",
    "break",
    "continue",
    "loop.index",
    " | ",
    "length",
    "default(1)",
    "sort",
    "vote",
    "sum",
    "join(', ')",
    "map(attribute='k')",
    "select('odd')",
    "replace('o', 'u')",
    "regex('(o)')",
    "number",
    "round(2)",
    "tojson",
    "unique",
    "batch(2)",
    "indent(2)",
    "format(1)",
    "decided",
    "top_k(2)",
    "zip(d)",
    "product(d)",
    "groupby('k')",
    "dictsort",
    "range(3)",
    " is odd",
    " is defined",
    " not in ",
    " in ",
    " == ",
    " != ",
    " < ",
    " >= ",
    " and ",
    " or ",
    " not ",
    " + ",
    " - ",
    " * ",
    " / ",
    " // ",
    " % ",
    " ** ",
    " ~ ",
    ", ",
    ": ",
    ":",
    "'",
    "\"",
    "\\",
    "\n",
    "\t",
    "é",
    "1",
    "0",
    "-1",
    "2.5",
    "1e308",
    "9223372036854775807",
    "18446744073709551615",
    "^",
    " if a > 1 then 2 else 3",
    "sum(",
    "max(",
    "avg(",
    "count(",
    "{a}",
    "{d}",
    "1,000",
    "none",
    "null",
    "true",
    "false",
    "inf",
    "nan",
    "= ",
    "\u{0}",
];

pub(super) const PLAN_WORDS: &[&str] = &[
    "{", "}", "[", "]", ",", ":", "\"", "\"id\": ", "\"ask\": ", "\"type\": ", "\"each\": ", "\"if\": ",
    "\"unless\": ", "\"needs\": ", "\"steps\": ", "\"question\": ", "\"text\"", "\"number\"", "\"yesno\"", "\"list\"",
    "\"calc\"", "\"answer\"", "\"item\"", "null", "1", "1e999", "-0.0", "true", "{{ a }}", "{a}", "{item}", "{known}",
    "\\u0000", "\\ud800", "\\n", " = 48", " * 3", "%", " if a > 1 else 2", "```json\n", "```",
];

pub(super) const LOG_WORDS: &[&str] = &[
    "{\"v\":1,",
    "}",
    "{",
    "\n",
    "\"seq\":",
    "\"us\":",
    "18446744073709551615",
    "-1",
    "1.5",
    "null",
    "\"step\":\"",
    "a[0]",
    "a/b",
    "]",
    "[",
    "/",
    "\"type\":\"started\"",
    "\"type\":\"ended\"",
    "\"type\":\"run_ended\"",
    "\"usage\":{\"calls\":",
    "\"error\":{\"message\":\"",
    "\u{1b}[31m",
    ",",
];
