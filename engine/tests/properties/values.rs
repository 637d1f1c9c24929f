//! Values for readers, built rather than cut: JSON, plans, definitions.

use flowrun_engine::definition::keys::LATENCY_MAX;
use flowrun_engine::definition::{AllowDef, ErrorPolicyDef, Join, LimitsDef, ModelDef, NodeDef, RetryDef, WorkflowDef};
use flowrun_engine::schema::Schema;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

/// JSON of any shape.
pub(super) fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-9..10i64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        select(&["", "one two", "3", "1,000", "a.b", "yes", "{a}", "{{ a }}"][..]).prop_map(Value::from),
    ];
    let name = prop_oneof!["[a-e]", select(&["steps", "question", "id", "ask", "x", "k"][..]).prop_map(str::to_owned)];
    leaf.prop_recursive(3, 20, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Names with random values; or none, for the names that there always are.
pub(super) fn scopes() -> impl Strategy<Value = Option<serde_json::Map<String, Value>>> {
    let map = prop::collection::btree_map("[a-j]", values(), 0..8).prop_map(|map| map.into_iter().collect());
    prop::option::of(map)
}

/// Plans with the keys that plans have.
pub(super) fn plans() -> impl Strategy<Value = Value> {
    let id = || select(&["a", "b", "c", "d", "answer", "item", "known", "a_2", "question", "the_capital"][..]);
    let ask = prop_oneof![
        select(
            &[
                "Who?", "{a} * 3", "6 * 8 = 48", "How big is {item}?", "{{ a }} {b}", "sum({a})", "{a} > 1",
                "18 euros", "Is the_capital old?"
            ][..]
        )
        .prop_map(str::to_owned),
        "[abc{}? 0-9+*%,.>=-]{1,20}",
        any::<String>(),
    ];
    let step = (
        id(),
        ask,
        select(&["text", "number", "yesno", "list", "calc"][..]),
        prop::option::of(id()),
        prop::option::of(id()),
    )
        .prop_flat_map(move |(id_, ask, kind, each, guard)| {
            let rest = (prop::option::of(id()), prop::option::of(prop::collection::vec("[a-d]\\??", 0..3)));
            rest.prop_map(move |(unless, needs)| {
                let mut step =
                    json!({"id": id_, "ask": ask, "type": kind, "each": each, "if": guard, "unless": unless});
                if let Some(needs) = needs {
                    step["needs"] = json!(needs);
                }
                step
            })
        });
    let question = select(&["What is it?", "who", "{{ q }}: \"é\"\n# x = 1", "\u{7f}\u{9d}\u{2028}\0"][..]);
    (question, prop::collection::vec(step, 1..7))
        .prop_map(|(question, steps)| json!({"question": question, "steps": steps}))
}

/// Definitions as a program would build them; a node reads the ones before it.
pub(super) fn definitions() -> impl Strategy<Value = WorkflowDef> {
    let text = || {
        select(
            &[
                "plain", "with: colon", "'quoted'", "\"x\\n\"", "# no comment", "- a", "ünï\n\n  two", " ", "0x1f",
                "null", "1e3", "{b}", "a = b",
            ][..],
        )
        .prop_map(str::to_owned)
    };
    let schema = || {
        let texts =
            ["string", "[number]", "{a: number, b?: [string?]}", "yes | no", "any", "integer?", "{x: {y: [a | b]}}"];
        select(texts.to_vec()).prop_map(|text| text.parse::<Schema>().expect("a good schema"))
    };
    let input = (schema(), prop::option::of(text().prop_map(Value::from)));
    let provider = prop_oneof![
        Just(("openai", None)),
        prop::option::of(0.0..=LATENCY_MAX).prop_map(|latency| ("recorded", latency)),
    ];
    let numbers = (prop::option::of(1..9u32), prop::option::of(1..100_000u64));
    let model = (provider, text(), prop::option::of(text()), numbers).prop_map(
        |((provider, latency), model, base_url, (max_parallel, timeout_ms))| ModelDef {
            provider: provider.into(),
            model,
            base_url,
            params: [("temperature".to_owned(), json!(0.7)), ("stop".to_owned(), json!(["\n"]))].into(),
            max_parallel,
            timeout_ms,
            latency,
            ..ModelDef::default()
        },
    );
    let parts = (
        (text(), prop::option::of(text())),
        prop::collection::vec(input, 0..3),
        prop::option::of(model),
        prop::option::of(1..1_000_000u64),
        prop::collection::vec(nodes(text().boxed(), schema().boxed()), 1..6),
        any::<bool>(),
    );
    parts.prop_map(|((name, description), inputs, model, calls, nodes, has_output)| {
        let mut definition = WorkflowDef { name, description, ..WorkflowDef::default() };
        for (index, (schema, default)) in inputs.into_iter().enumerate() {
            let default = default.filter(|value| schema.validate(value).is_ok());
            definition = definition.input(format!("in{index}"), schema, default);
        }
        definition.models.extend(model.map(|model| ("m".to_owned(), model)));
        definition.budget.calls = calls;
        definition.limits = LimitsDef { steps: calls, ..LimitsDef::default() };
        let last = nodes.len() - 1;
        for (index, node) in nodes.into_iter().enumerate() {
            definition = definition.node(format!("n{index}"), node.node(index));
        }
        if has_output { definition.output(json!({"last": format!("n{last}"), "sum": [1, "n0"]})) } else { definition }
    })
}

/// The parts of a node, drawn before it is known what stands before it.
#[derive(Clone, Debug)]
struct Parts {
    kind: u8,
    flags: [bool; 8],
    text: String,
    schema: Option<Schema>,
    policy: u8,
    earlier: Index,
}

fn nodes(text: BoxedStrategy<String>, schema: BoxedStrategy<Schema>) -> impl Strategy<Value = Parts> {
    let parts = (0..6u8, any::<[bool; 8]>(), text, prop::option::of(schema), 0..4u8, any::<Index>());
    parts.prop_map(|(kind, flags, text, schema, policy, earlier)| Parts { kind, flags, text, schema, policy, earlier })
}

impl Parts {
    /// The node that has so many before it.
    fn node(self, before: usize) -> NodeDef {
        let source = (before > 0).then(|| format!("n{}", self.earlier.index(before)));
        let reads = source.clone().unwrap_or_else(|| "1".to_owned());
        let mut node = self.work(&reads, before);
        let Self { kind, flags, schema, policy, .. } = self;
        node.when = flags[0].then(|| json!("1 < 2"));
        if flags[1] {
            node = node.for_each("[1, 2]");
            node.item_name = flags[2].then(|| "thing".to_owned());
            node.max_parallel = flags[3].then(|| json!(2));
        }
        if let Some(source) = source.filter(|_| flags[4]) {
            node = node.needs(source);
            node.join = flags[5].then_some(Join::All);
        }
        if kind < 2 {
            let on = Some(vec!["server".into()]);
            node.retry = flags[6].then_some(RetryDef { max: Some(2), on, backoff_ms: Some(1_500) });
            node.samples = flags[7].then(|| json!("1 + 2"));
            node.timeout_ms = flags[5].then_some(90_000);
        }
        node.schema = schema;
        node.on_error = match policy {
            0 => ErrorPolicyDef::Fail,
            1 => ErrorPolicyDef::Skip,
            2 => ErrorPolicyDef::Value(json!({"of": "1"})),
            _ => ErrorPolicyDef::Default,
        };
        node
    }

    fn work(&self, reads: &str, before: usize) -> NodeDef {
        let text = &self.text;
        match self.kind {
            0 => NodeDef::new("llm").field("prompt", format!("{} {{{{ {reads} }}}}", text.replace(['{', '}'], ""))),
            1 => NodeDef::new("llm")
                .field("ask", text.replace("{b}", "{n0}"))
                .field("params", json!({"temperature": 0.5, "top": reads})),
            2 => NodeDef::new("set").field("value", json!({"text": literal(text), "of": [reads, null, 1.5, true]})),
            3 => NodeDef::new("calc").field("calc", "2 ^ 10 / 3"),
            4 => {
                let mut group = NodeDef::new("group");
                group.nodes.insert(format!("g{before}"), NodeDef::new("set").field("value", reads));
                group
            }
            _ => {
                let mut plan = NodeDef::new("plan").field("prompt", "Why?").field("max_steps", 5);
                plan.limits = Some(LimitsDef { nodes: Some(7), ..LimitsDef::default() });
                plan.allow =
                    self.flags[7].then(|| AllowDef { kinds: Some(vec!["calc".into()]), models: None, tools: None });
                plan
            }
        }
    }
}

/// A text as an expression.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
