//! Which words mean something: attributes, reserved names, and what the language has that this version does not run.

/// Names that no input and no node may have.
pub const RESERVED: &[&str] = &[
    "this",
    "last",
    "past",
    "item",
    "index",
    "iteration",
    "pass",
    "error",
    "loop",
    "range",
    "null",
    "none",
    "true",
    "false",
];

/// Keys that any node may carry.
pub(crate) const ATTRIBUTES: &[&str] = &[
    "kind",
    "needs",
    "when",
    "for_each",
    "as",
    "max_parallel",
    "samples",
    "join",
    "retry",
    "timeout",
    "on_error",
    "on_item_error",
    "schema",
    "json_schema",
    "output",
    "nodes",
    "limits",
    "allow",
];

/// Keys of nodes that belong to the language and that this version does not run, with what they are for.
const LATER_ATTRIBUTES: &[(&str, &str)] = &[
    ("next", "flowchart edges"),
    ("repeat", "loops"),
    ("stop_when", "early stop"),
    ("sequential", "folds"),
    ("index", "item numbers"),
    ("quorum", "quorums"),
    ("cache", "caching"),
    ("key", "cache keys"),
    ("salt", "cache salts"),
    ("ttl", "cache lifetimes"),
    ("budget", "budgets of single nodes; `budget.calls` at the top counts for the whole run"),
    ("finalize", "a declared best answer"),
    ("priority", "priorities"),
    ("tools", "tools"),
    ("tool", "tools"),
    ("choose", "tools"),
    ("max_depth", "recursive calls"),
    ("on_limit", "loops"),
    ("on_step_error", "failing expansions"),
];

/// Names that only loops, folds and error edges give.
const LATER_NAMES: &[(&str, &str)] = &[
    ("last", "loops"),
    ("past", "loops"),
    ("iteration", "loops"),
    ("pass", "loops"),
    ("index", "item numbers"),
    ("error", "error edges"),
];

/// What an attribute or a name of a later version is for, if it is one.
pub fn later(word: &str) -> Option<&'static str> {
    LATER_ATTRIBUTES.iter().chain(LATER_NAMES).find(|(name, _)| *name == word).map(|(_, what)| *what)
}

/// Whether any node may carry the key.
pub fn is_attribute(key: &str) -> bool {
    ATTRIBUTES.contains(&key)
}
