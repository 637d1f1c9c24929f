//! Drawn graphs as they are written down: each workflow in `tests/graphs/` and each flowchart of the examples, with what the
//! terminal shows and its Mermaid and Graphviz text in `tests/graphs/`.
//!
//! `FLOWRUN_UPDATE=1 cargo test --test main graphs` writes the texts anew; read the difference as a user would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/graphs")
}

#[test]
fn graphs_are_drawn_as_written_down() {
    let examples = folder().join("../../examples/flowcharts");
    let files = [folder(), examples].map(|folder| fs::read_dir(folder).unwrap());
    let mut cases: Vec<PathBuf> = files.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.retain(|path| !path.to_string_lossy().ends_with(".replies.yaml"));
    cases.sort();
    assert!(cases.len() >= 13, "the cases are missing");
    let mut wrong = Vec::new();
    for (case, format) in cases.iter().flat_map(|case| ["text", "mermaid", "dot"].map(|format| (case, format))) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowrun"));
        let output = command.env("COLUMNS", "100").arg("graph").arg(case).args(["--format", format]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}: {}", case.display(), String::from_utf8_lossy(&output.stderr));
        let ending = if format == "text" { "txt" } else { format };
        let expected = folder().join(case.file_stem().unwrap()).with_extension(ending);
        if std::env::var_os("FLOWRUN_UPDATE").is_some() {
            fs::write(&expected, &text).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "these texts differ:\n{}", wrong.join("\n"));
}
