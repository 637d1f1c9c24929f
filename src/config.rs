//! What the user configured: `flowrun.yaml` in the working directory, then the environment, then flags; the later wins.
//!
//! ```yaml
//! models:
//!   default: {provider: openai, base_url: "http://127.0.0.1:8080/v1", model: qwen2.5}
//!   large: {provider: openai, base_url: "https://llm.example/v1", model: big, api_key_env: EXAMPLE_KEY}
//! defaults: {max_parallel: 8, runs_dir: .flowrun/runs}
//! ```
//!
//! `OPENAI_BASE_URL` is where `openai` models are that name no server, `OPENAI_API_KEY` the key for that server (for OpenAI
//! itself if it is not set), `FLOWRUN_MODEL` the model `default`. A key goes to the server that it was configured for and to
//! no other; this type holds keys, so it does not print.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flowrun_engine::definition::ModelDef;
use flowrun_engine::diagnostic::did_you_mean;
use flowrun_nodes::Models;
use flowrun_nodes::model::{OpenAi, Secret};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

/// Where `openai` models are when nothing says otherwise.
const OPENAI: &str = "https://api.openai.com/v1";
/// Where an Ollama listens by itself.
const OLLAMA: &str = "http://127.0.0.1:11434/v1";
/// Largest `flowrun.yaml` in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Providers that a flag may name.
const PROVIDERS: [&str; 2] = ["openai", "scripted"];

/// What the user configured.
#[derive(Default)]
pub struct Config {
    models: IndexMap<String, ModelDef>,
    keys: Vec<(String, Secret)>,
    server: Option<String>,
    has_openai_key: bool,
    defaults: Defaults,
}

/// `defaults:` of `flowrun.yaml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Most leaf steps that run at once.
    pub max_parallel: Option<u32>,
    /// Where runs are recorded.
    pub runs_dir: Option<PathBuf>,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// `flowrun.yaml` cannot be read or says something it cannot.
    #[error("`{path}`: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A model that nothing defines.
    #[error("there is no model `{name}`{}", .suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The closest alias.
        suggestion: Option<String>,
    },
    /// A server with several models, and nobody said which one.
    #[error("the server {server} has several models; set `FLOWRUN_MODEL` to one of: {names}")]
    WhichModel {
        /// The server.
        server: String,
        /// Its models.
        names: String,
    },
    /// The server does not say what models it has.
    #[error("the server {server} does not say which models it has ({reason}); is it running? `FLOWRUN_MODEL` names one without asking")]
    Silent {
        /// The server.
        server: String,
        /// What went wrong.
        reason: String,
    },
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    models: IndexMap<String, Entry>,
    #[serde(default)]
    defaults: Defaults,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    provider: String,
    #[serde(default)]
    model: String,
    base_url: Option<String>,
    api_key_env: Option<String>,
    #[serde(default)]
    params: IndexMap<String, Value>,
    max_parallel: Option<u32>,
    timeout: Option<String>,
}

