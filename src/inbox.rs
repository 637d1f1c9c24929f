//! Answers from other processes: letters in the store, taken to the run that they are for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use flowrun_engine::run::{AnswerError, Answers};
use flowrun_engine::store::Store;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

/// How often the store is asked.
const PAUSE: Duration = Duration::from_millis(200);

type Judged = Pin<Box<dyn Future<Output = (u64, Result<(), AnswerError>)> + Send>>;

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
        inbox.look();
        inbox
    }

    /// Letters that cannot be read now are looked for again.
    fn look(&mut self) {
        for letter in self.store.letters(&self.run).unwrap_or_default() {
            if !self.handed_in.contains(&letter.number) {
                self.handed_in.push(letter.number);
                let taken = self.answers.hand_in(&letter.step, letter.value);
                self.judged.push(Box::pin(async move { (letter.number, taken.await) }));
            }
        }
    }

    /// Goes on until the run is over. A letter that came too late for this driver is left for the next one.
    pub(crate) async fn serve(mut self, over: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                Some((letter, result)) = self.judged.next() => self.judge(letter, result),
                () = over.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => self.look(),
            }
        }
    }

    /// A verdict that cannot be written now is asked for again by whoever drives the run next.
    fn judge(&self, letter: u64, result: Result<(), AnswerError>) {
        if result.is_ok() || !self.answers.is_over() {
            let _not_written = self.store.judge(letter, &result.map_err(|error| error.to_string()));
        }
    }
}
