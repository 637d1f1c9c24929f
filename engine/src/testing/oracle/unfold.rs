//! One node: guard, items, samples, passes, and its work, from the outside in.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::names::{Env, Here};
use super::{Oracle, Out, Settled, Stop, Table};
use crate::failure::ErrorClass;
use crate::testing::spec::{Kind, NodeSpec, Policy};
use crate::testing::world::{Person, World};

/// What its children are to a step with items or samples.
struct Children<'a> {
    count: u32,
    /// Whether `stop_when`, `quorum` and `on_item_error` speak of them.
    ruled: bool,
    /// The names of an item and of its number; samples have none.
    item: Option<(&'a str, &'a str)>,
    sequential: bool,
}

fn failed<E>(_: E) -> Stop {
    Stop::Failed
}

impl<'p> Oracle<'p> {
    /// The value of a node that may run; nothing if it is skipped.
    pub(super) fn guarded(&mut self, node: &'p NodeSpec, own: &str, env: &Env) -> Result<Option<Value>, Stop> {
        if let Some(reads) = &node.when
            && !self.world.guard(own, &env.see(reads)).map_err(failed)?
        {
            return Ok(None);
        }
        let Some(each) = &node.each else { return Ok(self.sampled(node, own, true, env)?.value) };
        let count = self.world.items(own, &env.see(&each.reads)).map_err(failed)?;
        let children =
            Children { count, ruled: true, item: Some((&each.item, &each.index)), sequential: each.sequential };
        let out =
            self.children(node, own, &children, env, &mut |oracle, path, env| oracle.sampled(node, path, false, env))?;
        Ok(out.value)
    }

    fn sampled(&mut self, node: &'p NodeSpec, path: &str, ruled: bool, env: &Env) -> Result<Out, Stop> {
        let Some(samples) = node.samples else { return self.repeated(node, path, env) };
        let children = Children { count: samples.count, ruled, item: None, sequential: false };
        self.children(node, path, &children, env, &mut |oracle, path, env| oracle.repeated(node, path, env))
    }

    fn children(
        &mut self,
        node: &'p NodeSpec,
        path: &str,
        children: &Children,
        env: &Env,
        run: &mut dyn FnMut(&mut Self, &str, &Env) -> Result<Out, Stop>,
    ) -> Result<Out, Stop> {
        let names = names_of_passes(node);
        let mut history: Vec<Table> = Vec::new();
        let mut list: Vec<Value> = Vec::new();
        let mut succeeded = 0;
        for index in 0..children.count {
            let around =
                Env { parent: Some(env), here: Here::Loop { names: &names, history: &history, number: index } };
            let outer = if children.sequential { &around } else { env };
            let (name, number) = children.item.unwrap_or_default();
            let here = Here::Item { name, number, map: path, index };
            let inner = Env { parent: Some(outer), here };
            let child = format!("{path}[{index}]");
            let before = self.needed.len();
            let result = run(self, &child, if children.item.is_some() { &inner } else { outer });
            let mut table = Table::new();
            let mut own = Settled::default();
            match result {
                Ok(out) => {
                    succeeded += u32::from(out.value.is_some());
                    own.value = out.value.unwrap_or_default();
                    list.push(own.value.clone());
                    table = out.table;
                }
                Err(Stop::TooLarge) => return Err(Stop::TooLarge),
                Err(Stop::Failed) => {
                    self.needed.truncate(before);
                    own.failed = true;
                    match (children.ruled, &node.on_item_error) {
                        (true, Policy::Drop) => {}
                        (true, Policy::Skip) => list.push(Value::Null),
                        (true, Policy::Value) => {
                            self.world.value("error", &child).map_err(failed)?;
                            list.push(json!(World::made("error", &child, &Value::Null)));
                            succeeded += 1;
                        }
                        (true, _) if node.quorum.is_some() => list.push(Value::Null),
                        _ => return Err(Stop::Failed),
                    }
                }
            }
            table.insert(node.name.clone(), own);
            history.push(table);
            if let Some(reads) = node.stop.as_ref().filter(|_| children.ruled)
                && self.world.stop(path, index + 1, &env.see(reads)).map_err(failed)?
            {
                break;
            }
        }
        if children.ruled && node.quorum.is_some_and(|quorum| succeeded < quorum.count) {
            return Err(Stop::Failed);
        }
        self.world.value("value", path).map_err(failed)?;
        let value = json!(World::made("list", path, &json!(list)));
        Ok(Out { value: Some(value), table: Table::new() })
    }

