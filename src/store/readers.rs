//! The connections that readers take turns on.
//!
//! A store that only looks never makes a file and may stand in a folder that cannot be written. How it reads depends on who else has
//! the file open, which the files beside it tell: see [`Access`]. Without locks, what was read counts only if the file is as it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rusqlite::Connection;

use flowrun_engine::store::StoreError;

use super::schema::{self, Access, connect, is_readable};
use super::trouble::Trouble;

/// Most connections that wait for the next reader.
const IDLE_MAX: usize = 8;

/// How often a look at a file that others begin to write is begun again.
const LOOKS_MAX: usize = 20;

/// Connections to read.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    /// Whether nothing may be made, because nobody of this store writes.
    looks_only: bool,
    idle: Mutex<Vec<(Stamp, Connection)>>,
}

/// In which state a file is, as far as its readers must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    access: Access,
    /// Length and time of the last change, where only they tell that somebody writes.
    file: Option<(u64, Option<SystemTime>)>,
}

impl Readers {
    /// Of a file that this store writes, or else only looks at.
    pub(super) fn new(path: &Path, looks_only: bool) -> Self {
        Self { path: path.to_owned(), looks_only, idle: Mutex::default() }
    }

    /// Reads; `None` if there is no file.
    pub(super) fn read<T>(&self, read: impl Fn(&Connection) -> Result<T, Trouble>) -> Result<Option<T>, StoreError> {
        let mut looks = 0;
        loop {
            let Some(stamp) = self.stamp() else { return Ok(None) };
            let result = self.once(stamp, &read);
            // Without locks a look counts only if nobody has begun to write meanwhile.
            looks += 1;
            if stamp.file.is_none() || self.stamp() == Some(stamp) || looks == LOOKS_MAX {
                return result.map_err(|trouble| trouble.at(&self.path));
            }
        }
    }

    fn once<T>(&self, stamp: Stamp, read: impl Fn(&Connection) -> Result<T, Trouble>) -> Result<Option<T>, Trouble> {
        let idle = {
            let mut idle = self.idle();
            idle.retain(|(from, _)| *from == stamp);
            idle.pop()
        };
        let connection = match idle {
            Some((_, connection)) => connection,
            None => {
                let connection = schema::patiently(|| connect(&self.path, stamp.access))?;
                if self.looks_only && !is_readable(&connection, &self.path)? {
                    return Ok(None);
                }
                connection
            }
        };
        let result = schema::patiently(|| read(&connection));
        let mut idle = self.idle();
        if result.is_ok() && idle.len() < IDLE_MAX {
            idle.push((stamp, connection));
        }
        result.map(Some)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Stamp, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: there is no file.
    fn stamp(&self) -> Option<Stamp> {
        if !self.looks_only {
            return Some(Stamp { access: Access::Read, file: None });
        }
        let file = fs::metadata(&self.path).ok()?;
        let length = |ending: &str| fs::metadata(beside(&self.path, ending)).map(|beside| beside.len());
        // Whoever has it open has a file of shared memory, or left it in a crash; then locks say who may do what.
        let access = match (length("-shm"), length("-wal")) {
            (Ok(_), Ok(_)) => Access::Look,
            (_, Ok(1..)) => Access::LookAtLog,
            _ => Access::LookAtFile,
        };
        let seen = (file.len(), file.modified().ok());
        Some(Stamp { access, file: Some(seen).filter(|_| access != Access::Look) })
    }
}

/// The path of a file that SQLite keeps beside the database.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
