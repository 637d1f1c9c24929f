//! What can be read of a log where the file is damaged: row by row from both ends, so that one bad page costs what is on it.

use std::collections::BTreeMap;

use rusqlite::Connection;

use flowrun_engine::store::{StoreError, Stored};

use super::SqliteStore;
use super::read::stored;
use super::schema::places;
use super::trouble::Trouble;
use super::write::run_number;

impl SqliteStore {
    /// The transactions of a run that are as they were written, in order, and why the first of the others is not there. For views;
    /// whoever goes on from a log reads it with [`Store::log`](flowrun_engine::store::Store::log), which gives all or nothing.
    ///
    /// # Errors
    /// What the medium says that is no damage.
    pub fn log_intact(&self, run: &str) -> Result<(Vec<Stored>, Option<String>), StoreError> {
        self.read(|connection| intact(connection, run))
    }
}

fn intact(connection: &Connection, run: &str) -> Result<(Vec<Stored>, Option<String>), Trouble> {
    let Some(number) = run_number(connection, run)? else { return Ok((Vec::new(), None)) };
    let (first, last) = places(number, 0);
    let (mut log, mut damage) = (BTreeMap::new(), None);
    for order in ["ASC", "DESC"] {
        let select = format!(
            "SELECT place, lines, checksum, before FROM log WHERE place BETWEEN ?1 AND ?2 ORDER BY place {order}"
        );
        let mut statement = connection.prepare(&select)?;
        let mut rows = statement.query([first, last])?;
        let ended = loop {
            match rows.next() {
                Ok(None) => break true,
                Ok(Some(row)) => match stored(row, run) {
                    Ok((stored, _)) => drop(log.insert(stored.first, stored)),
                    Err(trouble) if trouble.is_busy() => return Err(trouble),
                    Err(trouble) => drop(damage.get_or_insert_with(|| said(&trouble))),
                },
                Err(error) => {
                    let trouble = Trouble::from(error);
                    if trouble.is_busy() {
                        return Err(trouble);
                    }
                    damage.get_or_insert_with(|| said(&trouble));
                    break false;
                }
            }
        };
        if ended {
            break;
        }
    }
    Ok((log.into_values().collect(), damage))
}

fn said(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Damaged(what) => what.clone(),
        Trouble::Sqlite(error, _) => format!("some of it cannot be read: {error}"),
        Trouble::Store(error) => error.to_string(),
    }
}
