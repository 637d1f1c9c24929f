//! `flowrun cache`: the answers that are kept for other runs.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use flowrun_engine::event::Usage;
use flowrun_engine::id::ValueHash;
use flowrun_engine::store::{CacheEntry, EntryFilter, StoreError};
use serde_json::{Value, json};

use super::db::DbArgs;
use super::runs::{ago, remove};
use super::units::{bytes, parse_age, rfc_3339, table, utc};
use super::{print, refuse, say, width, write_prompt};
use crate::render::{clean, columns, fit, visible};
use crate::runs::{Runs, now_ms};
use crate::trace::{counted, thousands};

/// Entries that a list shows if it is not said how many.
const LIMIT: u64 = 50;
/// Columns of a value in a list.
const BEGINNING: usize = 30;

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Say how much is kept, and what it cost
    Stats {
        /// One JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: DbArgs,
    },
    /// List entries, the newest first
    List {
        #[command(flatten)]
        which: Which,
        /// At most so many [default: 50, all with --json]
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: DbArgs,
    },
    /// Show all about an entry: what its key is made of, and the value
    Show {
        /// A key, or its unique beginning
        key: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: DbArgs,
    },
    /// Forget entries that are older
    Prune {
        /// Those that were made longer ago: `30d`, `12h`
        #[arg(long, value_name = "AGE", value_parser = parse_age)]
        older_than: u64,
        #[command(flatten)]
        which: Which,
        /// Say what would go, and forget nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        place: DbArgs,
    },
    /// Forget all entries
    Clear {
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        place: DbArgs,
    },
}

/// Which entries.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// Only those of nodes of this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only those of nodes of this name
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

impl Which {
    fn filter(self) -> EntryFilter {
        EntryFilter { kind: self.kind, node: self.node, ..EntryFilter::default() }
    }
}

pub(super) fn cache(command: CacheCommand) -> ExitCode {
    let done = match command {
        CacheCommand::Stats { json, place } => stats(json, &place),
        CacheCommand::List { which, limit, json, place } => list(which.filter(), limit, json, &place),
        CacheCommand::Show { key, json, place } => show(&key, json, &place),
        CacheCommand::Prune { older_than, which, dry_run, place } => {
            let before_ms = Some(now_ms().saturating_sub(older_than));
            forget(&EntryFilter { before_ms, ..which.filter() }, dry_run, &place)
        }
        CacheCommand::Clear { yes, place } => clear(yes, &place),
    };
    done.unwrap_or_else(|problem| refuse(&problem))
}

fn said(error: StoreError) -> String {
    error.to_string()
}

/// The numbers of the entries of one kind.
#[derive(Default)]
struct Sum {
    entries: u64,
    usage: Usage,
    oldest_ms: Option<u64>,
}

impl Sum {
    fn add(&mut self, entry: &CacheEntry) {
        self.entries += 1;
        self.usage += entry.usage;
        self.oldest_ms = Some(self.oldest_ms.map_or(entry.created_ms, |oldest| oldest.min(entry.created_ms)));
    }
}

