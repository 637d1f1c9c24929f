//! A store that forgets with the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::{
    CacheEntry, Done, EntryFilter, Letter, RunInfo, RunLock, Store, StoreError, StoreSize, Stored, Transaction,
    is_run_id,
};
use crate::id::ValueHash;

/// Keeps everything in memory, until it is dropped. Cheap to clone: clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    runs: BTreeMap<String, RunInfo>,
    logs: BTreeMap<String, Vec<Stored>>,
    values: BTreeMap<ValueHash, Arc<str>>,
    entries: BTreeMap<ValueHash, CacheEntry>,
    driven: BTreeSet<String>,
    letters: Vec<Posted>,
}

/// A letter, to whom it goes, and its verdict.
type Posted = (String, Letter, Option<Result<(), String>>);

impl Memory {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn begin(&self, run: &RunInfo) -> Result<(), StoreError> {
        if !is_run_id(&run.id) {
            return Err(StoreError::BadId(run.id.clone()));
        }
        let mut kept = self.kept();
        if kept.runs.contains_key(&run.id) {
            return Err(StoreError::RunExists(run.id.clone()));
        }
        kept.runs.insert(run.id.clone(), run.clone());
        Ok(())
    }

    fn append(&self, transaction: Transaction, done: Done) {
        let Transaction { run, first, lines, values, entries, summary } = transaction;
        let result = {
            let mut kept = self.kept();
            match kept.runs.get_mut(&*run) {
                None => Err(StoreError::NoRun(run.to_string())),
                Some(info) => {
                    if let Some(summary) = summary {
                        info.summary = summary;
                    }
                    kept.values.extend(values);
                    kept.entries.extend(entries.into_iter().map(|entry| (entry.key, entry)));
                    kept.logs.entry(run.to_string()).or_default().push(Stored { first, lines });
                    Ok(())
                }
            }
        };
        done(result);
    }

    fn run(&self, id: &str) -> Result<Option<RunInfo>, StoreError> {
        Ok(self.kept().runs.get(id).cloned())
    }

    fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        Ok(self.kept().runs.values().cloned().collect())
    }

    fn log(&self, run: &str, from: u64) -> Result<Vec<Stored>, StoreError> {
        let kept = self.kept();
        let all = kept.logs.get(run).into_iter().flatten();
        Ok(all.filter(|stored| stored.first >= from).cloned().collect())
    }

    fn value(&self, hash: ValueHash) -> Result<Option<Arc<str>>, StoreError> {
        Ok(self.kept().values.get(&hash).cloned())
    }

    fn entry(&self, key: ValueHash) -> Result<Option<CacheEntry>, StoreError> {
        Ok(self.kept().entries.get(&key).cloned())
    }

    fn entries(&self, filter: &EntryFilter) -> Result<Vec<CacheEntry>, StoreError> {
        let kept = self.kept();
        let mut found: Vec<CacheEntry> = kept.entries.values().filter(|entry| filter.admits(entry)).cloned().collect();
        found.sort_by_key(|entry| (std::cmp::Reverse(entry.created_ms), entry.key));
        found.truncate(filter.limit.map_or(usize::MAX, |limit| limit as usize));
        Ok(found)
    }

    fn forget(&self, keys: &[ValueHash]) -> Result<u64, StoreError> {
        let mut kept = self.kept();
        Ok(keys.iter().filter(|key| kept.entries.remove(key).is_some()).count() as u64)
    }

    fn prune(&self, runs: &[String]) -> Result<u64, StoreError> {
        let mut kept = self.kept();
        for run in runs.iter().filter(|run| !kept.driven.contains(*run)).cloned().collect::<Vec<_>>() {
            kept.runs.remove(&run);
            kept.logs.remove(&run);
            kept.letters.retain(|(to, ..)| *to != run);
        }
        let mut named = String::new();
        kept.logs.values().flatten().for_each(|stored| named.push_str(&stored.lines));
        kept.runs.values().for_each(|run| named.push_str(&run.origin.to_string()));
        kept.entries.values().for_each(|entry| named.push_str(&format!(" {} {}", entry.value, entry.key)));
        // Values name others by hash too: what a key was made of names the rendered input.
        let mut live = BTreeSet::new();
        let mut texts: Vec<Arc<str>> = vec![named.into()];
        while let Some(text) = texts.pop() {
            for hash in super::hashes_in(&text) {
                if let Some(value) = kept.values.get(&hash).filter(|_| live.insert(hash)) {
                    texts.push(value.clone());
                }
            }
        }
        let before = kept.values.len();
        kept.values.retain(|hash, _| live.contains(hash));
        Ok((before - kept.values.len()) as u64)
    }

    fn lock(&self, run: &str) -> Result<Option<Box<dyn RunLock>>, StoreError> {
        let taken = self.kept().driven.insert(run.to_owned());
        Ok(taken.then(|| Box::new(Held { store: self.clone(), run: run.to_owned() }) as Box<dyn RunLock>))
    }

    fn is_driven(&self, run: &str) -> Result<bool, StoreError> {
        Ok(self.kept().driven.contains(run))
    }

    fn post(&self, run: &str, step: &str, value: &Value) -> Result<u64, StoreError> {
        let mut kept = self.kept();
        if !kept.runs.contains_key(run) {
            return Err(StoreError::NoRun(run.to_owned()));
        }
        let number = kept.letters.last().map_or(1, |(_, letter, _)| letter.number + 1);
        let letter = Letter { number, step: step.to_owned(), value: value.clone() };
        kept.letters.push((run.to_owned(), letter, None));
        Ok(number)
    }

    fn letters(&self, run: &str) -> Result<Vec<Letter>, StoreError> {
        let kept = self.kept();
        let open = kept.letters.iter().filter(|(to, _, verdict)| to == run && verdict.is_none());
        Ok(open.map(|(_, letter, _)| letter.clone()).collect())
    }

    fn judge(&self, letter: u64, verdict: &Result<(), String>) -> Result<(), StoreError> {
        let mut kept = self.kept();
        let posted = kept.letters.iter_mut().filter(|(_, posted, _)| posted.number == letter);
        posted.for_each(|(.., judged)| _ = judged.get_or_insert_with(|| verdict.clone()));
        Ok(())
    }

    fn verdict(&self, letter: u64) -> Result<Option<Result<(), String>>, StoreError> {
        let kept = self.kept();
        let posted = kept.letters.iter().find(|(_, posted, _)| posted.number == letter);
        Ok(posted.and_then(|(.., verdict)| verdict.clone()))
    }

    fn damage(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn size(&self) -> Result<StoreSize, StoreError> {
        let kept = self.kept();
        Ok(StoreSize {
            runs: kept.runs.len() as u64,
            entries: kept.entries.len() as u64,
            values: kept.values.len() as u64,
            value_bytes: kept.values.values().map(|text| text.len() as u64).sum(),
            bytes: 0,
        })
    }
}

struct Held {
    store: Memory,
    run: String,
}

impl RunLock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.store.kept().driven.remove(&self.run);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_is_a_store() {
        crate::store::conformance::check(super::Memory::default);
    }
}
