//! The plan dialect: what a model draws. Untrusted data, a flat list of steps.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::WorkflowDef;
use crate::diagnostic::Diagnostic;

/// A plan as a value: `{question, steps: […]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The question that the plan answers.
    pub question: String,
    /// Its steps in order.
    pub steps: Vec<PlanStep>,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    /// Its id.
    pub id: String,
    /// Literal text with slots, or a formula.
    pub ask: String,
}

impl Plan {
    /// Lowers the plan to a workflow definition.
    pub fn lower(&self, _keys: &[String]) -> Result<WorkflowDef, Vec<Diagnostic>> {
        let _ = Value::Null;
        todo!()
    }
}
