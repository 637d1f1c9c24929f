//! What changed in a text, line by line.
//!
//! Longest common subsequence over the lines between the common beginning and the common end: O(n × m) of those. Where that would be
//! more than four million comparisons, what lies between is one change.
//!
//! ```text
//!  before         after            shown
//!  Question: …    Question: …        Question: …
//!  Be brief.      Be thorough.     - Be brief.
//!                                  + Be thorough.
//! ```

use serde::Serialize;

/// Most pairs of lines that are compared.
const PAIRS_MAX: usize = 4_000_000;
/// Equal lines that are kept around a change.
const AROUND: usize = 2;

/// One line of what changed in a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// In both.
    Same(String),
    /// In the first text alone.
    Removed(String),
    /// In the second text alone.
    Added(String),
    /// So many equal lines that are far from any change.
    Folded(usize),
}

/// What leads from one text to the other, with two equal lines around each change; empty if the texts have the same lines.
pub fn changed_lines(before: &str, after: &str) -> Vec<Line> {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    if before == after {
        return Vec::new();
    }
    let shortest = before.len().min(after.len());
    let head = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
    let tail = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a == b).count().min(shortest - head);
    let owned = |lines: &[&str], kind: fn(String) -> Line| -> Vec<Line> {
        lines.iter().map(|line| kind((*line).to_owned())).collect()
    };
    let mut all = owned(&before[..head], Line::Same);
    all.extend(middle(&before[head..before.len() - tail], &after[head..after.len() - tail]));
    all.extend(owned(&before[before.len() - tail..], Line::Same));
    fold(all)
}

/// The lines between the common beginning and the common end.
fn middle(before: &[&str], after: &[&str]) -> Vec<Line> {
    let (n, m) = (before.len(), after.len());
    let is_bounded = n.checked_mul(m).is_some_and(|pairs| pairs <= PAIRS_MAX);
    let mut lines = Vec::with_capacity(n + m);
    let (mut i, mut j) = (0, 0);
    if is_bounded {
        // common[i][j]: how many lines the rests from i and from j have in common.
        let mut common = vec![vec![0_u32; m + 1]; n + 1];
        for i in (0..n).rev() {
            for j in (0..m).rev() {
                common[i][j] = if before[i] == after[j] {
                    common[i + 1][j + 1] + 1
                } else {
                    common[i + 1][j].max(common[i][j + 1])
                };
            }
        }
        while i < n && j < m {
            if before[i] == after[j] {
                lines.push(Line::Same(before[i].to_owned()));
                (i, j) = (i + 1, j + 1);
            } else if common[i + 1][j] >= common[i][j + 1] {
                lines.push(Line::Removed(before[i].to_owned()));
                i += 1;
            } else {
                lines.push(Line::Added(after[j].to_owned()));
                j += 1;
            }
        }
    }
    lines.extend(before[i..].iter().map(|line| Line::Removed((*line).to_owned())));
    lines.extend(after[j..].iter().map(|line| Line::Added((*line).to_owned())));
    lines
}

/// Replaces equal lines that are far from any change by their number.
fn fold(all: Vec<Line>) -> Vec<Line> {
    let is_change = |line: &Line| matches!(line, Line::Removed(_) | Line::Added(_));
    let mut near = vec![false; all.len()];
    for at in all.iter().enumerate().filter(|(_, line)| is_change(line)).map(|(at, _)| at) {
        let end = (at + AROUND + 1).min(all.len());
        near[at.saturating_sub(AROUND)..end].fill(true);
    }
    let mut folded: Vec<Line> = Vec::new();
    for (line, near) in all.into_iter().zip(near) {
        match (near, folded.last_mut()) {
            (true, _) => folded.push(line),
            (false, Some(Line::Folded(count))) => *count += 1,
            (false, _) => folded.push(Line::Folded(1)),
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(before: &str, after: &str) -> String {
        let sign = |line: &Line| match line {
            Line::Same(text) => format!(" {text}"),
            Line::Removed(text) => format!("-{text}"),
            Line::Added(text) => format!("+{text}"),
            Line::Folded(count) => format!("…{count}"),
        };
        changed_lines(before, after).iter().map(sign).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn lines_that_stay_are_found_and_far_ones_folded() {
        assert_eq!(shown("a\nb\nc", "a\nb\nc\n"), "");
        assert_eq!(shown("a\nb\nc", "a\nx\nc"), " a|-b|+x| c");
        assert_eq!(shown("1\n2\n3\n4\nold", "1\n2\n3\n4\nnew\nmore"), "…2| 3| 4|-old|+new|+more");
        assert_eq!(shown("", "a"), "+a");
        assert_eq!(shown("a\na", "a"), " a|-a");
        assert_eq!(shown("a\nb\nc\nd", "b\nx\nd\ny"), "-a| b|-c|+x| d|+y");
    }

    #[test]
    fn what_is_too_large_to_compare_is_one_change() {
        let text = |from: usize| (from..from + 3_000).map(|line| format!("{line}\n")).collect::<String>();
        let lines = changed_lines(&text(0), &text(1));
        assert_eq!(lines.len(), 6_000);
        assert!(lines.iter().all(|line| !matches!(line, Line::Same(_))));
    }
}
