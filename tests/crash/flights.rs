//! Equal questions of one process are asked once: 64 in one run, those of 8 runs at once, when the first asker fails, and when it is cancelled.

use std::sync::Arc;
use std::time::Duration;

use flowrun::engine::store::Durability;
use flowrun::{
    CancellationToken, DecideField, Event, Flowrun, OpenAi, Run, RunOptions, RunOutcome, SqliteStore, Status, Update,
};
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

async fn join(runs: Vec<Run>) -> Vec<RunOutcome> {
    let mut outcomes = JoinSet::new();
    runs.into_iter().for_each(|run| drop(outcomes.spawn(run.outcome())));
    outcomes.join_all().await
}

/// One program against a server, with a store and without.
struct Office {
    flowrun: Flowrun,
    server: Server,
    with_store: bool,
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
    Office { flowrun: builder.build(), server, with_store, _folder: folder }
}

impl Office {
    /// Begins one run and waits until all its parts ask or wait for one that does.
    async fn begin(&self, text: &str, cancel: CancellationToken) -> Run {
        let workflow = self.flowrun.parse("w.yaml", text).unwrap();
        let options = RunOptions { cancel, max_parallel: 64, ..RunOptions::default() };
        let mut run = self.flowrun.start(&workflow, Value::Null, options).unwrap();
        let mut waiting = 0;
        while waiting < 64 {
            let update = run.next().await.expect("the run goes on");
            let decided = |event: &Event| matches!(event, Event::Decided { field: DecideField::Input, .. });
            waiting += u32::from(matches!(&update, Update::Record(record) if decided(&record.event)));
        }
        run
    }

    /// So many runs at once; what came of each.
    async fn run(&self, text: &str, runs: usize) -> Vec<RunOutcome> {
        let mut all = Vec::new();
        for _ in 0..runs {
            all.push(self.begin(text, CancellationToken::new()).await);
        }
        self.until_held(1).await;
        // What was seen is about to be done.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.server.allow(1 << 10);
        join(all).await
    }

    /// What was asked how often. Without a store an answer is there for those who wait for it, and not for those who come later.
    fn assert_calls(&self, question: &str, times: u64, end: &str) {
        let calls = self.server.calls();
        assert_eq!((calls.len(), calls.get(question)), (2, Some(&times)), "{calls:?}");
        assert!(calls[end] == 1 || !self.with_store, "{calls:?}");
    }

    async fn until_held(&self, calls: usize) {
        while self.server.held() != calls {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_questions_are_asked_once() {
    for with_store in [false, true] {
        for runs in [1, RUNS] {
            let office = office(Server::holding(&[]), with_store);
            let outcomes = office.run(&many("Why?"), runs).await;
            office.assert_calls("Why?", 1, "end 64");
            assert!(
                outcomes
                    .iter()
                    .all(|outcome| outcome.status == Status::Success && outcome.output == outcomes[0].output)
            );
            let paid: u64 = outcomes.iter().map(|outcome| outcome.usage.calls).sum();
            assert_eq!(paid, office.server.calls().values().sum::<u64>(), "every call is on one bill");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_one_that_fails_asks_in_its_place() {
    for with_store in [false, true] {
        for runs in [1, RUNS] {
            let office = office(Server::holding(&[]), with_store);
            let outcomes = office.run(&many("Why? [fail 1]"), runs).await;
            office.assert_calls("Why? [fail 1]", 2, "end 64");
            assert!(outcomes.iter().all(|outcome| outcome.status == Status::Success), "{outcomes:?}");
        }
    }
}

/// Without retries the one that failed fails, and only that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fails_fails_alone() {
    let text = many("Why? [fail 1]").replace("retry: {max: 1, backoff: 20ms}", "retry: 0, on_item_error: drop");
    for with_store in [false, true] {
        let office = office(Server::holding(&[]), with_store);
        let outcomes = office.run(&text, 1).await;
        office.assert_calls("Why? [fail 1]", 2, "end 63");
        assert_eq!(outcomes[0].output.as_ref().unwrap()[0].as_array().unwrap().len(), 63);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_one_that_is_cancelled_asks_in_its_place() {
    for with_store in [false, true] {
        let office = office(Server::holding(&[]), with_store);
        let cancel = CancellationToken::new();
        let first = office.begin(&many("Why?"), cancel.clone()).await;
        office.until_held(1).await;
        let mut others = Vec::new();
        for _ in 1..RUNS {
            others.push(office.begin(&many("Why?"), CancellationToken::new()).await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(office.server.calls()["Why?"], 1);
        cancel.cancel();
        assert_eq!(first.outcome().await.status, Status::Cancelled);
        office.until_held(1).await;
        office.server.allow(1 << 10);
        let outcomes = join(others).await;
        assert!(outcomes.iter().all(|outcome| outcome.status == Status::Success), "{outcomes:?}");
        office.assert_calls("Why?", 2, "end 64");
    }
}

/// With a store it does not matter when the others come: before the answer, as it comes, or later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_begin_at_any_moment_find_the_answer() {
    for round in 0..10 {
        let office = office(Server::open(&[]), true);
        let text = many(&format!("Why? [slow {round}]")).replace("max_parallel: 64", "max_parallel: 1");
        let mut runs = Vec::new();
        for n in 0..RUNS as u64 {
            let workflow = office.flowrun.parse("w.yaml", &text).unwrap();
            runs.push(office.flowrun.start(&workflow, Value::Null, RunOptions::default()).unwrap());
            tokio::time::sleep(Duration::from_millis((n * round) % 5)).await;
        }
        let outcomes = join(runs).await;
        assert!(outcomes.iter().all(|outcome| outcome.status == Status::Success), "{outcomes:?}");
        office.assert_calls(&format!("Why? [slow {round}]"), 1, "end 64");
    }
}
