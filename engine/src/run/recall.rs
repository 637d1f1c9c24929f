//! Answers that need not be made: keys, look-ups, and steps that wait for the answer of another.
//!
//! A leaf whose input is known asks here before it queues. The answer may be kept; it may be on its way in this run (the first
//! step under a key *owns* it, from its turn in the queue on) or in another run of the process (from the start of an attempt on). Steps
//! that wait for one hold no slot and no allowance. If nothing comes of it the first of them makes it, under its own retries.
//! No step that holds a slot waits for one that has none, so nothing can wait in a circle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::stream::FuturesUnordered;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::evaluate::Evaluated;
use super::input::constant_input;
use super::{Driver, RunOptions};
use crate::cache::{Flights, Follower, Found, Leader, Memo, Source};
use crate::definition::CacheScope;
use crate::event::{AttemptReport, Event, Usage};
use crate::expr::Datum;
use crate::graph::NodeCode;
use crate::id::{ById, StepId, ValueHash};
use crate::node::Input;
use crate::scheduler::Scope;
use crate::store::CacheEntry;

/// The key of a leaf, and how far its answer goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) hash: ValueHash,
    pub(super) scope: CacheScope,
    /// How many answers of other runs had landed when this one was looked for; `None`: in another process.
    pub(super) looked: Option<u64>,
}

/// The step whose answer others of this run wait for.
struct Owner {
    step: StepId,
    followers: VecDeque<StepId>,
}

/// An answer that this run has made or found.
struct Known {
    value: ValueHash,
    run: Arc<str>,
    step: Arc<str>,
    usage: Usage,
}

type Awaited = Pin<Box<dyn Future<Output = (StepId, ValueHash, Option<Found>)> + Send>>;

/// What a run knows of answers.
#[derive(Default)]
pub(super) struct Recall {
    pub(super) flights: Flights,
    /// Those of this run alone, of steps whose answers go no further.
    inner_flights: Flights,
    /// How many attempts of this run have landed in `flights`.
    pub(super) own_landed: u64,
    memo: Option<Arc<Memo>>,
    corrections: BTreeMap<String, Value>,
    /// Whether no entry of the store is read.
    fresh: bool,
    /// Keys of leaves that have not ended.
    keys: IndexMap<StepId, Key, ById>,
    /// Those whose key is not the one that the log names.
    rekeyed: BTreeSet<StepId>,
    known: BTreeMap<ValueHash, Known>,
    owners: BTreeMap<ValueHash, Owner>,
    found: VecDeque<(StepId, Found)>,
    missed: VecDeque<StepId>,
    pub(super) awaited: FuturesUnordered<Awaited>,
}

impl Recall {
    pub(super) fn new(options: &RunOptions) -> Self {
        Self {
            flights: options.flights.clone(),
            memo: options.memo.clone(),
            corrections: options.corrections.clone(),
            fresh: options.fresh,
            ..Self::default()
        }
    }

    /// How many answers other runs of the process have given that may be kept by now.
    fn landed(&self) -> u64 {
        self.flights.landed().saturating_sub(self.own_landed)
    }
}

impl Driver {
    /// The key of a leaf, where anybody may ask for it. What it is made of is kept as a value, so that it can be explained.
    pub(super) fn key(
        &mut self,
        step: StepId,
        code: &NodeCode,
        input: &Input,
        hash: ValueHash,
    ) -> Evaluated<Option<Key>> {
        let scope = code.cache.scope;
        if scope == CacheScope::Off && self.journal.store().is_none() && self.recall.memo.is_none() {
            return Ok(None);
        }
        let mut parts = Map::new();
        parts.insert("kind".to_owned(), json!(code.kind));
        parts.insert("version".to_owned(), json!(code.spec.as_ref().map_or(0, |spec| spec.version)));
        match &code.cache.key {
            Some(key) => parts.insert("key".to_owned(), self.tree(Scope::Step(step), "key", Some(key), None)?),
            None => parts.insert("input".to_owned(), json!(hash)),
        };
        let identity = self.kinds.node(&code.kind).map_or(Value::Null, |kind| kind.identity(input));
        if !identity.is_null() {
            parts.insert("identity".to_owned(), identity);
        }
        if let Some(sample) = self.scheduler.sample(step) {
            parts.insert("sample".to_owned(), json!(sample));
        }
        if let Some(salt) = &code.cache.salt {
            parts.insert("salt".to_owned(), self.tree(Scope::Step(step), "salt", Some(salt), None)?);
        }
        let text = Value::Object(parts).to_string();
        let hash = ValueHash::of_bytes(text.as_bytes());
        if scope != CacheScope::Off {
            self.values.save(hash, &text);
        }
        Ok(Some(Key { hash, scope, looked: Some(self.recall.landed()) }))
    }

