//! `--db`: where runs and answers are kept, opened as a command needs it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueHint};

use crate::configuration;
use crate::runs::Runs;
use crate::store::SqliteStore;
use flowrun_engine::store::Durability;

/// Where it is if nobody says.
const DEFAULT: &str = ".flowrun/flowrun.db";

/// Where runs are recorded and answers are kept.
#[derive(Args, Clone, Debug)]
pub(super) struct DbArgs {
    /// The database of runs and answers [default: .flowrun/flowrun.db]
    #[arg(long, value_name = "FILE", env = "FLOWRUN_DB", hide_env_values = true, value_hint = ValueHint::FilePath)]
    db: Option<PathBuf>,
}

impl DbArgs {
    /// How a command that goes on says the same place: nothing, where nobody has said one.
    pub(super) fn flag(&self) -> String {
        let given = self.db.as_ref().filter(|path| !path.as_os_str().is_empty());
        given.map(|path| format!(" --db {}", path.display())).unwrap_or_default()
    }

    /// Flags, then the environment, then `flowrun.yaml`.
    pub(super) fn path(&self, configured: Option<&str>) -> PathBuf {
        let given = self.db.clone().filter(|path| !path.as_os_str().is_empty());
        given.unwrap_or_else(|| PathBuf::from(configured.unwrap_or(DEFAULT)))
    }

    /// For views: nothing is made or changed, and a database that is not there has no runs.
    pub(super) fn read(&self) -> Result<Runs, String> {
        let path = self.path(configuration::file()?.db.as_deref());
        let store = Arc::new(SqliteStore::open_to_read(&path).map_err(|error| error.to_string())?);
        let damaged = store.clone();
        Ok(Runs::new(store).at(path.display().to_string()).with_salvage(Arc::new(move |run| damaged.log_intact(run))))
    }

    /// For commands that remove something.
    pub(super) fn write(&self) -> Result<Runs, String> {
        let path = self.path(configuration::file()?.db.as_deref());
        let store = SqliteStore::open(&path, Durability::Normal).map_err(|error| error.to_string())?;
        Ok(Runs::new(Arc::new(store)))
    }
}
