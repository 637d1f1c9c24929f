//! The naive reference: the rules of the specification, read out recursively.
//!
//! No events, no queue, no frames: a graph is walked in file order (edges point backwards), every step is run at once, and
//! what it saw is noted. It is slow, obvious, and independent of the scheduler.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::generate::{expansion, reads};
use super::world::World;
use crate::failure::StepError;
use crate::graph::{Count, DependencyMode, Graph, Node, OnError, OnItemError, Work};
use crate::id::ValueHash;

/// How a step ends.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// With a value.
    Value(ValueHash),
    /// Without one, and that is fine.
    Nothing,
    /// Without one, and its item leaves the list.
    Dropped,
    /// It fails its frame.
    Failed,
}

/// What running a workflow comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Whether the run succeeded, and with what.
    pub output: Option<ValueHash>,
    /// Every leaf step that was needed, with what it saw.
    pub needed: BTreeMap<String, Value>,
}

/// Runs a workflow naively.
pub fn run(graph: &Graph, world: &World) -> Account {
    let mut oracle = Oracle { world, needed: BTreeMap::new() };
    let frames = Vec::new();
    let end = oracle.body("", graph, &frames);
    let output = if let Ok(End::Value(value)) = end { Some(value) } else { None };
    Account { output, needed: oracle.needed }
}

/// Values by name, of one frame.
type Values = BTreeMap<String, Value>;

struct Oracle<'w> {
    world: &'w World,
    needed: BTreeMap<String, Value>,
}

/// The frame failed.
struct FrameFailed;

