//! `flowrun graph`: the graph of a workflow, drawn on stdout.

use flowrun::Flowrun;
use flowrun_engine::render;

use super::{Refusal, output, read_workflow};

pub(super) fn graph(reference: &str) -> Result<u8, Refusal> {
    let text = read_workflow(reference)?;
    let workflow = Flowrun::builder().build().parse(reference, &text)?;
    output::data(&render::graph(&workflow.graph, output::width()));
    Ok(0)
}
