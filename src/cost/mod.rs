//! What a run may cost at most, known before it begins: what `flowrun check --cost` prints.
//!
//! Every loop, map, plan and recursion has a bound, so the worst case is a formula over what is not known yet (how many items a
//! list will have, what an input will be) and, with the limits in place of that, a number. It is never below what a run does.
//! `measure.rs` walks over the graph and `amount.rs` has the arithmetic; `size.rs` says how quantities grow, `branches.rs` what
//! excludes each other, `width.rs` what can be at work at once, `known.rs` what inputs are known.

mod amount;
mod branches;
mod known;
mod measure;
mod size;
mod width;

use std::collections::BTreeMap;
use std::sync::Arc;

use flowrun_engine::definition::KindSpec;
use flowrun_engine::diagnostic::did_you_mean;
use flowrun_engine::graph::Workflow;
use flowrun_engine::run::StartError;
use serde_json::{Map, Value};

use amount::Amount;
pub use amount::READABLE_MAX;
use known::Known;
use measure::Measure;

/// The worst case of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Model calls, if every attempt succeeds and no reply must be mended.
    pub calls: Bounded,
    /// Model calls with every retry and every repair turn.
    pub calls_with_retries: Bounded,
    /// Steps: executions of nodes, their items, samples and passes, as `limits.steps` counts them.
    pub steps: Bounded,
    /// Frames inside each other, as `limits.depth` counts them.
    pub depth: Bounded,
    /// Leaf steps that could run at once if there were room for all of them.
    pub width: Bounded,
    /// The longest chain of steps of which each waits for the one before.
    pub critical_path: Bounded,
    /// The names in the formulas.
    pub names: Vec<Named>,
}

/// An upper bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounded {
    /// As a formula over the [names](Cost::names); `None` if it is too long to be read.
    pub formula: Option<String>,
    /// As a number, with every name at its most; `u128::MAX` may stand for more.
    pub most: u128,
    /// What the run is held to if that is less, and by what: `budget.calls`, `limits.steps`, `limits.depth`.
    pub held_to: Option<(u64, &'static str)>,
}

/// A name in a formula.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// As the formula has it: `n(split)` is the number of items of `split`, other names are expressions over inputs.
    pub name: String,
    /// What it is at most.
    pub most: u128,
    /// The limit that says so; `None`: the inputs do, and it is exactly that.
    pub limit: Option<&'static str>,
}

impl Cost {
    /// The worst case of a workflow. `inputs` are those that are known, for the others their defaults count; an input with
    /// neither stays a name in the formulas.
    ///
    /// # Errors
    /// An input that is not declared, or does not fit its type.
    pub fn of(
        workflow: &Workflow,
        kinds: &BTreeMap<String, Arc<KindSpec>>,
        inputs: &Map<String, Value>,
    ) -> Result<Self, StartError> {
        let declared = workflow.graph.inputs.clone().unwrap_or_default();
        for (name, value) in inputs {
            let Some(input) = declared.get(name) else {
                let known: Vec<String> = declared.keys().cloned().collect();
                let suggestion = did_you_mean(name, known.iter().map(String::as_str)).map(str::to_owned);
                return Err(StartError::UnknownInput {
                    name: name.clone(),
                    workflow: workflow.name.clone(),
                    suggestion,
                    known,
                });
            };
            let fits = input.schema.validate(value);
            fits.map_err(|reason| StartError::BadInput { name: name.clone(), reason })?;
        }
        let mut measure = Measure::new(workflow.limits, kinds);
        let size = measure.run(&workflow.graph, Known::new(&declared, inputs, &[]));
        let mut shown = Vec::new();
        for amount in [&size.calls, &size.retried, &size.steps, &size.width, &size.path] {
            amount.each_name(&mut |name| shown.push(name.clone()));
        }
        let names = measure.names.iter().filter(|(name, _)| shown.contains(name)).map(|(name, meaning)| Named {
            name: name.to_string(),
            most: meaning.most,
            limit: meaning.limit,
        });
        let calls_max = workflow.calls_max.map(|calls| (calls, "budget.calls"));
        let limits = &workflow.limits;
        Ok(Self {
            names: names.collect(),
            calls: bounded(&size.calls, calls_max),
            calls_with_retries: bounded(&size.retried, calls_max),
            steps: bounded(&size.steps, Some((limits.steps, "limits.steps"))),
            depth: bounded(&Amount::number(size.depth), Some((limits.depth.into(), "limits.depth"))),
            width: bounded(&size.width, None),
            critical_path: bounded(&size.path, None),
        })
    }

    /// Its parts in the order in which they are shown, each with what it is called.
    pub fn parts(&self) -> [(&'static str, &Bounded); 6] {
        [
            ("model calls", &self.calls),
            ("with retries", &self.calls_with_retries),
            ("steps", &self.steps),
            ("depth", &self.depth),
            ("width", &self.width),
            ("critical path", &self.critical_path),
        ]
    }
}

fn bounded(amount: &Amount, bound: Option<(u64, &'static str)>) -> Bounded {
    let held_to = bound.filter(|(bound, _)| u128::from(*bound) < amount.most);
    Bounded { formula: amount.formula(), most: amount.most, held_to }
}

/// A number as people read it: with commas, and a very large one in words.
pub fn readable(number: u128) -> String {
    amount::digits(number)
}

#[cfg(test)]
mod tests;
