//! What the simulation draws: a small workflow in a form of its own, from which both sides are made.
//!
//! The scheduler gets [`Program::definition`], through the checker like every file; the oracle reads the [`Level`]s. Expressions
//! carry nothing but mentions: what they would say is decided by the [`World`](super::world::World).

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::{Value, json};

use crate::check::{self, Library};
use crate::definition::{
    CaseDef, ErrorPolicyDef, FieldFormat, InputDef, Join, KindSpec, LimitsDef, Need, NodeDef, RepeatDef, RetryDef,
    WorkflowDef,
};
use crate::diagnostic::Diagnostic;
use crate::graph::{Graph, Workflow};
use crate::schema::Schema;
use crate::source::Source;

/// A whole program: the workflow, those that it calls, and the graphs that are drawn while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The workflow itself.
    pub root: Level,
    /// Workflows that are called, `@w0`, `@w1`, …
    pub called: Vec<Level>,
    /// Graphs that an expansion may open.
    pub drawn: Vec<Level>,
}

/// The nodes of one frame in file order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Level {
    /// Declared inputs of a closed frame.
    pub inputs: Vec<String>,
    /// Its nodes.
    pub nodes: Vec<NodeSpec>,
    /// What its value is made of; `None`: the map of all nodes.
    pub output: Option<Vec<Read>>,
}

/// One mention of a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// `x`: required, if it is a node.
    Plain(String),
    /// `x | default(0)`.
    Default(String),
    /// `last.x`.
    Last(String),
    /// `past.x`.
    Past(String),
    /// `error.x`.
    Error(String),
    /// An input, an item, `iteration` or `pass`: always there.
    Given(String),
}

/// A count that is written as a number or as an expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counted {
    /// How many.
    pub count: u32,
    /// Whether it is an expression.
    pub asked: bool,
}

/// One node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// What its work mentions.
    pub reads: Vec<Read>,
    /// `needs`.
    pub needs: Vec<Need>,
    /// What `when` mentions.
    pub when: Option<Vec<Read>>,
    /// `for_each`.
    pub each: Option<Each>,
    /// `samples`.
    pub samples: Option<Counted>,
    /// What `stop_when` mentions.
    pub stop: Option<Vec<Read>>,
    /// `quorum`.
    pub quorum: Option<Counted>,
    /// `max_parallel`.
    pub max_parallel: Option<Counted>,
    /// `repeat`.
    pub repeat: Option<Repeat>,
    /// `next`.
    pub next: Vec<Case>,
    /// `join`.
    pub join: Option<Join>,
    /// `on_error`.
    pub on_error: Policy,
    /// `on_item_error`.
    pub on_item_error: Policy,
    /// Retries, and the first delay in milliseconds.
    pub retry: Option<(u32, u64)>,
    /// `output: this`.
    pub shaped: bool,
    /// `timeout`, of an attempt or of a person.
    pub timeout: bool,
}

/// `for_each`.
#[derive(Clone, Debug, PartialEq)]
pub struct Each {
    /// What its list mentions.
    pub reads: Vec<Read>,
    /// Name of the item.
    pub item: String,
    /// Name of its number.
    pub index: String,
    /// One after the other.
    pub sequential: bool,
}

/// `repeat`.
#[derive(Clone, Debug, PartialEq)]
pub struct Repeat {
    /// What `until` mentions.
    pub until: Option<Vec<Read>>,
    /// Most passes.
    pub max: Counted,
    /// `on_limit: fail`.
    pub fails: bool,
}

/// One case of `next`.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What its `when` mentions.
    pub when: Option<Vec<Read>>,
    /// Where to.
    pub to: Vec<String>,
    /// How often, upwards.
    pub max: Option<Counted>,
    /// `on_limit: fail`.
    pub fails: bool,
}

/// What becomes of a failure.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// Nothing is written.
    Fail,
    /// `drop`.
    Drop,
    /// `skip`.
    Skip,
    /// `{value: 0}`.
    Value,
    /// `{to: X}`.
    To(String),
}

/// What a node does.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Attempts.
    Leaf,
    /// A value.
    Set,
    /// A level that sees the names around it.
    Group(Level),
    /// A level that sees its inputs only.
    Call {
        /// Which of [`Program::called`].
        workflow: usize,
        /// `max_depth`.
        max_depth: Option<u32>,
    },
    /// One of [`Program::drawn`].
    Expand,
    /// A person.
    Human {
        /// Whether a value takes the answer's place when the time is over.
        default: bool,
    },
}

impl Read {
    /// How it is written.
    pub fn text(&self) -> String {
        match self {
            Read::Default(name) => format!("{name} | default(0)"),
            other => other.key(),
        }
    }

    /// What was read, as an account of it says.
    pub fn key(&self) -> String {
        match self {
            Read::Plain(name) | Read::Default(name) | Read::Given(name) => name.clone(),
            Read::Last(name) => format!("last.{name}"),
            Read::Past(name) => format!("past.{name}"),
            Read::Error(name) => format!("error.{name}"),
        }
    }
}

