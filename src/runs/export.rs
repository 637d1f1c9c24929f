//! The whole of a run as lines of JSON, for other programs.
//!
//! First who it is: `{"v":1,"type":"run","id":…,"workflow":…,"started_ms":…,"origin":…,"summary":…}`. Then its events as the log has
//! them, and, if they are wanted, values: `{"type":"value","hash":…,"value":…}`, each once, before the first line that names it.
//! Where values name others by hash (a report does, and what a key was made of) those come first too.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use flowrun_engine::id::ValueHash;
use flowrun_engine::store::hashes_in;

use super::RunLog;

/// Version of the first line's form.
const VERSION: u64 = 1;
/// Fields of an event whose hashes are names of values; others may name a graph or a workflow.
const NAMES: [&str; 7] = ["inputs", "input", "value", "provenance", "output", "list", "plan"];

/// Writes a run; gives a line for each thing that is missing or damaged.
///
/// # Errors
/// What `out` says.
pub fn export(log: &RunLog, with_values: bool, out: &mut dyn Write) -> io::Result<Vec<String>> {
    let mut first = Map::from_iter([("v".to_owned(), json!(VERSION)), ("type".to_owned(), json!("run"))]);
    if let Ok(Value::Object(info)) = serde_json::to_value(&log.info) {
        first.extend(info);
    }
    writeln!(out, "{}", Value::Object(first))?;
    let mut values = Values { log, written: BTreeSet::new(), missing: BTreeSet::new(), problems: Vec::new() };
    if with_values {
        values.write_all(&log.info.origin.to_string(), &BTreeSet::new(), out)?;
    }
    for event in &log.events {
        let line = event.line.to_string();
        if with_values {
            let named = NAMES.iter().filter_map(|field| ValueHash::from_hex(event.text(field)?));
            values.write_all(&line, &named.collect(), out)?;
        }
        writeln!(out, "{line}")?;
    }
    let mut problems = values.problems;
    problems.extend(log.damage.clone());
    Ok(problems)
}

/// The values of a run, on their way out.
struct Values<'a> {
    log: &'a RunLog,
    written: BTreeSet<ValueHash>,
    missing: BTreeSet<ValueHash>,
    problems: Vec<String>,
}

/// A value whose own names come first.
enum Visit {
    Enter(ValueHash),
    Leave(ValueHash, Value),
}

impl Values<'_> {
    /// Writes every value that a line names and what those name. Only what is `needed` must be there: other texts of 64 hexadecimal
    /// digits may be anything.
    fn write_all(&mut self, line: &str, needed: &BTreeSet<ValueHash>, out: &mut dyn Write) -> io::Result<()> {
        for named in hashes_in(line) {
            let mut stack = vec![Visit::Enter(named)];
            while let Some(visit) = stack.pop() {
                match visit {
                    Visit::Enter(hash) if self.written.contains(&hash) => {}
                    Visit::Enter(hash) => {
                        if let Some((value, text)) = self.read(hash, needed.contains(&hash)) {
                            // Before its own names, so that a value that names itself is no endless way.
                            self.written.insert(hash);
                            stack.push(Visit::Leave(hash, value));
                            let inner: Vec<ValueHash> = hashes_in(&text).collect();
                            stack.extend(inner.into_iter().rev().map(Visit::Enter));
                        }
                    }
                    Visit::Leave(hash, value) => {
                        writeln!(out, "{}", json!({"type": "value", "hash": hash, "value": value}))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, hash: ValueHash, is_needed: bool) -> Option<(Value, Arc<str>)> {
        let why = match self.log.text(hash) {
            Ok(Some(text)) => match serde_json::from_str(&text) {
                Ok(value) => return Some((value, text)),
                Err(error) => format!("is no JSON: {error}"),
            },
            Ok(None) if !is_needed => return None,
            Ok(None) => "is not there".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        if self.missing.insert(hash) {
            self.problems.push(format!("the value {}… {why}", hash.short()));
        }
        None
    }
}
