//! Faults that can be planted in the scheduler while the tests run, to see that the simulation finds each of them.
//!
//! A place in the code asks [`is`] whether its fault is on. Without the feature `testing` the answer is a constant `false`, and
//! nothing of it is left in the program.

/// A mistake that a scheduler could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A join counts edges from settled sources, live or not.
    SettledEdgeIsLive,
    /// `join: all` is content with one.
    AllTakesAny,
    /// `join: {quorum}` wants one less.
    QuorumOneLess,
    /// A node runs although something that it requires gave nothing.
    RequiredIsOptional,
    /// A node with a guard is not asked whether it has what it requires.
    GuardInPlaceOfRequired,
    /// What is mentioned from around a group is not required.
    CaptureIsOptional,
    /// A frame whose `output` requires what is not there has a value all the same.
    OutputLacksNothing,
    /// A call goes one deeper than `max_depth`.
    CallGoesDeeper,
    /// The `next` of a recovered node is not evaluated.
    RecoveredLeadsNowhere,
    /// A spent edge is taken once more.
    SpentEdgeIsTaken,
    /// An edge back to an outer loop is not counted.
    OuterEdgeIsFree,
    /// A fork runs its first target only.
    ForkTakesFirst,
    /// `on_error: {to}` leads nowhere.
    ErrorEdgeIsDead,
    /// The edges of a skipped node are live.
    SkippedSourceIsLive,
    /// A `repeat` without `until` does one pass more.
    RepeatOnceMore,
    /// `until` never holds.
    UntilIsIgnored,
    /// A pass with a live exit and a live edge back goes on.
    RepeatBeatsExit,
    /// Who stands outside of a loop sees its first pass.
    FirstPassIsLast,
    /// The items of a sequential map run at once.
    FoldRunsTogether,
    /// What is behind a stopping prefix stays in the list.
    StopKeepsTheRest,
    /// `stop_when` is asked about one item more.
    StopLooksAhead,
    /// `quorum` of a map counts failed items.
    QuorumCountsFailed,
    /// A dropped item stays in its list as null.
    DroppedIsNull,
    /// A loser of a race runs on.
    LoserRunsOn,
    /// The allowance of an attempt is never given back.
    AllowanceLeaks,
    /// One retry is missing.
    RetryOneLess,
    /// A terminal error is tried again.
    TerminalIsRetried,
    /// A cancelled attempt gives its slot back at once.
    CancelledFreesItsSlot,
    /// A failed item ends its map although a shorter prefix may be its value.
    FailureBeforeItsTurn,
    /// `last` reads one pass too early.
    LastIsBeforeLast,
    /// A node of a failed item has a history.
    FailedPassIsVisible,
    /// What took the place of an error is part of the history.
    RecoveredIsVisible,
    /// An attempt that was lost with its driver counts as a retry.
    CutOffIsRetry,
    /// An attempt that was lost with its driver does not begin anew.
    LostIsAwaited,
    /// A cancelled attempt that was lost with its driver keeps its slot.
    LostCancelledIsAwaited,
    /// The same, where its step has begun another one since.
    LostAbandonedIsAwaited,
    /// An attempt that is given up costs nothing.
    GivenUpIsFree,
    /// People are not asked again by the next driver.
    AskedOnce,
    /// The next driver may run as many at once as the first.
    LimitOfTheFirstDriver,
    /// A step that waits for an answer holds a slot.
    HeldTakesASlot,
    /// A held step that is cancelled is still held.
    HeldIsNotLetGo,
    /// A held step that got its answer still counts as one that waits.
    HeldIsCountedOn,
    /// A run whose people have not answered is suspended although an answer is on its way.
    HeldIsSuspended,
    /// A step whose answer was found does its work all the same.
    FoundIsMissed,
}

impl Fault {
    /// All of them.
    pub const ALL: &'static [Fault] = &[
        Fault::SettledEdgeIsLive,
        Fault::AllTakesAny,
        Fault::QuorumOneLess,
        Fault::RequiredIsOptional,
        Fault::GuardInPlaceOfRequired,
        Fault::CaptureIsOptional,
        Fault::OutputLacksNothing,
        Fault::CallGoesDeeper,
        Fault::RecoveredLeadsNowhere,
        Fault::SpentEdgeIsTaken,
        Fault::OuterEdgeIsFree,
        Fault::ForkTakesFirst,
        Fault::ErrorEdgeIsDead,
        Fault::SkippedSourceIsLive,
        Fault::RepeatOnceMore,
        Fault::UntilIsIgnored,
        Fault::RepeatBeatsExit,
        Fault::FirstPassIsLast,
        Fault::FoldRunsTogether,
        Fault::StopKeepsTheRest,
        Fault::StopLooksAhead,
        Fault::QuorumCountsFailed,
        Fault::DroppedIsNull,
        Fault::LoserRunsOn,
        Fault::AllowanceLeaks,
        Fault::RetryOneLess,
        Fault::TerminalIsRetried,
        Fault::CancelledFreesItsSlot,
        Fault::FailureBeforeItsTurn,
        Fault::LastIsBeforeLast,
        Fault::FailedPassIsVisible,
        Fault::RecoveredIsVisible,
        Fault::CutOffIsRetry,
        Fault::LostIsAwaited,
        Fault::LostCancelledIsAwaited,
        Fault::LostAbandonedIsAwaited,
        Fault::GivenUpIsFree,
        Fault::AskedOnce,
        Fault::LimitOfTheFirstDriver,
        Fault::HeldTakesASlot,
        Fault::HeldIsNotLetGo,
        Fault::HeldIsCountedOn,
        Fault::HeldIsSuspended,
        Fault::FoundIsMissed,
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
