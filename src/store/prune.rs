//! How a store becomes smaller: runs go, and then every value that nothing names any more.
//!
//! Values are marked from what remains (logs, origins of runs, cache entries) and from there on through the values' own texts, which
//! name others: what a key was made of names the rendered input. Marks are one bit a value, and of the texts that wait to be looked
//! through only numbers are held, so that memory stays small however large the store is. Marking and removing are one SQLite
//! transaction that writes: nobody adds anything meanwhile, and a crash leaves every value where it was. Time: one pass over what remains.

use rusqlite::{Connection, OptionalExtension, params};

use flowrun_engine::id::ValueHash;
use flowrun_engine::store::hashes_in;

use super::locks::Locks;
use super::schema::{begin_writing, places};
use super::trouble::Trouble;
use super::write::run_number;

/// Most runs that go at once: each is a lock, and so an open file, meanwhile.
const CHUNK: usize = 256;

/// See [`Store::prune`](flowrun_engine::store::Store::prune).
pub(super) fn prune(connection: &mut Connection, locks: &Locks, runs: &[String]) -> Result<u64, Trouble> {
    for runs in runs.chunks(CHUNK) {
        let transaction = begin_writing(connection)?;
        // Held until the runs are gone, so that nobody begins to drive them now.
        let mut held = Vec::new();
        for run in runs {
            let Some(number) = run_number(&transaction, run)? else { continue };
            let Some(lock) = locks.lock(run)? else { continue };
            held.push(lock);
            let (first, last) = places(number, 0);
            transaction.execute("DELETE FROM log WHERE place BETWEEN ?1 AND ?2", [first, last])?;
            transaction.execute("DELETE FROM tail WHERE run = ?1", [number])?;
            transaction.execute("DELETE FROM letter WHERE run = ?1", [number])?;
            transaction.execute("DELETE FROM run WHERE number = ?1", [number])?;
        }
        transaction.commit()?;
    }
    let transaction = begin_writing(connection)?;
    let marks = Marks::of(&transaction)?;
    let removed = marks.sweep(&transaction)?;
    transaction.commit()?;
    shrink(connection)?;
    Ok(removed)
}

struct Marks<'a> {
    connection: &'a Connection,
    bits: Vec<u64>,
    /// Numbers of marked values whose texts were not looked through.
    open: Vec<i64>,
}

impl<'a> Marks<'a> {
    fn of(connection: &'a Connection) -> Result<Self, Trouble> {
        let last: Option<i64> = connection.query_row("SELECT max(number) FROM value", [], |row| row.get(0))?;
        let mut marks = Self { connection, bits: vec![0; last.unwrap_or(0) as usize / 64 + 1], open: Vec::new() };
        for texts in ["SELECT lines FROM log", "SELECT origin FROM run"] {
            let mut statement = connection.prepare(texts)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                marks.mark_text(row.get_ref(0)?.as_str().unwrap_or_default())?;
            }
        }
        let mut statement = connection.prepare("SELECT key, value FROM entry")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            marks.mark(ValueHash::from_bytes(row.get(0)?))?;
            marks.mark(ValueHash::from_bytes(row.get(1)?))?;
            marks.follow()?;
        }
        Ok(marks)
    }

    fn mark_text(&mut self, text: &str) -> Result<(), Trouble> {
        hashes_in(text).try_for_each(|hash| self.mark(hash))?;
        self.follow()
    }

    fn mark(&mut self, hash: ValueHash) -> Result<(), Trouble> {
        let mut statement = self.connection.prepare_cached("SELECT number FROM value WHERE hash = ?1")?;
        let number: Option<i64> = statement.query_row([hash.as_bytes()], |row| row.get(0)).optional()?;
        let Some(number) = number else { return Ok(()) };
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if self.bits[word] & bit == 0 {
            self.bits[word] |= bit;
            self.open.push(number);
        }
        Ok(())
    }

    fn follow(&mut self) -> Result<(), Trouble> {
        while let Some(number) = self.open.pop() {
            let mut statement = self.connection.prepare_cached("SELECT text FROM value WHERE number = ?1")?;
            let mut rows = statement.query([number])?;
            if let Some(row) = rows.next()? {
                let text = row.get_ref(0)?.as_str().unwrap_or_default();
                hashes_in(text).try_for_each(|hash| self.mark(hash))?;
            }
        }
        Ok(())
    }

    /// Removes what bears no mark; gives how many there were.
    fn sweep(&self, connection: &Connection) -> Result<u64, Trouble> {
        let mut next = connection.prepare("SELECT number FROM value WHERE number > ?1 ORDER BY number LIMIT 1024")?;
        let mut delete = connection.prepare("DELETE FROM value WHERE number = ?1")?;
        let (mut after, mut removed) = (-1, 0);
        loop {
            let numbers: Vec<i64> = next.query_map([after], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let Some(last) = numbers.last() else { return Ok(removed) };
            after = *last;
            for number in numbers {
                if self.bits[number as usize / 64] & 1 << (number % 64) == 0 {
                    removed += delete.execute(params![number])? as u64;
                }
            }
        }
    }
}

/// Gives the room that became free back to the system. Where others are reading, as much of it as they allow.
fn shrink(connection: &Connection) -> Result<(), Trouble> {
    for pragma in ["PRAGMA incremental_vacuum", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        let mut statement = connection.prepare(pragma)?;
        let mut rows = statement.query([])?;
        // Each step gives one page back.
        while rows.next()?.is_some() {}
    }
    Ok(())
}
