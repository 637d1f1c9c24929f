//! From aliases to models.
//!
//! What the user configured wins over what a workflow's file declares, and the latter counts only where the program says so: a
//! stranger's file names servers and files. A key belongs to a host that the user named: a model that only a file declares gets
//! none, unless the user configured that same host with one. And it writes no files: where calls are recorded is said by the user.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use flowrun_engine::definition::ModelDef;
use flowrun_engine::definition::keys::PROVIDERS;
use flowrun_engine::failure::StepError;
use flowrun_engine::node::ModelChoice;
use indexmap::IndexMap;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::recording::RecordingFile;
use super::{CallContext, ChatReply, ChatRequest, Model, OpenAi, Recorded, Recorder, Scripted, Secret};

/// Where OpenAI-compatible requests go when nobody names a server.
const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";

/// A model with the parameters that go along with every request to it.
#[derive(Clone)]
pub struct Resolved {
    /// The model.
    pub model: Arc<dyn Model>,
    /// Its parameters.
    pub params: IndexMap<String, Value>,
}

/// Models by alias.
#[derive(Default)]
pub struct Models {
    configured: BTreeMap<String, ModelDef>,
    registered: BTreeMap<String, Arc<dyn Model>>,
    keys: BTreeMap<String, Secret>,
    from_files: bool,
    record: Record,
    built: Mutex<Vec<(ModelDef, Built)>>,
}

/// Which calls are recorded.
#[derive(Default)]
enum Record {
    /// Those of models that were configured so.
    #[default]
    Configured,
    /// Those of every model.
    All(Arc<RecordingFile>),
    Nothing,
}

/// What was made of a definition.
#[derive(Clone)]
struct Built {
    source: Source,
    room: Option<Arc<Semaphore>>,
    recording: Option<Arc<RecordingFile>>,
}

#[derive(Clone)]
enum Source {
    Model(Arc<dyn Model>),
    /// Plays what was recorded under the alias by which it is asked.
    Recorded(Recorded),
}

impl Models {
    /// A model that the user configured (file, environment or flag).
    pub fn configure(&mut self, alias: &str, definition: ModelDef) -> &mut Self {
        self.configured.insert(alias.to_owned(), definition);
        self
    }

    /// A model that the program brings along; it wins over configured ones.
    pub fn register(&mut self, alias: &str, model: impl Model) -> &mut Self {
        self.registered.insert(alias.to_owned(), Arc::new(model));
        self
    }

    /// A key for one server of the user's: sent there and nowhere else.
    pub fn key(&mut self, base_url: &str, key: Secret) -> &mut Self {
        if let Some(origin) = origin(base_url) {
            self.keys.insert(origin, key);
        }
        self
    }

    /// Lets workflow files declare models of their own.
    pub fn allow_from_files(&mut self) -> &mut Self {
        self.from_files = true;
        self
    }

    /// Records the calls of every model to the end of a file, wherever models were configured to be recorded.
    ///
    /// # Errors
    /// If the file cannot be written, or is there and no recording.
    pub fn record(&mut self, path: &Path) -> Result<&mut Self, StepError> {
        self.record = Record::All(Arc::new(RecordingFile::open(path)?));
        Ok(self)
    }

    /// Records nothing, however models were configured.
    pub fn record_nothing(&mut self) -> &mut Self {
        self.record = Record::Nothing;
        self
    }

    /// Whether the calls of a model are recorded, or played from a recording: then each counts, and none may be left out because its
    /// answer is kept.
    pub fn on_record(&self, alias: &str) -> bool {
        let written = |model: &ModelDef| model.record.is_some() || model.provider == "recorded";
        let all = matches!(self.record, Record::All(_));
        all || self.configured.get(alias).is_some_and(written) && !matches!(self.record, Record::Nothing)
    }

    /// Aliases that are known without any workflow.
    pub fn aliases(&self) -> Vec<String> {
        let mut aliases: Vec<String> = self.configured.keys().chain(self.registered.keys()).cloned().collect();
        aliases.sort();
        aliases.dedup();
        aliases
    }

    /// The definition behind an alias, if the user configured it.
    pub fn definition(&self, alias: &str) -> Option<&ModelDef> {
        self.configured.get(alias)
    }

