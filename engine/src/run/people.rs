//! People who answer: the door through which answers reach a run, and the question that goes out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{Notify, oneshot};

use super::Driver;
use crate::event::Event;
use crate::failure::StepError;
use crate::id::StepId;
use crate::node::Input;
use crate::observer::Question;

/// Why an answer was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The run was begun without [`RunOptions::answers`](super::RunOptions::answers): it waits for nobody.
    #[error("the run takes no answers: `RunOptions::answers` is not set")]
    NoAnswers,
    /// No step of that path waits for an answer: it never did, has one, or the run is over.
    #[error("`{0}` does not wait for an answer")]
    NotAsked(String),
    /// The answer does not fit what was asked for.
    #[error("the answer does not fit: {0}")]
    BadAnswer(String),
}

/// Answers to a run's `human` steps. Part of [`RunOptions`](super::RunOptions): a run that has one waits for answers, one that has
/// none ends as `suspended` when nothing else is left to do. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Answer>,
    /// Nobody is there any more: a run that has nothing else to do ends.
    left: bool,
    /// The run is over: nobody reads the queue any more.
    over: bool,
}

/// What tells whoever gave an answer what became of it.
pub(super) type Taken = oneshot::Sender<Result<(), AnswerError>>;

#[derive(Debug)]
struct Answer {
    path: String,
    value: Value,
    taken: Taken,
}

impl Answers {
    /// Answers a suspended step; the first answer that fits counts.
    ///
    /// # Errors
    /// [`AnswerError`]; after a `BadAnswer` the step still waits.
    pub async fn answer(&self, path: &str, value: Value) -> Result<(), AnswerError> {
        self.hand_in(path, value).await
    }

    /// The same, with the answer handed in before anything is awaited: also before the run is driven.
    pub fn hand_in(&self, path: &str, value: Value) -> impl Future<Output = Result<(), AnswerError>> + Send + use<> {
        let (taken, reply) = oneshot::channel();
        let path = path.to_owned();
        self.put(Answer { path: path.clone(), value, taken });
        self.0.news.notify_one();
        async move { reply.await.unwrap_or(Err(AnswerError::NotAsked(path))) }
    }

    /// Whether the run is over, or has been left by its driver: nobody reads answers any more.
    pub fn is_over(&self) -> bool {
        self.queue().over
    }

    /// After the run nothing is kept, which tells whoever waits for the reply.
    fn put(&self, answer: Answer) {
        let mut queue = self.queue();
        if !queue.over {
            queue.waiting.push_back(answer);
        }
    }

    /// Nobody will answer any more: the run ends as `suspended` when nothing else is left to do.
    pub fn leave(&self) {
        self.queue().left = true;
        self.0.news.notify_one();
    }

    /// Whether there is an answer, or somebody may still give one.
    pub(super) fn may_come(&self) -> bool {
        let queue = self.queue();
        !queue.left || !queue.waiting.is_empty()
    }

    fn next(&self) -> Option<Answer> {
        self.queue().waiting.pop_front()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there may be an answer.
    pub(super) async fn news(&self) {
        self.0.news.notified().await;
    }
}

/// Closes a run's door when the run is over, however it ends: who still waits for a reply gets it.
pub(super) struct Door(pub(super) Option<Answers>);

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(answers) = &self.0 {
            let mut queue = answers.queue();
            queue.over = true;
            queue.waiting.clear();
        }
    }
}

impl Driver {
    /// Asks the people who watch, unless the answer was there before the question had gone out.
    pub(super) fn ask(&self, step: StepId) {
        if !self.scheduler.is_asked(step) {
            return;
        }
        let path = self.scheduler.path(step);
        let input = self.rendered.get(&step);
        let text = |input: &Input| input.fields.get("prompt").and_then(Value::as_str).unwrap_or_default().to_owned();
        let question = Question {
            path,
            prompt: input.map(text).unwrap_or_default(),
            schema: input.and_then(|input| input.schema.as_ref()).map(|schema| schema.json_schema().clone()),
        };
        self.options.observers.iter().for_each(|observer| observer.asked(&question));
    }

    /// The event of the next answer that fits; the others are refused. Whoever gave it is told when it is kept.
    pub(super) fn next_answer(&mut self) -> Option<Event> {
        let answers = self.options.answers.clone()?;
        while let Some(Answer { path, value, taken }) = answers.next() {
            let step = self.asked.get(path.as_str()).copied().filter(|step| self.scheduler.is_asked(*step));
            let schema = step.and_then(|step| self.rendered.get(&step)).and_then(|input| input.schema.as_ref());
            let refused = match (step, schema.map(|schema| schema.validate(&value))) {
                (None, _) => Some(AnswerError::NotAsked(path.clone())),
                (_, Some(Err(reason))) => Some(AnswerError::BadAnswer(reason)),
                _ => None,
            };
            let too_large = |error: StepError| AnswerError::BadAnswer(error.message.clone());
            let result = match refused {
                Some(refused) => Err(refused),
                None => self.values.store_output(value).map_err(too_large),
            };
            match (result, step) {
                (Ok(value), Some(step)) => {
                    self.asked.remove(path.as_str());
                    self.journal.owe(taken);
                    return Some(Event::Answered { step, value });
                }
                (result, _) => _ = taken.send(result.map(|_| ())),
            }
        }
        None
    }
}
