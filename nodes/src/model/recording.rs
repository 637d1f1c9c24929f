//! Recordings: what models were asked and what they gave, one JSON object a line.
//!
//! ```json
//! {"recording":1,"model":"openai:m at 127.0.0.1","alias":"default",
//!  "request":{"messages":[{"role":"user","content":"Hi"}],"params":{"max_tokens":1024}},
//!  "reply":{"text":"Hello","finish_reason":"stop"},
//!  "usage":{"calls":1,"prompt_tokens":7,"completion_tokens":1},"latency_ms":412,"chunks":[[380,3],[411,2]]}
//! ```
//!
//! (On one line.) Every line stands for itself and says its format, so that files can be joined, sorted out and compared with
//! the usual tools; keys always come in the same order. In place of `reply` and `usage` there may be an `error`, or neither: then
//! the call was given up before an answer came. A line is appended with one write to a file that is opened for appending, so
//! that runs and processes can share it. A failure to write never breaks a run; it is told once.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use flowrun_engine::event::Usage;
use flowrun_engine::failure::StepError;
use flowrun_engine::id::ValueHash;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ChatReply, ChatRequest, Message, Secret};

/// Version of the lines.
const FORMAT: u64 = 1;
/// Largest recording in bytes that is read.
const BYTES_MAX: u64 = 1 << 30;
/// Longest first line in bytes of a file that is appended to.
const FIRST_LINE_MAX: u64 = 64 << 20;
/// Most damaged lines that are named.
const DAMAGED_MAX: usize = 5;

/// One call that was recorded.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// Line in the file, from 1; 0 before it is written.
    pub(super) line: usize,
    /// What people call the model that was asked.
    pub(super) model: String,
    /// The alias under which it was asked, if there was one.
    pub(super) alias: Option<String>,
    /// Which sample it was.
    pub(super) sample: Option<u32>,
    /// What was asked.
    pub(super) request: ChatRequest,
    /// What came of it.
    pub(super) answer: Answer,
    /// How long it took, in milliseconds.
    pub(super) latency_ms: u64,
    /// When the text came, if it came in pieces: milliseconds since the beginning, and bytes of the text.
    pub(super) chunks: Vec<(u64, usize)>,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Reply(ChatReply),
    Error(StepError),
    /// The call was given up before an answer came: cancelled, or out of time.
    None,
}

/// A line as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    recording: u64,
    model: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sample: Option<u32>,
    request: RequestLine,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<ReplyLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<StepError>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    latency_ms: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chunks: Vec<(u64, usize)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestLine {
    messages: Vec<Message>,
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    params: IndexMap<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    json_schema: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyLine {
    text: String,
    finish_reason: Option<String>,
}

/// What tells whether the rest can be read.
#[derive(Deserialize)]
struct Version {
    recording: u64,
}

impl Call {
    /// The line, without its end.
    fn to_line(&self) -> String {
        let (reply, error, usage) = match &self.answer {
            Answer::Reply(reply) => {
                let line = ReplyLine { text: reply.text.clone(), finish_reason: reply.finish_reason.clone() };
                (Some(line), None, Some(reply.usage))
            }
            Answer::Error(error) => (None, Some(error.clone()), None),
            Answer::None => (None, None, None),
        };
        let ChatRequest { messages, params, json_schema } = self.request.clone();
        let line = Line {
            recording: FORMAT,
            model: self.model.clone(),
            alias: self.alias.clone(),
            sample: self.sample,
            request: RequestLine { messages, params, json_schema },
            reply,
            error,
            usage,
            latency_ms: self.latency_ms,
            chunks: self.chunks.clone(),
        };
        serde_json::to_string(&line).expect("BUG: a call is always JSON")
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, without what is written there: it may be a file that was named by mistake.
    fn from_line(number: usize, text: &str) -> Result<Self, String> {
        let bad = |error: serde_json::Error| match error.classify() {
            serde_json::error::Category::Data => {
                format!("line {number} is no recorded call (column {})", error.column())
            }
            _ => format!("line {number} is no JSON from column {} on", error.column()),
        };
        let version: Version = serde_json::from_str(text).map_err(bad)?;
        if version.recording != FORMAT {
            return Err(format!(
                "line {number} has the format {}; this version reads the format {FORMAT}",
                version.recording
            ));
        }
        let line: Line = serde_json::from_str(text).map_err(bad)?;
        let answer = match (line.reply, line.error) {
            (Some(reply), None) => {
                let usage = line.usage.unwrap_or(Usage { calls: 1, ..Usage::default() });
                Answer::Reply(ChatReply { text: reply.text, usage, finish_reason: reply.finish_reason })
            }
            (None, Some(error)) => Answer::Error(error),
            (None, None) => Answer::None,
            (Some(_), Some(_)) => return Err(format!("line {number} has a `reply` and an `error`")),
        };
        let RequestLine { messages, params, json_schema } = line.request;
        Ok(Self {
            line: number,
            model: line.model,
            alias: line.alias,
            sample: line.sample,
            request: ChatRequest { messages, params, json_schema },
            answer,
            latency_ms: line.latency_ms,
            chunks: line.chunks,
        })
    }
}

/// The name under which a call is found again: its request and its sample. The order of keys does not count.
pub(super) fn key(request: &ChatRequest, sample: Option<u32>) -> ValueHash {
    let ChatRequest { messages, params, json_schema } = request;
    let value = json!({"messages": messages, "params": params, "json_schema": json_schema, "sample": sample});
    // Once through text, as what was read from a file: a number may be another one after it.
    let value = serde_json::from_str(&value.to_string()).unwrap_or(value);
    ValueHash::of(&sorted(value))
}

/// The same value with the keys of every object in order.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

fn bad(path: &Path, why: impl std::fmt::Display) -> StepError {
    StepError::terminal("bad_recording", format!("the recording `{}`: {why}", path.display()))
}

/// Reads a whole recording: its calls in the order of the file, and the hash of its text.
///
/// # Errors
/// If it cannot be read; the damaged lines by their numbers.
pub(super) fn read(path: &Path) -> Result<(Vec<Call>, ValueHash), StepError> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| bad(path, error))?;
    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| bad(path, error))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(bad(path, format!("it is larger than {BYTES_MAX} bytes; split it")));
    }
    let (mut calls, mut damaged) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match Call::from_line(index + 1, line) {
            Ok(call) => calls.push(call),
            Err(problem) => damaged.push(problem),
        }
    }
    if damaged.is_empty() {
        return Ok((calls, ValueHash::of_bytes(text.as_bytes())));
    }
    let more = match damaged.len().saturating_sub(DAMAGED_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    damaged.truncate(DAMAGED_MAX);
    Err(bad(path, format!("{}{more}; mend these lines, take them out, or record again", damaged.join("; "))))
}

