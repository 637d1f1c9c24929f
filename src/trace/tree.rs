//! A trace as an indented list: one line a step, with time, tokens, attempts and reasons.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Trace, TraceStep, duration};
use crate::render::{clean, fit};

/// Children of one step that are shown before the rest is counted.
const CHILDREN_MAX: usize = 20;

impl Trace {
    /// The tree as text, `width` characters wide; more than 20 children of a step are folded.
    pub fn tree(&self, width: usize) -> String {
        let mut text = String::new();
        let mut stack: Vec<(usize, usize)> = self.roots.iter().rev().map(|root| (*root, 0)).collect();
        let mut folded: BTreeMap<usize, usize> = BTreeMap::new();
        while let Some((at, depth)) = stack.pop() {
            if let Some(more) = folded.get(&at) {
                let _ = writeln!(text, "{}… {more} more", "  ".repeat(depth));
                continue;
            }
            let step = &self.steps[at];
            let _ = writeln!(text, "{}", line(step, depth, width));
            let many = step.children.len() > CHILDREN_MAX;
            let shown = if many { CHILDREN_MAX - 1 } else { step.children.len() };
            if many {
                folded.insert(step.children[shown], step.children.len() - shown);
            }
            let kept = step.children.len().min(shown + 1);
            stack.extend(step.children[..kept].iter().rev().map(|child| (*child, depth + 1)));
        }
        text
    }
}

fn line(step: &TraceStep, depth: usize, width: usize) -> String {
    let left = format!("{}{} {}", "  ".repeat(depth), step.mark(), clean(step.label(depth)));
    let mut right = String::new();
    if let Some(took) = step.duration_us().filter(|us| *us >= 1_000 || step.is_leaf()) {
        let _ = write!(right, "{:>9}", duration(took));
    }
    if step.usage.calls > 0 {
        let _ = write!(right, "  {} tokens", step.usage.prompt_tokens + step.usage.completion_tokens);
    }
    if step.attempts.len() > 1 {
        let _ = write!(right, "  {} attempts", step.attempts.len());
    }
    right.push_str(if step.critical { "  *" } else { "" });
    if let Some(why) = &step.why {
        let _ = write!(right, "  {}", clean(why));
    }
    let column = left.chars().count().max(34);
    fit(format!("{left:<column$} {right}").trim_end(), width.max(20)).to_owned()
}
