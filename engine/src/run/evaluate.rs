//! The driver's side of `Decide`: evaluates one field of one step, with the values that the scheduler does not see.
//!
//! Every evaluation is pure: it reads settled values and writes only into the store. A text or expression is given just the
//! names that it mentions, so an evaluation costs what it reads, not what exists.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Driver;
use crate::diagnostic::Diagnostic;
use crate::event::{DecideField, Decision};
use crate::expr::{ExprError, Tree};
use crate::failure::StepError;
use crate::graph::{ExpansionRules, Field, Graph, Node, NodeCode, Work};
use crate::id::{StepId, ValueHash};
use crate::scheduler::{ChildResult, Children, Resolved, Scope};

pub(super) type Evaluated<T> = Result<T, StepError>;

impl Driver {
    /// Answers a `Decide`.
    pub(super) fn evaluate(&mut self, step: StepId, field: DecideField) -> Decision {
        if field == DecideField::Value
            && let Some(value) = self.corrected(step)
        {
            return self.values.store_output(value).map_or_else(Decision::Failed, Decision::Value);
        }
        let place = self.scheduler.place(step).map(|(graph, node)| (graph.clone(), node));
        let node = place.as_ref().map(|(graph, node)| graph.node(*node));
        let answer = match (field, node) {
            (DecideField::BestOutput, _) => self.best_output(),
            (DecideField::Value, None) => self.root_value(),
            (field, None) => panic!("BUG: the root has no {field:?}"),
            (DecideField::Guard, Some(node)) => self.guard(step, node),
            (DecideField::Counts, Some(node)) => self.counts(step, node),
            (DecideField::Items, Some(node)) => self.items(step, node),
            (DecideField::Input, Some(node)) => self.input(step, node),
            (DecideField::Graph, Some(node)) => self.expansion(step, node),
            (DecideField::Value, Some(node)) => self.value(step, node),
            (DecideField::Stop, Some(node)) => self.stop(step, node),
            (DecideField::Again, Some(node)) => self.again(step, node),
            (DecideField::Route, Some(node)) => self.route(step, node),
            (DecideField::Default, Some(node)) => self.default_answer(step, node),
            (DecideField::ErrorValue, Some(node)) => self.error_value(step, node),
        };
        answer.unwrap_or_else(Decision::Failed)
    }

    fn guard(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        Ok(Decision::Guard(self.truth(Scope::Step(step), "when", node.code.guard.as_deref(), None)?))
    }

    fn counts(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        let counts = node.code.counts.iter().map(|(key, tree)| self.count(step, key, tree));
        Ok(Decision::Counts(counts.collect::<Evaluated<Vec<u32>>>()?))
    }

