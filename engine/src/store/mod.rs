//! The door to what outlives a run: its log, the values that the log names, answers worth keeping, letters from people.
//!
//! A [`Store`] keeps whatever it is given and knows nothing of graphs. The driver hands it [`Transaction`]s and carries out what
//! follows from one only after the store has said that it is safe. [`Memory`] forgets with the process; every other store passes
//! the checks of `conformance` as it does.
//!
//! Calls of readers block for as long as a disk takes. [`Store::append`] does so for a moment at most: what would take longer it queues,
//! and calls back.

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod hooked;
mod memory;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use memory::Memory;

use crate::event::{Status, Usage};
use crate::id::ValueHash;

/// Keeps runs, values, answers and letters. Safe to use from many threads at once.
pub trait Store: Send + Sync + 'static {
    /// Takes a new run, before its first transaction.
    ///
    /// # Errors
    /// [`StoreError::RunExists`], or what the medium says.
    fn begin(&self, run: &RunInfo) -> Result<(), StoreError>;

    /// Hands in a transaction. `done` is called once, on any thread and maybe before this returns: after it is kept, or with the reason
    /// why it never will be. It must not wait for whoever handed in. Those of one
    /// run are kept in the order in which they are queued, each whole or not at all; after one that failed, no later one of the same run
    /// is kept. What `kept` means is the store's level of [durability](Durability).
    fn append(&self, transaction: Transaction, done: Done);

    /// Who a run is; `None` if there is no such run.
    fn run(&self, id: &str) -> Result<Option<RunInfo>, StoreError>;

    /// Every run, in the order of ids.
    fn runs(&self) -> Result<Vec<RunInfo>, StoreError>;

    /// The transactions of a run whose first event has at least the number `from`, in order.
    fn log(&self, run: &str, from: u64) -> Result<Vec<Stored>, StoreError>;

    /// A value's JSON text.
    fn value(&self, hash: ValueHash) -> Result<Option<Arc<str>>, StoreError>;

    /// The answer that is kept under a key.
    fn entry(&self, key: ValueHash) -> Result<Option<CacheEntry>, StoreError>;

    /// Entries that a filter lets through, newest first.
    fn entries(&self, filter: &EntryFilter) -> Result<Vec<CacheEntry>, StoreError>;

    /// Forgets entries; gives how many there were.
    fn forget(&self, keys: &[ValueHash]) -> Result<u64, StoreError>;

    /// Forgets runs that nobody drives and then every value that nothing names any more. Gives how many values went.
    fn prune(&self, runs: &[String]) -> Result<u64, StoreError>;

    /// Takes the right to drive a run; `None` while somebody else has it, in another process too. It ends when it is dropped, and
    /// with the process however that ends.
    fn lock(&self, run: &str) -> Result<Option<Box<dyn RunLock>>, StoreError>;

    /// Whether somebody drives a run at this moment.
    fn is_driven(&self, run: &str) -> Result<bool, StoreError>;

    /// Posts an answer to a suspended step of a run; gives the letter's number.
    fn post(&self, run: &str, step: &str, value: &Value) -> Result<u64, StoreError>;

    /// Letters to a run without a verdict, oldest first.
    fn letters(&self, run: &str) -> Result<Vec<Letter>, StoreError>;

    /// Says what became of a letter: taken, or refused and why. What was said first stays.
    fn judge(&self, letter: u64, verdict: &Result<(), String>) -> Result<(), StoreError>;

    /// What became of a letter; `None`: nothing yet.
    fn verdict(&self, letter: u64) -> Result<Option<Result<(), String>>, StoreError>;

    /// Looks through everything that is kept and gives a line for each thing that is damaged.
    fn damage(&self) -> Result<Vec<String>, StoreError>;

    /// What it keeps, in numbers.
    fn size(&self) -> Result<StoreSize, StoreError>;
}

/// What a store calls when a transaction is kept or lost: see [`Store::append`].
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The right to drive a run, for as long as it is held.
pub trait RunLock: Send + Sync {}

/// Who a run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Its id: sortable by time, unique, a plain file name of letters, digits and `-`.
    pub id: String,
    /// The workflow's name.
    pub workflow: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// What whoever began it wants to know when it goes on: where the workflow came from and what it said, options, the run that it
    /// replays. The store does not look into it.
    pub origin: Value,
    /// How far it is, as of its last transaction that said so; `None`: it runs, or was interrupted.
    pub summary: Option<Summary>,
}

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// In one word.
    pub status: Status,
    /// How long it was driven, in milliseconds.
    pub wall_ms: u64,
    /// Leaf steps that started.
    pub steps: u64,
    /// What it cost.
    pub usage: Usage,
}

