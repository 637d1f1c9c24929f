//! The graph of a frame: each node compiled, its names turned into dependencies.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::dependencies::{Captures, Gathered};
use super::fields::{Known, Use};
use super::scope::Names;
use super::{Checker, part_hash};
use crate::definition::{ErrorPolicyDef, KindSpec, KindWork, NodeDef};
use crate::diagnostic::codes;
use crate::dialect::Dialect;
use crate::expr::Tree;
use crate::failure::ErrorClass;
use crate::graph::{Count, ExpansionRules, Field, Graph, Node, NodeCode, OnError, OnItemError, Work};
use crate::retry::RetryPolicy;
use crate::source::Part;

/// Deepest nesting of groups and calls, whatever `limits.depth` says: the checker recurses into them.
const DEPTH_MAX: u32 = 64;

impl Checker<'_> {
    /// Checks the nodes and the output of a frame. `None` after an error that leaves no graph.
    pub(super) fn frame(
        &mut self,
        names: &Names,
        path: &[&str],
        output: Option<&Value>,
        output_path: &[&str],
    ) -> Option<(Graph, Captures)> {
        let depth_max = self.limits.depth.min(DEPTH_MAX.saturating_sub(self.depth));
        if names.depth >= depth_max {
            self.error(codes::LIMIT, path, Part::Key, format!("groups nest deeper than `limits.depth` ({depth_max})"));
            return None;
        }
        let before = self.errors.found;
        let mut captures = Captures::new();
        let mut nodes = Vec::with_capacity(names.nodes.len());
        let mut mentions = Vec::with_capacity(names.nodes.len());
        for (name, node) in names.nodes {
            let at: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            let (node, uses) = self.node(names, name, node, &at, &mut captures);
            nodes.push(node);
            mentions.push(uses);
        }
        let mut uses = Vec::new();
        let known = Known { this: true, ..Known::default() };
        let tree = output.and_then(|output| self.compiled(output, output_path, known, &mut uses));
        let mut gathered = Gathered::default();
        self.gather(names, None, &uses, &mut gathered, &mut captures);
        if let Some(tree) = &tree {
            self.comparisons(names, tree, output_path);
        }
        let read: BTreeSet<&str> = gathered.optional.keys().map(String::as_str).collect();
        if output.is_some() && self.errors.found == before && self.broken.is_empty() {
            self.warn_unused(&nodes, &read, path);
        }
        let graph = Graph::build(nodes).map_err(|cycles| {
            cycles.iter().for_each(|cycle| self.cycle(names, cycle, &mentions, path));
        });
        let graph = graph.ok();
        let mut graph = graph.filter(|_| self.errors.found == before)?;
        let required = gathered.optional.iter().filter(|(_, optional)| !**optional);
        graph.output_requires = required.filter_map(|(name, _)| graph.find(name)).collect();
        graph.output_requires.sort_unstable();
        graph.output = tree;
        graph.bind_names();
        graph.hash = part_hash(path.last().unwrap_or(&""), graph.nodes().len());
        Some((graph, captures))
    }

    /// Compiles one node. After an error it is there all the same, for the cycles that it may be part of.
    fn node(
        &mut self,
        names: &Names,
        name: &str,
        node: &NodeDef,
        path: &[&str],
        captures: &mut Captures,
    ) -> (Node, Vec<Use>) {
        let Some(spec) = self.kinds.get(&node.kind).cloned() else {
            self.error(codes::UNKNOWN_KIND, path, Part::Key, format!("no kind is called `{}`", node.kind));
            return (Node::new(name, Work::Value), Vec::new());
        };
        self.names_are_free(names, name, node, path);
        self.attributes_apply(&spec, node, path);
        let mut uses = Vec::new();
        let mut code = self.code(&spec, node, path, &mut uses);
        let mut gathered = Gathered::default();
        self.gather(names, Some((name, node)), &uses, &mut gathered, captures);
        let work = self.work(names, name, &spec, node, path, &mut gathered, captures);
        self.shapes(names, node, path);
        self.warn_braces(names, &spec, node, path);
        self.all_comparisons(names, &code, path);
        let (dependencies, any_of) = self.dependencies(names, name, node, gathered, path);
        code.appended = self.appended(names, node, &uses);
        let mut checked = Node::new(name, work.unwrap_or(Work::Value));
        checked.dependencies = dependencies;
        checked.any_of = any_of;
        checked.has_guard = node.when.is_some();
        checked.for_each = node.for_each.is_some();
        checked.item_name = node.item_name.as_deref().unwrap_or("item").into();
        checked.samples = node.samples.as_ref().map(fixed);
        checked.max_parallel = node.max_parallel.as_ref().map(fixed);
        checked.has_input = match checked.work {
            Work::Leaf => code.asks() || !code.fields.values().all(Field::is_constant),
            Work::Call(_) | Work::Expand => true,
            Work::Value | Work::Group(_) => false,
        };
        checked.has_value = node.schema.is_some() || node.output.is_some();
        checked.retry = retry(&spec, node);
        checked.timeout_ms = node.timeout_ms;
        checked.on_error = match node.on_error {
            ErrorPolicyDef::Skip => OnError::Skip,
            ErrorPolicyDef::Value(_) => OnError::Value,
            _ => OnError::Fail,
        };
        checked.on_item_error = match node.on_item_error {
            ErrorPolicyDef::Skip => OnItemError::Skip,
            ErrorPolicyDef::Drop => OnItemError::Drop,
            ErrorPolicyDef::Value(_) => OnItemError::Value,
            _ => OnItemError::Fail,
        };
        checked.code = Arc::new(code);
        (checked, uses)
    }

    /// Compiles everything that the driver evaluates.
    fn code(&mut self, spec: &Arc<KindSpec>, node: &NodeDef, path: &[&str], uses: &mut Vec<Use>) -> NodeCode {
        let mut tree = |checker: &mut Self, key: &str, value: &Option<Value>, known: Known| -> Option<Box<Tree>> {
            let at: Vec<&str> = path.iter().copied().chain(key.split('.')).collect();
            checker.compiled(value.as_ref()?, &at, known, uses).map(Box::new)
        };
        let outside = Known::default();
        let count = Known { count: true, ..outside };
        let error_value = |policy: &ErrorPolicyDef| match policy {
            ErrorPolicyDef::Value(value) => Some(value.clone()),
            _ => None,
        };
        let is_group = spec.work == KindWork::Group;
        let mut code = NodeCode {
            kind: spec.name.clone(),
            spec: Some(spec.clone()),
            guard: tree(self, "when", &node.when, outside),
            items: tree(self, "for_each", &node.for_each, outside),
            samples: tree(self, "samples", &node.samples, count),
            max_parallel: tree(self, "max_parallel", &node.max_parallel, count),
            schema: node.schema.clone(),
            output: if is_group {
                None
            } else {
                tree(self, "output", &node.output, Known { this: true, ..Known::ITEM })
            },
            error_value: tree(self, "on_error.value", &error_value(&node.on_error), outside),
            item_error_value: tree(self, "on_item_error.value", &error_value(&node.on_item_error), Known::ITEM),
            ..NodeCode::default()
        };
        for (key, written, tree) in
            [("samples", &node.samples, &code.samples), ("max_parallel", &node.max_parallel, &code.max_parallel)]
        {
            let fits = |value: &Value| value.as_u64().is_some_and(|n| (1..=u64::from(u32::MAX)).contains(&n));
            let is_tree = written.as_ref().is_some_and(|value| value.is_array() || value.is_object());
            if is_tree || tree.as_ref().and_then(|tree| tree.constant()).is_some_and(|value| !fits(value)) {
                let at: Vec<&str> = path.iter().copied().chain([key]).collect();
                self.error(codes::WRONG_TYPE, &at, Part::Value, format!("`{key}` wants a whole number from 1"));
            }
        }
        code.fields = self.fields(spec, node, path, uses);
        self.warn_equal_samples(node, path);
        self.warn_comments(node, path);
        if spec.has_plans() {
            let nodes_max = node.limits.and_then(|limits| limits.nodes).unwrap_or(self.limits.nodes);
            let mut rules = ExpansionRules::new(nodes_max);
            let dialect = node.fields.get("dialect").and_then(|word| word.as_str());
            rules.dialect = dialect.and_then(Dialect::named).unwrap_or_default();
            rules.iterations_max =
                node.limits.and_then(|limits| limits.iterations).unwrap_or(ExpansionRules::ITERATIONS_MAX);
            if let Some(allow) = &node.allow {
                rules.kinds = allow.kinds.clone().unwrap_or(rules.kinds);
                rules.models = allow.models.clone().unwrap_or_default();
            }
            self.fallback(node, &rules, path);
            code.expansion = Some(Arc::new(rules));
        }
        code
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one node, passed on once")]
    fn work(
        &mut self,
        names: &Names,
        name: &str,
        spec: &KindSpec,
        node: &NodeDef,
        path: &[&str],
        gathered: &mut Gathered,
        captures: &mut Captures,
    ) -> Option<Work> {
        Some(match spec.work {
            KindWork::Leaf => Work::Leaf,
            KindWork::Value => Work::Value,
            KindWork::Expand => Work::Expand,
            KindWork::Call => Work::Call(self.called(node, path, names.depth)?),
            KindWork::Group => {
                let inside: Vec<&str> = path.iter().copied().chain(["nodes"]).collect();
                let output: Vec<&str> = path.iter().copied().chain(["output"]).collect();
                let inner = names.inside(name, node);
                let (graph, taken) = self.frame(&inner, &inside, node.output.as_ref(), &output)?;
                for (levels, captured) in taken {
                    if levels == 1 {
                        gathered.waits.insert(captured);
                    } else {
                        captures.insert((levels - 1, captured));
                    }
                }
                Work::Group(Arc::new(graph))
            }
        })
    }
}

fn fixed(value: &Value) -> Count {
    value.as_u64().and_then(|count| u32::try_from(count).ok()).map_or(Count::Decided, Count::Fixed)
}

fn retry(spec: &KindSpec, node: &NodeDef) -> RetryPolicy {
    let default = &spec.retry;
    let Some(written) = &node.retry else { return default.clone() };
    let classes = |words: &Vec<String>| words.iter().filter_map(|word| ErrorClass::from_word(word)).collect();
    let any_default = if default.on.is_empty() { RetryPolicy::model().on } else { default.on.clone() };
    RetryPolicy {
        max: written.max.unwrap_or(default.max.max(1)),
        on: written.on.as_ref().map_or(any_default, classes),
        backoff_ms: written.backoff_ms.unwrap_or(default.backoff_ms),
    }
}
