//! From what was written to what may be trusted: names, types, cycles; every problem is reported.
//!
//! A frame is checked node by node: its fields are compiled (`fields.rs`), the names in them resolved to nodes, inputs and
//! items (`scope.rs`), and what they require becomes the edges of a [`Graph`] (`frame.rs`). `types.rs` finds what can never
//! fit, `calls.rs` loads other workflows, `plans.rs` checks what a model drew with the same code.

mod calls;
mod fields;
mod frame;
mod plans;
mod scope;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::definition::{self, FieldFormat, KindSpec, KindWork, LimitsDef, WorkflowDef};
use crate::diagnostic::{Code, Diagnostic, codes};
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
    problems.extend(found);
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
    checker.broken = broken.iter().filter_map(|path| path.split('.').nth(1)).map(str::to_owned).collect();
    let workflow = checker.workflow(definition);
    let mut problems = checker.problems;
    sort(&mut problems);
    match workflow {
        Some(workflow) if !problems.iter().any(Diagnostic::is_error) => Ok(Checked { workflow, warnings: problems }),
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
            .field("dialect", FieldFormat::Text, "`graph`"),
    ]
}

/// One definition being checked.
struct Checker<'a> {
    source: Option<&'a Source>,
    kinds: &'a BTreeMap<String, Arc<KindSpec>>,
    library: &'a dyn Library,
    problems: Vec<Diagnostic>,
    limits: Limits,
    /// Workflows that are being checked, outermost first: a call of one of them is recursive.
    calling: Vec<String>,
    inputs_used: BTreeSet<String>,
    /// Nodes of the top level that could not be read: they exist all the same.
    broken: BTreeSet<String>,
}

impl<'a> Checker<'a> {
    fn new(source: Option<&'a Source>, kinds: &'a BTreeMap<String, Arc<KindSpec>>, library: &'a dyn Library) -> Self {
        let calling = source.map(|source| source.name().to_string()).into_iter().collect();
        Self {
            source,
            kinds,
            library,
            problems: Vec::new(),
            limits: Limits::default(),
            calling,
            inputs_used: BTreeSet::new(),
            broken: BTreeSet::new(),
        }
    }

    fn problem(&mut self, problem: Diagnostic, path: &[&str], part: Part) -> &mut Diagnostic {
        let place = self.source.map(|source| source.place(path, part));
        self.problems.push(Diagnostic { place, path: path.join("."), ..problem });
        self.problems.last_mut().expect("BUG: a problem was pushed")
    }

    fn error(&mut self, code: Code, path: &[&str], part: Part, message: impl Into<String>) -> &mut Diagnostic {
        self.problem(Diagnostic::error(code, "", message), path, part)
    }

    /// Reports a problem inside an expression or template.
    fn expression_problem(&mut self, path: &[&str], error: ExprError) {
        let place = self.source.map(|source| match error.range.clone() {
            Some(range) => source.place_within(path, range),
            None => source.place(path, Part::Value),
        });
        let mut help = error.help;
        if let Some(source) = self.source
            && source.is_plain(path)
            && source.rest_of_line(path).trim_start().starts_with('#')
        {
            help.insert(0, "` #` begins a comment: put quotes around an expression that contains it".to_owned());
        }
        let problem = Diagnostic::error(error.code, path.join("."), error.message);
        self.problems.push(Diagnostic { place, help, ..problem });
    }

    fn workflow(&mut self, definition: WorkflowDef) -> Option<Arc<Workflow>> {
        self.limits = limits(&definition.limits);
        let graph = self.closed_graph(&definition)?;
        Some(Arc::new(Workflow {
            name: definition.name.clone(),
            models: definition.models.clone(),
            calls_max: definition.budget.calls,
            limits: self.limits,
            hash: definition.hash(),
            graph: Arc::new(graph),
            definition,
        }))
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
        for name in definition.inputs.keys() {
            if !self.inputs_used.contains(name) && self.broken.is_empty() {
                let warning = Diagnostic::warning(codes::UNUSED_INPUT, "", format!("nothing reads the input `{name}`"));
                self.problem(warning, &["inputs", name], Part::Key);
            }
        }
        let (mut graph, _) = graph?;
        graph.inputs = Some(inputs.collect());
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
    }
}

/// Identity of a graph that is part of a definition.
fn part_hash(name: &str, nodes: usize) -> ValueHash {
    ValueHash::of_bytes(format!("{name}/{nodes}").as_bytes())
}

#[cfg(test)]
mod tests;
