//! A world that answers for a random workflow: every answer is a pure function of the seed, the step's path and what it saw.

use serde_json::{Value, json};

use super::Random;
use crate::failure::{ErrorClass, StepError};
use crate::graph::Node;
use crate::id::ValueHash;

/// The answers of one seed.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// The seed.
    pub seed: u64,
}

impl World {
    fn random(&self, what: &str, path: &str, more: u64) -> Random {
        let text = format!("{what}|{path}|{more}|{}", self.seed);
        let hash = ValueHash::of_bytes(text.as_bytes()).to_string();
        Random(u64::from_str_radix(&hash[..16], 16).expect("BUG: a hash is hexadecimal"))
    }

    /// Whether a guard holds, or why it cannot be evaluated.
    pub fn guard(&self, path: &str) -> Result<bool, StepError> {
        let mut random = self.random("guard", path, 0);
        if random.one_in(40) { Err(StepError::terminal("expression", "guard")) } else { Ok(!random.one_in(3)) }
    }

    /// How many items there are, or why that is not known.
    pub fn items(&self, path: &str) -> Result<u32, StepError> {
        let mut random = self.random("items", path, 0);
        if random.one_in(40) { Err(StepError::terminal("expression", "items")) } else { Ok(random.below(5) as u32) }
    }

    /// Samples and window, where they are expressions.
    pub fn counts(&self, path: &str) -> (u32, u32) {
        let mut random = self.random("counts", path, 0);
        (1 + random.below(3) as u32, 1 + random.below(4) as u32)
    }

    /// Most model calls of one attempt, or why the input cannot be rendered.
    pub fn input(&self, path: &str) -> Result<u32, StepError> {
        let mut random = self.random("input", path, 0);
        if random.one_in(40) { Err(StepError::terminal("expression", "input")) } else { Ok(random.below(3) as u32) }
    }

    /// What an attempt comes to.
    pub fn attempt(&self, path: &str, attempt: u32, node: &Node) -> Result<(), StepError> {
        let mut random = self.random("attempt", path, u64::from(attempt));
        if !random.one_in(6) {
            return Ok(());
        }
        let class = if random.one_in(2) { ErrorClass::Server } else { ErrorClass::Terminal };
        Err(StepError::new("failed", class, format!("attempt {attempt} of {}", node.name)))
    }

    /// Whether the value of a step, or the value in place of its error, cannot be computed.
    pub fn value(&self, what: &str, path: &str) -> Result<(), StepError> {
        if self.random(what, path, 0).one_in(30) { Err(StepError::terminal("expression", what)) } else { Ok(()) }
    }

    /// The value of a step: says where it comes from and what was seen.
    pub fn made(what: &str, path: &str, saw: &Value) -> ValueHash {
        ValueHash::of(&json!([what, path, saw]))
    }

    /// The seed of the graph that an expansion draws.
    pub fn drawn(&self, path: &str) -> Result<u64, StepError> {
        let mut random = self.random("graph", path, 0);
        if random.one_in(10) { Err(StepError::terminal("bad_plan", "graph")) } else { Ok(random.next()) }
    }
}
