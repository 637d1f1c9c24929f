//! Attempts: their futures, how they begin, what they come to.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use tracing::Instrument;

use super::drive::Driver;
use super::input::constant_input;
use super::recall::Key;
use super::spans;
use crate::cache::{Follower, Found, Leader};
use crate::definition::CacheScope;
use crate::event::{AttemptReport, Event, TimerKind};
use crate::failure::StepError;
use crate::id::StepId;
use crate::node::{NodeContext, NodeError, Output};

pub(super) type AttemptId = (StepId, u32);

/// What came of an attempt.
pub(super) enum Attempted {
    /// It ran; others may wait for what its leader has to say.
    Ran(Result<Output, NodeError>, Option<Leader>),
    /// Somebody else made the answer before it began.
    Found(Found),
}

/// One attempt in flight.
pub(super) struct Attempt {
    id: AttemptId,
    /// `None` once it was given up: whatever it held is dropped, and nothing will come of it.
    work: Option<Pin<Box<dyn Future<Output = Attempted> + Send>>>,
    /// Under which its answer is kept.
    key: Option<Key>,
}

impl Future for Attempt {
    type Output = (AttemptId, Option<Key>, Attempted);

    /// A panic of the node's code is an error of its step, never of the run loop.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (id, key) = (self.id, self.key);
        let Some(work) = &mut self.work else { return Poll::Pending };
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(polled) => polled.map(|result| (id, key, result)),
            Err(panic) => Poll::Ready((id, key, Attempted::Ran(Err(panicked(&*panic).into()), None))),
        }
    }
}

impl Driver {
    pub(super) fn start(&mut self, step: StepId, attempt: u32) {
        if self.scheduler.state(step).is_terminal() {
            // While its beginning waited to be kept, something ended the step.
            return self.finished.push_back((
                (step, attempt),
                None,
                stopped("it was told to stop before it had begun"),
            ));
        }
        let code = self.scheduler.node(step).expect("BUG: the root was started").code.clone();
        let key = self.key_of(step).or_else(|| self.bare_key(step, &code));
        if let Some(found) = self.remembered_late(step, key) {
            return self.finished.push_back(((step, attempt), key, Attempted::Found(found)));
        }
        let flight = self.join(key);
        let follows = matches!(flight, Some(Err(_)));
        if let Some(found) = self.kept_late(attempt, key, &code).filter(|_| !follows) {
            // Whoever has come to follow meanwhile has it too.
            flight.into_iter().flatten().for_each(|leader| leader.landed(found.clone()));
            return self.finished.push_back(((step, attempt), key, Attempted::Found(found)));
        }
        let node = self.scheduler.node(step).expect("BUG: the root was started");
        let kind = self.kinds.node(&node.code.kind).cloned();
        let kind_name = || node.code.kind.clone();
        let missing = kind.is_none().then(kind_name);
        let again = node.retry.max > 0;
        let context = Arc::new(NodeContext {
            path: self.scheduler.path(step),
            attempt,
            sample: self.scheduler.sample(step),
            run: self.context.clone(),
            cancelled: OnceLock::new(),
        });
        let input = match node.has_input {
            true if again => self.rendered.get(&step).cloned(),
            true => self.rendered.swap_remove(&step),
            false => Some(constant_input(&node.code)),
        };
        let input = input.expect("BUG: a start without its input");
        let stop = context.clone();
        let work = async move {
            let leader = match flight {
                Some(flight) => match lead(flight, &context).await {
                    Ok(leader) => Some(leader),
                    Err(ended) => return ended,
                },
                None => None,
            };
            let running = async {
                match kind {
                    Some(kind) => kind.run(&context, input).await,
                    None => {
                        let name = missing.unwrap_or_default();
                        Err(StepError::terminal("no_kind", format!("no implementation of the kind `{name}`")).into())
                    }
                }
            };
            Attempted::Ran(spans::attempt(running).await, leader)
        };
        let span = spans::step(&stop, &node.code.kind);
        let work: Pin<Box<dyn Future<Output = Attempted> + Send>> =
            if span.is_disabled() { Box::pin(work) } else { Box::pin(work.instrument(span)) };
        let mut work = Attempt { id: (step, attempt), work: Some(work), key };
        // Whoever has to wait is polled once more, by the loop, before anything else is awaited: no wake-up can be lost.
        match Pin::new(&mut work).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ended) => self.finished.push_back(ended),
            Poll::Pending => {
                self.flights.insert((step, attempt), stop);
                self.attempts.push(work);
            }
        }
    }

    /// The event for an attempt that ended.
    pub(super) fn settled(&mut self, (step, attempt): AttemptId, key: Option<Key>, result: Attempted) -> Event {
        self.flights.swap_remove(&(step, attempt));
        let (result, leader) = match result {
            Attempted::Found(found) => return self.found_event(step, attempt, found, self.undecided(step, key)),
            Attempted::Ran(result, leader) => (result, leader),
        };
        let (result, usage, provenance) = match result {
            Ok(output) => (Ok(output.value), output.usage, output.provenance),
            Err(failed) => (Err(failed.error), failed.usage, failed.provenance),
        };
        let result = result.and_then(|value| self.values.store_output(value));
        let provenance = provenance.map(|report| self.values.store(report));
        if let (Ok(value), Some(key)) = (&result, key) {
            let code = self.scheduler.node(step).expect("BUG: the root was started").code.clone();
            let paid = self.paid(step, key, *value, usage, &code);
            if let Some((leader, found)) = leader.zip(paid) {
                leader.landed(found);
                // Within the run the answer is known from now on.
                if key.scope == CacheScope::Shared {
                    self.journal.hold(leader);
                }
            }
        }
        Event::Settled {
            step,
            attempt,
            result,
            report: AttemptReport { usage, provenance, key: self.undecided(step, key) }.boxed(),
        }
    }

    /// The event of the first timer; an attempt whose grace is over is given up.
    pub(super) fn next_timer(&mut self) -> Event {
        let (_, step, attempt, timer) = self.timers.pop_first().expect("BUG: a timer ran out and is not there");
        let event = Event::Timer { step, attempt, timer };
        if timer == TimerKind::Grace && self.scheduler.accepts(&event) {
            self.flights.swap_remove(&(step, attempt));
            let given_up = self.attempts.iter_mut().find(|given_up| given_up.id == (step, attempt));
            given_up.expect("BUG: a flight without its attempt").work = None;
        }
        event
    }
}

/// Leads the attempts under a key, or waits for the one that does; who has failed is followed by the next. What is cancelled
/// meanwhile has asked nobody.
async fn lead(flight: Result<Leader, Follower>, context: &NodeContext) -> Result<Leader, Attempted> {
    let mut follower = match flight {
        Ok(leader) => return Ok(leader),
        Err(follower) => follower,
    };
    loop {
        tokio::select! {
            biased;
            landing = follower.landing() => match (landing, follower.take_over()) {
                (Some(found), _) => return Err(Attempted::Found(found)),
                (None, Some(leader)) => return Ok(leader),
                (None, None) => {}
            },
            () = context.cancelled().cancelled() => {
                return Err(stopped("it was told to stop while another attempt asked the same"));
            }
        }
    }
}

/// The end of an attempt that asked nobody.
fn stopped(why: &str) -> Attempted {
    Attempted::Ran(Err(StepError::terminal("cancelled", why).into()), None)
}

fn panicked(payload: &(dyn std::any::Any + Send)) -> StepError {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned());
    StepError::terminal("panic", format!("the node's code panicked: {text}"))
}
