//! The values of a run by hash, each once.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use crate::expr::Datum;
use crate::failure::StepError;
use crate::id::{ById, StepId, ValueHash};
use crate::node::Fields;
use crate::observer::Observers;

/// Values by hash. Whatever is stored is announced to the observers before a record mentions it.
pub(super) struct Values {
    by_hash: IndexMap<ValueHash, Arc<Datum>, ById>,
    bytes_max: u64,
    observers: Observers,
    /// The values of steps that succeeded, by step: most look-ups are for these.
    by_step: Vec<Option<Arc<Datum>>>,
    /// The JSON text of the value at hand.
    text: Vec<u8>,
    /// What the store has not been given yet; `None` without one.
    unsaved: Option<Vec<(ValueHash, Arc<str>)>>,
}

impl Values {
    pub(super) fn new(bytes_max: u64, observers: Observers) -> Self {
        Self {
            by_hash: IndexMap::default(),
            bytes_max,
            observers,
            by_step: Vec::new(),
            text: Vec::new(),
            unsaved: None,
        }
    }

    /// From now on values are kept for the store, these to begin with.
    pub(super) fn save_all(&mut self, first: Vec<(ValueHash, Arc<str>)>) {
        self.unsaved = Some(first);
    }

    /// Keeps a text for the store alone.
    pub(super) fn save(&mut self, hash: ValueHash, text: &str) {
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.push((hash, text.into()));
        }
    }

    /// What the store has not been given yet.
    pub(super) fn take_unsaved(&mut self) -> Vec<(ValueHash, Arc<str>)> {
        self.unsaved.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes a value back that the store has.
    pub(super) fn load(&mut self, hash: ValueHash, value: Arc<Datum>) {
        if let indexmap::map::Entry::Vacant(entry) = self.by_hash.entry(hash) {
            let datum = entry.insert(value);
            self.observers.iter().for_each(|observer| observer.value(hash, datum));
        }
    }

    /// Whether a value is at hand.
    pub(super) fn has(&self, hash: ValueHash) -> bool {
        self.by_hash.contains_key(&hash)
    }

    /// Stores a value of any size: what the engine itself wrote (lists of items, plans, reports of kinds).
    pub(super) fn store(&mut self, value: Value) -> ValueHash {
        self.write(&value);
        self.keep(value)
    }

    /// Announces a rendered input, which the run itself never reads again: `{"kind", "fields": {…}, "schema"?}`. The same one
    /// may be announced twice.
    pub(super) fn announce_input(&mut self, kind: &str, fields: &Fields, schema: Option<&Value>) -> ValueHash {
        self.text.clear();
        self.text.extend_from_slice(b"{\"kind\":");
        self.word(kind);
        self.text.extend_from_slice(b",\"fields\":{");
        for (index, (name, value)) in fields.iter().enumerate() {
            if index > 0 {
                self.text.push(b',');
            }
            self.word(name);
            self.text.push(b':');
            self.append(value);
        }
        self.text.push(b'}');
        if let Some(schema) = schema {
            self.text.extend_from_slice(b",\"schema\":");
            self.append(schema);
        }
        self.text.push(b'}');
        let hash = self.hash_and_save();
        if self.observers.want_values() {
            let datum = Datum::from_text(as_text(&self.text));
            self.observers.iter().for_each(|observer| observer.value(hash, &datum));
        }
        hash
    }

    /// Stores the value of a step, which has a size limit.
    pub(super) fn store_output(&mut self, value: Value) -> Result<ValueHash, StepError> {
        self.write(&value);
        let bytes = self.text.len() as u64;
        if bytes > self.bytes_max {
            let message =
                format!("a value of {bytes} bytes is larger than `limits.output` allows ({})", self.bytes_max);
            return Err(StepError::terminal("limit_output", message));
        }
        Ok(self.keep(value))
    }

    /// Notes that a step succeeded with a stored value.
    pub(super) fn note(&mut self, step: StepId, hash: ValueHash, steps: usize) {
        if self.by_step.len() <= step.index() {
            self.by_step.resize(steps, None);
        }
        let latest = self.by_hash.last().filter(|(known, _)| **known == hash).map(|(_, value)| value);
        self.by_step[step.index()] = latest.or_else(|| self.by_hash.get(&hash)).cloned();
    }

    /// The value of a step that is known to have succeeded.
    pub(super) fn of_step(&self, step: StepId) -> Option<&Arc<Datum>> {
        self.by_step.get(step.index())?.as_ref()
    }

    /// A stored value.
    pub(super) fn get(&self, hash: ValueHash) -> &Arc<Datum> {
        self.by_hash.get(&hash).expect("BUG: a hash without its value")
    }

    fn write(&mut self, value: &Value) {
        self.text.clear();
        self.append(value);
    }

    fn append(&mut self, value: &Value) {
        serde_json::to_writer(&mut self.text, value).expect("BUG: writing JSON to memory failed");
    }

    /// Appends a text that is mostly a plain word, which needs no escapes.
    fn word(&mut self, word: &str) {
        if word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.text.push(b'"');
            self.text.extend_from_slice(word.as_bytes());
            self.text.push(b'"');
        } else {
            self.append(&Value::from(word));
        }
    }

    fn hash_and_save(&mut self) -> ValueHash {
        let hash = ValueHash::of_bytes(&self.text);
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.push((hash, as_text(&self.text).into()));
        }
        hash
    }

    /// Keeps the value whose text was written last.
    fn keep(&mut self, value: Value) -> ValueHash {
        let hash = ValueHash::of_bytes(&self.text);
        if let indexmap::map::Entry::Vacant(entry) = self.by_hash.entry(hash) {
            let datum = entry.insert(Datum::new(value));
            if let Some(unsaved) = &mut self.unsaved {
                unsaved.push((hash, as_text(&self.text).into()));
            }
            if self.observers.want_values() {
                self.observers.iter().for_each(|observer| observer.value(hash, datum));
            }
        }
        hash
    }
}

fn as_text(json: &[u8]) -> &str {
    std::str::from_utf8(json).expect("BUG: JSON is text")
}
