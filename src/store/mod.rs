//! The store in one SQLite file, which many processes may share.
//!
//! `schema.rs` has the file's form, `desk.rs` takes what is to be written and `writer.rs` writes it, `readers.rs` the connections that read, `write.rs` and
//! `read.rs` what is written and read,
//! `locks.rs` who drives a run, `prune.rs` how a store becomes smaller, `damage.rs` how it is examined.

mod damage;
mod desk;
mod intact;
mod locks;
mod prune;
mod read;
mod readers;
mod schema;
#[cfg(test)]
mod tests;
mod trouble;
mod write;
mod writer;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use rusqlite::Connection;
use serde_json::Value;

use flowrun_engine::id::ValueHash;
use flowrun_engine::store::{
    CacheEntry, Done, Durability, EntryFilter, Letter, RunInfo, RunLock, Store, StoreError, StoreSize, Stored,
    Transaction,
};

use desk::Desk;
use locks::Locks;
use readers::Readers;
use schema::Access;
use trouble::{Trouble, of_system};
use writer::{Acknowledgement, Behind, Writer};

/// Keeps everything in one SQLite file.
///
/// Any number of handles, in any number of processes, may have the same file. Dropping a handle writes what it was given before. What
/// [`Store::append`] calls back on is a thread that writes, the store's own or that of whoever handed in: it must not wait for this store
/// there. The right to drive a run ends only when all that was handed in for it is written.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    durability: Durability,
    readers: Readers,
    locks: Locks,
    behind: Arc<Behind>,
    /// `None` of one that was opened to read.
    desk: Option<Desk>,
}

impl SqliteStore {
    /// Opens a store, and makes it and its folder if there is none. A folder of the name `.flowrun` is kept out of git.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Full`], [`StoreError::Format`] for a file of a newer program, [`StoreError::Damaged`] for
    /// one that is no store, [`StoreError::Medium`] for the rest.
    pub fn open(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        must_be_a_file(path)?;
        make_folder(path)?;
        let mut store = Self::of(path, durability, false);
        let is_first = !store.locks.exist();
        let connection = {
            // One at a time: whoever makes the file makes all of it.
            let _gate = store.locks.gate()?;
            let opened = schema::connect(path, Access::Write(durability));
            let migrated = opened.and_then(|mut connection| {
                schema::migrate(&mut connection, path)?;
                Ok(connection)
            });
            migrated.map_err(|trouble| trouble.at(path)).inspect_err(|error| {
                if is_first && matches!(error, StoreError::Damaged { .. }) {
                    // What is no store keeps nothing of this one.
                    store.locks.remove();
                }
            })?
        };
        let desk = Desk::new(Writer::new(connection, path.to_owned()));
        store.desk = Some(desk.map_err(|error| of_system(path, &error))?);
        Ok(store)
    }

    /// Opens a store to read it, in a folder that need not be writable. Nothing is made: where there is no file there are no runs.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        must_be_a_file(path)?;
        let store = Self::of(path, Durability::default(), true);
        store.readers.read(|_| Ok(()))?;
        Ok(store)
    }

    fn of(path: &Path, durability: Durability, looks_only: bool) -> Self {
        // SQLite would take a name like `:memory:` for something else than a file.
        let path = &if path.starts_with(":memory:") { Path::new(".").join(path) } else { path.to_owned() };
        Self {
            path: path.to_owned(),
            durability,
            readers: Readers::new(path, looks_only),
            locks: Locks::beside(path),
            behind: Arc::default(),
            desk: None,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// With [`Durability::Off`]: why the first transaction that was lost was lost. All that was given before is written first.
    pub fn problem(&self) -> Option<StoreError> {
        self.catch_up();
        self.behind.problem()
    }

    /// Has the writer do something and waits for it.
    fn ask<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Writer) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let gone = || self.medium("the thread that writes is gone");
        let taken = self.desk()?.task(move |writer| {
            // Whoever asked waits for it.
            let _received = answer.send(task(writer));
        });
        if !taken {
            return Err(gone());
        }
        answered.recv().map_err(|_| gone())?.map_err(|trouble| trouble.at(&self.path))
    }

    fn desk(&self) -> Result<&Desk, StoreError> {
        let read_only = || StoreError::ReadOnly {
            place: self.path.display().to_string(),
            detail: "it was opened to read".to_owned(),
        };
        self.desk.as_ref().ok_or_else(read_only)
    }

    fn medium(&self, detail: &str) -> StoreError {
        StoreError::Medium { place: self.path.display().to_string(), detail: detail.to_owned() }
    }

    /// Waits until what was called kept at once is written, so that whoever wrote it sees it.
    fn catch_up(&self) {
        if self.behind.is_pending() {
            // A writer that is gone has nothing to wait for.
            let _gone = self.ask(|_| Ok(()));
        }
    }

    fn read<T: Default>(&self, read: impl Fn(&Connection) -> Result<T, Trouble>) -> Result<T, StoreError> {
        self.catch_up();
        Ok(self.readers.read(read)?.unwrap_or_default())
    }

    /// What is found at once, or else after everything is written.
    fn find<T>(&self, find: impl Fn(&Connection) -> Result<Option<T>, Trouble>) -> Result<Option<T>, StoreError> {
        let behind = self.behind.is_pending();
        match self.readers.read(&find)?.flatten() {
            None if behind => self.read(find),
            found => Ok(found),
        }
    }
}