    /// The model that a node asks for.
    ///
    /// # Errors
    /// If nothing is known under that alias, or it cannot be built.
    pub fn resolve(&self, choice: &ModelChoice) -> Result<Resolved, StepError> {
        let alias = choice.alias.as_deref().unwrap_or("default");
        if let Some(model) = self.registered.get(alias) {
            let model = match &self.record {
                Record::All(file) => self.recorded_to(file, alias, model.clone()),
                Record::Configured | Record::Nothing => model.clone(),
            };
            return Ok(Resolved { model, params: IndexMap::new() });
        }
        let declared = choice.declared.as_deref().filter(|_| self.from_files);
        let configured = self.configured.get(alias);
        let Some(definition) = configured.or(declared) else {
            return Err(self.no_model(alias, choice.declared.is_some()));
        };
        if configured.is_none() && definition.record.is_some() {
            let message = format!(
                "the workflow's file wants the model `{alias}` to be recorded, and a workflow's file writes no files; write `record` in \
                 `flowrun.yaml`, or `--record FILE`"
            );
            return Err(StepError::terminal("no_record", message));
        }
        let mut built = self.built.lock().expect("BUG: a panic while a model was built");
        let found = match built.iter().find(|(known, _)| known == definition) {
            Some((_, found)) => found.clone(),
            None => {
                let made = self.build(definition)?;
                built.push((definition.clone(), made.clone()));
                made
            }
        };
        Ok(Resolved { model: self.under(alias, found), params: definition.params.clone() })
    }

    /// A model as it is asked under an alias: recorded, and then bounded, so that waiting for room is no part of a recording.
    fn under(&self, alias: &str, built: Built) -> Arc<dyn Model> {
        let model = match built.source {
            Source::Model(model) => model,
            Source::Recorded(recorded) => Arc::new(recorded.under(alias)),
        };
        let model = match &built.recording {
            Some(file) => self.recorded_to(file, alias, model),
            None => model,
        };
        match built.room {
            Some(room) => Arc::new(Bounded { model, room }),
            None => model,
        }
    }

    fn recorded_to(&self, file: &Arc<RecordingFile>, alias: &str, model: Arc<dyn Model>) -> Arc<dyn Model> {
        Arc::new(Recorder::of(model, alias, file.clone(), self.keys.values().cloned().collect()))
    }

    fn no_model(&self, alias: &str, is_declared: bool) -> StepError {
        let message = match (is_declared, self.aliases().as_slice()) {
            (true, _) => format!(
                "the model `{alias}` is declared by the workflow's file, and this program takes none from files"
            ),
            (false, []) => format!("there is no model `{alias}`: the program has registered and configured none"),
            (false, known) => format!("there is no model `{alias}`; there are {}", known.join(", ")),
        };
        StepError::terminal("no_model", message)
    }

    fn build(&self, definition: &ModelDef) -> Result<Built, StepError> {
        let file = Path::new(&definition.model);
        let source = match definition.provider.as_str() {
            "openai" => {
                let base_url = definition.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL);
                let key = origin(base_url).and_then(|origin| self.keys.get(&origin)).cloned();
                let timeout = definition.timeout_ms.map(Duration::from_millis);
                Source::Model(Arc::new(OpenAi::new(base_url, &definition.model, key, timeout)?))
            }
            "scripted" => Source::Model(Arc::new(Scripted::open(file)?)),
            "recorded" => Source::Recorded(Recorded::open(file)?.latency(definition.latency.unwrap_or_default())),
            other => {
                let message = format!("no provider is called `{other}`; there are {}", PROVIDERS.join(", "));
                return Err(StepError::terminal("no_provider", message));
            }
        };
        let recording = match (&self.record, &definition.record) {
            (Record::All(file), _) => Some(file.clone()),
            (Record::Configured, Some(path)) => Some(Arc::new(RecordingFile::open(Path::new(path))?)),
            (Record::Configured, None) | (Record::Nothing, _) => None,
        };
        if let (Source::Recorded(_), Some(recording)) = (&source, &recording)
            && recording.is(file)
        {
            let message = format!(
                "the recording `{}` would be recorded onto its own end; name another file to record to",
                recording.path().display()
            );
            return Err(StepError::terminal("bad_recording", message));
        }
        let room = definition.max_parallel.map(|most| Arc::new(Semaphore::new(most.max(1) as usize)));
        Ok(Built { source, room, recording })
    }
}

