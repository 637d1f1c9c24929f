//! The one integration binary: the built command, the library and the house rules, tested from outside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop with the place")]

mod cli;
mod diagnostics;
mod graphs;
mod model;
mod terminal;
mod tidy;
