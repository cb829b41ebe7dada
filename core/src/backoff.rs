//! How long to wait before trying again. Pure: the caller brings the chance and does the waiting.

use std::time::Duration;

/// Exponential backoff with full jitter: `random(0, min(base × 2^(attempt − 1), max))`, attempts counted from 1.
///
/// Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after the first attempt.
    pub base: Duration,
    /// The longest wait ever.
    pub max: Duration,
}

impl Backoff {
    /// The wait after attempt number `attempt`, counted from 1. `chance` lies in `0.0..1.0`;
    /// what lies outside is brought to the nearer end.
    #[must_use]
    pub fn delay(&self, attempt: u32, chance: f64) -> Duration {
        self.ceiling(attempt).mul_f64(chance.clamp(0.0, 1.0))
    }

    /// The longest wait after attempt number `attempt`, counted from 1.
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let doubled = 1_u32
            .checked_shl(attempt.saturating_sub(1))
            .and_then(|factor| self.base.checked_mul(factor));
        doubled.map_or(self.max, |wait| wait.min(self.max))
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            max: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ceiling_doubles_until_the_maximum() {
        let backoff = Backoff::default();

        assert_eq!(backoff.ceiling(1), Duration::from_millis(100));
        assert_eq!(backoff.ceiling(2), Duration::from_millis(200));
        assert_eq!(backoff.ceiling(9), Duration::from_millis(25_600));
        assert_eq!(backoff.ceiling(10), Duration::from_secs(30));
        assert_eq!(backoff.ceiling(u32::MAX), Duration::from_secs(30));
    }

    proptest! {
        #[test]
        fn no_wait_exceeds_its_ceiling(attempt in 0..200_u32, chance in -1.0..2.0_f64) {
            let backoff = Backoff::default();

            prop_assert!(backoff.delay(attempt, chance) <= backoff.ceiling(attempt));
        }
    }
}
