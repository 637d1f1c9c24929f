//! Who watches a run: records, values and tokens as they come.

use std::sync::Arc;

use serde_json::Value;

use crate::event::{Event, Record};
use crate::expr::Datum;
use crate::id::{StepId, ValueHash};
use crate::scheduler::Scheduler;

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

    /// The events of one transaction, in order.
    fn records(&self, _records: &Records<'_>) {}

    /// A step waits for a person.
    fn asked(&self, _question: &Question) {}

    /// Text that a running step produces. Unordered with records of other steps; never in the log.
    fn tokens(&self, _path: &str, _text: &str) {}
}

/// What a suspended step asks a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Path of the step, such as `ask#1`: what an answer is addressed to.
    pub path: Arc<str>,
    /// The question.
    pub prompt: String,
    /// What the answer must be, as a JSON Schema; `None`: anything.
    pub schema: Option<Value>,
}

/// The events of one transaction: something that happened outside, and all that follows from it.
pub struct Records<'a> {
    pub(crate) first: u64,
    pub(crate) time_us: u64,
    pub(crate) events: &'a Arc<[Event]>,
    pub(crate) scheduler: &'a Scheduler,
}

impl Records<'_> {
    /// The events alone; whoever keeps the list copies nothing.
    pub fn events(&self) -> &Arc<[Event]> {
        self.events
    }

    /// What people call a step.
    pub fn path(&self, step: StepId) -> Arc<str> {
        self.scheduler.path(step)
    }

    /// Every event with its number, its time and the path of its step.
    pub fn iter(&self) -> impl Iterator<Item = Record> {
        let mut last: Option<(StepId, Arc<str>)> = None;
        self.events.iter().zip(self.first..).map(move |(event, sequence)| {
            let path = match (event.step(), &last) {
                (None, _) => Arc::default(),
                (Some(step), Some((known, path))) if *known == step => path.clone(),
                (Some(step), _) => last.insert((step, self.path(step))).1.clone(),
            };
            let around = event.step().and_then(|step| self.scheduler.parent(step)).unwrap_or(StepId::ROOT);
            Record { sequence, time_us: self.time_us, path, around, event: event.clone() }
        })
    }
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
