//! The graph of a frame: each node compiled, its names turned into dependencies.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::dependencies::{Captures, Gathered, History, Taken};
use super::fields::{Known, Use};
use super::flow::Flow;
use super::flow_rules::{backwards, merge_edges};
use super::lower::lower;
use super::scope::Names;
use super::{Checker, part_hash};
use crate::definition::{self, CacheScope, ErrorPolicyDef, KindSpec, KindWork, NodeDef};
use crate::diagnostic::codes;
use crate::dialect::Dialect;
use crate::expr::Tree;
use crate::failure::ErrorClass;
use crate::graph::{
    Called, ExpansionRules, Field, Graph, Join, Node, NodeCode, OnError, OnItemError, Work, forward_order,
};
use crate::id::NodeIndex;
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
    ) -> Option<(Graph, Taken)> {
        let depth_max = self.limits.depth.min(DEPTH_MAX.saturating_sub(self.depth));
        if names.depth >= depth_max {
            self.error(codes::LIMIT, path, Part::Key, format!("groups nest deeper than `limits.depth` ({depth_max})"));
            return None;
        }
        let before = self.errors.found;
        let mut flow = self.edges(names, path);
        let mut captures = Captures::new();
        let mut nodes = Vec::with_capacity(names.nodes.len());
        let mut mentions = Vec::with_capacity(names.nodes.len());
        let mut histories: Vec<(Option<usize>, History)> = Vec::new();
        for (index, (name, node)) in names.nodes.iter().enumerate() {
            let at: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            let (node, uses, past) = self.node(names, name, node, &at, &mut captures);
            histories.extend(past.into_iter().map(|history| (Some(index), history)));
            nodes.push(node);
            mentions.push(uses);
        }
        for (from, _, to) in flow.forward() {
            nodes[to].edges_in.push(NodeIndex(from as u32));
        }
        names.nodes.values().zip(&mut nodes).for_each(|(definition, node)| merge_edges(names, definition, node));
        let mut uses = Vec::new();
        let known = Known { this: true, ..Known::default() };
        let tree = output.and_then(|output| self.compiled(output, output_path, known, &mut uses));
        let mut gathered = Gathered::default();
        self.gather(names, None, &uses, &mut gathered, &mut captures);
        histories.extend(std::mem::take(&mut gathered.histories).into_iter().map(|history| (None, history)));
        if let Some(tree) = &tree {
            self.comparisons(names, tree, output_path);
        }
        let order = self.forward_order(names, &nodes, &mentions, path);
        if let Some(order) = &order {
            self.loops(names, &mut flow, &nodes, order, path);
        }
        self.headers(names, &flow, path);
        let pasts = self.histories(names, &flow, histories, &mut nodes);
        let conditions = order.as_ref().map(|order| self.exclusive(names, &flow, &nodes, order, path));
        self.joins(names, &flow, &nodes, path);
        let until =
            names.held_by().and_then(|(outer, holder)| outer.nodes.get(holder)?.repeat.as_ref()?.until.as_ref());
        let until = until.and_then(|until| Tree::parse(until).ok());
        let by_until = until.iter().flat_map(Tree::leaves).flat_map(|(_, leaf)| leaf.names()).map(|name| &*name.name);
        let read: BTreeSet<&str> = gathered.optional.keys().map(String::as_str).chain(by_until).collect();
        for (name, node) in names.nodes.keys().zip(&mut nodes) {
            node.is_kept |= output.is_none() || read.contains(name.as_str());
        }
        if self.errors.found == before && self.broken.is_empty() {
            self.warn_flow(names, &nodes, path);
            self.warn_output(names, &flow, &nodes, &conditions.unwrap_or_default(), &uses, &gathered.optional);
            self.warn_spent_values(names, &flow, &nodes, &gathered.optional, order.as_deref().unwrap_or(&[]), path);
            if output.is_some() {
                self.warn_unused(&nodes, &read, &backwards(&flow, &pasts.read), path);
            }
        }
        order.filter(|_| self.errors.found == before)?;
        let mut graph = lower(nodes, &flow)
            .map_err(|circles| circles.iter().for_each(|circle| self.loop_circle(names, circle, path)))
            .ok()?;
        with_output(&mut graph, names, &flow, &gathered, tree);
        graph.hash = part_hash(path.last().unwrap_or(&""), graph.nodes().len());
        Some((graph, Taken { names: captures, histories: pasts.outwards }))
    }

    /// The nodes, each after what it waits for. Circles are reported.
    fn forward_order(
        &mut self,
        names: &Names,
        nodes: &[Node],
        mentions: &[Vec<Use>],
        path: &[&str],
    ) -> Option<Vec<usize>> {
        match forward_order(nodes) {
            Ok(order) => Some(order),
            Err(cycles) => {
                cycles.iter().for_each(|cycle| self.cycle(names, cycle, mentions, path));
                None
            }
        }
    }

    /// Compiles one node. After an error it is there all the same, for the cycles that it may be part of.
    fn node(
        &mut self,
        names: &Names,
        name: &str,
        node: &NodeDef,
        path: &[&str],
        captures: &mut Captures,
    ) -> (Node, Vec<Use>, Vec<History>) {
        let Some(spec) = self.kinds.get(&node.kind).cloned() else {
            self.error(codes::UNKNOWN_KIND, path, Part::Key, format!("no kind is called `{}`", node.kind));
            return (Node::new(name, Work::Value), Vec::new(), Vec::new());
        };
        self.names_are_free(names, name, node, path);
        self.attributes_apply(&spec, node, path);
        let mut uses = Vec::new();
        let mut checked = Node::new(name, Work::Value);
        let mut code = self.code(&spec, node, path, &mut uses);
        self.counts(node, &mut checked, &mut code, path, &mut uses);
        let mut gathered = Gathered::default();
        self.gather(names, Some((name, node)), &uses, &mut gathered, captures);
        code.until = self.until(names, name, &spec, node, path, &mut gathered, captures);
        let work = self.work(names, name, &spec, node, path, &mut gathered, captures);
        self.shapes(names, node, path);
        self.warn_braces(names, &spec, node, path);
        self.all_comparisons(names, &code, path);
        (checked.dependencies, checked.counted) = self.dependencies(names, name, node, &gathered, path);
        self.errors_and_values(name, &gathered, &checked.dependencies, names, path);
        code.appended = self.appended(node, &uses);
        checked.work = work.unwrap_or(Work::Value);
        let required = gathered.outside.iter().filter(|(_, optional)| !**optional);
        checked.requires_outside = required.map(|(name, _)| name.as_str().into()).collect();
        as_written(&spec, node, &mut checked);
        checked.max_depth = node.max_depth;
        checked.has_effect = match &checked.work {
            Work::Leaf => spec.acts(|field| node.fields.get(field)),
            Work::Human { .. } => true,
            Work::Expand => code.expansion.as_ref().is_some_and(|rules| !rules.tools.is_empty()),
            Work::Group(graph) | Work::Loop(graph) | Work::Call(Called::Other(graph)) => {
                graph.nodes().iter().any(|node| node.has_effect)
            }
            Work::Value | Work::Call(Called::Around(_)) => false,
        };
        checked.has_input = match checked.work {
            Work::Leaf => {
                let kept = code.asks() || code.cache.scope != CacheScope::Off;
                kept || !code.fields.values().all(Field::is_constant)
            }
            Work::Call(_) | Work::Expand | Work::Human { .. } => true,
            Work::Value | Work::Group(_) | Work::Loop(_) => false,
        };
        checked.code = Arc::new(code);
        (checked, uses, gathered.histories)
    }

    /// Compiles everything that the driver evaluates.
    fn code(&mut self, spec: &Arc<KindSpec>, node: &NodeDef, path: &[&str], uses: &mut Vec<Use>) -> NodeCode {
        let mut tree = |checker: &mut Self, key: &str, value: &Option<Value>, known: Known| -> Option<Box<Tree>> {
            let at: Vec<&str> = path.iter().copied().chain(key.split('.')).collect();
            checker.compiled(value.as_ref()?, &at, known, uses).map(Box::new)
        };
        let outside = Known::default();
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
            stop: tree(self, "stop_when", &node.stop_when, Known { this: true, ..outside }),
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
        for (number, case) in node.next.iter().enumerate() {
            let key = format!("next.{number}.when");
            let guard = tree(self, &key, &case.when, Known { own: true, this: true, ..outside });
            code.cases.push(guard.map(|guard| *guard));
        }
        code.fields = self.fields(spec, node, path, uses);
        code.cache = self.cache(spec, node, path, uses);
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
                rules.tools = allow.tools.clone().unwrap_or_default();
            }
            rules.steps_fail = node.steps_fail;
            self.allowed_tools(node, path);
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
            KindWork::Human => Work::Human { has_default: node.fields.contains_key("default") },
            KindWork::Call => Work::Call(self.called(node, path, names.depth)?),
            KindWork::Group => {
                let inside: Vec<&str> = path.iter().copied().chain(["nodes"]).collect();
                let output: Vec<&str> = path.iter().copied().chain(["output"]).collect();
                let inner = names.inside(name, node);
                let (graph, taken) = self.frame(&inner, &inside, node.output.as_ref(), &output)?;
                gathered.histories.extend(taken.histories);
                for (levels, captured) in taken.names {
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

/// Tells a graph what its `output` is and requires, and its texts what their names mean.
fn with_output(graph: &mut Graph, names: &Names, flow: &Flow, gathered: &Gathered, output: Option<Tree>) {
    let required = gathered.optional.iter().filter(|(_, optional)| !**optional);
    let place = |(name, _): (&String, _)| graph.find_anywhere(name).map(|(node, way)| (node, way.to_vec()));
    graph.output_requires = required.filter_map(place).collect();
    graph.output_requires.sort_unstable();
    let outside = gathered.outside.iter().filter(|(_, optional)| !**optional);
    graph.output_requires_outside = outside.map(|(name, _)| name.as_str().into()).collect();
    graph.output = output;
    let in_file = || names.nodes.keys().map(|name| name.as_str().into()).collect();
    graph.file_order = (!flow.loops.is_empty()).then(in_file);
    graph.bind_names();
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

/// What needs no more than to be read off.
fn as_written(spec: &KindSpec, node: &NodeDef, checked: &mut Node) {
    checked.join = match node.join {
        None => Join::Default,
        Some(definition::Join::All) => Join::All,
        Some(definition::Join::Any) => Join::Any,
        Some(definition::Join::First) => Join::First,
        Some(definition::Join::Quorum(count)) => Join::Quorum(count),
    };
    checked.has_guard = node.when.is_some();
    checked.for_each = node.for_each.is_some();
    checked.item_name = node.item_names().0.into();
    checked.index_name = node.item_names().1.into();
    checked.sequential = node.sequential;
    checked.has_stop = node.stop_when.is_some();
    checked.has_value = node.schema.is_some() || node.output.is_some();
    checked.retry = retry(spec, node);
    checked.timeout_ms = node.timeout_ms;
    checked.on_error = match node.on_error {
        ErrorPolicyDef::Skip => OnError::Skip,
        ErrorPolicyDef::Value(_) => OnError::Value,
        ErrorPolicyDef::To(_) => OnError::To,
        _ => OnError::Fail,
    };
    checked.on_item_error = match node.on_item_error {
        ErrorPolicyDef::Skip => OnItemError::Skip,
        ErrorPolicyDef::Drop => OnItemError::Drop,
        ErrorPolicyDef::Value(_) => OnItemError::Value,
        _ => OnItemError::Fail,
    };
}
