//! The JSON Schema of the workflow file, for editors.
//!
//! Made of the tables that the reader takes its keys from and of the fields that the kinds declare, so it knows neither more nor
//! less than they do. It refuses nothing that the checker accepts; what it cannot say (names, expressions, cycles) stays with
//! the checker. A node is one object with the keys of all kinds, which editors complete best; conditions on its kind then take
//! away what does not belong to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use flowrun_engine::definition::keys::{
    self, ALLOW, ATTRIBUTES, BUDGET, CASE, Form, Key, LIMITS, MODEL, REPEAT, RETRY, TOP, UNITS,
};
use flowrun_engine::definition::{CacheScope, FieldFormat, FieldSpec, KindSpec, RESERVED, Word};
use flowrun_engine::failure::ErrorClass;
use serde_json::{Map, Value, json};

type Kinds = BTreeMap<String, Arc<KindSpec>>;

/// The types that the short form calls by a word.
const TYPES: &str = r"(string|number|integer|boolean|any)\s*\??\s*";

/// The JSON Schema (2020-12) of workflow files over these node kinds: `flowrun.kinds().specs()` of a program.
pub fn file_schema(kinds: &Kinds) -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "flowrun workflow",
    });
    let defs = json!({
        "nodes": {"type": "object", "propertyNames": name(), "additionalProperties": reference("node")},
        "node": node(kinds),
        "type": short_type(format!(r"^\s*{TYPES}$|[\[{{|]")),
        "input": short_type(format!(r"^\s*{TYPES}(=|$)|^[^=]*[\[{{|]")),
    });
    let mut top = mapping(TOP, kinds);
    top["required"] = json!(["flowrun", "nodes"]);
    top["properties"]["nodes"]["minProperties"] = json!(1);
    extend(&mut schema, top);
    schema["$defs"] = defs;
    schema
}

fn reference(definition: &str) -> Value {
    json!({"$ref": format!("#/$defs/{definition}")})
}

fn extend(schema: &mut Value, other: Value) {
    if let (Value::Object(schema), Value::Object(other)) = (schema, other) {
        schema.extend(other);
    }
}

/// The same with a text that editors show.
fn documented(mut schema: Value, doc: &str) -> Value {
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    schema["description"] = json!(doc);
    schema
}

/// A closed object with the keys of a table.
fn mapping(table: &'static [Key], kinds: &Kinds) -> Value {
    let properties: Map<String, Value> =
        keys::known(table).map(|key| (key.name.to_owned(), documented(form(key.form, kinds), key.doc))).collect();
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// The same with keys that must be there.
fn mapping_with(table: &'static [Key], kinds: &Kinds, required: &[&str]) -> Value {
    let mut schema = mapping(table, kinds);
    schema["required"] = json!(required);
    schema
}

/// A name of an input or a node.
fn name() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$", "not": {"enum": RESERVED}})
}

fn join() -> Value {
    let quorum = json!({
        "type": "object",
        "properties": {"quorum": {"type": "integer", "minimum": 1}},
        "required": ["quorum"],
        "additionalProperties": false,
    });
    json!({"anyOf": [{"enum": ["all", "any", "first"]}, quorum]})
}

/// What may stand at `on_error`: a policy, or where the flow goes on.
fn on_error(mut policy: Value) -> Value {
    let to = json!({
        "type": "object",
        "properties": {"to": {"type": "string", "description": "where the flow goes on"}},
        "required": ["to"],
        "additionalProperties": false,
    });
    policy["anyOf"].as_array_mut().into_iter().for_each(|forms| forms.push(to.clone()));
    policy
}

