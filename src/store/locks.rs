//! The right to drive a run: a lock of the system on a file beside the database, which a crash releases.
//!
//! Whoever asks for a lock, looks at one or gives one back holds the *gate* meanwhile, a lock of its own for moments. So a look never
//! keeps anybody from driving, and no file is removed between being opened and being locked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use flowrun_engine::store::{RunLock, StoreError, is_run_id};

use super::desk::HeldBack;
use super::trouble::of_system;

/// The folder of locks of a database.
#[derive(Clone, Debug)]
pub(super) struct Locks(PathBuf);

/// The right to drive a run.
pub(super) struct Held {
    locks: Locks,
    run: PathBuf,
    _file: File,
}

impl RunLock for HeldBack<Held> {}

impl Drop for Held {
    fn drop(&mut self) {
        // If it stays, it is an empty file that nobody holds, and the next driver takes it. Elsewhere than on Unix an open file stays.
        if cfg!(unix)
            && let Ok(_gate) = self.locks.gate()
        {
            let _stays = fs::remove_file(&self.run);
        }
    }
}

impl Locks {
    /// The locks of a database.
    pub(super) fn beside(database: &Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push(".locks");
        Self(PathBuf::from(name))
    }

    /// Whether there is their folder.
    pub(super) fn exist(&self) -> bool {
        self.0.exists()
    }

    /// Removes their folder, unless there is more than the gate.
    pub(super) fn remove(&self) {
        if fs::read_dir(&self.0).is_ok_and(|entries| entries.count() == 1) {
            // What stays is an empty folder.
            let _stays = fs::remove_file(self.0.join(".gate")).and_then(|()| fs::remove_dir(&self.0));
        }
    }

    /// Keeps all others who ask for it waiting until it is dropped.
    pub(super) fn gate(&self) -> Result<File, StoreError> {
        let path = self.0.join(".gate");
        let open = || OpenOptions::new().create(true).append(true).open(&path);
        let opened = open().or_else(|error| match error.kind() {
            ErrorKind::NotFound => fs::create_dir_all(&self.0).and_then(|()| open()),
            _ => Err(error),
        });
        let locked = opened.and_then(|file| retried(|| file.lock()).map(|()| file));
        locked.map_err(|error| of_system(&path, &error))
    }

    /// See [`Store::lock`](flowrun_engine::store::Store::lock).
    pub(super) fn lock(&self, run: &str) -> Result<Option<Held>, StoreError> {
        let path = self.file(run)?;
        let _gate = self.gate()?;
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let file = opened.map_err(|error| of_system(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Held { locks: self.clone(), run: path, _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(of_system(&path, &error)),
        }
    }

    /// See [`Store::is_driven`](flowrun_engine::store::Store::is_driven).
    pub(super) fn is_held(&self, run: &str) -> Result<bool, StoreError> {
        let path = self.file(run)?;
        if !path.exists() {
            return Ok(false);
        }
        // Where the gate cannot be opened to write, nobody can take a lock either; one that is held shows all the same.
        let _gate = self.gate().ok();
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(|error| of_system(&path, &error))?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(of_system(&path, &error)),
        }
    }

    fn file(&self, run: &str) -> Result<PathBuf, StoreError> {
        if is_run_id(run) { Ok(self.0.join(run)) } else { Err(StoreError::BadId(run.to_owned())) }
    }
}

fn retried(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
