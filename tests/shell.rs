//! Completions and manual pages, read by the programs that they are for. A program that is not installed is skipped, said loudly.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

fn flowrun(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flowrun")).args(arguments).output().unwrap()
}

/// Output of a program; `None` if it is not installed.
fn output(program: &str, arguments: &[&str], file: &Path) -> Option<Output> {
    match Command::new(program).args(arguments).arg(file).env("LC_ALL", "C.UTF-8").output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Written past the capture of the test runner, which shows only what failing tests print.
            let _unseen = writeln!(std::io::stderr(), "SKIPPED: no `{program}` to read {}", file.display());
            None
        }
        output => Some(output.unwrap()),
    }
}

#[test]
fn completions_have_no_syntax_errors() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = flowrun(&["completions", shell]).stdout;
        let text = String::from_utf8_lossy(&script);
        for word in ["flowrun", "save-plan", "schema"] {
            assert!(text.contains(word), "{shell}: no `{word}`");
        }
        let file = folder.path().join(shell);
        fs::write(&file, &script).unwrap();
        if let Some(read) = output(shell, &["-n"], &file) {
            assert!(read.status.success() && read.stderr.is_empty(), "{shell}: {read:?}");
        }
    }
}

#[test]
fn bash_completes_commands_options_and_files() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.yaml"), "").unwrap();
    fs::write(folder.path().join("completions"), flowrun(&["completions", "bash"]).stdout).unwrap();
    let check = |words: &str, expected: &str| {
        let script = format!(
            "cd '{}' && . ./completions\nCOMP_WORDS=({words})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _flowrun flowrun \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\necho \"${{COMPREPLY[*]}}\"\n",
            folder.path().display()
        );
        let file = folder.path().join("ask");
        fs::write(&file, script).unwrap();
        let Some(read) = output("bash", &["--norc"], &file) else { return };
        let replies = String::from_utf8(read.stdout).unwrap();
        assert!(
            replies.split_whitespace().any(|word| word == expected),
            "{words}: {replies} {read:?}",
            read = read.stderr
        );
    };
    check("flowrun sch", "schema");
    check("flowrun run --save", "--save-plan");
    check("flowrun check --format js", "json");
    check("flowrun run x.yaml --input-file mi", "mine.yaml");
}

#[test]
fn manual_pages_render() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("pages");
    assert!(flowrun(&["man", pages.to_str().unwrap()]).status.success());
    let mut names: Vec<_> = fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() > 10 && names.contains(&pages.join("flowrun-run.1")), "{names:?}");
    let main = flowrun(&["man"]).stdout;
    assert_eq!(fs::read(pages.join("flowrun.1")).unwrap(), main);
    for page in &names {
        for (program, arguments) in [("man", &["--warnings=w", "-l"][..]), ("groff", &["-k", "-man", "-Tutf8", "-ww"])]
        {
            let Some(read) = output(program, arguments, page) else { continue };
            let is_clean = read.status.success() && read.stderr.is_empty() && read.stdout.len() > 300;
            assert!(is_clean, "{program} {}: {read:?}", page.display());
        }
    }
    let refused = flowrun(&["man", "Cargo.toml/pages"]);
    assert_eq!(refused.status.code(), Some(2));
}
