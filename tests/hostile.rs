//! Logs of any origin, cut and changed: read as far as they stand, and shown without a panic.
//!
//! The fuzz target `log` calls [`trace`] with texts of its own.

use flowrun::engine::testing::readers;
use flowrun::trace::Trace;

/// Reads a text as a log and shows it in every form: nothing of it reaches the terminal but visible characters.
pub(super) fn trace(text: &str) {
    let events = readers::log(text);
    let mut whole = Trace::new(&events);
    show(&whole);
    if let Some(at) = whole.steps.len().checked_sub(1) {
        whole.only(at);
        show(&whole);
    }
}

fn show(trace: &Trace) {
    for shown in [trace.tree(30), trace.tree(100), trace.timeline(30), trace.timeline(100)] {
        let steers = shown.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(steers, None, "in {shown:?}");
    }
    assert!(trace.chrome("run")["traceEvents"].is_array());
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use flowrun::runs::Runs;

    const LOG: &str = include_str!("../fuzz/corpus/log/run.jsonl");

    fn record(folder: &Path, events: &[u8], values: &[u8]) {
        let run = folder.join("r1");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("run.json"), r#"{"format":1,"id":"r1","workflow":"w","started":"2026-01-01T00:00:00Z"}"#)
            .unwrap();
        fs::write(run.join("events.jsonl"), events).unwrap();
        fs::write(run.join("values.jsonl"), values).unwrap();
    }

    #[test]
    fn a_record_is_read_as_far_as_it_stands() {
        let place = tempfile::tempdir().unwrap();
        let runs = Runs::open(place.path());
        let log = LOG.replace("down", "därniéder 日本");
        let values = "{\"hash\":\"00\",\"value\":\"ünï\"}\n";
        for end in 0..=log.len() {
            let events = &log.as_bytes()[..end];
            let cut = values.len() * end / log.len();
            record(place.path(), events, &values.as_bytes()[..cut]);
            let read = runs.load("r1", true).unwrap_or_else(|error| panic!("cut at {end}: {error}"));
            let begun = events.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
            let whole = log[..].match_indices('\n').filter(|(at, _)| *at <= end).count();
            assert_eq!((read.events.len(), read.damage.is_some()), (whole, begun > whole), "cut at {end}");
            assert_eq!(read.values.len(), usize::from(cut + 1 >= values.len()), "values cut at {cut}");
            assert_eq!(read.summary().status == "failed", whole == log.lines().count());
        }
    }

    #[test]
    fn any_number_in_a_log_can_be_shown() {
        let numbers = |text: &str| -> Vec<std::ops::Range<usize>> {
            let is_number = |at: &usize| text.as_bytes()[*at].is_ascii_digit() && text.as_bytes()[*at - 1] == b':';
            let end = |at: usize| at + text[at..].find(|c: char| !c.is_ascii_digit()).unwrap();
            (1..text.len()).filter(is_number).map(|at| at..end(at)).collect()
        };
        for range in numbers(LOG) {
            for number in ["0", "-1", "18446744073709551615", "null", "[]"] {
                let mut text = LOG.to_owned();
                text.replace_range(range.clone(), number);
                super::trace(&text);
            }
        }
        for number in ["18446744073709551615", "1e308"] {
            let all = numbers(LOG).into_iter().rev().filter(|range| !LOG[..range.start].ends_with("\"v\":"));
            let mut text = LOG.to_owned();
            all.for_each(|range| text.replace_range(range, number));
            super::trace(&text);
        }
    }

    #[test]
    fn lines_of_a_log_in_any_order_can_be_shown() {
        let lines: Vec<&str> = LOG.lines().collect();
        for from in 0..lines.len() {
            for to in 0..lines.len() {
                let mut moved = lines.clone();
                let line = moved.remove(from);
                moved.insert(to, line);
                super::trace(&moved.join("\n"));
            }
        }
    }
}
