//! The names of things: value hashes, and indices of nodes, steps and frames.
//!
//! A node is identified by its index in its graph, a step by its index in the run's arena. Both are plain numbers, so that
//! the scheduler never hashes a string. People see the *path* of a step (`solve[3]/sub`), which the scheduler renders.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};

/// Index of a node in its [`Graph`](crate::graph::Graph), in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u32);

/// Index of a step in the arena of its run. Indices are never reused within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

/// Index of a frame in the arena of its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub u32);

impl NodeIndex {
    /// As an index into a slice.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl StepId {
    /// The root step: the run itself, whose frame holds the workflow's nodes. Its path is empty.
    pub const ROOT: StepId = StepId(0);

    /// As an index into a slice.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl FrameId {
    /// As an index into a slice.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// BLAKE3 hash of a value's JSON text: the name under which values travel through events and logs.
///
/// Printed and serialised as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueHash([u8; 32]);

/// A few bytes of a hash are as good as all of them, and cost less to hash again.
impl std::hash::Hash for ValueHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl ValueHash {
    /// The hash of a JSON value. Key order counts, because it shows when the value is printed.
    pub fn of(value: &serde_json::Value) -> Self {
        let mut hasher = blake3::Hasher::new();
        serde_json::to_writer(&mut hasher, value).expect("BUG: writing JSON to a hasher failed");
        Self(*hasher.finalize().as_bytes())
    }

    /// The hash of raw bytes, for things that are not values (a definition's text, a graph's shape).
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The hash that 64 hexadecimal digits say; `None` if they say none.
    pub fn from_hex(digits: &str) -> Option<Self> {
        blake3::Hash::from_hex(digits).ok().map(|hash| Self(*hash.as_bytes()))
    }

    /// Appends its 64 hexadecimal digits.
    pub fn write_hex(&self, text: &mut String) {
        text.push_str(&blake3::Hash::from_bytes(self.0).to_hex());
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A hash from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The first 12 hexadecimal digits: enough for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for ValueHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ValueHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", &self.to_string()[..8])
    }
}

impl Serialize for ValueHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ValueHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("no hash of 64 hexadecimal digits"))
    }
}

/// Finds things by ids that are spread well enough: numbers that count up, and hashes. Never the order of anything.
pub(crate) type ById = BuildHasherDefault<IdHasher>;

/// See [`ById`].
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl IdHasher {
    fn mix(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(23) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.mix(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
