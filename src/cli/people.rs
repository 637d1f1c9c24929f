//! Questions to the person at the terminal, one after the other, while the rest of the run goes on.
//!
//! A thread of its own asks: it waits for the keyboard, and the run must not. The live view steps aside meanwhile. The end of
//! the input means that nobody is there any more.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

use flowrun_engine::event::Event;
use flowrun_engine::observer::{Observer, Question, Records};
use flowrun_engine::run::{AnswerError, Answers, RunOptions, RunOutcome};
use flowrun_engine::schema::Schema;
use serde_json::Value;

use super::progress::Progress;
use super::run::{example, input_value};
use super::say;
use super::screen;
use crate::render::{clean, visible, wrapped};

/// Most steps that are named at the end of a run.
pub(super) const NAMED_MAX: usize = 5;

/// Keeps what people are asked, and asks who sits at the terminal, if that is wanted and somebody does.
pub(super) fn watch(options: &mut RunOptions, ask: bool, progress: Option<Arc<Progress>>) -> Arc<Questions> {
    if ask && io::stdin().is_terminal() && io::stderr().is_terminal() {
        let answers = Answers::default();
        // Without a thread nobody can be asked, and the run says so at its end.
        if let Ok(people) = People::at_the_terminal(answers.clone(), progress) {
            options.observers.add(Arc::new(people));
            options.answers = Some(answers);
        }
    }
    let questions = Arc::new(Questions::default());
    options.observers.add(questions.clone());
    questions
}

/// Asks the person at the terminal.
struct People {
    questions: Mutex<Sender<Question>>,
    /// Steps that wait for an answer.
    open: Arc<Mutex<BTreeSet<Arc<str>>>>,
}

impl People {
    /// `answers` are those of the run that is watched.
    fn at_the_terminal(answers: Answers, progress: Option<Arc<Progress>>) -> io::Result<Self> {
        let (sender, questions) = mpsc::channel::<Question>();
        let runtime = tokio::runtime::Handle::current();
        let open = Arc::new(Mutex::new(BTreeSet::new()));
        let still_open = open.clone();
        std::thread::Builder::new().name("flowrun-questions".into()).spawn(move || {
            for question in questions {
                let waits = || still_open.lock().expect("BUG: a panic while asking").contains(&question.path);
                if !waits() {
                    continue;
                }
                progress.iter().for_each(|progress| progress.step_aside());
                let is_there = ask(&question, waits, |value| runtime.block_on(answers.answer(&question.path, value)));
                progress.iter().for_each(|progress| progress.come_back());
                if !is_there {
                    return answers.leave();
                }
            }
        })?;
        Ok(Self { questions: Mutex::new(sender), open })
    }
}

impl Observer for People {
    fn wants_values(&self) -> bool {
        false
    }

    /// A step may end without its answer: its time is over, or the run is.
    fn records(&self, records: &Records<'_>) {
        let mut open = self.open.lock().expect("BUG: a panic while asking");
        if open.is_empty() {
            return;
        }
        let ended = records.events().iter().filter(|event| matches!(event, Event::Ended { .. }));
        for step in ended.filter_map(Event::step) {
            open.remove(&records.path(step));
        }
    }

    fn asked(&self, question: &Question) {
        self.open.lock().expect("BUG: a panic while asking").insert(question.path.clone());
        // Nobody is there any more: the run ends when it has nothing else to do.
        let _left = self.questions.lock().expect("BUG: a panic while asking").send(question.clone());
    }
}

/// Remembers what people are asked.
#[derive(Default)]
pub(super) struct Questions(Mutex<Vec<Question>>);

impl Questions {
    /// Those that wait when the run has ended.
    pub(super) fn open(&self, outcome: &RunOutcome) -> Vec<Question> {
        let asked = self.0.lock().expect("BUG: a panic while a question was kept");
        asked.iter().filter(|question| outcome.asked.iter().any(|path| **path == *question.path)).cloned().collect()
    }
}

impl Observer for Questions {
    fn wants_values(&self) -> bool {
        false
    }

    fn asked(&self, question: &Question) {
        self.0.lock().expect("BUG: a panic while a question was kept").push(question.clone());
    }
}

/// What is asked of people, and how it goes on.
pub(super) fn waiting(asked: &[Question], run: &str) -> String {
    let mut text = String::new();
    for question in asked.iter().take(NAMED_MAX) {
        let prompt: Vec<String> = question.prompt.lines().map(|line| format!("  {}\n", visible(line))).collect();
        let wanted = form(question.schema.as_ref());
        text.push_str(&format!("step `{}` asks for {wanted}:\n{}", clean(&question.path), prompt.concat()));
    }
    if asked.len() > NAMED_MAX {
        text.push_str(&format!("and {} more steps ask\n", asked.len() - NAMED_MAX));
    }
    if run.is_empty() {
        let help =
            "help: run it on a terminal and you are asked; with `timeout` and `default` a step answers by itself";
        return text + help;
    }
    let step = asked.first().map(|question| clean(&question.path)).unwrap_or_default();
    let (id, db) = run.split_once(' ').map_or((run, String::new()), |(id, db)| (id, format!(" {db}")));
    text + &format!(
        "help: `flowrun answer {id} '{step}' VALUE{db}` answers, `flowrun resume {run}` on a terminal asks you"
    )
}

