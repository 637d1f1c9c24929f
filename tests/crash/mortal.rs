//! A process that ends at a chosen point between two events: it drives a run through the library, on the real store, and kills itself
//! right before a transaction is given to the store, or right after it is kept and before anything follows from it.
//!
//! The process is this test program again, asked for nothing but [`a_process_that_ends`].

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flowrun::engine::store::hooked::{Hook, Hooked};
use flowrun::engine::store::{Done, Durability, RunInfo, Store, StoreError, Transaction};
use flowrun::runs::Runs;
use flowrun::{Flowrun, OpenAi, Origin, RunOptions, SqliteStore, Status};
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Names the variable that tells the process what to do, as JSON of an [`Errand`].
const ERRAND: &str = "FLOWRUN_ERRAND";

/// On which side of a transaction the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Side {
    Before,
    After,
}

/// What the process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Errand {
    /// The workflow, as on the command line.
    pub(crate) reference: String,
    /// `NAME=TEXT`.
    pub(crate) inputs: Vec<String>,
    /// Steps that ask, and what they are told (JSON).
    pub(crate) answers: Vec<(String, String)>,
    pub(crate) url: String,
    /// Which of this process's transactions is its last one, counted from 1; the run's entry in the store counts as one.
    pub(crate) last: u64,
    pub(crate) side: Side,
}

impl Errand {
    /// Begins it, in a folder.
    pub(crate) fn spawn(&self, folder: &Path) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["crash::mortal::a_process_that_ends", "--exact", "--ignored"]);
        command.current_dir(folder).env(ERRAND, serde_json::to_string(self).unwrap());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// A store whose process does not live for ever.
struct Mortal {
    store: SqliteStore,
    count: AtomicU64,
    last: u64,
    side: Side,
}

impl Mortal {
    /// Counts a transaction; whether this is the one to die after.
    fn is_last(&self) -> bool {
        let is_last = self.count.fetch_add(1, Ordering::Relaxed) + 1 == self.last;
        if is_last && self.side == Side::Before {
            die();
        }
        is_last
    }
}

fn die() -> ! {
    kill_process(getpid(), Signal::KILL).unwrap();
    loop {
        std::thread::park();
    }
}

impl Hook for Mortal {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn begin(&self, run: &RunInfo) -> Result<(), StoreError> {
        let is_last = self.is_last();
        self.store.begin(run)?;
        if is_last { die() } else { Ok(()) }
    }

    fn append(&self, transaction: Transaction, done: Done) {
        let done = if self.is_last() { Box::new(|_| die()) } else { done };
        self.store.append(transaction, done);
    }
}

/// As the command line reads it: JSON, or else a text.
fn value_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// Begins the run of this folder, or goes on with it, and answers what it asks, until it is over.
async fn serve(errand: Errand) {
    let Errand { reference, inputs, answers, url, last, side } = errand;
    let store = SqliteStore::open(".flowrun/flowrun.db".as_ref(), Durability::Normal).unwrap();
    let store: Arc<dyn Store> = Arc::new(Hooked(Mortal { store, count: AtomicU64::new(0), last, side }));
    let model = OpenAi::new(&url, "m", None, None).unwrap();
    let flowrun = Flowrun::builder().model("default", model).store(store.clone(), Durability::Normal).build();
    let workflow = flowrun.load(&reference).unwrap();
    loop {
        let outcome = match Runs::new(store.clone()).find("last") {
            Err(_) => {
                let named = inputs.iter().map(|input| input.split_once('=').unwrap());
                let inputs: Map<String, Value> = named.map(|(name, text)| (name.to_owned(), value_of(text))).collect();
                let origin = Origin { reference: reference.clone(), inputs: inputs.clone(), ..Origin::default() };
                let record = Some(origin.recording(&workflow, store.clone(), Durability::Normal));
                flowrun.run(&workflow, inputs.into(), RunOptions { record, ..RunOptions::default() }).await
            }
            Ok(run) => {
                let log = Runs::new(store.clone()).load(&run).unwrap();
                for (step, answer) in &answers {
                    if log.asked().iter().any(|(path, _)| path == step) {
                        store.post(&run.id, step, &value_of(answer)).unwrap();
                    }
                }
                flowrun.resume(&workflow, &run.id, RunOptions::default()).await
            }
        };
        if outcome.unwrap().status != Status::Suspended {
            return;
        }
    }
}

#[test]
#[ignore = "not a test: the process that `boundaries` kills"]
fn a_process_that_ends() {
    let errand = std::env::var(ERRAND).expect("only `boundaries` begins it");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(serde_json::from_str(&errand).unwrap()));
}
