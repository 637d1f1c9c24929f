//! A trace as an indented list: one line a step, with time, tokens, attempts, how loops ended, and reasons.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Trace, TraceStep, counted, duration};
use crate::render::{clean, columns, fit};

/// Children of one step that are shown before the rest is counted.
const CHILDREN_MAX: usize = 20;
/// Columns that a name keeps in the narrowest terminal.
const NAME_MIN: usize = 8;

/// What stands in a line, left to right.
#[derive(Default)]
struct Line {
    name: String,
    time: String,
    notes: String,
    why: String,
}

impl Trace {
    /// The tree as text, `width` columns wide: names give way to times, and reasons to both; more than 20 children of a step are folded.
    pub fn tree(&self, width: usize) -> String {
        let width = width.max(20);
        let lines = self.lines();
        let widest = |part: fn(&Line) -> &str| lines.iter().map(|line| columns(part(line))).max().unwrap_or(0);
        let (times, notes) = (widest(|line| &line.time), widest(|line| &line.notes));
        let names = widest(|line| &line.name).min(width.saturating_sub(times + notes + 2).max(NAME_MIN));
        let mut text = String::new();
        for Line { name, time, notes, why } in &lines {
            let name = if columns(name) > names { format!("{}…", fit(name, names - 1)) } else { name.clone() };
            let space = " ".repeat(names - columns(&name));
            let line = format!("{name}{space}  {time:>times$}{notes}{why}");
            let _ = writeln!(text, "{}", fit(line.trim_end(), width));
        }
        text
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut stack: Vec<(usize, usize)> = self.roots.iter().rev().map(|root| (*root, 0)).collect();
        let mut folded: BTreeMap<usize, usize> = BTreeMap::new();
        while let Some((at, depth)) = stack.pop() {
            if let Some(more) = folded.get(&at) {
                lines.push(Line { name: format!("{}… {more} more", "  ".repeat(depth)), ..Line::default() });
                continue;
            }
            let step = &self.steps[at];
            lines.push(self.line(step, depth));
            let many = step.children.len() > CHILDREN_MAX;
            let shown = if many { CHILDREN_MAX - 1 } else { step.children.len() };
            if many {
                folded.insert(step.children[shown], step.children.len() - shown);
            }
            let kept = step.children.len().min(shown + 1);
            stack.extend(step.children[..kept].iter().rev().map(|child| (*child, depth + 1)));
        }
        lines
    }

    fn line(&self, step: &TraceStep, depth: usize) -> Line {
        let name = format!("{}{} {}", "  ".repeat(depth), step.mark(), clean(step.label(depth)));
        let time = self.took_us(step).filter(|us| *us >= 1_000 || step.is_leaf()).map(duration).unwrap_or_default();
        let mut notes = String::new();
        if step.usage.calls > 0 {
            let _ = write!(notes, "  {}", counted(step.usage.prompt_tokens + step.usage.completion_tokens, "token"));
        }
        notes.extend(step.found.as_ref().map(|found| format!("  {}", found.word())));
        if step.attempts.len() > 1 {
            let _ = write!(notes, "  {} attempts", step.attempts.len());
        }
        notes.push_str(if step.critical { "  *" } else { "" });
        let held = step.is_held.then(|| "waits for the same call of another step".to_owned());
        let said = step.notes.iter().chain(&held).chain(&step.why).map(|said| clean(said));
        let said = said.collect::<Vec<_>>().join("; ");
        let why = if said.is_empty() { said } else { format!("  {said}") };
        Line { name, time, notes, why }
    }
}