    fn count(&mut self, step: StepId, field: &str, tree: &Tree) -> Evaluated<u32> {
        let value = self.tree(Scope::Step(step), field, Some(tree), None)?;
        // An edge back may be taken not even once.
        let least = u32::from(field != "max");
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| *count >= least);
        count.ok_or_else(|| wrong_type(field, &format!("a whole number from {least}"), &value))
    }

    fn truth(&mut self, scope: Scope, field: &str, tree: Option<&Tree>, this: Option<Value>) -> Evaluated<bool> {
        match self.tree(scope, field, tree, this)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(wrong_type(field, "true or false", &other)),
        }
    }

    /// Whether a prefix of a map's items, those that were not dropped, is its value.
    fn stop(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        let prefix = self.scheduler.prefix_children(step);
        let kept = prefix.into_iter().filter(|result| *result != ChildResult::Dropped);
        let this: Value = kept.map(|result| self.child_value(result, false)).collect();
        Ok(Decision::Stop(self.truth(Scope::Step(step), "stop_when", node.code.stop.as_deref(), Some(this))?))
    }

    /// Whether another pass follows the last one.
    fn again(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        let pass = self.scheduler.last_pass(step).expect("BUG: `until` before a pass");
        let this = self.child_value(self.scheduler.child_result(pass), false);
        let in_body = matches!(node.work, Work::Group(_)) && self.scheduler.body(pass).is_some();
        let scope = if in_body { Scope::Body(pass) } else { Scope::Step(pass) };
        Ok(Decision::Again(!self.truth(scope, "until", node.code.until.as_deref(), Some(this))?))
    }

    /// The first case of `next` that holds and is not spent.
    fn route(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        let spent = self.scheduler.spent(step);
        let own = self.scheduler.value(step).map(|value| self.values.get(value).json().clone());
        let mut passed_over = None;
        for (number, case) in node.next.iter().enumerate() {
            let guard = node.code.cases[number].as_ref();
            if case.guarded && !self.truth(Scope::Step(step), "next", guard, own.clone())? {
                continue;
            }
            let case_number = number as u32;
            if !spent[number] {
                return Ok(Decision::Route { case: Some(case_number), passed_over });
            }
            passed_over = passed_over.or(Some(case_number));
            if case.bound.is_some_and(|bound| bound.fails) {
                return Ok(Decision::Route { case: None, passed_over: Some(case_number) });
            }
        }
        Ok(Decision::Route { case: None, passed_over })
    }

    /// What takes an answer's place.
    fn default_answer(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        let Some(Field::Tree(tree)) = node.code.fields.get("default") else {
            panic!("BUG: a default that is not there")
        };
        let value = self.tree(Scope::Step(step), "default", Some(tree), None)?;
        Ok(Decision::Value(self.values.store_output(value)?))
    }

    fn items(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        let list = self.tree(Scope::Step(step), "for_each", node.code.items.as_deref(), None)?;
        match &list {
            Value::Array(items) => {
                let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
                Ok(Decision::Items { list: self.values.store(list), count })
            }
            Value::Null => {
                Err(StepError::terminal("expression", "`for_each` is null; write `… | default([])` for an empty list"))
            }
            other => Err(wrong_type("for_each", "a list", other)),
        }
    }

    fn input(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        match &node.work {
            Work::Call(graph) => {
                let with = self.with(step, &node.code)?;
                let inputs = complete_inputs(&graph.graph(), with)?;
                Ok(frame_input(self.values.store(inputs)))
            }
            Work::Expand => {
                let plan = self.plan(step, node)?;
                let mut with = self.with(step, &node.code)?;
                if !with.contains_key("question") {
                    with.insert("question".to_owned(), plan.get("question").cloned().unwrap_or_default());
                }
                Ok(frame_input(self.values.store(Value::Object(with))))
            }
            _ => self.leaf_input(step, node),
        }
    }

    fn with(&mut self, step: StepId, code: &NodeCode) -> Evaluated<Map<String, Value>> {
        let Some(Field::Tree(tree)) = code.fields.get("with") else { return Ok(Map::new()) };
        match self.tree(Scope::Step(step), "with", Some(tree), None)? {
            Value::Object(with) => Ok(with),
            other => Err(wrong_type("with", "a map of names to values", &other)),
        }
    }

    fn expansion(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        let plan = self.plan(step, node)?;
        let rules = node.code.expansion.clone().expect("BUG: an expansion without rules");
        let graph = self.graph_of_plan(step, &plan, &rules)?;
        Ok(Decision::Graph { plan: self.values.store(plan), graph })
    }

    /// The checked graph of a plan, for an expansion whose input is known.
    pub(super) fn graph_of_plan(&self, step: StepId, plan: &Value, rules: &ExpansionRules) -> Evaluated<Arc<Graph>> {
        let input = self.scheduler.input(step).map(|hash| self.values.get(hash).clone());
        let keys = input.as_ref().and_then(|input| input.json().as_object()).into_iter().flat_map(Map::keys);
        let keys: Vec<String> = keys.filter(|key| *key != "question").cloned().collect();
        self.context.plans.check(plan, &keys, rules).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(Diagnostic::line).collect();
            StepError::terminal("bad_plan", format!("the plan does not check: {}", lines.join("; ")))
        })
    }

    fn plan(&mut self, step: StepId, node: &Node) -> Evaluated<Value> {
        let Some(Field::Tree(tree)) = node.code.fields.get("graph") else {
            panic!("BUG: an expansion without a graph")
        };
        self.tree(Scope::Step(step), "graph", Some(tree), None)
    }

    /// The value of a step: made here (`set`, `calc`), collected from a frame, or mapped by `schema` and `output`.
    fn value(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        if !self.scheduler.does_work(step) || matches!(node.work, Work::Loop(_)) {
            let value =
                if self.scheduler.has_passes(step) { self.last_value(step) } else { self.items_value(step, false) };
            return Ok(Decision::Value(self.values.store_output(value)?));
        }
        let scope = Scope::Step(step);
        let code = node.code.clone();
        let raw = match &node.work {
            Work::Leaf | Work::Human { .. } => {
                self.values.get(self.scheduler.value(step).expect("BUG: no raw value")).json().clone()
            }
            Work::Value => self.computed(step, &code)?,
            Work::Group(_) | Work::Call(_) | Work::Expand => self.frame_value(step)?,
            Work::Loop(_) => panic!("BUG: a loop has no value of its own"),
        };
        if let Some(schema) = &code.schema {
            let refused =
                |reason| StepError::terminal("schema", format!("the value does not fit its `schema`: {reason}"));
            schema.validate(&raw).map_err(refused)?;
        }
        let value = match &code.output {
            Some(output) if matches!(node.work, Work::Group(_)) => {
                self.tree(Scope::Body(step), "output", Some(output), Some(raw))?
            }
            Some(output) => self.tree(scope, "output", Some(output), Some(raw))?,
            None => raw,
        };
        Ok(Decision::Value(self.values.store_output(value)?))
    }

    fn computed(&mut self, step: StepId, code: &NodeCode) -> Evaluated<Value> {
        match code.fields.values().next() {
            Some(Field::Tree(tree)) => self.tree(Scope::Step(step), "value", Some(tree), None),
            Some(Field::Formula(formula)) => {
                formula.eval(|name| self.named(Scope::Step(step), name).map(|value| value.json().clone()))
            }
            other => panic!("BUG: a value node with the work {other:?}"),
        }
    }

    fn root_value(&mut self) -> Evaluated<Decision> {
        let value = self.frame_value(StepId::ROOT)?;
        Ok(Decision::Value(self.values.store_output(value)?))
    }

    /// The value of a frame over a graph: its `output`, the three parts of an expansion, or the map of its nodes' values.
    fn frame_value(&mut self, step: StepId) -> Evaluated<Value> {
        let graph = self.scheduler.body(step).expect("BUG: a frame without a graph").clone();
        if graph.expansion {
            return Ok(self.expansion_value(step, &graph));
        }
        match &graph.output {
            Some(output) => {
                let map = output.mentions("this").then(|| self.nodes_value(step, &graph, false));
                self.tree(Scope::Body(step), "output", Some(output), map)
            }
            None => Ok(self.nodes_value(step, &graph, false)),
        }
    }

    /// `{answer, steps, errors}`: the step `answer`, else the last one; the others that gave something; what went wrong.
    fn expansion_value(&mut self, step: StepId, graph: &Graph) -> Value {
        let Some(Children::Nodes(children)) = self.scheduler.children(step) else {
            panic!("BUG: an expansion without steps")
        };
        let answer = graph.find("answer").or(children.last().map(|(index, ..)| *index));
        let (mut value, mut steps, mut errors) = (Value::Null, Map::new(), Map::new());
        for (index, child, result) in children {
            let (name, result) = (graph.node(index).name.to_string(), self.child_value(result, false));
            if Some(index) == answer {
                value = result.clone();
            }
            if *name != *"answer" && !result.is_null() {
                steps.insert(name, result);
            } else if let Some(error) = self.scheduler.error(child) {
                errors.insert(name, Value::String(error.message.clone()));
            }
        }
        json!({"answer": value, "steps": steps, "errors": errors})
    }

    fn nodes_value(&self, step: StepId, graph: &Graph, partial: bool) -> Value {
        if let Some(names) = &graph.file_order {
            let value = |name: &Arc<str>| match self.scheduler.resolve(Scope::Body(step), name) {
                Resolved::Unsettled(_) if !partial => Value::Null,
                resolved => self.json_or_null(resolved),
            };
            return Value::Object(names.iter().map(|name| (name.to_string(), value(name))).collect());
        }
        let Some(Children::Nodes(children)) = self.scheduler.children(step) else { return Value::Null };
        let entry = |(index, _, result): (_, _, ChildResult)| {
            (graph.node(index).name.to_string(), self.child_value(result, partial))
        };
        Value::Object(children.into_iter().map(entry).collect())
    }

    fn items_value(&self, step: StepId, partial: bool) -> Value {
        let Some(Children::Items(children)) = self.scheduler.children(step) else { return Value::Null };
        let kept = children.into_iter().filter(|result| *result != ChildResult::Dropped);
        kept.map(|result| self.child_value(result, partial)).collect()
    }

    fn child_value(&self, result: ChildResult, partial: bool) -> Value {
        match result {
            ChildResult::Value(hash) => self.values.get(hash).json().clone(),
            ChildResult::Unsettled(Some(step)) if partial => self.unfinished_value(step),
            ChildResult::Null | ChildResult::Dropped | ChildResult::Unsettled(_) => Value::Null,
        }
    }

    /// The value of the last complete pass; null for a flowchart loop, which is read by the names in it.
    fn last_value(&self, step: StepId) -> Value {
        let is_flow = self.scheduler.node(step).is_some_and(|node| matches!(node.work, Work::Loop(_)));
        let pass = self.scheduler.last_pass(step).filter(|_| !is_flow);
        pass.map_or(Value::Null, |pass| self.child_value(self.scheduler.child_result(pass), false))
    }

    /// What an unfinished frame has so far: a map its list, a group its values, null for what is missing.
    pub(super) fn unfinished_value(&self, step: StepId) -> Value {
        match self.scheduler.body(step) {
            Some(graph) => self.nodes_value(step, graph, true),
            None if self.scheduler.has_passes(step) => self.last_value(step),
            None => self.items_value(step, true),
        }
    }

    fn best_output(&mut self) -> Evaluated<Decision> {
        let graph = self.scheduler.body(StepId::ROOT).expect("BUG: a run without a frame").clone();
        let value = match &graph.output {
            Some(output) => {
                let map = output.mentions("this").then(|| self.nodes_value(StepId::ROOT, &graph, true));
                self.tree(Scope::Body(StepId::ROOT), "output", Some(output), map)?
            }
            None => self.nodes_value(StepId::ROOT, &graph, true),
        };
        Ok(Decision::Value(self.values.store_output(value)?))
    }

    fn error_value(&mut self, step: StepId, node: &Node) -> Evaluated<Decision> {
        let (field, tree) = if self.scheduler.is_own_step(step) {
            ("on_error", node.code.error_value.as_deref())
        } else {
            ("on_item_error", node.code.item_error_value.as_deref())
        };
        let value = self.tree(Scope::Step(step), field, tree, None)?;
        Ok(Decision::Value(self.values.store_output(value)?))
    }
}

