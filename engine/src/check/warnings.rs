//! What works and is most likely not meant.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Checker;
use crate::definition::NodeDef;
use crate::diagnostic::codes;
use crate::graph::Node;

impl Checker<'_> {
    pub(super) fn warn_equal_samples(&mut self, node: &NodeDef, path: &[&str]) {
        let temperature = node.fields.get("params").and_then(|params| params.get("temperature"));
        if node.samples.is_some() && temperature.and_then(Value::as_f64) == Some(0.0) {
            let at: Vec<&str> = path.iter().copied().chain(["samples"]).collect();
            let message = "with `temperature: 0` all samples are most likely equal";
            self.warning(codes::SUSPICIOUS, &at, message);
        }
    }

    /// Warns of nodes whose value reaches neither the output nor a node that does.
    pub(super) fn warn_unused(&mut self, nodes: &[Node], read: &BTreeSet<&str>, path: &[&str]) {
        let mut used: Vec<bool> = nodes.iter().map(|node| read.contains(&*node.name)).collect();
        let mut queue: Vec<usize> = (0..nodes.len()).filter(|index| used[*index]).collect();
        while let Some(index) = queue.pop() {
            for dependency in &nodes[index].dependencies {
                let source = dependency.source.index();
                if !std::mem::replace(&mut used[source], true) {
                    queue.push(source);
                }
            }
        }
        for (node, _) in nodes.iter().zip(used).filter(|(_, used)| !used) {
            let at: Vec<&str> = path.iter().copied().chain([&*node.name]).collect();
            let message = format!("the value of `{}` never reaches the output", node.name);
            self.warning(codes::UNUSED_NODE, &at, message);
        }
    }
}
