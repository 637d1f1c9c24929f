//! What is read: the rows as they were written, or an error that says which are not.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::types::Value as Column;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use flowrun_engine::event::Usage;
use flowrun_engine::id::ValueHash;
use flowrun_engine::store::{CacheEntry, EntryFilter, Letter, RunInfo, StoreSize, Stored};

use super::schema::{self, places, run_and_first};
use super::trouble::Trouble;
use super::write::{entry_checksum, letter_checksum, log_checksum, run_checksum, run_number};

const RUN_COLUMNS: &str = "id, workflow, started_ms, origin, checksum, summary, summary_checksum";

/// See [`Store::run`](flowrun_engine::store::Store::run).
pub(super) fn run(connection: &Connection, id: &str) -> Result<Option<RunInfo>, Trouble> {
    let mut statement = connection.prepare_cached(&format!("SELECT {RUN_COLUMNS} FROM run WHERE id = ?1"))?;
    let mut rows = statement.query([id])?;
    rows.next()?.map(run_info).transpose()
}

/// See [`Store::runs`](flowrun_engine::store::Store::runs). Where the file is damaged: those that can be read.
pub(super) fn runs(connection: &Connection) -> Result<Vec<RunInfo>, Trouble> {
    let mut statement = connection.prepare_cached(&format!("SELECT {RUN_COLUMNS} FROM run ORDER BY id"))?;
    let mut rows = statement.query([])?;
    let mut runs = Vec::new();
    loop {
        let read = rows.next().map_err(Trouble::from).and_then(|row| row.map(run_info).transpose());
        match read {
            Ok(Some(run)) => runs.push(run),
            Ok(None) => return Ok(runs),
            Err(trouble) if trouble.is_busy() => return Err(trouble),
            Err(trouble) => {
                let readable = runs_one_by_one(connection);
                return if readable.is_empty() { Err(trouble) } else { Ok(readable) };
            }
        }
    }
}

/// Every run that some way leads to: along the table and along its index, from both ends.
fn runs_one_by_one(connection: &Connection) -> Vec<RunInfo> {
    let ways = [
        "SELECT number FROM run NOT INDEXED ORDER BY number",
        "SELECT number FROM run NOT INDEXED ORDER BY number DESC",
        "SELECT number FROM run ORDER BY id",
        "SELECT number FROM run ORDER BY id DESC",
    ];
    let mut numbers = BTreeSet::new();
    for way in ways {
        if let Ok(mut statement) = connection.prepare(way)
            && let Ok(mut rows) = statement.query([])
        {
            while let Ok(Some(row)) = rows.next() {
                numbers.extend(row.get::<_, i64>(0));
            }
        }
    }
    let one = |number: i64| {
        let mut statement =
            connection.prepare_cached(&format!("SELECT {RUN_COLUMNS} FROM run WHERE number = ?1")).ok()?;
        let mut rows = statement.query([number]).ok()?;
        rows.next().ok()?.map(run_info)?.ok()
    };
    let mut runs: Vec<RunInfo> = numbers.into_iter().filter_map(one).collect();
    runs.sort_by(|a, b| a.id.cmp(&b.id));
    runs
}