fn stats(json: bool, place: &DbArgs) -> Result<ExitCode, String> {
    let runs = place.read()?;
    let size = runs.store().size().map_err(said)?;
    let (mut all, mut kinds) = (Sum::default(), BTreeMap::<String, Sum>::new());
    for entry in runs.store().entries(&EntryFilter::default()).map_err(said)? {
        all.add(&entry);
        kinds.entry(entry.kind.clone()).or_default().add(&entry);
    }
    if json {
        let object =
            |sum: &Sum| json!({"entries": sum.entries, "usage": sum.usage, "oldest": sum.oldest_ms.map(rfc_3339)});
        let kinds: serde_json::Map<String, Value> =
            kinds.iter().map(|(kind, sum)| (kind.clone(), object(sum))).collect();
        let object = json!({
            "entries": all.entries, "usage": all.usage, "oldest": all.oldest_ms.map(rfc_3339), "kinds": kinds, "runs": size.runs,
            "values": size.values, "value_bytes": size.value_bytes, "bytes": size.bytes,
        });
        return Ok(print(&format!("{object}\n")));
    }
    let line = |name: &str, sum: &Sum| {
        let tokens = sum.usage.prompt_tokens.saturating_add(sum.usage.completion_tokens);
        let oldest = sum.oldest_ms.map(|oldest| format!("{} ago", ago(oldest))).unwrap_or_default();
        vec![clean(name), thousands(sum.entries), thousands(sum.usage.calls), thousands(tokens), oldest]
    };
    let mut rows = vec![["kind", "entries", "calls", "tokens", "oldest"].map(str::to_owned).to_vec()];
    rows.extend(kinds.iter().map(|(kind, sum)| line(kind, sum)));
    rows.push(line("all", &all));
    let (values, of_runs) = (counted(size.values, "value"), counted(size.runs, "run"));
    let (content, file) = (bytes(size.value_bytes), bytes(size.bytes));
    Ok(print(&format!(
        "{}\n{of_runs} and the cache name {values} of {content}; the database has {file}\n",
        table(&rows, usize::MAX)
    )))
}

fn list(filter: EntryFilter, limit: Option<u64>, json: bool, place: &DbArgs) -> Result<ExitCode, String> {
    let runs = place.read()?;
    let limit = limit.or((!json).then_some(LIMIT));
    // One more than is shown, to know whether there are more.
    let filter = EntryFilter { limit: limit.map(|limit| limit.saturating_add(1)), ..filter };
    let mut entries = runs.store().entries(&filter).map_err(said)?;
    let shown = limit.map_or(entries.len(), |limit| entries.len().min(limit as usize));
    let has_more = entries.len() > shown;
    entries.truncate(shown);
    if json {
        return Ok(print(
            &entries.iter().map(|entry| format!("{}\n", object(&runs, entry, false))).collect::<String>(),
        ));
    }
    let mut rows: Vec<Vec<String>> = entries.iter().map(|entry| row(&runs, entry)).collect();
    if !rows.is_empty() {
        rows.insert(0, ["key", "kind", "node", "age", "cost", "value", "paid by"].map(str::to_owned).to_vec());
    }
    let code = print(&table(&rows, width()));
    if has_more {
        say("there are more: `--limit N` shows N of them, `--kind` and `--node` choose");
    }
    Ok(code)
}

fn row(runs: &Runs, entry: &CacheEntry) -> Vec<String> {
    let usage = entry.usage;
    let tokens = counted(usage.prompt_tokens.saturating_add(usage.completion_tokens), "token");
    let (value, cost) = (value_of(runs, entry.value), format!("{}, {tokens}", counted(usage.calls, "call")));
    let value = value.map_or_else(|problem| problem, |value| beginning(&value));
    let payer = format!("{} {}", clean(&entry.run), clean(&entry.step));
    vec![entry.key.short(), clean(&entry.kind), clean(&entry.node), ago(entry.created_ms), cost, value, payer]
}

