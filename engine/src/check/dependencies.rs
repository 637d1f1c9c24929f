//! What a node depends on: the mentions in its fields and its `needs`.
//!
//! ```text
//! a: {prompt: …}
//! b: {prompt: "{{ a | default('?') }}"}      a is optional: every mention welcomes null
//! c: {prompt: "{{ a }}", needs: ["a?"]}      a is optional: `needs` decides for every mention
//! g: {nodes: {x: {prompt: "{{ a }}"}}}       g waits for a, x requires it: a capture
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::Checker;
use super::fields::Use;
use super::scope::{Meaning, Names};
use crate::definition::{ErrorPolicyDef, Join, NodeDef};
use crate::diagnostic::{Diagnostic, codes};
use crate::expr::literal_help;
use crate::graph::{Dependency, DependencyMode, Inside};
use crate::id::NodeIndex;
use crate::source::{Part, Source};

/// Names that a frame takes from frames around it: how many frames further out (from 1), and which.
pub(super) type Captures = BTreeSet<(usize, String)>;

/// What a body takes from around it.
pub(super) struct Taken {
    pub(super) names: Captures,
    pub(super) histories: Vec<History>,
}

/// The dependencies of one node while they are gathered.
#[derive(Default)]
pub(super) struct Gathered {
    /// By source name: whether every mention so far is optional.
    pub(super) optional: BTreeMap<String, bool>,
    /// Sources that only the node's body mentions, or whose error alone is asked for.
    pub(super) waits: BTreeSet<String>,
    /// Names of frames around this one: whether every mention so far is optional.
    pub(super) outside: BTreeMap<String, bool>,
    /// Mentions of earlier passes.
    pub(super) histories: Vec<History>,
    /// Nodes whose error is read.
    pub(super) errors: BTreeSet<String>,
}

/// A mention of earlier passes: `last.x`, `past.x`; or of the pass itself: `iteration`, `pass`.
pub(super) struct History {
    /// The node whose values are meant; `None`: any loop will do.
    pub(super) of: Option<String>,
    /// What is written, for messages.
    pub(super) written: String,
    /// Where.
    pub(super) path: Vec<String>,
    pub(super) range: Range<usize>,
    /// Whether it is evaluated inside the loop of its own node, if that loops.
    pub(super) inside: bool,
}

