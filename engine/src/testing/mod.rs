//! What the simulation is made of: random programs, a world that answers for them, and an oracle that runs them naively.
//!
//! A *world* is a set of pure functions of a step's path and of what it saw: whether its guard holds, how many items it has,
//! what its attempts come to. The scheduler is driven through such a world in many orders (`drive.rs`), over the graph that the
//! checker made of the program; the oracle walks the program itself, recursively. Both note what each step saw.
//!
//! `readers.rs` has nothing to do with that: it says what the readers of texts promise, for property tests and fuzz targets.

mod answer;
pub mod drive;
pub mod flow;
pub mod generate;
pub mod oracle;
pub mod prove;
pub mod readers;
pub mod shrink;
pub mod spec;
pub mod world;

/// A small random generator (splitmix64): the same seed gives the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "an endless source, not an iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end` (which is not 0).
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
