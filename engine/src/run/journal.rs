//! The driver's pen: every transaction goes to the store, and what follows from it waits until it is kept.
//!
//! Several transactions may be on their way at once: the run goes on with whatever needs no command, and the store keeps them in
//! order. Without a store nothing is written and nothing waits.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use super::people::Taken;
use crate::cache::Leader;
use crate::event::{Command, Record, Writer};
use crate::id::ValueHash;
use crate::store::{CacheEntry, Durability, RunInfo, RunLock, Store, StoreError, Summary, Transaction};

/// Where a run is recorded, and as what. Part of [`RunOptions`](super::RunOptions).
#[derive(Clone)]
pub struct Recording {
    /// The store, which also has the answers of earlier runs.
    pub store: Arc<dyn Store>,
    /// Who the run is.
    pub run: RunInfo,
    /// Whether the run waits until its transactions are kept. The store was opened with the same level.
    pub durability: Durability,
    /// Values that the origin of the run names by hash, as JSON texts.
    pub values: Vec<(ValueHash, Arc<str>)>,
}

/// Most transactions are shorter.
const LINES_BYTES: usize = 1 << 10;

/// What has come of the transactions that were handed to the store.
#[derive(Default)]
struct Kept {
    /// How many are kept.
    count: AtomicU64,
    failed: OnceLock<StoreError>,
    news: Notify,
}

/// What goes to the store, and what waits for it.
#[derive(Default)]
pub(super) struct Journal {
    to: Option<Recording>,
    lock: Option<Box<dyn RunLock>>,
    pub(super) writer: Writer,
    entries: Vec<CacheEntry>,
    appended: u64,
    kept: Arc<Kept>,
    /// Commands, with the number of transactions that have to be kept before they are carried out.
    waiting: VecDeque<(u64, Vec<Command>)>,
    /// Who gave answers, to be told that they are kept.
    owed: VecDeque<(u64, Taken)>,
    /// Who leads attempts for other runs too, until their answers are kept.
    landed: VecDeque<(u64, Leader)>,
}

impl Journal {
    pub(super) fn new(to: Recording, lock: Box<dyn RunLock>) -> Self {
        Self { to: Some(to), lock: Some(lock), ..Self::default() }
    }

    /// The id of the run; empty if it is not recorded.
    pub(super) fn run(&self) -> &str {
        self.to.as_ref().map_or("", |to| &to.run.id)
    }

    pub(super) fn store(&self) -> Option<&Arc<dyn Store>> {
        self.to.as_ref().map(|to| &to.store)
    }

    /// An answer that goes into the next transaction.
    pub(super) fn enter(&mut self, entry: CacheEntry) {
        self.entries.push(entry);
    }

    /// Hands a transaction to the store.
    pub(super) fn append(
        &mut self,
        records: impl Iterator<Item = Record>,
        first: u64,
        values: Vec<(ValueHash, Arc<str>)>,
        summary: Option<Option<Summary>>,
    ) {
        let Some(to) = &self.to else { return };
        let mut lines = String::with_capacity(LINES_BYTES);
        for record in records {
            self.writer.write(&record, &mut lines);
        }
        let run = to.run.id.as_str().into();
        let transaction =
            Transaction { run, first, lines, values, entries: std::mem::take(&mut self.entries), summary };
        self.appended += 1;
        let kept = self.kept.clone();
        let done = move |result: Result<(), StoreError>| {
            match result {
                Ok(()) => _ = kept.count.fetch_add(1, Ordering::Release),
                Err(error) => _ = kept.failed.set(error),
            }
            kept.news.notify_one();
        };
        to.store.append(transaction, Box::new(done));
    }

    /// Lines up commands behind what has been appended; gives back those that need not wait.
    pub(super) fn line_up(&mut self, commands: Vec<Command>) -> Vec<Command> {
        let is_kept = || self.waiting.is_empty() && self.kept.count.load(Ordering::Acquire) == self.appended;
        if commands.is_empty() || !self.is_awaited() || is_kept() {
            return commands;
        }
        self.waiting.push_back((self.appended, commands));
        Vec::new()
    }

    /// Whoever gave the answer that the next transaction takes is told so when that is kept: what somebody was told stays so.
    pub(super) fn owe(&mut self, taken: Taken) {
        let after = if self.is_awaited() { self.appended + 1 } else { 0 };
        self.owed.push_back((after, taken));
    }

    /// Whoever asks for an answer that the next transaction takes finds it with its leader until that is kept, then in the store.
    pub(super) fn hold(&mut self, leader: Leader) {
        if self.to.is_some() {
            self.landed.push_back((self.appended + 1, leader));
        }
    }

    /// Tells those whose answers are kept, and lets leaders go; how many of these.
    pub(super) fn confirm(&mut self) -> u64 {
        let kept = self.kept.count.load(Ordering::Acquire);
        while self.owed.front().is_some_and(|(number, _)| *number <= kept) {
            // Whoever no longer waits for the reply has given the answer all the same.
            self.owed.pop_front().into_iter().for_each(|(_, taken)| _ = taken.send(Ok(())));
        }
        let over = self.landed.iter().take_while(|(number, _)| *number <= kept).count();
        self.landed.drain(..over);
        over as u64
    }

    /// Whether the run waits until its transactions are kept.
    fn is_awaited(&self) -> bool {
        self.to.as_ref().is_some_and(|to| to.durability != Durability::Off)
    }

    /// The next commands whose transactions are kept.
    pub(super) fn next_kept(&mut self) -> Option<Vec<Command>> {
        let (number, _) = self.waiting.front()?;
        let kept = self.kept.count.load(Ordering::Acquire);
        (*number <= kept).then(|| self.waiting.pop_front().map(|(_, commands)| commands)).flatten()
    }

    /// Whether commands wait, people for what became of their answers, or leaders until theirs are kept.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty() || !self.owed.is_empty() || !self.landed.is_empty()
    }

    /// Why nothing is kept any more.
    pub(super) fn failure(&self) -> Option<&StoreError> {
        self.kept.failed.get()
    }

    /// Waits until everything is kept, or never will be.
    pub(super) async fn settle(&self) {
        while self.failure().is_none() && self.kept.count.load(Ordering::Acquire) < self.appended {
            self.kept.news.notified().await;
        }
    }

    /// Gives the right to drive the run back.
    pub(super) fn release(&mut self) {
        self.lock = None;
    }

    /// Waits until there is something new about what was appended.
    pub(super) fn news(&self) -> impl Future<Output = ()> + Send + use<> {
        let kept = self.kept.clone();
        async move { kept.news.notified().await }
    }
}
