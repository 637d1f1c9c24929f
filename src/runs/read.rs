//! Reading runs back: lists for people, logs for views. A half-written last line is what a killed run leaves; it is skipped.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use flowrun_engine::event::Logged;
use flowrun_engine::event::Usage;

/// A folder of runs.
#[derive(Clone, Debug)]
pub struct Runs {
    folder: PathBuf,
}

/// One run in a list.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    /// Its id.
    pub id: String,
    /// The workflow's name.
    pub workflow: String,
    /// `success`, `failed`, `exhausted`, `cancelled`; if it has not ended `running`, `suspended` while all that is left waits for
    /// people, or `interrupted`.
    pub status: String,
    /// When it started (RFC 3339).
    pub started: String,
    /// How long it took, in milliseconds: until now if it is running, else as far as the log goes.
    pub wall_ms: u64,
    /// Leaf steps that started.
    pub steps: u64,
    /// What it cost.
    pub usage: Usage,
}

/// The log of one run with its values.
#[derive(Clone, Debug)]
pub struct RunLog {
    /// Its id.
    pub id: String,
    /// The workflow's name.
    pub workflow: String,
    /// When it started (RFC 3339).
    pub started: String,
    /// The events in order.
    pub events: Vec<Logged>,
    /// Values by hash.
    pub values: BTreeMap<String, Value>,
    /// How long it has been going on, in microseconds, if it is.
    pub running_us: Option<u64>,
    /// Why the log ends early, if it does.
    pub damage: Option<String>,
}

/// Whether a text can be the id of a run: a plain file name.
pub(super) fn is_run_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

impl Runs {
    /// The runs in a folder; it need not exist.
    pub fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// All ids, oldest first.
    ///
    /// # Errors
    /// If the folder exists and cannot be read.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<String> = names.filter(|name| is_run_id(name)).collect();
        ids.sort();
        Ok(ids)
    }

    /// The id that `last`, an id or the unique beginning of one means.
    ///
    /// # Errors
    /// One line that says what there is instead.
    pub fn find(&self, wanted: &str) -> Result<String, String> {
        let ids = self.ids().map_err(|error| format!("`{}` cannot be read: {error}", self.folder.display()))?;
        let Some(last) = ids.last() else { return Err(format!("there are no runs in `{}`", self.folder.display())) };
        if wanted == "last" {
            return Ok(last.clone());
        }
        let matching: Vec<&String> = ids.iter().filter(|id| id.starts_with(wanted)).collect();
        match matching.as_slice() {
            [id] => Ok((*id).clone()),
            [] => Err(format!("no run begins with `{wanted}`; the last one is `{last}` (`flowrun runs` lists them)")),
            several => Err(format!("{} runs begin with `{wanted}`", several.len())),
        }
    }

    /// One run in short.
    pub fn summary(&self, id: &str) -> io::Result<RunSummary> {
        Ok(self.load(id, false)?.summary())
    }

    /// One run, with its values if they are wanted.
    ///
    /// # Errors
    /// If its files cannot be read.
    pub fn load(&self, id: &str, with_values: bool) -> io::Result<RunLog> {
        let folder = self.folder.join(id);
        let identity: Value = serde_json::from_str(&fs::read_to_string(folder.join("run.json"))?).unwrap_or_default();
        let mut log = RunLog {
            id: id.to_owned(),
            workflow: identity["workflow"].as_str().unwrap_or("?").to_owned(),
            started: identity["started"].as_str().unwrap_or("?").to_owned(),
            events: Vec::new(),
            values: BTreeMap::new(),
            // Before the log is read: a run that ends in between is seen to end.
            running_us: running_us(&folder),
            damage: None,
        };
        for line in read_cut(&folder.join("events.jsonl"))?.lines() {
            match Logged::parse(line) {
                Ok(event) => log.events.push(event),
                Err(problem) => {
                    log.damage = Some(problem).filter(|_| log.running_us.is_none());
                    break;
                }
            }
        }
        if log.events.last().is_some_and(|event| event.kind == "run_ended") {
            log.running_us = None;
        }
        if with_values {
            for line in read_cut(&folder.join("values.jsonl"))?.lines() {
                let Ok(mut entry) = serde_json::from_str::<Value>(line) else { continue };
                if let Some(hash) = entry["hash"].as_str().map(str::to_owned) {
                    log.values.insert(hash, entry["value"].take());
                }
            }
        }
        Ok(log)
    }
}

/// The text of a file that may end anywhere, inside of a character too.
fn read_cut(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// How long the run of a folder has been going on; `None` if nobody writes it any more.
fn running_us(folder: &Path) -> Option<u64> {
    let lock = File::open(folder.join("workflow.yaml")).ok()?.try_lock_shared();
    let began = fs::metadata(folder.join("run.json")).ok()?.modified().ok()?;
    matches!(lock, Err(TryLockError::WouldBlock)).then(|| began.elapsed().unwrap_or_default().as_micros() as u64)
}

impl RunLog {
    /// The run in short.
    pub fn summary(&self) -> RunSummary {
        let ended = self.events.iter().rev().find(|event| event.kind == "run_ended");
        let unended = match self.running_us {
            Some(_) => "running",
            None if self.waits_for_people() => "suspended",
            None => "interrupted",
        };
        let status = ended.and_then(|event| event.text("status")).unwrap_or(unended);
        let usage = ended.map(Logged::usage);
        let first = |event: &&Logged| event.kind == "started" && event.line["attempt"] == 1;
        RunSummary {
            id: self.id.clone(),
            workflow: self.workflow.clone(),
            status: status.to_owned(),
            started: self.started.clone(),
            wall_ms: self.running_us.or(self.events.last().map(|event| event.time_us)).unwrap_or(0) / 1_000,
            steps: self.events.iter().filter(first).count() as u64,
            usage: usage.unwrap_or_else(|| self.usage_so_far()),
        }
    }

    /// Whether the log ends where nothing but people can make the run go on: every step that began and has not ended asks one.
    fn waits_for_people(&self) -> bool {
        let mut open: BTreeMap<&str, &str> = BTreeMap::new();
        for event in self.events.iter().filter(|event| !event.step.is_empty()) {
            match event.kind.as_str() {
                "frame_opened" | "ended" => drop(open.remove(event.step.as_str())),
                kind @ ("ready" | "started" | "suspended" | "answered" | "backoff") => {
                    open.insert(&event.step, kind);
                }
                _ => {}
            }
        }
        !open.is_empty() && open.values().all(|kind| *kind == "suspended")
    }

    fn usage_so_far(&self) -> Usage {
        let mut total = Usage::default();
        for event in self.events.iter().filter(|event| event.kind == "settled") {
            total += event.usage();
        }
        total
    }

    /// A value by its hash.
    pub fn value(&self, hash: &str) -> Option<&Value> {
        self.values.get(hash)
    }
}
