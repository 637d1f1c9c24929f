//! A workflow file's text and where everything in it stands.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Place};

/// A file's text with an index from document paths to places.
#[derive(Debug)]
pub struct Source {
    name: Arc<str>,
}

/// Which part of an entry is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key of a mapping entry.
    Key,
    /// The value.
    Value,
}

impl Source {
    /// Largest file in bytes.
    pub const BYTES_MAX: usize = 8 << 20;

    /// Reads YAML text: its data and the places of everything in it.
    pub fn parse(_name: &str, _text: &str) -> Result<(Self, Value), Vec<Diagnostic>> {
        todo!()
    }
    /// The file's name as given.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
    /// The text.
    pub fn text(&self) -> &str {
        todo!()
    }
    /// The place of an entry; falls back to the nearest parent that exists.
    pub fn place(&self, _path: &[&str], _part: Part) -> Place {
        todo!()
    }
    /// The place of a byte range inside the string value at `path`, as exact as the scalar's style allows.
    pub fn place_within(&self, _path: &[&str], _range: Range<usize>) -> Place {
        todo!()
    }
}
