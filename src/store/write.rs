//! What is written, as rows: runs, transactions, letters.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use flowrun_engine::id::ValueHash;
use flowrun_engine::store::{CacheEntry, RunInfo, StoreError, Summary, Transaction, is_run_id};

use super::schema::{begin_writing, checksum, place, places, run_and_first};
use super::trouble::Trouble;

/// See [`Store::begin`](flowrun_engine::store::Store::begin).
pub(super) fn begin(connection: &mut Connection, run: &RunInfo) -> Result<(), Trouble> {
    if !is_run_id(&run.id) {
        return Err(StoreError::BadId(run.id.clone()).into());
    }
    let origin = run.origin.to_string();
    let sum = run_checksum(&run.id, &run.workflow, run.started_ms, &origin);
    let summary = run.summary.as_ref().map(summary_text);
    let transaction = begin_writing(connection)?;
    let row = params![
        run.id,
        run.workflow,
        run.started_ms as i64,
        origin,
        sum,
        summary,
        summary.as_ref().map(|summary| checksum(&[summary.as_bytes()])),
    ];
    let insert = "INSERT INTO run (id, workflow, started_ms, origin, checksum, summary, summary_checksum)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    match transaction.prepare_cached(insert)?.execute(row).map_err(Trouble::from) {
        Err(trouble) if trouble.is_conflict() => return Err(StoreError::RunExists(run.id.clone()).into()),
        inserted => inserted?,
    };
    Ok(transaction.commit()?)
}

/// The checksum of what never changes of a run.
pub(super) fn run_checksum(id: &str, workflow: &str, started_ms: u64, origin: &str) -> i64 {
    checksum(&[id.as_bytes(), workflow.as_bytes(), &started_ms.to_le_bytes(), origin.as_bytes()])
}

fn summary_text(summary: &Summary) -> String {
    serde_json::to_string(summary).expect("BUG: a summary is JSON")
}

/// A run's number.
pub(super) fn run_number(connection: &Connection, id: &str) -> Result<Option<i64>, Trouble> {
    let mut statement = connection.prepare_cached("SELECT number FROM run WHERE id = ?1")?;
    Ok(statement.query_row([id], |row| row.get(0)).optional()?)
}

/// A value that is there already is left alone, unless it is not what it was: then this one takes its place.
const HEALING_INSERT: &str = "INSERT INTO value (hash, text) VALUES (?1, ?2)
    ON CONFLICT (hash) DO UPDATE SET text = excluded.text WHERE text <> excluded.text";

/// Where the logs of runs that are being written end. Only whoever drives a run writes its log, so that nobody else moves its end.
#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<Arc<str>, End>);

/// A run's number, and that of the first event of its last transaction.
#[derive(Clone, Copy, Debug)]
struct End {
    number: i64,
    last: Option<i64>,
}

impl Ends {
    /// Somebody else may have written since.
    pub(super) fn forget(&mut self, run: &str) {
        self.0.remove(run);
    }

    /// What was to be written is not.
    pub(super) fn forget_all(&mut self) {
        self.0.clear();
    }

    fn of(&self, connection: &Connection, run: &str) -> Result<Option<End>, Trouble> {
        if let Some(end) = self.0.get(run) {
            return Ok(Some(*end));
        }
        let Some(number) = run_number(connection, run)? else { return Ok(None) };
        let (first, last) = places(number, 0);
        let select = "SELECT max(place) FROM log WHERE place BETWEEN ?1 AND ?2";
        let place: Option<i64> = connection.prepare_cached(select)?.query_row([first, last], |row| row.get(0))?;
        Ok(Some(End { number, last: place.map(|place| run_and_first(place).1 as i64) }))
    }
}

