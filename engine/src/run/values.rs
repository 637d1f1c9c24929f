//! The values of a run by hash, each once.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use crate::expr::Datum;
use crate::failure::StepError;
use crate::id::ValueHash;
use crate::observer::Observers;

/// Values by hash. Whatever is stored is announced to the observers before a record mentions it.
pub(super) struct Values {
    by_hash: IndexMap<ValueHash, Arc<Datum>>,
    bytes_max: u64,
    observers: Observers,
}

impl Values {
    pub(super) fn new(bytes_max: u64, observers: Observers) -> Self {
        Self { by_hash: IndexMap::new(), bytes_max, observers }
    }

    /// Stores a value of any size: what the engine itself wrote (rendered inputs, reports of kinds).
    pub(super) fn store(&mut self, value: Value) -> ValueHash {
        let hash = ValueHash::of(&value);
        if let indexmap::map::Entry::Vacant(entry) = self.by_hash.entry(hash) {
            let datum = entry.insert(Datum::new(value));
            self.observers.iter().for_each(|observer| observer.value(hash, datum));
        }
        hash
    }

    /// Stores the value of a step, which has a size limit.
    pub(super) fn store_output(&mut self, value: Value) -> Result<ValueHash, StepError> {
        let bytes = size(&value);
        if bytes > self.bytes_max {
            let message =
                format!("a value of {bytes} bytes is larger than `limits.output` allows ({})", self.bytes_max);
            return Err(StepError::terminal("limit_output", message));
        }
        Ok(self.store(value))
    }

    /// A stored value.
    pub(super) fn get(&self, hash: ValueHash) -> &Arc<Datum> {
        self.by_hash.get(&hash).expect("BUG: a hash without its value")
    }
}

/// Length of a value's JSON text in bytes.
fn size(value: &Value) -> u64 {
    struct Count(u64);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("BUG: counting bytes failed");
    count.0
}
