//! `flowrun run` and `flowrun ask`: loads, runs, shows, records.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flowrun::{Config, Flowrun, Recording, RunIdentity, RunOptions, RunOutcome, Source, Status, Workflow};
use flowrun_engine::check::Checked;
use flowrun_engine::graph::{Field, Graph, Work};
use flowrun_engine::trace::{seconds, thousands};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::{Refusal, RunsPlace, config, inputs, models, output, read_workflow, report, runtime};

/// How a run is driven and shown.
#[derive(clap::Args)]
pub(super) struct Options {
    /// The model `default`: an alias of flowrun.yaml, `openai:NAME` or `scripted:FILE`.
    #[arg(long, short = 'm', value_name = "ALIAS|PROVIDER:NAME")]
    model: Option<String>,
    /// Most steps that run at once [default: 16].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_parallel: Option<u32>,
    /// Most model calls of the run; when they are used up it ends as `exhausted`.
    #[arg(long, value_name = "N")]
    budget_calls: Option<u64>,
    /// Only errors on stderr.
    #[arg(long, short = 'q')]
    quiet: bool,
    /// One JSON object on stdout: run, status, output, error, usage, steps, wall_ms, critical_path_ms.
    #[arg(long)]
    json: bool,
    /// Write the plan that the model drew as a workflow file.
    #[arg(long, value_name = "FILE")]
    save_plan: Option<PathBuf>,
    /// Record nothing.
    #[arg(long)]
    no_record: bool,
    #[command(flatten)]
    place: RunsPlace,
}

/// Runs a workflow and gives its exit code.
pub(super) fn run(
    reference: &str,
    written: Vec<(String, String)>,
    input_file: Option<&Path>,
    options: &Options,
) -> Result<u8, Refusal> {
    let mut config = config()?;
    if let Some(name) = &options.model {
        config.choose(name)?;
    }
    let text = read_workflow(reference)?;
    let (Checked { workflow, warnings }, source) = Flowrun::builder().build().check_text(reference, &text)?;
    if !options.quiet && !warnings.is_empty() {
        output::say_raw(&report::render(&warnings, &[&source], output::Styled::stderr()));
    }
    let inputs = inputs::collect(&workflow, written, input_file)?;
    let runtime = runtime()?;
    runtime.block_on(find_models(&workflow, &mut config, options.quiet))?;
    let flowrun = Flowrun::builder().models(config.models()).build();
    let code = runtime.block_on(drive(&flowrun, &workflow, inputs, &source, &config, options));
    runtime.shutdown_background();
    code
}

/// Sees to it that every model that the workflow asks is known.
async fn find_models(workflow: &Workflow, config: &mut Config, quiet: bool) -> Result<(), Refusal> {
    let mut asked = BTreeSet::new();
    aliases(&workflow.graph, &mut asked);
    let declared = |alias: &str| workflow.models.contains_key(alias);
    if asked.contains("default")
        && !declared("default")
        && let Some(note) = config.find_default().await?
        && !quiet
    {
        output::say(&note);
    }
    let known = config.aliases();
    let mut unknown = asked.iter().filter(|alias| !declared(alias) && !known.contains(&alias.as_str()));
    match unknown.next().map(String::as_str) {
        Some("default") => Err(Refusal::Text(models::WAYS.to_owned())),
        Some(alias) => Err(Refusal::Line(
            format!("the workflow asks the model `{alias}`, which nothing defines"),
            vec![format!("define it under `models:` in flowrun.yaml or in the workflow; known: {}", known.join(", "))],
        )),
        None => Ok(()),
    }
}

/// Aliases of the models that a graph asks.
fn aliases(graph: &Graph, asked: &mut BTreeSet<String>) {
    for node in graph.nodes() {
        if node.code.spec.as_ref().is_some_and(|spec| spec.calls_model) {
            let alias = match node.code.fields.get("model") {
                Some(Field::Literal(Value::String(alias))) => alias.as_str(),
                _ => "default",
            };
            asked.insert(alias.to_owned());
        }
        match &node.work {
            Work::Group(body) | Work::Call(body) => aliases(body, asked),
            Work::Expand => drop(asked.insert("default".to_owned())),
            _ => {}
        }
    }
}

