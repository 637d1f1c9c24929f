//! What works and is most likely not meant.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde_json::Value;

use super::Checker;
use super::exclusive::{Conditions, ERROR};
use super::fields::Use;
use super::flow::Flow;
use super::scope::{Meaning, Names};
use crate::definition::{CaseDef, FieldFormat, KindSpec, NodeDef};
use crate::diagnostic::codes;
use crate::graph::{Join, Node, OnError, Work};
use crate::source::Part;

/// Most names of one message.
const NAMED_MAX: usize = 5;

/// Longest name that is looked for between braces.
const NAME_BYTES_MAX: usize = 80;

impl Checker<'_> {
    pub(super) fn warn_equal_samples(&mut self, node: &NodeDef, path: &[&str]) {
        let temperature = node.fields.get("params").and_then(|params| params.get("temperature"));
        if node.samples.is_some() && temperature.and_then(Value::as_f64) == Some(0.0) {
            let at: Vec<&str> = path.iter().copied().chain(["samples"]).collect();
            let message = "with `temperature: 0` all samples are most likely equal";
            self.warning(codes::SUSPICIOUS, &at, message);
        }
    }

    /// Warns of ` #` where no space follows: a comment to YAML, most likely the rest of a text to its writer.
    pub(super) fn warn_comments(&mut self, node: &NodeDef, path: &[&str]) {
        let Some(source) = self.source else { return };
        let kept = [("key", &node.cache_key), ("salt", &node.salt)];
        let attributes = [("when", &node.when), ("for_each", &node.for_each), ("output", &node.output)];
        let attributes = attributes.into_iter().chain(kept).filter_map(|(key, value)| Some((key, value.as_ref()?)));
        for (key, _) in node.fields.iter().map(|(key, value)| (key.as_str(), value)).chain(attributes) {
            let at: Vec<&str> = path.iter().copied().chain([key]).collect();
            let comment = source.rest_of_line(&at).trim_start().strip_prefix('#');
            if source.is_plain(&at) && comment.is_some_and(|text| text.starts_with(char::is_alphanumeric)) {
                let message = format!("the text of `{key}` ends here: ` #` begins a comment");
                let place = source.place(&at, Part::Value);
                let problem = self.warning(codes::SUSPICIOUS, &at, message);
                problem.place = Some(place);
                problem.help.push("put quotes around the whole text, or a space behind the `#`".to_owned());
            }
        }
    }

    /// Warns of a name in the braces of the other form: `{{ x }}` in an `ask`, `{x}` in a template.
    pub(super) fn warn_braces(&mut self, names: &Names, spec: &KindSpec, node: &NodeDef, path: &[&str]) {
        for field in &spec.fields {
            let slotted = field.format == FieldFormat::Slotted;
            let Some(text) = node.fields.get(&field.name).and_then(Value::as_str) else { continue };
            if !slotted && field.format != FieldFormat::Template {
                continue;
            }
            let known = |name: &str| !matches!(names.find(name), Meaning::Unknown);
            let Some((range, name)) = braced(text, slotted).find(|(_, name)| known(name)) else { continue };
            let at: Vec<&str> = path.iter().copied().chain([field.name.as_str()]).collect();
            let message = format!("`{}` is plain text in `{}`", &text[range.clone()], field.name);
            let help = match (slotted, name.contains(|c: char| c.is_ascii_uppercase())) {
                (true, true) => format!("slots take lower-case names: rename `{name}`, or write a `prompt`"),
                (true, false) => format!("its value is written `{{{name}}}` there"),
                (false, _) => format!("its value is written `{{{{ {name} }}}}` there"),
            };
            let place = self.source.map(|source| source.place_within(&at, range));
            let problem = self.warning(codes::SUSPICIOUS, &at, message);
            problem.place = place;
            problem.help.push(help);
        }
    }

    /// Warns of joins whose outcome is a matter of timing or of luck, and of branches that may all be passed by.
    pub(super) fn warn_flow(&mut self, names: &Names, nodes: &[Node], path: &[&str]) {
        for (index, (name, definition)) in names.nodes.iter().enumerate() {
            let at: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
            let guarded_edge_back = |case: &CaseDef| case.when.is_some() && case.max.is_none();
            if definition.next.last().is_some_and(guarded_edge_back) {
                let last = (definition.next.len() - 1).to_string();
                let at: Vec<&str> = at.iter().copied().chain(["next", last.as_str(), "when"]).collect();
                let message = format!("if no case of `{name}` holds, the flow ends here");
                let problem = self.warning(codes::SUSPICIOUS, &at, message);
                problem.help.push("a last case without `when` is taken when no other holds".to_owned());
            }
            let node = &nodes[index];
            if matches!(node.join, Join::Default | Join::All) {
                continue;
            }
            let at: Vec<&str> = at.iter().copied().chain(["join"]).collect();
            if node.join == Join::First {
                let message = format!("who wins at `{name}` is a matter of timing: other runs may go another way");
                self.warning(codes::SUSPICIOUS, &at, message);
            }
            let by_edge = node.edges_in.iter().map(|source| source.index());
            let by_need = node.counted.iter().map(|need| need.source.index());
            let fails = |source: &usize| nodes[*source].on_error == OnError::Fail && may_fail(&nodes[*source]);
            let failing = by_edge.chain(by_need).filter(fails).map(|source| format!("`{}`", nodes[source].name));
            let failing: Vec<String> = failing.take(NAMED_MAX).collect();
            if !failing.is_empty() {
                let (who, has) = (failing.join(", "), if failing.len() == 1 { "has" } else { "have" });
                let message =
                    format!("{who} {has} no `on_error`: a failure there ends the run, whatever `{name}` joins");
                self.warning(codes::SUSPICIOUS, &at, message)
                    .help
                    .push("write `on_error: skip` on what may fail".to_owned());
            }
        }
    }

    /// Warns of an output that requires a node behind a case which may not be taken.
    pub(super) fn warn_output(
        &mut self,
        names: &Names,
        flow: &Flow,
        nodes: &[Node],
        conditions: &[Conditions],
        uses: &[Use],
        optional: &BTreeMap<String, bool>,
    ) {
        for used in uses.iter().filter(|used| optional.get(&*used.name.name) == Some(&false) && !used.name.defaulted) {
            let name = &*used.name.name;
            let index = names.nodes.get_index_of(name);
            let Some(conditions) = index.and_then(|index| conditions.get(index)) else { continue };
            let uncertain = conditions
                .iter()
                .find(|(from, cases)| *cases | ERROR != u64::MAX && !certain(flow, nodes, **from, **cases));
            let guarded = index.is_some_and(|index| nodes[index].has_guard);
            let way = match uncertain {
                Some((from, _)) => format!("which runs only if `{}` leads that way", nodes[*from].name),
                None if guarded => "which is skipped if its `when` does not hold".to_owned(),
                None => continue,
            };
            let at: Vec<&str> = used.path.iter().map(String::as_str).collect();
            let message = format!("the output needs `{name}`, {way}");
            let place = self.source.map(|source| source.place_within(&at, used.name.range.clone()));
            let problem = self.warning(codes::SUSPICIOUS, &at, message);
            problem.place = place;
            problem.help.push(format!("without it the run fails: write `({name} | default(none))` in its place"));
        }
    }

    /// `backwards` has by node what it needs without waiting: tails of its loop, and values of earlier passes.
    ///
    /// Warns of nodes that do nothing to the world and whose value reaches neither the output nor a node that is used.
    pub(super) fn warn_unused(
        &mut self,
        nodes: &[Node],
        read: &BTreeSet<&str>,
        backwards: &BTreeMap<usize, Vec<usize>>,
        path: &[&str],
    ) {
        let mut used: Vec<bool> = nodes.iter().map(|node| read.contains(&*node.name) || node.has_effect).collect();
        let mut queue: Vec<usize> = (0..nodes.len()).filter(|index| used[*index]).collect();
        while let Some(index) = queue.pop() {
            let back = backwards.get(&index).into_iter().flatten().copied();
            let sources = nodes[index].waits_for().into_iter().map(|source| source.index()).chain(back);
            for source in sources {
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

/// Whether one of some cases is taken for certain, once edges back are spent or not taken.
fn certain(flow: &Flow, nodes: &[Node], from: usize, cases: u64) -> bool {
    let all = flow.cases[from].iter().zip(&nodes[from].next).enumerate();
    let mut downwards = all.filter(|(_, (targets, _))| targets.iter().any(|target| *target > from));
    let mut last_is_free = false;
    let covered = downwards.all(|(number, (_, case))| {
        last_is_free = !case.guarded;
        cases & (1 << number.min(62)) != 0
    });
    covered && last_is_free
}

/// Whether a node does something that is likely to fail now and then.
fn may_fail(node: &Node) -> bool {
    !matches!(node.work, Work::Value)
}

/// Names in braces that are plain text: `{{ x }}` and `{Name}` where slots are read, `{x}` in a template.
fn braced(text: &str, slotted: bool) -> impl Iterator<Item = (Range<usize>, &str)> {
    text.match_indices('{').filter(|(at, _)| !text[..*at].ends_with('{')).filter_map(move |(at, _)| {
        let inside = text[at..].trim_start_matches('{');
        let opened = text.len() - at - inside.len();
        let length = inside.bytes().take(NAME_BYTES_MAX).position(|byte| byte == b'}')?;
        let behind = &inside[length..];
        let closed = behind.len() - behind.trim_start_matches('}').len();
        let name = inside[..length].trim();
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let is_text = match (slotted, opened) {
            (true, 1) => name.contains(|c: char| c.is_ascii_uppercase()),
            (true, 2) | (false, 1) => true,
            _ => false,
        };
        (is_name && is_text && opened == closed).then(|| (at..at + 2 * opened + length, name))
    })
}
