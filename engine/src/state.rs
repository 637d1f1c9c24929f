//! The states of a step and the only moves between them.
//!
//! ```text
//! Waiting ─► Ready ─► Running ─► Succeeded | Failed | Skipped | Cancelled
//!    │         │        │  ▲
//!    │         │        ▼  │
//!    │         │      Backoff ─► Ready          (between two attempts)
//!    │         ├─► Suspended ─► Succeeded | Failed | Cancelled   (waits for a person; holds no slot)
//!    └─────────┴────────► Skipped | Failed | Cancelled, and Ready ─► Succeeded (a value that needs no run)
//! ```
//!
//! A terminal state is never left. [`State::may_become`] is the whole table; the scheduler's `set` panics on anything else.

use serde::{Deserialize, Serialize};

/// State of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Something that it depends on is not settled, or its guard is being evaluated.
    Waiting,
    /// It may run as soon as there is room.
    Ready,
    /// It runs: a leaf in a slot, or a frame whose steps are not all settled.
    Running,
    /// An attempt failed; the next one waits for its time.
    Backoff,
    /// It waits for a person or a signal.
    Suspended,
    /// It has a value.
    Succeeded,
    /// It failed for good.
    Failed,
    /// It was not needed.
    Skipped,
    /// It was ended from outside.
    Cancelled,
}

impl State {
    /// Every state, in order.
    pub const ALL: [State; 9] = [
        State::Waiting,
        State::Ready,
        State::Running,
        State::Backoff,
        State::Suspended,
        State::Succeeded,
        State::Failed,
        State::Skipped,
        State::Cancelled,
    ];

    /// Whether it is one of the four ends.
    pub fn is_terminal(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Skipped | State::Cancelled)
    }

    /// Whether a step may go from this state to that one.
    pub fn may_become(self, to: State) -> bool {
        use State::*;
        match self {
            Waiting => matches!(to, Ready | Skipped | Failed | Succeeded | Cancelled),
            Ready => matches!(to, Running | Suspended | Succeeded | Failed | Cancelled),
            Running => matches!(to, Succeeded | Failed | Skipped | Cancelled | Backoff),
            Backoff => matches!(to, Ready | Cancelled),
            Suspended => matches!(to, Succeeded | Failed | Cancelled),
            Succeeded | Failed | Skipped | Cancelled => false,
        }
    }

    /// The word used in events, traces and tables.
    pub fn word(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Ready => "ready",
            State::Running => "running",
            State::Backoff => "backoff",
            State::Suspended => "suspended",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Skipped => "skipped",
            State::Cancelled => "cancelled",
        }
    }
}
