//! A world that answers for a random workflow: every answer is a pure function of the seed, the step's path and what it saw.

use serde_json::{Value, json};

use super::Random;
use crate::failure::{ErrorClass, StepError};
use crate::id::ValueHash;

/// What is to happen, by what is asked, the path of the step, and the number of the attempt, prefix, pass or case; nothing: as
/// the seed says.
pub type Script = fn(&str, &str, u64) -> Option<u64>;

/// The answers of one seed.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// The seed.
    pub seed: u64,
    /// In a calm world nothing fails and every condition holds.
    pub calm: bool,
    /// Whether some people never answer.
    pub silence: bool,
    /// What a test wants to happen.
    pub script: Option<Script>,
}

/// What a person does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Person {
    /// Answers sooner or later.
    Answers,
    /// Does not answer in time.
    Late,
    /// Never answers.
    Silent,
}

type Answer<T> = Result<T, StepError>;

fn broken<T>(what: &str) -> Answer<T> {
    Err(StepError::terminal("expression", what))
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, calm: false, silence: false, script: None }
    }

    /// A world in which everything goes well and happens once, as far as the script says nothing else: guards and cases hold,
    /// lists have two items, nothing stops early or goes on.
    pub fn scripted(script: Script) -> Self {
        Self { seed: 0, calm: true, silence: false, script: Some(script) }
    }

    fn script(&self, what: &str, path: &str, number: u64, usual: u64) -> Option<u64> {
        self.script.map(|script| script(what, path, number).unwrap_or(usual))
    }

    fn random(&self, what: &str, path: &str, saw: &Value, more: u64) -> Random {
        let mut mixed = Random(self.seed ^ more.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for byte in what.bytes().chain([b'|']).chain(path.bytes()) {
            mixed.0 = (mixed.0.rotate_left(7) ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        if !saw.is_null() {
            for byte in saw.to_string().bytes() {
                mixed.0 = (mixed.0.rotate_left(7) ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
            }
        }
        Random(mixed.next())
    }

    fn fails(&self, random: &mut Random, one_in: u64) -> bool {
        !self.calm && random.one_in(one_in)
    }

    /// Whether a guard holds, or why it cannot be evaluated.
    pub fn guard(&self, path: &str, saw: &Value) -> Answer<bool> {
        if let Some(holds) = self.script("guard", path, 0, 1) {
            return Ok(holds > 0);
        }
        let mut random = self.random("guard", path, saw, 0);
        if self.fails(&mut random, 50) { broken("guard") } else { Ok(self.calm || !random.one_in(4)) }
    }

    /// How many items there are, or why that is not known.
    pub fn items(&self, path: &str, saw: &Value) -> Answer<u32> {
        if let Some(count) = self.script("items", path, 0, 2) {
            return Ok(count as u32);
        }
        let mut random = self.random("items", path, saw, 0);
        if self.fails(&mut random, 50) { broken("items") } else { Ok(random.below(5) as u32) }
    }

    /// Most model calls of one attempt, or why the input cannot be rendered.
    pub fn input(&self, path: &str, saw: &Value) -> Answer<u32> {
        let mut random = self.random("input", path, saw, 0);
        if self.fails(&mut random, 50) { broken("input") } else { Ok(random.below(3) as u32) }
    }

    /// What an attempt comes to. One that may time out perhaps never ends.
    pub fn attempt(&self, path: &str, attempt: u32, saw: &Value, times_out: bool) -> Answer<()> {
        if self.script("attempt", path, u64::from(attempt), 1) == Some(0) {
            return Err(StepError::terminal("failed", "as the script says"));
        }
        let mut random = self.random("attempt", path, saw, u64::from(attempt));
        if !self.fails(&mut random, 10) {
            return Ok(());
        }
        let class = match random.below(4) {
            0 | 1 if times_out => ErrorClass::Timeout,
            0 | 2 => ErrorClass::Server,
            _ => ErrorClass::Terminal,
        };
        Err(StepError::new("failed", class, format!("attempt {attempt}")))
    }

    /// Whether the value of a step, or the value in place of its error, cannot be computed.
    pub fn value(&self, what: &str, path: &str) -> Answer<()> {
        let mut random = self.random(what, path, &Value::Null, 0);
        if self.fails(&mut random, 40) { broken(what) } else { Ok(()) }
    }

    /// Whether the first so many items are the value.
    pub fn stop(&self, path: &str, length: u32, saw: &Value) -> Answer<bool> {
        if let Some(stops) = self.script("stop", path, u64::from(length), 0) {
            return Ok(stops > 0);
        }
        Ok(self.random("stop", path, saw, u64::from(length)).one_in(3))
    }

    /// Whether another pass follows one that `until` looks at.
    pub fn again(&self, path: &str, pass: u32, saw: &Value) -> Answer<bool> {
        if let Some(again) = self.script("again", path, u64::from(pass), 0) {
            return Ok(again > 0);
        }
        let mut random = self.random("again", path, saw, u64::from(pass));
        if self.fails(&mut random, 50) { broken("until") } else { Ok(!random.one_in(3)) }
    }

    /// Whether a case of `next` holds.
    pub fn route(&self, path: &str, case: usize, saw: &Value) -> bool {
        if let Some(holds) = self.script("route", path, case as u64, 1) {
            return holds > 0;
        }
        !self.random("route", path, saw, case as u64).one_in(3)
    }

    /// What the person does who is asked.
    pub fn person(&self, path: &str) -> Person {
        let mut random = self.random("person", path, &Value::Null, 0);
        match random.below(6) {
            0 | 1 if self.silence => Person::Silent,
            2 if !self.calm => Person::Late,
            _ => Person::Answers,
        }
    }

    /// The value of a step: says where it comes from and what was seen.
    pub fn made(what: &str, path: &str, saw: &Value) -> ValueHash {
        ValueHash::of(&json!([what, path, saw]))
    }

    /// Which of so many graphs an expansion draws.
    pub fn drawn(&self, path: &str, graphs: usize) -> Answer<usize> {
        if let Some(number) = self.script("graph", path, 0, 0) {
            return Ok(number as usize);
        }
        let mut random = self.random("graph", path, &Value::Null, 0);
        if self.fails(&mut random, 15) || graphs == 0 {
            return Err(StepError::terminal("bad_plan", "graph"));
        }
        Ok(random.below(graphs as u64) as usize)
    }
}
