//! Which names mean what at a place in the file.
//!
//! Inputs and nodes share one flat namespace per closed graph; the body of a group sees the names around it. A name is looked
//! up from the frame outwards. What a body takes from a frame further out is a *capture*: the node that holds the body waits
//! for it, no more.

use indexmap::IndexMap;

use crate::definition::{InputDef, NodeDef};

/// The names of one frame, and of those around it.
pub(super) struct Names<'a> {
    pub(super) nodes: &'a IndexMap<String, NodeDef>,
    inputs: Option<&'a IndexMap<String, InputDef>>,
    outer: Option<(&'a Names<'a>, &'a str)>,
    /// Names of the items that the node holding this frame maps over, and of their numbers.
    item: Option<(&'a str, &'a str)>,
    /// Whether the frame is that of a pass, or of an item of a sequential map.
    pub(super) loops: bool,
    pub(super) depth: u32,
}

/// What a name means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meaning<'a> {
    /// A node, so many frames further out (0: of this frame).
    Node(usize, &'a NodeDef),
    /// A node that holds the place where the name stands.
    Around,
    /// An input of the closed graph.
    Input(&'a InputDef),
    /// An element of a list.
    Item,
    /// Nothing.
    Unknown,
}

impl<'a> Names<'a> {
    /// The names of a workflow or plan.
    pub(super) fn closed(nodes: &'a IndexMap<String, NodeDef>, inputs: &'a IndexMap<String, InputDef>) -> Self {
        Self { nodes, inputs: Some(inputs), outer: None, item: None, loops: false, depth: 0 }
    }

    /// The names inside a group.
    pub(super) fn inside(&'a self, name: &'a str, group: &'a NodeDef) -> Names<'a> {
        let item = group.for_each.is_some().then(|| group.item_names());
        let loops = group.loops();
        Names { nodes: &group.nodes, inputs: None, outer: Some((self, name)), item, loops, depth: self.depth + 1 }
    }

    pub(super) fn find(&self, name: &str) -> Meaning<'a> {
        let mut at = Some(self);
        let mut levels = 0;
        let mut through: Option<&str> = None;
        while let Some(names) = at {
            if let Some(node) = names.nodes.get(name) {
                return if through == Some(name) { Meaning::Around } else { Meaning::Node(levels, node) };
            }
            if names.item.is_some_and(|(item, index)| item == name || index == name) {
                return Meaning::Item;
            }
            if let Some(input) = names.inputs.and_then(|inputs| inputs.get(name)) {
                return Meaning::Input(input);
            }
            through = names.outer.map(|(_, holder)| holder);
            at = names.outer.map(|(outer, _)| outer);
            levels += 1;
        }
        Meaning::Unknown
    }

    /// The node of the frame around this one that holds it.
    pub(super) fn held_by(&self) -> Option<(&'a Names<'a>, &'a str)> {
        self.outer
    }

    /// Whether something around this frame has the name already.
    pub(super) fn outer_name(&self, name: &str) -> bool {
        let is_item = self.item.is_some_and(|(item, index)| item == name || index == name);
        is_item || self.outer.is_some_and(|(outer, _)| !matches!(outer.find(name), Meaning::Unknown))
    }

    /// Every name that could have been meant.
    pub(super) fn all(&self) -> Vec<&'a str> {
        let mut names = Vec::new();
        let mut at = Some(self);
        while let Some(frame) = at {
            names.extend(frame.nodes.keys().map(String::as_str));
            names.extend(frame.inputs.into_iter().flat_map(IndexMap::keys).map(String::as_str));
            names.extend(frame.item.map(|(item, _)| item));
            at = frame.outer.map(|(outer, _)| outer);
        }
        names
    }

    /// The group of this frame, or one around it, that has an inner node of that name.
    pub(super) fn holder(&self, name: &str) -> Option<&'a str> {
        let mut at = Some(self);
        while let Some(frame) = at {
            if let Some((holder, _)) = frame.nodes.iter().find(|(_, node)| node.nodes.contains_key(name)) {
                return Some(holder);
            }
            at = frame.outer.map(|(outer, _)| outer);
        }
        None
    }
}
