//! `flowrun models`: what is configured, and whether it answers.

use std::time::{Duration, Instant};

use flowrun::{CallContext, ChatRequest, Config, Message, Models, Role};
use flowrun_engine::node::ModelChoice;
use flowrun_engine::trace::seconds;
use serde_json::json;

use super::{Refusal, output, runtime};

/// What to do when there is no model.
pub(super) const WAYS: &str = "\
error: no model is configured

flowrun asks a language model. The ways to one:

  any OpenAI-compatible server (llama.cpp, vLLM, LM Studio, …)
      export OPENAI_BASE_URL=http://127.0.0.1:8080/v1

  OpenAI, or a service like it
      export OPENAI_API_KEY=…  FLOWRUN_MODEL=gpt-5-mini

  Ollama
      start it; on its usual port it is found without configuration

  a file `flowrun.yaml` in this folder
      models:
        default: {provider: openai, base_url: \"http://127.0.0.1:8080/v1\", model: NAME}

  no model at all, replies from a file
      flowrun run FILE --model scripted:REPLIES.yaml

`flowrun models` shows what is configured and whether it answers.";

/// Longest wait for a word.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn models(mut config: Config) -> Result<u8, Refusal> {
    let runtime = runtime()?;
    if let Some(note) = runtime.block_on(config.find_default())? {
        output::say(&note);
    }
    let models = config.models();
    let aliases = models.aliases();
    if aliases.is_empty() {
        return Err(Refusal::Text(WAYS.to_owned()));
    }
    let mut silent = false;
    for alias in aliases {
        let start = Instant::now();
        let (name, answer) = runtime.block_on(ask(&models, &alias));
        let took = seconds(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        silent |= answer.is_err();
        let answer = match answer {
            Ok(()) => format!("answers, {took}"),
            Err(problem) => format!("does not answer: {problem}"),
        };
        output::data(&format!("{alias:<12} {name}: {answer}\n"));
    }
    Ok(u8::from(silent))
}

/// The model's name and whether a real call works.
async fn ask(models: &Models, alias: &str) -> (String, Result<(), String>) {
    let choice = ModelChoice { alias: Some(alias.to_owned()), declared: None };
    let resolved = match models.resolve(&choice) {
        Ok(resolved) => resolved,
        Err(error) => return ("?".to_owned(), Err(error.to_string())),
    };
    let mut params = resolved.params;
    params.insert("max_tokens".to_owned(), json!(16));
    let request = ChatRequest {
        messages: vec![Message::new(Role::User, "Reply with the word ok.")],
        params,
        ..ChatRequest::default()
    };
    let context = CallContext::default();
    let asked = tokio::time::timeout(PATIENCE, resolved.model.chat(&request, &context)).await;
    let answer = match asked {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no reply within {} s", PATIENCE.as_secs())),
    };
    (resolved.model.name(), answer)
}
