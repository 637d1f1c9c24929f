//! The file: its tables, how connections to it are set up, and how an older one becomes one of today.
//!
//! Transactions of all runs stand in the order in which they came, so that a commit writes neighbours, and are found by an index of a
//! number that is made of the run's and of the first event's ([`place`]). Values stand in the order in which they came, too, and are
//! found by an index of their hashes: a big row in the index itself would make every look-up read more pages. Every row carries a checksum of 8 bytes, values their hash. Rows that a damaged
//! page has lost show too: each transaction knows the number of the one before it, and a table of tails that of the last one of each run that has ended.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Row, Transaction, TransactionBehavior};

use flowrun_engine::id::ValueHash;
use flowrun_engine::store::{Durability, StoreError};

use super::trouble::Trouble;

/// Marks the file as one of flowrun's: `flow` in ASCII.
const APPLICATION: i64 = 0x666C_6F77;

/// Bytes of a page. A small commit writes four pages whatever their size, so that they are small.
pub(super) const PAGE_BYTES: usize = 4_096;

/// How long whoever wants to write waits for the others.
const PATIENCE: Duration = Duration::from_secs(60);

/// What makes format `n` of format `n - 1`, from nothing on. Never changed, only added to.
pub(super) const MIGRATIONS: &[&str] = &["
CREATE TABLE run (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    workflow TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    origin TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    summary TEXT,
    summary_checksum INTEGER
);
CREATE TABLE log (
    number INTEGER PRIMARY KEY,
    place INTEGER NOT NULL,
    before INTEGER,
    lines TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE UNIQUE INDEX log_place ON log (place);
CREATE TABLE tail (run INTEGER PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE value (number INTEGER PRIMARY KEY, hash BLOB NOT NULL, text TEXT NOT NULL);
CREATE UNIQUE INDEX value_hash ON value (hash);
CREATE TABLE entry (
    key BLOB PRIMARY KEY,
    value BLOB NOT NULL,
    kind TEXT NOT NULL,
    node TEXT NOT NULL,
    run TEXT NOT NULL,
    step TEXT NOT NULL,
    calls INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX entry_node ON entry (node, created_ms);
CREATE TABLE letter (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL,
    step TEXT NOT NULL,
    value TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    judged INTEGER NOT NULL DEFAULT 0,
    refusal TEXT
);
CREATE INDEX letter_run ON letter (run);
"];

/// How a connection comes to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// To write; the file is made if there is none.
    Write(Durability),
    /// To read, beside the store's own writer.
    Read,
    /// To read what others may be writing, without making anything.
    Look,
    /// To read what nobody has open; what only the write-ahead log has is read as well.
    LookAtLog,
    /// To read what nobody has open and what has no write-ahead log.
    LookAtFile,
}

/// Opens a connection.
pub(super) fn connect(path: &Path, access: Access) -> Result<Connection, Trouble> {
    let flags = match access {
        Access::Write(_) => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Access::Read => OpenFlags::SQLITE_OPEN_READ_WRITE,
        _ => OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
    };
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = match access {
        // Where there is nobody to lock out, a read-only medium may not even take the file for locks.
        Access::LookAtLog if cfg!(unix) => Connection::open_with_flags(uri(path, "mode=ro&vfs=unix-none"), flags),
        Access::LookAtFile => Connection::open_with_flags(uri(path, "immutable=1"), flags),
        Access::Look | Access::LookAtLog => Connection::open_with_flags(uri(path, "mode=ro"), flags),
        _ => Connection::open_with_flags(path, flags),
    }?;
    be_patient(&mut connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    // No memory map: a file that somebody cuts short must give an error, not a signal. Checks of what is read are worth their time.
    connection.execute_batch("PRAGMA cell_size_check = 1; PRAGMA trusted_schema = 0; PRAGMA foreign_keys = 0")?;
    match access {
        Access::Write(durability) => set_up_writing(&mut connection, durability)?,
        Access::LookAtLog if cfg!(unix) => {
            // Keeps the index of the log in memory, where others would want a file for it.
            connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA query_only = 1")?;
        }
        _ => connection.execute_batch("PRAGMA query_only = 1")?,
    }
    Ok(connection)
}

fn uri(path: &Path, how: &str) -> String {
    let mut uri = String::from("file:");
    for c in path.to_string_lossy().chars() {
        match c {
            '%' => uri.push_str("%25"),
            '?' => uri.push_str("%3f"),
            '#' => uri.push_str("%23"),
            c => uri.push(c),
        }
    }
    format!("{uri}?{how}")
}

fn set_up_writing(connection: &mut Connection, durability: Durability) -> Result<(), Trouble> {
    // `Off` does not go below NORMAL: without any waiting a loss of power could take the whole file, and nothing would be gained,
    // since nobody waits for this thread and NORMAL waits for the disk at checkpoints alone.
    let synchronous = if durability == Durability::Full { "FULL" } else { "NORMAL" };
    // What only counts before there are tables comes first.
    let text = format!(
        "PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
         PRAGMA cache_size = -32768; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY"
    );
    patiently(|| Ok(connection.execute_batch(&text)?))?;
    if connection.is_readonly("main")? {
        let place = connection.path().unwrap_or_default().to_owned();
        return Err(StoreError::ReadOnly { place, detail: "the file may only be read".to_owned() }.into());
    }
    Ok(())
}

/// Waits for others in short naps of uneven length, so that of many processes none waits for ever.
pub(super) fn be_patient(connection: &mut Connection) -> Result<(), Trouble> {
    let (mut began, mut naps) = (Instant::now(), std::process::id());
    let handler = move |count: i32| {
        if count == 0 {
            began = Instant::now();
        }
        naps = naps.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let most_us = 500 << count.clamp(0, 4);
        thread::sleep(Duration::from_micros(100 + u64::from(naps >> 8) % most_us));
        began.elapsed() < PATIENCE
    };
    Ok(connection.busy_handler(Some(handler))?)
}

/// Tries again where SQLite does not wait by itself: while another process makes the file or repairs its log.
pub(super) fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(trouble) if trouble.is_busy() && began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(3)),
            result => return result,
        }
    }
}