/// Asks until there is an answer that fits. Whether somebody is there.
fn ask(
    question: &Question,
    waits: impl Fn() -> bool,
    mut answer: impl FnMut(Value) -> Result<(), AnswerError>,
) -> bool {
    for line in shown(question, screen::size().0) {
        say(&line);
    }
    let wanted = wanted(question.schema.as_ref());
    loop {
        let Some(line) = read_line(&format!("{wanted}> ")) else {
            say("");
            return false;
        };
        if !waits() {
            say(&format!("  {}", AnswerError::NotAsked(clean(&question.path))));
            return true;
        }
        let refused = match read(question.schema.as_ref(), &line).map(&mut answer) {
            Ok(Ok(())) => return true,
            Ok(Err(late @ (AnswerError::NotAsked(_) | AnswerError::NoAnswers))) => {
                say(&format!("  {}", clean(&late.to_string())));
                return true;
            }
            Ok(Err(AnswerError::BadAnswer(reason))) | Err(reason) => reason,
        };
        say(&format!("  {}", clean(&refused)));
    }
}

/// A line from the keyboard; `None` at the end of the input.
fn read_line(prompt: &str) -> Option<String> {
    let mut line = String::new();
    super::write_prompt(prompt);
    match io::stdin().lock().read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim_end_matches(['\n', '\r']).to_owned()),
    }
}

/// What is asked, in lines that fit.
fn shown(question: &Question, columns: usize) -> Vec<String> {
    let mut lines = vec![format!("? {} asks:", clean(&question.path))];
    let indented = |line: String| format!("  {line}");
    lines.extend(wrapped(&question.prompt, columns.saturating_sub(3)).into_iter().map(indented));
    let choices = choices(question.schema.as_ref()).unwrap_or_default().iter().enumerate();
    lines.extend(choices.map(|(number, choice)| format!("  {}. {}", number + 1, text(choice))));
    lines
}

fn choices(schema: Option<&Value>) -> Option<&[Value]> {
    schema?.get("enum")?.as_array().map(Vec::as_slice)
}

fn text(value: &Value) -> String {
    visible(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// What is to be typed.
fn wanted(schema: Option<&Value>) -> String {
    choices(schema).map_or_else(|| form(schema), |choices| format!("a number from 1 to {}", choices.len()))
}

/// The form of an answer in a few words.
pub(super) fn form(schema: Option<&Value>) -> String {
    let kind = schema.and_then(|schema| schema.get("type")?.as_str());
    match (schema, choices(schema), kind) {
        (_, Some(choices), _) => {
            let choices: Vec<String> = choices.iter().map(|choice| format!("`{}`", clean(&text(choice)))).collect();
            choices.join(" or ")
        }
        (_, _, Some("boolean")) => "yes or no".to_owned(),
        (_, _, Some("integer")) => "a whole number".to_owned(),
        (_, _, Some("number")) => "a number".to_owned(),
        (None, ..) | (_, _, Some("string")) => "a text".to_owned(),
        (Some(schema), ..) => format!("JSON such as {}", clean(&example(schema, "a").to_string())),
    }
}

/// The value that a typed line means.
fn read(schema: Option<&Value>, line: &str) -> Result<Value, String> {
    let word = line.trim();
    if let Some(choices) = choices(schema) {
        let by_number = word.parse::<usize>().ok().and_then(|number| choices.get(number.checked_sub(1)?));
        let by_text = || choices.iter().find(|choice| text(choice) == word);
        let unknown = || format!("a number from 1 to {}, or the text itself", choices.len());
        return by_number.or_else(by_text).cloned().ok_or_else(unknown);
    }
    let Some(schema) = schema else { return Ok(Value::String(line.to_owned())) };
    if schema.get("type").is_some_and(|kind| kind == "boolean") {
        return match word.to_lowercase().as_str() {
            "y" | "yes" | "true" => Ok(Value::Bool(true)),
            "n" | "no" | "false" => Ok(Value::Bool(false)),
            _ => Err("`yes` or `no`".to_owned()),
        };
    }
    let schema = Schema::from_json_schema(schema.clone()).map_err(|problem| problem.to_string())?;
    input_value(&schema, line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_means_a_value_of_the_type_that_is_asked_for() {
        let schema = |short: &str| Schema::parse_short(&json!(short)).expect(short).json_schema().clone();
        let read = |short: &str, line: &str| read(Some(&schema(short)), line);
        assert_eq!((read("boolean", " Yes"), read("boolean", "n")), (Ok(json!(true)), Ok(json!(false))));
        assert!(read("boolean", "perhaps").is_err());
        let colour = "red | dark blue";
        assert_eq!((read(colour, "2"), read(colour, "red")), (Ok(json!("dark blue")), Ok(json!("red"))));
        assert!(read(colour, "0").is_err() && read(colour, "3").is_err() && read(colour, "").is_err());
        assert_eq!((read("string", "12 "), read("integer", "12")), (Ok(json!("12 ")), Ok(json!(12))));
        let approval = json!({"approve": "boolean", "comment": "string"});
        let approval = Schema::parse_short(&approval).expect("a schema").json_schema().clone();
        assert_eq!(wanted(Some(&approval)), r#"JSON such as {"approve":true,"comment":"a"}"#);
        let given = super::read(Some(&approval), r#"{"approve": false, "comment": "no"}"#);
        assert_eq!(given, Ok(json!({"approve": false, "comment": "no"})));
        assert!(super::read(Some(&approval), "no").is_err_and(|reason| reason.starts_with("not JSON")));
        assert_eq!(super::read(None, "anything"), Ok(json!("anything")));
    }

    #[test]
    fn a_question_cannot_steer_the_terminal() {
        let schema = json!({"enum": ["a\u{1b}[2J", "b"]});
        let question = Question { path: "x\u{7}".into(), prompt: "one\u{1b}]0;\ntwo".into(), schema: Some(schema) };
        let lines = shown(&question, 40);
        assert_eq!(lines.len(), 5);
        assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:?}");
    }
}