fn form(form: Form, kinds: &Kinds) -> Value {
    let policy = |words: &[&str]| {
        let value = json!({
            "type": "object",
            "properties": {"value": {"description": "an expression that takes the place of the value"}},
            "required": ["value"],
            "additionalProperties": false,
        });
        json!({"anyOf": [{"enum": words}, value]})
    };
    match form {
        Form::Version => json!({"const": 1}),
        Form::Text => json!({"type": "string"}),
        Form::Word => json!({"type": ["string", "number", "boolean"]}),
        Form::Count => json!({"type": "integer", "minimum": 0}),
        Form::CountExpression => json!({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]}),
        Form::Duration => {
            let units = UNITS.map(|(unit, _)| unit).join("|");
            let number = r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?";
            json!({"type": "string", "pattern": format!(r"^\s*{number}\s*({units})$"), "examples": ["500ms", "30s", "3m"]})
        }
        Form::Expression | Form::Later => Value::Bool(true),
        Form::Mapping => json!({"type": "object"}),
        Form::Kind => json!({"enum": kinds.keys().collect::<Vec<_>>()}),
        Form::Needs => {
            let entry = json!({"type": "string", "pattern": r"^[A-Za-z_][A-Za-z0-9_]*\??$"});
            json!({"anyOf": [{"type": "array", "items": entry, "uniqueItems": true}, entry]})
        }
        Form::ItemName => json!({"anyOf": [name(), {"const": "item"}]}),
        Form::Names => json!({"type": "array", "items": {"type": "string"}}),
        Form::Join => join(),
        Form::Next => {
            let case = mapping_with(CASE, kinds, &["to"]);
            json!({"anyOf": [{"type": "string"}, case, {"type": "array", "items": case, "minItems": 1}]})
        }
        Form::Repeat => mapping_with(REPEAT, kinds, &["max"]),
        Form::OnLimit => json!({"enum": ["succeed", "fail"]}),
        Form::OnStepError => json!({"enum": ["skip", "fail"]}),
        Form::NameOrNames => {
            json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]})
        }
        Form::Flag => json!({"type": "boolean"}),
        Form::Retry => json!({"anyOf": [{"type": "integer", "minimum": 0}, mapping(RETRY, kinds)]}),
        Form::Classes => {
            let word = json!({"enum": ErrorClass::WORDS.map(|(word, _)| word)});
            json!({"anyOf": [{"type": "array", "items": word}, word]})
        }
        Form::Latency => json!({"anyOf": [
            {"enum": ["none", "original"]},
            {"type": "number", "minimum": 0, "maximum": keys::LATENCY_MAX},
        ]}),
        Form::OnError => on_error(policy(&["fail", "skip"])),
        Form::OnItemError => policy(&["fail", "drop", "skip"]),
        Form::Type => reference("type"),
        Form::JsonSchema => json!({"type": ["object", "boolean"]}),
        Form::Inputs => json!({"type": "object", "propertyNames": name(), "additionalProperties": reference("input")}),
        Form::Models => {
            let mut model = mapping(MODEL, kinds);
            model["required"] = json!(["provider"]);
            model["properties"]["provider"]["minLength"] = json!(1);
            json!({"type": "object", "additionalProperties": model})
        }
        Form::Budget => mapping(BUDGET, kinds),
        Form::Limits => mapping(LIMITS, kinds),
        Form::Allow => mapping(ALLOW, kinds),
        Form::Cache => json!({"enum": CacheScope::WORDS.map(|(word, _)| word)}),
        Form::Nodes => reference("nodes"),
    }
}

/// A type in the short form. The pattern lets whatever has brackets or bars pass: that is not for regular expressions to judge.
fn short_type(pattern: String) -> Value {
    json!({"anyOf": [
        {"type": "string", "pattern": pattern, "examples": ["string", "number", "integer", "boolean", "[string]", "yes | no"]},
        {"type": "array", "items": reference("type"), "minItems": 1, "maxItems": 1},
        {"type": "object", "additionalProperties": reference("type")},
    ]})
}

