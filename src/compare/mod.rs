//! Two runs beside each other, and one step asked for its reasons: what `flowrun diff` and `flowrun explain` say.
//!
//! Both read logs and the values that logs name, and run nothing: [`Difference::of`] compares two runs, [`explain`] follows the
//! log from a step back to the first cause. Every sentence of an [`Explanation`] names the events that it is read from.

mod answer;
mod difference;
mod explain;
mod history;
mod lines;
mod parts;
mod place;
mod reasons;

pub use answer::Compared;
pub use difference::{Change, Difference, Kind, RunSide, StepDifference, StepSide, step_changes};
pub use explain::{Context, Explanation, UnknownStep, explain, find_step};
pub use history::{Fact, Found, History, StepHistory, node_name};
pub use lines::{Line, changed_lines};
pub use parts::{Part, differing};
pub use reasons::Said;

#[cfg(test)]
mod tests;
