//! Never pay twice: what a run looks at before it pays for an answer.
//!
//! A *key* is the hash of everything that an answer depends on: kind and version, rendered input, model and parameters, sample, salt;
//! the number of the pass is not in it. Answers come from four places: the run itself, attempts of other runs of this process that
//! are in flight ([`Flights`]), a [`Store`](crate::store::Store), and in a replay the run that is replayed ([`Memo`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::event::{Logged, Usage};
use crate::expr::Datum;
use crate::id::ValueHash;

/// Where an answer was found that a step did not have to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Kept by an earlier run, or earlier in this one.
    Cache,
    /// Made by another step at the same time.
    Flight,
    /// Part of the run that is replayed.
    Replay,
    /// Set by whoever replays.
    Correction,
}

impl Source {
    /// The word in the log.
    pub fn word(self) -> &'static str {
        match self {
            Source::Cache => "cache",
            Source::Flight => "flight",
            Source::Replay => "replay",
            Source::Correction => "correction",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Cache, Self::Flight, Self::Replay, Self::Correction].into_iter().find(|source| source.word() == word)
    }
}

/// An answer that somebody else paid for.
#[derive(Clone, Debug)]
pub struct Found {
    /// The answer, before `schema` and `output`.
    pub value: Arc<Datum>,
    /// Where it was found.
    pub source: Source,
    /// The run that paid; empty: one that is not recorded.
    pub run: Arc<str>,
    /// The path of the step that paid.
    pub step: Arc<str>,
    /// What was paid.
    pub usage: Usage,
}

impl Found {
    /// What the log says of it.
    pub fn provenance(&self) -> Value {
        let run = Some(&*self.run).filter(|run| !run.is_empty());
        json!({"from": {"how": self.source.word(), "run": run, "step": *self.step, "usage": self.usage}})
    }

    /// The answer that such a provenance tells of; `None`: it is that of an attempt.
    pub(crate) fn told(provenance: &Value, value: Arc<Datum>) -> Option<Self> {
        let from = &provenance["from"];
        let source = from["how"].as_str().and_then(Source::of_word)?;
        let text = |key: &str| from[key].as_str().unwrap_or_default().into();
        let usage = Usage::deserialize(&from["usage"]).ok()?;
        Some(Self { value, source, run: text("run"), step: text("step"), usage })
    }
}

/// How the attempts under one key stand.
#[derive(Debug)]
enum Flight {
    /// One of those who ask is at it.
    Leads,
    /// Who was at it gave up; the first follower to see that goes on in its place.
    Vacant,
    /// There is an answer.
    Landed(Found),
}

type Channel = Arc<watch::Sender<Flight>>;

/// Attempts in flight by key, for runs that share them: equal questions of one process are asked once at a time. Cheap to clone:
/// clones share.
#[derive(Clone, Debug, Default)]
pub struct Flights(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    by_key: BTreeMap<ValueHash, Channel>,
    /// How many gave an answer and are over.
    landed: u64,
}

impl Flights {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an attempt under this key will give, if one is in flight.
    pub(crate) fn follow(&self, key: ValueHash) -> Option<Follower> {
        let open = self.open();
        let channel = open.by_key.get(&key).filter(|channel| !is_vacant(channel))?;
        Some(Follower::new(self, key, channel))
    }

    /// Leads the attempts under this key, or follows the one that does.
    pub(crate) fn join(&self, key: ValueHash) -> Result<Leader, Follower> {
        let mut open = self.open();
        let channel = open.by_key.entry(key).or_insert_with(|| Arc::new(watch::Sender::new(Flight::Vacant))).clone();
        if is_vacant(&channel) {
            return Ok(Leader::new(self, key, channel));
        }
        Err(Follower::new(self, key, &channel))
    }

    /// How many flights gave an answer and are over: whoever saw neither a flight nor a kept answer before that number changed may
    /// find one now.
    pub(crate) fn landed(&self) -> u64 {
        self.open().landed
    }
}

fn is_vacant(channel: &Channel) -> bool {
    matches!(*channel.borrow(), Flight::Vacant)
}

/// The right and the duty of one attempt to ask for all. Dropped without [`landed`](Self::landed) it leaves them to a follower.
/// Whoever comes while it is not dropped has the answer from it: so it is held until the answer is kept.
#[derive(Debug)]
pub(crate) struct Leader {
    flights: Flights,
    key: ValueHash,
    channel: Channel,
}

impl Leader {
    fn new(flights: &Flights, key: ValueHash, channel: Channel) -> Self {
        channel.send_replace(Flight::Leads);
        Self { flights: flights.clone(), key, channel }
    }

    /// Hands the answer on.
    pub(crate) fn landed(&self, found: Found) {
        self.channel.send_replace(Flight::Landed(found));
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let mut open = self.flights.open();
        let landed = matches!(*self.channel.borrow(), Flight::Landed(_));
        if landed || self.channel.receiver_count() == 0 {
            open.by_key.remove(&self.key);
            open.landed += u64::from(landed);
        } else {
            self.channel.send_replace(Flight::Vacant);
        }
    }
}

/// Waits for the answer of a leader.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    flights: Flights,
    key: ValueHash,
    channel: Channel,
    news: watch::Receiver<Flight>,
}

impl Follower {
    fn new(flights: &Flights, key: ValueHash, channel: &Channel) -> Self {
        Self { flights: flights.clone(), key, channel: channel.clone(), news: channel.subscribe() }
    }

