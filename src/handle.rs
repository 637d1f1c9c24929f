//! A run that goes on in the background, and what comes out of it meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use flowrun_engine::event::Record;
use flowrun_engine::expr::Datum;
use flowrun_engine::id::ValueHash;
use flowrun_engine::observer::{Observer, Question, Records};
use flowrun_engine::run::{AnswerError, Answers, RunOutcome};
use futures_util::Stream;
use indexmap::IndexMap;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Something that a run reports while it goes on.
#[derive(Clone, Debug)]
pub enum Update {
    /// The next entry of the run's log. Values stand in it as hashes: [`Run::value`] has them.
    Record(Record),
    /// Text that a running step produces, as it comes. Never part of the log.
    Tokens {
        /// Path of the step, such as `solve[3]/sub`.
        path: Arc<str>,
        /// The next piece of its text.
        text: String,
    },
    /// A step waits for a person: [`Run::answer`] answers. Where the run takes no answers it ends as `suspended`.
    Asked(Question),
}

/// One execution of a workflow, going on in a task of its own.
///
/// Read it with [`next`](Self::next) or as a [`Stream`] of [`Update`]s, answer what people are asked with
/// [`answer`](Self::answer), end it early with [`cancel`](Self::cancel), and take what came of it with [`outcome`](Self::outcome). Dropping it stops the run where it is, requests in flight included.
/// Updates wait in memory until they are read.
pub struct Run {
    task: Task,
    cancel: CancellationToken,
    answers: Option<Answers>,
    messages: UnboundedReceiver<Message>,
    values: IndexMap<ValueHash, Arc<Datum>>,
}

enum Message {
    Update(Update),
    Value(ValueHash, Arc<Datum>),
}

impl Run {
    pub(crate) fn new(task: Task, cancel: CancellationToken, answers: Option<Answers>, reports: Reports) -> Self {
        Self { task, cancel, answers, messages: reports.0, values: IndexMap::new() }
    }

    /// What the run reports next; `None` once it is over and everything has been read.
    pub async fn next(&mut self) -> Option<Update> {
        std::future::poll_fn(|context| self.poll_update(context)).await
    }

    /// A value that an update mentioned: an input, a step's rendered input, its value, its report.
    pub fn value(&self, hash: ValueHash) -> Option<&Value> {
        self.values.get(&hash).map(|value| value.json())
    }

    /// Answers a step that asks a person, by its path; the first answer that fits counts. Needs [`RunOptions::answers`](crate::RunOptions::answers): a run
    /// without does not wait for people.
    ///
    /// # Errors
    /// [`AnswerError`]; after a `BadAnswer` the step still waits.
    pub async fn answer(&self, path: &str, value: Value) -> Result<(), AnswerError> {
        self.answers.as_ref().ok_or(AnswerError::NoAnswers)?.answer(path, value).await
    }

    /// Nobody answers any more: the run ends as `suspended` when nothing else is left to do.
    pub fn leave(&self) {
        self.answers.iter().for_each(Answers::leave);
    }

    /// Ends the run: it cancels what is in flight and ends as `cancelled`, which the remaining updates tell.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits for the end. Updates that have not been read are dropped.
    pub async fn outcome(mut self) -> RunOutcome {
        self.messages.close();
        while self.messages.try_recv().is_ok() {}
        self.task.outcome().await
    }

    fn poll_update(&mut self, context: &mut Context<'_>) -> Poll<Option<Update>> {
        loop {
            match ready!(self.messages.poll_recv(context)) {
                Some(Message::Value(hash, value)) => _ = self.values.insert(hash, value),
                Some(Message::Update(update)) => return Poll::Ready(Some(update)),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Stream for Run {
    type Item = Update;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Update>> {
        self.poll_update(context)
    }
}

/// The task of a run; it ends with its owner.
pub(crate) struct Task {
    run: JoinHandle<RunOutcome>,
    inbox: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Task {
    pub(crate) fn new(run: JoinHandle<RunOutcome>, inbox: Option<(JoinHandle<()>, CancellationToken)>) -> Self {
        Self { run, inbox }
    }

    pub(crate) async fn outcome(mut self) -> RunOutcome {
        let ended = (&mut self.run).await;
        if let Some((inbox, over)) = self.inbox.take() {
            over.cancel();
            // What it has in hand it judges; whoever sent it waits for that.
            let _panicked = inbox.await;
        }
        match ended {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => panic!("BUG: the task of a run was stopped and is still awaited: {error}"),
            },
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.run.abort();
        self.inbox.iter().for_each(|(inbox, _)| inbox.abort());
    }
}

/// What an [`Observer`] passes on to a [`Run`].
pub(crate) struct Reports(UnboundedReceiver<Message>);

/// An observer, and what it reports.
pub(crate) fn reports() -> (Arc<dyn Observer>, Reports) {
    let (sender, receiver) = unbounded_channel();
    (Arc::new(Channel(sender)), Reports(receiver))
}

struct Channel(UnboundedSender<Message>);

impl Channel {
    fn send(&self, message: Message) {
        // Nobody reads any more: the run goes on all the same.
        let _closed = self.0.send(message);
    }
}

impl Observer for Channel {
    fn value(&self, hash: ValueHash, value: &Arc<Datum>) {
        self.send(Message::Value(hash, value.clone()));
    }

    fn records(&self, records: &Records<'_>) {
        records.iter().for_each(|record| self.send(Message::Update(Update::Record(record))));
    }

    fn asked(&self, question: &Question) {
        self.send(Message::Update(Update::Asked(question.clone())));
    }

    fn tokens(&self, path: &str, text: &str) {
        self.send(Message::Update(Update::Tokens { path: path.into(), text: text.to_owned() }));
    }
}