fn must_be_a_file(path: &Path) -> Result<(), StoreError> {
    let (place, detail) = (path.display().to_string(), "it is no file".to_owned());
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => Err(StoreError::ReadOnly { place, detail }),
        _ => Ok(()),
    }
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    fs::create_dir_all(folder).map_err(|error| of_system(folder, &error))?;
    let ignore = folder.join(".gitignore");
    if !folder.ends_with(".flowrun") || ignore.exists() {
        return Ok(());
    }
    match fs::write(&ignore, "*\n") {
        // A folder that may only be read can hold a store all the same; what follows tells.
        Err(error) if error.kind() != ErrorKind::StorageFull => Ok(()),
        written => written.map_err(|error| of_system(&ignore, &error)),
    }
}

impl Store for SqliteStore {
    fn begin(&self, run: &RunInfo) -> Result<(), StoreError> {
        let run = run.clone();
        self.ask(move |writer| {
            write::begin(&mut writer.connection, &run)?;
            writer.mend(&run.id);
            Ok(())
        })
    }

    fn append(&self, transaction: Transaction, done: Done) {
        let desk = match self.desk() {
            Ok(desk) => desk,
            Err(error) => return done(Err(error)),
        };
        let path = self.path.clone();
        let acknowledgement = match self.durability {
            Durability::Off => Acknowledgement::at_once(done, &self.behind, path),
            Durability::Normal | Durability::Full => Acknowledgement::Then(Some(done), path),
        };
        desk.append(transaction, acknowledgement);
    }

    fn run(&self, id: &str) -> Result<Option<RunInfo>, StoreError> {
        self.read(|connection| read::run(connection, id))
    }

    fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        self.read(read::runs)
    }

    fn log(&self, run: &str, from: u64) -> Result<Vec<Stored>, StoreError> {
        self.read(|connection| read::log(connection, run, from))
    }

    fn value(&self, hash: ValueHash) -> Result<Option<Arc<str>>, StoreError> {
        self.find(|connection| read::value(connection, hash))
    }

    fn entry(&self, key: ValueHash) -> Result<Option<CacheEntry>, StoreError> {
        self.find(|connection| read::entry(connection, key))
    }

    fn entries(&self, filter: &EntryFilter) -> Result<Vec<CacheEntry>, StoreError> {
        self.read(|connection| read::entries(connection, filter))
    }

    fn forget(&self, keys: &[ValueHash]) -> Result<u64, StoreError> {
        let keys = keys.to_vec();
        self.ask(move |writer| write::forget(&mut writer.connection, &keys))
    }

    fn prune(&self, runs: &[String]) -> Result<u64, StoreError> {
        let (runs, locks) = (runs.to_vec(), self.locks.clone());
        self.ask(move |writer| {
            writer.forget_ends();
            prune::prune(&mut writer.connection, &locks, &runs)
        })
    }

    fn lock(&self, run: &str) -> Result<Option<Box<dyn RunLock>>, StoreError> {
        let desk = self.desk()?;
        let (run, locks) = (run.to_owned(), self.locks.clone());
        // After all that was handed in before: also after a lock that is being given back.
        let lock = self.ask(move |writer| {
            let lock = locks.lock(&run)?;
            if lock.is_some() {
                writer.mend(&run);
            }
            Ok(lock)
        })?;
        Ok(lock.map(|lock| Box::new(desk.hold(lock)) as Box<dyn RunLock>))
    }

    fn is_driven(&self, run: &str) -> Result<bool, StoreError> {
        if self.desk.as_ref().is_some_and(Desk::is_busy) {
            // It may be about to give the lock back.
            self.ask(|_| Ok(()))?;
        }
        self.locks.is_held(run)
    }

    fn post(&self, run: &str, step: &str, value: &Value) -> Result<u64, StoreError> {
        let (run, step, value) = (run.to_owned(), step.to_owned(), value.clone());
        self.ask(move |writer| write::post(&mut writer.connection, &run, &step, &value))
    }

    fn letters(&self, run: &str) -> Result<Vec<Letter>, StoreError> {
        self.read(|connection| read::letters(connection, run))
    }

    fn judge(&self, letter: u64, verdict: &Result<(), String>) -> Result<(), StoreError> {
        let verdict = verdict.clone();
        self.ask(move |writer| write::judge(&mut writer.connection, letter, verdict))
    }

    fn verdict(&self, letter: u64) -> Result<Option<Result<(), String>>, StoreError> {
        self.read(|connection| read::verdict(connection, letter))
    }

    fn damage(&self) -> Result<Vec<String>, StoreError> {
        self.read(damage::damage)
    }

    fn size(&self) -> Result<StoreSize, StoreError> {
        let size = self.read(read::size)?;
        let length = |path: PathBuf| fs::metadata(path).map_or(0, |file| file.len());
        let bytes = length(self.path.clone()) + length(readers::beside(&self.path, "-wal"));
        Ok(StoreSize { bytes, ..size })
    }
}
