//! Logs of runs, and what is shown of them.

#![no_main]

#[path = "../../tests/hostile.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|text: &str| hostile::trace(text));
