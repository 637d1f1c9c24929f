//! `flowrun models`: what is configured, and whether it answers. Keys are never shown.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use flowrun_engine::node::ModelChoice;
use flowrun_nodes::model::{CallContext, Recorded};
use flowrun_nodes::{ChatRequest, Message, Model, Role};
use serde_json::json;

use super::{print, refuse, say};
use crate::configuration;
use crate::trace::counted;

pub(super) async fn models(wanted: Option<&str>) -> ExitCode {
    let mut configured = match configuration::models(wanted, true).await {
        Ok(configured) => configured,
        Err(problem) => return refuse(&problem),
    };
    // The question below is nobody's.
    configured.models.record_nothing();
    if let Some(notice) = &configured.notice {
        say(notice);
    }
    let aliases = configured.models.aliases();
    if aliases.is_empty() {
        return refuse(configuration::WAYS);
    }
    let mut silent = 0;
    for alias in aliases {
        let choice = ModelChoice { alias: Some(alias.clone()), declared: None };
        let answer = match configured.models.definition(&alias).filter(|model| model.provider == "recorded") {
            Some(model) => recorded(Path::new(&model.model)),
            None => match configured.models.resolve(&choice) {
                Ok(resolved) => match round_trip(&resolved).await {
                    Ok(answer) => Ok(format!("{}: {answer}", resolved.model.name())),
                    Err(problem) => Err(format!("{}: FAILED: {problem}", resolved.model.name())),
                },
                Err(problem) => Err(format!("FAILED: {}", problem.message)),
            },
        };
        silent += u32::from(answer.is_err());
        let line = format!("{alias:<12} {}", answer.unwrap_or_else(|problem| problem));
        print(&format!("{line}\n"));
    }
    if silent > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What a recording has. It is not asked: it answers nothing but what was recorded.
fn recorded(path: &Path) -> Result<String, String> {
    let recorded = Recorded::open(path).map_err(|problem| format!("FAILED: {}", problem.message))?;
    let calls = counted(recorded.calls() as u64, "recorded call");
    let models: Vec<String> = recorded.models().into_iter().map(crate::render::clean).collect();
    let of = if models.is_empty() { String::new() } else { format!(" of {}", models.join(", ")) };
    Ok(format!("{}: {calls}{of}", recorded.name()))
}

async fn round_trip(resolved: &flowrun_nodes::model::Resolved) -> Result<String, String> {
    let mut params = resolved.params.clone();
    params.insert("max_tokens".to_owned(), json!(16));
    let messages = vec![Message::new(Role::User, "Say the word hello and nothing else.")];
    let request = ChatRequest { messages, params, json_schema: None };
    let started = Instant::now();
    let reply =
        tokio::time::timeout(Duration::from_secs(60), resolved.model.chat(&request, &CallContext::default())).await;
    let reply = reply.map_err(|_| "no answer within 60 s".to_owned())?.map_err(|error| error.message.clone())?;
    let said: String = crate::render::clean(reply.text.trim()).chars().take(40).collect();
    Ok(format!("answers in {:.1} s (\"{said}\")", started.elapsed().as_secs_f64()))
}