/// What one event and all that follows from it adds to a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// The run's id.
    pub run: Arc<str>,
    /// Number of the first event.
    pub first: u64,
    /// The events as lines of JSON, each ending with a line break.
    pub lines: String,
    /// Values that the lines name and that this run has not given yet, as JSON texts. The store may have them all the same.
    pub values: Vec<(ValueHash, Arc<str>)>,
    /// Answers that are worth keeping for other runs; their values are kept, or stand above.
    pub entries: Vec<CacheEntry>,
    /// How the run stands, where the transaction changes that; `Some(None)`: it goes on again.
    pub summary: Option<Option<Summary>>,
}

/// A transaction as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Number of the first event.
    pub first: u64,
    /// The events as lines of JSON.
    pub lines: String,
}

/// An answer that is kept under its key.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheEntry {
    /// The key: the hash of what it was made of, which is kept as a value like any other, so that `explain` can compare.
    pub key: ValueHash,
    /// What the step gave, before `schema` and `output`.
    pub value: ValueHash,
    /// The node's kind.
    pub kind: String,
    /// The node's name, by which `explain` finds the nearest entry.
    pub node: String,
    /// The run that paid.
    pub run: String,
    /// The path of the step that paid.
    pub step: String,
    /// What was paid.
    pub usage: Usage,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
}

/// Which entries are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntryFilter {
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those of nodes of this name.
    pub node: Option<String>,
    /// Only those whose key begins with these hexadecimal digits.
    pub prefix: Option<String>,
    /// Only those that were made before this time, in milliseconds since 1970.
    pub before_ms: Option<u64>,
    /// At most so many.
    pub limit: Option<u64>,
}

/// An answer on its way to a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// Its number.
    pub number: u64,
    /// Path of the step that it answers.
    pub step: String,
    /// The answer.
    pub value: Value,
}

/// What a store keeps, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreSize {
    /// Runs.
    pub runs: u64,
    /// Cache entries.
    pub entries: u64,
    /// Distinct values.
    pub values: u64,
    /// Bytes of their JSON texts.
    pub value_bytes: u64,
    /// Bytes of the whole store on its medium; 0 in memory.
    pub bytes: u64,
}

/// When something counts as kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it would survive the loss of power: each commit waits for the disk.
    Full,
    /// When it survives the end of the process, however that comes; a loss of power may take the last moments, never the order.
    #[default]
    Normal,
    /// At once: writing goes on behind the run, and the end of the process may take what was not written.
    Off,
}

impl Durability {
    /// The words of the command line.
    pub const WORDS: [(&'static str, Durability); 3] =
        [("full", Durability::Full), ("normal", Durability::Normal), ("off", Durability::Off)];
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, level)| level == self).map_or("", |(word, _)| word);
        f.write_str(word)
    }
}

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A run of this id is there already.
    #[error("there is a run `{0}` already")]
    RunExists(String),
    /// There is no run of this id.
    #[error("there is no run `{0}`")]
    NoRun(String),
    /// The id is no plain file name.
    #[error("`{0}` is no run id: letters, digits and `-`, at most 64 of them")]
    BadId(String),
    /// No room is left on the medium.
    #[error("{place}: no room is left ({detail}); free some, or give another place with `--db`")]
    Full {
        /// Where it is.
        place: String,
        /// What the medium said.
        detail: String,
    },
    /// Nothing may be written there.
    #[error("{place}: nothing can be written there ({detail}); give another place with `--db`")]
    ReadOnly {
        /// Where it is.
        place: String,
        /// What the medium said.
        detail: String,
    },
    /// What is kept is not what was written.
    #[error("{place} is damaged: {detail} (`flowrun runs check` says what else is; `--db FILE` takes another)")]
    Damaged {
        /// Where it is.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It was written by another version of the program.
    #[error("{place} is of format {found}; this program reads format {known}")]
    Format {
        /// Where it is.
        place: String,
        /// The format that it has.
        found: u64,
        /// The format that this program writes.
        known: u64,
    },
    /// Anything else that the medium says.
    #[error("{place}: {detail}")]
    Medium {
        /// Where it is.
        place: String,
        /// What it said.
        detail: String,
    },
}

/// Whether a text can be the id of a run: a plain file name.
pub fn is_run_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

impl EntryFilter {
    /// Whether an entry is wanted, the limit aside.
    pub fn admits(&self, entry: &CacheEntry) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        is(&self.kind, &entry.kind)
            && is(&self.node, &entry.node)
            && self.prefix.as_ref().is_none_or(|prefix| entry.key.to_string().starts_with(prefix.as_str()))
            && self.before_ms.is_none_or(|before| entry.created_ms < before)
    }
}

/// Every text of 64 hexadecimal digits in a text: what may be the name of a value.
pub fn hashes_in(text: &str) -> impl Iterator<Item = ValueHash> + '_ {
    let runs = text.split(|c: char| !matches!(c, '0'..='9' | 'a'..='f'));
    runs.filter(|run| run.len() == 64).filter_map(ValueHash::from_hex)
}