async fn drive(
    flowrun: &Flowrun,
    workflow: &Arc<Workflow>,
    inputs: Map<String, Value>,
    source: &Source,
    config: &Config,
    options: &Options,
) -> Result<u8, Refusal> {
    let identity = identity(workflow, source);
    let progress = Arc::new(Progress::new(options.quiet));
    let mut run = RunOptions { calls_max: options.budget_calls, cancel: cancel_on_interrupt(), ..RunOptions::default() };
    run.max_parallel = options.max_parallel.or(config.defaults().max_parallel).unwrap_or(run.max_parallel);
    let recording = match options.no_record {
        true => None,
        false => {
            let folder = options.place.folder(config);
            let bad = |error| {
                let help = "`--runs-dir DIR` records elsewhere, `--no-record` not at all".to_owned();
                Refusal::Line(format!("the run cannot be recorded in `{}`: {error}", folder.display()), vec![help])
            };
            Some(Arc::new(Recording::begin(&folder, &identity).map_err(bad)?))
        }
    };
    run.observers.add(progress.clone());
    if let Some(recording) = &recording {
        run.observers.add(recording.clone());
    }
    let outcome = flowrun.run_with(workflow, inputs, run).await;
    progress.finish();
    if let Some(Err(error)) = recording.as_ref().map(|recording| recording.finish()) {
        output::error(&format!("the recording is not complete: {error}"));
    }
    let outcome = outcome.map_err(|error| {
        // A run that did not begin leaves no record.
        recording.iter().for_each(|recording| drop(std::fs::remove_dir_all(recording.folder())));
        Refusal::Line(error.to_string(), vec![inputs_help(workflow)])
    })?;
    let mut code = outcome.status.exit_code();
    show(&identity.id, &outcome, &progress, recording.is_some(), options);
    if let Some(path) = &options.save_plan
        && let Err(problem) = save_plan(&progress, path)
    {
        output::error(&problem);
        code = code.max(1);
    }
    Ok(code)
}

fn inputs_help(workflow: &Workflow) -> String {
    let inputs = workflow.definition.inputs.iter();
    let listed: Vec<String> = inputs
        .map(|(name, input)| match &input.default {
            Some(_) => format!("`{name}` ({}, has a default)", input.schema.describe()),
            None => format!("`{name}` ({})", input.schema.describe()),
        })
        .collect();
    match listed.as_slice() {
        [] => format!("`{}` takes no inputs", workflow.name),
        _ => format!("`--input NAME=VALUE` gives one; `{}` takes {}", workflow.name, listed.join(", ")),
    }
}

fn identity(workflow: &Workflow, source: &Source) -> RunIdentity {
    let now = jiff::Timestamp::now();
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let id = format!("{}-{:04x}", now.strftime("%Y%m%d-%H%M%S-%3f"), random & 0xffff);
    let started = now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    RunIdentity { id, workflow: workflow.name.clone(), started, definition: source.text().to_owned() }
}

/// The first Ctrl-C cancels the run, the second ends the program at once.
fn cancel_on_interrupt() -> CancellationToken {
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            output::say("cancelling; Ctrl-C again ends at once");
            token.cancel();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        }
    });
    cancel
}

/// The output on stdout, what became of the run on stderr.
fn show(id: &str, outcome: &RunOutcome, progress: &Progress, recorded: bool, options: &Options) {
    let RunOutcome { status, output: value, error, failed_step, usage, steps, wall_ms, .. } = outcome;
    if options.json {
        let failure = error
            .as_ref()
            .map(|error| json!({"code": error.code, "message": error.message, "step": failed_step}));
        let report = json!({
            "run": id, "status": status.word(), "output": value, "error": failure, "usage": usage, "steps": steps,
            "wall_ms": wall_ms, "critical_path_ms": progress.critical_path_ms(),
        });
        output::data(&format!("{report}\n"));
    } else if let Some(value) = value.as_ref().filter(|value| *status == Status::Success || !value.is_null()) {
        output::data(&format!("{}\n", output::plain(value)));
    }
    if *status != Status::Success {
        output::error(&match (error, failed_step.as_deref().filter(|step| !step.is_empty())) {
            (Some(error), Some(step)) => format!("step `{step}`: {error}"),
            (Some(error), None) => error.to_string(),
            (None, _) => match outcome.bound {
                Some(bound) => format!("the run ended early: {}", bound_text(bound)),
                None => format!("the run ended: {}", status.word()),
            },
        });
        if recorded && *status != Status::Cancelled {
            output::help(&format!("`flowrun trace {id}` shows every step"));
        }
    }
    if !options.quiet {
        let calls = if usage.calls == 1 { "call" } else { "calls" };
        let tokens = thousands(usage.prompt_tokens + usage.completion_tokens);
        let took = seconds(*wall_ms);
        output::say(&format!("run {id}: {}, {} {calls}, {tokens} tokens, {took}", status.word(), usage.calls));
    }
}

fn bound_text(bound: flowrun_engine::event::Bound) -> &'static str {
    match bound {
        flowrun_engine::event::Bound::Calls => "all model calls of the budget are used (`budget.calls`, `--budget-calls`)",
        flowrun_engine::event::Bound::Steps => "all steps are used (`limits.steps`)",
    }
}

fn save_plan(progress: &Progress, path: &Path) -> Result<(), String> {
    let Some((plan, keys)) = progress.plan() else {
        return Err(format!("no graph was drawn, so `{}` was not written", path.display()));
    };
    let lowered = flowrun_engine::dialect::Plan::from_value(&plan).and_then(|plan| plan.lower(&keys));
    let definition = lowered.map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        format!("the plan cannot be written: {}", lines.join("; "))
    })?;
    std::fs::write(path, definition.to_yaml()).map_err(|error| format!("`{}` cannot be written: {error}", path.display()))
}
