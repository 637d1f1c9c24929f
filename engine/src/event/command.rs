//! What the core wants done: the other half of its contract.

use super::{DecideField, TimerKind};
use crate::id::StepId;

/// What the scheduler asks of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Evaluate a field and answer with [`Event::Decided`](super::Event::Decided), before anything else happens.
    Decide {
        /// Which step.
        step: StepId,
        /// Which field.
        field: DecideField,
    },
    /// Run an attempt and answer with [`Event::Settled`](super::Event::Settled).
    Start {
        /// Which step.
        step: StepId,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// A person is asked; answered with [`Event::Answered`](super::Event::Answered), if ever.
    Ask {
        /// Which step.
        step: StepId,
    },
    /// Stop an attempt; its [`Event::Settled`](super::Event::Settled) is still awaited.
    Cancel {
        /// Which step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
    },
    /// Answer with [`Event::Timer`](super::Event::Timer) after a while.
    Timer {
        /// Which step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// What for.
        timer: TimerKind,
        /// How long, in milliseconds.
        delay_ms: u64,
    },
    /// The run is over.
    End,
}