/// The input of a closed frame, which has no answer of its own.
fn frame_input(hash: ValueHash) -> Decision {
    Decision::Input { hash, calls: 0, key: None, held: false }
}

/// Fills in the defaults of a closed frame's inputs and checks what is given.
fn complete_inputs(graph: &Graph, mut with: Map<String, Value>) -> Evaluated<Value> {
    let inputs = graph.inputs.as_ref().expect("BUG: a call of a graph without inputs");
    let mut complete = Map::new();
    for (name, input) in inputs {
        let value = with.remove(name).or_else(|| input.default.clone());
        let missing = || StepError::terminal("input", format!("the called workflow needs the input `{name}`"));
        let value = value.ok_or_else(missing)?;
        let refused = |reason| StepError::terminal("input", format!("input `{name}` of the called workflow: {reason}"));
        input.schema.validate(&value).map_err(refused)?;
        complete.insert(name.clone(), value);
    }
    match with.keys().next() {
        Some(name) => Err(StepError::terminal("input", format!("the called workflow has no input `{name}`"))),
        None => Ok(Value::Object(complete)),
    }
}

pub(super) fn expression_error(field: &str, error: &ExprError) -> StepError {
    let help = error.help.first().map(|help| format!("; {help}")).unwrap_or_default();
    StepError::terminal("expression", format!("in `{field}`: {}{help}", error.message))
}

fn wrong_type(field: &str, wanted: &str, value: &Value) -> StepError {
    let shown: String = value.to_string().chars().take(60).collect();
    StepError::terminal("expression", format!("`{field}` must be {wanted}, not {shown}"))
}
