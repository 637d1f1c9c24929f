# Short names for what the scripts do; nothing needs `just`.

# Formatting, lints, documentation and tests.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
    cargo test --workspace --locked

# The simulation against the reference interpreter: `just sim 1000000`.
sim count="20000":
    FLOWRUN_SIM={{count}} cargo test -p flowrun-engine --release --locked --test sim -- --nocapture

# Texts that a fuzzer makes, ten minutes for each reader; without cargo-fuzz and a nightly tool chain the property tests for as long.
fuzz *targets:
    scripts/fuzz {{targets}}

# Runs that are killed at random moments and go on, for long: `just soak 1000`.
soak count="1000":
    FLOWRUN_SOAK={{count}} scripts/soak

# Everything that CI runs.
ci:
    scripts/test

# Rewrite the expected texts of the diagnostics and the sessions of the docs.
update:
    FLOWRUN_UPDATE=1 cargo test --locked --test main -- diagnostics docs

# Licences and advisories; needs cargo-deny.
deny:
    cargo deny check

# The book, in target/book; needs mdbook.
book:
    mdbook build
