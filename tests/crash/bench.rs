//! One run of one workflow in one place: its processes, which are killed and go on, its log, and what may be said of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use flowrun::SqliteStore;
use flowrun::engine::store::{Durability, Store};
use flowrun::runs::{RunLog, Runs};
use serde_json::{Value, json};

use super::mortal::{Errand, Side};
use super::server::{Calls, Server, prompt_of};
use crate::cli::{Place, code, stderr, stdout};

/// How long something that must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// A log that does not grow for so long stands still.
const STILL: Duration = Duration::from_millis(25);

/// A workflow, what is special about its prompts, and the answers that people give.
#[derive(Clone, Default)]
pub(crate) struct Case {
    /// The file; a name of the library begins with `@`.
    pub(crate) workflow: String,
    pub(crate) script: Vec<(&'static str, String)>,
    pub(crate) inputs: Vec<&'static str>,
    /// Steps that ask, and what they are told.
    pub(crate) answers: Vec<(&'static str, &'static str)>,
}

impl Case {
    pub(crate) fn new(workflow: &str) -> Self {
        Self { workflow: workflow.to_owned(), ..Self::default() }
    }
}

/// Attempts that were in flight at a kill, by step and number, with the hashes of their inputs.
pub(crate) type Open = BTreeMap<(String, u64), String>;

/// How a process that was watched stands.
pub(crate) enum Watched {
    /// It ended by itself.
    Ended,
    /// It waits for answers that are held back, or for a timer.
    Still(Child),
}

pub(crate) struct Bench {
    pub(crate) place: Place,
    pub(crate) server: Server,
    case: Case,
    /// More words of every command that drives the run.
    pub(crate) words: Vec<&'static str>,
}

impl Bench {
    pub(crate) fn new(case: &Case, server: Server) -> Self {
        let place = Place::new();
        if !case.workflow.starts_with('@') {
            place.write("w.yaml", &case.workflow);
        }
        Self { place, server, case: case.clone(), words: vec!["--json", "--quiet", "--no-input"] }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command.env("OPENAI_BASE_URL", self.server.url()).env("FLOWRUN_MODEL", "m");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn flowrun(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Begins the run.
    pub(crate) fn begin(&self) -> Command {
        let inputs = self.case.inputs.iter().flat_map(|input| ["--input", input]);
        self.command(
            &["run", self.reference()].into_iter().chain(inputs).chain(self.words.iter().copied()).collect::<Vec<_>>(),
        )
    }

    /// Has a process of this test program drive the run, which ends on one side of its transaction of that number.
    pub(crate) fn spawn_mortal(&self, last: u64, side: Side) -> Child {
        let text = |(step, answer): &(&str, &str)| ((*step).to_owned(), (*answer).to_owned());
        let errand = Errand {
            reference: self.reference().to_owned(),
            inputs: self.case.inputs.iter().map(|input| (*input).to_owned()).collect(),
            answers: self.case.answers.iter().map(text).collect(),
            url: self.server.url().to_owned(),
            last,
            side,
        };
        errand.spawn(self.place.path())
    }

    fn reference(&self) -> &str {
        if self.case.workflow.starts_with('@') { &self.case.workflow } else { "w.yaml" }
    }

    /// Goes on with the run as it stands: begins it if nothing is kept of it, answers if that is all that it waits for.
    pub(crate) fn go_on(&self) -> Option<Command> {
        let Some(log) = self.log() else { return Some(self.begin()) };
        match log.summary().status.as_str() {
            // One that waits for a person until a deadline goes on by itself.
            "suspended" if self.case.answers.is_empty() => {
                Some(self.command(&[&["resume", "last"], &*self.words].concat()))
            }
            "interrupted" => Some(self.command(&[&["resume", "last"], &*self.words].concat())),
            "suspended" => {
                let asked = log.asked();
                let answers = self.case.answers.iter();
                let (step, answer) = answers.copied().find(|(step, _)| asked.iter().any(|(path, _)| path == step))?;
                Some(self.command(&[&["answer", "last", step, answer], &*self.words].concat()))
            }
            _ => None,
        }
    }

    /// Goes on until the run is over.
    pub(crate) fn conclude(&self) -> Value {
        let mut output = None;
        while let Some(mut command) = self.go_on() {
            let ended = command.output().unwrap();
            assert_begun(&ended);
            output = Some(ended);
        }
        output.filter(|output| code(output) != 2).map_or_else(|| self.outcome(), |output| outcome(&output))
    }

    /// What the log says came of the run.
    pub(crate) fn outcome(&self) -> Value {
        let log = self.log().expect("the run is kept");
        let ended = log.events.last().filter(|event| event.kind == "run_ended").expect("the run is over");
        json!({"status": ended.text("status"), "output": ended.text("output").and_then(|hash| log.value(hash))})
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.place.path().join(".flowrun/flowrun.db")
    }

    /// The store, to look at.
    pub(crate) fn look(&self) -> Arc<SqliteStore> {
        Arc::new(SqliteStore::open_to_read(&self.database()).unwrap())
    }

    /// The store, to write.
    pub(crate) fn store(&self) -> Arc<SqliteStore> {
        Arc::new(SqliteStore::open(&self.database(), Durability::Normal).unwrap())
    }

    /// The log of the last run, if there is one.
    pub(crate) fn log(&self) -> Option<RunLog> {
        let runs = Runs::new(self.look());
        let run = runs.find("last").ok()?;
        Some(runs.load(&run).unwrap())
    }

    /// Waits until a process has nothing left to do but wait.
    pub(crate) fn watch(&self, mut child: Child) -> Watched {
        let (began, store) = (Instant::now(), self.look());
        let transactions = || {
            let runs = store.runs().unwrap_or_default();
            runs.last().map_or(0, |run| store.log(&run.id, 0).unwrap_or_default().len())
        };
        let first = transactions();
        let (mut before, mut since) = (first, Instant::now());
        loop {
            if child.try_wait().unwrap().is_some() {
                assert_begun(&child.wait_with_output().unwrap());
                return Watched::Ended;
            }
            let now = transactions();
            let at_work = now != first || self.server.held() > 0;
            if now != before || !at_work || self.server.unused() > 0 {
                (before, since) = (now, Instant::now());
            }
            if since.elapsed() > STILL {
                return Watched::Still(child);
            }
            assert!(began.elapsed() < PATIENCE, "it does not come to a stop: {} calls held", self.server.held());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// After a kill: the inputs of attempts whose end the log does not know are added to those of earlier kills. There are not
    /// more calls whose end it does not know.
    pub(crate) fn add_open(&self, open: &mut Open, what: &str) {
        let (lost, now) = self.lost();
        open.extend(now);
        let lost = lost.values().sum::<u64>();
        assert!(lost <= open.len() as u64, "{what}: {} attempts were in flight, {lost} calls are lost", open.len());
    }

    /// After the end: how often prompts of such inputs may have been asked in vain.
    pub(crate) fn prompts_of(&self, open: &Open) -> Calls {
        let (log, mut inputs, mut prompts) = (self.log().unwrap(), BTreeMap::new(), Calls::new());
        for event in &log.events {
            if let ("started", Some(input)) = (event.kind.as_str(), event.text("input")) {
                inputs.insert(event.step.as_str(), input);
            }
            let report = event.text("provenance").filter(|_| event.kind == "settled").and_then(|hash| log.value(hash));
            let prompt = report.as_ref().and_then(|report| report.get("messages")).map(prompt_of);
            if let (Some(prompt), Some(input)) = (prompt, inputs.get(event.step.as_str())) {
                let times = open.values().filter(|open| open == input).count() as u64;
                prompts.insert(prompt, times);
            }
        }
        prompts
    }

    /// Calls that were made and whose end the log does not know, by prompt; and the inputs of attempts that were in flight at its end.
    pub(crate) fn lost(&self) -> (Calls, Open) {
        let mut lost = self.server.calls();
        let Some(log) = self.log() else { return (lost, Open::new()) };
        let mut open = Open::new();
        for event in &log.events {
            let attempt = (event.step.clone(), event.line["attempt"].as_u64().unwrap_or_default());
            match event.kind.as_str() {
                "attached" => open.clear(),
                "started" => drop(open.insert(attempt, event.text("input").unwrap_or_default().to_owned())),
                "settled" => drop(open.remove(&attempt)),
                _ => {}
            }
            let report = event.text("provenance").filter(|_| event.kind == "settled").and_then(|hash| log.value(hash));
            let prompt = report.as_ref().and_then(|report| report.get("messages")).map(prompt_of);
            // One that was cancelled may never have come to the server.
            if let Some(calls) = prompt.and_then(|prompt| lost.get_mut(&prompt)) {
                *calls = calls.saturating_sub(event.usage().calls);
            }
        }
        lost.retain(|_, calls| *calls > 0);
        (lost, open)
    }

    /// The log follows, the store is sound, and nobody has paid for what was paid: no prompt was asked more often than in a run
    /// without accidents and once more for each call that was lost.
    pub(crate) fn assert_paid_once(&self, undisturbed: &Calls, lost: &Calls, what: &str) {
        for (prompt, calls) in self.server.calls() {
            let expected = undisturbed.get(&prompt).copied().unwrap_or(1);
            let lost = lost.get(&prompt).copied().unwrap_or_default();
            assert!(
                calls <= expected + lost,
                "{what}: {calls} calls, {expected} without accidents, {lost} lost: {prompt}"
            );
        }
        let damage = self.look().damage().unwrap();
        assert!(damage.is_empty(), "{what}: {damage:?}");
    }
}

/// Nothing was wrong with a command, but that an answer may come behind that of a process that was killed after it had given it.
fn assert_begun(ended: &Output) {
    let said = stderr(ended);
    assert!(code(ended) != 2 || said.contains("does not wait for an answer"), "{said}");
}

/// Ends a process as nothing else can.
pub(crate) fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What came of a run, as `--json` says it.
pub(crate) fn outcome(output: &Output) -> Value {
    let report: Value = serde_json::from_str(&stdout(output)).unwrap_or_else(|_| panic!("{}", stderr(output)));
    json!({"status": report["status"], "output": report["output"]})
}

/// Waits for something that must come.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what} does not come");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A run of a case without accidents: its outcome and its calls.
pub(crate) fn undisturbed(case: &Case) -> (Value, Calls) {
    let bench = Bench::new(case, Server::open(&case.script));
    let outcome = bench.conclude();
    assert_eq!(outcome, bench.outcome(), "what the command says is what the log says");
    (outcome, bench.server.calls())
}
