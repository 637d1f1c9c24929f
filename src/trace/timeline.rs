//! A trace as bars on a common time axis: what ran at the same time, what waited, and what decided how long it took.
//!
//! ```text
//!             0         20 ms     40 ms     60 ms
//!             ├─────────┼─────────┼─────────┼────
//! ✓ parts     ████                                      7.8 ms
//! ✓ details       ├───────────────────────────┤          61 ms
//!   ✓ [0]         █████████████████████████████          61 ms
//!   ✓ [1]         ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒                        31 ms
//! ```
//!
//! A frame is a bracket around its steps. Of a step with many children those that matter are rows (failed, critical, or the
//! longest); the others are one row together, whose height says how many of them ran. O(steps × width).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{Attempt, Trace, TraceStep, duration, most_at_once, thousands};
use crate::render::{clean, fit};

/// Children of one step that are all rows.
const CHILDREN_MAX: usize = 20;
/// Rows of a step that has more.
const CHOSEN: usize = 12;
/// Rows of a timeline; what is left is the last one.
const ROWS_MAX: usize = 200;
/// Running, on the critical path.
const CRITICAL: char = '█';
/// Running.
const RUNNING: char = '▒';
/// Ready, without room to run.
const WAITING: char = '·';
/// Between two attempts.
const BACKOFF: char = '~';
/// Its value was found.
const FOUND: char = '◆';
/// How many of the steps of a row ran, from few to most.
const HEIGHTS: [char; 7] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇'];

enum Row {
    Step { at: usize, depth: usize },
    Folded { steps: Vec<usize>, depth: usize },
}

/// What stands in a row: name, bar, and what is said to the right.
struct Line {
    name: String,
    bar: String,
    note: String,
}

/// From times to columns.
struct Axis {
    from: u64,
    to: u64,
    columns: usize,
}

impl Axis {
    fn column(&self, us: u64) -> usize {
        let (span, at) = ((self.to - self.from).max(1), us.clamp(self.from, self.to) - self.from);
        ((u128::from(at) * self.columns as u128 / u128::from(span)) as usize).min(self.columns - 1)
    }

    /// Columns between two times, at least one.
    fn cells(&self, start: u64, end: u64) -> std::ops::RangeInclusive<usize> {
        self.column(start)..=self.column(end.saturating_sub(1).max(start))
    }

    /// The two lines of the scale: times, and a rule with a tick below each.
    fn scale(&self) -> [String; 2] {
        let room = (self.columns / 8).clamp(2, 10) as u64;
        let wanted = ((self.to - self.from) / room).max(1);
        let ten = 10_u64.pow(wanted.ilog10());
        let step = [1, 2, 5, 10].map(|by| by * ten).into_iter().find(|step| *step >= wanted).unwrap_or(wanted);
        let (mut times, mut rule) = (vec![' '; self.columns], vec!['─'; self.columns]);
        let mut free = 0;
        for tick in (self.from.div_ceil(step)..).map(|n| n * step).take_while(|tick| *tick <= self.to) {
            let at = self.column(tick);
            rule[at] = if at == 0 { '├' } else { '┼' };
            let text = if tick == 0 { "0".to_owned() } else { duration(tick) };
            let fits = at >= free && at + text.chars().count() <= self.columns;
            for (offset, c) in text.chars().enumerate().filter(|_| fits) {
                times[at + offset] = c;
                free = at + offset + 2;
            }
        }
        [times, rule].map(|line| line.into_iter().collect())
    }
}

impl Trace {
    /// The steps below `roots` as bars, `width` columns wide.
    pub fn timeline(&self, width: usize) -> String {
        let width = width.max(30);
        let rows = self.rows();
        let names = rows.iter().map(|row| self.name(row).chars().count()).max().unwrap_or(0).clamp(4, width / 3);
        let notes = rows.iter().map(|row| self.note(row).chars().count()).max().unwrap_or(0).min(width / 3);
        let axis =
            Axis { from: self.from_us, to: self.until_us.max(self.from_us + 1), columns: width - names - notes - 2 };
        let mut text = String::new();
        let [times, rule] = axis.scale();
        let head = |bar: String| Line { name: String::new(), bar, note: String::new() };
        let body =
            rows.iter().map(|row| Line { name: self.name(row), bar: self.bar(row, &axis), note: self.note(row) });
        for Line { name, bar, note } in [head(times), head(rule)].into_iter().chain(body) {
            let line = format!("{:<names$} {bar:<columns$} {note:>notes$}", fit(&name, names), columns = axis.columns);
            let _ = writeln!(text, "{}", fit(line.trim_end(), width));
        }
        self.totals(width, &mut text);
        text
    }

