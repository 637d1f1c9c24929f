//! What a name means at a place: the frames around it, innermost first.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Settled, Table};
use crate::id::ValueHash;
use crate::testing::spec::Read;

/// A place among names.
#[derive(Clone, Copy)]
pub(super) struct Env<'a> {
    pub(super) parent: Option<&'a Env<'a>>,
    pub(super) here: Here<'a>,
}

/// What one place adds.
#[derive(Clone, Copy)]
pub(super) enum Here<'a> {
    /// The settled nodes of a frame.
    Nodes(&'a Table),
    /// A pass, with the earlier ones of the same loop, whatever its kind.
    Loop { names: &'a BTreeSet<String>, history: &'a [Table], number: u32 },
    /// An item of the list of a step.
    Item { name: &'a str, number: &'a str, map: &'a str, index: u32 },
    /// The border of a closed frame, with its inputs.
    Closed { inputs: &'a [String], value: &'a Value },
}

impl Env<'_> {
    fn places(&self) -> impl Iterator<Item = Here<'_>> {
        let mut at = Some(self);
        std::iter::from_fn(move || {
            let here = at?;
            at = here.parent;
            Some(here.here)
        })
    }

    /// The node of that name.
    pub(super) fn node(&self, name: &str) -> Option<&Settled> {
        self.places().find_map(|here| if let Here::Nodes(table) = here { table.get(name) } else { None })
    }

    /// Whether every node succeeded that is mentioned without a default; `apart` are those that other rules speak of.
    pub(super) fn has_required(&self, reads: &[Read], apart: impl Fn(&str) -> bool) -> bool {
        reads.iter().all(|read| match read {
            Read::Plain(name) if !apart(name) => self.node(name).is_none_or(|settled| settled.succeeded),
            _ => true,
        })
    }

    /// What the mentions say here, by their texts.
    pub(super) fn see(&self, reads: &[Read]) -> Value {
        json!(reads.iter().map(|read| (read.key(), self.read(read))).collect::<BTreeMap<_, _>>())
    }

    fn read(&self, read: &Read) -> Value {
        match read {
            Read::Plain(name) | Read::Default(name) => match self.node(name) {
                Some(settled) => settled.value.clone(),
                None => self.given(name),
            },
            Read::Given(name) => self.given(name),
            Read::Past(name) => json!(self.past(name)),
            Read::Last(name) => self.past(name).pop().unwrap_or_default(),
            Read::Error(name) => {
                let failed = self.node(name).is_some_and(|settled| settled.failed);
                if failed { json!("error") } else { Value::Null }
            }
        }
    }

    /// Values of the earlier passes of the innermost loop that holds the node.
    fn past(&self, name: &str) -> Vec<Value> {
        let holds = |here| match here {
            Here::Loop { names, history, .. } if names.contains(name) => Some(history),
            _ => None,
        };
        let history = self.places().find_map(holds).unwrap_or_default();
        // What took the place of an error is no value of its pass.
        let value = |settled: &Settled| if settled.failed { Value::Null } else { settled.value.clone() };
        history.iter().map(|table| table.get(name).map_or(Value::Null, value)).collect()
    }

    fn given(&self, wanted: &str) -> Value {
        let passes =
            self.places().filter_map(|here| if let Here::Loop { number, .. } = here { Some(number) } else { None });
        match wanted {
            "iteration" => return json!(passes.into_iter().next()),
            "pass" => {
                let mut passes: Vec<u32> = passes.collect();
                passes.reverse();
                return json!(passes);
            }
            _ => {}
        }
        for here in self.places() {
            match here {
                Here::Item { name, map, index, .. } if name == wanted => return item(map, index),
                Here::Item { number, index, .. } if number == wanted => return json!(index),
                Here::Closed { inputs, value } if inputs.iter().any(|input| input == wanted) => return value.clone(),
                _ => {}
            }
        }
        json!("unknown")
    }
}

/// An element of the list of a step.
pub(crate) fn item(map: &str, index: u32) -> Value {
    json!([ValueHash::of(&json!(map)), index])
}
