//! Equal questions of one process are asked once: 64 in one run, those of 8 runs at once, when the first asker fails, and when it is cancelled.

use std::sync::Arc;
use std::time::Duration;

use flowrun::engine::store::Durability;
use flowrun::{CancellationToken, Flowrun, OpenAi, RunOptions, RunOutcome, SqliteStore, Status};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::server::Server;

const RUNS: usize = 8;

/// The parts ask one question 64 times; the end asks another once.
fn many(question: &str) -> String {
    let items = json!(vec![question; 64]);
    format!(
        "flowrun: 1\nnodes:\n  parts: {{for_each: '{items}', prompt: \"{{{{ item }}}}\", retry: {{max: 1, backoff: 20ms}}, \
         max_parallel: 64}}\n  end: {{prompt: \"end {{{{ parts | length }}}}\"}}\noutput: [parts, end]\n"
    )
}

/// One program against a server, with a store and without.
struct Office {
    flowrun: Flowrun,
    server: Server,
    _folder: TempDir,
}

fn office(server: Server, with_store: bool) -> Office {
    let folder = TempDir::new().unwrap();
    let model = OpenAi::new(server.url(), "m", None, None).unwrap();
    let mut builder = Flowrun::builder().model("default", model);
    if with_store {
        let store = SqliteStore::open(&folder.path().join("flowrun.db"), Durability::Normal).unwrap();
        builder = builder.store(Arc::new(store), Durability::Normal);
    }
    Office { flowrun: builder.build(), server, _folder: folder }
}

impl Office {
    /// Begins one run.
    fn begin(&self, text: &str, cancel: CancellationToken) -> impl Future<Output = RunOutcome> + Send + use<> {
        let workflow = self.flowrun.parse("w.yaml", text).unwrap();
        let options = RunOptions { cancel, max_parallel: 64, ..RunOptions::default() };
        let run = self.flowrun.start(&workflow, Value::Null, options).unwrap();
        async move { run.outcome().await }
    }

    /// So many runs at once; what came of each.
    async fn run(&self, text: &str, runs: usize) -> Vec<RunOutcome> {
        let mut all = JoinSet::new();
        (0..runs).for_each(|_| drop(all.spawn(self.begin(text, CancellationToken::new()))));
        all.join_all().await
    }

    fn calls(&self) -> Vec<(String, u64)> {
        self.server.calls().into_iter().collect()
    }

    async fn until_held(&self, calls: usize) {
        while self.server.held() != calls {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn calls(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(prompt, calls)| ((*prompt).to_owned(), *calls)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_questions_are_asked_once() {
    for with_store in [false, true] {
        for runs in [1, RUNS] {
            let office = office(Server::open(&[]), with_store);
            let outcomes = office.run(&many("Why? [slow 20]"), runs).await;
            assert_eq!(office.calls(), calls(&[("Why? [slow 20]", 1), ("end 64", 1)]), "{runs} runs");
            assert!(
                outcomes
                    .iter()
                    .all(|outcome| outcome.status == Status::Success && outcome.output == outcomes[0].output)
            );
            let paid: u64 = outcomes.iter().map(|outcome| outcome.usage.calls).sum();
            assert_eq!(paid, 2, "what was asked once is on one bill");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_one_that_fails_asks_in_its_place() {
    for with_store in [false, true] {
        for runs in [1, RUNS] {
            let office = office(Server::open(&[]), with_store);
            let outcomes = office.run(&many("Why? [slow 20] [fail 1]"), runs).await;
            assert_eq!(office.calls(), calls(&[("Why? [slow 20] [fail 1]", 2), ("end 64", 1)]), "{runs} runs");
            assert!(outcomes.iter().all(|outcome| outcome.status == Status::Success), "{outcomes:?}");
        }
    }
}

/// Without retries the one that failed fails, and only that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fails_fails_alone() {
    let text =
        many("Why? [slow 20] [fail 1]").replace("retry: {max: 1, backoff: 20ms}", "retry: 0, on_item_error: drop");
    for with_store in [false, true] {
        let office = office(Server::open(&[]), with_store);
        let outcomes = office.run(&text, 1).await;
        assert_eq!(office.calls(), calls(&[("Why? [slow 20] [fail 1]", 2), ("end 63", 1)]));
        assert_eq!(outcomes[0].output.as_ref().unwrap()[0].as_array().unwrap().len(), 63);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_one_that_is_cancelled_asks_in_its_place() {
    for with_store in [false, true] {
        let office = office(Server::holding(&[]), with_store);
        let cancel = CancellationToken::new();
        let first = tokio::spawn(office.begin(&many("Why?"), cancel.clone()));
        office.until_held(1).await;
        let mut others = JoinSet::new();
        (1..RUNS).for_each(|_| drop(others.spawn(office.begin(&many("Why?"), CancellationToken::new()))));
        // They come to wait, as far as anybody can see; the first is given up whether all of them do or not.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(office.calls(), calls(&[("Why?", 1)]));
        cancel.cancel();
        assert_eq!(first.await.unwrap().status, Status::Cancelled);
        office.until_held(1).await;
        office.server.allow(1 << 10);
        let outcomes = others.join_all().await;
        assert!(outcomes.iter().all(|outcome| outcome.status == Status::Success), "{outcomes:?}");
        assert_eq!(office.calls(), calls(&[("Why?", 2), ("end 64", 1)]));
    }
}
