//! Which models there are: `flowrun.yaml` < environment < flags, and the ways to one when there is none.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use flowrun_engine::definition::{Configuration, ModelDef, read_configuration};
use flowrun_engine::graph::{Called, Field, Graph, Work, Workflow};
use flowrun_engine::node::ModelChoice;
use flowrun_nodes::Models;
use flowrun_nodes::model::{OpenAi, Secret};

const OPENAI: &str = "https://api.openai.com/v1";
const OPENAI_MODEL: &str = "gpt-5-mini";
const OLLAMA: &str = "http://127.0.0.1:11434/v1";

/// What was configured, with where the default model came from.
pub(crate) struct Configured {
    pub(crate) models: Models,
    pub(crate) file: Configuration,
    /// A line for people about a model that was found without being configured.
    pub(crate) notice: Option<String>,
}

/// Reads `flowrun.yaml` of the working directory, if there is one.
pub(crate) fn file() -> Result<Configuration, String> {
    let text = match fs::read_to_string("flowrun.yaml") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Configuration::default()),
        text => text.map_err(|error| format!("`flowrun.yaml` cannot be read: {error}"))?,
    };
    read_configuration("flowrun.yaml", &text)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// Puts the table of models together. `wanted` is `--model`. Servers are asked for the name of the default model only if one
/// `is_needed` and nobody has named it.
pub(crate) async fn models(wanted: Option<&str>, is_needed: bool) -> Result<Configured, String> {
    let file = file()?;
    let mut models = Models::default();
    models.allow_from_files();
    let mut notice = None;
    for (alias, definition) in &file.models {
        if let (Some(variable), base_url) = (&definition.api_key_env, definition.base_url.as_deref().unwrap_or(OPENAI))
        {
            match env::var(variable) {
                Ok(key) if !key.is_empty() => {
                    models.key(base_url, Secret::new(key));
                }
                // Whoever asks this model hears of it from the server; runs that do not ask it need no key.
                _ => notice = Some(format!("the model `{alias}` has no key: `{variable}` is not set")),
            }
        }
        models.configure(alias, definition.clone());
    }
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let (base_url, key) = (variable("OPENAI_BASE_URL"), variable("OPENAI_API_KEY"));
    if let Some(key) = &key {
        models.key(base_url.as_deref().unwrap_or(OPENAI), Secret::new(key.clone()));
    }
    let wanted = wanted.map(str::to_owned).or_else(|| variable("FLOWRUN_MODEL"));
    if let Some(wanted) = wanted {
        let definition = named(&wanted, &file, base_url.as_deref())?;
        models.configure("default", definition);
    } else if is_needed && (base_url.is_some() || key.is_some()) {
        models.configure("default", served(base_url.as_deref(), key).await?);
    } else if is_needed
        && !file.models.contains_key("default")
        && let Some(name) = served_models(OLLAMA, None).await.ok().and_then(|names| names.into_iter().next())
    {
        notice = Some(format!("using `{name}` of the Ollama on 127.0.0.1:11434"));
        models.configure("default", openai(&name, Some(OLLAMA)));
    }
    Ok(Configured { models, file, notice })
}

fn openai(model: &str, base_url: Option<&str>) -> ModelDef {
    ModelDef {
        provider: "openai".to_owned(),
        model: model.to_owned(),
        base_url: base_url.map(str::to_owned),
        ..ModelDef::default()
    }
}

/// The model that somebody has written on the command line, as it is configured now.
pub(crate) fn model_named(wanted: &str) -> Result<ModelDef, String> {
    let base_url = std::env::var("OPENAI_BASE_URL").ok().filter(|url| !url.is_empty());
    named(wanted, &file()?, base_url.as_deref())
}

/// The model that `ALIAS` or `PROVIDER:NAME` means.
fn named(wanted: &str, file: &Configuration, base_url: Option<&str>) -> Result<ModelDef, String> {
    if let Some(definition) = file.models.get(wanted) {
        return Ok(definition.clone());
    }
    match wanted.split_once(':') {
        Some(("openai", name)) => Ok(openai(name, base_url)),
        Some((provider @ ("scripted" | "recorded"), path)) => {
            Ok(ModelDef { provider: provider.to_owned(), model: path.to_owned(), ..ModelDef::default() })
        }
        _ if base_url.is_some() => Ok(openai(wanted, base_url)),
        _ => {
            let known: Vec<&str> = file.models.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none is configured".to_owned() } else { known.join(", ") };
            Err(format!(
                "no model `{wanted}`: write an alias of flowrun.yaml ({known}), `openai:NAME`, `scripted:FILE` or \
                 `recorded:FILE`"
            ))
        }
    }
}

