//! The workflows that a recorded run called, as they were when it began.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use flowrun_engine::check::Library;
use flowrun_engine::definition::{KindSpec, WorkflowDef};
use flowrun_engine::source::Source;
use flowrun_engine::store::Store;

use crate::origin::text_of;
use crate::{Origin, library};

/// Finds what a recorded run called.
pub(super) struct Kept<'k> {
    origin: &'k Origin,
    store: &'k dyn Store,
    /// Whether files that are there come first.
    is_last_resort: bool,
}

impl<'k> Kept<'k> {
    /// As the run was.
    pub(super) fn then(origin: &'k Origin, store: &'k dyn Store) -> Self {
        Self { origin, store, is_last_resort: false }
    }

    /// As it is now, and as it was where there is nothing now.
    pub(super) fn now(origin: &'k Origin, store: &'k dyn Store) -> Self {
        Self { origin, store, is_last_resort: true }
    }

    fn text(&self, name: &str) -> Option<String> {
        let root = self.origin.name();
        if name == root {
            return self.origin.text(self.store);
        }
        let folder = Path::new(&root).parent().unwrap_or(Path::new(""));
        let below = Path::new(name).strip_prefix(folder).map_or(name.into(), |below| below.to_string_lossy());
        text_of(*self.origin.calls.get(&*below)?, self.store)
    }
}

impl Library for Kept<'_> {
    fn load(
        &self,
        reference: &str,
        from: &str,
        kinds: &BTreeMap<String, Arc<KindSpec>>,
    ) -> Result<(WorkflowDef, Source), String> {
        let name = library::named(reference, from)?;
        let kept = || self.text(&name);
        let text = if self.is_last_resort {
            library::read(&name).or_else(|missing| kept().ok_or(missing))
        } else {
            kept().map_or_else(|| library::read(&name), Ok)
        };
        library::parsed(&name, &text?, kinds)
    }
}