    /// Whether a leaf's answer is there or on its way; if not, the step makes it, and others may wait for it.
    pub(super) fn recall(&mut self, step: StepId, key: Option<Key>, code: &NodeCode) -> bool {
        if let Some(found) = self.remembered(step, key) {
            self.recall.found.push_back((step, found));
            return true;
        }
        let Some(key) = key else { return false };
        let Key { hash, scope, .. } = key;
        self.recall.keys.insert(step, key);
        if scope == CacheScope::Off {
            return false;
        }
        if let Some(found) = self.kept(hash, code.cache.ttl_ms, scope) {
            self.recall.found.push_back((step, found));
            return true;
        }
        if let Some(owner) = self.recall.owners.get_mut(&hash) {
            owner.followers.push_back(step);
            return true;
        }
        if scope == CacheScope::Shared
            && let Some(flight) = self.recall.flights.follow(hash)
        {
            self.recall.awaited.push(follow(step, hash, flight));
            return true;
        }
        self.recall.owners.insert(hash, Owner { step, followers: VecDeque::new() });
        false
    }

    /// What whoever replays has set, or the run that is replayed has given.
    pub(super) fn remembered(&self, step: StepId, key: Option<Key>) -> Option<Found> {
        if self.recall.corrections.is_empty() && self.recall.memo.is_none() {
            return None;
        }
        let path = self.scheduler.path(step);
        if let Some(value) = self.corrected(step) {
            let (value, usage) = (Datum::new(value), Usage::default());
            return Some(Found {
                value,
                source: Source::Correction,
                run: self.journal.run().into(),
                step: path,
                usage,
            });
        }
        let (key, memo) = (key?, self.recall.memo.as_ref()?);
        let answer = memo.get(key.hash, &path, key.scope == CacheScope::Off)?;
        let value = self.stored(answer.value)?;
        Some(Found {
            value,
            source: Source::Replay,
            run: memo.run().clone(),
            step: answer.step.clone(),
            usage: answer.usage,
        })
    }

    /// The value that whoever replays has set for a step.
    pub(super) fn corrected(&self, step: StepId) -> Option<Value> {
        if self.recall.corrections.is_empty() {
            return None;
        }
        self.recall.corrections.get(&*self.scheduler.path(step)).cloned()
    }

    /// What this run or the store has under a key, if it is not too old.
    fn kept(&self, key: ValueHash, ttl_ms: Option<u64>, scope: CacheScope) -> Option<Found> {
        if let Some(known) = self.recall.known.get(&key) {
            let (run, step, usage) = (known.run.clone(), known.step.clone(), known.usage);
            return Some(Found {
                value: self.values.get(known.value).clone(),
                source: Source::Cache,
                run,
                step,
                usage,
            });
        }
        let store = self.journal.store().filter(|_| scope == CacheScope::Shared && !self.recall.fresh)?;
        let entry = match store.entry(key) {
            Ok(entry) => entry?,
            Err(error) => {
                tracing::warn!(target: "flowrun", "the cache could not be read: {error}");
                return None;
            }
        };
        if ttl_ms.is_some_and(|ttl_ms| entry.created_ms.saturating_add(ttl_ms) < now_ms()) {
            return None;
        }
        let (run, step) = (entry.run.as_str().into(), entry.step.as_str().into());
        Some(Found { value: self.stored(entry.value)?, source: Source::Cache, run, step, usage: entry.usage })
    }

    /// A value of the store. One that cannot be read counts as not there: the step makes it anew.
    pub(super) fn stored(&self, hash: ValueHash) -> Option<Arc<Datum>> {
        match self.journal.store()?.value(hash) {
            Ok(text) => Datum::parse(&text?),
            Err(error) => {
                tracing::warn!(target: "flowrun", "a value could not be read: {error}");
                None
            }
        }
    }

