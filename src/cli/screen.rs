//! The live part of a terminal: lines that scroll away, and below them an area that is drawn anew in place.

use std::io::{self, Write};

use crate::render::fit;
use terminal_size::{Height, Width, terminal_size_of};

use super::paint;

/// What stands at the lower end of the terminal.
#[derive(Default)]
pub(super) struct Screen {
    /// How many lines the area has; the cursor is at the end of the last one.
    drawn: usize,
}

/// Columns and rows of the terminal now.
pub(super) fn size() -> (usize, usize) {
    let known = terminal_size_of(io::stderr());
    known.map_or((80, 24), |(Width(columns), Height(rows))| (usize::from(columns).max(20), usize::from(rows).max(4)))
}

impl Screen {
    /// Writes lines that fit above the area and draws the area.
    ///
    /// Only lines of its own are ever erased: where a terminal that was made much narrower has broken the area into more rows
    /// than it was drawn in, the first of them stay behind.
    pub(super) fn draw(&mut self, lines: &[String], area: &[String], columns: usize) {
        if lines.is_empty() && area.is_empty() && self.drawn == 0 {
            return;
        }
        let up = self.drawn.saturating_sub(1);
        let mut text = "\r".to_owned();
        if up > 0 {
            text.push_str(&format!("\u{1b}[{up}A"));
        }
        let coloured = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
        // Each row is emptied before it is written, so that nothing flickers; what is left below is emptied at the end.
        for line in lines {
            text.push_str("\u{1b}[K");
            text.push_str(&if coloured { paint(line) } else { line.clone() });
            text.push('\n');
        }
        let area: Vec<String> = area.iter().map(|line| format!("\u{1b}[K{}", fit(line, columns - 1))).collect();
        text.push_str(&area.join("\n"));
        text.push_str("\u{1b}[J");
        self.drawn = area.len();
        let mut terminal = io::stderr().lock();
        // Without anybody to look at it there is nothing left to draw.
        let _gone = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
    }
}