impl Config {
    /// Reads `flowrun.yaml` in a folder, if it is there, and the environment through `variable`.
    ///
    /// # Errors
    /// If the file is there and is wrong.
    pub fn read(folder: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let path = folder.join("flowrun.yaml");
        let bad = |reason: String| ConfigError::File { path: path.display().to_string(), reason };
        let file: File = match std::fs::metadata(&path) {
            Err(_) => File::default(),
            Ok(found) if found.len() > FILE_BYTES_MAX => return Err(bad("it is larger than 1 MiB".to_owned())),
            Ok(_) => {
                let text = std::fs::read_to_string(&path).map_err(|error| bad(error.to_string()))?;
                serde_yaml::from_str::<Option<File>>(&text).map_err(|error| bad(error.to_string()))?.unwrap_or_default()
            }
        };
        let mut config = Self { defaults: file.defaults, ..Self::default() };
        config.server = variable("OPENAI_BASE_URL");
        if let Some(key) = variable("OPENAI_API_KEY") {
            config.has_openai_key = true;
            config.keys.push((config.server().to_owned(), Secret::new(key)));
        }
        for (alias, entry) in file.models {
            let timeout_ms = match entry.timeout.as_deref().map(|text| (text, duration_ms(text))) {
                Some((text, None)) => {
                    return Err(bad(format!("models.{alias}.timeout: `{text}` is no duration such as `30s`")));
                }
                other => other.and_then(|(_, ms)| ms),
            };
            if !PROVIDERS.contains(&entry.provider.as_str()) {
                let near = did_you_mean(&entry.provider, PROVIDERS).unwrap_or("openai");
                return Err(bad(format!("models.{alias}: no provider is called `{}`; write `{near}`", entry.provider)));
            }
            let base_url = entry.base_url.or_else(|| config.server.clone()).filter(|_| entry.provider == "openai");
            if let Some(key) = entry.api_key_env.as_deref().and_then(&variable) {
                config.keys.push((base_url.clone().unwrap_or_else(|| OPENAI.to_owned()), Secret::new(key)));
            }
            let definition = ModelDef {
                provider: entry.provider,
                model: entry.model,
                base_url,
                api_key_env: entry.api_key_env,
                params: entry.params,
                max_parallel: entry.max_parallel,
                timeout_ms,
            };
            config.models.insert(alias, definition);
        }
        if let Some(name) = variable("FLOWRUN_MODEL") {
            let definition = config.named(&name).unwrap_or_else(|| config.openai(&name));
            config.models.insert("default".to_owned(), definition);
        }
        Ok(config)
    }

    /// `defaults:` of the file.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Aliases that are defined.
    pub fn aliases(&self) -> Vec<&str> {
        self.models.keys().map(String::as_str).collect()
    }

    /// Takes the model of a flag as `default`: an alias, or `provider:name`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn choose(&mut self, name: &str) -> Result<(), ConfigError> {
        let Some(definition) = self.named(name) else {
            let suggestion = did_you_mean(name, self.aliases()).map(str::to_owned);
            return Err(ConfigError::UnknownModel { name: name.to_owned(), suggestion });
        };
        self.models.insert("default".to_owned(), definition);
        Ok(())
    }

    /// The model that an alias or `provider:name` means.
    fn named(&self, name: &str) -> Option<ModelDef> {
        if let Some(definition) = self.models.get(name) {
            return Some(definition.clone());
        }
        match name.split_once(':')? {
            ("openai", model) => Some(self.openai(model)),
            ("scripted", file) => {
                Some(ModelDef { provider: "scripted".to_owned(), model: file.to_owned(), ..ModelDef::default() })
            }
            _ => None,
        }
    }

    fn openai(&self, model: &str) -> ModelDef {
        let base_url = self.server.clone();
        ModelDef { provider: "openai".to_owned(), model: model.to_owned(), base_url, ..ModelDef::default() }
    }

    fn server(&self) -> &str {
        self.server.as_deref().unwrap_or(OPENAI)
    }

    /// Finds the model `default` if nothing names it: the one model of the server at `OPENAI_BASE_URL`, else the first one of an
    /// Ollama on its usual port. The text says what was found; `None`: nothing was looked for, or nothing found.
    ///
    /// # Errors
    /// If there is a server, and which of its models is meant is open.
    pub async fn find_default(&mut self) -> Result<Option<String>, ConfigError> {
        if self.models.contains_key("default") {
            return Ok(None);
        }
        if self.server.is_some() || self.has_openai_key {
            let server = self.server().to_owned();
            let silent = |reason: String| ConfigError::Silent { server: server.clone(), reason };
            let key = self.keys.first().map(|(_, key)| key.clone()).filter(|_| self.has_openai_key);
            let names = models_of(&server, key, Duration::from_secs(10)).await.map_err(silent)?;
            let [name] = names.as_slice() else {
                let names = listed(&names);
                return Err(ConfigError::WhichModel { server, names });
            };
            self.models.insert("default".to_owned(), self.openai(name));
            return Ok(Some(format!("using the model `{name}` of {server}")));
        }
        let Ok(names) = models_of(OLLAMA, None, Duration::from_secs(2)).await else { return Ok(None) };
        let Some(name) = names.first() else { return Ok(None) };
        self.models
            .insert("default".to_owned(), ModelDef { base_url: Some(OLLAMA.to_owned()), ..self.openai(name) });
        Ok(Some(format!("using the model `{name}` of the Ollama on 127.0.0.1:11434 (`FLOWRUN_MODEL` names another)")))
    }

    /// The table of models for a run, with the keys.
    pub fn models(&self) -> Models {
        let mut models = Models::default();
        for (alias, definition) in &self.models {
            models.configure(alias, definition.clone());
        }
        for (base_url, key) in &self.keys {
            models.key(base_url, key.clone());
        }
        models
    }
}