    /// What the bars come to, as numbers.
    fn totals(&self, width: usize, text: &mut String) {
        let attempts = || self.attempts_of(&self.roots);
        let took = |attempt: &Attempt| attempt.ended_us.unwrap_or(self.until_us).saturating_sub(attempt.started_us);
        let (wall, work) = (self.until_us.saturating_sub(self.from_us), attempts().map(took).sum());
        let path = self.critical_path();
        let critical: u64 = path.iter().filter_map(|at| self.steps[*at].duration_us()).sum();
        let average = work as f64 / wall.max(1) as f64;
        let facts = [
            format!("wall {}", duration(wall)),
            format!("critical path {} ({:.0} %)", duration(critical), 100.0 * critical as f64 / wall.max(1) as f64),
            format!("all steps {}", duration(work)),
            format!("at once {average:.1} on average, {} at most", most_at_once(attempts(), self.until_us)),
        ];
        let mut legend = vec![
            format!("{CRITICAL} critical path"),
            format!("{RUNNING} running"),
            format!("{WAITING} waiting for room"),
            format!("{BACKOFF} before another attempt"),
        ];
        legend.extend(self.shown().iter().any(|step| step.found.is_some()).then(|| format!("{FOUND} found, not run")));
        text.push('\n');
        wrap(&legend, "   ", width, text);
        wrap(&facts, "; ", width, text);
        let names: Vec<String> = path.iter().map(|at| clean(&self.steps[*at].path)).collect();
        let chain = match names.as_slice() {
            [first @ .., last] if first.len() > 8 => {
                format!("{} → … {} more … → {last}", first[..4].join(" → "), thousands(first.len() as u64 - 4))
            }
            names => names.join(" → "),
        };
        if !chain.is_empty() {
            let words: Vec<String> = format!("critical path: {chain}").split(' ').map(str::to_owned).collect();
            wrap(&words, " ", width, text);
        }
    }

    /// Whether a step has a bar, or an end that somebody will ask about.
    fn has_row(&self, at: usize) -> bool {
        let step = &self.steps[at];
        step.is_leaf() || step.started_us.is_some() || step.found.is_some() || step.state != "succeeded"
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut stack = Vec::new();
        self.push(&self.roots, 0, &mut stack);
        while let Some(row) = stack.pop() {
            if rows.len() + 1 >= ROWS_MAX && !stack.is_empty() {
                let rest = std::iter::once(row).chain(stack.drain(..).rev());
                let steps = rest.flat_map(|row| match row {
                    Row::Step { at, .. } => vec![at],
                    Row::Folded { steps, .. } => steps,
                });
                rows.push(Row::Folded { steps: steps.collect(), depth: 0 });
                break;
            }
            if let Row::Step { at, depth } = row {
                self.push(&self.steps[at].children, depth + 1, &mut stack);
            }
            rows.push(row);
        }
        rows
    }

    /// The rows of children, the last one first.
    fn push(&self, children: &[usize], depth: usize, stack: &mut Vec<Row>) {
        let children: Vec<usize> = children.iter().copied().filter(|at| self.has_row(*at)).collect();
        let mut chosen: BTreeSet<usize> = children.iter().copied().collect();
        if children.len() > CHILDREN_MAX {
            let failed = |at: usize| self.steps[at].state == "failed";
            let critical = |at: usize| self.below(at).any(|at| self.steps[at].critical);
            let mut ranked: Vec<_> =
                children.iter().map(|at| (critical(*at), failed(*at), self.steps[*at].duration_us(), *at)).collect();
            ranked.sort_unstable_by(|one, other| other.cmp(one));
            let failures = ranked.iter().filter(|(_, failed, ..)| *failed).take(CHOSEN / 2);
            chosen = failures.map(|(.., at)| *at).collect();
            for (.., at) in ranked.iter().filter(|(_, failed, ..)| !failed) {
                if chosen.len() < CHOSEN {
                    chosen.insert(*at);
                }
            }
        }
        let steps: Vec<usize> = children.iter().copied().filter(|at| !chosen.contains(at)).collect();
        if !steps.is_empty() {
            stack.push(Row::Folded { steps, depth });
        }
        stack.extend(chosen.into_iter().rev().map(|at| Row::Step { at, depth }));
    }

    fn name(&self, row: &Row) -> String {
        match row {
            Row::Step { at, depth } => {
                let step = &self.steps[*at];
                format!("{}{} {}", "  ".repeat(*depth), step.mark(), clean(step.label(*depth)))
            }
            Row::Folded { steps, depth } => format!("{}{} more", "  ".repeat(*depth), thousands(steps.len() as u64)),
        }
    }