/// Writes a transaction of a run inside one of SQLite. The inner error is this transaction's alone and has written nothing.
pub(super) fn insert(
    connection: &Connection,
    ends: &mut Ends,
    transaction: &Transaction,
) -> Result<Result<(), StoreError>, Trouble> {
    let Transaction { run, first, lines, values, entries, summary } = transaction;
    let Some(End { number, last: before }) = ends.of(connection, run)? else {
        return Ok(Err(StoreError::NoRun(run.to_string())));
    };
    let refused = |detail: String| {
        let place = connection.path().unwrap_or_default().to_owned();
        Ok(Err(StoreError::Medium { place, detail }))
    };
    let Some(place) = place(number, *first) else {
        return refused(format!("event {first} of run `{run}` is beyond what can be numbered"));
    };
    if let Some(before) = before.filter(|before| *before >= *first as i64) {
        return refused(format!("run `{run}`: event {first} cannot follow event {before}"));
    }
    let sum = log_checksum(place, before, lines.as_bytes());
    let insert = "INSERT INTO log (place, before, lines, checksum) VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(insert)?.execute(params![place, before, lines, sum])?;
    ends.0.insert(run.clone(), End { number, last: Some(*first as i64) });
    if !values.is_empty() {
        let mut statement = connection.prepare_cached(HEALING_INSERT)?;
        for (hash, text) in values {
            statement.execute(params![hash.as_bytes(), text])?;
        }
    }
    for entry in entries {
        insert_entry(connection, entry)?;
    }
    if let Some(summary) = summary {
        let tail = "INSERT OR REPLACE INTO tail (run, last) VALUES (?1, ?2)";
        connection.prepare_cached(tail)?.execute(params![number, *first as i64])?;
        if summary.is_some() {
            ends.forget(run);
        }
        let text = summary.as_ref().map(summary_text);
        let sum = text.as_ref().map(|text| checksum(&[text.as_bytes()]));
        let update = "UPDATE run SET summary = ?2, summary_checksum = ?3 WHERE number = ?1";
        connection.prepare_cached(update)?.execute(params![number, text, sum])?;
    }
    Ok(Ok(()))
}

/// The checksum of a transaction in the log.
pub(super) fn log_checksum(place: i64, before: Option<i64>, lines: &[u8]) -> i64 {
    checksum(&[&place.to_le_bytes(), &before.unwrap_or(-1).to_le_bytes(), lines])
}

fn insert_entry(connection: &Connection, entry: &CacheEntry) -> Result<(), Trouble> {
    let insert = "INSERT OR REPLACE INTO entry
        (key, value, kind, node, run, step, calls, prompt_tokens, completion_tokens, created_ms, checksum)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let usage = &entry.usage;
    connection.prepare_cached(insert)?.execute(params![
        entry.key.as_bytes(),
        entry.value.as_bytes(),
        entry.kind,
        entry.node,
        entry.run,
        entry.step,
        usage.calls as i64,
        usage.prompt_tokens as i64,
        usage.completion_tokens as i64,
        entry.created_ms as i64,
        entry_checksum(entry),
    ])?;
    Ok(())
}

/// The checksum of an entry.
pub(super) fn entry_checksum(entry: &CacheEntry) -> i64 {
    let numbers = [entry.usage.calls, entry.usage.prompt_tokens, entry.usage.completion_tokens, entry.created_ms];
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let texts = [&entry.kind, &entry.node, &entry.run, &entry.step].map(|text| text.as_bytes());
    let [kind, node, run, step] = texts;
    checksum(&[entry.key.as_bytes(), entry.value.as_bytes(), kind, node, run, step, &numbers])
}

/// See [`Store::forget`](flowrun_engine::store::Store::forget).
pub(super) fn forget(connection: &mut Connection, keys: &[ValueHash]) -> Result<u64, Trouble> {
    let transaction = begin_writing(connection)?;
    let mut forgotten = 0;
    for key in keys {
        let mut statement = transaction.prepare_cached("DELETE FROM entry WHERE key = ?1")?;
        forgotten += statement.execute([key.as_bytes()])? as u64;
    }
    transaction.commit()?;
    Ok(forgotten)
}

/// See [`Store::post`](flowrun_engine::store::Store::post).
pub(super) fn post(connection: &mut Connection, run: &str, step: &str, value: &Value) -> Result<u64, Trouble> {
    let transaction = begin_writing(connection)?;
    let number = run_number(&transaction, run)?.ok_or_else(|| StoreError::NoRun(run.to_owned()))?;
    let value = value.to_string();
    let insert = "INSERT INTO letter (run, step, value, checksum) VALUES (?1, ?2, ?3, ?4)";
    transaction.execute(insert, params![number, step, value, letter_checksum(number, step, &value)])?;
    let letter = transaction.last_insert_rowid();
    transaction.commit()?;
    Ok(letter as u64)
}

/// The checksum of a letter.
pub(super) fn letter_checksum(run: i64, step: &str, value: &str) -> i64 {
    checksum(&[&run.to_le_bytes(), step.as_bytes(), value.as_bytes()])
}

/// See [`Store::judge`](flowrun_engine::store::Store::judge).
pub(super) fn judge(connection: &mut Connection, letter: u64, verdict: Result<(), String>) -> Result<(), Trouble> {
    let transaction = begin_writing(connection)?;
    let update = "UPDATE letter SET judged = 1, refusal = ?2 WHERE number = ?1 AND judged = 0";
    transaction.execute(update, params![letter as i64, verdict.err()])?;
    Ok(transaction.commit()?)
}