/// A transaction that writes, now or not at all: [`Trouble::is_busy`] while others do. From then on the connection waits for nobody.
pub(super) fn begin_writing_now(connection: &mut Connection) -> Result<Transaction<'_>, Trouble> {
    connection.busy_timeout(Duration::ZERO)?;
    Ok(Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?)
}

/// A transaction that writes, after those of others.
pub(super) fn begin_writing(connection: &mut Connection) -> Result<Transaction<'_>, Trouble> {
    patiently(|| Ok(Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?))
}

/// Makes the tables, or brings them up to today's format.
///
/// # Errors
/// [`StoreError::Format`] if the file is newer than the program.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Trouble> {
    if found_format(connection, path, MIGRATIONS.len())? < MIGRATIONS.len() {
        apply(connection, path, MIGRATIONS)?;
    }
    Ok(())
}

/// Makes the format that the last of these migrations makes, of whatever format there is.
pub(super) fn apply(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), Trouble> {
    let transaction = begin_writing(connection)?;
    // Another process may have been faster.
    let found = found_format(&transaction, path, migrations.len())?;
    for migration in &migrations[found..] {
        transaction.execute_batch(migration)?;
    }
    let (application, format) = (APPLICATION, migrations.len());
    transaction.execute_batch(&format!("PRAGMA application_id = {application}; PRAGMA user_version = {format}"))?;
    Ok(transaction.commit()?)
}

/// Whether there is a format to read; `false`: the file is empty, its maker is at it.
///
/// # Errors
/// [`StoreError::Format`] if it is not today's.
pub(super) fn is_readable(connection: &Connection, path: &Path) -> Result<bool, Trouble> {
    match found_format(connection, path, MIGRATIONS.len())? {
        0 => Ok(false),
        found if found == MIGRATIONS.len() => Ok(true),
        found => Err(format_error(path, found as u64, MIGRATIONS.len())),
    }
}

fn found_format(connection: &Connection, path: &Path, known: usize) -> Result<usize, Trouble> {
    // One statement sees one state: another process may be making the file between two.
    let one_look = "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema) \
                    FROM pragma_application_id, pragma_user_version";
    let numbers = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let (application, found, tables) = patiently(|| Ok(connection.query_row(one_look, [], numbers)?))?;
    match usize::try_from(found) {
        Ok(0) if application == 0 && tables == 0 => Ok(0),
        _ if application != APPLICATION => Err(Trouble::Damaged("it is a database of another program".into())),
        Ok(found) if found <= known => Ok(found),
        _ => Err(format_error(path, found as u64, known)),
    }
}

fn format_error(path: &Path, found: u64, known: usize) -> Trouble {
    StoreError::Format { place: path.display().to_string(), found, known: known as u64 }.into()
}

/// Bits of a [`place`] that number events; the rest numbers runs.
const EVENT_BITS: u32 = 36;

/// Where a transaction stands in the log: by run, then by the number of its first event. `None` for numbers that no run reaches.
pub(super) fn place(run: i64, first: u64) -> Option<i64> {
    let fits = first < 1 << EVENT_BITS && (0..1 << (63 - EVENT_BITS)).contains(&run);
    fits.then_some(run << EVENT_BITS | first as i64)
}

/// The places of a run from an event on: the first and the last.
pub(super) fn places(run: i64, from: u64) -> (i64, i64) {
    let last = (1 << EVENT_BITS) - 1;
    (run << EVENT_BITS | from.min(last) as i64, run << EVENT_BITS | last as i64)
}

/// The run's number and the first event's of a place.
pub(super) fn run_and_first(place: i64) -> (i64, u64) {
    (place >> EVENT_BITS, (place & ((1 << EVENT_BITS) - 1)) as u64)
}

/// The checksum of a row: 8 bytes of a hash of its columns.
pub(super) fn checksum(columns: &[&[u8]]) -> i64 {
    let mut bytes = Vec::with_capacity(columns.iter().map(|column| column.len() + 8).sum());
    for column in columns {
        bytes.extend_from_slice(&(column.len() as u64).to_le_bytes());
        bytes.extend_from_slice(column);
    }
    let [a, b, c, d, e, f, g, h, ..] = *ValueHash::of_bytes(&bytes).as_bytes();
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}
