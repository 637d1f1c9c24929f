//! Expressions, templates, texts with slots and formulas.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| flowrun::engine::testing::readers::expression_in_scope(text));
