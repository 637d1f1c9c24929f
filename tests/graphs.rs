//! Drawn graphs as they are written down: each workflow in `tests/graphs/` with its Mermaid and Graphviz text beside it.
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
    let mut cases: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    assert!(cases.len() >= 3, "the cases are missing");
    let mut wrong = Vec::new();
    for (case, format) in cases.iter().flat_map(|case| [(case, "mermaid"), (case, "dot")]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowrun"));
        let output = command.arg("graph").arg(case).args(["--format", format]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}: {}", case.display(), String::from_utf8_lossy(&output.stderr));
        let expected = case.with_extension(format);
        if std::env::var_os("FLOWRUN_UPDATE").is_some() {
            fs::write(&expected, &text).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "these texts differ:\n{}", wrong.join("\n"));
}
