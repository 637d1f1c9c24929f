//! Recorded runs for people: lists in short, logs for views, the whole of a run for other programs.
//!
//! Everything is read out of a [`Store`] that others write, also while they do. A run that has ended, or waits, says so in its
//! summary; the log is read only of those that have none. What is damaged is left out and said.

mod export;
mod log;

use std::sync::Arc;
use std::time::SystemTime;

use flowrun_engine::event::Usage;
use flowrun_engine::store::{RunInfo, Store, StoreError, Stored};

pub use export::export;
pub use log::RunLog;

/// The runs of a store.
#[derive(Clone)]
pub struct Runs {
    store: Arc<dyn Store>,
    place: Option<String>,
    salvage: Option<Arc<Salvage>>,
}

/// Reads what can be read of a run's log where some of it is damaged, and says of what cannot why.
pub type Salvage = dyn Fn(&str) -> Result<(Vec<Stored>, Option<String>), StoreError> + Send + Sync;

/// One run in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSummary {
    /// Its id.
    pub id: String,
    /// The workflow's name.
    pub workflow: String,
    /// `success`, `failed`, `exhausted`, `cancelled`, `suspended` while all that is left waits for people; without a summary
    /// `running` if somebody drives it, else `interrupted`.
    pub status: String,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// How long it took, in milliseconds: until now if it is running, else as far as is known.
    pub wall_ms: u64,
    /// Leaf steps that started.
    pub steps: u64,
    /// What it cost.
    pub usage: Usage,
}

impl Runs {
    /// The runs that a store keeps.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, place: None, salvage: None }
    }

    /// Where the store is, for messages.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// What to do about a log that the store calls damaged; without it nothing of such a log is shown.
    #[must_use]
    pub fn with_salvage(mut self, salvage: Arc<Salvage>) -> Self {
        self.salvage = Some(salvage);
        self
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Who they are, in the order of ids, which is that of time.
    ///
    /// # Errors
    /// What the store says.
    pub fn all(&self) -> Result<Vec<RunInfo>, StoreError> {
        self.store.runs()
    }

    /// The run that `last`, an id or the unique beginning of one means.
    ///
    /// # Errors
    /// One line that says what there is instead.
    pub fn find(&self, wanted: &str) -> Result<RunInfo, String> {
        let said = |error: StoreError| error.to_string();
        if let Some(run) = self.store.run(wanted).map_err(said)? {
            return Ok(run);
        }
        let mut all = self.all().map_err(said)?;
        let Some(last) = all.pop() else {
            let place = self.place.as_ref().map(|place| format!(" in `{place}`")).unwrap_or_default();
            return Err(format!("there are no runs{place}"));
        };
        if wanted == "last" {
            return Ok(last);
        }
        let last_id = last.id.clone();
        all.push(last);
        let mut matching: Vec<RunInfo> = all.into_iter().filter(|run| run.id.starts_with(wanted)).collect();
        match (matching.pop(), matching.len()) {
            (Some(run), 0) => Ok(run),
            (Some(_), others) => Err(format!("{} runs begin with `{wanted}`; write more of the id", others + 1)),
            (None, _) => {
                Err(format!("no run begins with `{wanted}`; the last one is `{last_id}` (`flowrun runs` lists them)"))
            }
        }
    }

    /// A run in short. Reads its log only if it has no summary.
    ///
    /// # Errors
    /// What the store says of the log.
    pub fn summary(&self, run: &RunInfo) -> Result<RunSummary, StoreError> {
        match &run.summary {
            Some(summary) => Ok(RunSummary {
                id: run.id.clone(),
                workflow: run.workflow.clone(),
                status: summary.status.word().to_owned(),
                started_ms: run.started_ms,
                wall_ms: summary.wall_ms,
                steps: summary.steps,
                usage: summary.usage,
            }),
            None => Ok(self.load(run)?.summary()),
        }
    }

    /// The log of the run that `last`, an id or the unique beginning of one means.
    ///
    /// # Errors
    /// One line that says what there is instead, or why it cannot be read.
    pub fn load_named(&self, wanted: &str) -> Result<RunLog, String> {
        let run = self.find(wanted)?;
        self.load(&run).map_err(|error| format!("the run {} cannot be read: {error}", run.id))
    }

    /// The log of a run.
    ///
    /// # Errors
    /// If nothing of it can be read.
    pub fn load(&self, run: &RunInfo) -> Result<RunLog, StoreError> {
        RunLog::load(self, run.clone())
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests;