/// The model behind OPENAI_BASE_URL, or the hosted one if only a key is given.
async fn served(base_url: Option<&str>, key: Option<String>) -> Result<ModelDef, String> {
    let Some(url) = base_url else { return Ok(openai(OPENAI_MODEL, None)) };
    let names = served_models(url, key.map(Secret::new)).await;
    let names = names.map_err(|problem| {
        format!("{problem}\nhelp: OPENAI_BASE_URL is {url}; FLOWRUN_MODEL names a model without asking")
    })?;
    match names.as_slice() {
        [name] => Ok(openai(name, base_url)),
        [] => Err(format!("the server at {url} names no model; set FLOWRUN_MODEL")),
        several => {
            let shown = several.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
            Err(format!("the server at {url} has {} models ({shown}, …); name one with FLOWRUN_MODEL", several.len()))
        }
    }
}

async fn served_models(url: &str, key: Option<Secret>) -> Result<Vec<String>, String> {
    let client = OpenAi::new(url, "", key, Some(Duration::from_secs(5))).map_err(|error| error.message.clone())?;
    client.list().await.map_err(|error| error.message.clone())
}

/// Whether every model that a workflow is known to ask is there and can be made: a script that cannot be read or an address that
/// is none is the user's to mend, before anything runs.
///
/// # Errors
/// What is wrong with the first one that is not, for people.
pub(crate) fn models_work(workflow: &Workflow, models: &Models) -> Result<(), String> {
    let configured = models.aliases();
    for alias in asked(workflow) {
        let declared = workflow.definition.models.get(&alias);
        if declared.is_none() && !configured.contains(&alias) {
            if alias == "default" {
                return Err(WAYS.to_owned());
            }
            let known = if configured.is_empty() { "none".to_owned() } else { configured.join(", ") };
            return Err(format!(
                "a node asks the model `{alias}`, which nobody has defined (configured: {known}); add it to `models:`"
            ));
        }
        let choice = ModelChoice { declared: declared.cloned().map(Arc::new), alias: Some(alias) };
        models.resolve(&choice).map_err(|problem| problem.message.clone())?;
    }
    Ok(())
}

/// Whether every call of a run counts, because a model that its workflow asks is recorded or plays a recording.
pub(crate) fn every_call_counts(workflow: &Workflow, models: &Models) -> bool {
    asked(workflow).iter().any(|alias| models.on_record(alias))
}

/// Aliases that a workflow asks: those that its nodes name, and the default one last.
fn asked(workflow: &Workflow) -> Vec<String> {
    let mut aliases = BTreeSet::new();
    let mut groups = vec![&workflow.definition.nodes];
    while let Some(nodes) = groups.pop() {
        groups.extend(nodes.values().map(|node| &node.nodes));
        let named = nodes.values().filter_map(|node| node.fields.get("model")?.as_str());
        aliases.extend(named.filter(|alias| *alias != "default").map(str::to_owned));
    }
    aliases.into_iter().chain(asks_default(&workflow.graph).then(|| "default".to_owned())).collect()
}

/// Whether the nodes of a graph may ask the default model; a graph that is drawn may. A workflow that calls itself is looked at once.
pub(crate) fn asks_default(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| match &node.work {
        Work::Leaf => node.code.asks() && node.code.fields.get("model").is_none_or(is_default),
        Work::Group(body) | Work::Loop(body) | Work::Call(Called::Other(body)) => asks_default(body),
        Work::Expand => true,
        Work::Value | Work::Human { .. } | Work::Call(Called::Around(_)) => false,
    })
}

fn is_default(model: &Field) -> bool {
    model.constant().is_none_or(|alias| alias == "default")
}

/// The ways to a model, on one screen.
pub(crate) const WAYS: &str = "\
no language model is configured. Any one of these does:

  OPENAI_BASE_URL=http://127.0.0.1:8080/v1    a server of yours: llama.cpp, vLLM, LM Studio, …
                                              (FLOWRUN_MODEL=NAME if it has several models)
  OPENAI_API_KEY=sk-…                         a hosted API (with OPENAI_BASE_URL if it is not OpenAI's)
  ollama serve                                an Ollama on its usual port is found by itself
  --model scripted:FILE                       replies from a file, for trying things out
  --model recorded:FILE                       the calls of an earlier run that was recorded with --record FILE

or in flowrun.yaml, for every run in this folder:

  models:
    default: {provider: openai, model: qwen2.5, base_url: \"http://127.0.0.1:8080/v1\"}

In a checkout of flowrun, `scripts/first-run` fetches a small model and serves it.
`flowrun models` shows what is configured and tries it.";
