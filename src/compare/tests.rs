//! Small logs for tests.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use flowrun_engine::event::Logged;

use crate::runs::RunLog;

/// A run out of events (microseconds, path, the rest of the line) and values by what stands for their hashes. The path `-` is the run.
pub(crate) fn log(events: &[(u64, &str, Value)], values: &[(&str, Value)]) -> RunLog {
    let line = |(seq, (us, step, rest)): (usize, &(u64, &str, Value))| {
        let mut line = json!({"v": 1, "seq": seq, "us": us});
        let fields = line.as_object_mut().unwrap();
        if *step != "-" {
            fields.insert("step".to_owned(), json!(step));
        }
        fields.extend(rest.as_object().unwrap().clone());
        Logged::parse(&line.to_string()).unwrap()
    };
    RunLog {
        id: "run-1".to_owned(),
        workflow: "w".to_owned(),
        started: "2026-01-01T00:00:00Z".to_owned(),
        events: events.iter().enumerate().map(line).collect(),
        values: values.iter().map(|(hash, value)| ((*hash).to_owned(), value.clone())).collect::<BTreeMap<_, _>>(),
        running_us: None,
        damage: None,
    }
}
