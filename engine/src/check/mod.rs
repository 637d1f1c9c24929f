//! From what was written to what may be trusted: names, types, cycles; every problem is reported.
//!
//! A frame is checked node by node (`frame.rs`): its attributes must apply (`attributes.rs`), its fields are compiled
//! (`fields.rs`), the names in them resolved to nodes, inputs and items (`scope.rs`), and what they require becomes the edges
//! of a [`Graph`] (`dependencies.rs`). Edges and loops are found in `flow.rs`, held to their rules in `flow_rules.rs` and
//! `exclusive.rs`, and loops lowered to single nodes in `lower.rs`. `types.rs` finds what can never fit, `cycles.rs` draws circles, `calls.rs` loads other
//! workflows, `plans.rs` checks what a model drew with the same code, `words.rs` knows names that the program registered; `cache.rs`
//! and `redraws.rs` are about answers that are kept.

mod attributes;
mod cache;
mod calls;
mod cycles;
mod dependencies;
mod exclusive;
mod fields;
mod flow;
mod flow_rules;
mod frame;
mod lower;
mod plans;
mod redraws;
mod scope;
mod types;
mod warnings;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use crate::definition::{self, FieldFormat, KindSpec, KindWork, LimitsDef, WorkflowDef};
use crate::diagnostic::{Code, Diagnostic, Place, codes, did_you_mean};
use crate::expr::{ExprError, Tree};
use crate::graph::{Graph, Input, Limits, Workflow};
use crate::id::ValueHash;
use crate::source::{Part, Source};

pub use calls::{Library, NoLibrary};
pub use plans::PlanChecker;
use scope::Names;

/// A checked workflow with its warnings.
#[derive(Debug)]
pub struct Checked {
    /// The workflow.
    pub workflow: Arc<Workflow>,
    /// Warnings.
    pub warnings: Vec<Diagnostic>,
}

/// What is wrong with a text, with the source for showing it.
#[derive(Debug)]
pub struct Refused {
    /// Errors and warnings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// The text; `None` if there is none to show.
    pub source: Option<Source>,
}

/// Reads and checks a workflow file.
///
/// # Errors
/// Everything that is wrong with it, of reading and of checking alike.
#[expect(clippy::result_large_err, reason = "made once per file")]
pub fn check_text(
    name: &str,
    text: &str,
    kinds: &BTreeMap<String, Arc<KindSpec>>,
    library: &dyn Library,
) -> Result<(Checked, Source), Refused> {
    let unparsed = |diagnostics| Refused { diagnostics, source: Some(Source::unparsed(name, text)) };
    let parsed = definition::read(name, text, kinds).map_err(unparsed)?;
    let mut problems = parsed.diagnostics;
    let broken: BTreeSet<String> = problems.iter().map(|problem| problem.path.clone()).collect();
    let checked = check_partly(parsed.definition, Some(&parsed.source), kinds, library, &broken);
    let found = match checked {
        Ok(checked) if problems.is_empty() => return Ok((checked, parsed.source)),
        Ok(checked) => checked.warnings,
        Err(found) => found,
    };
    problems.extend(found.into_iter().filter(|problem| !broken.contains(&problem.path)));
    sort(&mut problems);
    Err(Refused { diagnostics: problems, source: Some(parsed.source) })
}

/// Checks a definition; every problem is reported.
///
/// # Errors
/// All problems, in the order of the file, warnings included.
pub fn check(
    definition: WorkflowDef,
    source: Option<&Source>,
    kinds: &BTreeMap<String, Arc<KindSpec>>,
    library: &dyn Library,
) -> Result<Checked, Vec<Diagnostic>> {
    check_partly(definition, source, kinds, library, &BTreeSet::new())
}

/// Checks a definition whose reading already found problems at the `broken` paths: what they hide is not reported again.
fn check_partly(
    definition: WorkflowDef,
    source: Option<&Source>,
    kinds: &BTreeMap<String, Arc<KindSpec>>,
    library: &dyn Library,
    broken: &BTreeSet<String>,
) -> Result<Checked, Vec<Diagnostic>> {
    let mut checker = Checker::new(source, kinds, library);
    checker.broken = broken.iter().flat_map(|path| path.split('.').skip(1)).map(str::to_owned).collect();
    let workflow = checker.workflow(definition);
    let refused = checker.errors.found > 0;
    let mut problems = checker.finish();
    sort(&mut problems);
    match workflow {
        Some(workflow) if !refused => Ok(Checked { workflow, warnings: problems }),
        _ => Err(problems),
    }
}

fn sort(problems: &mut Vec<Diagnostic>) {
    problems.sort_by_key(|problem| problem.place.as_ref().map_or(usize::MAX, |place| place.start));
    problems.dedup();
}

