//! Ten graphs that break others, each with the log of its run as written down in `tests/golden/`: on virtual time, with replies
//! that take as long as their file says. `FLOWRUN_UPDATE=1` writes the logs anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use flowrun::{Flowrun, RunOptions, Scripted, Update};
use flowrun_engine::event::Writer;
use serde_json::Value;

const GRAPHS: usize = 10;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn workflows() -> Vec<PathBuf> {
    let all = fs::read_dir(folder("examples/flowcharts")).unwrap().map(|entry| entry.unwrap().path());
    let is_workflow = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.ends_with(".yaml") && !name.ends_with(".replies.yaml")
    };
    let mut found: Vec<PathBuf> = all.filter(is_workflow).collect();
    found.sort();
    found
}

/// One line per derived event: when, which step, what; and the output at the end.
async fn log(path: &Path) -> String {
    let replies = path.with_extension("replies.yaml");
    let mut builder = Flowrun::builder();
    if replies.exists() {
        builder = builder.model("default", Scripted::open(&replies).unwrap());
    }
    let flowrun = builder.build();
    let (checked, _) = flowrun.check_text(&path.to_string_lossy(), &fs::read_to_string(path).unwrap()).unwrap();
    let warnings: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    let only_races = warnings.iter().all(|warning| warning.contains("matter of timing"));
    assert!(only_races, "{}: {warnings:?}", path.display());
    let mut run = flowrun.start(&checked.workflow, Value::Null, RunOptions::default()).unwrap();
    let (mut text, mut writer) = (String::new(), Writer::default());
    while let Some(update) = run.next().await {
        let Update::Record(record) = update else { continue };
        let line = writer.json(&record);
        let kind = line["type"].as_str().unwrap();
        if ["run_started", "decided", "settled", "timer"].contains(&kind) {
            continue;
        }
        let details = ["attempt", "children", "winner", "pass", "end", "from", "state", "reason", "source", "status"];
        let mut shown: Vec<String> = details
            .iter()
            .filter_map(|key| line.get(*key).map(|value| format!("{key} {value}").replace('"', "")))
            .collect();
        shown.extend(line["error"]["code"].as_str().map(|code| format!("error {code}")));
        let shown = format!("{:>6} ms  {:<24} {kind} {}", record.time_us / 1_000, &*record.path, shown.join(", "));
        writeln!(text, "{}", shown.trim_end()).unwrap();
    }
    let outcome = run.outcome().await;
    writeln!(text, "output: {}", outcome.output.unwrap_or_default()).unwrap();
    text
}

#[tokio::test(start_paused = true)]
async fn the_logs_of_ten_graphs_are_as_written_down() {
    let all = workflows();
    assert_eq!(all.len(), GRAPHS);
    let update = std::env::var_os("FLOWRUN_UPDATE").is_some();
    for path in all {
        let found = log(&path).await;
        let golden = folder("tests/golden").join(path.file_name().unwrap()).with_extension("log");
        if update {
            fs::create_dir_all(golden.parent().unwrap()).unwrap();
            fs::write(&golden, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&golden).unwrap_or_default(), "{}", golden.display());
    }
}