/// A recording that is written to.
#[derive(Debug)]
pub(super) struct RecordingFile {
    path: PathBuf,
    file: File,
    has_failed: AtomicBool,
}

impl RecordingFile {
    /// Opens a recording, or begins one.
    ///
    /// # Errors
    /// If it cannot be written, or is a file of another kind: nothing is appended to that.
    pub(super) fn open(path: &Path) -> Result<Self, StepError> {
        let open = OpenOptions::new().create(true).append(true).open(path);
        let file = open.map_err(|error| bad(path, format!("it cannot be written: {error}")))?;
        let metadata = file.metadata().map_err(|error| bad(path, error))?;
        if metadata.is_file() && metadata.len() > 0 {
            let (first, is_whole) = ends(path).map_err(|error| bad(path, error))?;
            if Call::from_line(1, &first).is_err() {
                return Err(bad(path, "the file is there and is no recording; nothing was written, name another file"));
            }
            if !is_whole {
                return Err(bad(path, "its last line is not whole; take it out, or name another file"));
            }
        }
        Ok(Self { path: path.to_owned(), file, has_failed: AtomicBool::new(false) })
    }

    /// Whether it is the file of that path.
    pub(super) fn is(&self, path: &Path) -> bool {
        match (self.path.canonicalize(), path.canonicalize()) {
            (Ok(own), Ok(other)) => own == other,
            _ => self.path == path,
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a call, without what is a secret.
    pub(super) fn append(&self, call: &Call, secrets: &[Secret]) {
        let line = secrets.iter().fold(call.to_line(), |line, secret| secret.hidden_in(line)) + "\n";
        if let Err(error) = write_at_once(&self.file, line.as_bytes())
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            tracing::error!("the recording `{}` lacks calls: it could not be written: {error}", self.path.display());
        }
    }
}

/// One write for the whole line: nothing that others append gets into it.
fn write_at_once(mut file: &File, line: &[u8]) -> io::Result<()> {
    let written = loop {
        match file.write(line) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if written == line.len() { Ok(()) } else { Err(io::Error::other("the disk took a part of a line")) }
}

/// The first line of a file, and whether its last one has an end.
fn ends(path: &Path) -> io::Result<(String, bool)> {
    let mut file = File::open(path)?;
    let mut first = Vec::new();
    io::BufRead::read_until(&mut io::BufReader::new((&file).take(FIRST_LINE_MAX)), b'\n', &mut first)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok((String::from_utf8_lossy(&first).into_owned(), last == *b"\n"))
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;

    fn call(text: &str) -> Call {
        let params = IndexMap::from([("temperature".to_owned(), json!(0.7)), ("max_tokens".to_owned(), json!(9))]);
        Call {
            line: 1,
            model: "m".to_owned(),
            alias: Some("default".to_owned()),
            sample: Some(2),
            request: ChatRequest {
                messages: vec![Message::new(Role::System, "s"), Message::new(Role::User, text)],
                params,
                json_schema: Some(json!({"type": "object", "properties": {"b": {}, "a": {}}})),
            },
            answer: Answer::Reply(ChatReply {
                text: "é\n".to_owned(),
                usage: Usage { calls: 1, prompt_tokens: 2, completion_tokens: 3 },
                finish_reason: None,
            }),
            latency_ms: 12,
            chunks: vec![(3, 2), (12, 1)],
        }
    }

    #[test]
    fn a_line_reads_as_what_was_written() {
        let replied = call("hi");
        let limited = StepError::new("http_429", flowrun_engine::failure::ErrorClass::RateLimit, "slow down");
        let failed = Call { answer: Answer::Error(limited.retry_after(Some(7_000))), sample: None, ..replied.clone() };
        let given_up = Call { answer: Answer::None, chunks: Vec::new(), ..replied.clone() };
        for call in [replied, failed, given_up] {
            let line = call.to_line();
            assert!(!line.contains('\n') && line.starts_with(r#"{"recording":1,"model":"m","alias":"default","#));
            assert_eq!(Call::from_line(1, &line), Ok(call));
        }
    }

    #[test]
    fn the_key_is_what_was_asked_in_any_order() {
        let asked = call("hi").request;
        let mut turned = asked.clone();
        turned.params.reverse();
        turned.json_schema = Some(json!({"properties": {"a": {}, "b": {}}, "type": "object"}));
        assert_eq!(key(&asked, Some(1)), key(&turned, Some(1)));
        assert_ne!(key(&asked, Some(1)), key(&asked, Some(0)));
        assert_ne!(key(&asked, Some(0)), key(&asked, None));
        assert_ne!(key(&asked, None), key(&call("ho").request, None));
        turned.params.insert("temperature".to_owned(), json!(0.8));
        assert_ne!(key(&asked, None), key(&turned, None));
        // A number whose shortest text is long survives the way through a file.
        turned.params.insert("temperature".to_owned(), json!(0.1_f64 + 0.2));
        let line = Call { request: turned.clone(), ..call("hi") }.to_line();
        assert_eq!(key(&Call::from_line(1, &line).unwrap().request, None), key(&turned, None));
    }

    #[test]
    fn damaged_lines_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls.jsonl");
        let good = call("hi").to_line();
        let newer = good.replace("\"recording\":1", "\"recording\":2");
        let strange = good.replace("\"latency_ms\"", "\"latency_us\"");
        std::fs::write(&path, format!("{good}\n\n{}\n{newer}\n{strange}\n{good}\n", &good[..40])).unwrap();
        let problem = read(&path).unwrap_err();
        assert_eq!(problem.code, "bad_recording");
        for words in ["calls.jsonl`: line 3 is no JSON", "; line 4 has the format 2", "; line 5 is no recorded call"] {
            assert!(problem.message.contains(words), "{problem}");
        }
        std::fs::write(&path, format!("{good}\n\n{good}")).unwrap();
        let lines: Vec<usize> = read(&path).unwrap().0.iter().map(|call| call.line).collect();
        assert_eq!(lines, [1, 3]);
        assert!(read(&folder.path().join("none")).is_err());
    }

    #[test]
    fn nothing_is_appended_to_what_is_no_recording() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |text: &str| {
            let path = folder.path().join("file");
            std::fs::write(&path, text).unwrap();
            let problem = RecordingFile::open(&path).unwrap_err();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            problem.message.clone()
        };
        assert!(refused("export PATH=…\n").contains("is no recording; nothing was written"));
        assert!(refused(&call("hi").to_line()).contains("last line is not whole"));
        assert!(RecordingFile::open(&folder.path().join("no/such/folder")).is_err());
    }

    #[test]
    fn many_writers_append_whole_lines_without_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls.jsonl");
        let secrets = [Secret::new("sk-\"0123456789")];
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (path, secrets) = (&path, &secrets);
                scope.spawn(move || {
                    let file = RecordingFile::open(path).unwrap();
                    for number in 0..50 {
                        let text = format!("{writer} {number} sk-\"0123456789 {}", "long ".repeat(2_000));
                        file.append(&call(&text), secrets);
                    }
                });
            }
        });
        let (calls, _) = read(&path).unwrap();
        assert_eq!(calls.len(), 200);
        assert!(calls.iter().all(|call| call.request.messages[1].content.contains(" (secret) long ")));
    }
}