/// The kinds that the engine does itself.
pub fn builtin_kinds() -> Vec<KindSpec> {
    let kind = |name: &str, work, key: &str| KindSpec { work, work_keys: vec![key.to_owned()], ..KindSpec::leaf(name) };
    vec![
        kind("set", KindWork::Value, "value").required("value", FieldFormat::Expression, "the value"),
        kind("calc", KindWork::Value, "calc").required("calc", FieldFormat::Formula, "an exact formula over `{id}`s"),
        kind("group", KindWork::Group, "nodes"),
        kind("call", KindWork::Call, "workflow").required("workflow", FieldFormat::Text, "`@name` or a file").field(
            "with",
            FieldFormat::Expression,
            "its inputs",
        ),
        kind("expand", KindWork::Expand, "graph")
            .required("graph", FieldFormat::Expression, "the plan, the value of a `plan` node")
            .field("with", FieldFormat::Expression, "names that the plan's texts may mention")
            .field("dialect", FieldFormat::Text, "`graph`, or `flowchart`: with loops"),
        kind_of_human(),
    ]
}

fn kind_of_human() -> KindSpec {
    let doc = "taken in place of an answer when `timeout` is over";
    KindSpec { work: KindWork::Human, effect: true, ..KindSpec::leaf("human") }
        .required("prompt", FieldFormat::Template, "what the person is asked")
        .field("default", FieldFormat::Expression, doc)
}

/// Most errors that are reported, and most warnings: a generated file may hold one mistake a hundred thousand times.
const PROBLEMS_MAX: usize = 200;

/// Most names of about the right length that are compared with a misspelt one.
const CANDIDATES_MAX: usize = 1_000;

/// Problems of one severity.
#[derive(Default)]
struct Found {
    kept: Vec<Diagnostic>,
    found: usize,
}

impl Found {
    /// Keeps a problem; once there are too many, only until the next one comes.
    fn keep(&mut self, problem: Diagnostic) -> &mut Diagnostic {
        self.kept.truncate(PROBLEMS_MAX);
        self.found += 1;
        self.kept.push(problem);
        self.kept.last_mut().expect("BUG: a problem was pushed")
    }

    fn is_full(&self) -> bool {
        self.found >= PROBLEMS_MAX
    }
}

/// One definition being checked.
struct Checker<'a> {
    source: Option<&'a Source>,
    kinds: &'a BTreeMap<String, Arc<KindSpec>>,
    library: &'a dyn Library,
    errors: Found,
    warnings: Found,
    limits: Limits,
    /// Workflows that are being checked, outermost first: a call of one of them is recursive, and its graph is known later.
    calling: Vec<(String, Arc<OnceLock<Weak<Graph>>>)>,
    /// Frames around this definition, in the workflows that call it.
    depth: u32,
    /// Workflows that were checked already; `None`: with errors.
    called: BTreeMap<String, Option<Arc<Workflow>>>,
    inputs_used: BTreeSet<String>,
    /// Names of what could not be read: they exist all the same.
    broken: BTreeSet<String>,
}

impl<'a> Checker<'a> {
    fn new(source: Option<&'a Source>, kinds: &'a BTreeMap<String, Arc<KindSpec>>, library: &'a dyn Library) -> Self {
        let calling = source.map(|source| (source.name().to_string(), Arc::default())).into_iter().collect();
        Self {
            source,
            kinds,
            library,
            errors: Found::default(),
            warnings: Found::default(),
            limits: Limits::default(),
            calling,
            depth: 0,
            called: BTreeMap::new(),
            inputs_used: BTreeSet::new(),
            broken: BTreeSet::new(),
        }
    }

    /// Everything that was found, with a line about what is not shown.
    fn finish(self) -> Vec<Diagnostic> {
        let mut problems = Vec::new();
        for (severity, list) in [("errors", self.errors), ("warnings", self.warnings)] {
            let hidden = list.found.saturating_sub(PROBLEMS_MAX);
            problems.extend(list.kept.into_iter().take(PROBLEMS_MAX));
            if let (1.., Some(last)) = (hidden, problems.last()) {
                let message = format!("{hidden} more {severity} are not shown");
                problems.push(Diagnostic { message, related: Vec::new(), help: Vec::new(), ..last.clone() });
            }
        }
        problems
    }

    /// The place of an entry, while problems are still kept.
    fn place(&self, path: &[&str], part: Part) -> Option<Place> {
        self.source.filter(|_| !self.errors.is_full()).map(|source| source.place(path, part))
    }

    fn error(&mut self, code: Code, path: &[&str], part: Part, message: impl Into<String>) -> &mut Diagnostic {
        let place = self.place(path, part);
        self.errors.keep(Diagnostic { place, ..Diagnostic::error(code, path.join("."), message) })
    }

    fn warning(&mut self, code: Code, path: &[&str], message: impl Into<String>) -> &mut Diagnostic {
        let place = self.source.filter(|_| !self.warnings.is_full()).map(|source| source.place(path, Part::Key));
        self.warnings.keep(Diagnostic { place, ..Diagnostic::warning(code, path.join("."), message) })
    }