fn list(reads: &[Read], more: &[&str]) -> String {
    let texts = more.iter().map(|text| (*text).to_owned()).chain(reads.iter().map(Read::text));
    format!("[{}]", texts.collect::<Vec<_>>().join(", "))
}

fn condition(reads: &[Read], more: &[&str]) -> Value {
    json!(format!("{} | length > 0", list(reads, more)))
}

impl Counted {
    /// A number that is one less, but not 0.
    pub fn less(self) -> Self {
        Self { count: (self.count - 1).max(1), asked: false }
    }

    fn written(self) -> Value {
        if self.asked { json!(format!("{} + 0", self.count)) } else { json!(self.count) }
    }
}

impl Policy {
    fn written(&self) -> ErrorPolicyDef {
        match self {
            Policy::Fail => ErrorPolicyDef::Default,
            Policy::Drop => ErrorPolicyDef::Drop,
            Policy::Skip => ErrorPolicyDef::Skip,
            Policy::Value => ErrorPolicyDef::Value(json!(0)),
            Policy::To(name) => ErrorPolicyDef::To(name.clone()),
        }
    }
}

impl NodeSpec {
    /// A node without attributes.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            reads: Vec::new(),
            needs: Vec::new(),
            when: None,
            each: None,
            samples: None,
            stop: None,
            quorum: None,
            max_parallel: None,
            repeat: None,
            next: Vec::new(),
            join: None,
            on_error: Policy::Fail,
            on_item_error: Policy::Fail,
            retry: None,
            shaped: false,
            timeout: false,
        }
    }

    /// Everything that its own fields mention.
    pub fn mentions(&self) -> impl Iterator<Item = &Read> {
        let each = self.each.iter().flat_map(|each| &each.reads);
        let until = self.repeat.iter().filter_map(|repeat| repeat.until.as_ref()).flatten();
        let cases = self.next.iter().filter_map(|case| case.when.as_ref()).flatten();
        let optional = self.when.iter().chain(&self.stop).flatten();
        self.reads.iter().chain(optional).chain(each).chain(until).chain(cases)
    }

    /// The level inside it.
    pub fn inside(&self) -> Option<&Level> {
        if let Kind::Group(level) = &self.kind { Some(level) } else { None }
    }

    fn definition(&self, program: &Program) -> NodeDef {
        let (kind, fields) = self.work(program);
        let shaped = self.shaped.then(|| json!("this"));
        NodeDef {
            kind: kind.to_owned(),
            needs: self.needs.clone(),
            when: self.when.as_ref().map(|reads| condition(reads, &[])),
            for_each: self.each.as_ref().map(|each| json!(list(&each.reads, &["1"]))),
            item_name: self.each.as_ref().map(|each| each.item.clone()).filter(|item| item != "item"),
            index_name: self.each.as_ref().map(|each| each.index.clone()).filter(|index| index != "index"),
            sequential: self.each.as_ref().is_some_and(|each| each.sequential),
            samples: self.samples.map(Counted::written),
            stop_when: self.stop.as_ref().map(|reads| condition(reads, &["this"])),
            quorum: self.quorum.map(Counted::written),
            max_parallel: self.max_parallel.map(Counted::written),
            repeat: self.repeat.as_ref().map(|repeat| RepeatDef {
                until: repeat.until.as_ref().map(|reads| condition(reads, &["this"])),
                max: Some(repeat.max.written()),
                limit_fails: repeat.fails,
            }),
            next: self.next.iter().map(Case::definition).collect(),
            join: self.join,
            on_error: self.on_error.written(),
            on_item_error: self.on_item_error.written(),
            retry: self.retry.map(|(max, backoff_ms)| RetryDef {
                max: Some(max),
                on: Some(vec!["server".to_owned(), "timeout".to_owned()]),
                backoff_ms: Some(backoff_ms),
            }),
            timeout_ms: self.timeout.then_some(1_000),
            max_depth: if let Kind::Call { max_depth, .. } = self.kind { max_depth } else { None },
            output: self.inside().map_or(shaped, Level::output_tree),
            nodes: self.inside().map(|level| level.definitions(program)).unwrap_or_default(),
            fields,
            ..NodeDef::default()
        }
    }

    fn work(&self, program: &Program) -> (&'static str, IndexMap<String, Value>) {
        let reads: Value = self.reads.iter().map(Read::text).collect();
        let mut fields = IndexMap::new();
        let kind = match &self.kind {
            Kind::Leaf => {
                if !self.reads.is_empty() {
                    fields.insert("reads".to_owned(), reads);
                }
                "leaf"
            }
            Kind::Set => {
                fields.insert("value".to_owned(), reads);
                "set"
            }
            Kind::Group(_) => "group",
            Kind::Call { workflow, .. } => {
                fields.insert("workflow".to_owned(), json!(format!("@w{workflow}")));
                let inputs = program.called.get(*workflow).map(|level| level.inputs.clone()).unwrap_or_default();
                if !inputs.is_empty() {
                    let with = inputs.into_iter().map(|name| (name, json!(list(&self.reads, &["1"]))));
                    fields.insert("with".to_owned(), Value::Object(with.collect()));
                }
                "call"
            }
            Kind::Expand => {
                fields.insert("graph".to_owned(), json!(list(&self.reads, &["1"])));
                "expand"
            }
            Kind::Human { default } => {
                fields.insert("prompt".to_owned(), json!(self.prompt()));
                if *default {
                    fields.insert("default".to_owned(), json!(0));
                }
                "human"
            }
        };
        (kind, fields)
    }

    fn prompt(&self) -> String {
        let slots = self.reads.iter().map(|read| format!("{{{{ {} }}}}", read.text()));
        slots.fold("?".to_owned(), |text, slot| text + " " + &slot)
    }
}

