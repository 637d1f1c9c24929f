//! Who watches a run: records, values and tokens as they come.

use std::sync::Arc;

use crate::event::Record;
use crate::expr::Datum;
use crate::id::ValueHash;

/// Watches a run. Called from the run loop: it must be quick and must not block; whoever writes files hands them to a thread.
///
/// Values are announced before the first record that mentions their hash.
pub trait Observer: Send + Sync {
    /// A value that the following records mention: an input, an output, a rendered input, a provenance.
    fn value(&self, _hash: ValueHash, _value: &Arc<Datum>) {}

    /// Whether it looks at values. Asked once, when it is added: a run need not keep what nobody reads.
    fn wants_values(&self) -> bool {
        true
    }

    /// The events of one transaction, in order. Whoever keeps them keeps the list: nothing is copied.
    fn records(&self, _records: &Arc<[Record]>) {}

    /// Text that a running step produces. Unordered with records of other steps; never in the log.
    fn tokens(&self, _path: &str, _text: &str) {}
}

/// All observers of a run.
#[derive(Clone, Default)]
pub struct Observers {
    all: Arc<Vec<Arc<dyn Observer>>>,
    want_values: bool,
}

impl Observers {
    /// Adds one.
    pub fn add(&mut self, observer: Arc<dyn Observer>) {
        self.want_values |= observer.wants_values();
        Arc::make_mut(&mut self.all).push(observer);
    }

    /// Whether nobody watches.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether anybody looks at values.
    pub fn want_values(&self) -> bool {
        self.want_values
    }

    /// Each in turn.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Observer>> {
        self.all.iter()
    }
}
