//! When a failed attempt is tried again, and after how long.
//!
//! A policy is data and the decision is arithmetic: no clock and no randomness, so a folded log decides the same again.

use crate::failure::{ErrorClass, StepError};

/// How often, on what and how soon a leaf step is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries after the first attempt.
    pub max: u32,
    /// Classes that are retried.
    pub on: Vec<ErrorClass>,
    /// Delay before the first retry in milliseconds; it doubles with each retry, up to a minute.
    pub backoff_ms: u64,
}

impl RetryPolicy {
    /// Never retry.
    pub const NONE: Self = Self { max: 0, on: Vec::new(), backoff_ms: 1_000 };

    /// The longest delay between two attempts in milliseconds; a server's `Retry-After` beyond it is not waited for.
    pub const DELAY_MAX_MS: u64 = 60_000;

    /// The default of kinds that call a model: two retries when the server or the way to it failed.
    pub fn model() -> Self {
        Self {
            max: 2,
            on: vec![ErrorClass::RateLimit, ErrorClass::Server, ErrorClass::Network, ErrorClass::Timeout],
            backoff_ms: 1_000,
        }
    }

    /// The delay in milliseconds before the next attempt, or `None` if the error stands. `retries` counts those already made.
    pub fn delay_ms(&self, error: &StepError, retries: u32) -> Option<u64> {
        if retries >= self.max || !self.on.contains(&error.class) {
            return None;
        }
        match error.retry_after_ms {
            Some(asked) if asked > Self::DELAY_MAX_MS => None,
            Some(asked) => Some(asked),
            None => Some(self.backoff_ms.saturating_mul(1 << retries.min(16)).min(Self::DELAY_MAX_MS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_delay_and_obeys_the_server() {
        let policy = RetryPolicy { max: 9, ..RetryPolicy::model() };
        let error = StepError::new("http_503", ErrorClass::Server, "busy");
        let delays: Vec<_> = (0..9).map(|n| policy.delay_ms(&error, n)).collect();
        assert_eq!(delays[..3], [Some(1_000), Some(2_000), Some(4_000)]);
        assert_eq!(delays[8], Some(60_000));
        assert_eq!(policy.delay_ms(&error, 9), None);
        let told = error.clone().retry_after(Some(7));
        assert_eq!(policy.delay_ms(&told, 0), Some(7));
        let too_long = error.retry_after(Some(3_600_000));
        assert_eq!(policy.delay_ms(&too_long, 0), None);
        assert_eq!(policy.delay_ms(&StepError::new("http_401", ErrorClass::Terminal, "no"), 0), None);
    }
}