    /// What a leaf with nothing to decide is to give, found as it starts.
    pub(super) fn remembered_late(&self, step: StepId, key: Option<Key>) -> Option<Found> {
        let nothing_decided = self.scheduler.input(step).is_none();
        nothing_decided.then(|| self.remembered(step, key)).flatten()
    }

    /// What an attempt finds that is about to make an answer: it follows another that failed or was cut off, or another run has
    /// landed an answer since this one was looked for.
    pub(super) fn kept_late(&self, attempt: u32, key: Option<Key>, code: &NodeCode) -> Option<Found> {
        let Key { hash, scope, looked } = key.filter(|key| key.scope != CacheScope::Off)?;
        let may_be_there = attempt > 1 || looked != Some(self.recall.landed());
        may_be_there.then(|| self.kept(hash, code.cache.ttl_ms, scope)).flatten()
    }

    /// Leads the attempts under a key from now on, or follows the one that does.
    pub(super) fn join(&self, key: Option<Key>) -> Option<Result<Leader, Follower>> {
        let Key { hash, scope, .. } = key?;
        match scope {
            CacheScope::Shared => Some(self.recall.flights.join(hash)),
            CacheScope::Run => Some(self.recall.inner_flights.join(hash)),
            CacheScope::Off => None,
        }
    }

    /// The key of a leaf whose input is the same for every step, so that nothing was decided about it.
    pub(super) fn bare_key(&mut self, step: StepId, code: &NodeCode) -> Option<Key> {
        let asked_for = self.journal.store().is_some() || self.recall.memo.is_some();
        if !asked_for || self.scheduler.input(step).is_some() {
            return None;
        }
        let input = constant_input(code);
        let hash = self.announce(code, &input);
        self.key(step, code, &input, hash).ok().flatten()
    }

    /// The key that no decision about an input has named.
    pub(super) fn undecided(&self, step: StepId, key: Option<Key>) -> Option<ValueHash> {
        let is_unnamed = self.scheduler.input(step).is_none() || self.recall.rekeyed.contains(&step);
        key.filter(|_| is_unnamed).map(|key| key.hash)
    }

    /// The key under which a step that goes on asks, where that is not the one that the log names.
    pub(super) fn note_changed_key(&mut self, step: StepId, logged: Key, key: Key) {
        if key.hash != logged.hash {
            self.recall.rekeyed.insert(step);
            self.recall.keys.insert(step, key);
        }
    }

    /// The key of a leaf that has not ended.
    pub(super) fn key_of(&self, step: StepId) -> Option<Key> {
        self.recall.keys.get(&step).copied()
    }

    /// The event of the next held step that has its answer, or makes it itself.
    pub(super) fn recalled(&mut self) -> Option<Event> {
        while let Some((step, found)) = self.recall.found.pop_front() {
            if self.scheduler.is_held(step) {
                return Some(self.found_event(step, 0, found, None));
            }
        }
        while let Some(step) = self.recall.missed.pop_front() {
            if self.scheduler.is_held(step) {
                return Some(Event::Missed { step });
            }
        }
        None
    }

    /// The event of an answer that was found.
    pub(super) fn found_event(&mut self, step: StepId, attempt: u32, found: Found, key: Option<ValueHash>) -> Event {
        let provenance = Some(self.values.store(found.provenance()));
        if found.source != Source::Correction {
            self.found.steps += 1;
            self.found.usage += found.usage;
        }
        let value = self.values.store(found.value.json().clone());
        if let Some(key) = self.recall.keys.get(&step).filter(|key| key.scope != CacheScope::Off) {
            let Found { run, step, usage, .. } = found;
            self.recall.known.entry(key.hash).or_insert(Known { value, run, step, usage });
        }
        let report = AttemptReport { usage: Usage::default(), provenance, key };
        Event::Settled { step, attempt, result: Ok(value), report: report.boxed() }
    }

