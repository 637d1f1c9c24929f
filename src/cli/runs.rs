//! `flowrun runs`: what was recorded.

use std::path::Path;

use flowrun::Runs;
use flowrun_engine::trace::{seconds, thousands};

use super::{Refusal, output};

pub(super) fn runs(folder: &Path, json: bool) -> Result<u8, Refusal> {
    let runs = Runs::open(folder);
    let ids = runs.ids().map_err(|error| format!("`{}` cannot be read: {error}", folder.display()))?;
    if ids.is_empty() && !json {
        output::say(&format!("there are no runs in `{}`", folder.display()));
    }
    for id in ids {
        let summary = match runs.summary(&id) {
            Ok(summary) => summary,
            Err(error) => {
                output::say(&format!("`{id}` cannot be read: {error}"));
                continue;
            }
        };
        let line = if json {
            serde_json::to_string(&summary).expect("BUG: a summary is always JSON")
        } else {
            let tokens = summary.usage.prompt_tokens + summary.usage.completion_tokens;
            format!(
                "{}  {:<11}  {:<20}  {:>4} calls  {:>9} tokens  {:>9}",
                summary.id,
                summary.status,
                output::one_line(&summary.workflow, 20),
                summary.usage.calls,
                thousands(tokens),
                seconds(summary.wall_ms)
            )
        };
        output::data(&format!("{line}\n"));
    }
    Ok(0)
}
