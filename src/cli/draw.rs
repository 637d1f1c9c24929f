//! `flowrun graph`: what a workflow looks like.

use std::process::ExitCode;

use flowrun_engine::render;

use super::{check, print, width};
use crate::Flowrun;

pub(super) fn draw(reference: &str) -> ExitCode {
    let flowrun = Flowrun::builder().build();
    match check::load(&flowrun, reference) {
        Ok(workflow) => print(&render::graph(&workflow.graph, width())),
        Err(code) => code,
    }
}
