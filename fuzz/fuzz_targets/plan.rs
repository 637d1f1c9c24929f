//! Plans of models, from the reply on.

#![no_main]

use flowrun::engine::testing::readers;

libfuzzer_sys::fuzz_target!(|reply: &str| {
    if let Ok(plan) = flowrun::nodes::read_structured(reply, &flowrun::Schema::any()) {
        readers::plan_value(&plan);
    }
});