/// A run of the columns that are read of one.
pub(super) fn run_info(row: &Row<'_>) -> Result<RunInfo, Trouble> {
    let id: String = row.get(0)?;
    let damaged = |what: &str| Trouble::Damaged(format!("run `{id}`: {what} is not what was written"));
    let (workflow, started_ms, origin): (String, i64, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
    if run_checksum(&id, &workflow, started_ms as u64, &origin) != row.get::<_, i64>(4)? {
        return Err(damaged("who it is"));
    }
    let summary: Option<String> = row.get(5)?;
    let sum = summary.as_ref().map(|summary| schema::checksum(&[summary.as_bytes()]));
    if sum != row.get(6)? {
        return Err(damaged("its summary"));
    }
    let summary = summary.map(|summary| serde_json::from_str(&summary)).transpose();
    Ok(RunInfo {
        workflow,
        started_ms: started_ms as u64,
        origin: serde_json::from_str(&origin).map_err(|_| damaged("its origin"))?,
        summary: summary.map_err(|_| damaged("its summary"))?,
        id,
    })
}

/// See [`Store::log`](flowrun_engine::store::Store::log).
pub(super) fn log(connection: &Connection, run: &str, from: u64) -> Result<Vec<Stored>, Trouble> {
    // One transaction, so that the tail and the rows are of the same moment.
    let moment = connection.unchecked_transaction()?;
    let Some(number) = run_number(&moment, run)? else { return Ok(Vec::new()) };
    let tail: Option<i64> = moment
        .prepare_cached("SELECT last FROM tail WHERE run = ?1")?
        .query_row([number], |row| row.get(0))
        .optional()?;
    let (first, last) = places(number, from);
    let select = "SELECT place, lines, checksum, before FROM log WHERE place BETWEEN ?1 AND ?2 ORDER BY place";
    let mut statement = moment.prepare_cached(select)?;
    let mut rows = statement.query([first, last])?;
    let mut log: Vec<Stored> = Vec::new();
    while let Some(row) = rows.next()? {
        let (stored, before) = stored(row, run)?;
        let follows = match log.last() {
            Some(previous) => before == Some(previous.first),
            None => before.is_none_or(|before| before < from),
        };
        if !follows {
            return Err(Trouble::Damaged(format!("run `{run}`: events before event {} are missing", stored.first)));
        }
        log.push(stored);
    }
    match tail.map(|tail| tail as u64) {
        Some(tail) if tail >= from && log.last().is_none_or(|last| last.first < tail) => {
            Err(Trouble::Damaged(format!("run `{run}`: events up to event {tail} are missing at the end")))
        }
        _ => Ok(log),
    }
}

/// A transaction of the columns place, lines, checksum and before; with it, the number of the one before it.
pub(super) fn stored(row: &Row<'_>, run: &str) -> Result<(Stored, Option<u64>), Trouble> {
    let place = row.get(0)?;
    let (_, first) = run_and_first(place);
    let damaged = || Trouble::Damaged(format!("run `{run}`: what follows from event {first} is not what was written"));
    let lines = row.get_ref(1)?.as_bytes().map_err(|_| damaged())?;
    let before = row.get(3).map_err(|_| damaged())?;
    if Ok(log_checksum(place, before, lines)) != row.get(2) {
        return Err(damaged());
    }
    let lines = String::from_utf8(lines.to_vec()).map_err(|_| damaged())?;
    Ok((Stored { first, lines }, before.map(|before| before as u64)))
}

/// See [`Store::value`](flowrun_engine::store::Store::value).
pub(super) fn value(connection: &Connection, hash: ValueHash) -> Result<Option<Arc<str>>, Trouble> {
    let mut statement = connection.prepare_cached("SELECT text FROM value WHERE hash = ?1")?;
    let mut rows = statement.query([hash.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let text = row.get_ref(0)?.as_str().ok().filter(|text| ValueHash::of_bytes(text.as_bytes()) == hash);
    match text {
        Some(text) => Ok(Some(text.into())),
        None => Err(Trouble::Damaged(format!("value {hash} is not what was written"))),
    }
}

const ENTRY_COLUMNS: &str =
    "key, value, kind, node, run, step, calls, prompt_tokens, completion_tokens, created_ms, checksum";

/// See [`Store::entry`](flowrun_engine::store::Store::entry).
pub(super) fn entry(connection: &Connection, key: ValueHash) -> Result<Option<CacheEntry>, Trouble> {
    let mut statement = connection.prepare_cached(&format!("SELECT {ENTRY_COLUMNS} FROM entry WHERE key = ?1"))?;
    let mut rows = statement.query([key.as_bytes()])?;
    rows.next()?.map(cache_entry).transpose()
}

/// An entry of the columns that are read of one.
pub(super) fn cache_entry(row: &Row<'_>) -> Result<CacheEntry, Trouble> {
    let number = |column: usize| row.get::<_, i64>(column).map(|number| number as u64);
    let entry = CacheEntry {
        key: ValueHash::from_bytes(row.get(0)?),
        value: ValueHash::from_bytes(row.get(1)?),
        kind: row.get(2)?,
        node: row.get(3)?,
        run: row.get(4)?,
        step: row.get(5)?,
        usage: Usage { calls: number(6)?, prompt_tokens: number(7)?, completion_tokens: number(8)? },
        created_ms: number(9)?,
    };
    if entry_checksum(&entry) != row.get::<_, i64>(10)? {
        return Err(Trouble::Damaged(format!("cache entry {} is not what was written", entry.key)));
    }
    Ok(entry)
}

/// See [`Store::entries`](flowrun_engine::store::Store::entries).
pub(super) fn entries(connection: &Connection, filter: &EntryFilter) -> Result<Vec<CacheEntry>, Trouble> {
    let mut conditions = vec!["1"];
    let mut columns = Vec::new();
    if let Some(kind) = &filter.kind {
        conditions.push("kind = ?");
        columns.push(Column::Text(kind.clone()));
    }
    if let Some(node) = &filter.node {
        conditions.push("node = ?");
        columns.push(Column::Text(node.clone()));
    }
    let conditions = conditions.join(" AND ");
    let select = format!("SELECT {ENTRY_COLUMNS} FROM entry WHERE {conditions} ORDER BY created_ms DESC, key");
    let mut statement = connection.prepare(&select)?;
    let mut rows = statement.query(params_from_iter(columns))?;
    let limit = filter.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut entries = Vec::new();
    while entries.len() < limit
        && let Some(row) = rows.next()?
    {
        entries.extend(Some(cache_entry(row)?).filter(|entry| filter.admits(entry)));
    }
    Ok(entries)
}

/// See [`Store::letters`](flowrun_engine::store::Store::letters).
pub(super) fn letters(connection: &Connection, run: &str) -> Result<Vec<Letter>, Trouble> {
    let Some(number) = run_number(connection, run)? else { return Ok(Vec::new()) };
    let select = "SELECT number, run, step, value, checksum FROM letter WHERE run = ?1 AND judged = 0 ORDER BY number";
    let mut statement = connection.prepare_cached(select)?;
    let mut rows = statement.query([number])?;
    let mut letters = Vec::new();
    while let Some(row) = rows.next()? {
        letters.push(letter(row)?);
    }
    Ok(letters)
}

/// A letter of the columns number, run, step, value and checksum.
pub(super) fn letter(row: &Row<'_>) -> Result<Letter, Trouble> {
    let (number, run, step, value): (i64, i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let read = serde_json::from_str(&value).ok().filter(|_| Ok(letter_checksum(run, &step, &value)) == row.get(4));
    match read {
        Some(value) => Ok(Letter { number: number as u64, step, value }),
        None => Err(Trouble::Damaged(format!("letter {number} is not what was written"))),
    }
}

/// See [`Store::verdict`](flowrun_engine::store::Store::verdict).
pub(super) fn verdict(connection: &Connection, letter: u64) -> Result<Option<Result<(), String>>, Trouble> {
    let select = "SELECT refusal FROM letter WHERE number = ?1 AND judged = 1";
    let mut statement = connection.prepare_cached(select)?;
    let refusal: Option<Option<String>> = statement.query_row(params![letter as i64], |row| row.get(0)).optional()?;
    Ok(refusal.map(|refusal| refusal.map_or(Ok(()), Err)))
}

/// See [`Store::size`](flowrun_engine::store::Store::size).
pub(super) fn size(connection: &Connection) -> Result<StoreSize, Trouble> {
    let count = |select: &str| connection.query_row(select, [], |row| row.get::<_, i64>(0)).map(|count| count as u64);
    Ok(StoreSize {
        runs: count("SELECT count(*) FROM run")?,
        entries: count("SELECT count(*) FROM entry")?,
        values: count("SELECT count(*) FROM value")?,
        value_bytes: count("SELECT coalesce(sum(octet_length(text)), 0) FROM value")?,
        bytes: 0,
    })
}
