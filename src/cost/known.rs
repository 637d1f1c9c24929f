//! What is known of inputs before a run: what is given, defaults, and what a call passes on of those.

use std::sync::Arc;

use flowrun_engine::expr::{Datum, Expression, Scope, Tree};
use flowrun_engine::graph::{Field, Graph, Input, Node};
use indexmap::IndexMap;
use serde_json::{Map, Value};

/// Inputs whose values are known.
#[derive(Debug, Default)]
pub(super) struct Known(IndexMap<String, Arc<Datum>>);

impl Scope for Known {
    fn get(&self, name: &str) -> Option<Arc<Datum>> {
        self.0.get(name).cloned()
    }
}

impl Known {
    /// What is given, else the defaults; `unknown` are given, but nobody knows what.
    pub(super) fn new(inputs: &IndexMap<String, Input>, given: &Map<String, Value>, unknown: &[String]) -> Arc<Self> {
        let known = inputs.iter().filter(|(name, _)| !unknown.contains(name)).filter_map(|(name, input)| {
            let value = given.get(name).or(input.default.as_ref())?;
            Some((name.clone(), Datum::new(value.clone())))
        });
        Arc::new(Self(known.collect()))
    }

    /// The value of an expression, where it mentions nothing but what is known.
    fn expression(self: &Arc<Self>, expression: &Expression) -> Option<Value> {
        let all_known = expression.names().iter().all(|mention| self.0.contains_key(&*mention.name));
        let scope: Arc<dyn Scope> = self.clone();
        if all_known { expression.eval(&scope).ok() } else { None }
    }

    /// The value of a tree, where everything in it is known.
    pub(super) fn value(self: &Arc<Self>, tree: &Tree) -> Option<Value> {
        tree.eval(|leaf| self.expression(leaf).ok_or(())).ok()
    }

    /// What is known of the inputs of the workflow that a node calls.
    pub(super) fn passed_on(self: &Arc<Self>, node: &Node, called: &Graph) -> Arc<Self> {
        let Some(inputs) = &called.inputs else { return Arc::default() };
        let tree = match node.code.fields.get("with") {
            None => return Self::new(inputs, &Map::new(), &[]),
            Some(Field::Literal(Value::Object(given))) => return Self::new(inputs, given, &[]),
            Some(Field::Tree(tree)) => tree,
            Some(_) => return Arc::default(),
        };
        // Leaves are evaluated in the order in which they are listed.
        let leaves = tree.leaves();
        let mut paths = leaves.iter().map(|(path, _)| path.first());
        let mut unknown = Vec::new();
        let given = tree.eval(|leaf| {
            let input = paths.next().flatten();
            self.expression(leaf).map_or_else(
                || {
                    unknown.push(input.ok_or(())?.clone());
                    Ok(Value::Null)
                },
                Ok::<_, ()>,
            )
        });
        match given {
            Ok(Value::Object(given)) => Self::new(inputs, &given, &unknown),
            _ => Arc::default(),
        }
    }
}
