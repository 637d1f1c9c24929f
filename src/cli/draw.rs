//! `flowrun graph`: what a workflow looks like.

use std::process::ExitCode;

use crate::render;
use clap::ValueEnum;

use super::{check, print, width};
use crate::Flowrun;

/// How a graph is drawn.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// Boxes and lines in the terminal, or a list if they do not fit.
    Text,
    /// A flowchart of Mermaid.
    Mermaid,
    /// A graph of Graphviz.
    Dot,
}

pub(super) fn draw(reference: &str, format: Format) -> ExitCode {
    let flowrun = Flowrun::builder().build();
    let graph = match check::load(&flowrun, reference, false) {
        Ok(workflow) => workflow.graph.clone(),
        Err(code) => return code,
    };
    print(&match format {
        Format::Text => render::graph(&graph, width()),
        Format::Mermaid => render::mermaid(&graph),
        Format::Dot => render::dot(&graph),
    })
}
