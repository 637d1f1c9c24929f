//! Exact arithmetic: formulas over numbers of any size, as fractions of big integers.

use serde_json::Value;

use crate::expr::ExprError;
use crate::failure::StepError;

/// A parsed formula.
#[derive(Debug)]
pub struct Formula(());

impl Formula {
    /// Parses a formula.
    pub fn parse(_text: &str) -> Result<Self, ExprError> {
        todo!()
    }
    /// The text as written.
    pub fn text(&self) -> &str {
        todo!()
    }
    /// The ids that it mentions, each once, in order of appearance, with the byte range of the first mention.
    pub fn names(&self) -> &[(String, std::ops::Range<usize>)] {
        todo!()
    }
    /// Computes it. `lookup` gives the value of an id.
    pub fn eval(&self, _lookup: impl FnMut(&str) -> Option<Value>) -> Result<Value, StepError> {
        todo!()
    }
}