impl Case {
    fn definition(&self) -> CaseDef {
        CaseDef {
            when: self.when.as_ref().map(|reads| condition(reads, &[])),
            to: self.to.clone(),
            max: self.max.map(Counted::written),
            limit_fails: self.fails,
        }
    }
}

impl Level {
    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.name == name)
    }

    fn output_tree(&self) -> Option<Value> {
        self.output.as_ref().map(|reads| reads.iter().map(Read::text).collect())
    }

    fn definitions(&self, program: &Program) -> IndexMap<String, NodeDef> {
        self.nodes.iter().map(|node| (node.name.clone(), node.definition(program))).collect()
    }

    fn definition(&self, name: &str, program: &Program) -> WorkflowDef {
        let input = || InputDef { schema: Schema::any(), default: None };
        WorkflowDef {
            name: name.to_owned(),
            inputs: self.inputs.iter().map(|name| (name.clone(), input())).collect(),
            limits: LimitsDef { depth: Some(DEPTH), iterations: Some(ITERATIONS), ..LimitsDef::default() },
            nodes: self.definitions(program),
            output: self.output_tree(),
            ..WorkflowDef::default()
        }
    }

    /// Nodes of this level and of those inside it.
    pub fn size(&self) -> usize {
        self.nodes.iter().map(|node| 1 + node.inside().map_or(0, Level::size)).sum()
    }
}

/// Deepest nesting of frames; each level may take several.
pub const DEPTH: u32 = 60;

/// Most passes of one loop; more than any program here can ask for.
pub const ITERATIONS: u32 = 100;

/// A checked program.
#[derive(Debug)]
pub struct Checked {
    /// The workflow.
    pub workflow: Arc<Workflow>,
    /// The graphs that expansions open.
    pub drawn: Vec<Arc<Graph>>,
}

impl Program {
    /// The workflow as it would be written.
    pub fn definition(&self) -> WorkflowDef {
        self.root.definition("root", self)
    }

    /// All files as one text, for people.
    pub fn to_yaml(&self) -> String {
        let called = self.called.iter().enumerate().map(|(index, level)| (format!("w{index}"), level));
        let drawn = self.drawn.iter().enumerate().map(|(index, level)| (format!("drawn{index}"), level));
        let others =
            called.chain(drawn).map(|(name, level)| format!("---\n{}", level.definition(&name, self).to_yaml()));
        others.fold(self.definition().to_yaml(), |text, other| text + &other)
    }

    /// All nodes.
    pub fn size(&self) -> usize {
        self.root.size() + self.called.iter().chain(&self.drawn).map(Level::size).sum::<usize>()
    }

    /// The program as the scheduler gets it.
    ///
    /// # Errors
    /// What the checker refuses.
    pub fn check(&self) -> Result<Checked, Vec<Diagnostic>> {
        let kinds = kinds();
        let workflow = check::check(self.definition(), None, &kinds, self)?.workflow;
        let drawn = self.drawn.iter().map(|level| {
            let checked = check::check(level.definition("drawn", self), None, &kinds, self)?;
            let workflow = Arc::into_inner(checked.workflow).expect("BUG: a checked workflow is shared");
            let mut graph = workflow.graph;
            Arc::get_mut(&mut graph).expect("BUG: a checked graph is shared").expansion = true;
            Ok(graph)
        });
        Ok(Checked { workflow, drawn: drawn.collect::<Result<_, Vec<Diagnostic>>>()? })
    }
}

impl Library for Program {
    fn load(
        &self,
        reference: &str,
        _: &str,
        _: &BTreeMap<String, Arc<KindSpec>>,
    ) -> Result<(WorkflowDef, Source), String> {
        let number = reference.strip_prefix("@w").and_then(|number| number.parse::<usize>().ok());
        let level = number.and_then(|number| self.called.get(number)).ok_or("there is none")?;
        Ok((level.definition(&reference[1..], self), Source::unparsed(reference, "")))
    }
}

/// The engine's own kinds, and a leaf that says what it reads.
pub fn kinds() -> BTreeMap<String, Arc<KindSpec>> {
    let mut leaf = KindSpec::leaf("leaf").field("reads", FieldFormat::Expression, "what it reads");
    leaf.samples = true;
    let all = check::builtin_kinds().into_iter().chain([leaf]);
    all.map(|kind| (kind.name.clone(), Arc::new(kind))).collect()
}
