//! Attributes that say nothing on the node that carries them are refused: a reader would believe them.

use super::Checker;
use super::scope::{Meaning, Names};
use crate::definition::{ErrorPolicyDef, KindSpec, NodeDef};
use crate::diagnostic::codes;
use crate::source::Part;

impl Checker<'_> {
    /// No name may hide another one, the item's default name excepted.
    pub(super) fn names_are_free(&mut self, names: &Names, name: &str, node: &NodeDef, path: &[&str]) {
        if names.outer_name(name) {
            let message = format!("`{name}` is a name outside of this group already");
            self.error(codes::BAD_NAME, path, Part::Key, message).help.push("no name may hide another one".to_owned());
        }
        let item = node.item_name.as_deref().filter(|item| *item != "item");
        if let Some(item) = item.filter(|item| !matches!(names.find(item), Meaning::Unknown)) {
            let at: Vec<&str> = path.iter().copied().chain(["as"]).collect();
            let message = format!("`{item}` is a name already");
            self.error(codes::BAD_NAME, &at, Part::Value, message).help.push("no name may hide another one".to_owned());
        }
    }

    /// Attributes that mean nothing on this node.
    pub(super) fn attributes_apply(&mut self, spec: &KindSpec, node: &NodeDef, path: &[&str]) {
        let unfolds = node.for_each.is_some() || node.samples.is_some();
        let checks = [
            (
                "retry",
                node.retry.is_some() && !spec.carries("retry"),
                "only a node that runs something can be retried; put it on the nodes inside",
            ),
            (
                "samples",
                node.samples.is_some() && !spec.carries("samples"),
                "the same input gives the same value: samples would be equal",
            ),
            (
                "as",
                node.item_name.is_some() && node.for_each.is_none(),
                "it names the items of `for_each`, which is missing",
            ),
            (
                "max_parallel",
                node.max_parallel.is_some() && !unfolds,
                "it bounds the open items of `for_each`, which is missing",
            ),
            (
                "sequential",
                node.sequential && node.for_each.is_none(),
                "it orders the items of `for_each`, which is missing",
            ),
            (
                "max_parallel",
                node.sequential && node.max_parallel.is_some() && node.for_each.is_some(),
                "the items of a `sequential` map run one after the other",
            ),
            (
                "index",
                node.index_name.is_some() && node.for_each.is_none(),
                "it names the numbers of the items of `for_each`, which is missing",
            ),
            ("stop_when", node.stop_when.is_some() && !unfolds, "it is asked about items of `for_each` or `samples`"),
            ("quorum", node.quorum.is_some() && !unfolds, "it counts items of `for_each` or `samples`"),
            ("max_depth", node.max_depth.is_some() && !spec.carries("max_depth"), "it bounds calls of a `workflow`"),
            (
                "on_step_error",
                node.steps_fail && !spec.carries("on_step_error"),
                "it is about the steps of a plan: beside `graph`",
            ),
            (
                "on_item_error",
                node.on_item_error != ErrorPolicyDef::Default && !unfolds,
                "it is for items of `for_each` or `samples`",
            ),
            ("timeout", node.timeout_ms.is_some() && !spec.carries("timeout"), "a value is computed at once"),
            (
                "limits",
                node.limits.is_some() && !spec.carries("limits"),
                "it bounds what a model may draw: beside `graph` and on `plan`",
            ),
            (
                "allow",
                node.allow.is_some() && !spec.carries("allow"),
                "it bounds what a model may draw: beside `graph` and on `plan`",
            ),
        ];
        for (key, wrong, why) in checks {
            if wrong {
                let at: Vec<&str> = path.iter().copied().chain([key]).collect();
                self.error(codes::CONFLICT, &at, Part::Key, format!("`{key}` does not apply here: {why}"));
            }
        }
    }
}
