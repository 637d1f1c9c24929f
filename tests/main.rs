//! The one integration binary: the built command, the library and the house rules, tested from outside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop with the place")]

mod bench;
mod book;
mod cassette;
mod cli;
mod commands;
mod compare;
mod cost;
mod crash;
mod diagnostics;
mod docs;
mod embedding;
mod examples;
mod golden;
mod graphs;
mod hostile;
mod http;
mod inputs;
mod methods;
mod model;
mod records;
mod runs;
mod schema;
mod shell;
mod store;
mod terminal;
mod tidy;
