//! The README and the book: what they show is what happens.
//!
//! Every `yaml` block with `flowrun: 1` is checked and run; every `console` block is a session that is played and compared; the
//! commands of `sh` blocks and of the text must parse. Comments in the line above a block say what else is meant:
//!
//! | comment | meaning |
//! |---|---|
//! | `<!-- replies: [{match: a, reply: b}] -->` | the scripted model; otherwise one that gives what the schema asks for |
//! | `<!-- tools: {NAME: VALUE} -->` | the tools there are, each with the value that it gives |
//! | `<!-- gives: JSON -->` | the output of the run |
//! | `<!-- ends: WORD -->` | the status of the run, if it is not `success` |
//! | `<!-- refused: FR020 -->` | the checker refuses it with this code |
//! | `<!-- warned: FR103 -->` | the checker warns with this code |
//! | `<!-- file: NAME -->` | the sessions below find the block as a file |
//! | `<!-- until: TEXT -->` | what follows a command that ends in `&` is played again until it shows this; `kill -9 $!` ends that one |
//!
//! `FLOWRUN_UPDATE=1 cargo test --test main docs` writes what the sessions print anew. Read it before committing.

mod options;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use async_trait::async_trait;
use flowrun::cost::Cost;
use flowrun::{
    Builder, CallContext, ChatReply, ChatRequest, Flowrun, LoadError, Model, RunOptions, Scripted, Source, StepError,
    Usage, tool_fn,
};
use flowrun_engine::definition::read_configuration;
use flowrun_engine::dialect::Plan;
use serde_json::{Map, Value, json};

/// A fenced block of a page.
#[derive(Clone)]
pub(crate) struct Block {
    /// Page, from the project's root.
    pub(crate) page: String,
    /// The last heading above it.
    pub(crate) heading: String,
    /// Page and line, for messages.
    pub(crate) place: String,
    /// What is written after the fence: `yaml`, `sh`, …
    pub(crate) language: String,
    pub(crate) text: String,
    /// The comments in the lines above it.
    comments: Vec<(String, String)>,
}