    /// Reports a problem at a range inside the text at `path`.
    fn error_within(&mut self, code: Code, path: &[&str], range: Range<usize>, message: String) -> &mut Diagnostic {
        let place = self.source.filter(|_| !self.errors.is_full()).map(|source| source.place_within(path, range));
        self.errors.keep(Diagnostic { place, ..Diagnostic::error(code, path.join("."), message) })
    }

    /// Reports a problem of an expression, template or formula.
    fn expression_problem(&mut self, path: &[&str], error: ExprError) {
        let cut = self
            .source
            .is_some_and(|source| source.is_plain(path) && source.rest_of_line(path).trim_start().starts_with('#'));
        let problem = match error.range {
            Some(range) => self.error_within(error.code, path, range, error.message),
            None => self.error(error.code, path, Part::Value, error.message),
        };
        if cut && problem.message.contains("unexpected end") {
            problem.help.push("` #` begins a comment: put quotes around an expression that contains it".to_owned());
        } else {
            problem.help.extend(error.help);
        }
    }

    /// The candidate that was most likely meant.
    fn near<'n>(&self, word: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
        let length = word.chars().count();
        let close = |name: &&str| name.chars().count().abs_diff(length) <= (length / 3).max(1);
        if self.errors.is_full() || !(2..=64).contains(&length) {
            return None;
        }
        did_you_mean(word, candidates.into_iter().filter(close).take(CANDIDATES_MAX))
    }

    fn workflow(&mut self, definition: WorkflowDef) -> Option<Arc<Workflow>> {
        self.limits = limits(&definition.limits);
        let graph = Arc::new(self.closed_graph(&definition)?);
        if self.broken.is_empty() && self.errors.found == 0 {
            self.warn_redraws(&graph);
        }
        if let Some((_, around)) = self.calling.last() {
            around.get_or_init(|| Arc::downgrade(&graph));
        }
        let folder = self.source.and_then(|source| Path::new(&**source.name()).parent()).unwrap_or(Path::new(""));
        let called = self.called.iter().filter_map(|(name, called)| {
            let name = Path::new(name).strip_prefix(folder).map_or(name.clone(), |below| below.display().to_string());
            Some((name, called.as_ref()?.definition.clone()))
        });
        Some(Arc::new(Workflow::new(definition, called.collect(), graph, self.limits)))
    }

    /// The graph of a whole workflow or plan: its names are all there are.
    fn closed_graph(&mut self, definition: &WorkflowDef) -> Option<Graph> {
        let inputs = definition.inputs.iter().map(|(name, input)| {
            (name.clone(), Input { schema: input.schema.clone(), default: input.default.clone() })
        });
        for (name, input) in &definition.inputs {
            if let Some(default) = &input.default
                && let Err(reason) = input.schema.validate(default)
            {
                let message = format!("the default does not fit the input's type: {reason}");
                self.error(codes::TYPE_MISMATCH, &["inputs", name], Part::Value, message);
            }
        }
        let names = Names::closed(&definition.nodes, &definition.inputs);
        let graph = self.frame(&names, &["nodes"], definition.output.as_ref(), &["output"]);
        let complete = self.broken.is_empty() && self.errors.found == 0;
        for name in definition.inputs.keys().filter(|_| complete) {
            if !self.inputs_used.contains(name) {
                self.warning(codes::UNUSED_INPUT, &["inputs", name], format!("nothing reads the input `{name}`"));
            }
        }
        let (mut graph, _) = graph?;
        graph.inputs = Some(inputs.collect());
        graph.models =
            definition.models.iter().map(|(alias, model)| (alias.clone(), Arc::new(model.clone()))).collect();
        graph.hash = definition.hash();
        Some(graph)
    }

    /// Compiles an expression tree and reports what is wrong in it.
    fn tree(&mut self, value: &serde_json::Value, path: &[&str]) -> Option<Tree> {
        match Tree::parse(value) {
            Ok(tree) => Some(tree),
            Err(problems) => {
                for (inside, error) in problems {
                    let whole: Vec<&str> = path.iter().copied().chain(inside.iter().map(String::as_str)).collect();
                    self.expression_problem(&whole, error);
                }
                None
            }
        }
    }
}

/// Limits with the defaults filled in.
fn limits(written: &LimitsDef) -> Limits {
    let default = Limits::default();
    Limits {
        steps: written.steps.unwrap_or(default.steps),
        items: written.items.unwrap_or(default.items),
        depth: written.depth.unwrap_or(default.depth),
        nodes: written.nodes.unwrap_or(default.nodes),
        output_bytes: written.output_bytes.unwrap_or(default.output_bytes),
        iterations: written.iterations.unwrap_or(default.iterations),
    }
}

/// Identity of a graph that is part of a definition.
fn part_hash(name: &str, nodes: usize) -> ValueHash {
    ValueHash::of_bytes(format!("{name}/{nodes}").as_bytes())
}

#[cfg(test)]
mod tests;
