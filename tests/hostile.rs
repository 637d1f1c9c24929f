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
    use std::sync::Arc;

    use flowrun::engine::id::ValueHash;
    use flowrun::engine::store::{Memory, RunInfo, Store, Transaction};
    use flowrun::runs::Runs;

    const LOG: &str = include_str!("../fuzz/corpus/log/run.jsonl");

    fn record(lines: String, value: &str) -> Runs {
        let store = Memory::default();
        let (id, workflow, origin) = ("r1".to_owned(), "w".to_owned(), serde_json::Value::Null);
        store.begin(&RunInfo { id, workflow, started_ms: 0, origin, summary: None }).unwrap();
        let values = vec![(ValueHash::of_bytes(b"ok"), value.into())];
        let transaction = Transaction { run: "r1".into(), first: 0, lines, values, entries: Vec::new(), summary: None };
        store.append(transaction, Box::new(|kept| kept.unwrap()));
        Runs::new(Arc::new(store))
    }

    #[test]
    fn a_record_is_read_as_far_as_it_stands() {
        let log = LOG.replace("down", "därniéder 日本");
        let value = r#"{"value":"ünï"}"#;
        for end in 0..=log.len() {
            let bytes = &log.as_bytes()[..end];
            let cut = &value.as_bytes()[..value.len() * end / log.len()];
            let runs = record(String::from_utf8_lossy(bytes).into_owned(), &String::from_utf8_lossy(cut));
            let run = runs.find("r1").unwrap();
            let read = runs.load(&run).unwrap_or_else(|error| panic!("cut at {end}: {error}"));
            let begun = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
            let whole = log[..].match_indices('\n').filter(|(at, _)| *at <= end).count();
            assert_eq!((read.events.len(), read.damage.is_some()), (whole, begun > whole), "cut at {end}");
            let value = read.value(&ValueHash::of_bytes(b"ok").to_string());
            assert_eq!(value.is_some(), end == log.len(), "the value cut at {end}");
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
