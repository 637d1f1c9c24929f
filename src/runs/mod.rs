//! Runs on disk: one folder a run, written while it goes on, readable while it does.
//!
//! `events.jsonl` is the log, `values.jsonl` holds each value once by its hash (prompts and replies too), `workflow.yaml` what was
//! run, `run.json` who it is. Writing happens on a thread of its own and never breaks a run: the first error stops the
//! recording and is told at the end. While a run goes on its `workflow.yaml` is locked, which even a crash ends; nothing reads it
//! meanwhile, so a lock that keeps readers out does no harm.

mod read;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::json;

use flowrun_engine::event::{Record, Writer};
use flowrun_engine::expr::Datum;
use flowrun_engine::id::ValueHash;
use flowrun_engine::observer::{Observer, Records};

pub use read::{RunLog, RunSummary, Runs};

/// Version of the folder's form.
const FORMAT: u64 = 1;

/// Who a run is.
#[derive(Clone, Debug)]
pub struct RunIdentity {
    /// Its id: sortable by time, unique, a plain file name.
    pub id: String,
    /// The workflow's name.
    pub workflow: String,
    /// When it started, for people and for sorting (RFC 3339).
    pub started: String,
    /// What was run, as a file.
    pub definition: String,
}

enum Line {
    Value(ValueHash, Arc<Datum>),
    Records(Vec<Record>),
}

/// Writes one run.
#[derive(Debug)]
pub struct Recording {
    sender: Mutex<Option<Sender<Line>>>,
    thread: Mutex<Option<JoinHandle<io::Result<()>>>>,
    folder: PathBuf,
}

impl Recording {
    /// Makes the folder `runs_dir/<id>` and begins to write.
    ///
    /// # Errors
    /// If the folder or a file in it cannot be made, or the id is no plain name.
    pub fn begin(runs_dir: &Path, run: &RunIdentity) -> io::Result<Self> {
        if !read::is_run_id(&run.id) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` is no run id", run.id)));
        }
        fs::create_dir_all(runs_dir)?;
        if let Some(home) = runs_dir.parent().filter(|home| home.ends_with(".flowrun")) {
            let ignore = home.join(".gitignore");
            if !ignore.exists() {
                fs::write(ignore, "*\n")?;
            }
        }
        let folder = runs_dir.join(&run.id);
        fs::create_dir(&folder)?;
        let mut alive = File::create_new(folder.join("workflow.yaml"))?;
        alive.write_all(run.definition.as_bytes())?;
        // Without locks on this disk the run is taken for interrupted until it ends.
        let _unsupported = alive.lock();
        let identity = json!({"format": FORMAT, "id": run.id, "workflow": run.workflow, "started": run.started});
        fs::write(folder.join("run.json"), format!("{identity}\n"))?;
        let events = BufWriter::new(File::create_new(folder.join("events.jsonl"))?);
        let values = BufWriter::new(File::create_new(folder.join("values.jsonl"))?);
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("flowrun-recording".into()).spawn(move || {
            let _alive = alive;
            write(receiver, events, values)
        })?;
        Ok(Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), folder })
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until everything is on disk.
    ///
    /// # Errors
    /// What stopped the recording early; the run itself is not affected.
    pub fn finish(&self) -> io::Result<()> {
        drop(self.sender.lock().expect("BUG: a panic while recording").take());
        let thread = self.thread.lock().expect("BUG: a panic while recording").take();
        match thread.map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the recording thread panicked")),
            None => Ok(()),
        }
    }

    fn send(&self, line: Line) {
        if let Some(sender) = &*self.sender.lock().expect("BUG: a panic while recording") {
            // A closed channel means that writing failed: `finish` tells why.
            let _closed = sender.send(line);
        }
    }
}

impl Observer for Recording {
    fn value(&self, hash: ValueHash, value: &Arc<Datum>) {
        self.send(Line::Value(hash, value.clone()));
    }

    fn records(&self, records: &Records<'_>) {
        self.send(Line::Records(records.iter().collect()));
    }
}

fn write(lines: Receiver<Line>, mut events: BufWriter<File>, mut values: BufWriter<File>) -> io::Result<()> {
    let mut writer = Writer::default();
    let mut written = BTreeSet::new();
    for line in lines {
        match line {
            Line::Value(hash, value) => {
                if written.insert(hash) {
                    writeln!(values, "{}", json!({"hash": hash, "value": value.json()}))?;
                }
            }
            Line::Records(records) => {
                values.flush()?;
                for record in &records {
                    writeln!(events, "{}", writer.json(record))?;
                }
                events.flush()?;
            }
        }
    }
    values.flush()?;
    events.flush()
}
