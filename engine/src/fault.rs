//! Faults that can be planted in the scheduler while the tests run, to see that the simulation finds each of them.
//!
//! A place in the code asks [`is`] whether its fault is on. Without the feature `testing` the answer is a constant `false`, and
//! nothing of it is left in the program.

/// A mistake that a scheduler could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A join counts edges from settled sources, live or not.
    EdgeCountsWhenSettled,
    /// `join: all` is content with one live edge.
    AllTakesAny,
    /// `join: {quorum}` over edges wants one less.
    JoinQuorumOneLess,
    /// A node runs although something that it requires was skipped.
    RequiredIsOptional,
    /// A name around a group, mentioned inside it, is not required there.
    CapturesAreOptional,
    /// A pass with a live exit and a live edge back goes on.
    RepeatBeatsExit,
    /// A spent edge is taken once more.
    SpentEdgeIsTaken,
    /// How often an edge was taken is never forgotten within the run's innermost frame: a loop entered again finds it spent.
    EdgeOfOuterLoopNotCharged,
    /// `repeat` does one pass more.
    RepeatOncemore,
    /// `until` that does not hold ends the loop.
    UntilIsIgnored,
    /// `last` reads one pass too early.
    LastIsBeforeLast,
    /// A recovered pass is visible in its own history.
    RecoveredIsVisible,
    /// An inner loop's history goes on in the next outer pass.
    FailedPassIsVisible,
    /// A reader outside of a loop sees its first pass.
    OutsideSeesFirstPass,
    /// The prefix that stops is taken one too long.
    StopIsOneLate,
    /// Items behind a stopping prefix are counted in the list.
    StopKeepsTheRest,
    /// `quorum` counts failed items as well.
    QuorumCountsFailed,
    /// A dropped item stays in the list as null.
    DroppedIsNull,
    /// A failed item ends its map although a shorter prefix may stop.
    FailureBeforeItsTurn,
    /// A fork runs only its first target.
    ForkTakesFirst,
    /// The edges of a skipped node are live.
    SkippedSourceIsLive,
    /// `on_error: {to}` leads nowhere.
    ErrorEdgeIsDead,
    /// A terminal error is tried again.
    TerminalIsRetried,
    /// One retry too few.
    RetryOneLess,
    /// The allowance of an attempt is never given back.
    ReservationLeaks,
    /// Cancelled attempts give their slots back at once.
    CancelledFreesItsSlot,
    /// A loser of a race goes on running.
    LoserRunsOn,
    /// A frame is done when one of its steps is not settled.
    SequentialStartsEarly,
    /// A group whose output lacks something gives a value all the same.
    OutputIsNeverMissing,
    /// A call goes one deeper than `max_depth`.
    DepthOneMore,
}

impl Fault {
    /// All of them.
    pub const ALL: &'static [Fault] = &[
        Fault::EdgeCountsWhenSettled,
        Fault::AllTakesAny,
        Fault::JoinQuorumOneLess,
        Fault::RequiredIsOptional,
        Fault::CapturesAreOptional,
        Fault::RepeatBeatsExit,
        Fault::SpentEdgeIsTaken,
        Fault::EdgeOfOuterLoopNotCharged,
        Fault::RepeatOncemore,
        Fault::UntilIsIgnored,
        Fault::LastIsBeforeLast,
        Fault::RecoveredIsVisible,
        Fault::FailedPassIsVisible,
        Fault::OutsideSeesFirstPass,
        Fault::StopIsOneLate,
        Fault::StopKeepsTheRest,
        Fault::QuorumCountsFailed,
        Fault::DroppedIsNull,
        Fault::FailureBeforeItsTurn,
        Fault::ForkTakesFirst,
        Fault::SkippedSourceIsLive,
        Fault::ErrorEdgeIsDead,
        Fault::TerminalIsRetried,
        Fault::RetryOneLess,
        Fault::ReservationLeaks,
        Fault::CancelledFreesItsSlot,
        Fault::LoserRunsOn,
        Fault::SequentialStartsEarly,
        Fault::OutputIsNeverMissing,
        Fault::DepthOneMore,
    ];
}

#[cfg(feature = "testing")]
mod switch {
    use std::cell::Cell;

    use super::Fault;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Whether the fault is planted in this thread.
    pub fn is(fault: Fault) -> bool {
        PLANTED.with(Cell::get) == Some(fault)
    }

    /// Plants a fault in this thread, or takes it out.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.with(|planted| planted.set(fault));
    }
}

#[cfg(feature = "testing")]
pub use switch::{is, plant};

/// Whether the fault is planted: never.
#[cfg(not(feature = "testing"))]
pub const fn is(_: Fault) -> bool {
    false
}