    /// An attempt gave an answer: it is kept, and those who wait for it have it.
    pub(super) fn paid(
        &mut self,
        step: StepId,
        key: Key,
        value: ValueHash,
        usage: Usage,
        code: &NodeCode,
    ) -> Option<Found> {
        if key.scope == CacheScope::Off {
            return None;
        }
        let datum = self.values.get(value).clone();
        if code.schema.as_ref().is_some_and(|schema| schema.validate(datum.json()).is_err()) {
            return None;
        }
        let (run, path): (Arc<str>, Arc<str>) = (self.journal.run().into(), self.scheduler.path(step));
        let known = Known { value, run: run.clone(), step: path.clone(), usage };
        self.recall.known.insert(key.hash, known);
        if key.scope == CacheScope::Shared && self.journal.store().is_some() {
            self.journal.enter(CacheEntry {
                key: key.hash,
                value,
                kind: code.kind.clone(),
                node: self.scheduler.name(step).to_owned(),
                run: run.to_string(),
                step: path.to_string(),
                usage,
                created_ms: now_ms(),
            });
        }
        let found = Found { value: datum, source: Source::Flight, run, step: path, usage };
        if let Some(owner) = self.recall.owners.remove(&key.hash) {
            let followers = owner.followers.into_iter().filter(|follower| *follower != step);
            self.recall.found.extend(followers.map(|follower| (follower, found.clone())));
        }
        Some(found)
    }

    /// A step makes no answer for the moment, or never will: those who wait for it see to themselves.
    pub(super) fn disown(&mut self, step: StepId, ended: bool) {
        let Some(Key { hash, .. }) = self.recall.keys.get(&step).copied() else { return };
        if ended {
            self.recall.keys.swap_remove(&step);
        }
        if self.recall.owners.get(&hash).is_some_and(|owner| owner.step == step)
            && let Some(owner) = self.recall.owners.remove(&hash)
        {
            self.elect(hash, owner.followers);
        }
    }

    /// Of steps that wait for the same answer the first makes it.
    fn elect(&mut self, key: ValueHash, mut followers: VecDeque<StepId>) {
        followers.retain(|step| self.scheduler.is_held(*step));
        if let Some(owner) = self.recall.owners.get_mut(&key) {
            return owner.followers.extend(followers);
        }
        let are_shared = |step: &StepId| self.key_of(*step).is_some_and(|key| key.scope == CacheScope::Shared);
        if followers.iter().all(are_shared)
            && let Some(flight) = self.recall.flights.follow(key)
        {
            let awaited = followers.into_iter().map(|step| follow(step, key, flight.clone()));
            return self.recall.awaited.extend(awaited);
        }
        if let Some(step) = followers.pop_front() {
            self.recall.owners.insert(key, Owner { step, followers });
            self.recall.missed.push_back(step);
        }
    }

    /// What another run's attempt gave for a step that waits for it.
    pub(super) fn landed(&mut self, step: StepId, key: ValueHash, found: Option<Found>) {
        match found {
            Some(found) => self.recall.found.push_back((step, found)),
            None => self.elect(key, VecDeque::from([step])),
        }
    }

    /// After a fold: who owns which answer, and what held steps wait for.
    pub(super) fn own_again(&mut self, leaves: &[(StepId, Key, Arc<NodeCode>)]) {
        let (held, others): (Vec<_>, Vec<_>) = leaves.iter().partition(|(step, ..)| self.scheduler.is_held(*step));
        for (step, key, _) in others {
            self.recall.keys.insert(*step, *key);
            let moves = !matches!(self.scheduler.state(*step), crate::state::State::Backoff);
            if moves && key.scope != CacheScope::Off {
                let owner = Owner { step: *step, followers: VecDeque::new() };
                self.recall.owners.entry(key.hash).or_insert(owner);
            }
        }
        for (step, key, code) in held {
            if !self.recall(*step, Some(*key), code) {
                self.recall.missed.push_back(*step);
            }
        }
    }

    /// The key of a leaf that the log tells of.
    pub(super) fn note_key(&mut self, step: StepId, key: Key) {
        self.recall.keys.insert(step, key);
    }

    /// An answer that the log tells of: what a step of this run paid, or found.
    pub(super) fn know(&mut self, step: StepId, key: ValueHash, value: ValueHash, usage: Usage, found: Option<Found>) {
        let known = match found {
            Some(Found { run, step, usage, .. }) => Known { value, run, step, usage },
            None => Known { value, run: self.journal.run().into(), step: self.scheduler.path(step), usage },
        };
        self.recall.known.entry(key).or_insert(known);
    }
}

fn follow(step: StepId, key: ValueHash, mut flight: Follower) -> Awaited {
    Box::pin(async move { (step, key, flight.landing().await) })
}

/// Milliseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "the driver reads the clock")]
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