async fn models_of(server: &str, key: Option<Secret>, patience: Duration) -> Result<Vec<String>, String> {
    let client = OpenAi::new(server, "", key, None).map_err(|error| error.to_string())?;
    let asked = tokio::time::timeout(patience, client.list()).await;
    asked.map_err(|_| "it does not answer".to_owned())?.map_err(|error| error.to_string())
}

fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(10).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > 10 {
        let _ = write!(text, ", and {} more", names.len() - 10);
    }
    if text.is_empty() { "(it lists none)".to_owned() } else { text }
}

/// `500ms`, `30s`, `3m`, `2h` in milliseconds.
fn duration_ms(text: &str) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let unit = match &text[at..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    text[..at].parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("flowrun.yaml"), file).unwrap();
        let variable = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        Config::read(folder.path(), variable)
    }

    fn default_of(config: &Config) -> (String, String) {
        let definition = &config.models["default"];
        (definition.model.clone(), definition.base_url.clone().unwrap_or_default())
    }

    #[test]
    fn the_environment_wins_over_the_file_and_a_flag_over_both() {
        let file = "models: {default: {provider: openai, model: a}, big: {provider: openai, model: b, base_url: 'http://b/v1'}}";
        assert_eq!(default_of(&config(file, &[]).unwrap()), ("a".into(), String::new()));
        let here = ("OPENAI_BASE_URL", "http://h/v1");
        assert_eq!(default_of(&config(file, &[here]).unwrap()), ("a".into(), "http://h/v1".into()));
        let mut both = config(file, &[here, ("FLOWRUN_MODEL", "qwen:1.5b")]).unwrap();
        assert_eq!(default_of(&both), ("qwen:1.5b".into(), "http://h/v1".into()));
        both.choose("big").unwrap();
        assert_eq!(default_of(&both), ("b".into(), "http://b/v1".into()));
        both.choose("openai:c").unwrap();
        assert_eq!(default_of(&both), ("c".into(), "http://h/v1".into()));
        assert_eq!(both.choose("bigg").unwrap_err().to_string(), "there is no model `bigg`; did you mean `big`?");
    }

    #[test]
    fn mistakes_in_the_file_are_told() {
        let check = |file: &str, expected: &str| {
            let error = config(file, &[]).err().expect(file).to_string();
            assert!(error.contains(expected), "{file}: {error}");
        };
        check("modles: {}", "unknown field `modles`");
        check("models: {a: {provider: openia}}", "write `openai`");
        check("models: {a: {provider: openai, timeout: 5}}", "timeout");
        check("models: {a: {provider: openai, timeout: 5 weeks}}", "no duration");
        check("models: [", "line 1");
        assert!(config("", &[]).unwrap().aliases().is_empty());
    }

    #[test]
    fn a_key_belongs_to_the_server_beside_it() {
        let file = "models: {a: {provider: openai, model: m, base_url: 'https://a/v1', api_key_env: KEY_A}}";
        let servers = |environment: &[(&str, &str)]| -> Vec<String> {
            config(file, environment).unwrap().keys.into_iter().map(|(server, _)| server).collect()
        };
        assert_eq!(servers(&[("OPENAI_API_KEY", "k")]), [OPENAI]);
        assert_eq!(servers(&[("OPENAI_API_KEY", "k"), ("OPENAI_BASE_URL", "http://h/v1")]), ["http://h/v1"]);
        assert_eq!(servers(&[("KEY_A", "k")]), ["https://a/v1"]);
    }
}
