//! The flowrun engine: a workflow language, its checker, a pure scheduler and the driver that runs it.
//!
//! Data flows one way: text becomes a [`definition`] with positions ([`source`]), the checker ([`check`]) turns it into
//! an immutable [`graph`], the pure [`scheduler`] decides what happens next, and the driver ([`run`]) does it. The
//! modules below stand in reading order, which is also the order of the layers: none imports from one written later.

pub mod diagnostic;
pub mod failure;
#[doc(hidden)]
pub mod fault;
pub mod id;
pub mod json;
pub mod source;

pub mod calc;
pub mod definition;
pub mod dialect;
pub mod expr;
pub mod retry;
pub mod schema;

pub mod check;
pub mod graph;

pub mod budget;
pub mod event;
pub mod scheduler;
pub mod state;

pub mod cache;
pub mod node;
pub mod observer;
pub mod store;

pub mod run;

#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
