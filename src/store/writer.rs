//! The one thread that writes.
//!
//! Whatever waits for it is written together, in one SQLite transaction: a commit costs the same for one as for a thousand. Only after
//! the commit does it call back. Where something of a group fails, the group is undone and its transactions are written one by one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rusqlite::Connection;

use flowrun_engine::store::{Done, StoreError, Transaction};

use super::schema::begin_writing;
use super::trouble::Trouble;
use super::write::{self, Ends};

/// Most transactions in a group, and most bytes of them: what a crash at `Off` may take, and what memory a commit needs.
const GROUP_MAX: usize = 4_096;
const GROUP_BYTES_MAX: usize = 16 << 20;

/// With so many transactions in the last group others are likely to come in a moment, and the thread waits for them: the fewer
/// the groups, the less a transaction costs. A run that goes on alone never waits.
const CROWD: usize = 64;
/// How often the thread looks whether there is something to do, before it sleeps: some ten microseconds.
const LOOKS: u32 = 60;
const MOMENT: Duration = Duration::from_micros(250);

/// What the thread is asked for, in the order of asking.
pub(super) enum Job {
    /// To keep a transaction.
    Append(Transaction, Acknowledgement),
    /// Anything else.
    Task(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// What became of transactions that were called kept before they were.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// How many are not written yet.
    pending: AtomicU64,
    /// Why the first one that was lost was lost.
    problem: Mutex<Option<StoreError>>,
}

impl Behind {
    /// Whether something is not written yet.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0
    }

    /// Why the first one that was lost was lost.
    pub(super) fn problem(&self) -> Option<StoreError> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Calls back once, whatever happens.
pub(super) enum Acknowledgement {
    /// After the commit.
    Then(Option<Done>, PathBuf),
    /// It was called already.
    Before(Option<Arc<Behind>>, PathBuf),
}

impl Acknowledgement {
    /// Calls back now.
    pub(super) fn at_once(done: Done, behind: &Arc<Behind>, path: PathBuf) -> Self {
        behind.pending.fetch_add(1, Ordering::AcqRel);
        done(Ok(()));
        Self::Before(Some(behind.clone()), path)
    }

    fn give(mut self, result: Result<(), StoreError>) {
        self.settle(result);
    }

    fn settle(&mut self, result: Result<(), StoreError>) {
        match self {
            Self::Then(done, _) => {
                if let Some(done) = done.take() {
                    done(result);
                }
            }
            Self::Before(behind, _) => {
                if let Some(behind) = behind.take() {
                    if let Err(error) = result {
                        behind.problem.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                    behind.pending.fetch_sub(1, Ordering::AcqRel);
                }
            }
        }
    }
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        let (Self::Then(_, path) | Self::Before(_, path)) = &*self;
        let (place, detail) = (path.display().to_string(), "the thread that writes is gone".to_owned());
        self.settle(Err(StoreError::Medium { place, detail }));
    }
}

/// The thread's own.
pub(super) struct Writer {
    /// Its connection.
    pub(super) connection: Connection,
    path: PathBuf,
    /// Runs of which a transaction was lost: none may follow it.
    broken: BTreeMap<Arc<str>, StoreError>,
    ends: Ends,
}

impl Writer {
    /// With a connection to write.
    pub(super) fn new(connection: Connection, path: PathBuf) -> Self {
        Self { connection, path, broken: BTreeMap::new(), ends: Ends::default() }
    }

    /// Somebody begins to drive a run: what was lost before is not there for them.
    pub(super) fn mend(&mut self, run: &str) {
        self.broken.remove(run);
        self.ends.forget(run);
    }

    /// Runs are about to go.
    pub(super) fn forget_ends(&mut self) {
        self.ends.forget_all();
    }

    /// Works until nobody can ask any more.
    pub(super) fn serve(mut self, jobs: &Receiver<Job>) {
        let mut held = None;
        let mut crowded = false;
        while let Some(job) = held.take().or_else(|| next(jobs)) {
            match job {
                Job::Task(task) => task(&mut self),
                Job::Append(transaction, acknowledgement) => {
                    if crowded {
                        thread::sleep(MOMENT);
                    }
                    let mut bytes = size(&transaction);
                    let mut group = vec![(transaction, acknowledgement)];
                    while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
                        match jobs.try_recv() {
                            Ok(Job::Append(transaction, acknowledgement)) => {
                                bytes += size(&transaction);
                                group.push((transaction, acknowledgement));
                            }
                            Ok(task) => {
                                held = Some(task);
                                break;
                            }
                            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                        }
                    }
                    crowded = group.len() >= CROWD;
                    self.keep(group);
                }
            }
        }
    }

    fn keep(&mut self, group: Vec<(Transaction, Acknowledgement)>) {
        let written = self.commit(group.iter().map(|(transaction, _)| transaction));
        if written.is_err() {
            self.ends.forget_all();
        }
        match written {
            Ok(results) => {
                for ((_, acknowledgement), result) in group.into_iter().zip(results) {
                    acknowledgement.give(result);
                }
            }
            // What cannot be written now may be one that is too large for what room is left.
            Err(Trouble::Sqlite(..)) if group.len() > 1 => group.into_iter().for_each(|one| self.keep(vec![one])),
            Err(trouble) => {
                let error = trouble.at(&self.path);
                for (transaction, acknowledgement) in group {
                    self.broken.insert(transaction.run, error.clone());
                    acknowledgement.give(Err(error.clone()));
                }
            }
        }
    }

    /// Writes transactions together, each with its own result; on an error nothing is written.
    fn commit<'a>(
        &mut self,
        group: impl Iterator<Item = &'a Transaction>,
    ) -> Result<Vec<Result<(), StoreError>>, Trouble> {
        let Self { connection, broken, ends, .. } = self;
        let sqlite = begin_writing(connection)?;
        let mut lost: BTreeMap<Arc<str>, StoreError> = BTreeMap::new();
        let mut results = Vec::new();
        for transaction in group {
            let run = &transaction.run;
            let result = match broken.get(run).or_else(|| lost.get(run)) {
                Some(error) => Err(error.clone()),
                None => write::insert(&sqlite, ends, transaction)?,
            };
            if let Err(error) = &result {
                lost.entry(run.clone()).or_insert_with(|| error.clone());
            }
            results.push(result);
        }
        sqlite.commit()?;
        broken.append(&mut lost);
        Ok(results)
    }
}

/// The next job. A run that goes on alone has its next transaction at once: a few looks come before the sleep.
fn next(jobs: &Receiver<Job>) -> Option<Job> {
    for _ in 0..LOOKS {
        match jobs.try_recv() {
            Ok(job) => return Some(job),
            Err(TryRecvError::Empty) => thread::yield_now(),
            Err(TryRecvError::Disconnected) => return None,
        }
    }
    jobs.recv().ok()
}

fn size(transaction: &Transaction) -> usize {
    transaction.lines.len() + transaction.values.iter().map(|(_, text)| text.len()).sum::<usize>()
}