/// Scheme, host and port: what a key belongs to.
fn origin(base_url: &str) -> Option<String> {
    let url = reqwest::Url::parse(base_url).ok()?;
    Some(format!("{}://{}:{}", url.scheme(), url.host_str()?, url.port_or_known_default()?))
}

/// A model with a bound on the requests in flight.
struct Bounded {
    model: Arc<dyn Model>,
    room: Arc<Semaphore>,
}

#[async_trait]
impl Model for Bounded {
    async fn chat(&self, request: &ChatRequest, context: &CallContext) -> Result<ChatReply, StepError> {
        let _place = self.room.acquire().await.map_err(|_| StepError::terminal("closed", "the model was closed"))?;
        self.model.chat(request, context).await
    }

    fn name(&self) -> String {
        self.model.name()
    }

    fn identity(&self) -> Value {
        self.model.identity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(base_url: &str) -> ModelChoice {
        let declared = ModelDef { provider: "openai".into(), base_url: Some(base_url.into()), ..ModelDef::default() };
        ModelChoice { alias: Some("theirs".into()), declared: Some(declared.into()) }
    }

    #[test]
    fn a_strangers_file_collects_no_key() {
        let mut models = Models::default();
        models.allow_from_files().key("http://127.0.0.1:8080/v1", Secret::new("sk-user"));
        let key_for = |url: &str| origin(url).and_then(|origin| models.keys.get(&origin)).is_some();
        assert!(key_for("http://127.0.0.1:8080/other"));
        assert!(!key_for("http://127.0.0.1:8081/v1"));
        assert!(!key_for("https://127.0.0.1:8080/v1"));
        assert!(!key_for("http://evil.example:8080/v1"));
        assert!(models.resolve(&declared("http://evil.example/v1")).is_ok());
    }

    #[test]
    fn the_users_configuration_wins() {
        let mut models = Models::default();
        models.configure("theirs", ModelDef { provider: "openai".into(), model: "mine".into(), ..ModelDef::default() });
        let resolved = models.resolve(&declared("http://evil.example/v1")).unwrap();
        assert_eq!(resolved.model.name(), "openai:mine at api.openai.com");
        let error = models.resolve(&ModelChoice::default()).err().unwrap();
        assert!(error.code == "no_model" && error.message.contains("theirs"));
    }

    #[test]
    fn files_declare_models_only_where_the_program_says_so() {
        let mut models = Models::default();
        let refused = models.resolve(&declared("http://127.0.0.1:9/v1")).err().unwrap();
        assert!(refused.code == "no_model" && refused.message.contains("takes none from files"), "{refused}");
        assert!(models.allow_from_files().resolve(&declared("http://127.0.0.1:9/v1")).is_ok());
    }

    #[test]
    fn a_strangers_file_records_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls.jsonl");
        let record = Some(path.display().to_string());
        let theirs = ModelDef { provider: "openai".into(), record, ..ModelDef::default() };
        let choice = ModelChoice { alias: Some("theirs".into()), declared: Some(theirs.clone().into()) };
        let mut models = Models::default();
        let refused = models.allow_from_files().resolve(&choice).err().unwrap();
        assert!(refused.code == "no_record" && !path.exists(), "{refused}");
        models.configure("theirs", theirs).record_nothing();
        assert!(models.resolve(&choice).is_ok() && !path.exists());
    }

    #[test]
    fn a_recording_is_not_recorded_onto_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls.jsonl");
        let mut models = Models::default();
        let model = path.display().to_string();
        models.configure("default", ModelDef { provider: "recorded".into(), model, ..ModelDef::default() });
        models.record(&folder.path().join(".").join("calls.jsonl")).unwrap();
        let refused = models.resolve(&ModelChoice::default()).err().unwrap();
        assert!(refused.code == "bad_recording" && refused.message.contains("onto its own end"), "{refused}");
        assert!(models.record(&folder.path().join("others.jsonl")).unwrap().resolve(&ModelChoice::default()).is_ok());
    }
}
