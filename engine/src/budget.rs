//! Run-wide quantities as reservations: taken before the call, so that a budget is never exceeded by surprise.
//!
//! An attempt reserves the most calls it may make; when it ends, what it made is spent and the rest is released.

/// The budget of a run in model calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    calls_max: Option<u64>,
    spent: u64,
    reserved: u64,
}

impl Budget {
    /// A budget of at most `calls_max` calls; `None`: no bound.
    pub fn new(calls_max: Option<u64>) -> Self {
        Self { calls_max, spent: 0, reserved: 0 }
    }

    /// Whether an allowance fits now.
    pub fn fits(&self, calls: u32) -> bool {
        self.calls_max.is_none_or(|max| self.spent + self.reserved + u64::from(calls) <= max)
    }

    /// Whether an allowance could fit if everything reserved were released.
    pub fn may_fit(&self, calls: u32) -> bool {
        self.calls_max.is_none_or(|max| self.spent + u64::from(calls) <= max)
    }

    /// Takes an allowance.
    pub fn reserve(&mut self, calls: u32) {
        self.reserved += u64::from(calls);
    }

    /// Gives an allowance back and books what was used of it.
    pub fn settle(&mut self, allowance: u32, used: u64) {
        self.reserved -= u64::from(allowance);
        self.spent += used;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_counts_until_it_is_settled() {
        let mut budget = Budget::new(Some(4));
        budget.reserve(3);
        assert!(budget.fits(1) && !budget.fits(2) && budget.may_fit(4));
        budget.settle(3, 1);
        assert!(budget.fits(3) && !budget.fits(4) && !budget.may_fit(4));
        assert!(Budget::new(None).fits(u32::MAX));
    }
}
