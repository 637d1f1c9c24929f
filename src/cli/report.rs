//! Diagnostics for people and for editors.

use flowrun_engine::diagnostic::Diagnostic;
use flowrun_engine::source::Source;

/// The diagnostics as text.
pub(crate) fn render(diagnostics: &[Diagnostic], _sources: &[&Source], _styled: bool) -> String {
    diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect()
}

/// One diagnostic as a line of JSON.
pub(crate) fn json_line(diagnostic: &Diagnostic) -> String {
    serde_json::to_string(diagnostic).unwrap_or_default()
}
