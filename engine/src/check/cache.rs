//! Which answers are kept (`cache`, `key`, `salt`, `ttl`), and where these keys would say nothing.

use serde_json::Value;

use super::Checker;
use super::fields::{Known, Use};
use crate::definition::{CacheScope, KindSpec, KindWork, NodeDef};
use crate::diagnostic::codes;
use crate::expr::Tree;
use crate::graph::CachePolicy;
use crate::source::Part;

impl Checker<'_> {
    /// Compiles what is said of a node's answers. What says nothing is refused, as a reader would believe it.
    pub(super) fn cache(&mut self, spec: &KindSpec, node: &NodeDef, path: &[&str], uses: &mut Vec<Use>) -> CachePolicy {
        let scope = node.cache.unwrap_or(spec.cache);
        let of_answers =
            [("key", node.cache_key.is_some()), ("salt", node.salt.is_some()), ("ttl", node.ttl_ms.is_some())];
        let written = std::iter::once(("cache", node.cache.is_some())).chain(of_answers);
        for (key, _) in written.filter(|(_, written)| *written) {
            if !spec.carries(key) {
                let (why, help) = no_answers(spec.work);
                self.does_not_apply(key, why, help, path);
            } else if key != "cache" && scope == CacheScope::Off {
                let why = match node.cache {
                    Some(_) => "under `cache: off` no answer is kept".to_owned(),
                    None => format!("answers of the kind `{}` are kept only if `cache` says so", spec.name),
                };
                let help = "write `cache: shared` beside it, or `cache: run` for the steps of one run alone";
                self.does_not_apply(key, &why, help, path);
            }
        }
        self.warn_kept_effect(spec.acts(|field| node.fields.get(field)), node.cache, path);
        let mut tree = |key: &str, value: &Option<Value>| -> Option<Box<Tree>> {
            let at: Vec<&str> = path.iter().copied().chain([key]).collect();
            self.compiled(value.as_ref()?, &at, Known::ITEM, uses).map(Box::new)
        };
        let (key, salt) = (tree("key", &node.cache_key), tree("salt", &node.salt));
        CachePolicy { scope, key, salt, ttl_ms: node.ttl_ms }
    }

    /// Warns of a node whose answer is kept although a step of it does something to the world.
    fn warn_kept_effect(&mut self, acts: bool, scope: Option<CacheScope>, path: &[&str]) {
        let where_to = match scope {
            Some(CacheScope::Shared) if acts => "whichever run it is",
            Some(CacheScope::Run) if acts => "in one run",
            _ => return,
        };
        let at: Vec<&str> = path.iter().copied().chain(["cache"]).collect();
        let message = format!(
            "this acts on the world, and with equal input only once, {where_to}: then its kept answer is taken"
        );
        let problem = self.warning(codes::KEPT_ANSWER, &at, message);
        problem.help.push("leave `cache` out, unless it is as good as done when it was done once".to_owned());
    }

    fn does_not_apply(&mut self, key: &str, why: &str, help: &str, path: &[&str]) {
        let at: Vec<&str> = path.iter().copied().chain([key]).collect();
        let message = format!("`{key}` does not apply here: {why}");
        self.error(codes::CONFLICT, &at, Part::Key, message).help.push(help.to_owned());
    }
}

/// Why a node of such a kind has no answers that could be kept, and the way out.
fn no_answers(work: KindWork) -> (&'static str, &'static str) {
    match work {
        KindWork::Human => ("a person's answer is never kept", "leave it out: a person is asked each time"),
        KindWork::Value => ("a value is computed, which is as quick as finding it", "leave it out"),
        KindWork::Call => {
            ("what a call gives is made by the nodes of its workflow", "put it on the nodes of that workflow")
        }
        KindWork::Expand => {
            ("what a plan gives is made by its steps", "leave it out: their answers are kept as their kinds say")
        }
        KindWork::Group | KindWork::Leaf => {
            ("what a group gives is made by the nodes inside", "put it on the nodes inside")
        }
    }
}
