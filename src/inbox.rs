//! Answers from other processes: letters in the store, taken to the run that they are for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use flowrun_engine::event::Logged;
use flowrun_engine::id::ValueHash;
use flowrun_engine::run::{AnswerError, Answers};
use flowrun_engine::store::{Letter, Store};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

/// How often the store is asked.
const PAUSE: Duration = Duration::from_millis(200);

type Judged = Pin<Box<dyn Future<Output = (Posted, Result<(), AnswerError>)> + Send>>;

/// A letter that was handed in.
struct Posted {
    number: u64,
    step: String,
    value: ValueHash,
}

/// Takes the letters of a run to it for as long as it is driven, those that wait already before it begins.
pub(crate) struct Inbox {
    store: Arc<dyn Store>,
    run: String,
    answers: Answers,
    handed_in: Vec<u64>,
    judged: FuturesUnordered<Judged>,
}

impl Inbox {
    /// Hands in what waits.
    pub(crate) fn new(store: Arc<dyn Store>, run: &str, answers: Answers) -> Self {
        let (handed_in, judged) = (Vec::new(), FuturesUnordered::new());
        let mut inbox = Self { store, run: run.to_owned(), answers, handed_in, judged };
        // Letters that cannot be read now are looked for again.
        let letters = inbox.store.letters(run).unwrap_or_default();
        inbox.hand_in(letters);
        inbox
    }

    fn hand_in(&mut self, letters: Vec<Letter>) {
        for Letter { number, step, value } in letters {
            if !self.handed_in.contains(&number) {
                self.handed_in.push(number);
                let posted = Posted { number, value: ValueHash::of(&value), step };
                let taken = self.answers.hand_in(&posted.step, value);
                self.judged.push(Box::pin(async move { (posted, taken.await) }));
            }
        }
    }

    /// Goes on until the run is over. A letter that came too late for this driver is left for the next one.
    pub(crate) async fn serve(mut self, over: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                Some((letter, result)) = self.judged.next() => self.judge(letter, result).await,
                () = over.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {
                    let (store, run) = (self.store.clone(), self.run.clone());
                    let letters = tokio::task::spawn_blocking(move || store.letters(&run).unwrap_or_default());
                    let letters = letters.await.unwrap_or_default();
                    self.hand_in(letters);
                }
            }
        }
    }

    /// A verdict that cannot be written now is asked for again by whoever drives the run next.
    fn judge(&self, letter: Posted, result: Result<(), AnswerError>) -> impl Future<Output = ()> + Send + use<> {
        let (store, run, over) = (self.store.clone(), self.run.clone(), self.answers.is_over());
        let judge = move || {
            // The driver before may have taken it and not said so.
            let is_late = matches!(result, Err(AnswerError::NotAsked(_)));
            let verdict = match result {
                Err(_) if is_late && was_taken(&*store, &run, &letter.step, letter.value) => Ok(()),
                result => result.map_err(|error| error.to_string()),
            };
            if verdict.is_ok() || !over {
                let _not_written = store.judge(letter.number, &verdict);
            }
        };
        async move {
            // Where the runtime ends nobody waits for a verdict.
            let _ending = tokio::task::spawn_blocking(judge).await;
        }
    }
}

/// Whether the log of a run has an answer of that value to a step.
pub(crate) fn was_taken(store: &dyn Store, run: &str, step: &str, value: ValueHash) -> bool {
    let log = store.log(run, 0).unwrap_or_default();
    let lines = log.iter().flat_map(|stored| stored.lines.lines());
    let mut logged = lines.filter_map(|line| Logged::parse(line).ok());
    logged.any(|event| {
        event.kind == "answered"
            && event.step == step
            && event.text("value").and_then(ValueHash::from_hex) == Some(value)
    })
}
