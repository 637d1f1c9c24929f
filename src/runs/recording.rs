//! Writes a run into a store as an observer of it, until the driver does so itself.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flowrun_engine::event::{Event, Writer};
use flowrun_engine::expr::Datum;
use flowrun_engine::id::ValueHash;
use flowrun_engine::observer::{Observer, Records};
use flowrun_engine::store::{RunInfo, RunLock, Store, StoreError, Summary, Transaction};

/// Writes one run.
pub struct Recording {
    store: Arc<dyn Store>,
    run: Arc<str>,
    writing: Mutex<Writing>,
    problems: Mutex<(Option<Sender<StoreError>>, Receiver<StoreError>)>,
    driven: Mutex<Option<Box<dyn RunLock>>>,
}

#[derive(Default)]
struct Writing {
    writer: Writer,
    values: Vec<(ValueHash, Arc<str>)>,
    written: BTreeSet<ValueHash>,
    steps: u64,
}

impl Recording {
    /// Begins to write.
    ///
    /// # Errors
    /// What the store says.
    pub fn begin(store: Arc<dyn Store>, run: &RunInfo) -> Result<Self, StoreError> {
        let driven = store.lock(&run.id)?;
        store.begin(run)?;
        let (sender, receiver) = mpsc::channel();
        let (writing, problems) = (Mutex::default(), Mutex::new((Some(sender), receiver)));
        Ok(Self { store, run: run.id.as_str().into(), writing, problems, driven: Mutex::new(driven) })
    }

    /// Waits until everything is kept.
    ///
    /// # Errors
    /// What stopped the recording early; the run itself is not affected.
    pub fn finish(&self) -> Result<(), StoreError> {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.0 = None;
        problems.1.recv().map_or(Ok(()), Err)
    }

    /// A run that did not begin leaves no record.
    pub fn discard(&self) {
        self.driven.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _still_there = self.store.prune(&[self.run.to_string()]);
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Recording {
    fn value(&self, hash: ValueHash, value: &Arc<Datum>) {
        let mut writing = self.writing();
        if writing.written.insert(hash) {
            writing.values.push((hash, value.json().to_string().into()));
        }
    }

    fn records(&self, records: &Records<'_>) {
        let mut writing = self.writing();
        let (mut lines, mut first, mut summary) = (String::new(), None, None);
        for record in records.iter() {
            first.get_or_insert(record.sequence);
            lines.push_str(&format!("{}\n", writing.writer.json(&record)));
            writing.steps += u64::from(matches!(record.event, Event::Started { attempt: 1, .. }));
            if let Event::RunEnded(ended) = &record.event {
                let (wall_ms, steps) = (record.time_us / 1_000, writing.steps);
                summary = Some(Some(Summary { status: ended.status, wall_ms, steps, usage: ended.usage }));
            }
        }
        let values = std::mem::take(&mut writing.values);
        let first = first.unwrap_or_default();
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        let transaction = Transaction { run: self.run.clone(), first, lines, values, entries: Vec::new(), summary };
        self.store.append(
            transaction,
            Box::new(move |result| {
                if let (Err(error), Some(problems)) = (result, problems) {
                    let _nobody_waits = problems.send(error);
                }
            }),
        );
    }
}
