//! How a store is examined: SQLite's own check of its pages, then every row's checksum, every value's hash and every run's log.

use rusqlite::{Connection, Row};

use flowrun_engine::id::ValueHash;

use super::read::{cache_entry, letter, log, run_info};
use super::trouble::Trouble;

/// Most lines: who has so many has read enough.
const LINES_MAX: usize = 1_000;

type Check = fn(&Row<'_>) -> Result<(), Trouble>;

/// See [`Store::damage`](flowrun_engine::store::Store::damage).
pub(super) fn damage(connection: &Connection) -> Result<Vec<String>, Trouble> {
    let mut lines = Vec::new();
    pages(connection, &mut lines).or_else(|trouble| note(trouble, "the file's pages", &mut lines))?;
    let tables: [(&str, &str, Check); 4] = [
        (
            "runs",
            "SELECT id, workflow, started_ms, origin, checksum, summary, summary_checksum FROM run NOT INDEXED",
            |row| run_info(row).map(drop),
        ),
        ("values", "SELECT hash, text FROM value NOT INDEXED", value_row),
        (
            "cache entries",
            "SELECT key, value, kind, node, run, step, calls, prompt_tokens, completion_tokens, created_ms, checksum
             FROM entry",
            |row| cache_entry(row).map(drop),
        ),
        ("letters", "SELECT number, run, step, value, checksum FROM letter NOT INDEXED", |row| letter(row).map(drop)),
    ];
    for (table, select, check) in tables {
        rows(connection, select, check, &mut lines).or_else(|trouble| note(trouble, table, &mut lines))?;
    }
    logs(connection, &mut lines).or_else(|trouble| note(trouble, "logs", &mut lines))?;
    Ok(lines)
}

fn pages(connection: &Connection, lines: &mut Vec<String>) -> Result<(), Trouble> {
    let mut statement = connection.prepare("PRAGMA integrity_check(100)")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        lines.extend(Some(row.get::<_, String>(0)?).filter(|line| line != "ok"));
    }
    Ok(())
}

fn rows(connection: &Connection, select: &str, check: Check, lines: &mut Vec<String>) -> Result<(), Trouble> {
    let mut statement = connection.prepare(select)?;
    let mut rows = statement.query([])?;
    while lines.len() < LINES_MAX
        && let Some(row) = rows.next()?
    {
        match check(row) {
            Err(Trouble::Damaged(line)) => lines.push(line),
            // A column that holds what no column of that name may hold.
            Err(Trouble::Sqlite(error, _)) if error.sqlite_error().is_none() => lines.push(error.to_string()),
            checked => checked?,
        }
    }
    Ok(())
}

/// Each run's log as its readers will find it.
fn logs(connection: &Connection, lines: &mut Vec<String>) -> Result<(), Trouble> {
    let mut statement = connection.prepare("SELECT id FROM run NOT INDEXED")?;
    let mut rows = statement.query([])?;
    while lines.len() < LINES_MAX
        && let Some(row) = rows.next()?
    {
        let id: String = row.get(0)?;
        match log(connection, &id, 0) {
            Err(Trouble::Damaged(line)) => lines.push(line),
            Err(trouble) => note(trouble, &format!("run `{id}`"), lines)?,
            Ok(_) => {}
        }
    }
    Ok(())
}

/// An error that ends the reading of a table is a line too, unless it says nothing of the table.
fn note(trouble: Trouble, table: &str, lines: &mut Vec<String>) -> Result<(), Trouble> {
    match trouble {
        trouble if trouble.is_busy() => Err(trouble),
        Trouble::Sqlite(error, _) => {
            lines.push(format!("{table}: not everything can be read: {error}"));
            Ok(())
        }
        trouble => Err(trouble),
    }
}

fn value_row(row: &Row<'_>) -> Result<(), Trouble> {
    let hash = ValueHash::from_bytes(row.get(0)?);
    if ValueHash::of_bytes(row.get_ref(1)?.as_bytes().unwrap_or_default()) == hash {
        return Ok(());
    }
    Err(Trouble::Damaged(format!("value {hash} is not what was written")))
}