impl Checker<'_> {
    /// Resolves mentions: dependencies of this frame into `gathered`, those of frames around it into `captures`.
    pub(super) fn gather(
        &mut self,
        names: &Names,
        own: Option<(&str, &NodeDef)>,
        uses: &[Use],
        gathered: &mut Gathered,
        captures: &mut Captures,
    ) {
        let items = own.filter(|(_, node)| node.for_each.is_some()).map(|(_, node)| node);
        let own_item = items.map(|node| node.item_names().0);
        let own_index = items.map(|node| node.item_names().1);
        for used in uses {
            let name = &*used.name.name;
            let is_index = own_index == Some(name) && used.known.item;
            if is_index || (name == "this" && used.known.this) || self.special(names, own, used, gathered, captures) {
                continue;
            }
            if let Some(node) = items.filter(|_| own_item == Some(name) && used.known.item) {
                self.attributes(used, self.shape_of_item(names, node));
                continue;
            }
            let meaning = names.find(name);
            match meaning {
                Meaning::Node(..) | Meaning::Item if used.known.count => {
                    let message = format!("`{name}` is no input, and counts are known when the run starts");
                    let problem = self.name_problem(used, message);
                    problem.code = codes::BAD_VALUE;
                    problem.help.push("write a number, or an expression over inputs".to_owned());
                }
                Meaning::Node(0, _) if own.is_some_and(|(own, _)| own == name) && used.known.own => {}
                Meaning::Node(0, node) if own.is_some_and(|(own, _)| own == name) => {
                    let help = match used.known.this {
                        true => Some("write `this` for the value at hand".to_owned()),
                        false => node.loops().then(|| format!("write `last.{name}` for its value of the pass before")),
                    };
                    let problem = self.name_problem(used, format!("`{name}` needs itself"));
                    problem.code = codes::CYCLE;
                    problem.help.extend(help);
                }
                Meaning::Node(0, _) => {
                    *gathered.optional.entry(name.to_owned()).or_insert(true) &= used.name.defaulted;
                }
                Meaning::Node(levels, _) => {
                    captures.insert((levels, name.to_owned()));
                    *gathered.outside.entry(name.to_owned()).or_insert(true) &= used.name.defaulted;
                }
                Meaning::Input(_) => {
                    self.inputs_used.insert(name.to_owned());
                }
                Meaning::Item => {}
                Meaning::Around => {
                    let message = format!("`{name}` is not finished here: this node is inside it");
                    self.name_problem(used, message).code = codes::CYCLE;
                }
                Meaning::Unknown => self.unknown(names, used, own_item),
            }
            self.attributes(used, self.shape(meaning));
        }
    }

    /// The names that loops and errors give: whether this is one of them.
    fn special(
        &mut self,
        names: &Names,
        own: Option<(&str, &NodeDef)>,
        used: &Use,
        gathered: &mut Gathered,
        captures: &mut Captures,
    ) -> bool {
        let name = &*used.name.name;
        if used.is_slot || !matches!(name, "last" | "past" | "iteration" | "pass" | "error") {
            return false;
        }
        if used.known.count {
            let problem =
                self.name_problem(used, format!("`{name}` is no input, and counts are known when the run starts"));
            problem.code = codes::BAD_VALUE;
            return true;
        }
        let attribute = used.name.attributes.first().map(String::as_str);
        let wants_node = !matches!(name, "iteration" | "pass");
        let Some(of) = attribute.filter(|_| wants_node) else {
            if wants_node {
                let problem = self.name_problem(used, format!("`{name}` wants the name of a node: `{name}.NODE`"));
                problem.help.push("a name in brackets or a variable does not do".to_owned());
            } else {
                gathered.histories.push(History::new(used, None));
            }
            return true;
        };
        if name != "error" {
            gathered.histories.push(History::new(used, Some(of)));
            return true;
        }
        match names.find(of) {
            Meaning::Node(0, _) if own.is_none_or(|(own, _)| own != of) => {
                gathered.waits.insert(of.to_owned());
                gathered.errors.insert(of.to_owned());
            }
            Meaning::Node(levels @ 1.., _) => {
                captures.insert((levels, of.to_owned()));
            }
            _ => {
                let is_own = own.is_some_and(|(own, _)| own == of);
                let help = match is_own {
                    true => Some(format!("`error.{of}` is for other nodes: `on_error: {{to: X}}` leads to one")),
                    false => self.near(of, names.all()).map(|near| format!("did you mean `error.{near}`?")),
                };
                self.name_problem(used, format!("there is no node `{of}` here whose error could be read"))
                    .help
                    .extend(help);
            }
        }
        true
    }

    /// A mention of earlier passes whose loop is not there.
    pub(super) fn no_loop(
        &mut self,
        names: &Names,
        history: &History,
        reader: Option<&str>,
        in_loop: bool,
        holder: Option<&str>,
    ) {
        let path: Vec<&str> = history.path.iter().map(String::as_str).collect();
        let written = &history.written;
        let Some(of) = &history.of else {
            let message = format!("`{written}` exists only inside of a loop");
            let problem = self.error_within(codes::UNKNOWN_NAME, &path, history.range.clone(), message);
            problem
                .help
                .push("give the node or a group around it `repeat: {max: …}`, or a sequential `for_each`".to_owned());
            return;
        };
        if holder.is_none() && !names.nodes.contains_key(of) {
            let near = self.near(of, names.nodes.keys().map(String::as_str));
            let help = near.map(|near| format!("did you mean `{}`?", written.replacen(of.as_str(), near, 1)));
            let message = format!("there is no node `{of}` here");
            self.error_within(codes::UNKNOWN_NAME, &path, history.range.clone(), message).help.extend(help);
            return;
        }
        let message = match reader {
            Some(reader) if reader == of => format!("`{of}` is in no loop, so `{written}` has nothing before it"),
            Some(reader) => format!("`{of}` is in no loop with `{reader}`"),
            None => format!("`{of}` is in no loop here"),
        };
        let help = match (holder, in_loop) {
            (Some(holder), _) => {
                format!("`{of}` is inside `{holder}`: read `{}`", written.replacen(of, &format!("{holder}.{of}"), 1))
            }
            (None, true) => {
                format!("add `needs: [\"{of}?\"]` to the node that leads back, so that `{of}` is part of every pass")
            }
            (None, false) => format!(
                "`{written}` is the value of the pass before: a `next` upwards, `repeat` or `sequential` makes passes"
            ),
        };
        self.error_within(codes::UNKNOWN_NAME, &path, history.range.clone(), message).help.push(help);
    }

    fn name_problem(&mut self, used: &Use, message: String) -> &mut Diagnostic {
        let path: Vec<&str> = used.path.iter().map(String::as_str).collect();
        self.error_within(codes::UNKNOWN_NAME, &path, used.name.range.clone(), message)
    }

    fn unknown(&mut self, names: &Names, used: &Use, own_item: Option<&str>) {
        let name = &*used.name.name;
        if self.broken.contains(name) {
            return;
        }
        let special = match (name, own_item) {
            ("this", _) => Some("`this` is the value at hand and exists only in `output`".to_owned()),
            (name, Some(item)) if item == name => {
                Some("the item is not known here: this is evaluated once for all items".to_owned())
            }
            ("item", Some(item)) => Some(format!("the item is called `{item}` here")),
            ("item", None) => Some("`item` exists only under `for_each`".to_owned()),
            ("loop", _) => Some("`loop` exists only inside a `{% for %}`".to_owned()),
            _ => None,
        };
        let is_special = special.is_some();
        let message = match special {
            Some(message) => message,
            None if used.is_slot => format!("`{{{name}}}` names no node and no input"),
            None => format!("there is no node and no input `{name}` here"),
        };
        let help = if is_special { None } else { self.meant(names, name) };
        let path: Vec<&str> = used.path.iter().map(String::as_str).collect();
        let written = |source: &Source| source.shown(&path).trim().trim_matches(['"', '\'']) == name;
        let alone = self.source.is_some_and(written);
        let meant = help.as_ref().is_some_and(|help| !help.starts_with("names here"));
        let problem = self.name_problem(used, message);
        if alone && !meant && !is_special && !used.is_slot {
            problem.help.push(literal_help(name));
        }
        problem.code = if used.is_slot { codes::BAD_SLOT } else { codes::UNKNOWN_NAME };
        problem.help.extend(help);
    }

    /// What an unknown name was most likely meant to be.
    fn meant(&self, names: &Names, name: &str) -> Option<String> {
        if self.errors.is_full() {
            return None;
        }
        if let Some(holder) = names.holder(name) {
            let attribute = format!("or `{holder}.{name}` after giving `{holder}` no `output`");
            return Some(format!("`{name}` is inside `{holder}`: write `{holder}`, {attribute}"));
        }
        let all = names.all();
        match self.near(name, all.iter().copied()) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None => (!all.is_empty() && all.len() <= 12).then(|| format!("names here: {}", all.join(", "))),
        }
    }

    /// `needs` decides for every mention; mentions without it are optional only if all are. The second list are the entries of
    /// `needs` that `join` counts, if no edges lead to the node.
    pub(super) fn dependencies(
        &mut self,
        names: &Names,
        name: &str,
        node: &NodeDef,
        gathered: &Gathered,
        path: &[&str],
    ) -> (Vec<Dependency>, Vec<Dependency>) {
        let mut modes: BTreeMap<u32, DependencyMode> = BTreeMap::new();
        let index = |name: &str| names.nodes.get_index_of(name).map(|index| index as u32);
        for waited in gathered.waits.iter().filter_map(|name| index(name)) {
            modes.insert(waited, DependencyMode::Waits);
        }
        for (source, optional) in &gathered.optional {
            let mode = if *optional { DependencyMode::Optional } else { DependencyMode::Required };
            modes.extend(index(source).map(|source| (source, mode)));
        }
        let counts = !matches!(node.join, None | Some(Join::All));
        let mut counted = Vec::new();
        for (position, need) in node.needs.iter().enumerate() {
            let Some(source) = index(&need.name).filter(|_| need.name != name) else {
                self.bad_need(names, name, &need.name, position, path);
                continue;
            };
            let mode = if need.optional || counts { DependencyMode::Optional } else { DependencyMode::Required };
            modes.insert(source, mode);
            counted.push(Dependency { source: NodeIndex(source), inside: Inside::new(), mode });
        }
        let dependency = |(source, mode)| Dependency { source: NodeIndex(source), inside: Inside::new(), mode };
        let counted = if counts { counted } else { Vec::new() };
        (modes.into_iter().map(dependency).collect(), counted)
    }

    /// Warns of a node that reads the error of one whose value it requires: it only runs without an error.
    pub(super) fn errors_and_values(
        &mut self,
        name: &str,
        gathered: &Gathered,
        found: &[Dependency],
        names: &Names,
        path: &[&str],
    ) {
        for of in &gathered.errors {
            // Where a value takes the error's place both are there.
            if names.nodes.get(of).is_some_and(|node| matches!(node.on_error, ErrorPolicyDef::Value(_))) {
                continue;
            }
            let index = names.nodes.get_index_of(of).map(|index| NodeIndex(index as u32));
            let requires =
                |source: &&Dependency| Some(source.source) == index && source.mode == DependencyMode::Required;
            if found.iter().any(|source| requires(&source)) {
                let message = format!("`error.{of}` is always null in `{name}`, which requires `{of}`");
                let problem = self.warning(codes::SUSPICIOUS, path, message);
                problem.help.push(format!("make the value optional: `{of} | default(…)`, or `{of}?` in `needs`"));
            }
        }
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
        let near = self.near(need, names.nodes.keys().map(String::as_str).filter(|name| *name != own));
        let help = match (code == codes::UNKNOWN_NAME, near, names.holder(need)) {
            (true, Some(near), _) => Some(format!("did you mean `{near}`?")),
            (true, None, Some(holder)) => Some(format!("`{need}` is inside `{holder}`: write `{holder}`")),
            _ => None,
        };
        self.error(code, &at, Part::Value, message).help.extend(help);
    }

    /// What `needs` names and the `ask` text does not mention.
    pub(super) fn appended(&self, node: &NodeDef, uses: &[Use]) -> Vec<Arc<str>> {
        if !node.fields.contains_key("ask") {
            return Vec::new();
        }
        let mentioned = |name: &str| uses.iter().any(|used| used.is_slot && *used.name.name == *name);
        node.needs.iter().filter(|need| !mentioned(&need.name)).map(|need| need.name.as_str().into()).collect()
    }
}

impl History {
    fn new(used: &Use, of: Option<&str>) -> Self {
        let name = &used.name.name;
        let written = of.map_or_else(|| name.to_string(), |of| format!("{name}.{of}"));
        let (path, range) = (used.path.clone(), used.name.range.clone());
        Self { of: of.map(str::to_owned), written, path, range, inside: used.known.item }
    }
}
