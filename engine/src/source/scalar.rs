//! Where a piece of a text value stands in the file: the lines of a value are folded, indented and quoted there.
//!
//! A value is taken apart into its lines. What YAML puts between two lines decides how offsets go on:
//!
//! ```text
//! |            each line end is one character
//! > and flow   a line end is one blank; of k empty lines between, k line ends stay
//! ```

use std::ops::Range;

/// The range in `text` of a `range` of the value that is written at `written`; `None` where escapes or odd indentation hide it.
pub(super) fn raw_range(text: &str, written: &Range<usize>, range: &Range<usize>) -> Option<Range<usize>> {
    let raw = text.get(written.clone())?;
    let quoted = raw.starts_with(['"', '\'']);
    let header = header(text, written.start);
    if header.is_none() && quoted && (raw.contains('\\') || raw[1..].contains("''")) {
        return None;
    }
    let block = header.is_some();
    let literal = header.is_some_and(|header| header.starts_with('|'));
    let first_line = text[..written.start].rfind('\n').map_or(0, |at| at + 1);
    let mut at = if block { first_line } else { written.start };
    let lines = text[at..written.end].split_inclusive('\n');
    let indent = block_indent(text, at, header.unwrap_or_default());
    let mut value = leading_blanks(text, at) * usize::from(block);
    let mut blanks = 0;
    let mut begun = false;
    let mut deep_before = false;
    for line in lines {
        let content = line.trim_end_matches(['\n', '\r']);
        let skip = match block {
            true => indent.min(content.len()),
            false if begun => content.len() - content.trim_start().len(),
            false => usize::from(quoted),
        };
        let piece = content.get(skip..)?;
        let piece = if block { piece } else { piece.trim_end() };
        if piece.trim().is_empty() && begun {
            blanks += 1;
        } else {
            let deep = piece.starts_with([' ', '\t']);
            let folds = !literal && !(block && (deep || deep_before));
            value += match (begun, folds, blanks) {
                (false, ..) => 0,
                (true, true, 0) => 1,
                (true, true, blanks) => blanks,
                (true, false, blanks) => blanks + 1,
            };
            if range.start <= value + piece.len() {
                let start = at + skip + range.start.checked_sub(value)?;
                return Some(start..(start + range.len()).min(at + skip + piece.len()).max(start));
            }
            value += piece.len();
            (begun, blanks, deep_before) = (true, 0, deep);
        }
        at += line.len();
    }
    None
}

/// The header (`|`, `>2-`) of the block whose content begins at `start`; `None` if it is no block.
pub(super) fn header(text: &str, start: usize) -> Option<&str> {
    let line = text[..start].rfind('\n')?;
    if !text[line..start].trim().is_empty() {
        return None;
    }
    let above = text[..line].trim_end().lines().next_back()?;
    let above = above.split(" #").next()?.trim_end();
    let header = &above[above.rfind(' ')? + 1..];
    let is_header =
        header.starts_with(['|', '>']) && header[1..].chars().all(|c| c.is_ascii_digit() || "+-".contains(c));
    is_header.then_some(header)
}

/// Empty lines between a header and the line that begins at `at`: each is one line end of the value.
fn leading_blanks(text: &str, at: usize) -> usize {
    text[..at].lines().rev().take_while(|line| line.trim().is_empty()).count()
}

/// Columns before the content of a block: as its header says, or as its first line has them.
fn block_indent(text: &str, line: usize, header: &str) -> usize {
    let spaces = |line: &str| line.len() - line.trim_start_matches(' ').len();
    match header.chars().find_map(|c| c.to_digit(10)) {
        Some(digit) => {
            let above = text[..line].trim_end().lines().next_back().unwrap_or_default();
            spaces(above) + digit as usize
        }
        None => spaces(&text[line..]),
    }
}