fn node(kinds: &Kinds) -> Value {
    let mut node = mapping(ATTRIBUTES, kinds);
    for (field, takers) in fields(kinds) {
        let mut forms: Vec<Value> = Vec::new();
        let mut docs: Vec<(String, &str)> = Vec::new();
        for (kind, spec) in takers {
            let form = field_form(spec);
            if !forms.contains(&form) {
                forms.push(form);
            }
            match docs.iter_mut().find(|(_, doc)| *doc == spec.doc) {
                Some((kinds, _)) => *kinds = format!("{kinds}, {kind}"),
                None => docs.push((kind.to_owned(), &spec.doc)),
            }
        }
        let form = if forms.len() == 1 { forms.remove(0) } else { json!({"anyOf": forms}) };
        let doc = match docs.as_slice() {
            [(_, doc)] => (*doc).to_owned(),
            several => several.iter().map(|(kinds, doc)| format!("{kinds}: {doc}")).collect::<Vec<_>>().join("\n"),
        };
        node["properties"][field] = documented(form, &doc);
    }
    let work = kinds.values().flat_map(|spec| &spec.work_keys).map(|key| json!({"required": [key]}));
    let kind = std::iter::once(json!({"required": ["kind"]}));
    node["anyOf"] = kind.chain(work).collect();
    node["not"] = json!({"required": ["schema", "json_schema"]});
    node["allOf"] = kinds.values().map(|spec| of_kind(spec)).collect();
    node
}

/// Every field that is no attribute, with the kinds that take it.
fn fields(kinds: &Kinds) -> BTreeMap<&str, Vec<(&str, &FieldSpec)>> {
    let mut fields: BTreeMap<&str, Vec<(&str, &FieldSpec)>> = BTreeMap::new();
    for spec in kinds.values() {
        for field in spec.fields.iter().filter(|field| !keys::is_attribute(&field.name)) {
            fields.entry(&field.name).or_default().push((&spec.name, field));
        }
    }
    fields
}

fn field_form(field: &FieldSpec) -> Value {
    match field.format {
        FieldFormat::Template | FieldFormat::Slotted | FieldFormat::Text => json!({"type": "string"}),
        FieldFormat::Formula => json!({"type": ["string", "number"]}),
        FieldFormat::Expression | FieldFormat::Choice | FieldFormat::Literal => Value::Bool(true),
        FieldFormat::Map => json!({"type": ["object", "string", "null"]}),
        FieldFormat::ExpressionOrNames => json!({"items": {"type": "string"}}),
        FieldFormat::Count => json!({"type": "integer", "minimum": 0}),
        FieldFormat::Flag => json!({"type": "boolean"}),
        FieldFormat::Names => {
            let word = |word: &Word| json!({"const": word.name, "description": word.doc});
            // Where nothing is registered, which names another program has cannot be known here.
            let one = match field.words.is_empty() {
                true => json!({"type": "string"}),
                false => json!({"oneOf": field.words.iter().map(word).collect::<Vec<_>>()}),
            };
            json!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "uniqueItems": true}]})
        }
    }
}

/// What holds for nodes of one kind: its keys and no others.
fn of_kind(spec: &KindSpec) -> Value {
    let implied: Vec<Value> = spec.work_keys.iter().map(|key| json!({"required": [key]})).collect();
    let named = json!({"properties": {"kind": {"const": spec.name}}, "required": ["kind"]});
    let is_kind = match implied.is_empty() {
        true => named,
        false => json!({"anyOf": [named, {"not": {"required": ["kind"]}, "anyOf": implied}]}),
    };
    let attributes = keys::known(ATTRIBUTES).map(|key| key.name).filter(|name| spec.carries(name));
    let known: Vec<&str> = attributes.chain(spec.fields.iter().map(|field| field.name.as_str())).collect();
    let own = spec.fields.iter().filter(|field| !keys::is_attribute(&field.name));
    let forms: Map<String, Value> = own.map(|field| (field.name.clone(), field_form(field))).collect();
    let required: Vec<&str> =
        spec.fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
    let mut then = json!({"propertyNames": {"enum": known}, "properties": forms, "required": required});
    let choices: Vec<&String> =
        spec.work_keys.iter().filter(|key| spec.fields.iter().any(|field| field.name == **key)).collect();
    if choices.len() > 1 {
        then["oneOf"] = choices.iter().map(|key| json!({"required": [key]})).collect();
    }
    let choice = spec.fields.iter().find(|field| field.format == FieldFormat::Choice);
    if let (Some(FieldSpec { name: names, .. }), Some(FieldSpec { name: choice, .. })) = (spec.names(), choice) {
        then["if"] = json!({"properties": {names: {"type": "array"}}});
        then["then"] = json!({"required": [choice]});
        then["else"] = json!({"properties": {choice: false}});
    }
    json!({"if": is_kind, "then": then})
}