impl Oracle<'_> {
    /// Runs a graph; the value of its frame, nothing if its output requires what is not there.
    fn body(&mut self, path: &str, graph: &Graph, around: &[Values]) -> Result<End, StepError> {
        let before = self.needed.clone();
        match self.nodes(path, graph, around) {
            Err(FrameFailed) => {
                self.needed = before;
                Err(StepError::terminal("step_failed", "inside"))
            }
            Ok((values, missing)) if missing => {
                let _ = values;
                Ok(End::Nothing)
            }
            Ok((values, _)) => {
                self.world.value("value", path).inspect_err(|_| self.needed = before)?;
                Ok(End::Value(World::made("frame", path, &json!(values))))
            }
        }
    }

    fn nodes(&mut self, path: &str, graph: &Graph, around: &[Values]) -> Result<(Values, bool), FrameFailed> {
        let mut ends: Vec<End> = Vec::new();
        let mut values = Values::new();
        for node in graph.nodes() {
            let own = if path.is_empty() { node.name.to_string() } else { format!("{path}/{}", node.name) };
            let frames: Vec<Values> = around.iter().cloned().chain([values.clone()]).collect();
            let frames = if graph.inputs.is_some() { vec![values.clone()] } else { frames };
            let end = self.node(&own, node, &ends, &frames);
            if end == End::Failed {
                return Err(FrameFailed);
            }
            let value = if let End::Value(value) = &end { json!(value) } else { Value::Null };
            values.insert(node.name.to_string(), value);
            ends.push(end);
        }
        let missing = graph.output_requires.iter().any(|(node, _)| !matches!(ends[node.index()], End::Value(_)));
        Ok((values, missing))
    }

    fn node(&mut self, path: &str, node: &Node, ends: &[End], frames: &[Values]) -> End {
        let succeeded = |index: crate::id::NodeIndex| matches!(ends[index.index()], End::Value(_));
        let joined = node.counted.is_empty() || node.counted.iter().any(|source| succeeded(source.source));
        let mut required = node.dependencies.iter().filter(|dependency| dependency.mode == DependencyMode::Required);
        if !joined || !required.all(|dependency| succeeded(dependency.source)) {
            return End::Nothing;
        }
        let before = self.needed.clone();
        let result = self.guarded(path, node, frames);
        let failed = match result {
            Ok(end) => return end,
            Err(error) => error,
        };
        self.needed = before;
        let _ = failed;
        match node.on_error {
            OnError::Skip => End::Nothing,
            OnError::Value if self.world.value("error", path).is_ok() => {
                End::Value(World::made("error", path, &Value::Null))
            }
            _ => End::Failed,
        }
    }

    fn guarded(&mut self, path: &str, node: &Node, frames: &[Values]) -> Result<End, StepError> {
        if node.has_guard && !self.world.guard(path)? {
            return Ok(End::Nothing);
        }
        let decided = self.world.counts(path);
        let samples = match node.samples {
            None => 0,
            Some(Count::Fixed(count)) => count,
            Some(Count::Decided(_)) => decided.0,
        };
        if node.for_each {
            let count = self.world.items(path)?;
            return self.items(path, node, count, |oracle, path| oracle.sampled(path, node, samples, false, frames));
        }
        self.sampled(path, node, samples, true, frames)
    }

    fn sampled(
        &mut self,
        path: &str,
        node: &Node,
        samples: u32,
        own: bool,
        frames: &[Values],
    ) -> Result<End, StepError> {
        if node.samples.is_none() {
            return self.work(path, node, frames);
        }
        if own {
            return self.items(path, node, samples, |oracle, path| oracle.work(path, node, frames));
        }
        let mut list = Vec::new();
        for index in 0..samples {
            match self.work(&format!("{path}[{index}]"), node, frames)? {
                End::Value(value) => list.push(json!(value)),
                _ => list.push(Value::Null),
            }
        }
        self.list(path, list)
    }

    fn items(
        &mut self,
        path: &str,
        node: &Node,
        count: u32,
        mut run: impl FnMut(&mut Self, &str) -> Result<End, StepError>,
    ) -> Result<End, StepError> {
        let mut list = Vec::new();
        for index in 0..count {
            let path = format!("{path}[{index}]");
            let before = self.needed.clone();
            let end = run(self, &path).or_else(|error| {
                self.needed = before;
                match node.on_item_error {
                    OnItemError::Drop => Ok(End::Dropped),
                    OnItemError::Skip => Ok(End::Nothing),
                    OnItemError::Value => {
                        self.world.value("error", &path)?;
                        Ok(End::Value(World::made("error", &path, &Value::Null)))
                    }
                    OnItemError::Fail => Err(error),
                }
            })?;
            match end {
                End::Value(value) => list.push(json!(value)),
                End::Dropped => {}
                _ => list.push(Value::Null),
            }
        }
        self.list(path, list)
    }

    fn list(&mut self, path: &str, list: Vec<Value>) -> Result<End, StepError> {
        self.world.value("value", path)?;
        Ok(End::Value(World::made("list", path, &json!(list))))
    }

    /// What a node reads: its sources in its own frame, and names around it.
    fn saw(&self, node: &Node, frames: &[Values]) -> Value {
        let here = frames.last().cloned().unwrap_or_default();
        let mut saw = Values::new();
        for name in reads(node).into_iter().chain(here.keys().cloned()) {
            let value = frames.iter().rev().find_map(|frame| frame.get(&name)).cloned();
            saw.insert(name, value.unwrap_or(json!("unknown")));
        }
        json!(saw)
    }

    fn work(&mut self, path: &str, node: &Node, frames: &[Values]) -> Result<End, StepError> {
        let sources: Vec<String> = sources(node, frames);
        let mut saw = self.saw(node, frames);
        if let Value::Object(map) = &mut saw {
            map.retain(|name, _| sources.contains(name) || reads(node).contains(name));
        }
        if node.has_input {
            self.world.input(path)?;
        }
        match &node.work {
            Work::Value => {
                self.world.value("value", path)?;
                Ok(End::Value(World::made("value", path, &saw)))
            }
            Work::Leaf => {
                self.needed.insert(path.to_owned(), saw.clone());
                self.attempts(path, node)?;
                if node.has_value {
                    self.world.value("value", path)?;
                }
                Ok(End::Value(World::made("leaf", path, &saw)))
            }
            Work::Group(graph) => self.body(path, graph, frames),
            Work::Call(graph) => self.body(path, &graph.graph(), &[]),
            Work::Loop(_) | Work::Human { .. } => panic!("BUG: not generated"),
            Work::Expand => {
                let graph = expansion(self.world.drawn(path)?);
                self.body(path, &graph, &[])
            }
        }
    }

    fn attempts(&self, path: &str, node: &Node) -> Result<(), StepError> {
        let mut attempt = 1;
        loop {
            match self.world.attempt(path, attempt, node) {
                Ok(()) => return Ok(()),
                Err(error) if attempt <= node.retry.max && node.retry.on.contains(&error.class) => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Names of the sources that a node depends on for data, in its own frame.
fn sources(node: &Node, frames: &[Values]) -> Vec<String> {
    let names: Vec<&String> = frames.last().map(|frame| frame.keys().collect()).unwrap_or_default();
    let mut ordered: Vec<String> = names.into_iter().cloned().collect();
    ordered.sort_by_key(|name| name.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse::<u32>().ok()));
    let of_data = node.dependencies.iter().filter(|dependency| dependency.mode != DependencyMode::Waits);
    of_data.filter_map(|dependency| ordered.get(dependency.source.index()).cloned()).collect()
}
