//! `flowrun list` and `flowrun show`: the workflows that are built in.

use flowrun::{Flowrun, Workflows};

use super::{Refusal, output, read_workflow};

pub(super) fn list() -> Result<u8, Refusal> {
    let flowrun = Flowrun::builder().build();
    for embedded in Workflows::embedded() {
        let workflow = flowrun.parse(embedded.name, embedded.text)?;
        let description = workflow.definition.description.as_deref().unwrap_or_default();
        output::data(&format!("@{:<18} {description}\n", embedded.name));
    }
    Ok(0)
}

pub(super) fn show(name: &str) -> Result<u8, Refusal> {
    let name = if name.starts_with('@') { name.to_owned() } else { format!("@{name}") };
    output::data(&read_workflow(&name)?);
    Ok(0)
}
