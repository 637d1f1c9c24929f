//! Runs of a store in memory: what lists, logs and exports say of them.