    /// The answer; `None` if the leader failed or was given up, and nobody has taken its place.
    pub(crate) async fn landing(&mut self) -> Option<Found> {
        loop {
            match &*self.news.borrow_and_update() {
                Flight::Landed(found) => return Some(found.clone()),
                Flight::Vacant => return None,
                Flight::Leads => {}
            }
            // The sender is this follower's too.
            let _open = self.news.changed().await;
        }
    }

    /// Takes the place of a leader that failed, unless another follower has. That one may have an answer by now.
    pub(crate) fn take_over(&self) -> Option<Leader> {
        let _open = self.flights.open();
        is_vacant(&self.channel).then(|| Leader::new(&self.flights, self.key, self.channel.clone()))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut open = self.flights.open();
        // The last one leaves nothing behind.
        if is_vacant(&self.channel) && self.channel.receiver_count() == 1 {
            open.by_key.remove(&self.key);
        }
    }
}

/// What is remembered of a run that is replayed: its answers by key.
#[derive(Clone, Debug, Default)]
pub struct Memo {
    run: Arc<str>,
    answers: BTreeMap<ValueHash, Vec<Remembered>>,
}

/// One answer of the run that is replayed.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    pub(crate) value: ValueHash,
    pub(crate) step: Arc<str>,
    pub(crate) usage: Usage,
}

impl Memo {
    /// What the log of a run tells of its answers; `value` looks values up, for what was paid for those that it had found itself.
    pub fn new<'l>(
        run: &str,
        log: impl IntoIterator<Item = &'l Logged>,
        value: impl Fn(ValueHash) -> Option<Value>,
    ) -> Self {
        let mut memo = Self { run: run.into(), answers: BTreeMap::new() };
        let mut keys: BTreeMap<&str, ValueHash> = BTreeMap::new();
        let hash = |event: &Logged, field: &str| event.text(field).and_then(ValueHash::from_hex);
        for event in log {
            if let Some(key) = hash(event, "key") {
                keys.insert(&event.step, key);
            }
            let failed = event.kind == "ended" && event.text("state") == Some("failed");
            if let Some(answers) = keys.get(event.step.as_str()).and_then(|key| memo.answers.get_mut(key))
                && (failed || event.kind == "backoff")
            {
                // It was an answer, and not one that would do.
                answers.retain(|answer| *answer.step != *event.step);
            }
            let settles = matches!(event.kind.as_str(), "settled" | "answered");
            if let (true, Some(answer), Some(key)) = (settles, hash(event, "value"), keys.get(event.step.as_str())) {
                let told = hash(event, "provenance").filter(|_| event.usage() == Usage::default()).and_then(&value);
                let from = told.as_ref().and_then(|told| told.get("from"));
                let paid = from.and_then(|from| Usage::deserialize(&from["usage"]).ok());
                let usage = paid.unwrap_or_else(|| event.usage());
                // What somebody has set is no answer to the question: whoever replays such a run sets it again.
                if from.is_some_and(|from| from["how"] == Source::Correction.word()) {
                    continue;
                }
                let remembered = Remembered { value: answer, step: event.step.as_str().into(), usage };
                memo.answers.entry(*key).or_default().push(remembered);
            }
        }
        memo
    }

    /// The run that is replayed.
    pub(crate) fn run(&self) -> &Arc<str> {
        &self.run
    }

    /// The answer under a key: that of the same step if there is one, else anybody's, unless only the same step will do.
    pub(crate) fn get(&self, key: ValueHash, step: &str, same_step: bool) -> Option<&Remembered> {
        let answers = self.answers.get(&key)?;
        let same = answers.iter().find(|answer| *answer.step == *step);
        same.or_else(|| answers.iter().find(|_| !same_step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        let (value, usage) = (Datum::new(json!("it")), Usage::default());
        Found { value, source: Source::Flight, run: "".into(), step: "a".into(), usage }
    }

    #[tokio::test]
    async fn one_follower_takes_the_place_of_a_leader_that_failed_and_the_others_have_its_answer() {
        let (flights, key) = (Flights::default(), ValueHash::of_bytes(b"key"));
        let leader = flights.join(key).unwrap();
        let (mut quick, mut slow) = (flights.join(key).unwrap_err(), flights.follow(key).unwrap());
        drop(leader);
        assert!(flights.follow(key).is_none(), "nobody is at it");
        assert!(quick.landing().await.is_none());
        let leader = quick.take_over().unwrap();
        assert!(slow.take_over().is_none() && flights.join(key).is_err());
        leader.landed(found());
        assert!(flights.join(key).unwrap_err().landing().await.is_some(), "as long as it is held");
        drop(leader);
        assert!(slow.landing().await.is_some(), "it has slept through all of it");
        assert_eq!((flights.landed(), flights.open().by_key.len()), (1, 0));
        assert!(flights.join(key).is_ok());
    }

    #[test]
    fn followers_that_go_leave_nothing_behind() {
        let (flights, key) = (Flights::default(), ValueHash::of_bytes(b"key"));
        let leader = flights.join(key).unwrap();
        let followers = [flights.join(key).unwrap_err(), flights.follow(key).unwrap()];
        drop(leader);
        assert_eq!(flights.open().by_key.len(), 1);
        drop(followers);
        assert_eq!((flights.landed(), flights.open().by_key.len()), (0, 0));
    }
}
