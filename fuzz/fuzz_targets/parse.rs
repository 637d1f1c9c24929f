//! Workflow files: read and checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    flowrun::engine::testing::readers::workflow(text);
});
