//! The graph of a frame: each node compiled, its names turned into dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::fields::{Known, Use};
use super::scope::{Meaning, Names};
use super::{Checker, part_hash};
use crate::definition::{ErrorPolicyDef, Join, KindSpec, KindWork, NodeDef, later};
use crate::diagnostic::{Diagnostic, codes, did_you_mean};
use crate::expr::Tree;
use crate::failure::ErrorClass;
use crate::graph::{
    Count, Dependency, DependencyMode, ExpansionRules, Graph, Node, NodeCode, OnError, OnItemError, Work,
};
use crate::id::NodeIndex;
use crate::retry::RetryPolicy;
use crate::source::Part;

/// Names that a frame takes from frames around it: how many frames further out (from 1), and which.
type Captures = BTreeSet<(usize, String)>;

/// The dependencies of one node while they are gathered.
#[derive(Default)]
struct Gathered {
    /// By source name: whether every mention so far is optional.
    optional: BTreeMap<String, bool>,
    waits: BTreeSet<String>,
}

impl Checker<'_> {
    /// Checks the nodes and the output of a frame. `None` after an error that leaves no graph.
    pub(super) fn frame(
        &mut self,
        names: &Names,
        path: &[&str],
        output: Option<&Value>,
        output_path: &[&str],
    ) -> Option<(Graph, Captures)> {
        if names.depth >= self.limits.depth.min(64) {
            let message = format!("groups nest deeper than `limits.depth` allows ({})", self.limits.depth);
            self.error(codes::LIMIT, path, Part::Key, message);
            return None;
        }
        let mut captures = Captures::new();
        let mut nodes = Vec::with_capacity(names.nodes.len());
        for (name, node) in names.nodes {
            let at: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            nodes.push(self.node(names, name, node, &at, &mut captures));
        }
        let complete = nodes.iter().all(Option::is_some);
        let mut uses = Vec::new();
        let known = Known { item: false, this: true };
        let tree = output.and_then(|output| self.compiled(output, output_path, known, &mut uses));
        let mut gathered = Gathered::default();
        self.gather(names, None, &uses, &mut gathered, &mut captures);
        if !complete || (output.is_some() && tree.is_none()) {
            return None;
        }
        let nodes: Vec<Node> = nodes.into_iter().flatten().collect();
        let read: BTreeSet<String> = gathered.optional.keys().cloned().collect();
        if output.is_some() {
            self.warn_unused(&nodes, &read, path);
        }
        let mut graph = match Graph::build(nodes) {
            Ok(graph) => graph,
            Err(cycle) => {
                self.cycle(names, &cycle, path);
                return None;
            }
        };
        let required = gathered.optional.iter().filter(|(_, optional)| !**optional);
        graph.output_requires = required.filter_map(|(name, _)| graph.find(name)).collect();
        graph.output_requires.sort_unstable();
        graph.output = tree;
        graph.hash = part_hash(path.last().unwrap_or(&""), graph.nodes().len());
        Some((graph, captures))
    }

    fn node(
        &mut self,
        names: &Names,
        name: &str,
        node: &NodeDef,
        path: &[&str],
        captures: &mut Captures,
    ) -> Option<Node> {
        let spec = self.kinds.get(&node.kind).cloned();
        let Some(spec) = spec else {
            self.error(codes::UNKNOWN_KIND, path, Part::Key, format!("no kind is called `{}`", node.kind));
            return None;
        };
        let found = self.problems.iter().filter(|problem| problem.is_error()).count();
        if names.outer_name(name) {
            let message = format!("`{name}` is a name outside of this group already");
            self.error(codes::BAD_NAME, path, Part::Key, message).help.push("no name may hide another one".to_owned());
        }
        self.attributes_apply(&spec, node, path);
        let mut uses = Vec::new();
        let mut code = self.code(&spec, node, path, &mut uses);
        let mut gathered = Gathered::default();
        self.gather(names, Some((name, node)), &uses, &mut gathered, captures);
        let work = self.work(names, name, &spec, node, path, &mut gathered, captures);
        self.shapes(names, node, path);
        let (dependencies, any_of) = self.dependencies(names, name, node, gathered, path);
        code.appended = self.appended(names, node, &uses);
        let has_fields = !code.fields.is_empty();
        let mut checked = Node::new(name, work?);
        checked.dependencies = dependencies;
        checked.any_of = any_of;
        checked.has_guard = node.when.is_some();
        checked.for_each = node.for_each.is_some();
        checked.item_name = node.item_name.as_deref().unwrap_or("item").into();
        checked.samples = node.samples.as_ref().map(fixed);
        checked.max_parallel = node.max_parallel.as_ref().map(fixed);
        checked.has_input = match checked.work {
            Work::Leaf => has_fields,
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
        (self.problems.iter().filter(|problem| problem.is_error()).count() == found).then_some(checked)
    }

    /// Attributes that mean nothing on this node.
    fn attributes_apply(&mut self, spec: &KindSpec, node: &NodeDef, path: &[&str]) {
        let leaf = spec.work == KindWork::Leaf;
        let unfolds = node.for_each.is_some() || node.samples.is_some();
        let expands = spec.work == KindWork::Expand || spec.fields.iter().any(|field| field.name == "max_steps");
        let checks = [
            (
                "retry",
                node.retry.is_some() && !leaf,
                "only a node that runs something can be retried; put it on the nodes inside",
            ),
            (
                "samples",
                node.samples.is_some() && !spec.samples,
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
                "on_item_error",
                node.on_item_error != ErrorPolicyDef::Default && !unfolds,
                "it is for items of `for_each` or `samples`",
            ),
            ("timeout", node.timeout_ms.is_some() && spec.work == KindWork::Value, "a value is computed at once"),
            (
                "limits",
                node.limits != Default::default() && !expands,
                "it bounds what a model may draw: beside `graph` and on `plan`",
            ),
            (
                "allow",
                node.allow.is_some() && !expands,
                "it bounds what a model may draw: beside `graph` and on `plan`",
            ),
        ];
        for (key, wrong, why) in checks {
            if wrong {
                let at: Vec<&str> = path.iter().copied().chain([key]).collect();
                self.error(codes::CONFLICT, &at, Part::Key, format!("`{key}` does not apply here: {why}"));
            }
        }
        let counted = node.needs.iter().any(|need| !need.optional || node.join == Some(Join::Any));
        if node.join.is_some() && !counted {
            let at: Vec<&str> = path.iter().copied().chain(["join"]).collect();
            let problem =
                self.error(codes::BAD_JOIN, &at, Part::Key, "`join` counts the entries of `needs`, and there are none");
            problem.help.push("write `needs: [a, b]`".to_owned());
        }
    }

    /// Compiles everything that the driver evaluates.
    fn code(&mut self, spec: &Arc<KindSpec>, node: &NodeDef, path: &[&str], uses: &mut Vec<Use>) -> NodeCode {
        let mut tree = |checker: &mut Self, key: &str, value: &Option<Value>, known: Known| -> Option<Tree> {
            let at: Vec<&str> = path.iter().copied().chain(key.split('.')).collect();
            checker.compiled(value.as_ref()?, &at, known, uses)
        };
        let outside = Known { item: false, this: false };
        let inside = Known { item: true, this: false };
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
            samples: tree(self, "samples", &node.samples, outside),
            max_parallel: tree(self, "max_parallel", &node.max_parallel, outside),
            schema: node.schema.clone(),
            output: if is_group { None } else { tree(self, "output", &node.output, Known { item: true, this: true }) },
            error_value: tree(self, "on_error.value", &error_value(&node.on_error), outside),
            item_error_value: tree(self, "on_item_error.value", &error_value(&node.on_item_error), inside),
            ..NodeCode::default()
        };
        for (key, tree) in [("samples", &code.samples), ("max_parallel", &code.max_parallel)] {
            let written = tree.as_ref().and_then(Tree::constant);
            if written.is_some_and(|value| value.as_u64().is_none_or(|n| n == 0 || n > u64::from(u32::MAX))) {
                let at: Vec<&str> = path.iter().copied().chain([key]).collect();
                self.error(codes::WRONG_TYPE, &at, Part::Value, format!("`{key}` is a whole number from 1"));
            }
        }
        code.fields = self.fields(spec, node, path, uses);
        self.warn_equal_samples(node, path);
        if spec.work == KindWork::Expand || spec.fields.iter().any(|field| field.name == "max_steps") {
            let mut rules = ExpansionRules::new(node.limits.nodes.unwrap_or(self.limits.nodes));
            if let Some(allow) = &node.allow {
                rules.kinds = allow.kinds.clone().unwrap_or(rules.kinds);
                rules.models = allow.models.clone().unwrap_or_default();
            }
            code.expansion = Some(rules);
        }
        code
    }

    fn warn_equal_samples(&mut self, node: &NodeDef, path: &[&str]) {
        let temperature = node.fields.get("params").and_then(|params| params.get("temperature"));
        if node.samples.is_some() && temperature.and_then(Value::as_f64) == Some(0.0) {
            let at: Vec<&str> = path.iter().copied().chain(["samples"]).collect();
            let message = "with `temperature: 0` all samples are most likely equal";
            self.problem(Diagnostic::warning(codes::SUSPICIOUS, "", message), &at, Part::Key);
        }
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
            KindWork::Call => Work::Call(self.called(node, path)?),
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

    /// Resolves mentions: dependencies of this frame into `gathered`, those of frames around it into `captures`.
    fn gather(
        &mut self,
        names: &Names,
        own: Option<(&str, &NodeDef)>,
        uses: &[Use],
        gathered: &mut Gathered,
        captures: &mut Captures,
    ) {
        let own_item = own
            .filter(|(_, node)| node.for_each.is_some())
            .map(|(_, node)| node.item_name.as_deref().unwrap_or("item"));
        for used in uses {
            let name = used.name.name.as_str();
            if name == "this" && used.this || own_item == Some(name) && used.item {
                continue;
            }
            let counts = used.path.last().is_some_and(|key| ["samples", "max_parallel"].contains(&key.as_str()));
            match names.find(name) {
                Meaning::Node(..) if counts => {
                    self.name_problem(
                        used,
                        format!("`{name}` is a node; counts are known when the run starts: use inputs"),
                    );
                }
                Meaning::Node(0, _) => {
                    if own.is_some_and(|(own, _)| own == name) {
                        let message = format!("`{name}` needs itself");
                        self.name_problem(used, message).code = codes::CYCLE;
                    }
                    let entry = gathered.optional.entry(name.to_owned()).or_insert(true);
                    *entry &= used.name.defaulted;
                    self.attributes(names, used);
                }
                Meaning::Node(levels, _) => {
                    captures.insert((levels, name.to_owned()));
                    self.attributes(names, used);
                }
                Meaning::Input(_) => {
                    self.inputs_used.insert(name.to_owned());
                    self.attributes(names, used);
                }
                Meaning::Item => {}
                Meaning::Around => {
                    let message = format!("`{name}` is not finished here: this node is inside it");
                    self.name_problem(used, message).code = codes::CYCLE;
                }
                Meaning::Unknown => self.unknown(names, used, own_item),
            }
        }
    }

    fn name_problem(&mut self, used: &Use, message: String) -> &mut Diagnostic {
        let path: Vec<&str> = used.path.iter().map(String::as_str).collect();
        let place = self.source.map(|source| source.place_within(&path, used.name.range.clone()));
        let problem = self.error(codes::UNKNOWN_NAME, &path, Part::Value, message);
        problem.place = place;
        problem
    }

    fn unknown(&mut self, names: &Names, used: &Use, own_item: Option<&str>) {
        let name = used.name.name.as_str();
        if self.broken.contains(name) {
            return;
        }
        let near = did_you_mean(name, names.all()).map(|near| format!("did you mean `{near}`?"));
        if let Some(what) = later(name).filter(|_| !used.is_slot) {
            self.name_problem(used, format!("this version does not run {what} yet (`{name}`)")).code = codes::NOT_YET;
            return;
        }
        let (message, help) = match name {
            "this" => ("`this` is the value at hand and exists only in `output`".to_owned(), None),
            "item" if own_item.is_some() => {
                ("the item is not known here: this is evaluated once for all items".to_owned(), None)
            }
            "item" => ("`item` exists only under `for_each`".to_owned(), None),
            "loop" => ("`loop` exists only inside a `{% for %}`".to_owned(), None),
            _ if used.is_slot => (format!("`{{{name}}}` names no node and no input"), near),
            _ => (format!("there is no node and no input `{name}` here"), near),
        };
        let inside = names
            .holder(name)
            .map(|g| format!("`{name}` is inside `{g}`: write `{g}`, or `{g}.{name}` after giving `{g}` no `output`"));
        let code = if used.is_slot { codes::BAD_SLOT } else { codes::UNKNOWN_NAME };
        let all = names.all();
        let problem = self.name_problem(used, message);
        problem.code = code;
        problem.help.extend(inside.or(help));
        if problem.help.is_empty() && !["this", "item", "loop"].contains(&name) && all.len() <= 12 {
            problem.help.push(format!("names here: {}", all.join(", ")));
        }
    }

    /// `needs` decides for every mention; mentions without it are optional only if all are.
    fn dependencies(
        &mut self,
        names: &Names,
        name: &str,
        node: &NodeDef,
        gathered: Gathered,
        path: &[&str],
    ) -> (Vec<Dependency>, Option<Vec<NodeIndex>>) {
        let mut modes: BTreeMap<u32, DependencyMode> = BTreeMap::new();
        let index = |name: &str| names.nodes.get_index_of(name).map(|index| index as u32);
        for waited in gathered.waits.iter().filter_map(|name| index(name)) {
            modes.insert(waited, DependencyMode::Waits);
        }
        for (source, optional) in &gathered.optional {
            let mode = if *optional { DependencyMode::Optional } else { DependencyMode::Required };
            modes.extend(index(source).map(|source| (source, mode)));
        }
        let mut counted = Vec::new();
        for (position, need) in node.needs.iter().enumerate() {
            let Some(source) = index(&need.name).filter(|_| need.name != name) else {
                self.bad_need(names, name, &need.name, position, path);
                continue;
            };
            let optional = need.optional || node.join == Some(Join::Any);
            modes.insert(source, if optional { DependencyMode::Optional } else { DependencyMode::Required });
            counted.push(NodeIndex(source));
        }
        let any_of = (node.join == Some(Join::Any)).then_some(counted);
        let dependency = |(source, mode)| Dependency { source: NodeIndex(source), mode };
        (modes.into_iter().map(dependency).collect(), any_of)
    }

    fn bad_need(&mut self, names: &Names, own: &str, need: &str, position: usize, path: &[&str]) {
        if self.broken.contains(need) && need != own {
            return;
        }
        let position = position.to_string();
        let at: Vec<&str> = path.iter().copied().chain(["needs", position.as_str()]).collect();
        let (code, message) = match names.find(need) {
            _ if need == own => (codes::CYCLE, format!("`{own}` needs itself")),
            Meaning::Input(_) => (codes::BAD_VALUE, format!("`{need}` is an input: it is always there")),
            Meaning::Node(..) => (
                codes::BAD_VALUE,
                format!("`{need}` stands outside of this group; `needs` names nodes of the same level"),
            ),
            _ => (codes::UNKNOWN_NAME, format!("there is no node `{need}` here")),
        };
        let near = did_you_mean(need, names.nodes.keys().map(String::as_str).filter(|name| *name != own));
        let help = match (code == codes::UNKNOWN_NAME, near, names.holder(need)) {
            (true, Some(near), _) => Some(format!("did you mean `{near}`?")),
            (true, None, Some(holder)) => Some(format!("`{need}` is inside `{holder}`: write `{holder}`")),
            _ => None,
        };
        self.error(code, &at, Part::Value, message).help.extend(help);
    }

    /// What `needs` names and the `ask` text does not mention.
    fn appended(&self, names: &Names, node: &NodeDef, uses: &[Use]) -> Vec<NodeIndex> {
        if !node.fields.contains_key("ask") {
            return Vec::new();
        }
        let mentioned = |name: &str| uses.iter().any(|used| used.is_slot && used.name.name == name);
        let needs = node.needs.iter().filter(|need| !mentioned(&need.name));
        needs.filter_map(|need| names.nodes.get_index_of(&need.name)).map(|index| NodeIndex(index as u32)).collect()
    }

    fn cycle(&mut self, names: &Names, cycle: &[NodeIndex], path: &[&str]) {
        let name = |index: &NodeIndex| names.nodes.get_index(index.index()).map_or("?", |(name, _)| name.as_str());
        let shown: Vec<&str> = cycle.iter().chain(cycle.first()).map(name).collect();
        let at = |index: &NodeIndex| -> Vec<&str> { path.iter().copied().chain([name(index)]).collect() };
        let related = cycle.iter().skip(1).filter_map(|index| {
            let place = self.source?.place(&at(index), Part::Key);
            Some((format!("`{}` is part of it", name(index)), place))
        });
        let related: Vec<_> = related.take(8).collect();
        let message = format!("these nodes need each other in a circle: {}", shorten(&shown));
        let problem = self.error(codes::CYCLE, &at(&cycle[0]), Part::Key, message);
        problem.related = related;
        problem.help.push("an arrow points from a node to the one that reads it; remove one reference".to_owned());
    }

    /// Warns of nodes whose value reaches neither the output nor a node that does.
    fn warn_unused(&mut self, nodes: &[Node], read: &BTreeSet<String>, path: &[&str]) {
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
            self.problem(Diagnostic::warning(codes::UNUSED_NODE, "", message), &at, Part::Key);
        }
    }
}

fn shorten(names: &[&str]) -> String {
    if names.len() <= 12 {
        return names.join(" → ");
    }
    format!("{} → … ({} more) → {}", names[..6].join(" → "), names.len() - 9, names[names.len() - 3..].join(" → "))
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
