//! Input events read back from the log, for folding.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{AttemptReport, DecideField, Decision, Event, RunStarted};
use crate::graph::{Graph, Limits};
use crate::id::{StepId, ValueHash};

/// Makes the graph of a step out of the plan with a hash.
pub type Regraph<'g> = dyn FnMut(StepId, ValueHash) -> Result<Arc<Graph>, String> + 'g;

/// The input event that a line of the log holds; `None` for derived events, which the fold makes anew.
///
/// # Errors
/// What is wrong with the line.
pub fn input_event(line: &Value, regraph: &mut Regraph<'_>) -> Result<Option<Event>, String> {
    let kind = line["type"].as_str().unwrap_or_default();
    if !["run_started", "decided", "settled", "timer", "answered", "missed", "attached", "cancel"].contains(&kind) {
        return Ok(None);
    }
    let step = || need::<u32>(line, "id").map(StepId);
    Ok(Some(match kind {
        "run_started" => Event::RunStarted(Box::new(run_started(line)?)),
        "decided" => {
            let (step, field) = (step()?, need(line, "field")?);
            Event::Decided { step, field, decision: decision(line, step, field, regraph)? }
        }
        "settled" => {
            let result = match optional(line, "error")? {
                Some(error) => Err(error),
                None => Ok(need(line, "value")?),
            };
            let usage = optional(line, "usage")?.unwrap_or_default();
            let report =
                AttemptReport { usage, provenance: optional(line, "provenance")?, key: optional(line, "key")? };
            Event::Settled { step: step()?, attempt: need(line, "attempt")?, result, report: report.boxed() }
        }
        "timer" => Event::Timer { step: step()?, attempt: need(line, "attempt")?, timer: need(line, "timer")? },
        "answered" => Event::Answered { step: step()?, value: need(line, "value")? },
        "missed" => Event::Missed { step: step()? },
        "attached" => Event::Attached { max_parallel: need(line, "max_parallel")? },
        _ => Event::Cancel,
    }))
}

fn run_started(line: &Value) -> Result<RunStarted, String> {
    let limits = &line["limits"];
    Ok(RunStarted {
        semantics: need(line, "semantics")?,
        workflow: need(line, "workflow")?,
        inputs: need(line, "inputs")?,
        max_parallel: need(line, "max_parallel")?,
        calls_max: optional(line, "calls_max")?,
        limits: Limits {
            steps: need(limits, "steps")?,
            items: need(limits, "items")?,
            depth: need(limits, "depth")?,
            nodes: need(limits, "nodes")?,
            output_bytes: need(limits, "output")?,
            iterations: need(limits, "iterations")?,
        },
    })
}

fn decision(line: &Value, step: StepId, field: DecideField, regraph: &mut Regraph<'_>) -> Result<Decision, String> {
    if let Some(error) = optional(line, "error")? {
        return Ok(Decision::Failed(error));
    }
    Ok(match field {
        DecideField::Guard => Decision::Guard(need(line, "holds")?),
        DecideField::Counts => Decision::Counts(need(line, "counts")?),
        DecideField::Stop => Decision::Stop(need(line, "holds")?),
        DecideField::Again => Decision::Again(need(line, "holds")?),
        DecideField::Route => {
            Decision::Route { case: optional(line, "case")?, passed_over: optional(line, "passed_over")? }
        }
        DecideField::Items => Decision::Items { list: need(line, "list")?, count: need(line, "count")? },
        DecideField::Input => Decision::Input {
            hash: need(line, "input")?,
            calls: need(line, "calls")?,
            key: optional(line, "key")?,
            held: optional(line, "held")?.unwrap_or_default(),
        },
        DecideField::Graph => {
            let plan = need(line, "plan")?;
            Decision::Graph { plan, graph: regraph(step, plan)? }
        }
        DecideField::Value | DecideField::Default | DecideField::ErrorValue | DecideField::BestOutput => {
            Decision::Value(need(line, "value")?)
        }
    })
}

fn need<T: DeserializeOwned>(line: &Value, key: &str) -> Result<T, String> {
    optional(line, key)?.ok_or_else(|| format!("event {}: `{key}` is missing", line["seq"]))
}

fn optional<T: DeserializeOwned>(line: &Value, key: &str) -> Result<Option<T>, String> {
    match line.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            T::deserialize(value).map(Some).map_err(|error| format!("event {}: `{key}`: {error}", line["seq"]))
        }
    }
}