fn beginning(value: &Value) -> String {
    let text = clean(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    if columns(&text) > BEGINNING { format!("{}…", fit(&text, BEGINNING - 1)) } else { text }
}

fn value_of(runs: &Runs, hash: ValueHash) -> Result<Value, String> {
    let text = runs.store().value(hash).map_err(said)?;
    let text = text.ok_or_else(|| format!("the value {}… is not there", hash.short()))?;
    serde_json::from_str(&text).map_err(|error| format!("the value {}… is no JSON: {error}", hash.short()))
}

/// An entry for programs, with its value, and with what its key is made of if that is wanted.
fn object(runs: &Runs, entry: &CacheEntry, with_made_of: bool) -> Value {
    let mut object = json!({
        "key": entry.key, "kind": entry.kind, "node": entry.node, "run": entry.run, "step": entry.step, "usage": entry.usage,
        "created": rfc_3339(entry.created_ms), "value": value_of(runs, entry.value).ok(),
    });
    if with_made_of {
        object["made_of"] = made_of(runs, entry.key).unwrap_or_default();
    }
    object
}

/// What a key was made of, with the rendered input in place of its hash.
fn made_of(runs: &Runs, key: ValueHash) -> Result<Value, String> {
    let mut made_of = value_of(runs, key)?;
    if let Some(input) = made_of.get_mut("input")
        && let Some(hash) = input.as_str().and_then(ValueHash::from_hex)
    {
        *input = value_of(runs, hash)?;
    }
    Ok(made_of)
}

fn show(key: &str, json: bool, place: &DbArgs) -> Result<ExitCode, String> {
    let runs = place.read()?;
    let prefix = Some(key.to_lowercase());
    let found =
        runs.store().entries(&EntryFilter { prefix, limit: Some(2), ..EntryFilter::default() }).map_err(said)?;
    let entry = match found.as_slice() {
        [entry] => entry,
        [] => return Err(format!("no key begins with `{key}` (`flowrun cache list` shows keys)")),
        _ => return Err(format!("several keys begin with `{key}`; write more of it")),
    };
    if json {
        return Ok(print(&format!("{}\n", object(&runs, entry, true))));
    }
    let usage = entry.usage;
    let mut text = format!("key {}\n", entry.key);
    let mut line = |word: &str, said: &str| text.push_str(&format!("  {word:<10}{said}\n"));
    line("kind", &clean(&entry.kind));
    line("node", &clean(&entry.node));
    line("made", &format!("{} UTC, {} ago", utc(entry.created_ms), ago(entry.created_ms)));
    line("paid by", &format!("run {}, step `{}`", clean(&entry.run), clean(&entry.step)));
    let (prompt, reply) = (counted(usage.prompt_tokens, "token"), counted(usage.completion_tokens, "token"));
    line("cost", &format!("{}, {prompt} asked, {reply} replied", counted(usage.calls, "call")));
    for (title, value) in [("the key is made of", made_of(&runs, entry.key)), ("value", value_of(&runs, entry.value))] {
        text.push_str(&format!("\n{title}:\n"));
        let shown = match value {
            Ok(Value::String(said)) => said,
            Ok(value) => serde_json::to_string_pretty(&value).unwrap_or_default(),
            Err(problem) => problem,
        };
        shown.lines().for_each(|line| text.push_str(&format!("  {}\n", visible(line))));
    }
    Ok(print(&text))
}

fn forget(filter: &EntryFilter, dry_run: bool, place: &DbArgs) -> Result<ExitCode, String> {
    let runs = place.read()?;
    let entries = runs.store().entries(filter).map_err(said)?;
    let count =
        if entries.len() == 1 { "1 entry".to_owned() } else { format!("{} entries", thousands(entries.len() as u64)) };
    if dry_run {
        let rows: Vec<Vec<String>> = entries.iter().map(|entry| row(&runs, entry)).collect();
        print(&table(&rows, width()));
        say(&format!("{count} would go; nothing is forgotten"));
        return Ok(ExitCode::SUCCESS);
    }
    if entries.is_empty() {
        say("no entry is meant; nothing is forgotten");
        return Ok(ExitCode::SUCCESS);
    }
    let runs = place.write()?;
    let keys: Vec<ValueHash> = entries.iter().map(|entry| entry.key).collect();
    runs.store().forget(&keys).map_err(said)?;
    let more = remove(&runs, &[])?;
    say(&format!("{count} forgotten{more}"));
    Ok(ExitCode::SUCCESS)
}

fn clear(yes: bool, place: &DbArgs) -> Result<ExitCode, String> {
    if !yes {
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err("forgetting all answers cannot be undone: say `--yes`".to_owned());
        }
        let entries = place.read()?.store().size().map_err(said)?.entries;
        write_prompt(&format!("Forget all {} entries? yes or no> ", thousands(entries)));
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        if read.is_err() || !["y", "yes"].contains(&line.trim().to_lowercase().as_str()) {
            say("nothing is forgotten");
            return Ok(ExitCode::SUCCESS);
        }
    }
    forget(&EntryFilter::default(), false, place)
}