    fn note(&self, row: &Row) -> String {
        match row {
            Row::Step { at, .. } => self.took_us(&self.steps[*at]).map(duration).unwrap_or_default(),
            Row::Folded { steps, .. } => format!("{} at once", most_at_once(self.attempts_of(steps), self.until_us)),
        }
    }

    fn attempts_of<'a>(&'a self, steps: &'a [usize]) -> impl Iterator<Item = &'a Attempt> {
        steps.iter().flat_map(|at| self.below(*at)).flat_map(|at| &self.steps[at].attempts)
    }

    fn bar(&self, row: &Row, axis: &Axis) -> String {
        match row {
            Row::Step { at, .. } => self.step_bar(&self.steps[*at], axis),
            Row::Folded { steps, .. } => self.heights(steps, axis),
        }
    }

    fn step_bar(&self, step: &TraceStep, axis: &Axis) -> String {
        let mut cells = vec![' '; axis.columns];
        let end = step.ended_us.unwrap_or(self.until_us);
        if let (false, Some(start)) = (step.is_leaf(), step.started_us) {
            let (start, end) = (axis.column(start), *axis.cells(start, end).end());
            cells[start..=end].fill('─');
            (cells[start], cells[end]) = if start == end { ('│', '│') } else { ('├', '┤') };
            return cells.into_iter().collect();
        }
        let mut fill = |start: u64, end: u64, glyph: char| {
            if start < end || [CRITICAL, RUNNING].contains(&glyph) {
                cells[axis.cells(start, end)].fill(glyph);
            }
        };
        for pair in step.attempts.windows(2) {
            fill(pair[0].ended_us.unwrap_or(pair[1].ready_us), pair[1].ready_us, BACKOFF);
        }
        step.attempts.iter().for_each(|attempt| fill(attempt.ready_us, attempt.started_us, WAITING));
        if let Some(ready) = step.ready_us {
            fill(ready, end, WAITING);
        }
        let glyph = if step.critical { CRITICAL } else { RUNNING };
        step.attempts.iter().for_each(|attempt| fill(attempt.started_us, attempt.ended_us.unwrap_or(end), glyph));
        if ["failed", "suspended"].contains(&step.state.as_str()) || !step.is_leaf() {
            cells[axis.column(end.saturating_sub(1))] = step.mark();
        }
        if let Some(found) = &step.found {
            cells[axis.column(end.saturating_sub(1))] = FOUND;
            return beside(&cells.into_iter().collect::<String>(), found.word());
        }
        let bar: String = cells.into_iter().collect();
        step.why.as_ref().map_or(bar.clone(), |why| beside(&bar, &clean(why)))
    }

    /// How many of the steps ran in each column, on average.
    fn heights(&self, steps: &[usize], axis: &Axis) -> String {
        let mut busy: BTreeMap<usize, u64> = BTreeMap::new();
        let (span, columns) = (axis.to - axis.from, axis.columns as u64);
        let begin = |column: usize| axis.from + span * column as u64 / columns;
        for attempt in self.attempts_of(steps) {
            let end = attempt.ended_us.unwrap_or(self.until_us);
            for column in axis.cells(attempt.started_us, end) {
                let within = end.min(begin(column + 1)).saturating_sub(attempt.started_us.max(begin(column)));
                *busy.entry(column).or_default() += within.max(1);
            }
        }
        let most = busy.values().copied().max().unwrap_or(1);
        let height = |time: &u64| HEIGHTS[(time * HEIGHTS.len() as u64).div_ceil(most) as usize - 1];
        (0..axis.columns).map(|column| busy.get(&column).map_or(' ', height)).collect()
    }
}

/// A bar with a text on the side of it that has more room, if there is any to speak of.
fn beside(bar: &str, text: &str) -> String {
    let (before, drawn) = (bar.len() - bar.trim_start().len(), bar.trim());
    let after = bar.chars().count() - before - drawn.chars().count();
    match (before.max(after), before > after) {
        (0..8, _) => bar.to_owned(),
        (room, true) => format!("{:>width$} {drawn}", fit(text, room - 1), width = room - 1),
        (room, false) => format!("{}{drawn} {}", " ".repeat(before), fit(text, room - 1)),
    }
}

/// Joins parts into lines of at most `width` columns.
fn wrap(parts: &[String], between: &str, width: usize, text: &mut String) {
    let mut used = 0;
    for part in parts {
        let columns = part.chars().count();
        if used > 0 && used + between.len() + columns > width {
            text.push('\n');
            used = 0;
        } else if used > 0 {
            text.push_str(between);
            used += between.len();
        }
        text.push_str(fit(part, width));
        used += columns;
    }
    text.push('\n');
}
