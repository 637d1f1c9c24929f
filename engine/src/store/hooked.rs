//! Stores of which a test changes how they take what is written; all else is the store's own.

use std::sync::Arc;

use serde_json::Value;

use super::{
    CacheEntry, Done, EntryFilter, Letter, RunInfo, RunLock, Store, StoreError, StoreSize, Stored, Transaction,
};
use crate::id::ValueHash;

/// What a test changes.
pub trait Hook: Send + Sync + 'static {
    /// The store behind it.
    fn store(&self) -> &dyn Store;

    /// See [`Store::begin`].
    ///
    /// # Errors
    /// As there.
    fn begin(&self, run: &RunInfo) -> Result<(), StoreError> {
        self.store().begin(run)
    }

    /// See [`Store::append`].
    fn append(&self, transaction: Transaction, done: Done) {
        self.store().append(transaction, done);
    }
}

/// A store with a hook.
pub struct Hooked<H>(pub H);

impl<H: Hook> Store for Hooked<H> {
    fn begin(&self, run: &RunInfo) -> Result<(), StoreError> {
        self.0.begin(run)
    }

    fn append(&self, transaction: Transaction, done: Done) {
        self.0.append(transaction, done);
    }

    fn run(&self, id: &str) -> Result<Option<RunInfo>, StoreError> {
        self.0.store().run(id)
    }

    fn runs(&self) -> Result<Vec<RunInfo>, StoreError> {
        self.0.store().runs()
    }

    fn log(&self, run: &str, from: u64) -> Result<Vec<Stored>, StoreError> {
        self.0.store().log(run, from)
    }

    fn value(&self, hash: ValueHash) -> Result<Option<Arc<str>>, StoreError> {
        self.0.store().value(hash)
    }

    fn entry(&self, key: ValueHash) -> Result<Option<CacheEntry>, StoreError> {
        self.0.store().entry(key)
    }

    fn entries(&self, filter: &EntryFilter) -> Result<Vec<CacheEntry>, StoreError> {
        self.0.store().entries(filter)
    }

    fn forget(&self, keys: &[ValueHash]) -> Result<u64, StoreError> {
        self.0.store().forget(keys)
    }

    fn prune(&self, runs: &[String]) -> Result<u64, StoreError> {
        self.0.store().prune(runs)
    }

    fn lock(&self, run: &str) -> Result<Option<Box<dyn RunLock>>, StoreError> {
        self.0.store().lock(run)
    }

    fn is_driven(&self, run: &str) -> Result<bool, StoreError> {
        self.0.store().is_driven(run)
    }

    fn post(&self, run: &str, step: &str, value: &Value) -> Result<u64, StoreError> {
        self.0.store().post(run, step, value)
    }

    fn letters(&self, run: &str) -> Result<Vec<Letter>, StoreError> {
        self.0.store().letters(run)
    }

    fn judge(&self, letter: u64, verdict: &Result<(), String>) -> Result<(), StoreError> {
        self.0.store().judge(letter, verdict)
    }

    fn verdict(&self, letter: u64) -> Result<Option<Result<(), String>>, StoreError> {
        self.0.store().verdict(letter)
    }

    fn damage(&self) -> Result<Vec<String>, StoreError> {
        self.0.store().damage()
    }

    fn size(&self) -> Result<StoreSize, StoreError> {
        self.0.store().size()
    }
}
