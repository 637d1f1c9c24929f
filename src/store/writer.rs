//! How transactions are written: a group together, in one transaction of SQLite, as a commit costs nearly the same for one as for a
//! thousand. Only after the commit are those called back who wait for it. Where something of a group fails, the group is undone and
//! its transactions are written one by one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use flowrun_engine::store::{Done, StoreError, Transaction};

use super::desk::size;
use super::schema::{PAGE_BYTES, be_patient, begin_writing, begin_writing_now};
use super::trouble::Trouble;
use super::write::{self, Ends};

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

    /// Whether somebody waits to be called back.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Self::Then(..))
    }

    /// Calls back.
    pub(super) fn give(mut self, result: Result<(), StoreError>) {
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

/// A commit writes about so many pages beside those that its lines and values fill.
const PAGES_OF_A_COMMIT: usize = 4;
/// How often a group is tried while another process writes, each time as patiently as any writer.
const BUSY_TRIES: usize = 10;
/// After so many pages the write-ahead log is moved into the file, so that it begins anew.
const LOG_PAGES_MAX: usize = 1_000;

/// Whoever writes has it.
#[derive(Debug)]
pub(super) struct Writer {
    /// Its connection.
    pub(super) connection: Connection,
    path: PathBuf,
    /// Runs of which a transaction was lost: none may follow it.
    broken: BTreeMap<Arc<str>, StoreError>,
    ends: Ends,
    /// Pages that went into the write-ahead log since it was moved, about.
    log_pages: usize,
}

/// Begins a transaction of SQLite.
type Begin = for<'c> fn(&'c mut Connection) -> Result<rusqlite::Transaction<'c>, Trouble>;

impl Writer {
    /// With a connection to write.
    pub(super) fn new(connection: Connection, path: PathBuf) -> Self {
        Self { connection, path, broken: BTreeMap::new(), ends: Ends::default(), log_pages: 0 }
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

    /// Writes transactions together and says what came of each.
    pub(super) fn keep(
        &mut self,
        group: Vec<(Transaction, Acknowledgement)>,
    ) -> Vec<(Acknowledgement, Result<(), StoreError>)> {
        let mut written = self.commit(begin_writing, group.iter().map(|(transaction, _)| transaction));
        for _ in 1..BUSY_TRIES {
            // Another process writes for long: it may be removing much.
            if written.as_ref().is_err_and(Trouble::is_busy) {
                written = self.commit(begin_writing, group.iter().map(|(transaction, _)| transaction));
            }
        }
        match written {
            Ok(results) => group.into_iter().map(|(_, acknowledgement)| acknowledgement).zip(results).collect(),
            // What cannot be written now may be one that is too large for what room is left.
            Err(trouble @ Trouble::Sqlite(..)) if group.len() > 1 && !trouble.is_busy() => {
                group.into_iter().flat_map(|one| self.keep(vec![one])).collect()
            }
            Err(trouble) => {
                let error = trouble.at(&self.path);
                let lost = |(transaction, acknowledgement): (Transaction, _)| {
                    self.broken.insert(transaction.run, error.clone());
                    (acknowledgement, Err(error.clone()))
                };
                group.into_iter().map(lost).collect()
            }
        }
    }

    /// Writes one transaction; `None`: not now, as another process is writing.
    pub(super) fn keep_now(&mut self, transaction: &Transaction) -> Option<Result<(), StoreError>> {
        let written = self.commit(begin_writing_now, std::iter::once(transaction));
        match be_patient(&mut self.connection).and(written) {
            Ok(mut results) => results.pop(),
            Err(trouble) if trouble.is_busy() => None,
            Err(trouble) => {
                let error = trouble.at(&self.path);
                self.broken.insert(transaction.run.clone(), error.clone());
                Some(Err(error))
            }
        }
    }

    /// Whether the write-ahead log has grown so long that it should be moved into the file.
    pub(super) fn is_log_long(&self) -> bool {
        self.log_pages > LOG_PAGES_MAX
    }

    /// Moves the write-ahead log into the file, as far as nobody reads from it.
    pub(super) fn shorten_log(&mut self) {
        self.log_pages = 0;
        // What cannot be moved now is read from the log, and moved some other time.
        let _later = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }

    /// Writes transactions together, each with its own result; on an error nothing is written.
    fn commit<'a>(
        &mut self,
        begin: Begin,
        group: impl Iterator<Item = &'a Transaction>,
    ) -> Result<Vec<Result<(), StoreError>>, Trouble> {
        let written = self.write(begin, group);
        if written.is_err() {
            self.ends.forget_all();
        }
        written
    }

    fn write<'a>(
        &mut self,
        begin: Begin,
        group: impl Iterator<Item = &'a Transaction>,
    ) -> Result<Vec<Result<(), StoreError>>, Trouble> {
        let Self { connection, broken, ends, .. } = self;
        let sqlite = begin(connection)?;
        let mut lost: BTreeMap<Arc<str>, StoreError> = BTreeMap::new();
        let (mut results, mut bytes) = (Vec::new(), 0);
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
            bytes += size(transaction);
        }
        sqlite.commit()?;
        broken.append(&mut lost);
        self.log_pages += PAGES_OF_A_COMMIT + bytes / PAGE_BYTES;
        Ok(results)
    }
}
