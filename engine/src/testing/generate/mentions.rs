//! What the nodes of a random level mention: each other, names around them, numbers of passes, what was before.

use super::{Around, Closed, Draw, flow};
use crate::definition::Need;
use crate::testing::flow::Flow;
use crate::testing::spec::{Level, NodeSpec, Read};

impl Draw {
    /// One mention of another node, or of a name around the level.
    pub(super) fn mention(&mut self, level: &mut Level, around: &Around) {
        let count = level.nodes.len() as u64;
        let (reader, source) = (self.random.below(count) as usize, self.random.below(count) as usize);
        let swap = source > reader && !self.chance(15);
        let (reader, source) = if swap { (source, reader) } else { (reader, source) };
        let mut name = level.nodes[source].name.clone();
        let outer = self.chance(20).then(|| self.pick(&around.nodes).cloned()).flatten();
        if outer.is_none() && reader == source {
            return;
        }
        let is_outer = outer.is_some();
        name = outer.unwrap_or(name);
        let routed = level.nodes.iter().any(|node| flow::targets(node).any(|target| *target == name));
        if !is_outer && self.chance(if self.flavour.races { 40 } else { 14 }) {
            let optional = self.chance(if routed { 65 } else { 30 });
            let node = &mut level.nodes[reader];
            if node.needs.iter().all(|need| need.name != name) {
                node.needs.push(Need { name, optional });
            }
            return;
        }
        if !is_outer && self.chance(6) {
            let node = &mut level.nodes[reader];
            if !node.mentions().any(|read| [Read::Plain(name.clone()), Read::Default(name.clone())].contains(read)) {
                node.reads.push(Read::Error(name));
            }
            return;
        }
        let read = if self.chance(if routed { 65 } else { 30 }) { Read::Default(name) } else { Read::Plain(name) };
        self.place(&mut level.nodes[reader], read);
    }

    /// Puts a mention into one of the fields that can carry it.
    fn place(&mut self, node: &mut NodeSpec, read: Read) {
        let error =
            Read::Error(if let Read::Plain(name) | Read::Default(name) = &read { name.clone() } else { return });
        if node.mentions().any(|known| *known == error) {
            return;
        }
        let mut fields: Vec<&mut Vec<Read>> = Vec::new();
        fields.extend(node.when.as_mut());
        fields.extend(node.each.as_mut().map(|each| &mut each.reads));
        fields.extend(node.stop.as_mut());
        fields.extend(node.repeat.as_mut().and_then(|repeat| repeat.until.as_mut()));
        fields.extend(node.next.iter_mut().filter_map(|case| case.when.as_mut()));
        let pick = self.random.below(3 + 2 * fields.len() as u64) as usize;
        let field = if pick.is_multiple_of(2) { fields.into_iter().nth(pick / 2) } else { None };
        let field = field.unwrap_or(&mut node.reads);
        if !field.contains(&read) {
            field.push(read);
        }
    }

    /// Items, inputs and the numbers of passes.
    pub(super) fn given(&mut self, level: &mut Level, index: usize, around: &Around) {
        let in_loop = flow::analyse(level).is_ok_and(|flow| flow.innermost(index).is_some());
        if !self.reads_itself(&level.nodes[index]) {
            return;
        }
        let node = &mut level.nodes[index];
        if self.chance(15)
            && let Some(name) = self.pick(&around.given).cloned()
        {
            let fields =
                node.when.as_mut().into_iter().chain(node.next.iter_mut().filter_map(|case| case.when.as_mut()));
            fields.for_each(|field| field.push(Read::Given(name.clone())));
        }
        let mut names = around.given.clone();
        let sequential = node.each.as_ref().is_some_and(|each| each.sequential);
        if in_loop || sequential || node.repeat.is_some() {
            names.push("iteration".into());
            if self.closed == Closed::Root {
                names.push("pass".into());
            }
        }
        names.extend(node.each.iter().flat_map(|each| [each.item.clone(), each.index.clone()]));
        if self.chance(40)
            && let Some(name) = self.pick(&names).cloned()
            && !node.reads.contains(&Read::Given(name.clone()))
        {
            node.reads.push(Read::Given(name));
        }
    }

    /// `last` and `past`.
    pub(super) fn history(&mut self, level: &mut Level, index: usize, around: &Around) {
        let Ok(flow) = flow::analyse(level) else { return };
        let own = level.nodes[index].clone();
        if !self.reads_itself(&own) {
            return;
        }
        let sequential = own.each.as_ref().is_some_and(|each| each.sequential);
        let loops_itself = own.repeat.is_some() || (sequential && own.samples.is_none());
        let mut names = readable(level, &flow, index, around.repeats);
        names.retain(|name| *name != own.name || !(sequential && own.samples.is_some()));
        if loops_itself {
            names.push(own.name.clone());
        }
        names.extend(self.pick(&around.lasts).cloned().filter(|_| self.random.one_in(2)));
        if names.is_empty() || !self.chance(45) {
            return;
        }
        let name = self.pick(&names).cloned().unwrap_or_default();
        let itself = name == own.name;
        let read = if self.chance(65) { Read::Last(name) } else { Read::Past(name) };
        let node = &mut level.nodes[index];
        let guard = node.when.as_mut().filter(|_| !itself && self.random.one_in(4));
        let case =
            node.next.iter_mut().find_map(|case| case.when.as_mut()).filter(|_| !itself && self.random.one_in(3));
        let field = guard.or(case).unwrap_or(&mut node.reads);
        if !field.contains(&read) {
            field.push(read);
        }
    }
}

/// Nodes of the level that share a loop with a node.
pub(super) fn readable(level: &Level, flow: &Flow, index: usize, all: bool) -> Vec<String> {
    let shares = |other: &usize| {
        all || flow.loops.iter().any(|a_loop| a_loop.body.contains(&index) && a_loop.body.contains(other))
    };
    (0..level.nodes.len()).filter(shares).map(|other| level.nodes[other].name.clone()).collect()
}