impl Block {
    fn comment(&self, name: &str) -> Option<&str> {
        self.comments.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The code that refuses the block, or that it is a warning of.
    fn code(&self) -> Option<&str> {
        let codes = self.page == "docs/diagnostics.md" && self.heading.starts_with("FR");
        self.comment("refused").or(self.comment("warned")).or(codes.then_some(self.heading.as_str()))
    }

    fn is_workflow(&self) -> bool {
        self.language == "yaml" && (self.text.contains("flowrun: 1\n") || self.code().is_some())
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and every page of the book: name and text.
pub(crate) fn pages() -> Vec<(String, String)> {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().display().to_string().replace('\\', "/");
    pages.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The fenced blocks of every page.
pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (page, text) in pages() {
        let (mut open, mut heading, mut comments) = (false, String::new(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            let fence = line.strip_prefix("```");
            let comment = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->"));
            match (open, fence) {
                (true, None) => {
                    let block = blocks.last_mut().unwrap();
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (true, Some(_)) => open = false,
                (false, Some(language)) => {
                    open = true;
                    blocks.push(Block {
                        page: page.clone(),
                        heading: heading.clone(),
                        place: format!("{page}:{}", number + 1),
                        language: language.to_owned(),
                        text: String::new(),
                        comments: std::mem::take(&mut comments),
                    });
                }
                (false, None) => {
                    if let Some((name, value)) = comment.and_then(|comment| comment.split_once(": ")) {
                        comments.push((name.to_owned(), value.to_owned()));
                    } else {
                        comments.clear();
                    }
                    if let Some(text) = line.strip_prefix('#') {
                        heading = text.trim_start_matches('#').trim().to_owned();
                    }
                }
            }
        }
        assert!(!open, "{page}: a block is not closed");
    }
    blocks
}

/// A model that answers with the least that fits the schema, and without one with the number 7. Its plans have no steps.
struct Obliging;

#[async_trait]
impl Model for Obliging {
    async fn chat(&self, request: &ChatRequest, _: &CallContext) -> Result<ChatReply, StepError> {
        let text = match &request.json_schema {
            Some(schema) if schema["properties"]["steps"].is_object() => json!({"steps": []}).to_string(),
            Some(schema) => fitting(schema).to_string(),
            None => "7".to_owned(),
        };
        let usage = Usage { calls: 1, ..Usage::default() };
        Ok(ChatReply { text, usage, finish_reason: Some("stop".to_owned()) })
    }

    fn name(&self) -> String {
        "obliging".to_owned()
    }
}

/// The least that fits a schema of the short form.
fn fitting(schema: &Value) -> Value {
    if let Some(choices) = schema["enum"].as_array().or(schema["anyOf"].as_array()) {
        return if schema["enum"].is_array() { choices[0].clone() } else { fitting(&choices[0]) };
    }
    match schema["type"].as_str() {
        Some("integer" | "number") => json!(7),
        Some("boolean") => json!(true),
        Some("array") => json!([fitting(&schema["items"])]),
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| (name.to_owned(), fitting(&schema["properties"][name]))).collect::<Map<_, _>>().into()
        }
        _ => json!("7"),
    }
}

/// The models and the tools of a block: `replies` are a script, `tools` give one value each.
fn flowrun_for(block: &Block) -> Flowrun {
    let builder = match block.comment("replies") {
        Some(script) => {
            let model = Scripted::parse(&block.place, script).unwrap_or_else(|why| panic!("{}: {why}", block.place));
            Flowrun::builder().model("default", model)
        }
        None => Flowrun::builder().model("default", Obliging),
    };
    let tools = block.comment("tools").map(|tools| Source::parse(&block.place, tools).unwrap().1);
    let tools = tools.as_ref().and_then(Value::as_object).into_iter().flatten();
    let add = |builder: Builder, (name, value): (&String, &Value)| {
        let value = value.clone();
        builder.tool(name, tool_fn("gives what the page says", move |_| std::future::ready(Ok(value.clone()))))
    };
    tools.fold(builder, add).build()
}

#[tokio::test]
async fn every_workflow_of_the_docs_runs_or_is_refused_as_said() {
    let (mut ran, mut refused) = (0, 0);
    for block in blocks().into_iter().filter(Block::is_workflow) {
        let flowrun = flowrun_for(&block);
        // A control character cannot be shown as it is.
        let text = block.text.replace("<0x00>", "\0");
        let parsed = flowrun.check_text("block.yaml", &text);
        let (workflow, codes) = match parsed {
            Ok((checked, _)) => {
                let codes: Vec<&str> = checked.warnings.iter().map(|problem| problem.code.0).collect();
                (Some(checked.workflow), codes)
            }
            Err(LoadError::Refused { diagnostics, .. }) => {
                (None, diagnostics.iter().map(|found| found.code.0).collect())
            }
            Err(other) => panic!("{}: {other}", block.place),
        };
        let expected = block.code();
        assert_eq!(expected.is_some(), !codes.is_empty(), "{}: {codes:?}", block.place);
        assert!(expected.is_none_or(|code| codes.contains(&code)), "{}: {codes:?}", block.place);
        let Some(workflow) = workflow else {
            refused += 1;
            continue;
        };
        let required = workflow.graph.inputs.iter().flatten().filter(|(_, input)| input.default.is_none());
        let inputs: Map<String, Value> =
            required.map(|(name, input)| (name.clone(), fitting(input.schema.json_schema()))).collect();
        let cost = Cost::of(&workflow, flowrun.kinds().specs(), &inputs).unwrap();
        let outcome = flowrun.run(&workflow, Value::Object(inputs), RunOptions::default()).await.unwrap();
        let (calls, leaves) = (u128::from(outcome.usage.calls), u128::from(outcome.steps));
        assert!(
            calls <= cost.calls_with_retries.most && leaves <= cost.steps.most,
            "{}: {outcome:?} {cost:?}",
            block.place
        );
        let ends = block.comment("ends").unwrap_or("success");
        assert_eq!(outcome.status.word(), ends, "{}: {outcome:?}", block.place);
        if let Some(gives) = block.comment("gives") {
            let gives: Value = serde_json::from_str(gives).unwrap_or_else(|why| panic!("{}: {why}", block.place));
            assert_eq!(outcome.output, Some(gives), "{}", block.place);
        }
        ran += 1;
    }
    assert!(ran > 15 && refused > 15, "only {ran} blocks ran and {refused} were refused");
}

#[test]
fn every_block_of_data_can_be_read() {
    for block in blocks().into_iter().filter(|block| block.language == "json") {
        let value: Value = serde_json::from_str(&block.text).unwrap_or_else(|why| panic!("{}: {why}", block.place));
        if value["steps"].is_array() {
            let lowered = Plan::from_value(&value).and_then(|plan| plan.lower(&[]));
            assert!(lowered.is_ok(), "{}: {lowered:?}", block.place);
        }
    }
    for block in blocks().into_iter().filter(|block| block.language == "yaml" && !block.is_workflow()) {
        let problem = match block.text.starts_with("- ") {
            true => Scripted::parse(&block.place, &block.text).err(),
            false => read_configuration(&block.place, &block.text).err().map(|problems| problems[0].to_string()),
        };
        assert_eq!(problem, None, "{}", block.place);
    }
}

/// A command line of a session, ready to run: both streams go where a terminal would show them.
fn shell(folder: &Path, line: &str, shown: &Path) -> Command {
    let binaries = Path::new(env!("CARGO_BIN_EXE_flowrun")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(binaries.to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let out = fs::File::create(shown).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder).env("PATH", path.unwrap()).env("NO_COLOR", "1").stdin(Stdio::null());
    for name in ["OPENAI_BASE_URL", "OPENAI_API_KEY", "FLOWRUN_MODEL", "FLOWRUN_DB", "RUST_LOG"] {
        command.env_remove(name);
    }
    let errors = out.try_clone().unwrap();
    command.stdout(out).stderr(errors);
    command
}

/// Plays a session's commands one after the other.
struct Session<'a> {
    folder: &'a Path,
    /// What must be seen of a command in the background before it goes on.
    until: Option<&'a str>,
    background: Option<Child>,
}

impl Session<'_> {
    fn play(&mut self, line: &str) -> String {
        if let Some(line) = line.strip_suffix(" &") {
            let command = format!("exec {line}");
            self.background = Some(shell(self.folder, &command, &self.folder.join(".background")).spawn().unwrap());
            return String::new();
        }
        if line == "kill -9 $!" {
            let mut killed = self.background.take().expect("nothing goes on in the background");
            killed.kill().unwrap();
            assert!(!killed.wait().unwrap().success(), "it had ended before it was killed");
            return String::new();
        }
        let until = self.until.filter(|_| self.background.is_some());
        loop {
            let shown = self.folder.join(".shown");
            shell(self.folder, line, &shown).status().unwrap();
            let shown = fs::read_to_string(shown).unwrap();
            let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
            if until.is_none_or(|until| shown.contains(until)) || self.background.as_mut().is_none_or(ended) {
                return shown;
            }
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(mut left) = self.background.take() {
            let _ended = left.kill();
            let _ended = left.wait();
        }
    }
}

/// What a session shows, without what differs from run to run: times, ids of runs, keys, numbers of events, and the order of what happens at once.
fn essence(shown: &str) -> Vec<String> {
    let line = |line: &str| {
        let mut words: Vec<String> = Vec::new();
        for word in line.split_whitespace() {
            let bare = word.trim_end_matches([',', ':', ')', ';']);
            let is_number =
                |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let is_time = ["ms", "s"].contains(&bare)
                && words.last().is_some_and(|last| is_number(last.trim_matches(['(', '+', '@'])));
            let is_id = bare.matches('-').count() == 3 && bare.split('-').take(3).all(is_number);
            let is_moment = bare.len() > 7
                && [('-', 2), (':', 2)]
                    .into_iter()
                    .any(|(mark, times)| bare.matches(mark).count() == times && bare.split(mark).all(is_number));
            let is_log = word.ends_with([',', ']']) && words.last().is_some_and(|last| last == "[log");
            let is_key = bare.len() == 12 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_time {
                words.pop();
                words.push("TIME".to_owned());
            } else if is_id {
                words.push("RUN".to_owned());
            } else if is_moment {
                words.push("MOMENT".to_owned());
            } else if is_log {
                // The number of an event; those that follow are in the same place.
            } else if is_key {
                words.push("KEY".to_owned());
            } else if !word.chars().all(|c| ('\u{2500}'..='\u{259f}').contains(&c) || c == '·') {
                words.push(word.to_owned());
            }
        }
        words.join(" ")
    };
    let mut lines: Vec<String> = shown.lines().map(line).filter(|line| !line.is_empty()).collect();
    lines.sort();
    lines
}

fn copy_examples(to: &Path) {
    for folder in ["", "flowcharts"] {
        fs::create_dir(to.join(folder)).unwrap();
        let from = fs::read_dir(root().join("examples").join(folder)).unwrap().map(|entry| entry.unwrap().path());
        for path in from.filter(|path| path.is_file()) {
            fs::copy(&path, to.join(folder).join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// The commands of a session, each with what the page shows below it.
fn commands_and_outputs(text: &str) -> Vec<(&str, String)> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), found.last_mut()) {
            (Some(command), _) => found.push((command, String::new())),
            (None, Some((_, shown))) => *shown += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    found
}

/// Adds the ids of runs in a text to those that were seen before it.
fn add_ids(text: &str, ids: &mut Vec<String>) {
    for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
        let parts: Vec<&str> = word.split('-').collect();
        if parts.len() == 4 && parts[0].len() == 8 && !ids.iter().any(|id| id == word) {
            ids.push(word.to_owned());
        }
    }
}

#[test]
fn every_session_of_the_docs_goes_as_shown() {
    let update = std::env::var_os("FLOWRUN_UPDATE").is_some();
    let (mut sessions, mut differing) = (0, Vec::new());
    let all = blocks();
    for (page, mut text) in pages() {
        let folder = tempfile::tempdir().unwrap();
        copy_examples(&folder.path().join("examples"));
        // A command may name a run that the page has shown: here it is the one that was shown in its place.
        let (mut shown_ids, mut real_ids) = (Vec::<String>::new(), Vec::<String>::new());
        let mut differs = false;
        for block in all.iter().filter(|block| block.page == page) {
            if let Some(name) = block.comment("file") {
                fs::write(folder.path().join(name), &block.text).unwrap();
            }
            if block.language != "console" {
                continue;
            }
            sessions += 1;
            let mut session = Session { folder: folder.path(), until: block.comment("until"), background: None };
            let mut played = String::new();
            for (command, shown) in commands_and_outputs(&block.text) {
                let ids = shown_ids.iter().zip(&real_ids);
                let command = ids.fold(command.to_owned(), |command, (shown, real)| command.replace(shown, real));
                let output = session.play(&command);
                add_ids(&shown, &mut shown_ids);
                add_ids(&output, &mut real_ids);
                played.push_str(&format!("$ {command}\n{output}"));
            }
            if essence(&played) != essence(&block.text) {
                differing.push(format!("--- {}\n{played}", block.place));
                differs = true;
            }
            // Of a page all sessions are written anew, so that a run has one id on it.
            let fenced = |text: &str| format!("```console\n{}\n```\n", text.trim_end());
            text = text.replacen(&fenced(&block.text), &fenced(&played), 1);
        }
        if update && differs {
            fs::write(root().join(&page), text).unwrap();
        }
    }
    assert!(sessions > 3);
    assert!(update || differing.is_empty(), "FLOWRUN_UPDATE=1 writes these anew:\n{}", differing.join("\n"));
}

#[test]
fn every_page_with_rust_is_tested_as_documentation() {
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let rust = blocks().into_iter().filter(|block| block.language.starts_with("rust"));
    let missing: Vec<String> = rust
        .filter(|block| !library.contains(&format!("include_str!(\"../{}\")", block.page)))
        .map(|b| b.place)
        .collect();
    assert!(missing.is_empty(), "these blocks are compiled nowhere; src/lib.rs names the pages: {missing:?}");
}