    fn repeated(&mut self, node: &'p NodeSpec, path: &str, env: &Env) -> Result<Out, Stop> {
        let Some(repeat) = &node.repeat else { return self.work(node, path, env) };
        let names = names_of_passes(node);
        let mut history: Vec<Table> = Vec::new();
        loop {
            let number = history.len() as u32;
            let around = Env { parent: Some(env), here: Here::Loop { names: &names, history: &history, number } };
            let out = self.work(node, &format!("{path}#{number}"), &around)?;
            let value = out.value.unwrap_or_default();
            // Of what it calls or draws `until` sees the value alone, also where that is the workflow itself, with the same names.
            let nothing = Table::new();
            let body = if matches!(node.kind, Kind::Group(_)) { &out.table } else { &nothing };
            let inside = Env { parent: Some(&around), here: Here::Nodes(body) };
            let again = match &repeat.until {
                Some(reads) => self.world.again(path, number, &inside.see(reads)).map_err(failed)?,
                None => true,
            };
            let last = number + 1 >= repeat.max.count;
            if again && last && repeat.fails && repeat.until.is_some() {
                return Err(Stop::Failed);
            }
            let mut table = out.table;
            table.insert(node.name.clone(), Settled { value: value.clone(), ..Settled::default() });
            if !again || last {
                return Ok(Out { value: Some(value), table });
            }
            history.push(table);
        }
    }

    fn work(&mut self, node: &'p NodeSpec, path: &str, env: &Env) -> Result<Out, Stop> {
        self.steps += 1;
        if self.steps > super::STEPS_MAX {
            return Err(Stop::TooLarge);
        }
        let saw = env.see(&node.reads);
        let plain = |value| Ok(Out { value: Some(json!(value)), table: Table::new() });
        let program = self.program;
        match &node.kind {
            Kind::Leaf => {
                if !node.reads.is_empty() {
                    self.world.input(path, &saw).map_err(failed)?;
                }
                self.needed.push((path.to_owned(), saw.clone()));
                self.attempts(node, path, &saw)?;
                if node.shaped {
                    self.world.value("value", path).map_err(failed)?;
                }
                plain(World::made("leaf", path, &saw))
            }
            Kind::Set => {
                self.world.value("value", path).map_err(failed)?;
                plain(World::made("value", path, &saw))
            }
            Kind::Human { default } => {
                self.world.input(path, &saw).map_err(failed)?;
                self.needed.push((path.to_owned(), saw.clone()));
                let late = node.timeout && self.world.person(path) == Person::Late;
                if late && !default {
                    return Err(Stop::Failed);
                }
                if late {
                    self.world.value("default", path).map_err(failed)?;
                }
                if node.shaped {
                    self.world.value("value", path).map_err(failed)?;
                }
                plain(World::made(if late { "default" } else { "answer" }, path, &saw))
            }
            Kind::Group(level) => self.frame(level, path, env),
            Kind::Call { workflow, max_depth } => {
                self.world.input(path, &saw).map_err(failed)?;
                let around = self.calling.iter().filter(|calling| *calling == workflow).count();
                if max_depth.is_some_and(|max| around >= max as usize) {
                    return Err(Stop::Failed);
                }
                let level = &program.called[*workflow];
                let value = json!(World::made("input", path, &saw));
                let closed = Env { parent: None, here: Here::Closed { inputs: &level.inputs, value: &value } };
                self.calling.push(*workflow);
                let out = self.frame(level, path, &closed);
                self.calling.pop();
                out
            }
            Kind::Expand => {
                self.world.input(path, &saw).map_err(failed)?;
                let level = &program.drawn[self.world.drawn(path, program.drawn.len()).map_err(failed)?];
                self.frame(level, path, &Env { parent: None, here: Here::Closed { inputs: &[], value: &Value::Null } })
            }
        }
    }

    fn attempts(&self, node: &NodeSpec, path: &str, saw: &Value) -> Result<(), Stop> {
        let retries = node.retry.map_or(0, |(max, _)| max);
        for attempt in 1.. {
            match self.world.attempt(path, attempt, saw, node.timeout) {
                Ok(()) => return Ok(()),
                Err(error) if attempt <= retries && error.class != ErrorClass::Terminal => {}
                Err(_) => break,
            }
        }
        Err(Stop::Failed)
    }
}

/// What `last` and `past` may name in the passes of a node: itself, and the nodes inside it.
fn names_of_passes(node: &NodeSpec) -> BTreeSet<String> {
    let inside = node.inside().into_iter().flat_map(|level| &level.nodes);
    inside.map(|inner| inner.name.clone()).chain([node.name.clone()]).collect()
}
