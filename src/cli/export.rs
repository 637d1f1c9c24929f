//! `flowrun export`: a run as JSON lines, for other programs.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use super::db::DbArgs;
use super::{refuse, say};
use crate::render::clean;
use crate::runs;

pub(super) fn export(wanted: &str, values: bool, place: &DbArgs) -> ExitCode {
    let log = match place.read().and_then(|runs| runs.load_named(wanted)) {
        Ok(log) => log,
        Err(problem) => return refuse(&problem),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let written = runs::export(&log, values, &mut out).and_then(|problems| out.flush().map(|()| problems));
    match written {
        // A reader that has gone away is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => refuse(&format!("standard output: {error}")),
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| say(&format!("missing: {}", clean(problem))));
            ExitCode::FAILURE
        }
    }
}
