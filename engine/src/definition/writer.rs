//! From a definition back to a file that reads as the same definition.
//!
//! Used for plans that a model drew (`--save-plan`), for the record of workflows built in code, and for the identity of a
//! definition: two definitions are the same if they are written the same, file order included.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::{AllowDef, CaseDef, ErrorPolicyDef, InputDef, Join, LimitsDef, ModelDef, NodeDef, WorkflowDef};
use crate::id::ValueHash;

impl WorkflowDef {
    /// The file's text.
    pub fn to_yaml(&self) -> String {
        serde_yaml::to_string(&self.to_value()).expect("BUG: a JSON value is always YAML")
    }

    /// The definition as YAML, as a value: its hash and its JSON text.
    pub fn text(&self) -> (ValueHash, Arc<str>) {
        let text: Arc<str> = Value::String(self.to_yaml()).to_string().into();
        (ValueHash::of_bytes(text.as_bytes()), text)
    }

    /// Identity of the definition.
    pub fn hash(&self) -> ValueHash {
        ValueHash::of(&self.to_value())
    }

    fn to_value(&self) -> Value {
        let mut file = Map::new();
        file.insert("flowrun".into(), json!(1));
        file.insert("name".into(), json!(self.name));
        put(&mut file, "description", self.description.as_ref().map(|text| json!(text)));
        if !self.inputs.is_empty() {
            let inputs = self.inputs.iter().map(|(name, input)| (name.clone(), input_value(input)));
            file.insert("inputs".into(), Value::Object(inputs.collect()));
        }
        if !self.models.is_empty() {
            let models = self.models.iter().map(|(alias, model)| (alias.clone(), model_value(model)));
            file.insert("models".into(), Value::Object(models.collect()));
        }
        put(&mut file, "budget", self.budget.calls.map(|calls| json!({"calls": calls})));
        put(&mut file, "limits", limits_value(&self.limits));
        file.insert("nodes".into(), nodes_value(&self.nodes));
        put(&mut file, "output", self.output.clone());
        Value::Object(file)
    }
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

fn input_value(input: &InputDef) -> Value {
    match &input.default {
        Some(default) => json!(format!("{} = {default}", input.schema.describe())),
        None => json!(input.schema.describe()),
    }
}

fn milliseconds(value: u64) -> Value {
    json!(format!("{value}ms"))
}

fn model_value(model: &ModelDef) -> Value {
    let mut map = Map::new();
    map.insert("provider".into(), json!(model.provider));
    map.insert("model".into(), json!(model.model));
    put(&mut map, "base_url", model.base_url.as_ref().map(|url| json!(url)));
    put(&mut map, "api_key_env", model.api_key_env.as_ref().map(|name| json!(name)));
    put(&mut map, "params", (!model.params.is_empty()).then(|| json!(model.params)));
    put(&mut map, "max_parallel", model.max_parallel.map(|n| json!(n)));
    put(&mut map, "timeout", model.timeout_ms.map(milliseconds));
    put(&mut map, "record", model.record.as_ref().map(|file| json!(file)));
    put(&mut map, "latency", model.latency.map(|factor| json!(factor)));
    Value::Object(map)
}

fn limits_value(limits: &LimitsDef) -> Option<Value> {
    let mut map = Map::new();
    put(&mut map, "steps", limits.steps.map(|n| json!(n)));
    put(&mut map, "items", limits.items.map(|n| json!(n)));
    put(&mut map, "depth", limits.depth.map(|n| json!(n)));
    put(&mut map, "nodes", limits.nodes.map(|n| json!(n)));
    put(&mut map, "output", limits.output_bytes.map(|n| json!(n)));
    put(&mut map, "iterations", limits.iterations.map(|n| json!(n)));
    (!map.is_empty()).then_some(Value::Object(map))
}

fn nodes_value(nodes: &IndexMap<String, NodeDef>) -> Value {
    Value::Object(nodes.iter().map(|(name, node)| (name.clone(), node_value(node))).collect())
}

fn policy_value(policy: &ErrorPolicyDef) -> Option<Value> {
    match policy {
        ErrorPolicyDef::Default => None,
        ErrorPolicyDef::Fail => Some(json!("fail")),
        ErrorPolicyDef::Drop => Some(json!("drop")),
        ErrorPolicyDef::Skip => Some(json!("skip")),
        ErrorPolicyDef::Value(value) => Some(json!({"value": value})),
        ErrorPolicyDef::To(node) => Some(json!({"to": node})),
    }
}

fn allow_value(allow: &AllowDef) -> Value {
    let mut map = Map::new();
    put(&mut map, "kinds", allow.kinds.as_ref().map(|names| json!(names)));
    put(&mut map, "models", allow.models.as_ref().map(|names| json!(names)));
    put(&mut map, "tools", allow.tools.as_ref().map(|names| json!(names)));
    Value::Object(map)
}

/// The attributes by which the flow goes on, comes back and comes together.
fn flow_values(map: &mut Map<String, Value>, node: &NodeDef) {
    put(map, "index", node.index_name.as_ref().map(|name| json!(name)));
    put(map, "sequential", node.sequential.then(|| json!(true)));
    put(map, "stop_when", node.stop_when.clone());
    put(map, "quorum", node.quorum.clone());
    if let Some(repeat) = &node.repeat {
        let mut keys = Map::new();
        put(&mut keys, "until", repeat.until.clone());
        put(&mut keys, "max", repeat.max.clone());
        put(&mut keys, "on_limit", repeat.limit_fails.then(|| json!("fail")));
        map.insert("repeat".into(), Value::Object(keys));
    }
    let join = |join| match join {
        Join::All => json!("all"),
        Join::Any => json!("any"),
        Join::First => json!("first"),
        Join::Quorum(count) => json!({"quorum": count}),
    };
    put(map, "join", node.join.map(join));
    put(map, "next", (!node.next.is_empty()).then(|| node.next.iter().map(case_value).collect()));
    put(map, "max_depth", node.max_depth.map(|n| json!(n)));
    put(map, "on_step_error", node.steps_fail.then(|| json!("fail")));
}

fn case_value(case: &CaseDef) -> Value {
    let mut keys = Map::new();
    put(&mut keys, "when", case.when.clone());
    keys.insert("to".into(), if let [one] = case.to.as_slice() { json!(one) } else { json!(case.to) });
    put(&mut keys, "max", case.max.clone());
    put(&mut keys, "on_limit", case.limit_fails.then(|| json!("fail")));
    Value::Object(keys)
}

fn node_value(node: &NodeDef) -> Value {
    let mut map = Map::new();
    map.insert("kind".into(), json!(node.kind));
    if !node.needs.is_empty() {
        let mark = |optional| if optional { "?" } else { "" };
        let needs: Vec<String> =
            node.needs.iter().map(|need| format!("{}{}", need.name, mark(need.optional))).collect();
        map.insert("needs".into(), json!(needs));
    }
    put(&mut map, "when", node.when.clone());
    put(&mut map, "for_each", node.for_each.clone());
    put(&mut map, "as", node.item_name.as_ref().map(|name| json!(name)));
    put(&mut map, "max_parallel", node.max_parallel.clone());
    put(&mut map, "samples", node.samples.clone());
    flow_values(&mut map, node);
    if let Some(retry) = &node.retry {
        let mut policy = Map::new();
        put(&mut policy, "max", retry.max.map(|n| json!(n)));
        put(&mut policy, "on", retry.on.as_ref().map(|words| json!(words)));
        put(&mut policy, "backoff", retry.backoff_ms.map(milliseconds));
        map.insert("retry".into(), Value::Object(policy));
    }
    put(&mut map, "timeout", node.timeout_ms.map(milliseconds));
    put(&mut map, "cache", node.cache.map(|scope| json!(scope.word())));
    put(&mut map, "key", node.cache_key.clone());
    put(&mut map, "salt", node.salt.clone());
    put(&mut map, "ttl", node.ttl_ms.map(milliseconds));
    map.extend(node.fields.iter().map(|(name, value)| (name.clone(), value.clone())));
    if !node.nodes.is_empty() {
        map.insert("nodes".into(), nodes_value(&node.nodes));
    }
    put(&mut map, "limits", node.limits.as_ref().and_then(limits_value));
    put(&mut map, "allow", node.allow.as_ref().map(allow_value));
    put(&mut map, "json_schema", node.schema.as_ref().map(|schema| schema.json_schema().clone()));
    put(&mut map, "output", node.output.clone());
    put(&mut map, "on_item_error", policy_value(&node.on_item_error));
    put(&mut map, "on_error", policy_value(&node.on_error));
    Value::Object(map)
}
