//! What is wrong in a file, where, and what to do about it.
//!
//! A [`Diagnostic`] is for the author of a file: a stable code, a place, a message and a way out. The engine reports all of
//! them, never only the first. How they look on a terminal is the command line's business.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A stable code such as `FR001`. The list of all codes is [`codes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Code(pub &'static str);

/// Every code with the problem that it names. A code is never given a second meaning.
pub mod codes {
    use super::Code;

    macro_rules! codes {
        ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
            $($(#[doc = $doc])+ pub const $name: Code = Code($code);)+
            /// All codes in order, each with its one-line meaning: what `docs/` lists.
            pub const ALL: &[(Code, &str)] = &[$(($name, concat!($($doc),+))),+];
        };
    }

    codes! {
        /// The file cannot be read, is too large, or is not text.
        UNREADABLE = "FR001";
        /// The text is not YAML: indentation, quotes or brackets are off.
        NOT_YAML = "FR002";
        /// A key is written twice in one mapping.
        DUPLICATE_KEY = "FR003";
        /// A key that means nothing at this place.
        UNKNOWN_KEY = "FR004";
        /// A required key is missing.
        MISSING_KEY = "FR005";
        /// A value of another type than this key takes.
        WRONG_TYPE = "FR006";
        /// A value of the right type that this key does not take.
        BAD_VALUE = "FR007";
        /// A node kind that does not exist.
        UNKNOWN_KIND = "FR008";
        /// A node says its work twice, or two keys exclude each other.
        CONFLICT = "FR009";
        /// A feature of the language that this version does not run yet.
        NOT_YET = "FR010";
        /// A name that is reserved, malformed, or taken by something else.
        BAD_NAME = "FR011";
        /// A reference to something that does not exist here.
        UNKNOWN_NAME = "FR012";
        /// Nodes that need each other in a circle.
        CYCLE = "FR013";
        /// An expression or template that does not parse.
        BAD_EXPRESSION = "FR014";
        /// A filter, test or function that does not exist.
        UNKNOWN_FUNCTION = "FR015";
        /// Types that can never fit.
        TYPE_MISMATCH = "FR016";
        /// A schema that does not parse.
        BAD_SCHEMA = "FR017";
        /// A formula that does not parse.
        BAD_FORMULA = "FR018";
        /// A `{slot}` in an `ask` text that names nothing.
        BAD_SLOT = "FR019";
        /// A limit of the checker is exceeded.
        LIMIT = "FR020";
        /// A plan drawn by a model that is malformed.
        BAD_PLAN = "FR021";
        /// A workflow that is called and cannot be loaded.
        BAD_CALL = "FR022";
        /// A join that can never fire or counts nothing.
        BAD_JOIN = "FR023";
        /// An edge of a flowchart that leads nowhere, or upwards without a bound.
        BAD_EDGE = "FR024";
        /// A loop that is entered in the middle, that overlaps with another one, or that is none.
        BAD_LOOP = "FR025";
        /// A node that can never run: what it needs excludes each other.
        NEVER = "FR026";
        /// An input that nothing reads.
        UNUSED_INPUT = "FR101";
        /// A node whose value never reaches the output.
        UNUSED_NODE = "FR102";
        /// Something that works but is most likely not meant.
        SUSPICIOUS = "FR103";
        /// A kept answer comes back where a new one is most likely meant.
        KEPT_ANSWER = "FR104";
    }
}

/// How bad it is: errors refuse the file, warnings do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted.
    Warning,
}

/// A region of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Name of the file as the user gave it.
    pub file: Arc<str>,
    /// First line, from 1.
    pub line: u32,
    /// First column in characters, from 1.
    pub column: u32,
    /// Byte offsets into the file's text: start (inclusive) and end (exclusive).
    pub start: usize,
    /// See `start`.
    pub end: usize,
}

/// One problem in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What kind of problem.
    pub code: Code,
    /// Whether it refuses the file.
    pub severity: Severity,
    /// What is wrong, in one line. Literals stand in backticks.
    pub message: String,
    /// Path in the document, such as `nodes.split.prompt`; empty for the whole file.
    pub path: String,
    /// Where. `None` for definitions that were built in code or drawn by a model.
    pub place: Option<Place>,
    /// Further places that explain it, each with a label (the other definition of a doubled key, the nodes of a cycle).
    pub related: Vec<(String, Place)>,
    /// What to do, one line each.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error without a place; [`Source::place`](crate::source::Source::place) or the checker adds one.
    pub fn error(code: Code, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            path: path.into(),
            place: None,
            related: Vec::new(),
            help: Vec::new(),
        }
    }

    /// A warning without a place.
    pub fn warning(code: Code, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, path, message) }
    }

    /// The same with one more line of help.
    pub fn help(mut self, line: impl Into<String>) -> Self {
        self.help.push(line.into());
        self
    }

    /// Path and message in one line.
    pub fn line(&self) -> String {
        if self.path.is_empty() { self.message.clone() } else { format!("{}: {}", self.path, self.message) }
    }

    /// Whether it refuses the file.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:{}:{}: ", place.file, place.line, place.column)?;
        } else if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        let severity = if self.is_error() { "error" } else { "warning" };
        write!(f, "{severity}[{}]: {}", self.code.0, self.message)?;
        self.help.iter().try_for_each(|line| write!(f, "\n  help: {line}"))
    }
}

/// The candidate closest to `word`, if one is close enough to be a slip of the hand: at most a third of its letters differ.
///
/// Cost: O(candidates × length²), on the refusal path only.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0].iter_mut().enumerate().for_each(|(j, cell)| *cell = j);
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let substitution = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitution.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_closest_word_only_when_it_is_close() {
        assert_eq!(did_you_mean("promt", ["prompt", "params"]), Some("prompt"));
        assert_eq!(did_you_mean("qeustion", ["question"]), Some("question"));
        assert_eq!(did_you_mean("zebra", ["prompt", "params"]), None);
    }

    #[test]
    fn codes_are_unique() {
        let mut seen: Vec<&str> = codes::ALL.iter().map(|(code, _)| code.0).collect();
        seen.dedup();
        assert_eq!(seen.len(), codes::ALL.len());
    }
}
